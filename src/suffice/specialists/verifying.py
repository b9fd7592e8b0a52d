"""Verifiers that need a table or a file: how alike two texts are in meaning, and whether an answer keeps to a schema.

The likeness is the cosine between static embeddings, each the mean of its text's word pieces. What this does not know:
word order, negation ("paid" and "not paid" are nearly the same text to it), numbers. It tells one topic from another,
and says little of whether a figure is right: declare a rule beside it where figures matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from suffice.core.errors import InputError
from suffice.core.losses import text_of
from suffice.core.values import Value, decode, plain
from suffice.specialists.embedding import Floats32
from suffice.specialists.schemas import valid

_WORDS = {"type", "enum", "required", "properties", "items", "minimum", "maximum", "anyOf", "oneOf"}
_SAID = {"$schema", "$id", "title", "description", "default", "examples", "$comment"}
"""What a schema says to people."""


class _Quiet:
    """What verifiers share that need no preparation and never fail."""

    def prepare(self, cases: Sequence[tuple[str, Value, Value]]) -> None:
        """Nothing takes long here."""

    def fault(self) -> str | None:
        """Nothing goes wrong here."""
        return None


class Likeness(_Quiet):
    """One less the cosine of two texts' embeddings; at most 1. `embed` gives a vector of length 1, or of zeros."""

    def __init__(self, embed: Callable[[str], Floats32]) -> None:
        self._embed = embed

    def __call__(self, input: str, said: Value, right: Value) -> float:
        """The loss. A text without anything to read is like no other."""
        cosine = float(self._embed(text_of(said)) @ self._embed(text_of(right)))
        return min(max(1.0 - cosine, 0.0), 1.0)


class Schema(_Quiet):
    """Whether an answer keeps to a JSON schema. Raises InputError for a schema with words that are not looked at."""

    def __init__(self, schema: Mapping[str, Any], where: str) -> None:
        _only_known(schema, where)
        self._schema = schema

    def __call__(self, input: str, said: Value, right: Value) -> float:
        """0 where it does, else 1. Fields that say nothing (null, "", []) count as absent."""
        return float(not valid(plain(said), self._schema))


def schema_of(path: Path) -> Schema:
    """The schema in a file. Raises InputError, naming the file, where it cannot be read or says what is not known."""
    try:
        document = decode(path.read_bytes())
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    if not isinstance(document, dict):
        raise InputError(f"{path}: a JSON schema is an object")
    return Schema(document, str(path))


def _only_known(schema: Any, where: str) -> None:
    """A word that nobody looks at would let everything pass: better no verifier than such a one."""
    if not isinstance(schema, dict):
        return
    for word, inner in schema.items():
        if word == "properties" and isinstance(inner, dict):
            for each in inner.values():
                _only_known(each, where)
        elif word in ("anyOf", "oneOf") and isinstance(inner, list):
            for each in inner:
                _only_known(each, where)
        elif word == "items":
            _only_known(inner, where)
        elif word not in _WORDS | _SAID:
            raise InputError(f"{where}: `{word}` is not looked at here; known: {', '.join(sorted(_WORDS))}")
