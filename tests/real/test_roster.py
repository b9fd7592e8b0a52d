"""Which task a server finds for a request that names none, and what it does where a rule or a matcher fails."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from suffice.core.config import Config
from suffice.core.match import Rule
from suffice.core.prompt import Template
from suffice.core.protocols import Specialist
from suffice.core.types import Message, Prediction, Request
from suffice.serve.roster import Roster
from suffice.store import patterns, releases
from suffice.store.home import Home
from suffice.store.releases import Stored

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
