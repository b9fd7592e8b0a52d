"""`suffice tasks`: the list, and what people decide about tasks."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import click

from suffice.cli import common
from suffice.cli.discover_command import VERDICTS, shortened
from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.store import patterns, records, releases
from suffice.store.home import Home

SHOWN_CONTRACT = 28
SHOWN_FIXED = 60


@click.group(invoke_without_command=True)
@common.everywhere
@click.pass_context
def command(ctx: click.Context, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """List the tasks: stage, release, records, the share that a specialist answers, what discovery found.

    With a command, decide about one; discovery never undoes it. A name that a task had goes on naming it.
    """
    if ctx.invoked_subcommand is not None:
        # `suffice tasks --home DIR rename A B` means what `suffice tasks rename A B --home DIR` does.
        given = {"folder": folder, "config_file": config_file, "as_json": as_json}
        ctx.default_map = {ctx.invoked_subcommand: given}
        return 0
    home = common.opened(folder, common.configured(folder, config_file))
    found = listed(home)
    if as_json:
        common.emit({"tasks": found})
    elif not found:
        click.echo(
            "no tasks yet: `suffice discover` finds them in what was recorded; or send requests with the header "
            "X-Suffice-Task, or `suffice learn NAME --data FILE`"
        )
    else:
        head = ["task", "stage", "release", "records", "share", "by specialist", "answers", "verdict", "was"]
        click.echo(common.table(_kept([head, *map(_cells, found)])))
    return 0


def listed(home: Home) -> list[dict[str, Any]]:
    """Every task with what is known of it; `contract`, in words, and `verdict` are None before discovery."""
    counts, found, total = records.counts(home), patterns.documents(home), patterns.count_records(home)
    names: defaultdict[str, list[str]] = defaultdict(list)
    for old, today in sorted(patterns.aliases(home).items()):
        names[today].append(old)
    own: defaultdict[str, list[bool]] = defaultdict(list)
    for pattern in patterns.all_patterns(home):
        if pattern.task is not None:
            own[pattern.task].append(pattern.ignored)
    tasks: list[dict[str, Any]] = []
    for task in releases.all_tasks(home).values():
        count = counts.get(task.name, {"records": 0, "specialist": 0})
        tasks.append(
            {
                "name": task.name,
                "stage": task.stage,
                "release": f"{task.name}@{task.release}" if task.release else None,
                **count,
                "share": count["records"] / total if total else 0.0,
                "contract": found.get(task.name, {}).get("contract_told"),
                "verdict": found.get(task.name, {}).get("verdict"),
                "ignored": bool(own[task.name]) and all(own[task.name]),
                "names": names[task.name],
            }
        )
    return tasks


def _cells(task: dict[str, Any]) -> list[str]:
    return [
        *(str(task[key] or "-") for key in ("name", "stage", "release")),
        f"{task['records']:,}",
        f"{task['share']:.0%}",
        f"{task['specialist']:,}",
        shortened(task["contract"] or "-", SHOWN_CONTRACT),
        "ignored" if task["ignored"] else VERDICTS.get(task["verdict"] or "", "-"),
        ", ".join(task["names"]) or "-",
    ]


def _kept(rows: list[list[str]]) -> list[list[str]]:
    """Without the columns of discovery in which nothing stands."""
    empty = {i for i in range(6, len(rows[0])) if all(row[i] == "-" for row in rows[1:])}
    return [[cell for i, cell in enumerate(row) if i not in empty] for row in rows]


# ---------------------------------------------------------------------------------------------- decisions


@command.command()
@click.argument("old")
@click.argument("new")
@common.everywhere
def rename(old: str, new: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Give task OLD the name NEW. Requests and records with the old name are still its own."""
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    task, name = _task(home, old), _new(new)
    patterns.rename(home, task, name)
    note = _left_in_settings(settings, folder, config_file, task, name)
    _tell({"task": name, "was": task, "note": note}, f"{task} is now {name}", as_json)
    return 0


