"""The demo's story: traffic that nobody tagged through the gateway, the task found in it, learning, going live, new
traffic, what changed; then a frontier that changes its mind, the alarm, and the way back.

It uses nothing but the public interface: the command line, HTTP, and the official `openai` client. The frontier is
simulated unless a real one is named, and everything printed says so.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from suffice.core.errors import InputError, SufficeError
from suffice.core.protocols import Progress
from suffice.demo import workload
from suffice.demo.workload import Ticket

MODEL = "gpt-4.1"
"""The simulated frontier answers to this name, so that the price table knows what it would cost."""
LEARNING_STREAMS = 96
LIVE_STREAMS = 8
"""Few at a time, so that the latencies are the answers' own and not the client's queue."""

OBSERVED = ("no_task", "observe")
"""Why the frontier was asked before there was a specialist: nobody knew the task, or it was only watched."""
AUDIT = 0.05
"""In place of the default 1%, so that the alarm comes within a demo: it goes by audits, and these come five times as
often."""
RENAMES = {
    "missing_parcel": "order_status",
    "damaged_item": "return_item",
    "wrong_item": "return_item",
    "unexpected_charge": "payment_failed",
    "cancel_subscription": "change_plan",
    "pause_subscription": "change_plan",
}
"""What the changed frontier says instead: it tells fewer matters apart."""
SPEED = 10.0
"""By how much the simulated frontier answers faster in the last act, where nothing is said about latency."""
CHANGED, REVOKED, BATCHES, RESUMED = 8000, 800, 2, 100
"""Requests of the last act: until the alarm at the most (2,000 to 3,000 are usual); in each batch after it, and
batches (together more than a second attempt to certify again takes); once it is back."""
LATER = CHANGED + BATCHES * REVOKED + RESUMED
QUIET_S, SLOW_S, EVENT_S = 2.5, 20.0, 60.0
"""How long to wait: without a request, until nothing is under way; for what may happen; for what must."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo sends. `rules` are the labels with their one-line rules; `upstream` None simulates the frontier.

    `later` is for the last act, which a simulated frontier alone can play: `LATER` tickets, or none to leave it out.
    """

    home: Path
    observed: Sequence[Ticket]
    fresh: Sequence[Ticket]
    later: Sequence[Ticket] = ()
    rules: dict[str, str]
    upstream: str | None = None
    model: str = MODEL
    seed: int = 0
    latency_ms: float = 650.0
    max_error: float = 0.02
    task: str = ""
    """Its name once it is found."""


class Reply(msgspec.Struct, frozen=True):
    """One answered call, as the client saw it."""

    answer: str
    route: str
    reason: str
    release: str | None
    ms: float


def tell(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Run the whole story; what changed, as one document. Raises InputError or SufficeError in one sentence."""
    plan.home.mkdir(parents=True, exist_ok=True)
    with _frontier(plan) as base_url, _gateway(plan, base_url) as url:
        _send(url, plan, plan.observed, LEARNING_STREAMS, lambda done: progress("traffic, observed", done))
        progress("looking for tasks", 0.0)
        tasks = _command(plan, "discover")["tasks"]
        if not tasks:
            raise SufficeError(
                f"no task was found in {len(plan.observed):,} requests: a task takes more that are alike"
            )
        found = {name: value for name, value in tasks[0].items() if name != "record_ids"}
        plan = msgspec.structs.replace(plan, task=found["name"])
        progress("learning", 0.0)
        began = time.monotonic()
        learned = _command(plan, "learn", plan.task, "--max-error", str(plan.max_error))
        learn_s = time.monotonic() - began
        known = {"found": found, "learned": learned, "learn_s": learn_s, "observed": len(plan.observed)}
        if learned["release"] is None:
            return known
        _command(plan, "stage", plan.task, "live")
        _until_served(url, learned["release"])
        replies = _send(url, plan, plan.fresh, LIVE_STREAMS, lambda done: progress("new traffic, live", done))
        last_act = bool(plan.later) and plan.upstream is None
        if last_act:
            progress("the last audits", 0.0)
            _when_quiet(base_url, {"speed": SPEED})
        told = {**known, **_measure(plan, replies)}
        if last_act:
            told["changed"] = _change(url, base_url, plan, progress)
    return told


