"""Making a causal specialist, from top to bottom: tuned adapter -> merged and rounded -> checked -> score and guard."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_type_hints

import msgspec
import numpy as np

from suffice.core.errors import InputError
from suffice.core.protocols import Progress, Right, equal
from suffice.core.types import Example, OutputContract, Recipe, TrainSet, TuneSet, digest_of
from suffice.core.values import Value, canonical, plain
from suffice.specialists import causal_base, causal_parity, causal_score, causal_tune
from suffice.specialists.causal import CausalSpecialist, Writers, bits_of, write
from suffice.specialists.causal_grammar import schema_of
from suffice.specialists.causal_parity import Parity
from suffice.specialists.causal_score import EVIDENCE, SIGNALS, STRANGENESS, Reader
from suffice.specialists.causal_store import ADAPTER, FORMAT, Counts, Parts, Settings
from suffice.specialists.causal_text import Prompting, prompting, said, written
from suffice.specialists.causal_tune import Pair, Preference, Tuning
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.encoder_export import quiet
from suffice.specialists.features import Hasher
from suffice.specialists.runtime import Runtime, Written
from suffice.specialists.runtimes.chosen import Choice, Place, Used, make, opening, rounding
from suffice.specialists.runtimes.transformers_ import Transformers
from suffice.specialists.scorer import fit_guard, fit_scorer

log = logging.getLogger(__name__)

FEWEST_CORRECTIONS = 30
"""Corrections by people below which there are too few preferences to learn from."""
_ROOM = 1.5
"""An answer may be so many times as long as the longest of training."""
_SOME = 16
_COUNTS = "counts.json"
_TUNED, _WRITTEN, _CHECKED = 0.75, 0.8, 0.98
"""Shares of the work after which the model is tuned, the GGUF is written, tune is answered."""


def fit(
    recipe: Recipe,
    contract: OutputContract,
    train: TrainSet,
    tune: TuneSet,
    progress: Progress,
    *,
    named: str | None,
    bases: Path,
    adapter: Path | None,
    told: str | None,
    tuned: Path,
    scratch: Path | None,
    hasher: Hasher,
    choice: Choice,
    places: Mapping[str, Place],
    right: Right = equal,
) -> CausalSpecialist:
    """As `CausalFamily.fit`. `tuned` is a folder of adapters, for recipes that differ in rounding only."""
    progress("reading the base model", 0.0)
    source = causal_base.made(named, bases, progress)
    name = named if named is not None else causal_base.PACKAGED
    own = Path(tempfile.mkdtemp(prefix="suffice-causal-"))
    try:
        model, tokenizer = causal_base.load(source)
        settings = _settings(recipe, contract, train, tokenizer, name, causal_base.longest_of(model), told)
        if adapter is None and settings.recipe.params.get("steps") != 0:
            settings = _tune(model, tokenizer, settings, train, tune, tuned, own, progress, scratch)
        elif adapter is not None:
            for file in ADAPTER:
                shutil.copyfile(adapter / file, own / file)
        progress("writing the model", _TUNED)
        del model  # with what tuning has left on it
        model = _merged(source, own)
        used = _written(model, tokenizer, own, choice, bits_of(recipe))
        settings = msgspec.structs.replace(settings, runtime=used)
        writers = Writers(opening(used, own, settings.context, places))
        found = _answered(writers, settings, [example.input for example in tune], progress)
        progress("checking the runtime", _CHECKED)
        settings = msgspec.structs.replace(settings, parity=_checked(model, tokenizer, settings, writers, found))
        parts, reader = _trusted(settings, train, tune, found, hasher, right)
    except BaseException:  # a spent budget or an interrupt leaves no model behind either
        shutil.rmtree(own, ignore_errors=True)
        raise
    specialist = CausalSpecialist(parts, reader, writers, own, found)
    weakref.finalize(specialist, shutil.rmtree, own, ignore_errors=True)
    progress("fitted", 1.0)
    return specialist


def _settings(
    recipe: Recipe,
    contract: OutputContract,
    train: Sequence[Example],
    tokenizer: Any,
    base: str,
    context: int,
    told: str | None,
) -> Settings:
    """What is known before anything is tuned. `told`: the instruction that an adapter was tuned with elsewhere."""

    def render(instruction: str, text: str) -> str:
        messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
        return str(tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    with quiet():
        asked = prompting(
            contract, render, tokenizer.all_special_tokens, taught=recipe.params.get("steps") != 0, told=told
        )
    longest = max((len(tokenizer(written(contract, e.target))["input_ids"]) for e in train), default=64)
    return Settings(
        format=FORMAT,
        base=base,
        contract=contract,
        recipe=recipe,
        prompting=asked,
        taught=causal_score.Taught(copied={}, shapes={}, answers=0),
        most_tokens=int(_ROOM * longest) + 8,
        context=context,
        longest=max((len(example.input) for example in train), default=0),
        counts=Counts(rows=len(train)),
    )


# ---------------------------------------------------------------------------------------------- the adapter


def _tune(
    model: Any,
    tokenizer: Any,
    settings: Settings,
    train: Sequence[Example],
    tune: Sequence[Example],
    tuned: Path,
    own: Path,
    progress: Progress,
    scratch: Path | None,
) -> Settings:
    """Put the adapter into `own`: tuned now, or taken from an earlier recipe or an earlier run; the counts."""
    how = _tuning(settings)
    key = digest_of(
        msgspec.json.encode((how, settings.prompting, settings.base)), *(e.digest() for e in (*train, *tune))
    )
    place = scratch if scratch is not None else own / "tuning"
    for kept in (place / "tuned", tuned / key):
        if kept.is_dir():
            break
    else:
        pairs, preferences = _lessons(settings.prompting, settings.contract, train)
        made = place / "tuned.new"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir(parents=True)
        done = causal_tune.tune(
            model, tokenizer, pairs, preferences, how, made, lambda what, share: progress(what, _TUNED * share), place,
            held=[Pair(settings.prompting.of(e.input), written(settings.contract, e.target)) for e in tune],
        )  # fmt: skip
        log.debug("held-out loss %s", done.looks)
        if done.too_long:
            log.warning("%d of %d rows are too long for the base model: they train nothing", done.too_long, len(pairs))
        counts = Counts(
            rows=done.rows, too_long=done.too_long, preferences=done.preferences, device=done.device, told=done.told,
            steps=min(done.looks, key=lambda look: look.loss).step if done.looks else None,
        )  # fmt: skip
        (made / _COUNTS).write_bytes(msgspec.json.encode(counts))
        _settle(made / ADAPTER[1], settings.base)
        kept = made.rename(place / "tuned")
    if kept != tuned / key:
        shutil.copytree(kept, tuned / key, dirs_exist_ok=True)
    for name in ADAPTER:
        shutil.copyfile(kept / name, own / name)
    told = msgspec.json.decode((kept / _COUNTS).read_bytes(), type=Counts)
    shutil.rmtree(own / "tuning", ignore_errors=True)
    return msgspec.structs.replace(settings, counts=told)


def _tuning(settings: Settings) -> Tuning:
    """The recipe's parameters that tuning knows, and its seed."""
    known = {name: kind for name, kind in get_type_hints(Tuning).items() if name in settings.recipe.params}
    given = {name: kind(settings.recipe.params[name]) for name, kind in known.items()}
    return Tuning(**{"longest": min(settings.context, Tuning().longest), **given, "seed": settings.recipe.seed})


