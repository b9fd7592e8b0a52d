"""Calling functions that requests offer, as markdown tables: `python bench/tools.py [--quick] [--encoder]`.

MetaTool: each request offers ten tools, the right one and nine others, half of them its nearest by description; a
quarter of the requests offer no right one. A fifth of the tools occur in the test only. 46 of the 199 tools have no
description in the data and are offered by name alone. BFCL: all five files; functions of the test occur in the test
only. Its arguments are held against all that is accepted, texts compared as its own checker does (case and some marks
do not count). Coverage is best in hindsight: the largest share of the test, surest first, with at most so much error
in all of the test: what a certificate could reach at best, not a promise.
"""

from __future__ import annotations

import json
import random
import re
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common import command_line, data_folder, machine, read_lines, share, table
from suffice.core.offered import with_tools
from suffice.core.types import Example, Prediction, Recipe, ToolCall, TrainSet, TuneSet
from suffice.core.values import Value, calls_of
from suffice.specialists.embedding import Embedding, shared_static_embedding
from suffice.specialists.offered import OfferedSpecialist, load
from suffice.specialists.offered_fit import fit

OFFERED = 10
BFCL = ("live_simple", "live_multiple", "multiple", "simple_python", "irrelevance")
CONTRACT = ToolCall((), none_allowed=True, offered=True)


class Case(NamedTuple):
    """A request, what trains on it, in which part of the table it counts, and what is accepted as right."""

    input: str
    target: Value
    kind: str
    accepted: dict[str, Any] | None


def examples(cases: Sequence[Case], prefix: str) -> list[Example]:
    return [
        Example(id=f"{prefix}{i}", input=case.input, reference=case.target, has_reference=True)
        for i, case in enumerate(cases)
    ]


def call(name: str | None, arguments: dict[str, Value] | None = None) -> Value:
    return {"tool_calls": [] if name is None else [{"name": name, "arguments": arguments or {}}]}


# ---------------------------------------------------------------------------------------------- data


