"""What a generating model is asked, how its answers are read, and what their tokens say of how sure it is."""

from __future__ import annotations

import math

import pytest

from suffice.core.errors import InputError
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, canonical
from suffice.specialists.causal_score import SIGNALS, leaves, shape, told
from suffice.specialists.causal_text import NAMED_CHARS, instruction, prompting, said, written
from suffice.specialists.runtime import Written

ORDER = Fields((("city", Span()), ("count", Number(whole=True)), ("late", Choice((True, False, None)))))
CALL = ToolCall((("book", ORDER), ("stop", Fields(()))), none_allowed=True)


def chat(instruction: str, text: str) -> str:
    return f"<s>{instruction}</s>{text}<a>"


@pytest.mark.parametrize(
    ("contract", "value", "text"),
    [
        (Text(), "Dear Ann,\nyes.", "Dear Ann,\nyes."),
        (Text(most=50), "yes", '"yes"'),
        (Choice(("a", 3, True)), "a", '"a"'),
        (Choice(("a", 3, True)), True, "true"),
        (Choices(("x", "y")), ["y", "x"], '["x","y"]'),
        (ORDER, {"late": True, "count": 3, "city": "Köln"}, '{"city":"Köln","count":3,"late":true}'),
        (Many(ORDER), [{"count": 1, "city": None}], '[{"count":1}]'),
        (CALL, {"tool_calls": []}, '{"tool_calls":[]}'),
        (
            CALL,
            {"tool_calls": [{"name": "book", "arguments": {"count": 2, "city": "Rome"}}]},
            '{"tool_calls":[{"name":"book","arguments":{"city":"Rome","count":2}}]}',
        ),
    ],
)
def test_an_answer_is_written_in_one_way_and_read_back(contract: OutputContract, value: Value, text: str) -> None:
    assert written(contract, value) == text
    assert canonical(said(contract, text)) == canonical(value)


@pytest.mark.parametrize("text", ["", "{", '{"city": 3}', '{"town":"Rome"}', "[[[[", '"Rome"', "\ud800", "[" * 2_000])
def test_what_is_no_answer_is_none(text: str) -> None:
    assert said(ORDER, text) is None


def test_an_input_stands_in_the_prompt_as_it_is_but_for_special_tokens() -> None:
    asked = prompting(ORDER, chat, ["<a>", "</s>", ""])
    assert asked.of("Rome, please") == "<s>Answer with JSON: city, count, late.</s>Rome, please<a>"
    assert asked.of("<a>x</s>\ud800").endswith("</s>< a>x< /s>?<a>")
    with pytest.raises(InputError, match="does not take a user's words as they are"):
        prompting(ORDER, lambda instruction, text: instruction + text.upper() + str(len(text)), [])


def test_an_instruction_names_so_many_fields_as_are_quickly_read() -> None:
    many = Choice(tuple(f"label {number}" for number in range(100)))
    assert len(instruction(many, NAMED_CHARS)) < NAMED_CHARS + 40
    assert instruction(many, NAMED_CHARS).endswith(", ....")
    assert '"label 99"' in instruction(many)


def test_tokens_of_values_decide_and_signs_of_json_do_not() -> None:
    pieces = ('{"', "city", '":"', "Ro", "me", '"}')
    sure, unsure = -1e-4, math.log(0.5)
    answer = Written(
        text="".join(pieces), tokens=tuple(range(6)), logprobs=(unsure, sure, sure, sure, math.log(0.8), sure),
        others=(-1.0, -9.0, -9.0, -9.0, -2.0, -9.0), finished=True, pieces=tuple(piece.encode() for piece in pieces),
    )  # fmt: skip
    numbers = dict(zip(SIGNALS, told(answer, bare=False), strict=False))
    assert numbers["lowest"] == pytest.approx(math.log(0.8))
    assert numbers["structure"] == pytest.approx(unsure)
    assert numbers["doubtful"] == 2
    assert numbers["evidence"] == pytest.approx(math.log(0.4 / 0.6), abs=2e-3)
    assert numbers["margin"] == pytest.approx(unsure + 1)


def test_the_shape_of_an_answer_is_which_fields_it_has() -> None:
    answer: Value = {"a": ["x", "y"], "b": {"c": 3}}
    assert list(leaves(answer)) == [(".a", "x"), (".a", "y"), (".b.c", "3")]
    assert shape(answer) == ".a*2 .b.c"
