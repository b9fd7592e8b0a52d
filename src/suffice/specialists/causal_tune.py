"""Tuning a generating model with trl and peft: a LoRA adapter on all linear layers, the loss on the answers only.

Supervised by the answers first; then, where people have corrected enough of them, by preference (DPO: the correction
over what was said). Which rows a step reads is laid down before the first step, so what goes on from a checkpoint ends
where an uninterrupted run ends. A row that does not fit into the model's context is left out and counted, never cut.

Where the frontier's token probabilities were recorded, half of the loss on such a token goes by these (`causal_soft`).
The loss on rows that are held out is looked at on the way: the adapter of the best look is the one that is kept.

LoRA: Hu et al. 2021, arXiv 2106.09685. DPO: Rafailov et al. 2023, arXiv 2305.18290.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

from suffice.core.chances import unpacked
from suffice.core.errors import InputError
from suffice.core.protocols import Progress
from suffice.specialists.causal_held import Held, Look
from suffice.specialists.causal_soft import SHARE, Soft, softened
from suffice.specialists.encoder_export import quiet
from suffice.specialists.encoder_tune import out_of_memory, seeded

_CHECKPOINT_EVERY_S = 60.0
_PROJECTED_AFTER = 5
"""Steps after which the time left is told."""
_BUCKETS = 25
"""Batches whose rows are sorted by length together: little padding, and still another mix in each epoch."""
_AT_ONCE = 4
"""Rows of a batch that go through the model together on a processor: half the memory of eight, less time for each."""
_PREFERRING = 0.85
"""The share of the work after which preferences begin, where there are some."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a run. `steps` at most, whatever the epochs; `rank`: the adapter's; `beta` holds preferences back."""

    epochs: int = 3
    steps: int = 400
    batch: int = 8
    rate: float = 1e-3
    rank: int = 16
    warm_up: float = 0.05
    largest_gradient: float = 1.0
    longest: int = 1_024
    preference_rate: float = 1e-4
    preference_steps: int = 60
    beta: float = 0.1
    seed: int = 0


class Pair(NamedTuple):
    """A prompt with the answer that is to be written. `chances`: what else the frontier might have written of it
    (`core.chances`)."""

    prompt: str
    answer: str
    chances: bytes | None = None


class Preference(NamedTuple):
    """A prompt with the answer that people gave, and the one that they corrected."""

    prompt: str
    chosen: str
    rejected: str


class Tuned(NamedTuple):
    """What a run has read: rows, those left out as too long, preferences, rows with token probabilities; and the device
    it ran on. `looks`: at the held-out rows."""

    rows: int
    too_long: int
    preferences: int
    device: str
    told: int = 0
    looks: tuple[Look, ...] = ()


