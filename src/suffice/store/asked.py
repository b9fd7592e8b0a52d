"""What `suffice learn` has asked upstreams that are candidates, and what they answered: a run that is done again asks,
and pays for, nothing twice. A file of its own, `HOME/asked.db`: whoever deletes it loses nothing but that money.

An answer lies under the digest of its question, sealed where bodies are. Answers expire with the records (`keep_days`),
after a month at the latest, and erasing anybody's records drops them all: whose words they hold is not known here.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import NamedTuple

from suffice.core.errors import StoreError
from suffice.store.home import BUSY_S, Home

NAME = "asked.db"
MOST_DAYS = 30.0
DAY_S = 86_400.0


class Answer(NamedTuple):
    """A chat completion's body, how long it took in milliseconds, and its price then (None: not known)."""

    body: bytes
    ms: float
    usd: float | None


class Asked:
    """The answers that a home knows. For one thread at a time. Raises StoreError where the file cannot be used."""

    def __init__(self, home: Home, now: float, keep_days: float | None = None) -> None:
        self._bodies, self._path = home.bodies, home.folder / NAME
        try:
            self._db = sqlite3.connect(self._path, timeout=BUSY_S, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS asked "
                "(key TEXT PRIMARY KEY, at REAL, body BLOB, sealed TEXT, ms REAL, usd REAL)"
            )
            oldest = now - DAY_S * min(keep_days or MOST_DAYS, MOST_DAYS)
            self._db.execute("DELETE FROM asked WHERE at < ?", (oldest,))
            self._db.commit()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be used: {error}") from error
        self._path.chmod(0o600)

    def get(self, key: str) -> Answer | None:
        """The answer to the question with this digest; None where it is not known, or cannot be opened any more."""
        row = self._db.execute("SELECT body, sealed, ms, usd FROM asked WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        try:
            return Answer(self._bodies.opened(row[0], row[1], _about(key)), row[2], row[3])
        except StoreError:  # sealed with a key of before: it is asked again
            return None

    def put(self, key: str, answer: Answer, now: float) -> None:
        """Keep an answer: on the disk on return."""
        sealed = self._bodies.sealed(answer.body, _about(key))
        row = (key, now, sealed, self._bodies.keys.current, answer.ms, answer.usd)
        try:
            self._db.execute("INSERT OR REPLACE INTO asked VALUES (?, ?, ?, ?, ?, ?)", row)
            self._db.commit()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path} cannot be written: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()


def forget(home: Home) -> int:
    """Drop all answers; how many there were. Raises StoreError."""
    path = home.folder / NAME
    if not path.exists():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_S)) as db:
            db.execute("PRAGMA secure_delete=ON")
            count: int = db.execute("DELETE FROM asked").rowcount
            db.commit()
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            return count
    except sqlite3.Error as error:
        raise StoreError(f"{path} cannot be written: {error}") from error


def _about(key: str) -> str:
    return f"answer to question {key}"
