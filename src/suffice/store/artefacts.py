"""Artefacts: the files of fitted models, kept under their content's digest."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

from suffice.core.types import digest_of
from suffice.store.home import Home


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
