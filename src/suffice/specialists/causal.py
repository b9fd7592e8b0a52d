"""The causal family: a generating model tuned on the task with LoRA, written as GGUF, served by llama.cpp.

Score, guard and certificate are those of the rounded model by the runtime that serves, after its log-probabilities were
checked against transformers'. Learning needs the extra `llm`; serving xllamacpp and tokenizers only.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from threading import Lock
from typing import Any

from suffice.core.protocols import Progress
from suffice.core.types import OutputContract, Prediction, Recipe, ToolCall, TrainSet, TuneSet
from suffice.specialists import causal_store, heads
from suffice.specialists.causal_grammar import schema_of
from suffice.specialists.causal_score import Reader
from suffice.specialists.causal_store import SETTINGS, TENSORS, Parts
from suffice.specialists.causal_text import said
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.features import Hasher
from suffice.specialists.judged import JudgedFamily
from suffice.specialists.runtime import Runtime, Written
from suffice.specialists.runtimes.chosen import Choice, Open, Place, opening

_FEWEST_FOR_THREADS = 8


class Writers:
    """One model as often as there are cores, opened when so many answers are asked for at once; weights are mapped, so
    they are in memory once. The same prompt gives the same answer in each."""

    def __init__(self, open_one: Open) -> None:
        self._open_one = open_one
        self._first = open_one()
        self._all = [self._first]
        self._opening = Lock()
        weakref.finalize(self, _close, self._all)

    @property
    def name(self) -> str:
        """The runtime's."""
        return self._first.name

    def each(self, count: int, work: Callable[[Runtime, int], None]) -> None:
        """Do `work` for 0, 1, ... `count` - 1, each with a runtime that nobody else has meanwhile."""
        if count < _FEWEST_FOR_THREADS:
            for at in range(count):
                work(self._first, at)
            return
        free: SimpleQueue[Runtime] = SimpleQueue()
        for one in self._opened():
            free.put(one)

        def taken(at: int) -> None:
            one = free.get()
            try:
                work(one, at)
            finally:
                free.put(one)

        with ThreadPoolExecutor(free.qsize()) as pool:
            list(pool.map(taken, range(count)))

    def _opened(self) -> list[Runtime]:
        with self._opening:
            while len(self._all) < _cores():
                self._all.append(self._open_one())
            return list(self._all)


