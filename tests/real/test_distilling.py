"""Tuning on the frontier's token probabilities, on a model made here in seconds: its tokens become the base's, they
move the model, and imported chat rows bring them. Skips where its packages are not installed (`make llm`)."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

for package in ("torch", "transformers", "trl", "peft", "gguf", "llguidance", "xllamacpp"):
    pytest.importorskip(package, reason=f"{package} is not installed: make llm")

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

import tiny_base  # noqa: E402

from suffice.core.chances import packed, unpacked  # noqa: E402
from suffice.core.types import Text  # noqa: E402
from suffice.specialists import causal_base, causal_tune  # noqa: E402
from suffice.specialists.causal_held import Held  # noqa: E402
from suffice.specialists.causal_soft import softened  # noqa: E402
from suffice.specialists.causal_text import Prompting, prompting  # noqa: E402
from suffice.specialists.causal_tune import Pair, Tuning  # noqa: E402
from suffice.specialists.runtimes.transformers_ import Transformers  # noqa: E402

Cli = Callable[..., tuple[int, list[Any], str]]
OTHER = 0.4
"""What the frontier gives to another word than the one that it writes."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.make(tmp_path_factory.mktemp("base") / "tiny")


def pieces(said: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    """A reply as tokens of the frontier's, which are other than the base's; it is unsure of one word."""
    before, after = tiny_base.REPLY.format(**said).split(" way")
    sure = [before[at : at + 7] for at in range(0, len(before), 7)]
    unsure = {" way": math.log(1 - OTHER), " their": math.log(OTHER)}
    return [*((text, {text: 0.0}) for text in sure), (" way", unsure), (after, {after: 0.0})]


def asked(tokenizer: Any) -> Prompting:
    def render(instruction: str, text: str) -> str:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    return prompting(Text(), render, tokenizer.all_special_tokens)


def test_tokens_of_the_frontier_become_those_of_the_base(base: Path) -> None:
    _, tokenizer = causal_base.load(base)

    def soft(answer: str, told: list[tuple[str, dict[str, float]]]) -> list[tuple[str, dict[str, float]]]:
        ids = tokenizer(answer, add_special_tokens=False)["input_ids"]
        data = packed(told)
        assert data is not None
        return [
            (
                tokenizer.decode([ids[each.place]]),
                {tokenizer.decode([t]): round(p, 3) for t, p in zip(each.tokens, each.shares, strict=True)},
            )
            for each in softened(tokenizer, answer, ids, unpacked(data))
        ]

    half = math.log(0.5)
    assert soft("to Paris", [("to", {"to": 0.0}), (" Paris", {" Paris": half, " Rome": half})]) == [
        (" Paris", {" Paris": 0.5, " Rome": 0.5})
    ]
    # What the base cannot write as one token is left out, and the rest made one.
    assert soft("to Paris", [("to", {"to": 0.0}), (" Paris", {" Paris": half, " Rome": -1.7, " Timbuktu": -2.0})]) == [
        (" Paris", {" Paris": 0.732, " Rome": 0.268})
    ]
    # JSON that the frontier wrote with spaces, in another order of white space than the base is taught.
    spaced = [
        ('{"city": ', {'{"city": ': 0.0}),
        ('"', {'"': 0.0}),
        (" Oslo", {" Oslo": half, " Rome": half}),
        ('"\n}', {'"\n}': 0.0}),
    ]
    assert soft('{"city":" Oslo"}', spaced) == [(" Oslo", {" Oslo": 0.5, " Rome": 0.5})]
    # Another answer than that which the tokens spell, and a token longer than the frontier's.
    assert soft("something else entirely", [(" Paris", {" Paris": half, " Rome": half})]) == []
    assert soft(" Paris", [(" Pa", {" Pa": half, " Ro": half}), ("ris", {"ris": 0.0})]) == []


def test_probabilities_move_towards_the_frontiers(base: Path, tmp_path: Path) -> None:
    def tuned(told: bool) -> tuple[float, causal_tune.Tuned]:
        model, tokenizer = causal_base.load(base)
        ask = asked(tokenizer)
        pairs = []
        for text, said in tiny_base.orders(160, 1):
            pairs.append(Pair(ask.of(text), tiny_base.REPLY.format(**said), packed(pieces(said)) if told else None))
        folder = tmp_path / str(told)
        (folder / "adapter").mkdir(parents=True)
        done = causal_tune.tune(
            model, tokenizer, pairs, [], Tuning(steps=160, epochs=8), folder / "adapter", lambda *_: None, folder
        )
        from peft import PeftModel

        model, _ = causal_base.load(base)
        runtime = Transformers(PeftModel.from_pretrained(model, str(folder / "adapter")).eval(), tokenizer, context=128)
        shares = []
        for text, said in tiny_base.orders(20, 2):
            before = tiny_base.REPLY.format(**said).partition(" way")[0]
            own, other = (
                math.exp(*runtime.thought(ask.of(text) + before, runtime.tokens(word)).logprobs)
                for word in (" way", " their")
            )
            shares.append(other / (own + other))
        return float(np.mean(shares)), done

    hard, plain = tuned(False)
    soft, distilled = tuned(True)
    assert (plain.told, distilled.told) == (0, 160)
    # Half of the loss goes by the frontier's: what is aimed at is half of what it gave the other word.
    assert soft > hard + 0.05 and abs(soft - OTHER / 2) < abs(hard - OTHER / 2)


def test_the_best_look_is_kept_and_a_run_that_only_gets_worse_ends(base: Path, tmp_path: Path) -> None:
    model, tokenizer = causal_base.load(base)
    ask = asked(tokenizer)
    pairs = [Pair(ask.of(text), tiny_base.REPLY.format(**said)) for text, said in tiny_base.orders(80, 1)]
    held = [Pair(ask.of(text), tiny_base.REPLY.format(**said)) for text, said in tiny_base.orders(16, 2)]
    (tmp_path / "adapter").mkdir()
    done = causal_tune.tune(
        model, tokenizer, pairs, [], Tuning(steps=40, epochs=4, rate=3.0),
        tmp_path / "adapter", lambda *_: None, tmp_path, held=held,
    )  # fmt: skip
    best = min(done.looks, key=lambda look: look.loss)
    assert done.looks[-1].step < 40 and best.step < done.looks[-1].step
    from peft import PeftModel

    fresh, _ = causal_base.load(base)
    kept = PeftModel.from_pretrained(fresh, str(tmp_path / "adapter"))
    rows = [causal_tune._row(tokenizer, pair) for pair in held]
    again = Held(rows, tmp_path / "again", 8)
    again.look(kept, best.step)
    assert [look.loss for look in again.looks] == [pytest.approx(best.loss, rel=0.02)]


def test_from_imported_chat_rows_to_a_model(base: Path, cli: Cli, tmp_path: Path) -> None:
    lines = []
    for number, (text, said) in enumerate(tiny_base.orders(420, 3)):
        listed = [
            {"token": piece, "logprob": likely[piece], "bytes": list(piece.encode()),
             "top_logprobs": [{"token": t, "logprob": p, "bytes": list(t.encode())} for t, p in likely.items()]}
            for piece, likely in pieces(said)
        ]  # fmt: skip
        message = {"role": "assistant", "content": "".join(piece for piece, _ in pieces(said))}
        choice = {"index": 0, "message": message, "logprobs": {"content": listed}, "finish_reason": "stop"}
        request = {"model": "m", "messages": [{"role": "user", "content": text}], "logprobs": True, "top_logprobs": 5}
        lines.append(
            json.dumps({"request": request, "response": {"id": f"c{number}", "model": "m", "choices": [choice]}})
        )
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    (tmp_path / "home").mkdir(exist_ok=True)
    (tmp_path / "home" / "suffice.toml").write_text(f'[learn]\ncausal = "{base}"\n')
    assert cli("import", tmp_path / "rows.jsonl", "--task", "reply")[0] == 0
    code, (document,), _ = cli("learn", "reply", "--recipe", "causal", "--max-error", "0.2", "--confidence", "0.9")
    assert code in (0, 1) and len(document["candidates"]) == 2, document
    assert all(row["accuracy"] is not None for row in document["candidates"])
