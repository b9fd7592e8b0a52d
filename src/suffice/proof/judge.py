"""The gate: one look at the test split, at the one threshold that was certified.

The certificate already carries the promise. Proving it a second time on test would throw half of the sound releases
away, so here the promise can only be *refuted*: by test errors that it makes all but impossible, by a tail that is
plainly bad, by too little coverage, by an answer that takes too long.
"""

from __future__ import annotations

import math

import numpy as np

from suffice.core.types import Bools, Draft, Estimate, Floats, LossKind, Policy, Rejection, Release, Report, Tail
from suffice.proof.bounds import LOWEST, attempt_delta, mean, needed, p_ge, p_le, share
from suffice.proof.certify import Evidence, Scored, Shuffle, seed_of

_REFUTED = 0.01  # a sound release is turned away by chance once in a hundred times, for each of the two checks
_BAND = 0.05  # the least sure twentieth of what is accepted
_PLAN = 200  # labels to plan for in the band when nothing is known of its error


def judge(
    draft: Draft,
    test: Evidence,
    *,
    correct: Bools,
    frontier_wrong: Bools | None,
    unseen: Bools | None,
    tune: Scored,
    kind: LossKind,
    policy: Policy,
    attempt: int,
    latency_p50_ms: float,
    latency_p99_ms: float,
    recorded: Bools | None = None,
    differs: Bools | None = None,
) -> Release | Rejection:
    """Release the draft, or reject it with every reason that holds, each in one sentence; both carry the full report.

    Masks have one entry for each test request, shape (n,): `correct`, the specialist's own answer is right by the
    reference; `frontier_wrong`, the recorded answer is not (None without trusted answers); `unseen`, the input does
    not occur in training (None: unknown); `recorded`, the frontier's answer is there, and `differs`, it is another
    than the specialist's (None where nothing is recorded). `tune` tells where the least sure accepted answers begin.
    Latencies are milliseconds for a prediction, measured under load. Raises ValueError for a wrong shape, a loss not
    of `kind`, or a threshold at which no tune example is accepted.
    """
    n, threshold = len(test.scores), draft.threshold.score
    masks = {"correct": correct, "frontier_wrong": frontier_wrong, "unseen": unseen}
    for name, mask in (masks | {"recorded": recorded, "differs": differs}).items():
        if mask is not None and mask.shape != (n,):
            raise ValueError(f"`{name}` has shape {mask.shape}, not ({n},)")
    accepted = test.accepted(threshold)
    losses = accepted * test.losses
    # What "accepted and wrong" is depends on the promise: a graded answer is wrong by degrees, others are right or not.
    wrong = losses if kind == "graded" else (accepted & ~correct).astype(np.float64)
    seed = seed_of(draft.dataset)

    report = Report(
        accuracy=share(correct),
        coverage=share(accepted),
        accepted_error=_error(wrong, kind, seed),
        frontier_error=None if frontier_wrong is None else share(frontier_wrong),
        worse=share(losses > 0) if kind == "signed" else None,
        unseen_coverage=None if unseen is None else share(accepted[unseen]),
        unseen_error=None if unseen is None else _error(wrong[unseen], kind, seed),
        latency_p50_ms=latency_p50_ms,
        latency_p99_ms=latency_p99_ms,
        disagreement=None
        if recorded is None or differs is None or not recorded.any()
        else share((accepted & differs)[recorded]),
        band_upper=band_upper(tune, threshold),
    )
    shuffle = Shuffle(test, draft.dataset)
    tail, tail_p = _tail(test, shuffle, threshold, tune, kind, policy, attempt, seed)

    reasons = []
    p = p_ge(
        losses,
        policy.max_error,
        kind,
        order=shuffle.order(np.ones(n, dtype=np.bool_)),
        groups=test.groups,
        cap=test.cap,
    )
    if p <= _REFUTED:
        reasons.append(
            f"calibration and test disagree, by a leak or by drift: the mean loss over {n:,} test requests is "
            f"{_percent(losses.mean())} where the certificate allows {_percent(policy.max_error)} (p = {p:.2g})"
        )
    if tail_p <= _REFUTED:
        reasons.append(
            f"the least sure accepted answers are too often wrong: error {_percent(tail.error.value)} on "
            f"{tail.error.n:,} test requests just above the threshold, where {_percent(tail.max_tail_error)} is "
            f"allowed (p = {tail_p:.2g})"
        )
    if not report.coverage.low >= policy.min_coverage:
        reasons.append(
            f"too little coverage: {_percent(report.coverage.value)} of {n:,} test requests are answered, which shows "
            f"at least {_percent(report.coverage.low)} where {_percent(policy.min_coverage)} is asked for"
        )
    if not latency_p99_ms <= policy.max_latency_ms:  # NaN fails too
        reasons.append(
            f"too slow: one prediction in a hundred takes {latency_p99_ms:.3g} ms or longer, "
            f"where {policy.max_latency_ms:.3g} ms is allowed"
        )
    if reasons:
        return Rejection(reasons=tuple(reasons), tail=tail, report=report)
    return Release(draft=draft, tail=tail, report=report)


