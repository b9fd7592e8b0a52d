"""What live traffic shows of a release without its answering: both answers are there, in shadow, canary or revoked.

Pure. Rows to arrays, arrays to a sentence on what the next stage still needs, to a look at the tail, and after an alarm
to a new certificate. The rules are those of learning (`judging.compare`): a promise about agreement is judged by the
frontier's answers alone, all others by trusted answers where they are, beside the frontier's, and a disagreement
without one counts as a loss. A record leaves for what its request says, or because the frontier gave no whole answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import msgspec
import numpy as np

from suffice.core import grading
from suffice.core.contracts import in_slice
from suffice.core.losses import kind_of
from suffice.core.types import (
    Bools,
    Draft,
    Floats,
    LossKind,
    LossName,
    Policy,
    Promise,
    Reference,
    Rejection,
    Release,
    digest_of,
    group_of,
    unit_of,
)
from suffice.core.values import canonical, decode, plain
from suffice.proof.bounds import Ints, attempt_delta, clopper_pearson, floor, p_ge, p_le
from suffice.proof.certify import Evidence, allowed_slices, certify, grid
from suffice.proof.judge import judge
from suffice.serve.verifying import Grade, alike, by_value, watched
from suffice.serve.watch import State
from suffice.store.watches import Seen
from suffice.wire import dialects

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
TESTED = 2
"""Half as many requests as calibrate go through the gate afterwards; a quarter left sound coverage unproven in 5 of 9
recoveries (`bench/drift.py`)."""
_REFUTED = 0.01


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """By what answers are judged: fixed before any of them is looked at, and never by which labels happen to be there.

    There is no absolute promise here: live traffic has trusted answers for some requests only.
    """

    promise: Promise
    reference: Reference
    loss: LossName

    @property
    def kind(self) -> LossKind:
        """The declared kind of loss, which picks the test."""
        return kind_of(self.loss, self.promise)


def terms_of(release: Release, loss: LossName | None = None) -> Terms:
    """What live traffic can show of this release's promise; `loss` if it is to be another than the certificate's.

    Verifiers are the certificate's, to the letter, unless others are declared by now.
    """
    certificate = release.draft.threshold.certificate
    if loss is None or alike(loss, certificate.loss):
        loss = certificate.loss
    promise: Promise = "agreement" if certificate.promise == "agreement" else "signed"
    return Terms(promise=promise, reference=certificate.reference, loss=watched(loss))


@dataclass(frozen=True, eq=False, kw_only=True)
class Rows:
    """Requests as arrays of shape (n,), in their order; what `proof` asks of `Scored`, and the references."""

    scores: Floats
    acceptable: Bools
    losses: Floats
    least: Floats
    wrong: Floats
    correct: Bools
    frontier_wrong: Bools
    differs: Bools
    unlike: Floats
    units: Ints
    slices: Mapping[str, Bools]
    digest: str

    def part(self, start: int, end: int) -> Rows:
        """Some of them, as they follow each other."""
        arrays = [name for name in Rows.__dataclass_fields__ if name not in ("slices", "digest")]
        return Rows(
            **{name: getattr(self, name)[start:end] for name in arrays},
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

    @property
    def cap(self) -> int:
        """The most rows of a unit that count: what three quarters of the units do not exceed."""
        sizes = np.unique(self.units, return_counts=True)[1]
        return max(1, int(np.percentile(sizes, 75))) if sizes.size else 1

    def within(self, cap: int) -> Bools:
        """The first `cap` rows of each unit."""
        order = np.argsort(self.units, kind="stable")
        starts = np.flatnonzero(np.diff(self.units[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
        kept = np.zeros(len(order), dtype=np.bool_)
        kept[order] = rank < cap
        return kept

    def evidence(self, cap: int | None) -> Evidence:
        """For the proof; `cap` as in `Evidence`, None where every row stands alone."""
        kept = np.ones(len(self.scores), dtype=np.bool_) if cap is None else self.within(cap)
        return Evidence(
            scores=self.scores[kept],
            acceptable=self.acceptable[kept],
            losses=self.losses[kept],
            groups=None if cap is None else self.units[kept],
            slices={name: mask[kept] for name, mask in self.slices.items()},
            cap=cap or 1,
            least=self.least[kept],
        )


def rows(seen: Sequence[Seen], terms: Terms, slices: Sequence[str] = (), grade: Grade = by_value) -> Rows:
    """Both answers of each request, compared. `slices` are those with a promise of their own.

    Raises Unverified where a verifier cannot be asked.
    """
    n = len(seen)
    losses, wrong, unlike = np.zeros(n), np.zeros(n), np.zeros(n)
    correct, frontier_wrong, differs, unjudged = (np.zeros(n, dtype=np.bool_) for _ in range(4))
    said = [decode(row.predicted) for row in seen]
    binary = grading.is_binary(terms.loss)
    for i, row in enumerate(seen):
        heard = dialects.heard(row.answer)
        differs[i] = not heard or canonical(said[i]) != canonical(heard[0])
        unlike[i] = grade(terms.loss, said[i], heard[0], row.record) if heard else 1.0
        if terms.promise == "signed" and row.kind == terms.reference:
            wrong[i] = grade(terms.loss, said[i], row.trusted, row.record)
            frontiers = grade(terms.loss, heard[0], row.trusted, row.record) if heard else 1.0
            losses[i] = wrong[i] - frontiers
            correct[i] = wrong[i] == 0 if binary else canonical(said[i]) == canonical(row.trusted)
            frontier_wrong[i] = frontiers > 0 if binary else not heard or canonical(heard[0]) != canonical(row.trusted)
        else:
            wrong[i] = unlike[i]
            correct[i] = wrong[i] == 0 if binary else not differs[i]
            # Who is right is not known: the worst is that the frontier is, and that nothing of this answer is.
            losses[i] = wrong[i] if terms.promise == "agreement" else float(differs[i])
            unjudged[i] = terms.promise == "signed" and differs[i]
    return Rows(
        scores=np.array([row.score for row in seen], dtype=np.float64),
        acceptable=np.array([row.acceptable for row in seen], dtype=np.bool_),
        losses=losses,
        least=np.where(unjudged, -1.0, losses),
        wrong=wrong,
        correct=correct,
        frontier_wrong=frontier_wrong,
        differs=differs,
        unlike=unlike,
        units=np.unique(units(seen), return_inverse=True)[1] if seen else np.zeros(0, dtype=np.int64),
        slices={
            name: np.array(
                [in_slice(name, row.slices.split(","), plain(answer)) for row, answer in zip(seen, said, strict=True)],
                dtype=np.bool_,
            )
            for name in slices
        },
        digest=digest(seen),
    )


def digest(seen: Sequence[Seen]) -> str:
    """Which requests these are; says nothing of their labels."""
    return digest_of(*(row.record for row in seen))


def units(seen: Sequence[Seen]) -> list[str]:
    """The unit of dependence that each request belongs to."""
    return [unit_of(group_of(row.group, row.session), row.record) for row in seen]


# ---------------------------------------------------------------------------------------------- the next stage


def shadow_needs(seen: Rows, release: Release, policy: Policy, usual: float | None) -> list[str]:
    """What a release in shadow still needs before a canary, each in one sentence; empty if nothing.

    `seen` are its requests in shadow. `usual` is the share of requests that may be accepted and differ from the
    frontier (`watch.usual`), where the promise is about agreement their mean loss; None: unknown.
    """
    n = len(seen.scores)
    if n < SHADOWED:
        return [f"{SHADOWED} requests in shadow ({n} so far)"]
    accepted = seen.acceptable & (seen.scores >= release.draft.threshold.score)
    needs = []
    terms = terms_of(release)
    unlike = accepted * seen.unlike
    p = 1.0
    if usual is not None and usual < 1:
        p = p_ge(unlike, usual, "binary" if grading.is_binary(terms.loss) else "graded", order=np.arange(n))
    if usual is not None and p <= _REFUTED:
        needs.append(
            f"live traffic like the certificate's: of {n:,} requests in shadow {_percent(unlike.mean())} would be "
            f"answered unlike the frontier, where {_percent(usual)} is allowed (p = {p:.2g})"
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
    if state is not None and state.is_shifted:
        needs.append("traffic like before: the share of escalated requests has shifted")
    if state is not None and state.too_many_missing:
        needs.append("answers to its audits: more than 5% are missing")
    if not tail_promised:
        needs.append(f"the tail proven: {labels} labels in the band are there, looks are taken at 200, 400, 800, ...")
    return needs


def band_of(release: Release) -> tuple[float, float]:
    """From which score to which the answers just above the threshold lie, where errors gather."""
    low, high = release.draft.threshold.score, release.report.band_upper
    return low, high if high is not None else low


def in_band(seen: Rows, release: Release) -> Bools:
    """The requests in that band."""
    low, high = band_of(release)
    return seen.acceptable & (seen.scores >= low) & (seen.scores <= high)


def tail_look(labels: int, looks: int) -> int | None:
    """How many labels the next look at the tail takes; None if they are not there yet."""
    wanted = TAIL_LABELS << looks
    return wanted if labels >= wanted else None


def tail_promised(losses: Floats, units: Ints, policy: Policy, kind: LossKind, delta: float, seed: int) -> bool:
    """Whether these labels of the band promise `max_tail_error`; `units` tell which of them belong together."""
    sizes = np.unique(units, return_counts=True)[1]
    order = np.random.default_rng(seed).permutation(len(sizes))
    if len(sizes) == len(units):
        return p_le(losses, policy.tail_error, kind, order=order) <= delta
    return p_le(losses, policy.tail_error, kind, order=order, groups=units, cap=int(sizes.max())) <= delta


# ---------------------------------------------------------------------------------------------- after an alarm


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """How a new certificate is tried for, as the `k`-th of the task's ledger: by what, and on how many units."""

    k: int
    terms: Terms
    grouped: bool
    calibration: int

    @property
    def test(self) -> int:
        """How many units go through the gate."""
        return self.calibration // TESTED

    def cut(self, seen: Sequence[Seen]) -> tuple[int, int] | None:
        """Where calibration and test end among the requests since the alarm; None if they are not there yet."""
        ends: list[int] = []
        for wanted in (self.calibration, self.test):
            there: set[str] = set()
            start = ends[-1] if ends else 0
            for i, name in enumerate(units(seen[start:])):
                there.add(name)
                if len(there) == wanted:
                    ends.append(start + i + 1)
                    break
            else:
                return None
        return ends[0], ends[1]


