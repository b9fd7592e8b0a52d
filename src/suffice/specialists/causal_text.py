"""What a generating model is asked and what it says: inputs as chat prompts, answers as text, and text as answers.

The same for training and serving. An answer that is free text is written as it is; any other as compact JSON of its
plain form, fields in the contract's order.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from suffice.core.contracts import covers
from suffice.core.errors import InputError
from suffice.core.types import Choice, Choices, Fields, Many, OutputContract, Text, ToolCall
from suffice.core.values import Value, calls_of, decode, parse, plain

Render = Callable[[str, str], str]
"""A chat template: instruction and input to the prompt behind which the answer begins."""

NAMED_CHARS = 120
"""So much of the names of values, fields and tools stands in the instruction; the rest is learned from examples."""
_MARKS = ("\ue000suffice\ue001", "\ue002input\ue003")


class Prompting(msgspec.Struct, frozen=True, kw_only=True):
    """A chat prompt with its instruction, cut where the input stands. `special` are the texts that mean more than
    themselves to the model: an input never carries them."""

    before: str
    after: str
    special: tuple[str, ...] = ()

    def of(self, text: str) -> str:
        """The whole prompt for an input."""
        return self.before + self.readable(text) + self.after

    def readable(self, text: str) -> str:
        """An input with a space inside of what would be a special token, and no halves of surrogate pairs."""
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode("utf-8")
        for mark in self.special:
            if mark in text:
                text = text.replace(mark, f"{mark[:1]} {mark[1:]}")
        return text


def prompting(
    contract: OutputContract, render: Render, special: Sequence[str], taught: bool = True, told: str | None = None
) -> Prompting:
    """How inputs are put to a model with this chat template; one that no example has taught is told all names.

    `told` is the instruction with which a model was tuned elsewhere, in place of that of the contract.

    Raises InputError for a template that changes what users say.
    """
    told = told if told is not None else instruction(contract, NAMED_CHARS if taught else None)
    whole = [render(told, mark) for mark in _MARKS]
    before, found, after = whole[0].partition(_MARKS[0])
    if not found or whole[1] != before + _MARKS[1] + after:
        raise InputError("the base model's chat template does not take a user's words as they are")
    return Prompting(
        before=before, after=after, special=tuple(sorted((s for s in special if s), key=len, reverse=True))
    )


def instruction(contract: OutputContract, most: int | None = None) -> str:
    """What the model is told to do, with names of up to `most` characters: short, since it is read for every answer."""
    match contract:
        case Text():
            return "Write the answer."
        case Choice(values) | Choices(values):
            which = "Answer with one of" if isinstance(contract, Choice) else "Answer with a JSON list of"
            return f"{which}: {_listed([_json(value) for value in values], most)}."
        case Many(of):
            inner = [name for name, _ in of.fields] if isinstance(of, Fields) else []
            return (
                f"Answer with a JSON list of objects: {_listed(inner, most)}." if inner else "Answer with a JSON list."
            )
        case Fields(fields):
            return f"Answer with JSON: {_listed([name for name, _ in fields], most)}."
        case ToolCall(tools):
            return f"Answer with a tool call as JSON: {_listed([name for name, _ in tools], most)}."
        case _:
            return "Answer with JSON."


def is_bare(contract: OutputContract) -> bool:
    """Whether answers are written as they are, not as JSON: free text that nothing limits."""
    return contract == Text()


def written(contract: OutputContract, value: Value) -> str:
    """An answer as the model is to write it."""
    said = plain(value)
    if is_bare(contract):
        return said if isinstance(said, str) else _json(said)
    return _json(_ordered(contract, said))


def said(contract: OutputContract, text: str) -> Value:
    """The answer that a model has written, in its plain form; None where it is none that the contract allows."""
    if is_bare(contract):
        found = plain(text)
    else:
        try:
            read = decode(text)
            # A text inside JSON is a text, even one that looks like JSON itself.
            found = read.strip() if isinstance(read, str) else plain(parse(read))
        except InputError:
            return None
    return found if covers(contract, found) else None


def _ordered(contract: OutputContract, value: Any) -> Any:
    """Objects with their fields in the contract's order: one way to write each answer."""
    match contract:
        case Fields(fields) if isinstance(value, dict):
            known = {name: _ordered(inner, value[name]) for name, inner in fields if name in value}
            return known | {name: inner for name, inner in value.items() if name not in known}
        case Many(of) if isinstance(value, list):
            return [_ordered(of, item) for item in value]
        case Choices(values) if isinstance(value, list):
            place = {label: at for at, label in enumerate(values)}
            return sorted(value, key=lambda item: place.get(item, len(place)))
        case ToolCall(tools):
            inner = dict(tools)
            calls = calls_of(value) or []
            return {
                "tool_calls": [
                    {"name": call["name"], "arguments": _ordered(inner[name], call.get("arguments", {}))}
                    for call in calls
                    if (name := str(call["name"])) in inner
                ]
            }
        case _:
            return value


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _listed(names: Sequence[str], most: int | None) -> str:
    whole = ", ".join(names)
    if most is None or len(whole) <= most:
        return whole
    return whole[: whole.rfind(", ", 0, most) + 2] + "..."
