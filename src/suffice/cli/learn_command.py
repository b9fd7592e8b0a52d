"""`suffice learn`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import adapters, common, families, verifiers
from suffice.cli import candidates as elsewhere
from suffice.cli.import_command import import_file
from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.core.protocols import Family
from suffice.core.types import Policy
from suffice.learn import pipeline
from suffice.learn.report import short, write_report
from suffice.plan.prices import Prices
from suffice.store import patterns, releases
from suffice.store.home import Home

LATEST = 253_402_300_799
"""The last second of the year 9999: what is above it was meant in milliseconds."""


@click.command()
@click.argument("task", required=False)
@click.option("--data", type=click.Path(path_type=Path), help="Import this file first, as `suffice import` does.")
@click.option("--max-error", type=float, help="The share of all the task's requests that may be answered wrong.")
@click.option("--confidence", type=float, help="How sure the promise must be.")
@click.option("--min-coverage", type=float, help="The share of traffic below which a release is not worth having.")
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the splits and the fit.")
@click.option("--budget", type=float, default=15, show_default=True, help="Minutes for the search.")
@click.option(
    "--since", type=float, metavar="SECONDS", help="Only rows from then on certify (seconds since 1970); all train."
)
@click.option("--forget", is_flag=True, help="With --since: older rows do not train either (the frontier has changed).")
@click.option("--recipe", metavar="FAMILY", help="Only this family: linear, nearest, encoder, causal or upstream.")
@click.option(
    "--all", "everything", is_flag=True, help="Try every candidate within the budget; the choice stays the same."
)
@click.option("--adapter", type=click.Path(path_type=Path), help="A LoRA adapter tuned elsewhere (peft's folder).")
@click.option("--base", metavar="NAME|PATH", help="With --adapter: the model it was tuned on.")
@common.everywhere
def command(
    task: str | None,
    data: Path | None,
    max_error: float | None,
    confidence: float | None,
    min_coverage: float | None,
    seed: int,
    budget: float,
    since: float | None,
    forget: bool,
    recipe: str | None,
    everything: bool,
    adapter: Path | None,
    base: str | None,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Learn TASK (all tasks, if none is named) from its records, or from --data.

    Exit 0: released. 1: rejected, with reasons. Nothing is served before `suffice stage` says so.
    """
    settings = common.configured(folder, config_file)
    if not budget > 0:  # nan neither
        raise InputError(f"--budget is a number of minutes above 0, not {budget:g}")
    if forget and since is None:
        raise InputError("--forget leaves out what is older than --since: give that too")
    if since is not None and not 0 <= since <= LATEST:
        raise InputError(f"--since is a number of seconds since 1970, not {since:g}")
    if adapter is not None:
        if task is None or recipe not in (None, families.CAUSAL):
            raise InputError("--adapter is for one task, which is named, and for no other recipe than causal")
        recipe = families.CAUSAL
    elif base is not None:
        raise InputError("--base goes with --adapter; [learn] causal names the base that is tuned here")
    candidates = families.allowed(settings.learn, folder, recipe, families.places(settings))
    if task is not None:
        task, release = common.task_and_release(task)
        if release is not None:
            raise InputError(f"learn takes a task, not a release: {task}")
    given = {"max_error": max_error, "confidence": confidence, "min_coverage": min_coverage}
    stated = {name: value for name, value in given.items() if value is not None}
    policies = {name: _policy(settings, name, stated) for name in ([task] if task else settings.tasks)}
    home = common.opened(folder, settings, must_exist=data is None)
    task = patterns.today(home, task) if task is not None else None
    if data is not None:
        import_file(home, data, task, cost=Prices(settings.prices).usd)
    known = releases.all_tasks(home)
    if task is not None and task not in known:
        raise InputError(f"there is no task {task!r}: declare it by the header X-Suffice-Task, or give --data FILE")
    if adapter is not None:
        candidates = [adapters.brought(settings, folder, adapter, base)]
    names = [task] if task is not None else [name for name in known if name not in _left_alone(home)]
    if not names:
        raise InputError("there are no tasks: name one, with --data FILE")
    outcomes: list[dict[str, Any]] = []
    unusable = False
    for name in names:
        run = pipeline.Settings(
            policy=policies.get(name) or _policy(settings, name, stated),
            seed=seed,
            budget_s=60 * budget,
            everything=everything,
            since=since,
            forget=forget,
        )
        try:
            able = [*candidates, *elsewhere.allowed(home, settings, name, recipe)]
            place = common.config_path(folder, config_file)
            declared = verifiers.to_learn(
                home,
                settings,
                place.parent if place is not None else Path(),
                name,
                run.policy.loss,
                run.policy.egress,
            )
            outcomes.append(_learn(home, name, able, run, declared, as_json))
        except InputError as error:
            if task is not None:
                raise
            unusable = True
            outcomes.append({"task": name, "release": None, "reasons": [str(error)]})
            click.echo(f"suffice: {name}: {error}", err=True)
    if as_json:
        common.emit(outcomes[0] if task is not None else {"tasks": outcomes})
    return 2 if unusable else 0 if all(outcome["release"] for outcome in outcomes) else 1


