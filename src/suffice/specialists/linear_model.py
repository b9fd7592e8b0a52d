"""A fitted linear model: from a text to an answer with the signals that its score is made from.

Loading and predicting use numpy alone, on the fitted arrays: one look-up of all the text's
features in a sorted vocabulary, one gather of their coefficient rows, one product for all heads together.
Closed questions are told by heads, open ones by a tagger; the embedding may be any. What this does not know: word order
beyond pairs, values that are neither among those seen nor in the text.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from suffice.core.types import OutputContract, Prediction, Recipe, ToolCall
from suffice.specialists.embedding import Embedding, Reading
from suffice.specialists.features import Hasher, Vocabulary, normalised
from suffice.specialists.heads import Path as HeadPath
from suffice.specialists.heads import Scalar, composer
from suffice.specialists.saved import Arrays
from suffice.specialists.scorer import Guard, Scorer
from suffice.specialists.tagger import Tagger, TaggerSettings, TokenHasher

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

FORMAT = 3
TENSORS, SETTINGS = "model.safetensors", "model.json"

SIGNALS = (
    "evidence",
    "margin",
    "entropy",
    "similarity",
    "centroid_lead",
    "nearest_lead",
    "neighbours_lead",
    "embedding_lead",
    "examples",
    "known",
    "length",
    "energy",
    "distance",
    "combination",
    "company",
    "pieces",
)
"""Per answer: log-odds of the joint probability; smallest margin over heads and tokens (log-odds of first to second);
entropy summed over both. Of the main head, whose answer competes with a runner-up: cosine to its class's centroid, and
how much that exceeds the best other centroid's; the cosine to the nearest training text of its class less the same of
the runner-up's class, and once more as the mean of the three nearest; its lead over the runner-up by the embedding
alone; log of the number of training texts kept of its class. Then the share of the text's features that are in the
vocabulary; log of the number of features; energy: how strongly the main head reacts at all (log of its summed
exponentials); distance: Mahalanobis', of the embedding from train's. Last, log of how often train has the same answers
to all closed questions; the least often that it has the main head's answer with one of the filled slots (or with none);
and how many pieces of the text the answer holds."""

STRANGENESS = ("distance", "unknown", "silence")
"""What the guard limits: the distance, the unknown share of the features, and minus the energy."""

_LARGEST_MARGIN = 100.0
"""What an answer without any open question counts as."""

_NEAREST = 3
_NO_ROWS = np.zeros(0, dtype=np.int64)
_NO_VALUES = np.zeros(0, dtype=np.float32)

NEIGHBOUR_SCALE = 254.0
"""What unit vectors are multiplied by before they are rounded to a byte: a number beyond ±0.5 is rare, and is cut."""


class _Text(NamedTuple):
    """What is read off one text: known features (sorted vocabulary rows), their values, the embedding, two counts."""

    rows: Ints
    values: Floats32
    dense: Floats32
    known: float
    found: int


class FittedHead(msgspec.Struct, frozen=True):
    """A head with the values it learned. One value: constant. Two: one column. More: a column each, from `start`."""

    path: HeadPath
    tool: str | None
    values: tuple[Scalar, ...]
    start: int

    @property
    def columns(self) -> int:
        """How many columns of the coefficient matrix are this head's."""
        return {1: 0, 2: 1}.get(len(self.values), len(self.values))

    @property
    def stop(self) -> int:
        """The column behind its last."""
        return self.start + self.columns


class Settings(msgspec.Struct, frozen=True, omit_defaults=True):
    """What `model.json` holds; a tagger where the contract has open questions."""

    format: int
    contract: OutputContract
    heads: tuple[FittedHead, ...]
    recipe: Recipe
    tagger: TaggerSettings | None = None


class Read(NamedTuple):
    """One answer before it is scored."""

    value: Any
    signals: list[float]
    strangeness: list[float]


