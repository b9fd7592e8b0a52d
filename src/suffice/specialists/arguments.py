"""Filling a function's arguments from what a request mentions, for functions never seen too.

Each parameter is a question with options: what the request mentions that its type allows, the values its schema lists,
and leaving it out where it may be left out. A weighing of features, the same for all functions, chooses. What this does
not know: values that stand neither in the request nor in the schema nor in training, such as a city's state.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.values import Value, canonical
from suffice.specialists.conditional import log_softmax
from suffice.specialists.embedding import Embedding, Reading
from suffice.specialists.mentions import SMALL_WORDS, Mentions, Place, mentions_of
from suffice.specialists.offered_choice import printed, properties, said, spelled, stem, stems
from suffice.specialists.schemas import branch, required_of, types_of, valid

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

KINDS = ("text", "number", "closed", "flag", "list")
WIDTH = 64
"""Columns of every option's features; a kind uses as many as it needs."""
_OUT = 54
"""From here on the columns of leaving out."""
_MOST_QUESTIONS = 40
MOST_HELD = 32_768
"""Vectors of questions that are kept for requests to come: some 50 MB at most."""
_MOST_CLOSED = 60
_NEAR = 4
_TAKEN = 4.0
"""What an option loses (log-odds) whose piece of the request another argument has taken."""
_PREPOSITIONS = ("in", "at", "from", "to", "for", "of", "on", "by", "with", "named", "called", "is", "as", "about")
_HINTS: tuple[tuple[str, ...], ...] = (
    ("date", "day", "when"),
    ("time", "hour"),
    ("url", "link", "uri", "endpoi", "websit"),
    ("email", "mail"),
    ("id", "identi", "number", "code", "key"),
    ("name", "city", "locati", "countr", "place", "person", "state", "title", "author", "artist", "compan"),
    ("query", "messag", "text", "conten", "prompt", "descri", "questi"),
)
_FROM = frozenset(("from", "start", "origin", "source", "depart", "begin", "check", "pickup"))
_TO = frozenset(("to", "end", "destin", "target", "arriva", "return", "until", "dropof"))
_NOT = frozenset(("not", "no", "without", "don", "never", "exclud", "disabl", "except"))


class Question(NamedTuple):
    """One parameter: where it stands in the arguments, what it takes, and its words."""

    path: tuple[str, ...]
    kind: str
    schema: Mapping[str, Any]
    required: bool
    name: tuple[str, ...]
    told: frozenset[str]
    description: str
    values: tuple[Value, ...]
    vector: Floats32
    value_vectors: Floats32
    rank: int
    peers: int


class Option(NamedTuple):
    """A value that an argument could have; `place` is the piece of the request that it takes up, if any."""

    value: Value
    place: Place | None


class Filled(NamedTuple):
    """Arguments with the log of their joint probability and the log-odds of the least sure one; None: impossible."""

    arguments: dict[str, Value] | None
    log_right: float
    weakest: float


def questions_of(function: Mapping[str, Any], embedding: Embedding) -> list[Question]:
    """A function's parameters, those of objects within it included, in the order of its schema."""
    found: list[tuple[tuple[str, ...], Mapping[str, Any], bool]] = []

    def walk(schema: Mapping[str, Any], path: tuple[str, ...], needed: bool) -> None:
        for name, each in properties({"parameters": schema}).items():
            inner = branch(each)
            must = needed and name in required_of(schema)
            if types_of(inner) == ("object",) and properties({"parameters": inner}) and len(path) < 2:
                walk(inner, (*path, name), must)
            else:
                found.append(((*path, name), inner, must))

    parameters = function.get("parameters")
    walk(parameters if isinstance(parameters, dict) else {}, (), True)
    found = found[:_MOST_QUESTIONS]
    kinds = [_kind(schema) for _, schema, _ in found]
    values = [_values(schema, kind) for (_, schema, _), kind in zip(found, kinds, strict=True)]
    texts = [printed(f"{spelled(path[-1])}: {said(schema)[:200]}") for path, schema, _ in found]
    listed = [printed(spelled(str(value))[:80]) for own in values for value in own]
    vectors = _whole(texts + listed, embedding)
    counts = {kind: kinds.count(kind) for kind in KINDS}
    seen = dict.fromkeys(KINDS, 0)
    result, at = [], len(texts)
    for (path, schema, must), kind, own, vector in zip(found, kinds, values, vectors, strict=False):
        told = said(schema)
        result.append(
            Question(
                path,
                kind,
                schema,
                must,
                tuple(stems(spelled(path[-1]))),
                frozenset(stems(told)) - SMALL_WORDS,
                told,
                own,
                vector,
                vectors[at : at + len(own)],
                seen[kind],
                counts[kind],
            )
        )
        seen[kind] += 1
        at += len(own)
    return result