class CausalSpecialist:
    """A tuned model that writes answers. Immutable and thread-safe.

    `remembered` are answers to inputs that were asked for while it was made: each is given once instead of being
    written again, since a runtime gives the same.
    """

    generates = True

    def __init__(
        self, parts: Parts, reader: Reader, writers: Writers, folder: Path, remembered: dict[str, Written | None]
    ) -> None:
        self._parts, self._reader, self._writers, self._folder = parts, reader, writers, folder
        self._remembered = remembered
        self._schema = schema_of(parts.settings.contract)

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order; one that cannot be read, or is too long, has the value None."""
        found: list[Prediction | None] = [None] * len(inputs)

        def one(runtime: Runtime, at: int) -> None:
            text = inputs[at]
            try:
                answer = self._remembered.pop(text)
            except KeyError:
                answer = write(runtime, self._parts.settings, self._schema, text)
            found[at] = self._judged(text, answer)

        self._writers.each(len(inputs), one)
        return [each for each in found if each is not None]

    def _judged(self, text: str, written: Written | None) -> Prediction:
        settings = self._parts.settings
        value = said(settings.contract, written.text) if written is not None and written.finished else None
        if written is None or value is None:
            return Prediction(value=None, score=0.0)
        seen = self._reader.seen(text, written, value)
        return Prediction(
            value=value,
            score=self._parts.scorer.score(seen.signals),
            familiar=self._parts.guard.familiar(seen.strangeness),
            parts=dict(zip(("evidence", "margin"), seen.signals[:2], strict=True)),
        )

    def save(self, folder: Path) -> None:
        """Write the model, its adapter, prompt, contract and score into an existing folder."""
        causal_store.save(self._parts, folder)
        for path in sorted(self._folder.iterdir()):
            if path.is_file() and path.name not in (SETTINGS, TENSORS):
                shutil.copyfile(path, folder / path.name)


def write(runtime: Runtime, settings: causal_store.Settings, schema: Any, text: str) -> Written | None:
    """What the model writes for one input; None where it cannot be asked: the input is longer than its context."""
    try:
        return runtime.write([settings.prompting.of(text)], schema=schema, most_tokens=settings.most_tokens)[0]
    except ValueError:  # as the protocol says it; this input alone escalates
        return None


class CausalFamily(JudgedFamily):
    """Builds causal specialists. `base`: a folder, a GGUF file or a name on the hub; None: the installed package's.

    `bases` is the folder for what is made of base models. `wanted`: it was asked for by name; otherwise it leaves
    answers alone that smaller families read off the input. `adapter`: one that was tuned elsewhere, instead of tuning.
    `choice`: the runtime of what is fitted; `places`: the servers of the settings, for what is loaded.
    """

    name = "causal"

    def __init__(
        self,
        base: str | None,
        bases: Path,
        wanted: bool = True,
        adapter: Path | None = None,
        *,
        choice: Choice | None = None,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        self._base, self._bases, self._wanted, self._adapter = base, bases, wanted, adapter
        self._choice, self._places = choice or Choice(), dict(places or {})
        self.identity = " ".join([self.name, *([base] if base is not None else []), *self._choice.told.values()])
        self._hasher = Hasher()
        self._told: str | None = None  # the instruction that the adapter was tuned with
        self._tuned: Path | None = None

    def supports(self, contract: OutputContract) -> str | None:
        """None if it does, else why not, in one sentence."""
        if isinstance(contract, ToolCall) and contract.offered:
            return "each request offers tools of its own."
        try:
            schema_of(contract)
        except ValueError as error:
            return str(error)
        if not self._wanted and heads.unsupported(contract) is None:
            return "smaller families read such answers off the input; --recipe causal tries it all the same"
        return None

    def recipes(self, seed: int) -> list[Recipe]:
        """The same tuned model, rounded to fewer bits first."""
        base: dict[str, float | int | str] = {"base": self._base} if self._base is not None else {}
        base |= self._choice.told
        return [Recipe(family=self.name, seed=seed, params={**base, "bits": bits}) for bits in self._choice.bits]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> CausalSpecialist:
        """Tune on train, round, check the runtime, fit score and guard on tune. Deterministic on one machine.

        Parameters of a recipe: `bits`, `base`, and those of `causal_tune.Tuning` (`steps` 0: the base as it is). Raises
        ValueError for a contract it does not support, InputError for a base that cannot be used or a runtime that does
        not compute it, MemoryError where there is too little.
        """
        from suffice.specialists.causal_fit import fit

        if self._tuned is None:  # adapters, for recipes that differ in rounding only
            self._tuned = Path(tempfile.mkdtemp(prefix="suffice-adapters-"))
            weakref.finalize(self, shutil.rmtree, self._tuned, ignore_errors=True)
        return fit(
            recipe, contract, train, tune, progress,
            named=str(recipe.params["base"]) if "base" in recipe.params else self._base,
            bases=self._bases, adapter=self._adapter, told=self._told, tuned=self._tuned, scratch=scratch,
            hasher=self._hasher, right=self._right, choice=self._choice, places=self._places,
        )  # fmt: skip

    def load(self, folder: Path) -> CausalSpecialist:
        """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is not whole or cannot be run."""
        embedding = shared_static_embedding()
        parts = causal_store.load(folder, embedding.dimensions)
        settings = parts.settings
        reader = Reader(settings.contract, parts.known, settings.longest, embedding, self._hasher)
        open_one = opening(settings.runtime, folder, settings.context, self._places)
        return CausalSpecialist(parts, reader, Writers(open_one), folder, {})


def bits_of(recipe: Recipe) -> int:
    """What a recipe rounds weights to."""
    return int(recipe.params.get("bits", 8))


def _close(opened: list[Runtime]) -> None:
    for one in opened:
        one.close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
