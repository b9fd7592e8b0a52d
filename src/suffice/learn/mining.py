"""Rules out of raw traffic: which requests carry the same prompt, told without tags and without a model.

By structure first (the roles that instruct, response format, whether tools are offered), then by the fixed text of the
instructions, then, within one set of instructions, by the fixed text of the first user turn, then by the tools.

Fixed text shows itself: all its word sequences stand in exactly the same texts. What people write does not: "how do I"
stands in many texts, but nothing else stands in just those. So word sequences are grouped by the set of texts that
hold them, and a group that says enough splits the pool; each part is split again by what it has beyond its parent.

This module does not know what a prompt means: two wordings of one work are two rules, and another step joins them by
what was answered.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.match import ANY, Matcher, Rule, first_user, tools_of
from suffice.core.prompt import Template, conversation, split_at_dates, without_dates
from suffice.core.same import role_of
from suffice.core.types import Request
from suffice.core.values import Value, calls_of

SPAN = 4
"""Tokens in a sequence: of three, people's phrases repeat too often."""
SHARED = 0.97
"""What stands in this share of a group's texts is common to it."""
TOKENS = 4_000_000
"""A pool's tokens that are looked at. Of longer texts the head and the tail: instructions stand at the edges."""
EDGE = 20_000
"""Tokens of a text's head and of its tail that are looked at, at most."""
TOKEN = 5
"""Characters of a token, about."""
REACH = 2_000
"""Tokens of a text's head and of its tail that a template is made of."""
SAMPLE = 60
"""Distinct texts from which a group's template is made; it is verified on all of them."""
SAMPLED, FEWEST = 40_000, 16
"""Tokens of these in all, about, and the texts that they are at least."""
FITS = 0.99
"""The share of a group that its template must fit; a literal that keeps it from that is dropped."""
FITS_INNER = 0.998
"""The same for a literal between slots: what an edge says is seldom chance, what stands in the midst may be."""
RICH = 8
"""Words of fixed text that identify a work on their own."""
GENERAL = 4
"""Words of fixed text that make instructions a prompt of their own, if a general one."""
ASKS = 3
"""Words by which prompts must differ beyond what they share to ask for different things."""
ALONE = 12
"""Words at the edge of what people write that no mark or line break sets apart from the rest."""
SENTENCE = 7
"""Words at the beginning of what people write that a full stop sets apart."""
WITHOUT_SPACES = 0.5
"""Words in a character of a script without spaces."""
CLOSED = 4
"""Requests per distinct prompt from which the prompts seen are all there are: then one word tells two works apart."""
RARE, SMALL = 3, 10
"""Requests of a work that is too rare for a rule yet; groups of up to this many times `least` may be several such."""
VALUES = 6
"""Prompts that differ in a word or two from which on that word is a slot: there are more names than things to ask."""
EXHAUSTED = 0.85
"""The share of a group that its parts must make up. Where the rest is open, what recurs is an example or a passage."""
BESIDE = 8
"""Other texts of a group in which the neighbours of a word are looked for."""
UNITS = 80
"""Sentences of a prompt up to which optional ones are looked for."""
INLINE = 0.3
"""The share of the requests under instructions that say a good deal, from which prompts in their user turn count."""
LISTED = 0.9
"""The share of answers whose labels or fields stand in instructions that list them; the rest are slips."""
FEWEST_LISTED = 3
LABEL = 60
"""A longer answer is no label."""
GOOD_PART = 0.1
"""The share of a group whose tools are the same, from which they are a rule of their own."""

_CJK = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af"
_TOKEN = re.compile(
    rf"https?://\S+|[\w.+-]+@[\w-]+\.\w+|\b[a-z]{{2}}[-_][A-Z]{{2}}\b|[{_CJK}]|[^\W{_CJK}]+|\n(?:[ \t]*\n)*|[^\w\s]"
)
"""URLs, addresses, locales, characters of scripts without spaces, words, line breaks, marks."""
_WORD = re.compile(r"\w+")
_SIGN = re.compile(rf"[{_CJK}]")
_VARYING = re.compile(
    r".*\d.*|https?://.*|.+@.+|[a-z]{2}[-_][A-Z]{2}"
    r"|(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day|(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
    r"|January|February|March|April|May|June|July|August|September|October|November|December"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sept?|Oct|Nov|Dec",
    re.DOTALL,
)
"""Tokens that are taken for one another: numbers, dates, addresses, locales."""
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_MARKS = frozenset("\n:<>#`|[]{}*=-_\"'")
_STOPS = frozenset(".!?。！？")
_ENDS = frozenset(".!?#>")
"""After these and a line break a capital letter is no name."""
_PLAIN, _NAME, _MARK = 0, 1, 2

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Kinds = npt.NDArray[np.int8]


class Mined(msgspec.Struct, frozen=True):
    """A rule and the positions of the requests for which a matcher of all mined rules gives it, ascending."""

    rule: Rule
    members: tuple[int, ...]


