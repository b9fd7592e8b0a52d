"""Reading back what a specialist of any family has saved: arrays and settings, and whether the arrays are as they
should be. What must hold beyond their types and shapes, each family checks itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file

from suffice.core.errors import ArtefactError

Arrays = dict[str, npt.NDArray[Any]]
Kinds = Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]]
"""The type and the shape that each array should have."""
S = TypeVar("S")

UNBOUNDED = "limits"
"""The array that may hold infinities: the guard's limits, where nothing is too strange."""


def read_saved(folder: Path, tensors: str, settings: str, kind: type[S], what: str) -> tuple[S, Arrays]:
    """The settings and the arrays in a folder. Raises ArtefactError, naming `what`, where either cannot be read."""
    try:
        arrays = load_file(folder / tensors)
        return msgspec.json.decode((folder / settings).read_bytes(), type=kind), arrays
    except (OSError, SafetensorError, msgspec.DecodeError, ValueError) as error:
        raise ArtefactError(f"the {what} in {folder} cannot be read: {error}") from error


def fault_in(arrays: Arrays, kinds: Kinds) -> str | None:
    """The first array that is missing, of another type or shape, or not finite, in words; None if all are well."""
    for name, (dtype, shape) in kinds.items():
        if name not in arrays:
            return f"`{name}` is missing"
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            return f"`{name}` is {array.dtype}{list(array.shape)} where {np.dtype(dtype)}{list(shape)} belongs"
        if np.isnan(array).any() or (name != UNBOUNDED and not np.isfinite(array).all()):
            return f"`{name}` holds a number that is not finite"
    return None
