"""What calling offered functions is made of: schemas, what a text mentions, choosing among options."""

from __future__ import annotations

from typing import Any

import jsonschema
import numpy as np
import pytest

from suffice.core.values import Value
from suffice.specialists.conditional import fit_conditional, likelihood, starts_of
from suffice.specialists.mentions import mentions_of
from suffice.specialists.offered_choice import leads, spelled
from suffice.specialists.schemas import branch, types_of, valid

CASES: list[tuple[Value, dict[str, Any], bool]] = [
    (1, {"type": "integer"}, True),
    (1.0, {"type": "integer"}, True),
    (1.5, {"type": "integer"}, False),
    (True, {"type": "integer"}, False),
    (True, {"type": "number"}, False),
    (1, {"type": "number", "minimum": 2}, False),
    (3, {"type": "number", "minimum": 2, "maximum": 3}, True),
    ("a", {"type": "string", "enum": ["a", "b"]}, True),
    ("c", {"type": "string", "enum": ["a", "b"]}, False),
    (None, {"type": ["string", "null"]}, True),
    ([1, "a"], {"type": "array", "items": {"type": "integer"}}, False),
    ([[1], [2]], {"type": "array", "items": {"type": "array", "items": {"type": "integer"}}}, True),
    ({"a": 1}, {"type": "object", "required": ["a", "b"]}, False),
    ({"a": 1}, {"type": "object", "properties": {"a": {"type": "string"}}}, False),
    ({"a": 1}, {"anyOf": [{"type": "string"}, {"type": "object"}]}, True),
    (4, {"anyOf": [{"type": "string"}, {"type": "object"}]}, False),
    ("x", {}, True),
]


@pytest.mark.parametrize(("value", "schema", "keeps"), CASES)
def test_values_are_held_against_schemas(value: Value, schema: dict[str, Any], keeps: bool) -> None:
    assert valid(value, schema) is keeps


def test_schemas_are_read_as_a_public_validator_reads_them() -> None:
    for value, schema, _ in CASES:
        assert valid(value, schema) is jsonschema.Draft202012Validator(schema).is_valid(value)


def test_the_names_that_vendors_give_types() -> None:
    assert types_of({"type": "dict"}) == ("object",) and types_of({"type": "float"}) == ("number",)
    assert types_of({"type": "any"}) == () and types_of({}) == ()
    assert types_of(branch({"anyOf": [{"type": "null"}, {"type": "integer"}]})) == ("integer",)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("3, 4 and 5 units", [3, 4, 5]),
        ("$1,200.50 at 5%", [1200.5, 5]),
        ("twenty-five people, two rooms", [25, 2]),
        ("2.5 million or 3 thousand", [2.5e6, 3000]),
        ("minus -7 but not 3-4", [-7, 3, 4]),
        ("no number", []),
        ("9" * 400, []),
        ("5 thou\u017fand, s\u0131x, 3 thousand", [5, 3000]),  # letters that are s and i but for case
    ],
)
def test_numbers_in_a_text(text: str, values: list[float]) -> None:
    assert [number.value for number in mentions_of(text).numbers] == values


def test_what_else_a_text_mentions() -> None:
    text = 'Book "The Plaza" in New York from March 9th 2023 (or 2023/03/19) at 5pm, id N-123, mail a.b@c.de'
    found = mentions_of(text)

    def said(places: Any) -> set[str]:
        return {text[start:stop] for start, stop in places}

    assert said(found.quoted) == {"The Plaza"}
    assert {text[a:b]: iso for (a, b), iso in found.dates.items()} == {
        "March 9th 2023": "2023-03-09",
        "2023/03/19": "2023-03-19",
    }
    assert not mentions_of("\u017feptember 5, 2024").dates
    assert said(found.times) == {"5pm"} and said(found.addresses) == {"a.b@c.de"}
    assert "N-123" in said(found.codes) and "New York" in said(found.capitals)
    assert {"The Plaza", "New York", "a.b@c.de"} <= said(span.place for span in found.spans)


@pytest.mark.parametrize("piece", ["a-", "a.", "(", "'x", "1,", "_", "two ", "A ", '"'])
def test_endless_texts_of_one_form_are_read_in_time(piece: str) -> None:
    assert len(mentions_of(piece * 20_000).tokens) > 0


def test_names_in_code_as_words() -> None:
    assert (
        spelled("getUserInfo") == "get User Info"
        and spelled("a.b-c_d") == "a b c d"
        and spelled("HTTPServer2") == "HTTP Server2"
    )


def test_leads_over_the_best_other() -> None:
    assert leads(np.array([1.0, 3.0, 2.0])).tolist() == [-2.0, 1.0, -1.0] and leads(np.array([5.0])).tolist() == [0.0]


def test_the_slope_of_the_likelihood_is_that_of_its_values() -> None:
    dice = np.random.default_rng(0)
    logits, starts = dice.normal(size=9), starts_of([2, 4, 3])
    right = np.array([1, 0, 0, 1, 1, 0, 0, 0, 0], dtype=np.bool_)  # the last question has no right option
    _, slope = likelihood(logits, starts, right)
    for at in range(9):
        moved = np.eye(9)[at] * 1e-6
        by_values = (likelihood(logits + moved, starts, right)[0] - likelihood(logits - moved, starts, right)[0]) / 2e-6
        assert slope[at] == pytest.approx(by_values, abs=1e-6)


def test_the_weights_that_made_the_choices_are_found_again() -> None:
    dice = np.random.default_rng(1)
    weights = np.array([2.0, -1.0, 0.0])
    features = dice.normal(size=(1_000, 5, 3))
    chosen = (features @ weights + dice.gumbel(size=(1_000, 5))).argmax(axis=1)
    right = np.arange(5) == chosen[:, None]
    found = fit_conditional(features.reshape(-1, 3), [5] * 1_000, right.ravel())
    assert found == pytest.approx(weights, abs=0.25)
