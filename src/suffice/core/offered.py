"""An input with the tools that its request offers: what is read where each request brings tools of its own.

One text, so that whatever handles inputs handles these: what was asked, a line that separates, the tools as canonical
JSON (the form of `Request.tools`).
"""

from __future__ import annotations

from typing import Any

from suffice.core.errors import InputError
from suffice.core.values import decode

_MARK = "\n\x1dtools\x1d\n"


def with_tools(text: str, tools: str) -> str:
    """`text` with the tools (canonical JSON, "" for none) that may be called for it."""
    return f"{text.replace(_MARK, ' ')}{_MARK}{tools}"


def apart(text: str) -> tuple[str, list[dict[str, Any]]]:
    """What was asked, and each tool offered: its `name`, and where given its `description` and `parameters`.

    An input that carries no tools, or what is no list of functions, offers none. Never raises.
    """
    asked, _, tools = text.partition(_MARK)
    try:
        found = decode(tools) if tools else []
    except InputError:
        found = []
    functions = [tool.get("function", tool) if isinstance(tool, dict) else None for tool in found or []]
    return asked, [f for f in functions if isinstance(f, dict) and isinstance(f.get("name"), str)]