def _whole(texts: Sequence[str], embedding: Embedding) -> Floats32:
    """The vector of each text in the space of words, at length 1: shape (len(texts), word_dimensions)."""
    if not texts:
        return np.zeros((0, embedding.word_dimensions), dtype=np.float32)
    read = embedding.read(list(texts))
    found = np.stack([each.words([(0, max(1, len(text)))])[0] for each, text in zip(read, texts, strict=True)])
    return unit(found)


def unit(vectors: Floats32) -> Floats32:
    """Rows at length 1; rows of zeros stay."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return np.asarray(vectors / np.where(lengths > 1e-9, lengths, 1), dtype=np.float32)


def _kind(schema: Mapping[str, Any]) -> str:
    types = types_of(schema)
    if "array" in types:
        return "list"
    if isinstance(schema.get("enum"), list) and schema["enum"]:
        return "closed"
    if "boolean" in types:
        return "flag"
    return "number" if "integer" in types or "number" in types else "text"


def _values(schema: Mapping[str, Any], kind: str) -> tuple[Value, ...]:
    """The values that are listed: of a closed parameter, of a list's items."""
    items = schema.get("items")
    given = schema.get("enum")
    if kind == "list" and not isinstance(given, list) and isinstance(items, dict):
        given = items.get("enum")
    if kind == "flag":
        return (True, False)
    if not isinstance(given, list):
        return ()
    return tuple(value for value in given if isinstance(value, (str, int, float, bool)))[:_MOST_CLOSED]


class Asked:
    """A request as it is held against questions. Everything is found when it is first needed."""

    def __init__(self, text: str, reading: Reading) -> None:
        self.text = text
        self._reading = reading

    @cached_property
    def mentions(self) -> Mentions:
        """What the request mentions."""
        return mentions_of(self.text)

    @cached_property
    def stems(self) -> list[str]:
        """Of each token."""
        return [stem(word) for word in self.mentions.words]

    @cached_property
    def spread(self) -> frozenset[str]:
        """All stems."""
        return frozenset(self.stems)

    @cached_property
    def token_vectors(self) -> Floats32:
        """Of each token: shape (tokens, word_dimensions)."""
        return unit(self._reading.words(self.mentions.tokens))

    @cached_property
    def span_vectors(self) -> Floats32:
        """Of each span that is mentioned."""
        return unit(self._reading.words([span.place for span in self.mentions.spans]))

    @cached_property
    def number_at(self) -> list[tuple[int, int]]:
        """The first token of each number, and the one behind its last."""
        tokens = self.mentions.tokens
        starts = np.array([start for start, _ in tokens], dtype=np.int64)
        stops = np.array([stop for _, stop in tokens], dtype=np.int64)
        return [
            (int(stops.searchsorted(a, "right")), int(starts.searchsorted(b, "left")))
            for a, b in (number.place for number in self.mentions.numbers)
        ]

    @cached_property
    def number_vectors(self) -> Floats32:
        """Of the words around each number."""
        tokens = self.mentions.tokens
        windows = []
        for first, last in self.number_at:
            low, high = max(0, first - 3), min(len(tokens), last + 2)
            windows.append((tokens[low][0], tokens[high - 1][1]) if tokens else (0, 1))
        return unit(self._reading.words(windows))

    @cached_property
    def span_features(self) -> Floats:
        """What a span is like, whatever is asked: shape (spans, 37)."""
        return _span_features(self)


