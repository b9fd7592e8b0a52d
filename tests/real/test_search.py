"""The search as a user meets it: the whole table, a specialist slower than its budget, a run that was killed."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from suffice.core.protocols import Progress
from suffice.core.types import OutputContract, Policy, Prediction, Recipe, TrainSet, TuneSet
from suffice.learn import pipeline
from suffice.store import records, releases
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


def test_a_specialist_slower_than_its_budget_is_explained_and_costs_nothing(
    cli: Cli, mails: Path, tmp_path: Path
) -> None:
    wishes = tmp_path / "wishes.toml"
    wishes.write_text("[policy]\nmax_latency_ms = 0.001\n")
    code, (found,), _ = cli("learn", "t", "--data", mails, "--recipe", "linear", "--config", wishes)
    assert (code, found["release"]) == (1, None)
    assert all("too slow: p99 of" in reason and "where 0.001 ms is the budget" in reason for reason in found["reasons"])
    assert releases.attempts(Home(tmp_path / "home"), "t") == 0


def test_a_search_that_was_killed_goes_on_to_the_same_release(cli: Cli, mails: Path, tmp_path: Path) -> None:
    """Killed once the first of all candidates is fitted: it is not fitted again, and no table changes the release."""
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
    first, second = found["candidates"]
    assert first["fit_s"] == round(fit_s, 3)
    assert (first["verdict"], first["reason"]) == ("chosen", "the smallest that reaches 80%")
    assert (second["verdict"], second["reason"]) == ("sufficient", "linear suffices")
    for row in (first, second):
        assert row["size_mb"] > 0
        assert row["latency_ms"]["p99"] >= row["latency_ms"]["p50"] > 0
    assert not fits.exists()  # the run has ended: nothing is left behind

    _, (usual,), _ = cli(*asked[:-1], home="uninterrupted")
    assert usual["digest"] == found["digest"]
    assert usual["candidates"][1]["reason"] == "a smaller one suffices"


# ---------------------------------------------------------------------------------------------- one attempt, one model


class Voting:
    """A family whose words vote; one with another `mood` comes to another model on the same data."""

    name = "voting"

    def __init__(self, mood: float = 1.0, votes: dict[str, dict[str, float]] | None = None) -> None:
        self.mood, self.votes = mood, votes or {}

    def supports(self, contract: OutputContract) -> str | None:
        return None

    def recipes(self, seed: int) -> list[Recipe]:
        return [Recipe(family=self.name, seed=seed)]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> Voting:
        votes: defaultdict[str, Counter[str]] = defaultdict(Counter)
        for example in train:
            for word in example.input.split():
                votes[word][str(example.target)] += 1
        return Voting(self.mood, {w: {k: self.mood * n for k, n in found.items()} for w, found in votes.items()})

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        found = []
        for text in inputs:
            sums = {label: sum(self.votes.get(w, {}).get(label, 0) for w in text.split()) for label in WORDS}
            first = max(sums, key=lambda label: sums[label])
            rest = max(sums[label] for label in WORDS if label != first)
            found.append(Prediction(value=first, score=(sums[first] - rest) / (1 + sums[first] + rest)))
        return found

    def save(self, folder: Path) -> None:
        (folder / "votes.json").write_text(json.dumps([self.mood, self.votes]))

    def load(self, folder: Path) -> Voting:
        return Voting(*json.loads((folder / "votes.json").read_text()))


def test_an_attempt_goes_on_with_its_own_model_only(tmp_path: Path) -> None:
    """Labels of one calibration cost nothing as long as the model is the same one; another is another look."""
    home, dice = Home(tmp_path), random.Random(5)
    releases.ensure_task(home, "t")
    rows, truths = [], {}
    for i in range(3_000):
        truth = dice.choice(sorted(WORDS))
        said = dice.choice(sorted(WORDS)) if dice.random() < 0.1 else truth
        text = " ".join(dice.sample([*dice.choices(WORDS[truth], k=3), *dice.choices(FILLER, k=4)], 7))
        truths[f"r{i:04}"] = truth
        rows.append(
            records.Row(
                id=f"r{i:04}", at=float(i), source="import", dialect="short", task="t", route="frontier", status=200,
                input=text, answer=json.dumps(said).encode(),
            )
        )  # fmt: skip
    records.import_rows(home, rows, [])

    def learned(mood: float) -> dict[str, Any]:
        settings = pipeline.Settings(policy=Policy(min_coverage=0.9))
        return pipeline.learn(home, "t", [Voting(mood)], settings, clock=lambda: 0.0, progress=lambda *_: None).document

    def label(record: str) -> None:
        records.add_trusted(home, records.Trusted(record, "human", truths[record]))

    assert learned(1.0)["attempt"] == 1
    label(next(name for name, place in releases.get_splits(home, "t").items() if place == "train"))
    signed = learned(1.0)
    assert (signed["promise"], signed["attempt"]) == ("signed", 2)
    for mood, attempt in ((1.0, 2), (0.5, 3)):
        label(signed["worth_labelling"].pop()["record"])
        found = learned(mood)
        assert (found["attempt"], releases.attempts(home, "t")) == (attempt, attempt)
        assert any("another look" in note for note in found["notes"]) == (attempt == 3)
