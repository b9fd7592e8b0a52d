"""What live traffic shows of a release without its answering: both answers are there, in shadow, canary or revoked.

Pure. Rows to arrays, arrays to a sentence on what the next stage still needs, to a look at the tail, and after an alarm
to a new certificate. The rules are those of learning: a trusted answer counts before the frontier's, a disagreement
without one counts as a loss, a record leaves only for what its request says.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from suffice.core.contracts import in_slice
from suffice.core.errors import InputError
from suffice.core.losses import kind_of, loss
from suffice.core.types import Bools, Floats, LossKind, Policy, Promise, Reference, Rejection, Release, digest_of
from suffice.core.values import Value, decode
from suffice.proof.bounds import Ints, attempt_delta, clopper_pearson, floor, p_ge, p_le
from suffice.proof.certify import Evidence, allowed_slices, certify, grid
from suffice.proof.judge import judge
from suffice.serve.watch import State
from suffice.store.watches import Seen
from suffice.wire import chat

SHADOWED = 200
"""Requests in shadow before a canary: a release that misreads live traffic shows it by then."""
CANARIED = 500
"""Requests under watch in the canary before all may be answered."""
TAIL_LABELS = 200
"""Labels in the band at the first look at the tail; each further look takes twice as many."""
FEWEST = 500
"""Requests after an alarm before the first attempt to certify again; the second takes twice as many."""
ATTEMPTS = 2
MOST = 20_000
"""Requests that any of this looks at."""
TESTED = 4
"""A quarter as many requests as calibrate go through the gate afterwards."""
_REFUTED = 0.01


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Requests as arrays of shape (n,), in their order; what `proof` asks of `Scored`, and the references."""

    scores: Floats
    acceptable: Bools
    losses: Floats
    correct: Bools
    frontier_wrong: Bools
    differs: Bools
    units: Ints
    slices: Mapping[str, Bools]
    digest: str

    def part(self, start: int, end: int) -> Rows:
        """Some of them, as they follow each other."""
        plain = [name for name in Rows.__dataclass_fields__ if name not in ("slices", "digest")]
        return Rows(
            **{name: getattr(self, name)[start:end] for name in plain},
            slices={name: mask[start:end] for name, mask in self.slices.items()},
            digest=digest_of(self.digest, str(start), str(end)),
        )

    def closing(self, names: Sequence[str]) -> Rows:
        """Without these slices: what is in one of them always escalates."""
        closed = np.zeros(len(self.scores), dtype=np.bool_)
        for name in names:
            closed |= self.slices[name]
        slices = {name: mask for name, mask in self.slices.items() if name not in names}
        return replace(self, acceptable=self.acceptable & ~closed, slices=slices)

    def evidence(self, cap: int | None) -> Evidence:
        """For the proof; `cap` as in `Evidence`, None where every row stands alone."""
        kept = np.ones(len(self.scores), dtype=np.bool_) if cap is None else _within(self.units, cap)
        return Evidence(
            scores=self.scores[kept],
            acceptable=self.acceptable[kept],
            losses=self.losses[kept],
            groups=None if cap is None else self.units[kept],
            slices={name: mask[kept] for name, mask in self.slices.items()},
            cap=cap or 1,
        )


def rows(seen: Sequence[Seen], policy: Policy, kind: LossKind, slices: Sequence[str] = ()) -> Rows:
    """Both answers of each request, compared. `kind` is the declared kind of loss; `slices` are those promised."""
    n = len(seen)
    losses, frontier = np.zeros(n), np.zeros(n)
    differs = np.zeros(n, dtype=np.bool_)
    for i, request in enumerate(seen):
        said, heard = decode(request.predicted), _heard(request.answer)
        differs[i] = not heard or loss(policy.loss, said, heard[0]) > 0
        if request.is_trusted:
            losses[i] = loss(policy.loss, said, request.trusted)
            frontier[i] = loss(policy.loss, heard[0], request.trusted) if heard else 1.0
        else:
            losses[i] = loss(policy.loss, said, heard[0]) if heard else 1.0
    units = [f"g{row.group}" if row.group else f"s{row.session}" if row.session else f"r{row.record}" for row in seen]
    return Rows(
        scores=np.array([row.score for row in seen], dtype=np.float64),
        acceptable=np.array([row.acceptable for row in seen], dtype=np.bool_),
        losses=losses - frontier if kind == "signed" else losses,
        correct=losses == 0,
        frontier_wrong=frontier > 0,
        differs=differs,
        units=np.unique(units, return_inverse=True)[1] if units else np.zeros(0, dtype=np.int64),
        slices={
            name: np.array(
                [in_slice(name, row.slices.split(","), decode(row.predicted)) for row in seen], dtype=np.bool_
            )
            for name in slices
        },
        digest=digest_of(*(row.record for row in seen)),
    )


