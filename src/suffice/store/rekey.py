"""Sealing everything under another key, or under none: row by row, while the home may be in use.

Who serves meanwhile with the former key goes on sealing with it: start the server with the new one first.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

from suffice.core.errors import StoreError
from suffice.store.bodies import BODIES, TEXTS, audit_about, body_about, new_epoch, part_about, trusted_about
from suffice.store.dropping import BITE
from suffice.store.home import SEALS, Home

Progress = Callable[[str, float], None]


def rekey(home: Home, progress: Progress) -> dict[str, int]:
    """Store every body under the home's current key (none: readable); how many rows of each table were changed.

    Raises StoreError where a row cannot be opened, or a server still seals with another key; what was changed by then
    stays so, and everything can still be read.
    """
    keys, opened, sealed = home.bodies.keys, home.bodies.opened, home.bodies.sealed

    def again(value: Any, key: str | None, about: str, is_text: bool = False) -> Any:
        return sealed(opened(value, key, about, is_text), about)

    def record(db: sqlite3.Connection, seq: int) -> None:
        row = db.execute(f"SELECT id, sealed, {', '.join(BODIES)} FROM records WHERE seq = ?", (seq,)).fetchone()
        new = [again(v, row[1], body_about(row[0], n), n in TEXTS) for n, v in zip(BODIES, row[2:], strict=True)]
        names = ", ".join(f"{name} = ?" for name in BODIES)
        db.execute(f"UPDATE records SET {names}, sealed = ? WHERE seq = ?", (*new, keys.current, seq))

    def audit(db: sqlite3.Connection, seq: int) -> None:
        name, value, key = db.execute("SELECT record, answer, sealed FROM audits WHERE seq = ?", (seq,)).fetchone()
        new = again(value, key, audit_about(name))
        db.execute("UPDATE audits SET answer = ?, sealed = ? WHERE seq = ?", (new, keys.current, seq))

    def told(db: sqlite3.Connection, seq: int) -> None:
        name, value, key = db.execute("SELECT record, value, sealed FROM trusted WHERE seq = ?", (seq,)).fetchone()
        new = again(value, key, trusted_about(name), is_text=True)
        db.execute("UPDATE trusted SET value = ?, sealed = ? WHERE seq = ?", (new, keys.current, seq))

    def part(db: sqlite3.Connection, id: int) -> None:
        digest, value, key = db.execute("SELECT digest, body, sealed FROM parts WHERE id = ?", (id,)).fetchone()
        body = opened(value, key, part_about(digest))
        new = keys.digest(body)
        if db.execute("SELECT 1 FROM parts WHERE digest = ? AND id IS NOT ?", (new, id)).fetchone():
            new = digest  # another one of the same content is the one that is used from now on
        db.execute(
            "UPDATE parts SET digest = ?, body = ?, sealed = ? WHERE id = ?",
            (new, sealed(body, part_about(new)), keys.current, id),
        )

    steps = {"records": ("seq", record), "audits": ("seq", audit), "trusted": ("seq", told), "parts": ("id", part)}
    changed = dict.fromkeys(steps, 0)
    with closing(home.connect()) as db:
        for table, (place, change) in steps.items():
            last, end = 0, db.execute(f"SELECT coalesce(max({place}), 0) FROM {table}").fetchone()[0]
            wanted = f"SELECT {place} FROM {table} WHERE {place} > ? AND sealed IS NOT ? ORDER BY {place} LIMIT {BITE}"
            while True:
                with db:
                    db.execute("BEGIN IMMEDIATE")
                    rows = db.execute(wanted, (last, keys.current)).fetchall()
                    for (row,) in rows:
                        change(db, row)
                if not rows:
                    break
                last, changed[table] = rows[-1][0], changed[table] + len(rows)
                progress(table, last / max(end, 1))
        with db:
            db.execute("BEGIN IMMEDIATE")
            for table in steps:
                if db.execute(f"SELECT 1 FROM {table} WHERE sealed IS NOT ? LIMIT 1", (keys.current,)).fetchone():
                    raise StoreError(
                        f"{home.db_path} still gets {table} under another key: restart the server, then again"
                    )
            db.execute("INSERT OR REPLACE INTO meta (key, value) VALUES (?, ?)", (SEALS, keys.current or ""))
            new_epoch(db)
    return changed