def mine(requests: Sequence[Request], answers: Sequence[Value] | None = None, *, least: int = 10) -> list[Rule]:
    """The rules that cover groups of at least `least` of the requests, the largest group first."""
    return [mined.rule for mined in mine_members(requests, answers, least=least)]


def mine_members(
    requests: Sequence[Request], answers: Sequence[Value] | None = None, *, least: int = 10
) -> list[Mined]:
    """The same with the members of each rule. A request is a member of one rule at most.

    `answers` (None: there is none) tell instructions that list their answers: what users write under them is input,
    however alike it is. Raises ValueError for a `least` below 2: nothing is common to one request.
    """
    if least < 2:
        raise ValueError(f"`least` is 2 or more, not {least}")
    structures: defaultdict[tuple[tuple[str, ...], bool, str], list[int]] = defaultdict(list)
    texts = []
    for i, request in enumerate(requests):
        head, turns = conversation(request.messages)
        texts.append((tuple(message.text for message in head), first_user(turns)))
        roles = tuple(role_of(message.role) for message in head)
        structures[roles, bool(request.tools), request.response_format].append(i)
    rules: dict[str, Rule] = {}
    for (roles, _, response_format), places in structures.items():
        if len(places) < least:
            continue
        for fixed, group in _heads([texts[i][0] for i in places], places, least) if roles else [((), places)]:
            told = sum(_words(literal) for one in fixed for literal in one.template.literals) > RICH
            whole = answers is not None and _lists(fixed, [answers[i] for i in group])
            for turn, part in [(None, group)] if whole else _turns([texts[i][1] for i in group], group, least, told):
                if turn is None and fixed and not _says(fixed):
                    continue  # a rule for any instructions would hide the next prompt
                for tools in _tools([tools_of(requests[i]) for i in part], least):
                    rule = Rule(
                        head=tuple((role, one.template) for role, one in zip(roles, fixed, strict=True)),
                        turn=turn,
                        tools=tools,
                        response_format=response_format,
                        dated=bool(fixed) and all(one.dated for one in fixed),
                    )
                    if _storable(rule):
                        rules[rule.key()] = rule
    return _members(requests, list(rules.values()), least)


def _storable(rule: Rule) -> bool:
    """Half a surrogate pair cannot be written as JSON."""
    templates = [one for _, one in rule.head] + ([rule.turn] if rule.turn is not None else [])
    literals = [literal for one in templates for literal in one.literals]
    return all(literal.isascii() or literal.encode("utf-8", "ignore").decode() == literal for literal in literals)


def _members(requests: Sequence[Request], rules: list[Rule], least: int) -> list[Mined]:
    """Whose rule each request is when all rules are there; rules left with too few go."""
    open_ = list(range(len(requests)))
    members: defaultdict[int, list[int]] = defaultdict(list)
    alive = dict(enumerate(rules))
    while True:
        matcher = Matcher(alive.items())
        for i in open_:
            found = matcher.match(requests[i])
            if found is not None:
                members[found[0]].append(i)
        small = [number for number in alive if len(members[number]) < least]
        if not small:
            break
        # The smallest goes first: what it had may be what another one lacks.
        fewest = min(len(members[number]) for number in small)
        gone = [number for number in small if len(members[number]) == fewest]
        open_ = sorted(i for number in gone for i in members.pop(number))
        for number in gone:
            del alive[number]
    turnsrules = [Mined(rule, tuple(sorted(members[number]))) for number, rule in alive.items()]
    return sorted(turnsrules, key=lambda mined: (-len(mined.members), mined.members[:1]))


# ------------------------------------------------------------------------------------------------ structure


@dataclass(frozen=True)
class _Fixed:
    """A template; `dated`: its slots are dates, nothing else."""

    template: Template
    dated: bool


def _heads(
    texts: list[tuple[str, ...]], places: list[int], least: int
) -> Iterator[tuple[tuple[_Fixed, ...], list[int]]]:
    """Groups of requests with the same instructions, what is fixed in each instructing message; last, where none is."""
    where: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for place, text in zip(places, texts, strict=True):
        where[text].append(place)
    distinct = list(where)
    pool = _Pool(["\n\0\n".join(text) for text in distinct], [len(where[text]) for text in distinct], least, False)
    taken: set[int] = set()
    groups = [rows for rows in pool.groups() if not pool.several(rows)]
    fixed = [_columns([distinct[row] for row in rows]) for rows in groups]
    for together in _optional(fixed):
        rows = [row for one in together for row in groups[one]]
        found = fixed[together[0]] if len(together) == 1 else _columns([distinct[row] for row in rows])
        fits = [
            row
            for row in rows
            if all(one.template.match(text) is not None for one, text in zip(found, distinct[row], strict=True))
        ]
        group = sorted(place for row in fits for place in where[distinct[row]])
        if len(group) >= least and _says(found):
            taken.update(group)
            yield found, group
    rest = [place for place in places if place not in taken]
    if len(rest) >= least:
        yield (_Fixed(Template(("", "")), False),) * len(texts[0]), rest


