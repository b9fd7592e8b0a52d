"""The demo's story: traffic through the gateway, learning, going live, new traffic, and what changed.

It uses nothing but the public interface: the command line, HTTP, and the official `openai` client. The frontier is
simulated unless a real one is named, and everything printed says so.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from suffice.core.errors import InputError, SufficeError
from suffice.core.protocols import Progress
from suffice.demo import workload
from suffice.demo.workload import Ticket

TASK = "triage"
MODEL = "gpt-4.1"
"""The simulated frontier answers to this name, so that the price table knows what it would cost."""
LEARNING_STREAMS = 96
LIVE_STREAMS = 8
"""Few at a time, so that the latencies are the answers' own and not the client's queue."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What the demo sends. `rules` are the labels with their one-line rules; `upstream` None simulates the frontier."""

    home: Path
    observed: Sequence[Ticket]
    fresh: Sequence[Ticket]
    rules: dict[str, str]
    upstream: str | None = None
    model: str = MODEL
    seed: int = 0
    latency_ms: float = 650.0
    max_error: float = 0.02


class Reply(msgspec.Struct, frozen=True):
    """One answered call, as the client saw it."""

    answer: str
    route: str
    ms: float


def tell(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Run the whole story; what changed, as one document. Raises InputError or SufficeError in one sentence."""
    plan.home.mkdir(parents=True, exist_ok=True)
    with _frontier(plan) as base_url, _gateway(plan, base_url) as url:
        _send(url, plan, plan.observed, LEARNING_STREAMS, lambda done: progress("traffic, observed", done))
        progress("learning", 0.0)
        began = time.monotonic()
        learned = _command(plan, "learn", TASK, "--max-error", str(plan.max_error))
        learn_s = time.monotonic() - began
        if learned["release"] is None:
            return {"learned": learned, "learn_s": learn_s, "observed": len(plan.observed)}
        _command(plan, "stage", TASK, "live")
        _until_served(url, learned["release"])
        replies = _send(url, plan, plan.fresh, LIVE_STREAMS, lambda done: progress("new traffic, live", done))
    return {"learned": learned, "learn_s": learn_s, "observed": len(plan.observed), **_measure(plan, replies)}


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
    """US dollars per 1,000 requests at list price, before (all observed calls) and after (all live ones)."""
    lines = _run(plan, "records", "--task", TASK).splitlines()
    rows = [msgspec.json.decode(line) for line in lines]
    before = [row["cost_usd"] for row in rows if row["reason"] == "observe"]
    after = [0.0 if row["route"] == "specialist" else row["cost_usd"] for row in rows if row["reason"] != "observe"]
    return {name: _per_1000(costs) for name, costs in (("before", before), ("after", after))}


def _per_1000(costs: Sequence[float | None]) -> float | None:
    known = [cost for cost in costs if cost is not None]
    return 1000 * sum(known) / len(known) if len(known) == len(costs) > 0 else None


# ---------------------------------------------------------------------------------------------- processes


@contextmanager
def _process(command: Sequence[str], log: Path) -> Iterator[dict[str, Any]]:
    """A process that prints one JSON line when it is ready; ended with SIGTERM. Raises SufficeError if it never is."""
    with log.open("ab") as errors, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors) as process:
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
    answers.write_bytes(workload.write_answers([*plan.observed, *plan.fresh], _frontier_answers(plan)))
    flags = ["--answers", str(answers), "--seed", str(plan.seed), "--latency-ms", str(plan.latency_ms)]
    command = [sys.executable, "-m", "suffice.demo.frontier", "--port", "0", *flags]
    with _process(command, plan.home / "frontier.log") as told:
        yield f"http://127.0.0.1:{told['port']}/v1"


def _frontier_answers(plan: Plan) -> list[str]:
    return workload.frontier_answers([*plan.observed, *plan.fresh], plan.seed)


@contextmanager
def _gateway(plan: Plan, base_url: str) -> Iterator[str]:
    """`suffice serve` before the frontier; its URL."""
    key = '\napi_key_env = "OPENAI_API_KEY"' if plan.upstream and os.environ.get("OPENAI_API_KEY") else ""
    (plan.home / "suffice.toml").write_text(f'[upstreams.frontier]\nbase_url = "{base_url}"{key}\n', "utf-8")
    command = [sys.executable, "-m", "suffice.cli.main", "serve", "--port", "0", "--json", "--home", str(plan.home)]
    with _process(command, plan.home / "gateway.log") as told:
        yield told["url"]


def _run(plan: Plan, *arguments: str) -> str:
    command = [sys.executable, "-m", "suffice.cli.main", *arguments, "--home", str(plan.home), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
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


def _send(url: str, plan: Plan, tickets: Sequence[Ticket], streams: int, progress: Any) -> list[Reply]:
    """Every ticket as a chat completion, `streams` at a time; replies in order."""

    async def everything() -> list[Reply]:
        replies: list[Reply | None] = [None] * len(tickets)
        waiting = iter(range(len(tickets)))
        done = 0
        async with _client(url) as client:

            async def stream() -> None:
                nonlocal done
                for i in waiting:
                    began = time.perf_counter()
                    raw = await client.chat.completions.with_raw_response.create(
                        model=plan.model,
                        messages=workload.messages(tickets[i], plan.rules),
                        extra_headers={"X-Suffice-Task": TASK},
                    )
                    ms = 1e3 * (time.perf_counter() - began)
                    content = raw.parse().choices[0].message.content or ""
                    replies[i] = Reply(content.strip(), raw.headers["x-suffice-route"], ms)
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
