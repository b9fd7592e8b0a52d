"""The linear family: words, pieces of words and a static embedding, read by logistic regression. No download, no GPU.

Measured figures, negative results included, are in docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from suffice.core.protocols import Progress
from suffice.core.types import OutputContract, Recipe, TrainSet, TuneSet
from suffice.specialists.embedding import StaticEmbedding, shared_static_embedding
from suffice.specialists.features import Hasher
from suffice.specialists.heads import unsupported
from suffice.specialists.linear_fit import fit_linear
from suffice.specialists.linear_load import load_linear
from suffice.specialists.linear_model import LinearSpecialist


class LinearFamily:
    """Builds linear specialists. `embedding` is a function so that nothing is read before it is needed."""

    name = "linear"

    def __init__(self, embedding: Callable[[], StaticEmbedding] = shared_static_embedding) -> None:
        self._embedding = embedding
        self._hasher = Hasher()

    def supports(self, contract: OutputContract) -> str | None:
        """None for choices, labels, pieces of the input, numbers, lists of these two, and objects and tool calls of all
        that; else why not."""
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
        """Fit on train; score and guard on tune. Raises ValueError for a contract it does not support."""
        return fit_linear(recipe, contract, train, tune, self._embedding(), self._hasher, progress)

    def load(self, folder: Path) -> LinearSpecialist:
        """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
        return load_linear(folder, self._embedding(), self._hasher)
