"""The learning path, from top to bottom: what happens between a task's records and a release.

    records -> examples -> four splits -> contract -> candidates, judged on tune -> the ledger is charged
    -> one certificate on calibration -> the gate, on test -> a release, or a rejection with reasons

Everything before `charge` is free and may be repeated at will; after it, labels that nothing was chosen on are read,
once. Not known here: how files are parsed, which model families exist, who serves the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from suffice import __version__
from suffice.core import grading
from suffice.core.contracts import told as contract_told
from suffice.core.errors import InputError, LeakError
from suffice.core.losses import Graders, Keeps, kind_of
from suffice.core.protocols import Configured, Family, Fitted, Progress, generates
from suffice.core.types import (
    CalibrationSet,
    Draft,
    Example,
    LossKind,
    OutputContract,
    Policy,
    Recipe,
    Rejection,
    Release,
    Splits,
    TestSet,
    Threshold,
    digest_of,
)
from suffice.core.values import canonical, plain
from suffice.learn import contracts, curate, datasets, judging, ladder, promises, shown, wishes
from suffice.learn.curate import Curated
from suffice.learn.judging import Answers, Plan, Terms
from suffice.learn.ladder import Found
from suffice.learn.referee import Pair, Referee, compared, pairs_of, strict
from suffice.learn.told import Known, day, percent
from suffice.learn.wishes import Basis
from suffice.proof import bounds
from suffice.proof.certify import Evidence, certify, grid, short_of_floor
from suffice.proof.judge import judge
from suffice.store import artefacts, records, releases, watches
from suffice.store.home import Home
from suffice.store.releases import Serving, Stored

CONFIDENCES = 2_000
"""Scores of tune that a release keeps: enough to plan audits by and to draw the grid of a later certificate from."""


SERVING = (
    *("audit", "audit_reference", "audit_deadline_s", "on_missing_audits", "boost", "boost_budget", "false_alarm"),
    *("probe", "recover", "promote", "canary_share"),
)
"""Keys of the policy that do not matter to learning: a run that differs in them only is the same run."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What a run is asked for beside its data.

    Rows from before `since` (seconds since 1970) train and never certify: what is promised is promised of the traffic
    from then on. None: all may certify. `forget`: they do not train either, for what they say is wrong by now.
    `everything`: candidates are tried after one suffices, too.
    """

    policy: Policy
    seed: int = 0
    budget_s: float = 900.0
    everything: bool = False
    since: float | None = None
    forget: bool = False


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run ended with. `document` is what `--json` prints; `stored` is None after a rejection.

    `curve` is for the page that people read; a run that was done before has none.
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
    graders: Graders | None = None,
    pairs: Sequence[Pair] | None = None,
) -> Outcome:
    """Learn one task from its records, and store the release or the rejection.

    `graders`: the verifiers of the policy's `loss` that need more than two answers. `pairs`: answers that people have
    judged, by which a judge among them is measured (None: what people made of the frontier's answers in train and
    tune).

    Raises InputError when there is nothing to learn from or references are mixed. Interrupted at any point, it leaves
    releases and stages as they were; only the ledger may have been charged, for an attempt that the next run goes on
    with. Run again, it goes on after the last model that was fitted.
    """
    progress("reading records", 0.0)
    curated = datasets.curated(home, task, settings.since if settings.forget else None)
    if not curated.examples:
        raise InputError(f"task {task!r} has no records to learn from" + _dropped(curated))
    asked = _asked(families, settings, pairs)
    key = _key(task, curated, asked)
    if (before := releases.last_run(home, task, key)) is not None:
        return _again(home, task, before[1])
    run = _Run(home, task, settings, clock, curated, asked)
    run.graders, run.pairs = graders or {}, pairs
    run.resume()
    artefacts.sweep_fits(home, clock())
    try:
        outcome = run.through(families, progress)
    except _Stop as stop:
        outcome = run.rejected(stop.reasons)
    if outcome.stored or not (run.found and run.found.broken()):  # what failed may be there the next time
        releases.add_run(home, task, key, 0 if outcome.stored else 1, outcome.document)
    if not run.goes_on:
        run.fits.clear()
    return outcome


class _Run(Known):
    """One run: what it knows so far, and its steps."""

    def __init__(
        self, home: Home, task: str, settings: Settings, clock: Callable[[], float], curated: Curated, asked: bytes
    ) -> None:
        super().__init__(task, settings.policy, curated, releases.attempts(home, task) + 1)
        self.home, self.settings, self.clock = home, settings, clock
        self.since, self.labelled = settings.since, watches.count_labelled(home, task, settings.since or 0.0)
        self.delta = bounds.attempt_delta(self.policy.delta, self.attempt)
        self.asked, self.paid, self.model, self.one_of_a_group = asked, False, "", False
        self.unlearned: curate.Dropped = {}
        self.fits = artefacts.Fits(home, task)
        self.goes_on = False
        self.graders: Graders = {}
        self.pairs: Sequence[Pair] | None = None
        self.strict = self.policy

    def resume(self) -> None:
        """Go on with the last attempt, if all that is new are first labels of rows that it certified on.

        Its calibration rows, model and thresholds are the same then, and each label can only lower a loss that counted
        in full: p only falls, so stopping when it passes costs nothing. A label that was changed is another look.
        """
        known = releases.get_splits(self.home, self.task)
        last = releases.last_attempt(self.home, self.task)
        if last is None or any(example.id not in known for example in self.curated.examples):
            return
        proven = [example.id for example in self.curated.examples if known[example.id] in ("calibration", "test")]
        look, _, self.model = last[1].partition(" ")
        try:
            same = look == self.look(known)
        except LeakError:  # of some unit a part was read since then: its place will be another
            return
        if same and not records.revised(self.home, proven):
            self.attempt, self.paid = last[0], True
            self.delta = bounds.attempt_delta(self.policy.delta, self.attempt)

    def look(self, places: Mapping[str, str]) -> str:
        """What a look at calibration rests on: all of train and tune, and of the rest everything but its labels.

        Labels of the rest may complete what makes a promise absolute: another test, and so another look.
        """
        splits, _ = curate.splits(self.curated.examples, places, since=self.since, marks=self.curated.marks)
        absolute = promises.undisputed(self.curated.examples, [*splits.train, *splits.tune])
        placed = []
        for example in self.curated.examples:
            place = places[example.id]
            part = example.digest() if place in ("train", "tune") else example.unlabelled_digest()
            placed.append(f"{place} {part}")
        return digest_of(promises.likely(self.curated.examples), str(absolute), self.asked, *sorted(placed))

    def through(self, families: Sequence[Family], progress: Progress) -> Outcome:
        """The steps."""
        assigned = self.assign()
        self.splits, cap = self.divide(assigned)
        self.promise, self.reference = promises.promise(self.curated.examples, self.splits)
        self.hear_judge()
        kind = kind_of(self.policy.loss, self.promise)
        self.basis = self.measured(self.splits.calibration, kind, cap)
        self.check_floor(self.basis)

        learnable = [*self.splits.train, *self.splits.tune]
        self.contract = contract = self.infer(learnable)
        self.splits, outside = curate.keeping(self.splits, contract)
        self.left_out(outside)
        datasets.keep(self.home, datasets.manifest(self.task, self.splits, self.curated, self.unlearned))
        style = curate.style_of(learnable, self.curated)
        self.found = found = self.search(families, contract, kind, progress)
        if found.specialist is None or found.tune is None or found.recipe is None:
            raise _Stop(*found.why_nothing())
        thresholds = self.thresholds(found.tune)
        model = self.same_model(found.recipe, thresholds)

        progress("certifying", 0.0)
        dataset = self.splits.digest()
        if not self.paid:
            look = f"{self.look(assigned)} {model}"
            releases.charge(self.home, self.task, self.attempt, self.delta, look)
        calibration = judging.answers(found.specialist, contract, self.splits.calibration, found.terms)
        if self.promise == "signed":
            self.shown["worth_labelling"] = self.worth_labelling(calibration, found.specialist)
        threshold = certify(
            _evidence(calibration, self.splits.calibration, cap, found.terms),
            policy=self.strict,
            kind=kind,
            attempt=self.attempt,
            grid=thresholds,
            seed_digest=self.look(assigned),  # not the labels': one more must not shuffle the bet anew
            promise=self.promise,
            reference=self.reference,
            at=self.clock(),
            window=self.window(),
            one_of_a_group=self.one_of_a_group,
        )
        if isinstance(threshold, Rejection):
            raise _Stop(*threshold.reasons, self.missing(found.tune))
        threshold = self.as_stated(threshold)
        self.check_coverage(threshold, found.tune)

        progress("at the gate", 0.5)
        read = self.unread(assigned)
        artefact = artefacts.save(self.home, found.specialist)
        draft = Draft(
            task=self.task,
            recipe=found.recipe,
            contract=contract,
            dataset=dataset,
            artefact=artefact,
            threshold=threshold,
            slices=found.terms.promised,
            closed_slices=found.terms.closed,
            generates=generates(found.specialist),
        )
        verdict = self.gate(draft, found.specialist, found.tune, cap)
        if self.judge is not None and verdict.tail is not None:  # shown by the judge's word, stated of people's
            tail = msgspec.structs.replace(verdict.tail, max_tail_error=self.policy.tail_error)
            verdict = msgspec.structs.replace(verdict, tail=tail)
        # Before a word of what they showed is told; a run killed until now has told nothing and is done again.
        releases.put_splits(self.home, self.task, dict.fromkeys(read, "train"))
        self.goes_on = False  # these rows train from now on: what was fitted without them is of no use
        progress("at the gate", 1.0)
        if isinstance(verdict, Rejection):
            return self.rejected(verdict.reasons, verdict)
        serving = Serving(prompt=self.curated.prompt, style=style, confidences=_confidences(found.tune))
        stored = releases.add_release(self.home, self.task, verdict, serving, releases.identity(verdict, serving))
        return self.released(stored)

    # -- before anything is read

    def assign(self) -> dict[str, str]:
        """Every example's split; what earlier runs assigned stays. Stops when there are too few."""
        found = self.curated.examples
        since = self.settings.since
        unsure = sum(not example.sampled for example in found)
        if unsure:
            self.notes.append(
                f"{unsure:,} rows have an answer because the live specialist was unsure of them: "
                "they train, but say nothing of the traffic as a whole"
            )
        old = sum(since is not None and example.at < since for example in found)
        if since is not None and old:
            self.notes.append(f"{old:,} rows from before {day(since)} train and do not certify")
        room = curate.room(found, self.policy, self.delta, since)
        units, floor, sizes = room.units, room.floor, room.sizes
        if isinstance(sizes, int):
            raise _Stop(
                f"cannot certify: at least {sizes:,} more examples at max_error = {percent(self.policy.max_error)} "
                f"({units:,} are there; calibration alone needs {floor:,}, and half must be left to learn from)"
            )
        known = releases.get_splits(self.home, self.task)
        by_time = self.policy.split == "time"
        peeked = self.curated.marks.peeked
        assigned = curate.split(found, known, sizes, self.settings.seed, by_time=by_time, since=since, peeked=peeked)
        for place in ("test", "calibration", "tune", "train"):
            there = self.units(
                [
                    example
                    for example in found
                    if assigned[example.id] == place and (place == "train" or curate.certifies(example, since))
                ]
            )
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
        since = self.settings.since
        cap = curate.most_of_a_unit(found, assigned, since)
        one_answer = self.policy.loss in (grading.EXACT, grading.F1)  # by others there are many ways to be right
        splits, dropped = curate.splits(found, assigned, cap, since, self.curated.marks, one_answer)
        self.left_out(dropped)
        self.one_of_a_group = cap == 1
        return splits, cap if cap != 1 else None

    def left_out(self, dropped: curate.Dropped) -> None:
        """Note what does not teach, and why."""
        self.unlearned |= dropped
        for rule, ids in dropped.items():
            self.notes.append(f"left out of training: {len(ids):,} ({rule.told})")

    def measured(self, calibration: CalibrationSet, kind: LossKind, cap: int | None) -> Basis:
        """What calibration is like, as far as its labels are not needed for it."""
        units = self.units(calibration)
        return Basis(
            kind=kind,
            units=units,
            examples=len(self.curated.examples),
            grouped=cap is not None,
            fullness=1.0 if cap is None else len(calibration) / (cap * max(units, 1)),
        )

    def hear_judge(self) -> None:
        """Where a model judges, measure it against people: what is certified by its word is certified more strictly.

        Trusted answers are then what it compares with, and the promise is about these alone. Stops where its error is
        not known.
        """
        name = grading.judge_of(self.policy.loss)
        if name is None or self.splits is None:
            return
        judge = next((one for one in self.graders.values() if isinstance(one, Referee)), None)
        if judge is None:
            raise InputError(f"task {self.task!r}: judge {name!r} is not at hand")
        if self.promise == "signed":
            if not all(e.has_reference for part in (self.splits.tune, *self.held_out) for e in part):
                raise _Stop("a judge compares with trusted answers: give one for every row, or for none")
            self.promise = "absolute"
        pairs = self.pairs if self.pairs is not None else pairs_of([*self.splits.train, *self.splits.tune])
        found = compared(judge, name, pairs, self.delta / 2)
        if isinstance(found, str):
            raise _Stop(found)
        self.judge, self.strict = found, strict(self.policy, found)
        self.notes.append(
            f"judge {name} let pass {percent(found.false_passes.value or 0)} of {found.false_passes.n:,} answers that "
            f"people call wrong: certified is max_error = {percent(self.strict.max_error)} by its word"
        )

    @property
    def held_out(self) -> tuple[CalibrationSet, TestSet]:
        """What was not chosen on."""
        assert self.splits is not None
        return self.splits.calibration, self.splits.test

    def as_stated(self, threshold: Threshold) -> Threshold:
        """The threshold with its certificate in the user's words, where it was shown by a judge's, more strictly."""
        if self.judge is None:
            return threshold
        certificate = msgspec.structs.replace(
            threshold.certificate,
            max_error=self.policy.max_error,
            confidence=self.policy.confidence,
            delta=self.delta,
            max_slice_error=self.policy.slice_error if threshold.certificate.max_slice_error is not None else None,
            judge=self.judge,
        )
        return Threshold(score=threshold.score, certificate=certificate)

    def check_floor(self, basis: Basis) -> None:
        """Stop, at no cost, when calibration could not certify even without an error."""
        short = short_of_floor(basis.worth, self.strict, self.attempt, basis.kind, grouped=basis.grouped)
        if short:
            more = round(short / basis.fullness * max(2.0, basis.examples / max(basis.units, 1)))
            raise _Stop(
                f"cannot certify: at least {more:,} more examples at max_error = {percent(self.policy.max_error)}"
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
        return contracts.of_task(self.curated.prompt, [example.input for example in learnable], values)

    def search(self, families: Sequence[Family], contract: OutputContract, kind: LossKind, progress: Progress) -> Found:
        """Fit on train, choose on tune."""
        assert self.splits is not None
        if not any(judging.keeps(contract, e) for e in self.splits.train) or not any(
            judging.keeps(contract, e) for e in self.splits.tune
        ):
            raise _Stop(f"no example keeps one contract ({contract_told(contract)}): there is nothing to learn")
        assert self.basis is not None
        found = ladder.search(
            families,
            contract,
            self.splits.train,
            self.splits.tune,
            policy=self.strict,
            terms=Terms(
                kind, self.policy.loss, self.policy.slices, graders={**self.graders, "schema": Keeps(contract)}
            ),
            plan=Plan(attempt=self.attempt, n_units=self.basis.worth, grouped=self.basis.grouped),
            seed=self.settings.seed,
            budget_s=self.settings.budget_s,
            progress=progress,
            fits=self.fits,
            everything=self.settings.everything,
        )
        self.goes_on = not found.finished()
        for name in found.terms.closed:
            self.notes.append(f"slice {name} is too rare to be shown anything about: its requests always escalate")
        if self.policy.max_cvar is not None and kind != "graded":
            self.notes.append('`max_cvar` says nothing here: it is for graded losses (as `loss = "f1"`), unsigned')
        return found

    def thresholds(self, tune: Answers) -> tuple[float, ...]:
        """The grid, from tune: only thresholds that would give the wished coverage are worth a certificate."""
        n = len(tune.scores)
        wanted = tuple(
            g
            for g in grid(tune.scores, tune.acceptable)
            if (tune.acceptable & (tune.scores >= g)).sum() >= self.policy.min_coverage * n
        )
        if not wanted:
            share = percent(tune.acceptable.mean() if n else 0.0)
            closed = ", outside of slices too rare for a promise" if self.found and self.found.terms.closed else ""
            asked = f" ({contract_told(self.contract)})" if self.contract else ""
            raise _Stop(
                f"too little coverage: only {share} of the tune examples get an answer within the contract{asked} and "
                f"unlike nothing seen{closed}, where {percent(self.policy.min_coverage)} is asked for"
            )
        return wanted

    def same_model(self, recipe: Recipe, thresholds: Sequence[float]) -> str:
        """The digest of what is to be certified; another than that of the attempt that goes on is a look of its own.

        A search that had less time, or ran on a slower machine, may end with another model on the same data. Stops, at
        no cost, where calibration is too small for one look more.
        """
        assert self.basis is not None
        model = digest_of(msgspec.json.encode(recipe), np.array(thresholds, dtype=np.float64).tobytes())
        if self.paid and self.model in ("", model):
            self.notes.append(f"attempt {self.attempt} goes on: labels of its own calibration rows cost nothing")
        elif self.paid:
            self.paid, self.attempt = False, releases.attempts(self.home, self.task) + 1
            self.delta = bounds.attempt_delta(self.policy.delta, self.attempt)
            self.notes.append("the search ended with another model than before: that is another look at calibration")
            self.check_floor(self.basis)
        return model

    def missing(self, tune: Answers) -> str:
        """What it would take, estimated from tune at the lowest coverage asked for."""
        assert self.found is not None and self.basis is not None
        return wishes.missing(tune, self.found.terms, self.strict, self.attempt + 1, self.basis)

    def worth_labelling(self, calibration: Answers, specialist: Fitted) -> list[dict[str, Any]]:
        """Where specialist and frontier differ and nobody has said who is right, in calibration and in test.

        Only where trusted answers judge: a disagreement is no error then until someone has said so, and its label is
        free. Of test nothing but this is used before the gate, and by it nothing is chosen.
        """
        assert self.splits is not None and self.found is not None and self.contract is not None
        test = judging.answers(specialist, self.contract, self.splits.test, self.found.terms)
        named = shown.disagreements(self.splits.calibration, calibration)
        return shown.surest([*named, *shown.disagreements(self.splits.test, test)])

    def window(self) -> tuple[float, float] | None:
        """From when to when calibration was asked, where the splits are by time."""
        assert self.splits is not None
        times = [example.at for example in self.splits.calibration]
        return (min(times), max(times)) if self.policy.split == "time" else None

    def check_coverage(self, threshold: Threshold, tune: Answers) -> None:
        """Stop before the test rows are spent, if the gate would find too little coverage: scores alone tell that."""
        assert self.splits is not None
        share, n = threshold.certificate.coverage, len(self.splits.test)
        if bounds.clopper_pearson(round(share * n), n)[0] < self.policy.min_coverage:
            raise _Stop(
                f"too little coverage: max_error = {percent(self.policy.max_error)} can be certified for "
                f"{percent(share)} of the requests only, where {n:,} test requests are to show at least "
                f"{percent(self.policy.min_coverage)}",
                self.missing(tune),
            )

    # -- the gate

    def unread(self, assigned: dict[str, str]) -> list[str]:
        """The ids of the test rows, a group's beyond the cap too: once the gate has judged they train.

        Raises LeakError if any was read before: then nothing is judged on them.
        """
        stored = releases.get_splits(self.home, self.task)
        read = [name for name, place in assigned.items() if place == "test"]
        if again := [name for name in read if stored.get(name) != "test"]:
            raise LeakError(f"{len(again)} test rows of task {self.task} were read before, {again[0]} among them")
        return read

    def gate(self, draft: Draft, specialist: Fitted, tune: Answers, cap: int | None) -> Release | Rejection:
        """The one look at test."""
        assert self.splits is not None and self.found is not None
        terms, examples, threshold = self.found.terms, self.splits.test, draft.threshold.score
        chosen = next(candidate for candidate in self.found.candidates if candidate.verdict == "chosen")
        test = judging.answers(specialist, draft.contract, examples, terms)
        trained = {example.input for example in self.splits.train}
        self.shown |= shown.shown(examples, test, threshold)
        return judge(
            draft,
            _evidence(test, examples, cap, terms),
            correct=test.correct,
            frontier_wrong=test.frontier_wrong if any(e.has_reference and e.has_output for e in examples) else None,
            unseen=np.array([example.input not in trained for example in examples], dtype=np.bool_),
            tune=tune,
            kind=terms.kind,
            policy=self.strict,
            attempt=self.attempt,
            latency_p50_ms=chosen.p50_ms,
            latency_p99_ms=chosen.p99_ms,
            recorded=test.recorded,
            differs=test.differs,
            wrong=test.wrong,
            unlike=test.unlike,
            slices=shown.every_slice(examples, test),
            tune_losses=tune.losses * (tune.acceptable & (tune.scores >= threshold)),
            memory_mb=artefacts.size(artefacts.folder_of(self.home, draft.artefact)) / 1e6,
        )

    # -- what is told

    def rejected(self, reasons: Sequence[str], verdict: Rejection | None = None) -> Outcome:
        """A rejection's document."""
        said = tuple(reason for reason in reasons if reason) or ("nothing could be fitted",)
        said = (*self.undeclared(), *said)
        self.faults()
        return Outcome(document=self.document(said, None, verdict), stored=None, curve=self.curve())

    def released(self, stored: Stored) -> Outcome:
        """A release's document."""
        self.faults()
        return Outcome(document=self.document((), stored, stored.release), stored=stored, curve=self.curve())

    def faults(self) -> None:
        """Note what went wrong with verifiers."""
        self.notes += [told for grader in self.graders.values() if (told := grader.fault()) is not None]

    def undeclared(self) -> tuple[str, ...]:
        """What to do where free text was held against free text letter by letter."""
        if self.contract is None or self.policy.loss != grading.EXACT or not contracts.is_prose(self.contract):
            return ()
        return (
            "free text was judged letter by letter, and nothing without a verifier is certified: declare one, such as "
            f'[tasks.{self.task}] loss = "rouge >= 0.6" (docs/verifiers.md)',
        )


# ---------------------------------------------------------------------------------------------- small steps


def _evidence(seen: Answers, rows: CalibrationSet | TestSet, cap: int | None, terms: Terms) -> Evidence:
    groups = np.unique([curate.unit(example) for example in rows], return_inverse=True)[1] if cap is not None else None
    open_rows = seen.differs & np.array([not example.has_reference for example in rows], dtype=np.bool_)
    return Evidence(
        scores=seen.scores,
        acceptable=seen.acceptable,
        losses=seen.losses,
        groups=groups,
        cap=cap or 1,
        slices={name: seen.slices[name] for name in terms.promised},
        least=np.where(open_rows, -1.0, seen.losses) if terms.kind == "signed" else None,
    )


def _confidences(tune: Answers) -> tuple[float, ...]:
    """Tune's scores of acceptable answers, ascending; of many, every so-manyth."""
    scores = np.sort(tune.scores[tune.acceptable])
    kept = np.unique(np.linspace(0, len(scores) - 1, min(len(scores), CONFIDENCES)).round().astype(np.int64))
    return tuple(float(score) for score in scores[kept])


def _key(task: str, curated: Curated, asked: bytes) -> str:
    """The same data and settings: nothing new would be learned, and no look at calibration need be paid."""
    digests = sorted(example.digest() for example in curated.examples)
    return digest_of(task, asked, curated.prompt.digest() if curated.prompt else "", *digests)


def _asked(families: Sequence[Family], settings: Settings, pairs: Sequence[Pair] | None = None) -> bytes:
    """What a run is asked for, without what only matters once its release serves."""
    kept = {name: getattr(settings.policy, name) for name in Policy.__struct_fields__ if name not in SERVING}
    learning = msgspec.structs.replace(settings, policy=Policy(**kept))
    told = (learning, [_named(family) for family in families], __version__)
    return msgspec.json.encode(told if pairs is None else (*told, pairs))


def _named(family: Family) -> str:
    return family.identity if isinstance(family, Configured) else family.name


def _again(home: Home, task: str, document: dict[str, Any]) -> Outcome:
    name = document.get("release")
    stored = releases.get_release(home, task, int(name.rpartition("@")[2])) if name else None
    return Outcome(document=document, stored=stored, known=True)


def _dropped(curated: Curated) -> str:
    return "".join(f"; {len(ids):,} left out: {reason}" for reason, ids in curated.dropped.items())
