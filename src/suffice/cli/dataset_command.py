"""`suffice dataset`."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import common
from suffice.core.contracts import told as contract_told
from suffice.core.errors import InputError
from suffice.core.types import Example, OutputContract
from suffice.learn import curate, datasets, exports, filters
from suffice.learn.datasets import SPLITS, Manifest, Planned
from suffice.learn.exports import FORMATS, Exchange, Told
from suffice.store import datasets as kept
from suffice.store import releases
from suffice.store.home import Home
from suffice.store.records import Trusted

SHOWN = 20
"""Records that are named where many could be, unless `--json` asks for all."""
EVERY = "all"
PROOF = ("calibration", "test")


@click.command()
@click.argument("task")
@click.argument("digests", metavar="[OLD [NEW]]", nargs=-1)
@click.option("--list", "listed", is_flag=True, help="List every row: its record, split, source and whose word it is.")
@click.option(
    "--dropped",
    metavar="[REASON]",
    is_flag=False,
    flag_value=EVERY,
    help="List the records left out, all or those for a reason that holds this text.",
)
@click.option("--diff", "compared", is_flag=True, help="What changed since the dataset OLD [the last one], up to NEW.")
@click.option("--export", "form", type=click.Choice(FORMATS), help="Write train, and tune to validate on, for a tool.")
@click.option("--to", "to", type=click.Path(path_type=Path), help="The new folder of the export.")
@click.option(
    "--split", "splits", multiple=True, type=click.Choice(SPLITS), help="Export this split instead (may be repeated)."
)
@click.option(
    "--as-served", is_flag=True, help="Prompts and answers as an adapter is asked that `learn --adapter` brings back."
)
@click.option("--seed", type=int, default=0, show_default=True, help="Draws the splits, as in `suffice learn`.")
@common.everywhere
def command(
    task: str,
    digests: tuple[str, ...],
    listed: bool,
    dropped: str | None,
    compared: bool,
    form: str | None,
    to: Path | None,
    splits: tuple[str, ...],
    as_served: bool,
    seed: int,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Show what the next `suffice learn TASK` would learn from, what it leaves out and why, and what changed.

    It reads no label of calibration or test, and costs nothing of the task's ledger. Rows that are exported have been
    read: they are never used to certify again.
    """
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    name, release = common.task_and_release(task)
    known = releases.all_tasks(home)
    if release is not None:
        raise InputError(f"dataset takes a task, not a release: {name}")
    if name not in known:
        raise InputError(f"there is no task {name!r}; known: {', '.join(known) or 'none'}")
    if (form is None) != (to is None):
        raise InputError("--export and --to belong together: a format, and a folder to write into")
    if (splits or as_served) and form is None:
        raise InputError(f"{'--split' if splits else '--as-served'} says what to export: give --export and --to too")
    if (digests and not compared) or len(digests) > 2:
        raise InputError("OLD and NEW are for --diff")
    if compared and len(digests) == 2:
        both = [datasets.kept(home, name, digest) for digest in digests]
        _show({"task": name, "change": _change(both[0], both[1], named=True)}, as_json)
        return 0
    policy, old = settings.policy_of(name), digests[0] if digests else None
    if form is not None and to is not None:
        writer = exports.Writer(to, form, name, splits or ("train", "tune"))
        with home.learning(name):
            planned = datasets.plan(home, name, policy, seed)
            document = _document(home, name, planned, old, compared)
            document["export"] = _export(home, name, planned, writer, as_served)
    else:
        planned = datasets.plan(home, name, policy, seed)
        document = _document(home, name, planned, old, compared)
    if dropped is not None:
        document["records"] = _named(planned, dropped)
    if listed:
        made = datasets.manifest(name, planned.splits, planned.curated, planned.unlearned)
        document["list"] = [msgspec.structs.asdict(line) for line in made.lines]
    _show(document, as_json)
    return 0


