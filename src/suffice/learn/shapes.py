"""The contract that answers show by themselves: labels, pieces of the input, numbers, objects of those, tool calls.

Answers only: what the request fixes is `schemas`. All rows count for lists of labels, so that a rare one is not lost;
whether values stand in their inputs is looked up for a bounded part.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import msgspec
import numpy as np

from suffice.core.contracts import may_be
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, calls_of, canonical
from suffice.learn import standing
from suffice.learn.standing import PIECES

OPEN = 0.2
"""A list of values is closed if the chance that the next answer is a new one is at most this (Good-Turing)."""
NEW_PIECES = 0.02
"""The same where the values stand in their inputs: a tagger finds new ones there, and a closed list never does."""
FEWEST_NEW = 3
"""Fewer new values than that are chance."""
COPIED = 0.98
"""From this share of values that stand in their inputs on they are copied from there, even if no new one ever comes."""
ELSEWHERE = 0.5
"""Unless as many stand in other rows' inputs too: an option's letter, or a "yes" where the input says "yes or no?"."""
FEWEST_COPIED = 20


def infer(inputs: Sequence[str], values: Sequence[Value]) -> OutputContract:
    """The contract that most answers keep. `values` are in their plain form, one for each input."""
    rows = list(zip(inputs, values, strict=True))
    called = [calls_of(value) for value in values]
    if sum(calls is not None for calls in called) * 2 > len(values):
        return _tool_call(inputs, called)
    if sum(isinstance(value, dict) for value in values) * 2 > len(values):
        return fields([(text, value) for text, value in rows if isinstance(value, dict)])
    if sum(isinstance(value, list) for value in values) * 2 > len(values):
        return _list([(text, value) for text, value in rows if isinstance(value, list)])
    return _scalar([(text, value) for text, value in rows if not isinstance(value, list | dict)])


def _list(rows: Sequence[tuple[str, list[Value]]]) -> OutputContract:
    items = list(standing.items(rows))
    if sum(isinstance(item, dict | list) for _, item in items) * 2 > len(items):
        return Many(infer([text for text, _ in items], [item for _, item in items]))
    if items and all(isinstance(item, bool) for _, item in items):
        return Many(Choice((False, True)))
    labels = [(text, item) for text, item in items if isinstance(item, str)]
    if labels and closed(labels):
        return Choices(order([value for _, value in rows]))
    return Many(_open(items))


def _tool_call(inputs: Sequence[str], called: Sequence[list[dict[str, Value]] | None]) -> ToolCall:
    """Tools in alphabetical order, each with the contract of its arguments; several calls at once are outside it."""
    arguments: dict[str, list[tuple[str, dict[str, Value]]]] = {}
    for text, calls in zip(inputs, called, strict=True):
        if calls is not None and len(calls) == 1:
            given = calls[0].get("arguments", {})
            if isinstance(given, dict):
                arguments.setdefault(str(calls[0]["name"]), []).append((text, given))
    tools = tuple((name, fields(rows)) for name, rows in sorted(arguments.items()))
    return ToolCall(tools, none_allowed=any(calls == [] for calls in called))


def fields(rows: Sequence[tuple[str, dict[str, Value]]]) -> Fields:
    """Fields in the order in which they first appear; one that is absent somewhere has null among its choices."""
    names = dict.fromkeys(name for _, row in rows for name in row)
    return Fields(tuple((name, _field([(text, row.get(name)) for text, row in rows])) for name in names))


def _field(rows: Sequence[tuple[str, Value]]) -> OutputContract:
    said = [(text, value) for text, value in rows if value is not None]
    contract = infer([text for text, _ in said], [value for _, value in said])
    return optional(contract) if len(said) < len(rows) else contract


def optional(contract: OutputContract) -> OutputContract:
    """`contract` for a field that may be absent: so may all that it holds."""
    if isinstance(contract, Choice) and None not in contract.values:
        return Choice((*contract.values, None))
    if isinstance(contract, Fields):
        # What an object always says it still does where it is there at all: null only lets the whole of it be absent.
        always = (name for name, inner in contract.fields if name not in contract.required and not may_be(inner, None))
        return msgspec.structs.replace(
            contract,
            fields=tuple((name, optional(inner)) for name, inner in contract.fields),
            required=(*contract.required, *always),
        )
    return contract


def order(lists: Sequence[Sequence[Value]]) -> tuple[str, ...]:
    """Labels as the lists order them: by their mean place among the labels of a list, then by name."""
    places: dict[str, list[float]] = {}
    for labels in lists:
        for position, label in enumerate(labels):
            if isinstance(label, str):
                places.setdefault(label, []).append((position + 0.5) / len(labels))
    return tuple(sorted(places, key=lambda label: (round(sum(places[label]) / len(places[label]), 3), label)))


def _scalar(rows: Sequence[tuple[str, Value]]) -> OutputContract:
    if not closed(rows):
        return _open(rows)
    distinct = {canonical(value): value for _, value in rows if not isinstance(value, list | dict)}
    return Choice(tuple(distinct[key] for key in sorted(distinct)))


def newness(values: Sequence[Value]) -> float:
    """About the chance that the next value is one never seen: the share of values seen once (Good and Turing)."""
    counts = Counter(map(canonical, values))
    return sum(count == 1 for count in counts.values()) / len(values) if values else 0.0


def closed(rows: Sequence[tuple[str, Value]]) -> bool:
    """Whether these (input, value) rows are labels out of a closed list: hardly a new one comes.

    Of values that stand in their inputs fewer new ones open the list (NEW_PIECES), and none at all where texts are
    copied from there: SNIPS with its 39 slots, everything right: 84% of 2,000 as pieces, 65% with lists of labels.
    """
    new = newness([value for _, value in rows])
    if new > OPEN:
        return False
    stands = standing.share(rows)
    if new > NEW_PIECES and new * len(rows) >= FEWEST_NEW and stands >= PIECES:
        return False
    return stands < COPIED or not _copied(rows)


def _copied(rows: Sequence[tuple[str, Value]]) -> bool:
    """Whether texts that stand in their own inputs were taken from there: in other rows' inputs they seldom stand."""
    if len(rows) < FEWEST_COPIED or not all(isinstance(value, str) for _, value in rows):
        return False
    shuffled = np.random.default_rng(0).permutation(len(rows)).tolist()
    others = [(rows[i][0], value) for i, (_, value) in zip(shuffled, rows, strict=True)]
    return standing.share(others) <= ELSEWHERE


def _open(rows: Sequence[tuple[str, Value]]) -> OutputContract:
    """What an open value is: a number, a piece of the input, or text that the model makes up."""
    pairs = list(standing.items(rows))
    numbers = sum(isinstance(item, int | float) and not isinstance(item, bool) for _, item in pairs)
    if pairs and numbers >= PIECES * len(pairs):
        return Number()
    texts = [(text, item) for text, item in pairs if isinstance(item, str)]
    return Span() if texts and len(texts) >= PIECES * len(pairs) and standing.share(texts) >= PIECES else Text()
