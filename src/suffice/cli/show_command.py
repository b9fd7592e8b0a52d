"""`suffice show`."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import common
from suffice.cli.verifiers import at_hand
from suffice.core.contracts import told
from suffice.core.errors import InputError
from suffice.core.losses import kind_of
from suffice.core.types import Policy
from suffice.learn import wishes
from suffice.proof.judge import sentence
from suffice.serve import mistakes
from suffice.serve.status import status
from suffice.serve.verifying import Verifiers
from suffice.store import records, releases
from suffice.store.home import Home
from suffice.store.releases import Stored


@click.command()
@click.argument("task")
@click.option("--max-error", type=float, help="How many more examples this error would need (with --coverage).")
@click.option("--coverage", type=float, help="How many more examples this coverage would need (with --max-error).")
@click.option("--label", type=click.IntRange(0), default=5, show_default=True, help="Disagreements to list.")
@common.everywhere
def command(
    task: str,
    max_error: float | None,
    coverage: float | None,
    label: int,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Show TASK: where it stands, what the next stage needs, its watch, what is worth labelling, what happened.

    TASK@N shows one release with its evidence.
    """
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    name, n = common.named(home, task)
    known = releases.all_tasks(home)
    if name not in known:
        raise InputError(f"there is no task {name!r}; known: {', '.join(known) or 'none'}")
    if n is not None and (max_error is not None or coverage is not None):
        raise InputError("--max-error and --coverage are for a task: leave @N out")
    if n is None:
        policy = _wished(settings.policy_of(name), max_error)
        document = _task(
            home, name, settings.policy_of(name), label, at_hand(home, common.config_path(folder, config_file))
        )
        wish = policy.target_coverage if coverage is None else coverage
        document["worth_labelling"] = _worth(home, document, label)
        document["wish"] = _wish(document["last_run"], policy, wish, document["attempts"] + 1)
    else:
        stored = releases.get_release(home, name, n)
        if stored is None:
            raise InputError(f"there is no release {task}")
        document = _release(stored)
    if as_json:
        common.emit(document)
    elif n is None:
        _tell_task(document)
    else:
        _tell_release(document)
    return 0


def _wished(policy: Policy, max_error: float | None) -> Policy:
    try:
        return msgspec.structs.replace(policy, max_error=policy.max_error if max_error is None else max_error)
    except ValueError as error:
        raise InputError(f"--max-error: {error}") from error


def _wish(run: dict[str, Any] | None, policy: Policy, coverage: float, attempt: int) -> dict[str, Any] | None:
    """How many more examples a wish would need, by the last run."""
    if run is None:
        return None
    try:
        found = wishes.wished(run, policy, coverage, attempt)
    except ValueError as error:
        raise InputError(f"--coverage: {error}") from error
    return {"max_error": policy.max_error, "coverage": coverage, "more_examples": found.more, "told": found.told}


def _task(home: Home, name: str, policy: Policy, label: int, verifiers: Verifiers) -> dict[str, Any]:
    task = releases.all_tasks(home)[name]
    last = releases.last_run(home, name)
    return {
        "task": name,
        "stage": task.stage,
        "release": f"{name}@{task.release}" if task.release else None,
        **records.counts(home).get(name, {"records": 0, "specialist": 0}),
        "releases": [_release(stored) for stored in releases.all_releases(home, name)],
        "attempts": releases.attempts(home, name),
        "last_run": last[1] if last else None,
        **status(home, name, policy, label, verifiers),
        "mistakes": mistakes.counts(home, name),
    }


def _worth(home: Home, found: dict[str, Any], limit: int) -> list[dict[str, Any]]:
    """Where a label helps most: in what the last run certified on, then in live traffic; the surest first in each."""
    run = found["last_run"] or {}
    proposed = run.get("worth_labelling") or []
    named = [row["record"] for row in proposed]
    labelled = {row.id for row, trusted in records.query(home, ids=named) if trusted is not None} if named else set()
    still = [row for row in proposed if row["record"] not in labelled]
    return [*still, *found["worth_labelling"]][:limit]


def _release(stored: Stored) -> dict[str, Any]:
    release = stored.release
    document: dict[str, Any] = msgspec.to_builtins(release)
    certificate = release.draft.threshold.certificate
    return {
        "release": stored.name,
        "digest": stored.digest,
        "created_at": stored.created_at,
        "sentence": sentence(release),
        "kind": kind_of(certificate.loss, certificate.promise),
        "contract": told(release.draft.contract),
        "reads": stored.prompt.told() if stored.prompt else "the last user message; pins its first live request",
        "prompt": msgspec.to_builtins(stored.prompt) if stored.prompt else None,
        **{key: document[key] for key in ("draft", "tail", "report")},
    }


