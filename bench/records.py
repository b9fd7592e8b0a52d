"""What records take on the disk and in time, with and without what repeats: a prompt of 2 KB, tools of 3 KB.

    python bench/records.py [--rows 20000]        about twenty seconds

Each home gets the same chat requests: a system prompt of 2 KB and tools of 3 KB that repeat, a user's 200 bytes that do
not, answers of 300 bytes. `plain` writes rows as they are, `cut` as the gateway does, `sealed` so and encrypted (extra
`encrypt`). Rounds are interleaved, each figure is the best of three: the disk is shared. us/row is the writer's
processor time, rows/s the wall's. `read` is every record back, whole.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from operator import attrgetter
from pathlib import Path

from suffice.store import records
from suffice.store.bodies import BODIES
from suffice.store.home import Home
from suffice.store.records import Row, Writer
from suffice.store.sealed import Keys

GROUP = 256
AS_THEY_ARE = attrgetter(*(name for name in records.COLUMNS if name not in BODIES), *BODIES)


def bodies(n: int, coins: random.Random) -> list[tuple[bytes, bytes]]:
    """Requests and answers of an application with one prompt and one set of tools."""
    words = [coins.randbytes(4).hex() for _ in range(600)]

    def text(size: int) -> str:
        return " ".join(coins.choices(words, k=size // 9 + 1))[:size]

    parameters = {f"p{i}": {"type": "string", "description": text(120)} for i in range(6)}
    tools = [
        {"type": "function", "function": {"name": f"tool_{i}", "description": text(100), "parameters": parameters}}
        for i in range(3)
    ]
    system = {"role": "system", "content": text(2048)}
    made = []
    for _ in range(n):
        messages = [system, {"role": "user", "content": text(200)}]
        request = json.dumps({"model": "mock", "messages": messages, "tools": tools, "temperature": 0})
        made.append((request.encode(), json.dumps({"choices": [{"message": {"content": text(200)}}]}).encode()))
    return made


def measure(folder: Path, kind: str, given: list[tuple[bytes, bytes]]) -> dict[str, float]:
    """Write and read one home."""
    home = Home(folder, keys=Keys(bytes(range(32))) if kind == "sealed" else None)
    writer = Writer(home.bodies)
    connection = home.connect()
    wall, cpu = time.perf_counter(), time.thread_time()
    for start in range(0, len(given), GROUP):
        rows = [
            Row(id=f"rec_{start + i:016d}", at=float(start + i), source="live", task="t", model="mock", request=request,
                answer=answer, status=200, route="frontier")
            for i, (request, answer) in enumerate(given[start : start + GROUP])
        ]  # fmt: skip
        if kind == "plain":
            with connection:
                connection.executemany(records.INSERT, [(*AS_THEY_ARE(row), None, None) for row in rows])
        else:
            writer.insert(connection, rows)
    wall, cpu = time.perf_counter() - wall, time.thread_time() - cpu
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    began = time.perf_counter()
    for (row, _), (request, _) in zip(records.query(home), given, strict=True):
        assert row.request == request
    n = len(given)
    return {
        "MB per 100,000": home.db_path.stat().st_size / 2**20 / n * 100_000,
        "us/row": cpu / n * 1e6,
        "rows/s": n / wall,
        "read us/row": (time.perf_counter() - began) / n * 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    given = bodies(parser.parse_args().rows, random.Random(7))
    print(f"requests of {len(given[0][0]):,} bytes, {len(given):,} rows")
    found: dict[str, list[dict[str, float]]] = {"plain": [], "cut": [], "sealed": []}
    for number in range(3):
        for kind in found:
            with tempfile.TemporaryDirectory(prefix="suffice-bench-") as folder:
                found[kind].append(measure(Path(folder) / f"{kind}{number}", kind, given))
    for kind, rounds in found.items():
        best = {name: (max if name == "rows/s" else min)(each[name] for each in rounds) for name in rounds[0]}
        print(f"{kind:8}" + "".join(f"{name} {value:>9,.1f}   " for name, value in best.items()))


if __name__ == "__main__":
    main()
