"""`POST /v1/feedback`: a trusted answer for a record, from people or from a rule, or the task it belongs to.

What it is used for is not known here: it becomes a row beside the record, and learning and watching read that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from suffice.core.errors import InputError, StoreError
from suffice.core.values import checked, decode
from suffice.store import belongings, records
from suffice.store.home import Home
from suffice.store.records import Trusted
from suffice.wire import chat

MAX_BODY = 2**20
DRAINED = 4
"""How many times the limit a body that is too large is read on: most clients read no answer while they write."""
WAITS_S = (0.01, 0.02, 0.04, 0.08, 0.15, 0.3, 0.4)
"""Before looking again for a record: it is written some milliseconds after its answer."""
KINDS = ("human", "rule")
_KEYS = ("record", "reference", "kind", "task")

Endpoint = Callable[[Request], Awaitable[Response]]


class _Wrong(InputError):
    """Feedback that cannot be used, and the key that is to blame, if it is one."""

    def __init__(self, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True, slots=True)
class _Told:
    """What a body says of a record: what is right, and to which task it belongs (`has_task`; None: to none)."""

    record: str
    kind: str
    answer: Trusted | None
    has_task: bool
    task: str | None


class _TooLarge(Exception):
    """A body beyond the limit."""


def feedback(home: Home) -> Endpoint:
    """The endpoint on a home. It answers once the trusted answer is on the disk; what it says is in `docs/http.md`."""
    writing = asyncio.Semaphore(1)  # a database that is held by others must not take all threads

    async def add(told: _Told) -> bool | None:
        async with writing:
            return await asyncio.to_thread(_add, home, told)

    async def endpoint(request: Request) -> Response:
        try:
            told = _read(await _body(request))
            changed = await add(told)
            for wait_s in WAITS_S:
                if changed is not None:
                    break
                await asyncio.sleep(wait_s)
                changed = await add(told)
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        except _TooLarge:
            return _error(413, f"the request body is larger than {MAX_BODY // 2**20} MB", "body_too_large")
        except _Wrong as error:
            return _error(400, str(error), "invalid_request", error.key)
        except StoreError as error:
            return _error(503, str(error), "records_unavailable")
        if changed is None:
            return _error(404, f"`record`: there is no record {told.record[:100]!r}", "unknown_record", "record")
        said: dict[str, Any] = {"record": told.record, "kind": told.kind, "changed": changed}
        if told.has_task:
            said["task"] = told.task
        return Response(msgspec.json.encode(said), media_type="application/json")

    return endpoint


async def _body(request: Request) -> bytes:
    """The whole body. Raises _TooLarge."""
    body, size = b"", 0
    async for chunk in request.stream():
        size += len(chunk)
        body = body + chunk if size <= MAX_BODY else b""
        if size > DRAINED * MAX_BODY:
            break
    if size > MAX_BODY:
        raise _TooLarge
    return body


def _add(home: Home, told: _Told) -> bool | None:
    """Write down what was told; whether any of it is new, None if there is no such record. Raises _Wrong, StoreError.

    Told again it changes nothing, so one that failed half-way may be repeated.
    """
    changed: list[bool | None] = []
    if told.has_task:
        name = belongings.known_task(home, told.task) if told.task is not None else None
        if told.task is not None and name is None:
            raise _Wrong(f"`task`: there is no task {told.task[:100]!r}", "task")
        changed.append(belongings.add_belonging(home, told.record, name))
    if told.answer is not None:
        changed.append(records.add_trusted(home, told.answer))
    return None if None in changed else any(changed)


def _read(body: bytes) -> _Told:
    """What a body says. Raises _Wrong naming the key."""
    try:
        told: Any = decode(body)
    except InputError as error:
        raise _Wrong(f"the request body is {error}") from error
    if not isinstance(told, dict):
        raise _Wrong("the request body is JSON, but not an object")
    unknown = next((key for key in told if key not in _KEYS), None)
    if unknown is not None:
        raise _Wrong(f"{unknown[:100]!r} is no key of feedback: they are {', '.join(_KEYS)}", unknown[:100])
    if "record" not in told:
        raise _Wrong("`record` is missing from the request body", "record")
    if "reference" not in told and "task" not in told:
        raise _Wrong("`reference` is missing from the request body (or `task`)", "reference")
    record, kind, task = told["record"], told.get("kind", "human"), told.get("task")
    if not isinstance(record, str) or not record:
        raise _Wrong("`record` must be a record's id, a text (the header `X-Suffice-Record` of its answer)", "record")
    if not isinstance(kind, str) or kind not in KINDS:
        raise _Wrong("`kind` is human or rule", "kind")
    if task is not None and not isinstance(task, str):
        raise _Wrong("`task` is the name of a task, or null for none", "task")
    try:
        answer = Trusted(record, kind, checked(told["reference"], "reference")) if "reference" in told else None
    except InputError as error:
        raise _Wrong(str(error), "reference") from error
    return _Told(record, kind, answer, "task" in told, task)


def _error(status: int, message: str, code: str, key: str | None = None) -> Response:
    kind = "invalid_request_error" if status < 500 else "api_error"
    return Response(chat.error(message, code, kind, key), status, media_type="application/json")
