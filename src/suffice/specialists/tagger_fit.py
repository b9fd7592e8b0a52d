"""Fitting a tagger on rows whose pieces can be located in their text."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.specialists.crf import Sentences, fit_crf
from suffice.specialists.embedding import Reading, cut
from suffice.specialists.pieces import (
    Path,
    Slot,
    Tokenised,
    follows,
    kinds_of,
    learned_writings,
    located,
    tags_of,
    tokenised,
)
from suffice.specialists.saved import Arrays
from suffice.specialists.tagger import PREFIX, TaggerSettings, TokenHasher

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_MOST_TOKENS = 300_000
"""Of longer trains evenly spread rows are used."""
_COEFFICIENTS = 4_000_000
_MOST_FEATURES = 150_000
_FEWEST_FOR_PAIRS = 200
"""From this many rows on, a feature must occur twice."""
_EPOCHS = 10
_MOST_EPOCHS = 30
_TOKENS_PER_FIT = 1_500_000
"""Epochs are this divided by train's tokens, within the two limits above."""
_STRENGTH = 5e-5
_RATE = 0.7
_SILENT = 10.0
"""The bias towards no piece where no row shows any."""


class TagRow(NamedTuple):
    """One row of train: its text, what each slot says by path, the called tool, and the embedding's reading."""

    text: str
    values: Mapping[Path, object]
    tool: str | None
    reading: Reading


class _Words:
    """Dense features of tokens: the word's vector."""

    def __init__(self, words: npt.NDArray[np.float16]) -> None:
        self._words = words
        self.width = words.shape[1]

    def take(self, tokens: Ints) -> Floats32:
        """Shape (len(tokens), width)."""
        return self._words[tokens].astype(np.float32)


def fit_tagger(
    slots: Sequence[Slot],
    rows: Sequence[TagRow],
    dimensions: tuple[int, int],
    seed: int,
    progress: Callable[[float], None],
) -> tuple[TaggerSettings, Arrays]:
    """The settings, and the arrays of `Tagger`. `dimensions` are those of a word's vector and of a text's.

    Rows with a value that does not stand in their text, or with nothing asked of them, do not count.
    """
    tools = list(dict.fromkeys(slot.tool for slot in slots))
    read = [(row, tokenised(cut(row.text))) for row in rows if row.tool in tools]
    writings = learned_writings(slots, [(text, row.values) for row, text in read])
    kinds = kinds_of(slots)
    chosen: list[tuple[TagRow, Tokenised, Ints]] = []
    for row, text in read:
        pieces = located(slots, writings, row.values, text) if text.places else None
        if pieces is not None:
            chosen.append((row, text, tags_of(pieces, kinds, len(text.places))))
    chosen = _spread(chosen)
    settings = TaggerSettings(tuple(slots), tuple(writings))
    count = 1 + 2 * (1 + max(kinds))
    if not any(tags.any() for _, _, tags in chosen):
        return settings, _silent(count, dimensions)
    hashes, sparse = _sparse([text for _, text, _ in chosen], count)
    allowed = np.zeros((len(tools), count), dtype=bool)
    allowed[:, 0] = True
    for slot, kind in zip(slots, kinds, strict=True):
        allowed[tools.index(slot.tool), 1 + 2 * kind : 3 + 2 * kind] = True
    lengths = np.array([len(tags) for _, _, tags in chosen], dtype=np.int64)
    data = Sentences(
        sparse=sparse,
        dense=_words(chosen, int(lengths.sum()), dimensions[0]),
        whole=np.array([row.reading.vector for row, _, _ in chosen], dtype=np.float32),
        lengths=lengths,
        tags=np.concatenate([tags for _, _, tags in chosen]),
        group=np.array([tools.index(row.tool) for row, _, _ in chosen], dtype=np.int64),
        allowed=allowed,
    )
    first, after = follows(1 + max(kinds))
    epochs = min(_MOST_EPOCHS, max(_EPOCHS, _TOKENS_PER_FIT // int(lengths.sum())))
    fitted = fit_crf(data, first, after, epochs=epochs, strength=_STRENGTH, rate=_RATE, seed=seed, progress=progress)
    return settings, {
        PREFIX + "hashes": hashes,
        PREFIX + "sparse": fitted.sparse.astype(np.float16),
        PREFIX + "words": fitted.dense,
        PREFIX + "text": fitted.whole,
        PREFIX + "bias": fitted.bias,
        PREFIX + "transitions": fitted.transitions,
        PREFIX + "start": fitted.start,
    }


def _spread(chosen: list[tuple[TagRow, Tokenised, Ints]]) -> list[tuple[TagRow, Tokenised, Ints]]:
    """Evenly spread rows, of at most about _MOST_TOKENS."""
    total = sum(len(tags) for _, _, tags in chosen)
    if total <= _MOST_TOKENS:
        return chosen
    kept = np.linspace(0, len(chosen) - 1, max(1, len(chosen) * _MOST_TOKENS // total)).astype(np.int64)
    return [chosen[at] for at in kept.tolist()]


def _silent(count: int, dimensions: tuple[int, int]) -> Arrays:
    """The arrays of a tagger that finds nothing."""
    bias = np.zeros(count, dtype=np.float32)
    bias[0] = _SILENT
    return {
        PREFIX + "hashes": np.zeros(0, dtype=np.uint64),
        PREFIX + "sparse": np.zeros((0, count), dtype=np.float16),
        PREFIX + "words": np.zeros((dimensions[0], count), dtype=np.float32),
        PREFIX + "text": np.zeros((dimensions[1], count), dtype=np.float32),
        PREFIX + "bias": bias,
        PREFIX + "transitions": np.zeros((count, count), dtype=np.float32),
        PREFIX + "start": np.zeros(count, dtype=np.float32),
    }


def _words(chosen: Sequence[tuple[TagRow, Tokenised, Ints]], count: int, dimensions: int) -> _Words:
    words = np.empty((count, dimensions), dtype=np.float16)
    at = 0
    for row, text, tags in chosen:
        words[at : at + len(tags)] = row.reading.words(text.places)
        at += len(tags)
    return _Words(words)


def _sparse(texts: Sequence[Tokenised], count: int) -> tuple[npt.NDArray[np.uint64], Any]:
    """The features that count, by hash, ascending: the commonest; and which tokens have them."""
    from scipy.sparse import csr_matrix

    hasher = TokenHasher()
    table = np.concatenate([hasher.features(text.text, text.places) for text in texts])
    every, at, counts = np.unique(table.ravel(), return_inverse=True, return_counts=True)
    keep = counts >= (2 if len(texts) >= _FEWEST_FOR_PAIRS else 1)
    most = max(2_000, min(_MOST_FEATURES, _COEFFICIENTS // count))
    if keep.sum() > most:
        # ties go by hash, so that it reproduces
        order = np.lexsort((every, -counts))[:most]
        keep = np.zeros(len(every), dtype=bool)
        keep[order] = True
    new = np.cumsum(keep) - 1
    kept = keep[at].reshape(table.shape)
    columns = new[at].reshape(table.shape)[kept].astype(np.int32)
    rows = np.concatenate((np.zeros(1, dtype=np.int64), np.cumsum(kept.sum(axis=1))))
    ones = np.ones(len(columns), dtype=np.float32)
    return every[keep], csr_matrix((ones, columns, rows), shape=(len(table), int(keep.sum())))
