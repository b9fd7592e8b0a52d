"""`suffice dataset` over real homes: what it shows, compares and exports, and that certificates stay honest."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from suffice.learn import curate, datasets
from suffice.store import datasets as kept
from suffice.store import records, releases
from suffice.store.home import Home
from suffice.store.records import Row, Trusted

Cli = Callable[..., tuple[int, list[Any], str]]

TOPICS = {
    "billing": ["invoice", "charged", "refund", "payment", "price", "card"],
    "tech": ["crash", "error", "login", "slow", "update", "screen"],
    "shipping": ["parcel", "courier", "late", "address", "tracking", "delivery"],
}
FILLER = ["hello", "please", "today", "again", "team", "my", "still", "need", "help", "with", "the", "about"]
KEY = "sk-proj-Ab3dE6gH9jKlMn0pQrStUvWx12345"
SYSTEM = "Route the mail to billing, tech or shipping."


def recorded(n: int, start: int = 0) -> list[Row]:
    """Mails as a gateway records them; every hundredth is odd in one way or another."""
    dice = random.Random(start)
    rows = []
    for i in range(start, start + n):
        label = dice.choice(sorted(TOPICS))
        words = dice.choices(TOPICS[label], k=3) + dice.choices(FILLER, k=5)
        text, finish, content = " ".join(words), "stop", label
        match i % 100:
            case 1:
                text = "test"
            case 2:
                text += f" my key is {KEY}"
            case 3:
                finish = "length"
            case 4:
                content = "I'm sorry, but I can't help with that."
            case 5:
                content = f"{label} {KEY}"
        messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
        answer = {"message": {"role": "assistant", "content": content}, "finish_reason": finish, "index": 0}
        rows.append(
            Row(
                id=f"rec_{i:06d}",
                at=1e9 + i,
                source="live",
                task="t",
                model="m",
                upstream="frontier",
                route="frontier",
                status=200,
                group=f"customer {i % 400}" if i % 10 == 0 else None,
                request=json.dumps({"model": "m", "messages": messages}).encode(),
                answer=json.dumps({"id": f"c{i}", "choices": [answer]}).encode(),
            )
        )
    return rows


@pytest.fixture
def home(tmp_path: Path) -> Home:
    made = Home(tmp_path / "home")
    releases.ensure_task(made, "t")
    records.import_rows(made, recorded(3000), [Trusted("rec_000010", "human", "tech")])
    return made


def shown(cli: Cli, *options: object) -> dict[str, Any]:
    code, (document,), told = cli("dataset", "t", *options)
    assert code == 0, told
    found: dict[str, Any] = document
    return found


def exported(cli: Cli, to: Path, form: str, *options: object) -> dict[str, Any]:
    found: dict[str, Any] = shown(cli, "--export", form, "--to", to, *options)["export"]
    return found


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def test_what_the_next_run_would_use(cli: Cli, home: Home) -> None:
    found = shown(cli, "--dropped", "--list")
    assert found["digest"] and found["change"] is None
    assert sum(found["rows"].values()) == len(found["list"])
    assert found["provenance"]["source"] == {"live": len(found["list"])}
    assert {row["split"] for row in found["list"]} == {"train", "tune", "calibration", "test"}
    names = {reason.partition(":")[0] for reason in found["dropped"]}
    assert {"key", "test", "truncated", "declined"} <= names
    assert {reason: len(ids) for reason, ids in found["records"].items()} == found["dropped"]
    listed = {row["record"] for row in found["list"]}
    assert not any(listed & set(ids) for ids in found["records"].values())
    assert releases.get_splits(home, "t") == {}, "to look costs nothing"
    assert releases.attempts(home, "t") == 0
    assert shown(cli)["digest"] == found["digest"]
    assert list(shown(cli, "--dropped", "TEST TRAFFIC")["records"]) == ["test: it is test traffic by its words"]
    assert cli("dataset", "t", "--dropped", "no such reason")[0] == 2


def test_no_row_no_group_and_no_filter_leaks_between_the_splits(cli: Cli, home: Home) -> None:
    found = shown(cli, "--list")["list"]
    places: dict[str, set[str]] = {}
    for row in found:
        places.setdefault(row["group"] or row["record"], set()).add(row["split"])
    assert all(len(there) == 1 for there in places.values())
    proof = [int(row["record"][4:]) % 100 for row in found if row["split"] in ("calibration", "test")]
    train = [int(row["record"][4:]) % 100 for row in found if row["split"] == "train"]
    for odd in (1, 2, 3, 4, 5):
        assert odd in proof, "odd requests are traffic: they stay where the proof is made"
        assert odd not in train


def test_a_run_keeps_its_dataset_and_the_next_one_says_what_changed(cli: Cli, home: Home) -> None:
    before = shown(cli)
    code, (run,), _ = cli("learn", "t", "--max-error", 0.08)
    assert code == 0, run["reasons"]
    assert run["dataset"] == before["digest"] == kept.manifests(home, "t")[0].digest
    stored = datasets.kept(home, "t", run["dataset"])
    assert {name: sum(line.split == name for line in stored.lines) for name in run["splits"]} == run["splits"]
    records.import_rows(home, recorded(300, 3000), [Trusted("rec_000020", "human", "tech")])
    change = shown(cli, "--diff", run["dataset"][:12])["change"]
    assert change["told"].startswith(f"+{len(change['added'])} -")
    assert len(change["added"]) > 250
    assert "rec_000020" in change["relabelled"] or not any(line.record == "rec_000020" for line in stored.lines)
    assert {old for _, old, _ in change["moved"]} <= {"test", "train", "tune", "calibration"}
    newest = kept.manifests(home, "t")[0].digest
    assert shown(cli, "--diff", run["dataset"], newest)["change"] == change
    assert cli("dataset", "t", "--diff", "nope")[0] == 2


def test_exports_hold_train_and_tune_only_and_no_key(cli: Cli, home: Home, tmp_path: Path) -> None:
    proof = {row["record"] for row in shown(cli, "--list")["list"] if row["split"] in ("calibration", "test")}
    texts = {
        json.loads(row.request or b"")["messages"][1]["content"]
        for row, _ in records.query(home, task="t")
        if row.id in proof
    }
    counts = set()
    for form in ("openai", "trl", "axolotl", "llama-factory"):
        found = exported(cli, tmp_path / form, form)
        counts.add((found["rows"]["train"], found["rows"]["tune"]))
        for split in ("train", "tune"):
            rows = lines(tmp_path / form / f"{split}.jsonl")
            assert len(rows) == found["rows"][split] > 0
            raw = json.dumps(rows)
            assert KEY not in raw and "sorry" not in raw
            asked = {(row.get("messages") or row["prompt"])[1]["content"] for row in rows}
            assert len(asked & texts) < 5, "the same words by chance only"
            assert all((row.get("messages") or row["prompt"])[0]["content"] == SYSTEM for row in rows)
    assert len(counts) == 1, "every format has the same rows"
    placed = releases.get_splits(home, "t")
    assert set(placed.values()) == {"train", "tune"}
    assert not placed.keys() & proof
    again = {row["record"]: row["split"] for row in shown(cli, "--list")["list"]}
    assert all(again[name] == split for name, split in placed.items() if name in again), "what was shown stays"
    assert cli("dataset", "t", "--export", "trl", "--to", tmp_path / "trl")[0] == 2, "not into a folder in use"


def test_parquet_tells_where_each_row_came_from(cli: Cli, home: Home, tmp_path: Path) -> None:
    found = exported(cli, tmp_path / "out", "parquet")
    table = pq.read_table(tmp_path / "out" / "train.parquet").to_pylist()
    assert len(table) == found["rows"]["train"]
    by_id = {row["id"]: row for row in table}
    one = next(iter(by_id.values()))
    assert (one["split"], one["source"], one["reference_kind"], one["slices"]) == ("train", "live", "frontier", [])
    assert json.loads(one["messages"])[-1] == {"role": "assistant", "content": json.loads(one["target"])}
    assert one["input"] == json.loads(one["messages"])[1]["content"]
    everything = {**by_id, **{r["id"]: r for r in pq.read_table(tmp_path / "out" / "tune.parquet").to_pylist()}}
    if corrected := everything.get("rec_000010"):
        assert (json.loads(corrected["target"]), corrected["reference_kind"]) == ("tech", "human")
        assert json.loads(corrected["messages"])[-1]["content"] == "tech"


def test_what_is_exported_of_the_proof_trains_from_then_on(cli: Cli, home: Home, tmp_path: Path) -> None:
    before = shown(cli)["rows"]
    found = exported(cli, tmp_path / "out", "parquet", "--split", "calibration")
    assert found["read"] >= before["calibration"] > 0
    assert found["left_out"] == {"it holds a key": before["calibration"] - found["rows"]["calibration"]}
    read = {row["id"] for row in pq.read_table(tmp_path / "out" / "calibration.parquet").to_pylist()}
    assert {releases.get_splits(home, "t")[name] for name in read} == {"train"}
    after = {row["record"]: row["split"] for row in shown(cli, "--list")["list"]}
    assert {after[name] for name in read if name in after} == {"train"}
    code, _, _ = cli("learn", "t", "--max-error", 0.08)
    known = releases.get_splits(home, "t")
    assert {known[name] for name in read} == {"train"}
    assert code in (0, 1)


def test_what_is_exported_of_one_task_certifies_in_none(cli: Cli, home: Home, tmp_path: Path) -> None:
    """A part that was split off, exported and merged back."""
    _, (planned,), _ = cli("dataset", "t", "--list")
    trained = [row["record"] for row in planned["list"] if row["split"] == "train"]
    releases.put_splits(home, "whole", {trained[0]: "calibration", trained[1]: "tune", "rec_other": "test"})
    cli("dataset", "t", "--export", "trl", "--to", tmp_path / "out")
    assert releases.get_splits(home, "whole") == {trained[0]: "train", trained[1]: "tune", "rec_other": "test"}


def test_what_cannot_be(cli: Cli, home: Home, tmp_path: Path) -> None:
    for wrong in (
        ["none"], ["t@1"], ["t", "--export", "trl"], ["t", "--to", tmp_path / "x"], ["t", "--split", "train"],
        ["t", "digest"], ["t", "--diff", "a", "b", "c"], ["t", "--export", "csv", "--to", tmp_path / "x"],
    ):  # fmt: skip
        assert cli("dataset", *wrong)[0] == 2, wrong
    releases.ensure_task(home, "empty")
    code, _, told = cli("dataset", "empty")
    assert (code, told) == (2, "suffice: task 'empty' has no records to learn from\n")


def test_too_few_rows_are_shown_with_what_they_lack(cli: Cli, tmp_path: Path) -> None:
    small = Home(tmp_path / "home")
    releases.ensure_task(small, "t")
    records.import_rows(small, recorded(60), [])
    found = shown(cli)
    assert "too few to certify" in found["short"]
    assert min(found["rows"].values()) > 0


def test_only_the_newest_records_take_part_and_what_is_placed_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(curate, "MOST", 1000)
    home = Home(tmp_path)
    records.import_rows(home, recorded(1500), [])
    releases.put_splits(home, "t", {"rec_000001": "calibration", "rec_001400": "test"})
    found = datasets.curated(home, "t")
    assert len(found.dropped[curate.OLDER]) == 500
    assert {example.id for example in found.examples} == {f"rec_{i:06d}" for i in range(500, 1500)}
    assert releases.get_splits(home, "t") == {"rec_000001": "calibration", "rec_001400": "test"}
