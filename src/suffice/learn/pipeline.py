"""The learning path, from top to bottom: what happens between a task's records and a release.

    records -> examples -> four splits -> contract -> candidates, judged on tune -> the ledger is charged
    -> one certificate on calibration -> the gate, on test -> a release, or a rejection with reasons

Everything before `charge` is free and may be repeated at will; after it, labels that nothing was chosen on are read,
once. Not known here: how files are parsed, which model families exist, who serves the result.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from suffice import __version__
from suffice.core.contracts import told as contract_told
from suffice.core.errors import InputError
from suffice.core.protocols import Family, Fitted, Progress
from suffice.core.types import (
    CalibrationSet,
    Draft,
    Estimate,
    Example,
    LossKind,
    OutputContract,
    Policy,
    Promise,
    Reference,
    Rejection,
    Release,
    Splits,
    TestSet,
    Threshold,
    TuneSet,
    digest_of,
)
from suffice.core.values import canonical, plain
from suffice.learn import contracts, curate, ladder
from suffice.learn.curate import Curated
from suffice.learn.ladder import Answers, Found
from suffice.proof import bounds
from suffice.proof.certify import Evidence, certify, grid, short_of_floor
from suffice.proof.judge import judge, sentence
from suffice.store import records, releases
from suffice.store.home import Home
from suffice.store.releases import Serving, Stored

CONFIDENCES = 2_000
"""Scores of tune that a release keeps: enough to plan audits by and to draw the grid of a later certificate from."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked for beside its data."""

    policy: Policy
    seed: int = 0
    budget_s: float = 900.0


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run ended with. `document` is what `--json` prints; `stored` is None after a rejection.

    `curve` and `report` are for the page that people read; a run that was done before has neither.
    """

    document: dict[str, Any]
    stored: Stored | None
    curve: tuple[tuple[float, float], ...] = ()
    known: bool = False


class _Stop(Exception):
    """The run ends here with these reasons: an ordinary outcome on the way, not an error."""

    def __init__(self, *reasons: str) -> None:
        super().__init__(*reasons)
        self.reasons = reasons


def learn(
    home: Home,
    task: str,
    families: Sequence[Family],
    settings: Settings,
    *,
    clock: Callable[[], float],
    progress: Progress,
) -> Outcome:
    """Learn one task from its records, and store the release or the rejection.

    Raises InputError when there is nothing to learn from or references are mixed. Interrupted at any point, it leaves
    releases and stages as they were; only the ledger may have been charged.
    """
    progress("reading records", 0.0)
    curated = curate.examples(records.query(home, task=task))
    if not curated.examples:
        raise InputError(f"task {task!r} has no records to learn from" + _dropped(curated))
    key = _key(task, curated, families, settings)
    if (before := releases.last_run(home, task, key)) is not None:
        return _again(home, task, before[1])
    run = _Run(home, task, settings, clock, curated)
    try:
        outcome = run.through(families, progress)
    except _Stop as stop:
        outcome = run.rejected(stop.reasons)
    releases.add_run(home, task, key, 0 if outcome.stored else 1, outcome.document)
    return outcome


class _Run:
    """One run's state, so far as the document tells it when the run ends early."""

    def __init__(self, home: Home, task: str, settings: Settings, clock: Callable[[], float], curated: Curated) -> None:
        self.home, self.task, self.settings, self.clock, self.curated = home, task, settings, clock, curated
        self.policy = settings.policy
        self.attempt = releases.attempts(home, task) + 1
        self.delta = bounds.attempt_delta(self.policy.delta, self.attempt)
        self.notes: list[str] = []
        self.splits: Splits | None = None
        self.promise: Promise | None = None
        self.reference: Reference = "frontier"
        self.contract: OutputContract | None = None
        self.found: Found | None = None

    def through(self, families: Sequence[Family], progress: Progress) -> Outcome:
        """The steps."""
        assigned = self.assign()
        self.splits, groups = self.divide(assigned)
        self.promise, self.reference = _promise(self.curated.examples, self.splits)
        kind: LossKind = "signed" if self.promise == "signed" else "binary"
        self.check_floor(kind, groups)

        learnable = [*self.splits.train, *self.splits.tune]
        self.contract = contract = self.infer(learnable)
        style = curate.style_of(learnable, self.curated)
        self.found = found = self.search(families, contract, kind, progress)
        if found.specialist is None or found.tune is None or found.recipe is None:
            raise _Stop(*dict.fromkeys(candidate.reason for candidate in found.candidates if candidate.reason))
        thresholds = self.thresholds(found.tune)

        progress("certifying", 0.0)
        dataset = self.splits.digest()
        releases.charge(self.home, self.task, self.attempt, self.delta, self.splits.calibration.digest())
        calibration = ladder.answers(found.specialist, contract, self.splits.calibration, kind)
        threshold = certify(
            _evidence(calibration, self.splits.calibration, groups),
            policy=self.policy,
            kind=kind,
            attempt=self.attempt,
            grid=thresholds,
            seed_digest=dataset,
            promise=self.promise,
            reference=self.reference,
            at=self.clock(),
        )
        if isinstance(threshold, Rejection):
            raise _Stop(*threshold.reasons, self.missing(found.tune, kind, groups))
        self.check_coverage(threshold, found.tune, kind, groups)

        progress("at the gate", 0.5)
        read = [name for name, place in assigned.items() if place == "test"]  # a group's rows beyond the cap too
        releases.put_splits(self.home, self.task, dict.fromkeys(read, "train"))
        artefact = _save(self.home, found.specialist)
        draft = Draft(
            task=self.task,
            recipe=found.recipe,
            contract=contract,
            dataset=dataset,
            artefact=artefact,
            threshold=threshold,
        )
        chosen = next(candidate for candidate in found.candidates if candidate.verdict == "chosen")
        test = ladder.answers(found.specialist, contract, self.splits.test, kind)
        trained = {example.input for example in self.splits.train}
        verdict = judge(
            draft,
            _evidence(test, self.splits.test, groups),
            correct=test.correct,
            frontier_wrong=test.frontier_wrong
            if any(e.has_reference and e.has_output for e in self.splits.test)
            else None,
            unseen=np.array([example.input not in trained for example in self.splits.test], dtype=np.bool_),
            tune=found.tune,
            kind=kind,
            policy=self.policy,
            attempt=self.attempt,
            latency_p50_ms=chosen.p50_ms,
            latency_p99_ms=chosen.p99_ms,
            recorded=test.recorded,
            differs=test.differs,
        )
        progress("at the gate", 1.0)
        if isinstance(verdict, Rejection):
            return self.rejected(verdict.reasons, verdict)
        serving = Serving(prompt=self.curated.prompt, style=style, confidences=_confidences(found.tune))
        digest = _digest(verdict, serving)
        stored = releases.add_release(self.home, self.task, verdict, serving, digest)
        return self.released(stored, found.tune)

    # -- before anything is read

    def assign(self) -> dict[str, str]:
        """Every example's split; what earlier runs assigned stays. Stops when there are too few."""
        found = self.curated.examples
        sampled = [example for example in found if example.sampled]
        if len(sampled) < len(found):
            self.notes.append(
                f"{len(found) - len(sampled):,} rows have an answer because the live specialist was unsure of them: "
                "they train, but say nothing of the traffic as a whole"
            )
        units = self.units(sampled)
        kind: LossKind = "signed" if _kinds(found) and not _undisputed(found) else "binary"
        floor = bounds.floor(self.policy.max_error, self.delta, kind, grouped=units < len(sampled))
        sizes = curate.sizes(units, floor)
        if isinstance(sizes, int):
            raise _Stop(
                f"cannot certify: at least {sizes:,} more examples at max_error = {_percent(self.policy.max_error)} "
                f"({units:,} are there; calibration alone needs {floor:,}, and half must be left to learn from)"
            )
        assigned = curate.split(found, releases.get_splits(self.home, self.task), sizes, self.settings.seed)
        for place in ("test", "calibration", "tune", "train"):
            there = self.units([example for example in found if assigned[example.id] == place])
            least = {"test": min(sizes.test, floor), "calibration": floor}.get(place, 1)
            if there < least:
                raise _Stop(
                    f"{least - there:,} new rows needed: the {place} rows of earlier runs have been read and now train"
                    if place == "test"
                    else f"{least - there:,} new rows needed for {place}"
                )
        releases.put_splits(self.home, self.task, assigned)
        return assigned

    def divide(self, assigned: dict[str, str]) -> tuple[Splits, int | None]:
        """The typed splits, and the cap on rows of a group in calibration and test (None: every row stands alone)."""
        found = self.curated.examples
        in_tune = [example for example in found if assigned[example.id] == "tune"]
        per_unit = np.unique([curate.unit(example) for example in in_tune], return_counts=True)[1]
        grouped = self.units(found) < len(found)
        cap = max(1, int(np.percentile(per_unit, 75))) if grouped else None
        splits, contradicting = curate.splits(found, assigned, cap)
        if contradicting:
            self.notes.append(
                f"{contradicting:,} training rows have an input with contradicting answers; majorities train"
            )
        return splits, cap if cap != 1 else None

    def check_floor(self, kind: LossKind, groups: int | None) -> None:
        """Stop, at no cost, when calibration could not certify even without an error."""
        assert self.splits is not None
        units = self.units(self.splits.calibration)
        short = short_of_floor(units, self.policy, self.attempt, kind, grouped=groups is not None)
        if short:
            more = round(short * max(2.0, len(self.curated.examples) / max(units, 1)))
            raise _Stop(
                f"cannot certify: at least {more:,} more examples at max_error = {_percent(self.policy.max_error)}"
            )

    @staticmethod
    def units(examples: Sequence[Example]) -> int:
        """How many independent units the examples come from."""
        return len({curate.unit(example) for example in examples})

    def infer(self, learnable: Sequence[Example]) -> OutputContract:
        """The contract of train and tune. Stops when there is only one answer."""
        values = [plain(example.target) for example in learnable]
        distinct = {canonical(value) for value in values}
        if len(distinct) < 2:
            raise _Stop(
                f"all {len(values):,} examples have the same answer"
                + (f" ({distinct.pop()[:60]})" if distinct else "")
                + ": there is nothing to learn"
            )
        return contracts.infer([example.input for example in learnable], values)

    def search(self, families: Sequence[Family], contract: OutputContract, kind: LossKind, progress: Progress) -> Found:
        """Fit on train, choose on tune."""
        assert self.splits is not None
        if not any(ladder.keeps(contract, e) for e in self.splits.train) or not any(
            ladder.keeps(contract, e) for e in self.splits.tune
        ):
            raise _Stop(f"no example keeps one contract ({contract_told(contract)}): there is nothing to learn")
        return ladder.search(
            families,
            contract,
            self.splits.train,
            self.splits.tune,
            policy=self.policy,
            kind=kind,
            delta=self.delta,
            n_units=self.units(self.splits.calibration),
            seed=self.settings.seed,
            budget_s=self.settings.budget_s,
            progress=progress,
        )

    def thresholds(self, tune: Answers) -> tuple[float, ...]:
        """The grid, from tune: only thresholds that would give the wished coverage are worth a certificate."""
        n = len(tune.scores)
        wanted = tuple(
            g
            for g in grid(tune.scores, tune.acceptable)
            if (tune.acceptable & (tune.scores >= g)).sum() >= self.policy.min_coverage * n
        )
        if not wanted:
            share = _percent(tune.acceptable.mean() if n else 0.0)
            raise _Stop(
                f"too little coverage: only {share} of the tune examples get an answer within the contract and unlike "
                f"nothing seen, where {_percent(self.policy.min_coverage)} is asked for"
            )
        return wanted

    def missing(self, tune: Answers, kind: LossKind, groups: int | None) -> str:
        """How many more examples it would take, estimated from tune at the lowest coverage asked for."""
        assert self.splits is not None
        share = max(1, int(np.ceil(self.policy.min_coverage * len(tune.scores))))
        surest = np.argsort(-np.where(tune.acceptable, tune.scores, -np.inf))[:share]
        rate = max(0.0, float(tune.losses[surest].sum()) / len(tune.scores))
        if rate >= self.policy.max_error:
            return (
                f"on tune this specialist errs on {_percent(rate)} of all requests even at the coverage of "
                f"{_percent(self.policy.min_coverage)} asked for: more labels alone will not help; a larger model "
                "family, cleaner answers or a larger max_error may"
            )
        delta = bounds.attempt_delta(self.policy.delta, self.attempt + 1)
        fullness = (
            1.0 if groups is None else len(self.splits.calibration) / (groups * self.units(self.splits.calibration))
        )
        needed = bounds.needed(self.policy.max_error, delta, kind, rate, grouped=groups is not None)
        there = self.units(self.splits.calibration)
        per_unit = min(max(2.0, len(self.curated.examples) / max(1, there)), 1 / curate.CALIBRATION)
        more = round((needed / fullness - there) * per_unit)
        if more < 1:
            tenth = round(0.1 * len(self.curated.examples))
            return f"estimated from tune, only just too few examples are at hand: {tenth:,} more examples may settle it"
        return (
            f"estimated from tune, about {more:,} more examples are needed for a coverage of "
            f"{_percent(self.policy.min_coverage)}"
        )

    def check_coverage(self, threshold: Threshold, tune: Answers, kind: LossKind, groups: int | None) -> None:
        """Stop before the test rows are spent, if the gate would find too little coverage: scores alone tell that."""
        assert self.splits is not None
        share, n = threshold.certificate.coverage, len(self.splits.test)
        if bounds.clopper_pearson(round(share * n), n)[0] < self.policy.min_coverage:
            raise _Stop(
                f"too little coverage: max_error = {_percent(self.policy.max_error)} can be certified for "
                f"{_percent(share)} of the requests only, where {n:,} test requests are to show at least "
                f"{_percent(self.policy.min_coverage)}",
                self.missing(tune, kind, groups),
            )

    # -- what is told

    def rejected(self, reasons: Sequence[str], verdict: Rejection | None = None) -> Outcome:
        """A rejection's document."""
        said = tuple(reason for reason in reasons if reason) or ("nothing could be fitted",)
        return Outcome(document=self.document(said, None, verdict), stored=None, curve=self.curve())

    def released(self, stored: Stored, tune: Answers) -> Outcome:
        """A release's document."""
        return Outcome(document=self.document((), stored, stored.release), stored=stored, curve=self.curve())

    def curve(self) -> tuple[tuple[float, float], ...]:
        """Coverage against accepted error over all thresholds, on tune: it costs nothing of the ledger."""
        tune = self.found.tune if self.found else None
        if tune is None:
            return ()
        n = len(tune.scores)
        order = np.argsort(-np.where(tune.acceptable, tune.scores, -np.inf), kind="stable")[
            : int(tune.acceptable.sum())
        ]
        wrong = np.cumsum(~tune.correct[order]) / n
        return tuple((float((i + 1) / n), float(w)) for i, w in enumerate(wrong))

    def document(
        self, reasons: Sequence[str], stored: Stored | None, verdict: Release | Rejection | None
    ) -> dict[str, Any]:
        """The one JSON document of a run (the design's `learn`, and more)."""
        report, tail = (verdict.report, verdict.tail) if verdict else (None, None)
        accuracy = bounds.share(self.found.tune.correct) if self.found and self.found.tune else None
        threshold = stored.release.draft.threshold if stored else None
        return {
            "task": self.task,
            "release": stored.name if stored else None,
            "digest": stored.digest if stored else None,
            "reasons": list(reasons),
            "sentence": sentence(stored.release) if stored else None,
            "promise": self.promise,
            "reference": self.reference,
            "recipe": self.found.recipe.name if self.found and self.found.recipe else None,
            "accuracy": _plain(report.accuracy if report else accuracy),
            "coverage": _plain(report.coverage if report else None),
            "accepted_error": _plain(report.accepted_error if report else None),
            "frontier_error": _plain(report.frontier_error if report else None),
            "worse": _plain(report.worse if report else None),
            "unseen": {
                "coverage": _plain(report.unseen_coverage if report else None),
                "error": _plain(report.unseen_error if report else None),
            },
            "tail": msgspec.to_builtins(tail) if tail else None,
            "certificate": msgspec.to_builtins(threshold.certificate) if threshold else None,
            "candidates": [_candidate(candidate) for candidate in (self.found.candidates if self.found else ())],
            "contract": contract_told(self.contract) if self.contract else None,
            "reads": self.curated.prompt.told() if self.curated.prompt else "the input (live: the last user message)",
            "splits": {name: len(getattr(self.splits, name)) for name in Splits.__struct_fields__}
            if self.splits
            else None,
            "examples": len(self.curated.examples),
            "dropped": {reason: len(ids) for reason, ids in self.curated.dropped.items()},
            "notes": self.notes,
            "attempt": self.attempt,
            "dataset": stored.release.draft.dataset if stored else None,
        }


