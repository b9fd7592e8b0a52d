"""A linear-chain conditional random field on arrays: fitted by mini-batches, decoded with exact probabilities.

Every token has an emission for each of K tags, a linear function of sparse and dense features; every pair of
neighbouring tags has a weight, or cannot be. What this does not know: what a token, a feature or a tag is.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Reals = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

_BATCH_TOKENS = (200, 1_200)
_FEWEST_BATCHES = 40
"""Small trains are cut into about this many batches, within those limits."""
_LOWEST = -30.0
"""Emissions so far below a token's best (natural logarithm) are as good as impossible: in float32 products stay normal
numbers. One text is decoded in float64 with more room."""
_LOWEST_EXACT = -600.0
_TINY = 1e-300


class Rows(Protocol):
    """Dense features, made when they are asked for: (n_tokens, D)."""

    width: int

    def take(self, tokens: Ints) -> Floats32:
        """Those of some tokens: (len(tokens), D)."""
        ...


class Sentences(NamedTuple):
    """What a field is fitted on: all sentences' tokens, one after another.

    `sparse` is (n_tokens, F) in CSR, `dense` D numbers a token, `whole` (n, E) numbers that all tokens of a sentence
    share; `lengths` (n,) tokens of each sentence, none 0; `tags` (n_tokens,). `group` (n,) says which row of `allowed`
    (G, K) holds the tags that a sentence may have.
    """

    sparse: Any
    dense: Rows
    whole: Floats32
    lengths: Ints
    tags: Ints
    group: Ints
    allowed: Bools


class Weights(NamedTuple):
    """Of a fitted field: `sparse` (F, K), `dense` (D, K), `whole` (E, K), `bias` (K,), `transitions` (K, K) from row to
    column, `start` (K,)."""

    sparse: Floats32
    dense: Floats32
    whole: Floats32
    bias: Floats32
    transitions: Floats32
    start: Floats32


class Batch(NamedTuple):
    """Some sentences, the longest first, packed: the first token of each, then the second of each that has one, ...

    `tokens` (m,) are positions among all tokens, `counts` (longest,) how many sentences reach each step, `order` the
    sentences, `owner` (m,) the position in `order` of each packed token's.
    """

    tokens: Ints
    counts: Ints
    order: Ints
    owner: Ints


def packed(lengths: Ints, chosen: Ints) -> Batch:
    """The batch of the chosen sentences."""
    starts = np.cumsum(lengths) - lengths
    order = chosen[np.argsort(-lengths[chosen], kind="stable")]
    steps = np.arange(int(lengths[order[0]]))[:, None]
    reached = lengths[order] > steps
    tokens = (starts[order] + steps)[reached]
    return Batch(tokens, reached.sum(axis=1), order, np.nonzero(reached)[1])


class Slopes(NamedTuple):
    """Minus log likelihood of a batch, and its derivatives by emissions (m, K), transitions (K, K) and start (K,)."""

    loss: float
    emissions: Reals
    transitions: Reals
    start: Reals


def slopes(
    emissions: Reals,
    tags: Ints,
    counts: Ints,
    allowed: Bools,
    transitions: Reals,
    start: Reals,
    first: Bools,
    after: Bools,
) -> Slopes:
    """Forward and backward over a packed batch at once. `allowed` is (m, K); `first` (K,) and `after` (K, K) the tags
    that may begin a sentence and stand behind each other."""
    lowest = emissions.dtype.type(_LOWEST)
    masked = np.where(allowed, emissions, -np.inf)
    top = masked.max(axis=1, keepdims=True)
    local = np.exp(np.maximum(masked - top, lowest)) * allowed
    factor = np.exp(transitions) * after
    ends = np.cumsum(counts)
    begins = ends - counts
    forward, scale = np.empty_like(local), np.empty_like(top)
    for step, (begin, count) in enumerate(zip(begins.tolist(), counts.tolist(), strict=True)):
        came = forward[begins[step - 1] : begins[step - 1] + count] @ factor if step else np.exp(start) * first
        here = came * local[begin : begin + count]
        total = here.sum(axis=1, keepdims=True)
        scale[begin : begin + count] = total
        forward[begin : begin + count] = here / total
    backward = np.ones_like(local)
    ahead = np.empty_like(local)
    for step in range(len(counts) - 1, 0, -1):
        begin, end = begins[step], ends[step]
        ahead[begin:end] = local[begin:end] * backward[begin:end] / scale[begin:end]
        backward[begins[step - 1] : begins[step - 1] + counts[step]] = ahead[begin:end] @ factor.T
    chances = forward * backward
    rows, second = np.arange(len(tags)), int(counts[0])
    before = rows[second:] - np.repeat(counts[:-1], counts[1:])
    pairs = (forward[before].T @ ahead[second:]) * factor
    gold = emissions[rows, tags].sum(dtype=np.float64) + start[tags[:second]].sum(dtype=np.float64)
    gold += transitions[tags[before], tags[second:]].sum(dtype=np.float64)
    loss = np.log(scale).sum(dtype=np.float64) + top.sum(dtype=np.float64) - gold
    began = chances[:second].sum(axis=0)
    np.subtract.at(began, tags[:second], 1)
    np.subtract.at(pairs, (tags[before], tags[second:]), 1)
    chances[rows, tags] -= 1
    return Slopes(float(loss), chances, pairs, began)


class _Adagrad:
    """Steps that shrink for each number with the size of the slopes it has seen."""

    def __init__(self, shape: tuple[int, ...], rate: float) -> None:
        self.values = np.zeros(shape, dtype=np.float32)
        self._seen = np.full(shape, 0.1, dtype=np.float32)
        self._rate = rate

    def step(self, slope: Floats32, share: float, rows: Any = ..., values: Floats32 | None = None) -> None:
        """One step with `share` of the rate, of some rows (`values`, where at hand) or of all. Uses `slope` up."""
        seen = self._seen[rows]
        seen += slope * slope
        self._seen[rows] = seen
        np.sqrt(seen, out=seen)
        slope /= seen
        slope *= np.float32(self._rate * share)
        if values is None:
            self.values[rows] -= slope
        else:
            np.subtract(values, slope, out=slope)
            self.values[rows] = slope


def fit_crf(
    data: Sentences,
    first: Bools,
    after: Bools,
    *,
    epochs: int,
    strength: float,
    rate: float,
    seed: int,
    progress: Callable[[float], None] = lambda share: None,
) -> Weights:
    """Weights that make the tags likely. `strength` is the ridge on a sentence's loss, `rate` the first step.

    Adagrad over batches of sentences of like length, in an order that `seed` fixes; the rate falls to zero, so the last
    weights are as good as an average. Only sparse rows that a batch touches move. `progress` is told the share done.
    """
    count = data.allowed.shape[1]
    sparse = _Adagrad((data.sparse.shape[1], count), rate)
    dense = _Adagrad((data.dense.width, count), rate)
    whole = _Adagrad((data.whole.shape[1], count), rate)
    bias, start = _Adagrad((count,), rate), _Adagrad((count,), rate)
    transitions = _Adagrad((count, count), rate)
    dice = np.random.default_rng(seed)
    done, every = 0, 0
    marks = np.zeros(data.sparse.shape[1], dtype=np.int32)
    for _ in range(epochs):
        batches = _batches(data.lengths, dice)
        every = len(batches) * epochs
        for chosen in batches:
            share = max(1 - done / every, 0.01)
            batch = packed(data.lengths, chosen)
            tokens = batch.tokens
            own = data.sparse[tokens]
            rows = _touched(own.indices, len(marks))
            marks[rows] = np.arange(len(rows), dtype=np.int32)
            compact = type(own)((own.data, marks[own.indices], own.indptr), shape=(len(tokens), len(rows)))
            near, around = data.dense.take(tokens), data.whole[batch.order]
            values = sparse.values[rows]
            emissions = compact @ values
            emissions += near @ dense.values
            emissions += (around @ whole.values + bias.values)[batch.owner]
            allowed = data.allowed[data.group[batch.order]][batch.owner]
            found = slopes(
                emissions, data.tags[tokens], batch.counts, allowed, transitions.values, start.values, first, after
            )
            weight = np.float32(1 / len(chosen))
            ridge = np.float32(strength)
            slope = found.emissions * weight
            sparse.step(compact.T @ slope + ridge * values, share, rows, values)
            dense.step(near.T @ slope + ridge * dense.values, share)
            whole.step(around.T @ _by_sentence(slope, batch) + ridge * whole.values, share)
            bias.step(slope.sum(axis=0), share)
            transitions.step(found.transitions * weight + ridge * transitions.values, share)
            start.step(found.start * weight, share)
            done += 1
            if done % 8 == 0:
                progress(done / every)
    return Weights(sparse.values, dense.values, whole.values, bias.values, transitions.values, start.values)


def _by_sentence(slope: Floats32, batch: Batch) -> Floats32:
    """The sum over each sentence's tokens: (sentences, K)."""
    total = np.zeros((len(batch.order), slope.shape[1]), dtype=np.float32)
    end = 0
    for count in batch.counts.tolist():
        total[:count] += slope[end : end + count]
        end += count
    return total