def _document(home: Home, task: str, planned: Planned, old: str | None, named: bool) -> dict[str, Any]:
    """What stands, and how it differs from the dataset before (or from `old`); it is kept as the newest."""
    made = datasets.manifest(task, planned.splits, planned.curated, planned.unlearned)
    before = [one.digest for one in kept.manifests(home, task) if one.digest != made.digest]
    last = datasets.kept(home, task, old) if old else datasets.kept(home, task, before[0]) if before else None
    datasets.keep(home, made)
    prompt = planned.curated.prompt
    return {
        "task": task,
        "digest": made.digest,
        "rows": {split: len(getattr(planned.splits, split)) for split in SPLITS},
        "groups": len({line.group for line in made.lines if line.group is not None}),
        "repeated": _repeated(planned.splits.train),
        "short": planned.short,
        "contract": contract_told(planned.contract) if planned.contract is not None else None,
        "reads": prompt.told() if prompt else "the input",
        "provenance": datasets.provenance(made),
        "dropped": {reason: len(ids) for reason, ids in planned.dropped().items()},
        "change": _change(last, made, named) if last is not None else None,
    }


def _repeated(train: Any) -> int:
    """Training rows whose input another one has too."""
    return len(train) - len({example.input for example in train})


def _change(old: Manifest, new: Manifest, named: bool) -> dict[str, Any]:
    """What changed: how many records, or (`named`) which."""
    found = msgspec.structs.asdict(datasets.diff(old, new))
    return {
        "from": old.digest,
        "to": new.digest,
        "told": datasets.diff(old, new).told(),
        **{what: rows if named else len(rows) for what, rows in found.items()},
    }


def _named(planned: Planned, wanted: str) -> dict[str, list[str]]:
    """The records left out, by reason. Raises InputError for a reason that nothing was left out for."""
    every = planned.dropped()
    found = {reason: ids for reason, ids in every.items() if wanted == EVERY or wanted.lower() in reason.lower()}
    if not found and wanted != EVERY:
        raise InputError(f"no record is left out for {wanted!r}; reasons: {'; '.join(every) or 'none'}")
    return found


# ---------------------------------------------------------------------------------------------- export


def _export(home: Home, task: str, planned: Planned, writer: exports.Writer, as_served: bool) -> dict[str, Any]:
    """Write the rows. Where each belongs is put down first: what others have seen can certify nothing any more."""
    if as_served and planned.contract is None:
        raise InputError(f"task {task!r}: all answers are the same, and there is nothing to tune a model on")
    placed = {
        record: "train" if split in PROOF else split
        for record, split in planned.assigned.items()
        if split in writer.splits
    }
    releases.put_splits(home, task, placed)
    kept.seen(home, placed)
    files = writer.write(_rows(home, task, planned, writer.splits, planned.contract if as_served else None))
    if as_served and planned.contract is not None:
        files.append(_note(writer.folder, task, planned.contract))
    return {
        "format": writer.form,
        "files": [str(path) for path in files],
        "rows": writer.written,
        "left_out": writer.left_out,
        "read": sum(planned.assigned[record] in PROOF for record in placed),
    }


def _note(folder: Path, task: str, contract: OutputContract) -> Path:
    """What the way back needs to know: the instruction, which may be another once the task has other answers."""
    from suffice.specialists.causal_text import NAMED_CHARS, instruction

    path = folder / "suffice.json"
    path.write_bytes(msgspec.json.encode({"task": task, "instruction": instruction(contract, NAMED_CHARS)}))
    return path


