"""How the frontier writes an answer down, so that a specialist's looks the same.

A *value* is what an answer says (`core.values`); a *style* is how this task's frontier writes values: bare text, JSON
with its separators, key order, decimals, fence and way of leaving a field out, or tool calls.
"""

from __future__ import annotations

import heapq
import json
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec

from suffice.core.values import Value, calls_of, canonical, parse, plain

Absent = Literal["omit", "null", "text", "list", "object"]
_SILENT: dict[str, Value] = {"null": None, "text": "", "list": []}
SAMPLE = 200
"""Answers whose layout is looked at."""
MOST_DECIMALS = 4
"""Decimals up to which 12.50 is told from 12.5."""


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
    short form of imported traffic), `calls`. `before` and `after` surround the JSON or the text (a code fence, a
    newline); `labels` maps a label to the text most often written for it, where that differs; `keys` is the frontier's
    order of fields and `absent` how it writes a field that says nothing, by dotted path (`a[]` for a list's items).
    `sets` are the fields that objects of several forms have together, `decimals` how many a number has at least (0:
    whole ones are written as such), `inline`: lists without objects stand on one line of indented JSON.
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
    sets: dict[str, tuple[tuple[str, ...], ...]] = {}
    decimals: dict[str, int] = {}
    inline: bool = False

    def value(self, value: Value) -> Value:
        """`value` in the shape that the training answers had (what `suffice answer` prints)."""
        if self.kind == "text":
            return self._text(value)
        calls = calls_of(value)
        if calls is not None:
            return {"tool_calls": [self._call(call) for call in calls]}
        filled = self._fill(value, "")
        return self._json(filled, "", wrap=True) if self.kind == "json_text" else filled

    def render(self, value: Value) -> Rendered:
        """`value` as a live answer."""
        shaped = self.value(value)
        calls = calls_of(shaped)
        if calls is not None:
            written = ((str(call["name"]), call["arguments"]) for call in calls)
            return Rendered(None, tuple((name, self._json(given, name)) for name, given in written))
        return Rendered(shaped if isinstance(shaped, str) else self._json(shaped, ""))

    def _text(self, value: Value) -> Value:
        written = self.labels.get(canonical(value))
        if written is not None or not isinstance(value, str):
            return written if written is not None else value
        return f"{self.before}{value}{self.after}"

    def _call(self, call: dict[str, Value]) -> dict[str, Value]:
        name = str(call["name"])
        return {"name": name, "arguments": self._fill(call.get("arguments", {}), name)}

    def _json(self, value: Value, path: str, wrap: bool = False) -> str:
        text = self._written(value, path, 0)
        return f"{self.before}{text}{self.after}" if wrap else text

    def _written(self, value: Value, path: str, level: int) -> str:
        """JSON as the standard library lays it out, but for decimals and lists on one line."""
        if isinstance(value, dict):
            parts = [
                f"{json.dumps(key, ensure_ascii=self.ascii)}{self.colon}"
                f"{self._written(item, _under(path, key), level + 1)}"
                for key, item in value.items()
            ]
            return self._joined("{", parts, "}", level)
        if isinstance(value, list):
            parts = [self._written(item, f"{path}[]", level + 1) for item in value]
            if self.inline and not any(isinstance(item, list | dict) for item in value):
                return f"[{', '.join(parts)}]"
            return self._joined("[", parts, "]", level)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return _digits(value, self.decimals.get(path, 0))
        return json.dumps(value, ensure_ascii=self.ascii)

    def _joined(self, opens: str, parts: Sequence[str], closes: str, level: int) -> str:
        if self.indent is None or not parts:
            return opens + self.item.join(parts) + closes
        step = self.indent if isinstance(self.indent, str) else " " * self.indent
        inner = "\n" + step * (level + 1)
        return f"{opens}{inner}{(self.item + inner).join(parts)}\n{step * level}{closes}"

    def _fill(self, value: Value, path: str) -> Value:
        """Fields in the frontier's order, silent ones written its way, numbers whole or with a fraction as it does."""
        if isinstance(value, list):
            return [self._fill(item, f"{path}[]") for item in value]
        if isinstance(value, int | float) and not isinstance(value, bool):
            if self.decimals.get(path, 0):
                return float(value)
            return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
        if not isinstance(value, dict):
            return value
        filled: dict[str, Value] = {}
        order = self.keys.get(path, ())
        for key in (*order, *(key for key in value if key not in order)):
            inner = _under(path, key)
            way = self.absent.get(inner, "object" if inner in self.keys else "omit")
            if value.get(key) is not None:
                filled[key] = self._fill(value[key], inner)
            elif way == "omit" or not self._beside(key, path, value):
                continue
            else:
                filled[key] = self._fill({}, inner) if way == "object" else _SILENT[way]
        return filled

    def _beside(self, key: str, path: str, said: dict[str, Value]) -> bool:
        """Whether a silent field belongs to the form of object that these fields are of, whichever that is."""
        forms = [form for form in self.sets.get(path, ()) if said.keys() <= set(form)]
        return all(key in form for form in forms)


def _under(path: str, key: str) -> str:
    return f"{path}.{key}" if path or not key else key  # a field without a name is not the object that it is in


def _digits(number: float, decimals: int) -> str:
    """A number with at least so many decimals; with none of them whole numbers have no point."""
    if decimals == 0 and isinstance(number, float) and number.is_integer() and abs(number) < 2**53:
        number = int(number)
    text = json.dumps(float(number) if decimals else number, allow_nan=False)
    point = text.find(".")
    return text if decimals == 0 or point < 0 or "e" in text else text.ljust(point + 1 + decimals, "0")


# ---------------------------------------------------------------------------------------------- inferred


def infer(answers: Sequence[Value], short_form: bool, arguments: Sequence[str] = ()) -> Style:
    """The style that most of these raw answers share.

    `short_form`: they are JSON values, not an answer's text. `arguments`: those of tool calls, as they were written.
    """
    if not answers:
        return Style()
    seen = _Seen()
    called = [calls for answer in answers if (calls := calls_of(answer)) is not None]
    if len(called) * 2 > len(answers):
        for call in (call for calls in called for call in calls):
            seen.add(parse(call.get("arguments")), str(call["name"]))
        layout = _layout([(text, parse(text)) for text in arguments]) if arguments else {"item": ",", "colon": ":"}
        return Style(kind="calls", **seen.habits(), **layout)
    parsed = [parse(answer) for answer in answers]
    structured = [(a, p) for a, p in zip(answers, parsed, strict=True) if isinstance(p, dict | list)]
    if len(structured) * 2 > len(answers):
        texts = [(a, p) for a, p in structured if isinstance(a, str)]
        for answer, value in structured:
            seen.add(_literal(answer, value), "")
        habits = seen.habits()
        layout = _layout(texts, habits["decimals"]) if texts else {}
        kind: Literal["json", "json_text"] = "json_text" if len(texts) * 2 > len(structured) else "json"
        return Style(kind=kind, **habits, **layout)
    if short_form and any(not isinstance(answer, str) for answer in answers):
        for said in parsed:
            seen.add(said, "")
        return Style(kind="json", decimals=seen.habits()["decimals"])
    return _of_texts([answer for answer in answers if isinstance(answer, str)])


def _of_texts(answers: Sequence[str]) -> Style:
    """White space around the text as most have it, and the labels that are written in another way."""
    written: defaultdict[str, Counter[str]] = defaultdict(Counter)
    around: Counter[tuple[str, str]] = Counter()
    for answer in answers:
        written[canonical(answer)][answer] += 1
        bare = answer.strip()
        around[answer[: len(answer) - len(answer.lstrip())] if bare else "", answer[len(answer.rstrip()) :]] += 1
    before, after = max(around.items(), key=lambda c: (c[1], c[0]))[0] if around else ("", "")
    commonest = {label: max(counts.items(), key=lambda c: (c[1], c[0]))[0] for label, counts in written.items()}
    odd = {label: text for label, text in commonest.items() if text != f"{before}{parse(text)}{after}"}
    return Style(before=before, after=after, labels=odd)


class _Written(float):
    """A number with the text that it was written as."""

    text: str

    def __new__(cls, text: str) -> _Written:
        number = super().__new__(cls, text)
        number.text = text
        return number


def _literal(answer: Value, value: Value) -> Any:
    """`value`, which `answer` parses to, with its fractions as they were written."""
    if not isinstance(answer, str) or "." not in answer:
        return value
    before, after = _around(answer)
    try:
        return json.loads(answer[len(before) : len(answer) - len(after)], parse_float=_Written)
    except (ValueError, RecursionError):
        return value


class _Seen:
    """What answers do at each path: orders of keys, ways to say nothing, decimals."""

    def __init__(self) -> None:
        self.keys: defaultdict[str, Counter[tuple[str, ...]]] = defaultdict(Counter)
        self.silent: defaultdict[str, Counter[Absent]] = defaultdict(Counter)
        self.given: Counter[str] = Counter()
        self.digits: defaultdict[str, Counter[int]] = defaultdict(Counter)

    def add(self, value: Any, path: str) -> None:
        """One value as it was written."""
        if isinstance(value, list):
            for item in value:
                self.add(item, f"{path}[]")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            text = value.text if isinstance(value, _Written) else json.dumps(value)
            self.digits[path].update(k for k in range(MOST_DECIMALS + 1) if _digits(value, k) == text)
        elif isinstance(value, dict):
            self.keys[path][tuple(value)] += 1
            for key, item in value.items():
                inner = _under(path, key)
                self.given[inner] += 1
                if (way := _way(item)) is not None:
                    self.silent[inner][way] += 1
                self.add(item, inner)

    def habits(self) -> dict[str, Any]:
        """`keys`, `absent`, `sets` and `decimals` of a style."""
        keys, absent, sets = {}, {}, {}
        for path, counts in self.keys.items():
            keys[path] = _order(counts)
            objects, mixed = counts.total(), False
            for key in keys[path]:
                inner = _under(path, key)
                ways = self.silent[inner].copy()
                if objects > self.given[inner] or (not ways and inner in self.keys):
                    ways["omit"] += objects - self.given[inner]
                if ways:
                    absent[inner] = max(ways.items(), key=lambda way: (way[1], way[0] == "omit", way[0]))[0]
                written = absent.get(inner, "omit") != "omit"
                mixed = mixed or (written and objects > self.given[inner] and _of_a_form(key, counts))
            if mixed:
                sets[path] = tuple(known for known, _ in counts.most_common(SAMPLE))
        decimals = {path: max(counts.items(), key=lambda c: (c[1], -c[0]))[0] for path, counts in self.digits.items()}
        return {"keys": keys, "absent": absent, "sets": sets, "decimals": {p: k for p, k in decimals.items() if k}}


def _of_a_form(key: str, counts: Counter[tuple[str, ...]]) -> bool:
    """Whether a field that is left out now and then goes with another: they come together, or never do."""
    having = [set(known) for known in counts if key in known]
    lacking = [set(known) for known in counts if key not in known]
    together, apart = set.intersection(*having) - {key}, set().union(*lacking)
    return bool(together - apart) or bool(apart - set().union(*having))


def _way(item: Any) -> Absent | None:
    """How a field says nothing, None if it says something."""
    if isinstance(item, dict):
        return "object" if plain({"it": item}) == {} else None
    return "null" if item is None else "text" if item == "" else "list" if item == [] else None


def _order(counts: Counter[tuple[str, ...]]) -> tuple[str, ...]:
    """One order of fields that keeps to every order seen; where they contradict each other, the commoner counts."""
    follows: Counter[tuple[str, str]] = Counter()
    for known, times in counts.items():
        for pair in pairwise(known):
            follows[pair] += times
    ranks = {key: rank for rank, key in enumerate(_merged(counts))}
    behind: defaultdict[str, list[str]] = defaultdict(list)
    waits = dict.fromkeys(ranks, 0)
    for (first, then), times in follows.items():
        if times > follows[then, first]:
            behind[first].append(then)
            waits[then] += 1
    order: dict[str, None] = {}
    ready = [(rank, key) for key, rank in ranks.items() if not waits[key]]
    for fallback in ranks.items():
        # A circle of contradicting orders leaves nothing ready: it is entered at its first field.
        if not ready and fallback[0] not in order:
            ready = [(fallback[1], fallback[0])]
        while ready:
            key = heapq.heappop(ready)[1]
            order[key] = None
            for then in behind[key]:
                waits[then] -= 1
                if not waits[then] and then not in order:
                    heapq.heappush(ready, (ranks[then], then))
    return tuple(order)


def _merged(counts: Counter[tuple[str, ...]]) -> list[str]:
    """The commonest order, with the fields it lacks where other objects have them: right behind the one before."""
    order: list[str] = []
    for known, _ in counts.most_common():
        for position, key in enumerate(known):
            if key not in order:
                after = next((order.index(k) + 1 for k in reversed(known[:position]) if k in order), 0)
                order.insert(after, key)
    return order


class _Layout(NamedTuple):
    indent: int | str | None
    item: str
    colon: str
    ascii: bool = False
    inline: bool = False


_LAYOUTS = [
    _Layout(None, ", ", ": "),
    _Layout(None, ",", ":"),
    *(_Layout(indent, ",", ": ", inline=inline) for inline in (False, True) for indent in (2, 4, 1, 3, "\t")),
]


def _layout(texts: Sequence[tuple[str, Any]], decimals: dict[str, int] | None = None) -> dict[str, Any]:
    """The JSON layout (and what stands around it) that reproduces most of the texts to the letter."""
    sample = texts[:SAMPLE]
    before, after = Counter(_around(text) for text, _ in sample).most_common(1)[0][0]

    def hits(layout: _Layout) -> int:
        style = Style(kind="json_text", before=before, after=after, decimals=decimals or {}, **layout._asdict())
        return sum(style._json(value, "", wrap=True) == text for text, value in sample)

    candidates = [layout._replace(ascii=ascii) for layout in _LAYOUTS for ascii in (False, True)]
    return {**max(candidates, key=hits)._asdict(), "before": before, "after": after}


def _around(text: str) -> tuple[str, str]:
    start = min((text.index(mark) for mark in "{[" if mark in text), default=0)
    end = max(text.rfind("}"), text.rfind("]")) + 1
    return text[:start], text[end:]
