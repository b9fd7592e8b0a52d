"""The verdict on real tasks: which are for a small model, which lack something, which stay. Skips without the data."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suffice.core.types import Choice, Fields, Policy, Text, ToolCall
from suffice.core.values import Value, plain
from suffice.learn.contracts import Inferred, drift, told
from suffice.learn.verdict import Inputs, Seen, Verdict, judge
from suffice.specialists.linear import LinearFamily

DATA = Path(os.environ.get("SUFFICE_DATA", Path(__file__).parents[3] / "shared" / "data"))

pytestmark = pytest.mark.skipif(
    not (DATA / "banking77").is_dir(), reason=f"no data at {DATA}: set SUFFICE_DATA to the folder of the shared data"
)

GSM8K = "gsm8k_recorded/answers.jsonl"
Rows = list[tuple[str, Value]]


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def banking() -> Rows:
    return [(row["text"], row["label"]) for row in read("banking77/train.jsonl")]


def verdict(rows: Rows) -> tuple[Verdict, Inferred]:
    values = [plain(value) for _, value in rows]
    inferred = told([text for text, _ in rows], values)
    sample = [Seen(text, value) for (text, _), value in zip(rows, values, strict=True)]
    n = len(rows)
    supports = LinearFamily().supports
    return judge(
        sample, inferred, records=n, whole=n, cost_usd=0.002 * n, days=30, policy=Policy(), supports=supports
    ), inferred


def slots(row: dict[str, Any]) -> Value:
    found: dict[str, list[Value]] = {}
    for slot in row["slots"]:
        found.setdefault(slot["slot"], []).append(slot["text"])
    return {name: list(pieces) for name, pieces in found.items()}


def calls(*names: str) -> Rows:
    """The first accepted value of each argument; no call where none is right."""
    rows: Rows = []
    for row in (row for name in names for row in read(f"bfcl/{name}.jsonl")):
        text = "\n".join(message["content"] for message in row["messages"] if message["role"] == "user")
        given: list[Value] = [
            {"name": name, "arguments": {key: values[0] for key, values in arguments.items() if values}}
            for call in row["accepted"] or []
            for name, arguments in call.items()
        ]
        rows.append((text, {"tool_calls": given}))
    return rows


def test_banking77_is_for_a_small_model() -> None:
    verdict(banking()[:10])  # the embedding is read once
    began = time.perf_counter()
    found, inferred = verdict(banking())
    assert time.perf_counter() - began < 8  # 0.6 s on a free core
    assert found.verdict == "small model"
    assert found.verifiable == "labels"
    assert isinstance(inferred.contract, Choice)
    assert len(inferred.contract.values) == 77
    assert inferred.sureness.low > 0.99
    assert found.probe is not None
    assert found.probe.low > 0.65
    assert found.baseline is not None
    assert found.baseline < 0.05
    assert found.distinct.value is not None
    assert found.distinct.value > 1900


def test_shuffled_labels_cannot_be_predicted() -> None:
    rows = banking()
    order = np.random.default_rng(0).permutation(len(rows))
    found, _ = verdict([(text, rows[j][1]) for (text, _), j in zip(rows, order, strict=True)])
    assert found.verdict == "keep on the frontier"
    assert any("Unpredictable" in reason for reason in found.reasons)


def test_twelve_inputs_are_work_for_a_cache() -> None:
    found, _ = verdict([banking()[800 * i] for i in range(12)] * 500)
    assert found.verdict == "not yet"
    assert any("12 distinct inputs answer 100% of it" in reason for reason in found.reasons)


def test_forty_rows_are_too_few() -> None:
    rows = banking()
    found, _ = verdict([rows[i] for i in np.random.default_rng(0).permutation(len(rows))[:40]])
    assert found.verdict == "not yet"
    assert found.needed == 326


def test_snips_intents_and_slots_are_for_a_small_model() -> None:
    intents, _ = verdict([(row["text"], row["intent"]) for row in read("snips/train.jsonl")])
    assert intents.verdict == "small model"
    assert intents.coverage is not None
    assert intents.coverage.low > 0.85
    pieces, inferred = verdict([(row["text"], slots(row)) for row in read("snips/train.jsonl")])
    assert pieces.verdict == "small model"
    assert pieces.verifiable == "schema"
    assert isinstance(inferred.contract, Fields)
    assert inferred.sureness.low > 0.9


def test_restaurant8k_slots_are_for_a_small_model() -> None:
    found, _ = verdict([(row["text"], row["slots"]) for row in read("restaurant8k/train.jsonl")])
    assert (found.verdict, found.verifiable) == ("small model", "pieces of the input")
    assert found.distinct.value is not None
    assert found.distinct.value < 1700  # many a "yes please, for 4"


def test_metatool_names_are_for_a_small_model() -> None:
    rows: Rows = [
        (row["text"], {"tool_calls": [{"name": row["tool"], "arguments": {}}]})
        for row in read("metatool/queries.jsonl")
    ]
    found, inferred = verdict(rows)
    assert (found.verdict, found.verifiable) == ("small model", "tool calls")
    assert isinstance(inferred.contract, ToolCall)
    assert len(inferred.contract.tools) > 190


def test_bfcl_calls_are_verifiable_and_wait_for_a_family() -> None:
    found, inferred = verdict(calls("live_simple", "live_multiple"))
    assert (found.verdict, found.verifiable) == ("not yet", "tool calls")
    assert inferred.sureness.high < 0.8  # most tools are called once or twice


def test_moderation_flags_are_a_schema() -> None:
    found, inferred = verdict([(row["text"], json.dumps(row["labels"])) for row in read("moderation/samples.jsonl")])
    assert isinstance(inferred.contract, Fields)
    assert all(contract == Choice((0, 1, None)) for _, contract in inferred.contract.fields)
    assert found.verifiable == "schema"
    assert found.verdict == "not yet"  # eight flags at once, of which some are unknown: the surest are not sure enough


def test_worked_answers_to_maths_questions_stay_on_the_frontier() -> None:
    for model in ("gpt-4-1106", "mixtral-8x7b"):
        found, inferred = verdict([(row["question"], row[model]["answer"]) for row in read(GSM8K)])
        assert found.verdict == "keep on the frontier"
        assert found.verifiable == "no"
        assert inferred.contract == Text()
        assert "nothing to check them by" in found.reasons[0]


def test_results_of_maths_questions_are_for_no_small_model() -> None:
    for model in ("gpt-4-1106", "mixtral-8x7b"):
        read_off = [(row, re.search(r"####\s*\$?(\d[\d,]*)", row[model]["answer"])) for row in read(GSM8K)]
        results = [(row["question"], int(found[1].replace(",", ""))) for row, found in read_off if found]
        numbers: Rows = list(results)
        texts: Rows = [(text, str(number)) for text, number in results]
        for rows in (numbers, texts):
            found, _ = verdict(rows)
            if model == "gpt-4-1106":
                assert found.verdict == "keep on the frontier"
                assert "worked out" in found.reasons[0]
            assert found.verdict != "small model"


def test_a_noisy_frontier_leaves_less_to_answer() -> None:
    right, _ = verdict(banking())
    noisy, _ = verdict([(row["text"], row["answer"]) for row in read("banking77/recorded-qwen3-30b-a3b.jsonl")])
    assert right.coverage is not None
    assert noisy.coverage is not None
    assert (noisy.coverage.value or 0) < (right.coverage.value or 0)


def test_real_questions_are_hardly_ever_near_copies() -> None:
    texts = [text for text, _ in banking()][::5]
    inputs = Inputs(texts)
    assert len(set(inputs.clusters.tolist())) > 0.95 * len(texts)


def test_drift_of_another_frontier() -> None:
    contract = told([text for text, _ in banking()], [value for _, value in banking()]).contract
    rows = read("banking77/recorded-qwen3-30b-a3b.jsonl")
    first = drift(contract, [row["text"] for row in rows], [row["answer"] for row in rows])[0]
    assert (first.where, first.value) == ("", "oos")
    same = read("banking77/test.jsonl")
    assert drift(contract, [row["text"] for row in same], [row["label"] for row in same]) == []