def tune(
    model: Any,
    tokenizer: Any,
    pairs: Sequence[Pair],
    preferences: Sequence[Preference],
    settings: Tuning,
    adapter: Path,
    progress: Progress,
    scratch: Path,
    clock: Callable[[], float] = time.monotonic,
    held: Sequence[Pair] = (),
) -> Tuned:
    """Tune, and write the adapter into the folder `adapter` (peft's form, in safetensors): that with the least loss on
    `held`, where there are such rows.

    On a GPU where there is one, which is told. Deterministic for the same machine and threads. Checkpoints are left in
    `scratch` every minute and gone on from. Whatever `progress` raises ends the run, after a checkpoint. Raises
    InputError where more than half of the rows are too long, MemoryError, with what would help, without memory.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = [_row(tokenizer, pair) for pair in pairs]
    fitting = [at for at, row in enumerate(made) if len(row["input_ids"]) <= settings.longest]
    kept = [made[at] for at in fitting]
    softs = [_soft(tokenizer, pairs[at], made[at]) for at in fitting]
    apart = [row for row in (_row(tokenizer, pair) for pair in held) if len(row["input_ids"]) <= settings.longest]
    looks = Held(apart, scratch / "held", settings.batch)
    if 2 * len(kept) < len(made):
        raise InputError(
            f"{len(made) - len(kept):,} of {len(made):,} prompts with their answers are longer than the "
            f"{settings.longest:,} tokens that the base model is tuned on: name one that reads more as [learn] causal"
        )
    try:
        with seeded(torch, settings.seed), quiet():
            tuned = _tuned(
                model, tokenizer, kept, softs, preferences, looks, settings, progress, scratch, clock, device
            )
            tuned.save_pretrained(str(adapter), save_embedding_layers=False)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(
            f"fine-tuning ran out of memory with batches of {settings.batch} rows of up to {settings.longest} tokens "
            f"on {device}: free some, or choose a smaller base model"
        ) from error
    told = sum(soft != () for soft in softs)
    return Tuned(len(kept), len(made) - len(kept), len(preferences), device, told, tuple(looks.looks))


def _row(tokenizer: Any, pair: Pair) -> dict[str, list[int]]:
    """A row as tokens. Prompt and answer are split apart, as serving splits them; only the answer has labels."""
    prompt, answer = _tokens(tokenizer, pair.prompt), _answer(tokenizer, pair.answer)
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def _soft(tokenizer: Any, pair: Pair, row: dict[str, list[int]]) -> tuple[Soft, ...]:
    """What the tokens of a row might be by what the frontier told; their places are those of the whole row."""
    if pair.chances is None:
        return ()
    before = row["labels"].count(-100)
    found = softened(tokenizer, pair.answer, row["input_ids"][before:-1], unpacked(pair.chances))
    return tuple(soft._replace(place=before + soft.place) for soft in found)


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def _answer(tokenizer: Any, text: str) -> list[int]:
    return [*_tokens(tokenizer, text), int(tokenizer.eos_token_id)]


def _tuned(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, list[int]]],
    softs: Sequence[tuple[Soft, ...]],
    preferences: Sequence[Preference],
    held: Held,
    settings: Tuning,
    progress: Progress,
    scratch: Path,
    clock: Callable[[], float],
    device: str,
) -> Any:
    """The peft model, supervised and then preferring."""
    from datasets import Dataset
    from peft import LoraConfig, get_peft_model
    from torch.nn.functional import cross_entropy
    from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

    class Supervised(SFTTrainer):  # type: ignore[misc]
        """On a processor trl's loss works out the chances of all tokens at every place, the prompt's too: half of the
        time of a step. Here only at places of answers."""

        def compute_loss(self, model: Any, inputs: Any, *args: Any, **more: Any) -> Any:
            numbers = inputs.pop("number", None)
            if device != "cpu" and numbers is None:
                return super().compute_loss(model, inputs, *args, **more)
            labels = inputs.pop("labels")[:, 1:]
            places = (labels != -100).any(0).nonzero()[:, 0]
            logits = model(**inputs, logits_to_keep=places, use_cache=False).logits.float()
            told = labels[:, places]
            hard = cross_entropy(logits.flatten(0, 1), told.flatten())
            if numbers is None:
                return hard
            batch = [softs[number] for number in numbers.tolist()]
            return hard + SHARE * _softer(logits, told, places.tolist(), batch) / (told != -100).sum()

    class Preferring(DPOTrainer):  # type: ignore[misc]
        """DPO on rows that are tokens already: trl would split prompt and answer as one text."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

    until = _PREFERRING if preferences else 1.0
    model = get_peft_model(
        model,
        LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules="all-linear", task_type="CAUSAL_LM"),
    )
    order = _order([len(row["input_ids"]) for row in rows], settings)
    pace = _Pace(progress, f"fine-tuning on {len(rows):,} rows ({device})", 0.0, until, clock)
    if order:
        trainer = Supervised(
            model=model,
            processing_class=tokenizer,
            train_dataset=Dataset.from_list([rows[at] | {"number": at} for at in order]),
            args=SFTConfig(
                **_shared(settings, scratch / "supervised", device, settings.rate, _parts(settings, len(rows), device)),
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
                remove_unused_columns=False,
            ),
            callbacks=[_watch(pace, held)],
        )
        trainer.model_accepts_loss_kwargs = False  # the loss is a mean: that of a batch is the mean of its parts'
        if any(softs):
            trainer.data_collator = _numbered(trainer.data_collator)
        _run(trainer, scratch / "supervised", pace)
        held.best(model)
    if preferences:
        pace = _Pace(progress, f"preferring {len(preferences):,} corrections ({device})", until, 1.0, clock)
        corrected = [
            {
                "prompt_ids": _tokens(tokenizer, each.prompt),
                "chosen_ids": _answer(tokenizer, each.chosen),
                "rejected_ids": _answer(tokenizer, each.rejected),
            }
            for each in preferences
        ]
        corrected = [row for row in corrected if max(_lengths(row)) <= settings.longest]
        wanted = msgspec.structs.replace(settings, epochs=1, steps=settings.preference_steps)
        order = _order([max(_lengths(row)) for row in corrected], wanted)
        if order:
            preferring = Preferring(
                model=model,
                processing_class=tokenizer,
                train_dataset=Dataset.from_list([corrected[at] for at in order]),
                args=DPOConfig(
                    **_shared(settings, scratch / "preferring", device, settings.preference_rate),
                    max_length=None,
                    beta=settings.beta,
                ),
                callbacks=[_watch(pace)],
            )
            _run(preferring, scratch / "preferring", pace)
    return model


