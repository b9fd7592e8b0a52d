"""Where things stand in an answer: the parts of a contract, what an answer says at each, and how places are written.

A place is "" for the whole answer, `a.b` for a field in a field, `f().x` for an argument, `a[]` for items of a list.
"""

from __future__ import annotations

from collections.abc import Iterator

from suffice.core.types import Fields, Many, OutputContract, ToolCall
from suffice.core.values import Value, calls_of


def under(where: str, name: str) -> str:
    """The place of a field."""
    return f"{where}.{name}" if where else name


def place(where: str) -> str:
    """A place as a sentence names it."""
    return f"the field `{where}`" if where else "the answer"


def parts(contract: OutputContract, where: str = "") -> Iterator[tuple[str, OutputContract]]:
    """A contract and all that it is made of, with where it stands."""
    yield where, contract
    if isinstance(contract, Fields):
        for name, inner in contract.fields:
            yield from parts(inner, under(where, name))
    elif isinstance(contract, ToolCall):
        for name, arguments in contract.tools:
            yield from parts(arguments, under(where, f"{name}()"))
    elif isinstance(contract, Many):
        yield from parts(contract.of, f"{where}[]")


def leaves(contract: OutputContract, value: Value, where: str = "") -> Iterator[tuple[str, OutputContract, Value]]:
    """What a plain answer says at each end of the contract (a choice, labels, a number, a text); silent ones left out.

    What has another shape than the contract is left out too.
    """
    if isinstance(contract, Fields):
        for name, inner in contract.fields if isinstance(value, dict) else ():
            if isinstance(value, dict) and value.get(name) is not None:
                yield from leaves(inner, value[name], under(where, name))
    elif isinstance(contract, Many):
        for item in value if isinstance(value, list) else ():
            yield from leaves(contract.of, item, f"{where}[]")
    elif isinstance(contract, ToolCall):
        calls = calls_of(value)
        arguments = dict(contract.tools).get(str(calls[0]["name"])) if calls and len(calls) == 1 else None
        if calls and arguments is not None:
            yield from leaves(arguments, calls[0].get("arguments", {}), under(where, f"{calls[0]['name']}()"))
    else:
        yield where, contract, value
