"""Which known work a request is: by the exact fingerprint of its fixed part, else by templates. Pure, the same bytes
always find the same rule.

How rules are mined from traffic is `learn.mining`; what tells work apart that shares one prompt is a model, asked by
whoever uses this (`learn.meaning`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Literal

import msgspec

from suffice.core.prompt import DATE, DATES, Template, conversation, without_dates
from suffice.core.same import kept_under, looked_up, role_of
from suffice.core.types import Message, Request, digest_of

ANY = "*"
"""As a rule's tools: some are offered, whichever."""
PREFIX = 16
"""Characters of a template's beginning, or end, by which it is looked up; fewer where it has fewer."""
SHORT = 20_000
"""Characters of instructions up to which their dateless form is kept at hand."""
DATE_CHARS = 200
"""No date in instructions is longer: what cannot have a fingerprint that is known need not be read for one."""

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
        """Whether a fingerprint of the head tells it. A date that is no slot stays what it is: not blanked."""
        return self.dated or all(
            not template.slots and DATES.search(template.literals[0]) is None for _, template in self.head
        )

    @property
    def weight(self) -> int:
        """Characters of fixed text: of two rules that a request meets, the one that says more is meant."""
        templates = [template for _, template in self.head] + ([self.turn] if self.turn else [])
        return sum(len(literal) for template in templates for literal in template.literals) + len(self.containing)

    @property
    def longest(self) -> int:
        """Characters of the longest instructions that an exact rule can meet."""
        return sum(sum(map(len, template.literals)) + DATE_CHARS * template.slots for _, template in self.head)

    def fingerprints(self) -> list[str]:
        """By which an exact rule is found; more than one where its response format has a name that not all can give."""
        head = "\0".join(f"{role_of(role)}\0{DATE.join(template.literals)}" for role, template in self.head)
        return [_fingerprint(head, self.tools, form) for form in kept_under(self.response_format)]

    def meets(self, request: Request) -> bool:
        """Whether the texts of a request fit; tools and response format are the caller's to compare."""
        head, turns = conversation(request.messages)
        return self.fits(head, first_user(turns)) and self.contained(request)

    def fits(self, head: Sequence[Message], asked: str) -> bool:
        """Whether instructions and the first user turn fit."""
        if len(head) != len(self.head):
            return False
        for message, (role, template) in zip(head, self.head, strict=True):
            if role_of(message.role) != role_of(role) or template.match(message.text) is None:
                return False
        return self.turn is None or self.turn.match(asked) is not None

    def contained(self, request: Request) -> bool:
        """Whether the text asked for stands in the request."""
        return not self.containing or any(self.containing in message.text for message in request.messages)

    def key(self) -> str:
        """Content hash: the same for the same rule."""
        return digest_of(msgspec.json.encode(self))


_Numbered = tuple[tuple[int, bool, int], int, Rule]
"""By what a rule wins over others, its number, the rule."""


def first_user(turns: Iterable[Message]) -> str:
    """The text of the first user turn, "" without one."""
    return next((message.text for message in turns if message.role == "user"), "")


def tools_of(request: Request) -> str:
    """The digest of the tools that a request offers, "" without any."""
    return _digest(request.tools) if request.tools else ""


def fingerprint(request: Request) -> str:
    """Digest of a request's fixed part as far as one request shows it: instructions without dates, tools, format."""
    head, _ = conversation(request.messages)
    return _fingerprint(_undated(head), tools_of(request), request.response_format)


def _digest(text: str) -> str:
    return sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def _undated(head: Sequence[Message]) -> str:
    """The instructions with dates blanked, each with its role."""
    return "\0".join([f"{role_of(message.role)}\0{_blanked(message.text)}" for message in head])


def _blanked(text: str) -> str:
    return _short_blanked(text) if len(text) <= SHORT else without_dates(text)


_short_blanked = lru_cache(maxsize=1024)(without_dates)


def _fingerprint(head: str, tools: str, response_format: str) -> str:
    told = f"{len(head)} {len(tools)} {head}{tools}{response_format}"
    return sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