# ---------------------------------------------------------------------------------------------- small steps


def _promise(found: Sequence[Example], splits: Splits) -> tuple[Promise, Reference]:
    """What can be promised, by the references at hand (told apart on train and tune), and the reference's name."""
    kinds = _kinds(found)
    if not kinds:
        return "agreement", "frontier"
    in_proof = {e.reference_kind for part in (splits.calibration, splits.test) for e in part if e.has_reference}
    if len(in_proof) > 1:
        raise InputError("trusted answers of kind human and rule are mixed: import one kind, or make them one")
    kind: Reference = in_proof.pop() if in_proof else next(iter(kinds))
    learned = [*splits.train, *splits.tune]
    return ("absolute" if _undisputed(found, learned) else "signed"), kind


def _kinds(found: Sequence[Example]) -> set[Reference]:
    return {example.reference_kind for example in found if example.has_reference}


def _undisputed(found: Sequence[Example], compared: Sequence[Example] | None = None) -> bool:
    """Every example has a trusted answer, and among `compared` (all) the frontier's recorded one is never another."""
    return all(example.has_reference for example in found) and not any(
        example.has_output and canonical(example.output) != canonical(example.reference)
        for example in (found if compared is None else compared)
    )


def _evidence(seen: Answers, rows: CalibrationSet | TestSet | TuneSet, cap: int | None) -> Evidence:
    groups = np.unique([curate.unit(example) for example in rows], return_inverse=True)[1] if cap is not None else None
    return Evidence(scores=seen.scores, acceptable=seen.acceptable, losses=seen.losses, groups=groups, cap=cap or 1)


