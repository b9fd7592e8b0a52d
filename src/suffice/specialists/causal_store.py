"""What a causal specialist's folder holds, and reading it back.

`model.gguf`: the model that serves. `adapter_model.safetensors`, `adapter_config.json`: its LoRA adapter, for servers
that keep many on one base (none where nothing was tuned). `causal.json`, `causal.safetensors`: prompt, contract, score.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from suffice.core.errors import ArtefactError
from suffice.core.types import OutputContract, Recipe
from suffice.specialists.causal_parity import Parity
from suffice.specialists.causal_score import SIGNALS, STRANGENESS, Known, Taught
from suffice.specialists.causal_text import Prompting
from suffice.specialists.features import Vocabulary
from suffice.specialists.runtimes.chosen import Used
from suffice.specialists.saved import Arrays, fault_in, read_saved
from suffice.specialists.scorer import Guard, Scorer

MODEL, TENSORS, SETTINGS = "model.gguf", "causal.safetensors", "causal.json"
ADAPTER = ("adapter_model.safetensors", "adapter_config.json")
FORMAT = 1


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """What was learned from. `too_long`: rows that did not fit into the context, and were left out; `told`: those with
    the frontier's token probabilities; `steps`: after which the held-out loss was least, None where nobody looked."""

    rows: int = 0
    too_long: int = 0
    preferences: int = 0
    device: str = ""
    told: int = 0
    steps: int | None = None


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `causal.json` holds. `base`: whose weights; `most_tokens` of an answer, `context` of prompt and answer
    together; `longest`: characters of the longest training input; `parity`: the check of the runtime that serves, which
    is `runtime`."""

    format: int
    base: str
    contract: OutputContract
    recipe: Recipe
    prompting: Prompting
    taught: Taught
    most_tokens: int
    context: int
    longest: int
    counts: Counts
    parity: Parity | None = None
    runtime: Used = Used()


class Parts(msgspec.Struct, frozen=True):
    """All that is saved beside the model."""

    settings: Settings
    known: Known
    scorer: Scorer
    guard: Guard


def save(parts: Parts, folder: Path) -> None:
    """Write settings and arrays."""
    known = parts.known
    save_file(
        {
            "words": known.words,
            "hashes": known.vocabulary.hashes,
            "idf": known.vocabulary.weights,
            "mean": known.mean,
            "directions": known.directions,
            "shape_of": known.shape_of,
            "score": np.append(parts.scorer.weights, parts.scorer.bias),
            "limits": parts.guard.limits,
        },
        folder / TENSORS,
    )
    (folder / SETTINGS).write_bytes(msgspec.json.encode(parts.settings))


def load(folder: Path, dimensions: int) -> Parts:
    """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
    settings, arrays = read_saved(folder, TENSORS, SETTINGS, Settings, "causal artefact")
    wrong = _fault(settings, arrays, dimensions)
    if wrong is not None:
        raise ArtefactError(f"the causal artefact in {folder} is not whole: {wrong}")
    known = Known(
        settings.taught,
        arrays["words"],
        Vocabulary(arrays["hashes"], arrays["idf"]),
        arrays["mean"],
        arrays["directions"],
        arrays["shape_of"],
    )
    return Parts(settings, known, Scorer(arrays["score"][:-1], float(arrays["score"][-1])), Guard(arrays["limits"]))


def _fault(settings: Settings, arrays: Arrays, dimensions: int) -> str | None:
    if settings.format != FORMAT:
        return f"its format is {settings.format}, this version reads {FORMAT}"
    features, rows = len(arrays.get("hashes", ())), len(arrays.get("shape_of", ()))
    kinds: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {
        "words": (np.uint64, (len(arrays.get("words", ())),)),
        "hashes": (np.uint64, (features,)),
        "idf": (np.float32, (features,)),
        "mean": (np.float32, (dimensions,)),
        "directions": (np.float16, (rows, dimensions)),
        "shape_of": (np.int32, (rows,)),
        "score": (np.float64, (len(SIGNALS) + 1,)),
        "limits": (np.float64, (len(STRANGENESS),)),
    }
    if (fault := fault_in(arrays, kinds)) is not None:
        return fault
    if bool((arrays["hashes"][1:] <= arrays["hashes"][:-1]).any()):
        return "its vocabulary is out of order"
    return None