def _span_features(asked: Asked) -> Floats:
    m = asked.mentions
    lower = [word.lower() for word in m.words]
    big = np.array([word[0].isupper() for word in m.words], dtype=bool)
    small = [word in SMALL_WORDS for word in lower]
    found = np.zeros((len(m.spans), 37))
    number_places = {number.place for number in m.numbers}
    inner = sorted(m.quoted)
    for row, (place, first, last) in enumerate(m.spans):
        before = lower[first - 1] if first > 0 else ""
        after = lower[last] if last < len(lower) else ""
        count = last - first
        text = m.text[place[0] : place[1]]
        own = found[row]
        own[min(count, 5) - 1] = 1
        own[5] = bool(count and big[first:last].all())
        own[6] = place in m.capitals
        own[7] = text.islower()
        own[8] = any(char.isdigit() for char in text)
        own[9] = place in number_places
        own[10] = place in m.quoted
        own[11] = any(a <= place[0] and place[1] <= b and (a, b) != place for a, b in inner)
        own[12] = place in m.addresses
        own[13] = place in m.dates
        own[14] = place in m.times
        own[15] = place in m.codes
        own[16] = bool(count and small[first])
        own[17] = bool(count and small[last - 1])
        own[18] = first == 0
        own[19] = not after or not after[0].isalnum() or after in SMALL_WORDS
        own[20] = bool(before) and (not before[0].isalnum() or before in SMALL_WORDS)
        own[21] = before in (":", "=")
        own[22] = "," in text
        if before in _PREPOSITIONS:
            own[23 + _PREPOSITIONS.index(before)] = 1
    return found


class Seen(NamedTuple):
    """What training saw: by "function parameter" the values given and how often, and how often it was left out."""

    values: dict[str, dict[str, int]]
    asked: dict[str, int]
    out: dict[str, int]


def options_of(
    question: Question, asked: Asked, key: str, seen: Seen, less: str | None = None
) -> tuple[list[Option], Floats]:
    """A question's options and their features: shape (options, WIDTH). Leaving out, where allowed, is the first.

    `less` is a value (canonical) that this very request gave in training: it is not counted as seen.
    """
    build = {"text": _texts, "number": _numbers, "closed": _closed, "flag": _closed, "list": _lists}[question.kind]
    options, features = build(question, asked)
    counts = dict(seen.values.get(key, {}))
    if less in counts:
        counts[less] -= 1
    total = sum(counts.values())
    if question.kind in ("text", "list"):
        known = {text_of(option.value) for option in options}
        new = [value for value, count in counts.items() if count > 0 and value not in known]
        options += [Option(msgspec.json.decode(value), None) for value in new]
        features = np.concatenate((features, np.zeros((len(new), WIDTH))))
        features[len(features) - len(new) :, 53] = 1
    if question.kind != "text" or types_of(question.schema) != ("string",):
        kept = [row for row, option in enumerate(options) if valid(option.value, question.schema)]
        options, features = [options[row] for row in kept], features[kept]
    if total:
        for row, option in enumerate(options):
            share = counts.get(text_of(option.value), 0) / total
            features[row, 51], features[row, 52] = share, share > 0
    if not question.required:
        features = np.concatenate((_out(question, asked, key, seen, less)[None], features))
        options = [Option(None, None), *options]
    return options, features


def text_of(value: Value) -> str:
    """`canonical`, without its detours for a text that is nothing but that."""
    if isinstance(value, str) and value and value[0] not in "{[` " and not value[-1].isspace():
        return msgspec.json.encode(printed(value)).decode()
    return canonical(value)


def _out(question: Question, asked: Asked, key: str, seen: Seen, less: str | None) -> Floats:
    features = np.zeros(WIDTH)
    name = [word for word in question.name if word not in SMALL_WORDS]
    times, outs = seen.asked.get(key, 0), seen.out.get(key, 0)
    if less is not None:
        times, outs = times - 1, outs - (less == "")
    features[_OUT:] = (
        1,
        "default" in question.schema,
        sum(word in asked.spread for word in name) / max(1, len(name)),
        float((asked.token_vectors @ question.vector).max(initial=0.0)),
        (outs + 0.5) / (times + 1) - 0.5 if times > 0 else 0.0,
        times > 0,
        "optional" in question.description.lower(),
        len(question.path) > 1,
        len(question.told & asked.spread) / max(1, len(question.told)),
        0,
    )
    return features


