"""How often does the watch alarm for nothing, and how soon when it should? As markdown tables.

    python bench/watch.py

False alarms: made-up traffic whose risk is exactly the limit, many watches side by side, 20,000 audits each. Delay: the
scores and errors of a linear specialist of BANKING77 that has seen 62 of the 77 topics; then a fifth of the traffic is
about the other 15. Seeds are fixed: two runs print the same figures. About two minutes on one core.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import bdtrc, logsumexp
from scipy.stats import beta

from common import command_line, data_folder, machine, read_lines, share, table
from suffice.core.contracts import refusal
from suffice.core.types import (
    Bools,
    Choice,
    Example,
    Floats,
    Policy,
    Recipe,
    Threshold,
    TrainSet,
    TuneSet,
)
from suffice.proof import monitor
from suffice.proof.bounds import Ints, attempt_delta
from suffice.proof.certify import Evidence, certify, grid
from suffice.proof.monitor import ALPHA, WINDOWS, Audits, Limit, Shift, audits
from suffice.specialists.linear import LinearFamily

EPS = 0.02
DELTA = 0.05
RUNS = 400
AUDITS = 20_000
PUBLISH = 10
"""Stakes are published after so many audits: a worker's are old by up to that."""
SLOTS = 512
"""Labels are fewer than so many audits late."""

Grid = npt.NDArray[np.float64]  # (runs, fortunes)


# ---------------------------------------------------------------------------------------------- the watch, side by side


class Watches:
    """`monitor`'s bet for many runs at once; the same formulas on arrays of shape (runs, 3), checked by `same`."""

    def __init__(self, limit: Limit, runs: int) -> None:
        new = monitor.start(limit)
        self.limit = limit
        self.cap = monitor.stakes(monitor.Wealth(log=new.log, mean=(1e9, 1e9, 1e9)), limit, 1.0)[0]
        self.log: Grid = np.tile(new.log, (runs, 1))
        self.mean: Grid = np.tile(new.mean, (runs, 1))
        self.windows = np.array(WINDOWS)

    def stakes(self, q_err: Floats | float) -> Grid:
        """`q_err` broadcasts against (runs, 3)."""
        return np.clip(q_err * (self.mean / self.limit.eps - 1), 0.0, self.cap)

    def term(self, lam: Grid, x: Floats) -> Grid:
        """The growth of each fortune by X = `x`, shape (runs,)."""
        return np.log1p(lam * (x[:, None] - self.limit.eps))

    def alarmed(self) -> Bools:
        """Shape (runs,)."""
        highest = self.log.max(axis=1)
        evidence = highest + np.log(np.exp(self.log - highest[:, None]).mean(axis=1))
        return np.asarray(evidence >= -np.log(self.limit.delta))


def same(limit: Limit, q: float, steps: int = 3000) -> None:
    """Fail unless `Watches` and `monitor` go the same way through the same steps, at five times the limit."""
    dice = np.random.default_rng(9)
    many, one = Watches(limit, 1), monitor.start(limit)
    for _ in range(steps):
        lam = monitor.stakes(one, limit, q)
        assert np.allclose(many.stakes(q)[0], lam, rtol=1e-9, atol=1e-12)
        audited, z = dice.random() < q, float(dice.random() < 5 * limit.eps)
        one = monitor.open_audit(one, limit, lam, q) if audited else monitor.book(one, limit, lam, q)
        one = monitor.settle(one, limit, lam, q, z, q) if audited else one
        x = np.array([z / q if audited else 0.0])
        many.log += many.term(many.stakes(q), x)
        many.mean += (x[:, None] - many.mean) * q / many.windows
        assert np.allclose(many.log[0], one.log, rtol=1e-9, atol=1e-9)
        assert bool(many.alarmed()[0]) == monitor.alarmed(one, limit)


# ---------------------------------------------------------------------------------------------- false alarms


@dataclass(frozen=True, kw_only=True)
class Traffic:
    """Requests in kinds of equal share that together are `accepted`; q, worse and better have shape (kinds,).

    An accepted request of a kind is audited with chance `q`; its loss is 1 with chance `worse`, -1 with `better`.
    """

    accepted: float
    q: Floats
    worse: Floats
    better: Floats
    q_err: float


