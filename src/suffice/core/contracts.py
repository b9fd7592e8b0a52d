"""Whether an answer keeps its task's contract, and the one rule that accepts: the same for proof and serving."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from suffice.core.types import (
    ANSWER_SLICE,
    Choice,
    Choices,
    Fields,
    Many,
    Number,
    OutputContract,
    Prediction,
    Reason,
    Span,
    Text,
    ToolCall,
)
from suffice.core.values import Value, calls_of, plain


def covers(contract: OutputContract, value: Value) -> bool:
    """Whether `value` (in its plain form) is an answer that this contract allows."""
    match contract:
        case Choice():
            return not isinstance(value, list | dict) and (isinstance(value, bool), value) in contract.known
        case Choices(_, least, most):
            if not isinstance(value, list) or not _within(len(value), least, most):
                return False
            return all(isinstance(item, str) and item in contract.known for item in value)
        case Fields(fields, required, either):
            if not isinstance(value, dict) or not value.keys() <= {name for name, _ in fields}:
                return False
            if any(value.get(name) is None for name in required):
                return False
            if either and not any(covers(way, value) for way in either):
                return False
            return all(may_be(inner, value.get(name)) for name, inner in fields)
        case ToolCall(tools, none_allowed, offered):
            calls = calls_of(value)
            if calls is None or len(calls) > 1:
                return False
            if not calls:
                return none_allowed
            if offered:
                return isinstance(calls[0].get("arguments", {}), dict)
            arguments = calls[0].get("arguments", {})
            return any(name == calls[0]["name"] and covers(inner, arguments) for name, inner in tools)
        case Many(of, least, most):
            return (
                isinstance(value, list) and _within(len(value), least, most) and all(covers(of, item) for item in value)
            )
        case Number(whole, smallest, largest):
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                return False
            return _within(value, smallest, largest) and (not whole or value == int(value))
        case Span(least, most, pattern) | Text(least, most, pattern):
            if not isinstance(value, str) or not _within(len(value), least, most):
                return False
            return not pattern or re.search(pattern, value, re.ASCII) is not None


def beyond(contract: OutputContract, value: Value) -> bool:
    """Whether a request so answered is one that a single call does not answer: the frontier used words, or several
    calls. It can be told, and left to the frontier."""
    if not isinstance(contract, ToolCall) or contract.none_allowed:
        return False
    calls = calls_of(value)
    return calls is None or len(calls) > 1


def _within(value: float, least: float | None, most: float | None) -> bool:
    return (least is None or value >= least) and (most is None or value <= most)


def may_be(contract: OutputContract, value: Value) -> bool:
    """Whether a field of this contract may say `value`, or nothing: null among its choices, or nothing to find."""
    if value is not None:
        return covers(contract, value)
    match contract:
        case Choice():
            return (False, None) in contract.known
        case Fields(fields):
            return all(may_be(inner, None) for _, inner in fields)
        case ToolCall():
            return False
        case _:
            return True


def in_slice(name: str, slices: Sequence[str], value: Value) -> bool:
    """Whether a request of these slices, answered by the specialist with `value`, is in a declared slice.

    Never a function of the reference: an escalated request has none yet.
    """
    if name.startswith(ANSWER_SLICE):
        return isinstance(value, str) and value == name.removeprefix(ANSWER_SLICE)
    return name in slices


def refusal(
    prediction: Prediction,
    contract: OutputContract,
    threshold: float,
    slices: Sequence[str] = (),
    closed: Sequence[str] = (),
) -> Reason | None:
    """Why this answer may not be given, None if it may: out of contract, unlike anything seen, in a slice without a
    promise, or not sure enough.

    `slices` are the request's, `closed` the release's. `accepted(x)` of the proof is `refusal(x) is None`; calibration,
    the gate, `suffice answer` and serving all use it.
    """
    if not covers(contract, plain(prediction.value)):
        return Reason.CONTRACT
    if not prediction.familiar:
        return Reason.UNFAMILIAR
    if closed and any(in_slice(name, slices, plain(prediction.value)) for name in closed):
        return Reason.SLICE
    if not prediction.score >= threshold:  # a NaN is not sure either
        return Reason.BELOW_THRESHOLD
    return None


def told(contract: OutputContract) -> str:
    """The contract in a few words."""
    match contract:
        case Choice(values):
            return f"one of {len(values):,} values"
        case Choices(values):
            return f"a set of {len(values):,} labels"
        case Fields(fields):
            return "JSON with " + ", ".join(f"{name} ({told(inner)})" for name, inner in fields)
        case ToolCall(tools, none_allowed, offered):
            which = "the tools that a request offers" if offered else f"{len(tools)} tools"
            return f"a call of one of {which}" + (", or none" if none_allowed else "")
        case Many(of):
            return f"a list, each {told(of)}"
        case Number(whole, least, most):
            ends = [f"{word} {end:g}" for word, end in (("from", least), ("to", most)) if end is not None]
            return " ".join(["a whole number" if whole else "a number", *ends])
        case Span():
            return "a piece of the input"
        case _:
            return "free text"
