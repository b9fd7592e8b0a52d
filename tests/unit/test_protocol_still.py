"""A request that stands still is dropped; one that goes on, or waits for its answer, is not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import uvicorn

from suffice.serve import protocol


async def _app(scope: Any, receive: Any, send: Any) -> None:
    if scope["path"] == "/slow":
        await asyncio.sleep(1.0)
    while (message := await receive())["type"] == "http.request" and message["more_body"]:
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


async def _said(port: int, pieces: list[bytes], pause_s: float) -> bytes:
    """What comes back until the server closes, within three seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(3):
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(pause_s)
            return await reader.read()
    except ConnectionError:  # it was closed while this side still wrote
        return b""
    finally:
        writer.close()


HEAD = b"POST /%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


async def test_what_stands_still_is_closed_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "STILL_S", 0.3)
    config = uvicorn.Config(_app, port=0, http=protocol.Protocol, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    dripped = [b"X-%d: y\r\n" % n for n in range(20)]
    stalled, silent, drips, body, slow = await asyncio.gather(
        _said(port, [HEAD % (b"", 10) + b"{"], 0),
        _said(port, [], 0),
        _said(port, [b"GET / HTTP/1.1\r\n", *dripped], 0.1),
        _said(port, [HEAD % (b"", 10), *[b"x"] * 10], 0.1),
        _said(port, [HEAD % (b"slow", 0)], 0),
    )
    server.should_exit = True
    await serving
    assert (stalled, silent, drips) == (b"", b"", b"")
    assert body.endswith(b"ok") and slow.endswith(b"ok")