def _lessons(
    asked: Prompting, contract: OutputContract, train: Sequence[Example]
) -> tuple[list[Pair], list[Preference]]:
    """What is to be written, and where people have corrected enough answers, what over what."""
    pairs = [Pair(asked.of(e.input), written(contract, e.target), e.chances if _said(e) else None) for e in train]
    corrected = [
        Preference(asked.of(e.input), written(contract, e.reference), written(contract, e.output))
        for e in train
        if e.has_reference and e.has_output and e.reference_kind == "human" and e.usable
        if canonical(e.reference) != canonical(e.output)
    ]
    return pairs, corrected if len(corrected) >= FEWEST_CORRECTIONS else []


def _said(example: Example) -> bool:
    """Whether an example's target is what the frontier has said: its token probabilities are of that."""
    return example.has_output and (
        not example.has_reference or canonical(plain(example.reference)) == canonical(plain(example.output))
    )


def _settle(config: Path, base: str) -> None:
    """Of an adapter's settings what depends on where and when it was made, always the same."""
    told = json.loads(config.read_bytes())
    told |= {"base_model_name_or_path": base, "target_modules": sorted(told["target_modules"])}
    config.write_text(json.dumps(told, indent=1, sort_keys=True))


# ---------------------------------------------------------------------------------------------- the model that serves


