"""The encoder family on real data, as a markdown table: `python bench/encoder.py [--frozen-only] [--train N]`.

BANKING77 with its own test rows, and SNIPS' intents. Fine-tuning takes ten minutes and more; `--train N` takes the
first N of the shuffled rows. Coverage is best in hindsight, as in `bench/linear.py`. Latencies are single predictions,
one after another, on the int8 encoder with one thread.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from linear import DATA, ERRORS, Rows, coverage, examples, interval, pairs
from suffice.cli.families import no_encoder
from suffice.core.types import Choice, Prediction, Recipe, TrainSet, TuneSet
from suffice.core.values import canonical
from suffice.specialists.encoder import EncoderFamily
from suffice.specialists.encoder_base import ABOUT, read_about

_TIMED = 1000


def line(name: str, family: EncoderFamily, recipe: Recipe, train: Rows, tune: Rows, test: Rows) -> str:
    contract = Choice(tuple(sorted({value for _, value in train + tune}, key=str)))
    began, used = time.perf_counter(), time.process_time()
    model = family.fit(recipe, contract, TrainSet(examples(train, "a")), TuneSet(examples(tune, "t")), _tell)
    fit_s, cpu_s = time.perf_counter() - began, time.process_time() - used
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        cosine = f"{read_about(Path(folder)).cosine:.3f}" if (Path(folder) / ABOUT).exists() else "the base's"
    found: list[Prediction] = []
    spent = []
    for text, _ in test:
        start = time.perf_counter()
        found += model.predict([text])
        spent.append(1000 * (time.perf_counter() - start))
    right = [canonical(p.value) == canonical(value) for p, (_, value) in zip(found, test, strict=True)]
    low, high = interval(sum(right), len(right))
    shares = " / ".join(f"{coverage([p.score for p in found], right, error):.3f}" for error in ERRORS)
    p50, p99 = np.percentile(spent[:_TIMED], [50, 99])
    strange = float(np.mean([not p.familiar for p in found]))
    return (
        f"| {name} | {recipe.name} | {len(train)} / {len(tune)} / {len(test)} | {np.mean(right):.3f} [{low:.3f}, "
        f"{high:.3f}] | {fit_s:.0f} ({cpu_s:.0f}) | {p50:.1f} / {p99:.1f} | {size / 1e6:.1f} | {cosine} | {shares} | "
        f"{strange:.3f} |"
    )


def tasks(rows: int | None) -> Iterator[tuple[str, Rows, Rows, Rows]]:
    dice = random.Random(0)

    def shuffled(every: Rows) -> Rows:
        return dice.sample(every, len(every))

    train, test = shuffled(pairs("banking77/train.jsonl", "label")), pairs("banking77/test.jsonl", "label")
    if rows is None:
        yield "BANKING77, all of train", train, [], test
    yield "BANKING77", train[1000:][:rows], train[:1000], test
    snips = shuffled(pairs("snips/train.jsonl", "intent"))
    yield "SNIPS intents", snips[500:2500][:rows], snips[:500], pairs("snips/validate.jsonl", "intent")


def _tell(what: str, share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r{share:4.0%} {what:<60}", end="", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frozen-only", action="store_true", help="only the base as it is")
    parser.add_argument("--train", type=int, metavar="N", help="rows of train")
    given = parser.parse_args()
    if not DATA.is_dir():
        sys.exit(f"the shared data are not at {DATA}: set SUFFICE_DATA")
    lacking = no_encoder(None)
    if lacking is not None:
        sys.exit(f"no encoder: {lacking}")
    print("| data | recipe | train / tune / test | accuracy [95%] | fit s (CPU) | predict ms p50 / p99 | MB | ", end="")
    print("cosine int8 | coverage at 1 / 2 / 3% error | unfamiliar |\n" + "|---" * 10 + "|")
    with tempfile.TemporaryDirectory() as bases:
        family = EncoderFamily(None, Path(bases))
        for name, train, tune, test in tasks(given.train):
            for recipe in family.recipes(0)[: 1 if given.frozen_only else 2]:
                print(line(name, family, recipe, train, tune, test), flush=True)


if __name__ == "__main__":
    main()
