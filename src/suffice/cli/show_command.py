"""`suffice show`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import common
from suffice.core.contracts import told
from suffice.core.errors import InputError
from suffice.proof.judge import sentence
from suffice.store import records, releases
from suffice.store.home import Home
from suffice.store.releases import Stored


@click.command()
@click.argument("task")
@common.everywhere
def command(task: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Show TASK (its releases and its last run), or TASK@N (one release with its evidence)."""
    home = common.opened(folder, common.configured(folder, config_file))
    name, n = common.task_and_release(task)
    known = releases.all_tasks(home)
    if name not in known:
        raise InputError(f"there is no task {name!r}; known: {', '.join(known) or 'none'}")
    if n is None:
        document = _task(home, name)
    else:
        stored = releases.get_release(home, name, n)
        if stored is None:
            raise InputError(f"there is no release {task}")
        document = _release(stored)
    if as_json:
        common.emit(document)
    elif n is None:
        _tell_task(document)
    else:
        _tell_release(document)
    return 0


def _task(home: Home, name: str) -> dict[str, Any]:
    task = releases.all_tasks(home)[name]
    last = releases.last_run(home, name)
    return {
        "task": name,
        "stage": task.stage,
        "release": f"{name}@{task.release}" if task.release else None,
        **records.counts(home).get(name, {"records": 0, "specialist": 0}),
        "releases": [_release(stored) for stored in releases.all_releases(home, name)],
        "attempts": releases.attempts(home, name),
        "last_run": last[1] if last else None,
    }


def _release(stored: Stored) -> dict[str, Any]:
    release = stored.release
    document: dict[str, Any] = msgspec.to_builtins(release)
    return {
        "release": stored.name,
        "digest": stored.digest,
        "created_at": stored.created_at,
        "sentence": sentence(release),
        "contract": told(release.draft.contract),
        "reads": stored.prompt.told() if stored.prompt else "the last user message; pins its first live request",
        "prompt": msgspec.to_builtins(stored.prompt) if stored.prompt else None,
        **{key: document[key] for key in ("draft", "tail", "report")},
    }


def _tell_task(document: dict[str, Any]) -> None:
    click.echo(f"{document['task']}: {document['stage']}, release {document['release'] or 'none'}")
    click.echo(f"{document['records']:,} records, {document['specialist']:,} answered by a specialist")
    if document["releases"]:
        rows = [["release", "made", "recipe", "alone right", "coverage", "max error"]]
        for release in document["releases"]:
            made = datetime.fromtimestamp(release["created_at"], UTC).strftime("%Y-%m-%d %H:%M")
            report, certificate = release["report"], release["draft"]["threshold"]["certificate"]
            rows.append(
                [
                    release["release"],
                    made,
                    release["draft"]["recipe"]["family"],
                    common.share(report["accuracy"]),
                    common.share(report["coverage"]),
                    f"{100 * certificate['max_error']:g}%",
                ]
            )
        click.echo("\n" + common.table(rows))
    last = document["last_run"]
    if last and last["reasons"]:
        click.echo("\nthe last run released nothing:")
        for reason in last["reasons"]:
            click.echo(f"  - {reason}")


def _tell_release(document: dict[str, Any]) -> None:
    report = document["report"]
    tail = document["tail"]
    click.echo(f"{document['release']}  {document['digest'][:16]}\n\n{document['sentence']}\n")
    click.echo(f"answers        {document['contract']}\nreads          {document['reads']}")
    click.echo(f"alone right    {common.share(report['accuracy'])}\ncoverage       {common.share(report['coverage'])}")
    click.echo(f"accepted wrong {common.share(report['accepted_error'])} of all requests")
    click.echo(f"frontier wrong {common.share(report['frontier_error'])}")
    proven = "promised" if tail["promised"] else f"not yet proven, {tail['labels_missing']:,} more labels in the band"
    click.echo(f"tail           {common.share(tail['error'])}, at most {100 * tail['max_tail_error']:g}%: {proven}")
    click.echo(f"latency        p50 {report['latency_p50_ms']:.2f} ms, p99 {report['latency_p99_ms']:.2f} ms")