def kind_now(release: Release, policy: Policy) -> LossKind:
    """The kind of loss that this release's promise is about."""
    return kind_of(policy.loss, release.draft.threshold.certificate.promise)


def _heard(answer: bytes) -> list[Value]:
    """The frontier's answer, in a list; an empty one where it cannot be an answer (a refusal, cut off)."""
    try:
        return [chat.answer_of(decode(answer))]
    except InputError:
        return []


def _within(units: Ints, cap: int) -> Bools:
    """The first `cap` rows of each unit."""
    order = np.argsort(units, kind="stable")
    starts = np.flatnonzero(np.diff(units[order], prepend=-1))
    rank = np.arange(len(units)) - np.repeat(starts, np.diff(np.append(starts, len(units))))
    kept = np.zeros(len(units), dtype=np.bool_)
    kept[order] = rank < cap
    return kept


# ---------------------------------------------------------------------------------------------- the next stage


def shadow_needs(seen: Rows, release: Release, policy: Policy, usual: float | None) -> list[str]:
    """What a release in shadow still needs before a canary, each in one sentence; empty if nothing.

    `usual` is the share of requests that may be accepted and differ from the frontier (`watch.usual`); None: unknown.
    """
    n = len(seen.scores)
    if n < SHADOWED:
        return [f"{SHADOWED} requests in shadow ({n} so far)"]
    accepted = seen.acceptable & (seen.scores >= release.draft.threshold.score)
    needs = []
    p = 1.0
    if usual is not None and usual < 1:
        p = p_ge((accepted & seen.differs).astype(np.float64), usual, "binary", order=np.arange(n))
    if usual is not None and p <= _REFUTED:
        share = (accepted & seen.differs).mean()
        needs.append(
            f"live traffic like the certificate's: of {n:,} requests in shadow {_percent(share)} would be answered "
            f"unlike the frontier, where {_percent(usual)} is allowed (p = {p:.2g})"
        )
    high = clopper_pearson(int(accepted.sum()), n)[1]
    if high < policy.min_coverage:
        needs.append(
            f"coverage: of {n:,} requests in shadow {_percent(accepted.mean())} would be answered, where "
            f"{_percent(policy.min_coverage)} is asked for"
        )
    return needs


def canary_needs(state: State | None, tail_promised: bool, labels: int) -> list[str]:
    """What a release in canary still needs before it goes live. `labels` in the band of the tail are there."""
    needs = []
    steps = state.steps if state is not None else 0
    if steps < CANARIED:
        needs.append(f"{CANARIED} requests under watch ({steps} so far)")
    if state is not None and state.is_boosted:
        needs.append("traffic like before: the share of escalated requests has shifted")
    if state is not None and state.too_many_missing:
        needs.append("answers to its audits: more than 5% are missing")
    if not tail_promised:
        needs.append(f"the tail proven: {labels} labels in the band are there, looks are taken at 200, 400, 800, ...")
    return needs


def in_band(seen: Rows, release: Release) -> Bools:
    """The requests just above the threshold, where errors gather."""
    low, high = release.draft.threshold.score, release.report.band_upper
    return seen.acceptable & (seen.scores >= low) & (seen.scores <= (high if high is not None else low))


