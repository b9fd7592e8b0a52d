"""The keeper on a real home: records go in as workers write them, and what is in the store comes out."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from suffice.core.config import Config, TaskConfig
from suffice.core.style import Style
from suffice.core.types import (
    Certificate,
    Choice,
    Draft,
    Estimate,
    Policy,
    Promise,
    Recipe,
    Release,
    Report,
    Stage,
    Tail,
    Threshold,
)
from suffice.proof.bounds import attempt_delta
from suffice.serve import evidence, watch
from suffice.serve.keeper import LOOK_S, SLOW_S, Keeper
from suffice.serve.watch import Probed, State
from suffice.store import records, releases, watches
from suffice.store.home import Home
from suffice.store.records import Row, Trusted
from suffice.store.releases import Event, Serving, Stored
from suffice.store.watches import Audit


class Crash(BaseException):
    """The keeper is killed here."""


class FakeProbe:
    """Asks nobody."""

    def __init__(self) -> None:
        self.begun_with: list[str] = []
        self.outcome: dict[str, Probed] = {}
        self.asked_again: list[str] = []

    def begin(self, task: str, size: int) -> None:
        self.begun_with.append(task)

    def is_done(self, task: str) -> bool:
        return task in self.outcome

    def begun(self, task: str) -> Probed | None:
        return self.outcome.pop(task, None)

    def again(self, task: str, first: Probed | None, then: Callable[[Probed | None, Probed | None], None]) -> None:
        self.asked_again.append(task)
        then(first, None)


class FakeLearning:
    """Learns nothing until it is told that it has."""

    def __init__(self) -> None:
        self.started: list[tuple[str, float | None]] = []
        self.running: str | None = None
        self.code: int | None = None

    @property
    def busy(self) -> bool:
        return self.running is not None

    def start(self, task: str, since: float | None, forget: bool = False) -> None:
        assert not self.busy, "one at a time"
        self.started.append((task, since))
        self.running = task

    def ended(self) -> tuple[str, int] | None:
        if self.running is None or self.code is None:
            return None
        name, code, self.running, self.code = self.running, self.code, None, None
        return name, code

    def stop(self) -> None:
        pass


class World:
    """A home, its keeper, and two clocks that only the test moves."""

    def __init__(self, folder: Path, **policies: Policy) -> None:
        self.home = Home(folder)
        tasks = {name: TaskConfig(**msgspec.structs.asdict(policy)) for name, policy in policies.items()}
        self.config = Config(tasks=tasks)
        self.alerts: list[Event] = []
        self.wall, self.now = 1e9, 50.0
        self.serial = itertools.count()
        self.looking = False
        self.raw = self.home.connect()
        self.restart()

    def restart(self) -> None:
        """A new keeper, as after a kill."""
        self.probe, self.learning = FakeProbe(), FakeLearning()
        self.keeper = Keeper(
            self.home, self.config, self.probe, self.learning, self.alerts.append, lambda: self.wall, lambda: self.now,  # type: ignore[arg-type]
        )  # fmt: skip

    def look(self, times: int = 1) -> None:
        """Look, each time after all that has to wait has waited."""
        for _ in range(times):
            self.now += SLOW_S + LOOK_S
            self.looking = True
            try:
                self.keeper.look()
            except Crash:
                self.keeper._kept.close()
                self.restart()
            self.looking = False

    def release(self, task: str = "t", promise: Promise = "agreement", **more: Any) -> Stored:
        releases.ensure_task(self.home, task)
        made = made_release(task, promise, **more)
        serving = Serving(prompt=None, style=Style(), confidences=tuple(i / 500 for i in range(500)))
        name = f"{task}-{next(self.serial)}"
        return releases.add_release(self.home, task, made, serving, name)

    def put(self, stage: Stage, task: str = "t", n: int | None = None) -> None:
        releases.set_stage(self.home, task, stage, n)

    def live(self, task: str = "t", promise: Promise = "agreement", stage: Stage = Stage.LIVE) -> Stored:
        stored = self.release(task, promise)
        self.put(stage, task)
        self.look(2)
        return stored

    def ask(
        self,
        count: int,
        task: str = "t",
        *,
        stage: Stage = Stage.LIVE,
        release: int = 1,
        said: str = "a",
        heard: str = "a",
        scores: Sequence[float] = (0.9,),
        audited: bool = True,
        coin: float = 1.0,
        reason: str | None = None,
        answered: bool = True,
        wrong: float | None = None,
    ) -> list[str]:
        """Requests as a worker records them in this stage, with their audits. `wrong`: the share that differs."""
        watched = stage in (Stage.LIVE, Stage.CANARY)
        stakes = watch.stamp(self.state(task).stakes) if watched else None
        rows, audits = [], []
        for i in range(count):
            serial = next(self.serial)
            name, score = f"rec_{serial:09d}", scores[i % len(scores)]
            accepted = watched and score >= 0.5
            why = reason or ("accepted" if accepted and stage is Stage.LIVE else stage.value)
            if watched and not accepted:
                why = "below_threshold"
            differs = heard != said if wrong is None else random.Random(serial).random() < wrong
            body = completion("b" if differs else said)
            served = why == "accepted"
            rows.append(
                Row(
                    id=name, at=self.wall, source="live", task=task, stage=stage.value, release=f"{task}@{release}",
                    reason=why, route="specialist" if served else "frontier", score=score, threshold=0.5,
                    predicted=json.dumps(said), acceptable=True, status=200, request=b"{}",
                    answer=completion(said) if served else body if answered else None,
                    failure=None if served or answered else "broken",
                    watch=self.watch_n(task) if watched else None, stakes=stakes,
                    coin=coin if accepted else None, audited=audited if accepted else None,
                )
            )  # fmt: skip
            if served and audited and answered:
                audits.append(Audit(record=name, at=self.wall, status=200, answer=body))
        records.insert(self.raw, rows)
        for audit in audits:
            watches.add_audit(self.home, audit)
        return [row.id for row in rows]

    def watch_n(self, task: str = "t") -> int:
        found = watches.last_watch(self.home, task)
        assert found is not None
        return found.n

    def state(self, task: str = "t") -> State:
        found = watches.last_watch(self.home, task)
        assert found is not None
        return msgspec.json.decode(found.state, type=State)

    def stage(self, task: str = "t") -> tuple[Stage, int | None]:
        now = releases.all_tasks(self.home)[task]
        return now.stage, now.release

    def told(self, kind: str, task: str = "t") -> list[str]:
        return [event.what for event in releases.events(self.home, task, 1000, kind)][::-1]

    def dump(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that a keeper writes, without times."""
        tables = {
            "tasks": "name, stage, release", "watches": "task, n, release, closed_at IS NULL, outcome, state",
            "steps": "record, task, watch, differs, loss, missing", "events": "task, kind, what",
            "releases": "task, n, digest", "ledger": "task, attempt, delta, calibration",
            "tails": "task, attempt, release, labels, errors, promised", "splits": "task, example, split",
        }  # fmt: skip
        return {
            name: self.raw.execute(f"SELECT {columns} FROM {name} ORDER BY 1, 2, 3").fetchall()
            for name, columns in tables.items()
        }