def _near(asked: Asked, first: int, last: int, words: Iterable[str]) -> tuple[float, float]:
    """How near words stand before and behind some tokens: 1 next to them, less the farther, 0 beyond _NEAR."""
    wanted = frozenset(words)
    before = max(
        (1 - 0.2 * (first - 1 - i) for i in range(max(0, first - _NEAR), first) if asked.stems[i] in wanted),
        default=0.0,
    )
    stop = min(len(asked.stems), last + _NEAR)
    behind = max((1 - 0.2 * (i - last) for i in range(last, stop) if asked.stems[i] in wanted), default=0.0)
    return before, behind


def _nearness(asked: Asked, words: Iterable[str]) -> tuple[Floats, Floats]:
    """For each token: how near words stand before it, and at or behind it (as `_near`): shape (tokens + 1,) each."""
    wanted, n = frozenset(words), len(asked.stems)
    before, behind = np.zeros(n + 1), np.zeros(n + 1)
    for at, word in enumerate(asked.stems):
        if word in wanted:
            for gap in range(_NEAR):
                if at + 1 + gap <= n:
                    before[at + 1 + gap] = max(before[at + 1 + gap], 1 - 0.2 * gap)
                if at - gap >= 0:
                    behind[at - gap] = max(behind[at - gap], 1 - 0.2 * gap)
    return before, behind


def _texts(question: Question, asked: Asked) -> tuple[list[Option], Floats]:
    m, spans = asked.mentions, asked.mentions.spans
    n = len(spans)
    features = np.zeros((n, WIDTH))
    features[:, :37] = asked.span_features
    options = [Option(asked.text[a:b], (a, b)) for (a, b), _, _ in spans]
    first = np.array([span.first for span in spans], dtype=np.int64)
    last = np.array([span.last for span in spans], dtype=np.int64)
    name = [word for word in question.name if word not in SMALL_WORDS]
    if n:
        for column, words in ((37, name), (39, question.told)):
            before, behind = _nearness(asked, words)
            features[:, column], features[:, column + 1] = before[first], behind[last]
        inside = np.concatenate(([0], np.cumsum([word in name for word in asked.stems])))
        features[:, 41] = inside[last] > inside[first]
        features[:, 42] = asked.span_vectors @ question.vector
        features[:, 43] = _hinted(question, features)
    own = frozenset(name)
    features[:, 44] = features[:, 25] * bool(own & _FROM) + features[:, 26] * bool(own & _TO)
    features[:, 45] = features[:, 25] * bool(own & _TO) + features[:, 26] * bool(own & _FROM)
    told = question.description.lower()
    if told:
        features[:, 46] = [
            len(option.value) > 2 and option.value.lower() in told
            for option in options
            if isinstance(option.value, str)
        ]
    features[:, 47] = features[:, 6] * _hints(question)[5]
    features[:, 48] = (features[:, 8]) * _hints(question)[4]
    features[:, 49] = _hints(question)[6] * np.minimum(last - first, 8) / 8 if n else 0
    if _hints(question)[0] or "yyyy" in told:
        for place, written in m.dates.items():
            for form, value in _forms(written):
                row = np.zeros(WIDTH)
                row[50], row[13], row[43] = 1 + 2 * (form in told), 1, _hints(question)[0]
                if value != asked.text[place[0] : place[1]]:
                    options.append(Option(value, place))
                    features = np.concatenate((features, row[None]))
    return options, features


def _forms(written: str) -> list[tuple[str, str]]:
    """A date (ISO, or "") in the forms that descriptions ask for, by how they say it."""
    if not written:
        return []
    year, month, day = written.split("-")
    return [("yyyy-mm-dd", written), ("mm/dd/yyyy", f"{month}/{day}/{year}"), ("dd/mm/yyyy", f"{day}/{month}/{year}")]


def _hints(question: Question) -> list[bool]:
    words = frozenset(question.name) | question.told
    return [any(hint in words for hint in hints) for hints in _HINTS]


