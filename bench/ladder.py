"""Every family on real data, through the public interface: what it has right, what it may answer, what it costs.

    python bench/ladder.py [--sets banking77,snips] [--families nearest,linear] [--max-errors 1,2,3] [--quick] [--tuned]

For each set, family and maximal error `suffice learn --data --recipe FAMILY` runs in a fresh home, so that every
certificate is a first attempt, and `suffice answer` is given rows that the run never saw. A lower `--min-coverage`
than the default is asked for, so that small coverages are told, not refused. The family `ladder` is the search itself:
no `--recipe`, from the cheapest up. The encoder is taken as it comes unless `--tuned` gives it the time to be tuned.

Each run is kept as JSON in the folder `--results` and is not made again unless `--again` says so.
Right means the whole answer: all fields, all pieces. Pieces are counted by (field, piece) for F1.
Shares are percent of the untouched rows, with 95% Clopper-Pearson intervals.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import common
import sets
from suffice.cli.families import installed, no_encoder
from suffice.core.values import calls_of, canonical, plain

FAMILIES = ("nearest", "linear", "encoder", "ladder")
TASK = "task"
LONGEST_CONTRACT = 200
"""Characters of a contract that are told."""
MIN_COVERAGE = 0.05
UNTUNED_MINUTES = "0.02"
"""A budget that is spent at once: a first candidate always finishes, and nothing comes after it."""
TUNED_MINUTES = "60"
LADDER_MINUTES = "2"
"""The whole search, without the time to tune an encoder."""
NEVER_ENOUGH = "[policy]\ntarget_coverage = 0.999\n"
"""The search stops at the first that suffices: here none does, so that tuning is tried."""

Result = dict[str, Any]


# ---------------------------------------------------------------------------------------------- one run


def run(data: sets.DataSet, family: str, max_error: float, seed: int, work: Path, *, tuned: bool) -> Result:
    """Learn and certify, answer the untouched rows, count. `tuned`: the search has the time to tune an encoder."""
    learn = common.write_lines(work / "learn.jsonl", data.learn)
    held = common.write_lines(work / "held.jsonl", [{"input": row["input"]} for row in data.held])
    arguments = ["learn", TASK, "--data", str(learn), "--max-error", f"{max_error:g}", "--seed", str(seed)]
    arguments += ["--min-coverage", f"{max(MIN_COVERAGE, 1.2 * max_error):g}"]
    name = family.removesuffix("-tuned")
    if name != "ladder":
        arguments += ["--recipe", name]
    if name == "encoder":
        arguments += ["--budget", TUNED_MINUTES if family.endswith("-tuned") else UNTUNED_MINUTES]
    elif name == "ladder" and not tuned:
        arguments += ["--budget", LADDER_MINUTES]
    if family.endswith("-tuned"):
        config = work / "suffice.toml"
        config.write_text(NEVER_ENOUGH, "utf-8")
        arguments += ["--config", str(config)]
    began = time.perf_counter()
    document = json.loads(common.suffice(work / "home", *arguments, may_refuse=True))
    result = {
        "family": family,
        "max_error": max_error,
        "rows": {"learn": len(data.learn), "held": len(data.held), **document["splits"]},
        "learn_s": time.perf_counter() - began,
        "contract": document["contract"],
        "chosen": document["recipe"],
        "reasons": document["reasons"],
        "candidates": document["candidates"],
        "memory_mb": document["memory_mb"],
        "held": None,
    }
    if document["release"]:
        told = [json.loads(line) for line in common.suffice(work / "home", "answer", TASK, held).splitlines()]
        result["held"] = counted(told, data)
    return result


def counted(told: Sequence[Result], data: sets.DataSet) -> Result:
    """What `suffice answer` said to the untouched rows, against what is right."""
    right = [canonical(t["output"]) == canonical(row["reference"]) for t, row in zip(told, data.held, strict=True)]
    accepted = [bool(t["accepted"]) for t in told]
    both = wanted = found = 0
    for line, row in zip(told, data.held, strict=True):
        ours, theirs = (Counter(pieces(value, data.labels)) for value in (line["output"], row["reference"]))
        both, found, wanted = both + (ours & theirs).total(), found + ours.total(), wanted + theirs.total()
    frontier = [canonical(row["output"]) == canonical(row["reference"]) for row in data.held if "output" in row]
    hybrid = [r if a else f for r, a, f in zip(right, accepted, frontier, strict=True)] if frontier else []
    return {
        "n": len(told),
        "right": sum(right),
        "accepted": sum(accepted),
        "wrong": sum(a and not r for a, r in zip(accepted, right, strict=True)),
        "pieces": [both, found, wanted],
        "frontier_right": sum(frontier),
        "hybrid_right": sum(hybrid),
    }


def pieces(value: Any, labels: Sequence[str]) -> Iterator[tuple[str, str]]:
    """The (field, piece) pairs of an answer, labels left out."""
    said = plain(value)
    if isinstance(said, dict) and calls_of(said) is None:
        for name, item in said.items():
            if name not in labels:
                for piece in item if isinstance(item, list) else [item]:
                    yield name, canonical(piece)


# ---------------------------------------------------------------------------------------------- the table


def line(family: str, runs: Sequence[Result], structured: bool) -> list[str]:
    """One row: what a family is worth at each maximal error."""
    usual = min(runs, key=lambda r: (r["held"] is None, abs(r["max_error"] - 0.02)))
    tried = next((c for c in usual["candidates"] if c["verdict"] == "chosen"), None)
    tried = tried or next((c for c in usual["candidates"] if c["accuracy"]), None)
    name = f"{family}: {usual['chosen']}" if usual["chosen"] and usual["chosen"] != family else family
    cells = [name, _alone(usual, tried)]
    if structured:
        cells.append(_f1(usual["held"]))
    cells += [_certified(each) for each in runs]
    if tried is None:
        return [*cells, "-", "-", "-"]
    size = tried.get("size_mb") or usual["memory_mb"]
    timed = f"{tried['latency_ms']['p50']:.2f} / {tried['latency_ms']['p99']:.2f}"
    return [*cells, f"{tried['fit_s']:.1f}", timed, f"{size:.1f}" if size else "-"]


def _alone(result: Result, tried: Result | None) -> str:
    if result["held"]:
        return common.share(result["held"]["right"], result["held"]["n"])
    return f"{100 * tried['accuracy']['value']:.1f} on tune" if tried and tried["accuracy"] else "-"


def _f1(held: Result | None) -> str:
    if not held:
        return "-"
    both, found, wanted = held["pieces"]
    return f"{200 * both / max(found + wanted, 1):.1f}"


def _certified(result: Result) -> str:
    """Coverage; accepted and wrong, in percent of all untouched rows."""
    held = result["held"]
    if not held:
        return "no release"
    return f"{common.share(held['accepted'], held['n'])}; {common.share(held['wrong'], held['n'], 2)}"


def section(name: str, data: sets.DataSet, results: Sequence[Result], max_errors: Sequence[float]) -> str:
    """A set's table with what has to be said about it."""
    rows = results[0]["rows"]
    parts = ", ".join(f"{rows[key]:,} {key}" for key in ("train", "tune", "calibration", "test") if key in rows)
    head = ["family", "alone right", *(["pieces, F1"] if data.structured else [])]
    head += [f"coverage; accepted wrong at {100 * e:g}%" for e in max_errors] + ["fit s", "p50 / p99 ms", "MB"]
    by_family: dict[str, list[Result]] = {}
    for result in results:
        by_family.setdefault(result["family"], []).append(result)
    body = [line(family, runs, data.structured) for family, runs in by_family.items()]
    text = [
        f"### {name}",
        "",
        f"{data.note}. {rows['learn']:,} rows to learn from ({parts}), {rows['held']:,} untouched. "
        f"Contract: {_short(results[0]['contract'])}.",
        "",
        common.table(head, [[*cells, *["-"] * (len(head) - len(cells))] for cells in body]),
    ]
    notes = [
        f"- {r['family']} at {100 * r['max_error']:g}%: no release: {'; '.join(r['reasons'])}"
        for r in results
        if not r["held"]
    ]
    for r in results:
        if r["held"] and r["held"]["frontier_right"]:
            frontier, hybrid = (common.share(r["held"][key], r["held"]["n"]) for key in _BOTH)
            notes.append(f"- {r['family']} at {100 * r['max_error']:g}%: frontier right {frontier}, hybrid {hybrid}")
    return "\n".join([*text, *(["", *notes] if notes else [])]) + "\n"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_CONTRACT else text[:LONGEST_CONTRACT].rsplit(",", 1)[0] + ", ..."


