"""The contract that a model is learned for, from answers as real tasks give them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from suffice.core.contracts import covers
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, canonical, plain
from suffice.learn.contracts import learned, told, worked_out
from suffice.learn.standing import is_piece, numbers_in

N = 400
SURNAMES = [
    f"{a}{b}"
    for a in ("Ander", "Bel", "Cor", "Dun", "Esk", "Fal", "Gar", "Hol")
    for b in ("son", "lowe", "din", "ick", "by")
]
CITIES = ("Rome", "Oslo", "Lima", "Cairo", "Paris", "Quito", "Tokyo", "Accra")


def rows(say: Callable[[int], tuple[str, Value]]) -> OutputContract:
    """The contract of 400 (input, answer) rows, kept by nearly all of them."""
    pairs = [say(i) for i in range(N)]
    texts, values = [text for text, _ in pairs], [plain(value) for _, value in pairs]
    contract = learned(texts, values)
    assert sum(covers(contract, value) for value in values) >= 0.9 * N
    assert told(texts, values).contract == contract
    return contract


def surname(i: int) -> str:
    return f"{SURNAMES[i % 40]}{'abcdefghij'[i // 40]}"


def intent_and_slots(i: int) -> tuple[str, Value]:
    slots: dict[str, Value] = {"artist": [surname(i)], "city": [CITIES[i % 8]]}
    return f"play {surname(i)} in {CITIES[i % 8]}", {"intent": "ab"[i % 2], "slots": slots}


AMOUNT = "{:,.2f}"


@pytest.mark.parametrize(
    ("say", "contract"),
    [
        pytest.param(lambda i: (f"Table for {i % 9 + 2} at {i // 60}:{i % 60:02}, name {surname(i)}",
                                {"people": str(i % 9 + 2), "time": f"{i // 60}:{i % 60:02}", "name": surname(i)}),
                     Fields((("people", Span()), ("time", Span()), ("name", Span()))), id="booking"),
        pytest.param(intent_and_slots,
                     Fields((("intent", Choice(("a", "b"))),
                             ("slots", Fields((("artist", Many(Span())), ("city", Many(Span())))))),),
                     id="intent and slots"),
        pytest.param(lambda i: (f"Total due ${AMOUNT.format(937.25 * i)} by Friday", {"total": 937.25 * i}),
                     Fields((("total", Number()),)), id="amount as a number"),
        pytest.param(lambda i: (f"Total due ${AMOUNT.format(937.25 * i)} by Friday", AMOUNT.format(937.25 * i)),
                     Span(), id="amount as a text"),
        pytest.param(lambda i: (f"Come on March {i % 28 + 1}th {1900 + i}", f"March {i % 28 + 1}th {1900 + i}"), Span(),
                     id="date as it stands"),
        pytest.param(lambda i: (f"Come on March {i % 28 + 1}th {1900 + i}", f"{1900 + i}-03-{i % 28 + 1:02}"), Text(),
                     id="date rewritten"),
        pytest.param(lambda i: ("?", ["yes", "no"][i % 2]), Choice(("no", "yes")), id="yes or no"),
        pytest.param(lambda i: ("?", i % 2 == 0), Choice((False, True)), id="true or false"),
        pytest.param(lambda i: ("?", i % 2), Choice((0, 1)), id="0 or 1"),
        pytest.param(lambda i: ("?", ["Yes", "yes", "no"][i % 3]), Choice(("Yes", "no", "yes")), id="two spellings"),
        pytest.param(lambda i: (f"{i % 5 + 1} stars", i % 5 + 1), Choice((1, 2, 3, 4, 5)), id="ratings"),
        pytest.param(lambda i: (f"ship to zip {10000 + 37 * i}", f"{10000 + 37 * i}"), Span(), id="zip codes"),
        pytest.param(lambda i: (f"code {i % 30}", f"{4000 + i % 30}"), Choice(tuple(f"{4000 + n}" for n in range(30))),
                     id="labels that look like numbers"),
        pytest.param(lambda i: ("?", ["call back", "send the form", "close it"][i % 3]),
                     Choice(("call back", "close it", "send the form")), id="short texts that repeat"),
        pytest.param(lambda i: (f"from {CITIES[i % 8]}", CITIES[i % 8]), Span(), id="pieces that are always the same"),
        pytest.param(lambda i: (f"from {SURNAMES[i % 40] if i % 9 else surname(i)} on",
                                SURNAMES[i % 40] if i % 9 else surname(i)), Span(), id="pieces that keep being new"),
        pytest.param(lambda i: ("?", SURNAMES[i % 40] if i % 9 else surname(i)),
                     Choice, id="labels of which rare ones are new"),
        pytest.param(lambda i: (f"buy x{i} and y{i}", {"items": [f"x{i}", f"y{i}"] if i % 10 else f"x{i}"}),
                     Fields((("items", Many(Span())),)), id="lists, and now and then a text"),
        pytest.param(lambda i: ("?", [["a", "b"], ["b"], []][i % 3]), Choices(("a", "b")), id="several labels"),
        pytest.param(lambda i: (f"明日{i}時に東京で", f"{i}時"), Span(), id="another script"),
    ],
)  # fmt: skip
def test_tasks_of_every_kind(say: Callable[[int], tuple[str, Value]], contract: OutputContract | type) -> None:
    found = rows(say)
    assert found == contract if not isinstance(contract, type) else isinstance(found, contract)


def test_why_a_piece_and_not_a_label_is_told() -> None:
    texts = [f"from {SURNAMES[i % 40] if i % 9 else surname(i)} on" for i in range(N)]
    (note,) = told(texts, [text.split()[1] for text in texts]).notes
    assert note.startswith("the answer is taken for a piece of the input, not for one of ")


def test_numbers_that_are_worked_out_are_told() -> None:
    texts = [f"{7 * i} boxes of {11 * i + 3}" for i in range(N)]
    totals: list[Value] = [{"total": 7 * i * (11 * i + 3), "boxes": 7 * i} for i in range(N)]
    inferred = told(texts, totals)
    assert inferred.contract == Fields((("total", Number()), ("boxes", Number())))
    assert list(worked_out(inferred.contract, texts, totals)) == ["total"]
    (note,) = inferred.notes
    assert note.startswith("the field `total` is a number that stands in the input in only")


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it is $1,200.50 in all", 1200.5), ("1.200,50 €", 1200.5), ("CHF 1'200", 1200), ("12 000 km", 12000),
        ("0,5 l", 0.5), ("twelve of us", 12), ("Twenty-five people", 25), ("-4 degrees", -4), ("party of 7", 7),
        ("rooms 2,3,4", 3),
    ],
)  # fmt: skip
def test_numbers_stand_in_any_writing(text: str, number: float) -> None:
    assert number in numbers_in(text)


def test_numbers_that_stand_nowhere() -> None:
    assert 200 not in numbers_in("1,200.50")
    assert numbers_in("no number, someone said") == set()


def test_pieces_are_whole_words() -> None:
    assert is_piece("at 5pm in  New\nYork", "new york")
    assert is_piece("at 5pm", "5")
    assert not is_piece("at 15:00", "5")
    assert not is_piece("an art", "a")
    assert is_piece("在東京都", "東京")
    assert not is_piece("anything", "")


def test_no_rare_label_is_lost_among_many_rows() -> None:
    values: list[Value] = [f"label {i % 50}" for i in range(20_000)]
    values[12_345] = values[321] = "once in a blue moon"
    contract = learned([""] * len(values), values)
    assert isinstance(contract, Choice)
    assert "once in a blue moon" in contract.values


def test_five_thousand_labels_cost_little() -> None:
    values: list[Value] = [{"code": f"label {i % 5000}", "also": [f"tag {i % 4999}"]} for i in range(15_000)]
    began = time.process_time()
    contract = learned([f"a text about {i}" for i in range(len(values))], values)
    assert all(covers(contract, plain(value)) for value in values)
    assert time.process_time() - began < 4  # 0.4 s on a free core


def test_huge_and_strange_inputs() -> None:
    texts = ["x" * 40_000 + f" n{i}" if i % 50 == 0 else ["", "\ud800 odd", "नमस्ते", "\x00"][i % 4] for i in range(N)]
    assert learned(texts, [["a", "b"][i % 2] for i in range(N)]) == Choice(("a", "b"))
    assert learned(texts, [f"n{i}" for i in range(N)]) == Text()
    assert learned([], []) == Text()


def test_the_request_counts_in_learning_as_in_discovery() -> None:
    schema: dict[str, Any] = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = canonical({"type": "json_schema", "json_schema": {"schema": schema}})
    random = np.random.default_rng(0)
    numbers = [int(n) for n in random.integers(0, 10**6, N)]
    texts = [f"order {n}" for n in numbers]
    values: list[Value] = [f'{{"n": {n}}}' for n in numbers]
    contract = learned(texts, values, response_format=form)
    assert contract == told(texts, values, response_format=form).contract
    assert contract == Fields((("n", Number(whole=True)),), required=("n",))


def test_tools_that_are_never_called_are_not_learned() -> None:
    tools = canonical([[{"type": "function", "function": {"name": name, "parameters": {}}} for name in "fgh"]])
    calls: list[Value] = [{"tool_calls": [{"name": "fg"[i % 2], "arguments": {}}]} for i in range(N)]
    contract = learned(["t"] * N, calls, tools=tools)
    assert contract == ToolCall((("f", Fields(())), ("g", Fields(()))))
