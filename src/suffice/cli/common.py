"""What commands share: the options that stand everywhere, opening a home, printing."""

from __future__ import annotations

import os
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from suffice.core import config
from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.core.types import TASK_NAME
from suffice.store import patterns
from suffice.store.home import Home
from suffice.store.sealed import keys_of

F = TypeVar("F", bound=Callable[..., Any])


def everywhere(command: F) -> F:
    """The options that every command has."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        click.option(
            "--config",
            "config_file",
            type=click.Path(path_type=Path),
            help="Settings [HOME/suffice.toml, ./suffice.toml].",
        ),
        click.option(
            "--home", "folder", type=click.Path(path_type=Path), default=".suffice", show_default=True,
            help="Where everything Suffice owns lives.",
        ),
    ):  # fmt: skip
        command = option(command)
    return command


def configured(folder: Path, config_file: Path | None) -> Config:
    """The settings of a home. Raises InputError for a file that is named and missing, or wrong."""
    return config.load(config_path(folder, config_file))


def config_path(folder: Path, config_file: Path | None) -> Path | None:
    """The file that holds the settings: the one named, else the home's, else the working directory's."""
    if config_file is not None:
        return config_file
    return next((path for path in (folder / "suffice.toml", Path("suffice.toml")) if path.exists()), None)


def opened(folder: Path, settings: Config, must_exist: bool = True) -> Home:
    """A home; one that must exist and does not is an error, so that a typing error makes no folder."""
    if must_exist and not (folder / "suffice.db").exists():
        raise InputError(f"there is no home at {folder}: `suffice serve`, `suffice import` or `suffice learn` make one")
    return Home(folder, settings.records.max_db_mb, keys_of(settings.records, os.environ))


def task_and_release(name: str) -> tuple[str, int | None]:
    """`triage@3` to ("triage", 3), `triage` to ("triage", None). Raises InputError for anything else."""
    task, _, n = name.partition("@")
    if not TASK_NAME.fullmatch(task) or not re.fullmatch(r"[1-9]\d{0,8}", n or "1") or name.endswith("@"):
        raise InputError(
            f"{name!r} is no task: a name of letters, digits, dots, dashes and underscores, and perhaps @N"
        )
    return task, int(n) if n else None


def named(home: Home, name: str) -> tuple[str, int | None]:
    """`task_and_release`, with the task as it is called today: a name that it had still names it."""
    task, n = task_and_release(name)
    return patterns.today(home, task), n


def emit(document: Any) -> None:
    """One JSON document, or one line of JSON Lines, on stdout."""
    sys.stdout.buffer.write(msgspec.json.encode(document) + b"\n")


def table(rows: list[list[str]]) -> str:
    """Rows of cells as aligned columns; the first row is the head."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def share(estimate: dict[str, Any] | None) -> str:
    """An estimate as people read it: 91.2% (90.1-92.3%, n = 1,500)."""
    if not estimate or estimate["value"] is None:
        return "-"
    low, high = 100 * estimate["low"], 100 * estimate["high"]
    return f"{100 * estimate['value']:.1f}% ({low:.1f}-{high:.1f}%, n = {estimate['n']:,})"


class Bar:
    """Progress on stderr, when it is a terminal: one line, rewritten."""

    def __init__(self) -> None:
        self._shown = sys.stderr.isatty()
        self._began = time.monotonic()

    def __call__(self, what: str, done: float) -> None:
        """Show what is being done and its share done in [0, 1]."""
        if self._shown:
            filled = round(24 * min(max(done, 0.0), 1.0))
            bar = "#" * filled + "-" * (24 - filled)
            click.echo(f"\r\033[K[{bar}] {what} ({time.monotonic() - self._began:.0f} s)", err=True, nl=False)

    def close(self) -> None:
        """Leave an empty line behind."""
        if self._shown:
            click.echo("\r\033[K", err=True, nl=False)
