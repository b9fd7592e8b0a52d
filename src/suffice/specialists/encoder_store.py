"""The exported base models of a home: `HOME/bases/<digest of the source files>/`, made once and shared by all tasks."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from functools import cache
from pathlib import Path

import msgspec

from suffice.core.errors import ArtefactError
from suffice.core.protocols import Progress
from suffice.specialists.encoder_base import FORMAT, OnnxEncoder, is_whole, load_encoder, read_about


class Base(msgspec.Struct, frozen=True):
    """Which base a specialist reads with: the folder's name below `bases`, and the digest of the files in it."""

    key: str
    files: str


class Bases:
    """The folder of bases of one home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def made(self, source: Path, progress: Progress) -> Base:
        """The base exported from a checkpoint's folder; exported now, if it is not there or no longer whole.

        Raises InputError for a folder that holds no text encoder, ArtefactError where it cannot be exported.
        """
        from suffice.specialists.encoder_export import CHECKED, export, load_model

        key = _digest_of_source(source)
        target = self._folder / key
        if target.is_dir():
            if is_whole(target):  # one that cannot be loaded for another reason stays: releases read with it
                return Base(key, read_about(target).files)
            shutil.rmtree(target)  # it is made again: the same source gives the same files
        progress("exporting the base encoder", 0.0)
        self._folder.mkdir(parents=True, exist_ok=True)
        model, tokenizer, longest = load_model(source)
        with tempfile.TemporaryDirectory(dir=self._folder, prefix=".new-") as scratch:
            made = Path(scratch) / "base"
            export(model, tokenizer, longest, made, source.name, CHECKED)
            try:
                made.rename(target)
            except OSError:
                if not target.is_dir():  # else another process put the same there first
                    raise
        return Base(key, read_about(target).files)

    def encoder(self, base: Base) -> OnnxEncoder:
        """The encoder of a base: one object for all that read with it in this process.

        Raises ArtefactError where its files are gone, or not the ones with this digest.
        """
        folder = self._folder / base.key
        if not folder.is_dir():
            raise ArtefactError(f"the base encoder {folder} is gone")
        return shared_encoder(folder.resolve(), base.files)


@cache
def shared_encoder(folder: Path, files: str) -> OnnxEncoder:
    """The encoder in `folder`, read and its digest checked at the first call, shared by the whole process.

    Raises ArtefactError, at every call, while it is not whole.
    """
    encoder = load_encoder(folder, shared=True)
    if encoder.about.files != files:
        raise ArtefactError(f"the base encoder {folder} is not the one that the specialist was fitted on")
    return encoder


def _digest_of_source(source: Path) -> str:
    """Which weights, tokenizer and settings, and which way of exporting them."""
    found = hashlib.sha256(f"format {FORMAT}".encode())
    for path in sorted((source / "config.json", source / "tokenizer.json", *source.glob("*.safetensors"))):
        if path.is_file():
            with path.open("rb") as file:
                found.update(path.name.encode())
                found.update(hashlib.file_digest(file, "sha256").digest())
    return found.hexdigest()[:32]
