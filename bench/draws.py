"""What a plan takes to make, and how much its ranges owe to the draws.

    python bench/draws.py          processor time of each published case, and the noise of its ranges

The noise: ends of ranges from 40 seeds of 2,000 draws each against one run of 200,000, as a share of the latter.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from suffice.plan import cases, inputs, uncertain
from suffice.plan.costs import ledger
from suffice.plan.planner import figures, plan
from suffice.plan.prices import Prices

SEEDS, MANY, REPEATS = 40, 200_000, 10


def best_ms(run: Callable[[], object]) -> float:
    """Milliseconds of processor time, the best of some runs."""
    took = []
    for _ in range(REPEATS):
        began = time.process_time()
        run()
        took.append(time.process_time() - began)
    return 1e3 * min(took)


def ends(resolved: inputs.Inputs, seed: int, n: int) -> list[float]:
    """The ends of the hybrid's year and of its saving, 5% and 95%."""
    shown = ledger(resolved, uncertain.draws(resolved, seed, n))
    hybrid, frontier = (shown.usd(name).sum(axis=1) for name in ("hybrid", "frontier"))
    return [float(np.quantile(each, at)) for each in (hybrid, frontier - hybrid) for at in (0.05, 0.95)]


def main() -> None:
    """Print the table."""
    print(f"{'case':<14}{'figures':>9}{'plan':>8}   ends of the year's cost and of the saving: their spread over seeds")
    for name in cases.names():
        scenario = cases.read(name)
        resolved = inputs.resolve(scenario, Prices({}))
        counted = best_ms(lambda: figures(resolved, uncertain.draws(resolved, seed=0)))  # noqa: B023
        whole = best_ms(lambda: plan(scenario))  # noqa: B023
        truth = np.array(ends(resolved, SEEDS, MANY))
        spread = np.std([ends(resolved, seed, uncertain.DRAWS) for seed in range(SEEDS)], axis=0) / np.abs(truth)
        noise = "  ".join(f"{each:.1%}" for each in spread)
        print(f"{name:<14}{counted:>6.0f} ms{whole:>5.0f} ms   {noise}")


if __name__ == "__main__":
    main()
