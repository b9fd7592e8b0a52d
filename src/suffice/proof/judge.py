"""The gate: one look at the test split, at the one threshold that was certified.

The certificate already carries the promise. Proving it a second time on test would throw half of the sound releases
away, so here the promise can only be *refuted*: by test errors that it makes all but impossible, by a tail that is
plainly bad, by too little coverage, by an answer that takes too long.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime

import msgspec
import numpy as np

from suffice.core import grading
from suffice.core.types import (
    Bools,
    Certificate,
    Draft,
    Estimate,
    Floats,
    JudgeError,
    LossKind,
    Policy,
    Rejection,
    Release,
    Report,
    SliceReport,
)
from suffice.proof import bounds
from suffice.proof.bounds import p_ge
from suffice.proof.certify import Evidence, Scored, Shuffle, seed_of
from suffice.proof.tail import Display, band_upper, cvar_of, tail_of

_REFUTED = 0.01  # a sound release is turned away by chance once in a hundred times, for each of the checks


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
    wrong: Floats | None = None,
    slices: Mapping[str, Bools] | None = None,
    tune_losses: Floats | None = None,
    memory_mb: float | None = None,
    unlike: Floats | None = None,
) -> Release | Rejection:
    """Release the draft, or reject it with every reason that holds, each in one sentence; both carry the full report.

    Masks have one entry for each test request, shape (n,): `correct`, the specialist's own answer is right by the
    reference; `frontier_wrong`, the recorded answer is not (None without trusted answers); `unseen`, the input does
    not occur in training (None: unknown); `recorded`, the frontier's answer is there, and `differs`, it is another
    than the specialist's (None where nothing is recorded), `unlike`, shape (n,), by how much, in [0, 1] (None: wholly);
    `slices`, all that the report is to show (those with a promise are also in `test`). `wrong`, shape (n,), is how
    wrong each answer is, in [0, 1], whatever the frontier's (None: the loss where graded, else 1 where not correct).
    `tune` tells where the least sure accepted answers begin, `tune_losses` what they cost, escalated ones included
    (None: CVaR is not looked at). Latencies are milliseconds for a prediction, measured under load; `memory_mb` is the
    artefact's size. Raises ValueError for a wrong shape, a loss not of `kind`, or a threshold at which no tune example
    is accepted.
    """
    n, threshold = len(test.scores), draft.threshold.score
    shown = slices or {}
    masks = {"correct": correct, "frontier_wrong": frontier_wrong, "unseen": unseen}
    masks |= {"recorded": recorded, "differs": differs, **{f"slice {name}": rows for name, rows in shown.items()}}
    for name, array in {**masks, "wrong": wrong, "unlike": unlike}.items():
        if array is not None and array.shape != (n,):
            raise ValueError(f"`{name}` has shape {array.shape}, not ({n},)")
    accepted = test.accepted(threshold)
    losses = accepted * test.losses
    # What "accepted and wrong" is depends on the loss: a graded answer is wrong by degrees, others are right or not.
    own = wrong if wrong is not None else test.losses if kind == "graded" else ~correct
    errors = (accepted * own).astype(np.float64)
    seed = seed_of(draft.dataset)
    degree: LossKind = "binary" if np.isin(errors, (0.0, 1.0)).all() and kind != "graded" else "graded"
    of = Display(test.groups, seed)
    upper = band_upper(tune, threshold)
    report = Report(
        accuracy=of.share(correct),
        coverage=of.share(accepted),
        accepted_error=of.mean(errors, degree),
        frontier_error=None if frontier_wrong is None else of.share(frontier_wrong, recorded),
        worse=of.share(losses > 0) if kind == "signed" else None,
        unseen_coverage=None if unseen is None else of.share(accepted, unseen),
        unseen_error=None if unseen is None else of.mean(errors, degree, unseen),
        latency_p50_ms=latency_p50_ms,
        latency_p99_ms=latency_p99_ms,
        disagreement=None
        if recorded is None or differs is None or not recorded.any()
        else _disagreement(of, accepted, differs.astype(np.float64) if unlike is None else unlike, recorded),
        band_upper=upper,
        # Rows are drawn whole, so the specialist's loss stays beside the frontier's: a paired bootstrap.
        net_loss=bounds.mean(losses, -1.0, seed, test.groups) if kind == "signed" else None,
        slices=_slices(shown, test, accepted, errors, degree, of),
        memory_mb=memory_mb,
    )
    shuffle = Shuffle(test, draft.dataset)
    tail, tail_p = tail_of(test, shuffle, threshold, upper, kind, policy, attempt, seed)
    cvar_p = 1.0
    if kind == "graded" and tune_losses is not None:
        cvar, cvar_p = cvar_of(test, shuffle, threshold, tune_losses, policy, attempt, seed)
        report = msgspec.structs.replace(report, cvar=cvar)

    reasons = _refuted(test, shuffle, losses if test.least is None else accepted * test.least, kind, policy)
    if tail_p <= _REFUTED:
        reasons.append(
            f"the least sure accepted answers are too often wrong: error {_percent(tail.error.value)} on "
            f"{tail.error.n:,} test requests just above the threshold, where {_percent(tail.max_tail_error)} is "
            f"allowed (p = {tail_p:.2g})"
        )
    if cvar_p <= _REFUTED and report.cvar is not None:
        reasons.append(
            f"the worst twentieth of the requests is too bad: mean loss {_percent(report.cvar.value.value)} on test, "
            f"where {_percent(policy.max_cvar)} is allowed (p = {cvar_p:.2g})"
        )
    if not report.coverage.low >= policy.min_coverage:
        reasons.append(
            f"too little coverage: {_percent(report.coverage.value)} of {n:,} test requests are answered, which shows "
            f"at least {_percent(report.coverage.low)} where {_percent(policy.min_coverage)} is asked for"
        )
    most_ms = policy.latency_ms(draft.generates)
    if not latency_p99_ms <= most_ms:  # NaN fails too
        reasons.append(
            f"too slow: one prediction in a hundred takes {latency_p99_ms:.3g} ms or longer, "
            f"where {most_ms:.3g} ms is allowed"
        )
    if policy.max_memory_mb is not None and memory_mb is not None and not memory_mb <= policy.max_memory_mb:
        reasons.append(
            f"too large: the specialist takes {memory_mb:.3g} MB, where {policy.max_memory_mb:.3g} MB is allowed"
        )
    if reasons:
        return Rejection(reasons=tuple(reasons), tail=tail, report=report)
    return Release(draft=draft, tail=tail, report=report)


def _refuted(test: Evidence, shuffle: Shuffle, losses: Floats, kind: LossKind, policy: Policy) -> list[str]:
    """What test makes all but impossible of what was promised: of the whole, and of each slice with a promise."""
    parts = [("", np.ones(len(losses), dtype=np.bool_), policy.max_error, _REFUTED)]
    # All slices together turn away a sound release no more often than the whole does.
    parts += [
        (f" of slice {name}", rows, policy.slice_error, _REFUTED / len(test.slices))
        for name, rows in test.slices.items()
        if rows.any()
    ]
    reasons = []
    for where, rows, eps, level in parts:
        groups = None if test.groups is None else test.groups[rows]
        p = p_ge(losses[rows], eps, kind, order=shuffle.order(rows), groups=groups, cap=test.cap)
        if p <= level:
            reasons.append(
                f"calibration and test disagree, by a leak or by drift: the mean loss over {rows.sum():,} test requests"
                f"{where} is {_percent(losses[rows].mean())} where the certificate allows {_percent(eps)} (p = {p:.2g})"
            )
    return reasons


def _disagreement(of: Display, accepted: Bools, unlike: Floats, recorded: Bools) -> Estimate:
    """The share of recorded requests answered otherwise than by the frontier, or by how much, where that is graded."""
    kind: LossKind = "binary" if np.isin(unlike, (0.0, 1.0)).all() else "graded"
    return of.mean(accepted * unlike, kind, recorded)


def _slices(
    shown: Mapping[str, Bools], test: Evidence, accepted: Bools, errors: Floats, degree: LossKind, of: Display
) -> tuple[SliceReport, ...]:
    """Each slice with its bounds, the worst first."""
    found = [
        SliceReport(
            name=name,
            promised=name in test.slices,
            coverage=of.share(accepted, rows),
            error=of.mean(errors, degree, rows),
        )
        for name, rows in shown.items()
    ]
    return tuple(sorted(found, key=lambda each: (-(each.error.value or 0.0), -each.error.n, each.name)))


def sentence(release: Release) -> str:
    """The certificate in one plain sentence: what is promised, over what, how surely, on how much, and what is not."""
    certificate = release.draft.threshold.certificate
    promised, uncovered = _promised(release, certificate)
    units = "groups of requests" if "groups" in certificate.method else "requests"
    judged = {"frontier": "the frontier's answers", "human": "people's answers", "rule": "a rule"}[
        certificate.reference
    ]
    tail = (
        f"at most {_percent(release.tail.max_tail_error)} of its least sure answers being wrong is shown too"
        if release.tail.promised
        else f"tail not yet proven: {release.tail.labels_missing:,} more labels in the band"
    )
    slices, kinds = "", "that every kind of request keeps to this limit"
    if release.draft.slices and certificate.max_slice_error is not None:
        names = release.draft.slices
        within = f"slice {names[0]}" if len(names) == 1 else f"each of the slices {', '.join(names)}"
        slices = f" (and at most {_percent(certificate.max_slice_error)} within {within})"
        kinds = "that any other kind of request keeps to a limit"
    return (
        f"With {_percent(certificate.confidence)} confidence, {promised}{slices}{_counted(certificate)}"
        f"{_window(certificate)}, shown on "
        f"{certificate.n:,} {units} set aside for this and judged by {judged}; it does not say {uncovered}, {kinds}, "
        f"or that it lasts when the traffic changes ({tail}{_worst(release)})."
    )


def _promised(release: Release, certificate: Certificate) -> tuple[str, str]:
    """What the certificate promises, and what it leaves open."""
    limit, requests = _percent(certificate.max_error), f"requests of task {release.draft.task}"
    graded = not grading.is_binary(certificate.loss)
    by = "" if certificate.loss == "exact" else f" by {certificate.loss}"
    measure = {"f1": "1 - F1", "rouge": "1 - ROUGE-L F1"}.get(certificate.loss, f"by {certificate.loss}")
    if certificate.promise == "signed":
        said = (
            f"on balance the mean loss ({measure}) over all {requests} is at most {limit} above what it would be if "
            "the frontier answered all"
            if graded
            else f"on balance at most {limit} more of all {requests} are answered wrong{by} than if the frontier "
            "answered all"
        )
        shown = release.report.worse
        worse = "worse than by the frontier" if graded else "wrong where the frontier was right"
        return said, "that no single answer is worse than the frontier's" + (
            f" ({_percent(shown.value)} of the test requests were answered {worse})" if shown else ""
        )
    if certificate.promise == "agreement":
        said = f"at most {limit} of all {requests} get an answer that differs from the frontier's{by}"
        open_ = "that the frontier itself is right"
    else:
        said = (
            f"at most {limit} of all {requests} get an answer from the specialist that is wrong{by}"
            if by
            else (f"at most {limit} of all {requests} get a wrong answer from the specialist")
        )
        open_ = "how good the frontier is on the requests passed on to it"
    if graded:
        right = "the frontier's answers" if certificate.promise == "agreement" else "the right answers"
        said = f"the mean loss ({measure} against {right}; 0 for requests passed on) over all {requests}"
        said += f" is at most {limit}"
    if certificate.judge is not None:
        said += f", people being the judge of it ({_judge(certificate.judge)})"
    return said, open_


def _judge(found: JudgeError) -> str:
    """What stands between the judge's word and people's."""
    passes = found.false_passes
    return (
        f"{found.judge} lets {_percent(passes.value)} of what they call wrong pass, on {passes.n:,} answers; less than "
        f"{_percent(found.bound)} is allowed for, if what it judged here is like those"
    )


def _counted(certificate: Certificate) -> str:
    """How many requests of a group count, where they come in groups: a large group may be worse than its share says."""
    found = re.search(r"at most (\d+) of a group", certificate.method)
    return f", where at most {found[1]} of the requests of one group or session count" if found else ""


def _window(certificate: Certificate) -> str:
    """From when to when the certificate speaks, where the splits are by time."""
    if certificate.window is None:
        return ""
    first, last = (datetime.fromtimestamp(at, UTC) for at in certificate.window)
    written = "%Y-%m-%d" if first.date() != last.date() else "%Y-%m-%d %H:%M:%S"
    return f", for the window from {first.strftime(written)} to {last.strftime(written)} UTC"


def _worst(release: Release) -> str:
    cvar = release.report.cvar
    if cvar is None or cvar.max_cvar is None:
        return ""
    limit = _percent(cvar.max_cvar)
    if cvar.promised:
        return f"; a mean loss of at most {limit} in the worst twentieth of the requests is shown too"
    return f"; a mean loss of at most {limit} in the worst twentieth of the requests is not yet proven"


def _percent(value: float | None) -> str:
    return "none" if value is None else f"{100 * value:.3g}%"
