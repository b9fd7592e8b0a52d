"""Whether an answer keeps its task's contract, and the one rule that accepts: the same for proof and serving."""

from __future__ import annotations

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
    ToolCall,
)
from suffice.core.values import Value, calls_of, plain


def covers(contract: OutputContract, value: Value) -> bool:
    """Whether `value` (in its plain form) is an answer that this contract allows."""
    match contract:
        case Choice(values):
            return not isinstance(value, list | dict) and any(
                value == allowed and isinstance(value, bool) == isinstance(allowed, bool) for allowed in values
            )
        case Choices(values):
            return isinstance(value, list) and all(isinstance(item, str) and item in values for item in value)
        case Fields(fields):
            if not isinstance(value, dict) or not value.keys() <= {name for name, _ in fields}:
                return False
            return all(_field(inner, value.get(name)) for name, inner in fields)
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
        case Many(of):
            return isinstance(value, list) and all(covers(of, item) for item in value)
        case Number():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case _:
            return isinstance(value, str)


def _field(contract: OutputContract, value: Value) -> bool:
    """A field may be absent where the contract says so: null among its choices, or nothing to find."""
    if value is not None:
        return covers(contract, value)
    match contract:
        case Choice(values):
            return None in values
        case Fields(fields):
            return all(_field(inner, None) for _, inner in fields)
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
            return f"one of {len(values)} values"
        case Choices(values):
            return f"a set of {len(values)} labels"
        case Fields(fields):
            return "JSON with " + ", ".join(f"{name} ({told(inner)})" for name, inner in fields)
        case ToolCall(tools, none_allowed, offered):
            which = "the tools that a request offers" if offered else f"{len(tools)} tools"
            return f"a call of one of {which}" + (", or none" if none_allowed else "")
        case Many(of):
            return f"a list, each {told(of)}"
        case Number():
            return "a number"
        case Span():
            return "a piece of the input"
        case _:
            return "free text"
