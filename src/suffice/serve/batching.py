"""Batches at work: their requests take the request path, few at a time, beside those that somebody waits for.

One worker of a home works at them; which one is settled by a lock, and when it ends another goes on. What is answered
stands on the disk line by line, so that a batch goes on where a process that died had come to.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import msgspec

from suffice.core.errors import InputError, StoreError
from suffice.core.values import decode
from suffice.serve.access import ANYONE, Access, Caller
from suffice.serve.batches import file_document
from suffice.serve.edges import Receive, Scope, Send
from suffice.store import batches, schema
from suffice.store.batches import FILE
from suffice.store.home import Home

log = logging.getLogger(__name__)

LOOK_S = 1.0
SIDE_BY_SIDE = 4
"""Batches that share the requests under way."""
STREAMS = 64
"""At the most, of one batch; how many are under way is the setting's to say."""
MOST_LINES = 50_000
MOST_ERRORS = 20
TELL_EVERY = 50
"""Requests between two looks at whether the batch was cancelled, and words on how far it has come."""
TRIES, PAUSE_S, LONGEST_S = 6, 1.0, 60.0
AGAIN = frozenset({429, 503, 504})
"""Answers after which the same request is asked again, later."""
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class Batching:
    """Works at the batches of a home. `at_once`: requests under way. All methods belong to the event loop."""

    def __init__(self, home: Home, app: Application, access: Access, at_once: Callable[[], int]) -> None:
        self._home, self._app, self._access, self._at_once = home, app, access, at_once

    async def run(self) -> None:
        """Look for work, for ever."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                if await asyncio.to_thread(batches.unfinished, self._home):
                    with self._home.batching() as ours:
                        if ours:
                            await self._through()
            except (StoreError, OSError) as error:
                log.error("batches wait: %s", error)
                await asyncio.sleep(LONGEST_S)  # what cannot be written would be asked, and paid for, again at once
            except Exception:  # the boundary of batches: serving goes on without them
                log.exception("batches wait")
                await asyncio.sleep(LONGEST_S)

    async def _through(self) -> None:
        waiting = await asyncio.to_thread(batches.unfinished, self._home)
        slots = asyncio.Semaphore(self._at_once())
        some = waiting[:SIDE_BY_SIDE]  # a long one does not hold up all others
        await asyncio.gather(
            *(_Batch(self._home, self._app, self._access, slots, document, key).work() for document, key in some)
        )


class _Batch:
    """One batch, from its file to its answers."""

    def __init__(
        self,
        home: Home,
        app: Application,
        access: Access,
        slots: asyncio.Semaphore,
        document: dict[str, Any],
        key: str | None,
    ) -> None:
        self._home, self._app, self._access, self._slots = home, app, access, slots
        self._document, self._key = document, key
        self._stop: str | None = None
        self._done = 0
        self._counts = {"total": 0, "completed": 0, "failed": 0}

    @property
    def _id(self) -> str:
        return str(self._document["id"])

    async def work(self) -> None:
        """Check the file, ask what was not asked yet, and say how it ended."""
        paths = {kind: batches.folder(self._home) / f"{self._id}.{kind}" for kind in ("output", "error")}
        if self._document["status"] == "finalizing":  # a process died over it: all was asked
            self._counts = dict(self._document["request_counts"])
            await self._end(paths)
            return
        lines = await asyncio.to_thread(self._lines)
        if isinstance(lines, dict):
            await self._say(status="failed", failed_at=int(time.time()), errors=lines)
            return
        self._counts["total"] = len(lines)
        await self._say(status="in_progress", in_progress_at=self._document.get("in_progress_at") or int(time.time()))
        asked = await asyncio.to_thread(self._asked, paths)
        waiting = iter([line for line in lines if line["custom_id"] not in asked])
        with paths["output"].open("ab") as output, paths["error"].open("ab") as errors:

            async def stream() -> None:
                while self._stop is None and (line := next(waiting, None)) is not None:
                    async with self._slots:
                        if self._stop is None:
                            await self._one(line, output, errors)

            streams = [asyncio.ensure_future(stream()) for _ in range(STREAMS)]
            try:
                await asyncio.gather(*streams)
            finally:  # where one fails, the others must not go on asking: what they write to is closed
                for each in streams:
                    each.cancel()
                await asyncio.gather(*streams, return_exceptions=True)
        await self._end(paths)

    def _lines(self) -> list[dict[str, Any]] | dict[str, Any]:
        """The requests, or what is wrong with them as the vendor tells it."""
        wrong: list[dict[str, Any]] = []
        found: list[dict[str, Any]] = []
        seen: set[str] = set()
        path = batches.content(self._home, self._document["input_file_id"])
        if not path.exists():
            return _errors([_error("the file is no longer there", "input_file_id")])
        with path.open("rb") as file:
            for number, text in enumerate(file, 1):
                if not text.strip():
                    continue
                try:
                    line = _request(text, self._document["endpoint"], seen)
                except InputError as error:
                    wrong.append(_error(str(error), None, number))
                    if len(wrong) >= MOST_ERRORS:
                        break
                    continue
                seen.add(line["custom_id"])
                found.append(line)
                if len(found) > MOST_LINES:
                    wrong.append(_error(f"the file holds more than {MOST_LINES:,} requests"))
                    break
        if not found and not wrong:
            wrong.append(_error("the file holds no request"))
        return _errors(wrong) if wrong else found

    def _asked(self, paths: dict[str, Path]) -> set[str]:
        """What was answered before; counted."""
        names: set[str] = set()
        for kind, count in (("output", "completed"), ("error", "failed")):
            if paths[kind].exists():
                told = [str(decode(line)["custom_id"]) for line in batches.lines(paths[kind])]
                names.update(told)
                self._counts[count] = len(told)
        return names

    async def _one(self, line: dict[str, Any], output: IO[bytes], errors: IO[bytes]) -> None:
        status, headers, body = await self._answered(msgspec.json.encode(line["body"]))
        record = headers.get(b"x-suffice-record", b"").decode()
        told: dict[str, Any] = {"id": f"batch_req_{record}", "custom_id": line["custom_id"]}
        try:
            response = {"status_code": status, "request_id": record, "body": msgspec.json.decode(body)}
            told |= {"response": response, "error": None}
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            wrong = {"code": "no_answer", "message": f"status {status}, and a body that is not JSON"}
            told |= {"response": None, "error": wrong}
        good = status == 200 and told["error"] is None
        await asyncio.to_thread(_put, output if good else errors, told)
        self._counts["completed" if good else "failed"] += 1
        await self._count()

    async def _count(self) -> None:
        self._done += 1
        if self._done % TELL_EVERY == 0 or time.time() >= self._document["expires_at"]:
            await self._say()

    async def _answered(self, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """Status, headers and body of one request's answer, asked again where it may be had later."""
        pause_s = PAUSE_S
        for left in range(TRIES - 1, -1, -1):
            status, headers, answer = await self._ask(body)
            if status not in AGAIN or not left or self._stop is not None:
                break
            with suppress(ValueError):
                pause_s = max(pause_s, float(headers.get(b"retry-after", b"0")))
            await asyncio.sleep(min(pause_s, LONGEST_S))
            pause_s *= 2
        return status, headers, answer

    async def _ask(self, body: bytes) -> tuple[int, dict[bytes, bytes], bytes]:
        """One request through the request path, as the batch's caller."""
        caller = self._caller()
        if caller is None:
            wrong = {"error": {"message": f"the key {self._key!r} is not valid any more", "code": "invalid_key"}}
            return 401, {}, msgspec.json.encode(wrong)
        told = self._document["suffice"]
        own = [(f"x-suffice-{name}".encode(), value.encode()) for name, value in told.items() if value]
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *own]
        path = self._document["endpoint"]
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "http_version": "1.1", "scheme": "http", "suffice.caller": caller,
        }  # fmt: skip
        status, answered = 500, {}
        chunks: list[bytes] = []
        sent = False

        async def receive() -> dict[str, Any]:
            nonlocal sent
            if sent:
                await asyncio.Event().wait()  # nobody hangs up
            sent = True
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            nonlocal status, answered
            if message["type"] == "http.response.start":
                status, answered = message["status"], dict(message["headers"])
            else:
                chunks.append(message.get("body", b""))

        try:
            await self._app(scope, receive, send)
        except Exception:  # noqa: BLE001 - a broken answer: the gateway has logged and recorded it
            status = 502
        return status, answered, b"".join(chunks)

    def _caller(self) -> Caller | None:
        if self._key is None:
            return None if self._access.required else ANYONE
        return self._access.named(self._key)

    async def _say(self, **values: Any) -> None:
        """Write how far it has come; hear whether it was cancelled."""
        told = {**values, "request_counts": dict(self._counts)}
        found = await asyncio.to_thread(batches.change, self._home, self._id, **told)
        if found is None or found["status"] == "cancelling":
            self._stop = "cancelled"
        elif time.time() >= found["expires_at"]:
            self._stop = "expired"
        if found is not None:
            self._document = found

    async def _end(self, paths: dict[str, Path]) -> None:
        await self._say()
        if self._stop is None:
            await self._say(status="finalizing", finalizing_at=int(time.time()))
        for kind, path in paths.items():
            if path.exists() and path.stat().st_size:
                named = self._document.get(f"{kind}_file_id") or batches.new_id(FILE)
                await self._say(**{f"{kind}_file_id": named})  # before it moves: who goes on finds it by its name
                await asyncio.to_thread(self._file, named, kind, path)
            path.unlink(missing_ok=True)
        status = self._stop or "completed"
        await self._say(status=status, **{f"{status}_at": int(time.time())})

    def _file(self, name: str, kind: str, path: Path) -> None:
        size = path.stat().st_size
        document = file_document(name, f"{self._id}_{kind}.jsonl", size, "batch_output")
        batches.save(self._home, schema.files, document, self._key)
        path.replace(batches.content(self._home, name))


