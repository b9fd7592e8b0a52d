"""`promote = "auto"`: from a name in a header to a live specialist, with nobody's help and nobody's harm."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from e2e_support import FakeUpstream, Gateway, Reply, Seen, config, until, whole

from suffice.demo.workload import Ticket, generate, system_prompt

Serve = Callable[..., Gateway]
POLICY = """
[tasks.triage]
max_error = 0.05
promote = "auto"
audit = 0.2
canary_share = 0.2
probe = 0
max_tail_error = 0.5
target_coverage = 0.5
"""
MOST = 40_000


def test_from_nothing_to_live_by_evidence_only(
    tmp_path: Path, upstream: FakeUpstream, serve: Serve, capsys: pytest.CaptureFixture[str]
) -> None:
    tickets = generate(MOST, 91)
    truths = {ticket.text: ticket.truth for ticket in tickets}

    def truth(seen: Seen) -> Reply:
        said = truths[seen.text]
        return whole(said if isinstance(said, str) else json.dumps(said))

    upstream.answer = truth
    gateway = serve(config(upstream.url, POLICY))
    asked = iter(tickets)
    latencies: dict[str, list[float]] = {"before": [], "while learning": [], "after": []}

    def send(count: int, phase: str) -> None:
        with ThreadPoolExecutor(4) as pool:
            latencies[phase] += pool.map(lambda ticket: timed(gateway, ticket), [next(asked) for _ in range(count)])

    send(1500, "before")
    seen_learning: list[int] = []
    deadline = time.monotonic() + 150
    while stage(gateway.home) != "live":
        so_far = sum(map(len, latencies.values()))
        in_time = time.monotonic() < deadline and so_far < MOST - 200
        assert in_time, (stage(gateway.home), latencies.keys(), so_far, happened(gateway.home))
        running = learners(gateway.home)
        for pid in running:
            check_gentle(pid, seen_learning)
        send(20 if running else 100, "while learning" if running else "after")
        time.sleep(0.1 if running else 0.0)  # a caller at ease: what is tested is who gives way
    events = happened(gateway.home)
    with capsys.disabled():
        for phase, taken in latencies.items():
            if taken:
                print(
                    f"\n{phase}: {len(taken)} requests, p50 {at(taken, 50):.1f} ms, p99 {at(taken, 99):.1f} ms", end=""
                )
        print("\n" + "\n".join(events))
    assert seen_learning, "learning ran beside serving"
    said = "\n".join(events)
    places = [said.index(what) for what in ("a learning run began", "put shadow", "put canary", "put live")]
    assert places == sorted(places)
    gate = json.loads(sql(gateway.home, "SELECT release FROM releases WHERE n = 1")[0][0])
    assert gate["tail"]["promised"] or "promised, on" in said, "the tail is proven, at the gate or since"
    assert at(latencies["while learning"], 99) < 10 * at(latencies["before"], 99) + 50
    until(lambda: any(route(gateway, next(asked)) == "specialist" for _ in range(20)), "it answers")


def timed(gateway: Gateway, ticket: Ticket) -> float:
    began = time.perf_counter()
    route(gateway, ticket)
    return (time.perf_counter() - began) * 1e3


def route(gateway: Gateway, ticket: Ticket) -> str:
    messages = [{"role": "system", "content": system_prompt("2026-03-20")}, {"role": "user", "content": ticket.text}]
    answer = gateway.post(json.dumps({"model": "gpt-4o", "messages": messages}).encode(), {"X-Suffice-Task": "triage"})
    assert answer.status == 200
    return answer.route


def at(taken: Sequence[float], percent: int) -> float:
    return sorted(taken)[min(len(taken) - 1, len(taken) * percent // 100)]


def learners(home: Path) -> list[int]:
    """Processes that run `suffice learn` on this home."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"learn" in words and str(home).encode() in words:
                found.append(int(folder.name))
    return found


def check_gentle(pid: int, seen: list[int]) -> None:
    try:
        policy, nice = os.sched_getscheduler(pid), os.getpriority(os.PRIO_PROCESS, pid)
    except OSError:
        return  # it has just ended
    if policy == os.SCHED_IDLE and nice == 19:
        seen.append(pid)
    elif time.time() - Path(f"/proc/{pid}").stat().st_mtime > 1:
        raise AssertionError(f"learning runs with policy {policy}, nice {nice}")


def stage(home: Path) -> str | None:
    return next((row[0] for row in sql(home, "SELECT stage FROM tasks WHERE name = 'triage'")), None)


def happened(home: Path) -> list[str]:
    return [row[0] for row in sql(home, "SELECT what FROM events ORDER BY seq")]


def sql(home: Path, query: str) -> list[tuple[str]]:
    connection = sqlite3.connect(home / "suffice.db", timeout=20)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()
