"""Learning to choose among offered functions: the map between requests and functions, then the weights of features.

Weights of features are learned on requests that the map has not seen, half of them for functions it has not seen
called either: so they hold for functions that training never saw, and what is known of the others neither helps nor
hurts more than it should.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.offered import apart
from suffice.core.types import Example
from suffice.core.values import Value, calls_of, plain
from suffice.specialists.conditional import likelihood, minimised, starts_of
from suffice.specialists.embedding import Embedding, Reading
from suffice.specialists.offered_choice import LONGEST_ASKED, Chooser, Raw, Shelf, stems
from suffice.specialists.saved import Arrays

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_MOST_MAPPED = 4_000
"""Rows that the map is fitted on; more take time and give little."""
_MOST_RIVALS = 11
_MOST_WORDS = 30_000
_FEWEST_CALLS = 5
"""From so many calls on, a function has evidence of its own."""
_STEPS = 30
_RIDGE = 0.5
FOLDS = 3


class Row(NamedTuple):
    """A training row: what was asked, its vector, what it offers, which of these is called (-1: none), with what."""

    text: str
    functions: list[dict[str, Any]]
    right: int
    arguments: dict[str, Value]
    target: Value
    vector: Floats32


class Later:
    """What an embedding reads of a text whose vector is known: its words are read when they are first needed.

    The words of all of train would not fit into memory.
    """

    def __init__(self, text: str, vector: Floats32, embedding: Embedding) -> None:
        self.vector = vector
        self._text = text
        self._embedding = embedding
        self._reading: Reading | None = None

    def words(self, places: Sequence[tuple[int, int]]) -> Floats32:
        """Of each piece of the text: shape (len(places), word_dimensions)."""
        if self._reading is None:
            self._reading = self._embedding.read([self._text])[0]
        return self._reading.words(places)


def asked_of(value: Value) -> tuple[str | None, dict[str, Value]] | None:
    """The called function's name (None: no call) and its arguments; None where `value` is another kind of answer."""
    calls = calls_of(plain(value))
    if calls is None or len(calls) > 1:
        return None
    if not calls:
        return None, {}
    arguments = calls[0]["arguments"]
    return str(calls[0]["name"]), arguments if isinstance(arguments, dict) else {}


def rows_of(examples: Sequence[Example], shelf: Shelf) -> list[Row]:
    """The rows that train: one call of a function that was offered, or none; with at least one function offered."""
    taken = [(apart(each.input), asked_of(each.target), each.target) for each in examples if each.usable]
    kept = []
    for (text, functions), answer, target in taken:
        if answer is None or not functions:
            continue
        names = [function["name"] for function in functions]
        if answer[0] is None or answer[0] in names:
            kept.append((text, functions, -1 if answer[0] is None else names.index(answer[0]), answer[1], target))
    vectors = shelf.vectors([each[0] for each in kept])
    return [Row(*each, vector) for each, vector in zip(kept, vectors, strict=True)]


def idf_of(rows: Sequence[Row], shelf: Shelf) -> tuple[list[str], Floats32]:
    """Stems of the requests and of the functions offered, with the log of how rare each is."""
    raws = {raw.key: raw for row in rows for raw in shelf.raws(row.functions)}
    texts = [frozenset(stems(row.text[:LONGEST_ASKED])) for row in rows]
    texts += [raw.told | raw.parameters for raw in raws.values()]
    counts = Counter(word for words in texts for word in words)
    common = sorted(counts, key=lambda word: (-counts[word], word))[:_MOST_WORDS]
    idf = [np.log((1 + len(texts)) / (1 + counts[word])) + 0.3 for word in common]
    return common, np.array(idf, dtype=np.float32)


