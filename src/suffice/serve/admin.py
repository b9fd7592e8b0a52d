"""The admin API, `/admin/v1`: what the command line does, for those with an admin key.

    who asks -> is it written down? -> the command line -> a process of its own -> its document, its lines, or a job

A command runs as `suffice COMMAND --json` beside the gateway, never in it: what it does to memory and to the event loop
is its own affair. Exit 0 and 1 are a 200 that names the exit, 2 is a 400 with the sentence that a terminal would show.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from suffice.core.errors import InputError, StoreError
from suffice.serve import openapi
from suffice.serve.access import Caller
from suffice.serve.calls import Calls
from suffice.serve.commands import NAME, Command, Wrong, line
from suffice.serve.edges import Receive, Refused, Scope, Send, error_response
from suffice.serve.jobs import Busy, Jobs
from suffice.serve.learning import ONE_THREAD

log = logging.getLogger(__name__)

ROOT = "/admin/v1"
FILES = "uploads"
MAX_BODY = 2**20
MAX_FILE = 2**30
MAX_FILES = 8 * 2**30
"""Bytes of all uploaded files of a home."""
MAX_OUT = 64 * 2**20
UNKEPT = frozenset({"containing", "group", "session"})
"""Parameters whose values may be about a person: whoever is erased must not live on in what says so."""
AT_ONCE = 4
WAITING = 16
WITHIN_S = 120.0
NICE = 10
_SAFE = {"x-content-type-options": "nosniff", "cache-control": "no-store"}

Handler = Callable[[Request], Any]


class Admin:
    """The routes as a Starlette application, `app`. `admit` is the door (raises Refused); `suffice` the command line's
    beginning, `own` the home's options; `commands` is asked once, when the first call comes."""

    def __init__(
        self,
        home: Path,
        admit: Callable[[Iterable[tuple[bytes, bytes]]], Caller],
        commands: Callable[[], Sequence[Command]],
        suffice: Sequence[str],
        own: Sequence[str],
    ) -> None:
        self._home, self._admit, self._load = home, admit, commands
        self._suffice, self._own = suffice, own
        self._files, self._jobs, self._calls = home / FILES, Jobs(home), Calls(home)
        self._places, self._waiting = asyncio.Semaphore(AT_ONCE), 0
        self._app = Starlette(
            routes=[
                self._route("/openapi.json", self._openapi, "GET"),
                self._route("/calls", self._listed_calls, "GET"),
                self._route("/jobs", self._listed_jobs, "GET"),
                self._route("/jobs/{id}", self._job, "GET"),
                self._route("/jobs/{id}", self._cancel, "DELETE", audited=True),
                self._route("/files", self._listed_files, "GET"),
                self._route("/files/{name}", self._upload, "PUT", audited=True),
                self._route("/files/{name:path}", self._download, "GET", audited=True),
                self._route("/files/{name}", self._delete, "DELETE", audited=True),
                self._route("/{path:path}", self._command, "POST", audited=True),
                self._route("/{path:path}", self._nothing, "GET"),
            ],
            exception_handlers={404: _no_route, 405: _no_route},
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI, for paths below `ROOT`."""
        await self._app(scope, receive, send)  # type: ignore[arg-type]

    @cached_property
    def _commands(self) -> dict[str, Command]:
        return {"/".join(command.path): command for command in self._load()}

    def _route(self, path: str, handler: Handler, method: str, audited: bool = False) -> Route:
        async def endpoint(request: Request) -> Response:
            try:
                caller = self._admit(request.scope["headers"])
            except Refused as error:
                return _safe(error_response(error))
            request.state.by = caller.name
            if not audited:
                return _safe(await _answered(handler, request))
            try:
                call = await asyncio.to_thread(self._calls.began, caller.name, f"{method} {request.url.path}")
            except OSError as error:
                return _safe(_error(503, f"the call cannot be written down: {error.strerror}", "unavailable"))
            request.state.call = call
            response = _safe(await _answered(handler, request))
            await asyncio.to_thread(self._calls.ended, call, response.status_code)
            return response

        return Route(ROOT + path, endpoint, methods=[method])

    # ------------------------------------------------------------------------------------------ commands

    async def _command(self, request: Request) -> Response:
        commands = await asyncio.to_thread(lambda: self._commands)
        command = commands.get(request.path_params["path"])
        if command is None:
            raise Refused(f"{request.method} {request.url.path[:200]} is not served here", 404, "not_found")
        body = _object(await _whole(request, MAX_BODY))
        kept = {key: value if key not in UNKEPT else "(not kept)" for key, value in body.items()}
        await asyncio.to_thread(self._calls.told, request.state.call, kept)
        await asyncio.to_thread(self._files.mkdir, exist_ok=True)
        words = await asyncio.to_thread(line, command, body, self._files)
        full = [*self._suffice, *command.path, *self._own, "--json", *words]
        if command.answers == "job":
            try:
                job = await asyncio.to_thread(self._jobs.start, command.name, full, request.state.by)
            except Busy as error:
                raise Refused(str(error), 429, "busy", headers=[(b"retry-after", b"30")]) from error
            return _json(job, 202, {"location": f"{ROOT}/jobs/{job['id']}"})
        if self._waiting >= WAITING:
            raise Refused("too many commands are waiting: try again", 429, "busy", headers=[(b"retry-after", b"5")])
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        if command.answers == "lines":
            return await self._lines(full)  # gives the place back when it has ended
        try:
            return await self._once(full)
        finally:
            self._places.release()

    async def _once(self, full: Sequence[str]) -> Response:
        process = await _started(full)
        try:
            async with asyncio.timeout(WITHIN_S):
                out, err = await process.communicate()
        except TimeoutError as error:
            raise Refused(f"the command took longer than {WITHIN_S:g} s and was ended", 504, "timeout") from error
        finally:
            await _ended(process)
        if process.returncode not in (0, 1):
            raise _said(process.returncode, err)
        if len(out) > MAX_OUT:
            raise Refused("the document is too large to be told", 500, "too_large")
        try:
            document = msgspec.json.decode(out) if out.strip() else None
        except msgspec.DecodeError:  # it prints lines here
            document = [msgspec.json.decode(one) for one in out.splitlines()]
        return _json({"exit": process.returncode, "document": document})

    async def _lines(self, full: Sequence[str]) -> Response:
        process: asyncio.subprocess.Process | None = None
        try:
            process = await _started(full)
            assert process.stdout is not None and process.stderr is not None
            err = asyncio.ensure_future(process.stderr.read())
            first = await process.stdout.read(65_536)
            if not first and await process.wait() not in (0, 1):
                raise _said(process.returncode, await err)
        except BaseException:
            self._places.release()
            if process is not None:
                await _ended(process)
            raise
        return StreamingResponse(self._rest(process, first), media_type="application/jsonl")

    async def _rest(self, process: asyncio.subprocess.Process, first: bytes) -> AsyncIterator[bytes]:
        """What a command prints, as it prints it. Raises where it fails on its way: a part must not look whole."""
        assert process.stdout is not None
        try:
            yield first
            while some := await process.stdout.read(65_536):
                yield some
            if await process.wait() not in (0, 1):
                raise StoreError("the command failed on its way")
        finally:
            self._places.release()
            await _ended(process)

    # ------------------------------------------------------------------------------------------ jobs, files, calls

    async def _listed_jobs(self, request: Request) -> Response:
        return _json({"jobs": await asyncio.to_thread(self._jobs.all)})

    async def _job(self, request: Request) -> Response:
        return _found(await asyncio.to_thread(self._jobs.get, request.path_params["id"]), "job")

    async def _cancel(self, request: Request) -> Response:
        return _found(await asyncio.to_thread(self._jobs.cancel, request.path_params["id"]), "job")

    async def _listed_calls(self, request: Request) -> Response:
        return _json({"calls": await asyncio.to_thread(self._calls.newest)})

    async def _listed_files(self, request: Request) -> Response:
        return _json({"files": await asyncio.to_thread(_listed, self._files)})

    async def _upload(self, request: Request) -> Response:
        file = self._named(request)
        await asyncio.to_thread(self._files.mkdir, exist_ok=True)
        room = MAX_FILES - sum(one["bytes"] for one in await asyncio.to_thread(_listed, self._files))
        limit, size = min(MAX_FILE, room), 0
        passing = file.with_name(f".{file.name}.{os.getpid()}.{id(request)}")
        try:
            with await asyncio.to_thread(passing.open, "wb") as opened:
                async for some in request.stream():
                    size += len(some)
                    if size > limit:
                        raise Refused(f"the file is larger than {limit:,} bytes", 413, "body_too_large")
                    await asyncio.to_thread(opened.write, some)
            await asyncio.to_thread(passing.replace, file)
        finally:
            passing.unlink(missing_ok=True)
        return _json({"name": file.name, "bytes": size}, 201)

    async def _download(self, request: Request) -> Response:
        file = self._named(request)
        try:
            opened = await asyncio.to_thread(file.open, "rb")
        except (FileNotFoundError, IsADirectoryError) as error:
            raise Refused(f"there is no file {file.name!r}", 404, "not_found") from error

        async def chunks() -> AsyncIterator[bytes]:
            with opened:
                while some := await asyncio.to_thread(opened.read, 2**18):
                    yield some

        return StreamingResponse(chunks(), media_type="application/octet-stream")

    async def _delete(self, request: Request) -> Response:
        file = self._named(request)
        try:
            await asyncio.to_thread(file.unlink)
        except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
            raise Refused(f"there is no file {file.name!r}", 404, "not_found") from error
        return _json({"name": file.name, "deleted": True})

    def _named(self, request: Request) -> Path:
        name: str = request.path_params["name"]
        if not all(map(NAME.fullmatch, name.split("/"))):
            raise Wrong("a file's name is 1 to 100 letters, digits, dots, dashes or underscores", "name")
        return self._files / name

    async def _openapi(self, request: Request) -> Response:
        commands = await asyncio.to_thread(lambda: self._commands)
        return _json(openapi.document(list(commands.values())))

    async def _nothing(self, request: Request) -> Response:
        raise Refused(f"{request.method} {request.url.path[:200]} is not served here", 404, "not_found")


# ---------------------------------------------------------------------------------------------- small steps


async def _answered(handler: Handler, request: Request) -> Response:
    """What a handler answers; what it raises, as an error."""
    try:
        response: Response = await handler(request)
    except Refused as error:
        return error_response(error)
    except ClientDisconnect:
        return Response(status_code=400)  # nobody reads it
    except InputError as error:
        return _error(400, str(error), "invalid_request", getattr(error, "param", None))
    except (StoreError, OSError) as error:
        log.error("%s %s failed: %s", request.method, request.url.path, error)
        return _error(503, str(error), "unavailable")
    return response


async def _started(full: Sequence[str]) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        *full,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, **ONE_THREAD},
    )
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, process.pid, NICE)
    return process


async def _ended(process: asyncio.subprocess.Process) -> None:
    """End it if it runs still: whoever asked is gone, or does not wait any longer."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def _said(code: int | None, err: bytes) -> Refused:
    """What a command that failed has said: exit 2 is the caller's to mend, anything else is not."""
    lines = err.decode("utf-8", "replace").strip().splitlines()
    sentence = lines[-1].removeprefix("suffice: ") if lines else f"the command ended with {code}"
    if code == 2:
        return Refused(sentence, 400, "invalid_request")
    log.error("a command of the admin API ended with %s: %s", code, sentence)
    return Refused(f"the command ended with {code}; see the log", 503, "command_failed")


async def _whole(request: Request, limit: int) -> bytes:
    body = b""
    async for some in request.stream():
        body += some
        if len(body) > limit:
            raise Refused(f"the request body is larger than {limit // 2**20} MB", 413, "body_too_large")
    return body


def _object(body: bytes) -> dict[str, Any]:
    if not body.strip():
        return {}
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Wrong(f"the request body is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise Wrong("the request body is not a JSON object")
    return found


def _listed(folder: Path) -> list[dict[str, Any]]:
    if not folder.is_dir():
        return []
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return [{"name": str(file.relative_to(folder)), "bytes": file.stat().st_size} for file in files]


def _found(document: dict[str, Any] | None, what: str) -> Response:
    if document is None:
        raise Refused(f"there is no such {what}", 404, "not_found")
    return _json(document)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(document), status, headers, "application/json")


def _error(status: int, message: str, code: str, param: str | None = None) -> Response:
    return error_response(Refused(message, status, code, param))


def _safe(response: Response) -> Response:
    response.headers.update(_SAFE)
    return response


async def _no_route(request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    headers = [(key.encode(), value.encode()) for key, value in (getattr(error, "headers", None) or {}).items()]
    sentence = f"{request.method} {request.url.path[:200]} is not served here"
    return _safe(error_response(Refused(sentence, status, "not_found", headers=headers)))
