"""A request's body, read as far as is asked; also one that a strict reader of JSON refuses and an upstream may take
(half a surrogate pair, 1e400)."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from suffice.core.errors import InputError

Head = TypeVar("Head", bound=msgspec.Struct)
NOT_STRICT = "a body that is not strictly JSON"
"""Why no specialist is asked about such a body."""
_REFUSED = (msgspec.DecodeError, UnicodeError, RecursionError)


def head(body: bytes, decoder: msgspec.json.Decoder[Head], raw: str) -> tuple[Head, bool]:
    """The top level of a body, and whether it is strictly JSON; `raw` is the field that is read later.

    Raises InputError in one sentence for what is no JSON object.
    """
    try:
        return decoder.decode(body), True
    except _REFUSED:
        return _loosely(body, decoder.type, raw), False


def rest(body: bytes, decoder: msgspec.json.Decoder[Head], strict: bool) -> Head | None:
    """All that is read of a body; None where that is not there to be read strictly."""
    try:
        return decoder.decode(body) if strict else None
    except _REFUSED:
        return None


def listed(raw: msgspec.Raw, name: str) -> None:
    """Raises InputError where a field is missing, or no list."""
    if not bytes(raw):
        raise InputError(f"`{name}` is missing from the request body")
    if bytes(raw)[:1] != b"[":
        raise InputError(f"`{name}` must be a list")


def _loosely(body: bytes, kind: type[Head], raw: str) -> Head:
    """The top level of a body as `kind` has it; of its field `raw`, which is read later, only what kind of value it is.

    Raises InputError in one sentence for what is no JSON object.
    """
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"the request body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise InputError(f"the request body is a JSON {type(found).__name__}, not an object")
    kept: dict[str, Any] = {name: found.get(name) for name in kind.__struct_fields__}
    return kind(**{**kept, raw: msgspec.Raw(_outline(kept[raw]))})


def _outline(value: Any) -> bytes:
    if value is None:
        return b""
    return b"[]" if isinstance(value, list) else b'""' if isinstance(value, str) else b"0"