def metatool(embedding: Embedding, train: int, tune: int, test: int) -> dict[str, list[Case]]:
    folder, dice = data_folder("metatool"), random.Random(0)
    told = {row["name"]: row["description"] for row in read_lines(folder / "tools.jsonl")}
    rows = read_lines(folder / "queries.jsonl")
    dice.shuffle(rows)
    names = sorted({row["tool"] for row in rows})
    tools = [{"name": name, **({"description": told[name]} if name in told else {})} for name in names]
    read = embedding.read([f"{tool['name']}: {tool.get('description', '')[:600]}" for tool in tools])
    vectors = np.stack([each.vector for each in read])
    nearest = np.argsort(-(vectors @ vectors.T), axis=1)
    unseen = set(dice.sample(names, len(names) // 5))

    def case(row: dict[str, Any], allowed: list[int]) -> Case:
        right = names.index(row["tool"])
        kept = set(allowed) - {right}
        none = dice.random() < 0.25
        near = [i for i in nearest[right].tolist() if i in kept][: OFFERED // 2]
        others = dice.sample(sorted(kept - set(near)), OFFERED - len(near) - (not none))
        offered = near + others + ([] if none else [right])
        dice.shuffle(offered)
        text = json.dumps([{"type": "function", "function": tools[i]} for i in offered], sort_keys=True)
        kind = "no call" if none else "unseen" if row["tool"] in unseen else "seen"
        return Case(with_tools(row["text"], text), call(None if none else row["tool"]), kind, None)

    old = [row for row in rows if row["tool"] not in unseen]
    new = [row for row in rows if row["tool"] in unseen]
    known, everything = [i for i, name in enumerate(names) if name not in unseen], list(range(len(names)))
    return {
        "train": [case(row, known) for row in old[:train]],
        "tune": [case(row, known) for row in old[train : train + tune]],
        "test": [case(row, everything) for row in old[train + tune :][:test] + new[:test]],
    }


def first(accepted: Any) -> Value:
    """The first accepted value, objects within taken apart; None where leaving out comes first."""
    value = accepted[0] if isinstance(accepted, list) and accepted else None
    return None if value == "" else bare(value)


def bare(value: Any) -> Value:
    if isinstance(value, dict):
        inner = {key: first(item) if isinstance(item, list) else bare(item) for key, item in value.items()}
        return {key: item for key, item in inner.items() if item is not None}
    return [bare(item) for item in value] if isinstance(value, list) else value


def bfcl() -> dict[str, list[Case]]:
    folder, dice = data_folder("bfcl"), random.Random(0)
    rows = [(kind, row) for kind in BFCL for row in read_lines(folder / f"{kind}.jsonl")]
    called = [next(iter(row["accepted"][0])) if row["accepted"] else f"none {i}" for i, (_, row) in enumerate(rows)]
    order = sorted(set(called))
    dice.shuffle(order)
    part = {name: "test" if i % 4 == 0 else "tune" if i % 4 == 1 else "train" for i, name in enumerate(order)}
    found: dict[str, list[Case]] = {"train": [], "tune": [], "test": []}
    for name, (kind, row) in zip(called, rows, strict=True):
        text = "\n".join(message["content"] for message in row["messages"] if message["role"] == "user")
        asked = with_tools(text, json.dumps(row["functions"], sort_keys=True))
        accepted = row["accepted"][0] if row["accepted"] else None
        given = {key: first(value) for key, value in next(iter(accepted.values())).items()} if accepted else {}
        target = call(name if accepted else None, {key: value for key, value in given.items() if value is not None})
        found[part[name]].append(Case(asked, target, kind, accepted))
    return found


# ---------------------------------------------------------------------------------------------- right or wrong


def name_of(value: Value) -> str | None:
    calls = calls_of(value) or []
    return str(calls[0]["name"]) if calls else None


def right_name(case: Case, value: Value) -> bool:
    return name_of(value) == name_of(case.target)


def all_right(case: Case, value: Value) -> bool:
    if case.accepted is None or not right_name(case, value):
        return right_name(case, value)
    calls = calls_of(value) or []
    given, wanted = calls[0]["arguments"], next(iter(case.accepted.values()))
    assert isinstance(given, dict)
    return given.keys() <= wanted.keys() and all(among(given.get(key), values) for key, values in wanted.items())


def among(value: Any, accepted: Any) -> bool:
    if value is None:
        return not accepted or "" in accepted
    return any(alike(value, each) for each in accepted)


def alike(value: Any, wanted: Any) -> bool:
    if isinstance(value, str) and isinstance(wanted, str):
        return marked(value) == marked(wanted)
    if isinstance(value, dict) and isinstance(wanted, dict):
        return value.keys() <= wanted.keys() and all(
            among(value.get(key), each if isinstance(each, list) else [each]) for key, each in wanted.items()
        )
    if isinstance(value, list) and isinstance(wanted, list):
        return len(value) == len(wanted) and all(map(alike, value, wanted))
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def marked(text: str) -> str:
    return re.sub(r"[ ,./\-_*^]", "", text).lower().replace("'", '"')


def coverage(found: Sequence[Prediction], right: Sequence[bool], error: float) -> float:
    scores = np.array([each.score if each.familiar else -1.0 for each in found])
    order = np.argsort(-scores, kind="stable")[: int((scores > 0).sum())]
    within = np.flatnonzero(np.cumsum(~np.array(right)[order]) / len(right) <= error)
    return (int(within[-1]) + 1) / len(right) if len(within) else 0.0


# ---------------------------------------------------------------------------------------------- tables


def measured(data: dict[str, list[Case]], embedding: Embedding) -> tuple[list[Prediction], str, OfferedSpecialist]:
    """The test's predictions and what fitting and predicting cost."""
    began = time.process_time()
    sets = TrainSet(examples(data["train"], "a")), TuneSet(examples(data["tune"], "t"))
    fitted = fit(Recipe(family="linear"), CONTRACT, *sets, embedding, lambda *_: None)
    fit_s = time.process_time() - began
    with tempfile.TemporaryDirectory() as folder:
        fitted.save(Path(folder))
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
        model = load(Path(folder), embedding)
    inputs = [case.input for case in data["test"]]
    model.predict(inputs)  # the functions' descriptions are read once
    read, found, spent = model.encoder.read(inputs), [], []
    for text, reading in zip(inputs, read, strict=True):
        start = time.perf_counter()
        found += model.predict_read([text], [reading])
        spent.append(1000 * (time.perf_counter() - start))
    p50, p99 = np.percentile(spent, [50, 99])
    return (
        found,
        f"fit {fit_s:.0f} s of one core, {p50:.2f} / {p99:.2f} ms p50 / p99 after reading, {size / 1e6:.1f} MB",
        model,
    )


def report(name: str, data: dict[str, list[Case]], embedding: Embedding, judge: Callable[[Case, Value], bool]) -> None:
    found, cost, _ = measured(data, embedding)
    cases = data["test"]
    sizes = " / ".join(str(len(data[part])) for part in ("train", "tune", "test"))
    print(f"\n{name}: {sizes} rows (train / tune / test); {cost}\n")
    kinds = list(dict.fromkeys(case.kind for case in cases))
    rows = []
    for kind in [*kinds, "all"]:
        at = [i for i, case in enumerate(cases) if kind in ("all", case.kind)]
        named = [right_name(cases[i], found[i].value) for i in at]
        right = [judge(cases[i], found[i].value) for i in at]
        shares = " / ".join(f"{100 * coverage([found[i] for i in at], right, e):.1f}" for e in (0.02, 0.05))
        strange = sum(not found[i].familiar for i in at)
        rows.append(
            [
                kind,
                str(len(at)),
                share(sum(named), len(at)),
                share(sum(right), len(at)),
                shares,
                share(strange, len(at)),
            ]
        )
    head = ["requests", "n", "right function or none, % (95%)", "all right, % (95%)", "coverage at 2 / 5% error, %"]
    print(table([*head, "unfamiliar, % (95%)"], rows), flush=True)


def encoder() -> Embedding:
    """The packaged base, exported into a folder that outlives this run; its readings are those that serve."""
    from suffice.specialists.encoder_export import base_folder
    from suffice.specialists.encoder_store import Bases

    bases = Bases(Path(tempfile.gettempdir()) / "suffice-bench-bases")
    return bases.encoder(bases.made(base_folder(None), lambda *_: None))


def main() -> None:
    quick = "--quick" in sys.argv[1:]
    print(f"`{command_line()}`: {machine('numpy', 'scipy')}")
    embedding = encoder() if "--encoder" in sys.argv[1:] else shared_static_embedding()
    sizes = (3_000, 800, 800) if quick else (8_000, 1_500, 2_000)
    if "--bfcl" not in sys.argv[1:]:
        report("MetaTool", metatool(embedding, *sizes), embedding, right_name)
    if "--metatool" not in sys.argv[1:]:
        report("BFCL", bfcl(), embedding, all_right)


if __name__ == "__main__":
    main()
