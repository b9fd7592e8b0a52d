"""Settings that change while requests are under way, without dropping one.

    the file is read and checked -> a gateway of the new settings is opened beside the old one -> new requests go to it
    -> the old one is closed when its last request is done

What lives as long as the process is shared: the home, what is loaded (`Roster`) and the records (`Capture`). A wrong
file changes nothing. Every process of a server says in the home how its last reload went (`Said`), so that who asked
for it can tell when all have followed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import msgspec

from suffice.core.config import Config, Server
from suffice.core.errors import InputError, SufficeError
from suffice.serve.access import Access
from suffice.serve.app import Gateway
from suffice.serve.batching import Batching
from suffice.serve.capture import Capture
from suffice.serve.edges import Receive, Scope, Send
from suffice.serve.roster import Roster

log = logging.getLogger(__name__)

AUDITS_END_S = 5.0
"""How long a server that stops waits for audits under way."""
AUDITS_RETIRED_S = 60.0
"""The same, where only the settings have changed."""
FOLDER = "processes"
Role = Literal["worker", "keeper"]
LIVE_RECORDS = frozenset({"on_full", "wait_s", "synchronous"})
"""Of `[records]`, what a server takes over; the rest is built into what is open."""
LIVE_SERVER = frozenset(Server.__struct_fields__) - {"drain_s"}


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """How a process took its last settings: `error` is one sentence, None where it has taken them."""

    pid: int
    role: Role
    at: float
    error: str | None = None
    changed: list[str] = []
    restart: list[str] = []


def changes(before: Config, after: Config) -> list[str]:
    """The settings that differ, as they stand in the file: `upstreams.openai.base_url`, `policy.audit`, sorted."""
    return sorted(_differing(msgspec.to_builtins(before), msgspec.to_builtins(after)))


def _differing(before: object, after: object, place: str = "") -> list[str]:
    if before == after:
        return []
    if not isinstance(before, dict) or not isinstance(after, dict):
        return [place]
    keys = {**before, **after}
    return [
        name
        for key in keys
        for name in _differing(before.get(key), after.get(key), f"{place}.{key}" if place else str(key))
    ]


def needs_restart(changed: list[str]) -> list[str]:
    """Those of these settings that only a new process takes over."""
    return [name for name in changed if not _is_live(name)]


def _is_live(name: str) -> bool:
    section, _, key = name.partition(".")
    live = {"records": LIVE_RECORDS, "server": LIVE_SERVER, "log": frozenset[str]()}.get(section)
    return live is None or key.partition(".")[0] in live


def say(home: Path, said: Said) -> None:
    """Write down how a process took its settings. Raises OSError."""
    folder = home / FOLDER
    folder.mkdir(exist_ok=True)
    passing = folder / f".{said.pid}"
    passing.write_bytes(msgspec.json.encode(said))
    passing.replace(folder / f"{said.pid}.json")


def tell(home: Path, role: Role, error: str | None, changed: Sequence[str] = (), restart: Sequence[str] = ()) -> None:
    """Say in the home and in the log how this process took the settings."""
    if error is not None:
        log.error("the settings stay as they were: %s", error)
    try:
        say(home, Said(pid=os.getpid(), role=role, at=time.time(), error=error, changed=[*changed], restart=[*restart]))
    except OSError as problem:
        log.error("how the settings were taken over cannot be written: %s", problem)


def unsay(home: Path, pid: int) -> None:
    """This process ends."""
    (home / FOLDER / f"{pid}.json").unlink(missing_ok=True)


def said(home: Path) -> list[Said]:
    """What the processes that live have said, by process; what dead ones left is thrown away."""
    found = []
    for file in sorted((home / FOLDER).glob("*.json")):
        with suppress(OSError, msgspec.DecodeError, ValueError):
            one = msgspec.json.decode(file.read_bytes(), type=Said)
            if _lives(one.pid):
                found.append(one)
            else:
                file.unlink(missing_ok=True)
    return found


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


class _Running:
    """A gateway and how many requests it has under way."""

    __slots__ = ("gateway", "idle", "retired", "under_way")

    def __init__(self, gateway: Gateway) -> None:
        self.gateway, self.under_way, self.retired = gateway, 0, False
        self.idle = asyncio.Event()


class Reloading:
    """The ASGI application of a worker: requests go to the gateway of the settings that hold when they come.

    `read` reads and checks the settings (raises SufficeError), `make` builds a gateway of them over the roster and
    the capture, which are shared (raises SufficeError: a key is not in the environment);
    `adopt` tells all else that lives as long as the process of them: it takes no time and does not fail.
    """

    def __init__(
        self,
        config: Config,
        roster: Roster,
        capture: Capture,
        access: Access,
        read: Callable[[], Config],
        make: Callable[[Config], Gateway],
        adopt: Callable[[Config], None],
    ) -> None:
        self._first = self._config = config
        self._roster, self._capture, self._access = roster, capture, access
        self._read, self._make, self._adopt = read, make, adopt
        self._running = _Running(make(config))
        self._closing: set[asyncio.Task[None]] = set()
        self._reloading, self._opened = asyncio.Lock(), asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """To the gateway of the day."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        running = self._running
        running.under_way += 1
        try:
            await running.gateway(scope, receive, send)
        finally:
            running.under_way -= 1
            if running.retired and not running.under_way:
                running.idle.set()

    def hear(self) -> None:
        """A signal asks for the settings to be read again; what comes of it is logged and said in the home."""
        task = asyncio.ensure_future(self._heard())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _heard(self) -> None:
        before = self._config
        try:
            await self.reload()
        except SufficeError as error:
            await self._say(str(error), before)
        except Exception as error:  # the boundary of a reload: serving goes on as it was
            log.exception("a reload failed")
            await self._say(type(error).__name__, before)
        else:
            await self._say(None, before)

    async def reload(self) -> None:
        """Take over the settings as they are now. Raises SufficeError, and then nothing has changed."""
        await self._opened.wait()
        async with self._reloading:
            config = await asyncio.to_thread(self._read)
            if self._config.upstreams and not config.upstreams:
                # Most likely a file that is being written: an editor empties it first.
                raise InputError("no [upstreams.NAME] is left: taking the last one away takes a restart")
            running = _Running(self._make(config))
            await running.gateway.open()
            try:
                await self._roster.adopt(config)
            except BaseException:
                await running.gateway.close(0)
                raise
            self._adopt(config)
            before, self._running, self._config = self._running, running, config
            log.info("the settings were read again")
            closing = asyncio.ensure_future(self._retire(before))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _retire(self, running: _Running) -> None:
        running.retired = True
        if running.under_way:
            await running.idle.wait()
        await running.gateway.close(AUDITS_RETIRED_S)

    async def _say(self, error: str | None, before: Config) -> None:
        changed = changes(before, self._config)
        restart = needs_restart(changes(self._first, self._config))
        await asyncio.to_thread(tell, self._roster.home.folder, "worker", error, changed, restart)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        """Start and stop what lives as long as the server."""
        await receive()
        try:
            await asyncio.to_thread(self._roster.open)
            await asyncio.to_thread(self._access.open)
            await self._capture.start()
            await self._running.gateway.open()
        except Exception as error:  # whatever it is, the server is told, and ends
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        batching = Batching(self._roster.home, self, self._access, lambda: self._config.batches.at_once)
        work = (self._roster.run(), self._access.run(), batching.run())
        polling = [asyncio.ensure_future(looking) for looking in work]
        await self._say(None, self._config)
        self._opened.set()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        for looking in polling:
            looking.cancel()
        await asyncio.gather(*polling, return_exceptions=True)  # what they use is closed below
        if self._closing:
            _, late = await asyncio.wait(self._closing, timeout=AUDITS_END_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._running.gateway.close(AUDITS_END_S)
        await self._capture.stop()
        self._access.close()
        self._roster.close()
        await asyncio.to_thread(unsay, self._roster.home.folder, os.getpid())
        await send({"type": "lifespan.shutdown.complete"})
