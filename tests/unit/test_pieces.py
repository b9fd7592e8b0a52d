"""Pieces of the input: tokens, where an answer's values stand, tags, and how values are written."""

from __future__ import annotations

import pytest

from suffice.core.types import Choice, Fields, Many, Number, OutputContract, Span, ToolCall
from suffice.specialists.pieces import (
    Piece,
    Slot,
    follows,
    kinds_of,
    learned_writings,
    located,
    slots_of,
    spans_of,
    tags_of,
    tokenised,
    tokens,
)
from suffice.specialists.writings import Writing, read_number


def split(text: str) -> list[str]:
    return [text[start:stop] for start, stop in tokens(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("5pm at 1,200.50$", ["5", "pm", "at", "1", ",", "200", ".", "50", "$"]),
        ("me@x.org", ["me", "@", "x", ".", "org"]),
        ("明日の天気", ["明", "日", "の", "天", "気"]),
        ("서울에서", ["서", "울", "에", "서"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("Çok güzel İzmir’de", ["Çok", "güzel", "İzmir", "’", "de"]),
        ("\ud800x", ["\ud800", "x"]),
        (" \n", []),
    ],
)
def test_tokens_of_any_script(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_slots_of_a_contract() -> None:
    inner = Fields((("to", Span()), ("tags", Many(Span())), ("class", Choice(("a", "b")))))
    contract = Fields((("order", inner), ("count", Number())))
    assert slots_of(contract) == (
        Slot(("order", "to")),
        Slot(("order", "tags"), many=True),
        Slot(("count",), number=True),
    )
    calls = slots_of(ToolCall((("fly", inner), ("ride", Fields((("to", Span()),))))))
    assert [(slot.tool, slot.path) for slot in calls] == [
        ("fly", ("fly", "to")),
        ("fly", ("fly", "tags")),
        ("ride", ("ride", "to")),
    ]
    assert kinds_of(calls) == [0, 1, 0], "arguments of one name are one kind"
    assert slots_of(Many(Span())) == (Slot((), many=True),)
    assert slots_of(Choice(("a",))) == ()


def place(contract: OutputContract, text: str, values: dict[tuple[str, ...], object]) -> list[str] | None:
    slots, read = slots_of(contract), tokenised(text)
    writings = [Writing(number=slot.number) for slot in slots]
    found = located(slots, writings, values, read)
    return None if found is None else [read.piece(piece.start, piece.stop) for piece in found]


BOTH = Fields((("city", Many(Span())), ("people", Number())))


def test_values_are_found_whatever_their_case_and_spaces() -> None:
    text = "From  New\nYork to BOSTON and boston for 2"
    assert place(BOTH, text, {("city",): ["new york", "Boston", "Boston"], ("people",): 2}) == [
        "New\nYork",
        "BOSTON",
        "boston",
        "2",
    ]
    assert place(BOTH, text, {("city",): ["York", "new"]}) == ["New", "York"], "out of order, but both there"
    assert place(BOTH, text, {("city",): ["Boston"] * 3}) is None
    assert place(BOTH, text, {("city",): ["Bost"]}) is None, "not at the edges of words"
    assert place(BOTH, text, {("city",): "Lima"}) is None
    assert place(BOTH, text, {("city",): None}) == []
    assert place(BOTH, "call 555-12 34 now", {("city",): "5551234"}) == ["555-12 34"]


@pytest.mark.parametrize(
    ("piece", "number"),
    [
        ("1,200.50", 1200.5),
        ("1.200,50", 1200.5),
        ("1 200", 1200),
        ("3,5", 3.5),
        ("0.125", 0.125),
        ("twenty-five", 25),
        ("two hundred and five", 205),
        ("2.5 million", 2_500_000),
        ("-4", -4),
        ("٣", 3),
        ("12.05.2026", None),
        ("1.2.3", None),
        ("and", None),
        ("", None),
        ("9" * 5000, None),
        ("9" * 400, None),
        ("9" * 20, None),
        ("hundred " * 40, None),
        (str(2**62), 2**62),
    ],
)
def test_numbers_are_read(piece: str, number: float | None) -> None:
    assert read_number(piece) == number


def test_numbers_stand_where_they_are_said() -> None:
    assert place(BOTH, "a table for twenty-five on the 5th", {("people",): 25}) == ["twenty-five"]
    assert place(BOTH, "pay $1,200.50 now, -3 later", {("people",): 1200.5}) == ["1,200.50"]
    assert place(BOTH, "from 10 to -3 degrees", {("people",): -3}) == ["-3"]
    assert place(BOTH, "pages 3-4", {("people",): 4}) == ["4"]
    assert place(BOTH, "pages 3-4", {("people",): -4}) is None


def test_writings_are_learned() -> None:
    slot, count = Slot(("city",)), Slot(("count",), number=True)

    def learned(of: Slot, rows: list[tuple[str, object]]) -> Writing:
        return learned_writings([of], [(tokenised(text), {of.path: value}) for text, value in rows])[0]

    title = learned(slot, [("in new york", "New York"), ("in oslo", "Oslo"), ("at IBM", "IBM"), ("an IBM", "IBM")])
    assert [title.write(piece) for piece in ("los angeles", "ibm")] == ["Los Angeles", "IBM"]
    assert learned(slot, [("in New York", "New York"), ("x OSLO y", "OSLO")]).write("Lima") == "Lima"
    assert learned(slot, [("call 555-12", "55512"), ("call 1 2", "12")]).write("333-4") == "3334"
    unknown = learned(slot, [("in Oslo", "Oslo"), ("hello", "none"), ("so", "none"), ("x", None)])
    assert unknown.absent == "none"
    comma = learned(count, [("kostet 1,250 kg", 1.25), ("3,5 kg", 3.5)])
    assert comma.write("2,125") == 2.125
    cents = learned(count, [("pay $3", 300), ("pay $4.50", 450)])
    assert cents.write("12.25") == 1225
    assert isinstance(cents.write("12.25"), int)
    assert isinstance(learned(count, [("3 kg", 3.0), ("4", 4.0)]).write("5"), float)
    assert learned(count, [("3 kg", 3)]).write("heavy") is None
    with_a_key = learned(count, [(f"key {'7' * 400} for 3", 3), (f"4, key {'1' * 20}", 4)])
    assert [with_a_key.write(piece) for piece in ("5", "7" * 400)] == [5, None]


def test_tags_and_the_way_back() -> None:
    pieces = [Piece(0, 0, 2), Piece(0, 2, 3), Piece(1, 4, 6)]
    tags = tags_of(pieces, [0, 1], 7)
    assert tags.tolist() == [1, 2, 1, 0, 3, 4, 0]
    assert spans_of(tags.tolist()) == [(0, 0, 2), (0, 2, 3), (1, 4, 6)]
    first, after = follows(2)
    assert first.tolist() == [True, True, False, True, False]
    assert after[:, 2].tolist() == [False, True, True, False, False]
    assert after[:, [0, 1, 3]].all()
