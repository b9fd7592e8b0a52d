"""`suffice records`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import common
from suffice.store import patterns, records, watches
from suffice.store.records import Row, Trusted
from suffice.store.watches import Audit

BATCH = 500


@click.command()
@click.option("--task", help="Only this task's.")
@click.option("--route", help="Only these: specialist, frontier, an upstream's name, none.")
@click.option("--reason", help="Only these: accepted, no_task, below_threshold, ...")
@click.option("--since", type=float, help="From this time on (seconds since 1970).")
@click.option("--until", type=float, help="Before this time.")
@click.option("--id", "ids", multiple=True, help="This record; may be given again.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest N.")
@common.everywhere
def command(
    task: str | None,
    route: str | None,
    reason: str | None,
    since: float | None,
    until: float | None,
    ids: tuple[str, ...],
    limit: int | None,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Query records, oldest first. With --json every record whole, as JSON Lines; else the newest 20 as a table."""
    home = common.opened(folder, common.configured(folder, config_file))
    found = records.query(
        home,
        task=patterns.today(home, task) if task is not None else None,
        route=route,
        reason=reason,
        since=since,
        until=until,
        ids=ids or None,
        limit=limit or (None if as_json else 20),
    )
    if as_json:
        for some in _batches(found):
            audits = watches.get_audits(home, [row.id for row, _ in some if row.audited])
            for row, trusted in some:
                common.emit({**records.document(row, trusted), "audit": _audit(audits.get(row.id))})
        return 0
    rows = [_cells(row) for row, _ in found]
    head = ["at (UTC)", "id", "task", "route", "reason", "status", "ms", "tokens", "usd"]
    click.echo(common.table([head, *rows]) if rows else "no records")
    return 0


def _batches(found: Iterator[tuple[Row, Trusted | None]]) -> Iterator[list[tuple[Row, Trusted | None]]]:
    """The rows some at a time."""
    while some := list(islice(found, BATCH)):
        yield some


def _audit(audit: Audit | None) -> dict[str, Any] | None:
    """What came of the record's audit: the frontier's answer, or why there is none."""
    if audit is None:
        return None
    told = msgspec.structs.asdict(audit)
    del told["record"]
    return {**told, "answer": records.body(audit.answer)}


def _cells(row: Row) -> list[str]:
    tokens = None if row.prompt_tokens is None else f"{row.prompt_tokens}+{row.completion_tokens}"
    return [
        datetime.fromtimestamp(row.at, UTC).strftime("%m-%d %H:%M:%S"),
        row.id,
        row.task or "-",
        row.route,
        row.reason,
        str(row.status or "-"),
        f"{row.latency_ms:.1f}" if row.latency_ms is not None else "-",
        (tokens or "-") + ("~" if row.tokens_estimated else ""),
        f"{row.cost_usd:.6f}" if row.cost_usd is not None else "-",
    ]
