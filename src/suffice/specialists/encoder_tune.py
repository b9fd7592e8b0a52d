"""Fine-tuning an encoder with torch: every question of the contract at once, each by a linear head on the same states.

The loss is minus the joint log likelihood of a row's closed answers (read off the mean of the states), plus the mean
one of its tokens' tags. The heads only teach: those that serve are fitted anew on the int8 encoder. The word-piece
table stays as it is: half of the weights, too few texts to move it well, and a fifth of the time.

Every step draws its randomness from (seed, step), so that what goes on from a checkpoint ends where an uninterrupted
run ends.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from tokenizers import Tokenizer

from suffice.core.protocols import Progress
from suffice.specialists.apart import NOT_ASKED
from suffice.specialists.encoder_base import readable
from suffice.specialists.encoder_targets import Targets

Ints = npt.NDArray[np.int64]

_CHECKPOINT = "tuning.safetensors"
_CHECKPOINT_EVERY_S = 60.0
_PROJECTED_AFTER = 10
"""Steps after which the time left is told."""
_BUCKETS = 50
"""Batches whose rows are sorted by length together: nearly no padding, and still another mix in each epoch."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of a run. `rate` is the encoder's learning rate, `head_rate` the heads'; `longest` in word pieces."""

    epochs: int = 4
    batch: int = 32
    rate: float = 1e-4
    head_rate: float = 2e-3
    warm_up: float = 0.1
    layer_decay: float = 1.0
    weight_decay: float = 0.01
    smoothing: float = 0.0
    largest_gradient: float = 1.0
    longest: int = 128
    frozen_words: bool = True
    seed: int = 0


class _State(msgspec.Struct, frozen=True):
    """What a checkpoint tells of itself: how many steps are done, and of what run."""

    step: int
    steps: int
    settings: Tuning