def completion(content: str) -> bytes:
    message = {"role": "assistant", "content": content}
    return json.dumps({"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}).encode()


def made_release(task: str, promise: Promise = "agreement", tail_promised: bool = False) -> Release:
    share = Estimate(value=0.8, low=0.7, high=0.9, n=400)
    certificate = Certificate(
        max_error=0.05, confidence=0.95, attempt=1, delta=0.025, n=500, method="m", p_value=0.01, threshold=0.5,
        coverage=0.8, promise=promise, reference="frontier" if promise == "agreement" else "human",
    )  # fmt: skip
    return Release(
        draft=Draft(
            task=task, recipe=Recipe(family="linear"), contract=Choice(("a", "b")), dataset="d", artefact="a",
            threshold=Threshold(score=0.5, certificate=certificate),
        ),
        tail=Tail(promised=tail_promised, max_tail_error=0.5, error=share, labels_missing=1),
        report=Report(
            accuracy=share, coverage=share, accepted_error=share, frontier_error=None, worse=None, unseen_coverage=None,
            unseen_error=None, latency_p50_ms=1.0, latency_p99_ms=2.0,
            disagreement=Estimate(value=0.01, low=0, high=0.02, n=500), band_upper=0.6,
        ),
    )  # fmt: skip


QUIET = Policy(max_error=0.05, audit=0.3)
TRUSTED = Policy(max_error=0.05, audit=0.3, audit_reference="trusted")
AUTO = Policy(max_error=0.05, audit=0.3, promote="auto")
Make = Callable[..., World]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[Make]:
    made: list[World] = []

    def make(name: str = "home", **policies: Policy) -> World:
        made.append(World(tmp_path / name, **(policies or {"t": QUIET})))
        return made[-1]

    yield make
    for one in made:
        one.raw.close()
        one.keeper._kept.close()


def alarmed(w: World, task: str = "t") -> None:
    """Live, then drifted until the watch revokes it."""
    for _ in range(20):
        w.ask(20, task, heard="b")
        w.look(2)
        if w.stage(task)[0] is not Stage.LIVE:
            break
    if w.stage(task)[0] is not Stage.REVOKED:
        raise AssertionError("no alarm")


ALL = (0.05, 0.3, 0.6, 0.95)


def after(w: World, count: int, task: str = "t", wrong: float = 0.0, release: int = 1) -> None:
    """Traffic of a revoked task, over all scores."""
    w.ask(count, task, stage=Stage.REVOKED, release=release, scores=ALL, wrong=wrong)


# ---------------------------------------------------------------------------------------------- the watch


def test_every_step_is_booked_once_whatever_is_looked_at_again(world: Make) -> None:
    w = world()
    w.live()
    for _ in range(5):
        w.ask(50, wrong=0.1)
        w.ask(20, scores=(0.1,))
        w.look(3)
    state = w.state()
    assert (state.steps, state.accepted, state.audited, state.settled) == (350, 250, 250, 250)
    before = w.dump()
    w.look(3)
    w.restart()
    w.look(3)
    assert w.dump() == before


def test_audits_may_come_before_their_record_and_long_after(world: Make) -> None:
    w = world()
    w.live()
    early = "rec_100000000"
    watches.add_audit(w.home, Audit(record=early, at=0, status=200, answer=completion("b")))
    w.look()
    assert w.state().steps == 0
    w.serial = itertools.count(10**8)
    ids = w.ask(2, answered=False)
    assert ids[0] == early
    w.look(2)
    assert (w.state().audited, w.state().settled, w.state().differing) == (2, 1, 1)
    w.now += 100
    w.look()
    assert w.state().missing == 1
    watches.add_audit(w.home, Audit(record=ids[1], at=0, status=200, answer=completion("a")))
    w.look(2)
    assert (w.state().missing, w.state().settled) == (0, 2)


def test_a_deadline_is_not_shortened_by_a_clock_that_jumps(world: Make) -> None:
    w = world()
    w.live()
    w.ask(30, answered=False)
    w.look()
    for wall in (0.0, 1e12, -5.0, 1e9):
        w.wall = wall
        w.keeper.look()
    assert w.state().missing == 0
    w.now += 61
    w.keeper.look()
    assert w.state().missing == 30
    w.look(5)
    assert w.state().missing == 30, "each is missed once"
    assert len(w.told("missing")) == 1
    assert "30 of 30 audits have no answer" in w.told("missing")[0]
    assert w.stage()[0] is Stage.LIVE


def test_what_the_frontier_refused_to_answer_is_missed_once_even_if_somebody_knows_the_answer(world: Make) -> None:
    w = world(t=TRUSTED)
    w.live(promise="signed")
    ids = w.ask(25, answered=False)
    for name in ids:
        watches.add_audit(w.home, Audit(record=name, at=0, failure="down"))
        records.add_trusted(w.home, Trusted(name, "human", "a"))
    w.look(5)
    assert (w.state().missing, w.state().settled) == (25, 0)


def test_trusted_answers_settle_what_differs(world: Make) -> None:
    w = world(t=TRUSTED)
    w.live(promise="signed")
    ids = w.ask(10, heard="b")
    w.look(2)
    assert (w.state().differing, w.state().settled) == (10, 0)
    records.add_trusted(w.home, Trusted(ids[0], "human", "b"))
    records.add_trusted(w.home, Trusted(ids[1], "rule", "b"))
    w.look(2)
    assert (w.state().differing, w.state().settled) == (10, 1), "a rule is not a person"
    assert w.raw.execute("SELECT loss FROM steps WHERE loss IS NOT NULL").fetchall() == [(1.0,)]


def test_two_tasks_do_not_mix(world: Make) -> None:
    w = world(t=QUIET, u=QUIET)
    w.live("t")
    w.live("u")
    for _ in range(6):
        w.ask(20, "t", heard="b")
        w.ask(20, "u")
        w.ask(5, "u", scores=(0.1,))
        w.look()
    assert w.stage("t")[0] is Stage.REVOKED
    assert w.stage("u")[0] is Stage.LIVE
    assert (w.state("u").steps, w.state("u").differing) == (150, 0)
    assert w.told("alarm", "u") == []


def test_a_task_that_cannot_be_thought_of_does_not_stop_the_others(world: Make) -> None:
    w = world(a=AUTO, b=AUTO)
    for name in "ab":
        w.release(name)
    broken = w.keeper._rollout.look
    w.keeper._rollout.look = lambda task, *more: 1 / 0 if task.name == "a" else broken(task, *more)  # type: ignore
    for _ in range(4):
        w.now += SLOW_S
        with contextlib.suppress(ZeroDivisionError):
            w.keeper.look()
    assert w.stage("b")[0] is Stage.SHADOW


def test_a_watch_follows_the_stage(world: Make) -> None:
    w = world()
    w.live(stage=Stage.CANARY)
    assert w.state().delta == pytest.approx(attempt_delta(0.05, 1))
    w.put(Stage.LIVE)
    w.look()
    assert w.watch_n() == 1, "the same release goes on under the same watch"
    w.put(Stage.OBSERVE)
    w.look()
    assert watches.open_watches(w.home) == {}
    w.put(Stage.LIVE)
    w.look()
    assert w.watch_n() == 2 and w.state().delta == pytest.approx(attempt_delta(0.05, 2))
    w.release()
    w.put(Stage.LIVE, n=2)
    w.look()
    assert w.watch_n() == 3
    assert [row[0] for row in w.raw.execute("SELECT outcome FROM watches ORDER BY n")] == ["ended", "ended", None]


def test_a_probe_is_begun_and_kept(world: Make) -> None:
    w = world()
    w.live()
    w.look(2)
    assert w.probe.begun_with
    w.probe.outcome["t"] = Probed(records=("x",), asked=3, differing=1)
    w.look()
    assert w.state().probed == Probed(records=("x",), asked=3, differing=1)
    asked = len(w.probe.begun_with)
    w.look(2)
    assert len(w.probe.begun_with) == asked


# ---------------------------------------------------------------------------------------------- the alarm


def test_an_alarm_revokes_closes_and_asks_why(world: Make) -> None:
    w = world()
    w.live()
    alarmed(w)
    found = watches.last_watch(w.home, "t")
    assert found is not None and (found.outcome, w.state().was) == ("alarm", "live")
    assert w.state().place == watches.newest(w.home)
    assert [event.kind for event in w.alerts] == ["alarm", "cause"]
    assert w.probe.asked_again == ["t"]
    before = w.dump()
    w.look(3)
    assert w.dump() == before


def test_who_moves_a_task_meanwhile_wins_over_the_alarm(world: Make) -> None:
    w = world()
    w.live()
    real = watches.revoke

    def late(*arguments: Any) -> bool:
        releases.stop_all(w.home, Stage.OBSERVE)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watches, "revoke", late)
        with pytest.raises(AssertionError, match="no alarm"):
            alarmed(w)
    assert w.stage() == (Stage.OBSERVE, 1)
    w.look(2)
    assert w.told("alarm") == []
    assert watches.open_watches(w.home) == {}


# ---------------------------------------------------------------------------------------------- recovery


def test_it_is_certified_again_and_resumes(world: Make) -> None:
    w = world()
    w.live()
    alarmed(w)
    after(w, 745)
    w.look(2)
    assert w.stage() == (Stage.REVOKED, 1), "750 requests are needed"
    assert releases.attempts(w.home, "t") == 0
    for wall in (0.0, 5e9):  # order is by the records' places
        w.wall = wall
        after(w, 4)
    w.look(2)
    assert w.stage() == (Stage.LIVE, 2)
    stored = releases.get_release(w.home, "t", 2)
    assert stored is not None
    certificate = stored.release.draft.threshold.certificate
    assert (certificate.n, certificate.attempt) == (500, 1)
    read = w.dump()["splits"]
    assert len(read) == 250 and {row[2] for row in read} == {"train"}, "what the gate read trains"
    assert w.watch_n() == 2 and w.state().wealth.log == (0, 0, 0)
    before = w.dump()
    w.look(3)
    assert w.dump() == before


def test_two_attempts_then_it_asks_to_be_learned_anew(world: Make) -> None:
    w = world()
    w.live()
    alarmed(w)
    after(w, 1248, wrong=0.5)
    w.look(4)
    assert releases.attempts(w.home, "t") == 1
    after(w, 4, wrong=0.5)
    w.look(4)
    after(w, 4000)
    w.look(4)
    assert releases.attempts(w.home, "t") == 2
    first, second = w.told("recovery")
    assert "learned anew" not in first and "suffice learn t --since" in second
    assert not any(c in first.split("since the alarm")[1] for c in ("p =", "mean loss")), "no figure"
    assert w.stage() == (Stage.REVOKED, 1)


def test_what_the_gate_has_read_is_not_calibrated_on(world: Make) -> None:
    w = world()
    w.live()
    alarmed(w)
    after(w, 500)
    after(w, 253, wrong=1.0)
    w.look(3)
    assert w.stage() == (Stage.REVOKED, 1)
    assert "learned anew" in w.told("recovery")[0]
    after(w, 4000)
    w.look(3)
    assert releases.attempts(w.home, "t") == 1 and w.stage() == (Stage.REVOKED, 1)
    assert {row[2] for row in w.dump()["splits"]} == {"train"}


def test_by_choice_a_person_resumes(world: Make) -> None:
    w = world(t=Policy(max_error=0.05, audit=0.3, recover="manual", promote="auto"))
    w.live()
    alarmed(w)
    after(w, 5000)
    w.look(5)
    assert w.stage() == (Stage.REVOKED, 1)
    assert ["resume it: suffice stage t@2 live" in what for what in w.told("recovery")] == [True]
    assert releases.attempts(w.home, "t") == 1 and w.learning.started == []


@pytest.mark.parametrize("how", ["person", "all", "person after the alarm", "all after the alarm"])
def test_only_what_the_watch_revoked_comes_back(world: Make, how: str) -> None:
    w = world(t=AUTO)
    w.live()
    if "alarm" in how:
        alarmed(w)
    if "all" in how:
        releases.stop_all(w.home, Stage.REVOKED)
    else:
        w.put(Stage.REVOKED, n=1)
    w.look()
    after(w, 3000)
    w.look(5)
    assert w.stage() == (Stage.REVOKED, 1)
    assert releases.attempts(w.home, "t") == 0 and w.learning.started == []


def test_the_kill_switch_wins_over_a_certificate_that_is_being_made(world: Make) -> None:
    w = world(t=AUTO)
    w.live()
    alarmed(w)
    after(w, 700)
    real = releases.move

    def late(*arguments: Any) -> bool:
        releases.stop_all(w.home, Stage.REVOKED)  # moves nothing: it is there already
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(releases, "move", late)
        w.look(2)
    w.look(5)
    assert w.stage() == (Stage.REVOKED, 1)


def test_a_run_of_learn_has_the_ledger_to_itself(world: Make) -> None:
    w = world()
    w.live()
    alarmed(w)
    after(w, 800)
    with w.home.learning("t"):
        w.look(3)
        assert releases.attempts(w.home, "t") == 0
    after(w, 4)
    w.look(2)
    assert w.stage() == (Stage.LIVE, 2)


def test_a_new_alarm_starts_from_its_own_requests(world: Make) -> None:
    w = world()
    w.live()
    alarmed(w)
    after(w, 760)
    w.look(2)
    assert w.stage() == (Stage.LIVE, 2)
    while w.stage()[0] is Stage.LIVE:
        w.ask(20, release=2, heard="b")
        w.look(2)
    assert w.stage() == (Stage.REVOKED, 2) and releases.attempts(w.home, "t") == 1
    after(w, 760, release=2)
    w.look(2)
    assert w.stage() == (Stage.LIVE, 3) and releases.attempts(w.home, "t") == 2


# ---------------------------------------------------------------------------------------------- crashes


WRITES = [
    (watches, name) for name in ("save", "revoke", "tell", "open_watch", "close_watch", "look_at_tail")
] + [(releases, name) for name in ("charge", "put_splits", "add_release", "move", "note")]  # fmt: skip


class Killing:
    """Counts the keeper's writes to the store, and kills it before the n-th: so after the one before."""

    def __init__(self, world: World, at: int) -> None:
        self.world, self.at, self.count = world, at, 0

    def __enter__(self) -> Killing:
        self.real = [(module, name, getattr(module, name)) for module, name in WRITES]
        for module, name, function in self.real:
            setattr(module, name, self.around(function))
        return self

    def __exit__(self, *_: object) -> None:
        for module, name, function in self.real:
            setattr(module, name, function)

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **more: Any) -> Any:
            self.count += self.world.looking
            if self.world.looking and self.count == self.at:
                raise Crash
            return function(*arguments, **more)

        return called


