"""Whether a runtime computes the model that was trained: its log-probabilities against transformers'.

Compared are the numbers that a release is served by: those of the tokens that the runtime wrote, under the schema, for
prompts of the task. The reference computes with weights that are rounded in the same way (`causal_gguf.rounded`), so
that the limits leave room for a runtime's arithmetic and for nothing else: a weight in the wrong order, another
tokenizer or another position is off by whole units. What rounding costs in answers, the certificate tells. How far
apart right ones are is measured by `bench/runtimes.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from suffice.core.errors import InputError
from suffice.specialists.causal_gguf import rounded
from suffice.specialists.runtime import Written
from suffice.specialists.runtimes.transformers_ import Transformers

PROMPTS = 200
"""So many prompts a runtime is checked on, where there are as many."""


class Limits(msgspec.Struct, frozen=True):
    """How far apart log-probabilities may be on average over tokens (natural log), the mean over the worst prompt, and
    the least share of tokens that are the likeliest to both."""

    mean: float
    worst: float
    agreement: float


LIMITS: Mapping[int, Limits] = {
    32: Limits(mean=0.02, worst=0.1, agreement=0.98),
    16: Limits(mean=0.03, worst=0.15, agreement=0.97),
    8: Limits(mean=0.4, worst=1.0, agreement=0.85),  # llama.cpp rounds what runs between the layers to 8 bits too
    4: Limits(mean=0.4, worst=1.0, agreement=0.85),
}
"""By the bits that weights are kept in."""


class Parity(msgspec.Struct, frozen=True, kw_only=True):
    """A runtime's agreement with transformers, over `tokens` tokens behind `prompts` prompts.

    `mean`, `worst` and `largest`: differences of log-probabilities (natural log), on average, on average within the
    worst prompt, and of the worst token; `agreement`: the share of the runtime's likeliest tokens that are
    transformers' likeliest too.
    """

    runtime: str
    bits: int
    prompts: int
    tokens: int
    mean: float
    worst: float
    largest: float
    agreement: float

    @property
    def fault(self) -> str | None:
        """Why this runtime may not serve, in one sentence; None where it may."""
        limits = LIMITS[self.bits]
        if not self.tokens:
            return f"{self.runtime} wrote no token that could be compared with transformers'"
        kept = self.mean <= limits.mean and self.worst <= limits.worst and self.agreement >= limits.agreement
        if kept:  # a number that is none keeps nothing
            return None
        return (
            f"{self.runtime}'s log-probabilities at {self.bits} bits differ from transformers' by {self.mean:.3g} on "
            f"average and {self.worst:.3g} in the worst of {self.prompts} prompts, and {self.agreement:.1%} of its "
            f"likeliest tokens are the same, where {limits.mean:g}, {limits.worst:g} and {limits.agreement:.0%} are "
            f"the limits"
        )


def parity(
    reference: Transformers,
    runtime: str,
    bits: int,
    prompts: Sequence[str],
    written: Sequence[Written],
    rounding: Callable[[Any, int], Any] = rounded,
) -> Parity:
    """Compare what `runtime` wrote for `prompts` (the first `PROMPTS` of them) with the same by `reference`, its
    weights rounded as the runtime's are: by `rounding`, given a torch model and the bits. Copies that model."""
    same = Transformers(rounding(reference.model, bits), reference.tokenizer, context=reference.context)
    return compare(same, runtime, bits, prompts, written)


def compare(
    reference: Transformers, runtime: str, bits: int, prompts: Sequence[str], written: Sequence[Written]
) -> Parity:
    """As `parity`, with the reference as it is."""
    apart, worst, same, likeliest, compared = [], 0.0, 0, 0, 0
    for prompt, answer in list(zip(prompts, written, strict=True))[:PROMPTS]:
        thought = reference.thought(prompt, answer.tokens)
        differences = np.abs(
            np.subtract([*answer.logprobs, *answer.others], [*thought.logprobs, *thought.others], dtype=np.float64)
        )
        sure = np.array(answer.logprobs) > np.array(answer.others)
        same += int(np.sum(sure & (np.array(answer.tokens) == np.array(thought.likeliest))))
        likeliest += int(np.sum(sure))
        apart += differences.tolist()
        worst = max(worst, float(differences.mean())) if len(differences) else worst
        compared += 1
    return Parity(
        runtime=runtime,
        bits=bits,
        prompts=compared,
        tokens=len(apart) // 2,
        mean=float(np.mean(apart)) if apart else 0.0,
        worst=worst,
        largest=max(apart, default=0.0),
        agreement=same / likeliest if likeliest else 1.0,
    )


def require(found: Parity) -> Parity:
    """`found`, where the runtime may serve. Raises InputError with the figures where it may not."""
    if found.fault is not None:
        raise InputError(found.fault)
    return found