def _numbered(collate: Callable[[list[Any]], dict[str, Any]]) -> Callable[[list[Any]], dict[str, Any]]:
    """Batches that know which rows they are made of."""
    import torch

    def numbered(rows: list[Any]) -> dict[str, Any]:
        return {**collate(rows), "number": torch.tensor([row["number"] for row in rows])}

    return numbered


def _softer(logits: Any, told: Any, places: list[int], batch: Sequence[tuple[Soft, ...]]) -> Any:
    """What the cross-entropy to soft targets is above that to the tokens themselves, summed over all tokens of a batch.

    `logits` (B, P, V) and `told` (B, P) are of the tokens behind `places` (P,). At each the normaliser of the chances
    is the same for both, and falls out.
    """
    import torch

    column = {place + 1: at for at, place in enumerate(places)}
    at = [
        (row, column[soft.place], token, share)
        for row, softs in enumerate(batch)
        for soft in softs
        for token, share in zip(soft.tokens, soft.shares, strict=True)
    ]
    if not at:
        return logits.new_zeros(())
    rows, columns, tokens, shares = (torch.tensor(each, device=logits.device) for each in zip(*at, strict=True))
    return (shares * (logits[rows, columns, told[rows, columns]] - logits[rows, columns, tokens])).sum()


def _lengths(row: dict[str, list[int]]) -> tuple[int, int]:
    prompt = len(row["prompt_ids"])
    return prompt + len(row["chosen_ids"]), prompt + len(row["rejected_ids"])


def _order(lengths: Sequence[int], settings: Tuning) -> list[int]:
    """The rows of all steps, one batch behind the other: each epoch every row, batches of nearly one length."""
    if not lengths:
        return []
    size = min(settings.batch, len(lengths))
    per_epoch = len(lengths) // size
    steps = min(settings.epochs * per_epoch, settings.steps)
    order: list[int] = []
    for epoch in range(math.ceil(steps / per_epoch)):
        dice = np.random.default_rng((settings.seed, epoch))
        rows = dice.permutation(len(lengths))
        batches: list[list[int]] = []
        for start in range(0, per_epoch * size, size * _BUCKETS):
            bucket = rows[start : min(start + size * _BUCKETS, per_epoch * size)].tolist()
            bucket.sort(key=lambda at: lengths[at])
            batches += [bucket[at : at + size] for at in range(0, len(bucket), size)]
        order += [row for at in dice.permutation(len(batches)).tolist() for row in batches[at]]
    return order[: steps * size]