def refused(w: World) -> None:
    """From live to an alarm and two attempts that fail."""
    w.live()
    for _ in range(2):
        w.ask(90, heard="b")
        w.look(3)
    for _ in range(2):
        after(w, 753, wrong=0.5)
        w.look(3)


def resumed(w: World) -> None:
    """From live to an alarm, a certificate and the watch that resumes."""
    w.live()
    for _ in range(2):
        w.ask(90, heard="b")
        w.look(3)
    after(w, 800)
    w.look(3)


def promoted(w: World) -> None:
    """From a release to live, by evidence."""
    w.release()
    w.look(4)
    w.ask(300, stage=Stage.SHADOW, scores=(0.55,))
    w.look(6)
    canary(w, 600)
    w.look(6)


@pytest.mark.parametrize(("tale", "end"), [(refused, ("revoked", 1)), (resumed, ("live", 2)), (promoted, ("live", 1))])
def test_a_keeper_killed_around_any_write_ends_where_it_would_have(
    world: Make, tale: Callable[[World], None], end: tuple[str, int]
) -> None:
    def run(name: str, at: int) -> tuple[dict[str, list[tuple[Any, ...]]], int]:
        w = world(name, t=AUTO if tale is promoted else QUIET)
        with Killing(w, at) as killing:
            tale(w)
            w.look(4)
        found = w.dump()
        # The cause is asked by a thread of the dead, and with it goes the advice to forget what was said before.
        found["events"] = sorted(
            (*row[:-1], str(row[-1]).removesuffix(" --forget")) for row in found["events"] if row[1] != "cause"
        )
        return found, killing.count

    expected, writes = run("sound", 0)
    assert expected["tasks"] == [("t", *end)]
    for at in range(1, writes + 1):
        found, _ = run(f"killed-{at}", at)
        for table in expected:
            assert found[table] == expected[table], (at, table)


