"""Reading a linear model back, over the embedding it was fitted on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from suffice.core.errors import ArtefactError
from suffice.specialists.embedding import Embedding
from suffice.specialists.features import Hasher
from suffice.specialists.heads import heads_of, unsupported
from suffice.specialists.linear_model import (
    FORMAT,
    SETTINGS,
    SIGNALS,
    STRANGENESS,
    TENSORS,
    LinearSpecialist,
    Settings,
    classes_of,
)
from suffice.specialists.pieces import kinds_of, slots_of
from suffice.specialists.saved import Arrays, Kinds, fault_in, read_saved
from suffice.specialists.tagger import PREFIX


def load_linear(folder: Path, embedding: Embedding, hasher: Hasher) -> LinearSpecialist:
    """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
    settings, arrays = read_saved(folder, TENSORS, SETTINGS, Settings, "linear artefact")
    wrong = _fault(settings, arrays, embedding)
    if wrong is not None:
        raise ArtefactError(f"the linear artefact in {folder} is not whole: {wrong}")
    return LinearSpecialist(settings, arrays, embedding, hasher)


def _fault(settings: Settings, arrays: Arrays, embedding: Embedding) -> str | None:
    """What is wrong with a loaded artefact, or None."""
    if settings.format != FORMAT:
        return f"its format is {settings.format}, this version reads {FORMAT}"
    if unsupported(settings.contract) is not None:
        return "its contract is not a linear one"
    expected = [(head.path, head.tool) for head in heads_of(settings.contract)]
    if [(head.path, head.tool) for head in settings.heads] != expected or not all(h.values for h in settings.heads):
        return "its heads are not those of its contract"
    slots = slots_of(settings.contract)
    tagged = settings.tagger.slots if settings.tagger is not None else ()
    if tagged != slots or (settings.tagger is not None and len(settings.tagger.writings) != len(slots)):
        return "its slots are not those of its contract"
    kinds = _kinds(settings, arrays, embedding)
    if (fault := fault_in(arrays, kinds)) is not None:
        return fault
    ascending = [arrays[name] for name in kinds if name.endswith("hashes")]
    if any(bool((each[1:] <= each[:-1]).any()) for each in ascending):
        return "its vocabulary is out of order"
    if (arrays["kept"] < 0).any():
        return "its neighbours are miscounted"
    if (arrays["combined"] < 0).any() or (arrays["company"] < 0).any():
        return "its counts are below zero"
    starts = [head.start for head in settings.heads]
    if starts != [0, *np.cumsum([head.columns for head in settings.heads]).tolist()][:-1]:
        return "its heads do not tile the coefficients"
    return None


def _kinds(settings: Settings, arrays: Arrays, embedding: Embedding) -> Kinds:
    """The type and the shape that each array should have."""

    def many(name: str) -> int:
        return len(arrays.get(name, ()))

    columns, features, dimensions = sum(head.columns for head in settings.heads), many("hashes"), embedding.dimensions
    classes, slots = classes_of(settings.heads), slots_of(settings.contract)
    kinds: dict[str, tuple[npt.DTypeLike, tuple[int, ...]]] = {
        "hashes": (np.uint64, (features,)),
        "idf": (np.float32, (features,)),
        "sparse": (np.float16, (features, columns)),
        "dense": (np.float32, (dimensions, columns)),
        "bias": (np.float32, (columns,)),
        "mean": (np.float32, (dimensions,)),
        "centroids": (np.float16, (classes, dimensions)),
        "score": (np.float64, (len(SIGNALS) + 1,)),
        "limits": (np.float64, (len(STRANGENESS),)),
        "whitener": (np.float16, (dimensions, dimensions)),
        "kept": (np.int64, (classes,)),
        "neighbours": (np.int8, (int(arrays["kept"].sum()) if "kept" in arrays else 0, dimensions)),
        "combinations": (np.uint64, (many("combinations"),)),
        "combined": (np.int64, (many("combinations"),)),
        "company": (np.int64, (classes, len(slots) + 1)),
    }
    if not slots:
        return kinds
    tags, known = 3 + 2 * max(kinds_of(slots)), many(PREFIX + "hashes")
    return kinds | {
        PREFIX + "hashes": (np.uint64, (known,)),
        PREFIX + "sparse": (np.float16, (known, tags)),
        PREFIX + "words": (np.float32, (embedding.word_dimensions, tags)),
        PREFIX + "text": (np.float32, (dimensions, tags)),
        PREFIX + "bias": (np.float32, (tags,)),
        PREFIX + "transitions": (np.float32, (tags, tags)),
        PREFIX + "start": (np.float32, (tags,)),
    }