def attempt(number: int, release: Release, policy: Policy, k: int, grouped: bool) -> Attempt:
    """The `number`-th attempt (from 0) after an alarm: its size is known before any label is.

    Whether trusted answers have come since plays no part: choosing the promise by the labels at hand would be choosing
    the easier of two tests.
    """
    terms = terms_of(release, policy.loss)
    least = floor(policy.max_error, attempt_delta(policy.delta, k), terms.kind, grouped=grouped)
    return Attempt(k=k, terms=terms, grouped=grouped, calibration=max(least, FEWEST) << number)


def certified(
    seen: Rows, plan: Attempt, release: Release, confidences: Sequence[float], policy: Policy, at: float
) -> Draft | Rejection:
    """Walk for a new threshold of the old model on the calibration rows after an alarm; the ledger has been charged.

    Thresholds are drawn from the scores that tune gave. A refusal tells no figure.
    """
    scores = np.asarray(confidences, dtype=np.float64)
    every = np.ones(len(scores), dtype=np.bool_)
    wanted = tuple(g for g in grid(scores, every) if (scores >= g).mean() >= policy.min_coverage)
    kept = allowed_slices(
        seen.slices, plan.calibration, policy, plan.k, plan.terms.kind, grouped=plan.grouped
    )  # by how many there are; no label was looked at
    closed = tuple(name for name in seen.slices if name not in kept)
    threshold = certify(
        seen.closing(closed).evidence(seen.cap if plan.grouped else None),
        policy=msgspec.structs.replace(policy, loss=plan.terms.loss),
        kind=plan.terms.kind,
        attempt=plan.k,
        grid=wanted,
        seed_digest=seen.digest,
        promise=plan.terms.promise,
        reference=plan.terms.reference,
        at=at,
    )
    if isinstance(threshold, Rejection):
        return threshold
    # Scores alone tell that: no row of the gate need be spent on it.
    if clopper_pearson(round(threshold.certificate.coverage * plan.test), plan.test)[0] < policy.min_coverage:
        least = _percent(policy.min_coverage)
        return Rejection(reasons=(f"too little coverage: the limit can be certified for fewer than {least} of them",))
    return msgspec.structs.replace(
        release.draft,
        threshold=threshold,
        dataset=digest_of(seen.digest),
        slices=kept,
        closed_slices=(*release.draft.closed_slices, *closed),
    )


