"""Fitting a linear model over any embedding: vocabulary, heads and tagger on train, learned score and guard on tune."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.protocols import Progress
from suffice.core.types import Example, OutputContract, Recipe, TrainSet, TuneSet
from suffice.core.values import canonical
from suffice.specialists.apart import NOT_ASKED, Apart, Codes, folds
from suffice.specialists.embedding import Embedding, Reading, cut
from suffice.specialists.features import Hasher, Vocabulary, build_vocabulary, normalised
from suffice.specialists.heads import Head, Path, Scalar, heads_of, unsupported
from suffice.specialists.linear_model import (
    FORMAT,
    NEIGHBOUR_SCALE,
    SIGNALS,
    STRANGENESS,
    FittedHead,
    LinearSpecialist,
    Read,
    Settings,
    classes_of,
    combination,
    main_head,
)
from suffice.specialists.pieces import Place, Slot, items_of, slots_of, tokens
from suffice.specialists.saved import Arrays
from suffice.specialists.scorer import Guard, Scorer, enough, fit_guard, fit_scorer
from suffice.specialists.solver import Problem, minimise
from suffice.specialists.tagger_fit import TagRow, fit_tagger

Floats16 = npt.NDArray[np.float16]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.signedinteger[Any]]

_FEWEST_FOR_PAIRS = 200
"""From this many rows on, a feature must occur in two texts."""
_MOST_FEATURES = 40_000
_COEFFICIENTS = 4_000_000
"""Features times columns: 8 MB in float16. With many classes the rarest features go."""
_MOST_NEIGHBOURS = 10_000
_MOST_OF_A_CLASS = 100
"""Training texts that are kept as neighbours, a byte for each number: at most 2.6 MB, and 10 µs for a prediction."""
_MOST_READ = 10_000_000
"""Characters of the texts that a vocabulary is made from: about 5 features each, of 8 bytes."""
_MOST_COMBINATIONS = 20_000
_READ_AT_ONCE = 256
_MOST_WORDS = 400_000
"""Words whose vectors are kept between fits: 200 MB at 256 numbers each."""
_NO_HASHES = np.zeros(0, dtype=np.uint64)
_TOLERANCE = 1e-4
_MOST_STEPS = 200
_FEWEST_STEPS = 15
_WORK = 600_000_000_000
"""Products of a number read and a column that a fit may take: steps are fewer where thousands of labels cost more."""
_TOGETHER = 256
"""Yes/no heads that are fitted in one go."""


class Row(NamedTuple):
    """One row: its answer taken apart (see `TakenApart`), and the reading of its input."""

    example: Example
    codes: Codes | None
    values: dict[Path, object]
    tool: str | None
    reading: Reading


def fit_linear(
    recipe: Recipe,
    contract: OutputContract,
    train: TrainSet,
    tune: TuneSet,
    embedding: Embedding,
    hasher: Hasher,
    progress: Progress,
    folded: bool = True,
) -> LinearSpecialist:
    """Heads and tagger on train, score and guard on tune. Raises ValueError for a contract that is not supported.

    Where tune holds too few right or wrong answers to learn a score from, thirds of train that a fit has not seen
    are added: 3 to 9 points of coverage on SNIPS with 1,500 rows. With enough they add only time. `folded=False` adds
    none, where the embedding itself was fitted on train. Recipe parameters:
    `embedding` (its weight, 1), `c` (scikit-learn's C, 10).
    """
    reason = unsupported(contract)
    if reason is not None:
        raise ValueError(reason)

    def plain(rows: Sequence[Row], progress: Progress) -> tuple[Settings, Arrays, LinearSpecialist]:
        settings, arrays = fit_model(recipe, contract, rows, embedding, hasher, progress)
        arrays["score"] = np.eye(1, len(SIGNALS) + 1)[0]
        arrays["limits"] = np.full(len(STRANGENESS), np.inf)
        return settings, arrays, LinearSpecialist(settings, arrays, embedding, hasher)

    rows = read_rows(contract, train, embedding, progress)
    settings, arrays, whole = plain(rows, progress)

    def nearly(what: str, share: float) -> None:
        progress("fitting score and guard", 0.9)

    judged = judge(whole, read_rows(contract, tune, embedding, nearly))
    if folded and not enough_to_fit(judged):
        judged += [
            row
            for others, third in folds(rows, lambda row: unit(row.example))
            for row in judge(plain(others, nearly)[2], third)
        ]
    scorer, guard = fit_trust(judged)
    arrays = {**arrays, "score": np.append(scorer.weights, scorer.bias), "limits": guard.limits}
    progress("fitted", 1.0)
    return LinearSpecialist(settings, arrays, embedding, hasher)


def unit(example: Example) -> str:
    """What a fold keeps together: a group, as the splits do; without one, the same input."""
    return example.group or example.input


class _Kept:
    """A reading that is held: the vector, and the words' vectors in half precision or, where None, read again."""

    __slots__ = ("_embedding", "_text", "_words", "vector")

    def __init__(self, text: str, reading: Reading, words: Floats16 | None, embedding: Embedding) -> None:
        self.vector = reading.vector
        self._text = text
        self._words = words
        self._embedding = embedding

    def words(self, places: Sequence[Place]) -> Floats32:
        if self._words is not None and len(self._words) == len(places):
            return self._words.astype(np.float32)
        return self._embedding.read([self._text])[0].words(places)


def read_rows(
    contract: OutputContract, examples: Sequence[Example], embedding: Embedding, progress: Progress
) -> list[Row]:
    """What the embedding reads of each input, once for every fit; of words only where the contract has slots."""
    rows: list[Row] = []
    apart = Apart(contract)
    left = _MOST_WORDS if apart.slots else 0
    for begin in range(0, len(examples), _READ_AT_ONCE):
        some = examples[begin : begin + _READ_AT_ONCE]
        progress("reading texts", 0.1 * begin / len(examples))
        for example, reading in zip(some, embedding.read([each.input for each in some]), strict=True):
            words = None
            if left > 0:
                words = reading.words(tokens(cut(example.input))).astype(np.float16)
                left -= len(words)
            kept = _Kept(example.input, reading, words, embedding)
            rows.append(Row(example, *apart.of(example.target), kept))
    return rows


def fit_model(
    recipe: Recipe,
    contract: OutputContract,
    rows: Sequence[Row],
    embedding: Embedding,
    hasher: Hasher,
    progress: Progress,
) -> tuple[Settings, Arrays]:
    """Everything but score and guard: the settings, and the arrays of `LinearSpecialist` without those two."""
    slots = slots_of(contract)
    until = 0.4 if slots else 0.85
    dense = np.array([row.reading.vector for row in rows], dtype=np.float32).reshape(len(rows), embedding.dimensions)
    fitted, targets, arrays = _fit_heads(
        recipe, heads_of(contract), rows, dense, hasher, lambda what, share: progress(what, 0.1 + share * (until - 0.1))
    )
    main = main_head(fitted)
    classes = targets[main] if main is not None else np.full(len(rows), -1)
    shifted = dense - arrays["mean"]
    neighbours, kept = _neighbours(shifted, classes, classes_of(fitted))
    arrays |= {
        "centroids": _centroids(shifted, classes, classes_of(fitted)),
        "whitener": _whitener(shifted),
        "neighbours": neighbours,
        "kept": kept,
        **_combinations(fitted, targets),
        "company": _company(slots, rows, classes, classes_of(fitted), main is not None),
    }
    settings = Settings(FORMAT, contract, fitted, recipe)
    if slots:
        asked = [TagRow(row.example.input, row.values, row.tool, row.reading) for row in rows if row.codes is not None]
        dimensions = embedding.word_dimensions, embedding.dimensions
        tagger, more = fit_tagger(
            slots, asked, dimensions, recipe.seed, lambda share: progress("fitting the tagger", 0.4 + 0.45 * share)
        )
        arrays |= more
        settings = msgspec.structs.replace(settings, tagger=tagger)
    return settings, arrays


def _fit_heads(
    recipe: Recipe,
    heads: Sequence[Head],
    rows: Sequence[Row],
    dense: Floats32,
    hasher: Hasher,
    progress: Progress,
) -> tuple[tuple[FittedHead, ...], list[Ints], Arrays]:
    """The heads with the values they learned, each row's value of each, and the arrays that they read."""
    progress("reading features", 0.0)
    width = sum(len(head.values) if len(head.values) > 2 else 1 for head in heads)
    most = max(2_000, min(_MOST_FEATURES, _COEFFICIENTS // max(width, 1)))
    vocabulary, sparse = _sparse([row.example.input for row in rows], hasher, most if heads else 0)
    mean = dense.mean(axis=0) if len(dense) else np.zeros(dense.shape[1], dtype=np.float32)
    weight = np.float32(recipe.params.get("embedding", 1.0))
    centred = (dense - mean) * weight
    strength = float(recipe.params.get("c", 10.0))
    targets = _targets(len(heads), rows)
    fitted: list[FittedHead] = []
    start = 0
    for number, head in enumerate(heads):
        present = np.unique(targets[number][targets[number] >= 0])
        values = tuple(head.values[index] for index in present.tolist()) or (_unseen(head),)
        targets[number] = np.where(targets[number] >= 0, np.searchsorted(present, targets[number]), -1).astype(np.int32)
        fitted.append(FittedHead(head.path, head.tool, values, start))
        start += fitted[-1].columns
    joined = np.zeros((sparse.shape[1] + centred.shape[1] + 1, start), dtype=np.float32)
    groups = _together(fitted)
    for number, group in enumerate(groups):
        progress(f"fitting heads {number + 1} of {len(groups)}", 0.1 + 0.9 * number / len(groups))
        own = np.stack([targets[index] for index in group], axis=1)
        asked = np.flatnonzero((own >= 0).any(axis=1))
        columns = [column for index in group for column in range(fitted[index].start, fitted[index].stop)]
        said = own[asked] if len(fitted[group[0]].values) == 2 else own[asked, 0]
        problem = Problem(sparse[asked], centred[asked], said, len(columns), strength)
        work = len(columns) * (sparse.nnz + centred.size) + 1
        joined[:, columns] = minimise(problem, _TOLERANCE, max(_FEWEST_STEPS, min(_MOST_STEPS, _WORK // work)))
    features = len(vocabulary.hashes)
    on_dense = joined[features:-1] * weight
    arrays: Arrays = {
        "hashes": vocabulary.hashes,
        "idf": vocabulary.weights,
        "sparse": joined[:features].astype(np.float16),
        "dense": on_dense,
        "bias": (joined[-1] - mean @ on_dense).astype(np.float32),
        "mean": mean,
    }
    return tuple(fitted), targets, arrays


def _sparse(texts: Sequence[str], hasher: Hasher, most: int) -> tuple[Vocabulary, Any]:
    """The vocabulary, of `most` features, and the texts by it: (n, V) in CSR.

    Where all texts together have too many features to hold, evenly spread ones make the vocabulary.
    """
    from scipy.sparse import csr_matrix

    step = max(1, -(-sum(map(len, texts)) // _MOST_READ)) if most else max(1, len(texts))
    hashes = {at: hasher.hashes(normalised(texts[at])) for at in range(0, len(texts), step)}
    fewest = 2 if len(hashes) >= _FEWEST_FOR_PAIRS else 1
    vocabulary = build_vocabulary([*hashes.values(), np.zeros(0, dtype=np.uint64)], fewest, most)
    read = []
    for at, text in enumerate(texts):
        own = hashes.pop(at) if at in hashes else hasher.hashes(normalised(text)) if most else _NO_HASHES
        rows, values, _ = vocabulary.read(own)
        read.append((rows.astype(np.int32), values))
    indptr = np.cumsum([0] + [len(rows) for rows, _ in read])
    return vocabulary, csr_matrix(
        (
            np.concatenate([*(values for _, values in read), np.zeros(0, dtype=np.float32)]),
            np.concatenate([*(rows for rows, _ in read), np.zeros(0, dtype=np.int32)]),
            indptr,
        ),
        shape=(len(texts), len(vocabulary.hashes)),
    )


def _combinations(heads: Sequence[FittedHead], targets: Sequence[Ints]) -> Arrays:
    """Digests of what the rows answer to all heads together, the commonest, and how often."""
    seen: Counter[int] = Counter()
    if len(heads) > 1:
        seen.update(map(combination, np.stack(targets, axis=1)))
    kept = sorted(seen.items(), key=lambda each: (-each[1], each[0]))[:_MOST_COMBINATIONS]
    return {
        "combinations": np.array([digest for digest, _ in kept], dtype=np.uint64),
        "combined": np.array([count for _, count in kept], dtype=np.int64),
    }


def _company(slots: Sequence[Slot], rows: Sequence[Row], classes: Ints, count: int, any_class: bool) -> Ints:
    """How often each class of the main head comes with each slot filled, and last with none: (count, slots + 1)."""
    company = np.zeros((count, len(slots) + 1), dtype=np.int64)
    for row, own in zip(rows, classes.tolist(), strict=True):
        if row.codes is None or (any_class and own < 0):
            continue
        filled = [at for at, slot in enumerate(slots) if items_of(row.values.get(slot.path))]
        company[max(own, 0), filled or [-1]] += 1
    return company


def _targets(count: int, rows: Sequence[Row]) -> list[Ints]:
    """For each head the position among its values of each row's answer; -1 where not asked, or none of them."""
    table = np.full((len(rows), count), NOT_ASKED, dtype=np.int32)
    for at, row in enumerate(rows):
        if row.codes is not None:
            table[at] = row.codes
    return list(np.ascontiguousarray(table.T))


def _unseen(head: Head) -> Scalar:
    """What a head without a single example says: absent where that is an answer."""
    return None if None in head.values else head.values[0]


def _together(heads: Sequence[FittedHead]) -> list[list[int]]:
    """Heads to fit in one go: each of three values or more alone, and the yes/no heads by the tool they wait for."""
    alone = [[index] for index, head in enumerate(heads) if len(head.values) > 2]
    by_tool: dict[str | None, list[int]] = {}
    for index, head in enumerate(heads):
        if len(head.values) == 2:
            by_tool.setdefault(head.tool, []).append(index)
    return alone + [own[at : at + _TOGETHER] for own in by_tool.values() for at in range(0, len(own), _TOGETHER)]


def _whitener(shifted: Floats32) -> npt.NDArray[np.float16]:
    """A matrix (D, D) after which the centred embeddings of train have covariance one: lengths are Mahalanobis'."""
    size = shifted.shape[1]
    covariance = shifted.T.astype(np.float64) @ shifted / max(1, len(shifted))
    # Shrunk towards a ball, the more the fewer the rows, so that no direction that train lacks is infinitely strange.
    ball = float(np.trace(covariance)) / size + 1e-9
    share = size / (size + 4.0 * len(shifted))
    values, vectors = np.linalg.eigh((1 - share) * covariance + share * ball * np.eye(size))
    return np.asarray(vectors / np.sqrt(np.maximum(values, 1e-9)), dtype=np.float16)


def _centroids(shifted: Floats32, classes: Ints, count: int) -> npt.NDArray[np.float16]:
    """The mean direction of each class's centred embeddings: (count, D), each of length 1 (0 for an empty class)."""
    lengths = np.linalg.norm(shifted, axis=1, keepdims=True)
    unit = shifted / np.where(lengths > 0, lengths, 1)
    centroids = np.zeros((count, shifted.shape[1]))
    for label in range(count):
        if (classes == label).any():
            centroids[label] = unit[classes == label].sum(axis=0)
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    return (centroids / np.where(lengths > 0, lengths, 1)).astype(np.float16)


def _neighbours(shifted: Floats32, classes: Ints, count: int) -> tuple[npt.NDArray[np.int8], Ints]:
    """Directions of training texts' centred embeddings, class by class, and how many are each class's.

    Where a class has too many, evenly spread ones.
    """
    most = min(_MOST_OF_A_CLASS, max(1, _MOST_NEIGHBOURS // count))
    rows = [np.flatnonzero(classes == label) for label in range(count)]
    rows = [own[np.linspace(0, len(own) - 1, most).astype(np.int64)] if len(own) > most else own for own in rows]
    chosen = shifted[np.concatenate(rows)]
    lengths = np.linalg.norm(chosen, axis=1, keepdims=True)
    scaled = np.clip(np.rint(chosen * (NEIGHBOUR_SCALE / np.where(lengths > 0, lengths, 1))), -127, 127)
    return scaled.astype(np.int8), np.array([len(own) for own in rows], dtype=np.int64)


class Judged(NamedTuple):
    """One answer to a row that its specialist was not fitted on."""

    read: Read
    right: bool


def judge(specialist: LinearSpecialist, rows: Sequence[Row]) -> list[Judged]:
    """The specialist's answers to rows that it was not fitted on, and whether they are right."""
    reads = [specialist.read(row.example.input, row.reading) for row in rows]
    return [
        Judged(read, canonical(read.value) == canonical(row.example.target))
        for read, row in zip(reads, rows, strict=True)
    ]


def enough_to_fit(judged: Sequence[Judged]) -> bool:
    """Whether a score can be learned from these."""
    return enough(np.array([each.right for each in judged], dtype=bool))


def fit_trust(judged: Sequence[Judged]) -> tuple[Scorer, Guard]:
    """The learned score and the guard."""
    signals = np.array([each.read.signals for each in judged]).reshape(len(judged), len(SIGNALS))
    strangeness = np.array([each.read.strangeness for each in judged]).reshape(len(judged), len(STRANGENESS))
    right = np.array([each.right for each in judged], dtype=bool)
    return fit_scorer(signals, right, [SIGNALS.index("evidence"), SIGNALS.index("margin")]), fit_guard(strangeness)
