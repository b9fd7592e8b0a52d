"""Functions that requests offer, on data made here: unseen ones, arguments, no call, the artefact, odd inputs."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from suffice.core.errors import ArtefactError
from suffice.core.offered import with_tools
from suffice.core.protocols import Encoded
from suffice.core.types import Choice, Example, Recipe, ToolCall, TrainSet, TuneSet
from suffice.core.values import Value, calls_of
from suffice.specialists.arguments import KINDS, MOST_HELD, WIDTH, Filler, Seen
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.offered import MOST_OFFERED, AskedEncoder, OfferedSpecialist, load, supports
from suffice.specialists.offered_fit import fit
from suffice.specialists.schemas import valid

CONTRACT = ToolCall((), none_allowed=True, offered=True)
CITIES = ("Boston", "Oslo", "Lima", "New York", "Cape Town", "Madrid", "Tokyo")


def function(name: str, told: str, required: list[str], **parameters: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "properties": parameters, "required": required}
    return {"name": name, "description": told, "parameters": schema}


CITY = {"type": "string", "description": "The city."}
KNOWN = {
    "get_weather": function(
        "get_weather", "The weather forecast for a city: rain, sun, temperature.", ["city"], city=CITY
    ),
    "play.music": function(
        "play.music",
        "Play a song or an album.",
        ["title"],
        title={"type": "string", "description": "Title of the song."},
    ),
    "convert": function(
        "convert",
        "Convert an amount of money into another currency.",
        ["amount", "currency"],
        amount={"type": "float", "description": "How much money."},
        currency={"type": "string", "enum": ["euros", "dollars", "yen"]},
    ),
    "find_restaurant": function(
        "find_restaurant",
        "Find a restaurant to eat in a city.",
        ["city"],
        city=CITY,
        guests={"type": "integer", "description": "Number of guests."},
    ),
}
NEW = {
    "bookHotelRoom": function(
        "bookHotelRoom",
        "Book a hotel room in a city for some nights.",
        ["city", "nights"],
        city=CITY,
        nights={"type": "integer", "description": "Number of nights."},
    ),
    "translate": function(
        "translate",
        "Translate a text into another language.",
        ["text"],
        text={"type": "string", "description": "The text to translate."},
    ),
}


def asked(name: str, dice: random.Random) -> tuple[str, dict[str, Value]]:
    city, number = dice.choice(CITIES), dice.randint(2, 9)
    if name == "get_weather":
        return dice.choice(
            ("What is the weather in {}?", "will it rain in {} today", "temperature in {} please")
        ).format(city), {"city": city}
    if name == "play.music":
        title = dice.choice(("Yellow Moon", "Hey Jude", "Blue", "Night Train"))
        return dice.choice(('play the song "{}"', 'I want to hear "{}", the album')).format(title), {"title": title}
    if name == "convert":
        currency = dice.choice(("euros", "dollars", "yen"))
        return f"convert {number * 10} of my money into {currency}", {"amount": number * 10, "currency": currency}
    if name == "find_restaurant":
        return f"find a restaurant in {city} for {number} guests", {"city": city, "guests": number}
    if name == "bookHotelRoom":
        return f"book a hotel room in {city} for {number} nights", {"city": city, "nights": number}
    return 'translate the text "good morning" into another language', {"text": "good morning"}


def made(names: list[str], offered: dict[str, dict[str, Any]], n: int, seed: int) -> list[Example]:
    """Requests for these functions, each offering three or four; in a quarter of them the right one is not offered."""
    dice = random.Random(seed)
    rows = []
    for i in range(n):
        name = dice.choice(names)
        text, arguments = asked(name, dice)
        none = dice.random() < 0.25
        shown = dice.sample(sorted(set(offered) - {name}), 3) + ([] if none else [name])
        dice.shuffle(shown)
        value: Value = {"tool_calls": [] if none else [{"name": name, "arguments": arguments}]}
        rows.append(
            Example(
                id=f"{seed}-{i}", input=given(text, *(offered[key] for key in shown)), output=value, has_output=True
            )
        )
    return rows


def given(text: str, *functions: dict[str, Any]) -> str:
    return with_tools(text, json.dumps([{"type": "function", "function": each} for each in functions]))


@cache
def fitted() -> OfferedSpecialist:
    train, tune = made(list(KNOWN), KNOWN, 240, 1), made(list(KNOWN), KNOWN, 120, 2)
    return fit(
        Recipe(family="linear"), CONTRACT, TrainSet(train), TuneSet(tune), shared_static_embedding(), lambda *_: None
    )


def correct(model: OfferedSpecialist, rows: list[Example]) -> float:
    return float(
        np.mean([p.value == row.output for p, row in zip(model.predict([r.input for r in rows]), rows, strict=True)])
    )


def test_functions_seen_in_training_are_called_with_their_arguments() -> None:
    assert correct(fitted(), made(list(KNOWN), KNOWN, 150, 3)) > 0.9


def test_functions_never_seen_are_chosen_by_what_is_said_of_them_and_their_arguments_filled() -> None:
    rows = [row for row in made(list(NEW), {**KNOWN, **NEW}, 80, 4) if calls_of(row.output)]
    assert correct(fitted(), rows) > 0.7


def test_the_order_of_the_functions_does_not_matter() -> None:
    text = "what is the weather in Lima?"
    values = [
        fitted().predict([given(text, *order)])[0] for order in (list(KNOWN.values()), list(KNOWN.values())[::-1])
    ]
    assert values[0].value == values[1].value and values[0].score == pytest.approx(values[1].score)


def test_a_required_argument_that_nothing_fits_makes_the_score_zero() -> None:
    needs = function("set_volume", "Set the volume of the music.", ["level"], level={"type": "integer", "minimum": 1})
    prediction = fitted().predict([given("set the volume of the music", needs)])[0]
    assert prediction.score == 0.0 or prediction.value == {"tool_calls": []}


def test_what_is_called_keeps_to_the_schema() -> None:
    offered = {**KNOWN, **NEW}
    rows = made(list(offered), offered, 60, 5)
    calls = [call for p in fitted().predict([r.input for r in rows]) if p.score > 0 for call in calls_of(p.value) or []]
    assert len(calls) > 20
    assert all(valid(call["arguments"], offered[str(call["name"])]["parameters"]) for call in calls)


def test_the_artefact_gives_the_same_answers(tmp_path: Path) -> None:
    fitted().save(tmp_path)
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors", ".json"}
    inputs = [row.input for row in made(list(KNOWN), {**KNOWN, **NEW}, 20, 6)]
    assert load(tmp_path, shared_static_embedding()).predict(inputs) == fitted().predict(inputs)


@pytest.mark.parametrize("harm", ["gone", "text", "shape", "nan", "format"])
def test_an_artefact_that_is_not_whole_is_refused(tmp_path: Path, harm: str) -> None:
    fitted().save(tmp_path)
    tensors, settings = tmp_path / "offered.safetensors", tmp_path / "offered.json"
    arrays = load_file(tensors)
    if harm == "gone":
        tensors.unlink()
    elif harm == "text":
        settings.write_text("{")
    elif harm == "format":
        settings.write_text(settings.read_text().replace('"format": 1', '"format": 99'))
    else:
        arrays["gate"] = arrays["gate"][1:] if harm == "shape" else arrays["gate"] * np.nan
        save_file(arrays, tensors)
    with pytest.raises(ArtefactError, match=str(tmp_path)):
        load(tmp_path, shared_static_embedding())


def test_the_encoder_reads_once_for_all_that_share_it() -> None:
    model, inputs = fitted(), [row.input for row in made(list(KNOWN), KNOWN, 5, 7)]
    assert isinstance(model, Encoded)
    assert model.predict_read(inputs, model.encoder.read(inputs)) == model.predict(inputs)
    embedding = model.encoder.embedding
    assert {AskedEncoder(embedding), AskedEncoder(embedding)} == {model.encoder}


ODD: dict[str, dict[str, Any]] = {
    "no parameters": {"name": "ping"},
    "parameters that are no schema": {"name": "ping", "description": 3, "parameters": [1]},
    "properties that are no schemas": function("ping", "x", ["a"], a="string"),  # type: ignore[arg-type]
    "alternatives": function(
        "ping", "x", ["a"], a={"anyOf": [{"type": "null"}, {"type": "array", "items": {"type": "array"}}]}
    ),
    "nested": function(
        "ping",
        "x",
        ["a"],
        a={"type": "dict", "required": ["b"], "properties": {"b": {"type": "tuple", "items": {"type": "float"}}}},
    ),
    "enum of odd things": function("ping", "x", ["a"], a={"enum": [None, {"a": 1}, 3, "three", True]}),
    "a huge description": function("a.b-c_d", "word " * 20_000, [], a={"type": "any"}),
    "another script": function(
        "天気", "都市の天気を調べる", ["都市"], 都市={"type": "string", "description": "都市の名前"}
    ),
    "half a surrogate pair": function("ping", "\ud800", ["a"], a={"type": "string", "description": "\ud800"}),
    "an unknown type": function("ping", "x", ["a"], a={"type": "blob"}),
    "a type that is a list": function("ping", "x", ["a"], a={"type": ["integer", "null"]}),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
@pytest.mark.parametrize(
    "text", ["", "ping 3 and 4 \ud800", "東京の天気は？", "ping " * 5_000], ids=["empty", "odd", "script", "long"]
)
def test_odd_functions_and_texts_are_answered(odd: dict[str, Any], text: str) -> None:
    try:
        raw = json.dumps([odd, KNOWN["convert"]], ensure_ascii=False)
        prediction = fitted().predict([with_tools(text, raw)])[0]
    except UnicodeEncodeError:
        pytest.fail("half a surrogate pair is not read")
    assert 0 <= prediction.score <= 1 and np.isfinite(prediction.score)
    if not text:
        assert prediction.score == 0.0


def test_without_functions_or_with_too_many_nothing_is_trusted() -> None:
    many = [{**KNOWN["get_weather"], "name": f"weather_{i}"} for i in range(MOST_OFFERED + 1)]
    found = fitted().predict(
        ["hello", with_tools("weather in Oslo", ""), with_tools("x", "[1]"), given("weather in Oslo", *many)]
    )
    assert [prediction.score for prediction in found] == [0.0] * 4


def test_one_name_twice_is_one_function() -> None:
    twice = given("weather in Oslo", KNOWN["get_weather"], KNOWN["convert"], KNOWN["get_weather"])
    once = given("weather in Oslo", KNOWN["get_weather"], KNOWN["convert"])
    assert fitted().predict([twice]) == fitted().predict([once])


class Blank:
    """An embedding that tells nothing, fast."""

    dimensions = word_dimensions = 2
    batch_rows, shared_bytes = 1, 0
    vector = np.zeros(2, dtype=np.float32)

    def read(self, inputs: Sequence[str]) -> list[Blank]:
        return [self] * len(inputs)

    def words(self, places: Sequence[tuple[int, int]]) -> npt.NDArray[np.float32]:
        return np.zeros((len(places), 2), dtype=np.float32)


def test_what_is_kept_of_functions_does_not_grow_with_what_requests_bring() -> None:
    filler = Filler(np.zeros((len(KINDS), WIDTH)), Seen({}, {}, {}), Blank())
    wide = {f"p{i}": {"enum": [f"{i} {k}" for k in range(60)]} for i in range(40)}
    for i in range(20):
        asked = filler.questions({"name": f"f{i}", "parameters": {"type": "object", "properties": wide}})
        assert len(asked) == 40
        assert filler.held <= MOST_HELD
    assert len(filler.questions({"name": "f19", "parameters": {}})) == 0


def test_where_a_call_is_always_made_one_is() -> None:
    rows = [row for row in made(list(KNOWN), KNOWN, 60, 8) if calls_of(row.output)]
    contract = ToolCall((), offered=True)
    model = fit(
        Recipe(family="linear"), contract, TrainSet(rows), TuneSet([]), shared_static_embedding(), lambda *_: None
    )
    assert all(calls_of(p.value) for p in model.predict([given("nothing like it", *KNOWN.values())]))


def test_fitting_survives_rows_that_train_nothing() -> None:
    rows = [
        Example(id="a", input="no functions", output={"tool_calls": []}, has_output=True),
        Example(
            id="b",
            input=given("x", KNOWN["convert"]),
            output={"tool_calls": [{"name": "other", "arguments": {}}]},
            has_output=True,
        ),
        Example(id="c", input=given("x", KNOWN["convert"]), output="text", has_output=True),
    ]
    model = fit(
        Recipe(family="linear"), CONTRACT, TrainSet(rows), TuneSet([]), shared_static_embedding(), lambda *_: None
    )
    assert len(model.predict([given("convert 3 into yen", KNOWN["convert"])])) == 1


def test_the_same_arguments_fit_the_same_model() -> None:
    rows = made(list(KNOWN), KNOWN, 60, 9)
    inputs = [row.input for row in rows[:5]]
    models = [
        fit(Recipe(family="linear"), CONTRACT, TrainSet(rows), TuneSet([]), shared_static_embedding(), lambda *_: None)
        for _ in range(2)
    ]
    assert models[0].predict(inputs) == models[1].predict(inputs)


def test_supported_contracts() -> None:
    assert supports(CONTRACT) is None
    assert supports(Choice(("a", "b"))) is not None and supports(ToolCall(())) is not None
    with pytest.raises(ValueError):
        fit(
            Recipe(family="linear"),
            Choice(("a",)),
            TrainSet([]),
            TuneSet([]),
            shared_static_embedding(),
            lambda *_: None,
        )
