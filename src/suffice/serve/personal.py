"""What identifies people and opens doors, by its form: e-mail, cards, IBAN, phones, addresses of machines, keys.

Forms that carry a check digit are checked. Every expression takes time in proportion to its text: each starts only
where a run of its characters starts, and either takes the run whole or no more than so many characters.
Sources: ISO/IEC 7812-1 (cards), ISO 13616 (IBAN), ITU-T E.164 (phones), the Social Security Administration's rules for
what is never a number of theirs.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator
from ipaddress import IPv6Address
from typing import NamedTuple

from suffice.core import secrets


class Found(NamedTuple):
    """Something to hold back: from, to (characters), and its kind, which names its placeholder."""

    start: int
    end: int
    kind: str


KINDS = ("KEY", "EMAIL", "IBAN", "CARD", "SSN", "IP", "PHONE")
"""Where spans overlap, the first of these names the whole."""

_AT = re.compile(r"(?:@|\uff20|%40|\\{1,8}u0040)[\w-]++(?:\.[\w-]++)++")
"""As it is, in full width, in an address of the web, in text that quotes JSON."""
_SIGNS = ("@", "\uff20", "%40", "u0040")
_BEFORE_AT = frozenset("._+%-")
_NUMBERS = re.compile(r"[+(]?\d[\d .()/\-\u00a0\u2009\u2011\u202f]*+")
"""Cards, phones and the like all stand in a run of digits and what parts them; few texts have a long one."""
_CARD = re.compile(
    r"(?<!\d)(?<!\d[.,])(?=(\d{13,19}|\d{4}(?:[ .\-\u00a0\u2011\u202f]\d{4}){3}(?:[ .-]\d{1,3})?"
    r"|\d{4}[ .-]\d{6}[ .-]\d{4,5})(?!\d))"
)
_SSN = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}([- ])(?!00)\d{2}\1(?!0000)\d{4}(?![\d-])")
_IPV4 = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\d|\.\d)")
_COLONS = re.compile(r":[0-9A-Fa-f]{0,4}:[0-9A-Fa-f:]*+")
_HEX = frozenset("0123456789abcdefABCDEF:")
_IPV6_MOST = 39
_PART = r"[ .()/\-\u00a0\u2009\u2011\u202f]"
_PHONES = tuple(
    re.compile(form)
    for form in (
        rf"(?<!\d)\+{_PART}?\d(?:{_PART}{{0,3}}\d){{7,14}}(?!\d)",
        rf"(?<![\d.,/-])00(?:1|[2-9]\d{{1,2}})(?:{_PART}{{1,3}}\d{{1,8}}){{2,6}}(?!\d)",
        r"(?<![\d.,/-])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])\d{3}[ .-]\d{4}(?![\d-])",
        rf"(?<![\d.,/-])(?:\(0[1-9]\d{{0,4}}\)|0[1-9]\d{{0,4}})(?:{_PART}{{1,2}}\d{{2,8}}){{1,5}}(?!\d)",
    )
)
"""With a plus; with 00; North America's; with a trunk 0. A bare run of digits is one only after a word that says so."""
_DATE = re.compile(r"\d{1,2}[ ./-]\d{1,2}[ ./-](?:19|20)\d{2}|\d{1,2}[./-]\d{1,2}[./-]\d{2}(?!\d)")
_BARE = re.compile(rf"\(?\d(?:{_PART}{{0,2}}\d){{6,14}}(?!\d)")
_CALL = re.compile(
    r"(?i)\b(?:tel|telephone|phone|call|mobile|mob|cell|fax|whatsapp|sms|telefon|handy|tél|téléphone|teléfono|móvil)\b"
    r"[^\w\n]{0,4}(?:(?:me|us|number|no|nr|is|at|on|it|to)\b[^\w\n]{0,3}){0,3}$"
)
_CALL_BEFORE = 40
_TRUNK_DIGITS = range(9, 13)

_LENGTHS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 EG29 "
    "ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 KW30 KZ20 LB28 "
    "LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 PK24 PL28 PS29 PT25 "
    "QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 UA29 VA22 VG24 XK20 YE30"
)
_IBANS = {
    told[:2]: re.compile(rf"[A-Za-z]{{2}}\d{{2}}(?:[ -]?[A-Za-z0-9]){{{int(told[2:]) - 4}}}(?![A-Za-z0-9])")
    for told in _LENGTHS.split()
}

_SHORT = 13
"""No form has fewer characters that could all stand in a name: a card's digits."""


def find(text: str) -> list[Found]:
    """Everything in a text that has one of the forms, in its order; what overlaps is one."""
    if len(text) < _SHORT and text.isidentifier():  # most of a request's keys and many of its texts
        return []
    found = [Found(start, end, "KEY") for start, end in secrets.spans(text)]
    if any(sign in text for sign in _SIGNS):
        found += (one for match in _AT.finditer(text) if (one := _email(text, match)) is not None)
    for run in _NUMBERS.finditer(text):
        start, end = run.span()
        if end - start >= 7:
            found += _of_run(text, start, end)
        if start > 1 and text[start - 1].isalpha() and text[start - 2].isalpha():
            found += _iban(text, start - 2)
    found += (one for match in _COLONS.finditer(text) if (one := _ipv6(text, match)) is not None)
    return merged(found, KINDS) if found else found


