"""What a promise is worth that a model's word stands behind: how often it is broken, by people, and what it costs.

    python bench/judge.py

Calibration sets are drawn from traffic of which people would call exactly eps accepted and wrong: a certificate is a
broken promise. The judge lets a share psi of the wrong answers pass, and was measured on wrong answers that people
have named. `paid`: certified as `learn.referee` does. `at its word`: by the judge's losses alone. Then the other side:
how often good answers get their certificate. 20,000 repetitions a line, fixed seeds, half a minute.
"""

from __future__ import annotations

import numpy as np
from scipy.stats import binom

from suffice.core.types import Policy
from suffice.learn.referee import Pair, compared, strict
from suffice.proof.bounds import attempt_delta, clopper_pearson

REPETITIONS = 20_000
EPS, N = 0.02, 3_000
LINES = [(0.0, 60), (0.05, 60), (0.05, 200), (0.05, 1_000), (0.2, 200), (0.2, 1_000), (0.4, 1_000)]


class Known:
    """A judge whose verdict stands in the answer."""

    def __call__(self, input: str, said: object, right: object) -> float:
        """What it says."""
        return float(said != "passes")

    def prepare(self, cases: object) -> None:
        """Nothing."""

    def fault(self) -> str | None:
        """None."""
        return None


def limit_of(passed: int, of: int, policy: Policy, paid: bool) -> tuple[float, float] | None:
    """By which limit, and at which chance, the judge's losses are certified; None where it is refused."""
    delta = attempt_delta(policy.delta, 1)
    answers = ["passes"] * passed + ["fails"] * (of - passed)
    pairs = [Pair(input="", answer=answer, reference="r", good=False) for answer in answers]
    found = compared(Known(), "j", pairs, delta / 2)
    if isinstance(found, str):
        return None
    by = strict(policy, found) if paid else policy
    return by.max_error, attempt_delta(by.delta, 1)


def certified(psi: float, pairs: int, risk: float, paid: bool) -> int:
    """In how many repetitions there is a certificate, the true risk being `risk` by people."""
    dice, policy = np.random.default_rng(7), Policy(max_error=EPS)
    passed = dice.binomial(pairs, psi, REPETITIONS)
    seen = dice.binomial(N, risk * (1 - psi), REPETITIONS)
    limits = {k: limit_of(k, pairs, policy, paid) for k in set(passed.tolist())}
    return sum(
        (limit := limits[k]) is not None and bool(binom.cdf(errors, N, limit[0]) <= limit[1])
        for k, errors in zip(passed.tolist(), seen.tolist(), strict=True)
    )


def shown(k: int) -> str:
    low, high = clopper_pearson(k, REPETITIONS)
    return f"{100 * k / REPETITIONS:.1f}% ({100 * low:.1f} to {100 * high:.1f})"


def main() -> None:
    print(f"eps = {EPS:.0%}, n = {N:,}, first attempt: allowed {attempt_delta(0.05, 1):.1%}\n")
    print("| lets pass | measured on | paid: promise broken | at its word: broken | paid: certified at a risk of 1% |")
    print("|---|---|---|---|---|")
    for psi, pairs in LINES:
        cells = [
            certified(psi, pairs, EPS, True),
            certified(psi, pairs, EPS, False),
            certified(psi, pairs, EPS / 2, True),
        ]
        print(f"| {psi:.0%} | {pairs:,} | " + " | ".join(map(shown, cells)) + " |", flush=True)


if __name__ == "__main__":
    main()
