"""Which of the functions that a request offers it calls for: numbers that tell, functions never seen included.

A function is read once as a card: its name, what is said of it, its parameters, as vectors and as words. A request is
held against each card by likeness of vectors (plain, and by a learned map between the two), by shared words, and,
for functions that training saw called, by the texts that called them. What this does not know: the order of words.
"""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.specialists.embedding import Embedding
from suffice.specialists.saved import Arrays

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

FEATURES = (
    "told",
    "name",
    "parameters",
    "mapped",
    "own",
    "seen",
    "centroid",
    "name_cover",
    "told_cover",
    "told_words",
    "parameter_cover",
    "mention",
    "told_lead",
    "mapped_lead",
    "words_lead",
    "name_lead",
)
"""Of a request and a function: cosine to its name with description, to its name, to its parameters; the learned map's
product; for functions seen called: own learned product, 1, cosine to the centroid of the calling texts (else 0 each);
share of the name's words in the request, of the request's in the description, cosine by words, share of the request's
in the parameters; 1 if the name itself is written in the request; how far four of these lead the best other function's.
"""

LONGEST_ASKED = 4_000
"""Characters of a request whose words are compared."""
_LONGEST_TOLD = 1_000
_MOST_PARAMETERS = 24
_MOST_CARDS = 4_096
_STEM = 6
_AT_ONCE = 128
_CJK = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
_WORD = re.compile(rf"[{_CJK}]|[^\W_{_CJK}]+")
_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


def spelled(name: str) -> str:
    """A name in code as words: `getUserInfo`, `get_user.info` as "get User Info"."""
    return " ".join(_WORD.findall(_HUMP.sub(" ", name)))


def stem(word: str) -> str:
    """A word's beginning, which is the same for most of its forms in most languages that have forms."""
    return word.lower()[:_STEM]


def stems(text: str) -> list[str]:
    """The stem of each word, in order."""
    return [stem(word) for word in _WORD.findall(text)]


