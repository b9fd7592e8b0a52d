"""From a piece of a text to the value that stands for it: how this task's frontier writes what it copies.

A number is read whatever its separators ("1,200.50", "1.200,50", "1 200"), scales ("2 million", "3k") and English words
("twenty-five"); what "1,200" alone means is learned. What this does not know: dates, units, currencies, number words of
other languages, and any rewriting that changes more than case, spaces and marks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

Scalar = str | int | float | bool | None
Form = Literal["as", "lower", "upper", "title", "capital", "compact", "digits"]

FORMS: tuple[Form, ...] = ("as", "lower", "upper", "title", "capital", "compact", "digits")
"""Ways of writing a piece, the plainest first: as it stands; in small letters; in capitals; Each Word So; First letter
so; without spaces and marks; as a bare number."""
SCALES = (1.0, 0.01, 100.0, 1000.0, 0.001)
"""What a number may be multiplied by: percent as a share, an amount in cents, and so on."""
_BEYOND = 2**63
"""Longer rows of digits are identifiers: as numbers they would not be the same to every reader of JSON."""
_FEWEST_EXCEPTIONS = 2
_MOST_EXCEPTIONS = 1_000

# fmt: off
ONES = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]
TENS = [
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
]
# fmt: on
WORDS: Mapping[str, int] = {word: value for value, word in enumerate(ONES)} | {
    word: 10 * value for value, word in enumerate(TENS, start=2)
}
LARGE: Mapping[str, int] = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}
_SUFFIXES: Mapping[str, int] = {**LARGE, "k": 1000, "m": 10**6, "bn": 10**9}
_GROUPS = re.compile(r"([-+−]?)\s*(\d+(?:[.,'’\u00a0\u202f ]\d+)*)\s*([^\W\d_]*)")
_SEPARATORS = re.compile(r"[.,'’\u00a0\u202f ]")


def read_number(piece: str, decimal: str = ".") -> int | float | None:
    """The number that a piece of text says, None if it says none, or one of more than 64 bits.

    `decimal` settles the one doubtful case: a single point or comma before exactly three digits is a decimal mark if it
    is this one, else it separates thousands.
    """
    piece = piece.strip().lower()
    match = _GROUPS.fullmatch(piece)
    number = _in_words(piece) if match is None else _in_digits(match, decimal)
    return number if number is not None and abs(number) < _BEYOND else None


def _in_digits(match: re.Match[str], decimal: str) -> int | float | None:
    sign, digits, suffix = match.groups()
    if suffix and suffix not in _SUFFIXES:
        return None
    try:
        number = _of_digits(digits, decimal) * _SUFFIXES.get(suffix, 1)
    except (ValueError, OverflowError):
        return None
    return -number if sign in ("-", "−") else number


def _of_digits(digits: str, decimal: str) -> int | float:
    marks = _SEPARATORS.findall(digits)
    if not marks:
        return int(digits)
    last = marks[-1]
    behind = len(digits) - digits.rindex(last) - 1
    if last not in ".," or marks.count(last) > 1:
        whole = True
    elif len(marks) > 1:
        whole = len(set(marks)) == 1
    else:
        whole = behind == 3 and last != decimal and not digits.startswith("0")
    if whole:
        groups = _SEPARATORS.split(digits)
        if len(groups[-1]) != 3 or not all(len(group) in (2, 3) for group in groups[1:]) or len(groups[0]) > 3:
            raise ValueError(digits)  # a date, a version, an address
        return int("".join(groups))
    head = _SEPARATORS.sub("", digits[: digits.rindex(last)])
    return float(f"{head}.{digits[digits.rindex(last) + 1 :]}")


def _in_words(piece: str) -> int | None:
    total, group, said = 0, 0, False
    for word in re.split(r"[\s-]+", piece):
        if word in WORDS:
            group += WORDS[word]
        elif word in LARGE:
            group = (group or 1) * LARGE[word]
            if word != "hundred":
                total, group = total + group, 0
        elif word != "and" or not said:
            return None
        said = True
    return total + group if said else None


def folded(text: str) -> str:
    """What is left of a text without case, spaces and marks."""
    return "".join(char for char in text.casefold() if char.isalnum())


def formed(form: Form, piece: str) -> str | None:
    """A piece in one of the forms; None where it cannot be written so."""
    said = " ".join(piece.split())
    match form:
        case "lower":
            return said.lower()
        case "upper":
            return said.upper()
        case "title":
            return " ".join(word[:1].upper() + word[1:].lower() for word in said.split(" "))
        case "capital":
            return said[:1].upper() + said[1:]
        case "compact":
            return "".join(char for char in said if char.isalnum())
        case "digits":
            number = read_number(piece)
            return None if number is None else str(number)
        case _:
            return said


class Writing(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one slot's values are written.

    Texts: in a `form`, but for the `exceptions` (by the piece without case and marks). Numbers: read with `decimal`,
    times `scale`, as a whole number where it is one unless `floating`. `absent` is said where no piece is found.
    """

    number: bool = False
    form: Form = "as"
    exceptions: dict[str, str] = {}
    decimal: str = "."
    scale: float = 1.0
    floating: bool = False
    absent: Scalar = None

    def write(self, piece: str) -> str | int | float | None:
        """The value for a piece of the input; None where the piece says no such value."""
        if not self.number:
            if self.exceptions:
                known = self.exceptions.get(folded(piece))
                if known is not None:
                    return known
            return formed(self.form, piece) or None
        found = read_number(piece, self.decimal)
        if found is None:
            return None
        found = round(found * self.scale, 10) if self.scale != 1 else found
        if self.floating:
            return float(found)
        return int(found) if isinstance(found, float) and found.is_integer() and abs(found) < 2**53 else found

    def says(self, piece: str, value: Scalar) -> bool:
        """Whether a piece of text says this number."""
        found = read_number(piece, self.decimal)
        if found is None or isinstance(value, bool | str) or value is None:
            return False
        return abs(found * self.scale - value) <= 1e-9 * abs(value)


def learned_form(pairs: Sequence[tuple[str, str]]) -> tuple[Form, dict[str, str]]:
    """The form that writes most different (piece, value) pairs right, the plainest of equals, and what to remember.

    Remembered are pieces that the form gets wrong and that were written in one same other way each time.
    """
    distinct = set(pairs)
    hits = {form: sum(formed(form, piece) == value for piece, value in distinct) for form in FORMS}
    best = max(FORMS, key=lambda form: hits[form])
    if hits[best] == len(distinct):
        return best, {}
    ways: dict[str, Counter[str]] = {}
    for piece, value in pairs:
        ways.setdefault(folded(piece), Counter())[value] += 1
    wrong = {folded(piece) for piece, value in pairs if formed(best, piece) != value}
    kept = [
        (key, seen.most_common(1)[0][0])
        for key, seen in ways.items()
        if key in wrong and len(seen) == 1 and seen.total() >= _FEWEST_EXCEPTIONS
    ]
    return best, dict(sorted(kept)[:_MOST_EXCEPTIONS])