def _confidences(tune: Answers) -> tuple[float, ...]:
    """Tune's scores of acceptable answers, ascending; of many, every so-manyth."""
    scores = np.sort(tune.scores[tune.acceptable])
    kept = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), CONFIDENCES)).round().astype(np.int64))
    return tuple(float(score) for score in scores[kept])


def _save(home: Home, specialist: Fitted) -> str:
    """Write the artefact under its content digest, whole or not at all; the digest."""
    with tempfile.TemporaryDirectory(dir=home.folder / "releases") as temporary:
        made = Path(temporary) / "artefact"
        made.mkdir()
        specialist.save(made)
        digest = artefact_digest(made)
        target = releases.artefact_folder(home, digest)
        if not target.exists():
            shutil.move(made, target)
    return digest


def artefact_digest(folder: Path) -> str:
    """Content digest of an artefact's files, names included."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return digest_of(*(part for path in files for part in (path.name, hashlib.sha256(path.read_bytes()).digest())))


def _digest(release: Release, serving: Serving) -> str:
    """A release's identity: what it answers and why it may; not when it was made or how fast this machine was."""
    draft = msgspec.to_builtins(release.draft)
    del draft["threshold"]["certificate"]["at"]
    return digest_of(msgspec.json.encode(draft, order="deterministic"), msgspec.json.encode(serving))


