"""A home: the folder in which everything that Suffice owns lives, and its database."""

from __future__ import annotations

import fcntl
import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import sqlalchemy as sa

from suffice.core.errors import StoreError
from suffice.store import schema
from suffice.store.bodies import Bodies
from suffice.store.sealed import Keys

BUSY_S = 30.0
SEALS = "seals"
"""In `meta`: the keys under which bodies are sealed."""


class Home:
    """Opens (and makes, if need be) a home. Raises StoreError in one sentence if that cannot be done.

    `keys` are those under which its bodies are stored; a home of which a key is missing is not opened.
    Layout: `suffice.db` (SQLite, WAL), `releases/<digest>/` (artefacts), `fits/` (of searches under way), `reports/`,
    `serve.lock`.
    """

    def __init__(self, folder: Path, max_db_mb: float | None = None, keys: Keys | None = None) -> None:
        self.folder = folder
        self.db_path = folder / "suffice.db"
        self.max_db_mb = max_db_mb
        self.bodies = Bodies(keys or Keys())
        try:
            (folder / "releases").mkdir(parents=True, exist_ok=True)
            (folder / "reports").mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"the home {folder} cannot be made: {error.strerror}") from error
        self.engine = sa.create_engine("sqlite://", creator=self.connect, poolclass=sa.NullPool)
        try:
            self._prepare()
        except sa.exc.DBAPIError as error:
            raise StoreError(f"{self.db_path} cannot be used: {error.orig}") from error
        except sqlite3.Error as error:
            raise StoreError(f"{self.db_path} cannot be used: {error}") from error

    def connect(self) -> sqlite3.Connection:
        """A raw connection with the settings every user of the file must share.

        `synchronous=FULL`: a commit is on the disk. The time-out lets commands and a server write to one home.
        """
        connection = sqlite3.connect(self.db_path, timeout=BUSY_S, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA temp_store=MEMORY")
        connection.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten
        if self.max_db_mb is not None:
            page: int = connection.execute("PRAGMA page_size").fetchone()[0]
            connection.execute(f"PRAGMA max_page_count={max(1, int(self.max_db_mb * 2**20 / page))}")
        return connection

    def _prepare(self) -> None:
        """Make the tables, or bring those of an older version up to date. Raises StoreError for a newer one's."""
        with self.engine.begin() as db:
            db.exec_driver_sql("BEGIN IMMEDIATE")  # two commands on a new home at once
            tables = sa.inspect(db).get_table_names()
            if "alembic_version" in tables:
                version = int(db.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one())
            else:
                version = 1 if "meta" in tables else 0
            if version > schema.VERSION:
                raise StoreError(
                    f"{self.db_path} was made by a newer version: schema {version}, this one knows {schema.VERSION}"
                )
            if version == 0:
                schema.metadata.create_all(db)
                db.execute(schema.routing.insert().values(id=1, version=1))
            if version < schema.VERSION:
                _bring_up(db, version)
            self._keyed(db)

    def _keyed(self, db: sa.Connection) -> None:
        """Note the key that seals from now on. Raises StoreError where one that sealed is not at hand."""
        keys = self.bodies.keys
        used = seals(db)
        if missing := sorted(used - keys.known):
            held = f"the key at hand is {', '.join(sorted(keys.known))}" if keys.known else "no key is at hand"
            raise StoreError(
                f"the bodies in {self.db_path} are encrypted with key {', '.join(missing)}, and {held}: name the "
                "environment variable that holds it as `encrypt_key_env` (or among `decrypt_key_envs`) of [records]"
            )
        if keys.current is not None and keys.current not in used:
            put_seals(db, used | {keys.current})

    @contextmanager
    def serving(self) -> Iterator[None]:
        """Hold the home's one server place. Raises StoreError if another server has it; freed however this one ends."""
        with self._locked("serve.lock", f"another server is already running on the home {self.folder}"):
            yield

    def server(self) -> int | None:
        """The process that holds the server's place; None where nobody does."""
        try:
            with (self.folder / "serve.lock").open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            told = (self.folder / "serve.lock").read_text().strip()
            return int(told) if told.isdecimal() else None
        except OSError:
            pass
        return None

    @contextmanager
    def learning(self, task: str) -> Iterator[None]:
        """Hold a task's one learning place: two runs at once would spend the ledger twice."""
        with self._locked(f"learn-{task}.lock", f"another `suffice learn {task}` is running on the home {self.folder}"):
            yield

    @contextmanager
    def discovering(self) -> Iterator[None]:
        """Hold the home's one place for discovery: two runs at once would read the same records."""
        with self._locked("discover.lock", f"another `suffice discover` is running on the home {self.folder}"):
            yield

    @contextmanager
    def batching(self) -> Iterator[bool]:
        """Hold the home's one place for working at batches; False where another process has it."""
        with (self.folder / "batches.lock").open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                yield False
            else:
                yield True

    def keeping(self) -> IO[str] | None:
        """The home's one keeper's place, held until the file is closed; None while another keeper has it.

        A server that was killed leaves a keeper that needs a moment to see it: the next one has to wait for that.
        """
        lock = (self.folder / "keeper.lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            return None
        return lock

    @contextmanager
    def _locked(self, name: str, taken: str) -> Iterator[None]:
        lock: IO[str]
        with (self.folder / name).open("a+") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                lock.seek(0)
                holder = lock.read().strip()
                raise StoreError(f"{taken}{f' (process {holder})' if holder else ''}") from error
            lock.truncate(0)
            lock.write(str(os.getpid()))
            lock.flush()
            yield
            lock.truncate(0)


def seals(db: sa.Connection) -> frozenset[str]:
    """The ids of the keys under which bodies of a home may be sealed."""
    text = db.execute(sa.select(schema.meta.c.value).where(schema.meta.c.key == SEALS)).scalar()
    return frozenset(text.split(",")) if text else frozenset()


def put_seals(db: sa.Connection, ids: frozenset[str]) -> None:
    """Keep these ids."""
    db.execute(sa.insert(schema.meta).prefix_with("OR REPLACE"), {"key": SEALS, "value": ",".join(sorted(ids))})


def _bring_up(db: sa.Connection, version: int) -> None:
    """Run the migrations from `version` on (0: the tables are new) in the connection's transaction."""
    logging.getLogger("alembic").setLevel(logging.WARNING)  # before it is imported: it tells of its plugins then

    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", "suffice.store:migrations")
    config.attributes["connection"] = db
    if version == 0:
        command.stamp(config, "head")
        return
    if version == 1:
        command.stamp(config, "0001")
    command.upgrade(config, "head")
