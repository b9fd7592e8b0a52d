"""The fixed part of a task's prompt, and the view: what varies, which is what a specialist reads.

A template is literal text with slots. Serving only matches; how templates are mined from traffic is `learn.prompts`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

import msgspec

from suffice.core.offered import with_tools
from suffice.core.same import role_of, same_format
from suffice.core.types import Message, Reason, Request, digest_of

View = Literal["slots", "last_user", "turns"]
TURNS = 3
"""A conversation's specialist reads this many of the latest turns."""

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_WEEKDAY = r"(?:Mon|Tue(?:s)?|Wed(?:nes)?|Thu(?:rs)?|Fri|Sat(?:ur)?|Sun)(?:day)?"
_CLOCK = (
    r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:\s?[AaPp]\.?[Mm]\b\.?)?(?:\s?(?:Z|UTC|GMT)\b)?(?:\s?[+-]\d{2}:?\d{2}\b)?"
)
DATES = re.compile(
    rf"\b\d{{4}}[-/]\d{{2}}[-/]\d{{2}}(?:[T ]{_CLOCK})?"
    rf"|\b\d{{1,2}}[./]\d{{1,2}}[./](?:\d{{4}}|\d{{2}})\b"
    rf"|\b(?:19|20)\d{{2}}(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])\b"
    rf"|(?:\b{_WEEKDAY},?\s+)?\b(?:\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH},?\s+\d{{4}}"
    rf"|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?,?\s+\d{{4}})\b(?:,?\s+{_CLOCK})?"
    rf"|\b{_WEEKDAY},?\s+(?:\d{{1,2}}(?:st|nd|rd|th)?\s+{_MONTH}|{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?)\b"
    rf"|\b\d{{1,2}}(?:st|nd|rd|th)?\s+(?:of\s+)?{_MONTH}\b(?!\w)|\b{_MONTH}\s+\d{{1,2}}(?:st|nd|rd|th)?\b"
    r"|\b(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day\b"
    rf"|\b{_MONTH}\s+(?:19|20)\d{{2}}\b"
    rf"|\b{_CLOCK}"
)
"""Dates and times as prompts write them. "May 3" in a rule is taken for a date too: what it costs is that rewording
that number is not noticed."""
DATE = "<date>"
"""What stands for one."""
_BEGINS = re.compile(r"[\dJFMASONDWT]\w*")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FIRST = frozenset((*_MONTHS, "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"))


