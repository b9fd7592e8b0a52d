"""Drift, replayed through the running gateway until it revokes and is back: as markdown tables.

    python bench/drift.py [--runs 3] [--quick]        about ten minutes on two cores; --quick: about three

BANKING77. A release is learned from a file of the frontier's answers (agreement, max error 2%) and put live in
`suffice serve` with the default policy: 1% audited, boosted to 20% while the escalation share is off. A frontier in
this process answers over HTTP, with the gold labels. Every run has its own copy of the home and its own server:
300 requests in stage observe (the probe chooses among them), live, a calm phase, then from one request to the next

- *new topics*: a fifth of the traffic is about 15 topics that were left out of training;
- *another mix*: only the 15 topics with most errors among the accepted answers, by 1,500 rows that are in no stream;
- *the worst mix*: the 15 topics chosen so in hindsight, by the stream's own rows: nobody could pick a worse one;
- *another frontier*: for 15 of the 77 labels it gives a new name, or (every other one) another label's;
- *nothing*: the control, as long as the others usually are.

After the alarm the traffic goes on until the release is certified again and live, or Suffice asks to learn anew; then
1,000 requests more. In the first such run of each release that is done, as the event says (`suffice learn --since`),
after 4,000 requests more; then come 1,000 requests of the same traffic, of which many texts have been learned by then,
for streams repeat themselves, and once each text that was in no stream: the promise is about the former.

Streams are drawn with replacement, as they are, from rows that were not learned from: the pool is the population, and
the loss before and after the change, given in the table, is exact. Three releases per kind of home (three shuffles,
three sets of left-out topics), the runs take turns at them. Closed loop over 16 connections, as fast as it goes, so a
look of the keeper (0.2 s) takes in 100 to 300 requests: part of every delay here that slower traffic would not have.

Counted by the caller: an answer differs if it is not what the frontier says now. The alarm's moment is the event's in
the home. Medians with the interval of their order statistics, shares with Clopper-Pearson's, both 95%.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import re
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import aiohttp
import numpy as np
from scipy import stats

import common

TASK = "banking"
EPS = 0.02
FOLDS, RUNS = 3, 3
LEARN, ASIDE, RESERVE = 8_500, 1_500, 700
TOPICS = 15
STRANGE = 0.2
OBSERVED, AFTER, RELEARN = 300, 1_000, 4_000
CONNECTIONS = 16
BOOST_BUDGET = 2_000
"""By default."""
LATE_S = 1.0
"""A worker may still answer for this long after the alarm."""

Row = dict[str, str]
Draw = Callable[[], Row]

# ---------------------------------------------------------------------------------------------- the frontier


class Frontier:
    """Answers over HTTP what `says` gives for the last message; whoever holds it may change its mind."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self._labels = {row["text"]: row["label"] for row in rows}
        self.renamed: dict[str, str] = {}

    def says(self, text: str) -> str:
        """Its answer now."""
        label = self._labels[text]
        return self.renamed.get(label, label)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        """Its base URL, while it listens."""
        server = await asyncio.get_running_loop().create_server(lambda: _Connection(self), "127.0.0.1", 0, backlog=1024)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


class _Connection(asyncio.Protocol):
    """A kept HTTP/1.1 connection: requests with a length, one after the other."""

    def __init__(self, frontier: Frontier) -> None:
        self._frontier, self._buffer = frontier, b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        if len(self._buffer) < end + 4 + length:
            return
        body, self._buffer = self._buffer[end + 4 : end + 4 + length], self._buffer[end + 4 + length :]
        answer = {
            "id": "chatcmpl-drift", "object": "chat.completion", "created": 1, "model": "gold",
            "choices": [
                {
                    "index": 0, "finish_reason": "stop",
                    "message": {
                        "role": "assistant", "content": self._frontier.says(json.loads(body)["messages"][-1]["content"])
                    },
                }
            ],
            "usage": {"prompt_tokens": 40, "completion_tokens": 5, "total_tokens": 45},
        }  # fmt: skip
        told = json.dumps(answer).encode()
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(told)
        self._transport.write(head + told)