def fit_map(rows: Sequence[Row], shelf: Shelf, seed: int, beat: Callable[[], None]) -> tuple[Arrays, list[str]]:
    """`map`, `none`, `own`, `centroids` of a `Chooser`, and the keys of the functions seen called.

    All are fitted together: a softmax over the functions offered and none, with ridges.
    """
    dice = random.Random(seed)
    dimensions = shelf.embedding.dimensions
    raws = [shelf.raws(row.functions) for row in rows]
    called = Counter(own[row.right].key for row, own in zip(rows, raws, strict=True) if row.right >= 0)
    tools = sorted(key for key, count in called.items() if count >= _FEWEST_CALLS)
    at = {key: index for index, key in enumerate(tools)}
    centroids = np.zeros((len(tools), dimensions), dtype=np.float32)
    for row, own in zip(rows, raws, strict=True):
        if row.right >= 0 and own[row.right].key in at:
            centroids[at[own[row.right].key]] += row.vector
    centroids /= np.maximum(np.linalg.norm(centroids, axis=1, keepdims=True), 1e-9)

    chosen = sorted(dice.sample(range(len(rows)), min(len(rows), _MOST_MAPPED)))
    options = [_rivals(rows[index], raws[index], called, dice) for index in chosen]
    shown = [raw for own, _ in options for raw in own]
    if not shown:
        flat = np.zeros(dimensions * (dimensions + len(tools) + 1) + 2)
    else:
        asked = np.stack([rows[index].vector for index in chosen]).astype(np.float32)
        told = np.stack([raw.vectors[0] for raw in shown])
        seen = np.array([at.get(raw.key, len(tools)) for raw in shown], dtype=np.int64)
        places = [place for _, place in options]
        problem = _MapProblem(asked, told, seen, len(tools), [len(own) for own, _ in options], places, beat)
        flat = minimised(problem, np.zeros(problem.size), _STEPS)
    bent, none, own_weights = _parts(flat, dimensions, len(tools))
    return {
        "map": bent.astype(np.float32),
        "none": none.astype(np.float32),
        "own": own_weights.astype(np.float32),
        "centroids": centroids,
    }, tools


def _rivals(row: Row, raws: Sequence[Raw], called: Counter[str], dice: random.Random) -> tuple[list[Raw], int]:
    """The functions of a row that the map is fitted on, and the called one's place among them (-1: none).

    Functions that no row calls are left out: the map would learn to avoid what they are about.
    """
    places = [place for place in range(len(raws)) if place != row.right and raws[place].key in called]
    if len(places) > _MOST_RIVALS:
        places = sorted(dice.sample(places, _MOST_RIVALS))
    if row.right < 0:
        return [raws[place] for place in places], -1
    return [raws[row.right], *(raws[place] for place in places)], 0


def _parts(flat: Floats, dimensions: int, tools: int) -> tuple[Floats, Floats, Floats]:
    """The map, the word for no call, the weights of the functions seen called."""
    square, word = dimensions * dimensions, dimensions + 1
    own = flat[square + word :][: tools * dimensions]
    return (
        flat[:square].reshape(dimensions, dimensions),
        flat[square : square + word],
        own.reshape(tools, dimensions),
    )