def judged(
    draft: Draft,
    calibration: Rows,
    test: Rows,
    plan: Attempt,
    release: Release,
    confidences: Sequence[float],
    policy: Policy,
) -> Release | Rejection:
    """The gate, for the requests after those that certified; what it finds is shown, so it is looked at once."""
    scores = np.asarray(confidences, dtype=np.float64)
    closed = [name for name in test.slices if name not in draft.slices]
    cap = calibration.cap if plan.grouped else None
    kept = test.within(cap) if cap is not None else np.ones(len(test.scores), dtype=np.bool_)
    accepted = calibration.closing(closed).acceptable & (calibration.scores >= draft.threshold.score)
    old = release.report
    return judge(
        draft,
        test.closing(closed).evidence(cap),
        correct=test.correct[kept],
        frontier_wrong=test.frontier_wrong[kept] if plan.terms.promise == "signed" else None,
        recorded=np.ones(int(kept.sum()), dtype=np.bool_),
        differs=test.differs[kept],
        unlike=test.unlike[kept],
        wrong=test.wrong[kept],
        unseen=None,
        slices={name: mask[kept] for name, mask in test.slices.items()},
        tune=_Tune(scores=scores, acceptable=np.ones(len(scores), dtype=np.bool_)),
        # Where the worst twentieth begins: tune's losses at this threshold are not kept, calibration's serve as well.
        tune_losses=calibration.losses * accepted,
        kind=plan.terms.kind,
        policy=policy,
        attempt=plan.k,
        latency_p50_ms=old.latency_p50_ms,
        latency_p99_ms=old.latency_p99_ms,
        memory_mb=old.memory_mb,
    )


@dataclass(frozen=True, eq=False)
class _Tune:
    scores: Floats
    acceptable: Bools


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