def _measure(plan: Plan, replies: Sequence[Reply]) -> dict[str, Any]:
    """What changed, from the replies to new traffic, the frontier's answers to the same, and the records' costs."""
    truth = np.array([ticket.truth for ticket in plan.fresh])
    said = np.array([reply.answer for reply in replies])
    small = np.array([reply.route == "specialist" for reply in replies])
    ms = np.array([reply.ms for reply in replies])
    result: dict[str, Any] = {
        "simulated": plan.upstream is None,
        "n": len(replies),
        "served_by_specialist": _share(small),
        "accuracy": {"suffice": _share(said == truth), "specialist": _share((said == truth)[small])},
        "latency_ms": {"specialist": _latency(ms[small]), "frontier": _latency(ms[~small])},
        "usd_per_1000": _costs(plan),
    }
    if plan.upstream is None:
        frontier = np.array(_frontier_answers(plan)[len(plan.observed) :])
        result["accuracy"]["frontier"] = _share(frontier == truth)
        result["agreement"] = _share(said == frontier)
        known = np.array([ticket.topic_seen for ticket in plan.fresh])
        differs = small & (said != frontier)
        result["differs_of_all"] = {"known_topics": _share(differs[known]), "new_topics": _share(differs[~known])}
    return result


# ---------------------------------------------------------------------------------------------- the last act


def _change(url: str, base_url: str, plan: Plan, progress: Progress) -> dict[str, Any]:
    """The frontier changes its mind, the watch gives the alarm, the change is taken back; what the home tells of it.

    `alarm` is None where none came, with `revoked_before` telling whether the task was revoked already; the same way
    `resumed` is None unless a release was certified again and answers.
    """
    progress("the frontier changes its mind", 0.0)
    began = time.monotonic()
    before = _command(plan, "show", plan.task)
    seen: dict[str, Any] = {"audit": AUDIT, "renames": RENAMES, "speed": SPEED}
    seen |= {"revoked_before": before["stage"] == "revoked", "alarm": None, "resumed": None}
    if seen["revoked_before"]:
        return seen | {"events": _events(before)}
    _simulate(base_url, {"renames": RENAMES, "speed": SPEED})
    later = list(plan.later)
    says = [RENAMES.get(answer, answer) for answer in _later_answers(plan)]
    replies = _send(
        url, plan, later[:CHANGED], LIVE_STREAMS, lambda done: progress("the frontier changes its mind", done),
        until=lambda reply: reply.reason == "revoked",
    )  # fmt: skip
    out = [reply.route == "specialist" for reply in replies]
    wrong = [small and reply.answer != said for small, reply, said in zip(out, replies, says, strict=False)]
    seen |= {"sent": len(replies), "answered_by_specialist": sum(out), "differing_out": sum(wrong)}
    after = _once(plan, lambda shown: _happened(shown, "alarm") > 0, wait_s=EVENT_S if _revoked(replies) else SLOW_S)
    seen |= {name: _watched(after, name) - _watched(before, name) for name in ("requests", "audited", "differing")}
    if after["stage"] != "revoked":
        return seen | {"events": _events(after)}
    after = _once(plan, lambda shown: _happened(shown, "cause") > 0)
    seen |= {"alarm": _latest(after, "alarm"), "cause": _latest(after, "cause")}
    _simulate(base_url, {"speed": SPEED})
    escalated = [reply for reply in replies if reply.reason == "revoked"]  # few; from here on, all until it is back
    for batch in range(BATCHES):
        progress("after the alarm", batch / BATCHES)
        start = CHANGED + batch * REVOKED
        replies = _send(url, plan, later[start : start + REVOKED], LEARNING_STREAMS, lambda done: None)
        escalated += [reply for reply in replies if reply.release == before["release"]]
        shown = _recovery(plan, batch + 1)
        if shown["stage"] != "revoked":
            break
    seen["after_alarm"] = {
        "requests": len(escalated),
        "escalated": sum(reply.reason == "revoked" and reply.route != "specialist" for reply in escalated),
    }
    if shown["stage"] == "live":
        _until_served(url, shown["release"], EVENT_S)
        replies = _send(url, plan, later[-RESUMED:], LIVE_STREAMS, lambda done: progress("back", done))
        small = _share(np.array([reply.route == "specialist" for reply in replies]))
        seen["resumed"] = {"release": shown["release"], "served_by_specialist": small}
    seen |= {"recovery": _latest(shown, "recovery"), "events": _events(shown)}
    return seen | {"took_s": time.monotonic() - began}


