"""How bad an answer is, by the declared verifiers: 0 is as good as right, 1 is as bad as can be.

`exact` knows right and wrong. `f1` gives credit for what is right in an answer of several parts: 1 - F1 over its items,
which is how slots, entities and label sets are scored in the field (CoNLL, SNIPS, and micro-F1 over one answer). An
object's items are its fields, each with its path; a list's items are its members, whole, in any order; a set's items
are its labels; a tool call has its name and its arguments; a bare label has one item and so is right or wrong. `rouge`
is for texts: 1 - F1 of ROUGE-L (Lin 2004), over the longest common subsequence of their words.

Other verifiers need a file, a table or a model: they are handed in (`core.protocols.Grader`), by `Part.key`. Where one
is not at hand nothing is made up: `Unverified`. `core.grading` tells how they are declared and combined.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence

from suffice.core import grading
from suffice.core.contracts import covers
from suffice.core.errors import SufficeError
from suffice.core.grading import Part
from suffice.core.protocols import Grader
from suffice.core.types import LossKind, LossName, OutputContract, Promise
from suffice.core.values import Value, calls_of, canonical, plain

Graders = Mapping[str, Grader]
"""Verifiers that are handed in, by the key of the part of a loss that they are."""

_IDEOGRAPHS = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff"
_WORD = re.compile(rf"[{_IDEOGRAPHS}]|[^\W_{_IDEOGRAPHS}]+")
"""Words as ROUGE counts them: runs of letters and digits; where a script has no spaces, each character."""
_HAIR = 1e-9
"""1 - (1 - 0.9) is not 0.9: what an answer is asked for it may miss by so much."""


class Keeps:
    """Whether an answer keeps its task's contract, as a verifier."""

    def __init__(self, contract: OutputContract) -> None:
        self._contract = contract

    def __call__(self, input: str, said: Value, right: Value) -> float:
        """0 where it does, else 1."""
        return float(not covers(self._contract, plain(said)))

    def prepare(self, cases: Sequence[tuple[str, Value, Value]]) -> None:
        """Nothing takes long here."""

    def fault(self) -> str | None:
        """Nothing goes wrong here."""
        return None


class Unverified(SufficeError):
    """A verifier cannot be asked here. Nothing is known of the answer then: neither that it is right nor wrong."""


def loss(name: LossName, said: Value, right: Value, input: str = "", graders: Graders | None = None) -> float:
    """The loss of saying `said` to `input` where `right` is right, in [0, 1]: the largest of the declared verifiers'.

    Equal answers (see `core.values`) cost nothing, but by verifiers that look at the answer alone. Raises Unverified
    where one is not among `graders`.
    """
    equal = canonical(said) == canonical(right)
    return max(_cost(part, said, right, input, graders or {}, equal) for part in grading.parts(name))


def kind_of(name: LossName, promise: Promise) -> LossKind:
    """The declared kind of loss, which picks the test: fixed by policy and references before any label is read."""
    if promise == "signed":
        return "signed"
    return "binary" if grading.is_binary(name) else "graded"


def to_ask(name: LossName, said: Value, right: Value) -> bool:
    """Whether a verifier that was handed in has a say about these two answers."""
    equal = canonical(said) == canonical(right)
    return any(
        part.verifier not in MEASURES and (not equal or part.verifier in grading.ALONE) for part in grading.parts(name)
    )


def words(text: str) -> list[str]:
    """The words of a text, as `rouge` compares them."""
    return _WORD.findall(text.casefold())


def common(first: list[str], second: list[str]) -> int:
    """The length of the longest common subsequence, a whole row of the table at a time, as the bits of one integer.

    (Crochemore, Iliopoulos, Pinzon and Reid 2001: a 0 stands where the length grows by one.)
    """
    places: dict[str, int] = {}
    for i, word in enumerate(first):
        places[word] = places.get(word, 0) | 1 << i
    row = every = (1 << len(first)) - 1
    for word in second:
        matched = row & places.get(word, 0)
        row = (row + matched | row & ~matched) & every
    return len(first) - row.bit_count()


def _cost(part: Part, said: Value, right: Value, input: str, graders: Graders, equal: bool) -> float:
    if equal and part.verifier not in grading.ALONE:
        return 0.0
    if part.verifier in MEASURES:
        found = MEASURES[part.verifier](said, right)
    else:
        grader = graders.get(part.key)
        if grader is None:
            raise Unverified(f"the verifier {part.text} is not at hand here")
        found = grader(input, said, right)
    if not (math.isfinite(found) and 0 <= found <= 1):
        return 1.0
    return found if part.least is None else float(1 - found < part.least - _HAIR)


def _differs(said: Value, right: Value) -> float:
    return 1.0  # `loss` has seen to equal answers


def _missed(said: Value, right: Value) -> float:
    """1 - F1: twice the items in common over all items of both, each as often as it stands there."""
    there, wanted = Counter(_items_of(plain(said))), Counter(_items_of(plain(right)))
    shared = (there & wanted).total()
    return 1.0 - 2 * shared / max(there.total() + wanted.total(), 1)


def _unlike(said: Value, right: Value) -> float:
    """1 - F1 of ROUGE-L: twice the words in common order over all words of both."""
    there, wanted = words(text_of(said)), words(text_of(right))
    return 1.0 - 2 * common(there, wanted) / max(len(there) + len(wanted), 1)


MEASURES: dict[str, Callable[[Value, Value], float]] = {"exact": _differs, "f1": _missed, "rouge": _unlike}
"""Loss by name, of what needs the two answers alone. Asked only of answers that are not equal; anything in [0, 1]."""


def text_of(value: Value) -> str:
    """An answer as text: itself, or what it is as JSON."""
    said = plain(value)
    return said if isinstance(said, str) else canonical(said)


def _items_of(value: Value) -> Iterator[tuple[str, ...]]:
    """The items of an answer in its plain form. Lists at the top are sets of labels: what is said twice counts once."""
    calls = calls_of(value)
    if calls is not None:
        for call in calls:
            yield "call", str(call["name"])
            yield from _leaves(call.get("arguments", {}), ("call", str(call["name"])))
    elif isinstance(value, list):
        yield from {("item", _text(item)) for item in value}
    else:
        yield from _leaves(value, ())


def _leaves(value: Value, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _leaves(inner, (*path, name))
    elif isinstance(value, list):
        for item in value:
            yield (*path, _text(item))
    else:
        yield (*path, _text(value))


def _text(item: Value) -> str:
    """The same text for equal items. Put into a list, since a text inside an answer is not unpacked if it is JSON."""
    return canonical([item])
