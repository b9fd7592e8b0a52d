"""The family of the nearest answer: a cache that answers near-duplicates of known inputs, under the same certificate.

It answers any contract but that of tools which requests bring themselves, free text included: it can only repeat an
answer that was given. Measured figures are in docs/results.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.contracts import covers
from suffice.core.errors import ArtefactError
from suffice.core.protocols import Progress, Right
from suffice.core.types import Example, OutputContract, Recipe, ToolCall, TrainSet, TuneSet, unit_of
from suffice.core.values import Value, canonical, plain
from suffice.specialists.apart import folds
from suffice.specialists.embedding import StaticEmbedding, cut, shared_static_embedding
from suffice.specialists.features import Hasher
from suffice.specialists.judged import JudgedFamily
from suffice.specialists.nearest_model import (
    DIRECTION_SCALE,
    DIRECTIONS,
    FORMAT,
    SETTINGS,
    SIGNALS,
    STRANGENESS,
    TENSORS,
    Floats32,
    Hashes32,
    NearestSpecialist,
    Read,
    Settings,
    Text,
    Weights,
    project,
    read_text,
)
from suffice.specialists.saved import Arrays, fault_in, read_saved
from suffice.specialists.scorer import enough, fit_guard, fit_scorer

_MOST_INPUTS = 20_000
_MOST_HASHES = 4_000_000
"""Features and words of all inputs that are kept, four bytes each; the inputs that were seen most come first."""
_MOST_WEIGHTS = 40_000
"""Features, and words, with a weight of their own: the commonest. All others count as seen once."""


class NearestFamily(JudgedFamily):
    """Builds caches of known inputs. `embedding` is a function so that nothing is read before it is needed."""

    name = "nearest"

    def __init__(self, embedding: Callable[[], StaticEmbedding] = shared_static_embedding) -> None:
        self._embedding = embedding
        self._hasher = Hasher()

    def supports(self, contract: OutputContract) -> str | None:
        """None for every contract whose answers can be repeated."""
        if isinstance(contract, ToolCall) and contract.offered:
            return "each request offers tools of its own, and an answer to others cannot be repeated."
        return None

    def recipes(self, seed: int) -> list[Recipe]:
        """One: nothing is left to set. The seed changes nothing."""
        return [Recipe(family=self.name, seed=seed)]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> NearestSpecialist:
        """Keep train's inputs, fit score and guard on tune. Raises ValueError for a contract it does not support.

        Where tune holds too few right or wrong answers to learn a score from, thirds of train are added, answered from
        the two others. Inputs that repeat stand on both sides then, as they do in the traffic.
        """
        reason = self.supports(contract)
        if reason is not None:
            raise ValueError(reason)
        embedding = self._embedding()

        def known(rows: Sequence[Example]) -> NearestSpecialist:
            settings, arrays = keep(recipe, contract, rows, embedding, self._hasher)
            return NearestSpecialist(settings, arrays, embedding, self._hasher)

        progress("keeping inputs", 0.0)
        whole = known(train)
        progress("fitting score and guard", 0.3)
        judged, strict = _judge(whole, tune, self._right), _judge(whole.with_numbers(), tune, self._right)
        if not enough(_right(judged)):
            for done, (others, third) in enumerate(folds(train, lambda row: unit_of(row.group, row.id))):
                progress("fitting score and guard", 0.4 + 0.2 * done)
                part = known(others)
                judged += _judge(part, third, self._right)
                strict += _judge(part.with_numbers(), third, self._right)
        if _right(strict).sum() > _right(judged).sum():
            whole, judged = whole.with_numbers(), strict
        signals = np.array([each.read.signals for each in judged]).reshape(len(judged), len(SIGNALS))
        strangeness = np.array([each.read.strangeness for each in judged]).reshape(len(judged), len(STRANGENESS))
        scorer = fit_scorer(signals, _right(judged), [SIGNALS.index("evidence"), SIGNALS.index("margin")])
        progress("fitted", 1.0)
        return whole.with_trust(scorer, fit_guard(strangeness))

    def load(self, folder: Path) -> NearestSpecialist:
        """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
        settings, arrays = read_saved(folder, TENSORS, SETTINGS, Settings, "nearest-answer artefact")
        embedding = self._embedding()
        wrong = _fault(settings, arrays, embedding.dimensions)
        if wrong is not None:
            raise ArtefactError(f"the nearest-answer artefact in {folder} is not whole: {wrong}")
        return NearestSpecialist(settings, arrays, embedding, self._hasher)


