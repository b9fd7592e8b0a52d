"""`suffice discover`."""

from __future__ import annotations

import re
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from suffice.cli import common, families
from suffice.core.types import OutputContract
from suffice.store import patterns

WIDTH = 100
ROWS = 40
DETAILED = 12
"""Tasks that are told of beyond the table; `suffice discover --json` has all there is about each."""
REASON_LINES = 2
CHANGES = 3
SHORTEST_CONTRACT = 16
TOLD_ELSEWHERE = ("Its answers can be verified", "It costs", "A certificate needs more rows")
"""Reasons that the table, or what is missing, says too."""
VERDICTS = {"small model": "small model", "not yet": "not yet", "keep on the frontier": "frontier"}
HEADLINES = {
    "small model": "work for a small model",
    "not yet": "not yet",
    "keep on the frontier": "stays on the frontier",
}


@click.command()
@common.everywhere
def command(folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Find the tasks in what was recorded: group calls by prompt and meaning, name them, judge each.

    Only what is new since the last run is read. What you decided by `suffice tasks` (names, merges, splits, what is
    ignored) stays. A verdict is an estimate, never a promise: only `suffice learn` certifies.
    """
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    from suffice.learn import discover

    bar = common.Bar()
    try:
        with home.discovering():
            new = patterns.count_unread(home, patterns.bookmark(home).seq)
            found = discover.discover(
                home,
                settings,
                load_matcher=families.load_matcher(home),
                supports=supported,
                clock=time.time,
                progress=bar,
            )
    except KeyboardInterrupt:
        bar.close()
        click.echo("suffice: interrupted: what was read is kept, the next run goes on", err=True)
        return 130
    finally:
        bar.close()
    document = {**found.document, "new": new}
    if as_json:
        tasks = [with_ids(task, patterns.record_ids(home, found.patterns[task["name"]])) for task in document["tasks"]]
        common.emit({**document, "tasks": tasks})
    else:
        for line in told(document, least=discover.LEAST):
            click.echo(line)
    return 0


def supported(contract: OutputContract) -> str | None:
    """Why no installed family can answer a contract; None if one can."""
    reason: str | None = "no family is installed"
    # One that only repeats known answers can do so for any contract: that says nothing about new inputs.
    for family in (family for family in families.installed() if family.name != "nearest"):
        reason = family.supports(contract)
        if reason is None:
            return None
    return reason


def with_ids(task: dict[str, Any], ids: list[str]) -> dict[str, Any]:
    """A task's entry with its records right after the contract."""
    entry: dict[str, Any] = {}
    for key, value in {"contract": None, "verdict": None, **task}.items():
        entry[key] = value
    first = ("name", "records", "share", "contract")
    rest = {key: value for key, value in entry.items() if key not in first}
    return {**{key: entry[key] for key in first}, "record_ids": ids, **rest}


# ---------------------------------------------------------------------------------------------- for people


def told(document: dict[str, Any], least: int) -> Iterator[str]:
    """What a run found, as people read it; fewer than `least` requests that are alike are no task."""
    total, tasks = document["records"], document["tasks"]
    if not total:
        yield "no records yet: `suffice serve` records what an application asks, `suffice import FILE` takes a log"
        return
    yield from _wrapped(_summary(document))
    if tasks:
        yield ""
        yield table(tasks[:ROWS])
        if rest := tasks[ROWS:]:
            share = _percent(sum(task["share"] for task in rest))
            yield f"and {len(rest)} more, {share} of the calls: `suffice tasks` lists all"
        # What can be done something about first, then what is large.
        told_of = sorted(tasks, key=lambda task: task["ignored"] or task.get("verdict") != "small model")[:DETAILED]
        for task in sorted(told_of, key=tasks.index):
            yield from _about(task)
    unassigned = document["unassigned"]
    if unassigned["records"]:
        yield ""
        why = "; ".join(unassigned["why"])
        belong = "belongs" if unassigned["records"] == 1 else "belong"
        yield from _wrapped(
            f"{_calls(unassigned['records'])} ({_percent(unassigned['share'])}) {belong} to no task"
            + (f": {why}." if why else ".")
        )
    for suggestion in document["suggestions"]:
        yield ""
        yield from _wrapped(suggestion)
    yield ""
    yield from _wrapped(_next(document, least))


def _summary(document: dict[str, Any]) -> str:
    """The run in one or two sentences."""
    tasks, total = document["tasks"], document["records"]
    read = f" ({document['new']:,} of them new)" if 0 < document["new"] < total else ""
    if not tasks:
        return f"No task found in {_calls(total)}{read}."
    number = f"{len(tasks)} task{'s' if len(tasks) != 1 else ''}"
    parts = f"{number} {'are' if len(tasks) != 1 else 'is'} {_percent(sum(t['share'] for t in tasks))} of {total:,} "
    parts += f"call{'s' if total != 1 else ''}{read}"
    if document["cost_usd"]:
        known = min(sum(task["cost_share"] or 0.0 for task in tasks), 1.0)
        parts += f" and {_percent(known)} of {_money(document['cost_usd'])}"
    judged = [task["verdict"] for task in tasks if not task["ignored"] and task.get("verdict")]
    counted = {verdict: judged.count(verdict) for verdict in VERDICTS}
    said = []
    if n := counted["small model"]:
        said.append(f"{n} {'looks' if n == 1 else 'look'} like work for a small model")
    if n := counted["not yet"]:
        said.append(f"{n} may become it")
    if n := counted["keep on the frontier"]:
        said.append(f"{n} {'stays' if n == 1 else 'stay'} on the frontier")
    if n := sum(task["ignored"] for task in tasks):
        said.append(f"{n} {'is' if n == 1 else 'are'} ignored")
    return parts + (f"; {', '.join(said)}." if said else ".")


def table(tasks: list[dict[str, Any]]) -> str:
    """One row a task; columns of cost only where a cost is known."""
    priced = any(task.get("monthly_usd") is not None for task in tasks)
    saving = any(task.get("saves_usd") is not None for task in tasks)
    head = ["task", "calls", "share", *(["a month"] if priced else []), "answers", "verdict"]
    rows = [head + (["would save"] if saving else [])]
    for task in tasks:
        rows.append(
            [
                task["name"],
                f"{task['records']:,}",
                _percent(task["share"]),
                *([_money(task.get("monthly_usd"))] if priced else []),
                task.get("contract_told") or "-",
                "ignored" if task["ignored"] else VERDICTS.get(task.get("verdict") or "", "-"),
                *([_money(task.get("saves_usd"))] if saving else []),
            ]
        )
    answers = head.index("answers")
    others = sum(max(len(row[i]) for row in rows) + 2 for i in range(len(rows[0])) if i != answers)
    room = max(SHORTEST_CONTRACT, WIDTH - others)
    for row in rows:
        row[answers] = shortened(row[answers], room)
    return common.table(rows)


def _about(task: dict[str, Any]) -> Iterator[str]:
    """A task in a few lines: why, what is missing, what is new in its answers."""
    yield ""
    if task["ignored"]:
        yield f"{task['name']}: ignored, until `suffice tasks unignore {task['name']}`"
        return
    yield f"{task['name']}: {HEADLINES.get(task.get('verdict') or '', 'not judged yet')}"
    reasons = list(task.get("reasons", []))
    said = [reason for reason in reasons if not reason.startswith(TOLD_ELSEWHERE)]
    # What was found against a task stands last; that inputs are as they should be is worth a word if there is room.
    said.sort(key=lambda reason: reason.startswith("The inputs are diverse"))
    said = said[-1:] + said[:-1] if task.get("verdict") == "keep on the frontier" else said
    yield from _wrapped(" ".join(said or reasons), "  ", REASON_LINES)
    if task.get("missing"):
        yield from _wrapped("missing: " + "; ".join(task["missing"]), "  ", REASON_LINES)
    changes = task.get("changes", [])
    for change in changes[-CHANGES:]:
        yield from _wrapped("changed: " + change["what"], "  ", 1)


def _next(document: dict[str, Any], least: int) -> str:
    """The command to type now."""
    small = [task for task in document["tasks"] if task.get("verdict") == "small model" and not task["ignored"]]
    if small:
        best = max(small, key=lambda task: (task.get("saves_usd") or 0.0, task["records"]))
        return f"next: suffice learn {best['name']}"
    if document["tasks"]:
        return "next: let more traffic come, then `suffice discover` again; it reads only what is new"
    return (
        f"A task takes {least} calls that are alike, with whole answers. Next: let more traffic come, or "
        "`suffice import FILE`, then `suffice discover` again."
    )


def _wrapped(text: str, indent: str = "", most: int | None = None) -> list[str]:
    """Lines of at most WIDTH characters; `most` of them, the last cut where there is more."""
    # A command is typed as it stands: it is not divided between lines.
    whole = re.sub(r"`[^`]{1,80}`", lambda quoted: quoted[0].replace(" ", "\0"), " ".join(text.split()))
    lines = textwrap.wrap(
        whole,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent,
        max_lines=most,
        placeholder=" …",
        break_on_hyphens=False,
        break_long_words=True,
    )
    return [line.replace("\0", " ") for line in lines]


def _calls(n: int) -> str:
    return f"{n:,} call{'s' if n != 1 else ''}"


def _percent(share: float) -> str:
    if 0 < share < 0.01:
        return "<1%"
    return f"{share:.1%}" if 0.99 < share < 0.9995 else f"{share:.0%}"


def _money(usd: float | None) -> str:
    """US dollars as people read them."""
    if usd is None:
        return "-"
    return f"${usd:,.0f}" if usd >= 1_000 else f"${usd:,.2f}" if usd >= 0.01 or not usd else f"${usd:.2g}"


def shortened(contract: str, room: int) -> str:
    """A contract's words in so many characters: first without what the fields hold, then cut."""
    while len(contract) > room and (bare := re.sub(r" \([^()]*\)", "", contract)) != contract:
        contract = bare
    return contract if len(contract) <= room else contract[: room - 1].rstrip() + "…"
