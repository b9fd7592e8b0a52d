"""How the frontier writes an answer down, so that a specialist's looks the same.

A *value* is what an answer says (`core.values`); a *style* is how this task's frontier writes values: bare text, JSON
with its separators, key order, fence and way of leaving a field out, or tool calls.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from suffice.core.values import Value, calls_of, canonical, parse

Absent = Literal["omit", "null", "text", "list"]


def estimated_tokens(text: str) -> int:
    """A tokenizer-free estimate, marked as such wherever it is shown: four bytes a token, at least one."""
    return max(1, -(-len(text.encode()) // 4))


class Rendered(msgspec.Struct, frozen=True):
    """An answer ready for any dialect: its text, or the calls as (name, JSON arguments); tokens are estimated."""

    content: str | None
    calls: tuple[tuple[str, str], ...] = ()

    @property
    def tokens(self) -> int:
        """Estimated tokens."""
        return estimated_tokens("".join([self.content or "", *(name + written for name, written in self.calls)]))


class Style(msgspec.Struct, frozen=True, kw_only=True):
    """How values are written.

    `kind`: `text` (the value is the text), `json_text` (JSON in the text of an answer), `json` (a plain JSON value: the
    short form of imported traffic), `calls`. `before` and `after` surround the JSON (a code fence, a newline); `labels`
    maps a label to the text most often written for it, where that differs; `keys` is the frontier's order of fields
    and `absent` how it writes a field that says nothing, by dotted path.
    """

    kind: Literal["text", "json_text", "json", "calls"] = "text"
    indent: int | str | None = None
    item: str = ", "
    colon: str = ": "
    ascii: bool = False
    before: str = ""
    after: str = ""
    labels: dict[str, str] = {}
    keys: dict[str, tuple[str, ...]] = {}
    absent: dict[str, Absent] = {}

    def value(self, value: Value) -> Value:
        """`value` in the shape that the training answers had (what `suffice answer` prints)."""
        if self.kind == "text":
            return self._text(value)
        calls = calls_of(value)
        if calls is not None:
            return {"tool_calls": [self._call(call) for call in calls]}
        filled = self._fill(value, "")
        return self._json(filled, wrap=True) if self.kind == "json_text" else filled

    def render(self, value: Value) -> Rendered:
        """`value` as a live answer."""
        shaped = self.value(value)
        calls = calls_of(shaped)
        if calls is not None:
            return Rendered(None, tuple((str(call["name"]), self._json(call["arguments"])) for call in calls))
        return Rendered(shaped if isinstance(shaped, str) else self._json(shaped))

    def _text(self, value: Value) -> Value:
        return self.labels.get(canonical(value), value)

    def _call(self, call: dict[str, Value]) -> dict[str, Value]:
        name = str(call["name"])
        return {"name": name, "arguments": self._fill(call.get("arguments", {}), name)}

    def _json(self, value: Value, wrap: bool = False) -> str:
        text = json.dumps(
            value, indent=self.indent, separators=(self.item, self.colon), ensure_ascii=self.ascii, allow_nan=False
        )
        return f"{self.before}{text}{self.after}" if wrap else text

    def _fill(self, value: Value, path: str) -> Value:
        """Fields in the frontier's order, silent ones written its way."""
        if not isinstance(value, dict):
            return value
        filled: dict[str, Value] = {}
        for key in (*self.keys.get(path, ()), *(key for key in value if key not in self.keys.get(path, ()))):
            inner = f"{path}.{key}" if path else key
            if value.get(key) is not None:
                filled[key] = self._fill(value[key], inner)
            elif inner in self.keys and inner not in self.absent:
                filled[key] = self._fill({}, inner)  # an object that the frontier writes even if it says nothing
            elif self.absent.get(inner, "omit") != "omit":
                filled[key] = {"null": None, "text": "", "list": []}[self.absent[inner]]
        return filled