def _touched(indices: npt.NDArray[np.int32], count: int) -> Ints:
    """The different indices below `count`, ascending, without sorting them."""
    touched = np.zeros(count, dtype=bool)
    touched[indices] = True
    return np.flatnonzero(touched)


def _batches(lengths: Ints, dice: np.random.Generator) -> list[Ints]:
    """All sentences, those of like length together, batches in random order."""
    order = np.argsort(lengths + dice.random(len(lengths)) * (1 + 0.1 * lengths), kind="stable")
    size = min(max(int(lengths.sum()) // _FEWEST_BATCHES, _BATCH_TOKENS[0]), _BATCH_TOKENS[1])
    position = np.cumsum(lengths[order]) // size
    batches = np.split(order, np.flatnonzero(np.diff(position)) + 1)
    return [batches[at] for at in dice.permutation(len(batches))]


# ---------------------------------------------------------------------------------------------- decoding


class Decoded(NamedTuple):
    """The likeliest tags of one text (T,), the log of their joint probability (exact near 0), each token's chance of
    each tag (T, K), the smallest lead of a token's likeliest tag over the next (log-odds), and the summed entropy."""

    tags: list[int]
    log_right: float
    chances: Floats
    margin: float
    entropy: float


class Chain:
    """The transitions of a fitted field, ready to decode. Immutable."""

    def __init__(self, transitions: Reals, start: Reals, first: Bools, after: Bools) -> None:
        self._factor = np.exp(transitions.astype(np.float64)) * after
        self._start = np.exp(start.astype(np.float64)) * first

    def decode(self, emissions: Reals) -> Decoded:
        """Of one text: `emissions` (T, K). Probabilities are exact, and normalised over all allowed sequences."""
        if not len(emissions):
            return Decoded([], 0.0, np.zeros(emissions.shape), math.inf, 0.0)
        local = emissions.astype(np.float64)
        local -= local.max(axis=1, keepdims=True)
        np.exp(np.maximum(local, _LOWEST_EXACT, out=local), out=local)
        factor, steps = self._factor, len(local)
        forward = np.empty_like(local)
        here = self._start * local[0]
        forward[0] = here / here.sum()
        for step in range(1, steps):
            here = forward[step - 1] @ factor
            here *= local[step]
            here /= here.sum()
            forward[step] = here
        # `ahead` holds local * backward, each row scaled to sum to one: only its proportions matter.
        ahead = np.empty_like(local)
        ahead[-1] = local[-1]
        back = np.ones(local.shape[1])
        chances = forward
        for step in range(steps - 2, -1, -1):
            back = factor @ ahead[step + 1]
            back /= back.sum()
            ahead[step] = local[step] * back
            chances[step] *= back
        chances /= chances.sum(axis=1, keepdims=True)
        tags = chances.argmax(axis=1)
        rest = self._rest(tags, ahead)
        if float(np.log1p(rest).sum()) >= _HALF:  # where no sequence has more than half, the likeliest is sought
            tags = self._likeliest(local)
            rest = self._rest(tags, ahead)
        return Decoded(tags.tolist(), -float(np.log1p(rest).sum()), chances, *_doubt(chances))

    def _rest(self, tags: Ints, ahead: Floats) -> Floats:
        """For each step, how much likelier than its tag all others together are, given the tags before: (T,).

        Summed over the others, so that it stays exact where the tag's own chance rounds to one.
        """
        given = np.empty_like(ahead)
        given[0] = self._start
        given[1:] = self._factor[tags[:-1]]
        given *= ahead
        steps = np.arange(len(tags))
        own = given[steps, tags]
        given[steps, tags] = 0.0
        return np.asarray(given.sum(axis=1) / np.maximum(own, _TINY))

    def _likeliest(self, local: Floats) -> Ints:
        """Viterbi's path, by products scaled at each step."""
        towards = np.ascontiguousarray(self._factor.T)
        best = self._start * local[0]
        came = np.zeros(local.shape, dtype=np.int64)
        rows = np.arange(local.shape[1])
        for step in range(1, len(local)):
            ways = towards * (best / best.max())
            came[step] = ways.argmax(axis=1)
            best = ways[rows, came[step]] * local[step]
        path = np.empty(len(local), dtype=np.int64)
        path[-1] = best.argmax()
        for step in range(len(local) - 1, 0, -1):
            path[step - 1] = came[step, path[step]]
        return path


_HALF = math.log(2)


def _doubt(chances: Floats) -> tuple[float, float]:
    """The smallest log-odds of the likeliest tag to the next, and the summed entropy."""
    if chances.shape[1] < 2:
        return math.inf, 0.0
    split = np.partition(chances, -2, axis=1)
    lead = float(np.log(np.maximum(split[:, -1], _TINY) / np.maximum(split[:, -2], _TINY)).min())
    return lead, -float((chances * np.log(np.maximum(chances, _TINY))).sum())