def _put(file: IO[bytes], told: dict[str, Any]) -> None:
    file.write(msgspec.json.encode(told) + b"\n")
    file.flush()


def _request(text: bytes, endpoint: str, seen: set[str]) -> dict[str, Any]:
    """One line of a batch's file. Raises InputError in one sentence."""
    line = decode(text)
    if not isinstance(line, dict):
        raise InputError("not a JSON object")
    name, body = line.get("custom_id"), line.get("body")
    if not isinstance(name, str) or not name:
        raise InputError("`custom_id` is a text that tells the requests apart")
    if name in seen:
        raise InputError(f"`custom_id` {name[:100]!r} stands twice")
    if line.get("method", "POST") != "POST" or line.get("url") != endpoint:
        raise InputError(f"`method` is POST and `url` the batch's endpoint, {endpoint}")
    if not isinstance(body, dict):
        raise InputError("`body` is an object, the request's body")
    if body.get("stream"):
        raise InputError("`stream` has no place in a batch")
    return line


def _error(message: str, param: str | None = None, line: int | None = None) -> dict[str, Any]:
    return {"code": "invalid_batch", "message": message, "param": param, "line": line}


def _errors(wrong: list[dict[str, Any]]) -> dict[str, Any]:
    return {"object": "list", "data": wrong}
