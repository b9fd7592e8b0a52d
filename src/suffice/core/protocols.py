"""What rooms expect of each other: each protocol names only the slice its consumer uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from suffice.core.types import OutputContract, Prediction, Recipe, TrainSet, TuneSet

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done in [0, 1]."""


class Specialist(Protocol):
    """A fitted small model for one task."""

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order. Thread-safe. Any exception is an escalation to the caller."""
        ...


class Fitted(Specialist, Protocol):
    """A specialist that can be written down."""

    def save(self, folder: Path) -> None:
        """Write the artefact into an existing, empty folder: safetensors, ONNX and JSON only."""
        ...


class Family(Protocol):
    """A way of building specialists. Implementations live in `specialists/`, one file each; the CLI hands them in."""

    name: str

    def supports(self, contract: OutputContract) -> str | None:
        """None if this family can answer such a contract, else why not, in one sentence."""
        ...

    def recipes(self, seed: int) -> list[Recipe]:
        """The recipes to try, cheapest to serve first."""
        ...

    def fit(
        self, recipe: Recipe, contract: OutputContract, train: TrainSet, tune: TuneSet, progress: Progress
    ) -> Fitted:
        """Fit on train; fit the learned score and the guard on tune. Same arguments, same artefact."""
        ...

    def load(self, folder: Path) -> Specialist:
        """Read what `save` wrote. Raises ArtefactError when it is not whole."""
        ...
