"""The exported folder: graph, tokenizer, settings, runner; and what the runner in it says of some texts."""

from __future__ import annotations

import importlib.util
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.errors import ArtefactError, InputError
from suffice.core.style import Style
from suffice.core.types import ANSWER_SLICE, Choice, Draft
from suffice.specialists.exporting.compiled import Compiled
from suffice.specialists.exporting.layout import layout_of
from suffice.specialists.scorer import sigmoid

FORMAT = 1
GRAPH, ENCODER, TOKENIZER = "specialist.onnx", "encoder.onnx", "tokenizer.json"
SETTINGS, RUNNER = "specialist.json", "run.py"
TEMPLATES = Path(__file__).parent / "runner"

SLACK = 2e-5
"""By how much, in log-odds, the cutoff is below the threshold. Threshold and scores of tune are the same numbers, and
the exported graph reckons in double precision where the server does in single: an input that stands exactly on the
threshold would fall on either side by rounding. Measured differences are up to 3e-6."""

Answer = dict[str, Any]


def needs() -> None:
    """Raises InputError where a package is missing that exporting needs."""
    missing = [name for name in ("onnx", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"an export needs {' and '.join(missing)}: pip install 'suffice[export]'")


def cutoff(threshold: float) -> float:
    """The score below which the exported specialist asks the frontier: SLACK under the threshold, in log-odds."""
    low, high = -1e3, 1e3
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if sigmoid(middle) < threshold else (low, middle)
    return min(sigmoid(high - SLACK), threshold)


def settings_of(name: str, digest: str, draft: Draft, style: Style, made: Compiled) -> dict[str, Any]:
    """What the runner needs beside graph and tokenizer, and what people may want to look up."""
    layout = layout_of(made.contract, style, made.heads)
    wanted = {name.removeprefix(ANSWER_SLICE) for name in draft.closed_slices if name.startswith(ANSWER_SLICE)}
    whole = isinstance(made.contract, Choice)
    shut = [at for at, value in enumerate(made.heads[0].values) if whole and isinstance(value, str) and value in wanted]
    return {
        "format": FORMAT,
        "name": name,
        "release": digest,
        "family": draft.recipe.family,
        "threshold": draft.threshold.score,
        "cutoff": cutoff(draft.threshold.score),
        "text": {"longest": made.longest, "tail": made.tail},
        "pieces": made.pieces,
        "encoder": ENCODER if made.encoder is not None else None,
        "combined": made.combined,
        "closed": {"slices": list(draft.closed_slices), "answers": shut},
        "layout": msgspec.to_builtins(layout),
        "contract": msgspec.to_builtins(draft.contract),
        "certificate": msgspec.to_builtins(draft.threshold.certificate),
    }


def write(folder: Path, made: Compiled, settings: dict[str, Any]) -> None:
    """Everything that runs, into an existing folder."""
    (folder / GRAPH).write_bytes(made.model.SerializeToString())
    (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(settings), indent=1))
    for source, name in ((made.tokenizer, TOKENIZER), (TEMPLATES / RUNNER, RUNNER)):
        shutil.copyfile(source, folder / name)
    if made.encoder is not None:
        shutil.copyfile(made.encoder, folder / ENCODER)


def runner_in(folder: Path) -> Callable[[str, Sequence[str]], Answer]:
    """The folder's own runner, loaded as it would be elsewhere. Raises ArtefactError where the graph does not load."""
    spec = importlib.util.spec_from_file_location("suffice_exported_runner", folder / RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        specialist = module.Specialist(folder)
    except Exception as error:  # onnxruntime and tokenizers raise a dozen kinds
        first = str(error).strip().split("\n")[0][:300]
        raise ArtefactError(f"the exported graph cannot be loaded: {first}") from error
    return lambda text, slices: specialist.answer(text, tuple(slices))


def log_odds(score: float) -> float:
    """Of a score, as far as it tells."""
    return math.log(max(score, 1e-15)) - math.log(max(1 - score, 1e-15))


def size(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