def _says(fixed: Sequence[_Fixed]) -> bool:
    """Whether anything is fixed in instructions, if only that they are empty."""
    return any("".join(one.template.literals).strip() or not one.template.slots for one in fixed)


def _lists(fixed: Sequence[_Fixed], answers: Sequence[Value]) -> bool:
    """Whether instructions list the labels or the fields of their answers; yes and no, which any question has, are few.

    Fields are known by their names, and together with what is said in them there are enough of both.
    """
    text = _spoken("\n".join(literal for one in fixed for literal in one.template.literals))
    needed: Counter[str] = Counter()
    beside: Counter[str] = Counter()
    for answer in answers:
        if isinstance(answer, dict) and calls_of(answer) is None:
            needed.update(list(answer))
            beside.update(value for value in answer.values() if isinstance(value, str) and len(value) <= LABEL)
        elif answer is not None:
            needed[answer if isinstance(answer, str) and len(answer) <= LABEL else ""] += 1
    listed = {name for name in needed if _spoken(name).strip() and _spoken(name) in text}
    held = sum(needed[name] for name in listed)
    more = {name for name in beside if _spoken(name).strip() and _spoken(name) in text}
    return held >= LISTED * needed.total() > 0 and len(listed | more) >= FEWEST_LISTED


def _spoken(text: str) -> str:
    """The words of a text, each between spaces."""
    return f" {' '.join(_WORD.findall(text.casefold()))} "


def _columns(texts: Sequence[tuple[str, ...]]) -> tuple[_Fixed, ...]:
    """What is fixed in each instructing message of a group."""
    return tuple(_fixed(column) for column in zip(*texts, strict=True))


def _optional(found: Sequence[tuple[_Fixed, ...]]) -> list[list[int]]:
    """Which prompts are one but for a paragraph that comes and goes.

    It does where two prompts or more are there both with it and without. Paragraphs that could stand in the same place
    and never stand together are what is asked, not what is optional.
    """
    units = [
        tuple(
            unit.strip()
            for one in fixed
            for unit in (*_SENTENCE.split("\0".join(literal.strip() for literal in one.template.literals)), "\n")
        )
        for fixed in found
    ]
    known: dict[tuple[str, ...], int] = {}
    for i, some in enumerate(units):
        known.setdefault(some, i)
    added: defaultdict[int, dict[tuple[str, ...], int]] = defaultdict(dict)
    for i, some in enumerate(units):
        if len(some) > UNITS:
            continue
        for length in range(1, min(4, len(some) - 2)):
            for at in range(len(some) - length):
                base = known.get(some[:at] + some[at + length :])
                if base is not None and base != i:
                    added[base][some[at : at + length]] = i
    bases: defaultdict[tuple[str, ...], list[int]] = defaultdict(list)
    for base, more in added.items():
        for paragraph in more:
            bases[paragraph].append(base)
    same = list(range(len(found)))

    def root(i: int) -> int:
        while same[i] != i:
            i = same[i]
        return i

    for base, more in added.items():
        for paragraph, i in more.items():
            others = [other for other in more if not set(other) & set(paragraph)]
            free = not others or any(other in added[i] for other in others)
            if len(bases[paragraph]) > 1 and free:
                same[root(i)] = root(base)
    together: defaultdict[int, list[int]] = defaultdict(list)
    for i in range(len(found)):
        together[root(i)].append(i)
    return list(together.values())


def _turns(texts: list[str], places: list[int], least: int, told: bool) -> Iterator[tuple[Template | None, list[int]]]:
    """Groups of requests whose first user turn has fixed text, and last those without.

    `told`: the instructions say a good deal; then a few turns that begin alike are chance.
    """
    where: defaultdict[str, list[int]] = defaultdict(list)
    for place, text in zip(places, texts, strict=True):
        where[text].append(place)
    distinct = list(where)
    taken: set[int] = set()
    turns: list[tuple[Template, list[int]]] = []
    if len(distinct) >= least:
        pool = _Pool(distinct, [len(where[text]) for text in distinct], least, True)
        for rows in pool.groups():
            if pool.several(rows):
                continue
            found = template([distinct[row] for row in rows])
            if found.slots == 0 or not _tells(found):
                continue
            fits = [row for row in rows if found.match(distinct[row]) is not None]
            group = sorted(place for row in fits for place in where[distinct[row]])
            if len(group) >= least:
                turns.append((found, group))
    if told and sum(len(group) for _, group in turns) < INLINE * len(places):
        turns = [(found, group) for found, group in turns if sum(map(_words, found.literals)) >= RICH]
    yield from turns
    taken.update(place for _, group in turns for place in group)
    rest = [place for place in places if place not in taken]
    if len(rest) >= least:
        yield None, rest


