"""What the end-to-end tests share: a scriptable upstream, a gateway process, polling with a deadline."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import uvicorn
from openai import AsyncOpenAI, OpenAI

T = TypeVar("T")
DEADLINE_S = 20.0
SUFFICE = [sys.executable, "-m", "suffice.cli.main"]
JSON_TYPE = [(b"content-type", b"application/json")]
EVENTS_TYPE = [(b"content-type", b"text/event-stream")]
Headers = Sequence[tuple[bytes, bytes]]


def until(condition: Callable[[], T | Literal[False] | None], what: str = "", deadline_s: float = DEADLINE_S) -> T:
    """Poll until `condition` is truthy; its value. AssertionError at the deadline."""
    end = time.monotonic() + deadline_s
    while True:
        value = condition()
        if value:
            return value
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {what or condition}"
        time.sleep(0.01)


# ---------------------------------------------------------------------------------------------- bodies


def chat(text: str = "hello", **fields: Any) -> bytes:
    """A chat request's body."""
    return json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": text}], **fields}).encode()


def completion(content: str | None = "hi", *, usage: bool = True, **fields: Any) -> bytes:
    """A whole chat completion; `fields` go on the message."""
    message = {"role": "assistant", "content": content, "refusal": None, **fields}
    body: dict[str, Any] = {
        "id": f"chatcmpl-{time.time_ns()}",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-2024-08-06",
        "choices": [
            {
                "index": 0,
                "message": message,
                "logprobs": None,
                "finish_reason": "tool_calls" if "tool_calls" in fields else "stop",
            }
        ],
    }
    if usage:
        body["usage"] = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}
    return json.dumps(body).encode()


def called(name: str, arguments: str) -> dict[str, Any]:
    """The message fields of one tool call."""
    return {"tool_calls": [{"id": "call_1", "type": "function", "function": {"name": name, "arguments": arguments}}]}


