"""How bad an answer is, by the reference: 0 is as good as right, 1 is as bad as can be.

`exact` knows right and wrong. `f1` gives credit for what is right in an answer of several parts: 1 - F1 over its items,
which is how slots, entities and label sets are scored in the field (CoNLL, SNIPS, and micro-F1 over one answer). An
object's items are its fields, each with its path; a list's items are its members, whole, in any order; a set's items
are its labels; a tool call has its name and its arguments; a bare label has one item and so is right or wrong.

A further loss (ROUGE, a rule in Python, a judge's score) is a further entry of `MEASURES`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

from suffice.core.types import LossKind, LossName, Promise
from suffice.core.values import Value, calls_of, canonical, plain


def loss(name: LossName, said: Value, right: Value) -> float:
    """The loss of saying `said` where `right` is right, in [0, 1]; 0 for equal answers (see `core.values`)."""
    return 0.0 if canonical(said) == canonical(right) else MEASURES[name](said, right)


def kind_of(name: LossName, promise: Promise) -> LossKind:
    """The declared kind of loss, which picks the test: fixed by policy and references before any label is read."""
    if promise == "signed":
        return "signed"
    return "binary" if name == "exact" else "graded"


def _differs(said: Value, right: Value) -> float:
    return 1.0  # `loss` has seen to equal answers


def _missed(said: Value, right: Value) -> float:
    """1 - F1: twice the items in common over all items of both, each as often as it stands there."""
    there, wanted = Counter(_items_of(plain(said))), Counter(_items_of(plain(right)))
    shared = (there & wanted).total()
    return 1.0 - 2 * shared / max(there.total() + wanted.total(), 1)


MEASURES: dict[LossName, Callable[[Value, Value], float]] = {"exact": _differs, "f1": _missed}
"""Loss by name. Asked only of answers that are not equal; anything in [0, 1]."""


def _items_of(value: Value) -> Iterator[tuple[str, ...]]:
    """The items of an answer in its plain form. Lists at the top are sets of labels: what is said twice counts once."""
    calls = calls_of(value)
    if calls is not None:
        for call in calls:
            yield "call", str(call["name"])
            yield from _leaves(call.get("arguments", {}), ("call", str(call["name"])))
    elif isinstance(value, list):
        yield from {("item", _text(item)) for item in value}
    else:
        yield from _leaves(value, ())


def _leaves(value: Value, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield (*path, _text(item))
    else:
        yield (*path, _text(value))


def _text(item: Value) -> str:
    """The same text for equal items. Put into a list, since a text inside an answer is not unpacked if it is JSON."""
    return canonical([item])
