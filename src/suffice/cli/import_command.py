"""`suffice import`."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from suffice.cli import common
from suffice.core.errors import InputError, StoreError
from suffice.learn import formats, imports
from suffice.learn.imports import Cost, Line, Reading, Source
from suffice.plan.prices import Prices
from suffice.store import imports as store
from suffice.store import releases
from suffice.store.home import Home
from suffice.store.imports import START, Batches, Place
from suffice.store.records import Row, Trusted

SHOWN = 20
LISTED = 10_000
BATCH_ROWS = 1_000
BATCH_BYTES = 16 * 2**20
"""A batch is committed when it holds this much: rows may be of any size."""


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--task", help="The task of rows that name none.")
@click.option(
    "--format", "form", type=click.Choice(list(formats.KNOWN)), help="What all lines are in [told by their keys]."
)
@click.option("--by-user", is_flag=True, help="Rows of one user are one group, where the log names users.")
@common.everywhere
def command(
    file: Path,
    task: str | None,
    form: str | None,
    by_user: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Import recorded traffic or labelled text: JSON Lines, JSON or CSV, plain or gzip'd.

    Taken are {"request", "response"} or {"input", "output"}, records of another home, OpenAI's stored completions and
    fine-tuning files, and the logs of LiteLLM and Langfuse.

    A bad line is reported and left out, the good ones are kept; importing a file again changes nothing, and goes on
    where it was interrupted.
    """
    settings = common.configured(folder, config_file)
    if task is not None and common.task_and_release(task)[1] is not None:
        raise InputError(f"--task names a task, not a release: {task}")
    home = common.opened(folder, settings, must_exist=False)
    told = import_file(home, file, task, form=form, by_user=by_user, cost=Prices(settings.prices).usd)
    if as_json:
        common.emit(told)
    else:
        for reason, count in told["left_out"].items():
            click.echo(f"left out: {count:,} ({reason})")
        if told["resumed_after"] is not None:
            click.echo(f"went on after line {told['resumed_after']:,}, where the last import stopped")
        known = f", {told['known']:,} known already" if told["known"] else ""
        click.echo(f"{file}: {told['imported']:,} rows imported{known}")
    return 0


def import_file(
    home: Home,
    file: Path,
    task: str | None,
    *,
    form: str | None = None,
    by_user: bool = False,
    cost: Cost | None = None,
) -> dict[str, Any]:
    """Import a file, batch by batch; bad lines go to stderr. Raises InputError if not one line is good.

    `cost` prices calls of which the file tells no cost; without it they have none. Where an earlier import of the same
    content was interrupted, this one goes on after its last batch (a format given by name starts again).
    """
    tally = _Tally()
    source = imports.examine(file, lambda share: tally.bar(f"reading {file.name}", share))
    stopped = store.unfinished(home, source.digest, task)
    now = store.began(home, source.digest) if stopped is not None else None
    stopped = stopped if form is None else None
    reading = Reading(task=task, now=now or time.time(), format=form, cost=cost, by_user=by_user)
    try:
        _import(home, source, reading, stopped or START, tally)
    except (KeyboardInterrupt, StoreError) as error:
        where = f"{tally.imported:,} rows are imported, up to line {tally.place.line:,}; the next import goes on there"
        if isinstance(error, StoreError):
            raise StoreError(f"{error} ({where})") from error
        tally.bar.close()
        _show(file, tally)
        click.echo(f"suffice: {file}: {where}", err=True)
        raise
    finally:
        tally.bar.close()
    if not tally.rows and stopped is None:
        if tally.bad_lines and tally.strange == tally.bad_lines:
            raise imports.unknown(file, "the first line has the keys", tally.keys)
        _show(file, tally)
        raise InputError(
            f"{file}: not one of its {tally.bad_lines + tally.left_out.total():,} lines can be used"
            if tally.bad_lines or tally.left_out
            else f"{file}: the file is empty"
        )
    _show(file, tally)
    return {
        "file": str(file),
        "format": ", ".join(sorted(tally.formats)),
        "imported": tally.imported,
        "known": tally.rows - tally.imported,
        "bad": tally.bad,
        "bad_lines": tally.bad_lines,
        "left_out": dict(tally.left_out),
        "resumed_after": stopped.line if stopped is not None else None,
    }


@dataclass
class _Tally:
    """What came of the lines so far. `bad` holds the first of them, `bad_lines` counts them all."""

    bar: common.Bar = field(default_factory=common.Bar)
    place: Place = START
    rows: int = 0
    imported: int = 0
    formats: set[str] = field(default_factory=set)
    bad: list[dict[str, Any]] = field(default_factory=list)
    bad_lines: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    strange: int = 0
    keys: list[str] = field(default_factory=list)

    def miss(self, line: Line) -> None:
        """Count a line that gave no row."""
        if line.skipped:
            self.left_out[line.reason] += 1
            return
        self.bad_lines += 1
        if line.strange:
            self.strange += 1
            self.keys = self.keys or line.strange
        if len(self.bad) < LISTED:
            self.bad.append({"line": line.line, "reason": line.reason})


def _import(home: Home, source: Source, reading: Reading, start: Place, tally: _Tally) -> None:
    """Read from a place on and commit; a batch, with the place where it ends, is on the disk or it is not."""
    tasks: set[str] = set()
    rows: list[Row] = []
    trusted: list[Trusted] = []
    held = 0
    place = start

    def commit(*, done: bool = False) -> None:
        for name in sorted({row.task for row in rows if row.task is not None} - tasks):
            releases.ensure_task(home, name)
            tasks.add(name)
        new, _ = batches.add(rows, trusted, place, done=done)
        tally.imported += new
        tally.rows += len(rows)
        tally.place = place
        tally.bar(f"{tally.rows:,} rows of {source.path.name}", place.offset / source.size)

    with Batches(home, source.path, source.digest, reading.task) as batches:
        for line in imports.read(source, reading, start):
            place = Place(line.line, line.offset)
            if line.row is None:
                tally.miss(line)
            else:
                rows.append(line.row)
                trusted += [line.trusted] if line.trusted is not None else []
                held += len(line.row.request or b"") + len(line.row.answer or b"")
                tally.formats.add(line.format or "")
            if len(rows) >= BATCH_ROWS or held >= BATCH_BYTES:
                commit()
                rows, trusted, held = [], [], 0
        if tally.rows or rows or start != START:
            commit(done=True)


def _show(file: Path, tally: _Tally) -> None:
    for bad in tally.bad[:SHOWN]:
        click.echo(f"suffice: {file}: line {bad['line']}: {bad['reason']}", err=True)
    if tally.bad_lines > SHOWN:
        click.echo(f"suffice: {file}: and {tally.bad_lines - SHOWN:,} more bad lines", err=True)