def traffic(rate: float, *, canary: float = 1.0, signed: bool = False) -> Traffic:
    """Three quarters accepted, risk exactly `EPS`, errors where confidence is low, a share `rate` of audits.

    In a canary only a share of the accepted is served; the rest is labelled anyway.
    """
    doubt = beta.ppf((np.arange(50) + 0.5) / 50, 0.4, 8)
    spread = audits(1 - doubt, rate)
    q = (1 - canary) + canary * np.array([spread.probability(1 - p) for p in doubt])
    worse = doubt * EPS / 0.75 / doubt.mean()
    better = np.full(50, 0.02 if signed else 0.0)
    q_err = float(doubt.sum() / (doubt / q).sum())
    return Traffic(accepted=0.75, q=q, worse=worse + better, better=better, q_err=q_err)


def alarms(
    kind: Traffic,
    *,
    signed: bool = False,
    errors_first: bool = True,
    late: int = SLOTS,
    lost: float = 0.1,
    count: int = AUDITS,
    cycle: float = 0.0,
    seed: int,
) -> tuple[Bools, Bools]:
    """Which watches ever alarm in `count` audits: booked as `monitor` does, and with unresolved audits *skipped*.

    Labels are fewer than `late` audits late, in any order, and a share `lost` never comes. `errors_first`: those of
    disagreement come at once and only the others are late or lost. `cycle`: the risk swings by this part of itself,
    2,000 audits up, 2,000 down.
    """
    dice = np.random.default_rng(seed)
    limit = Limit(eps=EPS, delta=DELTA, signed=signed, least_q=float(kind.q.min()) if signed else 0.0)
    rows = np.arange(RUNS)
    watches, skipping = Watches(limit, RUNS), np.zeros((RUNS, 3))
    alarm, skip_alarm = np.zeros(RUNS, dtype=np.bool_), np.zeros(RUNS, dtype=np.bool_)
    # What falls due at a coming audit, per slot of a ring: gains of the fortunes, labels, the sum of their X.
    gains, skipped_gains = np.zeros((SLOTS, RUNS, 3)), np.zeros((SLOTS, RUNS, 3))
    labels, sums = np.zeros((SLOTS, RUNS)), np.zeros((SLOTS, RUNS))
    asked, step = kind.accepted * kind.q.mean(), kind.q_err / np.array(WINDOWS)
    chances = np.cumsum(kind.q / kind.q.sum())
    lam = watches.stakes(kind.q_err)
    for i in range(count):
        if i % PUBLISH == 0:
            lam = watches.stakes(kind.q_err)
        gap = dice.geometric(asked, RUNS)[:, None] - 1
        silent = gap * np.log1p(-lam * EPS)
        watches.log += silent
        skipping += silent
        watches.mean *= (1 - step) ** gap

        cell = np.minimum(np.searchsorted(chances, dice.random(RUNS)), 49)
        swing = 1 + cycle * (1 if i // 2000 % 2 else -1)
        u, worse = dice.random(RUNS), kind.worse[cell] * swing
        z = np.where(u < worse, 1.0, np.where(u > 1 - kind.better[cell], -1.0, 0.0))
        q = kind.q[cell]
        x, least = z / q, (-1 / q if signed else np.zeros(RUNS))
        opened, settled = watches.term(lam, least), watches.term(lam, x)
        watches.log += opened
        wait, gone = dice.integers(0, late, RUNS), dice.random(RUNS) < lost
        if errors_first:
            wait, gone = np.where(z > 0, 0, wait), gone & (z <= 0)
        slot, comes = (i + wait) % SLOTS, ~gone
        gains[slot, rows] += (settled - opened) * comes[:, None]
        skipped_gains[slot, rows] += settled * comes[:, None]
        labels[slot, rows] += comes
        sums[slot, rows] += x * comes

        now = i % SLOTS
        watches.log += gains[now]
        skipping += skipped_gains[now]
        watches.mean *= (1 - step) ** labels[now][:, None]
        watches.mean += step * sums[now][:, None]
        for store in (gains, skipped_gains, labels, sums):
            store[now] = 0.0
        alarm |= watches.alarmed()
        skip_alarm |= logsumexp(skipping, axis=1) - np.log(3) >= -np.log(DELTA)
    return alarm, skip_alarm


def usual_ways() -> tuple[Bools, Bools]:
    """Which runs alarm at risk `EPS` by the two usual ways, every label at once: a rolling window, and CUSUM.

    Window: the exact binomial test at δ of the last 500 audits. CUSUM: 4% against 2%, alarm at log(1/δ).
    """
    dice = np.random.default_rng(5)
    z = dice.random((RUNS, AUDITS)) < EPS
    total: Ints = np.cumsum(z, axis=1)
    recent = total[:, 500:] - total[:, :-500]
    window = bdtrc(recent - 1, 500, EPS) <= DELTA
    gain = np.where(z, np.log(2.0), np.log((1 - 2 * EPS) / (1 - EPS)))
    walk = np.cumsum(gain, axis=1)
    lowest = np.minimum(0.0, np.minimum.accumulate(walk, axis=1))
    cusum = walk - lowest >= -np.log(DELTA)
    return np.asarray((window & (recent > 0)).any(axis=1)), np.asarray(cusum.any(axis=1))


def boundary() -> None:
    print(
        f"\n### False alarms at a risk of exactly {EPS:.0%}, {RUNS} watches of {AUDITS:,} audits, allowed {DELTA:.0%}\n"
    )
    rows = []

    def told(name: str, labels: str, alarm: Bools) -> None:
        rows.append([name, labels, share(int(alarm.sum()), alarm.size)])

    random_order, worst = "late, shuffled, 10% lost", "errors at once; others late, 10% lost"
    one, canary = traffic(0.01), traffic(0.01, canary=0.1)
    told("1% audited, by confidence", random_order, alarms(one, errors_first=False, seed=1)[0])
    told("the same", worst, alarms(one, seed=2)[0])
    booked, skipped = alarms(canary, seed=3)
    told("canary: 10% served, the others labelled anyway", worst, booked)
    both = traffic(0.01, canary=0.1, signed=True)
    told("signed, canary", worst, alarms(both, signed=True, seed=4)[0])
    told("the same", "at once", alarms(both, signed=True, late=1, lost=0.0, seed=5)[0])
    often = traffic(0.2, signed=True)
    told("signed, 20% audited", "at once", alarms(often, signed=True, late=1, lost=0.0, seed=6)[0])
    told("canary, audits without a label *skipped* (broken)", worst, skipped)
    window, cusum = usual_ways()
    told("rolling window of 500 audits, tested at 5% (broken)", "at once", window)
    told("CUSUM, 4% against 2%, alarm at log(1/δ) (broken)", "at once", cusum)
    swing = alarms(canary, cycle=0.75, seed=7)[0]
    told("canary, risk 0.5% by day, 3.5% by night (above its limit by night: alarms)", worst, swing)
    print(table(["watch", "labels", "alarms, % (95%)"], rows))


def blind() -> None:
    """Signed watches that should alarm, but some labels are lost, each of which may have been an answer better."""
    often = traffic(0.2, signed=True)
    bad = replace(often, worse=2 * often.worse)
    risk = bad.accepted * float((bad.worse - bad.better).mean())
    print(f"\n### Signed watches at a risk of {risk:.1%}, limit {EPS:.0%}, 20% audited, 4,000 audits\n")
    rows = []
    for lost in (0.0, 0.02, 0.1):
        alarm, _ = alarms(bad, signed=True, errors_first=False, late=1, lost=lost, count=4000, seed=11)
        rows.append([f"{lost:.0%}", share(int(alarm.sum()), RUNS)])
    print(table(["labels lost", "alarms, % (95%)"], rows))


# ---------------------------------------------------------------------------------------------- delay


@dataclass(frozen=True, kw_only=True)
class Pool:
    """Requests to draw traffic from: whether each is accepted, its score, its loss."""

    accepted: Bools
    scores: Floats
    losses: Floats


@dataclass(frozen=True, kw_only=True)
class Task:
    """A certified specialist and what may be asked of it."""

    known: Pool
    unseen: Pool
    tuned: Floats  # scores of accepted tune requests
    expected: float  # share escalated in calibration


def real() -> Task:
    """A linear specialist of 62 topics, certified at 2%; known topics and the 15 it has never seen."""
    folder, dice = data_folder("banking77"), random.Random(0)
    rows, test = read_lines(folder / "train.jsonl"), read_lines(folder / "test.jsonl")
    topics = sorted({row["label"] for row in rows})
    gone = set(dice.sample(topics, len(topics) // 5))
    examples = [
        Example(id=str(i), input=row["text"], output=row["label"], has_output=True) for i, row in enumerate(rows + test)
    ]
    fresh = [e for e in examples[len(rows) :] if e.output not in gone]
    old = [e for e in examples[: len(rows)] if e.output not in gone]
    dice.shuffle(old)
    tenth = len(old) // 10
    train, tune, calibration = old[: 6 * tenth], old[6 * tenth : 7 * tenth], old[7 * tenth :]
    contract = Choice(tuple(t for t in topics if t not in gone))
    model = LinearFamily().fit(Recipe(family="linear"), contract, TrainSet(train), TuneSet(tune), lambda *_: None)

    def answers(requests: list[Example]) -> Evidence:
        found = model.predict([e.input for e in requests])
        return Evidence(
            scores=np.array([p.score for p in found]),
            acceptable=np.array([refusal(p, contract, -np.inf) is None for p in found]),
            losses=np.array([float(p.value != e.output) for p, e in zip(found, requests, strict=True)]),
        )

    on_tune, evidence = answers(tune), answers(calibration)
    certified = certify(
        evidence,
        policy=Policy(max_error=EPS, confidence=1 - DELTA),
        kind="binary",
        attempt=1,
        grid=grid(on_tune.scores, on_tune.acceptable),
        seed_digest="watch",
        promise="agreement",
        reference="frontier",
    )
    assert isinstance(certified, Threshold)
    cut = certified.score

    def pool(requests: list[Example]) -> Pool:
        found = answers(requests)
        return Pool(accepted=found.accepted(cut), scores=found.scores, losses=found.losses)

    return Task(
        known=pool(fresh),
        unseen=pool([e for e in examples if e.output in gone]),
        tuned=on_tune.scores[on_tune.accepted(cut)],
        expected=1 - float(evidence.accepted(cut).mean()),
    )


@dataclass(frozen=True)
class Spread:
    """The audits of one plan on both pools: chances, shape (known + unseen,), and q_err."""

    q: Floats
    q_err: float


def spread(task: Task, plan: Audits) -> Spread:
    scores = np.concatenate((task.known.scores, task.unseen.scores))
    return Spread(np.array([plan.probability(float(s)) for s in scores]), plan.q_err)


def delays(
    task: Task, base: Spread, boost: Spread | None, *, delta: float, calm: int, most: int, seed: int
) -> tuple[Ints, Ints]:
    """Requests from the change to the alarm, and audits bought in them; shape (RUNS,) both.

    `most`: no alarm until then; negative: before the change. Each run serves `calm` requests of known topics, then a
    fifth is about the others. With `boost`, audits go by that plan while the escalation share is off. Labels come
    before the next request.
    """
    dice = np.random.default_rng(seed)
    accepted = np.concatenate((task.known.accepted, task.unseen.accepted))
    losses = np.concatenate((task.known.losses, task.unseen.losses))
    n_known, n_unseen = len(task.known.scores), len(task.unseen.scores)
    plans = (base, boost or base)
    qs, q_errs = np.stack([p.q for p in plans]), np.array([p.q_err for p in plans])
    watches, level = Watches(Limit(eps=EPS, delta=delta), RUNS), np.full(RUNS, task.expected)
    found, bought, alive = np.full(RUNS, most), np.zeros(RUNS, dtype=np.int64), np.arange(RUNS)
    # `monitor.shifted`, once it has seen many requests.
    usual = max(task.expected, 0.05)
    far = monitor.TOO_FAR * np.sqrt(usual * (1 - usual) * ALPHA / (2 - ALPHA))
    for i in range(-calm, most):
        row = dice.integers(0, n_known, alive.size)
        if i >= 0:
            strange = dice.random(alive.size) < 0.2
            row = np.where(strange, n_known + dice.integers(0, n_unseen, alive.size), row)
        off = (np.abs(level - task.expected) > far).astype(np.int64)
        q, q_err = qs[off, row], q_errs[off][:, None]
        audited = accepted[row] & (dice.random(alive.size) < q)
        bought[alive] += audited & (i >= 0)
        x = np.where(audited, losses[row] / q, 0.0)
        watches.log += watches.term(watches.stakes(q_err), x)
        watches.mean += (x[:, None] - watches.mean) * q_err / watches.windows
        level += ALPHA * (~accepted[row] - level)
        if not x.any():  # without an error no fortune grows
            continue
        stop = watches.alarmed()
        if stop.any():
            found[alive[stop]] = i
            alive, level = alive[~stop], level[~stop]
            watches.log, watches.mean = watches.log[~stop], watches.mean[~stop]
            if not alive.size:
                break
    return found, bought


def bounds(task: Task) -> None:
    """What the running bound shows of calm traffic, 1% audited by confidence."""
    dice, plan = np.random.default_rng(12), spread(task, audits(task.tuned, 0.01))
    known, rows = task.known, []
    for steps in (10_000, 100_000, 1_000_000):
        shown = []
        for _ in range(20):
            row = dice.integers(0, len(known.scores), steps)
            audited = known.accepted[row] & (dice.random(steps) < plan.q[row])
            xs = (known.losses[row] / plan.q[row])[audited]
            shown.append(monitor.running_bound(xs[xs > 0], steps, 0.01 / 4, DELTA))
        rows.append([f"{steps:,}", f"{np.median(shown):.1%}", f"{min(shown):.1%} to {max(shown):.1%}"])
    risk = float((known.accepted * known.losses).mean())
    print(f"\n### Running bound at a true risk of {risk:.2%}, 95% sure, 1% audited, 20 runs\n")
    print(table(["requests", "median", "from, to"], rows))


def delay(task: Task) -> None:
    risk = float((task.known.accepted * task.known.losses).mean())
    strange = float((task.unseen.accepted * task.unseen.losses).mean())
    print(
        "\n### Requests until revocation, when a fifth of the traffic is about topics never seen\n\n"
        f"Certified at {EPS:.0%}: {1 - task.expected:.1%} accepted. Accepted and wrong are {risk:.2%} of "
        f"{len(task.known.scores):,} fresh requests about known topics and {strange:.1%} of "
        f"{len(task.unseen.scores):,} about unseen ones: {0.8 * risk + 0.2 * strange:.2%} after the change. {RUNS} "
        "runs, 1% of the accepted audited, *boosted*: 20% while the escalation share is off.\n"
    )
    uniform, weighted = spread(task, audits(np.array([]), 0.01)), spread(task, audits(task.tuned, 0.01))
    boosted = spread(task, audits(task.tuned, 0.2))
    first, most, rows = attempt_delta(DELTA, 1), 200_000, []
    for delta, calm in ((first, 5000), (DELTA, 0)):
        for name, base, boost in (
            ("uniform", uniform, None),
            ("by confidence", weighted, None),
            ("by confidence, boosted", weighted, boosted),
        ):
            found, bought = delays(task, base, boost, delta=delta, calm=calm, most=most, seed=8)
            after = found >= 0
            rows.append(
                [
                    name,
                    f"{delta:.1%}, {calm:,}",
                    middle(found[after], 0.5, most),
                    middle(found[after], 0.9, most),
                    f"{np.median(bought[after]):,.0f}",
                    str(int((~after).sum())),
                ]
            )
    head = ["audits", "δ, calm requests before", "median (95%)", "90th percentile (95%)", "audits bought", "too early"]
    print(table(head, rows))


def middle(values: Ints, part: float, most: int) -> str:
    """A quantile with the interval that the order statistics give, as a table cell."""
    values, n = np.sort(values), len(values)
    half = 1.96 * np.sqrt(n * part * (1 - part))
    at = [values[int(np.clip(k, 0, n - 1))] for k in (n * part, n * part - half, n * part + half)]
    point, low, high = (f">{most:,}" if v >= most else f"{v:,}" for v in at)
    return f"{point} ({low} to {high})"


def shifts() -> None:
    """How often the label-free alarm is raised for nothing: requests of which a share `expected` escalates."""
    print("\n### The escalation share, nothing changed: calls for more audits in 10,000 requests, 200 runs\n")
    dice, rows = np.random.default_rng(10), []
    for expected in (0.01, 0.05, 0.2, 0.5):
        raised = 0
        for _ in range(200):
            shift, ever = Shift(expected=expected, level=expected, steps=0), False
            for part in (dice.random(10_000) < expected).reshape(-1, 20):
                shift = monitor.watch_shift(shift, part)
                ever = ever or monitor.shifted(shift)
            raised += ever
        rows.append([f"{expected:.0%}", share(raised, 200)])
    print(table(["escalated", "runs with a call, % (95%)"], rows))


def main() -> None:
    began = time.perf_counter()
    print(f"`{command_line()}`, {machine('numpy', 'scipy')}")
    same(Limit(eps=EPS, delta=DELTA), 0.3)
    same(Limit(eps=EPS, delta=DELTA, signed=True, least_q=0.3), 0.3)
    boundary()
    blind()
    task = real()
    delay(task)
    bounds(task)
    shifts()
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
