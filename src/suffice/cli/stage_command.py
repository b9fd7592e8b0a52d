"""`suffice stage`."""

from __future__ import annotations

from pathlib import Path

import click

from suffice.cli import common
from suffice.core.errors import InputError
from suffice.core.types import Stage
from suffice.store import releases


@click.command()
@click.argument("task", required=False)
@click.argument("stage", required=False)
@click.option("--all", "everything", metavar="STAGE", help="Move every task: `--all observe` stops all specialists.")
@common.everywhere
def command(
    task: str | None, stage: str | None, everything: str | None, folder: Path, config_file: Path | None, as_json: bool
) -> int:
    """Put TASK[@N] (the newest release, unless N is given; older ones too) into STAGE.

    observe: it only watches. shadow: it predicts, the frontier answers. canary: it answers a share. live: it answers.
    A running server follows within a second.
    """
    home = common.opened(folder, common.configured(folder, config_file))
    if everything is not None:
        if task is not None:
            raise InputError("--all moves every task: name no task beside it")
        wanted = _stage(everything)
        if wanted not in (Stage.OBSERVE, Stage.REVOKED):
            raise InputError(f"--all takes observe (or revoked): every task is put {wanted} by its own name only")
        moved = releases.stop_all(home, wanted)
        if as_json:
            common.emit({"stage": wanted, "moved": moved})
        else:
            click.echo(f"{len(moved)} tasks put {wanted}" + (f": {', '.join(moved)}" if moved else ""))
        return 0
    if task is None or stage is None:
        raise InputError("name a task and a stage: suffice stage TASK[@N] live")
    name, n = common.task_and_release(task)
    releases.set_stage(home, name, _stage(stage), n)
    now = releases.all_tasks(home)[name]
    release = f"{name}@{now.release}" if now.release else None
    if as_json:
        common.emit({"task": name, "stage": now.stage, "release": release})
    else:
        click.echo(f"{release or name} is {now.stage}")
    return 0


def _stage(name: str) -> Stage:
    try:
        return Stage(name)
    except ValueError as error:
        raise InputError(f"{name!r} is no stage: {', '.join(Stage)}") from error
