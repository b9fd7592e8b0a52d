"""A model's tokens, read from its `tokenizer.json`: what runtimes need that know numbers or names of tokens only.

Needs tokenizers and llguidance, and none of the packages that models are made with.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from suffice.core.errors import ArtefactError
from suffice.specialists.causal_grammar import check_grammar, grammar_of
from suffice.specialists.runtime import Schema
from suffice.specialists.runtimes.transformers_ import Matcher

TOKENIZER = "tokenizer.json"


class Words:
    """Texts, tokens and bytes. `ends`: the tokens that end an answer, the tokenizer's own first.

    Raises ArtefactError where `folder` holds no tokenizer that can be read.
    """

    def __init__(self, folder: Path, ends: Sequence[int]) -> None:
        try:
            from llguidance import LLTokenizer
            from tokenizers import Tokenizer
        except ImportError as error:
            raise ArtefactError(f"{folder / TOKENIZER} needs the package `{error.name}`, which is not here") from error

        try:
            told = (folder / TOKENIZER).read_text("utf-8")
            self._tokenizer = Tokenizer.from_str(told)
        except Exception as error:  # tokenizers raises a bare Exception for whatever is wrong
            raise ArtefactError(f"{folder / TOKENIZER} cannot be read: {error}") from error
        self.ends = tuple(ends)
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._told, self._library = told, LLTokenizer

    def tokens(self, text: str) -> list[int]:
        """The tokens of a text, special ones included, and none added."""
        found: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return found

    def names(self, tokens: Sequence[int]) -> list[str]:
        """What the vocabulary calls these tokens."""
        return [self._tokenizer.id_to_token(token) or "" for token in tokens]

    def piece(self, token: int) -> bytes:
        """What a token adds to the text: nothing, where it is a mark, or stands for no text at all."""
        if token in self._silent or self._tokenizer.id_to_token(token) is None:
            return b""
        found: bytes = self._view(self._tokenizer.get_vocab_size()).decode_bytes([token])
        return found

    def token_of(self, piece: bytes) -> int | None:
        """The token that adds these bytes; None where none does."""
        return self._by_piece.get(piece)

    def matcher(self, schema: Schema | None, vocabulary: int) -> Matcher | None:
        """Which of `vocabulary` tokens may come next; None: any. Raises ValueError for a schema that cannot be kept
        to."""
        if schema is None:
            return None
        grammar = grammar_of(schema)
        check_grammar(grammar)
        return Matcher(self._view(vocabulary), grammar)

    @cached_property
    def _silent(self) -> frozenset[int]:
        added = json.loads(self._told).get("added_tokens", [])
        return frozenset(each["id"] for each in added if each.get("special"))

    @cached_property
    def _by_piece(self) -> dict[bytes, int]:
        every = reversed(range(self._tokenizer.get_vocab_size()))
        return {piece: token for token in every if (piece := self.piece(token))}

    @cached_property
    def _views(self) -> dict[int, Any]:
        return {}

    def _view(self, vocabulary: int) -> Any:
        """llguidance's view of the tokenizer, for a model that knows so many tokens; about a second."""
        if vocabulary not in self._views:
            self._views[vocabulary] = self._library(self._told, n_vocab=vocabulary, eos_token=self.ends[0])
        return self._views[vocabulary]