@command.command()
@click.argument("task")
@click.argument("into")
@common.everywhere
def merge(task: str, into: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Make TASK part of INTO. The name of TASK goes on naming the whole."""
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    gone, whole = _task(home, task), _task(home, into)
    patterns.merge(home, gone, whole)
    note = _left_in_settings(settings, folder, config_file, gone, whole)
    _tell({"task": whole, "merged": gone, "note": note}, f"{gone} is part of {whole} now", as_json)
    return 0


@command.command()
@click.argument("task")
@click.option("--as", "name", required=True, metavar="NEW", help="The name of the part.")
@click.option("--pattern", "ids", type=int, multiple=True, metavar="N", help="This one of its prompts; again for more.")
@click.option("--containing", metavar="TEXT", help="The requests that contain this text, as it is written.")
@common.everywhere
def split(
    task: str,
    name: str,
    ids: tuple[int, ...],
    containing: str | None,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Make a part of TASK a task of its own.

    The part is some of its prompts (--pattern), or the requests that contain a text (--containing).
    """
    from suffice.learn import decisions

    if bool(ids) == (containing is not None):
        raise InputError("split takes --pattern N (`suffice tasks prompts TASK` lists them) or --containing TEXT")
    if containing is not None and not containing.strip():
        raise InputError("--containing takes a text that is not empty")
    home = common.opened(folder, common.configured(folder, config_file))
    whole, part = _task(home, task), _new(name)
    if containing is not None:
        moved = decisions.split_containing(home, whole, containing, part, time.time)
    else:
        moved = decisions.split(home, whole, ids, part)
    _tell(
        {"task": whole, "split": part, "records": moved},
        f"{part} is a task of its own now, with {moved:,} records of {whole}; `suffice discover` judges both",
        as_json,
    )
    return 0


@command.command()
@click.argument("task")
@common.everywhere
def ignore(task: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Leave the traffic of TASK alone.

    It is relayed and recorded as traffic that belongs to no task.
    """
    return _ignore(task, folder, config_file, as_json, True)


@command.command()
@click.argument("task")
@common.everywhere
def unignore(task: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Ignore TASK no longer."""
    return _ignore(task, folder, config_file, as_json, False)


@command.command()
@click.argument("task")
@common.everywhere
def prompts(task: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """List what the requests of TASK are told by."""
    from suffice.learn import decisions

    home = common.opened(folder, common.configured(folder, config_file))
    name = _task(home, task)
    found = decisions.prompts(home, name)
    if as_json:
        common.emit({"task": name, "prompts": found})
    elif not found:
        click.echo(f"nothing is known yet of what the requests of {name} have in common: run `suffice discover`")
    else:
        rows = [["pattern", "told", "records", "fixed text"]]
        rows += [[str(one["id"]), one["told"], f"{one['records']:,}", _fixed(one)] for one in found]
        click.echo(common.table(rows))
    return 0


def _fixed(prompt: dict[str, Any]) -> str:
    """What is fixed in a prompt, in a few words."""
    if prompt["label"] is not None:
        return f"X-Suffice-Task: {prompt['label']}"
    text = " ".join(prompt["fixed"].split()) or "-"
    text = text if len(text) <= SHOWN_FIXED else text[: SHOWN_FIXED - 1].rstrip() + "…"
    return text + (f" (containing {prompt['containing']!r})" if prompt["containing"] else "")


def _ignore(task: str, folder: Path, config_file: Path | None, as_json: bool, ignored: bool) -> int:
    home = common.opened(folder, common.configured(folder, config_file))
    name = _task(home, task)
    patterns.ignore(home, name, ignored)
    told = f"ignored, until `suffice tasks unignore {name}`" if ignored else "no longer ignored"
    _tell({"task": name, "ignored": ignored}, f"{name} is {told}", as_json)
    return 0


def _task(home: Home, name: str) -> str:
    """An existing task, by a name that it has or had."""
    task, n = common.named(home, name)
    if n is not None:
        raise InputError(f"{name!r} is a release: leave @{n} out")
    known = releases.all_tasks(home)
    if task not in known:
        raise InputError(f"there is no task {name!r}; known: {', '.join(known) or 'none'}")
    return task


def _new(name: str) -> str:
    """A name for a task."""
    task, n = common.task_and_release(name)
    if n is not None:
        raise InputError(f"{name!r} is no name for a task: @N tells a release")
    return task


def _left_in_settings(settings: Config, folder: Path, config_file: Path | None, old: str, new: str) -> str | None:
    """What is still to be done in the settings after a task has another name."""
    if old not in settings.tasks:
        return None
    path = common.config_path(folder, config_file)
    there = f"and there is [tasks.{new}] too" if new in settings.tasks else f"make it [tasks.{new}]"
    return f"{path} still has [tasks.{old}], whose policy counts no longer: {there}"


def _tell(document: dict[str, Any], sentence: str, as_json: bool) -> None:
    if as_json:
        common.emit(document)
        return
    click.echo(sentence)
    if document.get("note"):
        click.echo(document["note"])