# ---------------------------------------------------------------------------------------------- stages by evidence


def canary(w: World, count: int, score: float = 0.9) -> None:
    """A canary's traffic: a tenth of what could be accepted is; a fifth of all is escalated."""
    for reason, share in (("accepted", 0.1), (None, 0.9)):
        scores = (score, score, score, score, 0.1)
        w.ask(round(share * count), stage=Stage.CANARY, reason=reason, coin=0.93, scores=scores)


def test_by_evidence_only_from_nothing_to_live(world: Make) -> None:
    w = world(t=AUTO)
    releases.ensure_task(w.home, "t")
    w.look()
    w.ask(100, stage=Stage.OBSERVE, scores=(0.1,))
    w.look(2)
    assert w.learning.started == []
    w.ask(100, stage=Stage.OBSERVE, scores=(0.1,))
    w.look(2)
    assert w.learning.started == [("t", None)]
    w.release()
    w.learning.code = 0
    w.look(2)
    assert w.stage() == (Stage.SHADOW, 1)
    w.ask(199, stage=Stage.SHADOW)
    w.look(2)
    assert w.stage() == (Stage.SHADOW, 1)
    w.ask(1, stage=Stage.SHADOW)
    w.look(2)
    assert w.stage() == (Stage.CANARY, 1)
    w.look()
    canary(w, 600)
    w.look(2)
    assert w.stage() == (Stage.CANARY, 1), "the tail is not proven"
    canary(w, 190, score=0.55)
    w.look(2)
    assert w.stage() == (Stage.CANARY, 1)
    assert w.told("tail") == []
    canary(w, 190, score=0.55)
    w.look(3)
    assert "tail error of at most 50% promised, on 200 labels in the band" in w.told("tail")[0]
    assert w.stage() == (Stage.LIVE, 1)
    w.look(3)
    assert len(w.told("tail")) == 1
    assert [what.split(":")[0] for what in w.told("stage")] == ["t@1 put shadow", "t@1 put canary", "t@1 put live"]