def events(*deltas: Mapping[str, Any], finish: str = "stop", usage: bool = False) -> list[bytes]:
    """A stream's events, one delta each, then the finish reason, the usage if asked, and [DONE]."""
    head = {"id": "chatcmpl-streamed", "object": "chat.completion.chunk", "created": 1, "model": "gpt-4o-2024-08-06"}

    def event(choices: list[Any], **more: Any) -> bytes:
        return b"data: " + json.dumps({**head, "choices": choices, **more}).encode() + b"\n\n"

    said = [event([{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    said.append(event([{"index": 0, "delta": {}, "finish_reason": finish}]))
    if usage:
        said.append(event([], usage={"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 110}))
    return [*said, b"data: [DONE]\n\n"]


# ---------------------------------------------------------------------------------------------- the upstream


class Break:
    """In a reply's parts: the connection breaks here."""


Part = bytes | threading.Event | type[Break]


@dataclass
class Reply:
    """What the upstream answers. An event among the parts (or `before`) is waited for before going on."""

    status: int = 200
    headers: Headers = tuple(JSON_TYPE)
    parts: Sequence[Part] = ()
    before: threading.Event | None = None
    length: bool = False


@dataclass
class Seen:
    """A request as the upstream got it. `gone`: its client hung up before the answer was whole."""

    method: str
    path: str
    headers: list[tuple[bytes, bytes]]
    body: bytes
    gone: threading.Event = field(default_factory=threading.Event)
    done: threading.Event = field(default_factory=threading.Event)
    target: str = ""
    """The path with its query as it stood in the request line."""

    def header(self, name: str) -> list[str]:
        """All values of a header."""
        return [value.decode() for key, value in self.headers if key == name.encode()]

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The last message's text."""
        return str(self.json["messages"][-1]["content"])


class FakeUpstream:
    """A raw ASGI application on uvicorn in a thread: keeps what came, answers what `answer` says."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.answer: Callable[[Seen], Reply] = lambda seen: whole()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        config = uvicorn.Config(
            self._app, log_config=None, log_level="critical", lifespan="off", interface="asgi3", server_header=False, date_header=False,  # noqa: E501
            timeout_graceful_shutdown=0,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        until(lambda: self._server.started)

    def reset(self) -> None:
        """Forget what was seen and scripted."""
        self.seen = []
        self.answer = lambda seen: whole()

    def close(self) -> None:
        """Stop."""
        self._server.should_exit = True
        self._server.force_exit = True
        self._thread.join(10)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            more = message.get("more_body", False)
        query = scope["query_string"].decode()
        seen = Seen(scope["method"], scope["path"] + (f"?{query}" if query else ""), list(scope["headers"]), body)
        seen.target = scope["raw_path"].decode() + (f"?{query}" if query else "")
        self.seen.append(seen)
        reply = self.answer(seen)
        watcher = asyncio.ensure_future(self._watch(receive, seen))
        try:
            if reply.before is not None and not await self._passed(reply.before, seen):
                return
            headers = list(reply.headers)
            if reply.length:
                headers.append(
                    (b"content-length", str(sum(len(p) for p in reply.parts if isinstance(p, bytes))).encode())
                )
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            for part in reply.parts:
                if isinstance(part, bytes):
                    await send({"type": "http.response.body", "body": part, "more_body": True})
                elif isinstance(part, threading.Event):
                    if not await self._passed(part, seen):
                        return
                else:
                    raise ConnectionAbortedError
            seen.done.set()
            await send({"type": "http.response.body", "body": b""})
        finally:
            watcher.cancel()

    @staticmethod
    async def _watch(receive: Any, seen: Seen) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        if not seen.done.is_set():
            seen.gone.set()

    @staticmethod
    async def _passed(gate: threading.Event, seen: Seen) -> bool:
        while not gate.is_set():
            if seen.gone.is_set():
                return False
            await asyncio.sleep(0.002)
        return True


def whole(content: str | None = "hi", **fields: Any) -> Reply:
    """A plain completion with its length."""
    return Reply(parts=[completion(content, **fields)], length=True)


def streamed(parts: Sequence[Part]) -> Reply:
    """An event stream."""
    return Reply(headers=EVENTS_TYPE, parts=parts)


# ---------------------------------------------------------------------------------------------- the gateway


@dataclass
class Answer:
    """An answer as it came."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return json.loads(self.body)

    @property
    def content(self) -> Any:
        """What the assistant said."""
        return self.json["choices"][0]["message"]["content"]

    @property
    def reason(self) -> str:
        """Of the decision."""
        return self.headers["x-suffice-reason"]

    @property
    def route(self) -> str:
        """Who answered."""
        return self.headers["x-suffice-route"]

    @property
    def id(self) -> str:
        """Its record."""
        return self.headers["x-suffice-record"]


class Gateway:
    """A `suffice serve` process and ways to talk to it."""

    def __init__(self, home: Path, *flags: str, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        home.mkdir(parents=True, exist_ok=True)
        self.stderr = home.parent / f"{home.name}.stderr"
        with self.stderr.open("ab") as log:
            self.process = subprocess.Popen(
                [*SUFFICE, "serve", "--port", "0", "--json", "--home", str(home), *flags],
                stdout=subprocess.PIPE, stderr=log, env={**os.environ, **(env or {})},
            )  # fmt: skip
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.log
        self.url: str = json.loads(line)["url"]
        self.port = int(urlsplit(self.url).port or 0)

    @property
    def log(self) -> str:
        """What it wrote on stderr."""
        return self.stderr.read_text(errors="replace")

    def client(self, key: str = "caller-key", **more: Any) -> OpenAI:
        """The official client."""
        return OpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=DEADLINE_S, **more)

    def async_client(self, key: str = "caller-key") -> AsyncOpenAI:
        """The official client, async."""
        return AsyncOpenAI(base_url=self.url, api_key=key, max_retries=0, timeout=DEADLINE_S)

    def open(self, timeout_s: float = DEADLINE_S) -> http.client.HTTPConnection:
        """A connection."""
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)

    def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, path: str = "/v1/chat/completions", **more: Any
    ) -> Answer:
        """One POST on a connection of its own."""
        return self.ask("POST", path, body, {"Content-Type": "application/json", **(headers or {})}, **more)

    def get(self, path: str) -> Answer:
        """One GET."""
        return self.ask("GET", path)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None,
        timeout_s: float = DEADLINE_S,
    ) -> Answer:  # fmt: skip
        """One request on a connection of its own."""
        connection = self.open(timeout_s)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            return Answer(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def begin(self, body: bytes, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
        """A POST whose answer's body is still to be read."""
        connection = self.open()
        connection.request("POST", "/v1/chat/completions", body, dict(headers or {}))
        return connection.getresponse()

    def record(self, id: str) -> dict[str, Any]:
        """A record's row, waiting for it."""
        return until(lambda: next(iter(rows(self.home, "id = ?", id)), None), f"record {id}", 5)

    def metric(self, line: str) -> float:
        """The value of one metric line, 0 if it is not there."""
        found = [text for text in self.get("/metrics").body.decode().splitlines() if text.startswith(line + " ")]
        return float(found[0].split()[-1]) if found else 0.0

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def close(self) -> None:
        """End it whatever it does."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(5)
        if self.process.stdout is not None:
            self.process.stdout.close()


def rows(home: Path, where: str = "1", *values: Any) -> list[dict[str, Any]]:
    """Records, read straight from the database file, oldest first."""
    connection = sqlite3.connect(home / "suffice.db", timeout=DEADLINE_S)
    try:
        connection.row_factory = sqlite3.Row
        found = connection.execute(f"SELECT * FROM records WHERE {where} ORDER BY at, id", values).fetchall()
        return [dict(row) for row in found]
    finally:
        connection.close()


def suffice(*arguments: str | Path, env: Mapping[str, str] | None = None, timeout_s: float = 120, stdin: bytes = b"",
            cwd: Path | None = None) -> subprocess.CompletedProcess[bytes]:  # fmt: skip
    """Run a command of the CLI to its end."""
    return subprocess.run(
        [*SUFFICE, *map(str, arguments)], capture_output=True, timeout=timeout_s, input=stdin,
        env={**os.environ, **(env or {})}, check=False, cwd=cwd,
    )  # fmt: skip


def told(*arguments: str | Path, code: int = 0) -> Any:
    """Run a command with --json; its document."""
    done = suffice(*arguments, "--json")
    assert done.returncode == code, (done.returncode, done.stderr.decode())
    return json.loads(done.stdout)


def config(upstream: str | None, more: str = "") -> str:
    """A suffice.toml."""
    return (f'[upstreams.openai]\nbase_url = "{upstream}"\n' if upstream else "") + more
