"""Commands that take long: processes of their own whose state is in the home, so that every worker can tell it.

A job has a folder: what was asked (`job.json`), what it says (`out`, `err`), how it ended (`exit`, written by the shell
that runs it) and a lock that its processes hold as long as any of them lives. It outlives the worker that started it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import msgspec

from suffice.core.errors import StoreError
from suffice.serve.learning import ONE_THREAD, gently

FOLDER = "jobs"
AT_ONCE = 2
"""Jobs under way on one home; they share what the gateway leaves of the machine."""
KEPT = 100
TAIL_BYTES = 16_384
"""Of what a job says on its way, the end is told."""
OUT_BYTES = 16 * 2**20
"""A job's document is told up to this size."""
ID = re.compile(r"job_[0-9a-f]{20}")
_RUN = 'exit="$1"; shift; "$@"; echo $? > "$exit.new" && mv "$exit.new" "$exit"'


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked, by whom, when (seconds since 1970), and the process that does it."""

    id: str
    command: str
    by: str | None
    at: float
    pid: int


class Busy(StoreError):
    """As many jobs are under way as may be."""


class Jobs:
    """The jobs of a home. Methods read and write files: not for the event loop."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.time) -> None:
        self._folder, self._clock = home / FOLDER, clock

    def start(self, command: str, line: Sequence[str], by: str | None) -> dict[str, Any]:
        """Start a job; what `get` tells of it. Raises Busy, OSError."""
        self._folder.mkdir(exist_ok=True)
        at = self._clock()
        with self._place() as place:
            name = f"job_{int(at * 1e3):012x}{random.getrandbits(32):08x}"
            folder = self._folder / name
            folder.mkdir()
            with (
                (folder / "lock").open("w") as lock,
                (folder / "out").open("wb") as out,
                (folder / "err").open("wb") as err,
            ):
                fcntl.flock(lock, fcntl.LOCK_EX)
                process = subprocess.Popen(
                    ["/bin/sh", "-c", _RUN, "sh", str(folder / "exit"), *line],
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=err,
                    pass_fds=[lock.fileno(), place.fileno()],
                    start_new_session=True,
                    env={**os.environ, **ONE_THREAD},
                )
            gently(process.pid)
        asked = Asked(id=name, command=command, by=by, at=at, pid=process.pid)
        try:
            (folder / "job.json").write_bytes(msgspec.json.encode(asked))
        except OSError:  # a full disk: what nobody can look after must not go on
            os.killpg(process.pid, signal.SIGKILL)
            raise
        self._prune()
        return self._told(asked)

    def get(self, name: str) -> dict[str, Any] | None:
        """A job's state, what it says on its way, and its document; None if there is none of that name."""
        asked = self._asked(name)
        return self._told(asked, whole=True) if asked is not None else None

    def all(self) -> list[dict[str, Any]]:
        """The jobs, newest first, without their documents."""
        return [self._told(asked) for name in self._names() if (asked := self._asked(name)) is not None]

    def cancel(self, name: str) -> dict[str, Any] | None:
        """End a job under way; its state then. None if there is none of that name."""
        asked = self._asked(name)
        if asked is None:
            return None
        if self._runs(name):
            (self._folder / name / "cancelled").touch()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(asked.pid, signal.SIGTERM)
        return self._told(asked, whole=True)

    def _names(self) -> list[str]:
        if not self._folder.is_dir():
            return []
        return sorted((file.name for file in self._folder.iterdir() if ID.fullmatch(file.name)), reverse=True)

    def _asked(self, name: str) -> Asked | None:
        if not ID.fullmatch(name):
            return None
        try:
            return msgspec.json.decode((self._folder / name / "job.json").read_bytes(), type=Asked)
        except (OSError, msgspec.DecodeError):
            return None

    def _told(self, asked: Asked, whole: bool = False) -> dict[str, Any]:
        folder = self._folder / asked.id
        runs = self._runs(asked.id)  # asked once: it may end at any moment
        code = None if runs else _code(folder / "exit")
        ended = "ended" if code is not None else "cancelled" if (folder / "cancelled").exists() else "lost"
        state = "running" if runs else ended
        document: dict[str, Any] = {
            "id": asked.id, "command": asked.command, "by": asked.by, "at": asked.at, "state": state, "exit": code,
        }  # fmt: skip
        if whole:
            document["said"] = _tail(folder / "err")
            document["document"] = _document(folder / "out") if state == "ended" else None
        return document

    def _runs(self, name: str) -> bool:
        with contextlib.suppress(OSError), (self._folder / name / "lock").open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _place(self) -> IO[str]:
        """One of the places for jobs, locked; whoever holds the file holds the place. Raises Busy."""
        for n in range(AT_ONCE):
            place = (self._folder / f"place-{n}").open("w")
            try:
                fcntl.flock(place, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                place.close()
            else:
                return place
        raise Busy(f"{AT_ONCE} jobs are under way on this home: wait for one, or cancel one")

    def _prune(self) -> None:
        for name in self._names()[KEPT:]:
            if not self._runs(name):
                shutil.rmtree(self._folder / name, ignore_errors=True)


def _code(file: Path) -> int | None:
    try:
        return int(file.read_text())
    except (OSError, ValueError):
        return None


def _tail(file: Path) -> list[str]:
    """The last lines of a file."""
    try:
        with file.open("rb") as opened:
            opened.seek(max(0, file.stat().st_size - TAIL_BYTES))
            return opened.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []


def _document(file: Path) -> Any:
    """What a command has printed with `--json`: its document, or the lines of one that prints lines."""
    try:
        with file.open("rb") as opened:
            said = opened.read(OUT_BYTES)
        return msgspec.json.decode(said) if said.strip() else None
    except (OSError, msgspec.DecodeError):
        return None