def _parts(settings: Tuning, rows: int, device: str) -> int:
    """Into how many parts of one size a batch is cut."""
    whole = rows >= settings.batch and settings.batch % _AT_ONCE == 0
    return settings.batch // _AT_ONCE if whole and device == "cpu" else 1


def _shared(settings: Tuning, folder: Path, device: str, rate: float, parts: int = 1) -> dict[str, Any]:
    """What both trainers are told. Nothing is reported, and nothing evaluated: tune judges what comes out."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": settings.batch // parts,
        "gradient_accumulation_steps": parts,
        "num_train_epochs": 1,
        "learning_rate": rate,
        "lr_scheduler_type": "linear",
        "warmup_steps": settings.warm_up,
        "max_grad_norm": settings.largest_gradient,
        "weight_decay": 0.0,
        "train_sampling_strategy": "sequential",
        "seed": settings.seed,
        "bf16": device == "cuda" or _has_bf16(),
        "use_cpu": device == "cpu",
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "save_total_limit": 1,
        "report_to": "none",
        "disable_tqdm": True,
    }


def _has_bf16() -> bool:
    """Whether this processor multiplies bfloat16 by itself: a step takes two thirds of the time then."""
    import torch

    told = torch.cpu.get_capabilities()
    return bool(told.get("avx512_bf16") or told.get("amx_bf16"))


class _Pace:
    """Tells how far a trainer is, and when to stop."""

    def __init__(self, progress: Progress, what: str, start: float, stop: float, clock: Callable[[], float]) -> None:
        self._progress, self._what, self._start, self._stop, self._clock = progress, what, start, stop, clock
        self._began, self._first, self._written = clock(), 0, clock()
        self.raised: BaseException | None = None

    def begin(self, step: int) -> None:
        """A trainer starts at this step."""
        self._began, self._first, self._written = self._clock(), step, self._clock()

    def at(self, step: int, steps: int) -> bool:
        """Tell; whether a checkpoint is due. What the progress raises is kept for `_run`."""
        done = step - self._first
        left = (self._clock() - self._began) / done * (steps - step) if done >= _PROJECTED_AFTER else None
        about = (
            "" if left is None else f", about {left / 60:.0f} min left" if left >= 90 else f", about {left:.0f} s left"
        )
        try:
            self._progress(self._what + about, self._start + (self._stop - self._start) * step / max(steps, 1))
        except BaseException as error:  # noqa: BLE001 - the budget is spent, or an interrupt: first a checkpoint
            self.raised = error
            return True
        if self._clock() - self._written < _CHECKPOINT_EVERY_S:
            return False
        self._written = self._clock()
        return True


def _watch(pace: _Pace, held: Held | None = None) -> Any:
    """The trainer's view of `pace`, and of the rows held out."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pace.begin(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            control.should_save = pace.at(state.global_step, state.max_steps) or state.global_step == state.max_steps
            control.should_training_stop = control.should_training_stop or pace.raised is not None
            if held is not None and held.due(state.global_step, state.max_steps):
                control.should_training_stop |= held.look(more["model"], state.global_step)

    return Watch()


def _run(trainer: Any, folder: Path, pace: _Pace) -> None:
    """Train, from the last whole checkpoint where there is one; raise what `progress` has raised."""
    from transformers import PrinterCallback

    trainer.remove_callback(PrinterCallback)  # it would write on stdout, where a document may go
    trainer.train(resume_from_checkpoint=_last(folder))
    if pace.raised is not None:
        raise pace.raised


def _last(folder: Path) -> str | None:
    """The newest checkpoint that is whole: its state is written last."""
    found = [path for path in folder.glob("checkpoint-*") if _whole(path)]
    return str(max(found, key=lambda path: int(path.name.rpartition("-")[2]))) if found else None


def _whole(checkpoint: Path) -> bool:
    try:
        msgspec.json.decode((checkpoint / "trainer_state.json").read_bytes())
    except (OSError, msgspec.DecodeError):  # a process died over it
        return False
    return True