def _rows(
    home: Home, task: str, planned: Planned, splits: tuple[str, ...], served: OutputContract | None
) -> Iterator[tuple[str, Exchange | str, Told]]:
    """Each row to export with its split. What says something against a row keeps it out of train and tune.

    `served`: the contract by which a generating model is asked, for rows as that asks; None: rows as they were.
    """
    marks = planned.curated.marks
    wanted: dict[str, tuple[str, Example]] = {
        example.id: (split, example) for split in splits for example in getattr(planned.splits, split)
    }
    style = curate.style_of([*planned.splits.train, *planned.splits.tune], planned.curated)
    for row, _ in kept.newest(home, task, curate.MOST):
        if row.id not in wanted:
            continue
        split, example = wanted[row.id]
        trusted = Trusted(row.id, example.reference_kind, example.reference) if example.has_reference else None
        rule = filters.of_row(example, marks)
        told = Told(
            input=example.input,
            target=example.target,
            output=example.output,
            has_output=example.has_output,
            reference=example.reference,
            has_reference=example.has_reference,
            kind=example.reference_kind if example.has_reference else "frontier",
            source=planned.curated.sources.get(row.id, datasets.LIVE),
            group=example.group,
            at=example.at,
            slices=example.slices,
        )
        if rule is not None and split not in PROOF:
            yield split, rule.told, told
        elif rule is filters.KEY:
            yield split, exports.HOLDS_KEY, told
        elif served is not None:
            yield split, _as_served(served, example), told
        else:
            yield split, exports.exchange(row, trusted, style), told


def _as_served(contract: OutputContract, example: Example) -> Exchange | str:
    """A row as a generating specialist of this contract is asked, and as it is to answer."""
    from suffice.specialists.causal_text import NAMED_CHARS, instruction, written

    return exports.told_so(
        example.id, instruction(contract, NAMED_CHARS), example.input, written(contract, example.target)
    )


# ---------------------------------------------------------------------------------------------- telling


def _show(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        common.emit(document)
        return
    if "digest" in document:
        _tell(document)
    if document["change"]:
        _tell_change(document["change"])
    for reason, ids in document.get("records", {}).items():
        click.echo(f"\n{reason}:")
        for record in ids:
            click.echo(f"  {record}")
    if document.get("list"):
        names = ("record", "split", "source", "kind", "group")
        click.echo("\n" + common.table([list(names), *([str(r[n] or "") for n in names] for r in document["list"])]))
    if "export" in document:
        _tell_export(document["export"])


def _tell(document: dict[str, Any]) -> None:
    click.echo(f"{document['task']}  {document['digest'][:16]}  {document['contract'] or 'one answer only'}")
    click.echo("rows        " + ", ".join(f"{count:,} {split}" for split, count in document["rows"].items()))
    if document["short"]:
        click.echo(f"            {document['short']}")
    groups = f", {document['groups']:,} groups" if document["groups"] else ""
    click.echo(f"repeated    {document['repeated']:,} training rows have an input that another has too{groups}")
    click.echo(f"reads       {document['reads']}")
    for what, counts in document["provenance"].items():
        shown = list(counts.items())
        more = f", {len(shown) - SHOWN:,} more" if len(shown) > SHOWN else ""
        click.echo(f"{what:<11} " + ", ".join(f"{count:,} {name}" for name, count in shown[:SHOWN]) + more)
    for reason, count in document["dropped"].items():
        click.echo(f"left out    {count:,} ({reason})")


def _tell_change(change: dict[str, Any]) -> None:
    click.echo(f"change      {change['told']} since {change['from'][:16]}")
    if isinstance(change["added"], int):
        return
    for what in ("added", "removed", "relabelled", "moved", "reread"):
        for record in change[what][:SHOWN]:
            click.echo(f"  {what}  {record if isinstance(record, str) else ' '.join(record)}")
        if len(change[what]) > SHOWN:
            click.echo(f"  {what}  {len(change[what]) - SHOWN:,} more (--json names all)")


def _tell_export(export: dict[str, Any]) -> None:
    click.echo(f"\nexported at {datetime.now(UTC):%Y-%m-%d %H:%M} UTC")
    for path in export["files"]:
        click.echo(f"  {path}")
    click.echo("  " + ", ".join(f"{count:,} {split}" for split, count in export["rows"].items()))
    for reason, count in export["left_out"].items():
        click.echo(f"  not written: {count:,} ({reason})")
    if export["read"]:
        click.echo(f"  {export['read']:,} rows were set aside for the proof: now they are read, and train from now on")
