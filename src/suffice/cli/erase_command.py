"""`suffice erase`."""

from __future__ import annotations

from pathlib import Path

import click

from suffice.cli import common
from suffice.core.errors import InputError
from suffice.learn import datasets
from suffice.store import asked, batches, dropping, erasing, releases
from suffice.store.erasing import Wish
from suffice.store.home import Home


@click.command()
@click.option("--group", "groups", multiple=True, help="Records of this group (X-Suffice-Group); may be given again.")
@click.option("--session", "sessions", multiple=True, help="Records of this session; may be given again.")
@click.option("--containing", "texts", multiple=True, help="Records in which this text stands; reads all of them.")
@click.option("--record", "ids", multiple=True, help="This record; may be given again.")
@click.option("--dry-run", is_flag=True, help="Only say how many they are.")
@click.option("--compact", is_flag=True, help="Write the database anew afterwards; records wait meanwhile.")
@common.everywhere
def command(
    groups: tuple[str, ...],
    sessions: tuple[str, ...],
    texts: tuple[str, ...],
    ids: tuple[str, ...],
    dry_run: bool,
    compact: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Erase what was said in one person's records: tombstones stay, without bodies, session and group.

    Says which releases were learned from them. Exit 1 where no record is meant.
    """
    wish = Wish(ids=ids, groups=groups, sessions=sessions, texts=texts)
    if not any((ids, groups, sessions, texts)) or not all((*ids, *groups, *sessions, *texts)):
        raise InputError("say whose records: --group, --session, --containing or --record, none of them empty")
    home = common.opened(folder, common.configured(folder, config_file))
    found = erasing.find(home, wish)
    document: dict[str, object] = {"records": len(found), "dry_run": dry_run, "record_ids": found}
    if not dry_run:
        document |= _erase(home, found, wish, compact)
    if texts:
        document["files"] = _files(home, wish)
    if as_json:
        common.emit(document)
    else:
        _tell(document)
    return 0 if document["records"] else 1


def _erase(home: Home, found: list[str], wish: Wish, compact: bool) -> dict[str, object]:
    """Erase them; what went, and what was made of them."""
    made = datasets.forget(home, set(found))  # first: should this be cut short, the next run says it again
    dropped = erasing.erase(home, found, wish)
    asked.forget(home)
    for name in made:
        task = name.partition("@")[0]
        page = home.folder / "reports" / f"{name}.html"
        page.unlink(missing_ok=True)
        what = f"records that {name} was learned from were erased: `suffice learn {task}` learns it without them"
        releases.note(home, task, "erased", what)
    return {
        "records": dropped.records,
        "audits": dropped.audits,
        "trusted": dropped.trusted,
        "parts": dropped.parts,
        "releases": made,
        "log_emptied": dropping.settle(home, compact),
    }


def _files(home: Home, wish: Wish) -> list[str]:
    """Files of batches in which one of the texts stands: they are their makers' to delete."""
    files = [path for path in sorted(batches.folder(home).iterdir()) if path.is_file()]
    return [path.name for path in files if any(map(wish.stands_in, path.read_bytes().splitlines()))]


def _tell(document: dict[str, object]) -> None:
    if document["dry_run"]:
        click.echo(f"{document['records']:,} records would be erased")
    else:
        click.echo(
            f"erased {document['records']:,} records, with {document['audits']:,} answers of audits, "
            f"{document['trusted']:,} trusted answers and {document['parts']:,} parts of requests"
        )
        for name in document["releases"] if isinstance(document["releases"], list) else []:
            task = name.partition("@")[0]
            click.echo(f"{name} was learned from some of them, and may hold words of them: `suffice learn {task}`")
        if not document["log_emptied"]:
            click.echo("the write-ahead log is still being read by others: run this again to have it emptied", err=True)
    if isinstance(files := document.get("files"), list) and files:
        click.echo(f"files of batches in which it stands, to be deleted by their makers: {', '.join(files)}")
