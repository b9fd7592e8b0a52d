"""Fitting a specialist for functions that requests offer: choice and arguments on train, score and guard on tune."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.offered import apart
from suffice.core.protocols import Progress
from suffice.core.types import Example, OutputContract, Recipe, ToolCall, TrainSet, TuneSet
from suffice.core.values import canonical
from suffice.specialists.arguments import Asked
from suffice.specialists.arguments_fit import fit_arguments
from suffice.specialists.conditional import fit_conditional
from suffice.specialists.embedding import Embedding
from suffice.specialists.offered import (
    FORMAT,
    GATE,
    SIGNALS,
    STRANGENESS,
    OfferedSpecialist,
    Read,
    Settings,
    supports,
)
from suffice.specialists.offered_choice import FEATURES, Shelf
from suffice.specialists.offered_learn import Later, Row, Sighting, fit_map, idf_of, rows_of, sightings
from suffice.specialists.saved import Arrays
from suffice.specialists.scorer import Guard, Scorer, enough, fit_guard, fit_scorer

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

_MOST_SEEN_TWICE = 4_000
"""Sightings that the gate is learned from."""
_UNSEEN_SHARE = 0.25
"""So many rows for functions not seen called go with each row of tune when the score is learned, if tune has none."""


class Judged(NamedTuple):
    """One answer to a row that what chose it was not fitted on."""

    read: Read
    right: bool


def fit(
    recipe: Recipe,
    contract: OutputContract,
    train: TrainSet,
    tune: TuneSet,
    embedding: Embedding,
    progress: Progress,
) -> OfferedSpecialist:
    """Fit on train; the score and the guard on tune. Raises ValueError for a contract it does not support.

    Where tune holds too few right or wrong answers to learn a score from, rows of train are added as choosers saw them
    that were fitted without them.
    """
    reason = supports(contract)
    if reason is not None or not isinstance(contract, ToolCall):
        raise ValueError(reason)
    shelf = Shelf(embedding)
    progress("reading requests and functions", 0.0)
    rows = rows_of(train, shelf)
    words, idf = idf_of(rows, shelf)
    beat = _beat(progress, "fitting the choice of a function", 0.1)
    seen_apart = sightings(rows, words, idf, shelf, recipe.seed, beat)
    mapped, tools = fit_map(rows, shelf, recipe.seed, beat)
    arrays: Arrays = {**mapped, "idf": idf, **_position(rows, embedding.dimensions)}
    arrays["choice"] = _fit_choice(seen_apart)
    calls = [(row.text, row.functions[row.right], row.arguments) for row in rows if row.right >= 0]
    beat = _beat(progress, "fitting the arguments", 0.6)
    arrays["arguments"], seen = fit_arguments(calls, embedding, recipe.seed, beat)

    def built(gate: Floats, scorer: Scorer, guard: Guard) -> OfferedSpecialist:
        whole = {**arrays, "gate": gate, "score": np.append(scorer.weights, scorer.bias), "limits": guard.limits}
        return OfferedSpecialist(Settings(FORMAT, contract, recipe, tuple(tools), tuple(words), seen), whole, shelf)

    raw = Scorer(np.eye(1, len(SIGNALS))[0], 0.0)
    open_guard = Guard(np.full(len(STRANGENESS), np.inf))
    gate = np.zeros(len(GATE))
    beat = _beat(progress, "fitting whether to call", 0.8)
    if contract.none_allowed:
        gate = _fit_gate(built(gate, raw, open_guard), _as_often(seen_apart), beat)
    specialist = built(gate, raw, open_guard)
    beat = _beat(progress, "fitting score and guard", 0.9)
    judged = judge(specialist, tune, beat)
    guard = fit_guard(np.array([each.read.strangeness for each in judged]).reshape(len(judged), len(STRANGENESS)))
    judged = [each for each in judged if each.read.possible]
    extra = [each for each in seen_apart if each.unseen]
    if not enough(np.array([each.right for each in judged], dtype=np.bool_)):
        extra = list(seen_apart)
        most = 2_000
    else:
        most = int(_UNSEEN_SHARE * len(judged))
    for sighting in extra[:: 1 + len(extra) // max(1, most)] if most else []:
        beat()
        read = _reread(specialist, sighting)
        if read.possible:
            judged.append(Judged(read, canonical(read.value) == canonical(sighting.row.target)))
    signals = np.array([each.read.signals for each in judged]).reshape(len(judged), len(SIGNALS))
    right = np.array([each.right for each in judged], dtype=np.bool_)
    scorer = fit_scorer(signals, right, [SIGNALS.index("evidence"), SIGNALS.index("margin")])
    progress("fitted", 1.0)
    return built(gate, scorer, guard)


def judge(specialist: OfferedSpecialist, examples: Sequence[Example], beat: Callable[[], None]) -> list[Judged]:
    """The specialist's answers to rows that it was not fitted on, and whether they are right; rows that offer some."""
    found = []
    for example in examples:
        beat()
        text, functions = apart(example.input)
        reading = specialist.encoder.read([example.input])[0]
        if functions and np.any(reading.vector):
            read = specialist.read(text, reading, functions)
            found.append(Judged(read, canonical(read.value) == canonical(example.target)))
    return found


