"""The causal family on a model made here in seconds: learned, certified and answering, gone on with after a kill, the
same from the same seed, and what it refuses. Skips where its packages are not installed (`make llm`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from suffice.core.contracts import covers
from suffice.core.errors import ArtefactError, BudgetSpent, InputError
from suffice.core.types import Choice, Example, Fields, Many, Recipe, Span, Text, ToolCall, TrainSet, TuneSet
from suffice.core.values import Value

for package in ("torch", "transformers", "trl", "peft", "gguf", "llguidance", "xllamacpp"):
    pytest.importorskip(package, reason=f"{package} is not installed: make llm")

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

import tiny_base  # noqa: E402
from e2e_support import Gateway  # noqa: E402

from suffice.specialists import causal_base, causal_store  # noqa: E402
from suffice.specialists.causal import CausalFamily, CausalSpecialist  # noqa: E402
from suffice.specialists.causal_store import ADAPTER, MODEL, SETTINGS, Settings  # noqa: E402
from suffice.store.artefacts import digest_of_files  # noqa: E402

RUN = ("--recipe", "causal", "--max-error", "0.05", "--confidence", "0.9")
Cli = Callable[..., tuple[int, list[Any], str]]


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base.make(tmp_path_factory.mktemp("base") / "tiny")


def replies(n: int, seed: int) -> list[tuple[str, Value]]:
    return [(text, tiny_base.REPLY.format(**said)) for text, said in tiny_base.orders(n, seed)]


def examples(rows: list[tuple[str, Value]], prefix: str, **more: Any) -> list[Example]:
    return [
        Example(id=f"{prefix}{i}", input=text, output=value, has_output=True, **more)
        for i, (text, value) in enumerate(rows)
    ]


def quiet(what: str, share: float) -> None:
    assert what and 0 <= share <= 1


def fitted(
    base: Path, bases: Path, scratch: Path | None = None, progress: Callable[[str, float], None] = quiet, **params: Any
) -> CausalSpecialist:
    recipe = Recipe(family="causal", params={"bits": 8, "steps": 40, **params})
    train, tune = TrainSet(examples(replies(200, 1), "a")), TuneSet(examples(replies(24, 2), "t"))
    return CausalFamily(str(base), bases).fit(recipe, Text(), train, tune, progress, scratch)


def digest(specialist: CausalSpecialist, folder: Path) -> str:
    folder.mkdir()
    specialist.save(folder)
    return digest_of_files(folder)


# ---------------------------------------------------------------------------------------------- end to end


@pytest.fixture(scope="module")
def learned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home that has learned `reply` from the command line, and what that said."""
    folder = tmp_path_factory.mktemp("learned")
    home = folder / "home"
    home.mkdir()
    (home / "suffice.toml").write_text(f'[learn]\ncausal = "{base}"\n')
    rows = [json.dumps({"input": text, "output": reply}) for text, reply in replies(1_400, 3)]
    (folder / "data.jsonl").write_text("\n".join(rows))
    command = [sys.executable, "-m", "suffice.cli.main", "learn", "reply", "--data", str(folder / "data.jsonl"), *RUN]
    done = subprocess.run([*command, "--home", str(home), "--json"], capture_output=True, check=False)
    assert done.returncode in (0, 1), done.stderr.decode()
    return home, json.loads(done.stdout)


def test_replies_are_learned_and_certified(learned: tuple[Path, dict[str, Any]]) -> None:
    home, document = learned
    assert document["release"] == "reply@1", (document["reasons"], document["candidates"])
    assert document["coverage"]["value"] > 0.3
    assert [row["recipe"].rpartition("bits=")[2] for row in document["candidates"]] == ["4)", "8)"]
    files = {path.name for path in next((home / "releases").iterdir()).iterdir()}
    assert files == {MODEL, *ADAPTER, SETTINGS, causal_store.TENSORS}


def test_what_is_answered_is_mostly_right_and_what_is_not_like_it_escalates(
    learned: tuple[Path, dict[str, Any]], cli: Cli, written: Callable[..., Path], tmp_path: Path
) -> None:
    shutil.copytree(learned[0], tmp_path / "home")
    fresh = replies(60, 4)
    asked = written([{"input": text} for text in [*(text for text, _ in fresh), "w " * 200]])
    code, answers, _ = cli("answer", "reply", asked)
    assert code == 0
    given = [(line, right) for line, (_, right) in zip(answers, fresh, strict=False) if line["accepted"]]
    assert len(given) >= 10
    assert sum(line["output"] == right for line, right in given) >= 0.8 * len(given)
    assert not answers[-1]["accepted"]  # longer than the context


def test_it_answers_over_http_as_answer_does(
    learned: tuple[Path, dict[str, Any]], cli: Cli, written: Callable[..., Path], tmp_path: Path
) -> None:
    home = Path(shutil.copytree(learned[0], tmp_path / "home"))
    assert cli("stage", "reply", "live")[0] == 0
    inputs = [text for text, _ in replies(12, 5)]
    _, told, _ = cli("answer", "reply", written([{"input": text} for text in inputs]))
    assert any(line["accepted"] for line in told)
    gateway = Gateway(home)
    try:
        for text, line in zip(inputs, told, strict=True):
            answer = gateway.client().chat.completions.with_raw_response.create(
                model="any", messages=[{"role": "user", "content": text}],
                extra_headers={"X-Suffice-Task": "reply", "X-Suffice-Route": "specialist"},
            ) if line["accepted"] else None  # fmt: skip
            if answer is not None:
                assert answer.headers["x-suffice-release"] == "reply@1"
                assert answer.parse().choices[0].message.content == line["output"]
    finally:
        gateway.close()


# ---------------------------------------------------------------------------------------------- fits


