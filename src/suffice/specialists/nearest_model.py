"""A verified cache: the answer that the nearest known input was given, with the signals that its score is made from.

Semantic caches answer above a fixed likeness; here likeness is only one signal of a learned score, so what likeness
does not tell counts too: a number that differs, a rare word too many, answers that contradict each other.

Inputs are found by their embedding (a projection to DIRECTIONS dimensions, a byte each), and compared by their
features: words, pairs of words, and a quarter of the pieces of words, chosen by hash so that it is the same quarter of
every text. No input is kept as text, only its hashes. What this does not know: any answer that was never given.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from suffice.core.types import Fields, Many, Number, OutputContract, Prediction, Recipe, Span, ToolCall
from suffice.core.values import Value, calls_of, plain
from suffice.specialists.embedding import StaticEmbedding, cut
from suffice.specialists.features import LONGEST_CHARS, Hasher, normalised
from suffice.specialists.saved import Arrays
from suffice.specialists.scorer import Guard, Scorer

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Hashes32 = npt.NDArray[np.uint32]

FORMAT = 1
TENSORS, SETTINGS = "model.safetensors", "model.json"

DIRECTIONS = 96
"""Dimensions of the projection: 256 would find little more, and take three times as long."""
DIRECTION_SCALE = 127.0

CANDIDATES = 12
"""Inputs that are compared in full."""

SIGNALS = (
    "evidence",
    "margin",
    "exact",
    "likeness",
    "closeness",
    "cosine",
    "lead",
    "cosine_lead",
    "votes",
    "copies",
    "agreement",
    "numbers",
    "missing",
    "extra",
    "rarest",
    "unknown",
    "length",
)
"""Log-odds of likeness times agreement times votes; the answer's log-odds against the best other one; whether the very
same input is known; cosine of TF-IDF features to the nearest input with the answer, and minus log of what lacks to 1;
the embedding's cosine; the lead in either over the nearest input with another answer; the answer's share of the votes;
log of how often the nearest input was answered so, and the share of its answers that this is; 1 if the numbers are the
same ones in the same order; the weight of its words that lack here, and of those here that it lacks, as a share of
all; the weight of the rarest of these; the share of the words that no known input has; log of the number of words."""

STRANGENESS = ("distance", "unlikeness")
"""What the guard limits: 1 - cosine, and 1 - likeness, to the nearest known input."""

_LARGEST = 20.0
"""Limit of log-odds: what an answer without a rival counts as."""
_SHARPNESS = 16.0
"""A vote weighs exp(_SHARPNESS * likeness): one much likelier input outweighs all others."""
_OTHER_NUMBERS = 0.02
_RAREST, _RARE_INPUTS, _OF_A_WORD = 2, 256, 4
"""Of a text's rarest words this many are looked up, if no more inputs than that have one; so many inputs of each."""
_BLOCK = 16
_PIECES_KEPT = np.uint64(3)
"""A piece is kept if its hash is 0 in these bits."""
_WORD_BIT = np.uint64(1 << 63)
_UPPER = np.uint64(32)
_WORD = re.compile(r"\w+")
_DIGITS = re.compile(r"\w*\d\w*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


class Settings(msgspec.Struct, frozen=True):
    """What `model.json` holds. `answers`: the distinct ones, in their plain form. `numbers_matter`: known inputs with
    other numbers hardly have a say."""

    format: int
    contract: OutputContract
    recipe: Recipe
    answers: tuple[Any, ...]
    numbers_matter: bool = False


class Text(NamedTuple):
    """What is read off one text: a digest of all of it, features and words (sorted, distinct), numbers, and whether
    it was too long for features and words to be of all of it."""

    digest: int
    features: Hashes32
    words: Hashes32
    numbers: int
    cut: bool


class Read(NamedTuple):
    """One answer before it is scored. `open` is False where it may not be given, whatever the score."""

    value: Any
    signals: list[float]
    strangeness: list[float]
    open: bool


def read_text(text: str, hasher: Hasher) -> Text:
    """Digest, features, words and numbers of one text. White space is collapsed; only the digest knows case."""
    words = text.split()
    digest = blake2b(" ".join(words).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    plain_text = normalised(text)
    hashes = hasher.hashes(plain_text)
    kept = hashes[(hashes >= _WORD_BIT) | ((hashes & _PIECES_KEPT) == 0)]
    # The upper half: it holds the bit that tells words from pieces, and is free of the bits chosen by.
    features = np.unique((kept >> _UPPER).astype(np.uint32))
    found = _WORD.findall(plain_text)
    hashed = np.array(sorted({_hash(word) for word in found}), dtype=np.uint32)
    numbers = _hash(" ".join(_DIGITS.findall(plain_text)))
    return Text(int.from_bytes(digest, "little"), features, hashed, numbers, len(text) > LONGEST_CHARS)


def _hash(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


def project(vectors: Floats32, mean: Floats32, basis: Floats32) -> Floats32:
    """Directions in the projection: (n, DIRECTIONS) of length 1, zeros for a text that is the mean or empty."""
    shifted = (vectors - mean) @ basis
    lengths = np.linalg.norm(shifted, axis=-1, keepdims=True)
    return np.asarray(shifted / np.where(lengths > 1e-9, lengths, 1), dtype=np.float32)


class Weights:
    """Inverse document frequencies by hash: sorted `keys` (V,), `weights` (V,); `rare` is the weight of all others."""

    def __init__(self, keys: Hashes32, weights: Floats32, rare: float) -> None:
        self._keys, self._weights = keys, weights
        self.rare = np.float32(rare)

    def of(self, hashes: Hashes32) -> tuple[Floats32, npt.NDArray[np.bool_]]:
        """The weight of each hash, and which of them have one of their own."""
        if not len(self._keys):
            return np.full(len(hashes), self.rare, dtype=np.float32), np.zeros(len(hashes), dtype=np.bool_)
        at = self._keys.searchsorted(hashes)
        known = self._keys.take(at, mode="clip") == hashes
        return np.where(known, self._weights.take(at, mode="clip"), self.rare), known


class NearestSpecialist:
    """Known inputs with their answers: a pure function of the text. Immutable, so thread-safe.

    Arrays, N inputs in the order of their digests: `digests` (N,) uint64; `directions` (N, DIRECTIONS) int8; `answer`
    (N,) positions among the settings' answers; `copies`, `agreeing` (N,): how often each was seen, and so answered;
    `features`, `words`: all inputs' hashes, one input after another, from `feature_starts`, `word_starts` (N + 1,);
    `norms` (N,) of the features' weights; `numbers` (N,); `mean` (D,), `basis` (D, DIRECTIONS); `feature_keys`,
    `feature_weights`, `word_keys`, `word_weights`; `rare` (2,); `score` (F + 1,), `limits` (G,).
    """

    def __init__(self, settings: Settings, arrays: Arrays, embedding: StaticEmbedding, hasher: Hasher) -> None:
        self._settings = settings
        self._arrays = arrays
        self._embedding = embedding
        self._hasher = hasher
        # Widening the bytes for every text costs more than the product.
        self._directions = arrays["directions"].astype(np.float32)
        # Which inputs have a word: words in order, and for each the input it stands in.
        order = arrays["words"].argsort(kind="stable")
        self._posted = arrays["words"][order]
        self._posts = np.repeat(np.arange(len(arrays["digests"])), np.diff(arrays["word_starts"]))[order]
        rare = arrays["rare"].tolist()
        self._feature_weights = Weights(arrays["feature_keys"], arrays["feature_weights"], rare[0])
        self._word_weights = Weights(arrays["word_keys"], arrays["word_weights"], rare[1])
        self._pieces = piece_check(settings.contract)
        self._scorer = Scorer(arrays["score"][:-1], float(arrays["score"][-1]))
        self._guard = Guard(arrays["limits"])

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order. Where nothing may be answered the score is 0."""
        return [self._predict(text) for text in inputs]

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `model.json` into an existing folder."""
        save_file({name: np.ascontiguousarray(array) for name, array in self._arrays.items()}, folder / TENSORS)
        (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(self._settings), indent=1))

    def with_numbers(self) -> NearestSpecialist:
        """The same, but that known inputs with other numbers hardly have a say."""
        settings = msgspec.structs.replace(self._settings, numbers_matter=True)
        return NearestSpecialist(settings, self._arrays, self._embedding, self._hasher)

    def with_trust(self, scorer: Scorer, guard: Guard) -> NearestSpecialist:
        """The same with a score and a guard."""
        trust = {"score": np.append(scorer.weights, scorer.bias), "limits": guard.limits}
        return NearestSpecialist(self._settings, {**self._arrays, **trust}, self._embedding, self._hasher)

    def _predict(self, text: str) -> Prediction:
        read = self.read(text)
        score = self._scorer.score(read.signals) if read.open else 0.0
        parts = dict(zip(SIGNALS, read.signals, strict=True))
        familiar = self._guard.familiar(read.strangeness)
        return Prediction(value=read.value, score=score, familiar=familiar, parts=parts)

    def read(self, text: str) -> Read:
        """The answer to one text with its signals and strangeness, before it is scored: for fitting."""
        arrays = self._arrays
        if not len(arrays["digests"]):
            return Read(None, [0.0] * len(SIGNALS), [1.0] * len(STRANGENESS), False)
        seen = read_text(text, self._hasher)
        near, cosines, same = self._near(text, seen)
        likeness = self._likeness(seen.features, near)
        alike = (likeness + np.clip(cosines, 0, 1)) / 2
        answers = arrays["answer"][near]
        agreement = arrays["agreeing"][near] / arrays["copies"][near]
        votes = np.exp(_SHARPNESS * (alike - 1)) * agreement
        if self._settings.numbers_matter:
            votes[arrays["numbers"][near] != seen.numbers] *= _OTHER_NUMBERS
        totals: dict[int, float] = {}
        for answer, vote in zip(answers.tolist(), votes.tolist(), strict=True):
            totals[answer] = totals.get(answer, 0.0) + vote
        # The very same input answers for itself; of ties the first among the answers.
        picked = int(answers[0]) if same else max(totals, key=lambda answer: (totals[answer], -answer))
        rest = max((total for answer, total in totals.items() if answer != picked), default=0.0)
        own = np.flatnonzero(answers == picked)
        best = 0 if same else int(own[alike[own].argmax()])
        rivals = np.flatnonzero(answers != picked)
        compared = [float(likeness[best]), float(cosines[best])]
        rival = [float(each[rivals].max()) if len(rivals) else 0.0 for each in (likeness, cosines)]
        index = int(near[best])
        copies, agreeing = int(arrays["copies"][index]), int(arrays["agreeing"][index])
        share = totals[picked] / sum(totals.values())
        trust = (agreeing + 0.5) / (copies + 1)
        sure = min(max(compared[0], 0.0) * trust * share, 1.0)
        signals = [
            _log_odds(sure),
            _bounded(math.log(totals[picked] / rest)) if rest > 0 else _LARGEST,
            float(same),
            compared[0],
            -math.log(max(1 - compared[0], 0.0) + 0.02),
            compared[1],
            compared[0] - rival[0],
            compared[1] - rival[1],
            share,
            math.log1p(agreeing),
            trust,
            float(seen.numbers == int(arrays["numbers"][index])),
            *self._differing(seen.words, index),
            math.log1p(len(seen.words)),
        ]
        value = self._settings.answers[picked]
        # What was too long to be compared in whole may differ where nothing looked.
        allowed = same or (not seen.cut and self._pieces(value, text))
        return Read(value, signals, [1 - compared[1], 1 - compared[0]], allowed)

    def _near(self, text: str, seen: Text) -> tuple[Ints, Floats32, bool]:
        """The known inputs to compare with, their cosines by the embedding, and whether the first is the very same.

        The nearest by the embedding, and of those that share a rare word, a name or a number, the nearest.
        """
        digests = self._arrays["digests"]
        vector = self._embedding.vector(cut(text))
        cosines = self._directions @ project(vector, self._arrays["mean"], self._arrays["basis"])
        cosines /= np.float32(DIRECTION_SCALE)
        chosen = set(_largest(cosines, CANDIDATES).tolist())
        for inputs in self._sharing(seen.words):
            chosen.update(inputs[_largest(cosines[inputs], _OF_A_WORD)].tolist())
        at = int(digests.searchsorted(np.uint64(seen.digest)))
        same = at < len(digests) and int(digests[at]) == seen.digest
        near = np.array([at, *sorted(chosen - {at})] if same else sorted(chosen), dtype=np.int64)
        return near, cosines[near], same

    def _sharing(self, words: Hashes32) -> list[Ints]:
        """The inputs that have the rarest of these words, for each of _RAREST words that any input has."""
        starts, stops = self._posted.searchsorted(words), self._posted.searchsorted(words, side="right")
        found = sorted((stop - start, start) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True))
        rare = [(start, count) for count, start in found if 0 < count <= _RARE_INPUTS][:_RAREST]
        return [self._posts[start : start + count] for start, count in rare]

    def _likeness(self, features: Hashes32, near: Ints) -> Floats32:
        """The cosine of the text's weighted features to those of each input in `near`."""
        starts = self._arrays["feature_starts"]
        slices = [self._arrays["features"][starts[index] : starts[index + 1]] for index in near.tolist()]
        weights, _ = self._feature_weights.of(features)
        squares = np.append(weights * weights, np.float32(0))
        theirs = np.concatenate(slices)
        at = features.searchsorted(theirs)
        at[features.take(at, mode="clip") != theirs if len(features) else slice(None)] = len(features)
        owner = np.repeat(np.arange(len(near)), [len(each) for each in slices])
        shared = np.bincount(owner, weights=squares[at], minlength=len(near))
        norms = self._arrays["norms"][near] * math.sqrt(float(squares.sum()))
        # Two texts without any feature are as alike as can be told: not at all.
        return np.asarray(np.minimum(shared / np.where(norms > 0, norms, 1), 1), dtype=np.float32)

    def _differing(self, words: Hashes32, index: int) -> tuple[float, float, float, float]:
        """The signals `missing`, `extra`, `rarest` and `unknown` of these words against those of a known input."""
        start, stop = self._arrays["word_starts"][index : index + 2].tolist()
        theirs = self._arrays["words"][start:stop]
        own_weights, known = self._word_weights.of(words)
        their_weights, _ = self._word_weights.of(theirs)
        total = float(own_weights.sum() + their_weights.sum()) or 1.0
        extra = own_weights[_absent(words, theirs)]
        missing = their_weights[_absent(theirs, words)]
        rarest = max(float(extra.max(initial=0)), float(missing.max(initial=0)))
        unknown = 1 - float(known.mean()) if len(words) else 0.0
        return float(missing.sum()) / total, float(extra.sum()) / total, rarest, unknown


def _largest(values: Floats32, count: int) -> Ints:
    """Where the `count` largest values (n,) stand, in order of position; of ties at the end the first."""
    blocks = len(values) // _BLOCK
    least = np.float32(-np.inf)
    if blocks >= 2 * count:
        # The count-th largest of the maxima of blocks is at most the count-th largest value: little lies above it.
        maxima = values[: blocks * _BLOCK].reshape(_BLOCK, blocks).max(axis=0)
        least = np.partition(maxima, -count)[-count]
    found = np.flatnonzero(values >= least)
    if len(found) > count:
        found = np.sort(found[np.argsort(-values[found], kind="stable")[:count]])
    return found


def _absent(hashes: Hashes32, others: Hashes32) -> npt.NDArray[np.bool_]:
    """Which of `hashes` are not among the sorted `others`."""
    if not len(others):
        return np.ones(len(hashes), dtype=np.bool_)
    return np.asarray(others.take(others.searchsorted(hashes), mode="clip") != hashes)


def _log_odds(chance: float) -> float:
    return _bounded(math.log(max(chance, 1e-9)) - math.log(max(1 - chance, 1e-9)))


def _bounded(x: float) -> float:
    return max(-_LARGEST, min(_LARGEST, x))


# ---------------------------------------------------------------------------------------------- pieces of the input


def piece_check(contract: OutputContract) -> Callable[[Value, str], bool]:
    """Whether every piece and every number of an answer stands in a text: a function of the two."""
    if not _has_pieces(contract):
        return lambda value, text: True

    def stands(value: Value, text: str) -> bool:
        numbers = {found for match in _NUMBER.findall(text) for found in _readings(match)}
        return _stands(contract, plain(value), text, numbers)

    return stands


def _has_pieces(contract: OutputContract) -> bool:
    match contract:
        case Span() | Number():
            return True
        case Many():
            return _has_pieces(contract.of)
        case Fields():
            return any(_has_pieces(inner) for _, inner in contract.fields)
        case ToolCall():
            return any(_has_pieces(inner) for _, inner in contract.tools)
        case _:
            return False


def _stands(contract: OutputContract, value: Value, text: str, numbers: set[float]) -> bool:
    """`numbers`: those that stand in the text."""
    match contract:
        case Span():
            return not isinstance(value, str) or value in text
        case Number():
            return isinstance(value, bool) or not isinstance(value, int | float) or float(value) in numbers
        case Many():
            return not isinstance(value, list) or all(_stands(contract.of, each, text, numbers) for each in value)
        case Fields():
            fields = value if isinstance(value, dict) else {}
            return all(_stands(inner, fields.get(name), text, numbers) for name, inner in contract.fields)
        case ToolCall():
            tools = dict(contract.tools)
            return all(
                _stands(tools[str(call["name"])], call.get("arguments"), text, numbers)
                for call in calls_of(value) or []
                if call["name"] in tools
            )
        case _:
            return True


def _readings(written: str) -> list[float]:
    """What a number in a text may mean: 1,200.50 and 1.200,50 are written in two countries."""
    found = []
    for text in (written, written.replace(",", ""), written.replace(".", "").replace(",", ".")):
        try:
            found += [float(text), -float(text)]
        except ValueError:
            continue
    return found
