"""The nearest-answer family on BANKING77, as it is and as traffic that repeats itself. Skips without the data."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from suffice.core.types import Choice, Example, Recipe, TrainSet, TuneSet
from suffice.specialists.nearest import NearestFamily

DATA = Path(os.environ.get("SUFFICE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "banking77"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"BANKING77 is not at {DATA}: set SUFFICE_DATA to the folder of the shared data"
)


def pairs(name: str) -> list[tuple[str, str]]:
    """(text, label) rows."""
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [(row["text"], row["label"]) for row in map(json.loads, lines)]


def surest(train: Sequence[tuple[str, str]], tune: Sequence[tuple[str, str]], rows: Sequence[tuple[str, str]]) -> float:
    """The share right of all rows; the surest half of them must nearly all be right."""

    def made(prefix: str, given: Sequence[tuple[str, str]]) -> list[Example]:
        return [
            Example(id=f"{prefix}{i}", input=text, reference=label, has_reference=True)
            for i, (text, label) in enumerate(given)
        ]

    contract = Choice(tuple(sorted({label for _, label in train})))
    sets = TrainSet(made("a", train)), TuneSet(made("t", tune))
    model = NearestFamily().fit(Recipe(family="nearest"), contract, *sets, lambda *_: None)
    found = model.predict([text for text, _ in rows])
    right = np.array([p.value == label for p, (_, label) in zip(found, rows, strict=True)])
    half = np.argsort([-p.score for p in found])[: len(rows) // 2]
    assert right[half].mean() > 0.985
    return float(right.mean())


def test_banking77() -> None:
    rows, test = pairs("train.jsonl"), pairs("test.jsonl")
    order = np.random.default_rng(0).permutation(len(rows))
    some = [test[i] for i in np.random.default_rng(1).permutation(len(test))[:800]]
    train, tune = [rows[i] for i in order[:4000]], [rows[i] for i in order[4000:4600]]
    assert surest(train, tune, some) > 0.83


def test_traffic_that_repeats_itself() -> None:
    pool, dice = [*pairs("train.jsonl"), *pairs("test.jsonl")], np.random.default_rng(0)
    order, shares = dice.permutation(len(pool)), 1 / np.arange(1, len(pool) + 1)
    drawn = [pool[order[i]] for i in dice.choice(len(pool), 4_000, p=shares / shares.sum())]
    assert surest(drawn[:2600], drawn[2600:3200], drawn[3200:]) > 0.9