def _merged(source: Path, own: Path) -> Any:
    """The base with the adapter in it, where there is one: read back, so that a resumed run gives the same."""
    model, _ = causal_base.load(source)
    if not (own / ADAPTER[0]).exists():
        return model
    from peft import PeftModel

    with quiet():
        return PeftModel.from_pretrained(model, str(own)).merge_and_unload().eval()


def _written(model: Any, tokenizer: Any, own: Path, choice: Choice, bits: int) -> Used:
    """Write what the runtime reads. Raises InputError for an architecture that cannot be, or without space."""
    checkpoint = own / "merged"
    try:
        with quiet():
            model.half().save_pretrained(checkpoint)
            tokenizer.save_pretrained(checkpoint)
        return make(choice, checkpoint, own, bits, _ends(model, tokenizer))
    except OSError as error:
        raise InputError(f"the tuned model cannot be written into {own}: {error.strerror or error}") from error
    finally:
        model.float()
        shutil.rmtree(checkpoint, ignore_errors=True)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer, the tokenizer's own first."""
    given = model.generation_config.eos_token_id
    listed = [tokenizer.eos_token_id, *(given if isinstance(given, list) else [given])]
    return [token for token in dict.fromkeys(listed) if token is not None]


def _answered(
    writers: Writers, settings: Settings, inputs: Sequence[str], progress: Progress
) -> dict[str, Written | None]:
    """What the model writes for each input, some at a time: between them the search may end it."""
    schema = schema_of(settings.contract)
    wanted = list(dict.fromkeys(inputs))
    found: dict[str, Written | None] = {}

    def one(runtime: Runtime, at: int) -> None:
        found[some[at]] = write(runtime, settings, schema, some[at])

    for start in range(0, len(wanted), _SOME):
        share = start / len(wanted)
        progress(f"answering {len(wanted):,} rows of tune", _WRITTEN + (_CHECKED - _WRITTEN) * share)
        some = wanted[start : start + _SOME]
        writers.each(len(some), one)
    return {text: found[text] for text in wanted}


def _checked(
    model: Any, tokenizer: Any, settings: Settings, writers: Writers, found: dict[str, Written | None]
) -> Parity | None:
    """The runtime's log-probabilities against transformers'. Raises InputError with the figures where they disagree."""
    compared = [(settings.prompting.of(text), each) for text, each in found.items() if each is not None and each.tokens]
    if not compared:
        return None
    prompts, answers = zip(*compared[: causal_parity.PROMPTS], strict=True)
    reference = Transformers(model, tokenizer, context=settings.context)
    bits, rounded = bits_of(settings.recipe), rounding(settings.runtime.kind)
    return causal_parity.require(causal_parity.parity(reference, writers.name, bits, prompts, answers, rounded))


def _trusted(
    settings: Settings,
    train: Sequence[Example],
    tune: Sequence[Example],
    found: dict[str, Written | None],
    hasher: Hasher,
    right: Right,
) -> tuple[Parts, Reader]:
    """Score and guard, from what the model that serves has said on tune."""
    embedding = shared_static_embedding()
    known = causal_score.learn(
        [example.input for example in train], [plain(example.target) for example in train], embedding, hasher
    )
    settings = msgspec.structs.replace(settings, taught=known.taught)
    reader = Reader(settings.contract, known, settings.longest, embedding, hasher)
    seen, given = [], []
    for example in tune:
        answer = found[example.input]
        value: Value = said(settings.contract, answer.text) if answer is not None and answer.finished else None
        if answer is not None and value is not None:
            seen.append(reader.seen(example.input, answer, value))
            given.append((example.input, value, example.target))
    signals = np.array([each.signals for each in seen], dtype=np.float64).reshape(len(seen), len(SIGNALS))
    strangeness = np.array([each.strangeness for each in seen], dtype=np.float64).reshape(len(seen), len(STRANGENESS))
    scorer = fit_scorer(signals, np.array(right(given), dtype=bool), EVIDENCE)
    return Parts(settings, known, scorer, fit_guard(strangeness)), reader
