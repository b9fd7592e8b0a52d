"""`suffice records`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import click

from suffice.cli import common
from suffice.store import records
from suffice.store.records import Row


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
        task=task,
        route=route,
        reason=reason,
        since=since,
        until=until,
        ids=ids or None,
        limit=limit or (None if as_json else 20),
    )
    if as_json:
        for row, trusted in found:
            common.emit(records.document(row, trusted))
        return 0
    rows = [_cells(row) for row, _ in found]
    head = ["at (UTC)", "id", "task", "route", "reason", "status", "ms", "tokens", "usd"]
    click.echo(common.table([head, *rows]) if rows else "no records")
    return 0


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
