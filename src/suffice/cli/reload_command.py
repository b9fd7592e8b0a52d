"""`suffice reload`."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import click
import msgspec

from suffice.cli import common
from suffice.core.errors import InputError

LOOK_S = 0.05


@click.command()
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0, 600), default=15, show_default=True, help="Seconds, for all to follow."
)
@common.everywhere
def command(wait_s: float, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Have the running server read its settings again; no request is dropped.

    A wrong file changes nothing. Exit 1: a process of the server did not take them, or not in time. What only a
    restart takes over (the number of slots, a limit of the database) is told.
    """
    from suffice.serve import reload

    home = common.opened(folder, common.configured(folder, config_file))  # a wrong file is told before anyone is asked
    pid = home.server()
    if pid is None:
        raise InputError(f"no server is running on the home {folder}")
    asked = time.time()
    waited_for = {one.pid for one in reload.said(home.folder)} | {pid}
    os.kill(pid, signal.SIGHUP)
    end = time.monotonic() + wait_s
    while True:
        found = {one.pid: one for one in reload.said(home.folder)}
        late = sorted(pid for pid, one in found.items() if pid in waited_for and one.at < asked)
        if not late or time.monotonic() > end:
            break
        time.sleep(LOOK_S)
    fresh = [one for one in found.values() if one.at >= asked]
    errors = sorted({one.error for one in fresh if one.error is not None})
    document = {
        "reloaded": not late and not errors,
        "changed": sorted({name for one in fresh for name in one.changed}),
        "restart": sorted({name for one in fresh for name in one.restart}),
        "errors": errors,
        "late": late,
        "processes": [msgspec.structs.asdict(one) for one in fresh],
    }
    if as_json:
        common.emit(document)
    else:
        _tell(document)
    return 0 if document["reloaded"] else 1


def _tell(document: dict[str, object]) -> None:
    for key, said in (("errors", "not taken"), ("late", "no word yet from process"), ("changed", "changed"),
                      ("restart", "needs a restart")):  # fmt: skip
        for one in document[key]:  # type: ignore[attr-defined]
            click.echo(f"{said}: {one}")
    if document["reloaded"]:
        click.echo("the settings were read again")
