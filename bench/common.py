"""What the benches share: starting servers and commands as a user would, shares with their intervals, tables.

Nothing is measured here.
"""

from __future__ import annotations

import json
import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from scipy import stats

SUFFICE = (sys.executable, "-m", "suffice.cli.main")
FRONTIER = (sys.executable, "-m", "suffice.demo.frontier")


def data_folder(name: str) -> Path:
    """A folder of the shared data. Where it is absent: one sentence, and the script ends well."""
    root = Path(os.environ.get("SUFFICE_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not (root / name).is_dir():
        print(f"skipped: {root / name} is not there; set SUFFICE_DATA to the folder that holds {name}")
        raise SystemExit(0)
    return root / name


def read_lines(path: Path) -> list[dict[str, Any]]:
    """JSON Lines."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines() if line.strip()]


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    """JSON Lines."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def suffice(home: Path, *arguments: str | Path, may_refuse: bool = False) -> bytes:
    """Run a command on a home and return its stdout. Exit 1 ("ran and says no") is an error unless `may_refuse`."""
    command = [*SUFFICE, *map(str, arguments), "--home", str(home), "--json"]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode not in ((0, 1) if may_refuse else (0,)):
        sys.stderr.write(done.stderr.decode())
        raise SystemExit(f"`suffice {' '.join(map(str, arguments))}` ended with {done.returncode}")
    return done.stdout


@contextmanager
def server(
    command: Sequence[str], *, core: int | None = None, log: Path | None = None
) -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """A server process, pinned to `core` from its start, and the JSON line it prints when it is ready.

    What it writes to stderr goes to `log`. It is asked to stop on leaving, and killed if it does not within 10 s.
    """
    pin = None if core is None else lambda: os.sched_setaffinity(0, {core})
    with (log or Path(os.devnull)).open("ab") as errors:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, preexec_fn=pin)
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        if not line:
            told = log.read_text("utf-8", "replace")[-2000:] if log else ""
            raise SystemExit(f"`{' '.join(command)}` did not start\n{told}")
        yield process, json.loads(line)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def end_well() -> None:
    """Let SIGTERM unwind the script as Ctrl-C does, so that no server outlives it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


def interval(hits: int, n: int) -> tuple[float, float]:
    """The 95% Clopper-Pearson interval of a share."""
    low = float(stats.beta.ppf(0.025, hits, n - hits + 1)) if hits else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def share(hits: int, n: int, digits: int = 1) -> str:
    """A share in percent with its interval, as a table cell: `91.2 (90.1-92.3)`."""
    low, high = interval(hits, n)
    return f"{100 * hits / n:.{digits}f} ({100 * low:.{digits}f}-{100 * high:.{digits}f})"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table."""
    lines = ["| " + " | ".join(row) + " |" for row in (head, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(head), *lines[1:]])


def machine(*packages: str) -> str:
    """One line that says what this was measured on, with the versions of `packages`."""
    cpu = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        cpu = names[0] if names else cpu
    versions = ", ".join(f"{name} {_version(name)}" for name in packages)
    day = time.strftime("%Y-%m-%d", time.gmtime())
    return (
        f"{day}, {cpu}, {len(os.sched_getaffinity(0))} cores, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}" + (f", {versions}" if versions else "")
    )


def command_line() -> str:
    """The command that made the table, as it would be typed in a checkout."""
    script = Path(sys.argv[0])
    return " ".join(["python", f"{script.parent.name}/{script.name}", *sys.argv[1:]])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
