"""`suffice.toml`, typed. Unknown keys and wrong values are errors that name the key, never ignored."""

from __future__ import annotations

import difflib
import os
import re
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit

import msgspec

from suffice.core import grading, toml
from suffice.core.errors import InputError
from suffice.core.types import TASK_NAME, Policy

Dialect = Literal["chat", "responses", "messages", "embeddings"]
Kind = Literal["openai", "anthropic", "azure", "bedrock", "vertex"]
_SPOKEN: dict[Kind, tuple[Dialect, ...]] = {
    "openai": ("chat", "responses", "embeddings"),
    "anthropic": ("messages",),
    "azure": ("chat", "responses", "embeddings"),
    "bedrock": ("chat",),
    "vertex": ("chat",),
}
"""What an upstream of a kind speaks where its `dialects` are left out."""

PLACEHOLDER = re.compile(r"[A-Z][A-Z0-9_]{0,39}")
"""The name of a kind of thing that redaction holds back."""


def _positive(settings: msgspec.Struct, *names: str) -> None:
    for name in names:
        value = getattr(settings, name)
        if value is not None and not value > 0:
            raise ValueError(f"`{name}` is above 0, not {value}")


def _is_http(address: str) -> bool:
    try:
        url = urlsplit(address)
        return url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
    except ValueError:  # a port beyond all ports, half an IPv6 address
        return False


def _plain(base_url: str) -> None:
    """Raises ValueError for what is no http(s) address, or carries a key."""
    if not _is_http(base_url):
        raise ValueError(f"`base_url` must be an http(s) address, not {base_url!r}")
    url = urlsplit(base_url)
    if url.username or url.password or url.query:
        raise ValueError("`base_url` must not carry a key: name its environment variable in `api_key_env`")


class Upstream(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model endpoint. `base_url` as the vendors' SDKs take it, `/v1` included.

    `api_key_env` names the environment variable that holds the key: it replaces the caller's `Authorization`; without
    it the caller's own is relayed. `models` are names or patterns (`gpt-*`) that this upstream answers. `inside`: it
    runs where the data may be; what it gets has not left.

    `weight`: its share among the upstreams with a weight that list the same model. `fallbacks`: who is asked when it
    fails, `"NAME"` or `"NAME/MODEL"`. `rename`: what it calls a model. `attempts`: how often it is asked at most, each
    time for `attempt_s` (`server.first_byte_s` where left out). Beyond `max_connections` calls under way, `max_waiting`
    wait.

    `kind`: whose paths and credentials. `identity`: the machine's own, in place of a key (Entra; AWS and Google where
    no key is named). `api_version`: Azure's dated one, which asks by deployment. `region`: of AWS's signature, where
    the address does not tell.
    """

    base_url: str
    api_key_env: str | None = None
    dialects: tuple[Dialect, ...] | None = None
    models: tuple[str, ...] = ()
    default: bool = False
    inside: bool = False
    weight: float | None = None
    fallbacks: tuple[str, ...] = ()
    rename: dict[str, str] = {}
    attempts: int = 2
    attempt_s: float | None = None
    max_connections: int | None = None
    max_waiting: int = 100
    kind: Kind = "openai"
    identity: bool = False
    api_version: str | None = None
    region: str | None = None

    def __post_init__(self) -> None:
        _plain(self.base_url)
        _positive(self, "weight", "attempts", "attempt_s", "max_connections")
        if self.max_waiting < 0:
            raise ValueError(f"`max_waiting` is 0 or more, not {self.max_waiting}")
        if self.dialects is not None and not self.dialects:
            raise ValueError("`dialects` names at least one, or is left out")
        if self.identity and (self.kind not in ("azure", "bedrock", "vertex") or self.api_key_env is not None):
            raise ValueError("`identity` is for azure, bedrock and vertex, without `api_key_env`")
        if self.api_version is not None and self.kind != "azure":
            raise ValueError("`api_version` is for kind azure")
        if self.region is not None and self.kind != "bedrock":
            raise ValueError("`region` is for kind bedrock")

    @property
    def speaks(self) -> tuple[Dialect, ...]:
        """The dialects it is asked in: as configured, else those of its kind."""
        return self.dialects if self.dialects is not None else _SPOKEN[self.kind]

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
    """A task's own policy (what it leaves out comes from `[policy]`) and, where wanted, its match rule; `keep_days` as
    `[records]` has it, for this task's records."""

    match: Match | None = None
    keep_days: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "keep_days")


