"""What is the same in requests of different dialects: the role that instructs, and a format that has no name.

Chat names a JSON schema that an answer keeps to, Messages has no place for a name. Two formats with names are the same
only if all of them is; one without a name is the same as any with its schema.
"""

from __future__ import annotations

from functools import lru_cache

import msgspec

from suffice.core.errors import InputError
from suffice.core.values import decode

_sorted = msgspec.json.Encoder(order="deterministic").encode


def role_of(role: str) -> str:
    """`developer` and `system` are one role: which word is used is the vendor's taste."""
    return "system" if role == "developer" else role


@lru_cache(maxsize=256)
def nameless(response_format: str) -> str:
    """A response format (canonical JSON as in `Request`) without its name, and what else only chat tells of it."""
    if not response_format:
        return ""
    try:
        found = decode(response_format)
    except InputError:
        return response_format
    told = found.get("json_schema") if isinstance(found, dict) and found.get("type") == "json_schema" else None
    if not isinstance(told, dict) or "schema" not in told:
        return response_format
    return _sorted({"type": "json_schema", "json_schema": {"schema": told["schema"]}}).decode()


def same_format(one: str, other: str) -> bool:
    """Whether two formats ask for the same."""
    if one == other:
        return True
    bare = nameless(one)
    return bare in (one, other) and bare == nameless(other)


def kept_under(response_format: str) -> tuple[str, ...]:
    """What a format is looked up by: itself; one with a name also as what one without a name looks for."""
    bare = nameless(response_format)
    return (response_format,) if bare == response_format else (response_format, f"named {bare}")


def looked_up(response_format: str) -> tuple[str, ...]:
    """What may be the same as a format, as `kept_under` keeps it."""
    if not response_format:
        return ("",)
    bare = nameless(response_format)
    return (response_format, f"named {bare}" if bare == response_format else bare)
