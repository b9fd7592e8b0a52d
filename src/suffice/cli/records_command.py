"""`suffice records`."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import common
from suffice.core.config import Config
from suffice.core.values import Value
from suffice.serve.mistakes import Mistake, mistakes
from suffice.store import dropping, exports, patterns, records, watches
from suffice.store.dropping import Dropped
from suffice.store.home import Home
from suffice.store.records import Row, Trusted
from suffice.store.watches import Audit

BATCH = 500


@click.command()
@click.option("--task", help="Only this task's.")
@click.option("--route", help="Only these: specialist, frontier, an upstream's name, none.")
@click.option("--reason", help="Only these: accepted, no_task, below_threshold, ...")
@click.option("--key", help="Only those that this virtual key asked.")
@click.option("--model", help="Only those that asked for this model.")
@click.option("--upstream", help="Only those that this upstream answered, or should have.")
@click.option("--errors", is_flag=True, help="Only those known to be wrong, with whose mistake it was.")
@click.option("--since", type=float, help="From this time on (seconds since 1970).")
@click.option("--until", type=float, help="Before this time.")
@click.option("--id", "ids", multiple=True, help="This record; may be given again.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the newest N.")
@click.option("--export", "file", type=click.Path(path_type=Path), help="To this .parquet or .jsonl file, all of them.")
@click.option("--purge", is_flag=True, help="Drop now what is older than `keep_days` of [records] and [tasks.NAME].")
@common.everywhere
def command(
    task: str | None,
    route: str | None,
    reason: str | None,
    key: str | None,
    model: str | None,
    upstream: str | None,
    errors: bool,
    since: float | None,
    until: float | None,
    ids: tuple[str, ...],
    limit: int | None,
    file: Path | None,
    purge: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Query records, oldest first. With --json every record whole, as JSON Lines; else the newest 20 as a table."""
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    if purge:
        return _purge(home, settings, as_json)
    of = patterns.today(home, task) if task is not None else None
    most = limit or (None if as_json or file is not None else 20)
    read = partial(
        records.query,
        home,
        route=route,
        reason=reason,
        key=key,
        model=model,
        upstream=upstream,
        since=since,
        until=until,
    )
    if errors:
        chosen = (lambda some: read(ids=[id for id in some if id in ids])) if ids else (lambda some: read(ids=some))
        wrong = mistakes(home, of, chosen)
        _show_errors(home, wrong if most is None else deque(wrong, most), as_json)
        return 0
    found = read(task=of, ids=ids or None, limit=most)
    if file is not None:
        count = exports.export(found, file, records.document)
        _say({"file": str(file), "records": count}, f"{file}: {count:,} records", as_json)
        return 0
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


def _purge(home: Home, settings: Config, as_json: bool) -> int:
    """Drop what is too old; say what went."""
    total = Dropped()
    for dropped in dropping.expire(home, settings.keep_days_of, tuple(settings.tasks), time.time()):
        total = total.plus(dropped)
    emptied = dropping.settle(home)
    told = (
        f"dropped what was said in {total.records:,} records, with {total.audits:,} answers of audits, "
        f"{total.trusted:,} trusted answers and {total.parts:,} parts of requests"
    )
    _say({**msgspec.structs.asdict(total), "log_emptied": emptied}, told, as_json)
    return 0


def _say(document: dict[str, Any], told: str, as_json: bool) -> None:
    if as_json:
        common.emit(document)
    else:
        click.echo(told)


def _show_errors(home: Home, wrong: Iterable[Mistake], as_json: bool) -> None:
    """Records with whose mistake each was: the record whole as JSON Lines, else what tells them apart as a table."""
    rows = [["id", "error", "task", "belongs", "match", "release", "score", "threshold", "said", "right"]]
    for mistake in wrong:
        row, trusted = mistake.row, mistake.trusted
        if as_json:
            audit = watches.get_audits(home, [row.id]).get(row.id) if row.audited else None
            told = {"error": mistake.error, "belongs": mistake.belongs, "said": [*mistake.said][:1]}
            common.emit({**records.document(row, trusted), "audit": _audit(audit), **told})
            continue
        rows.append(
            [
                row.id,
                mistake.error,
                mistake.task or "-",
                mistake.belongs or "-",
                row.rule or "-",
                row.release or "-",
                f"{row.score:.4f}" if row.score is not None else "-",
                f"{row.threshold:.4f}" if row.threshold is not None else "-",
                _short(mistake.said[0]) if mistake.said else "-",
                _short(trusted.value) if trusted is not None else "-",
            ]
        )
    if not as_json:
        click.echo(common.table(rows) if len(rows) > 1 else "no record is known to be wrong")


def _short(value: Value) -> str:
    return msgspec.json.encode(value).decode()[:40]


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
