"""A long run: does the gateway stay as it was? A million requests, everything on.

    python bench/soak.py [--requests 1000000]           five to ten minutes, three gigabytes of records
    python bench/soak.py --requests 50000               half a minute

One worker, a virtual key with a rate and a budget (far away), recording, metrics, task by header; 64 connections, every
tenth request a stream, the mock upstream of `bench/gateway.py` (bodies of 1 KB). Told after each tenth: resident memory
of the server, its open files and threads, requests a second. At the end: are the records complete, every one of them
with its answer, and does the database say so too (`PRAGMA integrity_check`); what is still open; did any request fail.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import uvloop

import common
import gateway

CONNECTIONS = 64
STREAMED_EACH = 10
WARM = 20_000
GROWN_MB = 40.0
"""Memory that it may have gained between its first and its last tenth."""


def memory_mb(pid: int) -> float:
    """Resident memory of a process."""
    status = Path(f"/proc/{pid}/status").read_text()
    return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS"))


def open_files(pid: int) -> int:
    """How many files and sockets a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


async def send(url: str, key: str, requests: int) -> int:
    """So many requests over all connections; how many were answered whole (any other answer ends the run)."""
    done = 0
    headers = {"authorization": f"Bearer {key}"}
    whole = gateway.http_request(url, gateway.chat_body("x" * 850, stream=False), "soak", headers)
    streamed = gateway.http_request(url, gateway.chat_body("x" * 850, stream=True), "soak", headers)
    turn = [whole] * (STREAMED_EACH - 1) + [streamed]
    while done < requests:
        tally = await gateway.load(url, turn, CONNECTIONS, min(5.0, 1.0 + (requests - done) / 4000), b"x-suffice-route")
        done += len(tally.whole)
    return done


def main() -> None:
    parser = argparse.ArgumentParser(description="Does the gateway stay as it was over many requests?")
    parser.add_argument("--requests", type=int, default=1_000_000)
    options = parser.parse_args()
    common.end_well()
    with tempfile.TemporaryDirectory(prefix="suffice-soak-") as name, ExitStack() as everything:
        home = Path(name) / "home"
        home.mkdir()
        mock = [sys.executable, str(Path(gateway.__file__)), "--role", "mock"]
        _, told = everything.enter_context(common.server(mock, log=Path(name) / "mock.log"))
        (home / "suffice.toml").write_text(f'[upstreams.mock]\nbase_url = "{told["url"]}"\n')
        limits = ["--budget-tokens", "1000000M/month", "--requests-per-minute", "100000000"]
        key = json.loads(common.suffice(home, "keys", "create", "soak", *limits))["key"]
        serve = [*common.SUFFICE, "serve", "--port", "0", "--home", str(home), "--json"]
        process, served = everything.enter_context(common.server(serve, log=Path(name) / "serve.log"))
        url = served["url"]
        sent = uvloop.run(send(url, key, WARM))
        time.sleep(1.0)
        idle_files, idle_threads = open_files(process.pid), threads(process.pid)
        rows = []
        step = max(options.requests // 10, 1)
        for _ in range(10):
            began = time.monotonic()
            done = uvloop.run(send(url, key, step))
            sent += done
            spent = time.monotonic() - began
            at_mb = memory_mb(process.pid)
            rows.append((sent, at_mb, done / spent))
            print(f"{sent:>9,} requests  {at_mb:6.1f} MB  {done / spent:6,.0f}/s", file=sys.stderr, flush=True)
        time.sleep(2.0)
        files, running = open_files(process.pid), threads(process.pid)
        process.terminate()
        process.wait(30)
        db = sqlite3.connect(home / "suffice.db")
        records, good = db.execute(
            "SELECT COUNT(*), SUM(status = 200 AND failure IS NULL AND answer IS NOT NULL) FROM records"
        ).fetchone()
        unique = db.execute("SELECT COUNT(DISTINCT id) FROM records").fetchone()[0]
        sound = db.execute("PRAGMA integrity_check").fetchone()[0]
        size_mb = (home / "suffice.db").stat().st_size / 2**20
        log = (Path(name) / "serve.log").read_text("utf-8", "replace").strip().splitlines()
    print(f"`{common.command_line()}` ({common.machine('suffice')})\n")
    print(
        common.table(
            ["requests", "memory, MB", "requests/s"], [[f"{n:,}", f"{mb:.1f}", f"{rate:,.0f}"] for n, mb, rate in rows]
        )
    )
    print(
        f"\nRecords: {records:,} of {sent:,} requests, {unique:,} ids, {good:,} whole and good; "
        f"database {sound}, {size_mb:,.0f} MB."
    )
    print(
        f"Open files idle: {idle_files} before, {files} after; threads {idle_threads} and {running}; "
        f"lines in the log: {len(log)}."
    )
    grown = rows[-1][1] - rows[0][1]
    print(f"Memory gained from the first tenth to the last: {grown:+.1f} MB.")
    if records != sent or good != sent or sound != "ok" or grown > GROWN_MB or files > idle_files + 5:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