def test_looks_at_the_tail_double(world: Make) -> None:
    w = world(t=Policy(max_error=0.05, audit=0.3, max_tail_error=0.3))
    w.release()
    w.put(Stage.SHADOW)
    w.look()
    for size, labels in ((200, 210), (400, 200), (800, 400)):
        w.ask(labels, stage=Stage.SHADOW, scores=(0.55,), wrong=0.3)
        w.look(3)
        assert watches.tails(w.home, "t")[-1][1:] == (size, False)
    assert [row[2] for row in w.raw.execute("SELECT task, attempt, delta FROM tails ORDER BY 2")] == [
        attempt_delta(0.05, k) for k in (1, 2, 3)
    ]


def test_a_narrow_band_is_looked_at_however_much_traffic_that_takes(
    world: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evidence, "MOST", 300)
    w = world(t=Policy(max_error=0.05, max_tail_error=0.5))
    w.release()
    w.put(Stage.SHADOW)
    w.look()
    w.ask(400, stage=Stage.SHADOW, scores=(0.9,))
    w.ask(200, stage=Stage.SHADOW, scores=(0.55,))
    w.look(2)
    assert "on 200 labels in the band" in w.told("tail")[0]


def test_manual_stays_manual(world: Make) -> None:
    w = world()
    w.release()
    w.ask(2000, stage=Stage.OBSERVE, scores=(0.1,))
    w.look(3)
    assert w.stage() == (Stage.OBSERVE, 1) and w.learning.started == []
    w.put(Stage.SHADOW)
    w.ask(500, stage=Stage.SHADOW)
    w.look(3)
    assert w.stage() == (Stage.SHADOW, 1)


