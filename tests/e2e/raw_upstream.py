"""An upstream on a raw socket: sends the bytes it is told, whatever they are; resets or goes silent where asked."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Literal

from e2e_support import completion

Step = bytes | Literal["reset", "close", "silence"]
"""Bytes to send; or how the connection ends: reset, closed, or left open without another byte."""


def http(status: int, body: bytes, *headers: str) -> bytes:
    """A whole HTTP answer."""
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(body)}", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def good(text: str = "hi") -> list[Step]:
    """A plain completion."""
    return [http(200, completion(text))]


class RawUpstream:
    """Keeps what came (head and body, as one), answers what `answer` says."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.answer: Callable[[bytes], Sequence[Step]] = lambda request: good()
        self._loop = asyncio.new_event_loop()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.port: int = self._socket.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop; further connections are refused."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(10)

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        self._stop, self._tasks = asyncio.Event(), set[asyncio.Task[None]]()
        server = await asyncio.start_server(self._accepted, sock=self._socket)
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while await self._one(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(
            (int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if b"content-length:" in line), 0
        )
        request = head + await reader.readexactly(length)
        self.seen.append(request)
        for step in self.answer(request):
            if isinstance(step, bytes):
                writer.write(step)
                await writer.drain()
            elif step == "reset":
                writer.transport.abort()
                return False
            elif step == "close":
                return False
            else:
                await reader.read()  # until the other side gives up
                return False
        return True
