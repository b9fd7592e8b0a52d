"""Who did what through the admin API: a line for each call in the home, written before it is done."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import random
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

FILE = "admin-calls.jsonl"
MAX_BYTES = 16 * 2**20
"""A file is put aside beyond this size; one older is kept beside it."""
NEWEST = 200
TAIL_BYTES = 2**18
LONGEST = 200
"""Characters of a value that are kept."""


class Calls:
    """The lines of a home. Methods read and write files: not for the event loop. `began` raises OSError."""

    def __init__(self, home: Path, clock: Callable[[], float] = time.time) -> None:
        self._file, self._clock = home / FILE, clock

    def began(self, by: str | None, what: str) -> str:
        """A call begins: who, and its method and path. Its name, for what follows."""
        name = f"call_{int(self._clock() * 1e3):012x}{random.getrandbits(32):08x}"
        self._write({"call": name, "at": self._clock(), "by": by, "what": what[:LONGEST]})
        return name

    def told(self, call: str, body: Mapping[str, Any]) -> None:
        """What was asked for: the body's keys and the beginnings of their values."""
        kept = {key[:LONGEST]: _short(value) for key, value in list(body.items())[:50]}
        self._write({"call": call, "with": kept})

    def ended(self, call: str, status: int) -> None:
        """How it was answered; what cannot be written now is lost, for it is done."""
        with contextlib.suppress(OSError):
            self._write({"call": call, "status": status})

    def newest(self) -> list[dict[str, Any]]:
        """The newest calls, newest first, each whole as far as it has come."""
        try:
            with self._file.open("rb") as opened:
                opened.seek(max(0, self._file.stat().st_size - TAIL_BYTES))
                lines = opened.read().splitlines()
        except OSError:
            return []
        found: dict[str, dict[str, Any]] = {}
        for one in lines:
            try:
                told = msgspec.json.decode(one, type=dict[str, Any])
            except msgspec.DecodeError:  # the first of the tail may be half a line
                continue
            if "at" in told or told.get("call") in found:
                found.setdefault(str(told.get("call")), {}).update(told)
        return list(found.values())[::-1][:NEWEST]

    def _write(self, told: Mapping[str, Any]) -> None:
        line = msgspec.json.encode(told) + b"\n"
        place = self._opened()
        try:
            if os.fstat(place).st_size > MAX_BYTES:
                self._put_aside(place)
                os.close(place)
                place = self._opened()
            if os.write(place, line) < len(line):  # one write: lines of several workers never mix
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self._file))
        finally:
            os.close(place)

    def _opened(self) -> int:
        return os.open(self._file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def _put_aside(self, place: int) -> None:
        """Begin a new file, unless another worker has: the second to come must not put the new one over the old."""
        fcntl.flock(place, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(place), self._file.stat()):
                self._file.replace(self._file.with_suffix(".jsonl.1"))


def _short(value: Any) -> Any:
    if isinstance(value, (bool, int, float)) or value is None:
        return value
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= LONGEST else text[:LONGEST] + "..."
