"""How often is the promise broken? Simulations at the exact boundary, in full size, as markdown tables.

    python bench/proof.py

Every row draws many calibration sets from a made-up population whose true risk is known, and counts how often a
method certifies what is not so. A sound method stays at or below δ; the broken ones are shown for contrast. Seeds are
fixed: two runs print the same table, but for the timings. Takes a minute or two on one core.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from scipy.special import bdtr

from suffice.core.types import Bools, Certificate, Choice, Draft, Floats, LossKind, Policy, Recipe, Release, Threshold
from suffice.proof.bounds import Ints, attempt_delta, clopper_pearson, floor, p_ge, p_le
from suffice.proof.certify import Evidence, certify, grid
from suffice.proof.judge import judge

DELTA = 0.05
MANY = 20_000
FEWER = 2_000  # where a repetition walks a whole grid with the betting test


def row(name: str, allowed: float | None, broken: Bools) -> None:
    k, n = int(broken.sum()), int(broken.size)
    low, high = clopper_pearson(k, n)
    bound = "none" if allowed is None else f"{allowed:.1%}"
    print(f"| {name} | {bound} | {k / n:.1%} | {low:.1%} to {high:.1%} | {n:,} |", flush=True)


def heading(title: str, counted: str = "promise broken") -> None:
    print(f"\n### {title}\n\n| method | allowed | {counted} | 95% interval | repetitions |\n|---|---|---|---|---|")


# ---------------------------------------------------------------------------------------------- one threshold


def binary(random: np.random.Generator, n: int, eps: float) -> Floats:
    return (random.random(n) < eps).astype(np.float64)


def graded(random: np.random.Generator, n: int, eps: float) -> Floats:
    return random.beta(0.2, 0.2 * (1 - eps) / eps, n)


def signed(random: np.random.Generator, n: int, eps: float) -> Floats:
    """Worse than the frontier in 3% + eps of the requests, better in 3%."""
    draws = random.random(n)
    return (draws < 0.03 + eps).astype(np.float64) - (draws > 0.97)


def in_groups(random: np.random.Generator, count: int, size: int, eps: float, correlation: float) -> Floats:
    """Binary losses whose rate is drawn anew for each group: rows of a group correlate."""
    shape = (1 - correlation) / correlation
    rate = np.repeat(random.beta(eps * shape, (1 - eps) * shape, count), size)
    return (random.random(count * size) < rate).astype(np.float64)


def one_threshold() -> None:
    heading("One threshold whose true risk is exactly ε (allowed: δ = 5%)")
    draws: list[tuple[LossKind, Callable[[np.random.Generator, int, float], Floats], int, float]] = [
        ("binary", binary, 300, 0.02),
        ("binary", binary, 1000, 0.02),
        ("binary", binary, 3000, 0.02),
        ("graded", graded, 1000, 0.02),
        ("signed", signed, 1000, 0.02),
        ("signed", signed, 3000, 0.02),
    ]
    for kind, draw, n, eps in draws:
        random, order = np.random.default_rng(1), np.arange(n)
        passed = np.array([p_le(draw(random, n, eps), eps, kind, order=order) <= DELTA for _ in range(MANY)])
        row(f"{kind}, n = {n:,}", DELTA, passed)


def groups() -> None:
    heading("150 groups of 10, ε = 5%, errors correlated within a group")
    eps, count, size = 0.05, 150, 10
    codes, order = np.repeat(np.arange(count), size), np.arange(count)
    for correlation in (0.1, 0.3):
        random = np.random.default_rng(2)
        samples = [in_groups(random, count, size, eps, correlation) for _ in range(MANY)]
        naive = [float(bdtr(int(losses.sum()), losses.size, eps)) <= DELTA for losses in samples]
        row(f"binomial over rows, correlation {correlation} (broken)", DELTA, np.array(naive))
        bets = [p_le(losses, eps, "binary", order=order, groups=codes, cap=size) <= DELTA for losses in samples]
        row(f"betting over groups, correlation {correlation}", DELTA, np.array(bets))


# ---------------------------------------------------------------------------------------------- choosing a threshold

STEPS = 40


def chances() -> Floats:
    """Of an error, per level of the score, strict to lax; the risk passes ε = 2% after three quarters of them.

    Shape (STEPS,), as shares of all requests. The step that would break the promise first is at 2.0001%.
    """
    rise = np.linspace(0, 1, STEPS) ** 3
    first_bad = (3 * STEPS) // 4
    shares: Floats = rise * 0.020001 / rise[: first_bad + 1].sum()
    return shares


def choosing() -> None:
    heading("Choosing among 40 thresholds, n = 1,000, ε = 2% (allowed: δ = 5%)")
    n, eps, cells = 1000, 0.02, chances()
    bad = np.cumsum(cells) > eps
    random = np.random.default_rng(3)
    counts = random.multinomial(n, [*cells, 1 - cells.sum()], size=MANY)[:, :-1]
    errors = np.cumsum(counts, axis=1)  # accepted errors at each threshold; shape (repetitions, STEPS)
    risk = errors / n

    def laxest(passes: Bools) -> Bools:
        """Whether the laxest passing threshold breaks the promise."""
        last = STEPS - 1 - np.argmax(passes[:, ::-1], axis=1)
        return np.asarray(passes.any(axis=1) & bad[last])

    def walk(passes: Bools) -> Bools:
        """Whether a walk that ends at the first failure gets to a threshold that breaks the promise."""
        steps = np.cumprod(passes, axis=1).sum(axis=1)
        return np.asarray((steps > 0) & bad[np.maximum(steps - 1, 0)])

    p = bdtr(errors, n, eps)
    normal = risk + 1.645 * np.sqrt(risk * (1 - risk) / n)
    row("error seen is at most ε (broken)", DELTA, laxest(risk <= eps))
    row("conformal risk control (bounds the mean risk only)", None, laxest((risk * n + 1) / (n + 1) <= eps))
    row("normal approximation, laxest that passes (broken)", DELTA, laxest(normal <= eps))
    row("**binomial, fixed sequence**", DELTA, walk(p <= DELTA))
    row("**… at δ₁ of the ledger**", DELTA / 2, walk(p <= attempt_delta(DELTA, 1)))
    few = random.binomial(59, eps, size=(MANY, 1))
    row("normal approximation, one threshold, n = 59 (broken)", DELTA, normal_passes(few, 59, eps))

    again = np.stack([walk(bdtr(redraw(random, n, cells), n, eps) <= DELTA) for _ in range(5)])
    row("five recipes at full δ each (broken)", DELTA, np.asarray(again.any(axis=0)))
    spent = [attempt_delta(DELTA, k) for k in range(1, 6)]
    ledger = np.stack([walk(bdtr(redraw(random, n, cells), n, eps) <= delta) for delta in spent])
    row("five recipes, each its own line of the ledger", DELTA, np.asarray(ledger.any(axis=0)))

    # 6% of the requests are hard and answered wrong half of the time; a filter on answers drops three in four of them.
    dropped = random.binomial(n, 0.06 * 0.75, size=MANY)
    seen = random.binomial(n - dropped, 0.03 * 0.25 / (1 - 0.06 * 0.75))
    row("hard rows dropped from calibration, true risk 3% (broken)", DELTA, bdtr(seen, n - dropped, eps) <= DELTA)


def normal_passes(errors: Ints, n: int, eps: float) -> Bools:
    share = errors / n
    return np.asarray(share + 1.645 * np.sqrt(share * (1 - share) / n) <= eps).ravel()


def redraw(random: np.random.Generator, n: int, cells: Floats) -> Ints:
    counts = random.multinomial(n, [*cells, 1 - cells.sum()], size=MANY)[:, :-1]
    return np.asarray(np.cumsum(counts, axis=1))


def whole_walk() -> None:
    heading("The whole of `certify`, nine thresholds, the seventh at exactly ε = 5%, 400 units (allowed: δ₁ = 2.5%)")
    policy, units = Policy(max_error=0.05), 400
    levels = tuple(float(level) for level in range(9, 0, -1))
    chance = 0.05 / 7 * 9
    kinds: list[tuple[LossKind, int]] = [("binary", 1), ("graded", 1), ("signed", 1), ("binary", 4)]
    for kind, size in kinds:
        random, broken, n = np.random.default_rng(4), [], units * size
        for _ in range(FEWER):
            draws = np.repeat(random.random(units), size)  # rows of a group are right or wrong together
            losses = (draws < chance).astype(np.float64)
            if kind == "graded":  # twice as often wrong, by half on average
                losses = (draws < 2 * chance) * random.random(n)
            if kind == "signed":  # as often better as it is worse besides
                losses = (draws < chance + 0.05).astype(np.float64) - (draws > 0.95)
            evidence = Evidence(
                scores=random.integers(1, 10, n).astype(np.float64),
                acceptable=np.ones(n, dtype=np.bool_),
                losses=losses,
                groups=np.arange(n) // size if size > 1 else None,
                cap=size,
            )
            found = attempt(evidence, policy, kind, levels)
            broken.append(isinstance(found, Threshold) and found.score <= 3)
        name = f"{kind}, groups of {size} that err together" if size > 1 else kind
        row(name, attempt_delta(policy.delta, 1), np.array(broken))


def attempt(evidence: Evidence, policy: Policy, kind: LossKind, levels: tuple[float, ...]) -> object:
    return certify(
        evidence,
        policy=policy,
        kind=kind,
        attempt=1,
        grid=levels,
        seed_digest="bench",
        promise="agreement",
        reference="frontier",
    )


# ---------------------------------------------------------------------------------------------- the gate


def gate() -> None:
    heading("The gate: ε = 2%, 1,000 test rows, in the tail an error of 10% where 20% is allowed", "turned away")
    n, threshold, policy = 1000, 0.3, Policy()
    all_rows = np.ones(n, dtype=np.bool_)
    tune = Evidence(scores=np.linspace(0, 1, n), acceptable=all_rows, losses=np.zeros(n))
    for risk in (0.013, 0.02):
        random, turned_away, unproven = np.random.default_rng(5), [], []
        for _ in range(FEWER):
            scores = random.random(n)
            band = (scores >= threshold) & (scores < threshold + 0.035)
            rate = np.where(band, 0.1, (risk - 0.1 * 0.035) / (0.7 - 0.035))
            losses = (random.random(n) < rate).astype(np.float64)
            evidence = Evidence(scores=scores, acceptable=all_rows, losses=losses)
            turned_away.append(not isinstance(judged(evidence, tune, threshold, policy), Release))
            accepted = evidence.accepted(threshold) * losses
            unproven.append(p_le(accepted, policy.max_error, "binary", order=np.arange(n)) > DELTA / 2)
        row(f"true risk {risk:.1%}: refuted, promise or tail", 0.02, np.array(turned_away))
        row(f"true risk {risk:.1%}: were the promise to be proven again (for contrast)", None, np.array(unproven))
    random = np.random.default_rng(6)
    leaked = [
        p_ge(binary(random, n, 0.05), policy.max_error, "binary", order=np.arange(n)) <= 0.01 for _ in range(MANY)
    ]
    row("true risk 5.0%, hidden by a leak: refuted", None, np.array(leaked))


def judged(evidence: Evidence, tune: Evidence, threshold: float, policy: Policy) -> object:
    return judge(
        draft(threshold),
        evidence,
        correct=evidence.losses == 0,
        frontier_wrong=None,
        unseen=evidence.acceptable,
        tune=tune,
        kind="binary",
        policy=policy,
        attempt=1,
        latency_p50_ms=1,
        latency_p99_ms=2,
    )


def draft(threshold: float) -> Draft:
    certificate = Certificate(
        max_error=0.02,
        confidence=0.95,
        attempt=1,
        delta=0.025,
        n=1000,
        method="binomial, fixed sequence",
        p_value=0.02,
        threshold=threshold,
        coverage=0.7,
        promise="agreement",
        reference="frontier",
    )
    return Draft(
        task="bench",
        recipe=Recipe(family="linear"),
        contract=Choice(values=()),
        dataset="bench",
        artefact="",
        threshold=Threshold(score=threshold, certificate=certificate),
    )


# ---------------------------------------------------------------------------------------------- floors and time


def floors() -> None:
    limits = (0.005, 0.01, 0.02, 0.03, 0.05)
    print("\n### Floors\n\n| test | δ |", *(f" {eps:.1%} |" for eps in limits), sep="")
    print("|---|---|" + "---|" * len(limits))
    kinds: list[tuple[str, LossKind]] = [("binomial", "binary"), ("betting", "signed")]
    for name, kind in kinds:
        for k, delta in (("whole", DELTA), ("1st attempt", attempt_delta(DELTA, 1)), ("2nd", attempt_delta(DELTA, 2))):
            print(f"| {name} | {k}, {delta:.3g} |", *(f" {floor(eps, delta, kind):,} |" for eps in limits), sep="")


def timing() -> None:
    random, n = np.random.default_rng(6), 3000
    scores, yes = random.random(n), np.ones(n, dtype=np.bool_)
    print("\n### Time of one walk to its end: 3,000 requests, 200 thresholds, one core\n")
    kinds: list[tuple[LossKind, Floats]] = [("binary", binary(random, n, 0.002)), ("signed", signed(random, n, -0.02))]
    for kind, losses in kinds:
        evidence = Evidence(scores=scores, acceptable=yes, losses=losses)
        start = time.perf_counter()
        attempt(evidence, Policy(), kind, grid(scores, yes))
        print(f"- {kind}: {1000 * (time.perf_counter() - start):.0f} ms")


def main() -> None:
    start = time.perf_counter()
    print("## The proof, simulated")
    one_threshold()
    groups()
    choosing()
    whole_walk()
    gate()
    floors()
    timing()
    print(f"\nTook {time.perf_counter() - start:.0f} s.")


if __name__ == "__main__":
    main()
