"""`suffice keys`: virtual keys, made, listed, changed, rotated and revoked."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from suffice.cli import common
from suffice.core.budgets import amount, budget
from suffice.core.errors import InputError
from suffice.core.types import TASK_NAME
from suffice.store import keys
from suffice.store.home import Home
from suffice.store.keys import Key, Limits

F = TypeVar("F", bound=Callable[..., Any])
_SPAN = re.compile(r"(\d{1,6})([mhdw])")
_SECONDS = {"m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
NONE = "none"


def limits(command: F) -> F:
    """The options that say what a key may."""
    for option in (
        click.option("--admin/--no-admin", default=None, help="It opens the admin API too."),
        click.option("--expires", metavar="30d|DATE", help="It works until then (UTC), or for so long."),
        click.option(
            "--egress",
            type=click.Choice(["never", "redacted", "allowed", NONE]),
            help="What of its requests may leave.",
        ),
        click.option("--tasks", metavar="A,B", help="Only requests of these tasks."),
        click.option("--models", metavar="PAT,...", help="Only these models: names or patterns."),
        click.option("--tokens-per-minute", metavar="N", help="Such as 100k; of requests and answers."),
        click.option("--requests-per-minute", metavar="N"),
        click.option("--budget-tokens", metavar="N/PERIOD", help="Such as 5M/month."),
        click.option("--budget-usd", metavar="N/PERIOD", help="Such as 10/day; hour, day, week, month or total."),
    ):
        command = option(command)
    return command


@click.group(invoke_without_command=True)
@common.everywhere
@click.pass_context
def command(ctx: click.Context, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """List virtual keys, or with a command make and keep them: who may ask the gateway, what, and how much.

    A server follows within a second. The first key closes the gateway to whoever has none (`[access] keys`).
    """
    if ctx.invoked_subcommand is not None:
        # `suffice keys --home DIR create A` means what `suffice keys create A --home DIR` does.
        ctx.default_map = {ctx.invoked_subcommand: {"folder": folder, "config_file": config_file, "as_json": as_json}}
        return 0
    return _listed(folder, config_file, as_json)


@command.command("create")
@click.argument("name")
@limits
@common.everywhere
def create(name: str, folder: Path, config_file: Path | None, as_json: bool, **given: Any) -> int:
    """Make a key and print it, this once: only its digest is kept."""
    home = common.opened(folder, common.configured(folder, config_file), must_exist=False)
    key = keys.create(home, name, Limits(**_read(given, time.time())), secrets.token_bytes)
    if as_json:
        common.emit({**_told(home, keys.get(home, name)), "key": key})
    else:
        click.echo(key)
        click.echo(f"this is the key {name!r}; it is shown this once", err=True)
    return 0


@command.command("list")
@common.everywhere
def listing(folder: Path, config_file: Path | None, as_json: bool) -> int:
    """List the keys, with what they have spent in the running period (without a budget: this month)."""
    return _listed(folder, config_file, as_json)


def _listed(folder: Path, config_file: Path | None, as_json: bool) -> int:
    home = _home(folder, config_file)
    found = [_told(home, key) for key in keys.all_keys(home)]
    if as_json:
        common.emit({"keys": found})
    elif not found:
        click.echo("no keys: whoever reaches the gateway may ask it; `suffice keys create NAME` makes one")
    else:
        head = [
            "key",
            "ends in",
            "state",
            "spent",
            "budget",
            "tokens",
            "budget",
            "a minute",
            "models",
            "tasks",
            "egress",
        ]
        click.echo(common.table([head, *map(_cells, found)]))
    return 0


@command.command("show")
@click.argument("name")
@common.everywhere
def show(name: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Show a key: what it may, and what it has spent."""
    home = _home(folder, config_file)
    _emit(home, name, as_json)
    return 0


@command.command("set")
@click.argument("name")
@limits
@common.everywhere
def change(name: str, folder: Path, config_file: Path | None, as_json: bool, **given: Any) -> int:
    """Change what a key may; `none` takes a limit away. What is not named stays."""
    home = _home(folder, config_file)
    changes = _read(given, time.time())
    if not changes:
        raise InputError("name what to change: suffice keys set NAME --budget-usd 20/day")
    keys.change(home, name, changes)
    _emit(home, name, as_json)
    return 0


