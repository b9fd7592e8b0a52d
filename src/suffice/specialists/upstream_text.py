"""What an upstream's model is told and how its answer is read: instructions and a schema out of a contract.

Labels and free text are answered bare, where the upstream tells the probabilities of its tokens; everything else as
JSON, `{"answer": ...}`, and where no probabilities are told with `sure` beside it: the model's own word on how sure it
is. That word is a weak signal, and never the score itself (Tian et al. 2023, "Just Ask for Calibration").

The schema is as vendors' strict mode takes it: every property required, what may be absent may be null.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from suffice.core.contracts import covers
from suffice.core.errors import InputError
from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, Span, Text, ToolCall
from suffice.core.values import Value, calls_of, decode, plain

Doc = dict[str, Any]

_TYPES = {bool: "boolean", str: "string", type(None): "null"}


def is_bare(contract: OutputContract) -> bool:
    """Whether an answer is one text, written without JSON around it."""
    match contract:
        case Choice(values):
            return all(
                isinstance(value, str) and value and value == value.strip() and "\n" not in value for value in values
            )
        case Text() | Span():
            return True
        case _:
            return False


def schema_of(contract: OutputContract) -> Doc:
    """The JSON schema of an answer."""
    match contract:
        case Choice(values):
            kinds = sorted({_TYPES.get(type(value), "number") for value in values})
            return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": list(values)}
        case Choices(values):
            return {"type": "array", "items": {"type": "string", "enum": list(values)}}
        case Fields(fields, required):
            return _object({name: schema_of(inner) for name, inner in fields}, required)
        case Many(of):
            return {"type": "array", "items": schema_of(of)}
        case Number(whole):
            return {"type": "integer" if whole else "number"}
        case ToolCall(tools, none_allowed):
            calls = [
                _object(
                    {"name": {"type": "string", "enum": [name]}, "arguments": schema_of(inner)}, ("name", "arguments")
                )
                for name, inner in tools
            ]
            ways = [*calls, {"type": "null"}] if none_allowed else calls
            return ways[0] if len(ways) == 1 else {"anyOf": ways}
        case Span() | Text():
            return {"type": "string"}


def _object(properties: dict[str, Doc], required: Sequence[str]) -> Doc:
    told = {name: inner if name in required else _or_null(inner) for name, inner in properties.items()}
    return {"type": "object", "properties": told, "required": list(told), "additionalProperties": False}


def _or_null(schema: Doc) -> Doc:
    if "enum" in schema:
        kinds = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        has = None in schema["enum"]
        return {"type": sorted({*kinds, "null"}), "enum": schema["enum"] if has else [*schema["enum"], None]}
    return {"anyOf": [schema, {"type": "null"}]} if schema.get("type") != "null" else schema


def wrapped(schema: Doc, *, sure: bool) -> Doc:
    """The schema of a whole reply: an object, as strict mode wants it."""
    told = {"answer": schema, **({"sure": {"type": "integer"}} if sure else {})}
    return _object(told, tuple(told))


def instruction(contract: OutputContract, prompt: str, *, bare: bool, sure: bool) -> str:
    """What stands at the top of each question."""
    lines = [prompt] if prompt else ["You answer requests of one kind, each as the examples were answered."]
    if bare:
        match contract:
            case Choice(values):
                lines += ["Reply with one of these, letter by letter, and nothing else:", *map(str, values)]
            case Span():
                lines.append("Reply with a piece of the request, copied letter by letter, and nothing else.")
            case _:
                lines.append("Reply with the answer and nothing else.")
        return "\n".join(lines)
    lines.append("Reply with JSON and nothing else. It keeps to this schema:")
    lines.append(_compact(wrapped(schema_of(contract), sure=sure)))
    if sure:
        lines.append("`sure` is how sure you are that the answer is right: a whole number from 0 to 100.")
    return "\n".join(lines)


def shown(contract: OutputContract, value: Value, *, bare: bool) -> str:
    """An answer as the model is to write it."""
    said = plain(value)
    if bare:
        return str(said)
    calls = calls_of(said)
    if isinstance(contract, ToolCall) and calls is not None:
        said = calls[0] if calls else None
    return _compact({"answer": _filled(contract, said)})


def _filled(contract: OutputContract, value: Any) -> Any:
    """With null for every field that says nothing, as the schema has it."""
    match contract:
        case Fields(fields) if isinstance(value, dict):
            return {name: _filled(inner, value.get(name)) for name, inner in fields}
        case Many(of) if isinstance(value, list):
            return [_filled(of, item) for item in value]
        case ToolCall(tools) if isinstance(value, dict):
            inner = next((fields for name, fields in tools if name == value.get("name")), Fields(()))
            return {"name": value.get("name"), "arguments": _filled(inner, value.get("arguments") or {})}
        case _:
            return value


def read(contract: OutputContract, text: str, *, bare: bool) -> tuple[Value, float | None]:
    """The answer in a reply, in its plain form, and how sure the model says it is, in [0, 1] (None: it does not say).

    Raises InputError where there is none. Whether it keeps the contract is the accepting rule's to say.
    """
    if bare:
        return _text(contract, text), None
    document = decode(_unfenced(text))
    if not isinstance(document, dict) or "answer" not in document:
        raise InputError("the reply holds no `answer`")
    value, told = document["answer"], document.get("sure")
    if isinstance(contract, ToolCall):
        value = {"tool_calls": [value] if value is not None else []}
    elif isinstance(value, str) and is_bare(contract):
        value = _text(contract, value)
    if isinstance(told, bool) or not isinstance(told, int | float):
        return plain(value), None
    return plain(value), min(max(told / 100, 0.0), 1.0)


def _text(contract: OutputContract, text: str) -> Value:
    """A text as one of the values, where it is one but for case, quotes or a full stop."""
    said = text.strip()
    if not isinstance(contract, Choice) or covers(contract, said):
        return said
    bared = said.strip("\"'`.* ").casefold()
    alike = [value for value in contract.values if isinstance(value, str) and value.casefold() == bared]
    return alike[0] if len(alike) == 1 else said


def _unfenced(text: str) -> str:
    """JSON without a code fence, or words, around it."""
    start, end = text.find("{"), text.rfind("}")
    return text[start : end + 1] if 0 <= start < end else text


def _compact(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
