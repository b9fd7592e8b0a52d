"""Artefacts: the files of fitted models, kept under their content's digest; and fits of a search that goes on."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

import msgspec

from suffice.core.types import digest_of
from suffice.store.home import Home

WEEK_S = 7 * 86_400.0
"""After so long nobody goes on with a search that was interrupted."""


class Saved(Protocol):
    """Whatever can write itself into an empty folder."""

    def save(self, folder: Path) -> None:
        """Write the files."""
        ...


def folder_of(home: Home, digest: str) -> Path:
    """Where the files with this content digest live."""
    return home.folder / "releases" / digest


def save(home: Home, model: Saved) -> str:
    """Write a model under its content digest, whole or not at all; the digest."""
    with tempfile.TemporaryDirectory(dir=home.folder / "releases") as temporary:
        made = Path(temporary) / "artefact"
        made.mkdir()
        model.save(made)
        digest = digest_of_files(made)
        target = folder_of(home, digest)
        if not target.exists():
            shutil.move(made, target)
    return digest


def digest_of_files(folder: Path) -> str:
    """Content digest of a folder's files, names included."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    return digest_of(*(part for path in files for part in (path.name, hashlib.sha256(path.read_bytes()).digest())))


def size(folder: Path) -> int:
    """Bytes on the disk."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


# ---------------------------------------------------------------------------------------------- a search's own


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """A fit that was finished: the folder of its files, their bytes on the disk, the seconds that it took."""

    folder: Path
    size: int
    fit_s: float


class _Told(msgspec.Struct, frozen=True):
    """What is written beside the files of a fit."""

    digest: str
    fit_s: float


class Fits:
    """What one task's search has fitted so far, so that a run that is killed goes on there: `HOME/fits/TASK/KEY/`.

    A key stands for everything that a fit depends on. Under it lie `model/` and `fit.json`, whole or not at all, and
    `scratch/`, which is the fit's own until it is finished. One process at a time uses a task's (`Home.learning`).
    """

    def __init__(self, home: Home, task: str) -> None:
        self._folder = home.folder / "fits" / task

    def get(self, key: str) -> Fit | None:
        """The fit with this key; None if there is none, or its files are not what was written."""
        kept = self._folder / key / "kept"
        try:
            told = msgspec.json.decode((kept / "fit.json").read_bytes(), type=_Told)
            if digest_of_files(kept / "model") != told.digest:
                return None
        except (OSError, msgspec.DecodeError):
            return None
        return Fit(folder=kept / "model", size=size(kept / "model"), fit_s=told.fit_s)

    def put(self, key: str, model: Saved, fit_s: float) -> Fit:
        """Keep a fit, in place of any other with this key, and drop its scratch."""
        place = self._folder / key
        place.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._folder) as temporary:
            made = Path(temporary) / "kept"
            (made / "model").mkdir(parents=True)
            model.save(made / "model")
            told = _Told(digest_of_files(made / "model"), fit_s)
            (made / "fit.json").write_bytes(msgspec.json.encode(told))
            shutil.rmtree(place / "kept", ignore_errors=True)
            made.rename(place / "kept")
        shutil.rmtree(place / "scratch", ignore_errors=True)
        return Fit(folder=place / "kept" / "model", size=size(place / "kept" / "model"), fit_s=fit_s)

    def scratch(self, key: str) -> Path:
        """A folder for the fit with this key that outlives an interruption."""
        folder = self._folder / key / "scratch"
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def clear(self) -> None:
        """Drop them all: the search is over."""
        shutil.rmtree(self._folder, ignore_errors=True)


def sweep_fits(home: Home, now: float) -> None:
    """Drop fits of searches that nobody has gone on with for a week; `now` in seconds since 1970."""
    for place in (home.folder / "fits").glob("*/*"):
        if now - _touched(place) > WEEK_S:
            shutil.rmtree(place, ignore_errors=True)


def _touched(folder: Path) -> float:
    """When anything in a folder was last written; now, if it goes away meanwhile."""
    try:
        return max(path.stat().st_mtime for path in (folder, *folder.rglob("*")))
    except OSError:  # another process has just dropped it
        return float("inf")
