"""An exported release against the server's own answers: decisions that agree, milliseconds on one core, bytes.

`python bench/export.py [--rows 10003] [--labels 77]` learns BANKING77 (../shared/data, or SUFFICE_DATA), exports it in
each form, and answers 1,000 texts, 300 of them of characters out of all of Unicode: by `suffice answer`, by the runner
in a new environment with its packages alone (pip needs a network for that), and in Chromium.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import venv
from collections import Counter
from pathlib import Path
from time import perf_counter
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "e2e"))

from export_support import CHROMIUM, ODD, in_chromium, odd_texts

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SUFFICE_DATA", ROOT.parent / "shared" / "data")) / "banking77"
ORT = ROOT / "tests" / "clients" / "node" / "node_modules" / "onnxruntime-web"
SUFFICE = [sys.executable, "-m", "suffice.cli.main"]
_TIMED = """
import json, sys, time
from run import Specialist
texts = json.load(open(sys.argv[1]))
specialist = Specialist()
specialist.answer(texts[0])
began = time.perf_counter()
said = [specialist.answer(text) for text in texts]
print(json.dumps({"ms": (time.perf_counter() - began) / len(texts) * 1e3, "answers": said}))
"""


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=10_003)
    parser.add_argument("--labels", type=int, default=77)
    parser.add_argument("--recipe", default="linear")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        measured(Path(scratch), options)


def measured(place: Path, options: argparse.Namespace) -> None:
    train = [json.loads(line) for line in (DATA / "train.jsonl").read_text("utf-8").splitlines()]
    test = [json.loads(line) for line in (DATA / "test.jsonl").read_text("utf-8").splitlines()]
    wanted = {label for label, _ in Counter(row["label"] for row in train).most_common(options.labels)}
    rows = [row for row in train if row["label"] in wanted][:: max(1, len(train) // options.rows)]
    written = [json.dumps({"input": row["text"], "output": row["label"]}) for row in rows]
    (place / "data.jsonl").write_text("\n".join(written) + "\n")
    run(
        *(*SUFFICE, "learn", "bank", "--data", str(place / "data.jsonl"), "--home", str(place / "home")),
        *("--recipe", options.recipe, "--max-error", "0.04"),
    )
    texts = [row["text"] for row in test if row["label"] in wanted][:687] + ODD
    texts += odd_texts(1_000 - len(texts), 1)
    (place / "texts.json").write_text(json.dumps(texts))
    own = server(place, texts)
    print(f"{'':28}{'ms a text':>10}{'differing':>11}{'MB':>8}")
    print(f"{'suffice answer':28}{own['ms']:>10.2f}")
    for form in ("onnx", "python"):
        folder = exported(place, form)
        told = bare(place, folder, form)
        row(f"{form}, bare environment", told, own, folder)
    if CHROMIUM is not None and ORT.is_dir():
        folder = exported(place, "browser", "--ort", str(ORT))
        row("Chromium", in_chromium(folder, texts), own, folder)


def row(name: str, told: dict[str, Any], own: dict[str, Any], folder: Path) -> None:
    if "error" in told:
        print(f"{name:28}{told['error']}")
        return
    keys = ("accepted", "reason")
    wrong = [
        text
        for text, one, other in zip(own["texts"], told["answers"], own["answers"], strict=True)
        if any(one[key] != other[key] for key in keys) or (other["accepted"] and one["output"] != other["output"])
    ]
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    print(f"{name:28}{told['ms']:>10.2f}{len(wrong):>11}{size:>8.1f}")


def server(place: Path, texts: list[str]) -> dict[str, Any]:
    """What `suffice answer` says, and how long the specialist takes."""
    from suffice.cli import common, families
    from suffice.core import config
    from suffice.store import releases

    lines = "".join(json.dumps({"input": text}) + "\n" for text in texts)
    said = run(*SUFFICE, "answer", "bank", "-", "--home", str(place / "home"), stdin=lines)
    home = common.opened(place / "home", config.load(None))
    stored = releases.get_release(home, "bank")
    assert stored is not None
    specialist = families.load_specialist(home)(stored)
    specialist.predict(texts[:1])
    began = perf_counter()
    for text in texts:
        specialist.predict([text])
    took = (perf_counter() - began) / len(texts) * 1e3
    return {"texts": texts, "ms": took, "answers": [json.loads(line) for line in said.splitlines()]}


def exported(place: Path, form: str, *options: str) -> Path:
    folder = place / form
    run(*SUFFICE, "export", "bank", "--to", str(folder), "--home", str(place / "home"), "--as", form, *options)
    return folder


def bare(place: Path, folder: Path, form: str) -> dict[str, Any]:
    """The runner in an environment that holds nothing but what it needs."""
    where = place / f"venv-{form}"
    venv.create(where, with_pip=True)
    named = ["-r", str(folder / "requirements.txt")] if form == "python" else ["onnxruntime", "tokenizers", "numpy"]
    run(str(where / "bin" / "pip"), "install", "--quiet", "--disable-pip-version-check", *named)
    said = run(str(where / "bin" / "python"), "-c", _TIMED, str(place / "texts.json"), cwd=folder)
    told: dict[str, Any] = json.loads(said)
    return told


def run(*command: str, stdin: str | None = None, cwd: Path | None = None) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input=stdin, cwd=cwd, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command[:6])}: {done.stderr[-2000:]}{done.stdout[-500:]}")
    return done.stdout


if __name__ == "__main__":
    main()