def tune(
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    targets: Targets,
    settings: Tuning,
    progress: Progress,
    scratch: Path | None = None,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Fine-tune a torch encoder in place; on a GPU where there is one. Deterministic for the same machine and threads.

    With `scratch`, a checkpoint is left there every minute and gone on from. Raises MemoryError, with what would help,
    when memory runs out; whatever `progress` raises ends the run, after a checkpoint.
    """
    import torch

    if not len(texts) or not targets.anything:
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with seeded(torch, settings.seed):
            _run(torch, model, tokenizer, texts, targets, settings, progress, scratch, clock, device)
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        raise MemoryError(
            f"fine-tuning ran out of memory with batches of {settings.batch} texts of up to {settings.longest} word "
            f"pieces on {device}: free some, or choose a smaller base model"
        ) from error


def _run(
    torch: Any,
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    targets: Targets,
    settings: Tuning,
    progress: Progress,
    scratch: Path | None,
    clock: Callable[[], float],
    device: Any,
) -> None:
    rows = _Rows(tokenizer, texts, targets, settings.longest)
    heads = _heads(torch, int(model.config.hidden_size), targets)
    model.to(device).train()
    heads.to(device)
    optimiser = _optimiser(torch, model, heads, settings)
    per_epoch = math.ceil(len(texts) / settings.batch)
    steps = settings.epochs * per_epoch
    step = _resume(torch, scratch, model, heads, optimiser, settings, steps)
    began, first, written = clock(), step, clock()
    batches: list[Ints] = []
    while step < steps:
        epoch, at = divmod(step, per_epoch)
        if at == 0 or not batches:
            batches = _batches(rows.lengths, settings.batch, np.random.default_rng((settings.seed, epoch)))
        _rates(optimiser, step, steps, settings)
        torch.manual_seed(settings.seed * 1_000_003 + step)
        loss = _loss(torch, model, heads, rows.of(torch, batches[at], device), settings)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(_trained(optimiser), settings.largest_gradient)
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)
        step += 1
        last = step == steps or step % per_epoch == 0
        if scratch is not None and (last or clock() - written > _CHECKPOINT_EVERY_S):
            _keep(scratch, model, heads, optimiser, _State(step, steps, settings))
            written = clock()
        left = (clock() - began) / (step - first) * (steps - step) if step - first >= _PROJECTED_AFTER else None
        try:
            progress(_told(epoch, settings.epochs, left), step / steps)
        except BaseException:  # the budget is spent, or an interrupt: what was learned is kept
            if scratch is not None:
                _keep(scratch, model, heads, optimiser, _State(step, steps, settings))
            raise
    model.to("cpu").eval()


def _told(epoch: int, epochs: int, left: float | None) -> str:
    if left is None:
        return f"fine-tuning, epoch {epoch + 1} of {epochs}"
    about = f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"
    return f"fine-tuning, epoch {epoch + 1} of {epochs}, about {about} left"


@contextmanager
def seeded(torch: Any, seed: int) -> Iterator[None]:
    """A run of its own randomness, deterministic on a GPU too; the process's is as before afterwards."""
    strict, warned = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        torch.use_deterministic_algorithms(True, warn_only=True)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(strict, warn_only=warned)


# ---------------------------------------------------------------------------------------------- rows


class _Batch:
    """Padded tensors of some rows: `ids`, `mask` (B, L); the targets; `overlap` (T, B * L), the pieces of a token."""

    def __init__(self, ids: Any, mask: Any, classes: list[Any], yes_no: Any, overlap: Any, tags: Any) -> None:
        self.ids, self.mask, self.classes, self.yes_no = ids, mask, classes, yes_no
        self.overlap, self.tags = overlap, tags


class _Rows:
    """All rows as word pieces, made into batches on demand."""

    def __init__(self, tokenizer: Tokenizer, texts: Sequence[str], targets: Targets, longest: int) -> None:
        pieces = [tokenizer.encode(readable(text)) for text in texts]
        self._ids = [np.array(each.ids[:longest], dtype=np.int64) for each in pieces]
        self._offsets = [each.offsets[:longest] if targets.tags else [] for each in pieces]
        self._targets = targets
        self.lengths = np.array([len(each) for each in self._ids], dtype=np.int64)

    def of(self, torch: Any, rows: Ints, device: Any) -> _Batch:
        """The batch of some rows."""
        width = max(1, int(self.lengths[rows].max()))
        ids = np.zeros((len(rows), width), dtype=np.int64)
        mask = np.zeros((len(rows), width), dtype=np.int64)
        for at, row in enumerate(rows.tolist()):
            ids[at, : self.lengths[row]] = self._ids[row]
            mask[at, : self.lengths[row]] = 1
        owners, places, tags = self._tokens(rows, width)
        overlap = None
        if tags:
            indices = torch.tensor([owners, places], dtype=torch.long)
            shape = (len(tags), len(rows) * width)
            overlap = torch.sparse_coo_tensor(indices, torch.ones(len(owners)), shape, check_invariants=False)
        return _Batch(
            torch.from_numpy(ids).to(device),
            torch.from_numpy(mask).to(device),
            [torch.from_numpy(own[rows]).to(device) for own in self._targets.classes],
            torch.from_numpy(self._targets.yes_no[rows]).to(device),
            overlap.to(device) if overlap is not None else None,
            torch.tensor(tags, dtype=torch.long).to(device),
        )

    def _tokens(self, rows: Ints, width: int) -> tuple[list[int], list[int], list[int]]:
        """For the tokens that have a tag and a word piece: pairs of token and flat word piece, and the tags."""
        owners: list[int] = []
        places: list[int] = []
        tags: list[int] = []
        for at, row in enumerate(rows.tolist()):
            tagged = self._targets.tagged[row]
            if tagged is None:
                continue
            offsets = np.array(self._offsets[row], dtype=np.int64).reshape(-1, 2)
            for (start, stop), tag in zip(tagged.places, tagged.tags.tolist(), strict=True):
                inside = np.flatnonzero((offsets[:, 0] < stop) & (offsets[:, 1] > start)).tolist()
                if inside:
                    owners += [len(tags)] * len(inside)
                    places += [at * width + piece for piece in inside]
                    tags.append(tag)
        return owners, places, tags


def _batches(lengths: Ints, size: int, dice: np.random.Generator) -> list[Ints]:
    """All rows once, in batches of nearly one length, in random order."""
    order = dice.permutation(len(lengths))
    found: list[Ints] = []
    for start in range(0, len(order), size * _BUCKETS):
        bucket = order[start : start + size * _BUCKETS]
        bucket = bucket[np.argsort(lengths[bucket], kind="stable")]
        found += [bucket[at : at + size] for at in range(0, len(bucket), size)]
    return [found[at] for at in dice.permutation(len(found)).tolist()]


# ---------------------------------------------------------------------------------------------- the loss


def _heads(torch: Any, width: int, targets: Targets) -> Any:
    """A linear layer for each question with classes, one for all yes/no questions, one for the tags."""
    layers = {f"classes{at}": torch.nn.Linear(width, size) for at, size in enumerate(targets.sizes)}
    if targets.yes_no.shape[1]:
        layers["yes_no"] = torch.nn.Linear(width, targets.yes_no.shape[1])
    if targets.tags:
        layers["tags"] = torch.nn.Linear(width, targets.tags)
    return torch.nn.ModuleDict(layers)


def _loss(torch: Any, model: Any, heads: Any, batch: _Batch, settings: Tuning) -> Any:
    with torch.autocast(batch.ids.device.type, torch.bfloat16, enabled=_half(torch, batch.ids.device)):
        states = model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state.float()
    weight = batch.mask[:, :, None].to(states.dtype)
    pooled = (states * weight).sum(1) / weight.sum(1).clamp(min=1)  # a blank text may have no word piece at all
    pooled = torch.nn.functional.dropout(pooled, 0.1)
    loss = pooled.sum() * 0.0
    for at, own in enumerate(batch.classes):
        if bool((own != NOT_ASKED).any()):
            share = (own != NOT_ASKED).float().mean()
            loss = loss + share * torch.nn.functional.cross_entropy(
                heads[f"classes{at}"](pooled), own, ignore_index=NOT_ASKED, label_smoothing=settings.smoothing
            )
    if "yes_no" in heads:
        asked = (batch.yes_no != NOT_ASKED).to(states.dtype)
        each = torch.nn.functional.binary_cross_entropy_with_logits(
            heads["yes_no"](pooled), batch.yes_no.clamp(min=0).to(states.dtype), reduction="none"
        )
        loss = loss + (each * asked).sum() / len(asked)
    if batch.overlap is not None:
        flat = states.reshape(-1, states.shape[-1])
        count = torch.sparse.sum(batch.overlap, 1).to_dense()[:, None]
        loss = loss + torch.nn.functional.cross_entropy(
            heads["tags"](torch.sparse.mm(batch.overlap, flat) / count), batch.tags
        )
    return loss


def _half(torch: Any, device: Any) -> bool:
    """Whether products are done in bfloat16: where the processor has instructions for it (1.8x faster)."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return any(torch.cpu.get_capabilities().get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


# ---------------------------------------------------------------------------------------------- the optimiser


def _optimiser(torch: Any, model: Any, heads: Any, settings: Tuning) -> Any:
    """AdamW. A rate for the heads, and one for each depth of the encoder: deeper layers move less with a decay below 1.

    Biases and norms do not decay.
    """
    names = [name for name, _ in model.named_parameters()]
    depths = {name: _depth(name) for name in names}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[float, float], list[Any]] = {}
    for name, weights in model.named_parameters():
        if settings.frozen_words and weights is model.get_input_embeddings().weight:
            weights.requires_grad_(False)
            continue
        if not weights.requires_grad:
            continue
        rate = settings.rate * settings.layer_decay ** (deepest - depths[name])
        groups.setdefault((rate, settings.weight_decay if weights.ndim > 1 else 0.0), []).append(weights)
    found = [{"params": own, "peak": rate, "weight_decay": decay} for (rate, decay), own in groups.items()]
    found.append({"params": list(heads.parameters()), "peak": settings.head_rate, "weight_decay": 0.0})
    return torch.optim.AdamW(found, lr=settings.rate)


def _depth(name: str) -> int:
    """The layer that a parameter belongs to by the first number in its name; what comes before the layers: 0."""
    number = next((part for part in name.split(".") if part.isdigit()), None)
    return int(number) + 1 if number is not None else 0


def _rates(optimiser: Any, step: int, steps: int, settings: Tuning) -> None:
    """Linear warm-up, linear decay to zero."""
    warm = max(1, round(settings.warm_up * steps))
    share = (step + 1) / warm if step < warm else (steps - step) / max(1, steps - warm)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * min(1.0, share)


def _trained(optimiser: Any) -> list[Any]:
    return [weights for group in optimiser.param_groups for weights in group["params"]]


def out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is no memory left, as Python or torch say it."""
    said = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in said or "can't allocate memory" in said


# ---------------------------------------------------------------------------------------------- checkpoints


def _keep(scratch: Path, model: Any, heads: Any, optimiser: Any, state: _State) -> None:
    """Write the run's state, whole or not at all: the weights that are trained with the optimiser's moments."""
    from safetensors.torch import save_file

    scratch.mkdir(parents=True, exist_ok=True)
    tensors: dict[str, Any] = {}
    for at, weights in enumerate(_trained(optimiser)):
        tensors[f"{at}.weights"] = weights.detach().cpu().contiguous()
        # What the loss does not reach (a pooling layer) has no moments.
        for name, moment in optimiser.state.get(weights, {}).items():
            tensors[f"{at}.{name}"] = moment.detach().cpu().contiguous()
    metadata = {"state": msgspec.json.encode(state).decode()}
    made = scratch / f"{_CHECKPOINT}.new"
    save_file(tensors, made, metadata)
    with made.open("rb") as file:
        os.fsync(file.fileno())
    made.replace(scratch / _CHECKPOINT)


def _resume(
    torch: Any, scratch: Path | None, model: Any, heads: Any, optimiser: Any, settings: Tuning, steps: int
) -> int:
    """The step to go on from: 0 where there is no checkpoint of this very run that can be read."""
    from safetensors import safe_open

    if scratch is None or not (scratch / _CHECKPOINT).is_file():
        return 0
    trained = _trained(optimiser)
    try:
        with safe_open(scratch / _CHECKPOINT, "pt") as file:
            state = msgspec.json.decode((file.metadata() or {}).get("state", ""), type=_State)
            if state.settings != settings or state.steps != steps:
                return 0
            kept = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except (OSError, SafetensorError, msgspec.DecodeError):
        return 0
    shapes = [tuple(kept[f"{at}.weights"].shape) if f"{at}.weights" in kept else None for at in range(len(trained))]
    if shapes != [tuple(weights.shape) for weights in trained]:
        return 0
    with torch.no_grad():
        for at, weights in enumerate(trained):
            weights.copy_(kept[f"{at}.weights"])
            if f"{at}.step" in kept:
                optimiser.state[weights] = {
                    "step": kept[f"{at}.step"],
                    "exp_avg": kept[f"{at}.exp_avg"].to(weights.device),
                    "exp_avg_sq": kept[f"{at}.exp_avg_sq"].to(weights.device),
                }
    return state.step
