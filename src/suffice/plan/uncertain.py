"""From uncertain inputs to uncertain costs: draws with a fixed seed, and the band of what came out.

Each input is drawn so that its low, point and high are the 5th, 50th and 95th percentile: a normal distribution, split
at the point, on the logarithm of an amount above 0, on the logit of a share, else on the number itself. A share that
was counted (`n`) is drawn from the Beta posterior under Jeffreys' prior (Brown, Cai and DasGupta 2001), unless its band
is wider than that: then more is unsure than the count. Draws are
stratified (a Latin hypercube: McKay, Beckman and Conover 1979), each input by a stream of its own: two plans that
differ in one input differ by nothing else.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping

import numpy as np
from scipy.special import betaincinv, expit, logit, ndtri

from suffice.plan.inputs import SHARE, Bounds, Input, Inputs
from suffice.plan.scenario import Band
from suffice.plan.units import Plain

DRAWS = 2_000
LOW, HIGH = 0.05, 0.95
"""A band is what lies between these: nine times in ten."""


def draws(inputs: Inputs, seed: int, n: int = DRAWS) -> dict[str, Plain]:
    """(n,) of every input, in `inputs.UNITS`."""
    middle = (np.arange(n) + 0.5) / n
    drawn = {name: _drawn(each, _stream(seed, name).permutation(middle)) for name, each in inputs.numbers.items()}
    return drawn | _price_of_bill(inputs, drawn)


def points(inputs: Inputs) -> dict[str, Plain]:
    """The one plan in which every input is at its point, as draws: (1,) each."""
    return {name: np.array([each.band.point]) for name, each in inputs.numbers.items()}


def band(drawn: Plain, point: Plain) -> list[Band]:
    """Bands of (D, K) numbers, K of them, with the points given: a point always lies within its band."""
    if np.array_equal(drawn.min(axis=0), drawn.max(axis=0)):
        low = high = drawn[0]
    else:
        low, high = np.quantile(drawn, (LOW, HIGH), axis=0)
    low, high = np.minimum(low, point), np.maximum(high, point)
    return [Band(*each) for each in zip(low.tolist(), point.tolist(), high.tolist(), strict=True)]


def bands(drawn: Mapping[str, Plain], point: Mapping[str, Plain]) -> dict[str, list[Band]]:
    """`band` of several at once."""
    return {name: band(values, point[name]) for name, values in drawn.items()}


def counted_share(point: float, n: int) -> Band:
    """The band of a share that was counted among `n`."""
    low, high = betaincinv(*_posterior(point, n), (LOW, HIGH))
    return Band(min(float(low), point), point, max(float(high), point), n)


def _posterior(point: float, n: int) -> tuple[float, float]:
    return point * n + 0.5, (1 - point) * n + 0.5


def _price_of_bill(inputs: Inputs, drawn: dict[str, Plain]) -> dict[str, Plain]:
    """Where the bill was told, it is what is known: the price is what makes it at the volume drawn."""
    if "frontier.usd_per_month" not in drawn:
        return {}
    tokens = drawn.get("volume.tokens_per_day")
    if tokens is None:
        each = drawn["volume.input_tokens_per_request"] + drawn["volume.output_tokens_per_request"]
        tokens = drawn["volume.requests_per_day"] * each
    discount = drawn["frontier.batch_share"] * drawn["frontier.batch_discount"]
    mtok = np.maximum(tokens * inputs.days_per_month / 1e6 * (1 - discount), 1e-12)
    return {"frontier.usd_per_mtok": drawn["frontier.usd_per_month"] / mtok}


def _stream(seed: int, name: str) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode())])


def _drawn(each: Input, quantiles: Plain) -> Plain:
    low, point, high, n = each.band.low, each.band.point, each.band.high, each.band.n
    if low == high:
        return np.full(len(quantiles), point)
    if n and each.bounds == SHARE:
        counted = np.asarray(betaincinv(*_posterior(point, n), np.append(quantiles, (LOW, HIGH))))
        if counted[-2] <= low and high <= counted[-1]:  # else the band knows of more than the count: it is kept
            return counted[:-2]
    z = ndtri(quantiles) / ndtri(HIGH)
    return np.clip(_split(low, point, high, z, each.bounds), *each.bounds)


def _split(low: float, point: float, high: float, z: Plain, bounds: Bounds) -> Plain:
    if bounds == SHARE and low > 0 and high < 1:
        a, b, c = logit((low, point, high))
        return np.asarray(expit(b + np.where(z < 0, b - a, c - b) * z))
    if bounds[0] >= 0 and low > 0:
        a, b, c = np.log((low, point, high))
        return np.asarray(np.exp(b + np.where(z < 0, b - a, c - b) * z))
    return point + np.where(z < 0, point - low, high - point) * z