def _left_alone(home: Home) -> set[str]:
    """Tasks that nobody asked for by name and that are ignored, or are best kept on the frontier."""
    found = patterns.all_patterns(home)
    kept = {p.task for p in found if p.task is not None and not p.ignored}
    ignored = {p.task for p in found if p.task is not None} - kept
    open_ended = {n for n, told in patterns.documents(home).items() if told["verdict"] == "keep on the frontier"}
    return ignored | open_ended


def _learn(
    home: Home, task: str, candidates: list[Family], run: pipeline.Settings, declared: verifiers.Declared, as_json: bool
) -> dict[str, Any]:
    """Learn one task, write its page, tell what was found; the document."""
    bar = common.Bar()
    run = msgspec.structs.replace(run, policy=msgspec.structs.replace(run.policy, loss=declared.loss))
    try:
        with home.learning(task):
            outcome = pipeline.learn(
                home,
                task,
                candidates,
                run,
                clock=time.time,
                progress=bar,
                graders=declared.graders,
                pairs=declared.pairs,
            )
    finally:
        bar.close()
    page = home.folder / "reports" / f"{outcome.document['release'] or f'{task}-rejected'}.html"
    if not outcome.known:
        write_report(page, outcome)
    document = {**outcome.document, "report": str(page)}
    if not as_json:
        _tell(document, outcome.known)
    return document


def _policy(settings: Config, task: str, stated: dict[str, float]) -> Policy:
    base = settings.policy_of(task)
    values = {name: getattr(base, name) for name in Policy.__struct_fields__}
    try:
        return Policy(**{**values, **stated})
    except ValueError as error:
        raise InputError(str(error)) from error


def _tell(document: dict[str, Any], known: bool) -> None:
    """What a run found, for people."""
    splits = document["splits"]
    if known:
        click.echo("nothing is new since this was learned: same data, same settings")
    if document["contract"]:
        click.echo(f"task {document['task']}: {document['contract']}; reads {document['reads']}")
    if splits:
        click.echo("examples: " + ", ".join(f"{count:,} {name}" for name, count in splits.items()))
    for reason, count in document["dropped"].items():
        click.echo(f"left out: {count:,} ({reason})")
    for note in document["notes"]:
        click.echo(f"note: {note}")
    if document["candidates"]:
        click.echo(_candidates(document["candidates"]))
    if document["release"]:
        wrong = "mean loss     " if document.get("kind") == "graded" else "accepted wrong"
        click.echo(
            f"\n{document['release']} released\n"
            f"  alone right    {common.share(document['accuracy'])}\n"
            f"  coverage       {common.share(document['coverage'])}\n"
            f"  {wrong} {common.share(document['accepted_error'])} of all requests\n"
            f"  frontier wrong {common.share(document['frontier_error'])}\n\n{document['sentence']}\n\n"
            f"report: {document['report']}\n"
            f"serve it: suffice stage {document['task']} live"
        )
    else:
        click.echo(f"\nno release for {document['task']}:")
        for reason in document["reasons"]:
            click.echo(f"  - {reason}")


def _candidates(candidates: list[dict[str, Any]]) -> str:
    """The table of a search. All rows are judged on the same examples: how many is said once, in the head."""
    n = next((row["accuracy"]["n"] for row in candidates if row["accuracy"]), 0)
    rows = [["candidate", f"right on tune (n = {n:,})", "coverage on tune", "fit", "p50 / p99", "size", "verdict"]]
    paid = any(row.get("usd_per_1k") is not None for row in candidates)
    if paid:
        rows[0].insert(-1, "USD per 1,000")
    for row in candidates:
        tried = row["accuracy"] is not None
        rows.append(
            [
                row["recipe"],
                short(row["accuracy"]),
                short(row["coverage"]),
                f"{row['fit_s']:.1f} s" if tried else "-",
                f"{row['latency_ms']['p50']:.2f} / {row['latency_ms']['p99']:.2f} ms" if tried else "-",
                f"{row['size_mb']:.3g} MB" if row.get("size_mb") else "-",
                row["verdict"] + (f": {row['reason']}" if row["reason"] else ""),
            ]
        )
        if paid:
            usd = row.get("usd_per_1k")
            rows[-1].insert(-1, f"{usd:.4g}" if usd is not None else "-")
    return common.table(rows)