def _beat(progress: Progress, what: str, share: float) -> Callable[[], None]:
    """Reports at every step of something long, so that a budget that is spent can end it."""
    return lambda: progress(what, share)


def _position(rows: Sequence[Row], dimensions: int) -> Arrays:
    """`mean` and `whitener` of train's requests: after the whitener lengths are Mahalanobis'."""
    vectors = np.array([row.vector for row in rows], dtype=np.float64).reshape(len(rows), dimensions)
    mean = vectors.mean(axis=0) if len(rows) else np.zeros(dimensions)
    shifted = vectors - mean
    covariance = shifted.T @ shifted / max(1, len(rows))
    ball = float(np.trace(covariance)) / dimensions + 1e-6
    share = dimensions / (dimensions + 4.0 * len(rows))  # no direction that train lacks is infinitely strange
    values, axes = np.linalg.eigh((1 - share) * covariance + share * ball * np.eye(dimensions))
    whitener = (axes / np.sqrt(np.maximum(values, 1e-6))).astype(np.float16)
    return {"mean": mean.astype(np.float32), "whitener": whitener}


def _fit_choice(seen_apart: Sequence[Sighting]) -> Floats:
    """The weights of FEATURES, from rows that call something."""
    called = [each for each in seen_apart if each.row.right >= 0]
    if not called:
        return np.zeros(len(FEATURES))
    right = np.concatenate([np.arange(len(each.features)) == each.row.right for each in called])
    features = np.concatenate([each.features for each in called])
    return fit_conditional(features, [len(each.features) for each in called], right)


def _reread(specialist: OfferedSpecialist, sighting: Sighting) -> Read:
    row = sighting.row
    asked = Asked(row.text, Later(row.text, row.vector, specialist.encoder.embedding))
    own = row.arguments if row.right >= 0 else None
    return specialist.judged(asked, row.vector, row.functions, sighting.features, sighting.context, own)


def _as_often(seen_apart: Sequence[Sighting]) -> list[Sighting]:
    """Sightings with as many without a call as there are in train: those with one come twice, as seen and as unseen."""
    chosen = list(seen_apart[:: 1 + len(seen_apart) // _MOST_SEEN_TWICE])
    return chosen + [each for each in chosen if each.row.right < 0]


def _fit_gate(specialist: OfferedSpecialist, seen_apart: Sequence[Sighting], beat: Callable[[], None]) -> Floats:
    """The weights of GATE: a question with two options for each row, to call (these features) and not to (zeros)."""
    if not seen_apart:
        return np.zeros(len(GATE))
    features = np.zeros((2 * len(seen_apart), len(GATE)))
    right = np.zeros(2 * len(seen_apart), dtype=np.bool_)
    for index, sighting in enumerate(seen_apart):
        beat()
        features[2 * index] = _reread(specialist, sighting).gate
        right[2 * index + (sighting.row.right < 0)] = True
    return fit_conditional(features, [2] * len(seen_apart), right)
