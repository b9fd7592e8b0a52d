"""How an exported answer is written: contract and style, compiled to a tree that a runner of any language walks.

Everything that is known beforehand is text by then: each answer of each head as JSON, keys with their colons, the
frontier's indentation, what stands for a field that says nothing. A node is one of

- `{"head", "says"}`: the JSON text of each of the head's answers, null where it says nothing;
- `{"labels": [[head, yes, text]], "least", "most", "ends", "between"}`: those labels whose head's answer is `yes`;
- `{"fields": [[key, text, node, silent]], "required", "forms", "ways", "ends", "between"}`: an object; `silent` is
  written where the field says nothing (null: it is left out), if the field is of every one of the `forms` that the
  said ones are of; one of the `ways` (keys, required), if there are any, must take it;
- `{"tools": [null | [text, node]]}`: by the first head's answer a call, or none.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.style import _SILENT, Style, _under
from suffice.core.types import Choice, Choices, Fields, OutputContract, ToolCall
from suffice.specialists.heads import Path, Scalar
from suffice.specialists.linear_model import FittedHead

Node = dict[str, Any]


class Layout(msgspec.Struct, frozen=True):
    """`root` writes JSON; where `parsed`, that JSON is the answer, else its text between `before` and `after`."""

    root: Node
    parsed: bool
    before: str = ""
    after: str = ""


def layout_of(contract: OutputContract, style: Style, heads: Sequence[FittedHead]) -> Layout:
    """The layout of a task's answers. Raises InputError for a contract with open questions, or whose forms differ."""
    build = _Build(style, heads)
    if isinstance(contract, ToolCall):
        return Layout({"tools": build.tools(contract)}, parsed=True)
    if style.kind == "text":
        return Layout(build.text(contract), parsed=True)
    root = build.node(contract, (), "", 0)
    if style.kind == "json_text":
        return Layout(root, parsed=False, before=style.before, after=style.after)
    return Layout(root, parsed=True)


class _Build:
    """One contract's nodes."""

    def __init__(self, style: Style, heads: Sequence[FittedHead]) -> None:
        self._style = style
        self._heads = {head.path: (at, head) for at, head in enumerate(heads)}

    def tools(self, contract: ToolCall) -> list[Any]:
        """By the position of the tool among the first head's answers what is written."""
        named = dict(contract.tools)
        return [
            [self._text(name), self.node(named[name], (name,), name, 0)] if isinstance(name, str) else None
            for name in self._heads[()][1].values
        ]

    def text(self, contract: OutputContract) -> Node:
        """An answer that is the text itself, or whatever else it is."""
        if isinstance(contract, Choice):
            at, head = self._heads[()]
            return {"head": at, "says": [json.dumps(self._style.value(value)) for value in head.values]}
        return self.node(contract, (), "", 0)

    def node(self, contract: OutputContract, path: Path, place: str, level: int) -> Node:
        """The node of an answer, or a part of it: `path` is its heads', `place` the style's name for where it is."""
        if isinstance(contract, Choice):
            at, head = self._heads[path]
            return {"head": at, "says": [self._scalar(value, place, bool(path)) for value in head.values]}
        if isinstance(contract, Choices):
            labels = [self._label((*path, label), label) for label in contract.values]
            shape = {"ends": ["[", "]"], "between": ", "} if self._style.inline else self._shape("[]", level)
            return {"labels": labels, "least": contract.least, "most": contract.most, **shape}
        if isinstance(contract, Fields):
            return self._object(contract, path, place, level)
        raise InputError("an answer with pieces of the input, numbers or free text cannot be exported yet")

    def _label(self, path: Path, label: str) -> list[Any]:
        at, head = self._heads[path]
        return [at, head.values.index(True) if True in head.values else None, self._text(label)]

    def _object(self, contract: Fields, path: Path, place: str, level: int) -> Node:
        inner, style = dict(contract.fields), self._style
        order = style.keys.get(place, ())
        fields = []
        for key in (*order, *(name for name in inner if name not in order)):
            under = _under(place, key)
            node = self.node(inner[key], (*path, key), under, level + 1) if key in inner else None
            fields.append([key, f"{self._text(key)}{style.colon}", node, self._silent(under, level + 1)])
        return {
            "fields": fields,
            "required": list(contract.required),
            "forms": [list(form) for form in style.sets.get(place, ())],
            "ways": [self._way(way, inner) for way in contract.either],
            **self._shape("{}", level),
        }

    def _way(self, way: Fields, inner: dict[str, OutputContract]) -> list[list[str]]:
        if way.either or any(inner.get(name) != of for name, of in way.fields):
            raise InputError("a schema whose forms give one field several meanings cannot be exported yet")
        return [[name for name, _ in way.fields], list(way.required)]

    def _silent(self, place: str, level: int) -> str | None:
        """What is written for a field that says nothing, None where it is left out."""
        style = self._style
        way = style.absent.get(place, "object" if place in style.keys else "omit")
        if way == "omit":
            return None
        if way != "object":
            return json.dumps(_SILENT[way])
        parts = []
        for key in style.keys.get(place, ()):
            said = self._silent(_under(place, key), level + 1)
            if said is not None and all(key in form for form in style.sets.get(place, ())):
                parts.append(f"{self._text(key)}{style.colon}{said}")
        shape = self._shape("{}", level)
        opens, closes = shape["ends"] if parts else "{}"
        return f"{opens}{shape['between'].join(parts)}{closes}"

    def _scalar(self, value: Scalar, place: str, field: bool) -> str | None:
        """One answer of a head as JSON; None where the field that it is says nothing."""
        if field and value is None:
            return None
        decimals = {"": self._style.decimals[place]} if place in self._style.decimals else {}
        alone = msgspec.structs.replace(self._style, kind="json_text", before="", after="", decimals=decimals)
        return str(alone.value(value))

    def _text(self, text: str) -> str:
        return json.dumps(text, ensure_ascii=self._style.ascii)

    def _shape(self, ends: str, level: int) -> Node:
        """How the parts of an object or a list are put together, and what stands around them."""
        indent = self._style.indent
        if indent is None:
            return {"ends": list(ends), "between": self._style.item}
        step = indent if isinstance(indent, str) else " " * indent
        inner = "\n" + step * (level + 1)
        return {"ends": [ends[0] + inner, "\n" + step * level + ends[1]], "between": self._style.item + inner}
