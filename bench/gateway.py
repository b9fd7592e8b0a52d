"""What the gateway costs: relayed calls, streams and a specialist's answers, against a bare relay in the same run.

    python bench/gateway.py [--seconds 2] [--rounds 5]        about seven minutes
    python bench/gateway.py --seconds 0.5 --rounds 2            about a minute and a half

Every server has one core to itself, the load and the mock upstream share the other; servers that are not being
measured are stopped (SIGSTOP). Rounds are interleaved (A B A B ...), every figure is the median over the rounds, and
"x" is its ratio to the bare relay of the same run. Differences under 1.3x are noise on a shared machine.

Servers: `direct` is the mock itself, without any server between: the ceiling, and what "added" milliseconds are added
to. `bare relay` is raw ASGI (uvicorn) and aiohttp: it reads the body, posts it and streams the answer back, no more.
`suffice` is `suffice serve` as installed: virtual keys with a rate and a budget, recording to SQLite, metrics, task by
header. `specialist` is the same
command with a live linear specialist and no upstream; it is sent up to 256 texts that its release accepts, in turn.
`nginx` is measured where it is on the PATH; TensorZero (recording off), Portkey and LiteLLM with `--anchors FOLDER`,
where `python bench/anchors.py` has put them. Any other: start it on the mock (--mock-port), name it by --also.

CPU is the processor time of the server's threads for one request: of all figures the one that neighbours disturb least.

Load: HTTP/1.1, keep-alive, closed loop (each connection sends its next request when the answer is whole), bodies of
1 KB and 95 KB both ways. Streams: the mock waits 20 ms, then sends ten events 10 ms apart; first chunk is the time to
the first byte of the body; joined is the share of events that did not arrive in an HTTP chunk of their own.
The load generator and the mock are hand-written protocols on uvloop: both cost less than any server measured here.

Records: rows a second, sustained: the store's insert alone (256 rows of 1 KB + 1 KB a commit, synchronous=FULL), and
the whole of capture (slot, exchange, queue, writer thread), on one core, counted in the database.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import aiohttp
import uvicorn
import uvloop

import anchors
import common

TASK = "triage"
SMALL, LARGE = 1_000, 95_000
LEARN_ROWS, FRESH_ROWS, SENT_TEXTS = 3_000, 800, 256
FIRST_MS, EVENT_MS, EVENTS = 20.0, 10.0, 10
STREAMS = 64
HANGS_S = 30.0
SETTLE_S = 0.4
"""A server that was stopped looks at the home's state again before it is measured."""

# ---------------------------------------------------------------------------------------------- the mock upstream


def completion(size: int) -> bytes:
    """A chat completion of about `size` bytes, as a whole HTTP response."""
    answer = {
        "id": "chatcmpl-mock",
        "object": "chat.completion",
        "created": 1,
        "model": "mock",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ""}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 200, "completion_tokens": 200, "total_tokens": 400},
    }
    bare = len(json.dumps(answer))
    answer["choices"] = [
        {"index": 0, "message": {"role": "assistant", "content": "x" * (size - bare)}, "finish_reason": "stop"}
    ]
    body = json.dumps(answer).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


WHOLE = {False: completion(SMALL), True: completion(LARGE)}
STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def http_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(data), data)


def event(delta: dict[str, str], finish: str | None) -> bytes:
    """One event of a streamed completion."""
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    told = {"id": "chatcmpl-mock", "object": "chat.completion.chunk", "created": 1, "model": "mock"}
    return b"data: " + json.dumps({**told, "choices": [choice]}).encode() + b"\n\n"


PIECES = [http_chunk(event({"content": "word "}, None)) for _ in range(EVENTS - 1)]
PIECES.append(http_chunk(event({}, "stop") + b"data: [DONE]\n\n"))