def properties(function: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The schemas of a function's parameters by name; what is no schema is left out."""
    parameters = function.get("parameters")
    inner = parameters.get("properties") if isinstance(parameters, dict) else None
    return {k: v for k, v in inner.items() if isinstance(v, dict)} if isinstance(inner, dict) else {}


def said(schema: Mapping[str, Any]) -> str:
    """A function's or a schema's description; "" where there is none."""
    told = schema.get("description")
    return told[:_LONGEST_TOLD] if isinstance(told, str) else ""


def printed(text: str) -> str:
    """`text` without halves of surrogate pairs, which tokenizers refuse."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


class Raw(NamedTuple):
    """A function as it is read, whatever is fitted: vectors (3, D) and stems of its name, description, parameters."""

    key: str
    vectors: Floats32
    spelled: str
    name: frozenset[str]
    told: frozenset[str]
    parameters: frozenset[str]


class Shelf:
    """Reads functions, and keeps what it read of the last few thousand by their content. Thread-safe."""

    def __init__(self, embedding: Embedding) -> None:
        self.embedding = embedding
        self._kept: OrderedDict[bytes, Raw] = OrderedDict()
        self._lock = Lock()

    def raws(self, functions: Sequence[dict[str, Any]]) -> list[Raw]:
        """One for each function, in order."""
        keys = [msgspec.json.encode(function) for function in functions]
        with self._lock:
            found = {key: self._kept[key] for key in keys if key in self._kept}
            for key in found:
                self._kept.move_to_end(key)
        missing = {key: function for key, function in zip(keys, functions, strict=True) if key not in found}
        if missing:
            found |= dict(zip(missing, self._read(list(missing.values())), strict=True))
            with self._lock:
                self._kept.update((key, found[key]) for key in missing)
                while len(self._kept) > _MOST_CARDS:
                    self._kept.popitem(last=False)
        return [found[key] for key in keys]

    def vectors(self, texts: Sequence[str]) -> Floats32:
        """The vector of each text: shape (len(texts), D). Some at a time: what is read of words is larger."""
        found = np.zeros((len(texts), self.embedding.dimensions), dtype=np.float32)
        for start in range(0, len(texts), _AT_ONCE):
            for row, reading in enumerate(self.embedding.read(texts[start : start + _AT_ONCE]), start):
                found[row] = reading.vector
        return found

    def _read(self, functions: Sequence[dict[str, Any]]) -> list[Raw]:
        texts: list[str] = []
        parts = []
        for function in functions:
            name, told = spelled(printed(str(function["name"])))[:200], printed(said(function))
            inner = list(properties(function).items())[:_MOST_PARAMETERS]
            parameters = printed("; ".join(f"{spelled(key)}: {said(schema)[:200]}" for key, schema in inner))
            texts += [f"{name}: {told}", name, parameters[: 2 * _LONGEST_TOLD]]
            parts.append((str(function["name"]), name, told, parameters))
        vectors = self.vectors(texts).reshape(len(functions), 3, -1)
        return [
            Raw(
                f"{identity}\n{told}",
                own.astype(np.float32),
                f" {name.lower()} ",
                frozenset(stems(name)),
                frozenset(stems(f"{name} {told}")),
                frozenset(stems(parameters)),
            )
            for own, (identity, name, told, parameters) in zip(vectors, parts, strict=True)
        ]


class Card(NamedTuple):
    """A function as a fitted chooser holds requests against it: rows (6, D) for one product, and its words' weights."""

    rows: Floats32
    seen: bool
    raw: Raw
    name_weight: float
    told_length: float


class Chooser:
    """Features of a request and each function it offers. Immutable but for what it keeps of cards; thread-safe.

    Arrays: `map` (D, D), from a request's vector to a function's; `none` (D + 1,), the request's own word for no call;
    `own` and `centroids` (T, D) for the functions seen called, whose keys are `tools`; `idf` (V,), of `words`.
    """

    def __init__(self, arrays: Arrays, tools: Sequence[str], words: Sequence[str], shelf: Shelf) -> None:
        self._map = arrays["map"].astype(np.float32)
        self._own = arrays["own"].astype(np.float32)
        self._centroids = arrays["centroids"].astype(np.float32)
        self._none = arrays["none"].astype(np.float32)
        self._at = {key: row for row, key in enumerate(tools)}
        self.idf: dict[str, float] = dict(zip(words, arrays["idf"].tolist(), strict=True))
        self.rarest = max(self.idf.values(), default=1.0)
        self._shelf = shelf
        self._kept: OrderedDict[int, Card] = OrderedDict()
        self._lock = Lock()

    def weight(self, words: Iterable[str]) -> float:
        """The summed weight of stems."""
        return float(sum(self.idf.get(word, self.rarest) for word in words))

    def length(self, words: Iterable[str]) -> float:
        """The length of the vector of the stems' weights."""
        return math.sqrt(sum(self.idf.get(word, self.rarest) ** 2 for word in words))

    def cards(self, functions: Sequence[dict[str, Any]]) -> list[Card]:
        """One for each function, in order."""
        raws = self._shelf.raws(functions)
        with self._lock:
            found = {id(raw): self._kept.get(id(raw)) for raw in raws}
        cards = []
        for raw in raws:
            card = found[id(raw)]
            if card is None or card.raw is not raw:
                card = self._card(raw)
                with self._lock:
                    self._kept[id(raw)] = card
                    while len(self._kept) > _MOST_CARDS:
                        self._kept.popitem(last=False)
            cards.append(card)
        return cards

    def _card(self, raw: Raw) -> Card:
        row = self._at.get(raw.key)
        rows = np.zeros((6, raw.vectors.shape[1]), dtype=np.float32)
        rows[:3] = raw.vectors
        rows[3] = self._map @ raw.vectors[0]
        if row is not None:
            rows[4], rows[5] = self._own[row], self._centroids[row]
        return Card(rows, row is not None, raw, self.weight(raw.name) or 1.0, self.length(raw.told) or 1.0)

    def context(self, vector: Floats32, features: Floats) -> tuple[float, float]:
        """What the request itself says of no call, from its vector and its `features`.

        How much it speaks for none whatever is offered (log-odds), and how much more it is like the texts that call
        some function that is not offered than those of the best that is (cosine).
        """
        none = float(vector @ self._none[:-1]) + float(self._none[-1])
        best = float((self._centroids @ vector).max(initial=0.0))
        return none, best - float(features[:, FEATURES.index("centroid")].max())

    def features(self, text: str, vector: Floats32, cards: Sequence[Card]) -> Floats:
        """Shape (cards, FEATURES). At least one card."""
        likeness = np.stack([card.rows for card in cards]) @ vector
        asked_words = stems(text[:LONGEST_ASKED])
        asked = frozenset(asked_words)
        asked_weight, asked_length = self.weight(asked) or 1.0, self.length(asked) or 1.0
        spoken = f" {' '.join(_WORD.findall(text[:LONGEST_ASKED])).lower()} "
        found = np.zeros((len(cards), len(FEATURES)))
        found[:, 0:5] = likeness[:, 0:5]
        found[:, 6] = likeness[:, 5]
        for row, card in enumerate(cards):
            raw, told = card.raw, card.raw.told & asked
            found[row, 5] = card.seen
            found[row, 7] = self.weight(raw.name & asked) / card.name_weight
            found[row, 8] = self.weight(told) / asked_weight
            found[row, 9] = self.length(told) ** 2 / (asked_length * card.told_length)
            found[row, 10] = self.weight(raw.parameters & asked) / asked_weight
            found[row, 11] = len(raw.spelled) > 2 and raw.spelled in spoken
        for column, of in ((12, 0), (13, 3), (14, 9), (15, 7)):
            found[:, column] = leads(found[:, of])
        return found


def leads(values: Floats) -> Floats:
    """How far each value lies above the best of the others: shape (n,); 0 where there is no other."""
    if len(values) < 2:
        return np.zeros(len(values))
    order = np.argsort(values)
    best_other = np.full(len(values), values[order[-1]])
    best_other[order[-1]] = values[order[-2]]
    return np.asarray(values - best_other)
