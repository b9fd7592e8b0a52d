"""Fixtures of the end-to-end tests: real processes, real HTTP on the loopback interface."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # the helpers beside this file, for the test modules too

from e2e_support import FakeUpstream, Gateway, config, told

from suffice.demo.workload import Ticket, generate

Serve = Callable[..., Gateway]


@pytest.fixture(scope="session")
def upstream_server() -> Iterator[FakeUpstream]:
    server = FakeUpstream()
    yield server
    server.close()


@pytest.fixture
def upstream(upstream_server: FakeUpstream) -> FakeUpstream:
    """The scriptable upstream, fresh."""
    upstream_server.reset()
    return upstream_server


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Start a gateway on a home (by default one of this test's own) with this suffice.toml."""
    running: list[Gateway] = []

    def start(toml: str = "", *flags: str, home: Path | None = None, env: dict[str, str] | None = None) -> Gateway:
        folder = home or tmp_path / "home"
        folder.mkdir(exist_ok=True)
        (folder / "suffice.toml").write_text(toml)
        gateway = Gateway(folder, *flags, env=env)
        running.append(gateway)
        return gateway

    yield start
    for gateway in running:
        gateway.close()


@pytest.fixture(scope="module")
def gateway(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One gateway for the tests of a module that leave it as it is."""
    home = tmp_path_factory.mktemp("shared") / "home"
    home.mkdir()
    (home / "suffice.toml").write_text(config(upstream_server.url))
    running = Gateway(home)
    yield running
    running.close()


@pytest.fixture(scope="session")
def tickets() -> list[Ticket]:
    """Labelled texts; the last 300 are not learned from."""
    return generate(2800, 5)


@pytest.fixture(scope="session")
def labelled(tickets: list[Ticket], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of labelled texts, in the short form."""
    file = tmp_path_factory.mktemp("data") / "labelled.jsonl"
    file.write_text(
        "".join(json.dumps({"input": ticket.text, "reference": ticket.truth}) + "\n" for ticket in tickets[:2500])
    )
    return file


@pytest.fixture(scope="session")
def learned_home(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with triage@1, learned by the CLI. Copy it, never write to it."""
    home = tmp_path_factory.mktemp("learned") / "home"
    document = told("learn", "triage", "--data", labelled, "--home", home, "--max-error", "0.05")
    assert document["release"] == "triage@1"
    return home


@pytest.fixture
def learned(learned_home: Path, tmp_path: Path) -> Path:
    """A copy of the learned home for this test."""
    return Path(shutil.copytree(learned_home, tmp_path / "home"))
