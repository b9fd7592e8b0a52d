"""What rooms expect of each other: each protocol names only the slice its consumer uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from suffice.core.types import OutputContract, Prediction, Recipe, TrainSet, TuneSet

Progress = Callable[[str, float], None]
"""Called with what is being done and the share done in [0, 1]."""


class Specialist(Protocol):
    """A fitted small model for one task."""

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order. Thread-safe. Any exception is an escalation to the caller."""
        ...


class Encoder(Protocol):
    """What turns texts into numbers, for all specialists that predict from it: one pass, many heads.

    `batch_rows`: how many texts are read faster together than one by one; 1 where a batch would change what is read.
    `shared_bytes`: the memory it takes, as far as no specialist's artefact holds it.
    """

    batch_rows: int
    shared_bytes: int

    def read(self, inputs: Sequence[str]) -> Sequence[Any]:
        """What specialists over this encoder predict from, one for each input. Thread-safe."""
        ...


@runtime_checkable
class Encoded(Specialist, Protocol):
    """A specialist over an encoder that others may share: the encoder reads a text once for all of them."""

    @property
    def encoder(self) -> Encoder:
        """The encoder; equal for specialists that share it."""
        ...

    def predict_read(self, inputs: Sequence[str], read: Sequence[Any]) -> list[Prediction]:
        """As `predict`, from what the encoder has read of each input."""
        ...


@runtime_checkable
class Generating(Specialist, Protocol):
    """A specialist that may write its answers token by token: it is given seconds, and a thread of its kind."""

    @property
    def generates(self) -> bool:
        """Whether it does."""
        ...


def generates(specialist: Specialist) -> bool:
    """Whether a specialist writes its answers token by token; those that do not say so do not."""
    return isinstance(specialist, Generating) and specialist.generates


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
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> Fitted:
        """Fit on train; fit the learned score and the guard on tune. Same arguments, same artefact.

        Calls `progress` often: it raises when the budget is spent. `scratch` is a folder for the same arguments that
        outlives an interruption: what a long fit has left there, it goes on from.
        """
        ...

    def load(self, folder: Path) -> Specialist:
        """Read what `save` wrote. Raises ArtefactError when it is not whole."""
        ...