def tail_look(labels: int, looks: int) -> int | None:
    """How many labels the next look at the tail takes; None if they are not there yet."""
    wanted = TAIL_LABELS << looks
    return wanted if labels >= wanted else None


def tail_promised(losses: Floats, policy: Policy, kind: LossKind, delta: float, seed: int) -> bool:
    """Whether these labels of the band promise `max_tail_error`."""
    order = np.random.default_rng(seed).permutation(len(losses))
    return p_le(losses, policy.tail_error, kind, order=order) <= delta


# ---------------------------------------------------------------------------------------------- after an alarm


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How a new certificate is tried for: on how many requests after the alarm, and how many go through the gate."""

    calibration: int
    test: int
    kind: LossKind
    promise: Promise
    reference: Reference


def attempt(number: int, release: Release, policy: Policy, k: int, any_trusted: bool, grouped: bool) -> Attempt:
    """The `number`-th attempt (from 0) after an alarm, as the k-th of the task's ledger: sizes before any look.

    Judged by trusted answers where some are there, else by the frontier's: then the new promise is about agreement.
    """
    old = release.draft.threshold.certificate
    promise: Promise = "agreement"
    if old.promise != "agreement" and any_trusted:
        promise = "signed"
    kind = kind_of(policy.loss, promise)
    least = floor(policy.max_error, attempt_delta(policy.delta, k), kind, grouped=grouped)
    size = max(least, FEWEST) << number
    reference = old.reference if promise == "signed" else "frontier"
    return Attempt(calibration=size, test=size // TESTED, kind=kind, promise=promise, reference=reference)


def recertify(
    seen: Rows, plan: Attempt, release: Release, confidences: Sequence[float], policy: Policy, k: int, at: float
) -> Release | Rejection:
    """Certify and judge the release anew on the requests after an alarm; the ledger has been charged.

    The model is the old one; the threshold is walked for anew, over the scores that tune gave.
    """
    scores = np.asarray(confidences, dtype=np.float64)
    n = len(scores)
    wanted = tuple(g for g in grid(scores, np.ones(n, dtype=np.bool_)) if (scores >= g).mean() >= policy.min_coverage)
    calibration, test = seen.part(0, plan.calibration), seen.part(plan.calibration, plan.calibration + plan.test)
    kept = allowed_slices(calibration.slices, plan.calibration, policy, k, plan.kind)
    closed = tuple(name for name in seen.slices if name not in kept)  # by how many there are; no label was looked at
    calibration, test = calibration.closing(closed), test.closing(closed)
    sizes = np.bincount(seen.units)
    cap = max(1, int(np.percentile(sizes[sizes > 0], 75))) if len(np.unique(seen.units)) < len(seen.units) else None
    threshold = certify(
        calibration.evidence(cap),
        policy=policy,
        kind=plan.kind,
        attempt=k,
        grid=wanted,
        seed_digest=seen.digest,
        promise=plan.promise,
        reference=plan.reference,
        at=at,
    )
    if isinstance(threshold, Rejection):
        return threshold
    rows_kept = np.ones(len(test.scores), dtype=np.bool_) if cap is None else _within(test.units, cap)
    draft = msgspec.structs.replace(
        release.draft,
        threshold=threshold,
        dataset=digest_of(seen.digest),
        slices=kept,
        closed_slices=(*release.draft.closed_slices, *closed),
    )
    return judge(
        draft,
        test.evidence(cap),
        correct=test.correct[rows_kept],
        frontier_wrong=test.frontier_wrong[rows_kept] if plan.promise == "signed" else None,
        recorded=np.ones(int(rows_kept.sum()), dtype=np.bool_),
        differs=test.differs[rows_kept],
        unseen=None,
        tune=_Tune(scores=scores, acceptable=np.ones(n, dtype=np.bool_)),
        kind=plan.kind,
        policy=policy,
        attempt=k,
        latency_p50_ms=release.report.latency_p50_ms,
        latency_p99_ms=release.report.latency_p99_ms,
    )


@dataclass(frozen=True, eq=False)
class _Tune:
    scores: Floats
    acceptable: Bools


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
