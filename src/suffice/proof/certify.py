"""The certificate: the laxest threshold that calibration allows, found by one walk from strict to lax.

Thresholds are tested in an order fixed before any calibration label is read, and the walk ends at the first that
fails. Such a fixed sequence needs no correction for the number of thresholds tried: a false certificate must pass the
first bad threshold, and does so with a chance of at most δ (Learn then Test, Angelopoulos et al. 2021).

This module does not know the ledger. Its caller counts the attempt, durably, before it reads a label.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Protocol

import numpy as np

from suffice.core.types import (
    Bools,
    Certificate,
    Floats,
    LossKind,
    Policy,
    Promise,
    Reference,
    Rejection,
    Threshold,
    digest_of,
)
from suffice.proof.bounds import Ints, attempt_delta, check_losses, floor, p_le

_SLICE_MARGIN = 1.5  # a slice at its bare floor would fail the whole walk at its first error


class Scored(Protocol):
    """The scores of some requests, and which of their answers may be accepted at all."""

    @property
    def scores(self) -> Floats:
        """Shape (n,); higher is surer."""
        ...

    @property
    def acceptable(self) -> Bools:
        """Shape (n,): guard, contract and slice all say yes."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence:
    """One split as arrays of shape (n,), an entry for each request, escalated ones included.

    `acceptable`: guard, contract and slice all say yes. `losses`: the loss of the specialist's answer, were it
    accepted; an escalated request counts 0, which is seen to here. `groups`: integer codes where rows come in groups,
    already cut down to `cap` rows each. `slices`: for each slice with a promise of its own, which rows are in it.
    `least`: the smallest that each loss may turn out to be, where a disagreement counts as a loss until someone says
    who was right (None: the losses themselves); what refutes has to hold for it too.
    Raises ValueError, naming the array, for a wrong shape, NaN or a group above the cap.
    """

    scores: Floats
    acceptable: Bools
    losses: Floats
    groups: Ints | None = None
    slices: Mapping[str, Bools] = field(default_factory=dict)
    cap: int = 1
    least: Floats | None = None

    def __post_init__(self) -> None:
        n = len(self.scores)
        masks = {"acceptable": self.acceptable} | {f"slice {name}": rows for name, rows in self.slices.items()}
        arrays = {"scores": self.scores, "losses": self.losses, **masks}
        if self.least is not None:
            arrays["least"] = self.least
        for name, array in arrays.items() if self.groups is None else (*arrays.items(), ("groups", self.groups)):
            if array.shape != (n,):
                raise ValueError(f"`{name}` has shape {array.shape}, not ({n},)")
        for name, mask in masks.items():
            if mask.dtype != np.bool_:
                raise ValueError(f"`{name}` holds {mask.dtype}, not true or false")
        for name in ("scores", "losses"):
            if np.isnan(arrays[name]).any():
                raise ValueError(f"`{name}` holds NaN")
        if self.groups is not None and n and int(np.unique(self.groups, return_counts=True)[1].max()) > self.cap:
            raise ValueError(f"`groups` holds a group of more than {self.cap} rows")

    @property
    def n_units(self) -> int:
        """How many independent units there are: groups, or requests where there are none."""
        return len(self.scores) if self.groups is None else len(np.unique(self.groups))

    def accepted(self, threshold: float) -> Bools:
        """Which requests the specialist answers at this threshold; shape (n,)."""
        return np.asarray((self.scores >= threshold) & self.acceptable)


class Shuffle:
    """One random order of a split's units for the betting test, drawn from the dataset's digest and nothing else.

    The order within any subset of rows follows from it, so every threshold and slice is bet on in the same order.
    """

    def __init__(self, evidence: Evidence, digest: str) -> None:
        n, groups = len(evidence.scores), evidence.groups
        self._units: Ints = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
        self._ranks: Ints = np.random.default_rng(seed_of(digest)).permutation(evidence.n_units)

    def order(self, rows: Bools) -> Ints:
        """The permutation of the units that have a row among `rows` (mask of shape (n,)), numbered as in `bounds`."""
        return np.argsort(self._ranks[np.unique(self._units[rows])])


def seed_of(digest: str) -> int:
    """A seed for a random generator from any text, such as a dataset's digest."""
    return int(digest_of(digest)[:16], 16)


def grid(tune_scores: Floats, tune_acceptable: Bools, size: int = 200) -> tuple[float, ...]:
    """The thresholds to try, strict to lax: up to `size` quantiles of the tune scores of acceptable answers.

    Strictly decreasing, each a score that occurs; empty when nothing is acceptable. Both arrays have shape (n,).
    Raises ValueError for NaN or a `size` below 1.
    """
    if np.isnan(tune_scores).any():
        raise ValueError("`tune_scores` holds NaN")
    if size < 1:
        raise ValueError(f"a grid of {size} thresholds")
    scores = tune_scores[tune_acceptable]
    if not scores.size:
        return ()
    levels = np.unique(np.quantile(scores, np.linspace(1, 0, size), method="higher"))
    return tuple(float(level) for level in levels[::-1])


