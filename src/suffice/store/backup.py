"""A backup of a home while it serves: one tar file, consistent, verified after it is written.

It holds the database as it was at one moment (SQLite's own online copy), the artefacts of its releases, reports,
settings and whatever else lies in the home, but for locks, fits under way and the ballast. The last member is
`backup.json`: the digest of every other. Bodies that are encrypted in the home are so here, by the same key; the
settings hold no key.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import IO, Any

import msgspec

from suffice import __version__
from suffice.core.errors import InputError, StoreError
from suffice.store import schema
from suffice.store.artefacts import digest_of_files
from suffice.store.home import Home

DATABASE, SETTINGS, CONTENTS = "suffice.db", "suffice.toml", "backup.json"
PAGES = 4_096
"""Pages copied between two words about it: 16 MB."""
CHUNK = 2**20

Progress = Callable[[str, float], None]


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup holds: SHA-256 by name, made when (seconds since 1970), by which version, of which schema."""

    version: str
    schema: int
    at: float
    records: int
    files: dict[str, str]


def backup(home: Home, settings: Path | None, target: Path, now: float, progress: Progress) -> Contents:
    """Write a backup of a home to a file that does not exist yet; `settings` is the file they are read from.

    Raises InputError where the file exists, StoreError where something of the home is damaged or cannot be read back.
    """
    if target.exists():
        raise InputError(f"{target} exists: a backup overwrites nothing")
    try:
        with tempfile.TemporaryDirectory(dir=target.parent, prefix=".suffice-backup-") as folder:
            copy, part = Path(folder) / DATABASE, Path(folder) / "backup.tar"
            records = _copy(home, copy, progress)
            members = [(DATABASE, copy), *_files(home, settings)]
            digests = {}
            with _private(part) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
                for i, (name, path) in enumerate(members):
                    progress("copying files", i / len(members))
                    if (digest := _add(tar, name, path)) is not None:
                        digests[name] = digest
                contents = Contents(version=__version__, schema=schema.VERSION, at=now, records=records, files=digests)
                _add_bytes(tar, CONTENTS, msgspec.json.format(msgspec.json.encode(contents)), now)
                file.flush()
                os.fsync(file.fileno())
            copy.unlink()
            verify(part, progress)
            part.rename(target)
    except (OSError, sqlite3.Error, tarfile.TarError) as error:
        raise StoreError(f"{target} cannot be written: {error}") from error
    return contents


def verify(file: Path, progress: Progress) -> Contents:
    """Read a backup and compare every member with its digest. Raises StoreError for what is missing or changed."""
    found: dict[str, str] = {}
    contents = None
    try:
        with tarfile.open(file, "r:") as tar:
            total = file.stat().st_size
            for member in tar:
                progress("verifying", member.offset / max(total, 1))
                body = tar.extractfile(member)
                if body is None or not _is_safe(member.name):
                    raise StoreError(f"{file} is no backup of ours: it holds {member.name!r}")
                if member.name == CONTENTS:
                    contents = msgspec.json.decode(body.read(), type=Contents)
                else:
                    found[member.name] = _digest(body)
    except (OSError, tarfile.TarError, msgspec.DecodeError) as error:
        raise StoreError(f"{file} cannot be read as a backup: {error}") from error
    if contents is None:
        raise StoreError(f"{file} is no whole backup: it has no {CONTENTS}")
    if DATABASE not in contents.files:
        raise StoreError(f"{file} is no whole backup: it has no {DATABASE}")
    if odd := sorted(name for name in found.keys() | contents.files if found.get(name) != contents.files.get(name)):
        raise StoreError(f"{file} is damaged: {odd[0]} is not what was written")
    return contents


