"""The linear family on BANKING77: accuracy, latency and size. Skips where the shared data are absent."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from suffice.core.types import Choice, Example, Recipe, TrainSet, TuneSet
from suffice.specialists.linear import LinearFamily

DATA = Path(os.environ.get("SUFFICE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "banking77"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"BANKING77 is not at {DATA}: set SUFFICE_DATA to the folder of the shared data"
)


def read(name: str) -> list[Example]:
    lines = [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]
    return [
        Example(id=f"{name}{i}", input=row["text"], reference=row["label"], has_reference=True)
        for i, row in enumerate(lines)
    ]


def test_banking77(tmp_path: Path) -> None:
    examples, test = read("train.jsonl"), read("test.jsonl")
    order = np.random.default_rng(0).permutation(len(examples))
    train = [examples[i] for i in order[: int(0.85 * len(examples))]]
    tune = [examples[i] for i in order[int(0.85 * len(examples)) :]]
    contract = Choice(tuple(sorted({str(example.target) for example in train})))
    family = LinearFamily()
    began = time.perf_counter()
    family.fit(Recipe(family="linear"), contract, TrainSet(train), TuneSet(tune), lambda *_: None).save(tmp_path)
    assert time.perf_counter() - began < 90
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 8_000_000

    model = family.load(tmp_path)
    spent, found = [], []
    for example in test:
        start = time.perf_counter()
        found += model.predict([example.input])
        spent.append(time.perf_counter() - start)
    right = np.array([p.value == e.target for p, e in zip(found, test, strict=True)])
    assert right.mean() >= 0.915
    assert np.median(spent) < 0.002
    assert np.mean([p.familiar for p in found]) > 0.97
    # the surest four fifths are right far more often than the rest
    surest = np.argsort([-p.score for p in found])[: int(0.8 * len(found))]
    assert right[surest].mean() > 0.98
    foreign = model.predict(
        ["Natalia sold clips to 48 of her friends in April. How many?", "zxq vrrk plmw", "我的卡在哪里"]
    )
    assert not any(p.familiar for p in foreign)