def _tell_task(document: dict[str, Any]) -> None:
    click.echo(f"{document['task']}: {document['stage']}, release {document['release'] or 'none'}")
    click.echo(f"{document['records']:,} records, {document['specialist']:,} answered by a specialist")
    if document["releases"]:
        rows = [["release", "made", "recipe", "alone right", "coverage", "max error"]]
        for release in document["releases"]:
            made = datetime.fromtimestamp(release["created_at"], UTC).strftime("%Y-%m-%d %H:%M")
            report, certificate = release["report"], release["draft"]["threshold"]["certificate"]
            rows.append(
                [
                    release["release"],
                    made,
                    release["draft"]["recipe"]["family"],
                    common.share(report["accuracy"]),
                    common.share(report["coverage"]),
                    f"{100 * certificate['max_error']:g}%",
                ]
            )
        click.echo("\n" + common.table(rows))
    last = document["last_run"]
    if last and last["reasons"]:
        click.echo("\nthe last run released nothing:")
        for reason in last["reasons"]:
            click.echo(f"  - {reason}")
    if document["wish"]:
        click.echo(f"\nto get further: {document['wish']['told']}")
    _tell_next(document)
    if document["watch"]:
        _tell_watch(document["watch"])
    _tell_mistakes(document["mistakes"])
    if document["worth_labelling"]:
        _tell_labels(document["worth_labelling"])
    click.echo("\nwhat happened (UTC):")
    for event in document["events"]:
        click.echo(f"  {_when(event['at'])}  {event['what']}")


def _tell_next(document: dict[str, Any]) -> None:
    following = document["next"]
    if document["certificate_age_s"] is not None:
        click.echo(f"\ncertified {_age(document['certificate_age_s'])} ago")
    if not following:
        return
    how = "by itself" if following["by_itself"] else f"by `suffice stage {document['task']} {following['stage']}`"
    click.echo(f"next stage: {following['stage']}, {how}" + ("; it still needs" if following["needs"] else ""))
    for need in following["needs"]:
        click.echo(f"  - {need}")


def _tell_watch(watch: dict[str, Any]) -> None:
    judged = {
        "frontier": "the frontier's answers",
        "disagreement": "disagreement with the frontier",
        "trusted": "trusted answers",
    }[watch["judged_by"]]
    limit = f"{100 * watch['limit']:.3g}%" if watch["limit"] is not None else "being measured"
    ended = f", ended by {watch['outcome']} {_when(watch['closed_at'])}" if watch["outcome"] else ""
    click.echo(f"\nwatch {watch['n']} over {watch['release']}, since {_when(watch['opened_at'])}{ended}")
    click.echo(f"  judged by      {judged}; limit {limit} of all requests")
    waiting = watch["audited"] - watch["settled"] - watch["missing"]
    click.echo(f"  seen           {watch['requests']:,} requests, {watch['accepted']:,} of them accepted")
    click.echo(
        f"  audits         {watch['audited']:,}: {watch['differing']:,} differ, {waiting:,} wait, "
        f"{watch['missing']:,} missing"
    )
    if watch["alarm_at"] is not None:
        click.echo(f"  evidence       {watch['evidence']:.2f} (alarm at {watch['alarm_at']:.2f})")
    click.echo(f"  running bound  at most {100 * watch['running_bound']:.3g}% so far (no alarm is no proof)")
    boosted = "; more audits than usual are drawn" if watch["boosted"] else ""
    expected, level = 100 * watch["escalated_expected"], 100 * watch["escalated_now"]
    click.echo(f"  escalated      {level:.1f}%, where {expected:.1f}% were expected{boosted}")


def _tell_mistakes(known: dict[str, Any]) -> None:
    if not any(known[kind] for kind in mistakes.KINDS):
        return
    rules = ", ".join(f"{rule} {count}" for rule, count in known["misroutes_by_rule"].items())
    click.echo("\nknown to be wrong (`suffice records --errors` lists them):")
    click.echo(f"  misroutes      {known['misroute']:,}" + (f" (by {rules})" if rules else ""))
    click.echo(f"  specialist     {known['specialist']:,} in their right task\n  frontier       {known['frontier']:,}")


def _tell_labels(rows: list[dict[str, Any]]) -> None:
    click.echo("\nworth labelling (one of the two answers, or neither; POST /v1/feedback or `suffice import`):")
    for row in rows:
        text = (row["input"] or "").replace("\n", " ")
        either = " | ".join(msgspec.json.encode(answer).decode() for answer in row["answers"])
        click.echo(f"  {row['record']}  {text[:80]!r}: {either}")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%m-%d %H:%M:%S")


def _age(seconds: float) -> str:
    for unit, size in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _tell_release(document: dict[str, Any]) -> None:
    report = document["report"]
    tail = document["tail"]
    click.echo(f"{document['release']}  {document['digest'][:16]}\n\n{document['sentence']}\n")
    click.echo(f"answers        {document['contract']}\nreads          {document['reads']}")
    click.echo(f"alone right    {common.share(report['accuracy'])}\ncoverage       {common.share(report['coverage'])}")
    wrong = "mean loss     " if document["kind"] == "graded" else "accepted wrong"
    click.echo(f"{wrong} {common.share(report['accepted_error'])} of all requests")
    click.echo(f"frontier wrong {common.share(report['frontier_error'])}")
    proven = "promised" if tail["promised"] else f"not yet proven, {tail['labels_missing']:,} more labels in the band"
    click.echo(f"tail           {common.share(tail['error'])}, at most {100 * tail['max_tail_error']:g}%: {proven}")
    certificate = document["draft"]["threshold"]["certificate"]
    click.echo(f"judged by      {certificate['loss']}")
    if certificate["judge"] is not None:
        passes = common.share(certificate["judge"]["false_passes"])
        click.echo(f"  lets pass    {passes} of what people call wrong")
    click.echo(f"latency        p50 {report['latency_p50_ms']:.2f} ms, p99 {report['latency_p99_ms']:.2f} ms")
