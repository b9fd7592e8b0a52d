"""The linear family: words, pieces of words and a static embedding, read by logistic regression. No download, no GPU.

Measured figures, negative results included, are in docs/LOG.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from suffice.core.protocols import Progress
from suffice.core.types import OutputContract, Recipe, TrainSet, TuneSet
from suffice.specialists import over
from suffice.specialists.embedding import StaticEmbedding, shared_static_embedding
from suffice.specialists.features import Hasher
from suffice.specialists.over import Over


class LinearFamily:
    """Builds linear specialists. `embedding` is a function so that nothing is read before it is needed."""

    name = "linear"

    def __init__(self, embedding: Callable[[], StaticEmbedding] = shared_static_embedding) -> None:
        self._embedding = embedding
        self._hasher = Hasher()

    def supports(self, contract: OutputContract) -> str | None:
        """None if it does, else why not: see `over.supports`."""
        return over.supports(contract)

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
    ) -> Over:
        """Fit on train; score and guard on tune. Raises ValueError for a contract it does not support."""
        return over.fit(recipe, contract, train, tune, self._embedding(), self._hasher, progress)

    def load(self, folder: Path) -> Over:
        """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
        return over.load(folder, self._embedding(), self._hasher)
