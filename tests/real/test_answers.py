"""BANKING77, end to end: what the specialist answers on mail that no split has seen. Skips without the data."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

DATA = Path(os.environ.get("SUFFICE_DATA", Path(__file__).parents[3] / "shared" / "data")) / "banking77"

pytestmark = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"BANKING77 is not at {DATA}: set SUFFICE_DATA to the folder of the shared data"
)


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def test_the_certificate_holds_on_the_untouched_half(
    cli: Callable[..., tuple[int, list[Any], str]], written: Callable[..., Path]
) -> None:
    test = read("test.jsonl")
    random.Random(0).shuffle(test)
    half = len(test) // 2
    known, untouched = read("train.jsonl") + test[:half], test[half:]
    file = written([{"input": row["text"], "reference": row["label"]} for row in known])
    code, (found,), _ = cli("learn", "banking", "--data", file, "--max-error", 0.02)
    assert code == 0, found["reasons"]
    assert found["promise"] == "absolute"

    asked = written([{"input": row["text"]} for row in untouched], "ask.jsonl")
    code, answers, _ = cli("answer", "banking", asked)
    assert code == 0
    n = len(untouched)
    right = [line["output"] == row["label"] for line, row in zip(answers, untouched, strict=True)]
    accepted = [line["accepted"] for line in answers]
    wrong = sum(a and not r for a, r in zip(accepted, right, strict=True)) / n
    assert sum(right) / n >= 0.90
    assert sum(accepted) / n >= 0.70
    assert wrong <= 0.02 + 3 * math.sqrt(0.02 * 0.98 / n)