def short_of_floor(n_units: int, policy: Policy, attempt: int, kind: LossKind, *, grouped: bool = False) -> int:
    """How many more calibration units it takes before a certificate is possible at all; 0 when there are enough.

    To be asked before the ledger is charged: a refusal here has cost nothing, for no label was read.
    """
    least = floor(policy.max_error, attempt_delta(policy.delta, attempt), kind, grouped=grouped)
    return max(0, least - n_units)


def allowed_slices(
    tune_slices: Mapping[str, Bools],
    n_units: int,
    policy: Policy,
    attempt: int,
    kind: LossKind,
    *,
    grouped: bool = False,
) -> tuple[str, ...]:
    """The declared slices that calibration is expected to hold often enough for a promise of their own.

    `tune_slices` has a mask over the tune units for each slice; `n_units` is the size of calibration. A slice that is
    not returned must escalate always: its rows are not `acceptable`, and it is left out of `Evidence.slices`.
    """
    least = _SLICE_MARGIN * floor(policy.slice_error, attempt_delta(policy.delta, attempt), kind, grouped=grouped)
    return tuple(name for name, rows in tune_slices.items() if rows.size and rows.mean() * n_units >= least)


def certify(
    evidence: Evidence,
    *,
    policy: Policy,
    kind: LossKind,
    attempt: int,
    grid: tuple[float, ...],
    seed_digest: str,
    promise: Promise,
    reference: Reference,
    at: float = 0.0,
    window: tuple[float, float] | None = None,
    one_of_a_group: bool = False,
) -> Threshold | Rejection:
    """Walk `grid` (strict to lax, fixed on tune) and return the last threshold whose promise holds, or a refusal.

    A threshold holds when the mean loss over *all* requests is shown to be at most `policy.max_error`, and the mean
    within each slice at most `policy.slice_error`, each at the full δ of this `attempt`: the promise is false if one
    of its parts is, and that part alone is passed with a chance of at most δ. A slice without rows is ignored.
    `seed_digest` is the dataset's digest, `at` the time to note, in seconds since 1970, and `window` when calibration
    was asked, where the splits are by time. `one_of_a_group`: each row is all that counts of its group, which the
    certificate has to say.

    A refusal tells the verdict and no figure, so that the same calibration set may serve a later attempt. Raises
    ValueError for a loss that is not of the declared `kind` and for a grid that is not strictly decreasing.
    """
    check_losses(evidence.losses, kind)
    if any(not stricter > laxer for stricter, laxer in pairwise((*grid, -np.inf))):
        raise ValueError("the grid must be strictly decreasing")
    delta = attempt_delta(policy.delta, attempt)
    shuffle = Shuffle(evidence, seed_digest)
    parts = [(np.ones(len(evidence.scores), dtype=np.bool_), policy.max_error)]
    parts += [(rows, policy.slice_error) for rows in evidence.slices.values() if rows.any()]
    orders = [shuffle.order(rows) for rows, _ in parts]

    chosen: tuple[float, float] | None = None
    for threshold in grid:
        losses = evidence.accepted(threshold) * evidence.losses
        p = max(
            p_le(
                losses[rows],
                eps,
                kind,
                order=order,
                groups=None if evidence.groups is None else evidence.groups[rows],
                cap=evidence.cap,
            )
            for (rows, eps), order in zip(parts, orders, strict=True)
        )
        if p > delta:
            break
        chosen = threshold, p

    if chosen is None:
        return Rejection(reasons=(_refusal(evidence, policy, grid),))
    score, p_value = chosen
    certificate = Certificate(
        max_error=policy.max_error,
        confidence=policy.confidence,
        attempt=attempt,
        delta=delta,
        n=evidence.n_units,
        method=_method(kind, evidence, one_of_a_group) + (", time split" if window else ""),
        p_value=p_value,
        threshold=score,
        coverage=float(evidence.accepted(score).mean()),
        promise=promise,
        reference=reference,
        at=at,
        loss=policy.loss,
        window=window,
        max_slice_error=policy.slice_error if evidence.slices else None,
    )
    return Threshold(score=score, certificate=certificate)


def _method(kind: LossKind, evidence: Evidence, one_of_a_group: bool) -> str:
    if evidence.groups is not None:
        return f"betting mixture over groups, at most {evidence.cap} of a group, fixed sequence"
    test = "binomial" if kind == "binary" else "betting mixture"
    return test + (", at most 1 of a group" if one_of_a_group else "") + ", fixed sequence"


def _refusal(evidence: Evidence, policy: Policy, grid: tuple[float, ...]) -> str:
    if not grid:
        return "cannot certify: on tune there is not one answer that may be accepted, so there is no threshold to try"
    units = "requests" if evidence.groups is None else "groups of requests"
    within = f" (and of {100 * policy.slice_error:.3g}% within each slice)" if evidence.slices else ""
    return (
        f"cannot certify: {evidence.n_units:,} calibration {units} do not show an error of at most "
        f"{100 * policy.max_error:.3g}%{within} with {100 * policy.confidence:.3g}% confidence, even at "
        "the strictest threshold"
    )