def _key(task: str, curated: Curated, families: Sequence[Family], settings: Settings) -> str:
    """The same data and settings: nothing new would be learned, and no look at calibration need be paid."""
    digests = sorted(example.digest() for example in curated.examples)
    asked = msgspec.json.encode((settings, [family.name for family in families], __version__))
    return digest_of(task, asked, curated.prompt.digest() if curated.prompt else "", *digests)


def _again(home: Home, task: str, document: dict[str, Any]) -> Outcome:
    name = document.get("release")
    stored = releases.get_release(home, task, int(name.rpartition("@")[2])) if name else None
    return Outcome(document=document, stored=stored, known=True)


def _candidate(candidate: ladder.Candidate) -> dict[str, Any]:
    return {
        "recipe": candidate.recipe.name,
        "accuracy": _plain(candidate.accuracy),
        "coverage": _plain(candidate.coverage),
        "fit_s": round(candidate.fit_s, 3),
        "latency_ms": {"p50": round(candidate.p50_ms, 4), "p99": round(candidate.p99_ms, 4)},
        "verdict": candidate.verdict,
        "reason": candidate.reason,
    }


def _plain(estimate: Estimate | None) -> dict[str, Any] | None:
    return msgspec.to_builtins(estimate) if estimate is not None else None


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _dropped(curated: Curated) -> str:
    return "".join(f"; {len(ids):,} left out: {reason}" for reason, ids in curated.dropped.items())
