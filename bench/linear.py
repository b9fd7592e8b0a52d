"""The linear family on real data, as a markdown table: `python bench/linear.py [--quick]`. About two minutes.

Coverage is best in hindsight: the largest share of the test rows, taken surest first, that holds at most so much error
in all test rows. It is what a certificate could reach at best, not a promise. Guard columns are the share escalated.
"""

from __future__ import annotations

import json
import math
import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from suffice.core.types import Choice, Example, Prediction, Recipe, TrainSet, TuneSet
from suffice.core.values import canonical
from suffice.specialists.linear import LinearFamily
from suffice.specialists.over import Over

DATA = Path(os.environ.get("SUFFICE_DATA", Path(__file__).parents[2] / "shared" / "data"))
ERRORS = (0.01, 0.02, 0.03)

Rows = list[tuple[str, str | int]]


def read(name: str) -> list[dict[str, object]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def pairs(name: str, target: str) -> Rows:
    return [(str(row["text"]), str(row[target])) for row in read(name)]


def examples(rows: Rows, prefix: str) -> list[Example]:
    return [
        Example(id=f"{prefix}{i}", input=text, reference=value, has_reference=True)
        for i, (text, value) in enumerate(rows)
    ]


def interval(successes: int, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share."""
    z = 1.959964
    middle, half = successes + z * z / 2, z * math.sqrt(successes * (n - successes) / n + z * z / 4)
    return (middle - half) / (n + z * z), (middle + half) / (n + z * z)


def coverage(scores: Sequence[float], right: Sequence[bool], error: float) -> float:
    wrong = np.cumsum(~np.array(right)[np.argsort(-np.array(scores), kind="stable")]) / len(right)
    within = np.flatnonzero(wrong <= error)
    return (int(within[-1]) + 1) / len(right) if len(within) else 0.0


def fit(recipe: Recipe, train: Rows, tune: Rows) -> Over:
    contract = Choice(tuple(sorted({value for _, value in train + tune}, key=str)))
    sets = TrainSet(examples(train, "a")), TuneSet(examples(tune, "t"))
    return LinearFamily().fit(recipe, contract, *sets, lambda *_: None)


def line(name: str, recipe: Recipe, train: Rows, tune: Rows, test: Rows) -> str:
    began = time.perf_counter()
    model = fit(recipe, train, tune)
    fit_s = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        model = LinearFamily().load(Path(folder))
    found: list[Prediction] = []
    spent = []
    for text, _ in test:
        start = time.perf_counter()
        found += model.predict([text])
        spent.append(1000 * (time.perf_counter() - start))
    right = [canonical(p.value) == canonical(value) for p, (_, value) in zip(found, test, strict=True)]
    low, high = interval(sum(right), len(right))
    scores = [p.score for p in found]
    raw = [p.parts["evidence"] for p in found]
    shares = " / ".join(f"{coverage(scores, right, e):.3f} ({coverage(raw, right, e):.3f})" for e in ERRORS)
    p50, p99 = np.percentile(spent, [50, 99])
    strange = float(np.mean([not p.familiar for p in found]))
    return (
        f"| {name} | {recipe.name} | {len(train)} / {len(tune)} / {len(test)} | {np.mean(right):.3f} [{low:.3f}, "
        f"{high:.3f}] | {fit_s:.1f} | {p50:.2f} / {p99:.2f} | {size / 1e6:.1f} | {shares} | {strange:.3f} |"
    )


def tasks(quick: bool) -> Iterator[tuple[str, Rows, Rows, Rows]]:
    dice = random.Random(0)

    def shuffled(rows: Rows) -> Rows:
        return dice.sample(rows, len(rows))

    train, test = shuffled(pairs("banking77/train.jsonl", "label")), pairs("banking77/test.jsonl", "label")
    yield "BANKING77, all of train", train, train[:0], test
    yield "BANKING77", train[1000:], train[:1000], test
    yield "BANKING77, 1,000 rows", train[300:1300], train[:300], test
    snips = shuffled(pairs("snips/train.jsonl", "intent"))
    for n in (200, 1000, 9000):
        yield f"SNIPS, {n:,} rows", snips[500 : 500 + n], snips[:500], snips[-3500:]
    metatool = shuffled(pairs("metatool/queries.jsonl", "tool"))
    yield "MetaTool, 5,000 rows", metatool[1000:6000], metatool[:1000], metatool[-4000:]
    if not quick:
        yield "MetaTool", metatool[1000:-4000], metatool[:1000], metatool[-4000:]
    moderation = read("moderation/samples.jsonl")
    for label in ("S", "H"):
        known: Rows = [(str(row["text"]), labels[label]) for row in moderation if label in (labels := _labels(row))]
        known = shuffled(known)
        half = len(known) // 2
        yield f"moderation, {label}", known[:half], known[half : half + 150], known[half + 150 :]


def _labels(row: dict[str, object]) -> dict[str, int]:
    labels = row["labels"]
    assert isinstance(labels, dict)
    return labels


def guard() -> Iterator[str]:
    """Shares escalated of inputs from elsewhere, by the guard of a model of BANKING77."""
    dice = random.Random(0)
    rows, test = pairs("banking77/train.jsonl", "label"), pairs("banking77/test.jsonl", "label")
    rows = dice.sample(rows, len(rows))
    model = fit(Recipe(family="linear"), rows[1000:], rows[:1000])
    letters = ["".join(dice.choices("abcdefghijklmnopqrstuvwxyz", k=dice.randint(2, 9))) for _ in range(2400)]
    foreign = {
        "its own test": [text for text, _ in test],
        "SNIPS": [str(row["text"]) for row in read("snips/validate.jsonl")],
        "GSM8K questions": [str(row["question"]) for row in read("gsm8k_recorded/answers.jsonl")],
        "MetaTool": [str(row["text"]) for row in read("metatool/queries.jsonl")][::10],
        "restaurant": [str(row["text"]) for row in read("restaurant8k/test.jsonl")],
        "random letters": [" ".join(letters[at : at + 8]) for at in range(0, 2400, 8)],
    }
    for name, texts in foreign.items():
        yield f"| {name} | {len(texts)} | {np.mean([not p.familiar for p in model.predict(texts)]):.3f} |"
    gone = set(dice.sample(sorted({value for _, value in rows}, key=str), 15))
    known = [row for row in rows if row[1] not in gone]
    model = fit(Recipe(family="linear"), known[800:], known[:800])
    for name, texts in (
        ("a fifth of the labels removed: the rest", [text for text, value in test if value not in gone]),
        ("a fifth of the labels removed: the removed", [text for text, value in test if value in gone]),
    ):
        yield f"| {name} | {len(texts)} | {np.mean([not p.familiar for p in model.predict(texts)]):.3f} |"


def main() -> None:
    if not DATA.is_dir():
        sys.exit(f"the shared data are not at {DATA}: set SUFFICE_DATA")
    quick = "--quick" in sys.argv[1:]
    print("| data | recipe | train / tune / test | accuracy [95%] | fit s | predict ms p50 / p99 | MB | ", end="")
    print("coverage at 1 / 2 / 3% error: learned score (raw probability) | unfamiliar |\n" + "|---" * 9 + "|")
    for name, train, tune, test in tasks(quick):
        for recipe in LinearFamily().recipes(0)[: 1 if quick or len(train) > 9500 else 2]:
            print(line(name, recipe, train, tune, test), flush=True)
    print("\n| the guard of BANKING77 on | n | escalated |\n|---|---|---|")
    for row in guard():
        print(row, flush=True)


if __name__ == "__main__":
    main()
