"""Open questions end to end, on data made here: pieces, numbers and lists, in objects and tool calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from suffice.core.errors import ArtefactError
from suffice.core.protocols import Encoded
from suffice.core.types import (
    Choice,
    Choices,
    Example,
    Fields,
    Many,
    Number,
    OutputContract,
    Recipe,
    Span,
    ToolCall,
    TrainSet,
    TuneSet,
)
from suffice.core.values import Value, canonical
from suffice.specialists.embedding import StaticReading, shared_static_embedding
from suffice.specialists.features import Hasher
from suffice.specialists.linear import LinearFamily
from suffice.specialists.linear_fit import fit_linear
from suffice.specialists.linear_load import load_linear
from suffice.specialists.linear_model import LinearSpecialist
from suffice.specialists.pieces import tokens
from suffice.specialists.tagger import TokenHasher

Rows = list[tuple[str, Value]]
SAID = ("two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def name(dice: random.Random) -> str:
    """A word that no embedding knows."""
    return "".join(dice.choice("bdfgklmnprst") + dice.choice("aeiou") for _ in range(dice.randint(2, 3))).title()


def sets(rows: Rows, tune: int) -> tuple[TrainSet, TuneSet]:
    found = [Example(id=str(i), input=text, output=value, has_output=True) for i, (text, value) in enumerate(rows)]
    return TrainSet(found[tune:]), TuneSet(found[:tune])


def fitted(contract: OutputContract, rows: Rows) -> LinearSpecialist:
    train, tune = sets(rows, len(rows) // 4)
    recipe = Recipe(family="linear")
    return fit_linear(recipe, contract, train, tune, shared_static_embedding(), Hasher(), lambda *_: None)


def share_right(model: LinearSpecialist, rows: Rows) -> float:
    found = model.predict([text for text, _ in rows])
    return float(np.mean([canonical(p.value) == canonical(v) for p, (_, v) in zip(found, rows, strict=True)]))


def made(n: int, seed: int, row: Callable[[random.Random], tuple[str, Value]]) -> Rows:
    dice = random.Random(seed)
    return [row(dice) for _ in range(n)]


def trip(dice: random.Random) -> tuple[str, Value]:
    """A journey with nested pieces, a number that may be said in words, and fields that may be absent."""
    start, goal, people = name(dice), name(dice), dice.randint(2, 12)
    said = dice.choice([str(people), SAID[people - 2]])
    text = f"from {start} to {goal}"
    value: dict[str, Value] = {"route": {"start": start, "goal": goal}, "kind": "trip"}
    if dice.random() < 0.3:
        text, value = f"a room in {goal}", {"route": {"goal": goal}, "kind": "stay"}
    if dice.random() < 0.6:
        text, value = f"{text} for {said} people", {**value, "people": people}
    return f"{dice.choice(['', 'please ', 'hello, '])}{text}{dice.choice(['', ' thanks', '.'])}", value


TRIP = Fields(
    (
        ("kind", Choice(("trip", "stay"))),
        ("route", Fields((("start", Span()), ("goal", Span())))),
        ("people", Number(whole=True)),
    )
)


@pytest.fixture(scope="module")
def trips() -> LinearSpecialist:
    return fitted(TRIP, made(300, 1, trip))


def test_pieces_and_numbers_in_an_object(trips: LinearSpecialist) -> None:
    rows = made(150, 2, trip)
    assert share_right(trips, rows) > 0.9
    assert trips.predict(["from Oslo to Lima for three people"])[0].value == {
        "kind": "trip",
        "route": {"start": "Oslo", "goal": "Lima"},
        "people": 3,
    }
    assert trips.predict(["a room in Bergen thanks"])[0].value == {"kind": "stay", "route": {"goal": "Bergen"}}


def test_the_score_is_of_the_whole_answer(trips: LinearSpecialist) -> None:
    clear, odd = trips.predict(["from Oslo to Lima for 3 people", "Lima people from 3 room Oslo 4 or Bergen to"])
    assert clear.score > odd.score
    assert clear.parts["evidence"] > odd.parts["evidence"]
    assert clear.parts["entropy"] < odd.parts["entropy"]
    assert clear.parts["pieces"] == 3


def test_lists_keep_the_order_of_the_text() -> None:
    def order(dice: random.Random) -> tuple[str, Value]:
        things = [name(dice).lower() for _ in range(dice.randint(0, 3))]
        listed = " and ".join(f"a {thing}" for thing in things)
        return f"please send {listed or 'nothing'} {dice.choice(['today', 'soon'])}", [
            thing.upper() for thing in things
        ]

    model = fitted(Many(Span()), made(160, 3, order))
    assert model.predict(["please send a zebu and a tapir soon"])[0].value == ["ZEBU", "TAPIR"], "as it is written"
    assert model.predict(["please send nothing today"])[0].value == []
    assert share_right(model, made(80, 4, order)) > 0.9

    def sums(dice: random.Random) -> tuple[str, Value]:
        amounts = [dice.randint(1, 9000) for _ in range(dice.randint(1, 3))]
        return "pay " + " then ".join(f"${amount:,}" for amount in amounts), {"amounts": [float(a) for a in amounts]}

    model = fitted(Fields((("amounts", Many(Number())),)), made(80, 5, sums))
    assert model.predict(["pay $1,250 then $30"])[0].value == {"amounts": [1250.0, 30.0]}


def test_a_piece_alone_and_what_is_said_without_one() -> None:
    def whom(dice: random.Random) -> tuple[str, Value]:
        who = name(dice)
        return (f"my name is {who}, hi", who) if dice.random() < 0.7 else ("good morning to all of you", "unknown")

    model = fitted(Span(), made(100, 6, whom))
    assert [p.value for p in model.predict(["my name is Xaver, hi", "good morning to all"])] == ["Xaver", "unknown"]
    number = fitted(Number(), [(f"I have {i} coins", i) for i in range(2, 60)])
    assert number.predict(["I have 555 coins"])[0].value == 555


def test_only_the_slots_of_the_called_tool_are_read() -> None:
    def call(dice: random.Random) -> tuple[str, Value]:
        who, kind = name(dice), dice.choice(["call", "meet", "none"])
        if kind == "none":
            return f"good day {who}", {"tool_calls": []}
        arguments: dict[str, Value] = {"who": who}
        text = f"{kind} {who}"
        if kind == "meet" and dice.random() < 0.5:
            hour = dice.randint(1, 12)
            text, arguments = f"{text} at {hour}", {"who": who, "hour": hour}
        return text, {"tool_calls": [{"name": kind, "arguments": arguments}]}

    contract = ToolCall(
        (
            ("call", Fields((("who", Span()),))),
            ("meet", Fields((("who", Span()), ("hour", Number())))),
            ("never", Fields((("what", Span()), ("loud", Choice((True, False)))))),
        ),
        none_allowed=True,
    )
    model = fitted(contract, made(200, 7, call))

    def one(tool: str, **arguments: Value) -> Value:
        return {"tool_calls": [{"name": tool, "arguments": dict(arguments)}]}

    texts = ["call Xaver", "meet Xaver at 7", "meet Xaver", "good day Xaver"]
    expected: list[Value] = [
        one("call", who="Xaver"),
        one("meet", who="Xaver", hour=7),
        one("meet", who="Xaver"),
        {"tool_calls": []},
    ]
    assert [p.value for p in model.predict(texts)] == expected


def test_other_scripts() -> None:
    def go(dice: random.Random) -> tuple[str, Value]:
        place = "".join(dice.choice("東京大阪名古屋神戸横浜札幌福岡広島新潟長野") for _ in range(2))
        return dice.choice([f"{place}に行きたいです", f"明日{place}まで行く"]), {"place": place}

    model = fitted(Fields((("place", Span()),)), made(200, 8, go))
    assert model.predict(["仙台に行きたいです"])[0].value == {"place": "仙台"}


def test_odd_rows_and_texts_do_no_harm(trips: LinearSpecialist) -> None:
    odd: Rows = [
        ("", {"kind": "trip"}),
        ("\ud800 \x00", {"kind": "trip", "people": 3}),
        ("x" * 40_000, {"kind": "stay", "route": {"goal": "y" * 50}}),
        ("a b " * 10_000, {"kind": "stay", "route": {"goal": "b"}}),
        ("from here", {"kind": "trip", "route": {"start": "elsewhere"}, "people": 10**300}),
        ("so", {"kind": ["trip"], "route": 3}),
        ("it is 5", "not an object"),
    ]
    model = fitted(TRIP, odd * 2 + made(30, 9, trip))
    for text, _ in odd:
        (found,) = model.predict([text])
        assert np.isfinite([found.score, *found.parts.values()]).all()
        assert model.predict([text]) == [found]
    for rows in ([], odd[:1], odd[:1] * 30, odd[5:]):
        assert isinstance(fitted(TRIP, rows).predict(["from Oslo to Lima"])[0].value, dict)
    assert fitted(Many(Span()), []).predict(["from Oslo"])[0].value == []
    both = Fields((("a", Choices(("x", "x"))), ("b", Choice(("y", "y"))), ("c", Span()), ("c", Span())))
    assert fitted(both, [("one y", {"a": ["x"], "b": "y", "c": "one"})] * 9).predict(["one y"])[0].value == {
        "a": ["x", "x"],
        "b": "y",
        "c": "one",
    }


def test_the_artefact_comes_back_whole_or_not_at_all(tmp_path: Path, trips: LinearSpecialist) -> None:
    trips.save(tmp_path)
    texts = [text for text, _ in made(30, 10, trip)]
    back = LinearFamily().load(tmp_path)
    again = LinearFamily().load(tmp_path)
    assert back.predict(texts) == again.predict(texts)
    assert [p.value for p in back.predict(texts)] == [p.value for p in trips.predict(texts)]
    tensors = tmp_path / "model.safetensors"
    for tensor in ("tagger_hashes", "tagger_sparse", "tagger_transitions", "company"):
        arrays = load_file(tensors)
        kept = tensors.read_bytes()
        save_file({**arrays, tensor: arrays[tensor][:-1].copy()}, tensors)
        with pytest.raises(ArtefactError, match="is not whole"):
            LinearFamily().load(tmp_path)
        tensors.write_bytes(kept)
    told = (tmp_path / "model.json").read_bytes()
    (tmp_path / "model.json").write_bytes(told.replace(b'"goal"', b'"gaol"', 1))
    with pytest.raises(ArtefactError, match="slots"):
        LinearFamily().load(tmp_path)


class Halved:
    """An embedding of another size that counts its passes: the heads take any."""

    dimensions, word_dimensions = 64, 32
    batch_rows, shared_bytes = 1, 0

    def __init__(self) -> None:
        self.passes = 0

    def read(self, inputs: Sequence[str]) -> list[HalvedReading]:
        self.passes += 1
        return [HalvedReading(one) for one in shared_static_embedding().read(inputs)]


class HalvedReading:
    def __init__(self, whole: StaticReading) -> None:
        self.whole = whole
        self.vector = whole.vector[:64]

    def words(self, places: Sequence[tuple[int, int]]) -> npt.NDArray[np.float32]:
        return self.whole.words(places)[:, :32]


@pytest.mark.parametrize("words", [0, 1])
def test_any_embedding_feeds_the_heads_and_its_readings_are_shared(tmp_path: Path, words: int) -> None:
    embedding = Halved()
    train, tune = sets(made(60, 11, trip), 20)
    recipe = Recipe(family="linear", params={"words": words})
    model = fit_linear(recipe, TRIP, train, tune, embedding, Hasher(), lambda *_: None)
    assert isinstance(model, Encoded)
    assert model.encoder is embedding
    texts = ["from Oslo to Lima", "a room in Bergen"]
    read = embedding.read(texts)
    before = embedding.passes
    assert model.predict_read(texts, read) == model.predict(texts)
    assert embedding.passes == before + 1
    model.save(tmp_path)
    assert load_linear(tmp_path, embedding, Hasher()).predict(texts)[0].value == model.predict(texts)[0].value
    assert len(load_file(tmp_path / "model.safetensors")["hashes"]) > 0 if words else True


def test_answers_whose_parts_never_came_together_are_told() -> None:
    def pair(dice: random.Random) -> tuple[str, Value]:
        thing = dice.choice(["red", "blue"])
        return f"a {thing} one, {'loud' if thing == 'red' else 'calm'} too", {"hue": thing, "loud": thing == "red"}

    contract = Fields((("hue", Choice(("red", "blue"))), ("loud", Choice((True, False)))))
    model = fitted(contract, made(120, 12, pair))
    seen, unseen = model.predict(["a red one, loud too", "red red red calm calm calm calm"])
    assert seen.parts["combination"] > 3
    if unseen.value == {"hue": "red", "loud": False}:
        assert unseen.parts["combination"] == 0


def test_features_are_a_function_of_the_neighbourhood() -> None:
    hasher = TokenHasher()

    def of(text: str) -> npt.NDArray[np.uint64]:
        return hasher.features(text, tokens(text))

    base, other = of("we go to Oslo now or then"), of("we go to Lima now or then")
    assert base.shape == (7, hasher.width)
    assert (base[3] != other[3]).any() and (base[2] != other[2]).any()
    assert (of("aa bb cc dd ee ff gg hh")[0] == of("aa bb cc dd xx yy gg hh")[0]).all(), "three tokens to either side"
    assert len(np.unique(base)) > 0.8 * base.size, "kinds of features do not collide"
    assert of("İzmir \ud800 明日\n").shape[0] == len(tokens("İzmir \ud800 明日\n"))
