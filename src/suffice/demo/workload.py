"""Simulated support traffic: tickets to a made-up shop, their true label, and what a frontier would have said.

Every ticket is composed from the phrase bank by a generator of its own, seeded by (seed, position): the same seed gives
the same traffic, and `start` continues it. Where the noise comes from, all of it on purpose: two matters in one ticket
where only the word order tells which counts (`paired`), wordings that fit two labels equally well (`vague`), labels
that were simply filed wrong (`misfiled`), rare oblique wordings, rambling about what is settled, typos, SMS style, and
topics that the base traffic never has (`unseen`). A linear model is right on about 91% of it.

It does not know what a specialist or a gateway is, and nothing here is measured from real customers: the figures of a
demo run say that the machinery works, not what it would save anybody.
"""

from __future__ import annotations

import datetime
import random
import re
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec
import numpy as np

from suffice.core.types import digest_of
from suffice.demo import phrases
from suffice.demo.phrases import RULES

Kind = Literal["clear", "terse", "paired", "vague", "misfiled", "unseen", "labelled"]

PAIRED_SHARE = 0.035
VAGUE_SHARE = 0.03
MISFILED_SHARE = 0.002
RARE_SHARE = 0.14
TERSE_SHARE = 0.08
RAMBLING_SHARE = 0.25
TICKETS_A_DAY = 250
MOST_WRONG = 0.6
FIRST_DAY = datetime.date(2026, 3, 2)

_INNERMOST = re.compile(r"\[([^\[\]]*)\]")
_SLOT = re.compile(r"\{(\w+)\}")


class Ticket(msgspec.Struct, frozen=True, kw_only=True):
    """One simulated (or the user's own labelled) message with its right answer.

    `difficulty` in [0, 1] is how hard a careful reader finds it (0 plain, 1 hopeless), `rival` the label that reader
    would give if wrong, `topic_seen` False where the base traffic has nothing alike, `day` an ISO date.
    """

    text: str
    truth: str
    difficulty: float
    rival: str
    topic_seen: bool = True
    kind: Kind = "clear"
    day: str = FIRST_DAY.isoformat()


# ---------------------------------------------------------------------------------------------- traffic


def generate(n: int, seed: int, *, unseen_share: float = 0.0, start: int = 0) -> list[Ticket]:
    """`n` tickets of the stream named by `seed`, from position `start` on.

    `unseen_share` in [0, 1] is the chance that a ticket is on a topic the base traffic never has; by the rule stated in
    the prompt its truth is `other`. The same arguments give the same tickets, and two calls that share no position
    share no coin. Nearly all texts are distinct. Raises ValueError for a share outside [0, 1] or a negative number.
    """
    if n < 0 or start < 0:
        raise ValueError(f"`n` and `start` count tickets and cannot be negative, not {n} and {start}")
    if not 0 <= unseen_share <= 1:
        raise ValueError(f"`unseen_share` is a share between 0 and 1, not {unseen_share}")
    return [_ticket(position, seed, unseen_share) for position in range(start, start + n)]