# ---------------------------------------------------------------------------------------------- what is learned


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A home with a certified release in stage observe, and what may be asked of it.

    `pool` is the population of the stream, `strange` that of the topics left out, `reserve` and `strange_reserve` are
    parts of them that no stream has. `hard` are the topics with most accepted errors, `hardest` so in hindsight.
    `said`: to a text, the release's answer and whether it accepts.
    """

    home: Path
    pool: Sequence[Row]
    reserve: Sequence[Row]
    strange: Sequence[Row]
    strange_reserve: Sequence[Row]
    hard: frozenset[str]
    hardest: frozenset[str]
    renamed: dict[str, str]
    said: dict[str, tuple[str, bool]]

    def loss(self, rows: Sequence[Row], renamed: dict[str, str] | None = None) -> float:
        """The share of these rows that the release accepts and answers unlike the frontier."""
        names = renamed or {}
        wrong = [self.said[r["text"]][1] and self.said[r["text"]][0] != names.get(r["label"], r["label"]) for r in rows]
        return sum(wrong) / len(rows)

    def accepted(self, rows: Sequence[Row]) -> float:
        """The share of these rows that the release accepts."""
        return sum(self.said[row["text"]][1] for row in rows) / len(rows)


def prepare(rows: Sequence[Row], fold: int, without: bool, work: Path) -> Prepared:
    """Learn from a shuffle of the rows; `without`: a fifth of the topics is left out."""
    dice = random.Random(fold)
    rows = dice.sample(rows, len(rows))
    topics = sorted({row["label"] for row in rows})
    gone = set(dice.sample(topics, TOPICS)) if without else set()
    strange = [row for row in rows if row["label"] in gone]
    known = [row for row in rows if row["label"] not in gone]
    most = LEARN * len(known) // len(rows)
    learned, aside = known[:most], known[most : most + ASIDE]
    reserve, pool = known[most + ASIDE :][:RESERVE], known[most + ASIDE + RESERVE :]
    strange_reserve, strange = strange[: RESERVE // 4], strange[RESERVE // 4 :]
    name = f"{'without' if without else 'whole'}-{fold}"
    home = work / name
    told = [{"input": row["text"], "output": row["label"]} for row in learned]
    data = common.write_lines(work / f"{name}.jsonl", told)
    common.suffice(home, "learn", TASK, "--data", data, "--max-error", str(EPS), "--seed", str(fold))
    asked = [*aside, *pool, *strange]  # what is in reserve stays unseen
    texts = common.write_lines(work / f"{name}-texts.jsonl", [{"input": row["text"]} for row in asked])
    answers = [json.loads(line) for line in common.suffice(home, "answer", TASK, texts).splitlines()]
    said = {row["text"]: (a["output"], bool(a["accepted"])) for row, a in zip(asked, answers, strict=True)}

    def worst(among: Sequence[Row]) -> frozenset[str]:
        total, wrong, accepted = Counter[str](), Counter[str](), Counter[str]()
        for row in among:
            answer, sure = said[row["text"]]
            total[row["label"]] += 1
            wrong[row["label"]] += answer != row["label"]
            accepted[row["label"]] += sure and answer != row["label"]
        order = sorted(total, key=lambda t: (-accepted[t] / total[t], -wrong[t] / total[t], t))
        return frozenset(order[:TOPICS])

    moved = dice.sample(topics, TOPICS)
    kept = [topic for topic in topics if topic not in moved]
    renamed = {topic: f"{topic} (v2)" if i % 2 else dice.choice(kept) for i, topic in enumerate(moved)}
    return Prepared(
        home=home, pool=pool, reserve=reserve, strange=strange, strange_reserve=strange_reserve,
        hard=worst(aside), hardest=worst(pool), renamed=renamed, said=said,
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What changes, how long to wait for the alarm, and what the alarm should be put down to."""

    name: str
    change: str
    calm: int
    most: int
    cause: str = ""
    boost: float | None = None

    @property
    def without(self) -> bool:
        """Whether topics are left out of training."""
        return self.change == "topics"

    def known(self, prepared: Prepared) -> Sequence[Row]:
        """What is drawn from after the change, strange topics apart."""
        topics = {"mix": prepared.hard, "worst": prepared.hardest}.get(self.change)
        return [row for row in prepared.pool if topics is None or row["label"] in topics]

    def after(self, prepared: Prepared, dice: random.Random) -> Draw:
        """The traffic after the change."""
        known = self.known(prepared)
        if self.without:
            return lambda: dice.choice(prepared.strange if dice.random() < STRANGE else known)
        return lambda: dice.choice(known)

    def fresh(self, prepared: Prepared) -> list[Row]:
        """The same from what is in reserve, each row once."""
        topics = {"mix": prepared.hard, "worst": prepared.hardest}.get(self.change)
        rows = [row for row in prepared.reserve if topics is None or row["label"] in topics]
        return [*rows, *(prepared.strange_reserve if self.without else ())]

    def mean(self, prepared: Prepared, of_rows: Callable[[Sequence[Row]], float]) -> float:
        """A share of the traffic after the change, exactly."""
        share = of_rows(self.known(prepared))
        return (1 - STRANGE) * share + STRANGE * of_rows(prepared.strange) if self.without else share

    def loss(self, prepared: Prepared) -> float:
        """Its share of accepted answers unlike the frontier's."""
        names = prepared.renamed if self.change == "frontier" else None
        return self.mean(prepared, lambda rows: prepared.loss(rows, names))


