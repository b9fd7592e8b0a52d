"""Processes: one server per home, several workers, who dies with whom."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from e2e_support import SUFFICE, FakeUpstream, Gateway, chat, config, events, rows, streamed, suffice, told, until

Serve = Callable[..., Gateway]


def children_of(gateway: Gateway, flag: str) -> list[int]:
    """The server's processes that were started with this flag."""
    found = subprocess.run(["pgrep", "-P", str(gateway.process.pid)], capture_output=True, check=False).stdout.split()
    return [pid for pid in map(int, found) if alive(pid) and flag.encode() in line_of(pid)]


def line_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def workers_of(gateway: Gateway) -> list[int]:
    return children_of(gateway, "--socket-fd")


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_a_second_server_on_the_same_home_is_refused(gateway: Gateway, upstream: FakeUpstream) -> None:
    second = suffice("serve", "--port", "0", "--json", "--home", gateway.home)
    assert (second.returncode, second.stdout) == (2, b"")
    assert len(second.stderr.splitlines()) == 1 and b"another server" in second.stderr
    assert str(gateway.process.pid).encode() in second.stderr
    assert gateway.post(chat()).status == 200


def test_a_port_that_is_taken(gateway: Gateway, tmp_path: Path) -> None:
    (tmp_path / "suffice.toml").write_text(config("http://127.0.0.1:9/v1"))
    done = suffice("serve", "--port", str(gateway.port), "--home", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and str(gateway.port).encode() in done.stderr


def test_the_home_is_free_again_after_kill_9(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    gateway.process.kill()
    gateway.process.wait()
    assert serve(config(upstream.url)).post(chat()).status == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(serve: Serve, upstream: FakeUpstream, number: signal.Signals) -> None:
    gateway = serve(config(upstream.url))
    gateway.post(chat())
    assert gateway.stop(number) == 0
    assert len(rows(gateway.home)) == 1 and "Traceback" not in gateway.log


def test_two_workers_serve_one_home(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url), "--workers", "2")
    pids = until(lambda: len(found := workers_of(gateway)) == 2 and found)
    ids = [gateway.post(chat(), {"X-Suffice-Task": f"t{i % 3}"}).id for i in range(40)]
    for id in ids:
        gateway.record(id)
    assert suffice("serve", "--port", "0", "--home", gateway.home).returncode == 2

    os.kill(pids[0], signal.SIGKILL)
    assert until(lambda: pids[0] not in (now := workers_of(gateway)) and len(now) == 2)
    assert gateway.post(chat()).status == 200

    gate = threading.Event()
    said = events({"content": "a"})
    upstream.answer = lambda seen: streamed([said[0], gate, *said[1:]])
    response = gateway.begin(chat(stream=True))
    assert response.read1(65536) == said[0]
    pids = workers_of(gateway)
    gateway.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)  # the signal is passed on while the stream is open
    gate.set()
    assert response.read() == b"".join(said[1:])
    assert gateway.process.wait(20) == 0
    assert not any(alive(pid) for pid in pids)
    assert gateway.record(response.getheader("x-suffice-record") or "")["failure"] is None
    assert "Traceback" not in gateway.log


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_the_keeper_is_restarted_and_ends_with_its_server(
    serve: Serve, upstream: FakeUpstream, flags: tuple[str, ...]
) -> None:
    gateway = serve(config(upstream.url), *flags)
    (first,) = until(lambda: children_of(gateway, "--keeper"), "a keeper")
    os.kill(first, signal.SIGKILL)
    (second,) = until(lambda: [pid for pid in children_of(gateway, "--keeper") if pid != first], "another keeper")
    assert gateway.post(chat()).status == 200
    gateway.process.kill()
    gateway.process.wait()
    until(lambda: not alive(second), "it sees that the server is gone", 10)
    again = serve(config(upstream.url), *flags)
    (third,) = until(lambda: children_of(again, "--keeper"), "a keeper of the next server")
    assert again.stop() == 0
    until(lambda: not alive(third), "it ends with its server", 10)


def test_a_stage_reaches_every_worker(learned: Path, serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url), "--workers", "2", home=learned)

    def reasons() -> set[str]:
        return {gateway.post(chat("where is my parcel?"), {"X-Suffice-Task": "triage"}).reason for _ in range(30)}

    assert reasons() == {"observe"}
    told("stage", "triage", "shadow", "--home", learned)
    time.sleep(1.0)  # the promise: within a second
    assert "observe" not in reasons()
    told("stage", "--all", "observe", "--home", learned)
    time.sleep(1.0)
    assert reasons() == {"observe"}
    gateway.stop()


def test_workers_end_when_their_supervisor_is_killed(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url), "--workers", "2")
    pids = until(lambda: len(found := workers_of(gateway)) == 2 and found)
    until(lambda: gateway.post(chat()).status == 200)
    time.sleep(1.5)  # both have started
    gateway.process.kill()
    gateway.process.wait()
    until(lambda: not any(alive(pid) for pid in pids), "the workers end", 10)
    assert serve(config(upstream.url)).post(chat()).status == 200


def test_a_missing_key_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "suffice.toml").write_text(config("http://127.0.0.1:9/v1", 'api_key_env = "E2E_ABSENT"\n'))
    done = suffice("serve", "--port", "0", "--home", tmp_path)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and b"E2E_ABSENT" in done.stderr


def test_a_missing_key_is_one_line_with_workers_too(tmp_path: Path) -> None:
    (tmp_path / "suffice.toml").write_text(config("http://127.0.0.1:9/v1", 'api_key_env = "E2E_ABSENT"\n'))
    process = subprocess.Popen([*SUFFICE, "serve", "--port", "0", "--workers", "2", "--home", str(tmp_path)],
                               stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)  # fmt: skip
    try:
        assert process.wait(20) == 2
    finally:
        process.terminate()
        process.communicate()


def test_health_and_unknown_routes(gateway: Gateway, upstream: FakeUpstream) -> None:
    assert gateway.get("/healthz").json == {"status": "ok"}
    assert gateway.get("/readyz").json == {"status": "ready", "problems": [], "specialists": 0}
    unknown = gateway.get("/nothing")
    assert unknown.status == 404 and "/nothing" in unknown.json["error"]["message"]
    assert json.loads(gateway.post(b"", path="/v2/elsewhere").body)["error"]["code"] == "not_found"
    assert not upstream.seen, "only what is below /v1 is anybody else's"
