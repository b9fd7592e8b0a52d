"""The causal family on SNIPS' slots as JSON, as a markdown table: `python bench/causal.py [--train N --steps N]`.

The same base tuned, and as it is (told all fields' names), both kept to the schema and rounded to 8 bits; beside them
the encoder rung on the same rows. Each in a process of its own, so that memory is its own. Exact: the whole answer;
F1: the mean over rows of F1 over pieces. Coverage is best in hindsight, as in `bench/linear.py`. Seconds are of this
machine as busy as it was: processor seconds stand beside them. Predictions are single, one after another.
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import data_folder, read_lines
from linear import coverage, examples, interval
from suffice.core.losses import loss
from suffice.core.types import Fields, Many, Recipe, Span, TrainSet, TuneSet
from suffice.core.values import canonical

ERROR = 0.05
Rows = list[tuple[str, Any]]


def rows(name: str) -> Rows:
    found = []
    for row in read_lines(data_folder("snips") / f"{name}.jsonl"):
        said: dict[str, list[str]] = {}
        for slot in row["slots"]:
            said.setdefault(slot["slot"], []).append(slot["text"])
        found.append((row["text"].strip(), said))
    random.Random(0).shuffle(found)
    return found


def family_of(name: str, bases: Path) -> tuple[Any, dict[str, Any]]:
    if name == "encoder":
        from suffice.specialists.encoder import EncoderFamily

        return EncoderFamily(None, bases), {}
    from suffice.specialists.causal import CausalFamily

    return CausalFamily(None, bases), {"bits": 8}


def contender(name: str, params: dict[str, Any], sizes: tuple[int, int, int], bases: Path) -> str:
    """Fit and measure one; its line of the table."""
    train, tune, test = sizes
    every, held = rows("train"), rows("validate")[:test]
    fitted_on, tuned_on = every[:train], every[train : train + tune]
    contract = Fields(tuple((slot, Many(Span())) for slot in sorted({slot for _, said in every for slot in said})))
    family, base = family_of(name, bases)
    recipe = Recipe(family=family.name, params={**base, **params})
    began, used = time.perf_counter(), time.process_time()
    model = family.fit(
        recipe, contract, TrainSet(examples(fitted_on, "a")), TuneSet(examples(tuned_on, "t")), _tell, None
    )
    fit_s, cpu_s = time.perf_counter() - began, time.process_time() - used
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    with tempfile.TemporaryDirectory() as folder:
        model.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        served = family.load(Path(folder))
        found, spent = [], []
        for text, _ in held:
            start = time.perf_counter()
            found += served.predict([text])
            spent.append(time.perf_counter() - start)
    right = [canonical(p.value) == canonical(said) for p, (_, said) in zip(found, held, strict=True)]
    f1 = [1 - loss("f1", p.value, said) for p, (_, said) in zip(found, held, strict=True)]
    low, high = interval(sum(right), len(right))
    p50, p99 = 1e3 * np.percentile(spent, [50, 99])
    speed = f"{_tokens(bases, [p.value for p in found], contract) / sum(spent):.0f}" if name != "encoder" else "-"
    return (
        f"| {name} | {train} / {tune} / {len(held)} | {np.mean(right):.3f} [{low:.3f}, {high:.3f}] | "
        f"{np.mean(f1):.3f} ± {1.96 * np.std(f1) / len(f1) ** 0.5:.3f} | "
        f"{coverage([p.score for p in found], right, ERROR):.3f} | "
        f"{fit_s:.0f} ({cpu_s:.0f}) | {peak_mb:.0f} | {p50:.0f} / {p99:.0f} | {speed} | {size / 1e6:.0f} |"
    )


def _tokens(bases: Path, answers: list[Any], contract: Fields) -> int:
    from suffice.specialists import causal_base
    from suffice.specialists.causal_text import written

    _, tokenizer = causal_base.load(causal_base.made(None, bases, _tell))
    return sum(len(tokenizer(written(contract, answer))["input_ids"]) for answer in answers if answer is not None)


def _tell(what: str, share: float) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r{share:5.0%} {what:<70}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--train", type=int, default=800)
    parser.add_argument("--tune", type=int, default=150)
    parser.add_argument("--test", type=int, default=200)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--bases", type=Path, help="A folder for bases, kept; else a temporary one.")
    parser.add_argument("--only", choices=["zero-shot", "tuned", "encoder"])
    args = parser.parse_args()
    print(
        "| contender | train / tune / test | exact [95%] | F1 ± 95% | coverage at 5% error | fit s (processor s) | "
        "peak MB | p50 / p99 ms | tokens/s | MB |\n|" + "---|" * 10,
        flush=True,
    )
    with tempfile.TemporaryDirectory() as temporary:
        bases = args.bases or Path(temporary)
        plans = {"zero-shot": {"steps": 0}, "tuned": {"steps": args.steps}, "encoder": {}}
        for name, params in plans.items():
            if args.only in (None, name):
                with multiprocessing.get_context("spawn").Pool(1) as pool:
                    sizes = (args.train, args.tune, args.test)
                    print(pool.apply(contender, (name, params, sizes, bases)), flush=True)


if __name__ == "__main__":
    main()
