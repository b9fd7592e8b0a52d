"""What the tests of real runs share: a home in a temporary folder, and the command line on it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))  # `causal_tiny`, for the test modules too

from suffice.cli.main import suffice

Ran = tuple[int, list[Any], str]


@pytest.fixture
def cli(
    tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Ran]:
    """Run a command with --json on a home: exit code, the JSON documents on stdout, and what stderr says."""

    def run(*args: object, home: str = "home", stdin: bytes = b"") -> Ran:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        result = suffice.main(args=[*map(str, args), "--json", "--home", str(tmp_path / home)])
        sys.stdout.flush()
        out, err = capfdbinary.readouterr()
        return (result if isinstance(result, int) else 0), [json.loads(line) for line in out.splitlines()], err.decode()

    return run


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write rows as JSON Lines; texts are written as they are."""

    def write(rows: list[Any], name: str = "data.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in rows), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A language model of a few thousand weights, as transformers writes it."""
    from causal_tiny import write_checkpoint

    folder = tmp_path_factory.mktemp("tiny")
    write_checkpoint(folder)
    return folder


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Any:
    """The same, run by transformers."""
    from causal_tiny import loaded

    return loaded(checkpoint)
