"""Which task a server finds for a request that names none, and what it does where a rule, a matcher or a specialist
fails."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from suffice.core.config import Config
from suffice.core.errors import ArtefactError
from suffice.core.match import Rule
from suffice.core.prompt import Template
from suffice.core.protocols import Specialist
from suffice.core.style import Style
from suffice.core.types import (
    Certificate,
    Choice,
    Draft,
    Estimate,
    Message,
    Policy,
    Prediction,
    Reason,
    Recipe,
    Release,
    Report,
    Request,
    Stage,
    Tail,
    Threshold,
)
from suffice.serve.roster import Roster
from suffice.store import patterns, releases
from suffice.store.home import Home
from suffice.store.releases import Serving, Stored

HELPFUL = Rule(head=(("system", Template(("You are a helpful assistant.",))),))


class ByFirstWord:
    """Knows texts by their first word; "odd" breaks it."""

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        if any(text.startswith("odd") for text in inputs):
            raise ValueError("a text that it cannot read")
        groups = {"sum": "g0"}
        return [Prediction(value=groups.get(text.split(" ")[0], "-"), score=0.9, familiar=True) for text in inputs]


def no_release(stored: Stored) -> Specialist:
    raise AssertionError(stored.name)


def gone(digest: str) -> Specialist:
    raise OSError(f"{digest} is gone")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    """A prompt whose task was found before it was divided: what is of no part is that task's still."""
    home = Home(tmp_path / "home")
    prompt = patterns.add_rule(home, HELPFUL, 1.0)
    part = patterns.add_group(home, prompt, "g0", 1.0)
    patterns.set_matcher(home, prompt, "digest", 0.5)
    patterns.assign(home, [prompt], "talk")
    patterns.assign(home, [part], "sums")
    return home


def asked(text: str) -> Request:
    return Request(model="m", messages=(Message("system", "You are a helpful assistant."), Message("user", text)))


def task(roster: Roster, text: str) -> tuple[str | None, str | None]:
    routed, rule = roster.matched(asked(text))
    return routed.name if routed is not None else None, rule


def test_a_matcher_that_fails_makes_the_request_no_tasks(home: Home) -> None:
    roster = Roster(home, Config(), no_release, lambda digest: ByFirstWord())
    roster.open()
    assert task(roster, "sum 1 and 2") == ("sums", "meaning:2")
    assert task(roster, "hello") == ("talk", "fingerprint:1")
    assert task(roster, "odd") == (None, None)
    assert roster.faults == 1
    roster.close()


def test_without_its_matcher_a_prompt_tells_no_task(home: Home) -> None:
    roster = Roster(home, Config(), no_release, gone)
    roster.open()
    assert task(roster, "sum 1 and 2") == (None, None)
    assert task(roster, "hello") == (None, None), "it may be of any of the works that share the prompt"
    assert roster.faults == 1
    roster.close()


async def test_new_rules_are_taken_over_and_a_new_name_makes_none(home: Home) -> None:
    roster = Roster(home, Config(), no_release, lambda digest: ByFirstWord())
    roster.open()
    patterns.rename(home, "sums", "additions")
    roster._look(roster._state())
    assert task(roster, "sum 1 and 2") == ("additions", "meaning:2")
    patterns.assign(home, [patterns.add_rule(home, msgspec.structs.replace(HELPFUL, containing="1"), 1.0)], "ones")
    roster._look(roster._state())
    assert task(roster, "sum 1 and 2") == ("additions", "meaning:2"), "until its rules are made, those of before tell"
    await roster._make()
    assert task(roster, "sum 1 and 2") == ("ones", "template:3")
    assert list(releases.all_tasks(home)) == ["additions", "ones", "talk"]
    roster.close()


# ---------------------------------------------------------------------------------------------- its specialists


class Says:
    """Answers "a", after `seconds`."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        time.sleep(self.seconds if inputs != [""] else 0)
        return [Prediction(value="a", score=0.9) for _ in inputs]


def released(home: Home, task: str, p50_ms: float) -> Stored:
    share = Estimate(value=0.9, low=0.8, high=1.0, n=10)
    certificate = Certificate(
        max_error=0.02, confidence=0.95, attempt=1, delta=0.025, n=10, method="m", p_value=0.01, threshold=0.5,
        coverage=0.9, promise="agreement", reference="frontier",
    )  # fmt: skip
    release = Release(
        draft=Draft(
            task=task, recipe=Recipe(family="any"), contract=Choice(("a",)), dataset="d", artefact="gone",
            threshold=Threshold(score=0.5, certificate=certificate),
        ),
        tail=Tail(promised=False, max_tail_error=0.2, error=share, labels_missing=1),
        report=Report(
            accuracy=share, coverage=share, accepted_error=share, frontier_error=None, worse=None,
            unseen_coverage=share, unseen_error=share, latency_p50_ms=p50_ms, latency_p99_ms=2 * p50_ms,
        ),
    )  # fmt: skip
    releases.ensure_task(home, task)
    style = Style(labels={'"a"': "Label a"})
    return releases.add_release(home, task, release, Serving(prompt=None, style=style), f"{task} {p50_ms}")


async def test_a_slow_specialist_is_a_timeout_and_told_once(home: Home, caplog: pytest.LogCaptureFixture) -> None:
    released(home, "talk", 20.0)
    releases.set_stage(home, "talk", Stage.LIVE, 1)
    slow = Says(0.2)
    roster = Roster(home, Config(policy=Policy(max_latency_ms=20)), lambda one: slow, lambda digest: ByFirstWord())
    roster.open()
    for _ in range(2):
        assert await roster.predict(roster.tasks["talk"], "x") is Reason.TIMEOUT
    assert [record.getMessage() for record in caplog.records if "talk" in record.getMessage()] == [
        "release talk@1 gave no answer within 20 ms, the request escalates"
    ]
    slow.seconds = 0.0
    async with asyncio.timeout(5):
        while isinstance(found := await roster.predict(roster.tasks["talk"], "x"), Reason):
            await asyncio.sleep(0.01)
    assert found[1].content == "Label a"
    roster.close()


async def test_a_release_that_cannot_be_loaded_is_a_fault_until_there_is_another(home: Home) -> None:
    released(home, "talk", 1.0)
    releases.set_stage(home, "talk", Stage.LIVE, 1)

    def load(one: Stored) -> Specialist:
        if one.n == 1:
            raise ArtefactError("not whole")
        return Says()

    roster = Roster(home, Config(), load, lambda digest: ByFirstWord())
    roster.open()
    assert roster.broken(roster.tasks["talk"]) and roster.faults == 1
    released(home, "talk", 1.1)
    releases.set_stage(home, "talk", Stage.LIVE, 2)
    roster._look(roster._state())
    assert not roster.broken(roster.tasks["talk"])
    found = await roster.predict(roster.tasks["talk"], "x")  # it is loaded now, since somebody asks
    assert not isinstance(found, Reason) and found[0].value == "a"
    roster.close()


async def test_what_a_start_has_no_time_to_load_is_loaded_while_it_serves(home: Home) -> None:
    for name in ("talk", "sums"):
        released(home, name, 1.0)
        releases.set_stage(home, name, Stage.LIVE, 1)
    hours = itertools.count(step=3_600)
    roster = Roster(home, Config(), lambda one: Says(), lambda digest: ByFirstWord(), lambda: float(next(hours)))
    roster.open()
    assert len(roster.shelf) == 0
    running = asyncio.ensure_future(roster.run())
    async with asyncio.timeout(5):
        while len(roster.shelf) < 2:
            await asyncio.sleep(0.01)
    running.cancel()
    roster.close()
