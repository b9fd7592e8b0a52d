"""Taking an answer apart into closed questions ("heads"), and putting the answers to them together again.

A choice is one head. A set of labels is a yes/no head for each label. An object has the heads of its fields. A tool
call is a head for which tool (or none), and for each tool the heads of its arguments, asked only where it is called.
Open questions (pieces of the input, numbers, lists of these) are no heads: `pieces.py` tells of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec

from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, ToolCall
from suffice.core.values import Value, calls_of, canonical, plain

Scalar = str | int | float | bool | None
Path = tuple[str, ...]
Answers = dict[Path, Any]
"""What an answer says to each question, by its path: a scalar, and a list of scalars where the contract has a list."""

_OPEN = {
    "many": "a list of other things than pieces of the input or numbers",
    "text": "free text",
}


class Head(msgspec.Struct, frozen=True):
    """One closed question: where its answer stands, the answers there are, and the tool that must be called for it."""

    path: Path
    values: tuple[Scalar, ...]
    tool: str | None = None


def unsupported(contract: OutputContract, where: str = "") -> str | None:
    """Why `contract` cannot be told by choices, pieces of the input and numbers, in one sentence; None if it can."""
    if isinstance(contract, (Choice, Choices)):
        if contract.values:
            return None
        return f"{_place(where)} has no values to choose from."
    if isinstance(contract, Fields):
        return _first(unsupported(inner, f"{where}.{name}" if where else name) for name, inner in contract.fields)
    if isinstance(contract, ToolCall):
        if contract.offered:
            return "each request offers tools of its own."
        if not contract.tools:
            return "the contract names no tool."
        return _first(unsupported(inner, f"{name}()") for name, inner in contract.tools)
    if is_open(contract):
        return None
    kind = str(type(contract).__struct_config__.tag)
    return (
        f"{_place(where)} is {_OPEN.get(kind, kind)}, and only known values, pieces of the input and numbers are told."
    )


def is_open(contract: OutputContract) -> bool:
    """Whether this is a piece of the input, a number, or a list of either."""
    return isinstance(contract.of if isinstance(contract, Many) else contract, Span | Number)


def _place(where: str) -> str:
    return f"the field `{where}`" if where else "the answer"


def _first(reasons: Iterator[str | None]) -> str | None:
    return next((reason for reason in reasons if reason is not None), None)


def heads_of(contract: OutputContract) -> tuple[Head, ...]:
    """All heads of a supported contract, in a fixed order; for a tool call the first asks which tool."""
    if isinstance(contract, ToolCall):
        names: tuple[Scalar, ...] = tuple(name for name, _ in contract.tools)
        which = Head((), (None, *names) if contract.none_allowed else names)
        arguments = [
            msgspec.structs.replace(head, tool=name)
            for name, inner in contract.tools
            for head in _heads(inner, (name,))
        ]
        return (which, *arguments)
    return tuple(_heads(contract, ()))


def _heads(contract: OutputContract, path: Path) -> Iterator[Head]:
    if isinstance(contract, Choice):
        yield Head(path, contract.values)
    elif isinstance(contract, Choices):
        for label in contract.values:
            yield Head((*path, label), (False, True))
    elif isinstance(contract, Fields):
        for name, inner in contract.fields:
            yield from _heads(inner, (*path, name))
    elif not is_open(contract):
        raise ValueError(unsupported(contract))


def answers(contract: OutputContract, value: Value) -> Answers | None:
    """What `value` answers to each question, by its path; None where it has another shape than the contract.

    A question that is not asked (an argument of another tool) is left out. An answer may lie outside its head's values.
    """
    value = plain(value)
    found: Answers = {}
    if isinstance(contract, ToolCall):
        calls = calls_of(value)
        if calls is None or len(calls) > 1:
            return None
        if not calls:
            return {(): None}
        name = str(calls[0]["name"])
        inner = dict(contract.tools).get(name)
        if inner is None:
            return None
        found[()] = name
        return found if _collect(inner, calls[0]["arguments"], (name,), found) else None
    return found if _collect(contract, value, (), found) else None


def _collect(contract: OutputContract, value: Value, path: Path, found: Answers) -> bool:
    if isinstance(contract, Choice):
        if path and (value == "" or value == []):
            value = None
        if isinstance(value, (list, dict)):
            return False
        found[path] = value
        return True
    if isinstance(contract, Choices):
        labels = [] if value is None or value == "" else value
        if not isinstance(labels, list) or any(
            not isinstance(label, str) or label not in contract.known for label in labels
        ):
            return False
        for label in contract.values:
            found[(*path, label)] = label in labels
        return True
    if isinstance(contract, Fields):
        fields = {} if value is None else value
        if not isinstance(fields, dict) or not fields.keys() <= dict(contract.fields).keys():
            return False
        return all(_collect(inner, fields.get(name), (*path, name), found) for name, inner in contract.fields)
    if isinstance(contract, Many) and value is not None and not isinstance(value, list):
        return False
    if not isinstance(contract, Many) and isinstance(value, list | dict):
        return False
    found[path] = value
    return is_open(contract)


def composer(contract: OutputContract) -> Callable[[Mapping[Path, Any]], Value]:
    """The way back: a function from an answer to each asked question, by path, to the contract's plain form."""

    def compose(inner: OutputContract, path: Path, found: Mapping[Path, Any]) -> Value:
        if isinstance(inner, Choice):
            answer: Value = found[path]
            return answer
        if isinstance(inner, Choices):
            return [label for label in inner.values if found[(*path, label)]]
        if not isinstance(inner, Fields):
            piece: Value = found.get(path)
            return [] if piece is None and isinstance(inner, Many) else piece
        built = {name: compose(of, (*path, name), found) for name, of in inner.fields}
        return {name: item for name, item in built.items() if item is not None and item != [] and item != {}}

    if not isinstance(contract, ToolCall):
        return lambda found: compose(contract, (), found)
    tools = dict(contract.tools)

    def call(found: Mapping[Path, Any]) -> Value:
        name = found[()]
        if not isinstance(name, str):
            return {"tool_calls": []}
        return {"tool_calls": [{"name": name, "arguments": compose(tools[name], (name,), found)}]}

    return call


def index_of(head: Head) -> dict[str, int]:
    """The position of each of a head's values by its canonical text (true, 1 and "1" are three values)."""
    return {canonical(value): index for index, value in enumerate(head.values)}
