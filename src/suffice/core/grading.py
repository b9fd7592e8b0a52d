"""How a task's verifiers are declared: one text, as it stands in `suffice.toml` and in the certificate.

    loss = "rouge"                      graded: one less the ROUGE-L F1
    loss = "rouge >= 0.6"               right or wrong: right from 0.6 on
    loss = "schema + embedding >= 0.9"  all must hold: the larger loss counts
    loss = "rules.py:polite"            a function of yours, in a file beside suffice.toml
    loss = "judge:tone"                 a model that compares two answers, [judges.tone]

What is read from a file or asked of a model is pinned where it is learned: `rules.py:polite#3f2a...` names the file's
contents, and another file of that name is another verifier. Not known here: how anything is computed (`core.losses`
for what needs values alone; the CLI hands in the rest).
"""

from __future__ import annotations

import difflib
import re
from functools import lru_cache

import msgspec

EXACT, F1, ROUGE, EMBEDDING, SCHEMA, RULE, JUDGE = "exact", "f1", "rouge", "embedding", "schema", "rule", "judge"
NAMES = (EXACT, F1, ROUGE, EMBEDDING, SCHEMA)
BINARY = (EXACT, SCHEMA, JUDGE)
"""What knows right and wrong only."""
ALONE = (SCHEMA, RULE)
"""What looks at the answer itself: where the frontier said the same, it may be wrong all the same."""

_PART = re.compile(r"(?P<what>[^>#]+?)(?:#(?P<pin>[0-9a-f]{12}))?\s*(?:>=\s*(?P<least>\d+(?:\.\d+)?|\.\d+))?")
_RULE = re.compile(r"[^:]+\.py:[A-Za-z_]\w*")
_FORMS = "exact, f1, rouge, embedding, schema, schema:FILE.json, FILE.py:FUNCTION or judge:NAME, perhaps with >= SHARE"


class Part(msgspec.Struct, frozen=True):
    """One verifier: which it is, of what (a file, `file:function`, a judge's name), pinned to which contents.

    `least`: how alike, or how good, an answer must be to be right; None leaves the loss graded.
    """

    verifier: str
    of: str = ""
    pin: str = ""
    least: float | None = None

    @property
    def key(self) -> str:
        """What it is handed in as: itself, whatever is asked of its number."""
        return {RULE: self.of, JUDGE: f"judge:{self.of}"}.get(
            self.verifier, f"{self.verifier}:{self.of}" if self.of else self.verifier
        ) + (f"#{self.pin}" if self.pin else "")

    @property
    def text(self) -> str:
        """As it is declared."""
        return self.key + (f" >= {self.least:g}" if self.least is not None else "")

    @property
    def is_binary(self) -> bool:
        """Whether its loss is 0 or 1."""
        return self.verifier in BINARY or self.least is not None


@lru_cache(maxsize=256)
def parts(text: str) -> tuple[Part, ...]:
    """The verifiers that a text declares. Raises ValueError, with the nearest known word, for anything else."""
    found = tuple(_part(piece.strip()) for piece in text.split("+"))
    if sum(part.verifier == JUDGE for part in found) > 1:
        raise ValueError("`loss` names more than one judge: one can be measured against people")
    return found


def text_of(found: tuple[Part, ...]) -> str:
    """What declares these verifiers."""
    return " + ".join(part.text for part in found)


def is_binary(text: str) -> bool:
    """Whether an answer is right or wrong by these verifiers, and nothing between."""
    return all(part.is_binary for part in parts(text))


def judge_of(text: str) -> str | None:
    """The name of the judge that is asked; None where none is."""
    return next((part.of for part in parts(text) if part.verifier == JUDGE), None)


def _part(text: str) -> Part:
    found = _PART.fullmatch(text)
    if found is None:
        raise ValueError(f"`loss` holds {text!r}, which is none of {_FORMS}")
    what, pin = found["what"].strip(), found["pin"] or ""
    least = float(found["least"]) if found["least"] else None
    if least is not None and not 0 < least <= 1:
        raise ValueError(f"`loss`: {text!r} asks for a share above 0 and at most 1")
    if what in NAMES:
        part = Part(what, "", pin, least)
    elif what.startswith("judge:") and what != "judge:":
        part = Part(JUDGE, what.removeprefix("judge:"), pin, least)
    elif what.startswith("schema:") and what.endswith(".json"):
        part = Part(SCHEMA, what.removeprefix("schema:"), pin, least)
    elif _RULE.fullmatch(what):
        part = Part(RULE, what, pin, least)
    else:
        close = difflib.get_close_matches(what, [*NAMES, "judge:NAME"], n=1)
        raise ValueError(
            f"`loss` holds {what!r}" + (f"; did you mean {close[0]!r}?" if close else f", which is none of {_FORMS}")
        )
    if part.verifier in BINARY and least is not None:
        raise ValueError(f"`loss`: {part.verifier} knows right and wrong only, so {text!r} has no share to ask for")
    return part