class Mock(asyncio.Protocol):
    """The upstream: a fixed answer at once, or a stream that keeps its beat. Large requests get the large answer."""

    def __init__(self) -> None:
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast(asyncio.Transport, transport)
        self._loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        self._buffer = self._buffer + data if self._buffer else data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        at = head.find(b"content-length:")
        length = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
        if at < 0 and b"transfer-encoding: chunked" in head:
            if not self._buffer.endswith(b"0\r\n\r\n"):
                return
        elif len(self._buffer) < end + 4 + length:
            return
        body, self._buffer = self._buffer, b""
        if b'"stream":true' in body:
            self._loop.call_later(FIRST_MS / 1e3, self._stream, 0, self._loop.time() + FIRST_MS / 1e3)
        else:
            self._transport.write(WHOLE[len(body) > LARGE // 2])

    def _stream(self, position: int, due: float) -> None:
        if self._transport.is_closing():
            return
        last = position == EVENTS - 1
        self._transport.write((b"" if position else STREAM_HEAD) + PIECES[position] + (b"0\r\n\r\n" if last else b""))
        if not last:
            self._loop.call_at(due + EVENT_MS / 1e3, self._stream, position + 1, due + EVENT_MS / 1e3)


def run_mock(port: int) -> None:
    """Serve the mock upstream until a signal."""

    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Mock, "127.0.0.1", port, backlog=2048)
        ready(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


# ---------------------------------------------------------------------------------------------- the bare relay


def run_relay(upstream: str) -> None:
    """The bare relay: the least that raw ASGI and aiohttp can do, and the yardstick of this bench."""
    session: aiohttp.ClientSession

    async def relay(scope: Any, receive: Any, send: Any) -> None:
        nonlocal session
        if scope["type"] == "lifespan":
            await receive()
            connector = aiohttp.TCPConnector(limit=0)
            session = aiohttp.ClientSession(connector=connector, auto_decompress=False)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await session.close()
            await send({"type": "lifespan.shutdown.complete"})
            return
        parts, more = [], True
        while more:
            message = await receive()
            parts.append(message.get("body", b""))
            more = message.get("more_body", False)
        json_type = {"content-type": "application/json"}
        async with session.post(f"{upstream}/chat/completions", data=b"".join(parts), headers=json_type) as response:
            kept = [(key, value) for key, value in response.raw_headers if key.lower() != b"transfer-encoding"]
            await send({"type": "http.response.start", "status": response.status, "headers": kept})
            async for data in response.content.iter_any():
                await send({"type": "http.response.body", "body": data, "more_body": True})
            await send({"type": "http.response.body", "body": b""})

    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        relay, loop="uvloop", http="httptools", ws="none", lifespan="on", log_config=None, access_log=False,
        server_header=False, date_header=False, timeout_keep_alive=75,
    )  # fmt: skip

    class Server(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            ready(listener.getsockname()[1])

    Server(config).run([listener])


def ready(port: int) -> None:
    """Say where this process listens."""
    sys.stdout.write(json.dumps({"url": f"http://127.0.0.1:{port}/v1"}) + "\n")
    sys.stdout.flush()


# ---------------------------------------------------------------------------------------------- records


def run_records(seconds: float, folder: Path) -> None:
    """Rows a second of the store's insert and of the whole of capture, as one JSON line."""
    from suffice.core.config import Records
    from suffice.plan.prices import Prices
    from suffice.serve.capture import Capture, Exchange
    from suffice.store import records
    from suffice.store.home import Home

    request = chat_body("x" * (SMALL - 200), stream=False)
    answer = WHOLE[False].split(b"\r\n\r\n", 1)[1]
    cost = Prices({}).usd

    def exchange() -> Exchange:
        made = Exchange(request=request, model="mock", task=TASK, status=200, route="frontier", upstream="default")
        made.chunk(answer)
        made.latency_ms = made.elapsed_ms()
        return made

    def rows(home: Home) -> int:
        connection = home.connect()
        found = int(connection.execute("SELECT COUNT(*) FROM records").fetchone()[0])
        connection.close()
        return found

    def store() -> float:
        home = Home(folder / "store")
        connection = home.connect()
        spent = 0.0
        while spent < seconds:
            group = [exchange().row(cost) for _ in range(256)]
            began = time.perf_counter()
            records.insert(connection, group)
            spent += time.perf_counter() - began
        connection.close()
        return rows(home) / spent

    async def capture() -> float:
        home = Home(folder / "capture")
        capture = Capture(home.connect, Records(), cost, home.folder)
        await capture.start()
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            for _ in range(16):
                await capture.reserve()
                capture.put(exchange())
            await asyncio.sleep(0)
        await capture.stop()
        return rows(home) / (time.perf_counter() - began)

    sys.stdout.write(json.dumps({"store": store(), "capture": uvloop.run(capture())}) + "\n")


# ---------------------------------------------------------------------------------------------- the load


@dataclass
class Tally:
    """What a run of load measured: per answer, seconds to its end and to the first byte of its body."""

    whole: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    events: int = 0
    own_chunk: int = 0
    spent: float = 0.0


class Connection(asyncio.Protocol):
    """One keep-alive connection of the load, hand-written: a request, its answer whole, the next request."""

    def __init__(self, requests: Iterator[bytes], tally: Tally, expect: bytes, deadline: float) -> None:
        self._requests, self._tally, self._expect, self._deadline = requests, tally, expect, deadline
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:  # noqa: D102
        self._transport = cast(asyncio.Transport, transport)
        self._send()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: D102
        if not self.done.done():
            self.done.set_exception(SystemExit(f"a server closed its connection in the middle of the load: {error}"))

    def _send(self) -> None:
        self._head, self._missing, self._chunked, self._tail = b"", -1, False, b""
        self._transport.write(next(self._requests))
        self._began = time.perf_counter()

    def data_received(self, data: bytes) -> None:  # noqa: D102
        if self._missing < 0:
            self._head = self._head + data if self._head else data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            head, data = self._head[:end].lower(), self._head[end + 4 :]
            if self._head[9:12] != b"200" or self._expect not in head:
                self.done.set_exception(SystemExit(f"an answer of another kind: {self._head[:1000]!r}"))
                self._transport.close()
                return
            at = head.find(b"content-length:")
            self._chunked = at < 0
            self._missing = 1 if self._chunked else int(head[at + 15 :].split(b"\r\n", 1)[0])
            self._first = 0.0
        if data and not self._first:
            self._first = time.perf_counter() - self._began
        if self._chunked:
            # An event of its own is followed by its chunk's end; both may be cut anywhere, hence the tail.
            self._tail = self._tail + data
            if not self._tail.endswith(b"\r\n0\r\n\r\n"):
                return
            self._tally.events += self._tail.count(b"data: {")
            self._tally.own_chunk += sum(part.count(b"data: {") == 1 for part in self._tail.split(b"\n\n\r\n"))
        else:
            self._missing -= len(data)
            if self._missing:
                return
        now = time.perf_counter()
        self._tally.whole.append(now - self._began)
        self._tally.first.append(self._first)
        if now < self._deadline:
            self._send()
        else:
            self.done.set_result(None)
            self._transport.close()


async def load(
    url: str,
    requests: Sequence[bytes],
    connections: int,
    seconds: float,
    expect: bytes,
    kind: type[Connection] = Connection,
) -> Tally:
    """Closed loop for `seconds`; every answer must be a 200 with `expect` in its headers."""
    target, tally, loop = urlsplit(url), Tally(), asyncio.get_running_loop()
    began = time.perf_counter()
    made = []
    for position in range(connections):
        turn = itertools.cycle((*requests[position % len(requests) :], *requests[: position % len(requests)]))
        _, connection = await loop.create_connection(
            lambda turn=turn: kind(turn, tally, expect, began + seconds),  # type: ignore[misc]
            target.hostname or "",
            target.port or 80,
        )
        made.append(connection)
    async with asyncio.timeout(seconds + HANGS_S):
        await asyncio.gather(*(connection.done for connection in made))
    tally.spent = time.perf_counter() - began
    return tally


def chat_body(text: str, *, stream: bool, model: str = "mock") -> bytes:
    """A chat request, compact as the SDKs send it."""
    messages = [{"role": "system", "content": "Sort the ticket."}, {"role": "user", "content": text}]
    body: dict[str, Any] = {"model": model, "messages": messages, **({"stream": True} if stream else {})}
    return json.dumps(body, separators=(",", ":")).encode()


def http_request(url: str, body: bytes, task: str, headers: Mapping[str, str]) -> bytes:
    """A whole HTTP request with the headers that the vendor's SDK would send, shortened."""
    target = urlsplit(url)
    more = "".join(f"{name}: {value}\r\n" for name, value in {"authorization": "Bearer any", **headers}.items())
    head = (
        f"POST {target.path}/chat/completions HTTP/1.1\r\nhost: {target.netloc}\r\ncontent-type: application/json\r\n"
        f"accept: application/json\r\nuser-agent: bench\r\nx-suffice-task: {task}\r\n{more}"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


# ---------------------------------------------------------------------------------------------- one server's turn


@dataclass
class Contender:
    """A server under test. `texts`: what it is sent (a specialist's); without, the relay's bodies of both sizes."""

    name: str
    url: str
    process: subprocess.Popen[bytes] | None = None
    texts: Sequence[str] = ()
    expect: bytes = b"content-type"
    model: str = "mock"
    headers: Mapping[str, str] = field(default_factory=dict)
    streams: bool = True
    rounds: list[dict[str, float]] = field(default_factory=list)

    def signal(self, number: int) -> None:
        """Stop it or let it go on; a server that we did not start is left alone."""
        if self.process is not None:
            os.kill(self.process.pid, number)

    def cpu_s(self) -> float:
        """Processor time that its threads have used; nan for a server that we did not start."""
        if self.process is None:
            return float("nan")
        tasks = Path(f"/proc/{self.process.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9

    async def turn(self, seconds: float) -> None:
        """Warm up, then measure everything once."""

        def prepared(texts: Sequence[str], stream: bool = False) -> list[bytes]:
            task = TASK if self.texts else "bench"
            bodies = [chat_body(text, stream=stream, model=self.model) for text in texts]
            return [http_request(self.url, body, task, self.headers) for body in bodies]

        small = prepared(self.texts or ["x" * (SMALL - 150)])
        await load(self.url, small, 16, min(seconds, 0.3), self.expect)
        told: dict[str, float] = {}
        for connections in (1, 16, 64):
            before = self.cpu_s()
            measured = await load(self.url, small, connections, seconds, self.expect)
            told[f"rate {connections}"] = len(measured.whole) / measured.spent
            told[f"p50 {connections}"], told[f"p99 {connections}"] = quantiles(measured.whole)
            told[f"cpu {connections}"] = 1e6 * (self.cpu_s() - before) / len(measured.whole)
        if not self.texts:
            large = prepared(["x" * LARGE])
            for connections in (1, 16):
                measured = await load(self.url, large, connections, seconds, self.expect)
                told[f"large rate {connections}"] = len(measured.whole) / measured.spent
                told[f"large p50 {connections}"], _ = quantiles(measured.whole)
        if not self.texts and self.streams:
            streamed = prepared(["x" * (SMALL - 150)], stream=True)
            measured = await load(self.url, streamed, STREAMS, seconds, self.expect)
            told["first p50"], told["first p99"] = quantiles(measured.first)
            told["joined"] = 1 - measured.own_chunk / measured.events
        self.rounds.append(told)

    def median(self, key: str) -> float:
        """Over the rounds; nan where it was not measured."""
        found = [told[key] for told in self.rounds if key in told]
        return statistics.median(found) if found else float("nan")


def quantiles(seconds: Sequence[float]) -> tuple[float, float]:
    """p50 and p99, in milliseconds."""
    ordered = sorted(seconds)
    return 1e3 * ordered[len(ordered) // 2], 1e3 * ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))]


# ---------------------------------------------------------------------------------------------- the servers


def learned(home: Path) -> list[str]:
    """Learn a specialist from simulated tickets, put it live, and give texts that its release accepts."""
    from suffice.demo import workload

    told = [{"input": ticket.text, "reference": ticket.truth} for ticket in workload.generate(LEARN_ROWS, 1)]
    data = common.write_lines(home.with_suffix(".jsonl"), told)
    document = json.loads(common.suffice(home, "learn", TASK, "--data", data, "--max-error", "0.05"))
    common.suffice(home, "stage", TASK, "live")
    fresh = [ticket.text for ticket in workload.generate(FRESH_ROWS, 1, start=LEARN_ROWS)]
    file = common.write_lines(home.with_suffix(".fresh.jsonl"), [{"input": text} for text in fresh])
    answers = [json.loads(line) for line in common.suffice(home, "answer", TASK, file).splitlines()]
    texts = [text for text, answer in zip(fresh, answers, strict=True) if answer["accepted"]][:SENT_TEXTS]
    print(
        f"specialist: {document['recipe']}, learned from {LEARN_ROWS:,} simulated tickets, "
        f"{len(texts)} texts of {round(statistics.mean(map(len, texts)))} characters",
        file=sys.stderr,
    )
    return texts


def virtual_key(home: Path) -> str:
    """A key of this home, with a rate and a budget that nobody reaches."""
    home.mkdir(exist_ok=True)
    limits = ["--budget-tokens", "1000000M/month", "--requests-per-minute", "100000000"]
    return str(json.loads(common.suffice(home, "keys", "create", "bench", *limits))["key"])


NGINX = """daemon off; worker_processes 1; pid {folder}/nginx.pid; error_log stderr error;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; client_max_body_size 64m;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  client_body_buffer_size 256k; keepalive_requests 10000000;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 128; keepalive_requests 10000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=2048;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    }}
  }}
}}
"""


@contextmanager
def nginx(program: str, upstream: int, folder: Path, core: int) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """nginx as a reverse proxy in one process, with kept connections on both sides."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    config = folder / "nginx.conf"
    config.write_text("master_process off; " + NGINX.format(folder=folder, upstream=upstream, port=port))
    command = [program, "-p", str(folder), "-c", str(config)]
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, preexec_fn=lambda: os.sched_setaffinity(0, {core}))
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        yield process, f"http://127.0.0.1:{port}/v1"
    finally:
        process.send_signal(signal.SIGCONT)
        process.terminate()
        process.wait()


def start(
    everything: ExitStack, folder: Path, core: int, load_core: int, options: argparse.Namespace
) -> list[Contender]:
    """Start the mock and every server that is measured; the first contender is the mock itself."""
    own = [sys.executable, __file__]

    def started(command: Sequence[str], on: int, log: str) -> tuple[subprocess.Popen[bytes], str]:
        process, told = everything.enter_context(common.server(command, core=on, log=folder / log))
        everything.callback(process.send_signal, signal.SIGCONT)  # runs before the server is asked to stop
        return process, told["url"]

    def serve(home: Path, *more: str) -> tuple[subprocess.Popen[bytes], str]:
        command = [*common.SUFFICE, "serve", "--port", "0", "--home", str(home), "--json", *more]
        return started(command, core, f"{home.name}.log")

    _, upstream = started([*own, "--role", "mock", "--mock-port", str(options.mock_port)], load_core, "mock.log")
    texts = learned(folder / "live")
    process, url = started([*own, "--role", "relay", "--upstream", upstream], core, "relay.log")
    relay = Contender("bare relay", url, process)
    keys = {name: {"authorization": f"Bearer {virtual_key(folder / name)}"} for name in ("home", "live")}
    process, url = serve(folder / "home", "--upstream", upstream)
    whole = Contender("suffice", url, process, expect=b"x-suffice-route: frontier", headers=keys["home"])
    process, url = serve(folder / "live")
    live = Contender("specialist", url, process, texts, b"x-suffice-route: specialist", headers=keys["live"])
    contenders = [Contender("direct", upstream), relay, whole, live]
    if program := shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        process, url = everything.enter_context(nginx(program, urlsplit(upstream).port or 0, folder, core))
        contenders.append(Contender("nginx", url, process, expect=b"server: nginx"))
    for name in ("tensorzero", "portkey", "litellm") if options.anchors is not None else ():
        if (options.anchors / name / "ready").exists():
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = taken.getsockname()[1]
            other = everything.enter_context(anchors.started(options.anchors.absolute(), upstream, port, core, name))
            everything.callback(other.process.send_signal, signal.SIGCONT)
            one = Contender(name, other.url, other.process, model=other.model, headers=other.headers)
            contenders.append(replace(one, streams=other.streams))
    for name, _, url in (text.partition("=") for text in options.also):
        contenders.append(Contender(name, url.rstrip("/")))
    return contenders


def absent() -> list[str]:
    """What a comparison could hold, and this one does not."""
    told = []
    if not shutil.which("nginx", path=os.environ.get("PATH", "") + ":/usr/sbin"):
        told.append("nginx is not on the PATH: not measured.")
    return told


# ---------------------------------------------------------------------------------------------- the table


def row(one: Contender, direct: Contender, relay: Contender) -> list[str]:
    """One line of the table."""

    def number(key: str, digits: int, less: Contender | None = None) -> str:
        value = one.median(key) - (less.median(key) if less else 0)
        return "-" if value != value else f"{value:+.{digits}f}" if less else f"{value:,.{digits}f}"

    def rate(key: str) -> str:
        value = one.median(key)
        ratio = "" if one in (direct, relay) else f" ({value / relay.median(key):.2f}x)"
        return "-" if value != value else f"{value:,.0f}{ratio}"

    apart = one is direct or bool(one.texts)
    joined = one.median("joined")
    return [
        one.name,
        f"{number('p50 1', 2)} / {number('p99 1', 2)}",
        "-" if apart else f"{number('p50 1', 2, direct)} / {number('p99 1', 2, direct)}",
        *(rate(f"rate {connections}") for connections in (1, 16, 64)),
        number("cpu 16", 0),
        "-" if apart else number("large p50 1", 2, direct),
        rate("large rate 16"),
        "-" if apart else f"{number('first p50', 1, direct)} / {number('first p99', 1, direct)}",
        "-" if joined != joined else f"{100 * joined:.1f}%",
    ]


HEAD = [
    "server", "1 conn.: ms p50 / p99", "added ms p50 / p99", "req/s at 1", "at 16", "at 64", "CPU µs/req at 16",
    "95 KB: added ms p50 at 1", "req/s at 16", f"first chunk at {STREAMS}: added ms p50 / p99", "joined",
]  # fmt: skip


def measure(options: argparse.Namespace) -> None:
    """Start, measure in turns, print."""
    cores = sorted(os.sched_getaffinity(0))
    core, load_core = cores[0], cores[-1]
    told = common.machine("suffice", "uvicorn", "uvloop", "httptools", "aiohttp", "msgspec")
    with tempfile.TemporaryDirectory(prefix="suffice-bench-") as name, ExitStack() as everything:
        folder = Path(name)
        if options.raise_group:
            everything.enter_context(raised())
        contenders = start(everything, folder, core, load_core, options)
        os.sched_setaffinity(0, {load_core})
        for one in contenders:
            one.signal(signal.SIGSTOP)
        for number in range(options.rounds):
            for one in contenders:
                print(f"\rround {number + 1} of {options.rounds}: {one.name:12}", end="", file=sys.stderr, flush=True)
                one.signal(signal.SIGCONT)
                time.sleep(SETTLE_S)
                uvloop.run(one.turn(options.seconds))
                one.signal(signal.SIGSTOP)
        print(file=sys.stderr)
        rows = []
        for number in range(options.rounds):
            command = [sys.executable, __file__, "--role", "records", "--seconds", str(options.seconds)]
            pin = lambda: os.sched_setaffinity(0, {core})  # noqa: E731
            done = subprocess.run(
                [*command, "--folder", str(folder / f"records{number}")],
                stdout=subprocess.PIPE,
                check=True,
                preexec_fn=pin,
            )
            rows.append(json.loads(done.stdout))
        store, capture = (statistics.median(found[key] for found in rows) for key in ("store", "capture"))
    direct, relay = contenders[:2]
    print(f"`{common.command_line()}` ({told})\n")
    if core == load_core:
        print("One core only: servers, load and mock share it, and the figures say little.\n")
    print(common.table(HEAD, [row(one, direct, relay) for one in contenders]))
    print(f"\nRecords: {store:,.0f} rows/s through the store's insert, {capture:,.0f} rows/s through capture.")
    print("\n".join(absent()))


@contextmanager
def raised() -> Iterator[None]:
    """Where the kernel schedules by session, give ours weight: `nice` alone does not protect the tail."""
    group = Path("/proc/self/autogroup")
    before = group.read_text().rsplit(" ", 1)[-1].strip()
    group.write_text("-10")
    try:
        yield
    finally:
        group.write_text(before)


def main() -> None:
    parser = argparse.ArgumentParser(description="What the gateway costs, as one markdown table.")
    parser.add_argument("--seconds", type=float, default=2.0, help="of load for each figure (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each server (default 5)")
    parser.add_argument("--also", action="append", default=[], metavar="NAME=URL", help="another gateway, base URL")
    parser.add_argument("--anchors", type=Path, metavar="FOLDER", help="where bench/anchors.py has put other gateways")
    parser.add_argument("--mock-port", type=int, default=0, help="of the mock upstream, for --also (default: free)")
    parser.add_argument("--raise-group", action="store_true", help="raise this session's scheduling group (root)")
    parser.add_argument("--role", choices=("mock", "relay", "records"), help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "mock":
        run_mock(options.mock_port)
    elif options.role == "relay":
        run_relay(options.upstream)
    elif options.role == "records":
        run_records(options.seconds, options.folder)
    else:
        common.end_well()
        measure(options)


if __name__ == "__main__":
    main()