# ---------------------------------------------------------------------------------------------- what is kept


class _Input(NamedTuple):
    """A distinct input: its text, how often each answer (by its canonical text) was given, and the answers."""

    text: str
    counts: Counter[str]
    answers: dict[str, Value]


def keep(
    recipe: Recipe,
    contract: OutputContract,
    train: Sequence[Example],
    embedding: StaticEmbedding,
    hasher: Hasher,
) -> tuple[Settings, Arrays]:
    """The settings and arrays of `NearestSpecialist`, with no score yet and a guard that lets everything pass.

    Inputs are distinct up to white space. Each has the answer it was given most often, of ties the first.
    """
    distinct: dict[str, _Input] = {}
    for example in train:
        value = plain(example.target)
        if covers(contract, value):
            key = " ".join(example.input.split())
            kept = distinct.setdefault(key, _Input(example.input, Counter(), {}))
            said = canonical(value)
            kept.counts[said] += 1
            kept.answers.setdefault(said, value)
    read = [(each, read_text(each.text, hasher)) for each in _commonest(distinct)]
    # Two inputs of one digest do not occur; were there any, one would be as good as lost among the other's.
    read = sorted({text.digest: (each, text) for each, text in reversed(_within(read))}.values(), key=_by_digest)
    usual = [each.counts.most_common(1)[0] for each, _ in read]
    positions: dict[str, int] = {}
    for said, _ in usual:
        positions.setdefault(said, len(positions))
    answers = {said: each.answers[said] for (said, _), (each, _) in zip(usual, read, strict=True)}
    texts = [text for _, text in read]
    arrays: Arrays = {
        "digests": np.array([text.digest for text in texts], dtype=np.uint64),
        "answer": np.array([positions[said] for said, _ in usual], dtype=np.int32),
        "copies": np.array([each.counts.total() for each, _ in read], dtype=np.int32),
        "agreeing": np.array([count for _, count in usual], dtype=np.int32),
        "numbers": np.array([text.numbers for text in texts], dtype=np.uint32),
        **_directions(embedding.vectors([cut(each.text) for each, _ in read])),
        **_hashes(texts),
        "score": np.zeros(len(SIGNALS) + 1),
        "limits": np.full(len(STRANGENESS), np.inf),
    }
    return Settings(FORMAT, contract, recipe, tuple(answers[said] for said in positions)), arrays


def _commonest(distinct: dict[str, _Input]) -> list[_Input]:
    """At most _MOST_INPUTS, those seen most often first, of ties the first."""
    return sorted(distinct.values(), key=lambda each: -each.counts.total())[:_MOST_INPUTS]


def _within(read: list[tuple[_Input, Text]]) -> list[tuple[_Input, Text]]:
    """The first of them that hold no more than _MOST_HASHES features and words together."""
    held = np.cumsum([len(text.features) + len(text.words) for _, text in read])
    return read[: int((held <= _MOST_HASHES).sum())]


def _by_digest(each: tuple[_Input, Text]) -> int:
    return each[1].digest


def _directions(vectors: Floats32) -> Arrays:
    """The mean, the directions along which these vectors (n, D) differ most, and each vector in them, in bytes."""
    size = vectors.shape[1]
    mean = vectors.mean(axis=0) if len(vectors) else np.zeros(size, dtype=np.float32)
    shifted = (vectors - mean).astype(np.float64)
    _, axes = np.linalg.eigh(shifted.T @ shifted)
    basis = np.ascontiguousarray(axes[:, ::-1][:, :DIRECTIONS], dtype=np.float32)
    found = np.rint(project(vectors, mean, basis) * DIRECTION_SCALE)
    return {"mean": mean, "basis": basis, "directions": found.astype(np.int8)}


