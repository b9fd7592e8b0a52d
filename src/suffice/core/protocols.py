"""What rooms expect of each other: each protocol names only the slice its consumer uses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import msgspec

from suffice.core.types import OutputContract, Prediction, Recipe, TrainSet, TuneSet
from suffice.core.values import Value, canonical

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


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one question to an upstream: a chat completion's body where `status` is 200.

    `ms`: how long it took, attempts included. `usd`: what it cost, None where that is not known. `failure`: why there
    is no answer.
    """

    body: bytes = b""
    status: int = 0
    ms: float = 0.0
    usd: float | None = None
    failure: str | None = None


class Ask(Protocol):
    """The way to one upstream's model, with what was asked before at hand; whoever hands it in keeps to the rules."""

    def announce(self, questions: Sequence[bytes], answer_tokens: int) -> None:
        """Say what asking these will send and cost, before it is sent. Raises InputError where it may not be."""
        ...

    def __call__(self, questions: Sequence[bytes]) -> list[Reply]:
        """Put chat requests (whole bodies) and wait for all answers, in order. Raises InputError where no more money
        may be spent."""
        ...


@runtime_checkable
class Remote(Specialist, Protocol):
    """A specialist whose model is an upstream's: it says what to ask, and reads what comes back.

    Serving asks by its own way out and never by `predict`, which is for learning.
    """

    upstream: str
    model: str
    p50_ms: float
    p99_ms: float
    usd_per_1k: float | None
    """What 1,000 requests cost, as tune has shown; None where that is not known."""

    def question(self, text: str) -> bytes:
        """The chat request, whole, for one input. Thread-safe."""
        ...

    def heard(self, text: str, answer: bytes) -> Prediction:
        """The prediction in a chat completion. Thread-safe; one that cannot be read has the value None, score 0."""
        ...


@runtime_checkable
class Configured(Protocol):
    """A family that depends on settings: runs with others of it are other runs."""

    identity: str


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


Right = Callable[[Sequence[tuple[str, Value, Value]]], list[bool]]
"""Whether an answer counts as right, for each (input, said, right)."""


def equal(cases: Sequence[tuple[str, Value, Value]]) -> list[bool]:
    """By the answers alone: the same or not."""
    return [canonical(said) == canonical(right) for _, said, right in cases]


@runtime_checkable
class Judging(Protocol):
    """A family whose score learns when an answer is right by whatever the task declares that to be."""

    def judged_by(self, right: Right) -> Family:
        """The family, its score learned by this."""
        ...


class Grader(Protocol):
    """A verifier that needs more than the two answers: a file, a table, a model. The CLI hands them in."""

    def __call__(self, input: str, said: Value, right: Value) -> float:
        """The loss of `said`, in [0, 1]. Raises `losses.Unverified` where it cannot be asked at all."""
        ...

    def prepare(self, cases: Sequence[tuple[str, Value, Value]]) -> None:
        """These (input, said, right) are asked about next: what takes long may be done for all of them together."""
        ...

    def fault(self) -> str | None:
        """What went wrong since this was last asked, in one sentence; None if nothing did."""
        ...