def merged(found: list[Found], kinds: tuple[str, ...]) -> list[Found]:
    """In the order of the text, those that overlap made one, of the kind that comes first in `kinds`."""
    out: list[Found] = []
    for one in sorted(found):
        if out and one.start < out[-1].end:
            last = out.pop()
            one = Found(last.start, max(last.end, one.end), min(last.kind, one.kind, key=kinds.index))
        out.append(one)
    return out


def _of_run(text: str, start: int, end: int) -> Iterator[Found]:
    """Numbers in a run of digits and what parts them; one that goes on in letters is none."""
    run, before = text[start:end], text[start - 1 : start]
    glued = before.isalnum() or before == "_"
    parts, at = [], 0
    for match in _CARD.finditer(run):
        if (length := _card(match[1])) is not None:
            end = match.start() + length
            yield Found(start + match.start(), start + end, "CARD")
            parts += [run[at : match.start()], "|" * (end - max(at, match.start()))]
            at = max(at, end)
    if parts:  # what stands before a card is not of one number with what comes after
        run = "".join([*parts, run[at:]])
    for form, kind in ((_SSN, "SSN"), (_IPV4, "IP")):
        for match in form.finditer(run):
            if not (glued and match.start() == 0):
                yield Found(start + match.start(), start + match.end(), kind)
    for form in _PHONES:
        for match in form.finditer(run):
            if not (glued and match.start() == 0 and (match[0][0] not in "+(" or before.isdigit())) and _is_phone(
                match[0]
            ):
                yield Found(start + match.start(), start + match.end(), "PHONE")
    bare = _BARE.match(run)
    if bare is not None and not glued and _CALL.search(text[max(0, start - _CALL_BEFORE) : start]):
        yield Found(start, start + bare.end(), "PHONE")


def _email(text: str, match: re.Match[str]) -> Found | None:
    """What stands around an @, without the letter of an escape before it (in text that quotes JSON)."""
    start, end = match.span()
    while start > 0 and ((before := text[start - 1]) in _BEFORE_AT or before.isalnum()):
        start -= 1
    if text[start - 1 : start] == "\\" and text[start] in "bfnrt":
        start += 1
    return Found(start, end, "EMAIL") if start < match.start() and _domain(match[0]) else None


def _domain(address: str) -> bool:
    last = address.rpartition(".")[2]
    return len(last) > 1 and (last.isalpha() or last.lower().startswith("xn--"))


def _card(text: str) -> int | None:
    """How much of this is a card's number, in characters; None where nothing is. The last group may not be part."""
    for told in (text, text[:19]):
        digits = [int(c) for c in told if c.isdigit()]
        if len(digits) in _issued(digits[0], digits[1]) and told[-1].isdigit() and _luhn(digits):
            return len(told)
    return None


def _issued(first: int, second: int) -> Container[int]:
    """How many digits a card has that begins so."""
    if first == 4:
        return (13, 16, 19)
    if first == 3:
        return (15,) if second in (4, 7) else (14, 16, 19) if second in (0, 5, 6, 8, 9) else ()
    if first == 5 and 1 <= second <= 5:
        return (16,)
    return (16, 18, 19) if first in (5, 6) else (16,) if first == 2 and 2 <= second <= 7 else ()


def _luhn(digits: list[int]) -> bool:
    doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


def _is_phone(text: str) -> bool:
    digits = sum(c.isdigit() for c in text)
    if text.lstrip("(")[0] == "0" and not text.startswith("00"):
        return digits in _TRUNK_DIGITS and not _DATE.match(text.lstrip("("))
    return digits <= 15


def _ipv6(text: str, match: re.Match[str]) -> Found | None:
    """An address around two colons; times of day and names of modules are none."""
    start, end = match.span()
    while start > max(0, end - _IPV6_MOST) and text[start - 1] in _HEX:
        start -= 1
    told = text[start:end]
    glued = (text[start - 1 : start] + text[end : end + 1]).isalnum()
    if glued or not any(c.isdigit() for c in told) or sum(map(bool, told.split(":"))) < 2:
        return None
    try:
        IPv6Address(told)
    except ValueError:
        return None
    return Found(start, end, "IP")


def _iban(text: str, start: int) -> Iterator[Found]:
    form = _IBANS.get(text[start : start + 2].upper())
    match = form.match(text, start) if form is not None and not text[start - 1 : start].isalnum() else None
    if match is not None:
        compact = "".join(c for c in match[0].upper() if c.isalnum())
        if int("".join(str(int(c, 36)) for c in compact[4:] + compact[:4])) % 97 == 1:
            yield Found(*match.span(), "IBAN")