def test_the_same_seed_gives_the_same_files_also_after_an_interruption(base: Path, tmp_path: Path) -> None:
    whole = digest(fitted(base, tmp_path / "bases"), tmp_path / "whole")

    def until_half(what: str, share: float) -> None:
        if what.startswith("fine-tuning") and share > 0.4:
            raise BudgetSpent("enough")

    scratch = tmp_path / "scratch"
    scratch.mkdir()
    with pytest.raises(BudgetSpent):
        fitted(base, tmp_path / "bases", scratch, until_half)
    assert list(scratch.glob("supervised/checkpoint-*"))
    seen: list[float] = []

    def later(what: str, share: float) -> None:
        if what.startswith("fine-tuning"):
            seen.append(share)

    again = fitted(base, tmp_path / "bases", scratch, later)
    assert min(seen) > 0.4  # it went on, it did not begin again
    assert digest(again, tmp_path / "again") == whole
    once_more: list[str] = []
    fitted(base, tmp_path / "bases", scratch, lambda what, share: once_more.append(what))
    assert not [what for what in once_more if what.startswith("fine-tuning")]  # what was tuned is kept


def test_what_is_loaded_answers_as_what_was_fitted(base: Path, tmp_path: Path) -> None:
    made = fitted(base, tmp_path / "bases")
    folder = tmp_path / "saved"
    digest(made, folder)
    inputs = [text for text, _ in replies(12, 7)] + ["", "<|im_end|>", "Ω" * 5_000]
    loaded = CausalFamily(None, tmp_path).load(folder)
    assert loaded.predict(inputs) == made.predict(inputs)
    assert loaded.predict(inputs[:1]) == loaded.predict(inputs)[:1]
    assert loaded.predict(inputs)[-1].value is None and loaded.predict(inputs)[-1].score == 0
    (folder / MODEL).write_bytes((folder / MODEL).read_bytes()[:100_000])
    with pytest.raises(ArtefactError, match=r"llama\.cpp cannot load"):
        CausalFamily(None, tmp_path).load(folder)


def test_json_keeps_to_the_contract_even_untuned(base: Path, tmp_path: Path) -> None:
    contract = Many(Fields((("thing", Span()), ("state", Choice(("late", "lost"))))))
    rows: list[tuple[str, Value]] = [
        (text, [{"thing": said["thing"], "state": "late"}]) for text, said in tiny_base.orders(40, 1)
    ]
    recipe = Recipe(family="causal", params={"bits": 8, "steps": 0})
    train, tune = TrainSet(examples(rows, "a")), TuneSet(examples(rows[:8], "t"))
    made = CausalFamily(str(base), tmp_path).fit(recipe, contract, train, tune, quiet)
    for found in made.predict([text for text, _ in rows[8:20]]):
        assert found.value is None or covers(contract, found.value)


def test_corrections_by_people_are_preferred_and_long_rows_counted(
    base: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    wrong: list[Example] = [
        Example(id=f"c{i}", input=text, output="No.", has_output=True, reference=reply, has_reference=True)
        for i, (text, reply) in enumerate(replies(40, 1))
    ]
    long = examples([("word " * 300, "Yes.")], "long")
    recipe = Recipe(family="causal", params={"bits": 8, "steps": 5, "preference_steps": 3})
    told: list[str] = []
    made = CausalFamily(str(base), tmp_path).fit(
        recipe, Text(), TrainSet([*wrong, *long]), TuneSet([]), lambda what, share: told.append(what)
    )
    digest(made, tmp_path / "saved")
    settings = msgspec.json.decode((tmp_path / "saved" / SETTINGS).read_bytes(), type=Settings)
    assert (settings.counts.rows, settings.counts.too_long, settings.counts.preferences) == (40, 1, 40)
    assert any(what.startswith("preferring 40 corrections (cpu)") for what in told)
    assert "1 of 41 rows are too long" in caplog.text


# ---------------------------------------------------------------------------------------------- refusals


def test_it_leaves_to_smaller_families_what_they_read_unless_it_is_named(tmp_path: Path) -> None:
    by_itself, named = CausalFamily(None, tmp_path, wanted=False), CausalFamily(None, tmp_path)
    labels = Choice(("a", "b"))
    assert by_itself.supports(labels) == (
        "smaller families read such answers off the input; --recipe causal tries it all the same"
    )
    assert named.supports(labels) is None
    assert by_itself.supports(Text()) is None and by_itself.supports(Many(Fields((("a", Span()),)))) is None
    assert named.supports(ToolCall((), offered=True)) == "each request offers tools of its own."


def test_a_base_that_cannot_be_used_is_told_in_a_sentence(base: Path, tmp_path: Path) -> None:
    def copy(name: str) -> Path:
        return Path(shutil.copytree(base, tmp_path / name))

    def refused(folder: str | Path, message: str) -> None:
        with pytest.raises(InputError, match=message) as caught:
            causal_base.load(causal_base.made(str(folder), tmp_path / "bases", quiet))
        assert "\n" not in str(caught.value)

    mute = copy("mute")
    (mute / "chat_template.jinja").unlink()
    refused(mute, "has no chat template")
    cut = copy("cut")
    weights = cut / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:50_000])
    refused(cut, "cannot be loaded")
    empty = tmp_path / "empty"
    empty.mkdir()
    refused(empty, "has no config.json")
    gguf = tmp_path / "cut.gguf"
    packaged = causal_base.named(None)
    assert packaged is not None
    with packaged.open("rb") as file:
        gguf.write_bytes(file.read(3_000_000))
    refused(gguf, "is not a whole GGUF file")
    refused(tmp_path / "nowhere", "is neither a folder with a model nor a GGUF file")
    with pytest.raises(InputError, match="are longer than the 20 tokens"):
        fitted(base, tmp_path / "bases", longest=20)
