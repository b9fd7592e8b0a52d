"""`suffice tasks`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from suffice.cli import common
from suffice.store import records, releases


@click.command()
@common.everywhere
def command(folder: Path, config_file: Path | None, as_json: bool) -> int:
    """List the tasks: stage, release, records, the share that a specialist answers."""
    home = common.opened(folder, common.configured(folder, config_file))
    counts = records.counts(home)
    found: list[dict[str, Any]] = [
        {
            "name": task.name,
            "stage": task.stage,
            "release": f"{task.name}@{task.release}" if task.release else None,
            **counts.get(task.name, {"records": 0, "specialist": 0}),
        }
        for task in releases.all_tasks(home).values()
    ]
    if as_json:
        common.emit({"tasks": found})
    elif not found:
        click.echo("no tasks yet: send requests with the header X-Suffice-Task, or `suffice learn NAME --data FILE`")
    else:
        head = ["task", "stage", "release", "records", "by specialist"]
        rows = [
            [str(task[key] or "-") for key in ("name", "stage", "release")]
            + [f"{task[key]:,}" for key in ("records", "specialist")]
            for task in found
        ]
        click.echo(common.table([head, *rows]))
    return 0
