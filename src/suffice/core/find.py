"""Which pattern a request belongs to: by the rules of prompts first, then by meaning where one prompt mixes work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

from suffice.core.match import Matcher, Rule
from suffice.core.prompt import last_user
from suffice.core.protocols import Specialist
from suffice.core.types import Request

EDGE_CHARS = 400
"""Of a longer text the matcher reads so much of its beginning and of its end: what is asked for stands at one of them,
and a request must not wait for the rest to be read."""

How = Literal["fingerprint", "template", "meaning"]


class Groups(msgspec.Struct, frozen=True, kw_only=True):
    """The work that one prompt mixes: a matcher, the score from which it is believed, and each label's pattern."""

    matcher: Specialist
    least: float
    patterns: Mapping[str, int]

    def of(self, texts: Sequence[str]) -> list[int | None]:
        """The pattern of each text, None for what belongs nowhere."""
        said = self.matcher.predict([gist(text) for text in texts])
        return [self.patterns.get(str(one.value)) if one.familiar and one.score >= self.least else None for one in said]


def gist(text: str) -> str:
    """What a matcher reads of a text."""
    return text if len(text) <= 2 * EDGE_CHARS else f"{text[:EDGE_CHARS]}\n{text[-EDGE_CHARS:]}"


class Match(msgspec.Struct, frozen=True):
    """A request's pattern, and how it was told."""

    pattern: int
    how: How


class Finder:
    """Finds the pattern of a request: the same bytes, the same pattern, as long as the patterns are the same.

    `rules` are the prompts' patterns, `groups` what tells work apart within some of them. A request that meets a rule
    and none of its groups belongs to the rule's own pattern.
    """

    def __init__(self, rules: Iterable[tuple[int, Rule]], groups: Mapping[int, Groups]) -> None:
        self._matcher = Matcher(rules)
        self._groups = groups

    def find(self, request: Request) -> Match | None:
        """The pattern of one request, None if no rule is met."""
        return self.find_all([request])[0]

    def find_all(self, requests: Sequence[Request]) -> list[Match | None]:
        """The same for many, faster: what is told by meaning is asked in one batch for each prompt."""
        found: list[Match | None] = []
        asked: dict[int, list[int]] = {}
        for i, request in enumerate(requests):
            met = self._matcher.match(request)
            found.append(Match(met[0], met[1]) if met is not None else None)
            if met is not None and met[0] in self._groups:
                asked.setdefault(met[0], []).append(i)
        for number, positions in asked.items():
            for i, group in zip(
                positions, self._groups[number].of([last_user(requests[i]) for i in positions]), strict=True
            ):
                if group is not None:
                    found[i] = Match(group, "meaning")
        return found
