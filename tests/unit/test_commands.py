"""What a body says becomes a command line that says the same and nothing else; processes that die come back."""

from __future__ import annotations

import sys
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.cli import remote
from suffice.cli.main import COMMANDS, suffice
from suffice.core.config import from_dict
from suffice.serve.commands import Command, Parameter, Wrong, line
from suffice.serve.reload import changes, needs_restart
from suffice.serve.run import RESTART_MOST_S, RESTART_S, Children

COMMAND = Command(
    path=("split",),
    summary="",
    help="",
    parameters=(
        Parameter(name="task", option=None, schema={"type": "string"}, required=True),
        Parameter(name="rest", option=None, schema={"type": "string"}, many=True),
        Parameter(name="text", option="--text", schema={"type": "string"}),
        Parameter(name="n", option="--n", schema={"type": "integer"}, many=True),
        Parameter(name="all", option="--all", schema={"type": "boolean"}),
    ),
)


@click.command()
@click.argument("task")
@click.argument("rest", nargs=-1)
@click.option("--text")
@click.option("--n", type=int, multiple=True)
@click.option("--all", "everything", is_flag=True)
def split(task: str, rest: tuple[str, ...], text: str | None, n: tuple[int, ...], everything: bool) -> None: ...


WORDS = st.text(max_size=20).filter(lambda text: "\0" not in text)


@given(WORDS, st.lists(WORDS, max_size=3), WORDS, st.lists(st.integers(-(2**62), 2**62), max_size=3), st.booleans())
def test_a_value_is_never_anything_but_that_value(
    task: str, rest: list[str], text: str, n: list[int], everything: bool
) -> None:
    body = {"task": task, "rest": rest, "text": text, "n": n, "all": everything}
    with split.make_context("split", line(COMMAND, body, Path("files"))) as context:
        told = context.params
    assert told == {"task": task, "rest": tuple(rest), "text": text, "n": tuple(n), "everything": everything}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "task"),
        ({"task": 1}, "task"),
        ({"task": "a", "n": [True]}, "n"),
        ({"task": "a", "n": [1.5]}, "n"),
        ({"task": "a", "n": 1}, "n"),
        ({"task": "a", "all": "yes"}, "all"),
        ({"task": "a\0b"}, "task"),
        ({"task": "a", "other": 1}, "other"),
        ({"task": "a" * 20_001}, "task"),
    ],
)
def test_a_body_that_cannot_be_taken_names_the_key(body: dict[str, object], param: str) -> None:
    with pytest.raises(Wrong) as raised:
        line(COMMAND, body, Path("files"))
    assert raised.value.param == param


def test_every_command_is_given_over_http_or_left_out_with_a_reason() -> None:
    given_over = {command.path[0] for command in remote.commands()}
    assert given_over | (set(remote.LEFT_OUT) & set(COMMANDS)) == set(COMMANDS)
    assert not given_over & set(remote.LEFT_OUT)
    with click.Context(suffice) as context:
        for command in remote.commands():
            found = suffice.get_command(context, command.path[0])
            for name in command.path[1:]:
                assert isinstance(found, click.Group)
                found = found.get_command(context, name)
            assert found is not None
            paths = [p.name for p in found.params if isinstance(p.type, click.Path) and p.name not in remote.EVERYWHERE]
            assert len(paths) == len([p for p in command.parameters if p.file is not None]), "no path of the server"


def test_what_changes_is_named_as_in_the_file() -> None:
    before = from_dict({"upstreams": {"a": {"base_url": "http://a/v1"}}}, "t")
    after = from_dict(
        {
            "upstreams": {"a": {"base_url": "http://b/v1"}},
            "policy": {"audit": 0.5},
            "records": {"slots": 9, "wait_s": 1},
            "server": {"drain_s": 1, "idle_s": 9},
        },
        "t",
    )
    changed = changes(before, after)
    assert changed == [
        "policy.audit", "records.slots", "records.wait_s", "server.drain_s", "server.idle_s", "upstreams.a.base_url",
    ]  # fmt: skip
    assert needs_restart(changed) == ["records.slots", "server.drain_s"]


def test_a_process_that_dies_again_and_again_is_started_ever_later() -> None:
    now = [0.0]
    children = Children([[sys.executable, "-c", ""]], None, clock=lambda: now[0])
    pauses: list[float] = []
    since = 0.0
    while len(pauses) < 7:
        child = children._running[0]
        child.wait()
        children.check(lambda: False)  # it sees that it has ended
        while children._running[0] is child:
            now[0] += 0.5
            children.check(lambda: False)
        pauses.append(now[0] - since)
        since = now[0]
    children._running[0].wait()
    assert pauses[0] == RESTART_S and pauses[1:4] == [2.0, 4.0, 8.0] and max(pauses) == RESTART_MOST_S
