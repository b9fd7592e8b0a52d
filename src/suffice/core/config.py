"""`suffice.toml`, typed. Unknown keys and wrong values are errors that name the key, never ignored."""

from __future__ import annotations

import difflib
import os
import tomllib
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from suffice.core.errors import InputError
from suffice.core.types import TASK_NAME, Policy

Dialect = Literal["chat", "responses", "messages", "embeddings"]


def _positive(settings: msgspec.Struct, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` is above 0, not {value}")


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model endpoint. `base_url` as the vendors' SDKs take it, `/v1` included.

    `api_key_env` names the environment variable that holds the key: it replaces the caller's `Authorization`; without
    it the caller's own is relayed. `models` are names or patterns (`gpt-*`) that this upstream answers. `inside`: it
    runs where the data may be; what it gets has not left.
    """

    base_url: str
    api_key_env: str | None = None
    dialects: tuple[Dialect, ...] = ("chat",)
    models: tuple[str, ...] = ()
    default: bool = False
    inside: bool = False

    def __post_init__(self) -> None:
        url = urlsplit(self.base_url)
        if url.scheme not in ("http", "https") or not url.netloc:
            raise ValueError(f"`base_url` must be an http(s) address, not {self.base_url!r}")
        if url.username or url.password or url.query:
            raise ValueError("`base_url` must not carry a key: name its environment variable in `api_key_env`")

    def api_key(self, environ: os._Environ[str] | dict[str, str]) -> str | None:
        """The key, read from the environment each time a process starts; never stored."""
        return environ.get(self.api_key_env) if self.api_key_env else None


class Match(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which requests belong to a task: every condition given must hold. Texts are compared as they are."""

    model: str | None = None
    system_contains: str | None = None
    user_contains: str | None = None
    tool: str | None = None

    def __post_init__(self) -> None:
        if not any((self.model, self.system_contains, self.user_contains, self.tool)):
            raise ValueError("`match` needs one of: model, system_contains, user_contains, tool")


class TaskConfig(Policy, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A task's own policy (what it leaves out comes from `[policy]`) and, where wanted, its match rule."""

    match: Match | None = None


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and deadlines of the gateway. `specialists_mb`: memory for loaded specialists; beyond it the one that was
    asked longest ago is let go, and loaded again when it is asked."""

    max_body_mb: float = 64.0
    connect_s: float = 5.0
    first_byte_s: float = 300.0
    idle_s: float = 120.0
    drain_s: float = 30.0
    specialists_mb: float = 2048.0

    def __post_init__(self) -> None:
        _positive(self, "max_body_mb", "connect_s", "first_byte_s", "idle_s", "drain_s", "specialists_mb")


class Learn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the search may try. `families`: only these, of those installed. `encoder`: the base model of the encoder
    family, a folder or a name on the hub; left out, the one that is installed as a package."""

    families: tuple[Literal["linear", "nearest", "encoder"], ...] = ()
    encoder: str | None = None


class Records(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are kept. `slots` bounds the exchanges under way and not yet written.

    `on_full`: what happens to a request when no record can be kept (no slot in time, disk full): `reject` answers 503,
    `pass` serves it unrecorded and counts it. `synchronous`: the last byte of an answer waits for its record.
    """

    on_full: Literal["reject", "pass"] = "reject"
    slots: int = 4096
    wait_s: float = 2.0
    synchronous: bool = False
    max_db_mb: float | None = None

    def __post_init__(self) -> None:
        _positive(self, "slots", "wait_s", "max_db_mb")


class Price(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a model costs, in US dollars per million tokens; overrides the maintained table.

    `cached_usd_per_mtok`, `written_usd_per_mtok`: input that the provider's cache gave, or took; left out, as any
    input.
    """

    input_usd_per_mtok: float
    output_usd_per_mtok: float
    cached_usd_per_mtok: float | None = None
    written_usd_per_mtok: float | None = None

    def __post_init__(self) -> None:
        told = (self.input_usd_per_mtok, self.output_usd_per_mtok, self.cached_usd_per_mtok, self.written_usd_per_mtok)
        if not all(usd is None or usd >= 0 for usd in told):
            raise ValueError("a price is 0 or more US dollars per million tokens")


class Alerts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to tell of alarms and recoveries: `webhook` gets each event as a JSON document, without any traffic."""

    webhook: str | None = None

    def __post_init__(self) -> None:
        if self.webhook is not None:
            url = urlsplit(self.webhook)
            if url.scheme not in ("http", "https") or not url.netloc:
                raise ValueError("`webhook` must be an http(s) address")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a home."""

    upstreams: dict[str, Upstream] = {}
    server: Server = Server()
    records: Records = Records()
    learn: Learn = Learn()
    alerts: Alerts = Alerts()
    policy: Policy = Policy()
    tasks: dict[str, TaskConfig] = {}
    prices: dict[str, Price] = {}

    def policy_of(self, task: str) -> Policy:
        """The task's policy, else the home's."""
        return self.tasks.get(task, self.policy)

    @property
    def frontier(self) -> str | None:
        """The upstream that answers by default: the one marked so, else the first; None without any."""
        return next((name for name, upstream in self.upstreams.items() if upstream.default), None) or next(
            iter(self.upstreams), None
        )

    def upstream_for(self, model: str) -> str | None:
        """The upstream that lists `model`, else the frontier."""
        for name, upstream in self.upstreams.items():
            if any(fnmatchcase(model, pattern) for pattern in upstream.models):
                return name
        return self.frontier


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "records": Records,
    "learn": Learn,
    "alerts": Alerts,
    "policy": Policy,
}
_NAMED: dict[str, type[msgspec.Struct]] = {"upstreams": Upstream, "tasks": TaskConfig, "prices": Price}


def load(path: Path | None) -> Config:
    """Read a TOML file; None gives the defaults. Raises InputError naming file and key."""
    if path is None:
        return Config()
    try:
        data = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not TOML: {error}") from error
    return from_dict(data, str(path))


def from_dict(data: dict[str, Any], where: str) -> Config:
    """Settings from parsed TOML. Raises InputError that names `where`, the table and the key."""
    known = [*_SECTIONS, *_NAMED]
    built: dict[str, Any] = {}
    for section in data:
        _known(section, known, where)
        if not isinstance(data[section], dict):
            raise InputError(f"{where}: `{section}` must be a table, [{section}]")
    for section, kind in _SECTIONS.items():
        if section in data:
            built[section] = _convert(data[section], kind, f"{where}: [{section}]")
    base = data.get("policy", {})
    for section, kind in _NAMED.items():
        table = data.get(section, {})
        for name, entry in table.items():
            place = f"{where}: [{section}.{name}]"
            if not isinstance(entry, dict):
                raise InputError(f"{place} must be a table")
            if section == "tasks" and not TASK_NAME.fullmatch(name):
                raise InputError(f"{place}: a task's name is 1 to 64 letters, digits, dots, dashes or underscores")
            built.setdefault(section, {})[name] = _convert(
                {**base, **entry} if section == "tasks" else entry, kind, place
            )
    return Config(**built)


def _convert(entry: dict[str, Any], kind: type[msgspec.Struct], place: str) -> msgspec.Struct:
    hints = get_type_hints(kind)
    for key in entry:
        _known(key, list(kind.__struct_fields__), place)
        _out_of(key, entry[key], hints[key], place)
    try:
        return msgspec.convert(entry, kind)
    except msgspec.ValidationError as error:
        raise InputError(f"{place}: {error}") from error


def _out_of(key: str, value: Any, hint: Any, place: str) -> None:
    """Raises InputError that lists the words a key takes, if it takes only some and this is none of them."""
    if get_origin(hint) is Literal and value not in get_args(hint):
        words = ", ".join(f'"{word}"' for word in get_args(hint))
        raise InputError(f"{place}: `{key}` is one of {words}, not {value!r}")


def _known(key: str, known: list[str], place: str) -> None:
    if key not in known:
        close = difflib.get_close_matches(key, known, n=1)
        hint = f"; did you mean `{close[0]}`?" if close else f"; known: {', '.join(known)}"
        raise InputError(f"{place}: unknown key `{key}`{hint}")
