"""`suffice stage`."""

from __future__ import annotations

from pathlib import Path

import click

from suffice.cli import common
from suffice.cli.verifiers import at_hand
from suffice.core.errors import InputError
from suffice.core.types import Policy, Stage
from suffice.serve.rollout import stage_needs
from suffice.serve.verifying import Verifiers
from suffice.serve.watch import state_of
from suffice.store import releases, watches
from suffice.store.home import Home


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
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
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
            click.echo(
                f"{len(moved)} {'task' if len(moved) == 1 else 'tasks'} put {wanted}"
                + (f": {', '.join(moved)}" if moved else "")
            )
        return 0
    if task is None or stage is None:
        raise InputError("name a task and a stage: suffice stage TASK[@N] live")
    name, n = common.named(home, task)
    releases.set_stage(home, name, _stage(stage), n)
    now = releases.all_tasks(home)[name]
    release = f"{name}@{now.release}" if now.release else None
    verifiers = at_hand(home, common.config_path(folder, config_file))
    needs = _lacking(home, name, now.release, now.stage, settings.policy_of(name), verifiers)
    if as_json:
        common.emit({"task": name, "stage": now.stage, "release": release, "lacking": needs})
        return 0
    click.echo(f"{release or name} is {now.stage}")
    if needs:
        click.echo("you are ahead of the evidence, which would have asked for")
        for need in needs:
            click.echo(f"  - {need}")
    return 0


def _lacking(home: Home, task: str, n: int | None, stage: Stage, policy: Policy, verifiers: Verifiers) -> list[str]:
    """What this stage asks for and is not there; people may go ahead of it."""
    stored = releases.get_release(home, task, n) if n is not None else None
    before = {Stage.CANARY: Stage.SHADOW, Stage.LIVE: Stage.CANARY}.get(stage)
    if stored is None or before is None:
        return []
    last = watches.last_watch(home, task)
    state = state_of(last) if last is not None and last.release == n else None
    return stage_needs(home, stored, policy, before, state, verifiers.grade(stored))


def _stage(name: str) -> Stage:
    try:
        return Stage(name)
    except ValueError as error:
        raise InputError(f"{name!r} is no stage: {', '.join(Stage)}") from error
