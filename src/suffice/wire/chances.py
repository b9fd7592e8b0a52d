"""Token probabilities in a chat completion: `choices[0].logprobs.content` (OpenAI's API reference, "The chat
completion object"), as `core.chances` keeps them. What does not spell the answer's text is passed over."""

from __future__ import annotations

import math
from typing import Any

from suffice.core.chances import Piece, packed


def chances_of(completion: Any) -> bytes | None:
    """What the answer's tokens might have been; None where that is not told, or none was in doubt."""
    try:
        choice = completion["choices"][0]
        entries, text = choice["logprobs"]["content"], choice["message"]["content"]
    except (LookupError, TypeError):
        return None
    pieces = _pieces(entries) if isinstance(entries, list) else []
    return packed(pieces) if "".join(piece for piece, _ in pieces) == text else None


def _pieces(entries: list[Any]) -> list[Piece]:
    """The tokens; several that are one character become one of which nothing is known."""
    found: list[Piece] = []
    half = b""
    for entry in entries:
        data = _bytes(entry)
        if data is None:
            return []
        try:
            text = (half + data).decode()
        except UnicodeDecodeError:
            half += data
            continue
        found.append((text, {} if half else _likely(entry)))
        half = b""
    return found if not half else []


def _likely(entry: dict[str, Any]) -> dict[str, float]:
    """Texts with their log-probabilities; parts of characters are no texts."""
    listed = entry.get("top_logprobs")
    found: dict[str, float] = {}
    for each in [*(listed if isinstance(listed, list) else []), entry]:
        data = _bytes(each)
        chance = each.get("logprob") if data is not None else None
        if data is None or isinstance(chance, bool) or not isinstance(chance, int | float) or not math.isfinite(chance):
            continue
        try:
            found[data.decode()] = float(chance)
        except UnicodeDecodeError:
            continue
    return found


def _bytes(entry: Any) -> bytes | None:
    """A token's bytes: as told, else those of its text."""
    if not isinstance(entry, dict):
        return None
    told, text = entry.get("bytes"), entry.get("token")
    if isinstance(told, list) and all(isinstance(byte, int) and 0 <= byte < 256 for byte in told):
        return bytes(told)
    return text.encode("utf-8", "replace") if isinstance(text, str) else None
