"""What an answer costs: nothing if equal, everything if nothing of it is right, and what lies between."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.core.losses import kind_of, loss
from suffice.core.values import Value, canonical

SCALARS = st.none() | st.booleans() | st.integers(-3, 3) | st.sampled_from(["a", "b", "", "{", "[1]"])
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3),
    max_leaves=8,
)


def call(name: str, **arguments: Value) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


@pytest.mark.parametrize(
    ("said", "right", "expected"),
    [
        ("a", "a", 0),
        ("a", "b", 1),
        (4, 4.0, 0),
        (True, 1, 1),
        ('{"a": 1}', {"a": 1, "b": None}, 0),  # equal answers, however they are written
        (["a", "b"], ["b", "a", "a"], 0),  # labels are a set
        (["a"], ["a", "b"], 1 - 2 / 3),
        ([], ["a"], 1),
        ({"city": "Rome", "day": 1}, {"city": "Rome", "day": 2}, 0.5),
        ({"city": "Rome"}, {"city": "Rome", "day": 2, "n": 1}, 0.5),
        ({"to": {"city": "Rome"}}, {"from": {"city": "Rome"}}, 1),  # the path counts
        ({"pieces": ["a", "b"]}, {"pieces": ["b", "a"]}, 0),  # order is not looked at here; `exact` looks
        ({"pieces": ["a", "a"]}, {"pieces": ["a"]}, 1 - 2 / 3),
        ({"who": [{"name": "X", "age": 1}]}, {"who": [{"name": "X", "age": 2}]}, 1),  # members of a list count whole
        ({"tool_calls": []}, {"tool_calls": [call("f")]}, 1),
        ({"tool_calls": [call("f", x=1)]}, {"tool_calls": [call("f", x=2)]}, 0.5),
        ({"tool_calls": [call("g", x=1)]}, {"tool_calls": [call("f", x=1)]}, 1),
        ("a", {"a": "a"}, 1),
        (None, "a", 1),
        ({}, {}, 0),
    ],
)
def test_f1_over_the_items(said: Value, right: Value, expected: float) -> None:
    assert loss("f1", said, right) == pytest.approx(expected)
    assert loss("f1", right, said) == pytest.approx(expected)


@given(VALUES, VALUES)
def test_losses_lie_between_the_equal_and_the_exact(said: Value, right: Value) -> None:
    equal = canonical(said) == canonical(right)
    assert loss("exact", said, right) == (0.0 if equal else 1.0)
    assert 0.0 <= loss("f1", said, right) <= loss("exact", said, right)


def test_the_kind_follows_from_the_loss_and_the_references() -> None:
    assert kind_of("exact", "agreement") == kind_of("exact", "absolute") == "binary"
    assert kind_of("f1", "agreement") == kind_of("f1", "absolute") == "graded"
    assert kind_of("exact", "signed") == kind_of("f1", "signed") == "signed"
