"""How sure a generating model's answer is: numbers for the learned score, and how strange an input is, for the guard.

The evidence is the chance that the model gives the whole answer, and the narrowest lead over another token. Beside it:
the tokens that decide (those of values, not of JSON's own signs), words that stand neither in the input nor in answers
of training, fields that training answers never have together, and how near the input is to those of training.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.types import OutputContract
from suffice.core.values import Value
from suffice.specialists.causal_text import is_bare
from suffice.specialists.embedding import StaticEmbedding
from suffice.specialists.features import Hasher, Vocabulary, build_vocabulary, normalised
from suffice.specialists.runtime import Written

SIGNALS = (
    *("evidence", "margin", "lowest", "mean", "structure", "doubtful", "tokens"),
    *("invented", "uncopied", "rare_shape", "near", "same_shape", "known"),
)
STRANGENESS = ("far", "unknown", "long")
EVIDENCE = (SIGNALS.index("evidence"), SIGNALS.index("margin"))

_MOST_NEIGHBOURS = 4_000
_MOST_FEATURES = 30_000
_MOST_WORDS = 20_000
_MOST_SHAPES = 1_000
_DOUBT = math.log(0.9)
_SUREST = 30.0
"""Log-odds beyond which no answer is surer."""
_COPIED = 0.95
"""Where so large a share of a field's values in training stand in their inputs, one that does not is a bad sign."""
_WORD = re.compile(r"\w+")
_JSON = re.compile(r'"(?:[^"\\]|\\.)*"(?P<key>:)?|[^\s"{}\[\],:]+')

Signals = tuple[float, ...]