@command.command("rotate")
@click.argument("name")
@click.option("--grace", default="0m", show_default=True, metavar="1h", help="The old key works for so long.")
@common.everywhere
def rotate(name: str, grace: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Make a new key under the same name, and print it, this once."""
    home = _home(folder, config_file)
    key, until = keys.rotate(home, name, _seconds(grace, "--grace"), secrets.token_bytes)
    if as_json:
        common.emit({**_told(home, keys.get(home, name)), "key": key, "former_until": until})
    else:
        click.echo(key)
        click.echo(
            f"this is the new key {name!r}; it is shown this once. The old one works until {_when(until)}", err=True
        )
    return 0


@command.command("revoke")
@click.argument("name")
@common.everywhere
def revoke(name: str, folder: Path, config_file: Path | None, as_json: bool) -> int:
    """Take a key back for good: within a second nobody may ask with it."""
    home = _home(folder, config_file)
    keys.revoke(home, name)
    if as_json:
        common.emit(_told(home, keys.get(home, name)))
    else:
        click.echo(f"the key {name!r} is revoked")
    return 0


def _home(folder: Path, config_file: Path | None) -> Home:
    return common.opened(folder, common.configured(folder, config_file))


def _read(given: dict[str, Any], now: float) -> dict[str, Any]:
    """The options that were given, as fields of `Limits`. Raises InputError that names the option."""
    readers: dict[str, tuple[Callable[[str], Any], Any]] = {
        "budget_usd": (budget, None),
        "budget_tokens": (budget, None),
        "requests_per_minute": (amount, None),
        "tokens_per_minute": (amount, None),
        "models": (_names, ()),
        "tasks": (_tasks, ()),
        "expires": (lambda text: _moment(text, now), None),
        "egress": (str, None),
    }
    read: dict[str, Any] = {"admin": given["admin"]} if given["admin"] is not None else {}
    for name, (reader, absent) in readers.items():
        if given[name] is None:
            continue
        try:
            value = absent if given[name] == NONE else reader(given[name])
        except InputError as error:
            raise InputError(f"--{name.replace('_', '-')}: {error}") from error
        read["expires_at" if name == "expires" else name] = value
    return read


def _names(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not names:
        raise InputError("names between commas")
    return names


def _tasks(text: str) -> tuple[str, ...]:
    names = _names(text)
    if wrong := [name for name in names if not TASK_NAME.fullmatch(name)]:
        raise InputError(f"{wrong[0]!r} is no name of a task")
    return names


def _seconds(text: str, where: str) -> float:
    found = _SPAN.fullmatch(text)
    if found is None:
        raise InputError(f"{where}: {text!r} is no time such as 30m, 1h, 30d or 2w")
    return int(found[1]) * _SECONDS[found[2]]


def _moment(text: str, now: float) -> float:
    """`30d` from now, or a date (and time) in UTC unless it says otherwise; seconds since 1970."""
    if found := _SPAN.fullmatch(text):
        return now + int(found[1]) * _SECONDS[found[2]]
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise InputError(f"{text!r} is neither a time such as 30d nor a date such as 2027-01-31") from error
    moment = (at if at.tzinfo is not None else at.replace(tzinfo=UTC)).timestamp()
    if moment <= now:
        raise InputError(f"{text} has passed")
    return moment


def _told(home: Home, key: Key) -> dict[str, Any]:
    """A key as it is shown: neither it nor its digest."""
    now = time.time()
    usd, tokens = keys.running(home, key, now)
    told = {field: getattr(key, field) for field in ("name", "last4", "created_at", "revoked_at")}
    told |= {field: msgspec.to_builtins(getattr(key, field)) for field in Limits.__struct_fields__}
    rotating = key.former_until if key.former_until is not None and key.former_until > now else None
    return {
        **told,
        "state": _state(key, now),
        "former_until": rotating,
        "spent_usd": usd.usd,
        "spent_tokens": tokens.tokens,
    }


def _state(key: Key, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    return "expired" if key.expires_at is not None and key.expires_at <= now else "admin" if key.admin else "active"


def _cells(told: dict[str, Any]) -> list[str]:
    units = {"requests_per_minute": "requests", "tokens_per_minute": "tokens"}
    rates = [f"{told[name]:,.10g} {unit}" for name, unit in units.items() if told[name]]
    return [
        *(told["name"], told["last4"], told["state"]),
        *(f"${told['spent_usd']:,.4f}", _budget(told["budget_usd"], "$")),
        *(f"{told['spent_tokens']:,}", _budget(told["budget_tokens"], "")),
        *(", ".join(rates) or "-", ",".join(told["models"]) or "all", ",".join(told["tasks"]) or "all"),
        told["egress"] or "-",
    ]


def _budget(told: dict[str, Any] | None, sign: str) -> str:
    return f"{sign}{told['amount']:,.10g}/{told['period']}" if told else "-"


def _emit(home: Home, name: str, as_json: bool) -> None:
    told = _told(home, keys.get(home, name))
    if as_json:
        common.emit(told)
        return
    times = ("created_at", "expires_at", "revoked_at", "former_until")
    for field, value in told.items():
        if value in (None, [], ()):
            continue
        if isinstance(value, dict):
            value = f"{value['amount']:,.10g}/{value['period']}"
        shown = _when(value) if field in times else ", ".join(value) if isinstance(value, list | tuple) else value
        click.echo(f"{field.replace('_', ' '):<20} {shown}")


def _when(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
