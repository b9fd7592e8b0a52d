"""The search: candidates from the cheapest up, each judged on tune; the winner gets the one certificate.

Stops at the first that suffices. Where none does, a larger one wins only by a gain that is more than chance. Not known
here: which families exist, where fits are kept, what is certified.
"""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import numpy as np

from suffice import __version__
from suffice.core.errors import ArtefactError, BudgetSpent, SufficeError
from suffice.core.protocols import Family, Fitted, Judging, Progress, Remote, Specialist, generates
from suffice.core.types import (
    Bools,
    Estimate,
    OutputContract,
    Policy,
    Prediction,
    Recipe,
    TrainSet,
    TuneSet,
    digest_of,
)
from suffice.learn import judging, latency
from suffice.learn.judging import Answers, Plan, Terms
from suffice.proof import bounds

log = logging.getLogger(__name__)

CHANCE = 2.0
"""Standard errors by which a larger model has to cover more: by chance one in forty that is no better does."""
ALIKE = 1.1
"""Artefacts of one family that are up to so many times as large cost the same to serve."""
EXCERPT = 300
"""Characters of a foreign error message that are shown."""

Verdict = Literal[
    "chosen", "sufficient", "too little coverage", "too slow", "too large", "not tried", "not finished", "failed"
]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One recipe tried: what tune shows of it. `coverage` is what a certificate of the planned size may reach.

    `fit_s` is that of the run that finished the fit; `p99_ms` was measured under load; `size_mb` (10^6 bytes) is the
    artefact's, None where there is none. `usd_per_1k` is what 1,000 requests cost of one that is elsewhere; None:
    nothing is paid for, or the price is not known.
    """

    recipe: Recipe
    accuracy: Estimate | None = None
    coverage: Estimate | None = None
    fit_s: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    size_mb: float | None = None
    usd_per_1k: float | None = None
    verdict: Verdict = "not tried"
    reason: str = ""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """The search's outcome: the winner with its answers on tune (None: nothing that could be used), and the table.

    `terms` are those of the certificate, slices that must escalate included.
    """

    specialist: Fitted | None
    recipe: Recipe | None
    tune: Answers | None
    terms: Terms
    candidates: tuple[Candidate, ...]

    def finished(self) -> bool:
        """Whether no fit was broken off by the budget."""
        return all(candidate.verdict != "not finished" for candidate in self.candidates)

    def broken(self) -> bool:
        """Whether a recipe failed."""
        return any(candidate.verdict == "failed" for candidate in self.candidates)

    def why_nothing(self) -> list[str]:
        """Why there is no winner: each reason with the families, or recipes, whose it is; alone if it is everyone's."""
        whose: dict[str, list[str]] = {}
        for row in self.candidates:
            who = row.recipe.family if row.verdict == "not tried" else row.recipe.name
            what = f"{row.verdict}: {row.reason}" if row.verdict in ("too slow", "too large") else row.reason
            if who not in whose.setdefault(what, []):
                whose[what].append(who)
        if len(whose) == 1:
            return list(whose)
        return [f"{', '.join(names)}: {what}" for what, names in whose.items()]


class Kept(Protocol):
    """A fit that was finished: the folder of its artefact, its bytes on the disk, the seconds it took."""

    @property
    def folder(self) -> Path:
        """Where its files are."""
        ...

    @property
    def size(self) -> int:
        """Bytes."""
        ...

    @property
    def fit_s(self) -> float:
        """Seconds."""
        ...


class Fits(Protocol):
    """Where fits outlive an interruption; a key stands for everything that a fit depends on."""

    def get(self, key: str) -> Kept | None:
        """The fit with this key, if it is there and whole."""
        ...

    def put(self, key: str, model: Fitted, fit_s: float) -> Kept:
        """Write a fit down, whole or not at all."""
        ...

    def scratch(self, key: str) -> Path:
        """A folder for what a fit under way leaves behind to go on from."""
        ...


class Again(msgspec.Struct, frozen=True):
    """A specialist that an earlier run has fitted. Written down again, it is the same files."""

    specialist: Specialist
    folder: Path

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """The specialist's answers."""
        return self.specialist.predict(inputs)

    @property
    def generates(self) -> bool:
        """As the specialist does."""
        return generates(self.specialist)

    def save(self, folder: Path) -> None:
        """Copy the files."""
        shutil.copytree(self.folder, folder, dirs_exist_ok=True)