def _hinted(question: Question, features: Floats) -> Floats:
    """1 for a date where a date is asked for, a time for a time, an address for an address; -1 for another's."""
    hints = _hints(question)
    wanted = (hints[0], hints[1], hints[2] or hints[3])
    found = np.zeros(len(features))
    for column, wants in zip((13, 14, 12), wanted, strict=True):
        found += features[:, column] * (1 if wants else -1)
    return found


def _numbers(question: Question, asked: Asked) -> tuple[list[Option], Floats]:
    m = asked.mentions
    whole = "integer" in types_of(question.schema)
    name = [word for word in question.name if word not in SMALL_WORDS]
    inside = (*m.dates, *m.times, *m.codes, *m.addresses)
    options, rows = [], []
    likeness = asked.number_vectors @ question.vector if m.numbers else np.zeros(0)
    free = [
        number for number in m.numbers if not any(a <= number.place[0] and number.place[1] <= b for a, b in m.dates)
    ]
    for index, number in enumerate(m.numbers):
        first, last = asked.number_at[index]
        row = np.zeros(WIDTH)
        row[0:2] = _near(asked, first, last, name)
        row[2:4] = _near(asked, first, last, question.told)
        row[4] = likeness[index]
        row[5] = likeness[index] - max((float(other) for i, other in enumerate(likeness) if i != index), default=0.0)
        position = free.index(number) if number in free else -1
        row[6] = position == question.rank
        row[7] = abs(position - question.rank) / max(1, len(free))
        row[8] = len(free) == question.peers
        row[9] = row[6] * row[8]
        row[10] = any(a <= number.place[0] and number.place[1] <= b and (a, b) != number.place for a, b in inside)
        row[11] = number.word
        row[12] = number.glued
        row[13] = number.value.is_integer() == whole
        row[14] = 1900 <= number.value <= 2100 and "year" in question.name
        row[15] = 1900 <= number.value <= 2100 and "year" not in question.name
        row[16] = number.word and number.value == 1
        ahead = asked.stems[last] if last < len(asked.stems) else ""
        row[17] = ahead in name
        row[18] = ahead in question.told
        row[19] = asked.text[max(0, number.place[0] - 1) : number.place[0]] in ("$", "€", "£", "¥")
        row[20] = len(m.numbers) == 1
        row[23] = first > 0 and asked.stems[first - 1] in name
        for value, divided in ((number.value, False), *(((number.value / 100, True),) if number.percent else ())):
            if whole and not value.is_integer():
                continue
            own = row.copy()
            own[21], own[22] = number.percent and not divided, divided
            options.append(
                Option(
                    int(value) if value.is_integer() and (whole or abs(value) < 2**53) else round(value, 12),
                    number.place,
                )
            )
            rows.append(own)
    return options, np.array(rows).reshape(len(rows), WIDTH)


def _closed(question: Question, asked: Asked) -> tuple[list[Option], Floats]:
    spoken = f" {' '.join(word.lower() for word in asked.mentions.words)} "
    options = [Option(value, None) for value in question.values]
    features = np.zeros((len(options), WIDTH))
    name = [word for word in question.name if word not in SMALL_WORDS]
    cover = sum(word in asked.spread for word in name) / max(1, len(name))
    told = len(question.told & asked.spread) / max(1, len(question.told))
    likeness = float((asked.token_vectors @ question.vector).max(initial=0.0))
    negated = bool(asked.spread & _NOT)
    flat = question.kind == "flag" or all(
        str(v).lower() in ("true", "false", "dontcare", "yes", "no") for v in question.values
    )
    by_value = (
        (asked.token_vectors @ question.value_vectors.T).max(axis=0, initial=0.0)
        if len(question.value_vectors)
        else np.zeros(len(options))
    )
    best = np.sort(by_value)
    description = question.description.lower()
    for row, value in enumerate(question.values):
        own, words = features[row], [stem(word) for word in spelled(str(value)).split()]
        is_default = "default" in question.schema and canonical(value) == canonical(question.schema["default"])
        if flat:
            start = 20 if str(value).lower() in ("true", "yes") else 30
            own[start : start + 8] = (1, cover, told, likeness, negated, is_default, question.required, cover * negated)
            continue
        own[0] = f" {' '.join(spelled(str(value)).lower().split())} " in spoken
        own[1] = sum(word in asked.spread for word in words) / max(1, len(words))
        own[2] = by_value[row]
        own[3] = by_value[row] - (best[-1] if by_value[row] < best[-1] else best[-2] if len(best) > 1 else 0.0)
        own[4] = is_default
        own[5] = row == 0
        own[6] = isinstance(value, (int, float)) and any(number.value == value for number in asked.mentions.numbers)
        own[7] = len(words)
        at = description.find(str(value).lower())
        if at >= 0:  # what the description says of this value, up to the next
            near = frozenset(stems(description[at + len(str(value)) : at + len(str(value)) + 40])) - SMALL_WORDS
            own[8] = len(near & asked.spread) / max(1, len(near))
    return options, features


