"""What a run tells: the one JSON document, filled as far as the run got."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from suffice.core.contracts import told as contract_told
from suffice.core.losses import kind_of
from suffice.core.types import (
    Estimate,
    JudgeError,
    OutputContract,
    Policy,
    Promise,
    Reference,
    Rejection,
    Release,
    Splits,
)
from suffice.learn import ladder, wishes
from suffice.learn.curate import Curated
from suffice.learn.judging import Answers
from suffice.learn.ladder import Found
from suffice.learn.wishes import Basis
from suffice.proof import bounds
from suffice.proof.judge import sentence
from suffice.store.releases import Stored


class Known:
    """What a run knows so far, so that whatever ends it early can be told with all that was found until then."""

    def __init__(self, task: str, policy: Policy, curated: Curated, attempt: int) -> None:
        self.task, self.policy, self.curated, self.attempt = task, policy, curated, attempt
        self.since: float | None = None
        self.labelled = 0
        self.notes: list[str] = []
        self.splits: Splits | None = None
        self.promise: Promise | None = None
        self.reference: Reference = "frontier"
        self.contract: OutputContract | None = None
        self.judge: JudgeError | None = None
        self.basis: Basis | None = None
        self.found: Found | None = None
        self.shown: dict[str, Any] = {
            "reliability": [],
            "confusion": [],
            "worst_examples": [],
            "worth_labelling": [],
        }

    @property
    def tune(self) -> Answers | None:
        """The winner's answers on tune."""
        return self.found.tune if self.found else None

    def curve(self) -> tuple[tuple[float, float], ...]:
        """Coverage against the mean loss of all requests over all thresholds, on tune: it costs nothing of the ledger.

        The loss is the declared one: what the certificate limits.
        """
        return (
            tuple((float(coverage), float(loss)) for coverage, loss in zip(*wishes.curve(self.tune), strict=True))
            if self.tune
            else ()
        )

    def document(
        self, reasons: Sequence[str], stored: Stored | None, verdict: Release | Rejection | None
    ) -> dict[str, Any]:
        """The one JSON document of a run (the design's `learn`, and more)."""
        report, tail = (verdict.report, verdict.tail) if verdict else (None, None)
        threshold = stored.release.draft.threshold if stored else None
        accuracy = bounds.share(self.tune.correct) if self.tune else None
        return {
            "task": self.task,
            "release": stored.name if stored else None,
            "digest": stored.digest if stored else None,
            "reasons": list(reasons),
            "sentence": sentence(stored.release) if stored else None,
            "promise": self.promise,
            "reference": self.reference,
            "loss": self.policy.loss,
            "kind": kind_of(self.policy.loss, self.promise) if self.promise else None,
            "judge": msgspec.to_builtins(self.judge),
            "recipe": self.found.recipe.name if self.found and self.found.recipe else None,
            "accuracy": plain_estimate(report.accuracy if report else accuracy),
            "coverage": plain_estimate(report.coverage if report else None),
            "accepted_error": plain_estimate(report.accepted_error if report else None),
            "frontier_error": plain_estimate(report.frontier_error if report else None),
            "worse": plain_estimate(report.worse if report else None),
            "net_loss": plain_estimate(report.net_loss if report else None),
            "disagreement": plain_estimate(report.disagreement if report else None),
            "unseen": {
                "coverage": plain_estimate(report.unseen_coverage if report else None),
                "error": plain_estimate(report.unseen_error if report else None),
            },
            "tail": msgspec.to_builtins(tail) if tail else None,
            "cvar": msgspec.to_builtins(report.cvar) if report else None,
            "slices": msgspec.to_builtins(report.slices) if report else [],
            "closed_slices": list(self.found.terms.closed) if self.found else [],
            "memory_mb": report.memory_mb if report else None,
            **self.shown,
            "certificate": msgspec.to_builtins(threshold.certificate) if threshold else None,
            "candidates": [_candidate(candidate) for candidate in (self.found.candidates if self.found else ())],
            "contract": contract_told(self.contract) if self.contract else None,
            "reads": self.curated.prompt.told() if self.curated.prompt else "the input (live: the last user message)",
            "splits": {name: len(getattr(self.splits, name)) for name in Splits.__struct_fields__}
            if self.splits
            else None,
            "calibration": msgspec.to_builtins(self.basis) if self.basis else None,
            "tune_curve": wishes.tune_curve(self.tune) if self.tune else [],
            "examples": len(self.curated.examples),
            "labelled": self.labelled,
            "since": self.since,
            "dropped": {reason: len(ids) for reason, ids in self.curated.dropped.items()},
            "notes": self.notes,
            "attempt": self.attempt,
            "dataset": stored.release.draft.dataset if stored else None,
        }


def plain_estimate(estimate: Estimate | None) -> dict[str, Any] | None:
    """An estimate as it stands in documents."""
    return msgspec.to_builtins(estimate) if estimate is not None else None


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.3g}%"


def day(at: float) -> str:
    """A time as people read it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _candidate(candidate: ladder.Candidate) -> dict[str, Any]:
    return {
        "recipe": candidate.recipe.name,
        "accuracy": plain_estimate(candidate.accuracy),
        "coverage": plain_estimate(candidate.coverage),
        "fit_s": round(candidate.fit_s, 3),
        "latency_ms": {"p50": round(candidate.p50_ms, 4), "p99": round(candidate.p99_ms, 4)},
        "size_mb": None if candidate.size_mb is None else round(candidate.size_mb, 4),
        "usd_per_1k": candidate.usd_per_1k,
        "verdict": candidate.verdict,
        "reason": candidate.reason,
    }
