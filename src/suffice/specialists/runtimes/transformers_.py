"""transformers: the reference that other runtimes are measured against, and what runs a model while it is made.

One prompt at a time, without padding: a batch would change the numbers. Answers are kept to a schema by llguidance.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.specialists.causal_grammar import check_grammar, grammar_of
from suffice.specialists.runtime import Schema, Written, check_fits

Floats = npt.NDArray[np.float64]


class Thought(NamedTuple):
    """Log-probabilities of tokens, those of the likeliest others, and the likeliest tokens, all of shape (T,)."""

    logprobs: tuple[float, ...]
    others: tuple[float, ...]
    likeliest: tuple[int, ...]


class Transformers:
    """A model and its tokenizer (transformers', the fast kind), in evaluation mode. `context`: most tokens of prompt
    and answer together."""

    name = "transformers"

    def __init__(self, model: Any, tokenizer: Any, *, context: int) -> None:
        self.model, self.tokenizer, self.context = model, tokenizer, context

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """As `Runtime.write`."""
        import torch

        grammar = None if schema is None else grammar_of(schema)
        if grammar is not None:
            check_grammar(grammar)
        with torch.inference_mode():
            return [self._written(prompt, grammar, most_tokens) for prompt in prompts]

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """As `Runtime.read`."""
        return self.thought(prompt, self.tokens(answer)).logprobs

    def thought(self, prompt: str, tokens: Sequence[int]) -> Thought:
        """What the model thinks of given tokens after a prompt, each behind those before it."""
        import torch

        before = self.tokens(prompt)
        check_fits(len(before) + len(tokens) - 1, self.context)
        if not tokens:
            return Thought(logprobs=(), others=(), likeliest=())
        with torch.inference_mode():
            logits = self.model(torch.tensor([[*before, *tokens]], device=self.model.device)).logits
        chances = torch.log_softmax(logits[0, len(before) - 1 : -1].double(), dim=-1)
        likeliest = chances.argmax(dim=-1).tolist()
        places = range(len(tokens))
        own = chances[places, tokens].tolist()
        chances[places, tokens] = -torch.inf
        others = chances.max(dim=-1).values.tolist()
        return Thought(logprobs=tuple(own), others=tuple(others), likeliest=tuple(likeliest))

    def close(self) -> None:
        """As `Runtime.close`."""
        self.model = None

    def _written(self, prompt: str, grammar: str | None, most_tokens: int) -> Written:
        tokens = self.tokens(prompt)
        check_fits(len(tokens), self.context)
        matcher = None if grammar is None else Matcher(self._constrainer, grammar)
        written, sure, others, finished, cache = [], [], [], False, None
        feed = tokens
        for _ in range(min(max(most_tokens, 1), self.context - len(tokens))):
            chances, cache = self._step(feed, cache)
            token = int(np.argmax(chances if matcher is None else matcher.allowed(chances)))
            if token in self._ends:
                finished = True
                break
            if matcher is not None:
                matcher.take(token)
            written.append(token)
            sure.append(float(chances[token]))
            others.append(float(np.max(np.delete(chances, token))))
            feed = [token]
        pieces = tuple(self._piece(token) for token in written)
        return Written(
            text=b"".join(pieces).decode("utf-8", "replace"),
            tokens=tuple(written),
            logprobs=tuple(sure),
            others=tuple(others),
            finished=finished,
            pieces=pieces,
        )

    def _step(self, feed: list[int], cache: Any) -> tuple[Floats, Any]:
        """Log-probabilities of the token after `feed`, shape (V,), and what is remembered of all so far."""
        import torch

        found = self.model(torch.tensor([feed], device=self.model.device), past_key_values=cache, use_cache=True)
        chances: Floats = torch.log_softmax(found.logits[0, -1].double(), dim=-1).cpu().numpy()
        return chances, found.past_key_values

    def _piece(self, token: int) -> bytes:
        """What a token adds to the text: nothing, where it is a mark, or stands for no text at all."""
        if token in self._silent or token >= len(self.tokenizer):
            return b""
        found: bytes = self._constrainer.decode_bytes([token])
        return found

    def tokens(self, text: str) -> list[int]:
        """The model's tokens of a text, special ones included."""
        found: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    @cached_property
    def _ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        given = self.model.generation_config.eos_token_id
        listed = given if isinstance(given, list) else [given]
        return frozenset({self.tokenizer.eos_token_id, *listed} - {None})

    @cached_property
    def _silent(self) -> frozenset[int]:
        return frozenset(self.tokenizer.all_special_ids)

    @cached_property
    def _constrainer(self) -> Any:
        """llguidance's view of the tokenizer; about a second."""
        from llguidance.hf import from_tokenizer

        return from_tokenizer(
            self.tokenizer, n_vocab=self.model.config.vocab_size, eos_token=self.tokenizer.eos_token_id
        )


class Matcher:
    """Which tokens a grammar allows next."""

    def __init__(self, tokenizer: Any, grammar: str) -> None:
        from llguidance import LLMatcher
        from llguidance.numpy import allocate_token_bitmask

        self._matcher = LLMatcher(tokenizer, grammar)
        self._mask = allocate_token_bitmask(1, tokenizer.vocab_size)

    def allowed(self, chances: Floats) -> Floats:
        """The same chances, minus infinity where the grammar does not go on."""
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._mask)
        bits = np.unpackbits(self._mask.view(np.uint8)[0], bitorder="little")[: len(chances)]
        return np.where(bits == 1, chances, -np.inf)

    def take(self, token: int) -> None:
        """Go on behind `token`."""
        if not self._matcher.consume_token(token):
            raise ValueError(f"the answer cannot be kept to its schema: {self._matcher.get_error()}")
