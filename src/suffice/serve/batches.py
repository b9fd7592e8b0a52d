"""`/v1/batches` and the files they read and write, as the vendor defines them.

A batch runs here, with specialists answering first (`batching`); where `[batches] run = "upstream"` all of this is
passed on instead. Files of another purpose than `batch`, and ids that are not ours, are the upstream's.
"""

from __future__ import annotations

import asyncio
import logging
import re
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import IO, Any

import msgspec
from python_multipart import parse_form
from python_multipart.exceptions import FormParserError
from sqlalchemy.exc import DBAPIError
from starlette.requests import Request as HttpRequest
from starlette.responses import FileResponse, Response

from suffice.core.config import Batches as Settings
from suffice.core.errors import InputError
from suffice.core.values import decode
from suffice.serve.access import Access, Caller
from suffice.serve.edges import Gone, OurHeaders, Receive, Refused, Scope, Send, error_response, whole_body
from suffice.store import batches, schema
from suffice.store.batches import BATCH, FILE
from suffice.store.home import Home
from suffice.wire import dialects

log = logging.getLogger(__name__)

HOURS_S = 3600.0
MAX_DOCUMENT = 2**20
PIECE = 2**16
MOST_ON_A_PAGE = 100
_WINDOW = re.compile(r"([1-9]\d{0,2})h")
_PATHS = re.compile(r"/v1/(files|batches)(?:/([^/]+))?(?:/(content|cancel))?/?")

Handler = Callable[[Scope, Receive, Caller], Awaitable[Response]]