def _simulate(base_url: str, what: dict[str, Any]) -> int:
    """Make the simulated frontier do this from now on; how many completions it was asked for so far."""
    request = urllib.request.Request(
        base_url.removesuffix("/v1") + "/simulate",
        msgspec.json.encode(what),
        {"Authorization": "Bearer demo", "Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(msgspec.json.decode(answer.read())["asked"])


def _when_quiet(base_url: str, what: dict[str, Any]) -> None:
    """Simulate this, and wait until nothing is asked any more: the keeper's probe and the last audits are done."""
    deadline = time.monotonic() + EVENT_S
    asked, since = _simulate(base_url, what), time.monotonic()
    while time.monotonic() - since < QUIET_S and time.monotonic() < deadline:
        time.sleep(0.1)
        now = _simulate(base_url, what)
        if now != asked:
            asked, since = now, time.monotonic()


def _later_answers(plan: Plan) -> list[str]:
    """What the simulated frontier says to the later tickets before it changes. A text heard before keeps its answer."""
    earlier = [*plan.observed, *plan.fresh]
    known = dict(zip((t.text for t in reversed(earlier)), reversed(_frontier_answers(plan)), strict=True))
    said = workload.frontier_answers(plan.later, plan.seed)
    return [known.get(ticket.text, answer) for ticket, answer in zip(plan.later, said, strict=True)]


def _once(plan: Plan, true_of: Callable[[dict[str, Any]], bool], wait_s: float = EVENT_S) -> dict[str, Any]:
    """`suffice show`, as soon as this is true of it; as it is in the end if that does not happen in time."""
    deadline = time.monotonic() + wait_s
    while not true_of(shown := _command(plan, "show", plan.task)) and time.monotonic() < deadline:
        time.sleep(1.0)
    return shown


def _recovery(plan: Plan, n: int) -> dict[str, Any]:
    """`suffice show` once the keeper has told of its n-th attempt to certify again."""
    return _once(plan, lambda shown: _happened(shown, "recovery") >= n, SLOW_S)


def _watched(shown: dict[str, Any], name: str) -> int:
    """A count of the watch; 0 where no watch is open."""
    return shown["watch"][name] if shown["watch"] else 0


def _revoked(replies: Sequence[Reply]) -> bool:
    return any(reply.reason == "revoked" for reply in replies)


def _happened(shown: dict[str, Any], kind: str) -> int:
    return sum(event["kind"] == kind for event in shown["events"])


def _latest(shown: dict[str, Any], kind: str) -> str | None:
    return next((event["what"] for event in shown["events"] if event["kind"] == kind), None)


def _events(shown: dict[str, Any]) -> list[dict[str, Any]]:
    """What happened, oldest first."""
    return list(reversed(shown["events"]))


# ---------------------------------------------------------------------------------------------- shares and costs


def _share(hits: Any) -> dict[str, Any] | None:
    """A share with its 95% Wilson interval; None of nothing."""
    n = len(hits)
    if n == 0:
        return None
    p, z = float(np.mean(hits)), 1.959964
    centre, spread = p + z * z / (2 * n), z * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return {"value": p, "low": (centre - spread) / (1 + z * z / n), "high": (centre + spread) / (1 + z * z / n), "n": n}


def _latency(ms: Any) -> dict[str, float] | None:
    return {"p50": float(np.percentile(ms, 50)), "p99": float(np.percentile(ms, 99))} if len(ms) else None


def _costs(plan: Plan) -> dict[str, float | None]:
    """US dollars per 1,000 requests at list price: before (all observed calls), after (all live ones), their audits."""
    lines = _run(plan, "records", "--task", plan.task).splitlines()
    rows = [msgspec.json.decode(line) for line in lines]
    before = [row["cost_usd"] for row in rows if row["reason"] in OBSERVED]
    after = [0.0 if row["route"] == "specialist" else row["cost_usd"] for row in rows if row["reason"] not in OBSERVED]
    audits = [row["audit"]["cost_usd"] if row["audit"] else 0.0 for row in rows if row["reason"] not in OBSERVED]
    return {name: _per_1000(costs) for name, costs in (("before", before), ("after", after), ("audits", audits))}


def _per_1000(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return 1000 * sum(known) / len(known) if len(known) == len(costs) > 0 else None


# ---------------------------------------------------------------------------------------------- processes


@contextmanager
def _process(command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None) -> Iterator[dict[str, Any]]:
    """A process that prints one JSON line when it is ready; ended with SIGTERM. Raises SufficeError if it never is."""
    with (
        log.open("ab") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environ) as process,
    ):
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise SufficeError(f"{command[2]} did not start: see {log}")
            yield msgspec.json.decode(line)
        finally:
            process.terminate()


@contextmanager
def _frontier(plan: Plan) -> Iterator[str]:
    """The frontier's base URL: the real one that was named, or a simulated one in a process of its own."""
    if plan.upstream is not None:
        yield plan.upstream
        return
    answers = plan.home / "simulated-answers.jsonl"
    tickets = [*plan.observed, *plan.fresh, *plan.later]
    answers.write_bytes(workload.write_answers(tickets, [*_frontier_answers(plan), *_later_answers(plan)]))
    flags = ["--answers", str(answers), "--seed", str(plan.seed), "--latency-ms", str(plan.latency_ms)]
    command = [sys.executable, "-m", "suffice.demo.frontier", "--port", "0", *flags]
    with _process(command, plan.home / "frontier.log") as told:
        yield f"http://127.0.0.1:{told['port']}/v1"


def _frontier_answers(plan: Plan) -> list[str]:
    return workload.frontier_answers([*plan.observed, *plan.fresh], plan.seed)


@contextmanager
def _gateway(plan: Plan, base_url: str) -> Iterator[str]:
    """`suffice serve` before the frontier; its URL."""
    environ = _environ()
    key = '\napi_key_env = "OPENAI_API_KEY"' if plan.upstream and os.environ.get("OPENAI_API_KEY") else ""
    if plan.upstream is None:  # any key does; without one of its own the keeper could not ask why an alarm came
        key, environ["SUFFICE_DEMO_KEY"] = '\napi_key_env = "SUFFICE_DEMO_KEY"', "demo"
    policy = f"\n[policy]\naudit = {AUDIT}\n" if plan.later else ""
    (plan.home / "suffice.toml").write_text(f'[upstreams.frontier]\nbase_url = "{base_url}"{key}\n{policy}', "utf-8")
    command = [sys.executable, "-m", "suffice.cli.main", "serve", "--port", "0", "--json", "--home", str(plan.home)]
    with _process(command, plan.home / "gateway.log", environ) as told:
        yield told["url"]


def _environ() -> dict[str, str]:
    """For the commands: only families that take seconds are tried, whatever is installed, unless some are named."""
    return {"SUFFICE_FAMILIES": "linear,nearest", **os.environ}


def _run(plan: Plan, *arguments: str) -> str:
    command = [sys.executable, "-m", "suffice.cli.main", *arguments, "--home", str(plan.home), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environ())
    if done.returncode not in (0, 1):
        raise SufficeError(f"suffice {arguments[0]}: {done.stderr.strip()}")
    return done.stdout


def _command(plan: Plan, *arguments: str) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.json.decode(_run(plan, *arguments))
    return document


# ---------------------------------------------------------------------------------------------- traffic


def _client(url: str) -> Any:
    """The official client, with nothing changed but its base URL."""
    try:
        from openai import AsyncOpenAI
    except ImportError as error:
        raise InputError("the demo sends its traffic with the official client: pip install 'suffice[demo]'") from error
    return AsyncOpenAI(base_url=url, api_key=os.environ.get("OPENAI_API_KEY", "demo-key"), max_retries=0, timeout=120)


def _send(
    url: str,
    plan: Plan,
    tickets: Sequence[Ticket],
    streams: int,
    progress: Callable[[float], None],
    until: Callable[[Reply], bool] = lambda reply: False,
) -> list[Reply]:
    """Every ticket as a chat completion, `streams` at a time; replies in order.

    Once `until` is true of a reply no more are sent: the replies are then those to the first so many tickets.
    """

    async def everything() -> list[Reply]:
        replies: list[Reply | None] = [None] * len(tickets)
        waiting = iter(range(len(tickets)))
        done, over = 0, False
        async with _client(url) as client:

            async def stream() -> None:
                nonlocal done, over
                while not over and (i := next(waiting, None)) is not None:
                    began = time.perf_counter()
                    raw = await client.chat.completions.with_raw_response.create(
                        model=plan.model,
                        messages=workload.messages(tickets[i], plan.rules),
                    )
                    ms = 1e3 * (time.perf_counter() - began)
                    content = raw.parse().choices[0].message.content or ""
                    said = {name: raw.headers.get(f"x-suffice-{name}") for name in ("route", "reason", "release")}
                    reply = Reply(answer=content.strip(), ms=ms, **said)
                    replies[i], over = reply, over or until(reply)
                    done += 1
                    if done % 50 == 0:
                        progress(done / len(tickets))

            await asyncio.gather(*(stream() for _ in range(streams)))
        return [reply for reply in replies if reply is not None]

    return asyncio.run(everything())


def _until_served(url: str, release: str, within_s: float = 10.0) -> None:
    """Wait until the running gateway lists the release among its models: it follows a stage within a second."""

    async def listed() -> bool:
        async with _client(url) as client:
            return any(model.id == f"suffice/{release}" for model in (await client.models.list()).data)

    deadline = time.monotonic() + within_s
    while not asyncio.run(listed()):
        if time.monotonic() > deadline:
            raise SufficeError(f"the gateway did not load {release} within {within_s:g} s")
        time.sleep(0.1)