class _MapProblem:
    """The objective of the map: n requests (n, D), P functions shown to them in turn (P, D), the last option is none.

    `seen` (P,) is the function's place among those with evidence of their own, `tools` for one without.
    """

    def __init__(
        self,
        asked: Floats32,
        told: Floats32,
        seen: Ints,
        tools: int,
        shown: Sequence[int],
        places: Sequence[int],
        beat: Callable[[], None],
    ) -> None:
        self._asked, self._told, self._seen, self._tools, self._beat = asked, told, seen, tools, beat
        self._dimensions = asked.shape[1]
        self.size = self._dimensions * (self._dimensions + 1 + tools) + 1 + 1
        self._row = np.repeat(np.arange(len(asked)), shown)
        sizes = [count + 1 for count in shown]
        self._starts = starts_of(sizes)
        self._is_none = np.zeros(sum(sizes), dtype=np.bool_)
        self._is_none[np.cumsum(sizes) - 1] = True
        self._right = np.zeros(sum(sizes), dtype=np.bool_)
        self._right[
            self._starts + [place if place >= 0 else count for place, count in zip(places, shown, strict=True)]
        ] = True
        self._likeness = np.einsum("pd,pd->p", asked[self._row], told).astype(np.float64)
        self._of_row = np.concatenate(([0], np.cumsum(shown)))
        self._by_tool = np.argsort(seen, kind="stable")
        self._of_tool = np.searchsorted(seen[self._by_tool], np.arange(tools + 2))

    def __call__(self, flat: Floats) -> tuple[float, Floats]:
        from scipy.sparse import csr_matrix

        self._beat()
        asked, told, row = self._asked, self._told, self._row
        bent, none, own = _parts(flat, self._dimensions, self._tools)
        scale = float(flat[-1])
        by_tool = np.concatenate((own, np.zeros((1, self._dimensions)))).astype(np.float32)
        logits = np.empty(len(self._right))
        logits[self._is_none] = asked @ none[:-1].astype(np.float32) + none[-1]
        logits[~self._is_none] = (
            np.einsum("pd,pd->p", (asked @ bent.astype(np.float32))[row], told)
            + np.einsum("pd,pd->p", asked[row], by_tool[self._seen])
            + scale * self._likeness
        )
        loss, slope = likelihood(logits, self._starts, self._right)
        pull, nones = slope[~self._is_none].astype(np.float32), slope[self._is_none]
        of_row = csr_matrix((pull, np.arange(len(pull)), self._of_row), shape=(len(asked), len(pull)))
        order = self._by_tool
        of_tool = csr_matrix((pull[order], row[order], self._of_tool), shape=(self._tools + 1, len(asked)))
        gradient = np.concatenate(
            [
                (asked.T @ (of_row @ told)).astype(np.float64).ravel(),
                np.append(asked.T @ nones.astype(np.float32), nones.sum()),
                (of_tool @ asked)[:-1].astype(np.float64).ravel(),
                [float(pull @ self._likeness)],
            ]
        )
        ridge = np.full(len(flat), _RIDGE)
        ridge[-1] = ridge[self._dimensions * self._dimensions + self._dimensions] = 0.01
        return loss + 0.5 * float(ridge * flat @ flat), gradient + ridge * flat


class Sighting(NamedTuple):
    """A row as a chooser sees it that was fitted without it (and without its function, if `unseen`)."""

    row: Row
    features: Floats
    context: tuple[float, float]
    unseen: bool


def sightings(
    rows: Sequence[Row], words: Sequence[str], idf: Floats32, shelf: Shelf, seed: int, beat: Callable[[], None]
) -> list[Sighting]:
    """Each row by choosers fitted on other rows: once with other calls of its function among them, once without any."""
    dice = random.Random(seed)
    called = sorted({shelf.raws(row.functions)[row.right].key for row in rows if row.right >= 0})
    dice.shuffle(called)
    fold_of_tool = {key: place % FOLDS for place, key in enumerate(called)}
    keys = [shelf.raws([row.functions[row.right]])[0].key if row.right >= 0 else None for row in rows]
    texts = sorted({row.text for row in rows})
    dice.shuffle(texts)
    fold_of_text = {text: place % FOLDS for place, text in enumerate(texts)}
    found = []
    for fold in range(FOLDS):
        held = [fold_of_text[row.text] == fold for row in rows]
        unseen = [key is not None and fold_of_tool[key] == fold for key in keys]
        kept = [row for row, out, new in zip(rows, held, unseen, strict=True) if not out and not new]
        arrays, tools = fit_map(kept, shelf, seed, beat)
        chooser = Chooser({**arrays, "idf": idf}, tools, words, shelf)
        known = {row.text for row in kept}
        for row, out, new in zip(rows, held, unseen, strict=True):
            if (out or new) and row.text not in known:
                found.append(sighting(chooser, row, new))
    return found


def sighting(chooser: Chooser, row: Row, unseen: bool = False) -> Sighting:
    """A row as this chooser sees it."""
    features = chooser.features(row.text, row.vector, chooser.cards(row.functions))
    return Sighting(row, features, chooser.context(row.vector, features), unseen)