def _lists(question: Question, asked: Asked) -> tuple[list[Option], Floats]:
    items = question.schema.get("items")
    inner = branch(items) if isinstance(items, dict) else {}
    kind = _kind(inner)
    m = asked.mentions
    found: list[tuple[list[Value], int, Place | None]] = []
    if kind == "number" and types_of(inner):
        whole = "integer" in types_of(inner)
        numbers = [(n.place, int(n.value) if n.value.is_integer() and whole else n.value) for n in m.numbers]
        runs: list[list[tuple[Place, int | float]]] = []
        for number in numbers:
            gap = asked.text[runs[-1][-1][0][1] : number[0][0]] if runs else ""
            joined = runs and len(gap) < 8 and gap.replace("and", "").strip(" ,;&") == ""
            if joined:
                runs[-1].append(number)
            else:
                runs.append([number])
        found += [
            ([value for _, value in run], 0 if len(run) > 1 else 1, (run[0][0][0], run[-1][0][1])) for run in runs
        ]
        if len(numbers) > 1:
            found.append(([value for _, value in numbers], 2, None))
    elif question.values:
        spoken = f" {' '.join(asked.stems)} "
        named: list[Value] = [v for v in question.values if f" {' '.join(stems(spelled(str(v))))} " in spoken]
        if named:
            found.append((named, 3, None))
        found += [([value], 4, None) for value in question.values]
    elif kind == "text":
        quoted = sorted(m.quoted)
        if quoted:
            found.append(([asked.text[a:b] for a, b in quoted], 5, None))
        found += [(value, 6, place) for value, place in _enumerated(asked)]
        found += [([asked.text[a:b]], 7, (a, b)) for (a, b), first, last in m.spans if last - first <= 4]
    options = [Option(value, place) for value, _, place in found]
    features = np.zeros((len(found), WIDTH))
    name = [word for word in question.name if word not in SMALL_WORDS]
    spans = {span.place: row for row, span in enumerate(m.spans)}
    starts = [start for start, _ in m.tokens]
    for row, (value, source, place) in enumerate(found):
        features[row, 40 + source] = 1
        features[row, 48] = min(len(value), 6) / 6
        if place in spans:
            features[row, :37] = asked.span_features[spans[place]]
            features[row, 37] = asked.span_vectors[spans[place]] @ question.vector
        if place is not None:
            first = int(np.searchsorted(starts, place[0]))
            last = int(np.searchsorted(starts, place[1]))
            features[row, 38], features[row, 39] = _near(asked, first, last, name)
            features[row, 49], features[row, 50] = _near(asked, first, last, question.told)
    return options, features


def _enumerated(asked: Asked) -> list[tuple[list[Value], Place]]:
    """Pieces that are listed: "A, B and C", "A and B" where each has at most three words."""
    m = asked.mentions
    found: list[tuple[list[Value], Place]] = []
    n = len(m.words)
    for start in range(n):
        if not m.words[start][0].isalnum() or m.words[start].lower() in SMALL_WORDS:
            continue
        parts: list[Place] = []
        at = first = start
        while at <= n:
            word = m.words[at].lower() if at < n else "."
            if word in (",", "and", "or", "&") or at == n or (word in SMALL_WORDS) or not word[0].isalnum():
                if at == first and word not in ("and", "or"):
                    break
                if at > first:
                    parts.append((m.tokens[first][0], m.tokens[at - 1][1]))
                if word not in (",", "and", "or", "&"):
                    break
                first = at + 1
            elif at - first >= 3:
                if parts:
                    parts.append(m.tokens[first])
                break
            at += 1
        if len(parts) > 1:
            found.append(([asked.text[a:b] for a, b in parts], (parts[0][0], parts[-1][1])))
    return found[:60]


