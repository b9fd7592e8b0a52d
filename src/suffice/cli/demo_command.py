"""`suffice demo`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import click

from suffice.cli import common
from suffice.core.errors import InputError
from suffice.demo import labelled, story, workload
from suffice.demo.phrases import RULES

MARK = "this-is-a-demo-home"


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), help="Your own labelled text (JSON Lines or CSV) as the traffic."
)
@click.option("--upstream", help="Base URL of a real frontier (its key in OPENAI_API_KEY); else it is simulated.")
@click.option("--model", default=story.MODEL, show_default=True, help="The model to ask for.")
@click.option("--requests", type=click.IntRange(min=400), default=6000, show_default=True, help="To observe first.")
@click.option("--fresh", type=click.IntRange(min=50), default=1000, show_default=True, help="New ones, once live.")
@click.option("--max-error", type=float, default=0.02, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@common.everywhere
def command(
    data: Path | None,
    upstream: str | None,
    model: str,
    requests: int,
    fresh: int,
    max_error: float,
    seed: int,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Show the whole loop: traffic through the gateway, learning, going live, an alarm, the way back.

    The home (`.suffice-demo`, unless --home names another) is made anew each time and left for you to look at.
    """
    home = Path(".suffice-demo") if folder == Path(".suffice") else folder
    observed, new, rules = _traffic(data, requests, fresh, seed)
    alone = data is None and upstream is None
    later = workload.generate(story.LATER, seed, start=requests + fresh) if alone else []
    _fresh_home(home)
    plan = story.Plan(
        home=home,
        observed=observed,
        fresh=new,
        later=later,
        rules=rules,
        upstream=upstream,
        model=model,
        seed=seed,
        max_error=max_error,
    )
    if not as_json:
        click.echo(_opening(plan, data))
    bar = common.Bar()
    told = story.tell(plan, bar)
    bar.close()
    if as_json:
        common.emit(told)
    else:
        click.echo(_ending(plan, told))
    return 0 if told["learned"]["release"] else 1


