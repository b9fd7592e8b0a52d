"""`suffice rekey`."""

from __future__ import annotations

from pathlib import Path

import click

from suffice.cli import common
from suffice.store import dropping
from suffice.store.rekey import rekey


@click.command()
@common.everywhere
def command(folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Store every body under the key that [records] names now; readable, where it names none.

    The former key stands in `decrypt_key_envs` for as long as this takes.
    """
    home = common.opened(folder, common.configured(folder, config_file))
    bar = common.Bar()
    try:
        changed = rekey(home, bar)
    finally:
        bar.close()
    key = home.bodies.keys.current
    emptied = dropping.settle(home)
    if as_json:
        common.emit({"key": key, **changed, "log_emptied": emptied})
    else:
        rows = ", ".join(f"{count:,} {table}" for table, count in changed.items())
        click.echo(f"{rows}: now {f'encrypted with key {key}' if key is not None else 'readable'}")
    return 0
