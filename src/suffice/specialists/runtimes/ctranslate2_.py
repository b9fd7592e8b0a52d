"""CTranslate2, in this process: another way to run a generating model on a processor.

Its weights are kept in 8 bits and computed with in 32: with whole numbers it reads more than twice as fast, but rounds
what runs between the layers too, and on a small model no longer says what transformers says (docs/LOG.md).

It knows no grammar and takes no mask of tokens, but tells of each token as it is written, with all logits, and can be
stopped there. So it writes freely; at the first token that the grammar does not allow it is stopped, the likeliest
allowed one is taken, and it goes on behind that one, reading again what stands before. The answer is the one that a
mask would have given; a tuned model is seldom stopped.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from suffice.core.errors import ArtefactError, InputError
from suffice.specialists.runtime import Schema, Written, check_fits
from suffice.specialists.runtimes.transformers_ import Matcher
from suffice.specialists.runtimes.words import TOKENIZER, Words

FILES = ("model.bin", "config.json", "vocabulary.json", TOKENIZER)
_KINDS = {8: "int8", 32: "float32"}
Floats = npt.NDArray[np.float64]


def write_ctranslate2(checkpoint: Path, target: Path, *, bits: int = 8) -> None:
    """Write `FILES` into the existing folder `target`, from the checkpoint in a folder. `bits`: 8 or 32.

    Raises InputError for an architecture that CTranslate2's converter does not know. Needs torch and transformers.
    """
    from ctranslate2.converters import TransformersConverter

    made = target / "converting"
    try:
        TransformersConverter(str(checkpoint)).convert(str(made), quantization=_KINDS[bits] if bits < 32 else None)
        for name in FILES[:-1]:
            (made / name).replace(target / name)
        shutil.copyfile(checkpoint / TOKENIZER, target / TOKENIZER)
    except (OSError, MemoryError):
        raise
    except Exception as error:  # the converter raises whatever its many loaders do
        raise InputError(f"{checkpoint} cannot be converted for CTranslate2: {str(error).splitlines()[0]}") from error
    finally:
        shutil.rmtree(made, ignore_errors=True)


def open_ctranslate2(folder: Path, *, context: int, ends: Sequence[int], threads: int = 1) -> CTranslate2:
    """The model that `write_ctranslate2` wrote, in memory; `context` tokens are room for prompt and answer together,
    `ends` are the tokens that end an answer.

    Raises ArtefactError where the files are not whole.
    """
    import ctranslate2

    try:
        model = ctranslate2.Generator(
            str(folder),
            device="cpu",
            compute_type="float32",
            inter_threads=1,
            intra_threads=threads,
        )
    except (RuntimeError, ValueError) as error:
        raise ArtefactError(
            f"CTranslate2 cannot load {folder}: it is missing, truncated or of another version"
        ) from error
    return CTranslate2(model, Words(folder, ends), context)


def rounded_rows(model: Any, bits: int) -> Any:
    """A copy of a torch model whose matrices are what CTranslate2 holds in 8 bits, as 32-bit numbers again: whole
    multiples of 1/127 of the largest number in their row."""
    import copy

    import torch

    model = copy.deepcopy(model)
    with torch.no_grad():
        for weight in model.parameters():
            if bits == 8 and weight.ndim > 1:
                unit = weight.abs().amax(dim=-1, keepdim=True).clamp(min=1e-30) / 127
                weight.copy_((weight / unit).round() * unit)
    return model


class CTranslate2:
    """A loaded model. Thread-safe: the library answers one request at a time."""

    name = "ctranslate2"

    def __init__(self, model: Any, words: Words, context: int) -> None:
        self._model, self._words, self._context = model, words, context

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """As `Runtime.write`."""
        return [self._written(prompt, schema, max(most_tokens, 1)) for prompt in prompts]

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """As `Runtime.read`."""
        before, tokens = self._words.tokens(prompt), self._words.tokens(answer)
        check_fits(len(before) + len(tokens) - 1, self._context)
        if not tokens:
            return ()
        found = self._open.forward_batch([self._words.names([*before, *tokens])], return_log_probs=True)
        chances = np.asarray(found)[0, len(before) - 1 : -1]
        return tuple(float(chances[at, token]) for at, token in enumerate(tokens))

    def close(self) -> None:
        """As `Runtime.close`."""
        self._model = None

    @property
    def _open(self) -> Any:
        if self._model is None:
            raise RuntimeError("the model is closed")
        return self._model

    def _written(self, prompt: str, schema: Schema | None, most_tokens: int) -> Written:
        before = self._words.tokens(prompt)
        check_fits(len(before), self._context)
        writing = Writing(self._words, schema, min(most_tokens, self._context - len(before)))
        while not writing.done:
            self._go_on([*before, *writing.tokens], writing)
        return writing.written()

    def _go_on(self, before: Sequence[int], writing: Writing) -> None:
        """Write behind these tokens until the answer is done, or a token came that was not to come."""
        raised: list[Exception] = []

        def told(step: Any) -> bool:
            try:
                token = writing.next(log_softmax(np.asarray(step.logits, dtype=np.float64).reshape(-1)))
            except Exception as error:  # noqa: BLE001 - the library calls from a thread of its own: raised below
                raised.append(error)
                return True
            return writing.done or token != step.token_id

        self._open.generate_batch(
            [self._words.names(before)],
            max_length=writing.room,
            include_prompt_in_result=False,
            return_logits_vocab=True,
            end_token=list(self._words.ends),
            return_end_token=True,
            callback=told,
        )
        if raised:
            raise raised[0]


class Writing:
    """An answer while it is written, token by token, each the likeliest that its schema allows. `room`: tokens that
    may still come."""

    def __init__(self, words: Words, schema: Schema | None, room: int) -> None:
        self._words, self._schema, self.room = words, schema, room
        self._matcher: Matcher | None = None
        self._began = False
        self.tokens: list[int] = []
        self._sure: list[float] = []
        self._others: list[float] = []
        self._finished = False

    @property
    def done(self) -> bool:
        """Whether nothing more is to come."""
        return self._finished or self.room <= 0

    def next(self, chances: Floats) -> int:
        """The token to be written, by the log-probabilities of all, shape (V,)."""
        if not self._began:
            self._matcher, self._began = self._words.matcher(self._schema, len(chances)), True
        token = int(np.argmax(chances if self._matcher is None else self._matcher.allowed(chances)))
        if token in self._words.ends:
            self._finished = True
            return token
        if self._matcher is not None:
            self._matcher.take(token)
        self.tokens.append(token)
        self._sure.append(float(chances[token]))
        self._others.append(float(np.max(np.delete(chances, token))))
        self.room -= 1
        return token

    def written(self) -> Written:
        """The answer so far."""
        pieces = tuple(self._words.piece(token) for token in self.tokens)
        return Written(
            text=b"".join(pieces).decode("utf-8", "replace"),
            tokens=tuple(self.tokens),
            logprobs=tuple(self._sure),
            others=tuple(self._others),
            finished=self._finished,
            pieces=pieces,
        )


def log_softmax(logits: Floats) -> Floats:
    """Log-probabilities, shape (V,); of log-probabilities, themselves."""
    shifted = logits - np.max(logits)
    found: Floats = shifted - np.log(np.sum(np.exp(shifted)))
    return found
