"""What a request mentions that an argument could be: numbers, dates, quoted pieces, names, addresses, runs of words.

Everything is found by its form, in any language that writes numbers with these digits; words for numbers and months
are English.
"""

from __future__ import annotations

import re
from datetime import date
from typing import NamedTuple

from suffice.specialists.embedding import cut
from suffice.specialists.pieces import tokens
from suffice.specialists.writings import LARGE, WORDS

Place = tuple[int, int]

MOST_TOKENS = 240
"""Tokens in which mentions are looked for: of longer texts the first three quarters of this and the last quarter."""
LONGEST_SPAN = 6
_LONGEST_QUOTE = 400
_WIDEST_GAP = 3
_LARGEST = 2.0**53
"""Numbers beyond are not exact as they are read here, and are left alone."""

_WORDS = {**WORDS, "single": 1, "a couple of": 2, "dozen": 12, "once": 1, "twice": 2}
_SCALES = {**LARGE, "k": 1_000}
_WRITTEN = "|".join(sorted(_WORDS, key=len, reverse=True))
_NUMBER = re.compile(
    rf"(?<![\w.])(?P<sign>[-−](?=\d))?(?P<digits>\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?)"
    rf"(?:\s?(?P<scale>(?a:hundred|thousand|million|billion)|(?<=\d)(?a:k))\b)?(?P<percent>\s?%|\s?percent\b)?"
    rf"|\b(?P<word>(?a:{_WRITTEN})(?:[-\s](?a:{_WRITTEN}))?)(?:\s(?P<wscale>(?a:hundred|thousand|million|billion)))?\b",
    re.IGNORECASE,
)
_MONTH_NAMES = "january february march april may june july august september october november december"
_MONTHS = _MONTH_NAMES.split()
_MONTH = "|".join(f"{month[:3]}(?:{month[3:]})?" if len(month) > 3 else month for month in _MONTHS)
_MONTH = f"(?a:{_MONTH})"  # in any case, but no letters that only look like these to the case rules of Unicode
_DATE = re.compile(
    rf"(?P<y1>\d{{4}})[-/.](?P<m1>\d{{1,2}})[-/.](?P<d1>\d{{1,2}})"
    rf"|(?P<a2>\d{{1,2}})[-/.](?P<b2>\d{{1,2}})[-/.](?P<y2>\d{{4}})"
    rf"|\b(?P<n3>{_MONTH})\.?\s+(?:the\s+)?(?P<d3>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+(?:of\s+)?(?P<y3>\d{{4}}))?\b"
    rf"|\b(?P<d4>\d{{1,2}})(?:st|nd|rd|th)?\s+(?:of\s+)?(?P<n4>{_MONTH})\.?(?:,?\s+(?P<y4>\d{{4}}))?\b",
    re.IGNORECASE,
)
_TIME = re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?(?:\s?[ap]\.?m\b\.?)?|\b\d{1,2}\s?[ap]\.?m\b\.?", re.IGNORECASE)
_ADDRESS = re.compile(r"https?://[^\s'\"<>]+[^\s'\"<>.,;:!?)]|\b[\w.+-]{1,64}@[\w-]{1,64}(?:\.[\w-]{1,64}){1,4}")
_CODE = re.compile(
    r"(?<!\w)(?=[\w./#-]{0,60}\d)(?=[\w./#-]{0,60}[A-Za-z_/#-])[\w/#][\w./#-]{0,60}\w|(?<!\w)\w+(?:[_/.-]\w+)+"
)
_QUOTED = re.compile(
    r"\"([^\"\n]+)\"|(?<!\w)'([^'\n]+)'(?!\w)|“([^”\n]+)”|‘([^’\n]+)’|`([^`\n]+)`|「([^」\n]+)」|«([^»\n]+)»"
)
_BRACKETS = re.compile(r"[\[(]([^\[\]()]*)[\])]")
_END = re.compile(r"[.!?;\n\r]")

_SMALL_WORDS = (
    "a an the of in on at to for from by with and or is are was were be been it its this that these those i me my you "
    "your we our us he she they them his her their what which who when where how can could would will should do does "
    "did please want need like get find show give tell have has had not no so if as about into than then there some "
    "any all just also know let make see using use whose up out"
)
SMALL_WORDS = frozenset(_SMALL_WORDS.split())
"""English words that say little by themselves."""


class NumberMention(NamedTuple):
    """A number, where it stands, and how it is written."""

    place: Place
    value: float
    percent: bool
    word: bool
    glued: bool


class SpanMention(NamedTuple):
    """A piece of the text: its first token and the one behind its last (-1, -1 where it is found by form alone)."""

    place: Place
    first: int
    last: int


class Mentions(NamedTuple):
    """All that a text mentions. Places are in characters; `dates` with the ISO form where the year is given."""

    text: str
    tokens: list[Place]
    words: list[str]
    numbers: list[NumberMention]
    spans: list[SpanMention]
    quoted: frozenset[Place]
    dates: dict[Place, str]
    times: frozenset[Place]
    addresses: frozenset[Place]
    codes: frozenset[Place]
    capitals: frozenset[Place]
    brackets: list[Place]


