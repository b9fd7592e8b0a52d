"""Discovery through the commands: are the tasks found that are there, and what does a record cost?

(a) Mixed traffic with its truth beside it (`mixture.py`), imported and discovered, with prompts that identify the work
and without; (b) the same at growing size: microseconds for each record, memory, and a second run on a little more.

    python bench/discover.py [--seeds 3] [--rows 12000] [--sizes 10000,100000,1000000]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import common
import mixture


def timed(home: Path, *arguments: str | Path) -> tuple[bytes, float, float]:
    """Run a command: its output, seconds, and the most memory it had, in MB."""
    command = [*common.SUFFICE, *map(str, arguments), "--home", str(home), "--json"]
    began = time.perf_counter()
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise SystemExit(f"`suffice {' '.join(map(str, arguments))}` ended with {process.returncode}")
        out.seek(0)
        return out.read(), time.perf_counter() - began, usage.ru_maxrss / 1024


def found_in(home: Path, document: dict[str, Any]) -> dict[str, str]:
    """The task found for each response id."""
    names = {record: task["name"] for task in document["tasks"] for record in task["record_ids"]}
    ids = (json.loads(line) for line in common.suffice(home, "records").splitlines())
    return {record["response_id"]: names[record["id"]] for record in ids if record["id"] in names}


def quality(seeds: int, rows: int) -> None:
    """(a)"""
    head = [
        "prompts",
        "seed",
        "found",
        "ARI",
        "with unassigned",
        "assigned",
        "purity",
        "false joins",
        "chat",
        "verdicts",
    ]
    table = []
    for prompts in (True, False):
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                file, home = Path(folder) / "traffic.jsonl", Path(folder) / "home"
                truth = mixture.write(file, rows, seed, prompts=prompts)
                common.suffice(home, "import", file)
                document = json.loads(timed(home, "discover")[0])
                score = mixture.score(found_in(home, document), truth, styles=False)
            told: dict[str, int] = {}
            for task in document["tasks"]:
                told[task["verdict"]] = told.get(task["verdict"], 0) + 1
            table.append(
                [
                    "yes" if prompts else "no",
                    str(seed),
                    str(len(document["tasks"])),
                    f"{score['ari']:.3f}",
                    f"{score['ari_all']:.3f}",
                    f"{score['assigned']:.1%}",
                    f"{score['purity']:.2%}",
                    str(len(score["false_joins"])),
                    f"{score['chat_taken']:.1%}",
                    ", ".join(f"{count} {word}" for word, count in sorted(told.items())),
                ]
            )
    print(common.table(head, table))


def size(sizes: list[int]) -> None:
    """(b)"""
    head = ["records", "import, us each", "MB", "discover, us each", "MB", "1% more: s", "us each"]
    table = []
    for n in sizes:
        with tempfile.TemporaryDirectory() as folder:
            file, more, home = Path(folder) / "traffic.jsonl", Path(folder) / "more.jsonl", Path(folder) / "home"
            mixture.write(file, n, seed=0)
            mixture.write(more, n // 100, seed=1)
            more.write_bytes(more.read_bytes().replace(b'"chatcmpl-', b'"chatcmpl-more-'))
            _, import_s, import_mb = timed(home, "import", file)
            _, discover_s, discover_mb = timed(home, "discover")
            timed(home, "import", more)
            _, again_s, _ = timed(home, "discover")
        table.append(
            [
                f"{n:,}",
                f"{1e6 * import_s / n:.0f}",
                f"{import_mb:.0f}",
                f"{1e6 * discover_s / n:.0f}",
                f"{discover_mb:.0f}",
                f"{again_s:.1f}",
                f"{1e6 * again_s / (n // 100):.0f}",
            ]
        )
    print(common.table(head, table))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=12_000)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="'' leaves that part out")
    options = parser.parse_args()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    if options.seeds:
        quality(options.seeds, options.rows)
    if options.sizes:
        size([int(n) for n in options.sizes.split(",")])


if __name__ == "__main__":
    main()
