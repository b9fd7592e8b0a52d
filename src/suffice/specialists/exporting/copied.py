"""A release with the code that reads it: for families and contracts that are no single graph, and for llama.cpp.

The folder holds the artefact's files as they are, and of this package the modules that loading and predicting need, as
they are: so it answers as the server does. They need a few packages and no more; which, is read off their imports.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.errors import ArtefactError, InputError
from suffice.core.style import Style
from suffice.core.types import Draft, ToolCall
from suffice.specialists import embedding, encoder
from suffice.specialists.encoder_store import Base
from suffice.specialists.exporting.package import RUNNER, SETTINGS, TEMPLATES

PACKAGE = "suffice"
LOADS: dict[str, tuple[str, str, bool]] = {
    "linear": ("suffice.specialists.linear", "LinearFamily", False),
    "nearest": ("suffice.specialists.nearest", "NearestFamily", False),
    "encoder": ("suffice.specialists.encoder", "EncoderFamily", True),
    "causal": ("suffice.specialists.causal", "CausalFamily", True),
}
"""Of each family its module, its class, and whether that is made with a base and a folder of bases."""
ALSO: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "encoder": ((), ("onnxruntime",)),
    "causal": (("suffice.specialists.runtimes.llamacpp",), ("xllamacpp",)),
}
"""Modules and packages that a family imports only when it loads a model."""
_ALWAYS = ("suffice.core.contracts", "suffice.core.style")
_ROOT = Path(__file__).parents[3]
_ANSWER_S = 3_600


def write(folder: Path, name: str, digest: str, draft: Draft, style: Style, artefact: Path, bases: Path) -> None:
    """Everything that runs, into an existing folder. Raises InputError for what has no such form."""
    family = draft.recipe.family
    if family not in LOADS:
        raise InputError(f"a release of the family `{family}` is no model that could be exported")
    if isinstance(draft.contract, ToolCall) and draft.contract.offered:
        raise InputError("a release that chooses among tools which each request offers cannot be exported yet")
    modules, packages = ALSO.get(family, ((), ()))
    found, needed = closure([LOADS[family][0], *modules, *_ALWAYS])
    for module in found:
        target = folder / "code" / module.relative_to(_ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(module, target)
    _embedding_into(folder / "code" / "wordllama")
    shutil.copytree(artefact, folder / "model")
    if (artefact / encoder.BASE).exists():
        base = msgspec.json.decode((artefact / encoder.BASE).read_bytes(), type=Base)
        shutil.copytree(bases / base.key, folder / "bases" / base.key)
    pinned = [f"{each}=={importlib.metadata.version(each)}" for each in sorted({*needed, *packages})]
    (folder / "requirements.txt").write_text("\n".join(pinned) + "\n", "utf-8")
    settings = {
        "format": 1,
        "name": name,
        "release": digest,
        "family": family,
        "loads": LOADS[family],
        "threshold": draft.threshold.score,
        "closed_slices": draft.closed_slices,
        "contract": draft.contract,
        "style": style,
        "certificate": draft.threshold.certificate,
    }
    (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=1))
    shutil.copyfile(TEMPLATES / "run_copied.py", folder / RUNNER)


def closure(modules: Sequence[str]) -> tuple[list[Path], set[str]]:
    """The files of this package that importing these modules reads, and the other packages that they import."""
    found: dict[str, Path] = {}
    others: set[str] = set()
    left = list(modules)
    while left:
        module = left.pop()
        file = _file(module)
        if module in found or file is None:
            continue
        found[module] = file
        left += [module.rpartition(".")[0]] if "." in module else []
        for name in _imported(file):
            if name.split(".")[0] == PACKAGE:
                left.append(name)
            else:
                others.add(name.split(".")[0])
    return sorted(found.values()), {name for name in others if name not in sys.stdlib_module_names}


def _file(module: str) -> Path | None:
    place = _ROOT.joinpath(*module.split("."))
    return next((file for file in (place.with_suffix(".py"), place / "__init__.py") if file.is_file()), None)


def _imported(file: Path) -> Iterator[str]:
    """What a module imports when it is imported itself, each name also as if it were a module."""
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            if node.module.split(".")[0] == PACKAGE:
                yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _embedding_into(folder: Path) -> None:
    """The table and the tokenizer of the static embedding, found there as they are in the package they come with."""
    installed = embedding.installed_folder()
    for name in (embedding.TABLE, embedding.TOKENIZER):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(installed / name, folder / name)
    told = '"""The static embedding of the package wordllama (MIT licence): its table and tokenizer, as data."""\n'
    (folder / "__init__.py").write_text(told, "utf-8")


def answers(folder: Path, asked: Sequence[tuple[str, Sequence[str]]]) -> list[dict[str, Any]]:
    """What the folder's runner says, in a process of its own. Raises ArtefactError where it fails."""
    lines = "".join(json.dumps({"input": text, "slices": list(slices)}) + "\n" for text, slices in asked)
    command = [sys.executable, str(folder.resolve() / RUNNER)]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=_ANSWER_S, check=False)
    for compiled in list(folder.rglob("__pycache__")):
        shutil.rmtree(compiled)
    said = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    if done.returncode or len(said) != len(asked):
        told = (done.stderr.strip() or "it ended early").split("\n")[-1]
        raise ArtefactError(f"the exported runner does not run: {told[:300]}")
    return said