def search(
    families: Iterable[Family],
    contract: OutputContract,
    train: TrainSet,
    tune: TuneSet,
    *,
    policy: Policy,
    terms: Terms,
    plan: Plan,
    seed: int,
    budget_s: float,
    progress: Progress,
    fits: Fits,
    everything: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Found:
    """Fit from the cheapest up; stop at the first whose coverage, estimated on tune, reaches `target_coverage`.

    Fitted is on the answers that keep the contract, judged on all of tune. Where none suffices, the best within the
    budget wins, the smaller unless a larger one's gain is more than chance. With `everything` the others are tried too;
    the choice is the same. The budget (of this run: what an earlier one has fitted is not fitted again) ends a fit once
    there is a candidate to fall back on. `terms` says nothing yet of slices that are too rare for a promise: which are,
    tune shows, for each specialist (a slice may be made of its answers). A family that cannot answer such a contract,
    or fails, is a row of the table with its reason. `clock` gives seconds.
    """
    run = _Search(contract, train, tune, policy=policy, terms=terms, plan=plan, fits=fits, clock=clock)
    budget = _Budget(progress, budget_s, clock)
    for family in families:
        reason, recipes = _offered(family, contract, seed)
        for recipe in recipes:
            enough = "a smaller one suffices" if run.settled and not everything else None
            if why_not := reason or enough or budget.spent():
                run.table.append(Candidate(recipe=recipe, reason=why_not))
                continue
            budget.doing = recipe.name
            run.table.append(run.row(judging.by_loss(family, terms, policy), recipe, budget))
            budget.binding = run.best is not None
    return run.found()


class _Tried(msgspec.Struct, frozen=True, kw_only=True):
    """A candidate in the running: `accepted` is which tune examples, (n,), it would answer."""

    recipe: Recipe
    specialist: Fitted
    tune: Answers
    terms: Terms
    accepted: Bools
    size: int
    usd_per_1k: float | None = None


class _Budget:
    """A `Progress` that ends what is under way when the time is over; once it is `binding`."""

    def __init__(self, progress: Progress, budget_s: float, clock: Callable[[], float]) -> None:
        self._progress, self._clock, self._until = progress, clock, clock() + budget_s
        minutes = f"{budget_s / 60:.3g}"
        self._told = f"the budget of {minutes} {'minute' if minutes == '1' else 'minutes'} is spent"
        self.binding = False
        self.doing = ""

    def spent(self) -> str | None:
        """That it is, in words; None while it is not."""
        return self._told if self.binding and self._clock() > self._until else None

    def __call__(self, what: str, share: float) -> None:
        if told := self.spent():
            raise BudgetSpent(told)
        self._progress(f"{self.doing}: {what}", share)


class _Search:
    """What a search knows so far: the table, and the best candidate."""

    def __init__(
        self, contract: OutputContract, train: TrainSet, tune: TuneSet, *, policy: Policy, terms: Terms, plan: Plan,
        fits: Fits, clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self.contract, self.tune, self.policy, self.terms, self.plan = contract, tune, policy, terms, plan
        self.fits, self.clock = fits, clock
        self.taught, self.learned, self.judges = judging.taught(contract, train, tune)
        # In their order: a fit may depend on it, where the digest of a split does not.
        self.data = digest_of(*(e.digest() for e in self.learned), "tune", *(e.digest() for e in self.judges))
        self.table: list[Candidate] = []
        self.best: _Tried | None = None
        self.settled = False

    def row(self, family: Family, recipe: Recipe, progress: Progress) -> Candidate:
        """Fit, measure and judge one recipe."""
        try:
            return self.tried(family, recipe, progress)
        except BudgetSpent as spent:
            reason = f"{spent}; a larger --budget lets it finish"
            return Candidate(recipe=recipe, verdict="not finished", reason=reason)
        except Exception as error:  # the boundary of a family: what fails must not take the others with it
            log.debug("recipe %s failed", recipe.name, exc_info=True)
            return Candidate(recipe=recipe, verdict="failed", reason=_plainly(error))

    def tried(self, family: Family, recipe: Recipe, progress: Progress) -> Candidate:
        """The row of a recipe that could be fitted; whether it leads is settled here too."""
        specialist, kept = self.fitted(family, recipe, progress)
        closed, seen = judging.judged(
            specialist, self.contract, self.tune, self.terms, self.policy, self.plan, progress
        )
        accepted = judging.accepted(seen, closed, self.policy, self.plan)
        progress("measuring latency", 0.99)
        remote = _remote(specialist)
        took = (
            latency.Latency(p50_ms=remote.p50_ms, p99_ms=remote.p99_ms)  # each further look would be paid for
            if remote is not None
            else latency.measure(specialist, [example.input for example in self.tune], self.clock)
        )
        verdict, reason = self.placed(
            took.p99_ms,
            _Tried(
                recipe=recipe,
                specialist=specialist,
                tune=seen,
                terms=closed,
                accepted=accepted,
                size=kept.size,
                usd_per_1k=remote.usd_per_1k if remote is not None else None,
            ),
        )
        return Candidate(
            recipe=recipe,
            accuracy=bounds.share(seen.correct),
            coverage=bounds.share(accepted),
            fit_s=kept.fit_s,
            p50_ms=took.p50_ms,
            p99_ms=took.p99_ms,
            size_mb=kept.size / 1e6,
            usd_per_1k=remote.usd_per_1k if remote is not None else None,
            verdict=verdict,
            reason=reason,
        )

    def fitted(self, family: Family, recipe: Recipe, progress: Progress) -> tuple[Fitted, Kept]:
        """Fit, or go on from what an earlier run with the same data has left."""
        settings = msgspec.json.encode((recipe, self.taught))
        right = judging.declares(self.terms, self.policy) if isinstance(family, Judging) else ""
        key = digest_of(__version__, settings, self.data, *([right] if right else []))
        kept = self.fits.get(key)
        if kept is not None:
            try:
                return Again(family.load(kept.folder), kept.folder), kept
            except ArtefactError:
                log.debug("the fit of %s that was kept cannot be read", recipe.name, exc_info=True)
        start = self.clock()
        fitted = family.fit(recipe, self.taught, self.learned, self.judges, progress, self.fits.scratch(key))
        return fitted, self.fits.put(key, fitted, self.clock() - start)

    def placed(self, p99_ms: float, tried: _Tried) -> tuple[Verdict, str]:
        """A candidate's verdict with its reason; the best so far gives way to a better one."""
        policy, best = self.policy, self.best
        most_ms = policy.latency_ms(generates(tried.specialist))
        if not p99_ms <= most_ms:
            return "too slow", f"p99 of {p99_ms:.3g} ms where {most_ms:.3g} ms is the budget"
        if policy.max_memory_mb is not None and tried.size / 1e6 > policy.max_memory_mb:
            return "too large", f"{tried.size / 1e6:.3g} MB where {policy.max_memory_mb:.3g} MB is the budget"
        suffices = bool(len(tried.accepted)) and float(tried.accepted.mean()) >= policy.target_coverage
        if self.settled and best is not None:
            name = best.recipe.name
            return "sufficient" if suffices else "too little coverage", f"{name} suffices"
        if suffices or best is None or _better(tried, best):
            self.best, self.settled = tried, suffices
            return ("sufficient", "") if suffices else ("too little coverage", f"{_percent(policy)} is asked for")
        more = tried.accepted.sum() > best.accepted.sum()
        reason = f"not better than {best.recipe.name} beyond chance" if more else f"not better than {best.recipe.name}"
        return "too little coverage", reason

    def found(self) -> Found:
        """The outcome."""
        best = self.best
        if best is None:
            return Found(specialist=None, recipe=None, tune=None, terms=self.terms, candidates=tuple(self.table))
        replace = msgspec.structs.replace
        reason = (
            f"the smallest that reaches {_percent(self.policy)}" if self.settled else "best coverage within the budget"
        )
        rows = [replace(c, verdict="chosen", reason=reason) if c.recipe == best.recipe else c for c in self.table]
        return Found(
            specialist=best.specialist, recipe=best.recipe, tune=best.tune, terms=best.terms, candidates=tuple(rows)
        )


def _better(tried: _Tried, best: _Tried) -> bool:
    """Whether a candidate is worth having in place of one before it, neither being sufficient.

    One that costs the same: if it covers more. One that costs more: if it covers more than chance may explain, by the
    paired difference over tune examples (which of the two would answer each) against its standard error. That takes
    both thresholds as they came out on tune, so it is a rule of thumb, and no promise rests on it.
    """
    gain = tried.accepted.astype(np.float64) - best.accepted
    if not len(gain):
        return False
    alike = tried.recipe.family == best.recipe.family and tried.usd_per_1k == best.usd_per_1k
    if alike and tried.size <= ALIKE * best.size:
        return bool(gain.sum() > 0)
    return bool(gain.mean() > CHANCE * gain.std() / np.sqrt(len(gain)))


def _remote(specialist: Specialist) -> Remote | None:
    """The specialist that is elsewhere, if it is one."""
    inner = specialist.specialist if isinstance(specialist, Again) else specialist
    return inner if isinstance(inner, Remote) else None


def _offered(family: Family, contract: OutputContract, seed: int) -> tuple[str | None, list[Recipe]]:
    """Why a family cannot answer such a contract (None: it can), and its recipes. A fault of its own is a reason."""
    try:
        return family.supports(contract), family.recipes(seed)
    except Exception as error:  # the boundary of a family, as in `_Search.row`
        log.debug("family %s failed", family.name, exc_info=True)
        return _plainly(error), [Recipe(family=family.name, seed=seed)]


def _plainly(error: Exception) -> str:
    """An error in one line."""
    if isinstance(error, MemoryError):
        return "it takes more memory than there is"
    if isinstance(error, SufficeError):
        return str(error)
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message[:EXCERPT]}" if message else type(error).__name__


def _percent(policy: Policy) -> str:
    return f"{100 * policy.target_coverage:.3g}%"
