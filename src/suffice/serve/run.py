"""Processes: one gateway in this process, or a supervisor with N of them on one socket."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import uvicorn

from suffice.core.errors import InputError
from suffice.serve.edges import CutShort
from suffice.serve.protocol import Protocol
from suffice.serve.reload import Reloading

log = logging.getLogger(__name__)

BACKLOG = 2048
RESTART_S = 1.0
RESTART_MOST_S = 30.0
"""A process that ends is started again after a second; one that ends again and again, after twice as long each time."""
STEADY_S = 10.0
"""One that has run for so long has not ended again and again."""
CHECK_S = 0.1


def bind(host: str, port: int) -> socket.socket:
    """A listening socket. Raises InputError in one sentence if the address cannot be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise InputError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    sock.listen(BACKLOG)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.set_inheritable(True)
    return sock


class _Server(uvicorn.Server):
    """Says when it is ready, and ends with 0 on SIGTERM and SIGINT; a second signal stops at once."""

    def __init__(
        self, config: uvicorn.Config, ready: Callable[[], None], again: Callable[[], None], parent: int | None
    ) -> None:
        super().__init__(config)
        self._ready, self._again, self._parent = ready, again, parent

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            # What is loaded now stays: a collector that walks it again and again cost a quarter of all requests.
            gc.collect()
            gc.freeze()
            gc.set_threshold(10_000, 20, 50)
            self._ready()

    async def on_tick(self, counter: int) -> bool:
        orphaned = self._parent is not None and os.getppid() != self._parent
        return await super().on_tick(counter) or orphaned

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self.handle_exit, name, None)
        loop.add_signal_handler(signal.SIGHUP, self._again)
        yield


def serve_one(
    app: Reloading,
    sock: socket.socket,
    drain_s: float,
    ready: Callable[[], None],
    parent: int | None,
    children: Children | None = None,
) -> bool:
    """Serve until a signal: what is running is finished (within `drain_s`), records are flushed. False: never started.

    SIGHUP: the settings are read again, here and by `children`. `parent`: the process with which this one ends, if it
    has one.
    """

    def again() -> None:
        app.hear()
        if children is not None:
            children.tell(signal.SIGHUP)

    # The way to break a connection is to raise; each time it is said in the record, and need not be in the log.
    logging.getLogger("uvicorn.error").addFilter(lambda told: not (told.exc_info and told.exc_info[0] is CutShort))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=Protocol,
        ws="none",
        lifespan="on",
        log_config=None,
        log_level="warning",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(drain_s),
    )
    server = _Server(config, ready, again, parent)
    server.run([sock])
    return server.started


class Children:
    """Child processes, each started again when it ends: at once, then after longer and longer pauses."""

    def __init__(
        self,
        commands: Sequence[Sequence[str]],
        sock: socket.socket | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._commands, self._clock = commands, clock
        self._pass = [sock.fileno()] if sock is not None else []
        self._pauses = [0.0] * len(commands)
        self._due: dict[int, float] = {}
        self._began = [clock()] * len(commands)
        self._running = [self._start(command) for command in commands]

    def _start(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, pass_fds=self._pass)

    def check(self, stopping: Callable[[], bool]) -> None:
        """Start again what has ended and whose pause is over."""
        now = self._clock()
        for position, child in enumerate(self._running):
            if position in self._due:
                if now >= self._due[position] and not stopping():
                    del self._due[position]
                    self._began[position] = now
                    self._running[position] = self._start(self._commands[position])
            elif child.poll() is not None and not stopping():
                steady = now - self._began[position] > STEADY_S
                pause = RESTART_S if steady else min(max(2 * self._pauses[position], RESTART_S), RESTART_MOST_S)
                self._pauses[position], self._due[position] = pause, now + pause
                log.error("process %d ended with %d; a new one in %g s", child.pid, child.returncode, pause)

    def tell(self, number: int) -> None:
        """Send all of them a signal."""
        for child in self._running:
            with contextlib.suppress(ProcessLookupError):
                child.send_signal(number)

    def stop(self) -> None:
        """Ask all to end, and wait until they have."""
        self.tell(signal.SIGTERM)
        for child in self._running:
            child.wait()


def supervise(commands: Sequence[Sequence[str]], sock: socket.socket, ready: Callable[[], None]) -> None:
    """Run these commands on one socket until a signal, restarting any that dies; signals are passed on."""
    stopping: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _: stopping.append(number))
    children = Children(commands, sock)
    signal.signal(signal.SIGHUP, lambda number, _: children.tell(number))
    ready()
    while not stopping:
        time.sleep(CHECK_S)
        children.check(lambda: bool(stopping))
    children.stop()


@contextlib.contextmanager
def beside(command: Sequence[str]) -> Iterator[Children]:
    """Run a command beside this process for as long as the block lasts, restarting it if it dies."""
    children, over = Children([command], None), threading.Event()

    def check() -> None:
        while not over.wait(CHECK_S):
            children.check(over.is_set)

    checking = threading.Thread(target=check, name="children", daemon=True)
    checking.start()
    try:
        yield children
    finally:
        over.set()
        checking.join()
        children.stop()


def until_told(run: Callable[[Callable[[], bool]], None], parent: int, again: Callable[[], None]) -> None:
    """Run something that asks whether to stop: on a signal, or when its parent is gone (it may be by now).

    `again` is called when it asks and SIGHUP has come since.
    """
    stopping: list[int] = []
    reading: list[int] = []
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda number, _: stopping.append(number))
    signal.signal(signal.SIGHUP, lambda number, _: reading.append(number))

    def asked() -> bool:
        if reading:
            reading.clear()
            again()
        return bool(stopping) or os.getppid() != parent

    run(asked)