@pytest.mark.parametrize("everything", [True, False])
@pytest.mark.parametrize("stage", [Stage.SHADOW, Stage.CANARY, Stage.LIVE])
def test_what_a_person_puts_to_observe_stays_there(world: Make, stage: Stage, everything: bool) -> None:
    w = world(t=AUTO)
    w.live(stage=stage)
    if everything:
        releases.stop_all(w.home, Stage.OBSERVE)
    else:
        w.put(Stage.OBSERVE)
    w.look(2)
    w.ask(500, stage=Stage.SHADOW)
    w.look(3)
    w.wall = 0
    w.release()  # a person may learn; by itself nothing follows from it
    w.look(3)
    assert w.stage()[0] is Stage.OBSERVE


def test_the_kill_switch_wins_over_a_step_that_is_being_taken(world: Make) -> None:
    w = world(t=AUTO)
    w.release()
    real = releases.move

    def late(*arguments: Any) -> bool:
        releases.stop_all(w.home, Stage.OBSERVE)  # moves nothing: it is there already
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(releases, "move", late)
        w.look()
    w.look(3)
    assert w.stage() == (Stage.OBSERVE, 1)


def test_an_old_kill_switch_does_not_hold_a_new_task(world: Make) -> None:
    w = world(t=AUTO, u=AUTO)
    w.release("t")
    releases.stop_all(w.home, Stage.OBSERVE)
    w.release("u")
    w.look(2)
    assert (w.stage("t")[0], w.stage("u")[0]) == (Stage.OBSERVE, Stage.SHADOW)


