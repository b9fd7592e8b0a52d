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
    return f"{text}{_MARK}{tools}"


def apart(text: str) -> tuple[str, list[dict[str, Any]]]:
    """What was asked, and each tool offered: its `name`, and where given its `description` and `parameters`.

    Where the request forces one of them, that one; where it forbids calls, none. Of several with one name the first
    counts. An input that carries no tools, or what is no list of functions, offers none. Never raises.
    """
    asked, mark, tools = text.rpartition(_MARK)  # the last one: JSON has none within, what was asked may have
    if not mark:
        return text, []
    try:
        found = decode(tools) if tools else []
    except InputError:
        found = []
    if not isinstance(found, list):
        return asked, []
    lists = [part for part in found if isinstance(part, list)]
    # `Request.tools` holds a list of tools and perhaps what is forced; a bare list of tools is read too.
    offered = _functions([tool for part in lists for tool in part] if lists else found)
    forced = [part for part in found if not isinstance(part, list)] if lists else []
    if "none" in forced:
        return asked, []
    names = [function["name"] for function in _functions(forced)]
    known: dict[str, dict[str, Any]] = {}
    for function in offered:
        if not names or function["name"] in names:
            known.setdefault(function["name"], function)
    return asked, list(known.values())


def _functions(tools: list[Any]) -> list[dict[str, Any]]:
    found = [tool.get("function", tool) if isinstance(tool, dict) else None for tool in tools]
    return [function for function in found if isinstance(function, dict) and isinstance(function.get("name"), str)]
