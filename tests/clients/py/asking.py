"""What the scripts of the clients share: who is asked what, and one JSON document of what came.

A script is called with one JSON argument: `base` (the gateway's URL with /v1), `key`, `client` (a name for sessions),
`models`, `task`, `text` (an input of the task). It prints, by its variants (the ways this client asks), what each model
answered in each case, and what the task's specialist did. What a client raises is part of it, under `error`.
"""

import json
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from pydantic import BaseModel

HELLO = "Say hello."
QUESTION = "What is the weather in Oslo?"
RESULT = "7 degrees"
PARAMETERS = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


@dataclass(frozen=True)
class Ask:
    """Whom a client is pointed at."""

    base: str
    key: str
    model: str
    headers: dict[str, str]

    @property
    def root(self) -> str:
        """The URL as the clients of Messages take it."""
        return self.base.removesuffix("/v1")


@dataclass(frozen=True)
class Variant:
    """One way in which a client asks; what it cannot do is None.

    `plain`: its text, its model and tokens in and out, where it tells them. `stream`: the pieces of a text. `tool`: the
    name and arguments of a call, and the text after its result. `structured`: a value of Weather.
    """

    plain: Callable[[Ask, str], dict[str, Any]] | None = None
    stream: Callable[[Ask, str], list[str]] | None = None
    tool: Callable[[Ask], dict[str, Any]] | None = None
    structured: Callable[[Ask], Any] | None = None


def run(**variants: Variant) -> None:
    """Ask all that the argument says, and print what came."""
    asked = json.loads(sys.argv[1])
    found: dict[str, Any] = {}
    for name, variant in variants.items():
        headers = {"X-Suffice-Session": f"{asked['client']}-{name}"}
        mine = found[name] = {}
        for model in asked["models"]:
            ask = Ask(asked["base"], asked["key"], model, {"X-Suffice-Session": f"{asked['client']}-{name}-{model}"})
            mine[model] = {
                "plain": _tried(variant.plain, ask, HELLO),
                "stream": _tried(variant.stream, ask, HELLO),
                "tool": _tried(variant.tool, ask),
                "structured": _tried(variant.structured, ask),
            }
        there = replace(ask, headers={**headers, "X-Suffice-Task": asked["task"]})
        mine["specialist"] = {
            "plain": _tried(variant.plain, there, asked["text"]),
            "stream": _tried(variant.stream, there, asked["text"]),
        }
    print(json.dumps(found))


def _tried(function: Callable[..., Any] | None, *arguments: Any) -> Any:
    if function is None:
        return None
    try:
        return function(*arguments)
    except Exception:  # noqa: BLE001 - whatever a client raises is what the test wants to see
        return {"error": traceback.format_exc()}