class Template(msgspec.Struct, frozen=True):
    """Literal texts with a slot between each two: `("Today is ", ". Answer.")` has one slot, `("Hello",)` none."""

    literals: tuple[str, ...]

    def match(self, text: str) -> tuple[str, ...] | None:
        """What stands in the slots, None where the text is another. Each literal is taken at its first place."""
        first, last = self.literals[0], self.literals[-1]
        if len(self.literals) == 1:
            return () if text == first else None
        if not text.startswith(first) or not text.endswith(last) or len(text) < len(first) + len(last):
            return None
        slots: list[str] = []
        start, end = len(first), len(text) - len(last)
        for literal in self.literals[1:-1]:
            found = text.find(literal, start, end)
            if found < 0:
                return None
            slots.append(text[start:found])
            start = found + len(literal)
        return (*slots, text[start:end])

    @property
    def slots(self) -> int:
        """How many."""
        return len(self.literals) - 1


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """What identifies a task's requests: the fixed text per position, tools, response format; and the view.

    View `slots`: one request shape, `messages` gives each position's role and template, the specialist reads the slots
    of the user's turns (of all, if those do not vary), of these only those numbered in `asked`, if there are any.
    `last_user`: `messages` are the instructions before the conversation, it reads the last user turn. `turns`: the
    same, it reads the latest turns with their roles.

    `offered`: each request brings tools of its own, whichever they are; they are read with the text (`core.offered`).

    Of what is read only what stands behind the last `behind` counts, where there is one: before it are examples.

    `also` are the task's other prompts, each with its own tools and format: a request is read by the first that can.
    """

    messages: tuple[tuple[str, Template], ...]
    tools: str = ""
    response_format: str = ""
    view: View = "last_user"
    asked: tuple[int, ...] = ()
    behind: str = ""
    also: tuple[Prompt, ...] = ()
    offered: bool = False

    def read(self, request: Request) -> str | Reason:
        """The specialist's input, or why this request is not this task's: PROMPT_CHANGED or UNSUPPORTED."""
        text = self._read(request)
        if isinstance(text, Reason):
            others = (other.read(request) for other in self.also)
            return next((found for found in others if not isinstance(found, Reason)), text)
        text = text.rpartition(self.behind)[2] if self.behind else text
        return with_tools(text, request.tools) if self.offered else text

    def _read(self, request: Request) -> str | Reason:
        known = bool(request.tools) if self.offered else request.tools == self.tools
        if request.unsupported or not known or not same_format(request.response_format, self.response_format):
            return Reason.UNSUPPORTED
        head, turns = conversation(request.messages)
        positions = request.messages if self.view == "slots" else head
        if len(positions) != len(self.messages):
            return Reason.PROMPT_CHANGED
        slots: list[tuple[str, str]] = []
        for message, (role, template) in zip(positions, self.messages, strict=True):
            found = template.match(message.text)
            if found is None or role_of(message.role) != role_of(role):
                return Reason.PROMPT_CHANGED
            slots += [(role, text) for text in found]
        if self.view == "slots":
            if not all(message.plain for message in positions):
                return Reason.UNSUPPORTED
            texts = self.told_apart(slots)
            return "\n".join([texts[i] for i in self.asked] or texts)
        seen = turns[-1:] if self.view == "last_user" else turns[-TURNS:]
        if not seen or seen[-1].role != "user" or not all(message.plain for message in seen):
            return Reason.UNSUPPORTED
        return seen[0].text if len(seen) == 1 else "\n".join(f"{turn.role}: {turn.text}" for turn in seen)

    @staticmethod
    def told_apart(slots: Sequence[tuple[str, str]]) -> list[str]:
        """Of slots as (role, text), the texts that may be read, in the order that `asked` numbers."""
        return [text for role, text in slots if role not in INSTRUCTIONS] or [text for _, text in slots]

    @classmethod
    def pinned(cls, request: Request) -> Prompt:
        """The fixed part of one live request, for a release learned from bare inputs: instructions, tools, format.

        One request cannot show what varies, so dates and times in the instructions are taken as slots, nothing else.
        """
        head, _ = conversation(request.messages)
        messages = tuple((message.role, Template(tuple(split_at_dates(message.text)))) for message in head)
        return cls(messages=messages, tools=request.tools, response_format=request.response_format)

    def digest(self) -> str:
        """Content hash: the same for the same contract with the application."""
        told = msgspec.to_builtins(self)
        # What is not used is not told: prompts of before these fields were there keep their digests.
        kept = {
            name: value for name, value in told.items() if value or name not in ("asked", "behind", "also", "offered")
        }
        return digest_of(msgspec.json.encode(kept))

    @property
    def weight(self) -> int:
        """Characters of fixed text: of two prompts that can read a request, the one that says more is meant."""
        return sum(len(literal) for _, template in self.messages for literal in template.literals)

    def told(self) -> str:
        """Which part of a request the specialist reads, in words."""
        others = ", with the tools that the request offers" if self.offered else ""
        others += f" (of {1 + len(self.also)} prompts, each its own way)" if self.also else ""
        if self.view == "last_user":
            return "the last user message" + others
        if self.view == "turns":
            return f"the latest {TURNS} turns of the conversation" + others
        slots = [(role, i + 1) for i, (role, template) in enumerate(self.messages) for _ in range(template.slots)]
        varying = [f"{role} message {place}" for role, place in slots]
        read = self.told_apart([(role, name) for (role, _), name in zip(slots, varying, strict=True)])
        chosen = dict.fromkeys([read[i] for i in self.asked] or read)
        part = f" (slot {', '.join(str(i + 1) for i in self.asked)} of {len(read)})" if self.asked else ""
        behind = f", behind the last {self.behind.strip()!r}" if self.behind else ""
        return "what varies in " + (", ".join(chosen) or "nothing") + part + behind + others


INSTRUCTIONS = ("system", "developer")


def last_user(request: Request) -> str:
    """The last user turn: the view where there is no prompt to go by."""
    return next((message.text for message in reversed(request.messages) if message.role == "user"), "")


def conversation(messages: Sequence[Message]) -> tuple[Sequence[Message], Sequence[Message]]:
    """The instructions at the start, and the turns after them."""
    start = next((i for i, message in enumerate(messages) if message.role not in INSTRUCTIONS), len(messages))
    return messages[:start], messages[start:]


def split_at_dates(text: str) -> list[str]:
    """The texts between dates and times: a date in instructions is a slot, even if it was never seen to vary."""
    return DATES.split(text)


def without_dates(text: str) -> str:
    """`text` with dates and times blanked: equal for two days of the same prompt.

    What `DATES.sub` gives, ten times as fast: dates are looked for only where one can begin.
    """
    kept = []
    done = 0
    for begins in _BEGINS.finditer(text):
        word, place = begins[0], begins.start()
        if place < done or not (word[:3] in _FIRST or word[0].isdecimal()):
            continue
        found = DATES.match(text, place)
        if found is not None:
            kept += [text[done:place], DATE]
            done = found.end()
    return "".join([*kept, text[done:]]) if done else text