def _words(text: str) -> int:
    return len(_WORD.findall(text))


def _tools(digests: Sequence[str], least: int) -> list[str]:
    """What the rules of one group say of tools: one for each toolset that recurs, one for all others."""
    counts = Counter(digests)
    if counts.keys() == {""}:
        return [""]
    often = [tools for tools, count in counts.items() if count >= max(least, GOOD_PART * len(digests))]
    rest = len(digests) - sum(counts[tools] for tools in often)
    return often + ([ANY] if rest >= least else [])


# -------------------------------------------------------------------------------------------------- groups


class _Vocabulary(dict[str, int]):
    """Numbers for tokens, in order of appearance; what varies anyway (`_VARYING`) has one number."""

    def __init__(self) -> None:
        self.kinds = [_MARK, _MARK, _NAME]  # start, end, what varies
        self.capital = [False, False, False]
        self.ends = [True, False, False]

    def __missing__(self, token: str) -> int:
        first = token[0]
        if _VARYING.fullmatch(token):
            number = 2
        else:
            number = len(self.kinds)
            self.kinds.append(_PLAIN if first.isalpha() else _MARK)
            self.capital.append(first.isupper())
            self.ends.append(token in _ENDS or first == "\n")
        self[token] = number
        return number


def _edge(lengths: Sequence[int]) -> int:
    """Tokens of a text's head and of its tail that can be looked at in a pool of texts of these lengths."""
    low, high = 20, EDGE
    while low < high:
        middle = (low + high + 1) // 2
        fits = sum(min(length // TOKEN, 2 * middle) for length in lengths) <= TOKENS
        low, high = (middle, high) if fits else (low, middle - 1)
    return low


def _cut(text: str, edge: int) -> list[str]:
    """The tokens of a text; of a long one those of its head and of its tail."""
    reach = 6 * edge
    if len(text) > 2 * reach:
        return _TOKEN.findall(text[:reach])[:edge] + _TOKEN.findall(text[-reach:])[-edge:]
    tokens = _TOKEN.findall(text)
    return tokens if len(tokens) <= 2 * edge else tokens[:edge] + tokens[-edge:]


class _Seen(NamedTuple):
    """Which sequences a group of rows holds: pairs, the distinct ones with their weight, and those that all hold."""

    rows: Ints
    held: Small
    row: Ints
    sequences: Small
    inverse: Ints
    weight: npt.NDArray[np.float64]
    total: int
    common: Small


class _Pool:
    """Distinct texts as sequences of tokens, and the sequences of `SPAN` tokens that occur often enough to matter.

    `weights` are the requests that carry each text. `written`: people wrote these texts, so that more is asked of what
    counts as fixed, and a text said often counts once.
    """

    def __init__(self, texts: Sequence[str], weights: Sequence[int], least: int, written: bool) -> None:
        self.least, self.written, self.count = least, written, len(texts)
        self._texts = texts
        self._wary = False  # whether parts must each say something of their own, and enough of it
        vocabulary = _Vocabulary()
        edge = _edge([len(text) for text in texts])
        rows = []
        for text in texts:
            numbers = [vocabulary[token] for token in _cut(text, edge)]
            rows.append(np.array([0, *numbers, *([1] * max(1, SPAN - 1 - len(numbers)))], dtype=np.int32))
        self.start: Ints = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
        self.tokens: Small = np.concatenate(rows) if rows else np.zeros(0, np.int32)
        self.weights: Ints = np.ones(len(texts), np.int64) if written else np.asarray(weights, np.int64)
        rng = np.random.default_rng(20)
        self._random = rng.integers(1, 2**38, len(texts)).astype(np.float64)  # sums of 2**15 of them are exact
        names = [token for token, number in vocabulary.items() if number > 2]
        kinds = np.array(vocabulary.kinds, np.int8)[self.tokens]
        after = np.roll(np.array(vocabulary.ends)[self.tokens], 1)
        kinds[np.array(vocabulary.capital)[self.tokens] & ~after] = _NAME
        self.kinds: Kinds = kinds
        size = np.array([WITHOUT_SPACES if token and _SIGN.match(token) else 1.0 for token in ("", "", "", *names)])
        self.words: npt.NDArray[np.float64] = np.where(kinds == _PLAIN, size[self.tokens], 0.0)
        self.edges = self.tokens < 2
        self.written_as = {number: token for token, number in vocabulary.items()}
        marks = [number for token, number in vocabulary.items() if token[0] in _MARKS]
        self.marks = np.isin(self.tokens, marks)
        self.stops = np.isin(self.tokens, [number for token, number in vocabulary.items() if token in _STOPS])
        self._index()

    def _index(self) -> None:
        """Which text holds which sequence: `at` by place in the text (-1: a rare one), `held` and `row` as pairs."""
        size = len(self.tokens)
        row = np.repeat(np.arange(self.count, dtype=np.int64), np.diff(self.start))
        self.at: Small = np.full(size, -1, np.int32)
        self.at_edge: npt.NDArray[np.bool_] = np.zeros(0, np.bool_)
        if size < SPAN:
            self.pairs: tuple[Small, Ints] = (np.zeros(0, np.int32), np.zeros(self.count + 1, np.int64))
            return
        wide = self.tokens.astype(np.uint64)
        hashes = np.zeros(size - SPAN + 1, np.uint64)
        for k, prime in enumerate((0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5)):
            part = (wide[k : size - SPAN + 1 + k] + np.uint64(k + 1)) * np.uint64(prime)
            hashes ^= part ^ (part >> np.uint64(29))
            hashes *= np.uint64(0xBF58476D1CE4E5B9)
        del wide, part
        places = np.flatnonzero(row[: size - SPAN + 1] == row[SPAN - 1 :])
        hashes = hashes[places]
        _, sequence = np.unique(hashes, return_inverse=True)
        del hashes
        count = int(sequence.max()) + 1 if len(sequence) else 0
        paired = np.unique(sequence.astype(np.int64) * self.count + row[places])
        often = np.bincount(paired // self.count, self.weights[paired % self.count], count) >= self.least
        number = np.where(often, np.cumsum(often) - 1, -1).astype(np.int32)
        self.at[places] = number[sequence]
        self.at_edge = np.zeros(int(often.sum()), np.bool_)
        for k in range(SPAN):
            near = self.at[np.flatnonzero(self.edges[k:])]
            self.at_edge[near[near >= 0]] = True
        kept = paired[often[paired // self.count]]
        del paired
        order = np.argsort(kept % self.count, kind="stable")
        held = number[kept[order] // self.count]
        bounds = np.searchsorted((kept % self.count)[order], np.arange(self.count + 1))
        self.pairs = (held, bounds.astype(np.int64))

    def groups(self) -> list[list[int]]:
        """Rows that carry the same prompt, as far as some do; a row is in one group at most."""
        found: list[list[int]] = []
        todo: list[tuple[Ints, bool]] = [(np.arange(self.count, dtype=np.int64), False)]
        while todo:
            rows, told = todo.pop()
            parts, rest, leaf = self._split(rows, told)
            if leaf:
                found.append(rows.tolist())
                continue
            if not parts:
                found += self._repeated(rows)
                continue
            todo += [(part, True) for part in reversed(parts)]
            if int(self.weights[rest].sum()) >= self.least:
                todo.append((rest, told))
        return found

    def several(self, rows: Sequence[int]) -> bool:
        """Whether a small group is works of less than `least` requests each, which share what surrounds their task."""
        weights = [int(self.weights[row]) for row in rows]
        if self.least <= RARE or sum(weights) > SMALL * self.least:
            return False
        pool = _Pool([self._texts[row] for row in rows], weights, RARE, self.written)
        pool._wary = True
        parts, rest, _ = pool._split(np.arange(len(rows), dtype=np.int64), True)
        return len(parts) > 1 and int(pool.weights[rest].sum()) <= (1 - EXHAUSTED) * sum(weights)

    def _split(self, rows: Ints, told: bool) -> tuple[list[Ints], Ints, bool]:
        """Parts of a group that differ in their fixed text, what is in none of them, and whether it is one prompt.

        `told`: the group has been found by fixed text of its own.
        """
        held, row = self._held(rows)
        total = int(self.weights[rows].sum())
        none: tuple[list[Ints], Ints] = ([], rows)
        if not len(held) or total < self.least:
            return *none, told or self._same(rows)
        sequences, inverse = np.unique(held, return_inverse=True)
        weight = np.bincount(inverse, self.weights[row]).astype(np.float64)
        common = sequences[weight >= SHARED * total]
        sample = int(rows[np.argmin(self.start[rows + 1] - self.start[rows])])
        covered = self._covered(sample, common)
        words = float(self.words[covered].sum())
        # A group whose common text is its own, or all of a text: one prompt, if nothing splits it.
        told = told or self._enough(covered, True) or self._same(rows)
        if len(rows) == 1:
            return *none, told
        seen = _Seen(rows, held, row, sequences, inverse, weight, total, common)
        for asked in (True, False) if told and words else (False,):
            parts = self._families(seen, asked)
            taken = np.zeros(self.count, bool)
            for part in parts:
                taken[part] = True
            rest = rows[~taken[rows]]
            if len(rest) and not self.written and not self._wary and self._uniform(rest):
                parts, rest = [*parts, rest], rest[:0]
            share = 1 - int(self.weights[rest].sum()) / total
            if len(parts) > 1 and share >= EXHAUSTED:
                # What says as much and asks for none of that asks for something rarer: not one work, as far as seen.
                return parts, rest[:0] if told and words >= RICH else rest, False
            if parts and not asked and not (told and words >= RICH):
                return parts, rest, False
        return *none, told

    def _uniform(self, rows: Ints) -> bool:
        """Whether these are one text but for names and numbers."""
        total = int(self.weights[rows].sum())
        if total < self.least:
            return False
        held, row = self._held(rows)
        sequences, inverse = np.unique(held, return_inverse=True)
        common = sequences[np.bincount(inverse, self.weights[row], len(sequences)) >= SHARED * total]
        sample = int(rows[np.argmax(self.start[rows + 1] - self.start[rows])])
        every = np.arange(self.start[sample], self.start[sample + 1])
        bare = np.setdiff1d(every, self._covered(sample, common), assume_unique=True)
        return float(self.words[bare].sum()) <= 1

    def _families(self, seen: _Seen, told: bool) -> list[Ints]:
        """Disjoint parts of a group, each with text that all of the part has and nothing else of the group.

        `told`: that text need only ask for something else; otherwise it must be a prompt by itself.
        """
        rows, _, row, sequences, inverse, weight, total, common = seen
        signature = np.bincount(inverse, self._random[row])
        able = np.flatnonzero((weight >= self.least) & (weight < SHARED * total))
        if not len(able):
            return []
        _, first, family, sizes = np.unique(signature[able], return_index=True, return_inverse=True, return_counts=True)
        weights = weight[able[first]]
        closed = total >= CLOSED * len(rows)
        asks = ASKS if self.written or self._wary or not closed else 1
        if self.written and not told:  # at an edge, however short
            fits = np.bincount(family, self.at_edge[sequences[able]]) > 0
        else:
            fits = sizes >= min(SPAN, asks + 1)
        order = np.argsort(family, kind="stable")
        ends = np.cumsum(sizes)
        ranked = [f for f in np.lexsort((-sizes, -weights)) if fits[f]]
        by_sequence = np.argsort(inverse, kind="stable")
        bounds = np.searchsorted(inverse[by_sequence], np.arange(len(sequences) + 1))
        is_common = np.zeros(len(self.at_edge) + 1, np.int8)
        is_common[common] = 1
        taken = np.zeros(self.count, bool)
        chosen: list[Ints] = []
        by_little: list[bool] = []
        free = total
        for f in ranked:
            if weights[f] > free:
                continue
            members = able[order[ends[f] - sizes[f] : ends[f]]]
            part = row[by_sequence[bounds[members[0]] : bounds[members[0] + 1]]]
            lost = int(self.weights[part[taken[part]]].sum())
            if lost > (1 - SHARED) * weights[f]:
                if lost < SHARED * weights[f] and sizes[f] >= SPAN:
                    # Here in some of a part and elsewhere too: a paragraph that comes and goes tells no work.
                    is_common[sequences[members]] = 1
                continue
            part = part[~taken[part]]
            if int(self.weights[part].sum()) < self.least:
                continue
            is_common[sequences[members]] = 2
            own = self._own(int(part[0]), is_common)
            is_common[sequences[members]] = 0
            if told and self._asks(own, asks):
                own = self._beyond(own, np.setdiff1d(rows, part))
            if not (self._asks(own, asks) if told else self._enough(own, False)):
                continue
            chosen.append(np.sort(part))
            by_little.append(told and not self._asks(own, ASKS))
            taken[part] = True
            free -= int(self.weights[part].sum())
            if free < self.least:
                break
        if sum(by_little) > VALUES:
            chosen = [part for part, little in zip(chosen, by_little, strict=True) if not little]
        return chosen

    def _held(self, rows: Ints) -> tuple[Small, Ints]:
        """The sequences that the rows hold, and which row each is of."""
        held, bounds = self.pairs
        if len(rows) == self.count:
            return held, np.repeat(rows, np.diff(bounds))
        lengths = bounds[rows + 1] - bounds[rows]
        if not int(lengths.sum()):
            return held[:0], rows[:0]
        offsets = np.repeat(bounds[rows] - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
        return held[np.arange(int(lengths.sum())) + offsets], np.repeat(rows, lengths)

    def _covered(self, row: int, common: Small) -> Ints:
        """Places of the tokens of a row that stand in sequences of `common` (sorted)."""
        start, end = int(self.start[row]), int(self.start[row + 1])
        hit = np.isin(self.at[start:end], common) if len(common) else np.zeros(end - start, bool)
        return self._spread(start, hit)

    def _own(self, row: int, flags: Kinds) -> Ints:
        """Places of the tokens of a row in sequences flagged 2 but in none flagged 1."""
        start, end = int(self.start[row]), int(self.start[row + 1])
        flagged = flags[self.at[start:end]]  # a rare one is -1: the last flag, which is 0
        return np.setdiff1d(self._spread(start, flagged == 2), self._spread(start, flagged == 1), assume_unique=True)

    def _beyond(self, places: Ints, rows: Ints) -> Ints:
        """Of these places those whose token does not stand beside the same one in almost all of the rows, by a sample.

        What is fixed but shorter than `SPAN`, beside a name, is in no sequence that all have.
        """
        sample = rows[:: max(1, len(rows) // BESIDE)][:BESIDE]
        if not len(sample):
            return places
        after = self._beside(places)
        before = self._beside(places - 1)
        seen = np.zeros(len(places), np.int64)
        for row in sample.tolist():
            pairs = self._beside(np.arange(self.start[row], self.start[row + 1] - 1))
            seen += np.isin(after, pairs) | np.isin(before, pairs)
        return places[seen < SHARED * len(sample)]

    def _beside(self, places: Ints) -> Ints:
        """The token at each place and the next one, as one number; the last token of all has no next."""
        after = np.minimum(places + 1, len(self.tokens) - 1)
        return self.tokens[places].astype(np.int64) << 32 | self.tokens[after]

    @staticmethod
    def _spread(start: int, hit: npt.NDArray[np.bool_]) -> Ints:
        places = np.flatnonzero(hit)
        return np.unique(start + (places[:, None] + np.arange(SPAN)).reshape(-1)).astype(np.int64)

    def _same(self, rows: Ints) -> bool:
        """Whether these are one text but for numbers and dates: instructions that never vary, however short."""
        if self.written:
            return False
        first = self.tokens[self.start[rows[0]] : self.start[rows[0] + 1]]
        return all(
            self.start[r + 1] - self.start[r] == len(first)
            and bool((self.tokens[self.start[r] : self.start[r + 1]] == first).all())
            for r in rows
        )

    def _enough(self, places: Ints, whole: bool) -> bool:
        """Whether text at these places is a prompt by itself."""
        words = float(self.words[places].sum())
        if not self.written:
            return words >= GENERAL
        if not bool(self.edges[places].any()):
            return False
        if words >= ALONE or (words >= ASKS and bool(self.marks[places].any())) or self._line(places):
            return True
        return words >= SENTENCE and bool(self.stops[places].any()) and bool((self.tokens[places] == 0).any())

    def _line(self, places: Ints) -> bool:
        """Whether it is, at the text's edge, a line of its own that ends with a colon, a tag, or words and a colon."""
        inside = set(places.tolist())
        tags = 0
        for edge in places[self.edges[places]].tolist():
            step = 1 if self.tokens[edge] == 0 else -1
            run = []
            place = edge + step
            while place in inside and not self.edges[place]:
                run.append(place)
                place += step
            words = sum(self.kinds[place] != _MARK for place in run)
            marks = [self.written_as[int(self.tokens[place])] for place in run if self.kinds[place] == _MARK]
            broken = any(mark[0] == "\n" for mark in marks)
            tag = ("<" in marks[:1] and ">" in marks) or (step < 0 and ">" in marks[:1] and "<" in marks)
            tags += tag
            colon = marks[:1] == [":"] if step < 0 else ":" in marks
            # People do not end on a colon; many begin with a word or two and one.
            if words and ((tag and broken) or (colon and (broken or step < 0 or words > ASKS))):
                return True
        return tags > 1

    def _repeated(self, rows: Ints) -> list[list[int]]:
        """Of rows without a prompt to speak of, those that are the same text again and again, but for numbers."""
        if self.written:
            return []
        same: defaultdict[bytes, list[int]] = defaultdict(list)
        for row in rows.tolist():
            same[self.tokens[self.start[row] : self.start[row + 1]].tobytes()].append(row)
        return [group for group in same.values() if int(self.weights[group].sum()) >= self.least]

    def _asks(self, places: Ints, asks: int) -> bool:
        """Whether a part that has this beyond its group asks for something else: words, not names or numbers."""
        words = float(self.words[places].sum())
        return words >= (asks + 1 if self.written else asks)


# ------------------------------------------------------------------------------------------------ templates


def _fixed(texts: Sequence[str]) -> _Fixed:
    """What is common to the texts of one instructing position: dates are slots even if they were never seen to vary."""
    first = without_dates(texts[0])
    if all(text == texts[0] or without_dates(text) == first for text in texts):
        return _Fixed(Template(tuple(split_at_dates(texts[0]))), True)
    found = template(texts)
    parts: list[str] = []
    for literal in found.literals:
        parts += split_at_dates(literal)
    inner = [part for part in parts[1:-1] if part.strip()]
    return _Fixed(Template((parts[0], *inner, parts[-1])) if len(parts) > 1 else Template((parts[0],)), False)


def template(texts: Sequence[str]) -> Template:
    """What is common to texts of one prompt, with slots between; it may miss a few of them (`FITS`).

    Linear in the texts' length: the tokens of the shortest one that stand, in sequences of three, in the others too.
    """
    distinct = list(dict.fromkeys(texts))
    if len(distinct) == 1:
        return Template((distinct[0],))
    longest = max(len(_cut(text, REACH)) for text in distinct[:3])
    sample = distinct[:: max(1, len(distinct) // max(FEWEST, min(SAMPLE, SAMPLED // max(1, longest))))]
    counted: Counter[tuple[str, str, str]] = Counter()
    for text in sample:
        tokens = [_START, *_cut(text, REACH), _END]
        counted.update(set(zip(tokens, tokens[1:], tokens[2:], strict=False)))
    enough = SHARED * len(sample)
    shortest = min(sample, key=lambda text: (len(text), text))
    spans = [(_START, 0, 0), *_spans(shortest), (_END, len(shortest), len(shortest))]
    kept = [False] * len(spans)
    for i in range(len(spans) - 2):
        if counted[spans[i][0], spans[i + 1][0], spans[i + 2][0]] >= enough:
            kept[i : i + 3] = [True] * 3
    first, last, runs = "", "", []
    for keep, run in groupby(range(len(spans)), key=kept.__getitem__):
        places = list(run)
        if not keep:
            continue
        if places[0] == 0 and places[-1] == len(spans) - 1:  # they differ in white space, or in nothing seen
            places = places[: len(places) // 2]
        literal = shortest[spans[places[0]][1] : spans[places[-1]][2]]
        if places[0] == 0:
            first = literal
        elif places[-1] == len(spans) - 1:
            last = literal
        else:
            runs.append(literal)
    # What repeats is of a block that does, such as an example: there may be fewer.
    often = Counter(runs)
    return _fitting([first, *(run for run in runs if often[run] == 1), last], sample, distinct)


_START, _END, _GAP = "\0start", "\0end", "\0gap"


def _spans(text: str) -> list[tuple[str, int, int]]:
    """The tokens of a text with their places; of a long one those of its head and of its tail, a gap between."""
    reach = 6 * REACH
    if len(text) <= 2 * reach:
        return [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text)]
    head = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text, 0, reach)]
    tail = [(match[0], match.start(), match.end()) for match in _TOKEN.finditer(text, len(text) - reach)]
    return [*head[:-1], (_GAP, reach, reach), *tail[1:]]


def _fitting(literals: list[str], sample: Sequence[str], texts: Sequence[str]) -> Template:
    """The template of these literals, without those that keep it from fitting."""
    for few in (sample, texts):
        while len(literals) > 2 or literals[0] or literals[-1]:
            found = Template(tuple(literals))
            missed = [text for text in few if found.match(text) is None]
            if not missed:
                break
            worst = Counter(_fails(literals, text) for text in missed)
            place = max(worst, key=lambda at: (worst[at], at))
            inner = 0 < place < len(literals) - 1
            if len(missed) <= (1 - FITS) * len(few) and not (inner and worst[place] > (1 - FITS_INNER) * len(few)):
                break
            shorter = _shorter(literals[place], few, place == 0, place == len(literals) - 1)
            literals = [*literals[:place], *shorter, *literals[place + 1 :]]
    return Template(tuple(literals))


def _shorter(literal: str, texts: Sequence[str], first: bool, last: bool) -> list[str]:
    """What is kept of a literal that does not fit: of an edge what is at the edge of all texts, of others halves."""
    if not (first or last):
        tokens = list(_TOKEN.finditer(literal))
        middle = len(tokens) // 2
        if not middle:
            return []
        halves = literal[: tokens[middle].start()].rstrip(" "), literal[tokens[middle].start() :]
        return [half for half in halves if _words(half) >= 2]
    low, high = 0, len(literal) - 1
    while low < high:
        middle = (low + high + 1) // 2
        fit = sum(text.startswith(literal[:middle]) if first else text.endswith(literal[-middle:]) for text in texts)
        low, high = (middle, high) if fit >= FITS * len(texts) else (low, middle - 1)
    at = low if first else len(literal) - low
    while 0 < at < len(literal) and literal[at - 1].isalnum() and literal[at].isalnum():
        at += -1 if first else 1
    return [literal[:at] if first else literal[at:]]


def _fails(literals: Sequence[str], text: str) -> int:
    """Which literal keeps a text from matching: the first that is not where it should be."""
    if not text.startswith(literals[0]):
        return 0
    if not text.endswith(literals[-1]) or len(text) < len(literals[0]) + len(literals[-1]):
        return len(literals) - 1
    place, end = len(literals[0]), len(text) - len(literals[-1])
    for i, literal in enumerate(literals[1:-1], 1):
        at = text.find(literal, place, end)
        if at < 0:
            return i
        place = at + len(literal)
    return len(literals) - 1


def _tells(found: Template) -> bool:
    """Whether a template of a user turn has kept enough to go by."""
    words = sum(len(_TOKEN.findall(literal)) for literal in found.literals)
    return words >= RICH or (words >= 2 and bool(found.literals[0].strip() or found.literals[-1].strip()))
