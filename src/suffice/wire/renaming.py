"""One member of a request's body replaced; every other keeps its bytes."""

from __future__ import annotations

import msgspec

from suffice.core.errors import InputError


def with_members(body: bytes, *without: str, **values: object) -> bytes:
    """The JSON object `body` without some members and with others set; those that were there keep their place.

    Raises InputError where it is no JSON object.
    """
    try:
        members: dict[str, object] = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"the body is no JSON object: {error}") from error
    for name in without:
        members.pop(name, None)
    return msgspec.json.encode({**members, **values})