def infer(answers: Sequence[Value], short_form: bool, arguments: Sequence[str] = ()) -> Style:
    """The style that most of these raw answers share.

    `short_form`: they are JSON values, not an answer's text. `arguments`: those of tool calls, as they were written.
    """
    if not answers:
        return Style()
    keys: dict[str, Counter[tuple[str, ...]]] = {}
    absent: dict[str, Counter[Absent]] = {}
    called = [calls for answer in answers if (calls := calls_of(answer)) is not None]
    if len(called) * 2 > len(answers):
        for call in (call for calls in called for call in calls):
            _observe(call.get("arguments"), str(call["name"]), keys, absent)
        layout = _layout([(text, parse(text)) for text in arguments]) if arguments else {"item": ",", "colon": ":"}
        return Style(kind="calls", keys=_orders(keys), absent=_most(absent), **layout)
    parsed = [parse(answer) for answer in answers]
    structured = [(a, p) for a, p in zip(answers, parsed, strict=True) if isinstance(p, dict | list)]
    if len(structured) * 2 > len(answers):
        texts = [(a, p) for a, p in structured if isinstance(a, str)]
        for _, value in structured:
            _observe(value, "", keys, absent)
        layout = _layout(texts) if texts else {}
        kind: Literal["json", "json_text"] = "json_text" if len(texts) * 2 > len(structured) else "json"
        return Style(kind=kind, keys=_orders(keys), absent=_most(absent), **layout)
    if short_form and any(not isinstance(answer, str) for answer in answers):
        return Style(kind="json")
    written: dict[str, Counter[str]] = {}
    for answer in answers:
        if isinstance(answer, str):
            written.setdefault(canonical(answer), Counter())[answer] += 1
    commonest = {label: max(counts.items(), key=lambda c: (c[1], c[0]))[0] for label, counts in written.items()}
    return Style(labels={label: text for label, text in commonest.items() if text != parse(text)})


def _observe(
    value: Any, path: str, keys: dict[str, Counter[tuple[str, ...]]], absent: dict[str, Counter[Absent]]
) -> None:
    if not isinstance(value, dict):
        return
    keys.setdefault(path, Counter())[tuple(value)] += 1
    for key, item in value.items():
        inner = f"{path}.{key}" if path else key
        way: Absent | None = "null" if item is None else "text" if item == "" else "list" if item == [] else None
        if way is not None:
            absent.setdefault(inner, Counter())[way] += 1
        _observe(item, inner, keys, absent)
    for key in {key for known in keys[path] for key in known} - value.keys():
        absent.setdefault(f"{path}.{key}" if path else key, Counter())["omit"] += 1


def _orders(keys: dict[str, Counter[tuple[str, ...]]]) -> dict[str, tuple[str, ...]]:
    """One order of fields per object: the commonest order first, fields it lacks added as the others have them."""
    orders = {}
    for path, counts in keys.items():
        order: list[str] = []
        for known, _ in counts.most_common():
            for position, key in enumerate(known):
                if key not in order:
                    after = next((order.index(k) + 1 for k in reversed(known[:position]) if k in order), 0)
                    order.insert(after, key)
        orders[path] = tuple(order)
    return orders


def _most(absent: dict[str, Counter[Absent]]) -> dict[str, Absent]:
    return {path: counts.most_common(1)[0][0] for path, counts in absent.items()}


def _layout(texts: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """The JSON layout (and what stands around it) that reproduces most of the texts to the letter."""
    candidates: list[dict[str, Any]] = [
        {"indent": indent, "item": item, "colon": colon, "ascii": ascii}
        for indent, item, colon in (
            (None, ", ", ": "),
            (None, ",", ":"),
            *((indent, ",", ": ") for indent in (2, 4, 1, 3, "\t")),
        )
        for ascii in (False, True)
    ]
    sample = texts[:200]
    wraps = Counter(_around(text) for text, _ in sample)
    before, after = wraps.most_common(1)[0][0]

    def hits(position: int) -> int:
        style = Style(kind="json_text", before=before, after=after, **candidates[position])
        return sum(style._json(value, wrap=True) == text for text, value in sample)

    return {**candidates[max(range(len(candidates)), key=hits)], "before": before, "after": after}


def _around(text: str) -> tuple[str, str]:
    start = min((text.index(mark) for mark in "{[" if mark in text), default=0)
    end = max(text.rfind("}"), text.rfind("]")) + 1
    return text[:start], text[end:]
