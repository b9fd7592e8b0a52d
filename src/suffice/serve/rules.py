"""How the task of a request is told that names none: people's rules out of the configuration, then what was found."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from suffice.core.config import Match
from suffice.core.find import Finder
from suffice.core.prompt import INSTRUCTIONS
from suffice.core.protocols import Specialist
from suffice.core.types import Request
from suffice.store import patterns
from suffice.store.patterns import Pattern

log = logging.getLogger(__name__)

LoadMatcher = Callable[[str], Specialist]
"""Loads what tells work apart by meaning, by its artefact's digest; raises ArtefactError."""


@dataclass(frozen=True)
class Rules:
    """How undeclared requests are told, made of the patterns with these `keys`.

    `untold` are the patterns whose matcher could not be loaded: their requests may be any of several works.
    """

    finder: Finder
    matchers: Mapping[str, Specialist]
    untold: frozenset[int]
    keys: tuple[object, ...]


NONE = Rules(Finder([], {}), {}, frozenset(), ())


def made(known: Sequence[Pattern], before: Rules, load: LoadMatcher) -> Rules:
    """The rules of what discovery has found by now; matchers that `before` has loaded are kept."""
    loaded = {p.id: matcher for p in known if (matcher := _matcher(p, before, load)) is not None}
    return Rules(
        finder=patterns.finder_of(known, loaded),
        matchers={str(p.matcher): loaded[p.id] for p in known if p.id in loaded},
        untold=frozenset(p.id for p in known if p.matcher is not None and p.id not in loaded),
        keys=keys(known),
    )


def _matcher(pattern: Pattern, before: Rules, load: LoadMatcher) -> Specialist | None:
    """What tells the works of a pattern apart, if it has several and that can be loaded."""
    if pattern.matcher is None:
        return None
    if pattern.matcher in before.matchers:
        return before.matchers[pattern.matcher]
    try:
        matcher = load(pattern.matcher)
        matcher.predict([""])
        return matcher
    except Exception as error:  # noqa: BLE001 - the boundary of loading: what it would tell is no task's
        log.error("the matcher of pattern %s cannot be loaded: %s", pattern.id, error)
        return None


def keys(known: Sequence[Pattern]) -> tuple[object, ...]:
    """What rules are made of: that a task is renamed makes no new ones. The rule of a pattern never changes."""
    return tuple((p.id, p.matcher, p.least) for p in known)


def meets(rule: Match, request: Request) -> bool:
    """Whether a request meets every condition of a rule."""
    if rule.model is not None and rule.model != request.model:
        return False
    if rule.tool is not None and f'"name":"{rule.tool}"' not in request.tools:
        return False
    for wanted, roles in ((rule.system_contains, INSTRUCTIONS), (rule.user_contains, ("user",))):
        if wanted is not None and not any(wanted in m.text for m in request.messages if m.role in roles):
            return False
    return True