def _traffic(
    data: Path | None, requests: int, fresh: int, seed: int
) -> tuple[list[workload.Ticket], list[workload.Ticket], dict[str, str]]:
    if data is None:
        tickets = workload.generate(requests, seed)
        new = workload.generate(fresh, seed, unseen_share=0.05, start=requests)
        return tickets, new, RULES
    texts, labels = labelled.read(data)
    tickets = labelled.from_labelled(texts, labels, seed)
    kept = len(tickets) - min(fresh, len(tickets) // 5)
    return tickets[:kept][:requests], tickets[kept:], dict.fromkeys(sorted(set(labels)), "")


def _fresh_home(home: Path) -> None:
    """Make the demo's home anew; never touch a folder that is not one."""
    if home.exists() and any(home.iterdir()):
        if not (home / MARK).exists():
            raise InputError(f"{home} is not a demo's home: name another with --home")
        shutil.rmtree(home)
    home.mkdir(parents=True, exist_ok=True)
    (home / MARK).touch()


def _opening(plan: story.Plan, data: Path | None) -> str:
    frontier = f"the frontier at {plan.upstream}" if plan.upstream else "a SIMULATED frontier (own process, real HTTP)"
    traffic = f"the texts of {data}" if data else "simulated support tickets of a plant shop"
    return (
        f"{len(plan.observed):,} requests, {traffic}, go through the gateway to {frontier};\n"
        f"nobody tells it what they are for. It finds the task, learns from the answers, and then answers "
        f"{len(plan.fresh):,}\nnew requests where it is sure.\n"
    )


def _ending(plan: story.Plan, told: dict[str, Any]) -> str:
    learned, found = told["learned"], told["found"]
    task = (
        f"found {found['name']} in {found['records']:,} of the requests ({found['contract_told']}): {found['verdict']}"
    )
    if learned["release"] is None:
        reasons = "\n".join(f"  - {reason}" for reason in learned["reasons"])
        return f"{task}\nno release, and nothing is served by a small model:\n{reasons}"
    latency, cost = told["latency_ms"], told["usd_per_1000"]
    star = " (simulated)" if told["simulated"] else ""
    small, right = told["served_by_specialist"], told["accuracy"]
    rows = [
        ["on new traffic", f"frontier{star}", "specialist", "through Suffice"],
        ["share of requests", _share(_rest(small)), _share(small), "100%"],
        ["right, against the truth", *(_share(right.get(who)) for who in ("frontier", "specialist", "suffice"))],
        ["agrees with the frontier", "-", "-", _share(told.get("agreement"))],
        ["latency p50", _ms(latency["frontier"], "p50"), _ms(latency["specialist"], "p50"), ""],
        ["latency p99", _ms(latency["frontier"], "p99"), _ms(latency["specialist"], "p99"), ""],
        ["cost per 1,000 requests", _usd(cost["before"]), "~$0, your machine", _usd(cost["after"])],
    ]
    return (
        f"{task}\nlearned {learned['release']} in {told['learn_s']:.0f} s from {told['observed']:,} observed requests; "
        f"alone it gives the frontier's answer on {common.share(learned['accuracy'])}\n\n{common.table(rows)}\n\n"
        f"The promise: {learned['sentence']}\n\n"
        f"{_differs(told)}n = {told['n']:,}; 95% intervals in brackets.\n"
        f"report, with the coverage-error curve: {learned['report']}\n"
        f"{_changed(told['changed'], cost['audits']) if 'changed' in told else ''}"
        f"look around: suffice show {learned['release']} --home {plan.home}; suffice records --home {plan.home}"
    )


def _changed(seen: dict[str, Any], audits_usd: float | None) -> str:
    """The last act: what came of the frontier's changing its mind."""
    old, new = next(iter(seen["renames"].items()))
    lines = [
        f"\nThe frontier changes its mind (simulated): it no longer uses {len(seen['renames'])} of its labels: what "
        f"was {old} is now {new}, and so on.",
        f"Here {100 * seen['audit']:g}% of the specialist's answers are audited, which costs {_usd(audits_usd)} per "
        f"1,000 requests on top of the table; the default, 1%,\nwaits some five times as long. From here on the "
        f"simulated frontier is {seen['speed']:g} times as fast, to save your time.",
    ]
    if seen["alarm"] is None:
        lines.append(
            "The task had been revoked before that:"
            if seen["revoked_before"]
            else f"No alarm came within {seen['sent']:,} requests ({seen['audited']:,} audits, {seen['differing']:,} "
            f"of them differ), and {seen['differing_out']:,} answers that differ went out. What happened so far:"
        )
        return "\n".join([*lines, *(f"  {event['what']}" for event in seen["events"])]) + "\n\n"
    after, resumed = seen["after_alarm"], seen["resumed"]
    lines += [
        f"The alarm came after {seen['requests']:,} requests and {seen['audited']:,} audits, {seen['differing']:,} of "
        f"which differ; {seen['differing_out']:,} answers unlike the changed frontier's had gone out.",
        f"  alarm     {seen['alarm']}",
        f"  cause     {seen['cause'] or 'not told in time'}",
        "Then the change is taken back, and nobody does anything else. "
        f"Of {after['requests']:,} requests after the alarm {after['escalated']:,} went to the frontier, and then:",
        f"  recovery  {seen['recovery'] or 'none in time'}",
    ]
    if resumed:
        share = common.share(resumed["served_by_specialist"])
        lines.append(f"{resumed['release']} answers {share} of the next requests.")
    return "\n".join(lines) + "\n\n"


def _differs(told: dict[str, Any]) -> str:
    """How the promise fared, where the frontier's answers are known: apart for topics that were in the traffic."""
    found = told.get("differs_of_all")
    if found is None:
        return ""
    line = f"On new traffic the specialist gave another answer than the frontier on {_share(found['known_topics'])} of "
    line += "the requests"
    if found["new_topics"] is not None:
        line += (
            f" whose topics it knows, and on {_share(found['new_topics'])} of those\non topics that were never in the "
            f"traffic (n = {found['new_topics']['n']}): the promise does not cover these, and most escalate"
        )
    return line + ".\n"


def _share(estimate: dict[str, Any] | None) -> str:
    if not estimate:
        return "-"
    return f"{100 * estimate['value']:.1f}% ({100 * estimate['low']:.1f}-{100 * estimate['high']:.1f})"


def _rest(estimate: dict[str, Any]) -> dict[str, Any]:
    return {"value": 1 - estimate["value"], "low": 1 - estimate["high"], "high": 1 - estimate["low"]}


def _ms(latency: dict[str, float] | None, name: str) -> str:
    return f"{latency[name]:,.1f} ms" if latency else "-"


def _usd(cost: float | None) -> str:
    return f"${cost:.3f}" if cost is not None else "unknown price"