class Taught(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of training's answers. `copied`: of each field that had values the share that stood in their
    inputs; `shapes`: how often which fields came together."""

    copied: dict[str, float]
    shapes: dict[str, int]
    answers: int


class Known(NamedTuple):
    """Training as a score sees it. `words` (W,) are digests of answers' words that did not stand in the input,
    ascending; `directions` (N, D) are its inputs', of length 1; `shape_of` (N,) the place of each
    one's shape among `taught.shapes`, -1 for a rare one; `mean` (D,) was taken off all."""

    taught: Taught
    words: npt.NDArray[np.uint64]
    vocabulary: Vocabulary
    mean: npt.NDArray[np.float32]
    directions: npt.NDArray[np.float16]
    shape_of: npt.NDArray[np.int32]


class Seen(NamedTuple):
    """One answer's numbers: as `SIGNALS` and as `STRANGENESS` name them."""

    signals: Signals
    strangeness: tuple[float, ...]


def learn(inputs: Sequence[str], answers: Sequence[Value], embedding: StaticEmbedding, hasher: Hasher) -> Known:
    """What training is like. At most some thousands of its inputs, evenly spread, are kept as neighbours."""
    shapes = Counter(shape(answer) for answer in answers)
    common = dict(sorted(shapes.items(), key=lambda each: (-each[1], each[0]))[:_MOST_SHAPES])
    words: Counter[str] = Counter()
    values: Counter[str] = Counter()
    found: Counter[str] = Counter()
    for text, answer in zip(inputs, answers, strict=True):
        there = text.casefold()
        own = _words(there)
        for path, value in leaves(answer):
            values[path] += 1
            found[path] += value.casefold() in there
            words.update(_words(value.casefold()) - own)
    commonest = sorted(words.items(), key=lambda each: (-each[1], each[0]))[:_MOST_WORDS]
    taught = Taught(
        copied={path: found[path] / count for path, count in sorted(values.items())},
        shapes=common,
        answers=len(answers),
    )
    hashes = [hasher.hashes(normalised(text)) for text in inputs]
    vocabulary = build_vocabulary([*hashes, np.zeros(0, dtype=np.uint64)], 1, _MOST_FEATURES)
    rows = np.unique(np.linspace(0, len(inputs) - 1, min(len(inputs), _MOST_NEIGHBOURS)).round().astype(np.int64))
    vectors = embedding.vectors([inputs[row] for row in rows.tolist()])
    mean = vectors.mean(axis=0) if len(vectors) else np.zeros(embedding.dimensions, dtype=np.float32)
    place = {name: at for at, name in enumerate(common)}
    return Known(
        taught,
        np.array(sorted({_digest(word) for word, _ in commonest}), dtype=np.uint64),
        vocabulary,
        mean.astype(np.float32),
        _directions(vectors - mean).astype(np.float16),
        np.array([place.get(shape(answers[row]), -1) for row in rows.tolist()], dtype=np.int32),
    )


class Reader:
    """Gives the numbers of answers. Immutable and thread-safe."""

    def __init__(
        self, contract: OutputContract, known: Known, longest: int, embedding: StaticEmbedding, hasher: Hasher
    ) -> None:
        self._contract, self._known, self._longest = contract, known, longest
        self._embedding, self._hasher = embedding, hasher
        self._words = frozenset(known.words.tolist())
        self._shapes = list(known.taught.shapes)
        self._near = known.directions.astype(np.float32)

    def seen(self, text: str, written: Written, answer: Value) -> Seen:
        """The numbers of one answer, which was read off `written`."""
        near, neighbour = self._nearest(text)
        _, _, known = self._known.vocabulary.read(self._hasher.hashes(normalised(text)))
        own = shape(answer)
        signals = (
            *told(written, is_bare(self._contract)),
            *self._checked(text, answer),
            math.log((self._known.taught.shapes.get(own, 0) + 0.5) / (self._known.taught.answers + 1)),
            near,
            float(0 <= neighbour < len(self._shapes) and self._shapes[neighbour] == own),
            known,
        )
        return Seen(signals, (1 - near, 1 - known, len(text) / max(self._longest, 1)))

    def _nearest(self, text: str) -> tuple[float, int]:
        """The cosine to the nearest training input, and the place of its shape."""
        if not len(self._near):
            return 0.0, -1
        direction = _directions((self._embedding.vector(text[:2_000]) - self._known.mean)[None])[0]
        cosines = self._near @ direction
        at = int(cosines.argmax())
        return float(cosines[at]), int(self._known.shape_of[at])

    def _checked(self, text: str, answer: Value) -> tuple[float, float]:
        """Words that come from nowhere, and values that should have been copied and were not."""
        there = text.casefold()
        own = _words(there)
        invented = uncopied = 0
        for path, value in leaves(answer):
            folded = value.casefold()
            invented += sum(_digest(word) not in self._words for word in _words(folded) - own)
            uncopied += self._known.taught.copied.get(path, 0.0) >= _COPIED and folded not in there
        return math.log1p(invented), float(uncopied)


def told(written: Written, bare: bool) -> tuple[float, ...]:
    """What the tokens' log-probabilities say: the first seven of SIGNALS."""
    if not written.tokens:
        return (0.0,) * 7
    logprobs = np.array(written.logprobs, dtype=np.float64)
    leads = logprobs - np.array(written.others, dtype=np.float64)
    deciding = np.ones(len(logprobs), dtype=np.bool_) if bare else _deciding(written)
    own = logprobs[deciding] if deciding.any() else logprobs
    rest = logprobs[~deciding]
    total = float(np.minimum(logprobs, 0).sum())
    return (
        _log_odds(total),
        float(np.clip(leads.min(), -_SUREST, _SUREST)),
        max(float(own.min()), -_SUREST),
        max(float(own.mean()), -_SUREST),
        max(float(rest.min()), -_SUREST) if len(rest) else 0.0,
        float((logprobs < _DOUBT).sum()),
        math.log(len(logprobs)),
    )


def _log_odds(logprob: float) -> float:
    """log(p / (1 - p)) of p = exp(logprob), within ±30."""
    other = -math.expm1(min(logprob, 0.0))
    return float(np.clip(logprob - math.log(max(other, 1e-300)), -_SUREST, _SUREST))


def _deciding(written: Written) -> npt.NDArray[np.bool_]:
    """Which tokens lie within a value of the JSON, or end one: the others are keys and signs."""
    ends = np.cumsum([len(piece.decode("utf-8", "ignore")) for piece in written.pieces])
    starts = np.concatenate(([0], ends[:-1]))
    found = np.zeros(len(written.tokens), dtype=np.bool_)
    for match in _JSON.finditer(written.text):
        if match["key"] is None:
            found |= (starts < match.end()) & (ends > match.start())
    return found


def leaves(answer: Value, path: str = "") -> Iterator[tuple[str, str]]:
    """The texts and numbers of an answer, each with its path; items of one list share theirs."""
    if isinstance(answer, dict):
        for name, inner in answer.items():
            yield from leaves(inner, f"{path}.{name}")
    elif isinstance(answer, list):
        for item in answer:
            yield from leaves(item, path)
    elif answer is not None:
        yield path, str(answer)


def shape(answer: Value) -> str:
    """Which fields an answer has, and how often; a call's tool among them."""
    fields = Counter(path for path, _ in leaves(answer))
    return " ".join(f"{path}{'' if count == 1 else f'*{count}'}" for path, count in sorted(fields.items()))


def _words(text: str) -> set[str]:
    return set(_WORD.findall(text))


def _digest(word: str) -> int:
    return int.from_bytes(hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _directions(vectors: Any) -> npt.NDArray[np.float32]:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: npt.NDArray[np.float32] = (vectors / np.where(lengths > 0, lengths, 1)).astype(np.float32)
    return found
