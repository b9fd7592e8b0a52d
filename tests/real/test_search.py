"""The search as a user meets it: the whole table, a specialist slower than its budget, a run that was killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from suffice.store import releases
from suffice.store.home import Home

Cli = Callable[..., tuple[int, list[Any], str]]
Write = Callable[..., Path]

WORDS = {
    "billing": ["invoice", "charged", "refund", "payment", "price", "card"],
    "tech": ["crash", "error", "login", "slow", "update", "screen"],
    "shipping": ["parcel", "courier", "late", "address", "tracking", "delivery"],
}
FILLER = ["hello", "please", "today", "again", "team", "my", "still", "need", "help", "with", "the", "about"]


@pytest.fixture
def mails(written: Write) -> Path:
    dice = random.Random(5)
    rows = []
    for _ in range(900):
        label = dice.choice(sorted(WORDS))
        words = dice.choices(WORDS[label], k=3) + dice.choices(FILLER, k=4)
        rows.append({"input": " ".join(dice.sample(words, 7)), "output": label})
    return written(rows)


def test_the_whole_table_and_the_same_release(cli: Cli, mails: Path) -> None:
    code, (whole,), _ = cli("learn", "t", "--data", mails, "--recipe", "linear", "--all")
    assert code == 0
    first, second = whole["candidates"]
    assert (first["verdict"], first["reason"]) == ("chosen", "the smallest that reaches 80%")
    assert (second["verdict"], second["reason"]) == ("sufficient", "linear is smaller")
    assert all(
        row["size_mb"] > 0 and row["latency_ms"]["p99"] >= row["latency_ms"]["p50"] > 0 for row in (first, second)
    )
    _, (usual,), _ = cli("learn", "t", "--data", mails, "--recipe", "linear", home="other")
    assert usual["digest"] == whole["digest"]
    assert usual["candidates"][1]["reason"] == "a smaller one suffices"


def test_a_specialist_slower_than_its_budget_is_explained_and_costs_nothing(
    cli: Cli, mails: Path, tmp_path: Path
) -> None:
    wishes = tmp_path / "wishes.toml"
    wishes.write_text("[policy]\nmax_latency_ms = 0.001\n")
    code, (found,), _ = cli("learn", "t", "--data", mails, "--recipe", "linear", "--config", wishes)
    assert (code, found["release"]) == (1, None)
    assert all("too slow: p99 of" in reason and "where 0.001 ms is the budget" in reason for reason in found["reasons"])
    assert releases.attempts(Home(tmp_path / "home"), "t") == 0


def test_a_search_that_was_killed_goes_on(cli: Cli, mails: Path, tmp_path: Path) -> None:
    """Killed once the first candidate is fitted: it is not fitted again, and the release is the same."""
    asked = ["learn", "t", "--data", str(mails), "--recipe", "linear", "--all"]
    run = subprocess.Popen(
        [sys.executable, "-m", "suffice.cli.main", *asked, "--home", str(tmp_path / "home")],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip
    fits = tmp_path / "home" / "fits" / "t"
    while not (kept := list(fits.glob("*/kept/fit.json"))):
        assert run.poll() is None, run.communicate()
        time.sleep(0.005)
    run.kill()
    run.communicate()
    fit_s = json.loads(kept[0].read_text())["fit_s"]

    code, (found,), _ = cli(*asked)
    assert code == 0
    assert found["candidates"][0]["fit_s"] == round(fit_s, 3)
    assert not fits.exists()  # the run has ended: nothing is left behind
    _, (whole,), _ = cli(*asked, home="uninterrupted")
    assert found["digest"] == whole["digest"]
