"""What is kept, while a server writes: encrypted, erased, too old, backed up."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from e2e_support import FakeUpstream, Gateway, chat, config, suffice, until, whole

from suffice.store.sealed import id_of

Serve = Callable[..., Gateway]
SECRET = "words-that-nobody-else-may-read"
KEY = {"THE_KEY": os.urandom(32).hex()}


def on_disk(home: Path) -> bytes:
    return b"".join(path.read_bytes() for path in home.rglob("*") if path.is_file())


def told(*arguments: str | Path, env: dict[str, str] | None = None) -> list[dict[str, object]]:
    done = suffice(*arguments, "--json", env=env)
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_server_with_a_key_writes_nothing_that_can_be_read(serve: Serve, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: whole(f"answer {SECRET}")
    gateway = serve(config(upstream.url, '[records]\nencrypt_key_env = "THE_KEY"\n'), "--workers", "2", env=KEY)
    names = {gateway.post(chat(f"{i} {SECRET} " + "x" * 400)).id for i in range(20)}
    until(lambda: len(told("records", "--home", gateway.home, env=KEY)) == 20, "the records")
    assert SECRET.encode() not in on_disk(gateway.home)
    found = told("records", "--home", gateway.home, env=KEY)
    assert {row["id"] for row in found} == names and all(SECRET in str(row["request"]) for row in found)
    gateway.stop()
    assert SECRET.encode() not in on_disk(gateway.home) and KEY["THE_KEY"] not in gateway.log
    refused = suffice("records", "--home", gateway.home, env={"THE_KEY": "00" * 32})
    assert refused.returncode == 2 and id_of(bytes.fromhex(KEY["THE_KEY"])) in refused.stderr.decode()


def test_erasing_and_backing_up_under_load_loses_nothing_else(
    serve: Serve, upstream: FakeUpstream, tmp_path: Path
) -> None:
    gateway = serve(config(upstream.url))
    body = chat(messages=[{"role": "system", "content": "the same for all " * 40}, {"role": "user", "content": "hi"}])
    theirs = [gateway.post(chat(f"{SECRET} {i}"), {"X-Suffice-Group": "person"}).id for i in range(10)]
    over = time.monotonic() + 2

    def load(client: int) -> list[str]:
        names = []
        while time.monotonic() < over:
            answer = gateway.post(body)
            assert answer.status == 200
            names.append(answer.id)
        return names

    with ThreadPoolExecutor(4) as pool:
        running = [pool.submit(load, client) for client in range(3)]
        (erased,) = told("erase", "--group", "person", "--home", gateway.home)
        (backed,) = told("backup", tmp_path / "b.tar", "--home", gateway.home)
        others = {name for each in running for name in each.result()}
    assert erased["records"] == 10 and sorted(map(str, erased["record_ids"])) == sorted(theirs)  # type: ignore[call-overload]
    gateway.stop()
    assert SECRET.encode() not in on_disk(gateway.home) and b"person" not in on_disk(gateway.home)
    found = {str(row["id"]): row for row in told("records", "--home", gateway.home)}
    assert found.keys() == others | set(theirs)
    assert all(found[name]["request"] == json.loads(body) for name in others)
    told("restore", tmp_path / "b.tar", "--home", tmp_path / "new")
    restored = told("records", "--home", tmp_path / "new")
    assert len(restored) == backed["records"] and {str(row["id"]) for row in restored} <= found.keys()
    assert all(found[str(row["id"])] == row for row in restored)


def test_the_keeper_drops_what_is_too_old(serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    data = tmp_path / "data.jsonl"
    rows = [{"input": f"{SECRET} {i}", "output": "x", "task": "t", "at": 1000.0 + i} for i in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    told("import", data, "--home", tmp_path / "home")
    gateway = serve(config(upstream.url, "[tasks.t]\nkeep_days = 30\n"))
    kept = gateway.post(chat("new"), {"X-Suffice-Task": "t"}).id
    until(lambda: gateway.record(kept), "the record")

    def gone() -> bool:
        return sum(row["gone"] == "expired" for row in told("records", "--home", gateway.home)) == 30

    until(gone, "retention")
    until(lambda: SECRET.encode() not in on_disk(gateway.home), "an empty log")
    assert gateway.record(kept)["gone"] is None