class LinearSpecialist:
    """A fitted linear model: a pure function of the text. Immutable, so thread-safe.

    Arrays: `hashes`, `idf` (V,); `sparse` (V, K) float16, `dense` (D, K), `bias` (K,) with K columns over all heads;
    `centroids` (classes of the main head, D), `mean` (D,), `whitener` (D, D); `score` (F + 1,), `limits` (G,);
    `neighbours` (N, D) int8, directions of training texts (centred embeddings) times NEIGHBOUR_SCALE, class by class;
    `kept` (classes,), how many are each class's; `combinations` (C,) uint64, digests of what train answers to all heads
    together, `combined` (C,) how often; `company` (classes, slots + 1), how often train has a slot filled with a class
    of the main head, in the last column none. Without a main head there is one class, of no text.
    """

    def __init__(self, settings: Settings, arrays: Arrays, embedding: Embedding, hasher: Hasher) -> None:
        self._settings = settings
        self._arrays = {name: array for name, array in arrays.items() if name != "sparse"}
        self._embedding = embedding
        self._hasher = hasher
        self._vocabulary = Vocabulary(arrays["hashes"], arrays["idf"])
        # float32 in memory: widening the gathered rows of every text costs more than the rest of the product
        self._sparse = arrays["sparse"].astype(np.float32)
        self._bias = arrays["bias"]
        # All that is asked of an embedding, in one product: logits, distance, then likeness to each centroid.
        centroids, whitener = arrays["centroids"].astype(np.float32), arrays["whitener"].astype(np.float32)
        self._mean = arrays["mean"]
        self._dense = np.ascontiguousarray(np.concatenate((arrays["dense"], whitener, centroids.T), axis=1))
        self._dense_mean = self._mean @ self._dense
        self._ends = (len(self._bias), len(self._bias) + len(whitener))
        self._neighbours = arrays["neighbours"]
        self._kept: list[int] = arrays["kept"].tolist()
        self._starts: list[int] = [0, *np.cumsum(arrays["kept"]).tolist()]
        self._compose = composer(settings.contract)
        self._which_tool = isinstance(settings.contract, ToolCall)
        self._main = main_head(settings.heads)
        self._combined: dict[int, float] = dict(
            zip(arrays["combinations"].tolist(), np.log1p(arrays["combined"]).tolist(), strict=True)
        )
        self._company: list[list[float]] = np.log1p(arrays["company"]).tolist()
        self._tagger = Tagger(settings.tagger, arrays, TokenHasher()) if settings.tagger is not None else None
        score = arrays["score"]
        self._scorer = Scorer(score[:-1], float(score[-1]))
        self._guard = Guard(arrays["limits"])

    @property
    def encoder(self) -> Embedding:
        """The embedding; specialists that share it can share its readings."""
        return self._embedding

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order."""
        return self.predict_read(inputs, self._embedding.read(inputs))

    def predict_read(self, inputs: Sequence[str], read: Sequence[Reading]) -> list[Prediction]:
        """As `predict`, from what the embedding has read of each input."""
        return [self._predict(text, reading) for text, reading in zip(inputs, read, strict=True)]

    def probabilities(self, text: str) -> list[tuple[FittedHead, Floats]]:
        """For each head the probability of each of its values."""
        logits, _, _, _ = self._asked(self._text(text, self._embedding.read([text])[0]))
        return [(head, _probabilities(logits, head)) for head in self._settings.heads]

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `model.json` into an existing folder."""
        arrays = {**self._arrays, "sparse": self._sparse.astype(np.float16)}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, folder / TENSORS)
        (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(self._settings), indent=1))

    def _text(self, text: str, reading: Reading) -> _Text:
        if not len(self._vocabulary.hashes):
            return _Text(_NO_ROWS, _NO_VALUES, reading.vector, 0.0, 0)
        hashes = self._hasher.hashes(normalised(text))
        rows, values, known = self._vocabulary.read(hashes)
        return _Text(rows, values, reading.vector, known, len(hashes))

    def _asked(self, text: _Text) -> tuple[Floats, Floats32, Floats32, Floats32]:
        """The logits of all heads (K,), the embedding's part in them; the whitened embedding (D,); its cosine to each
        centroid (unscaled)."""
        product = text.dense @ self._dense
        by_embedding = product[: self._ends[0]] + self._bias
        logits = by_embedding.astype(np.float64)
        if len(text.rows):
            logits += text.values @ self._sparse.take(text.rows, axis=0)
        product -= self._dense_mean
        return logits, by_embedding, product[self._ends[0] : self._ends[1]], product[self._ends[1] :]

    def _nearness(self, shifted: Floats32, picked: int) -> tuple[float, float]:
        """The cosine (unscaled) to the nearest training text of a class, and the mean of the three nearest."""
        start, stop = self._starts[picked], self._starts[picked + 1]
        if start == stop:
            return 0.0, 0.0
        near = self._neighbours[start:stop].astype(np.float32) @ shifted
        near.sort()
        nearest: list[float] = near[-_NEAREST:].tolist()
        return nearest[-1] / NEIGHBOUR_SCALE, sum(nearest) / (len(nearest) * NEIGHBOUR_SCALE)

    def _predict(self, text: str, reading: Reading) -> Prediction:
        read = self.read(text, reading)
        score = self._scorer.score(read.signals)
        familiar = self._guard.familiar(read.strangeness)
        parts = dict(zip(SIGNALS, read.signals, strict=True))
        return Prediction(value=read.value, score=score, familiar=familiar, parts=parts)

    def read(self, text: str, reading: Reading) -> Read:
        """The answer to one text with its signals and strangeness, before it is scored: for fitting."""
        seen = self._text(text, reading)
        logits, by_embedding, white, likeness = self._asked(seen)
        found: dict[HeadPath, Any] = {}
        tool: Scalar = None
        log_right, margin, entropy, picked, energy = 0.0, _LARGEST_MARGIN, 0.0, 0, 0.0
        runner_up: int | None = None
        positions: list[int] = []
        for position, head in enumerate(self._settings.heads):
            if head.tool is not None and head.tool != tool:
                positions.append(-1)
                continue
            best = 0
            if len(head.values) > 1:
                best, second, log_top, lead, spread, top = _judged(logits, head)
                log_right += log_top
                margin = min(margin, lead)
                entropy += spread
            found[head.path] = head.values[best]
            positions.append(best)
            if self._which_tool and position == 0:
                tool = head.values[best]
            if position == self._main and len(head.values) > 1:
                picked, runner_up, energy = best, second, top - log_top
        pieces, company = 0, 0.0
        if self._tagger is not None:
            tagged = self._tagger.read(text, reading, tool)
            found.update(tagged.values)
            log_right += tagged.log_right
            margin = min(margin, tagged.margin)
            entropy += tagged.entropy
            pieces = tagged.pieces
            beside = self._company[picked]
            company = min([beside[slot] for slot in tagged.filled], default=beside[-1])
        wrong = max(-math.expm1(log_right), 1e-300)
        evidence = log_right - math.log(wrong)
        shifted = seen.dense - self._mean
        length = math.sqrt(float(shifted @ shifted)) or 1.0
        similarity = float(likeness[picked]) / length
        leads = [0.0] * 4
        if runner_up is not None and self._main is not None:
            main = self._settings.heads[self._main]
            own, other = self._nearness(shifted, picked), self._nearness(shifted, runner_up)
            rival = likeness.copy()
            rival[picked] = -np.inf
            leads = [
                similarity - float(rival.max()) / length,
                (own[0] - other[0]) / length,
                (own[1] - other[1]) / length,
                _lead(by_embedding, main, picked, runner_up),
            ]
        distance = math.sqrt(float(white @ white))
        signals = [
            evidence,
            margin,
            entropy,
            similarity,
            *leads,
            math.log1p(self._kept[picked]),
            seen.known,
            math.log1p(seen.found),
            energy,
            distance,
            self._combined.get(combination(positions), 0.0) if len(positions) > 1 else 0.0,
            company,
            float(pieces),
        ]
        return Read(self._compose(found), signals, [distance, 1 - seen.known, -energy])


