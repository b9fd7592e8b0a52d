"""What the test split shows of a specialist beside the gate's figures: for people, to see where it errs and why.

Test rows have been read by then and train from now on, so they may be looked at. Before that only
this is told, of calibration too: on which inputs specialist and frontier differ, to whoever is to say who is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np

from suffice.core.types import Bools, Example
from suffice.core.values import Value, canonical, plain
from suffice.learn.judging import Answers
from suffice.proof import bounds

BINS = 10
PAIRS = 15
WORST = 20
LABELS = 200
MOST_SLICES = 50
EXCERPT = 240
"""Characters of an input or an answer that are shown."""


def shown(examples: Sequence[Example], seen: Answers, threshold: float) -> dict[str, Any]:
    """The document's keys about single answers and scores."""
    accepted = seen.acceptable & (seen.scores >= threshold)
    return {
        "reliability": reliability(seen),
        "confusion": confusion(examples, seen, accepted),
        "worst_examples": worst(examples, seen, accepted),
    }


def disagreements(examples: Sequence[Example], seen: Answers) -> list[tuple[float, dict[str, Any]]]:
    """Rows that count as a loss until someone says who was right, each with its score; for `surest`.

    The two answers stand in an order of their own.
    """
    open_rows = [
        i
        for i, example in enumerate(examples)
        if seen.differs[i] and seen.acceptable[i] and example.usable and not example.has_reference
    ]
    return [
        (
            float(seen.scores[i]),
            {
                "record": examples[i].id,
                "input": examples[i].input[:EXCERPT],
                "answers": sorted((seen.said[i], plain(examples[i].output)), key=canonical),
            },
        )
        for i in open_rows
    ]


def surest(found: Sequence[tuple[float, dict[str, Any]]]) -> list[dict[str, Any]]:
    """Up to `LABELS` of them, the surest first: there a label helps most. Without scores, to choose nothing by."""
    return [row for _, row in sorted(found, key=lambda each: -each[0])[:LABELS]]


def reliability(seen: Answers) -> list[dict[str, Any]]:
    """Up to `BINS` bins of about as many answers each: how sure they were, and how many of them were right."""
    finite = np.isfinite(seen.scores)
    scores, right = seen.scores[finite], seen.correct[finite]
    if not len(scores):
        return []
    edges = np.unique(np.quantile(scores, np.linspace(0, 1, BINS + 1)[1:-1], method="higher"))
    bins = np.searchsorted(edges, scores, side="right")
    return [
        {
            "low": float(scores[rows].min()),
            "high": float(scores[rows].max()),
            "n": int(rows.sum()),
            "score": float(scores[rows].mean()),
            "right": msgspec.to_builtins(bounds.share(right[rows])),
        }
        for rows in (bins == i for i in np.unique(bins))
    ]


def confusion(examples: Sequence[Example], seen: Answers, accepted: Bools) -> list[dict[str, Any]]:
    """What was said for what, most frequent first: all wrong answers, and how many of them were accepted."""
    said = [(told(value), told(plain(example.target))) for value, example in zip(seen.said, examples, strict=True)]
    wrong = Counter(said[i] for i in np.flatnonzero(~seen.correct))
    let_through = Counter(said[i] for i in np.flatnonzero(~seen.correct & accepted))
    most = sorted(wrong.items(), key=lambda found: (-found[1], found[0]))[:PAIRS]
    return [{"said": pair[0], "right": pair[1], "n": n, "accepted": let_through[pair]} for pair, n in most]


def worst(examples: Sequence[Example], seen: Answers, accepted: Bools) -> list[dict[str, Any]]:
    """Accepted and wrong, the surest first."""
    wrong = np.flatnonzero(accepted & ~seen.correct)
    order = wrong[np.argsort(-seen.scores[wrong], kind="stable")][:WORST]
    return [
        {
            "record": examples[i].id,
            "input": _cut(examples[i].input),
            "said": told(seen.said[i]),
            "right": told(plain(examples[i].target)),
            "score": float(seen.scores[i]),
            "loss": float(seen.wrong[i]),
        }
        for i in order
    ]


def every_slice(examples: Sequence[Example], seen: Answers) -> dict[str, Bools]:
    """The declared slices, and those that the requests themselves name (of many, the most frequent)."""
    names = Counter(name for example in examples for name in example.slices if name not in seen.slices)
    return seen.slices | {
        name: np.array([name in example.slices for example in examples], dtype=np.bool_)
        for name, _ in sorted(names.items(), key=lambda found: (-found[1], found[0]))[:MOST_SLICES]
    }


def told(value: Value) -> str:
    """An answer as a short text."""
    return _cut(value if isinstance(value, str) else msgspec.json.encode(value).decode())


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= EXCERPT else text[: EXCERPT - 1] + "…"
