"""`suffice import`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from suffice.cli import common
from suffice.core.errors import InputError
from suffice.learn import imports
from suffice.store import records, releases
from suffice.store.home import Home

SHOWN = 20


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--task", help="The task of rows that name none.")
@common.everywhere
def command(file: Path, task: str | None, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Import recorded traffic or labelled text: JSON Lines ({"request", "response"} or {"input", "output"}) or CSV.

    A bad line is reported and left out, the good ones are kept; importing a file again changes nothing.
    """
    settings = common.configured(folder, config_file)
    if task is not None and common.task_and_release(task)[1] is not None:
        raise InputError(f"--task names a task, not a release: {task}")
    told = import_file(common.opened(folder, settings, must_exist=False), file, task)
    if as_json:
        common.emit(told)
    else:
        known = f", {told['known']:,} known already" if told["known"] else ""
        click.echo(f"{file}: {told['imported']:,} rows imported{known}")
    return 0


def import_file(home: Home, file: Path, task: str | None) -> dict[str, Any]:
    """Import a file; bad lines go to stderr. Raises InputError if not one line is good."""
    parsed = imports.parse(file, task, time.time())
    for bad in parsed.bad[:SHOWN]:
        click.echo(f"suffice: {file}: line {bad.line}: {bad.reason}", err=True)
    if len(parsed.bad) > SHOWN:
        click.echo(f"suffice: {file}: and {len(parsed.bad) - SHOWN:,} more bad lines", err=True)
    if not parsed.rows:
        raise InputError(f"{file}: not one of its {len(parsed.bad):,} lines can be used")
    for name in sorted({row.task for row in parsed.rows if row.task is not None}):
        releases.ensure_task(home, name)
    new, known = records.import_rows(home, parsed.rows, parsed.trusted)
    bad_lines = [{"line": bad.line, "reason": bad.reason} for bad in parsed.bad]
    return {"file": str(file), "imported": new, "known": known, "bad": bad_lines}
