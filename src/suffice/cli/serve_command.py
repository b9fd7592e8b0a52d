"""`suffice serve`."""

from __future__ import annotations

import ipaddress
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from suffice.cli import common, families
from suffice.core.config import Config, Log, Upstream
from suffice.core.errors import InputError, StoreError, SufficeError
from suffice.store import keys
from suffice.store.home import Home

if TYPE_CHECKING:
    from suffice.serve.run import Children

KEEPER_NICE = 10
"""A request comes before a look: with equal rank, looks on the gateway's core were its slowest hundredth."""
SUFFICE = (sys.executable, "-m", "suffice.cli.main")


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=4000, show_default=True, help="0 takes a free one.")
@click.option("--workers", type=click.IntRange(1, 64), default=1, show_default=True)
@click.option("--upstream", help="Base URL of the default upstream, in place of the configured ones.")
@click.option("--open", "is_open", is_flag=True, help="Serve other machines though no key is asked for.")
@click.option("--socket-fd", type=int, hidden=True, help="Worker of a supervisor: its listening socket.")
@click.option("--keeper", is_flag=True, hidden=True, help="The keeper of a server.")
@click.option("--parent", type=int, hidden=True, help="The process with which a worker or a keeper ends.")
@common.everywhere
def command(
    host: str,
    port: int,
    workers: int,
    upstream: str | None,
    is_open: bool,
    socket_fd: int | None,
    keeper: bool,
    parent: int | None,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Serve the gateway. SIGTERM finishes what is running and writes its records."""
    from suffice.serve import limits, logs, run, slots
    from suffice.serve.egress import Gate
    from suffice.serve.metrics import FOLDER
    from suffice.serve.upstream import Upstreams

    logs.begun(Log())
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until there is something to read the settings again for

    def read() -> Config:
        settings = common.configured(folder, config_file)
        if upstream is None:
            return settings
        try:
            return msgspec.structs.replace(settings, upstreams={"default": Upstream(base_url=upstream)})
        except ValueError as error:
            raise InputError(f"--upstream: {error}") from error

    settings = read()
    logs.begun(msgspec.structs.replace(settings.log, requests=False))
    home = common.opened(folder, settings, must_exist=False)
    if keeper:
        return _keeper(home, settings, read, folder, config_file, parent or os.getppid())
    own = ["--home", str(folder), *(["--config", str(config_file)] if config_file is not None else [])]
    if socket_fd is not None:
        sock = socket.socket(fileno=socket_fd)
        return _worker(home, settings, read, own, sock, parent=parent or os.getppid())
    Upstreams(settings.upstreams, settings.server, os.environ)  # a missing key is told before anything starts
    Gate(settings.privacy)
    with home.serving():
        slots.emptied(home.folder / FOLDER)
        limits.fresh(home.folder)
        _refuse_open(home, settings, host, is_open)
        _warn(settings)
        sock = run.bind(host, port)
        told = {"url": f"http://{host}:{sock.getsockname()[1]}/v1", "home": str(folder), "workers": workers}
        at = ["--upstream", upstream] if upstream is not None else []
        line = [*SUFFICE, "serve", *own, *at, "--parent", str(os.getpid())]
        if workers == 1:
            with run.beside([*line, "--keeper"]) as children:
                return _worker(home, settings, read, own, sock, told=(told, as_json), children=children)
        worker = [*line, "--socket-fd", str(sock.fileno())]
        run.supervise([[*line, "--keeper"], *[worker] * workers], sock, lambda: _tell(told, as_json))
    return 0


def _worker(
    home: Home,
    settings: Config,
    read: Callable[[], Config],
    own: Sequence[str],
    sock: socket.socket,
    parent: int | None = None,
    told: tuple[dict[str, object], bool] | None = None,
    children: Children | None = None,
) -> int:
    """One gateway: here the rooms are wired together.

    What `make` makes lives as long as the settings; the rest as long as the process, and is told of new settings.
    """
    from suffice.cli import remote
    from suffice.plan.prices import Prices
    from suffice.serve import logs, run, traces
    from suffice.serve.access import Access
    from suffice.serve.admin import Admin
    from suffice.serve.app import Gateway
    from suffice.serve.audits import Audits
    from suffice.serve.capture import Capture, Cost
    from suffice.serve.metrics import FOLDER, Metrics
    from suffice.serve.outbound import Outbound
    from suffice.serve.reload import Reloading
    from suffice.serve.roster import Roster
    from suffice.serve.upstream import Upstreams
    from suffice.store.watches import Audit, add_audit

    def cost(now: Config) -> Cost:
        return Prices(now.prices).usd

    roster = Roster(
        home, settings, families.load_specialist(home, families.places(settings)), families.load_matcher(home)
    )
    metrics = Metrics(home.folder / FOLDER)
    access = Access(home, settings.access, cost(settings), _is_loopback(sock.getsockname()[0]))
    tracing = traces.opened(os.environ)
    listeners = [metrics.rows, access.tell, *([tracing.rows] if tracing is not None else [])]
    if settings.log.requests:
        listeners.append(logs.requests)
    capture = Capture(home.connect, settings.records, cost(settings), home.folder, listeners, bodies=home.bodies)
    coins = random.Random()
    admin = Admin(home.folder, access.admit_admin, remote.commands, SUFFICE, own)

    def audited(audit: Audit) -> None:
        metrics.audited(audit)
        add_audit(home, audit)

    def make(now: Config) -> Gateway:
        upstreams = Upstreams(now.upstreams, now.server, os.environ)
        outbound = Outbound(now, upstreams)
        audits = Audits(outbound, audited, cost(now))
        return Gateway(now, roster, access, capture, upstreams, outbound, audits, coins, metrics, admin, tracing)

    def adopt(now: Config) -> None:
        capture.adopt(now.records, cost(now))
        access.adopt(now.access, cost(now))

    app = Reloading(settings, roster, capture, access, read, make, adopt)
    ended = logs.begun(settings.log)
    ready = partial(_tell, *told) if told is not None else lambda: None
    started = run.serve_one(app, sock, settings.server.drain_s, ready, parent, children)
    if tracing is not None:
        tracing.stop()
    ended()
    if not started:
        raise StoreError("the server could not start; see the lines above")
    return 0


def _keeper(
    home: Home, settings: Config, read: Callable[[], Config], folder: Path, config_file: Path | None, parent: int
) -> int:
    """The keeper of a server: here its rooms are wired together."""
    from suffice.cli.verifiers import to_watch
    from suffice.serve import reload, run
    from suffice.serve.alerts import alerts
    from suffice.serve.keeper import Keeper
    from suffice.serve.learning import Learning
    from suffice.serve.probe import Probe
    from suffice.serve.upstream import Upstreams

    place = common.config_path(folder, config_file)

    def learn(task: str, since: float | None, forget: bool) -> list[str]:
        own = ["--home", str(folder), *(["--config", str(config_file)] if config_file is not None else [])]
        window = ["--since", repr(since), *(["--forget"] if forget else [])] if since is not None else []
        return [*SUFFICE, "learn", task, *own, *window]

    keeper = Keeper(
        home,
        settings,
        Probe(home, settings, lambda now: Upstreams(now.upstreams, now.server, os.environ)),
        Learning(learn, home.folder / "reports"),
        alerts(settings.alerts),
        graders_of=partial(to_watch, place.parent if place is not None else Path()),
    )

    def again() -> None:
        try:
            now = read()
            Upstreams(now.upstreams, now.server, os.environ)
        except SufficeError as error:
            reload.tell(home.folder, "keeper", str(error))
            return
        keeper.adopt(now, alerts(now.alerts))
        reload.tell(home.folder, "keeper", None)

    os.nice(KEEPER_NICE)
    reload.tell(home.folder, "keeper", None)
    run.until_told(keeper.run, parent, again)
    reload.unsay(home.folder, os.getpid())
    return 0


def _tell(told: dict[str, object], as_json: bool) -> None:
    if as_json:
        common.emit(told)
        sys.stdout.flush()
    else:
        click.echo(f"suffice serves {told['home']} at {told['url']} (set this as your client's base URL)")


def _warn(settings: Config) -> None:
    if not settings.upstreams:
        click.echo("warning: no upstream is configured: only specialists can answer; see --upstream", err=True)


def _refuse_open(home: Home, settings: Config, host: str, is_open: bool) -> None:
    """Raises InputError where other machines would be served and no key is asked for, unless that is said."""
    wanted = settings.access.keys
    asks = wanted == "required" or (wanted == "auto" and keys.all_keys(home))
    if not (asks or is_open or _is_loopback(host)):
        raise InputError(
            f"{host} can be reached from other machines, and no key is asked for: `suffice keys create NAME` makes "
            "one, or serve --open"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
