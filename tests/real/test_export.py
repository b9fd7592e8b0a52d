"""Exported graphs against the specialists they were made of, for each kind of contract, on texts that nobody writes."""

from __future__ import annotations

import random
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("onnx", reason="an export needs onnx: `make encoders`")
pytest.importorskip("onnxruntime", reason="an export needs onnxruntime: `make encoders`")
sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parents[1] / "e2e")]

from export_support import ODD, odd_texts  # noqa: E402

from suffice.core.contracts import refusal  # noqa: E402
from suffice.core.errors import InputError  # noqa: E402
from suffice.core.protocols import Specialist  # noqa: E402
from suffice.core.style import Style  # noqa: E402
from suffice.core.types import (  # noqa: E402
    Certificate,
    Choice,
    Choices,
    Draft,
    Example,
    Fields,
    OutputContract,
    Recipe,
    Span,
    Text,
    Threshold,
    ToolCall,
    TrainSet,
    TuneSet,
)
from suffice.core.values import Value  # noqa: E402
from suffice.specialists.exporting import browser, copied, package  # noqa: E402
from suffice.specialists.exporting.compiled import compiled  # noqa: E402
from suffice.specialists.linear import LinearFamily  # noqa: E402
from suffice.specialists.linear_model import LinearSpecialist  # noqa: E402
from suffice.specialists.nearest import NearestFamily  # noqa: E402

ORT = Path(__file__).parents[1] / "clients" / "node" / "node_modules" / "onnxruntime-web"
PLACES = ("Boston", "Oslo", "Lima")
THINGS = {
    "weather": ("will it rain in {}", "how warm is it in {}", "is there snow in {} now"),
    "travel": ("book a train to {}", "I need a flight to {}", "find me a bus to {}"),
    "food": ("a table for two in {}", "where to eat in {}", "order a pizza in {}"),
}
ASIDES = ("please", "today", "if you can", "thanks", "quickly", "my friend", "again", "hello", "tomorrow", "")
FEW = Fields((("thing", Choice(tuple(THINGS))), ("place", Choice((*PLACES, None)))))

CONTRACTS: dict[str, tuple[OutputContract, Callable[[str, str], Value]]] = {
    "choice of three": (Choice(tuple(THINGS)), lambda thing, place: thing),
    "choice of two": (Choice((True, False)), lambda thing, place: place == "Oslo"),
    "labels": (Choices((*THINGS, *PLACES, "never"), most=2), lambda thing, place: [thing, place]),
    "fields": (FEW, lambda thing, place: {"thing": thing} if place == "Lima" else {"thing": thing, "place": place}),
    "calls": (
        ToolCall((("go", Fields((("to", Choice(PLACES)),))), ("eat", Fields((("at", Choice(PLACES)),)))), True),
        lambda thing, place: {"tool_calls": [{"name": "go", "arguments": {"to": place}}] if thing == "travel"
                              else [{"name": "eat", "arguments": {"at": place}}] if thing == "food" else []},
    ),
}  # fmt: skip


def rows(n: int, seed: int) -> list[tuple[str, str, str]]:
    dice = random.Random(seed)
    found = []
    for _ in range(n):
        thing, place = dice.choice(sorted(THINGS)), dice.choice(PLACES)
        text = f"{dice.choice(ASIDES)} {dice.choice(THINGS[thing]).format(place)} {dice.choice(ASIDES)}"
        found.append((text.strip(), thing, dice.choice(PLACES) if dice.random() < 0.1 else place))
    return found


def examples(n: int, seed: int, say: Callable[[str, str], Value]) -> list[Example]:
    return [
        Example(id=f"{seed}-{at}", input=text, output=say(thing, place), has_output=True)
        for at, (text, thing, place) in enumerate(rows(n, seed))
    ]


def made(contract: OutputContract, say: Callable[[str, str], Value], folder: Path) -> LinearSpecialist:
    family = LinearFamily()
    recipe = family.recipes(0)[0]
    train, tune = TrainSet(examples(500, 0, say)), TuneSet(examples(250, 1, say))
    specialist = family.fit(recipe, contract, train, tune, lambda what, share: None)
    specialist.save(folder)
    assert isinstance(specialist, LinearSpecialist)
    return specialist


def draft(contract: OutputContract, threshold: float) -> Draft:
    proof = Certificate(
        max_error=0.02, confidence=0.95, attempt=1, delta=0.05, n=100, method="exact", p_value=0.01,
        threshold=threshold, coverage=0.5, promise="agreement", reference="frontier",
    )  # fmt: skip
    return Draft(
        task="t", recipe=Recipe(family="linear"), contract=contract, dataset="d", artefact="a",
        threshold=Threshold(score=threshold, certificate=proof),
    )  # fmt: skip


