"""Keys, tokens and private keys in texts: by the vendors' forms, or by name and randomness.

One home for what they look like: rows that hold one never train, and redaction lets none leave. Every expression takes
time in proportion to its text, whatever that is.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

_KEYS = re.compile(
    r"-----BEGIN (?:[A-Z0-9]++ )*PRIVATE KEY(?: BLOCK)?-----"
    r"|(?<![A-Za-z0-9_-])(?:"
    r"sk-(?:proj-|ant-|or-v1-|svcacct-)?[A-Za-z0-9_-]{20,}"  # OpenAI, Anthropic, OpenRouter
    r"|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{16,}|whsec_[A-Za-z0-9+/=]{20,}"  # Stripe
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Za-z0-9])"  # AWS
    r"|gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{40,}"
    r"|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{40,}"
    r"|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{20,}"  # Slack
    r"|AIza[A-Za-z0-9_-]{35}|ya29\.[A-Za-z0-9_-]{20,}"  # Google
    r"|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}"  # SendGrid
    r"|eyJ[A-Za-z0-9_-]{10,}\.eyJ[A-Za-z0-9_-]{10,}\.[A-Za-z0-9_-]{10,}"  # a JSON web token
    r")"
)
_NAMED = re.compile(
    r"(?i)(?:api[_ -]?key|secret(?:[_ -]?key)?|access[_ -]?(?:key|token)|auth[_ -]?token|bearer|password|passwd|pwd)"
    r"""["']?\s{0,20}+(?:[:=]|\bis\b)?\s{0,20}+["']?([A-Za-z0-9+/_.~-]{20,}={0,2})"""
)
_NAMED_HERE = re.compile(
    r"(?i)(?:key|secret|token|bearer|password|passwd|pwd)"
    r"""["']?\s{0,20}+(?:[:=]|\bis\b)?\s{0,20}+["']?([A-Za-z0-9+/_.~-]{20,}={0,2})"""
)
_KEY_OF = re.compile(r"(?:api|secret|access)[_ -]?$")
_BLOCK_END = re.compile(r"-----END [A-Z0-9 ]{0,80}PRIVATE KEY(?: BLOCK)?-----")
_NAMES = ("key", "secret", "token", "bearer", "passw", "pwd")
_BACK = {
    **dict.fromkeys(("-----begin", "sk-", "whsec_", "akia", "asia", "ghp_", "gho_", "ghu_", "ghs_", "ghr_"), 0),
    **dict.fromkeys(("github_pat", "glpat", "hf_", "npm_", "pypi-", "xox", "xapp-", "aiza", "ya29", "sg.", "eyj"), 0),
    **dict.fromkeys(("_live_", "_test_"), 2),
}
"""What every key begins with, or has so many characters after its beginning; in small letters."""
_HINTS = (*_BACK, *_NAMES)
"""Without one of these there is nothing to look for: a look for each is thirty times faster than the expressions."""
_ESCAPE = re.compile(r"""\\+(["'/]|[bfnrt]|u[0-9a-fA-F]{4})?""")
"""Of JSON, or of JSON as text in JSON: a line break before a key is written with a letter there."""
_BITS = 3.0  # an English word of 20 letters has less a character; random letters and digits have more


def leaked(text: str) -> bool:
    """Whether a key, a token or a private key stands in a text: by the vendors' forms, or by name and randomness.

    A form is not enough: `sk-xxxxxxxxxxxxxxxxxxxx` or a number in words is a placeholder.
    """
    if not _hinted(text):
        return False
    return any(_stands(text)) or ("\\" in text and any(_stands(_ESCAPE.sub(_unescaped, text))))


def spans(text: str) -> list[tuple[int, int]]:
    """Where keys, tokens and private keys stand in a text, from and to; of a private key the whole block.

    Looser than `leaked`: here a placeholder that is taken for a key does no harm. Spans may overlap.
    """
    found = list(_all(text))
    if "\\" in text:  # with every escape as long as it was, so that what is found stands where it stood
        found += _all(_ESCAPE.sub(lambda escape: " " * len(escape[0]), text))
    return found


def _all(text: str) -> Iterator[tuple[int, int]]:
    """By the places of the hints: most texts have none, and looking for them costs the least."""
    lower = text.lower()
    if len(lower) != len(text):
        lower = "".join(c.lower() if c.isascii() else c for c in text)
    here = [hint for hint in _HINTS if hint in lower]
    if not here:
        return
    end = 0
    for at in sorted(at - _BACK[hint] for hint in here if hint in _BACK for at in _places(lower, hint)):
        if at >= end and (key := _KEYS.match(text, max(at, 0))) is not None:
            start, end = _whole(text, key)
            yield start, end
    end = 0
    for at in sorted(at for hint in here if hint in _NAMES for at in _places(lower, hint)):
        if at >= end and (named := _NAMED_HERE.match(text, at)) is not None:
            end = named.end()
            if _random(named[1]) and (lower[at] != "k" or _KEY_OF.search(lower, max(0, at - 8), at)):
                yield named.span(1)


def _places(text: str, hint: str) -> Iterator[int]:
    at = text.find(hint)
    while at >= 0:
        yield at
        at = text.find(hint, at + len(hint))


def _hinted(text: str) -> bool:
    lower = text.lower()
    return any(hint in lower for hint in _HINTS)


def _whole(text: str, found: re.Match[str]) -> tuple[int, int]:
    """A private key's block to its end, or to the text's where it has none."""
    if not found[0].startswith("-----"):
        return found.span()
    end = _BLOCK_END.search(text, found.end())
    return found.start(), end.end() if end is not None else len(text)


def _random(text: str) -> bool:
    return _bits(text) >= _BITS and _mixed(text, 1)


def _unescaped(found: re.Match[str]) -> str:
    return found[1] if found[1] and not found[1][0].isalpha() else " "


def _stands(text: str) -> Iterator[bool]:
    for found in _KEYS.finditer(text):
        if found[0].startswith("-----") or _random(found[0]):
            yield True
    for found in _NAMED.finditer(text):
        if _bits(found[1]) >= _BITS + 0.5 and _mixed(found[1], 2):
            yield True


def _bits(text: str) -> float:
    """Entropy of its characters, in bits a character."""
    n = len(text)
    return -sum(count / n * math.log2(count / n) for count in Counter(text).values())


def _mixed(text: str, digits: int) -> bool:
    """Digits among the letters, as in no word."""
    return sum(c.isdigit() for c in text) >= digits and sum(c.isalpha() for c in text) >= 2
