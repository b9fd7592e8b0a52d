"""Many specialists behind one gateway: answers a second and latency under mixed load, the event loop, memory.

    python bench/mixed.py [--tasks 10] [--encoders 4] [--seconds 3]        about two minutes

One gateway worker has one core to itself (its keeper with it), the load has the other. The tasks are learned by the
real command from simulated tickets, other tickets for each task: `--tasks` of the linear family, and `--encoders` over
one frozen encoder, where that family is installed. Sent are texts that the releases accept, found by asking once.

Load: 1, 16 and 64 connections, closed loop (each sends its next request when the answer is whole), each connection
going through the tasks in turn. Then 64 connections at half the rate just measured, with the loop's lag beside it: how
late a call that sleeps for 5 ms and asks `/healthz` is answered, against the same without load.
CPU is the processor time of the gateway's threads for one answer; RSS the resident memory of its process.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop

import common
import gateway
from gateway import Connection, Tally

ROWS, FRESH, MAX_ERROR = 1_200, 300, "0.1"
PROBE_S = 0.005
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"


@dataclass(frozen=True)
class Kind:
    """Tasks of one family: whole HTTP requests that their releases accept, one list a task."""

    name: str
    requests: Sequence[Sequence[bytes]]

    def mixed(self) -> list[bytes]:
        """One request of each task in turn."""
        longest = max(len(own) for own in self.requests)
        return [own[i % len(own)] for i in range(longest) for own in self.requests]


class Paced(Connection):
    """A connection that waits between requests: `gap_s` on average, and never the same twice in a row."""

    gap_s = 0.0

    def _send(self) -> None:
        asyncio.get_running_loop().call_later(random.expovariate(1 / self.gap_s), super()._send)


def learn(home: Path, task: str, seed: int, family: str) -> str | None:
    """Learn a task from simulated tickets of its own and put it live; why not, where there is no encoder."""
    from suffice.demo import workload

    if home.with_suffix(f".{task}.jsonl").exists():
        return None
    rows = [{"input": ticket.text, "reference": ticket.truth} for ticket in workload.generate(ROWS, seed)]
    data = common.write_lines(home.with_suffix(f".{task}.jsonl"), rows)
    line = ["learn", task, "--data", str(data), "--max-error", MAX_ERROR, "--recipe", family, "--budget", "3"]
    done = subprocess.run([*common.SUFFICE, *line, "--home", str(home), "--json"], capture_output=True, check=False)
    if done.returncode == 2 and family == "encoder":
        data.unlink()
        return done.stderr.decode().strip()
    if done.returncode != 0:
        data.unlink()
        raise SystemExit(f"`suffice {' '.join(line)}` ended with {done.returncode}\n{done.stderr.decode()}")
    common.suffice(home, "stage", task, "live")
    return None


def accepted(url: str, task: str, seed: int) -> list[bytes]:
    """Requests of a task that its release accepts."""
    from suffice.demo import workload

    found = []
    for ticket in workload.generate(FRESH, seed, start=ROWS):
        body = gateway.chat_body(ticket.text, stream=False)
        headers = {"x-suffice-task": task, "x-suffice-route": "specialist", "content-type": "application/json"}
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/chat/completions", body, headers)).close()
        except urllib.error.HTTPError as refused:
            refused.close()
        else:
            found.append(gateway.http_request(url, body, task, {}))
    if not found:
        raise SystemExit(f"{task} accepts none of {FRESH} fresh texts: nothing can be measured")
    return found


async def probe(url: str, seconds: float) -> list[float]:
    """Seconds that `/healthz` takes, asked over a connection of its own, time and again."""
    target = urlsplit(url)
    reader, writer = await asyncio.open_connection(target.hostname, target.port)
    taken = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        writer.write(HEALTH)
        await reader.readuntil(b'{"status":"ok"}')
        taken.append(time.perf_counter() - began)
        await asyncio.sleep(PROBE_S)
    writer.close()
    return taken


async def paced(url: str, requests: Sequence[bytes], rate: float, seconds: float) -> tuple[Tally, list[float]]:
    """64 connections that ask `rate` times a second together, and the loop's lag meanwhile."""
    gap_s = 64 / rate
    kind = type("Paced", (Paced,), {"gap_s": gap_s})
    expect = b"x-suffice-route: specialist"
    tally, lag = await asyncio.gather(
        gateway.load(url, requests, 64, seconds, expect, kind), probe(url, seconds)
    )  # fmt: skip
    return tally, lag