class _Index:
    """Rules by one of: how their template begins, how it ends, a word inside it. Whichever the fewest rules share.

    `numbered` are in the order in which they are to be tried, each with the template that texts are compared with.
    """

    def __init__(self, numbered: Sequence[tuple[_Numbered, Template | None]]) -> None:
        self._tables: tuple[dict[str, list[_Numbered]], ...] = ({}, {}, {})
        self._rest: list[_Numbered] = []
        keys = [_keys(template) for _, template in numbered]
        shared = Counter(key for some in keys for key in some)
        for (one, _), some in zip(numbered, keys, strict=True):
            if some:
                kind, text = min(some, key=lambda key: (shared[key], key[0]))
                self._tables[kind].setdefault(text, []).append(one)
            else:
                self._rest.append(one)
        self._starts, self._ends = (sorted({len(key) for key in table}) for table in self._tables[:2])

    def candidates(self, text: str) -> Iterator[list[_Numbered]]:
        """The lists in which a rule that `text` meets may stand."""
        starts, ends, words = self._tables
        for length in self._starts:
            if (found := starts.get(text[:length])) is not None:
                yield found
        for length in self._ends:
            if (found := ends.get(text[-length:])) is not None:
                yield found
        if words:
            for word in words.keys() & set(text.split()):
                yield words[word]
        if self._rest:
            yield self._rest


def _keys(template: Template | None) -> set[tuple[int, str]]:
    """What a template can be looked up by: any text it matches begins so, ends so, or has the word between spaces."""
    if template is None:
        return set()
    keys: set[tuple[int, str]] = set()
    if template.literals[0]:
        keys.add((0, template.literals[0][:PREFIX]))
    if template.literals[-1]:
        keys.add((1, template.literals[-1][-PREFIX:]))
    for literal in template.literals:
        keys.update((2, word) for word in literal.split()[1:-1])
    return keys


class Matcher:
    """Finds the rule that a request meets, out of many. Each rule comes with a number of its own, which is returned.

    An exact head is one dictionary look-up; templates are looked up by how they begin or end, and only those with
    nothing fixed at either edge are tried one by one. The rule with most fixed text wins, then the one that names the
    tools, then the lower number.
    """

    def __init__(self, rules: Iterable[tuple[int, Rule]]) -> None:
        exact: defaultdict[str, list[tuple[_Numbered, Template | None]]] = defaultdict(list)
        loose: defaultdict[tuple[object, ...], list[tuple[_Numbered, Template | None]]] = defaultdict(list)
        self._any = False
        self._longest = -1
        ranked = [((rule.weight, rule.tools != ANY, -number), number, rule) for number, rule in rules]
        for numbered in sorted(ranked, key=lambda entry: entry[0], reverse=True):
            rule = numbered[2]
            self._any |= rule.tools == ANY
            if rule.exact:
                self._longest = max(self._longest, rule.longest)
                for key in rule.fingerprints():
                    exact[key].append((numbered, rule.turn))
            else:
                roles = tuple(role_of(role) for role, _ in rule.head)
                for form in kept_under(rule.response_format):
                    loose[roles, rule.tools, form].append((numbered, rule.head[0][1]))
        self._exact = {key: _Index(some) for key, some in exact.items()}
        self._loose = {key: _Index(some) for key, some in loose.items()}

    def match(self, request: Request) -> tuple[int, How] | None:
        """The number of the rule and how it was told; None where no rule is met."""
        head, turns = conversation(request.messages)
        offered = tools_of(request)
        asked = first_user(turns)
        forms = looked_up(request.response_format)
        kinds = [(tools, form) for tools in ((offered, ANY) if offered and self._any else (offered,)) for form in forms]
        best: _Numbered | None = None
        if sum(len(message.text) for message in head) <= self._longest:
            texts = _undated(head)
            for tools, form in kinds:
                index = self._exact.get(_fingerprint(texts, tools, form))
                for group in index.candidates(asked) if index is not None else ():
                    for numbered in group:
                        if best is not None and numbered[0] < best[0]:
                            break
                        rule = numbered[2]
                        if (rule.turn is None or rule.turn.match(asked) is not None) and rule.contained(request):
                            best = numbered
                            break
        how: How = "fingerprint" if best is not None and best[2].turn is None and not best[2].containing else "template"
        if self._loose and head:
            roles = tuple(role_of(message.role) for message in head)
            for tools, form in kinds:
                index = self._loose.get((roles, tools, form))
                for group in index.candidates(head[0].text) if index is not None else ():
                    for numbered in group:
                        if best is not None and numbered[0] < best[0]:
                            break
                        if numbered[2].fits(head, asked) and numbered[2].contained(request):
                            best, how = numbered, "template"
                            break
        return (best[1], how) if best is not None else None
