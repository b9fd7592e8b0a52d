"""Numbers that the workers of a home share: each counts in a file of its own, and whoever is asked adds them up.

Counting is an addition to a double in mapped memory, some tens of nanoseconds; what a killed worker had counted is
still there. The usual client's way for many processes was not taken: it is chosen by an environment variable when it is
imported, keeps a file for each process that ever was, and packs a record for each addition.

A file holds 16 bytes (how much of either part is used), the names, a line each, and the doubles. It is written by its
owner alone. Room for all of it is had at the start: a disk that is full later must not stop a process that counts.
"""

from __future__ import annotations

import fcntl
import logging
import mmap
import os
import struct
import threading
from collections.abc import Collection, Iterator, Mapping
from operator import add
from pathlib import Path

log = logging.getLogger(__name__)

NAMES_BYTES = 512 * 2**10
SLOTS = 32_768
MOST_FILES = 128
_HEAD = struct.Struct("<QQ")
_SIZE = _HEAD.size + NAMES_BYTES + 8 * SLOTS


class Slots:
    """A worker's doubles. `claim` may be called by any thread; a slot is added to by one thread at a time."""

    def __init__(self, folder: Path | None) -> None:
        """Take a file in `folder` that no living worker holds, going on where its last owner was killed.

        Without a folder, or where no file can be had, the numbers are this worker's alone.
        """
        self._lock = threading.Lock()
        self._file = _taken(folder) if folder is not None else None
        self._map = mmap.mmap(self._file if self._file is not None else -1, _SIZE)
        self._names: int
        self._used: int
        self._names, self._used = _HEAD.unpack_from(self._map)
        self._at: dict[str, int] = {}
        self.values: memoryview[float] = memoryview(self._map)[_HEAD.size + NAMES_BYTES :].cast("d")
        at = 0
        for name, width in _lines(self._map[_HEAD.size : _HEAD.size + self._names]):
            self._at[name] = at
            at += width

    @property
    def is_shared(self) -> bool:
        """Whether these numbers are in a file, where `added` finds them."""
        return self._file is not None

    def claim(self, name: str, width: int = 1) -> int:
        """Where the doubles of this name begin: `width` of them, 0 at first. Raises MemoryError when all are taken."""
        with self._lock:
            if (known := self._at.get(name)) is not None:
                return known
            line = f"{width} {name}\n".encode()
            if self._names + len(line) > NAMES_BYTES or self._used + width > SLOTS:
                raise MemoryError("all slots for numbers are taken")
            begin, at = _HEAD.size + self._names, self._used
            self._map[begin : begin + len(line)] = line
            self._names, self._used = self._names + len(line), self._used + width
            _HEAD.pack_into(self._map, 0, self._names, self._used)  # after the name: who reads sees it whole
            self._at[name] = at
            return at

    def clear(self, prefix: str) -> None:
        """Set all doubles whose name begins so to 0: what a killed worker held is not this one's."""
        for name, at in list(self._at.items()):
            if name.startswith(prefix):
                self.values[at] = 0.0

    def own(self) -> dict[str, list[float]]:
        """This worker's numbers by name."""
        return _read(self._map[: _HEAD.size + self._names], self._map[_HEAD.size + NAMES_BYTES :])


def added(folder: Path, highest: Collection[str] = ()) -> dict[str, list[float]]:
    """The numbers of all workers that have a file in `folder`, added up by name. Reads files: not for the event loop.

    Of a name whose first part (before a tab) is in `highest`, the highest is taken.
    """
    total: dict[str, list[float]] = {}
    for file in sorted(folder.glob("*.slots")):
        with file.open("rb") as opened:
            head = opened.read(_HEAD.size)
            if len(head) < _HEAD.size:  # it is being made
                continue
            names, used = _HEAD.unpack(head)
            told = opened.read(names)
            opened.seek(_HEAD.size + NAMES_BYTES)
            _add(total, _read(head + told, opened.read(8 * used)), highest)
    return total


def emptied(folder: Path) -> None:
    """Begin anew: for a server that starts, while none of its workers runs."""
    for file in folder.glob("*.slots"):
        file.unlink(missing_ok=True)


def _taken(folder: Path) -> int | None:
    """A file of the folder, locked for as long as this process lives, with room for everything."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for n in range(MOST_FILES):
            file = os.open(folder / f"{n}.slots", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.posix_fallocate(file, 0, _SIZE)
                return file
            except BlockingIOError:
                os.close(file)
            except OSError:
                os.close(file)
                raise
    except OSError as error:
        log.warning("this worker's numbers are not added to the others': %s: %s", folder, error.strerror)
    return None


def _read(head: bytes, doubles: bytes) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    values = memoryview(doubles)[: len(doubles) // 8 * 8].cast("d")
    at = 0
    for name, width in _lines(head[_HEAD.size :]):
        if at + width > len(values):  # claimed since the header was read
            break
        found[name] = [float(value) for value in values[at : at + width]]
        at += width
    return found


def _lines(names: bytes) -> Iterator[tuple[str, int]]:
    for line in names.decode("utf-8", "replace").splitlines():
        width, _, name = line.partition(" ")
        yield name, int(width)


def _add(total: dict[str, list[float]], more: Mapping[str, list[float]], highest: Collection[str]) -> None:
    for name, values in more.items():
        join = max if name.partition("\t")[0] in highest else add
        known = total.get(name)
        total[name] = [join(a, b) for a, b in zip(known, values, strict=True)] if known is not None else values