class Filler:
    """Fills the arguments of any function. Immutable but for the forms it keeps; thread-safe.

    `weights` has shape (KINDS, WIDTH); `held` counts the vectors that are kept.
    """

    def __init__(self, weights: Floats, seen: Seen, embedding: Embedding) -> None:
        self.weights = weights
        self.seen = seen
        self._embedding = embedding
        self._kept: OrderedDict[bytes, list[Question]] = OrderedDict()
        self.held = 0
        self._lock = Lock()

    def questions(self, function: Mapping[str, Any]) -> list[Question]:
        """The questions that a function's parameters ask."""
        key = msgspec.json.encode(function)
        with self._lock:
            kept = self._kept.get(key)
        if kept is None:
            kept = questions_of(function, self._embedding)
            with self._lock:
                if key not in self._kept:
                    self._kept[key] = kept
                    self.held += _vectors(kept)
                while self.held > MOST_HELD:
                    self.held -= _vectors(self._kept.popitem(last=False)[1])
        return kept

    def fill(self, asked: Asked, function: Mapping[str, Any], own: Mapping[str, Value] | None = None) -> Filled:
        """The likeliest arguments for a call of `function`. Surest first, so that the others know what is taken.

        `own` are the arguments that this very request gave in training: they are not counted as seen.
        """
        weighed = []
        for question in self.questions(function):
            key = key_of(function, question)
            options, features = options_of(
                question, asked, key, self.seen, told(question, own) if own is not None else None
            )
            if not options:
                return Filled(None, -np.inf, -np.inf)
            logits = features @ self.weights[KINDS.index(question.kind)]
            weighed.append((question, options, logits))
        weighed.sort(key=lambda each: -float(log_softmax(each[2]).max()))
        taken: list[Place] = []
        chosen: dict[tuple[str, ...], Value] = {}
        log_right, weakest = 0.0, 100.0
        for question, options, logits in weighed:
            if taken and question.kind in ("text", "number", "list"):
                held = [
                    option.place is not None and any(a < option.place[1] and option.place[0] < b for a, b in taken)
                    for option in options
                ]
                logits = logits - _TAKEN * np.array(held)
            chances = log_softmax(logits)
            best = int(chances.argmax())
            log_right += float(chances[best])
            weakest = min(weakest, float(chances[best] - np.log(max(-np.expm1(chances[best]), 1e-12))))
            place = options[best].place
            if place is not None:
                taken.append(place)
            chosen[question.path] = options[best].value
        arguments = _assembled(chosen, self.questions(function))
        parameters = function.get("parameters")
        if not valid(arguments, {**parameters, "type": "object"} if isinstance(parameters, dict) else {}):
            return Filled(None, -np.inf, -np.inf)
        return Filled(arguments, log_right, weakest)


def _vectors(form: Sequence[Question]) -> int:
    """How many vectors a function's questions hold; one for a function without any."""
    return 1 + sum(1 + len(question.values) for question in form)


def told(question: Question, arguments: Mapping[str, Value]) -> str:
    """What a call gives for a question, as a text to count: canonical; "" where it is left out."""
    value: Any = arguments
    for name in question.path:
        value = value.get(name) if isinstance(value, dict) else None
    return "" if value is None else canonical(value)


def key_of(function: Mapping[str, Any], question: Question) -> str:
    """Under which training's values of a parameter are kept."""
    return f"{function['name']} {'.'.join(question.path)}"


def _assembled(chosen: Mapping[tuple[str, ...], Value], questions: Sequence[Question]) -> dict[str, Value]:
    """The arguments as one object, in the schema's order, without what is left out."""
    whole: dict[str, Any] = {}
    for question in questions:
        value = chosen[question.path]
        if value is None:
            continue
        inner = whole
        for name in question.path[:-1]:
            inner = inner.setdefault(name, {})
        inner[question.path[-1]] = value
    return whole
