"""The browser's part of an exported folder: the runner in JavaScript, its word pieces, onnxruntime-web."""

from __future__ import annotations

import json
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.errors import ArtefactError, InputError
from suffice.specialists.exporting.compiled import Compiled
from suffice.specialists.exporting.package import TEMPLATES

ORT = "onnxruntime-web"
ORT_VERSION = "1.30.0"
"""What npm is asked for: the one that this form is tested with."""
ORT_FILES = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm")
"""The processor's build, without what graphics cards need."""
SCRIPTS = ("specialist.js", "pieces.js", "blake2b.js", "run.mjs", "page.js", "index.html")
PIECES = "pieces.json"
_FETCH_S = 300
_ANSWER_S = 600

Ranges = list[list[int]]


def write(folder: Path, made: Compiled, ort: Path | None) -> None:
    """Everything that a page needs, beside what `package.write` has written. `ort`: an installed onnxruntime-web.

    Raises InputError for a tokenizer that the runner does not split as it should, or without onnxruntime-web.
    """
    (folder / PIECES).write_text(json.dumps(pieces_of(made.tokenizer)), "utf-8")
    for name in SCRIPTS:
        shutil.copyfile(TEMPLATES / name, folder / name)
    (folder / "ort").mkdir()
    if ort is not None:
        _copied(ort, folder / "ort")
        return
    with tempfile.TemporaryDirectory() as scratch:
        _copied(_fetched(Path(scratch)), folder / "ort")


def _copied(package: Path, to: Path) -> None:
    """Copy what is needed of onnxruntime-web. Raises InputError where it is not there."""
    for where in (package, package / "node_modules" / ORT):
        if (where / "dist" / ORT_FILES[0]).is_file():
            break
    else:
        raise InputError(f"--ort {package}: no {ORT} is installed there (dist/{ORT_FILES[0]} is missing)")
    for name in ORT_FILES:
        if not (where / "dist" / name).is_file():
            raise InputError(f"--ort {package}: dist/{name} is missing; this form is made for {ORT} {ORT_VERSION}")
        shutil.copyfile(where / "dist" / name, to / name)
    told = msgspec.json.decode((where / "package.json").read_bytes())
    (to / "VERSION").write_text(f"{ORT} {told.get('version')}, licence {told.get('license')}\n", "utf-8")


def _fetched(scratch: Path) -> Path:
    """onnxruntime-web from the npm registry. Raises InputError without npm, or where it cannot fetch it."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(f"--as browser needs the npm package {ORT}: install npm, or say where it is with --ort DIR")
    command = [npm, "pack", f"{ORT}@{ORT_VERSION}", "--silent", "--ignore-scripts"]
    try:
        done = subprocess.run(command, cwd=scratch, capture_output=True, text=True, timeout=_FETCH_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise InputError(f"npm did not fetch {ORT} within {_FETCH_S} s; say where it is with --ort DIR") from error
    files = list(scratch.glob("*.tgz"))
    if done.returncode or len(files) != 1:
        told = (done.stderr.strip() or "no file").split("\n")[-1]
        raise InputError(f"npm cannot fetch {ORT} {ORT_VERSION} ({told}); say where it is with --ort DIR")
    with tarfile.open(files[0]) as archive:
        archive.extractall(scratch, filter="data")
    return scratch / "package"


def answers(folder: Path, asked: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, Any]] | None:
    """What the JavaScript in the folder answers, under Node; None without Node. Raises ArtefactError where it fails."""
    node = shutil.which("node")
    if node is None:
        return None
    lines = "".join(json.dumps({"input": text, "slices": list(slices)}) + "\n" for text, slices in asked)
    command = [node, str(folder.resolve() / "run.mjs")]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    said = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    if done.returncode or len(said) != len(asked):
        told = next((line for line in done.stderr.splitlines() if "Error" in line), "it ended early")
        raise ArtefactError(f"the exported JavaScript does not run under Node: {told[:300]}")
    return said


# ---------------------------------------------------------------------------------------------- word pieces


def pieces_of(tokenizer: Path) -> dict[str, Any]:
    """What `pieces.js` needs beside tokenizer.json. Raises InputError for a kind that it does not know."""
    told = json.loads(tokenizer.read_text("utf-8"))
    kind = told["model"]["type"]
    flags = ("single_word", "lstrip", "rstrip", "normalized")
    plain = not any(token[flag] for token in told["added_tokens"] for flag in flags)
    normalizer, before = told["normalizer"] or {}, told["pre_tokenizer"] or {}
    if plain and kind == "BPE" and told["model"]["byte_fallback"] and not before and _is_llama(normalizer):
        return {}
    if plain and kind == "WordPiece" and normalizer.get("type") == before.get("type", "")[:4] + "Normalizer":
        return _characters(tokenizer)
    raise InputError(f"--as browser splits words as BERT or Llama do, and this model's tokenizer ({kind}) does not")


def _is_llama(normalizer: dict[str, Any]) -> bool:
    steps = [{key: step[key] for key in sorted(step)} for step in normalizer.get("normalizers", [])]
    return steps == [
        {"prepend": "\u2581", "type": "Prepend"},
        {"content": "\u2581", "pattern": {"String": " "}, "type": "Replace"},
    ]


def _characters(file: Path) -> dict[str, Any]:
    """What the tokenizer makes of each character by itself, and what the character is between two others. Probed:
    JavaScript's own tables are of another version of Unicode."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(file))
    normal, apart = tokenizer.normalizer.normalize_str, tokenizer.pre_tokenizer.pre_tokenize_str
    found: dict[str, list[int]] = {name: [] for name in ("padded", "gone", "apart", "space", "marks")}
    becomes: list[tuple[int, str]] = []
    for code in (code for code in range(0x110000) if not 0xD800 <= code <= 0xDFFF):
        char = chr(code)
        made = normal(char)
        if made == f" {char} ":
            found["padded"].append(code)
        elif made == "":
            found["gone"].append(code)
        elif made != char and 0xAC00 <= code <= 0xD7A3:
            found["apart"].append(code)  # Hangul syllables come apart by a rule that never changes
        elif made != char:
            becomes.append((code, made))
        parts = len(apart(f"a{char}a"))
        if parts > 1:
            found["space" if parts == 2 else "marks"].append(code)
    return {"becomes": becomes, **{name: ranges(codes) for name, codes in found.items()}}


def ranges(codes: Sequence[int]) -> Ranges:
    """Ascending numbers as ranges, each from its first to behind its last."""
    found: Ranges = []
    for code in codes:
        if found and found[-1][1] == code:
            found[-1][1] = code + 1
        else:
            found.append([code, code + 1])
    return found