@pytest.mark.parametrize("kind", CONTRACTS)
def test_every_text_is_answered_and_decided_as_by_the_specialist(kind: str, tmp_path: Path) -> None:
    contract, say = CONTRACTS[kind]
    (tmp_path / "artefact").mkdir()
    specialist = made(contract, say, tmp_path / "artefact")
    texts = [text for text, _, _ in rows(300, 2)] + ODD + odd_texts(200, 3)
    said = specialist.predict(texts)
    # The hardest place for a threshold: on the score of one of the inputs.
    threshold = sorted(each.score for each in said)[len(said) // 2]
    style = Style(kind="calls" if isinstance(contract, ToolCall) else "json")
    closed = ("vip", "answer:food")
    graph = compiled(tmp_path / "artefact", "linear", tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    told = msgspec.structs.replace(draft(contract, threshold), closed_slices=closed)
    package.write(out, graph, package.settings_of("t@1", "digest", told, style, graph))
    slices = [("vip",) if at % 5 == 0 else () for at in range(len(texts))]
    answer = package.runner_in(out)
    runs = {1: [answer(text, own) for text, own in zip(texts, slices, strict=True)]}
    if len(graph.heads) > 1 and ORT.is_dir() and shutil.which("node") is not None:
        browser.write(out, graph, ORT)
        runs[4] = browser.answers(out, list(zip(texts[::4], slices[::4], strict=True))) or []
    for step, run in runs.items():
        for text, own, prediction, found in zip(texts[::step], slices[::step], said[::step], run, strict=True):
            refused = refusal(prediction, contract, threshold, own, closed)
            assert found["reason"] == (refused.value if refused else "accepted"), text[:60]
            assert found["output"] == style.value(prediction.value), text[:60]
            apart = package.log_odds(found["score"]) - package.log_odds(prediction.score)
            assert abs(apart) < package.SLACK, text[:60]


def test_pieces_of_the_input_are_refused_in_a_sentence(tmp_path: Path) -> None:
    made(Fields((("place", Span()),)), lambda thing, place: {"place": place}, tmp_path)
    with pytest.raises(InputError, match="pieces of the input"):
        compiled(tmp_path, "linear", tmp_path)


def test_other_families_are_refused_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="linear and encoder can"):
        compiled(tmp_path, "nearest", tmp_path)


# ---------------------------------------------------------------------------------------------- with the code


def copied_says_the_same(
    specialist: Specialist, family: str, contract: OutputContract, texts: list[str], place: Path, bases: Path
) -> Path:
    """Export the artefact in `place` with the code that reads it, and compare its runner on `texts`."""
    said = specialist.predict(texts)
    threshold = sorted(each.score for each in said)[len(said) // 2]
    told = msgspec.structs.replace(draft(contract, threshold), recipe=Recipe(family=family))
    style = Style(kind="text" if isinstance(contract, Text) else "json")
    out = place.with_name("out")
    out.mkdir()
    copied.write(out, "t@1", "digest", told, style, place, bases)
    answers = copied.answers(out, [(text, ()) for text in texts])
    for text, prediction, found in zip(texts, said, answers, strict=True):
        refused = refusal(prediction, contract, threshold)
        assert found["reason"] == (refused.value if refused else "accepted"), text[:60]
        assert found["output"] == style.value(prediction.value), text[:60]
        assert found["score"] == prediction.score
    assert not list(out.rglob("__pycache__"))
    return out


def test_pieces_of_the_input_with_the_code_that_finds_them(tmp_path: Path) -> None:
    contract, place = Fields((("place", Span()),)), tmp_path / "artefact"
    place.mkdir()
    specialist = made(contract, lambda thing, place: {"place": place}, place)
    texts = [text for text, _, _ in rows(100, 2)] + ODD + odd_texts(50, 3)
    out = copied_says_the_same(specialist, "linear", contract, texts, place, tmp_path)
    needed = [line.split("==")[0] for line in (out / "requirements.txt").read_text().splitlines()]
    assert needed == ["msgspec", "numpy", "safetensors", "tokenizers"]


def test_nearest_answers_with_the_code_that_finds_them(tmp_path: Path) -> None:
    contract, say = CONTRACTS["choice of three"]
    train, tune = TrainSet(examples(300, 0, say)), TuneSet(examples(200, 1, say))
    family, place = NearestFamily(), tmp_path / "artefact"
    specialist = family.fit(family.recipes(0)[0], contract, train, tune, lambda what, share: None)
    place.mkdir()
    specialist.save(place)
    copied_says_the_same(specialist, "nearest", contract, [text for text, _, _ in rows(100, 2)] + ODD, place, tmp_path)


def test_a_model_that_writes_with_llama_cpp(tmp_path: Path) -> None:
    for needed in ("torch", "transformers", "trl", "peft", "gguf", "llguidance", "xllamacpp"):
        pytest.importorskip(needed, reason=f"{needed} is not installed: `make llm`")
    import tiny_base

    from suffice.specialists.causal import CausalFamily

    def orders(n: int, seed: int) -> list[Example]:
        asked = enumerate(tiny_base.orders(n, seed))
        return [
            Example(id=f"{seed}-{at}", input=text, output=tiny_base.REPLY.format(**said), has_output=True)
            for at, (text, said) in asked
        ]

    base, place = tiny_base.make(tmp_path / "tiny"), tmp_path / "artefact"
    recipe = Recipe(family="causal", params={"bits": 8, "steps": 40})
    train, tune = TrainSet(orders(150, 1)), TuneSet(orders(24, 2))
    family = CausalFamily(str(base), tmp_path / "bases")
    specialist = family.fit(recipe, Text(), train, tune, lambda what, share: None)
    place.mkdir()
    specialist.save(place)
    texts = [text for text, _ in tiny_base.orders(12, 4)] + ["", "🎉 " * 3, "word " * 4_000]
    out = copied_says_the_same(family.load(place), "causal", Text(), texts, place, tmp_path)
    assert (out / "model" / "model.gguf").read_bytes()[:4] == b"GGUF"
    assert (
        "xllamacpp" in (out / "requirements.txt").read_text() and "torch" not in (out / "requirements.txt").read_text()
    )