# ---------------------------------------------------------------------------------------------- learning


def observed(w: World, count: int, task: str = "t") -> None:
    w.ask(count, task, stage=Stage.OBSERVE, scores=(0.1,))


def ended(w: World, code: int, task: str = "t", labelled: int | None = None, since: float | None = None) -> None:
    if labelled is not None:
        releases.add_run(w.home, task, "key", code, {"labelled": labelled, "since": since})
    w.learning.code = code
    w.look(2)


def test_learning_is_tried_again_when_half_as_many_more_are_there(world: Make) -> None:
    w = world(t=AUTO)
    releases.ensure_task(w.home, "t")
    observed(w, 200)
    w.look(3)
    assert len(w.learning.started) == 1
    ended(w, 1, labelled=200)
    observed(w, 99)
    w.look(3)
    assert len(w.learning.started) == 1
    w.restart()
    w.look(3)
    assert w.learning.started == [], "a new keeper knows it too"
    observed(w, 1)
    w.look(3)
    assert len(w.learning.started) == 1


def test_a_run_that_breaks_off_is_not_tried_again_at_once(world: Make) -> None:
    w = world(t=AUTO)
    releases.ensure_task(w.home, "t")
    observed(w, 200)
    w.look(3)
    ended(w, 2)
    observed(w, 50)
    w.look(5)
    assert len(w.learning.started) == 1


