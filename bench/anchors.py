"""Other gateways to be measured beside ours, each installed from its registry into a folder of its own.

    python bench/anchors.py [--folder .anchors]        installs what is not there yet (a few minutes, some 700 MB)

TensorZero (PyPI; the Rust gateway inside its wheel, recording off), Portkey (npm; needs Node) and LiteLLM (PyPI). Their
versions are pinned here. `python bench/gateway.py --anchors .anchors` then measures them on the same mock in one run.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import URLError

TENSORZERO, PORTKEY, LITELLM = "tensorzero==2026.6.0", "@portkey-ai/gateway@1.15.2", "litellm[proxy]==1.109.1"
STARTS_S = 90.0

_TENSORZERO = """
import json, sys, time
from tensorzero.tensorzero import _start_http_gateway
gateway = _start_http_gateway(config_file=sys.argv[1], clickhouse_url=None, postgres_url=None, valkey_url=None,
                              async_setup=False)
print(json.dumps({"url": gateway.base_url}), flush=True)
time.sleep(1e9)
"""
_TENSORZERO_CONFIG = """
[gateway]
observability.enabled = false
[models.mock]
routing = ["mock"]
[models.mock.providers.mock]
type = "openai"
model_name = "mock"
api_base = "{upstream}/"
api_key_location = "none"
"""
_LITELLM_CONFIG = """
model_list:
  - model_name: mock
    litellm_params: {{model: openai/mock, api_base: "{upstream}", api_key: any}}
litellm_settings: {{telemetry: false}}
general_settings: {{dangerously_permit_weak_or_unset_master_key: true}}
"""


@dataclass(frozen=True)
class Anchor:
    """A gateway under comparison: what it is asked for, with which headers, whether it streams from the mock (Portkey
    answers 500)."""

    name: str
    url: str
    process: subprocess.Popen[bytes]
    model: str = "mock"
    headers: Mapping[str, str] = field(default_factory=dict)
    streams: bool = True


def install(folder: Path) -> None:
    """Install what is not there. Raises CalledProcessError where a registry has not got it."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, package in (("tensorzero", TENSORZERO), ("litellm", LITELLM)):
        if not (folder / name / "ready").exists():
            subprocess.run([sys.executable, "-m", "venv", folder / name], check=True)
            subprocess.run([folder / name / "bin" / "pip", "install", "--quiet", package], check=True)
            (folder / name / "ready").touch()
    if not (folder / "portkey" / "ready").exists() and shutil.which("npm"):
        (folder / "portkey").mkdir(exist_ok=True)
        (folder / "portkey" / "package.json").write_text("{}")
        subprocess.run(["npm", "install", "--silent", "--ignore-scripts", PORTKEY], cwd=folder / "portkey", check=True)
        (folder / "portkey" / "ready").touch()


@contextmanager
def started(folder: Path, upstream: str, free_port: int, core: int, name: str) -> Iterator[Anchor]:
    """An anchor on an upstream's base URL, on one core, until the block ends."""
    url = f"http://127.0.0.1:{free_port}/v1"
    model, headers = "mock", {"authorization": "Bearer any"}
    home = folder / name
    if name == "tensorzero":
        config = home / "tensorzero.toml"
        config.write_text(_TENSORZERO_CONFIG.format(upstream=upstream))
        command = [home / "bin" / "python", "-c", _TENSORZERO, config]
        model = "tensorzero::model_name::mock"
    elif name == "litellm":
        config = home / "config.yaml"
        config.write_text(_LITELLM_CONFIG.format(upstream=upstream))
        command = [home / "bin" / "litellm", "--config", config, "--host", "127.0.0.1", "--port", str(free_port)]
    else:
        script = home / "node_modules" / "@portkey-ai" / "gateway" / "build" / "start-server.js"
        command = [shutil.which("node") or "node", script, f"--port={free_port}", "--headless"]
        headers |= {"x-portkey-provider": "openai", "x-portkey-custom-host": upstream}
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=subprocess.PIPE if name == "tensorzero" else log,
            stderr=log,
            env={**os.environ, "LITELLM_LOCAL_MODEL_COST_MAP": "True", "NODE_ENV": "production"},
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    try:
        if process.stdout is not None:
            url = json.loads(next(line for line in process.stdout if line.startswith(b"{")))["url"]
        _until_it_answers(url, model, headers)
        yield Anchor(name, url, process, model, headers, streams=name != "portkey")
    finally:
        process.kill()
        process.wait()


def _until_it_answers(url: str, model: str, headers: Mapping[str, str]) -> None:
    body = json.dumps({"model": model, "messages": [{"role": "user", "content": "hello"}]}).encode()
    request = urllib.request.Request(f"{url}/chat/completions", body, {"content-type": "application/json", **headers})
    deadline = time.monotonic() + STARTS_S
    while True:
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                answer.read()
            return
        except (URLError, ConnectionError) as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"{url} does not answer: {error}") from error
            time.sleep(0.2)


def main() -> None:
    parser = argparse.ArgumentParser(description="Install the gateways that ours is compared with.")
    parser.add_argument("--folder", type=Path, default=Path(".anchors"))
    install(parser.parse_args().folder.absolute())


if __name__ == "__main__":
    main()
