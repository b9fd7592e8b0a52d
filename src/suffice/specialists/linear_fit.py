"""Fitting a linear model: the vocabulary and the heads on train, the learned score and the guard on tune."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.protocols import Progress
from suffice.core.types import Example, OutputContract, Recipe
from suffice.core.values import canonical
from suffice.specialists.embedding import StaticEmbedding
from suffice.specialists.features import Hasher, build_vocabulary, normalised
from suffice.specialists.heads import Head, Path, Scalar, answers, heads_of, index_of
from suffice.specialists.linear_model import (
    FORMAT,
    NEIGHBOUR_SCALE,
    SIGNALS,
    STRANGENESS,
    Arrays,
    FittedHead,
    LinearSpecialist,
    Read,
    Settings,
    cut,
    main_head,
)
from suffice.specialists.scorer import Guard, Scorer, enough, fit_guard, fit_scorer
from suffice.specialists.solver import Problem, minimise

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_FEWEST_FOR_PAIRS = 200
"""From this many rows on, a feature must occur in two texts."""
_MOST_FEATURES = 40_000
_COEFFICIENTS = 4_000_000
"""Features times columns: 8 MB in float16. With many classes the rarest features go."""
_MOST_NEIGHBOURS = 10_000
_MOST_OF_A_CLASS = 100
"""Training texts that are kept as neighbours, a byte for each number: at most 2.6 MB, and 10 µs for a prediction."""
FOLDS = 3
_TOLERANCE = 1e-4
_MOST_STEPS = 200


def fit_heads(
    recipe: Recipe,
    contract: OutputContract,
    train: Sequence[Example],
    embedding: StaticEmbedding,
    hasher: Hasher,
    progress: Progress,
) -> tuple[Settings, Arrays]:
    """Everything but score and guard: the settings, and the arrays of `LinearSpecialist` without those two."""
    from scipy.sparse import csr_matrix

    heads = heads_of(contract)
    given = [answers(contract, example.target) for example in train]
    width = sum(len(head.values) if len(head.values) > 2 else 1 for head in heads)
    progress("reading features", 0.0)
    hashes = [hasher.hashes(normalised(example.input)) for example in train]
    fewest = 2 if len(train) >= _FEWEST_FOR_PAIRS else 1
    most = max(2_000, min(_MOST_FEATURES, _COEFFICIENTS // max(width, 1)))
    vocabulary = build_vocabulary(hashes or [np.zeros(0, dtype=np.uint64)], fewest, most)
    read = [vocabulary.read(each)[:2] for each in hashes]
    indptr = np.cumsum([0] + [len(rows) for rows, _ in read])
    sparse = csr_matrix(
        (
            np.concatenate([values for _, values in read] or [np.zeros(0, dtype=np.float32)]),
            np.concatenate([rows for rows, _ in read] or [np.zeros(0, dtype=np.int64)]).astype(np.int32),
            indptr.astype(np.int32),
        ),
        shape=(len(train), len(vocabulary.hashes)),
    )
    dense = embedding.vectors([cut(example.input) for example in train])
    mean = dense.mean(axis=0) if len(dense) else np.zeros(embedding.dimensions, dtype=np.float32)
    weight = np.float32(recipe.params.get("embedding", 1.0))
    centred = (dense - mean) * weight
    strength = float(recipe.params.get("c", 10.0))

    targets = [_targets(head, given) for head in heads]
    fitted, start = [], 0
    for number, head in enumerate(heads):
        present = np.unique(targets[number][targets[number] >= 0])
        values = tuple(head.values[index] for index in present.tolist()) or (_unseen(head),)
        targets[number] = np.where(targets[number] >= 0, np.searchsorted(present, targets[number]), -1)
        fitted.append(FittedHead(head.path, head.tool, values, start))
        start += fitted[-1].columns
    joined = np.zeros((sparse.shape[1] + centred.shape[1] + 1, start), dtype=np.float32)
    groups = _together(fitted)
    for number, group in enumerate(groups):
        progress(f"fitting heads {number + 1} of {len(groups)}", 0.1 + 0.8 * number / len(groups))
        own = np.stack([targets[index] for index in group], axis=1)
        rows = np.flatnonzero((own >= 0).any(axis=1))
        columns = [column for index in group for column in range(fitted[index].start, fitted[index].stop)]
        asked = own[rows] if len(fitted[group[0]].values) == 2 else own[rows, 0]
        problem = Problem(sparse[rows], centred[rows], asked, len(columns), strength)
        joined[:, columns] = minimise(problem, _TOLERANCE, _MOST_STEPS)
    bias = joined[-1]
    features = len(vocabulary.hashes)
    on_dense = joined[features:-1] * weight
    main = main_head(fitted)
    neighbours, kept = _neighbours(dense - mean, targets[main], len(fitted[main].values))
    arrays: Arrays = {
        "hashes": vocabulary.hashes,
        "idf": vocabulary.weights,
        "sparse": joined[:features].astype(np.float16),
        "dense": on_dense,
        "bias": (bias - mean @ on_dense).astype(np.float32),
        "mean": mean,
        "centroids": _centroids(dense - mean, targets[main], len(fitted[main].values)),
        "whitener": _whitener(dense - mean),
        "neighbours": neighbours,
        "kept": kept,
    }
    return Settings(FORMAT, contract, tuple(fitted), recipe), arrays


def _targets(head: Head, given: Sequence[dict[Path, Scalar] | None]) -> Ints:
    """The position among the head's values of each row's answer; -1 where it was not asked or is not among them."""
    index = index_of(head)
    found = np.full(len(given), -1, dtype=np.int64)
    for row, answer in enumerate(given):
        if answer is not None and head.path in answer and (head.tool is None or answer.get(()) == head.tool):
            found[row] = index.get(canonical(answer[head.path]), -1)
    return found


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
    return alone + list(by_tool.values())


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


def folds(rows: Sequence[Example]) -> list[tuple[list[Example], list[Example]]]:
    """Thirds of `rows`, each with the two others; the same input is never on both sides."""
    third = {text: position % FOLDS for position, text in enumerate(sorted({example.input for example in rows}))}
    return [
        ([row for row in rows if third[row.input] != fold], [row for row in rows if third[row.input] == fold])
        for fold in range(FOLDS)
    ]


class Judged(NamedTuple):
    """One answer to a row that its specialist was not fitted on."""

    read: Read
    right: bool


def judge(specialist: LinearSpecialist, rows: Sequence[Example]) -> list[Judged]:
    """The specialist's answers to rows that it was not fitted on, and whether they are right."""
    reads = [specialist.read(example.input) for example in rows]
    return [
        Judged(read, canonical(read.value) == canonical(example.target))
        for read, example in zip(reads, rows, strict=True)
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
