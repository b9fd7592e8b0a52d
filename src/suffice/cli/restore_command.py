"""`suffice restore`."""

from __future__ import annotations

from pathlib import Path

import click
import msgspec

from suffice.cli import common
from suffice.store import backup


@click.command()
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@common.everywhere
def command(file: Path, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Make a home (--home, empty or not there yet) of a backup. Every file is compared with its digest first."""
    bar = common.Bar()
    try:
        made = backup.restore(file, folder, bar)
    finally:
        bar.close()
    common.opened(folder, common.configured(folder, config_file))
    if as_json:
        common.emit({"home": str(folder), **msgspec.structs.asdict(made)})
    else:
        click.echo(f"{folder}: {made.records:,} records, {len(made.files):,} files")
    return 0
