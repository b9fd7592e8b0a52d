"""How often the forecast's band holds what comes, on logs of known shapes; how long `suffice plan` takes on a million.

    python bench/plan.py [--seeds 300] [--rows 1000000]        a few minutes; --rows 0 leaves the second part out

Each log is drawn anew for each seed; its second half is predicted from its first, as `suffice plan --backtest` does. A
band of 90% should hold nine times in ten. `noise`: a fifth of lognormal noise a day is on all of them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from suffice.plan.forecast import Series, backtest
from suffice.store import records, traffic
from suffice.store.home import Home
from suffice.store.records import Row

Floats = NDArray[np.float64]
WEEKDAYS = np.array([1, 1.1, 1.05, 1, 0.95, 0.3, 0.25])
LENGTHS = (6, 14, 28, 56, 112)


def _bursts(day: Floats, coins: np.random.Generator, share: float, times: float) -> Floats:
    """Two days in a row at `times` the level, now and then."""
    level = np.ones(len(day))
    for start in np.flatnonzero(coins.random(len(day)) < share):
        level[start : start + 2] = times
    return level


def _together(day: Floats, coins: np.random.Generator) -> Floats:
    """Days that hang together: a walk that comes back to its mean."""
    level = np.zeros(len(day))
    for i in range(1, len(day)):
        level[i] = 0.7 * level[i - 1] + coins.normal(0, 0.2)
    return np.asarray(np.exp(level))


SHAPES: dict[str, Callable[[Floats, np.random.Generator], Floats]] = {
    "flat": lambda day, coins: np.ones(len(day)),
    "growing 20% a month": lambda day, coins: 1.2 ** (day / 30.4),
    "shrinking 15% a month": lambda day, coins: 0.85 ** (day / 30.4),
    "weekly": lambda day, coins: WEEKDAYS[day.astype(int) % 7],
    "weekly, growing 15%": lambda day, coins: WEEKDAYS[day.astype(int) % 7] * 1.15 ** (day / 30.4),
    "nothing at weekends": lambda day, coins: (day % 7 < 5).astype(float),
    "days that hang together": _together,
    "bursts: 10% of days, 3x": lambda day, coins: _bursts(day, coins, 0.05, 3.0),
    "rare bursts: 4%, 8x": lambda day, coins: _bursts(day, coins, 0.02, 8.0),
    "a step to twice, anywhere": lambda day, coins: np.where(day < coins.uniform(0, 1) * len(day), 1.0, 2.0),
}


def coverage(seeds: int) -> None:
    """Print the share of second halves that lie in the band, and the median width of the band against its point."""
    print(f"{'shape':27s}" + "".join(f"{days:>6d} days" for days in LENGTHS) + "   (held, width)")
    for name, shape in SHAPES.items():
        cells = []
        for days in LENGTHS:
            held, widths = 0, []
            for seed in range(seeds):
                coins = np.random.default_rng([seed, days])
                level = shape(np.arange(days, dtype=float), coins) * coins.lognormal(-0.02, 0.2, days)
                found = backtest(Series(values=tuple(100 * level)), seed)
                held += found.within
                widths.append((found.predicted.high - found.predicted.low) / found.predicted.point)
            cells.append(f"{held / seeds:5.0%} {np.median(widths):5.2f}")
        print(f"{name:27s}" + "".join(cells), flush=True)


def speed(rows: int) -> None:
    """Fill a home with so many records and time `suffice plan` on it, and the reading of traffic alone."""
    coins = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder) / "home")
        writer = records.Writer(home.bodies)
        connection = home.connect()
        connection.execute("PRAGMA synchronous=OFF")
        for start in range(0, rows, 5_000):
            draws = coins.random((5_000, 4))
            writer.insert(connection, [_row(start + i, rows, *draws[i]) for i in range(min(5_000, rows - start))])
        connection.close()
        for _ in range(3):
            began = time.perf_counter()
            seen = traffic.read(home)
            read_s = time.perf_counter() - began
            began = time.perf_counter()
            command = [sys.executable, "-m", "suffice.cli.main", "plan", "--home", str(home.folder), "--json"]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            whole_s = time.perf_counter() - began
            flows = len(seen.flows) if seen is not None else 0
            print(
                f"{rows:,} records, {flows:,} flows: traffic {read_s:.1f} s, `suffice plan` {whole_s:.1f} s", flush=True
            )


def _row(n: int, rows: int, which: float, model: float, route: float, size: float) -> Row:
    """60 days, 30 tasks, three models; two requests in five answered by a specialist."""
    free = route < 0.4
    return Row(
        id=f"rec_{n:010d}",
        at=1_780_000_000.0 + 60 * 86_400 * n / rows,
        source="live",
        task=f"task{int(30 * which)}",
        rule="header",
        model=("gpt-4o", "gpt-4o-mini", "claude-opus-4-5")[int(3 * model)],
        upstream=None if free else "frontier",
        route="specialist" if free else "frontier",
        reason="accepted" if free else "below_threshold" if route < 0.7 else "unfamiliar",
        status=200,
        prompt_tokens=100 + int(400 * size),
        completion_tokens=20,
        cached_tokens=0,
        cost_usd=None if free else 0.001,
        request=b'{"model":"gpt-4o","messages":[{"role":"user","content":"%020d"}]}' % n,
        answer=b"y" * 300,
    )


def main() -> None:
    """Both parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=300)
    parser.add_argument("--rows", type=int, default=1_000_000)
    given = parser.parse_args()
    if given.seeds:
        coverage(given.seeds)
    if given.rows:
        speed(given.rows)


if __name__ == "__main__":
    main()
