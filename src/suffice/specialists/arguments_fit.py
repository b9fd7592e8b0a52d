"""Learning to fill arguments: one weighing for each kind of parameter, from all functions of train together."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from suffice.core.values import Value, canonical
from suffice.specialists.arguments import (
    KINDS,
    WIDTH,
    Asked,
    Option,
    Question,
    Seen,
    key_of,
    options_of,
    questions_of,
    text_of,
    told,
)
from suffice.specialists.conditional import fit_conditional
from suffice.specialists.embedding import Embedding

Floats = npt.NDArray[np.float64]

_MOST_ROWS = 3_000
_MOST_WRONG = 60
_MOST_VALUES = 30
_MOST_KEYS = 2_000
_RIDGE = 1.0

Called = tuple[str, Mapping[str, Any], dict[str, Value]]
"""A request, the function that it called, and the arguments."""


def seen_of(rows: Sequence[Called], forms: Mapping[int, list[Question]]) -> Seen:
    """The values that each function's parameters were given, the commonest of them."""
    values: dict[str, Counter[str]] = {}
    asked: Counter[str] = Counter()
    out: Counter[str] = Counter()
    for index, (_, function, arguments) in enumerate(rows):
        for question in forms[index]:
            key, value = key_of(function, question), told(question, arguments)
            asked[key] += 1
            if value:
                values.setdefault(key, Counter())[value] += 1
            else:
                out[key] += 1
    kept = [key for key, _ in asked.most_common(_MOST_KEYS)]
    return Seen(
        {key: dict(values[key].most_common(_MOST_VALUES)) for key in kept if key in values},
        {key: asked[key] for key in kept},
        {key: out[key] for key in kept if out[key]},
    )


def same(option: Option, wanted: str) -> bool:
    """Whether an option is what was given: equal, or the same text in another case."""
    return text_of(option.value).casefold() == wanted.casefold()


def fit_arguments(
    rows: Sequence[Called], embedding: Embedding, seed: int, beat: Callable[[], None]
) -> tuple[Floats, Seen]:
    """The weights (KINDS, WIDTH) and what was seen. A value that no option is trains nothing."""
    dice = random.Random(seed)
    rows = [rows[index] for index in sorted(dice.sample(range(len(rows)), min(len(rows), _MOST_ROWS)))]
    forms: dict[int, list[Question]] = {}
    by_function: dict[str, list[Question]] = {}
    for index, (_, function, _) in enumerate(rows):
        key = canonical(dict(function))
        if key not in by_function:
            by_function[key] = questions_of(function, embedding)
        forms[index] = by_function[key]
    seen = seen_of(rows, forms)
    features: dict[str, list[Floats]] = {kind: [] for kind in KINDS}
    right: dict[str, list[npt.NDArray[np.bool_]]] = {kind: [] for kind in KINDS}
    for index, (text, function, arguments) in enumerate(rows):
        beat()
        if not forms[index]:
            continue
        asked = Asked(text, embedding.read([text])[0])  # one after another: their words would not fit into memory
        for question in forms[index]:
            wanted = told(question, arguments)
            options, found = options_of(question, asked, key_of(function, question), seen, less=wanted)
            if not wanted:
                hits = np.array([option.value is None for option in options], dtype=np.bool_)
            else:
                hits = np.array([same(option, wanted) for option in options], dtype=np.bool_)
            if not hits.any() or hits.all():
                continue
            wrong = np.flatnonzero(~hits).tolist()
            if len(wrong) > _MOST_WRONG:
                wrong = dice.sample(wrong, _MOST_WRONG)
            kept = np.sort(np.concatenate((np.flatnonzero(hits), wrong)).astype(np.int64))
            features[question.kind].append(found[kept])
            right[question.kind].append(hits[kept])
    weights = np.zeros((len(KINDS), WIDTH))
    for place, kind in enumerate(KINDS):
        if features[kind]:
            sizes = [len(own) for own in features[kind]]
            weights[place] = fit_conditional(np.concatenate(features[kind]), sizes, np.concatenate(right[kind]), _RIDGE)
    return weights, seen