def _hashes(texts: Sequence[Text]) -> Arrays:
    """Features and words of all texts with their starts, their weights, and the norms of the features' weights."""
    found: Arrays = {}
    rare = []
    for name, parts in (("feature", [t.features for t in texts]), ("word", [t.words for t in texts])):
        joined = np.concatenate([*parts, np.zeros(0, dtype=np.uint32)])
        keys, weights, once = _weights(joined, len(texts))
        found |= {f"{name}s": joined, f"{name}_keys": keys, f"{name}_weights": weights}
        found[f"{name}_starts"] = np.cumsum([0] + [len(part) for part in parts]).astype(np.int64)
        rare.append(once)
    by_feature = Weights(found["feature_keys"], found["feature_weights"], rare[0])
    norms = [float(np.linalg.norm(by_feature.of(text.features)[0])) for text in texts]
    return {**found, "rare": np.array(rare, dtype=np.float32), "norms": np.array(norms, dtype=np.float32)}


def _weights(joined: Hashes32, n: int) -> tuple[Hashes32, Floats32, float]:
    """Inverse document frequencies of hashes that are distinct within each of n texts, and that of one seen once."""
    every, counts = np.unique(joined, return_counts=True)
    chosen = np.sort(np.lexsort((every, -counts))[:_MOST_WEIGHTS])
    weights = np.log((1 + n) / (1 + counts[chosen])) + 1
    return every[chosen], weights.astype(np.float32), float(np.log((1 + n) / 2) + 1) if n else 1.0


# ---------------------------------------------------------------------------------------------- score, and the check


class _Judged(NamedTuple):
    """One answer to an input that was not kept."""

    read: Read
    right: bool


def _judge(specialist: NearestSpecialist, rows: Sequence[Example], right: Right) -> list[_Judged]:
    """Answers that may be given to rows that were not kept, and whether they are right."""
    reads = [(specialist.read(example.input), example) for example in rows]
    given = [(read, example) for read, example in reads if read.open]
    found = right([(example.input, read.value, example.target) for read, example in given])
    return [_Judged(read, yes) for (read, _), yes in zip(given, found, strict=True)]


def _right(judged: Sequence[_Judged]) -> npt.NDArray[np.bool_]:
    return np.array([each.right for each in judged], dtype=np.bool_)


def _fault(settings: Settings, arrays: Arrays, dimensions: int) -> str | None:
    """What is wrong with a loaded artefact, or None."""
    if settings.format != FORMAT:
        return f"its format is {settings.format}, this version reads {FORMAT}"
    n = len(arrays.get("digests", ()))
    sizes = {name: len(arrays.get(name, ())) for name in ("features", "words", "feature_keys", "word_keys")}
    kinds: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {
        "digests": (np.uint64, (n,)),
        "answer": (np.int32, (n,)),
        "copies": (np.int32, (n,)),
        "agreeing": (np.int32, (n,)),
        "numbers": (np.uint32, (n,)),
        "directions": (np.int8, (n, DIRECTIONS)),
        "mean": (np.float32, (dimensions,)),
        "basis": (np.float32, (dimensions, DIRECTIONS)),
        "norms": (np.float32, (n,)),
        "rare": (np.float32, (2,)),
        "score": (np.float64, (len(SIGNALS) + 1,)),
        "limits": (np.float64, (len(STRANGENESS),)),
    }
    for name in ("feature", "word"):
        kinds[f"{name}s"] = (np.uint32, (sizes[f"{name}s"],))
        kinds[f"{name}_starts"] = (np.int64, (n + 1,))
        kinds[f"{name}_keys"] = (np.uint32, (sizes[f"{name}_keys"],))
        kinds[f"{name}_weights"] = (np.float32, (sizes[f"{name}_keys"],))
    return fault_in(arrays, kinds) or _disorder(settings, arrays)


def _disorder(settings: Settings, arrays: Arrays) -> str | None:
    """What does not fit together in arrays of the right shapes, or None."""
    for name in ("digests", "feature_keys", "word_keys"):
        if bool((arrays[name][1:] <= arrays[name][:-1]).any()):
            return f"`{name}` is out of order"
    for name in ("feature", "word"):
        starts: npt.NDArray[Any] = arrays[f"{name}_starts"]
        if starts[0] != 0 or starts[-1] != len(arrays[f"{name}s"]) or bool((np.diff(starts) < 0).any()):
            return f"`{name}_starts` does not tile `{name}s`"
    answer, copies, agreeing = arrays["answer"], arrays["copies"], arrays["agreeing"]
    if bool(((answer < 0) | (answer >= len(settings.answers))).any()):
        return "an input's answer is not among its answers"
    if bool(((agreeing < 1) | (agreeing > copies)).any()):
        return "its copies are miscounted"
    return None
