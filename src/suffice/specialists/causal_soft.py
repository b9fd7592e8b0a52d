"""From the frontier's token probabilities to what each token of a lesson might be: targets for distillation.

The frontier cuts an answer into other tokens than the base model, and writes JSON with other white space. A token of
the base takes part where it begins where one of the frontier's begins and is a piece of it. It gets that one's
probability; of the frontier's alternatives those count whose text is one token of the base. What they have together is
made one; tokens that nothing was told of are learned as they are.

After Hinton et al. 2015, arXiv 1503.02531; over the top tokens only, as APIs tell no more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any, NamedTuple

from suffice.core.chances import Chances

SHARE = 0.5
"""Of the loss, where something was told. At a half what the frontier said stays the likeliest target, whatever it
thought of the alternatives: an answer is judged by what was said."""
_ALIKE = 0.5
"""Where less of an answer stands in what the frontier wrote, that was another answer."""
_LONGEST = 4_000
"""Characters beyond which two texts that differ are not laid side by side: it takes the square of their length."""


class Soft(NamedTuple):
    """A token of an answer, by its place, with the tokens that may stand there (its own first); shares sum to 1."""

    place: int
    tokens: tuple[int, ...]
    shares: tuple[float, ...]


def softened(tokenizer: Any, answer: str, ids: Sequence[int], chances: Chances) -> tuple[Soft, ...]:
    """What tokens `ids` of the base, which spell `answer`, might be by what the frontier told of its own."""
    places = _side_by_side(chances.text, answer)
    if len(places) < _ALIKE * len(answer):
        return ()
    starts = _starts(tokenizer, answer, ids)
    inside = _inside(chances.text)
    as_is = chances.text.strip() == answer
    found = []
    for doubt in chances.doubts:
        at = next((places[i] for i in range(doubt.start, doubt.end) if i in places), None)
        if at is None or at not in starts:
            continue
        place, piece = starts[at]
        likely = [(text if as_is else _squeezed(text, inside[doubt.start]), chance) for text, chance in doubt.likely]
        if likely[0][0].startswith(piece):
            soft = _soft(place, ids[place], likely, lambda text: _single(tokenizer, text))
            found += [soft] if soft is not None else []
    return tuple(found)


def _soft(
    place: int, own: int, likely: Sequence[tuple[str, float]], single: Callable[[str], int | None]
) -> Soft | None:
    """One token's targets; None where there is no alternative that the base can write as one token."""
    (said, chance), *others = likely
    shares = {own: math.exp(chance)}
    for text, other in others:
        token = own if text == said else single(text)
        if token is not None:
            shares[token] = shares.get(token, 0.0) + math.exp(other)
    total = sum(shares.values())
    if len(shares) < 2 or not total > 0:
        return None
    return Soft(place, tuple(shares), tuple(share / total for share in shares.values()))


def _single(tokenizer: Any, text: str) -> int | None:
    """The one token that is this text; None for none, for several, and for a mark."""
    if not text:
        return None
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    if len(ids) != 1 or ids[0] in tokenizer.all_special_ids or tokenizer.decode(ids) != text:
        return None
    return int(ids[0])


def _starts(tokenizer: Any, answer: str, ids: Sequence[int]) -> dict[int, tuple[int, str]]:
    """By the character that it begins with: the place and the text of each token that is whole characters."""
    ends = [
        end for _, end in tokenizer(answer, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    ]
    found: dict[int, tuple[int, str]] = {}
    for place, (token, end) in enumerate(zip(ids, ends, strict=False)):
        piece = tokenizer.decode([token])
        if piece and answer[max(end - len(piece), 0) : end] == piece:
            found[end - len(piece)] = (place, piece)
    return found


def _side_by_side(raw: str, answer: str) -> dict[int, int]:
    """For characters of what the frontier wrote, their places in the answer as the base writes it."""
    start = len(raw) - len(raw.lstrip())
    if raw.strip() == answer:
        return {start + at: at for at in range(len(answer))}
    flags = _inside(raw)
    kept = [at for at, char in enumerate(raw) if flags[at] or not char.isspace()]
    compact = "".join(raw[at] for at in kept)
    if compact == answer:
        return {at: place for place, at in enumerate(kept)}
    if max(len(compact), len(answer)) > _LONGEST:
        return {}
    blocks = SequenceMatcher(None, compact, answer, autojunk=False).get_matching_blocks()
    return {kept[block.a + i]: block.b + i for block in blocks for i in range(block.size)}


def _inside(text: str) -> list[bool]:
    """Of each character of JSON whether it stands within a text (its opening quote does not, its closing one does)."""
    found, inside, escaped = [], False, False
    for char in text:
        found.append(inside)
        if escaped:
            escaped = False
        elif inside and char == "\\":
            escaped = True
        elif char == '"':
            inside = not inside
    return found


def _squeezed(text: str, inside: bool) -> str:
    """A piece of JSON without white space outside of texts; `inside`: it begins within one."""
    flags = _inside(text if not inside else '"' + text)[int(inside) :]
    return "".join(char for char, kept in zip(text, flags, strict=True) if kept or not char.isspace())