def combination(positions: npt.ArrayLike) -> int:
    """A 64-bit digest of the answers to all heads, by the position of each among its values (-1: not asked)."""
    said = np.array(positions, dtype="<i4").tobytes()
    return int.from_bytes(hashlib.blake2b(said, digest_size=8).digest(), "little")


def _probabilities(logits: Floats, head: FittedHead) -> Floats:
    """The probability of each of a head's values: shape (values,)."""
    if len(head.values) == 1:
        return np.ones(1)
    # A head of two values is a softmax over its one column and a column of zeros.
    own = np.array([0.0, logits[head.start]]) if len(head.values) == 2 else logits[head.start : head.stop]
    raised = np.exp(own - own.max())
    return np.asarray(raised / raised.sum())


def _judged(logits: Floats, head: FittedHead) -> tuple[int, int, float, float, float, float]:
    """The likeliest value's position, the second's, log probability, lead in log-odds, the entropy, and its logit.

    The log probability comes from the sum of the *others*, so it stays exact where the probability rounds to 1.
    """
    if len(head.values) == 2:
        z = float(logits[head.start])
        lead = abs(z)
        rest = math.exp(-lead)
        return int(z > 0), int(z <= 0), -math.log1p(rest), lead, math.log1p(rest) + lead * rest / (1 + rest), lead / 2
    own = logits[head.start : head.stop]
    best = int(own.argmax())
    behind = own - own[best]
    raised = np.exp(behind)
    weighted = float(raised @ behind)
    raised[best] = 0.0
    behind[best] = -math.inf
    second = int(behind.argmax())
    log_total = math.log1p(float(raised.sum()))
    entropy = log_total - weighted * math.exp(-log_total)
    return best, second, -log_total, -float(behind[second]), entropy, float(own[best])


def _lead(logits: Floats32, head: FittedHead, picked: int, runner_up: int) -> float:
    """How far one value of a head leads another by these logits; below 0 where it trails."""
    if len(head.values) == 2:
        return float(logits[head.start]) * (1 if picked else -1)
    return float(logits[head.start + picked] - logits[head.start + runner_up])


def main_head(heads: Sequence[FittedHead]) -> int | None:
    """The position of the always-asked head with the most values: its classes have the centroids. None without one."""
    asked = [index for index, head in enumerate(heads) if head.tool is None]
    return max(asked, key=lambda index: (len(heads[index].values), -index), default=None)


def classes_of(heads: Sequence[FittedHead]) -> int:
    """How many classes the main head has; one where there is no such head."""
    main = main_head(heads)
    return len(heads[main].values) if main is not None else 1
