"""`suffice backup`."""

from __future__ import annotations

import time
from pathlib import Path

import click
import msgspec

from suffice.cli import common
from suffice.store import backup


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@common.everywhere
def command(file: Path, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Write a backup of the home to FILE, a tar that does not exist yet, while it may be serving; then verify it."""
    home = common.opened(folder, common.configured(folder, config_file))
    bar = common.Bar()
    try:
        made = backup.backup(home, common.config_path(folder, config_file), file, time.time(), bar)
    finally:
        bar.close()
    size = file.stat().st_size
    if as_json:
        common.emit({"file": str(file), "bytes": size, **msgspec.structs.asdict(made)})
    else:
        click.echo(f"{file}: {made.records:,} records, {len(made.files):,} files, {size / 2**20:,.1f} MB, verified")
    return 0
