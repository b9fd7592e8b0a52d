"""Settings that change while requests are under way: none is dropped, none is doubled, a wrong file changes nothing."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from e2e_support import (
    FakeUpstream,
    Gateway,
    Reply,
    Seen,
    chat,
    config,
    events,
    rows,
    streamed,
    suffice,
    told,
    until,
    whole,
)

Serve = Callable[..., Gateway]
STREAMS = 16
CHANGES = 20


@pytest.fixture
def second() -> Iterator[FakeUpstream]:
    server = FakeUpstream()
    yield server
    server.close()


def write(home: Path, text: str) -> None:
    """As an editor does it: the file is never half there."""
    passing = home / "suffice.toml.new"
    passing.write_text(text)
    passing.replace(home / "suffice.toml")


@pytest.mark.parametrize("flags", [(), ("--workers", "2")])
def test_no_request_is_dropped_or_doubled_by_twenty_changes(
    serve: Serve, upstream: FakeUpstream, second: FakeUpstream, flags: tuple[str, ...]
) -> None:
    gateway = serve(config(upstream.url), *flags)
    gate = threading.Event()
    said = events({"content": "a"}, {"content": "b"})

    def answer(seen: Seen) -> Reply:
        return streamed([said[0], gate, *said[1:]]) if seen.json.get("stream") else whole("ok")

    upstream.answer = second.answer = answer
    streams = [gateway.begin(chat(f"stream {n}", stream=True)) for n in range(STREAMS)]
    for stream in streams:
        assert stream.read1(65536) == said[0]

    over = threading.Event()
    asked: list[int] = [0] * 4
    wrong: list[str] = []

    def load(place: int) -> None:
        with gateway.client() as client:
            while not over.is_set():
                try:
                    done = client.chat.completions.create(
                        model="gpt-4o", messages=[{"role": "user", "content": f"{place} {asked[place]}"}]
                    )
                    if done.choices[0].message.content != "ok":
                        wrong.append(str(done))
                except Exception as error:  # noqa: BLE001 - whatever it is, it is wrong
                    wrong.append(repr(error))
                asked[place] += 1

    threads = [threading.Thread(target=load, args=(place,)) for place in range(4)]
    for thread in threads:
        thread.start()
    for n in range(CHANGES):
        url = second.url if n % 2 else upstream.url
        write(
            gateway.home,
            config(
                url,
                f"[policy]\naudit = 0.0{n + 1:02}\n[prices.gpt-4o]\ninput_usd_per_mtok = {n + 1}\n"
                f"output_usd_per_mtok = 1\n[tasks.t{n}]\nmatch = {{ user_contains = 'zebra {n}' }}\n",
            ),
        )
        os.kill(gateway.process.pid, signal.SIGHUP)
        time.sleep(0.02)  # some reloads meet one that is under way
    document = told("reload", "--home", gateway.home)
    assert document["reloaded"] and not document["restart"]
    before = len(second.seen)
    until(lambda: len(second.seen) > before + 20, "the new upstream gets the traffic")
    old = len(upstream.seen)
    over.set()
    for thread in threads:
        thread.join()
    assert len(upstream.seen) == old, "the old upstream still gets requests"
    gate.set()
    for stream in streams:
        assert stream.read() == b"".join(said[1:])
    assert not wrong, wrong[:3]
    assert gateway.stop() == 0

    found = rows(gateway.home)
    texts = [json.loads(row["request"])["messages"][0]["content"] for row in found]
    assert len(texts) == len(set(texts)) == sum(asked) + STREAMS
    assert {row["status"] for row in found} == {200} and not any(row["failure"] for row in found)
    assert max(row["cost_usd"] for row in found if not row["streamed"]) == pytest.approx((100 * CHANGES + 10) / 1e6)
    assert "Traceback" not in gateway.log and "Unclosed" not in gateway.log


def test_a_wrong_file_changes_nothing_and_is_told(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url), "--workers", "2")
    until(lambda: len([*(gateway.home / "processes").glob("*.json")]) == 3, "two workers and a keeper")
    write(gateway.home, config(upstream.url, "[policy]\nauditt = 0.5\n"))
    done = suffice("reload", "--home", gateway.home)
    assert done.returncode == 2 and b"suffice.toml: [policy]" in done.stderr and b"`auditt`" in done.stderr
    os.kill(gateway.process.pid, signal.SIGHUP)
    until(lambda: gateway.log.count("`auditt`") >= 3, "both workers and the keeper say so")
    assert gateway.post(chat()).status == 200

    write(gateway.home, config(upstream.url, 'api_key_env = "E2E_ABSENT"\n'))
    done = suffice("reload", "--home", gateway.home, env={"E2E_ABSENT": "in this shell alone"})
    assert done.returncode == 1 and b"E2E_ABSENT" in done.stdout
    assert gateway.post(chat()).status == 200

    write(gateway.home, "")
    done = suffice("reload", "--home", gateway.home)
    assert done.returncode == 1 and b"no [upstreams.NAME] is left" in done.stdout
    assert gateway.post(chat()).status == 200

    write(gateway.home, config(upstream.url, "[records]\nslots = 99\nwait_s = 1\n[policy]\naudit = 0.5\n"))
    document = told("reload", "--home", gateway.home)
    assert document["changed"] == ["policy.audit", "records.slots", "records.wait_s"]
    assert document["restart"] == ["records.slots"]
    assert {one["role"] for one in document["processes"]} == {"worker", "keeper"}
    assert told("reload", "--home", gateway.home)["restart"] == ["records.slots"], "it is still to be done"
    gateway.stop()
    assert suffice("reload", "--home", gateway.home).returncode == 2


def test_a_policy_holds_from_the_reload_on(learned: Path, serve: Serve, upstream: FakeUpstream) -> None:
    told("stage", "triage", "canary", "--home", learned)
    gateway = serve(config(upstream.url, "[policy]\ncanary_share = 0.0\naudit = 0\n"), home=learned)
    ask = {"X-Suffice-Task": "triage"}
    texts = ["please refund my order", "where is my parcel?", "the app crashes when I log in", "cancel my account"]
    assert not [a for t in texts if (a := gateway.post(chat(t), ask)).route == "specialist"]
    loads = gateway.metric('suffice_specialist_loads_total{outcome="loaded"}')
    write(gateway.home, config(upstream.url, "[policy]\ncanary_share = 1.0\naudit = 0\n"))
    told("reload", "--home", gateway.home)
    assert [a for t in texts if (a := gateway.post(chat(t), ask)).route == "specialist"]
    assert gateway.metric('suffice_specialist_loads_total{outcome="loaded"}') == loads, "what was loaded stays loaded"
