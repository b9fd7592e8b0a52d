"""Published cases as scenarios, and what they claim: `suffice plan --case moderation`."""

from __future__ import annotations

import tomllib
from importlib.resources import files

from suffice.core.errors import InputError
from suffice.plan.reading import from_dict
from suffice.plan.scenario import Scenario

_ENDING = ".toml"


def names() -> tuple[str, ...]:
    """The packaged cases, sorted."""
    found = (entry.name for entry in files(__name__).iterdir())
    return tuple(sorted(name.removesuffix(_ENDING) for name in found if name.endswith(_ENDING)))


def read(name: str) -> Scenario:
    """A case. Raises InputError that lists them for a name that is none."""
    if name not in names():
        raise InputError(f"there is no case {name!r}: {', '.join(names())}")
    return from_dict(tomllib.loads(text(name)), f"case {name}")


def text(name: str) -> str:
    """A case's file, comments and all, to begin a scenario from."""
    return files(__name__).joinpath(f"{name}{_ENDING}").read_text("utf-8")
