"""Tuning a generating model with trl and peft: a LoRA adapter on all linear layers, the loss on the answers only.

Supervised by the answers first; then, where people have corrected enough of them, by preference (DPO: the correction
over what was said). Which rows a step reads is laid down before the first step, so what goes on from a checkpoint ends
where an uninterrupted run ends. A row that does not fit into the model's context is left out and counted, never cut.

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

from suffice.core.errors import InputError
from suffice.core.protocols import Progress
from suffice.specialists.encoder_export import quiet
from suffice.specialists.encoder_tune import out_of_memory, seeded

_CHECKPOINT_EVERY_S = 60.0
_PROJECTED_AFTER = 5
"""Steps after which the time left is told."""
_BUCKETS = 25
"""Batches whose rows are sorted by length together: little padding, and still another mix in each epoch."""
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
    """A prompt with the answer that is to be written."""

    prompt: str
    answer: str


class Preference(NamedTuple):
    """A prompt with the answer that people gave, and the one that they corrected."""

    prompt: str
    chosen: str
    rejected: str


class Tuned(NamedTuple):
    """What a run has read: rows, those left out as too long, preferences; and the device it ran on."""

    rows: int
    too_long: int
    preferences: int
    device: str


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
) -> Tuned:
    """Tune, and write the adapter into the folder `adapter` (peft's form, in safetensors).

    On a GPU where there is one, which is told. Deterministic for the same machine and threads. Checkpoints are left in
    `scratch` every minute and gone on from. Whatever `progress` raises ends the run, after a checkpoint. Raises
    InputError where more than half of the rows are too long, MemoryError, with what would help, without memory.
    """
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    made = [_row(tokenizer, pair) for pair in pairs]
    kept = [row for row in made if len(row["input_ids"]) <= settings.longest]
    if 2 * len(kept) < len(made):
        raise InputError(
            f"{len(made) - len(kept):,} of {len(made):,} prompts with their answers are longer than the "
            f"{settings.longest:,} tokens that the base model is tuned on: name one that reads more as [learn] causal"
        )
    try:
        with seeded(torch, settings.seed), quiet():
            tuned = _tuned(model, tokenizer, kept, preferences, settings, progress, scratch, clock, device)
            tuned.save_pretrained(str(adapter), save_embedding_layers=False)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(
            f"fine-tuning ran out of memory with batches of {settings.batch} rows of up to {settings.longest} tokens "
            f"on {device}: free some, or choose a smaller base model"
        ) from error
    return Tuned(len(kept), len(made) - len(kept), len(preferences), device)


def _row(tokenizer: Any, pair: Pair) -> dict[str, list[int]]:
    """A row as tokens. Prompt and answer are split apart, as serving splits them; only the answer has labels."""
    prompt, answer = _tokens(tokenizer, pair.prompt), _answer(tokenizer, pair.answer)
    return {"input_ids": prompt + answer, "labels": [-100] * len(prompt) + answer}


def _tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return found


def _answer(tokenizer: Any, text: str) -> list[int]:
    return [*_tokens(tokenizer, text), int(tokenizer.eos_token_id)]


def _tuned(
    model: Any,
    tokenizer: Any,
    rows: Sequence[dict[str, list[int]]],
    preferences: Sequence[Preference],
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
            if device != "cpu":
                return super().compute_loss(model, inputs, *args, **more)
            labels = inputs.pop("labels")[:, 1:]
            places = (labels != -100).any(0).nonzero()[:, 0]
            logits = model(**inputs, logits_to_keep=places, use_cache=False).logits
            return cross_entropy(logits.float().flatten(0, 1), labels[:, places].flatten())

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
            train_dataset=Dataset.from_list([rows[at] for at in order]),
            args=SFTConfig(
                **_shared(settings, scratch / "supervised", device, settings.rate),
                max_length=None,
                dataset_kwargs={"skip_prepare_dataset": True},
            ),
            callbacks=[_watch(pace)],
        )
        _run(trainer, scratch / "supervised", pace)
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


def _shared(settings: Tuning, folder: Path, device: str, rate: float) -> dict[str, Any]:
    """What both trainers are told. Nothing is reported, and nothing evaluated: tune judges what comes out."""
    return {
        "output_dir": str(folder),
        "per_device_train_batch_size": settings.batch,
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


def _watch(pace: _Pace) -> Any:
    """The trainer's view of `pace`."""
    from transformers import TrainerCallback

    class Watch(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            pace.begin(state.global_step)

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            control.should_save = pace.at(state.global_step, state.max_steps) or state.global_step == state.max_steps
            control.should_training_stop = control.should_training_stop or pace.raised is not None

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