def restore(file: Path, folder: Path, progress: Progress) -> Contents:
    """Make a home of a backup, in a folder that is empty or not there yet: whole or not at all.

    Raises InputError for a folder that holds anything, StoreError for a damaged backup or one of a newer version.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InputError(f"{folder} is not empty: a backup is restored to a new home")
    contents = verify(file, progress)
    if contents.schema > schema.VERSION:
        raise StoreError(
            f"{file} was made by a newer version: schema {contents.schema}, this one knows {schema.VERSION}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".suffice-restore-") as temporary:
        made = Path(temporary) / "home"
        made.mkdir(mode=0o700)
        with tarfile.open(file, "r:") as tar:
            for i, member in enumerate(tar):
                progress("restoring", i / (len(contents.files) + 1))
                body = tar.extractfile(member)
                if body is not None and member.name != CONTENTS and _is_safe(member.name):
                    path = made / member.name
                    path.parent.mkdir(parents=True, exist_ok=True)
                    with _private(path) as copy:
                        shutil.copyfileobj(body, copy, CHUNK)
        _whole(made / DATABASE)
        if folder.exists():
            folder.rmdir()
        made.rename(folder)
    return contents


def _copy(home: Home, copy: Path, progress: Progress) -> int:
    """The database as it is at one moment, whoever writes meanwhile; how many records it holds."""
    with closing(home.connect()) as source, closing(sqlite3.connect(copy)) as target:
        source.isolation_level = None
        source.execute("BEGIN")
        records: int = source.execute("SELECT count(*) FROM records").fetchone()[0]

        def told(status: int, left: int, total: int) -> None:
            progress("copying the database", 1 - left / max(total, 1))

        source.backup(target, pages=PAGES, progress=told, sleep=0)
        target.execute("PRAGMA journal_mode=DELETE")
    _whole(copy)
    return records


def _whole(database: Path) -> None:
    """Raises StoreError unless the database passes SQLite's own check."""
    with closing(sqlite3.connect(database)) as db:
        found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreError(f"{database} is damaged: {found}")


def _files(home: Home, settings: Path | None) -> Iterator[tuple[str, Path]]:
    """What lies in a home, by its name there. Raises StoreError for an artefact that is not what its digest says."""
    for path in sorted(home.folder.rglob("*")):
        name = path.relative_to(home.folder)
        if not path.is_file() or path.is_symlink() or _is_passing(name):
            continue
        yield name.as_posix(), path
    for folder in sorted((home.folder / "releases").iterdir()):
        if len(folder.name) == 64 and digest_of_files(folder) != folder.name:
            raise StoreError(f"the artefact {folder} is damaged: its files are not what its name says")
    kept = home.folder / SETTINGS
    if settings is not None and (kept.is_symlink() or not kept.exists()):
        yield SETTINGS, settings


def _is_passing(name: Path) -> bool:
    """Whether a file is of no use to another home."""
    top = name.parts[0]
    return (
        top.startswith((DATABASE, "."))
        or top in ("ballast", "fits")
        or top in ("limits", "metrics", "processes")  # of the processes that serve now
        or name.suffix in (".lock", ".sock", ".pid")
        or (len(name.parts) == 1 and name.suffix == ".tar")  # an earlier backup
        or (top == "releases" and name.parts[1].startswith("tmp"))
    )


def _is_safe(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and "\\" not in name


def _private(path: Path) -> IO[bytes]:
    """A new file that only its owner may read."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def _add(tar: tarfile.TarFile, name: str, path: Path) -> str | None:
    """Add a file as it is now; its digest, None where it has gone meanwhile. One that grows is cut where it was."""
    try:
        body = path.open("rb")
    except FileNotFoundError:
        return None
    with body:
        info = tarfile.TarInfo(name)
        state = os.fstat(body.fileno())
        info.size, info.mtime, info.mode = state.st_size, int(state.st_mtime), 0o600
        reading = _Reading(body)
        tar.addfile(info, reading)
        return reading.digest.hexdigest()


def _add_bytes(tar: tarfile.TarFile, name: str, data: bytes, now: float) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = len(data), int(now), 0o600
    tar.addfile(info, io.BytesIO(data))


class _Reading:
    """A file of which a digest is taken while it is read."""

    def __init__(self, body: IO[bytes]) -> None:
        self._body = body
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        """Read on."""
        data = self._body.read(size)
        self.digest.update(data)
        return data


def _digest(body: IO[Any]) -> str:
    digest = hashlib.sha256()
    while data := body.read(CHUNK):
        digest.update(data)
    return digest.hexdigest()
