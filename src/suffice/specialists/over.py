"""What is fitted over an embedding, whichever it is: heads for what a contract closes and pieces of the input, or the
choice among the tools that each request brings along. The families differ in their embedding."""

from __future__ import annotations

from pathlib import Path

from suffice.core.protocols import Progress
from suffice.core.types import OutputContract, Recipe, ToolCall, TrainSet, TuneSet
from suffice.specialists import offered
from suffice.specialists.embedding import Embedding
from suffice.specialists.features import Hasher
from suffice.specialists.heads import unsupported
from suffice.specialists.linear_fit import fit_linear
from suffice.specialists.linear_load import load_linear
from suffice.specialists.linear_model import LinearSpecialist
from suffice.specialists.offered import OfferedSpecialist
from suffice.specialists.solver import one_thread

Over = LinearSpecialist | OfferedSpecialist


def is_offered(contract: OutputContract) -> bool:
    """Whether the tools are those that each request offers."""
    return isinstance(contract, ToolCall) and contract.offered


def supports(contract: OutputContract) -> str | None:
    """None for choices, labels, pieces of the input, numbers, lists of these two, objects and tool calls of all that,
    and for calls of tools that requests offer; else why not, in one sentence."""
    return offered.supports(contract) if is_offered(contract) else unsupported(contract)


def fit(
    recipe: Recipe,
    contract: OutputContract,
    train: TrainSet,
    tune: TuneSet,
    embedding: Embedding,
    hasher: Hasher,
    progress: Progress,
    folded: bool = True,
) -> Over:
    """Fit on train; score and guard on tune (`folded`: see `fit_linear`). Raises ValueError for another contract."""
    with one_thread():
        if is_offered(contract):
            from suffice.specialists import offered_fit

            return offered_fit.fit(recipe, contract, train, tune, embedding, progress)
        return fit_linear(recipe, contract, train, tune, embedding, hasher, progress, folded)


def load(folder: Path, embedding: Embedding, hasher: Hasher) -> Over:
    """Read what was saved. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
    if (folder / offered.SETTINGS).exists():
        return offered.load(folder, embedding)
    return load_linear(folder, embedding, hasher)