class Server:
    """The gateway's process."""

    def __init__(self, url: str, pid: int) -> None:
        self.url, self._pid = url, pid

    def cpu_s(self) -> float:
        """Processor time of its threads."""
        tasks = Path(f"/proc/{self._pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    def rss_mb(self) -> float:
        """Resident memory."""
        found = re.search(r"VmRSS:\s+(\d+) kB", Path(f"/proc/{self._pid}/status").read_text())
        return int(found[1]) / 1024 if found else float("nan")

    def metric(self, name: str) -> float:
        """A line of `/metrics`."""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics") as answer:
            text = answer.read().decode()
        return float(next(line.rsplit(" ", 1)[1] for line in text.splitlines() if line.startswith(name + " ")))

    def closed(self, requests: Sequence[bytes], connections: int, seconds: float) -> tuple[float, float, float, float]:
        """Answers a second, p50 and p99 in ms, processor time for one answer in µs."""
        before = self.cpu_s()
        told = uvloop.run(gateway.load(self.url, requests, connections, seconds, b"x-suffice-route: specialist"))
        spent = 1e6 * (self.cpu_s() - before) / len(told.whole)
        return len(told.whole) / told.spent, *gateway.quantiles(told.whole), spent


def kinds(home: Path, options: argparse.Namespace) -> Iterator[tuple[str, list[str]]]:
    """Learn everything; the names of each family's tasks."""
    for family, count in (("linear", options.tasks), ("encoder", options.encoders)):
        names = [f"{family}-{i}" for i in range(count)]
        if not names:
            continue
        first = learn(home, names[0], 1, family)  # alone: it may make what the others share
        if first is not None:
            print(f"the tasks over an encoder are left out: {first}\n")
            continue
        with ThreadPoolExecutor(2) as two:
            list(two.map(lambda i, names=names, family=family: learn(home, names[i], 1 + i, family), range(1, count)))
        yield family, names


def measure(options: argparse.Namespace) -> None:
    """Learn, serve, load, print."""
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="suffice-mixed-") as folder:
        home = options.home or Path(folder) / "home"
        home.mkdir(exist_ok=True)
        began = time.perf_counter()
        named = dict(kinds(home, options))
        print(f"learned in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        command = [*common.SUFFICE, "serve", "--port", "0", "--home", str(home), "--json"]
        with common.server(command, core=cores[0], log=Path(folder) / "serve.log") as (process, told):
            os.sched_setaffinity(0, {cores[-1]})
            server = Server(told["url"], process.pid)
            rss = server.rss_mb()
            loaded, size = (server.metric(f"suffice_specialists_{name}") for name in ("loaded", "bytes"))
            found = [
                Kind(family, [accepted(server.url, name, 1 + i) for i, name in enumerate(names)])
                for family, names in named.items()
            ]
            if len(found) > 1:
                found.append(Kind("both", [own for kind in found for own in kind.requests]))
            idle = [1e3 * second for second in sorted(uvloop.run(probe(server.url, 1.0)))]
            rows = [row(server, kind, options.seconds) for kind in found]
            print(f"`{common.command_line()}` ({common.machine('suffice', 'uvicorn', 'uvloop', 'onnxruntime')})\n")
            print(common.table(HEAD, rows))
            print(
                f"\n{loaded:.0f} specialists loaded, {size / 2**20:.0f} MB by estimate; RSS {rss:.0f} MB when ready, "
                f"{server.rss_mb():.0f} MB after the load. Loop's lag without load: p50 {idle[len(idle) // 2]:.2f} ms, "
                f"p99 {idle[int(0.99 * len(idle))]:.2f} ms."
            )
            print(json.dumps({name: server.metric(name) for name in COUNTED}))


COUNTED = (
    'suffice_specialist_predictions_total{where="loop"}',
    'suffice_specialist_predictions_total{where="thread"}',
    "suffice_specialist_batches_total",
    "suffice_faults_total",
)
HEAD = [
    "tasks", "1 conn.: ms p50 / p99", "answers/s", "16: ms p50 / p99", "answers/s", "CPU µs", "64: ms p50 / p99",
    "answers/s", "64 at half the rate: ms p50 / p99", "answers/s", "loop's lag ms p50 / p99",
]  # fmt: skip


def row(server: Server, kind: Kind, seconds: float) -> list[str]:
    """One line of the table."""
    requests = kind.mixed()
    server.closed(requests, 16, 0.5)
    cells = [f"{len(kind.requests)} {kind.name}"]
    rate = 0.0
    for connections in (1, 16, 64):
        rate, p50, p99, spent = server.closed(requests, connections, seconds)
        cells += [f"{p50:.2f} / {p99:.2f}", f"{rate:,.0f}", *([f"{spent:.0f}"] if connections == 16 else [])]
    tally, lag = uvloop.run(paced(server.url, requests, rate / 2, seconds))
    (p50, p99), (lag_p50, lag_p99) = gateway.quantiles(tally.whole), gateway.quantiles(lag)
    return [
        *cells,
        f"{p50:.2f} / {p99:.2f}",
        f"{len(tally.whole) / tally.spent:,.0f}",
        f"{lag_p50:.2f} / {lag_p99:.2f}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description="Many specialists under mixed load, as one markdown table.")
    parser.add_argument("--tasks", type=int, default=10, help="of the linear family (default 10)")
    parser.add_argument("--encoders", type=int, default=4, help="tasks over one frozen encoder (default 4)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load for each figure (default 3)")
    parser.add_argument("--home", type=Path, help="a folder that keeps what is learned for the next run")
    options = parser.parse_args()
    common.end_well()
    measure(options)


if __name__ == "__main__":
    main()
