"""What is beside the code to run it: every path exists, and the server is told what it understands."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from suffice.cli.main import COMMANDS
from suffice.core import config

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KNOWN = {"FROM", "ENV", "WORKDIR", "RUN", "COPY", "LABEL", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK",
         "ENTRYPOINT", "CMD", "ARG"}  # fmt: skip


def instructions() -> list[tuple[str, str]]:
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Containerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in text.splitlines() if line.strip()]


def test_the_container_file_copies_what_exists_and_runs_as_nobody_special() -> None:
    found = instructions()
    assert {name for name, _ in found} <= KNOWN
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().splitlines()
    for name, value in found:
        if name == "COPY" and "--from" not in value:
            for source in value.split()[:-1]:
                assert (ROOT / source).exists(), source
                assert f"!{source}" in ignored, source
    named = dict(found)
    assert named["USER"] == "10001:10001" and named["VOLUME"] == '["/home/suffice/data"]'
    assert "/readyz" in named["HEALTHCHECK"]
    assert json.loads(named["ENTRYPOINT"]) == ["suffice"]
    assert json.loads(named["CMD"])[0] in COMMANDS
    assert "--require-hashes" in "".join(value for _, value in found)


def test_the_compose_example_is_closed_where_it_can_be() -> None:
    service = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]["suffice"]
    assert service["read_only"] is True and service["cap_drop"] == ["ALL"]
    assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).exists()
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])
    settings = config.load(DEPLOY / "suffice.toml.example")
    keys = {upstream.api_key_env for upstream in settings.upstreams.values()}
    assert keys <= {line.split("=")[0] for line in (DEPLOY / "suffice.env.example").read_text().splitlines()}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "suffice.service"
    unit.write_text((DEPLOY / "suffice.service").read_text().replace("/opt/suffice/bin/suffice", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