def mentions_of(text: str) -> Mentions:
    """Everything that `text` mentions. Never raises."""
    text = cut(text)
    places = tokens(text)
    if len(places) > MOST_TOKENS:
        places = places[: 3 * MOST_TOKENS // 4] + places[-(MOST_TOKENS // 4) :]
    words = [text[start:stop] for start, stop in places]
    quoted = [
        match.span(match.lastindex)
        for match in _QUOTED.finditer(text)
        if match.lastindex and match.end() - match.start() < _LONGEST_QUOTE
    ]
    dates = {match.span(): iso(match) for match in _DATE.finditer(text)}
    times = [match.span() for match in _TIME.finditer(text)]
    addresses = [match.span() for match in _ADDRESS.finditer(text)]
    codes = [match.span() for match in _CODE.finditer(text)]
    brackets = [match.span(1) for match in _BRACKETS.finditer(text)]
    spans = _spans(text, places, words)
    at = {span.place for span in spans}
    by_form = dict.fromkeys([*quoted, *dates, *times, *addresses, *codes])
    spans += [SpanMention(place, *_covered(places, place)) for place in by_form if place not in at]
    return Mentions(
        text,
        places,
        words,
        _numbers(text),
        spans,
        frozenset(quoted),
        dates,
        frozenset(times),
        frozenset(addresses),
        frozenset(codes),
        frozenset(_capitals(text, places, words)),
        brackets,
    )


def _covered(places: list[Place], place: Place) -> tuple[int, int]:
    """The first token that overlaps a place, and the one behind the last that does."""
    inside = [index for index, (start, stop) in enumerate(places) if start < place[1] and stop > place[0]]
    return (inside[0], inside[-1] + 1) if inside else (0, 0)


def _numbers(text: str) -> list[NumberMention]:
    found = []
    for match in _NUMBER.finditer(text):
        if match["digits"]:
            value = float(match["digits"].replace(",", ""))
            scale = match["scale"]
            if match["sign"] and (match.start() == 0 or not text[match.start() - 1].isalnum()):
                value = -value
        else:
            value, scale = float(_said(match["word"].lower())), match["wscale"]
        value *= _SCALES[scale.lower()] if scale else 1
        if abs(value) > _LARGEST:
            continue
        glued = match.end() < len(text) and (text[match.end()].isalpha() or text[match.end()] in "_-/:")
        found.append(NumberMention(match.span(), value, match["percent"] is not None, match["digits"] is None, glued))
    return found[:100]


def _said(words: str) -> int:
    if words in _WORDS:
        return _WORDS[words]
    parts = [_WORDS[part] for part in re.split(r"[-\s]", words) if part in _WORDS]
    return sum(parts) if len(parts) == 2 and parts[0] >= 20 and parts[1] < 10 else (parts or [0])[0]


def iso(match: re.Match[str]) -> str:
    """A date as 2024-03-19; "" where its year is not written, or which is the month cannot be told."""
    if match["y1"]:
        year, month, day = int(match["y1"]), int(match["m1"]), int(match["d1"])
    elif match["y2"]:
        year, month, day = int(match["y2"]), int(match["a2"]), int(match["b2"])
        if month > 12:
            month, day = day, month
        elif day <= 12 and day != month:
            return ""
    else:
        name, year_text = match["n3"] or match["n4"], match["y3"] or match["y4"]
        if not year_text:
            return ""
        starts = [name.lower()[:3] == known[:3] for known in _MONTHS]
        year, month, day = int(year_text), starts.index(True) + 1, int(match["d3"] or match["d4"])
    try:
        return date(year, month, day).isoformat()
    except ValueError:
        return ""


def _spans(text: str, places: list[Place], words: list[str]) -> list[SpanMention]:
    """Runs of up to LONGEST_SPAN words that begin and end with a word and stay within a sentence."""
    solid = [word[0].isalnum() for word in words]
    found = []
    for first, (start, stop) in enumerate(places):
        if not solid[first]:
            continue
        count, before = 0, stop
        for last in range(first, min(len(places), first + 2 * LONGEST_SPAN)):
            gap = text[before : places[last][0]]
            if (
                "\n" in gap
                or len(gap) > _WIDEST_GAP
                or (last > first and _END.match(words[last]) and gap_after(text, places[last][1]))
            ):
                break
            before = places[last][1]
            if not solid[last]:
                continue
            count += 1
            if count > LONGEST_SPAN:
                break
            found.append(SpanMention((start, places[last][1]), first, last + 1))
    return found


def gap_after(text: str, at: int) -> bool:
    """Whether white space, or nothing, follows."""
    return at >= len(text) or text[at].isspace()


def _capitals(text: str, places: list[Place], words: list[str]) -> list[Place]:
    """The longest runs of capitalised words; what begins a text or a sentence only where more follows."""
    found, first = [], -1
    for index in range(len(words) + 1):
        big = index < len(words) and words[index][0].isupper()
        near = index < len(words) and (index == 0 or not text[places[index - 1][1] : places[index][0]].strip(" -'&"))
        if first >= 0 and (not big or not near):
            found.append((places[first][0], places[index - 1][1]))
            first = -1
        if big and first < 0 and words[index].lower() not in SMALL_WORDS:
            first = index
    return found
