"""Dropping what was said and keeping the record: a tombstone has its id, times, tokens, costs and decision.

`expired` is what grew too old, `erased` what a person wanted gone: there its session and group go, too. Parts of
requests that nobody refers to any more are swept afterwards. What is dropped is overwritten in the database
(`secure_delete`); `settle` empties the write-ahead log, which may still hold it.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import msgspec

from suffice.store.bodies import new_epoch
from suffice.store.home import Home
from suffice.store.parts import numbers

BITE = 500
"""Rows of one transaction: whoever else writes waits for some milliseconds."""
PAUSE_S = 0.02
SETTLE_S = 10.0
DAY_S = 86_400.0

EXPIRED, ERASED = "expired", "erased"

Days = Callable[[str | None], float | None]
"""After how many days what was said in a task's records (None: those of no task) is dropped; None: never."""


class Dropped(msgspec.Struct, frozen=True, kw_only=True):
    """How many records were made tombstones, and what went beside their bodies."""

    records: int = 0
    audits: int = 0
    trusted: int = 0
    parts: int = 0

    def plus(self, other: Dropped) -> Dropped:
        """The sum of both."""
        return Dropped(**{name: getattr(self, name) + getattr(other, name) for name in self.__struct_fields__})


def drop(db: sqlite3.Connection, ids: Sequence[str], gone: str) -> Dropped:
    """Make these records tombstones (at most `BITE` at a time), in one transaction. Known tombstones may be among them.

    A record that only grew too old and is erased later becomes an erased one.
    """
    marks = ",".join("?" * len(ids))
    personal = ', session = NULL, "group" = NULL, failure = NULL' if gone == ERASED else ""
    with db:
        db.execute("BEGIN IMMEDIATE")
        records = db.execute(
            f"UPDATE records SET input = NULL, predicted = NULL, request = NULL, answer = NULL, cuts = NULL, "
            f"gone = ?{personal} WHERE id IN ({marks}) AND gone IS NOT ? AND gone IS NOT '{ERASED}'",
            (gone, *ids, gone),
        ).rowcount
        audits = db.execute(
            f"UPDATE audits SET answer = NULL WHERE record IN ({marks}) AND answer IS NOT NULL", ids
        ).rowcount
        trusted = db.execute(f"DELETE FROM trusted WHERE record IN ({marks})", ids).rowcount
    return Dropped(records=records, audits=audits, trusted=trusted)


def sweep_parts(home: Home) -> int:
    """Delete the parts that no record refers to; how many. Reads `cuts` of all records, and holds nobody up for it."""
    with closing(home.connect()) as db:
        db.execute("BEGIN")  # one state of the home, while others write
        last = db.execute("SELECT coalesce(max(seq), 0) FROM records").fetchone()[0]
        unused = {row[0] for row in db.execute("SELECT id FROM parts")}
        for (cuts,) in db.execute("SELECT cuts FROM records WHERE cuts IS NOT NULL"):
            unused.difference_update(numbers(cuts))
            if not unused:
                break
        db.rollback()
        swept = 0
        while unused:
            swept += _sweep_some(db, unused, last)
    return swept


def _sweep_some(db: sqlite3.Connection, unused: set[int], last: int) -> int:
    """Delete a bite of the parts that no record up to `last` refers to, and take it from them; how many it were."""
    with db:
        db.execute("BEGIN IMMEDIATE")
        for (cuts,) in db.execute("SELECT cuts FROM records WHERE seq > ? AND cuts IS NOT NULL", (last,)):
            unused.difference_update(numbers(cuts))
        bite = [unused.pop() for _ in range(min(BITE, len(unused)))]
        db.executemany("DELETE FROM parts WHERE id = ?", [(part,) for part in bite])
        new_epoch(db)
    return len(bite)


def settle(home: Home, compact: bool = False) -> bool:
    """Empty the write-ahead log; False if others kept reading it. `compact`: the database is written anew, too."""
    with closing(home.connect()) as db:
        db.isolation_level = None
        if compact:
            db.execute("VACUUM")
        began = time.monotonic()
        while time.monotonic() - began < SETTLE_S:
            if db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0:
                return True
            time.sleep(PAUSE_S)
    return False


# ---------------------------------------------------------------------------------------------- what grew too old


_OLD = """
SELECT r.seq, r.id, r.at, r.cuts IS NOT NULL,
       CASE WHEN m.seq IS NOT NULL THEN p.task ELSE coalesce(a.task, r.task) END
FROM records r
LEFT JOIN members m ON m.seq = r.seq LEFT JOIN patterns p ON p.id = m.pattern LEFT JOIN aliases a ON a.name = r.task
WHERE r.gone IS NULL AND r.at < :before AND (r.at, r.seq) > (:at, :seq) ORDER BY r.at, r.seq LIMIT :bite
"""


def expire(home: Home, days: Days, tasks: Sequence[str], now: float) -> Iterator[Dropped]:
    """Drop what is older than its task allows, a bite at a time; what each bite dropped. `now` in seconds since 1970.

    `tasks` are those with days of their own.
    """
    limits = [limit for limit in (days(None), *map(days, tasks)) if limit is not None]
    if not limits:
        return
    before, at, seq, swept = now - min(limits) * DAY_S, float("-inf"), 0, False
    with closing(home.connect()) as db:
        while rows := db.execute(_OLD, {"before": before, "at": at, "seq": seq, "bite": BITE}).fetchall():
            at, seq = rows[-1][2], rows[-1][0]
            old = [row for row in rows if (limit := days(row[4])) is not None and row[2] < now - limit * DAY_S]
            if old:
                swept |= any(row[3] for row in old)
                yield drop(db, [row[1] for row in old], EXPIRED)
    if swept:
        yield Dropped(parts=sweep_parts(home))


# ---------------------------------------------------------------------------------------------- files


def put_aside(home: Home) -> list[Path]:
    """Files with records that wait to be written: the next start takes them in."""
    return sorted(home.folder.glob("unwritten-*.jsonl"))
