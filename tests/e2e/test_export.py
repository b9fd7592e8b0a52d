"""An exported release: the server's own command, the bare runner, Node and Chromium say the same, without a network."""

from __future__ import annotations

import importlib
import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="an export needs onnx: `make encoders`")
pytest.importorskip("onnxruntime", reason="an export needs onnxruntime: `make encoders`")

from export_support import CHROMIUM, ODD, in_chromium, odd_texts, page_of

NODE_MODULES = Path(__file__).parents[1] / "clients" / "node" / "node_modules"
ORT = NODE_MODULES / "onnxruntime-web"
NEEDED = ("onnxruntime", "tokenizers", "numpy")
WORDS = {
    "refund": ("my money has not come back", "please return what I paid", "I want a refund for it"),
    "delivery": ("where is my parcel", "the box has not arrived", "when will it be delivered"),
    "account": ("I cannot log in", "my password is wrong", "please close my account"),
    "other": ("hello there", "what a day", "sing me a song"),
}


def rows(n: int, seed: int) -> list[dict[str, str]]:
    dice = random.Random(seed)
    found = []
    for at in range(n):
        label = dice.choice(sorted(WORDS))
        wrong = dice.random() < 0.02
        said = f"{dice.choice(WORDS[label])} {dice.choice(('now', 'today', 'since Monday', ''))} order {at * 7}"
        found.append({"input": said.strip(), "output": dice.choice(sorted(WORDS)) if wrong else label})
    return found


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A home with a release of the task triage, and the folder that it was exported to."""
    place = tmp_path_factory.mktemp("export")
    data = place / "data.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows(2_000, 0)))
    learned = suffice("learn", "triage", "--data", str(data), "--recipe", "linear", "--home", str(place / "home"),
                      "--max-error", "0.05")  # fmt: skip
    assert learned.returncode == 0, learned.stderr
    form = ["--as", "browser", "--ort", str(ORT)] if ORT.is_dir() else []
    made = suffice("export", "triage", "--to", str(place / "out"), "--home", str(place / "home"), "--json", *form)
    assert made.returncode == 0, made.stderr
    told = json.loads(made.stdout)
    assert told["inputs"] == 1_000 and told["release"] == "triage@1" and told["log_odds"] < told["slack"]
    assert not list(place.glob(".out*"))
    return place / "home", place / "out"


def suffice(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).parent / "suffice"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **environment})


def asked() -> list[str]:
    return [row["input"] for row in rows(700, 1)] + ODD + odd_texts(287, 2)


def as_lines(texts: Sequence[str]) -> str:
    return "".join(json.dumps({"input": text}) + "\n" for text in texts)


def the_same(found: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for text, one, other in zip(asked(), found, wanted, strict=True):
        assert [one[key] for key in ("output", "accepted", "reason")] == [
            other[key] for key in ("output", "accepted", "reason")
        ], text[:60]


@pytest.fixture(scope="module")
def wanted(exported: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What `suffice answer` says of 1,000 texts."""
    file = tmp_path_factory.mktemp("asked") / "asked.jsonl"
    file.write_text(as_lines(asked()))
    done = suffice("answer", "triage", str(file), "--home", str(exported[0]))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 1_000 and 0.3 < sum(line["accepted"] for line in found) / 1_000 < 0.9
    return found


def test_the_bare_runner_needs_three_packages_and_says_the_same(
    exported: tuple[Path, Path], wanted: list[dict[str, Any]], tmp_path: Path
) -> None:
    for name in NEEDED:
        package = Path(importlib.import_module(name).__path__[0])
        for folder in (package, package.with_name(f"{name}.libs")):
            if folder.is_dir():
                (tmp_path / folder.name).symlink_to(folder)
    # Without the site's packages: there is nothing else to import.
    command = [sys.executable, "-S", str(exported[1] / "run.py")]
    environment = {"PYTHONPATH": str(tmp_path), "PATH": "/nowhere"}
    done = subprocess.run(
        command, input=as_lines(asked()), capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
    the_same([json.loads(line) for line in done.stdout.splitlines()], wanted)


@pytest.mark.parametrize("line", ['{"inptu": "x"}', "no json", '{"input": 3}', "\xff"])
def test_a_bad_line_is_named(exported: tuple[Path, Path], line: str) -> None:
    command = [sys.executable, str(exported[1] / "run.py")]
    lines = as_lines(["fine"]).encode() + line.encode("latin-1") + b"\n"
    environment = {**os.environ, "PYTHONIOENCODING": "cp1252"}
    done = subprocess.run(command, input=lines, capture_output=True, env=environment, check=False)
    assert done.returncode == 1 and len(done.stdout.splitlines()) == 1
    assert done.stderr.decode().strip() == 'line 2 of the standard input is not {"input": TEXT}'


@pytest.mark.skipif(shutil.which("node") is None, reason="Node is not installed")
@pytest.mark.skipif(not ORT.is_dir(), reason="onnxruntime-web is not installed: `make clients`")
def test_under_node(exported: tuple[Path, Path], wanted: list[dict[str, Any]]) -> None:
    done = subprocess.run(
        ["node", str(exported[1] / "run.mjs")], input=as_lines(asked()), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    the_same([json.loads(line) for line in done.stdout.splitlines()], wanted)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.skipif(not ORT.is_dir(), reason="onnxruntime-web is not installed: `make clients`")
def test_in_a_page_without_a_network(exported: tuple[Path, Path], wanted: list[dict[str, Any]]) -> None:
    told = in_chromium(exported[1], asked())
    assert "error" not in told, told
    the_same(told["answers"], wanted)
    page = page_of(exported[1])
    assert "triage@1" in page and "Everything runs in this page" in page


def test_the_folder_tells_what_is_proven_and_quotes_nobody(exported: tuple[Path, Path]) -> None:
    card = (exported[1] / "README.md").read_text()
    assert "With a confidence of 95%" in card and "at most 5.00%" in card and "held-out traffic" in card
    assert "compared" in card or "same decision" in card
    held = b"".join(
        path.read_bytes() for path in exported[1].rglob("*") if path.is_file() and path.parent.name != "ort"
    )
    for row in rows(2_000, 0)[::20]:
        assert row["input"].encode() not in held


def test_what_decides_otherwise_is_not_exported(exported: tuple[Path, Path], tmp_path: Path) -> None:
    """A release whose files and whose runner differ: here by a runner that was tampered with."""
    from suffice.specialists.exporting import package

    place = Path(package.__file__).parent
    shutil.copytree(place.parents[1], tmp_path / "code" / "suffice")
    runner = tmp_path / "code" / "suffice" / "specialists" / "exporting" / "runner" / "run.py"
    runner.write_text(runner.read_text().replace('not score >= settings["cutoff"]', "score < 0.999999"))
    command = [sys.executable, "-m", "suffice.cli.main", "export", "triage", "--home", str(exported[0]), "--to",
               str(tmp_path / "out")]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(tmp_path / "code")}
    )
    assert done.returncode == 1 and "triage@1 is not exported" in done.stderr and "Traceback" not in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["code"]


def test_a_disk_that_is_full_leaves_nothing(exported: tuple[Path, Path], tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk."""
    command = f"ulimit -f 1000; exec {Path(sys.executable).parent / 'suffice'} export triage --home {exported[0]}"
    done = subprocess.run(
        ["bash", "-c", f"{command} --to {tmp_path / 'out'}"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
    assert not list(tmp_path.iterdir())