# ---------------------------------------------------------------------------------------------- the caller


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: when the caller had it, whether a specialist gave it, whether it differs from the frontier's."""

    at: float
    served: bool
    differs: bool


@dataclass(frozen=True)
class Event:
    """A line of the home's history."""

    at: float
    kind: str
    what: str


class Caller:
    """An application in front of the gateway, and its view of the home."""

    def __init__(self, session: aiohttp.ClientSession, url: str, home: Path, frontier: Frontier) -> None:
        self._session, self._url, self.frontier = session, f"{url}/chat/completions", frontier
        self._db = sqlite3.connect(home / "suffice.db", timeout=20, isolation_level=None)
        self.answers: list[Answer] = []

    async def send(self, draw: Draw, most: int, until: Callable[[], bool] = lambda: False) -> int:
        """Send up to `most` requests, or until that holds (looked at every 50 ms); how many were answered."""
        left, done, first = most, False, len(self.answers)

        async def caller() -> None:
            nonlocal left
            while left > 0 and not done:
                left -= 1
                await self._ask(draw()["text"])

        async def watcher() -> None:
            nonlocal done
            while not done:
                await asyncio.sleep(0.05)
                done = done or until()

        watching = asyncio.ensure_future(watcher())
        await asyncio.gather(*(caller() for _ in range(CONNECTIONS)))
        done = True
        await watching
        return len(self.answers) - first

    async def _ask(self, text: str) -> None:
        messages = [{"role": "system", "content": "Name the intent."}, {"role": "user", "content": text}]
        async with self._session.post(self._url, json={"model": "gold", "messages": messages}) as response:
            if response.status != 200:
                raise SystemExit(f"the gateway answered {response.status}: {await response.text()}")
            content = (await response.json())["choices"][0]["message"]["content"]
            served = response.headers["X-Suffice-Route"] == "specialist"
        self.answers.append(Answer(time.time(), served, content != self.frontier.says(text)))

    def sql(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """Ask the home."""
        return self._db.execute(query, values).fetchall()

    def events(self, kind: str, after: float = 0.0) -> list[Event]:
        """What has happened, of one kind, oldest first."""
        wanted = "SELECT at, kind, what FROM events WHERE kind = ? AND at > ? ORDER BY seq"
        return [Event(*row) for row in self.sql(wanted, kind, after)]

    def stage(self) -> str:
        """The task's, now."""
        return str(self.sql("SELECT stage FROM tasks WHERE name = ?", TASK)[0][0])

    def watch(self) -> dict[str, Any] | None:
        """The state of the open watch."""
        found = self.sql("SELECT state FROM watches WHERE closed_at IS NULL")
        return json.loads(found[0][0]) if found else None

    def close(self) -> None:
        """Let go of the home."""
        self._db.close()


async def until(holds: Callable[[], object], within_s: float) -> bool:
    """Wait for it; whether it came to hold."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if holds():
            return True
        await asyncio.sleep(0.05)
    return bool(holds())


# ---------------------------------------------------------------------------------------------- one run


@dataclass(kw_only=True)
class Shares:
    """How many of n answers a specialist gave, and how many of all differ from what the frontier says."""

    n: int = 0
    served: int = 0
    differing: int = 0

    def add(self, answers: Sequence[Answer]) -> None:
        """Some more."""
        self.n += len(answers)
        self.served += sum(a.served for a in answers)
        self.differing += sum(a.differs for a in answers)


@dataclass(kw_only=True)
class Run:
    """What was seen; counts are from the change on unless said."""

    loss_before: float
    loss_after: float
    accepted_before: float
    accepted_after: float
    calm: Shares = field(default_factory=Shares)
    false_alarm: bool = False
    probed: bool = False
    revoked: bool = False
    requests: int = 0
    seconds: float = 0.0
    audits: int = 0
    boosted: int = 0
    differing: int = 0
    late_s: float = 0.0
    late: int = 0
    cause: str = "none"
    attempts: int = 0
    resumed: bool = False
    asked: bool = False
    back_requests: int = 0
    back_s: float = 0.0
    after: Shares = field(default_factory=Shares)
    again: bool = False
    relearned: str = ""
    renewed: Shares = field(default_factory=Shares)
    unseen: Shares = field(default_factory=Shares)


async def command(home: Path, *arguments: str) -> bytes:
    """`suffice` on a home, while traffic and frontier go on."""
    return await asyncio.to_thread(common.suffice, home, *arguments, may_refuse=True)


async def replay(
    scenario: Scenario, prepared: Prepared, frontier: Frontier, upstream: str, home: Path, seed: int, relearn: bool
) -> Run:
    """One run, from start to the end of its server."""
    shutil.copytree(prepared.home, home)
    boost = "" if scenario.boost is None else f"boost = {scenario.boost:g}\n"
    toml = f'[upstreams.gold]\nbase_url = "{upstream}"\n[tasks.{TASK}]\nmax_error = {EPS}\n{boost}'
    (home / "suffice.toml").write_text(toml, "utf-8")
    frontier.renamed = {}
    serve = [*common.SUFFICE, "serve", "--port", "0", "--home", str(home), "--json"]
    opened = common.server(serve, log=home.with_suffix(".log"))
    _, ready = await asyncio.to_thread(opened.__enter__)
    headers = {"X-Suffice-Task": TASK, "Authorization": "Bearer any"}
    connector = aiohttp.TCPConnector(limit=0)
    try:
        async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
            caller = Caller(session, ready["url"], home, frontier)
            try:
                return await followed(scenario, prepared, caller, home, seed, relearn)
            finally:
                caller.close()
    finally:
        await asyncio.to_thread(opened.__exit__, None, None, None)
        shutil.rmtree(home)


async def followed(scenario: Scenario, prepared: Prepared, caller: Caller, home: Path, seed: int, relearn: bool) -> Run:
    """Calm, change, alarm, way back."""
    dice = random.Random(seed)
    run = Run(
        loss_before=prepared.loss(prepared.pool), loss_after=scenario.loss(prepared),
        accepted_before=prepared.accepted(prepared.pool), accepted_after=scenario.mean(prepared, prepared.accepted),
    )  # fmt: skip

    def usual() -> Row:
        return dice.choice(prepared.pool)

    await caller.send(usual, OBSERVED)
    await command(home, "stage", TASK, "live")
    if not await until(caller.watch, 20):
        raise SystemExit("no watch was opened")
    await asyncio.sleep(0.6)  # a worker looks every 250 ms
    run.probed = await until(lambda: (caller.watch() or {}).get("probed"), 20)
    first = len(caller.answers)
    await caller.send(usual, scenario.calm, lambda: bool(caller.events("alarm")))
    run.calm.add(caller.answers[first:])
    run.false_alarm = bool(caller.events("alarm"))
    if run.false_alarm or not scenario.change:
        return run

    # The change, and on until the alarm.
    draw, changed, first = scenario.after(prepared, dice), time.time(), len(caller.answers)
    if scenario.change == "frontier":
        caller.frontier.renamed = prepared.renamed
    await caller.send(draw, scenario.most, lambda: bool(caller.events("alarm")))
    alarms = caller.events("alarm")
    if not alarms:
        run.requests = scenario.most
        return run
    alarm = alarms[0].at
    run.revoked, run.seconds = True, alarm - changed
    run.requests = sum(a.at <= alarm for a in caller.answers[first:])
    (run.audits,) = caller.sql(
        "SELECT COUNT(*) FROM records WHERE audited = 1 AND at BETWEEN ? AND ?", changed, alarm + LATE_S
    )[0]
    (state,) = caller.sql("SELECT state FROM watches WHERE outcome = 'alarm'")[0]
    run.boosted = BOOST_BUDGET - json.loads(state)["boost_left"] if scenario.boost is None else 0

    # The way back: on until it is live again, or Suffice asks to learn anew.
    def ended() -> bool:
        return caller.stage() == "live" or any("learned anew" in e.what for e in caller.events("recovery"))

    await caller.send(draw, 40_000, ended)
    recovery = caller.events("recovery", alarm)
    run.attempts, run.resumed = len(recovery), caller.stage() == "live"
    run.asked = bool(recovery) and "learned anew" in recovery[-1].what
    if recovery:
        run.back_s = recovery[-1].at - alarm
        run.back_requests = sum(alarm < a.at <= recovery[-1].at for a in caller.answers)
    between = [a for a in caller.answers[first:] if a.served and (not recovery or a.at <= recovery[-1].at)]
    run.differing = sum(a.differs for a in between)
    run.late = sum(a.at > alarm for a in between)
    run.late_s = max(0.0, max((a.at for a in between), default=alarm) - alarm)
    await until(lambda: caller.events("cause"), 10)
    causes = caller.events("cause")
    run.cause = "none"
    if causes:
        known = {"the frontier has changed": "frontier", "the traffic has drifted": "traffic"}
        run.cause = next((name for text, name in known.items() if text in causes[0].what), "not known")
        say(f"    {causes[0].what}")
    await asyncio.sleep(LATE_S + 0.5)
    first = len(caller.answers)
    await caller.send(draw, AFTER, lambda: len(caller.events("alarm")) > 1)
    run.after.add(caller.answers[first:])
    run.again = len(caller.events("alarm")) > 1
    if run.asked and relearn:
        await renew(scenario, prepared, caller, home, dice, run, recovery[-1].what)
    return run


async def renew(
    scenario: Scenario, prepared: Prepared, caller: Caller, home: Path, dice: random.Random, run: Run, what: str
) -> None:
    """Learn anew as the event says, on traffic that came since the alarm; put it live and look."""
    draw = scenario.after(prepared, dice)
    await caller.send(draw, RELEARN)
    found = re.search(r"--since (\d+)", what)
    assert found is not None
    document = json.loads(await command(home, "learn", TASK, "--since", found[1]))
    if not document["release"]:
        run.relearned = "no release: " + "; ".join(document["reasons"])
        return
    run.relearned = str(document["release"])
    await command(home, "stage", TASK, "live")
    await asyncio.sleep(1.5)
    first = len(caller.answers)
    await caller.send(draw, AFTER)
    run.renewed.add(caller.answers[first:])
    first, fresh = len(caller.answers), scenario.fresh(prepared)
    ordered = iter(dice.sample(fresh, len(fresh)))
    await caller.send(lambda: next(ordered), len(fresh))
    run.unseen.add(caller.answers[first:])


# ---------------------------------------------------------------------------------------------- tables


def middle(values: Sequence[float], digits: int = 0, most: float = math.inf) -> str:
    """The median with the 95% interval of its order statistics (the whole range where n is too small for one)."""
    ordered, n = sorted(values), len(values)
    if not n:
        return "-"
    k = int(stats.binom.ppf(0.025, n, 0.5))
    low, high = ordered[max(k - 1, 0)], ordered[min(n - k, n - 1)]
    point, start, end = (number(value, digits, most) for value in (float(np.median(ordered)), low, high))
    return f"{point} ({start}-{end})" if n > 1 else point


def ninth(values: Sequence[float], digits: int = 0, most: float = math.inf) -> str:
    """The 90th percentile: of nine or fewer, the largest."""
    ordered = sorted(values)
    return number(ordered[math.ceil(0.9 * len(ordered)) - 1], digits, most) if ordered else "-"


def number(value: float, digits: int, most: float) -> str:
    """A number, or that it is above `most`."""
    return f">{most:,.{digits}f}" if value >= most else f"{value:,.{digits}f}"


def percent(values: Sequence[float], digits: int = 1) -> str:
    """Exact shares of several populations, from to."""
    low, high = (f"{100 * value:.{digits}f}" for value in (min(values), max(values)))
    return low if low == high else f"{low} to {high}"


def of(hits: int, n: int) -> str:
    """k of n."""
    return f"{hits} of {n}"


def together(shares: Sequence[Shares]) -> Shares:
    """Of several runs."""
    return Shares(
        n=sum(one.n for one in shares),
        served=sum(one.served for one in shares),
        differing=sum(one.differing for one in shares),
    )


def report(results: dict[Scenario, list[Run]]) -> None:
    """All tables."""
    drifting = {scenario: runs for scenario, runs in results.items() if scenario.change}
    print("\n### Until it is revoked\n")
    rows = []
    for scenario, runs in drifting.items():
        seen = [run for run in runs if not run.false_alarm]
        found = [run for run in seen if run.revoked]
        rows.append(
            [
                scenario.name,
                f"{percent([r.loss_before for r in runs])} → {percent([r.loss_after for r in runs])}",
                f"{percent([r.accepted_before for r in runs], 0)} → {percent([r.accepted_after for r in runs], 0)}",
                of(len(found), len(seen)),
                middle([r.requests for r in seen], most=scenario.most),
                ninth([r.requests for r in seen], most=scenario.most),
                middle([r.seconds for r in found], 1),
                middle([r.audits for r in found]),
                middle([r.boosted for r in found]),
                middle([r.differing for r in found]),
            ]
        )
    head = ["change", "loss, %: before → after", "accepted, %", "revoked", "requests until then, median (95%)"]
    tail = ["90th percentile", "s", "audits", "of these boosted", "differing answers given out"]
    print(common.table([*head, *tail], rows))

    print("\n### At the alarm\n")
    rows = []
    for scenario, runs in drifting.items():
        found = [run for run in runs if run.revoked]
        causes = Counter(run.cause for run in found)
        last = max((run.late_s for run in found), default=0.0)
        rows.append(
            [
                scenario.name,
                f"{last:.2f}",
                middle([run.late_s for run in found], 2),
                middle([run.late for run in found]),
                of(causes[scenario.cause], len(found)) + f" (the {scenario.cause})",
                ", ".join(f"{name}: {n}" for name, n in causes.items() if name != scenario.cause) or "-",
            ]
        )
    head = ["change", "last specialist answer after it, s: worst", "median", "answers in that time, median"]
    print(common.table([*head, "cause told rightly", "otherwise"], rows))

    print("\n### The way back\n")
    rows = []
    for scenario, runs in drifting.items():
        found = [run for run in runs if run.revoked]
        back, asked = [r for r in found if r.resumed], [r for r in found if r.asked]
        after = together([run.after for run in back])
        rows.append(
            [
                scenario.name,
                of(len(back), len(found)),
                middle([r.back_requests for r in back]),
                middle([r.back_s for r in back], 1),
                common.share(after.served, after.n) if after.n else "-",
                common.share(after.differing, after.n, 2) if after.n else "-",
                of(sum(r.again for r in back), len(back)) if back else "-",
                of(len(asked), len(found)),
                middle([r.back_requests for r in asked]),
                middle([r.back_s for r in asked], 1),
            ]
        )
    head = ["change", "certified again and live", "after requests", "s", "then served, %", "then differing, %"]
    tail = ["alarms then", "asked to learn anew", "after requests", "s"]
    print(common.table([*head, *tail], rows))
    for scenario, runs in drifting.items():
        for run in runs:
            if run.relearned.startswith("no release"):
                print(f"\n{scenario.name}, learned anew: {run.relearned}")
        n = sum(bool(run.renewed.n) for run in runs)
        later = (("requests", [run.renewed for run in runs]), ("texts never sent", [run.unseen for run in runs]))
        for what, shares in later:
            summed = together(shares)
            if summed.n:
                served, differing = common.share(summed.served, summed.n), common.share(summed.differing, summed.n, 2)
                print(
                    f"\n{scenario.name}, learned anew in {n} runs and live: of {summed.n:,} {what} {served} %", end=""
                )
                print(f" served, {differing} % served and differing.")

    print("\n### Calm traffic\n")
    rows = []
    for scenario, runs in results.items():
        calm = together([run.calm for run in runs])
        rows.append(
            [
                f"before: {scenario.name}" if scenario.change else "control",
                f"{scenario.calm:,}",
                common.share(calm.served, calm.n),
                common.share(calm.differing, calm.n, 2),
                of(sum(run.false_alarm for run in runs), len(runs)),
            ]
        )
    print(common.table(["phase", "requests a run", "served, %", "differing, %", "runs with an alarm"], rows))
    everything = [run for runs in results.values() for run in runs]
    alarms = sum(run.false_alarm for run in everything)
    probed = sum(run.probed for run in everything)
    print(f"\nTogether: alarms in calm traffic in {alarms} of {len(everything)} runs", end="")
    print(f" ({common.share(alarms, len(everything))} %); the probe was asked in time in {probed}.")


def say(text: str) -> None:
    """For whoever waits."""
    print(text, file=sys.stderr, flush=True)


async def measure(
    scenarios: Sequence[tuple[Scenario, int]], folds: int, work: Path, quick: bool
) -> dict[Scenario, list[Run]]:
    """Learn what is needed, then run everything."""
    folder = common.data_folder("banking77")
    # A text that stands there under two labels has no answer of its own.
    labels: dict[str, set[str]] = {}
    for row in (*common.read_lines(folder / "train.jsonl"), *common.read_lines(folder / "test.jsonl")):
        labels.setdefault(row["text"], set()).add(row["label"])
    rows = [{"text": text, "label": next(iter(found))} for text, found in labels.items() if len(found) == 1]
    kinds = sorted({scenario.without for scenario, _ in scenarios})
    homes: dict[tuple[bool, int], Prepared] = {}
    for fold in range(folds):
        began = time.perf_counter()
        made = await asyncio.gather(*(asyncio.to_thread(prepare, rows, fold, kind, work) for kind in kinds))
        for kind, home in zip(kinds, made, strict=True):
            homes[kind, fold] = home
            say(f"{home.home.name}: loss {100 * home.loss(home.pool):.2f}%, {time.perf_counter() - began:.0f} s")
    frontier = Frontier(rows)
    results: dict[Scenario, list[Run]] = {scenario: [] for scenario, _ in scenarios}
    async with frontier.serving() as upstream:
        for scenario, runs in scenarios:
            for number in range(runs):
                began = time.perf_counter()
                prepared = homes[scenario.without, number % folds]
                place = work / f"run-{scenario.change}-{scenario.boost}-{number}"
                relearn = number < folds and not quick
                run = await replay(scenario, prepared, frontier, upstream, place, 100 + number, relearn)
                results[scenario].append(run)
                say(f"{scenario.name} {number}: {time.perf_counter() - began:.0f} s, {run}")
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description="Drift through the running gateway, as markdown tables.")
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each scenario (default {RUNS})")
    parser.add_argument("--quick", action="store_true", help="one release of each kind, one run")
    options = parser.parse_args()
    folds, runs, fewer = (1, 1, 0) if options.quick else (FOLDS, options.runs, -(-options.runs // 3))
    calm, control, mixed = (1_500, 4_000, 4_000) if options.quick else (2_500, 7_500, 6_000)

    def scenario(name: str, change: str, most: int, cause: str, boost: float | None = None) -> Scenario:
        return Scenario(name=name, change=change, calm=calm, most=most, cause=cause, boost=boost)

    scenarios = [
        (scenario("new topics", "topics", 30_000, "traffic"), runs),
        (scenario("the worst mix", "worst", 30_000, "traffic"), -(-2 * runs // 3)),
        (scenario("another frontier", "frontier", 30_000, "frontier"), runs),
        (Scenario(name="nothing", change="", calm=control, most=0), runs),
        (scenario("another mix", "mix", mixed, "traffic"), folds),
        (scenario("new topics, boost = 0", "topics", 40_000, "traffic", boost=0), fewer),
    ]
    common.end_well()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="suffice-bench-") as folder:
        results = asyncio.run(measure([s for s in scenarios if s[1]], folds, Path(folder), options.quick))
    print(f"`{common.command_line()}` ({common.machine('suffice', 'aiohttp', 'scikit-learn', 'numpy')})")
    report(results)
    print(f"\n{time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main()