class Server(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits and deadlines of the gateway. `specialists_mb`: memory for loaded specialists; beyond it the one that was
    asked longest ago is let go, and loaded again when it is asked. `total_s`: for all attempts at a request together,
    until the first byte."""

    max_body_mb: float = 64.0
    connect_s: float = 5.0
    first_byte_s: float = 300.0
    total_s: float = 600.0
    idle_s: float = 120.0
    drain_s: float = 30.0
    specialists_mb: float = 2048.0

    def __post_init__(self) -> None:
        _positive(self, "max_body_mb", "connect_s", "first_byte_s", "total_s", "idle_s", "drain_s", "specialists_mb")


class Learn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the search may try. `families`: only these, of those installed. `encoder`: the base model of the encoder
    family, a folder or a name on the hub; left out, the one that is installed as a package. `causal`: that of the
    causal family, which may be a GGUF file too. `runtime`: what runs models that write, one of `RUNTIMES` or the name
    of a server under `[runtimes.NAME]`; `auto` is the first of those that is installed."""

    families: tuple[Literal["linear", "nearest", "encoder", "causal", "upstream"], ...] = ()
    encoder: str | None = None
    causal: str | None = None
    runtime: str = "auto"


RUNTIMES = ("llamacpp", "ctranslate2", "genai")
"""What runs a model that writes in this process, in the order of preference."""


class RuntimeServer(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A server that runs models that write for the causal family. `base_url`: its root, without a path of the API.

    `model`: what vLLM calls the base that adapters are put on. `api_key_env` names the environment variable with its
    key. `timeout_s`: what one answer may take. What it is sent are requests of tasks as they are, so it is on this
    machine or declared `inside`.
    """

    kind: Literal["llamacpp", "vllm", "ollama", "mlx"]
    base_url: str
    model: str | None = None
    api_key_env: str | None = None
    timeout_s: float = 60.0
    inside: bool = False

    def __post_init__(self) -> None:
        _plain(self.base_url)
        if not self.inside and urlsplit(self.base_url).hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("a runtime elsewhere gets requests as they are: say `inside = true` where they may be")
        if self.kind == "vllm" and not self.model:
            raise ValueError("`model` is the name by which vLLM serves the base")
        _positive(self, "timeout_s")


class CandidateModel(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of an upstream that `suffice learn` may ask, and a release be made of: rows of the task are sent to it.

    `examples`: how many answered requests stand in each question, the `nearest` to it or a `fixed` set. `prompt`: what
    people want said of the task, before all else. `max_usd`: what one run of `suffice learn` may spend on it.
    """

    upstream: str
    model: str
    examples: int = 8
    pick: Literal["nearest", "fixed"] = "nearest"
    prompt: str = ""
    max_usd: float = 1.0

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("`model` is the name that the upstream knows")
        if not 0 <= self.examples <= 100:
            raise ValueError(f"`examples` is a number from 0 to 100, not {self.examples}")
        _positive(self, "max_usd")


class Judge(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model that says whether an answer is as good as another, `loss = "judge:NAME"`; `suffice learn` asks it.

    `instruction`: what makes an answer good, in your words. `pairs`: a file, beside this one, of answers that people
    have judged, by which it is measured; left out, what people made of the frontier's answers. `max_usd`: what one run
    may spend on it.
    """

    upstream: str
    model: str
    instruction: str = ""
    pairs: str | None = None
    max_usd: float = 1.0

    def __post_init__(self) -> None:
        if not self.model:
            raise ValueError("`model` is the name that the upstream knows")
        _positive(self, "max_usd")


class Records(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How records are kept. `slots` bounds the exchanges under way and not yet written.

    `on_full`: what happens to a request when no record can be kept (no slot in time, disk full): `reject` answers 503,
    `pass` serves it unrecorded and counts it. `synchronous`: the last byte of an answer waits for its record.
    `keep_days`: what was said is dropped after so many days, left out never. `encrypt_key_env` names the environment
    variable with the key under which it is stored, `decrypt_key_envs` those of keys it was stored under before.
    """

    on_full: Literal["reject", "pass"] = "reject"
    slots: int = 4096
    wait_s: float = 2.0
    synchronous: bool = False
    max_db_mb: float | None = None
    keep_days: float | None = None
    encrypt_key_env: str | None = None
    decrypt_key_envs: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _positive(self, "slots", "wait_s", "max_db_mb", "keep_days")


class Access(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who gets in. `keys`: `auto` asks for a virtual key once one was made, `required` always, `off` never.

    `metrics`: `open` to anyone, `key` with a virtual key, `auto` open where only this machine can ask.
    """

    keys: Literal["auto", "required", "off"] = "auto"
    metrics: Literal["auto", "open", "key"] = "auto"


class Cache(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`max_mb`: memory, per worker, for answers that a policy's `cache_s` keeps; those used longest ago go."""

    max_mb: float = 256.0

    def __post_init__(self) -> None:
        _positive(self, "max_mb")


class Privacy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What redaction looks for. `also`: own expressions, by the name of their placeholders. With `presidio`, also what
    Microsoft Presidio finds in texts of `language` with the spaCy `model` (a name or a folder)."""

    detector: Literal["patterns", "presidio"] = "patterns"
    language: str = "en"
    model: str | None = None
    also: dict[str, str] = {}

    def __post_init__(self) -> None:
        for name in self.also:
            if not PLACEHOLDER.fullmatch(name):
                raise ValueError(f"`also`: a name is 1 to 40 capital letters, digits and underscores, not {name!r}")


class Batches(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`/v1/batches`. `run`: `here`, with specialists answering first, or `upstream`, passed on as it comes. `at_once`:
    requests of batches under way, beside those that somebody waits for. `max_file_mb`: of a batch's file."""

    run: Literal["here", "upstream"] = "here"
    at_once: int = 4
    max_file_mb: float = 200.0

    def __post_init__(self) -> None:
        _positive(self, "at_once", "max_file_mb")


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


class Log(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is written on stderr. `requests`: a line for each request, without anything that was said."""

    format: Literal["text", "json"] = "text"
    level: Literal["debug", "info", "warning", "error"] = "info"
    requests: bool = False


class Alerts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Whom to tell of alarms and recoveries: `webhook` gets each event as a JSON document, without any traffic."""

    webhook: str | None = None

    def __post_init__(self) -> None:
        if self.webhook is not None and not _is_http(self.webhook):
            raise ValueError("`webhook` must be an http(s) address")


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """All settings of a home."""

    upstreams: dict[str, Upstream] = {}
    server: Server = Server()
    records: Records = Records()
    learn: Learn = Learn()
    alerts: Alerts = Alerts()
    log: Log = Log()
    cache: Cache = Cache()
    batches: Batches = Batches()
    access: Access = Access()
    privacy: Privacy = Privacy()
    policy: Policy = Policy()
    tasks: dict[str, TaskConfig] = {}
    prices: dict[str, Price] = {}
    candidates: dict[str, CandidateModel] = {}
    judges: dict[str, Judge] = {}
    runtimes: dict[str, RuntimeServer] = {}

    def policy_of(self, task: str) -> Policy:
        """The task's policy, else the home's."""
        return self.tasks.get(task, self.policy)

    def keep_days_of(self, task: str | None) -> float | None:
        """After how many days what was said in this task's records is dropped; None: never."""
        own = self.tasks[task].keep_days if task in self.tasks else None
        return own if own is not None else self.records.keep_days

    @property
    def frontier(self) -> str | None:
        """The upstream that answers by default: the one marked so, else the first; None without any."""
        return next((name for name, upstream in self.upstreams.items() if upstream.default), None) or next(
            iter(self.upstreams), None
        )

    def upstreams_for(self, model: str) -> list[str]:
        """The upstream that lists `model`, else the frontier; where it has a weight, with those it shares calls with.

        Those are the others with a weight that list the model too, or for the frontier those that list none.
        """
        frontier = self.frontier
        if frontier is None:
            return []
        rest = [name for name, upstream in self.upstreams.items() if not upstream.models and name != frontier]
        listing = [name for name, upstream in self.upstreams.items() if _listed(model, upstream)]
        first, *others = listing or [frontier, *rest]
        shared = others if self.upstreams[first].weight is not None else []
        return [first, *(name for name in shared if self.upstreams[name].weight is not None)]


def _listed(model: str, upstream: Upstream) -> bool:
    return any(fnmatchcase(model, pattern) for pattern in upstream.models)


_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "server": Server,
    "records": Records,
    "learn": Learn,
    "alerts": Alerts,
    "log": Log,
    "privacy": Privacy,
    "cache": Cache,
    "batches": Batches,
    "access": Access,
    "policy": Policy,
}
_NAMED: dict[str, type[msgspec.Struct]] = {
    "upstreams": Upstream,
    "tasks": TaskConfig,
    "prices": Price,
    "candidates": CandidateModel,
    "judges": Judge,
    "runtimes": RuntimeServer,
}


def load(path: Path | None) -> Config:
    """Read a TOML file; None gives the defaults. Raises InputError naming file and key."""
    if path is None:
        return Config()
    return from_dict(toml.read(path), str(path))


def from_dict(data: dict[str, Any], where: str) -> Config:
    """Settings from parsed TOML. Raises InputError that names `where`, the table and the key."""
    known = [*_SECTIONS, *_NAMED]
    built: dict[str, Any] = {}
    for section in data:
        toml.known(section, known, where)
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
    _fallbacks_known(built.get("upstreams", {}), where)
    for name, candidate in built.get("candidates", {}).items():
        if candidate.upstream not in built.get("upstreams", {}):
            raise InputError(f"{where}: [candidates.{name}]: `upstream` names {candidate.upstream!r}, which is none")
    settings = Config(**built)
    _judges_known(settings, where)
    _runtime_known(settings, where)
    return settings


def _runtime_known(settings: Config, where: str) -> None:
    """Raises InputError for a runtime that is none, and for a server under the name of one in this process."""
    own = ["auto", *RUNTIMES]
    for name in settings.runtimes:
        if name in own:
            raise InputError(f"{where}: [runtimes.{name}]: `{name}` is one in this process: choose another name")
    wanted, known = settings.learn.runtime, [*own, *settings.runtimes]
    if wanted not in known:
        close = difflib.get_close_matches(wanted, known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}, or add [runtimes.{wanted}]"
        raise InputError(f"{where}: [learn]: `runtime` names {wanted!r}, which is none{hint}")


def _judges_known(settings: Config, where: str) -> None:
    """Raises InputError for a judge that is none, and for one that may not see what it is to judge."""
    for name, judge in settings.judges.items():
        if judge.upstream not in settings.upstreams:
            raise InputError(f"{where}: [judges.{name}]: `upstream` names {judge.upstream!r}, which is none")
    policies = {"[policy]": settings.policy, **{f"[tasks.{name}]": task for name, task in settings.tasks.items()}}
    for place, policy in policies.items():
        wanted = grading.judge_of(policy.loss)
        if wanted is None:
            continue
        if wanted not in settings.judges:
            close = difflib.get_close_matches(wanted, settings.judges, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else f": add [judges.{wanted}]"
            raise InputError(f"{where}: {place}: `loss` names judge {wanted!r}, which is none{hint}")
        upstream = settings.judges[wanted].upstream
        if policy.egress == "never" and not settings.upstreams[upstream].inside:
            raise InputError(
                f"{where}: {place}: `egress` is never, and judge {wanted!r} is outside: upstream {upstream!r} is not "
                "`inside`"
            )


def _fallbacks_known(upstreams: dict[str, Upstream], where: str) -> None:
    for name, upstream in upstreams.items():
        for fallback in upstream.fallbacks:
            if fallback.split("/", 1)[0] not in upstreams:
                raise InputError(f"{where}: [upstreams.{name}]: `fallbacks` names {fallback!r}, which is no upstream")


def _convert(entry: dict[str, Any], kind: type[msgspec.Struct], place: str) -> msgspec.Struct:
    hints = get_type_hints(kind)
    for key in entry:
        toml.known(key, list(kind.__struct_fields__), place)
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