def test_one_run_at_a_time(world: Make) -> None:
    w = world(t=AUTO, u=AUTO)
    for name in "tu":
        releases.ensure_task(w.home, name)
        observed(w, 300, name)
    w.look(5)
    assert w.learning.started == [("t", None)]
    ended(w, 1, labelled=300)
    w.look(3)
    assert w.learning.started == [("t", None), ("u", None)]


def test_after_a_failed_recovery_it_is_learned_on_the_new_traffic_and_starts_in_the_shadow(world: Make) -> None:
    w = world(t=AUTO)
    w.live()
    alarmed(w)
    closed = watches.last_watch(w.home, "t")
    assert closed is not None
    releases.add_run(w.home, "t", "old", 0, {"labelled": 5000, "since": None})
    w.wall += 10
    after(w, 1502, wrong=0.5)
    w.look(6)
    assert w.learning.started == [("t", closed.closed_at)], "what an earlier run had does not count"
    w.release()
    w.restart()  # killed while the run went on: the release is all there is
    w.look(2)
    assert w.stage() == (Stage.SHADOW, 2)


def test_a_release_from_before_the_alarm_is_no_way_back(world: Make) -> None:
    w = world(t=AUTO)
    w.live()
    w.release()
    alarmed(w)
    w.look(3)
    assert w.stage() == (Stage.REVOKED, 1)


# ---------------------------------------------------------------------------------------------- its cost


def test_twenty_thousand_steps_in_one_look(world: Make, capsys: pytest.CaptureFixture[str]) -> None:
    w = world()
    w.live()
    state = w.state()
    for i in range(100):
        stamp = watch.stamp((0.001 * i, 0.0, 0.0))
        state = msgspec.structs.replace(state, stakes=watch.unstamped(stamp))
        records.insert(
            w.raw,
            [
                Row(id=f"s{i}-{j}", at=0, source="live", task="t", route="specialist", reason="accepted",
                    stage="live", watch=1, coin=0.05, audited=j % 20 == 0, stakes=stamp, predicted='"a"')
                for j in range(200)
            ],
        )  # fmt: skip
    w.raw.executemany("INSERT INTO audits (record, at, answer) VALUES (?, 0, ?)",
                      [(f"s{i}-{j}", completion("a")) for i in range(100) for j in range(0, 200, 20)])  # fmt: skip
    w.raw.commit()
    began = time.perf_counter()
    w.keeper.look()
    took = time.perf_counter() - began
    w.keeper.look()
    assert (w.state().steps, w.state().settled) == (20_000, 1000)
    with capsys.disabled():
        print(f"\n20,000 steps, 1,000 audits: {took:.2f} s")
    assert took < 2, "1 s on a machine of its own"


def test_fifty_idle_tasks_cost_next_to_nothing(world: Make, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"t{i}" for i in range(50)]
    w = world(**dict.fromkeys(names, AUTO))
    for i, name in enumerate(names):
        w.release(name)
        w.put([Stage.LIVE, Stage.CANARY, Stage.SHADOW, Stage.OBSERVE, Stage.REVOKED][i % 5], name)
    w.look(3)
    w.ask(5000, "t2", stage=Stage.SHADOW)
    w.look(3)
    assert w.stage("t2")[0] is Stage.CANARY
    for _ in range(60):
        w.look()
    began, looks = time.process_time(), 50
    for _ in range(looks):
        w.now += LOOK_S
        w.keeper.look()
    share = (time.process_time() - began) / (looks * LOOK_S)
    with capsys.disabled():
        print(f"\n50 idle tasks: {100 * share:.2f}% of a core")
    assert share < 0.02


def test_alerts_are_told_after_they_are_written(world: Make) -> None:
    w = world()

    def alert(event: Event) -> None:
        connection = sqlite3.connect(w.home.db_path)
        assert connection.execute("SELECT 1 FROM events WHERE what = ?", (event.what,)).fetchall()
        connection.close()
        w.alerts.append(event)

    w.keeper._teller._alert = alert
    w.live()
    alarmed(w)
    assert w.alerts
