"""Learning: the same data and seed give the same release; interrupted, the previous one stays."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import subprocess
import time
from pathlib import Path

import pytest
from e2e_support import SUFFICE, suffice, told

from suffice.demo.workload import generate


def test_the_same_data_and_seed_give_the_same_digest(labelled: Path, learned_home: Path, tmp_path: Path) -> None:
    first = sqlite3.connect(learned_home / "suffice.db").execute("SELECT digest FROM releases").fetchone()[0]
    elsewhere = tmp_path / "renamed.jsonl"
    shutil.copy(labelled, elsewhere)
    second = told("learn", "triage", "--data", elsewhere, "--home", tmp_path / "h", "--max-error", "0.05")
    assert second["digest"] == first
    again = told("learn", "triage", "--home", tmp_path / "h", "--max-error", "0.05")
    assert (again["release"], again["digest"], again["attempt"]) == ("triage@1", first, 1), (
        "nothing new, nothing charged"
    )


@pytest.mark.parametrize(("number", "after_s"), [(signal.SIGINT, 2.0), (signal.SIGKILL, 2.0)])
def test_interrupted_learning_leaves_the_previous_release(
    learned: Path, tmp_path: Path, number: signal.Signals, after_s: float
) -> None:
    told("stage", "triage", "live", "--home", learned)
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"input": t.text, "reference": t.truth}) + "\n" for t in generate(4000, 6)))
    command = [*SUFFICE, "learn", "triage", "--data", str(more), "--home", str(learned), "--max-error", "0.06"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(after_s)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=20)
    if number == signal.SIGINT:
        assert (
            process.returncode == 130
            and b"Traceback" not in stderr
            and stderr.decode().split("\n")[-2] == "suffice: interrupted"
        )
    shown = {task["name"]: task for task in _tasks(learned)}["triage"]
    assert shown["stage"] == "live" and "1" in str(shown["release"])
    answered = suffice("answer", "triage", "-", "--home", learned, stdin=b'{"input":"where is my parcel?"}')
    assert answered.returncode == 0
    began = time.monotonic()
    document = told("learn", "triage", "--data", more, "--home", learned, "--max-error", "0.06")
    assert document["release"] == "triage@2", (document["reasons"], time.monotonic() - began)


def _tasks(home: Path) -> list[dict[str, object]]:
    document = told("tasks", "--home", home)
    found: list[dict[str, object]] = document["tasks"] if isinstance(document, dict) else document
    return found