def _ticket(position: int, seed: int, unseen_share: float) -> Ticket:
    rng = random.Random(f"{seed}:{position}")
    day = (FIRST_DAY + datetime.timedelta(days=position // TICKETS_A_DAY)).isoformat()
    if rng.random() < unseen_share:
        return _unseen(rng, day)
    coin = rng.random()
    if coin < PAIRED_SHARE:
        return _paired(rng, day)
    coin -= PAIRED_SHARE
    if coin < VAGUE_SHARE:
        return _vague(rng, day)
    coin -= VAGUE_SHARE
    return _clear(rng, day, misfiled=coin < MISFILED_SHARE)


def _unseen(rng: random.Random, day: str) -> Ticket:
    topic = rng.choice(sorted(phrases.UNSEEN))
    core = _expand(rng.choice(phrases.UNSEEN[topic]), rng)
    rival = rng.choice(("product_advice", "order_status", "promo_code"))
    text = _letter([core], rng, terse=False)
    return Ticket(text=text, truth="other", difficulty=0.15, rival=rival, topic_seen=False, kind="unseen", day=day)


def _paired(rng: random.Random, day: str) -> Ticket:
    pair = rng.choice(phrases.PAIRED)
    main, side = pair if rng.random() < 0.5 else pair[::-1]
    joint = _expand(rng.choice(phrases.FIRST_THEN + phrases.THEN_FIRST), rng, keep=("main", "side"))
    body = joint.replace("{main}", _core(main, rng)[0]).replace("{side}", _core(side, rng)[0])
    return Ticket(
        text=_letter([body], rng, terse=False), truth=main, difficulty=0.65, rival=side, kind="paired", day=day
    )


def _vague(rng: random.Random, day: str) -> Ticket:
    left, right, bank = rng.choice(phrases.VAGUE)
    truth, rival = (left, right) if rng.random() < 0.5 else (right, left)
    text = _letter([_expand(rng.choice(bank), rng)], rng, terse=False)
    return Ticket(text=text, truth=truth, difficulty=0.9, rival=rival, kind="vague", day=day)


def _clear(rng: random.Random, day: str, *, misfiled: bool) -> Ticket:
    intent = rng.choices(list(phrases.SHARES), weights=list(phrases.SHARES.values()))[0]
    terse = rng.random() < TERSE_SHARE
    core, oblique = _core(intent, rng)
    sentences = [core]
    if not terse and rng.random() < 0.45:
        sentences.append(_expand(rng.choice(phrases.DETAILS[intent]), rng))
    rival = _neighbour(intent, rng)
    rambling = not terse and rng.random() < RAMBLING_SHARE
    if rambling:
        sentences = _ramble(core, intent, rng)
    text = _letter(sentences, rng, terse=terse)
    if misfiled:
        return Ticket(text=text, truth=rival, difficulty=1.0, rival=intent, kind="misfiled", day=day)
    difficulty = 0.04 + 0.18 * oblique + (0.08 if terse else 0.14 if rambling else 0.0)
    return Ticket(
        text=text, truth=intent, difficulty=difficulty, rival=rival, kind="terse" if terse else "clear", day=day
    )


def _ramble(core: str, intent: str, rng: random.Random) -> list[str]:
    """The core among things already settled, which sound like other intents."""
    others = rng.sample([name for name in phrases.CORES if name != intent], k=rng.choice((1, 2, 2, 3)))
    told = [rng.choice(phrases.SETTLED) + _expand(rng.choice(phrases.DETAILS[name]), rng) for name in others]
    told.insert(rng.randrange(len(told) + 1), core)
    return told


def _core(intent: str, rng: random.Random) -> tuple[str, bool]:
    """A sentence that states the intent, and whether it does so obliquely: out of the rare bank, or a late phrase."""
    if rng.random() < RARE_SHARE:
        return _expand(rng.choice(phrases.RARE[intent]), rng), True
    bank = phrases.CORES[intent]
    weights = [1.0 / (rank + 2) ** 0.6 for rank in range(len(bank))]
    rank = rng.choices(range(len(bank)), weights=weights)[0]
    return _expand(bank[rank], rng), rank >= 0.72 * len(bank)


def _neighbour(intent: str, rng: random.Random) -> str:
    """A label that stands near `intent`: one it shares tickets with, where there is one."""
    pairs = [*phrases.PAIRED, *((left, right) for left, right, _ in phrases.VAGUE)]
    near = [left if right == intent else right for left, right in pairs if intent in (left, right)]
    return rng.choice(near or ["product_advice", "order_status"])


# ---------------------------------------------------------------------------------------------- text


def _expand(template: str, rng: random.Random, keep: Sequence[str] = ()) -> str:
    """`template` with one alternative picked for each bracket and every slot filled, but for those in `keep`."""
    text = template
    while "[" in text:
        text = _INNERMOST.sub(lambda match: rng.choice(match[1].split("|")), text)
    while any(name not in keep for name in _SLOT.findall(text)):
        text = _SLOT.sub(lambda match: match[0] if match[1] in keep else _fill(match[1], rng), text)
        while "[" in text:
            text = _INNERMOST.sub(lambda match: rng.choice(match[1].split("|")), text)
    text = re.sub(r" +([.,?!:])", r"\1", re.sub(r"\s+", " ", text)).strip()
    return text[:1].upper() + text[1:]


def _fill(name: str, rng: random.Random) -> str:
    if name in phrases.SLOTS:
        choices: tuple[str, ...] = phrases.SLOTS[name]
        return rng.choice(choices)
    if name == "shop":
        return phrases.SHOP
    if name == "number":
        return str(rng.randrange(100_000, 999_999))
    if name == "two":
        return str(rng.randrange(2, 60))
    if name == "three":
        return str(rng.randrange(100, 999))
    if name == "amount":
        euros, cents = rng.randrange(4, 160), rng.choice(("", ".00", ".50", ".90", ".95", ".99"))
        return rng.choice(("€{0}{1}", "{0}{1} euros", "£{0}{1}", "{0}{1} EUR", "{0}{1}")).format(euros, cents)
    if name == "date":
        date = FIRST_DAY + datetime.timedelta(days=rng.randrange(0, 330))
        month = date.strftime("%B")
        return rng.choice(
            (f"{date.day} {month}", f"{month} {date.day}", f"{date.day}.{date.month}.", f"{date.day}/{date.month:02d}")
        )
    raise ValueError(f"no such slot in the phrase bank: {name}")


def _letter(sentences: list[str], rng: random.Random, *, terse: bool) -> str:
    """A message around the sentences that matter: greeting, sentences about nothing, anger, a name, and a style."""
    parts = list(sentences)
    if not terse:
        for _ in range(rng.choices((0, 1, 2, 3), weights=(52, 31, 12, 5))[0]):
            parts.insert(rng.randrange(len(parts) + 1), _expand(rng.choice(phrases.ASIDES), rng))
        if rng.random() < 0.12:
            parts.append(_expand(rng.choice(phrases.ANGER), rng))
        if rng.random() < 0.6:
            parts.insert(0, _expand(rng.choice(phrases.OPENINGS), rng))
        if rng.random() < 0.5:
            parts.append(_expand(rng.choice(phrases.CLOSINGS), rng))
    text = ("\n" if not terse and rng.random() < 0.15 else " ").join(parts)
    style = rng.random()
    if style < 0.12:
        text = _sms(text, rng)
    elif style < 0.30:
        text = text.lower()
    elif style < 0.33:
        text = text.upper()
    elif style < 0.37:
        text = text.replace(".", "!!").replace("?", "??")
    return _typos(text, rng, rate=rng.choices((0.0, 0.006, 0.02, 0.12), weights=(60, 27, 9, 4))[0])


_SHORTHAND = {
    "you": "u", "your": "ur", "please": "pls", "are": "r", "thanks": "thx", "because": "cos", "and": "n",
    "to": "2", "for": "4", "what": "wot", "before": "b4", "subscription": "sub", "message": "msg", "email": "mail",
    "delivery": "delivry", "with": "w", "account": "acc", "password": "pw", "picture": "pic", "number": "no",
}  # fmt: skip


def _sms(text: str, rng: random.Random) -> str:
    """Lower case, few full stops, and about two thirds of the words that have a short form in it."""
    words = re.sub(r"[.,!?;]+(?=\s|$)", "", text.lower()).split()
    return " ".join(_SHORTHAND[word] if word in _SHORTHAND and rng.random() < 0.65 else word for word in words)


def _typos(text: str, rng: random.Random, *, rate: float) -> str:
    """Swapped, dropped and doubled letters, each letter with chance `rate`."""
    if rate == 0:
        return text
    out: list[str] = []
    for letter in text:
        if letter.isalpha() and rng.random() < rate:
            slip = rng.random()
            if slip < 0.4 and out:
                out.insert(len(out) - 1, letter)
            elif slip < 0.7:
                out.append(letter * 2)
        else:
            out.append(letter)
    return "".join(out)


# ---------------------------------------------------------------------------------------------- requests


def messages(ticket: Ticket, rules: Mapping[str, str] = RULES) -> list[dict[str, str]]:
    """The chat messages an application would send for this ticket: a fixed system prompt and the ticket's text.

    The prompt has one slot, the day; everything else is the same for every ticket with the same `rules` (label to its
    rule, which may be empty). About 250 tokens with the shop's rules. The expected answer is the bare label.
    """
    return [
        {"role": "system", "content": system_prompt(ticket.day, rules)},
        {"role": "user", "content": ticket.text},
    ]


def system_prompt(day: str, rules: Mapping[str, str] = RULES) -> str:
    """The application's instructions, with `day` in them. Unless `rules` is the shop's own it names no shop."""
    listed = "\n".join(f"{label}: {rule}" if rule else label for label, rule in rules.items())
    who = f"messages to {phrases.SHOP}, an online plant shop" if rules is RULES else "messages"
    return (
        f"You sort {who}. Today is {day}. Answer with one label from this list and nothing else. "
        f"If a message raises several matters, take the one to act on first.\n{listed}"
    )


# ---------------------------------------------------------------------------------------------- the frontier's answers


def frontier_answers(tickets: Sequence[Ticket], seed: int, *, error: float = 0.042) -> list[str]:
    """What the simulated frontier says to each ticket, in order: the truth, or the ticket's rival where it errs.

    `error` in [0, 0.5] is the expected share of wrong answers over these tickets; each ticket's own chance grows with
    the cube of its difficulty, up to 0.6 (no reader does much worse than a coin between two
    labels). The coin belongs to (seed, text), and one text has one answer (the first occurrence decides), as a model
    at temperature 0 would. Raises ValueError for an `error` out of range.
    """
    if not 0 <= error <= 0.5:
        raise ValueError(f"`error` is a share between 0 and 0.5, not {error}")
    chances = _error_chances([ticket.difficulty for ticket in tickets], error)
    said: dict[str, str] = {}
    for ticket, chance in zip(tickets, chances, strict=True):
        if ticket.text not in said:
            coin = int(digest_of(str(seed), ticket.text)[:13], 16) / 16**13
            said[ticket.text] = ticket.rival if coin < chance else ticket.truth
    return [said[ticket.text] for ticket in tickets]


def _error_chances(difficulties: Sequence[float], error: float) -> list[float]:
    """One chance per difficulty, rising with its cube, capped at 0.6, with mean `error` (as near as the cap lets)."""
    if not difficulties or error == 0:
        return [0.0] * len(difficulties)
    weight = np.asarray(difficulties, dtype=np.float64) ** 3 + 0.001
    low, high = 0.0, MOST_WRONG / float(weight.min())
    for _ in range(60):
        middle = (low + high) / 2
        if float(np.minimum(middle * weight, MOST_WRONG).mean()) < error:
            low = middle
        else:
            high = middle
    return [float(chance) for chance in np.minimum(high * weight, MOST_WRONG)]


def write_answers(tickets: Sequence[Ticket], answers: Sequence[str]) -> bytes:
    """The simulated frontier's answers file: JSON Lines of `{"text", "answer"}`, one per distinct text."""
    if len(tickets) != len(answers):
        raise ValueError(f"{len(tickets)} tickets but {len(answers)} answers")
    first: dict[str, str] = {}
    for ticket, answer in zip(tickets, answers, strict=True):
        first.setdefault(ticket.text, answer)
    return b"".join(msgspec.json.encode({"text": text, "answer": said}) + b"\n" for text, said in first.items())
