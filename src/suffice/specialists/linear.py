"""The linear family: words, pieces of words and a static embedding, read by logistic regression. No download, no GPU.

Measured figures, negative results included, are in docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from suffice.core.errors import ArtefactError
from suffice.core.protocols import Progress
from suffice.core.types import Example, OutputContract, Recipe, TrainSet, TuneSet
from suffice.specialists.embedding import StaticEmbedding, shared_static_embedding
from suffice.specialists.features import Hasher
from suffice.specialists.heads import heads_of, unsupported
from suffice.specialists.linear_fit import Judged, enough_to_fit, fit_heads, fit_trust, folds, judge
from suffice.specialists.linear_model import (
    FORMAT,
    SETTINGS,
    SIGNALS,
    STRANGENESS,
    TENSORS,
    Arrays,
    LinearSpecialist,
    Settings,
    main_head,
)


class LinearFamily:
    """Builds linear specialists. `embedding` is a function so that nothing is read before it is needed."""

    name = "linear"

    def __init__(self, embedding: Callable[[], StaticEmbedding] = shared_static_embedding) -> None:
        self._embedding = embedding
        self._hasher = Hasher()

    def supports(self, contract: OutputContract) -> str | None:
        """None for choices, labels, objects of them and tool calls with such arguments; else why not."""
        return unsupported(contract)

    def recipes(self, seed: int) -> list[Recipe]:
        """One setting that is good everywhere, and one that trusts the embedding more (few examples, many classes)."""
        return [
            Recipe(family=self.name, seed=seed),
            Recipe(family=self.name, seed=seed, params={"embedding": 2.0}),
        ]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> LinearSpecialist:
        """Fit heads on train, score and guard on tune. Raises ValueError for a contract it does not support.

        Where tune holds too few right or wrong answers to learn a score from, thirds of train that a fit has not seen
        are added: 3 to 9 points of coverage on SNIPS with 1,500 rows. With enough they add only time.
        """
        reason = unsupported(contract)
        if reason is not None:
            raise ValueError(reason)
        embedding = self._embedding()

        def plain(rows: Sequence[Example]) -> tuple[Settings, Arrays, LinearSpecialist]:
            settings, arrays = fit_heads(recipe, contract, rows, embedding, self._hasher, progress)
            arrays["score"] = np.eye(1, len(SIGNALS) + 1)[0]
            arrays["limits"] = np.full(len(STRANGENESS), np.inf)
            return settings, arrays, LinearSpecialist(settings, arrays, embedding, self._hasher)

        settings, arrays, whole = plain(train)
        progress("fitting score and guard", 0.95)
        judged: list[Judged] = judge(whole, tune)
        if not enough_to_fit(judged):
            judged += [row for others, third in folds(train) for row in judge(plain(others)[2], third)]
        scorer, guard = fit_trust(judged)
        arrays = {**arrays, "score": np.append(scorer.weights, scorer.bias), "limits": guard.limits}
        progress("fitted", 1.0)
        return LinearSpecialist(settings, arrays, embedding, self._hasher)

    def load(self, folder: Path) -> LinearSpecialist:
        """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
        try:
            arrays = load_file(folder / TENSORS)
            settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=Settings)
        except (OSError, SafetensorError, msgspec.DecodeError, ValueError) as error:
            raise ArtefactError(f"the linear artefact in {folder} cannot be read: {error}") from error
        embedding = self._embedding()
        wrong = _fault(settings, arrays, embedding.dimensions)
        if wrong is not None:
            raise ArtefactError(f"the linear artefact in {folder} is not whole: {wrong}")
        return LinearSpecialist(settings, arrays, embedding, self._hasher)


def _fault(settings: Settings, arrays: Arrays, dimensions: int) -> str | None:
    """What is wrong with a loaded artefact, or None."""
    if settings.format != FORMAT:
        return f"its format is {settings.format}, this version reads {FORMAT}"
    if unsupported(settings.contract) is not None:
        return "its contract is not a linear one"
    expected = [(head.path, head.tool) for head in heads_of(settings.contract)]
    if [(head.path, head.tool) for head in settings.heads] != expected or not all(h.values for h in settings.heads):
        return "its heads are not those of its contract"
    columns, features = sum(head.columns for head in settings.heads), len(arrays.get("hashes", ()))
    classes = len(settings.heads[main_head(settings.heads)].values)
    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
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
    }
    for name, (dtype, shape) in kinds.items():
        if name not in arrays:
            return f"`{name}` is missing"
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            return f"`{name}` is {array.dtype}{list(array.shape)} where {np.dtype(dtype)}{list(shape)} belongs"
        if name not in ("hashes", "limits") and not np.isfinite(array).all():
            return f"`{name}` holds a number that is not finite"
    if np.isnan(arrays["limits"]).any() or bool((arrays["hashes"][1:] <= arrays["hashes"][:-1]).any()):
        return "its limits or its vocabulary are out of order"
    if (arrays["kept"] < 0).any():
        return "its neighbours are miscounted"
    starts = [head.start for head in settings.heads]
    if starts != [0, *np.cumsum([head.columns for head in settings.heads]).tolist()][:-1]:
        return "its heads do not tile the coefficients"
    return None
