"""The conditional random field against every sequence written out, and its slopes against finite differences."""

from __future__ import annotations

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest

from suffice.specialists.crf import Chain, Sentences, fit_crf, packed, slopes
from suffice.specialists.pieces import follows

Floats = npt.NDArray[np.float64]


def every(
    emissions: Floats, transitions: Floats, start: Floats, first: npt.NDArray[np.bool_], after: npt.NDArray[np.bool_]
) -> tuple[list[tuple[int, ...]], Floats]:
    """All allowed sequences with their scores."""
    steps, count = emissions.shape
    found, scores = [], []
    for tags in itertools.product(range(count), repeat=steps):
        if not first[tags[0]] or not all(after[a, b] for a, b in itertools.pairwise(tags)):
            continue
        score = start[tags[0]] + sum(emissions[t, tag] for t, tag in enumerate(tags))
        found.append(tags)
        scores.append(float(score + sum(transitions[a, b] for a, b in itertools.pairwise(tags))))
    return found, np.array(scores)


def chain(seed: int, steps: int, sharp: float) -> tuple[Floats, Floats, Floats]:
    dice = np.random.default_rng(seed)
    return sharp * dice.normal(size=(steps, 5)), dice.normal(size=(5, 5)), dice.normal(size=5)


@pytest.mark.parametrize(("seed", "sharp"), [(0, 0.3), (1, 1.0), (2, 3.0), (3, 0.1), (4, 1.0)])
@pytest.mark.parametrize("steps", [1, 2, 5])
def test_decoding_is_what_enumeration_says(seed: int, sharp: float, steps: int) -> None:
    emissions, transitions, start = chain(seed, steps, sharp)
    first, after = follows(2)
    sequences, scores = every(emissions, transitions, start, first, after)
    chances = np.exp(scores - scores.max())
    chances /= chances.sum()
    best = int(chances.argmax())
    found = Chain(transitions, start, first, after).decode(emissions)
    assert tuple(found.tags) == sequences[best]
    assert found.log_right == pytest.approx(math.log(chances[best]), abs=1e-9)
    marginals = np.zeros((steps, 5))
    for tags, chance in zip(sequences, chances, strict=True):
        marginals[np.arange(steps), tags] += chance
    np.testing.assert_allclose(found.chances, marginals, atol=1e-12)
    ordered = np.sort(marginals, axis=1)
    assert found.margin == pytest.approx(np.log(ordered[:, -1] / ordered[:, -2]).min())
    assert found.entropy == pytest.approx(-(marginals[marginals > 0] * np.log(marginals[marginals > 0])).sum())


def test_sure_sequences_do_not_tie() -> None:
    first, after = follows(1)
    model = Chain(np.zeros((3, 3)), np.zeros(3), first, after)
    surer, sure = (model.decode(np.array([[0.0, lead, 0.0]] * 3)).log_right for lead in (60.0, 50.0))
    assert 0 > surer > sure > -math.exp(-40)
    assert Chain(np.zeros((3, 3)), np.zeros(3), first, after).decode(np.zeros((0, 3))).tags == []
    wild = model.decode(np.array([[1e6, -1e6, 0.0], [-1e6, 0.0, 1e6]]))
    assert np.isfinite([wild.log_right, wild.entropy, wild.margin]).all()


def test_slopes_are_those_of_finite_differences() -> None:
    dice = np.random.default_rng(0)
    lengths = np.array([3, 1, 4, 2])
    first, after = follows(2)
    batch = packed(lengths, np.array([3, 0, 2, 1]))
    assert batch.counts.tolist() == [4, 3, 2, 1]
    emissions, transitions, start = dice.normal(size=(10, 5)), dice.normal(size=(5, 5)), dice.normal(size=5)
    tags = np.array([1, 2, 0, 0, 0, 1, 2, 3, 3, 1])[batch.tokens]
    allowed = np.ones((10, 5), dtype=bool)
    allowed[batch.order[batch.owner] == 1, 3:] = False

    def loss() -> float:
        return slopes(emissions, tags, batch.counts, allowed, transitions, start, first, after).loss

    # the loss itself, by enumeration
    expected = 0.0
    for sentence in range(4):
        own = np.flatnonzero(batch.order[batch.owner] == sentence)
        masked = np.where(allowed[own], emissions[own], -1e9)
        sequences, scores = every(masked, transitions, start, first, after)
        total = float(np.log(np.exp(scores - scores.max()).sum()) + scores.max())
        expected += total - scores[sequences.index(tuple(tags[own].tolist()))]
    assert loss() == pytest.approx(expected)

    found = slopes(emissions, tags, batch.counts, allowed, transitions, start, first, after)
    for numbers, slope in (
        (emissions, found.emissions),
        (transitions, found.transitions),
        (start, found.start),
    ):
        for at in np.ndindex(numbers.shape):
            kept = numbers[at]
            numbers[at] = kept + 1e-5
            up = loss()
            numbers[at] = kept - 1e-5
            down = loss()
            numbers[at] = kept
            assert slope[at] == pytest.approx((up - down) / 2e-5, abs=1e-6)


class Own:
    """Dense features that are held in an array."""

    def __init__(self, numbers: npt.NDArray[np.float32]) -> None:
        self.numbers = numbers
        self.width = numbers.shape[1]

    def take(self, tokens: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        return self.numbers[tokens]


def test_fitting_finds_what_context_tells() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    dice = np.random.default_rng(0)
    # token 1 after token 0 begins a piece and token 2 goes on with it; alone neither says anything
    words, tags, lengths = [], [], []
    for _ in range(300):
        own: list[int] = []
        last = 0
        for _ in range(dice.integers(1, 8)):
            word = int(dice.integers(0, 4))
            before = own[-1] if own else 3
            last = 1 if word == 1 and before == 0 else 2 if word == 2 and last in (1, 2) else 0
            own.append(word)
            tags.append(last)
        words += own
        lengths.append(len(own))
    codes = np.array(words)
    begins = np.cumsum(lengths) - lengths
    previous = np.concatenate((np.array([3]), codes[:-1]))
    previous[begins] = 3
    table = np.eye(16, dtype=np.float32)[codes * 4 + previous]
    first, after = follows(1)
    one = np.ones((1, 3), dtype=bool)
    group = np.zeros(len(lengths), dtype=np.int64)
    as_sparse = Sentences(
        sparse=sparse.csr_matrix(table),
        dense=Own(np.zeros((len(codes), 1), dtype=np.float32)),
        whole=np.ones((len(lengths), 1), dtype=np.float32),
        lengths=np.array(lengths),
        tags=np.array(tags),
        group=group,
        allowed=one,
    )
    as_dense = as_sparse._replace(sparse=sparse.csr_matrix((len(codes), 1), dtype=np.float32), dense=Own(table))
    for data in (as_sparse, as_dense):
        seen: list[float] = []
        weights = fit_crf(data, first, after, epochs=20, strength=1e-5, rate=0.5, seed=3, progress=seen.append)
        again = fit_crf(data, first, after, epochs=20, strength=1e-5, rate=0.5, seed=3)
        assert all((one == two).all() for one, two in zip(weights, again, strict=True)), "same arguments, same weights"
        model = Chain(weights.transitions, weights.start, first, after)
        emissions = data.sparse @ weights.sparse + data.dense.take(np.arange(len(codes))) @ weights.dense
        emissions += weights.whole[0] + weights.bias
        found: list[int] = []
        for begin, length in zip(begins, lengths, strict=True):
            found += model.decode(emissions[begin : begin + length]).tags
        assert np.mean(np.array(found) == tags) > 0.99
        assert seen == sorted(seen)
