"""Functions that requests offer, on the Berkeley and MetaTool data: what is attained at least. Skips without them."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suffice.core.offered import with_tools
from suffice.core.types import Example, Recipe, ToolCall, TrainSet, TuneSet
from suffice.core.values import Value, calls_of
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.offered_fit import fit
from suffice.specialists.schemas import valid

DATA = Path(os.environ.get("SUFFICE_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    not (DATA / "bfcl").is_dir(), reason=f"no data at {DATA}: set SUFFICE_DATA to the folder of the shared data"
)


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def first(accepted: Any) -> Value:
    value = accepted[0] if isinstance(accepted, list) and accepted else None
    return None if value == "" or isinstance(value, (dict, list)) else value


def example(row: dict[str, Any], number: int) -> Example:
    text = "\n".join(message["content"] for message in row["messages"] if message["role"] == "user")
    name, given = next(iter(row["accepted"][0].items()))
    arguments: dict[str, Value] = {key: one for key, values in given.items() if (one := first(values)) is not None}
    asked = with_tools(text, json.dumps(row["functions"]))
    value: Value = {"tool_calls": [{"name": name, "arguments": arguments}]}
    return Example(id=str(number), input=asked, output=value, has_output=True)


def test_functions_never_seen_are_told_apart_and_their_calls_keep_to_the_schema() -> None:
    rows = read("bfcl/multiple.jsonl")
    examples = [example(row, number) for number, row in enumerate(rows)]
    called = [next(iter(row["accepted"][0])) for row in rows]
    unseen = [i for i, name in enumerate(called) if name not in called[:120]][-60:]
    model = fit(
        Recipe(family="linear"),
        ToolCall((), offered=True),
        TrainSet(examples[:120]),
        TuneSet([]),
        shared_static_embedding(),
        lambda *_: None,
    )
    found = model.predict([examples[i].input for i in unseen])
    right = []
    for i, prediction in zip(unseen, found, strict=True):
        calls = calls_of(prediction.value) or []
        right.append(bool(calls) and calls[0]["name"] == called[i])
        schema = next(f["parameters"] for f in rows[i]["functions"] if calls and f["name"] == calls[0]["name"])
        assert prediction.score == 0.0 or valid(calls[0]["arguments"], schema)
    assert len(right) >= 50 and float(np.mean(right)) > 0.9


def test_tools_never_seen_are_chosen_by_their_descriptions_alone() -> None:
    dice = random.Random(0)
    told = {row["name"]: row["description"] for row in read("metatool/tools.jsonl")}
    rows = [row for row in read("metatool/queries.jsonl") if row["tool"] in told]
    dice.shuffle(rows)
    names = sorted({row["tool"] for row in rows})
    unseen = set(dice.sample(names, len(names) // 5))

    def made(chosen: list[dict[str, Any]], allowed: list[str]) -> list[Example]:
        examples = []
        for number, row in enumerate(chosen):
            shown = [row["tool"], *dice.sample([name for name in allowed if name != row["tool"]], 9)]
            dice.shuffle(shown)
            tools = json.dumps([{"name": name, "description": told[name]} for name in shown])
            value: Value = {"tool_calls": [{"name": row["tool"], "arguments": {}}]}
            examples.append(
                Example(id=str(number), input=with_tools(row["text"], tools), output=value, has_output=True)
            )
        return examples

    train = made(
        [row for row in rows if row["tool"] not in unseen][:400], [name for name in names if name not in unseen]
    )
    test = made([row for row in rows if row["tool"] in unseen][:300], names)
    model = fit(
        Recipe(family="linear"),
        ToolCall((), offered=True),
        TrainSet(train),
        TuneSet([]),
        shared_static_embedding(),
        lambda *_: None,
    )
    right = [p.value == row.output for p, row in zip(model.predict([row.input for row in test]), test, strict=True)]
    assert float(np.mean(right)) > 0.7
