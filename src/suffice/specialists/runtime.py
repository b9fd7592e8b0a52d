"""What runs a generating model, behind one protocol: llama.cpp, transformers, onnxruntime-genai, a server over HTTP."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import msgspec

Schema = dict[str, Any]
"""A JSON schema (2020-12)."""


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """One answer as it was generated, greedily.

    `logprobs`: the model's own log-probability of each token (natural log, before any constraint), shape (T,);
    `others`: that of the likeliest other token at the same place; `pieces`: the bytes that each token adds to the text
    (UTF-8; a character may be several tokens). The token that ended the answer is not among them. `finished`: it ended
    by itself, not by its limit.
    """

    text: str
    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    others: tuple[float, ...]
    finished: bool
    pieces: tuple[bytes, ...] = ()


def check_fits(tokens: int, context: int) -> None:
    """Raises ValueError, with both numbers, for a prompt that leaves no room in the model's context."""
    if tokens >= context:
        raise ValueError(f"the prompt has {tokens} tokens, the model's context is {context} tokens")


class Runtime(Protocol):
    """A loaded model. Thread-safe; the same prompt gives the same answer, whatever else is under way."""

    name: str

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """Answers to whole prompts (chat template applied), in order; `schema`: only such JSON may be written.

        Raises ValueError for a schema it cannot keep to, or a prompt longer than its context.
        """
        ...

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """The log-probability of each token of `answer` after `prompt`."""
        ...

    def close(self) -> None:
        """Free the model."""
        ...
