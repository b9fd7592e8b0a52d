"""Which known work a request is: by the exact fingerprint of its fixed part, else by templates. Pure, the same bytes
always find the same rule.

How rules are mined from traffic is `learn.mining`; what tells work apart that shares one prompt is a model, asked by
whoever uses this (`learn.meaning`).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Literal

import msgspec

from suffice.core.prompt import Template, conversation, without_dates
from suffice.core.types import Message, Request, digest_of

ANY = "*"
"""As a rule's tools: some are offered, whichever."""
PREFIX = 12
"""Characters of a template's beginning by which it is looked up."""
DATE = "<date>"

How = Literal["fingerprint", "template"]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What requests of one work have in common.

    `head` gives role and template of each instructing message at the start; `turn` the fixed text of the first user
    turn (None: nothing is fixed there); `tools` is "" (none offered), `ANY`, or the digest of the tools
    (`tools_of`); `response_format` is as in the request. `containing`: a text that must stand somewhere in the request,
    set by a person who split a task. `dated`: every slot of the head is a date (`prompt.split_at_dates`).
    """

    head: tuple[tuple[str, Template], ...] = ()
    turn: Template | None = None
    tools: str = ""
    response_format: str = ""
    containing: str = ""
    dated: bool = False

    @property
    def bare(self) -> bool:
        """Nothing fixed is in the text: only meaning could tell what work this is."""
        return self.turn is None and not any("".join(template.literals).strip() for _, template in self.head)

    @property
    def exact(self) -> bool:
        """Whether a fingerprint of the head tells it."""
        return self.dated or not any(template.slots for _, template in self.head)

    @property
    def weight(self) -> int:
        """Characters of fixed text: of two rules that a request meets, the one that says more is meant."""
        templates = [template for _, template in self.head] + ([self.turn] if self.turn else [])
        return sum(len(literal) for template in templates for literal in template.literals) + len(self.containing)

    def fingerprint(self) -> str:
        """That of every request that meets an exact rule."""
        head = tuple((role, DATE.join(template.literals)) for role, template in self.head)
        return _fingerprint(head, self.tools, self.response_format)

    def meets(self, request: Request) -> bool:
        """Whether the texts of a request fit; tools and response format are the caller's to compare."""
        head, turns = conversation(request.messages)
        if len(head) != len(self.head) or not all(
            message.role == role and template.match(message.text) is not None
            for message, (role, template) in zip(head, self.head, strict=True)
        ):
            return False
        return self.fits_turn(turns) and self.contained(request)

    def fits_turn(self, turns: Sequence[Message]) -> bool:
        """Whether the first user turn fits."""
        return self.turn is None or self.turn.match(first_user(turns)) is not None

    def contained(self, request: Request) -> bool:
        """Whether the text asked for stands in the request."""
        return not self.containing or any(self.containing in message.text for message in request.messages)

    def key(self) -> str:
        """Content hash: the same for the same rule."""
        return digest_of(msgspec.json.encode(self))


def first_user(turns: Iterable[Message]) -> str:
    """The text of the first user turn, "" without one."""
    return next((message.text for message in turns if message.role == "user"), "")


def tools_of(request: Request) -> str:
    """The digest of the tools that a request offers, "" without any."""
    return _digest(request.tools) if request.tools else ""


@lru_cache(maxsize=1024)
def _digest(text: str) -> str:
    return digest_of(text)[:32]


def fingerprint(request: Request) -> str:
    """Digest of a request's fixed part as far as one request shows it: instructions without dates, tools, format."""
    head, _ = conversation(request.messages)
    texts = tuple((message.role, _undated(message.text)) for message in head)
    return _fingerprint(texts, tools_of(request), request.response_format)


@lru_cache(maxsize=1024)
def _undated(text: str) -> str:
    return without_dates(text)


@lru_cache(maxsize=1024)
def _fingerprint(head: tuple[tuple[str, str], ...], tools: str, response_format: str) -> str:
    return digest_of(*(part for pair in head for part in pair), "", tools, response_format)[:32]


class Matcher:
    """Finds the rule that a request meets, out of many. Each rule comes with a number of its own, which is returned.

    An exact head is one dictionary look-up; templates are looked up by how they begin, and only those with nothing
    fixed at their beginning are tried one by one. The rule with most fixed text wins, then the lower number.
    """

    def __init__(self, rules: Iterable[tuple[int, Rule]]) -> None:
        self._exact: defaultdict[str, list[tuple[int, Rule]]] = defaultdict(list)
        self._loose: defaultdict[tuple[object, ...], list[tuple[int, Rule]]] = defaultdict(list)
        for number, rule in sorted(rules, key=lambda numbered: (-numbered[1].weight, numbered[0])):
            if rule.exact:
                self._exact[self._turned(rule.fingerprint(), rule)].append((number, rule))
            else:
                begins = rule.head[0][1].literals[0]
                roles = tuple(role for role, _ in rule.head)
                self._loose[roles, rule.tools, rule.response_format, _prefix(begins)].append((number, rule))

    @staticmethod
    def _turned(print_: str, rule: Rule) -> str:
        return print_ + (f" {_prefix(rule.turn.literals[0])}" if rule.turn is not None else "")

    def match(self, request: Request) -> tuple[int, How] | None:
        """The number of the rule and how it was told; None where no rule is met."""
        head, turns = conversation(request.messages)
        begins = first_user(turns)[:PREFIX]
        offered = tools_of(request)
        prints = [fingerprint(request)]
        texts = tuple((message.role, _undated(message.text)) for message in head)
        if offered:
            prints.append(_fingerprint(texts, ANY, request.response_format))
        best: tuple[int, int, How, int] | None = None
        for print_ in prints:
            for place in (f"{print_} {begins}", f"{print_} ", print_):
                for number, rule in self._exact.get(place, ()):
                    if rule.fits_turn(turns) and rule.contained(request):
                        how: How = "fingerprint" if rule.turn is None and not rule.containing else "template"
                        best = _better(best, (rule.weight, -number, how, number))
                        break
        if self._loose and head:
            roles = tuple(message.role for message in head)
            for tools in (offered, ANY) if offered else ("",):
                for start in {head[0].text[:PREFIX], ""}:
                    for number, rule in self._loose.get((roles, tools, request.response_format, start), ()):
                        if rule.meets(request):
                            best = _better(best, (rule.weight, -number, "template", number))
                            break
        return (best[3], best[2]) if best is not None else None


def _better(best: tuple[int, int, How, int] | None, other: tuple[int, int, How, int]) -> tuple[int, int, How, int]:
    return other if best is None or other[:2] > best[:2] else best


def _prefix(literal: str) -> str:
    """What a template is looked up by: its beginning, if it has enough of one."""
    return literal[:PREFIX] if len(literal) >= PREFIX else ""