def sentence(release: Release) -> str:
    """The certificate in one plain sentence: what is promised, over what, how surely, on how much, and what is not."""
    certificate = release.draft.threshold.certificate
    error = _percent(certificate.max_error)
    requests = f"requests of task {release.draft.task}"
    promised, uncovered = {
        "agreement": (
            f"at most {error} of all {requests} get an answer that differs from the frontier's",
            "that the frontier itself is right",
        ),
        "absolute": (
            f"at most {error} of all {requests} get a wrong answer from the specialist",
            "how good the frontier is on the requests passed on to it",
        ),
        "signed": (
            f"on balance at most {error} more of all {requests} are answered wrong than if the frontier answered all",
            "that no single answer is worse than the frontier's"
            + (
                f" ({_percent(release.report.worse.value)} of the test requests were answered wrong where the frontier "
                "was right)"
                if release.report.worse
                else ""
            ),
        ),
    }[certificate.promise]
    units = "groups of requests" if "groups" in certificate.method else "requests"
    judged = {"frontier": "the frontier's answers", "human": "people's answers", "rule": "a rule"}[
        certificate.reference
    ]
    tail = (
        f"at most {_percent(release.tail.max_tail_error)} of its least sure answers being wrong is shown too"
        if release.tail.promised
        else f"tail not yet proven: {release.tail.labels_missing:,} more labels in the band"
    )
    return (
        f"With {_percent(certificate.confidence)} confidence, {promised}, shown on {certificate.n:,} {units} set aside "
        f"for this and judged by {judged}; it does not say {uncovered}, that every kind of request keeps to this "
        f"limit, or that it lasts when the traffic changes ({tail})."
    )


def _tail(
    test: Evidence,
    shuffle: Shuffle,
    threshold: float,
    tune: Scored,
    kind: LossKind,
    policy: Policy,
    attempt: int,
    seed: int,
) -> tuple[Tail, float]:
    """What is known of the band just above the threshold, and the p-value by which it is refuted."""
    upper = band_upper(tune, threshold)
    band = test.accepted(threshold) & (test.scores <= upper)
    losses, limit = test.losses[band], policy.tail_error
    groups = None if test.groups is None else test.groups[band]
    order = shuffle.order(band)
    delta = attempt_delta(policy.delta, attempt)
    promised = p_le(losses, limit, kind, order=order, groups=groups, cap=test.cap) <= delta
    error = _error(losses, kind, seed)
    missing = 0 if promised else _labels_missing(error, limit, attempt_delta(policy.delta, attempt + 1), kind)
    refuted = p_ge(losses, limit, kind, order=order, groups=groups, cap=test.cap)
    return Tail(promised=promised, max_tail_error=limit, error=error, labels_missing=missing), refuted


def band_upper(tune: Scored, threshold: float) -> float:
    """The last score of the band: the least sure 5% of what tune accepts, and all that tie with them.

    Raises ValueError where tune accepts nothing at this threshold.
    """
    accepted = np.sort(tune.scores[(tune.scores >= threshold) & tune.acceptable])
    if not accepted.size:
        raise ValueError(f"no tune example is accepted at the threshold {threshold}")
    return float(accepted[math.ceil(_BAND * accepted.size) - 1])


def _labels_missing(error: Estimate, limit: float, delta: float, kind: LossKind) -> int:
    """How many fresh labels in the band would promise the tail, if its error is about what test showed."""
    # Half an error is added to the count: a band of fifteen rows without one is not a band without error.
    rate = ((error.value or 0.0) * error.n + 0.5) / (error.n + 1)
    return needed(limit, delta, kind, rate) if rate < limit else _PLAN


def _error(losses: Floats, kind: LossKind, seed: int) -> Estimate:
    if set(np.unique(losses)) <= {0.0, 1.0} and kind != "graded":
        return share(losses == 1)
    return mean(losses, LOWEST[kind], seed)


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.3g}%"
