"""Bodies that a strict reader of JSON refuses and an upstream may take: half a surrogate pair, 1e400."""

from __future__ import annotations

import json
from typing import Any, TypeVar

import msgspec

from suffice.core.errors import InputError

Head = TypeVar("Head", bound=msgspec.Struct)


def head(body: bytes, kind: type[Head], raw: str) -> Head:
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
