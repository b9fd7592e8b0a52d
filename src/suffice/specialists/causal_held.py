"""Which adapter of a run is kept: that of the look with the least loss on rows that are held out (of tune)."""

from __future__ import annotations

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

LOOKS = 8
"""So often the held-out loss is looked at in a run,"""
PATIENCE = 2
"""and after so many looks without a better one the run ends."""
MOST = 64
"""Held-out rows that are read, evenly spread: a look takes what two or three steps take."""

_LOST = 1e9

Row = dict[str, list[int]]


class Look(msgspec.Struct, frozen=True):
    """After how many steps, and the loss per token (natural log) of held-out answers, `_LOST` where it is no number."""

    step: int
    loss: float


class Held:
    """Looks at held-out rows, and keeps the best adapter in a folder, where a resumed run finds it.

    Looks of steps after those that a resumed run begins with are forgotten: they come again, and the same.
    """

    def __init__(self, rows: Sequence[Row], folder: Path, batch: int) -> None:
        chosen = {len(rows) * at // MOST for at in range(MOST)} if len(rows) > MOST else range(len(rows))
        self._rows = [rows[at] for at in sorted(chosen)]
        self._folder, self._batch = folder, batch

    @property
    def looks(self) -> list[Look]:
        """All so far, in order."""
        file = self._folder / "looks.json"
        return msgspec.json.decode(file.read_bytes(), type=list[Look]) if file.is_file() else []

    def due(self, step: int, steps: int) -> bool:
        """Whether to look after this step."""
        every = max(steps // LOOKS, 1)
        return bool(self._rows) and (step == steps or (step % every == 0 and step <= steps - every))

    def look(self, model: Any, step: int) -> bool:
        """Look, and keep the adapter where it is the best; whether it is time to end."""
        before = [look for look in self.looks if look.step < step]
        loss = _loss(model, self._rows, self._batch)
        best = min(before, key=lambda look: look.loss, default=None)
        if best is None or loss < best.loss:
            kept = self._folder / f"step-{step}"
            shutil.rmtree(kept, ignore_errors=True)
            model.save_pretrained(str(kept), save_embedding_layers=False)
        looks = [*before, Look(step, loss)]
        self._folder.mkdir(parents=True, exist_ok=True)
        partial = self._folder / "looks.new"
        partial.write_bytes(msgspec.json.encode(looks))
        partial.replace(self._folder / "looks.json")
        at = looks.index(min(looks, key=lambda look: look.loss))
        return len(looks) - 1 - at >= PATIENCE

    def best(self, model: Any) -> None:
        """Give the model the adapter of the best look, where there was one."""
        looks = self.looks
        if not looks:
            return
        from peft import set_peft_model_state_dict
        from safetensors.torch import load_file

        kept = self._folder / f"step-{min(looks, key=lambda look: look.loss).step}"
        set_peft_model_state_dict(model, load_file(kept / "adapter_model.safetensors"))


def _loss(model: Any, rows: Sequence[Row], batch: int) -> float:
    """Mean over the tokens of answers."""
    import torch
    from torch.nn.functional import cross_entropy

    was, device = model.training, next(model.parameters()).device
    model.eval()
    lost, count = 0.0, 0
    ordered = sorted(rows, key=lambda row: len(row["input_ids"]))
    with torch.inference_mode():
        for start in range(0, len(ordered), batch):
            some = ordered[start : start + batch]
            width = max(len(row["input_ids"]) for row in some)
            ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in some])
            labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in some])[:, 1:]
            places = (labels != -100).any(0).nonzero()[:, 0]
            # Padding is on the right, and each token sees only those before it: no mask is needed.
            logits = model(input_ids=ids.to(device), logits_to_keep=places.to(device), use_cache=False).logits
            told = labels[:, places].flatten().to(device)
            lost += float(cross_entropy(logits.float().flatten(0, 1), told, reduction="sum"))
            count += int((told != -100).sum())
    model.train(was)
    loss = lost / max(count, 1)
    return loss if math.isfinite(loss) else _LOST
