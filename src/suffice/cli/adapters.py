"""Adapters that were tuned elsewhere, brought back: checked against their base before anything else happens."""

from __future__ import annotations

from pathlib import Path

from suffice.cli import common, families
from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.core.protocols import Family


def brought(config: Config, folder: Path, adapter: Path, base: str | None) -> Family:
    """The family that merges this adapter into its base: the one named, else the settings', else the one that the
    adapter names, else the installed package's.

    Raises InputError, in one sentence, where the adapter or the base cannot be used, or they do not fit.
    """
    settings = config.learn
    lacking = families.no_causal(base or settings.causal, settings.runtime)
    if lacking is not None:
        raise InputError(f"--adapter: {lacking}")
    from suffice.specialists import causal_adapter, causal_base
    from suffice.specialists.runtimes.chosen import choose

    told = causal_adapter.told_base(adapter)
    named = base or settings.causal or (told if told != causal_base.PACKAGED else None)
    bar = common.Bar()
    try:
        made = causal_base.made(named, folder / "bases", bar)
    except InputError as error:
        if base is None and settings.causal is None and named is not None:
            raise InputError(f"{adapter}: its base {named} is not here: name it as --base FOLDER|NAME") from error
        raise
    finally:
        bar.close()
    digest = causal_adapter.checked(adapter, made, named)
    servers = families.places(config)
    choice = choose(settings.runtime, servers)
    return causal_adapter.AdaptedFamily(named, folder / "bases", adapter, digest, choice, servers)