_BOTH = ("frontier_right", "hybrid_right")


# ---------------------------------------------------------------------------------------------- the script


def kept(file: Path, again: bool) -> Result | None:
    """A run that was made before."""
    if again or not file.exists():
        return None
    found: Result = json.loads(file.read_text("utf-8"))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="The families on real data, as one markdown table for each set.")
    parser.add_argument("--sets", default=",".join(sets.SETS), help=f"of {', '.join(sets.SETS)} (default: all)")
    parser.add_argument("--families", default=",".join(FAMILIES), help=f"of {', '.join(FAMILIES)} (default: all)")
    parser.add_argument("--max-errors", default="1,2,3", help="in percent (default 1,2,3)")
    parser.add_argument("--quick", action="store_true", help=f"{sets.QUICK_ROWS:,} rows of each set, and 2%% alone")
    parser.add_argument("--tuned", action="store_true", help="the tuned encoder too, at 2%% alone (half an hour a set)")
    parser.add_argument("--results", type=Path, default=Path(".suffice-bench/ladder"), help="where runs are kept")
    parser.add_argument("--again", action="store_true", help="make runs again that were made before")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    common.end_well()
    options.results.mkdir(parents=True, exist_ok=True)
    percents = "2" if options.quick else options.max_errors
    max_errors = [float(each) / 100 for each in percents.split(",")]
    here = {"ladder", *(family.name for family in installed())} - ({"encoder"} if no_encoder(None) else set())
    families = [name for name in options.families.split(",") if name in here]
    if options.tuned and "encoder" in here:
        families.append("encoder-tuned")
    absent = sorted(set(options.families.split(",")) - here)
    if absent:
        print(f"not installed here: {', '.join(absent)}")
    print(f"`{common.command_line()}`\n({common.machine('suffice', 'numpy', 'scikit-learn', 'onnxruntime')})\n")
    for name in options.sets.split(","):
        data = sets.load(name, options.seed, options.quick)
        results = []
        for family in families:
            for max_error in [0.02] if family == "encoder-tuned" else max_errors:
                size = "quick" if options.quick else "full"
                file = options.results / f"{name}-{family}-{100 * max_error:g}-{size}-{options.seed}.json"
                found = kept(file, options.again)
                if found is None:
                    with tempfile.TemporaryDirectory(prefix="suffice-bench-") as folder:
                        found = run(data, family, max_error, options.seed, Path(folder), tuned=options.tuned)
                    part = file.with_suffix(".part")
                    part.write_text(json.dumps(found, indent=1), "utf-8")
                    part.replace(file)
                results.append(found)
        print(section(name, data, results, max_errors), flush=True)


if __name__ == "__main__":
    main()