class Batches:
    """The endpoints. `endpoints` are the paths whose requests a batch may hold."""

    def __init__(self, home: Home, settings: Settings, access: Access) -> None:
        self._home, self._settings, self._access = home, settings, access
        self._endpoints = {f"/v1{dialect.path}" for dialect in dialects.DIALECTS.values()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """Answer what is ours; None then. Else what the body is to be received from by whoever answers instead."""
        path = _PATHS.fullmatch(scope["path"])
        if path is None or self._settings.run != "here":
            return receive
        kind, name, what = path.groups()
        try:
            self._access.look_at(scope)
            handler = self._handler(scope["method"], kind, name, what)
            if handler is None:
                if kind == "files" and name is None and scope["method"] == "POST":
                    return await self._uploaded(scope, receive, send)
                return receive
            response = await handler(scope, receive, self._access.admit(scope["headers"]))
        except Gone:
            return None
        except Refused as error:
            response = error_response(error)
        except (OSError, DBAPIError) as error:
            log.error("%s %s failed: %s", scope["method"], scope["path"], error)
            response = error_response(Refused("files and batches cannot be written or read now", 503, "unavailable"))
        await response(scope, receive, send)  # type: ignore[arg-type]
        return None

    def _handler(self, method: str, kind: str, name: str | None, what: str | None) -> Handler | None:
        """Who answers; None where it is not for us to answer."""
        if kind == "batches":
            if name is None and what is None:
                made: dict[str, Handler] = {"POST": self._create, "GET": partial(self._list, schema.batches)}
                return made.get(method)
            if name is None or not name.startswith(BATCH):
                return None
            if what == "cancel" and method == "POST":
                return partial(self._cancel, name)
            return partial(self._get, schema.batches, name) if method == "GET" and what is None else None
        if name is None:
            return None
        if not name.startswith(FILE):
            return None
        if what == "content" and method == "GET":
            return partial(self._content, name)
        if what is not None:
            return None
        by: dict[str, Handler] = {"GET": partial(self._get, schema.files, name), "DELETE": partial(self._delete, name)}
        return by.get(method)

    # -- files

    async def _uploaded(self, scope: Scope, receive: Receive, send: Send) -> Receive | None:
        """A file sent: ours if it is for a batch, else what the upstream is to receive."""
        headers = dict(scope["headers"])
        limit = int(self._settings.max_file_mb * 2**20)
        if int(headers.get(b"content-length", b"0")) > limit + PIECE:
            return receive  # no batch's file is so large
        caller = self._access.admit(scope["headers"])
        spool: IO[bytes] = tempfile.TemporaryFile(dir=batches.folder(self._home))  # noqa: SIM115 - it may be relayed
        try:
            await self._taken(receive, spool, limit)
            made = await asyncio.to_thread(self._made, spool, headers, caller.name)
        except BaseException:  # whoever leaves, or is refused, leaves no file open
            spool.close()
            raise
        if made is None:
            scope["suffice.caller"] = caller  # who passes it on need not be asked for twice
            return _replay(spool, receive)
        spool.close()
        await _json(made)(scope, receive, send)  # type: ignore[arg-type]
        return None

    async def _taken(self, receive: Receive, spool: IO[bytes], limit: int) -> None:
        """Take the body in as it comes. Raises Refused (413) beyond the limit, Gone, OSError."""
        size = 0
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Gone
            size += len(message.get("body", b""))
            if size > limit + PIECE:
                raise Refused(
                    f"the file is larger than {self._settings.max_file_mb:g} MB (batches.max_file_mb)",
                    413,
                    "body_too_large",
                )
            await asyncio.to_thread(spool.write, message.get("body", b""))
            more = message.get("more_body", False)

    def _made(self, spool: IO[bytes], headers: dict[bytes, bytes], key: str | None) -> dict[str, Any] | None:
        """The document of a file that was sent for a batch, once it is on the disk; None if it is for no batch."""
        spool.seek(0)
        fields: dict[bytes, bytes] = {}
        sent: list[Any] = []
        told = {"Content-Type": headers.get(b"content-type", b"")}
        try:
            parse_form(
                told, spool, lambda field: fields.update({field.field_name or b"": field.value or b""}), sent.append
            )
            if fields.get(b"purpose") != b"batch":
                return None
            file = next((one for one in sent if one.field_name == b"file"), None)
            if file is None:
                raise Refused("`file` is missing from the form", 400, "invalid_request", "file")
            return self._saved(file, key)
        except (FormParserError, ValueError) as error:
            raise Refused(f"the body is no form with a file: {error}", 400, "invalid_request") from error
        finally:
            for one in sent:
                one.close()

    def _saved(self, file: Any, key: str | None) -> dict[str, Any]:
        """A file of a form, put among the home's; its document."""
        name = batches.new_id(FILE)
        content = batches.content(self._home, name)
        file.file_object.seek(0)
        size = 0
        try:
            with content.open("xb") as out:
                while piece := file.file_object.read(PIECE):
                    size += out.write(piece)
            document = file_document(name, (file.file_name or b"batch.jsonl").decode("utf-8", "replace"), size, "batch")
            batches.save(self._home, schema.files, document, key)
        except BaseException:  # a full disk, say: what nobody knows of must not lie there
            content.unlink(missing_ok=True)
            raise
        return document

    async def _content(self, name: str, scope: Scope, receive: Receive, caller: Caller) -> Response:
        await self._found(schema.files, name, caller)
        return FileResponse(batches.content(self._home, name), media_type="application/octet-stream")

    async def _delete(self, name: str, scope: Scope, receive: Receive, caller: Caller) -> Response:
        await self._found(schema.files, name, caller)
        await asyncio.to_thread(batches.drop, self._home, name)
        return _json({"id": name, "object": "file", "deleted": True})

    # -- batches

    async def _create(self, scope: Scope, receive: Receive, caller: Caller) -> Response:
        asked = _object(await whole_body(receive, MAX_DOCUMENT))
        file, endpoint = asked.get("input_file_id"), asked.get("endpoint")
        if not isinstance(file, str):
            raise Refused(
                "`input_file_id` is the id of a file sent with purpose `batch`", 400, "bad_batch", "input_file_id"
            )
        if not file.startswith(FILE):
            raise Refused(
                f"file {file[:100]!r} is not here: send it to this gateway with purpose `batch`", 400, "bad_batch",
                "input_file_id",
            )  # fmt: skip
        if endpoint not in self._endpoints:
            known = ", ".join(sorted(self._endpoints))
            raise Refused(f"`endpoint` is one of {known}", 400, "bad_batch", "endpoint")
        window = _WINDOW.fullmatch(str(asked.get("completion_window", "24h")))
        if window is None:
            raise Refused("`completion_window` is a number of hours, like `24h`", 400, "bad_batch", "completion_window")
        metadata = asked.get("metadata")
        if metadata is not None and not isinstance(metadata, dict):
            raise Refused("`metadata` is an object", 400, "bad_batch", "metadata")
        await self._found(schema.files, file, caller)
        headers = OurHeaders(scope["headers"])
        now = int(time.time())
        document = {
            "id": batches.new_id(BATCH),
            "object": "batch",
            "endpoint": endpoint,
            "errors": None,
            "input_file_id": file,
            "completion_window": window[0],
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": now,
            "expires_at": now + int(int(window[1]) * HOURS_S),
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": metadata,
            "suffice": {"task": headers.task, "session": headers.session, "group": headers.group},
        }
        await asyncio.to_thread(batches.save, self._home, schema.batches, document, caller.name)
        return _json(document)

    async def _cancel(self, name: str, scope: Scope, receive: Receive, caller: Caller) -> Response:
        await self._found(schema.batches, name, caller)
        now = int(time.time())
        found = await asyncio.to_thread(batches.change, self._home, name, status="cancelling", cancelling_at=now)
        return _json(found)

    async def _get(self, table: Any, name: str, scope: Scope, receive: Receive, caller: Caller) -> Response:
        return _json(await self._found(table, name, caller))

    async def _list(self, table: Any, scope: Scope, receive: Receive, caller: Caller) -> Response:
        asked = HttpRequest(scope).query_params
        limit = asked.get("limit", "20")
        if not limit.isdecimal() or not 1 <= int(limit) <= MOST_ON_A_PAGE:
            raise Refused(f"`limit` is a number from 1 to {MOST_ON_A_PAGE}", 400, "invalid_request", "limit")
        after = asked.get("after")
        found = await asyncio.to_thread(batches.page, self._home, table, caller.name, after, int(limit))
        page, more = found[: int(limit)], len(found) > int(limit)
        edges = {"first_id": page[0]["id"], "last_id": page[-1]["id"]} if page else {"first_id": None, "last_id": None}
        return _json({"object": "list", "data": page, **edges, "has_more": more})

    async def _found(self, table: Any, name: str, caller: Caller) -> dict[str, Any]:
        """A document of this caller's. Raises Refused (404): another's is as if it were not there."""
        found = await asyncio.to_thread(batches.get, self._home, table, name)
        if found is None or found[1] != caller.name:
            raise Refused(
                f"there is no {'file' if table is schema.files else 'batch'} {name[:100]!r}", 404, "not_found"
            )
        return found[0]


def file_document(name: str, filename: str, size: int, purpose: str) -> dict[str, Any]:
    """A file as the vendor's SDKs read it."""
    return {
        "id": name,
        "object": "file",
        "bytes": size,
        "created_at": int(time.time()),
        "filename": Path(filename).name[:200],
        "purpose": purpose,
        "status": "processed",
    }


def _object(body: bytes) -> dict[str, Any]:
    try:
        told = decode(body)
    except InputError as error:
        raise Refused(f"the request body is {error}", 400, "invalid_request") from error
    if not isinstance(told, dict):
        raise Refused("the request body is JSON, but not an object", 400, "invalid_request")
    return told


def _replay(spool: IO[bytes], receive: Receive) -> Receive:
    """What was read, to be received once more; then whatever comes."""
    spool.seek(0)
    over = False

    async def again() -> dict[str, Any]:
        nonlocal over
        if over:
            return await receive()
        body = await asyncio.to_thread(spool.read, PIECE)
        if len(body) < PIECE:
            over = True
            spool.close()
        return {"type": "http.request", "body": body, "more_body": not over}

    return again


def _json(document: Any) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")
