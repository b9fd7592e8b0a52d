"""The output contract, inferred from answers of train and tune only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, calls_of, canonical

OPEN = 0.2
"""A list of values is closed if the chance that the next answer is a new one is at most this (Good-Turing)."""


def infer(inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    """The contract that most answers keep. `values` are in their plain form, one for each input."""
    called = [calls_of(value) for value in values]
    if sum(calls is not None for calls in called) * 2 > len(values):
        return _tool_call(inputs, called)
    if sum(isinstance(value, dict) for value in values) * 2 > len(values):
        return _fields([(text, value) for text, value in zip(inputs, values, strict=True) if isinstance(value, dict)])
    if sum(isinstance(value, list) for value in values) * 2 > len(values):
        lists = [value for value in values if isinstance(value, list)]
        labels = [label for labels in lists for label in labels if isinstance(label, str)]
        if labels and _closed(labels):
            return Choices(tuple(sorted(set(labels))))
        return Many(_open(inputs, values))
    scalars = [(text, v) for text, v in zip(inputs, values, strict=True) if not isinstance(v, list | dict)]
    return _scalar([text for text, _ in scalars], [value for _, value in scalars])


def _tool_call(inputs: Sequence[str], called: Sequence[list[dict[str, Value]] | None]) -> ToolCall:
    """Tools in alphabetical order, each with the contract of its arguments; several calls at once are outside it."""
    arguments: dict[str, list[tuple[str, dict[str, Value]]]] = {}
    for text, calls in zip(inputs, called, strict=True):
        if calls is not None and len(calls) == 1:
            given = calls[0].get("arguments", {})
            if isinstance(given, dict):
                arguments.setdefault(str(calls[0]["name"]), []).append((text, given))
    tools = tuple((name, _fields(rows)) for name, rows in sorted(arguments.items()))
    return ToolCall(tools, none_allowed=any(calls == [] for calls in called))


def _fields(rows: Sequence[tuple[str, dict[str, Value]]]) -> Fields:
    """Fields in the order in which they first appear; one that is absent somewhere has null among its choices."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    return Fields(tuple((name, _field([(text, row.get(name)) for text, row in rows])) for name in names))


def _field(rows: Sequence[tuple[str, Value]]) -> OutputContract:
    said = [(text, value) for text, value in rows if value is not None]
    contract = infer([text for text, _ in said], [value for _, value in said])
    if isinstance(contract, Choices):  # a list in an object is ordered
        return Choices(_order([value for _, value in said if isinstance(value, list)]))
    return _optional(contract) if len(said) < len(rows) else contract


def _optional(contract: OutputContract) -> OutputContract:
    """`contract` for a field that may be absent: so may all that it holds."""
    if isinstance(contract, Choice) and None not in contract.values:
        return Choice((*contract.values, None))
    if isinstance(contract, Fields):
        return Fields(tuple((name, _optional(inner)) for name, inner in contract.fields))
    return contract


def _order(lists: Sequence[Sequence[Value]]) -> tuple[str, ...]:
    """Labels as the lists order them: by their mean place among the labels of a list, then by name."""
    places: dict[str, list[float]] = {}
    for labels in lists:
        for position, label in enumerate(labels):
            if isinstance(label, str):
                places.setdefault(label, []).append((position + 0.5) / len(labels))
    return tuple(sorted(places, key=lambda label: (round(sum(places[label]) / len(places[label]), 3), label)))


def _scalar(inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    if _closed(values):
        distinct = {canonical(value): value for value in values if not isinstance(value, list | dict)}
        return Choice(tuple(distinct[key] for key in sorted(distinct)))
    return _open(inputs, values)


def _closed(values: Sequence[Value]) -> bool:
    """Good-Turing: the chance of a value never seen is about the share of values seen once."""
    counts = Counter(map(canonical, values))
    return sum(count == 1 for count in counts.values()) <= OPEN * len(values)


def _open(inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    """What an open value is: a number, a piece of the input, or text that the model makes up."""
    pairs = [
        (text, item)
        for text, value in zip(inputs, values, strict=True)
        for item in (value if isinstance(value, list) else [value])
    ]
    if pairs and all(isinstance(item, int | float) and not isinstance(item, bool) for _, item in pairs):
        return Number()
    if (
        sum(isinstance(item, str) and item.casefold() in text.casefold() for text, item in pairs)
        >= 0.9 * len(pairs)
        > 0
    ):
        return Span()
    return Text()
