"""The relay's HTTP client against servers of every kind, over real sockets; it reads what `http.client` reads."""

from __future__ import annotations

import asyncio
import http.client
import socket
import ssl
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from suffice.serve.client import BrokenError, Client, ConnectError, ConnectTimeout, Origin

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\n"


async def head(reader: asyncio.StreamReader) -> bytes:
    return await reader.readuntil(b"\r\n\r\n")


@asynccontextmanager
async def served(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[tuple[Client, Origin]]:
    async def guarded(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(guarded, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    client = Client(5.0, 4.0)
    try:
        yield client, Origin.of(f"http{'s' if tls else ''}://localhost:{port}/v1")
    finally:
        await client.close()
        server.close()


def saying(*parts: bytes, stay: bool = True) -> Handler:
    """Answers each request with these bytes, written one by one; then stays, or hangs up."""

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            await head(reader)
            for part in parts:
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0)
            if not stay:
                return

    return handler


async def asked(client: Client, origin: Origin, method: str = "GET", **more: object) -> tuple[int, bytes]:
    async with asyncio.timeout(10):
        answer = await client.ask(origin, method, b"/x?y=z", [(b"a", b"b")], **more)  # type: ignore[arg-type]
        try:
            return answer.status, b"".join([piece async for piece in pieces(answer.read)])
        finally:
            answer.close()


async def pieces(read: Callable[[], Awaitable[bytes]]) -> AsyncIterator[bytes]:
    while piece := await read():
        yield piece


@pytest.mark.parametrize(
    "parts",
    [
        (OK + b"Content-Length: 5\r\n\r\nhello",),
        (OK, b"Content-Length: 5\r\n", b"\r\n", b"he", b"llo"),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",),
        (OK + b"Transfer-Encoding: chunked\r\n\r\n", b"2\r", b"\nhe\r\n3;x=y\r\nl", b"lo\r\n0\r\nTrailer: t\r\n\r\n"),
        (
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 103 Early\r\nlink: x\r\n\r\n" + OK,
            b"content-length: 5\r\n\r\nhello",
        ),
    ],
)
async def test_whole_answers_on_one_connection(parts: tuple[bytes, ...]) -> None:
    connections = 0
    inner = saying(*parts)

    async def counted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await inner(reader, writer)

    async with served(counted) as (client, origin):
        for _ in range(3):
            assert await asked(client, origin) == (200, b"hello")
    assert connections == 1


async def test_what_is_sent() -> None:
    seen: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            seen.append(await head(reader) + await reader.read(3))
            writer.write(OK + b"content-length: 0\r\n\r\n")

    async with served(handler) as (client, origin):
        await asked(client, origin, "POST", body=b"abc")
        host = f"localhost:{origin.port}".encode()
        assert seen == [b"POST /v1/x?y=z HTTP/1.1\r\nhost: " + host + b"\r\na: b\r\ncontent-length: 3\r\n\r\nabc"]
        for broken in ([(b"a", b"b\r\nc: d")], [(b"a\n", b"b")], [(b"a", b"\0")]):
            with pytest.raises(ValueError, match="breaks the line"):
                await client.ask(origin, "GET", b"/", broken)
        with pytest.raises(ValueError, match="breaks the line"):
            await client.ask(origin, "GET", b"/ HTTP/1.1\r\nx: y", [])


@pytest.mark.parametrize(
    ("parts", "begins"),
    [
        ((OK + b"content-length: 9\r\n\r\nhello",), True),
        ((OK + b"transfer-encoding: chunked\r\n\r\n9\r\nhello",), True),
        ((OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",), True),
        ((OK + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n",), True),
        ((b"",), False),
        ((b"HTTP/1.1 2",), False),
        ((b"hello\r\n\r\n",), False),
        ((b"HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",), False),
        ((OK + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello",), False),
        ((OK + b"content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",), False),
        ((OK + b"content-length: -5\r\n\r\nhello",), False),
        ((OK + b"x: " + b"y" * 200_000 + b"\r\n\r\n",), False),
        ((OK + b"bad header\r\n\r\n",), False),
    ],
)
async def test_what_is_no_whole_answer_is_told_and_never_looks_whole(parts: tuple[bytes, ...], begins: bool) -> None:
    async with served(saying(*parts, stay=False)) as (client, origin), asyncio.timeout(10):
        if not begins:
            with pytest.raises(BrokenError):
                await client.ask(origin, "GET", b"/", [])
            return
        answer = await client.ask(origin, "GET", b"/", [])
        with pytest.raises(BrokenError):
            async for piece in pieces(answer.read):
                assert b"hello".startswith(piece)
        answer.close()


async def test_a_body_without_length_ends_with_its_connection() -> None:
    async with served(saying(OK + b"\r\nhel", b"lo", stay=False)) as (client, origin):
        assert await asked(client, origin) == (200, b"hello")


async def test_more_than_was_asked_for_is_nobodys_answer() -> None:
    """A server that says more than its answer must not have it taken for the next request's."""
    smuggled = OK + b"content-length: 2\r\n\r\nok" + OK + b"content-length: 4\r\n\r\nevil"
    async with served(saying(smuggled)) as (client, origin):
        for _ in range(3):
            assert await asked(client, origin) == (200, b"ok")


@pytest.mark.parametrize("status", [204, 304])
async def test_answers_without_a_body(status: int) -> None:
    async with served(saying(b"HTTP/1.1 %d X\r\n\r\n" % status)) as (client, origin):
        assert [await asked(client, origin) for _ in range(2)] == [(status, b"")] * 2
    async with served(saying(OK + b"content-length: 5\r\n\r\n")) as (client, origin):
        assert [await asked(client, origin, "HEAD") for _ in range(2)] == [(200, b"")] * 2


async def test_events_come_as_they_were_cut_and_at_once() -> None:
    gate = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(OK + b"Content-Type: text/event-stream; charset=utf-8\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"6\r\ndata:1\r\n6\r\ndata:2\r\n")
        await gate.wait()
        writer.write(b"6\r\ndat")
        await writer.drain()
        await asyncio.sleep(0.05)
        writer.write(b"a:3\r\n0\r\n\r\n")

    async with served(handler) as (client, origin), asyncio.timeout(10):
        answer = await client.ask(origin, "GET", b"/", [])
        assert answer.streamed and answer.length is None
        assert [await answer.read(), await answer.read()] == [b"data:1", b"data:2"]
        gate.set()
        assert b"".join([piece async for piece in pieces(answer.read)]) == b"data:3"
        answer.close()


async def test_a_slow_reader_holds_the_server_back() -> None:
    size, written = 64 * 2**20, 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal written
        await head(reader)
        writer.write(OK + b"content-length: %d\r\n\r\n" % size)
        for _ in range(size // 2**16):
            writer.write(bytes(2**16))
            await writer.drain()
            written += 2**16

    async with served(handler) as (client, origin), asyncio.timeout(30):
        answer = await client.ask(origin, "GET", b"/", [])
        last = -1
        while written != last:
            last = written
            await asyncio.sleep(0.1)
        assert written < size // 4, "what nobody reads must not pile up"
        assert sum([len(piece) async for piece in pieces(answer.read)]) == size
        answer.close()


async def test_leaving_early_closes_and_the_next_request_is_whole() -> None:
    gone = asyncio.Event()

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if b"/x" in await head(reader):
            writer.write(OK + b"content-length: 5\r\n\r\nhello")
            await reader.read()
            return
        writer.write(OK + b"content-length: 100\r\n\r\nhello")
        assert await reader.read() == b""
        gone.set()

    async with served(handler) as (client, origin), asyncio.timeout(10):
        answer = await client.ask(origin, "GET", b"/", [])
        assert await answer.read() == b"hello"
        answer.close()
        await gone.wait()
        assert await asked(client, origin) == (200, b"hello")
        begun = asyncio.ensure_future(client.ask(origin, "GET", b"/slow", []))
        await asyncio.sleep(0.05)
        begun.cancel()
        with pytest.raises((asyncio.CancelledError, BrokenError)):
            (await begun).close()
            raise BrokenError("it was answered before")
        assert await asked(client, origin) == (200, b"hello")


async def test_a_connection_that_the_server_closed_is_not_used_again() -> None:
    async with served(saying(OK + b"content-length: 2\r\n\r\nok", stay=False)) as (client, origin):
        for _ in range(5):
            assert await asked(client, origin) == (200, b"ok")
            await asyncio.sleep(0.02)
    async with served(saying(OK + b"connection: close\r\ncontent-length: 2\r\n\r\nok")) as (client, origin):
        assert [await asked(client, origin) for _ in range(3)] == [(200, b"ok")] * 3


@pytest.mark.parametrize("length", [None, 300_000])
async def test_a_body_in_pieces(length: int | None) -> None:
    got: list[bytes] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await head(reader)
        got.append(first)
        body = b""
        while len(body) < 300_000:
            if length is None:
                size = int(await reader.readline(), 16)
                body += await reader.readexactly(size)
                await reader.readline()
            else:
                body += await reader.read(70_000)
        got.append(body)
        writer.write(OK + b"content-length: 2\r\n\r\nok")

    async def body() -> AsyncIterator[bytes]:
        for i in range(30):
            yield bytes([i]) * 10_000

    async with served(handler) as (client, origin):
        assert await asked(client, origin, "PUT", body=body(), length=length) == (200, b"ok")
    assert got[1] == b"".join(bytes([i]) * 10_000 for i in range(30))
    assert (b"transfer-encoding: chunked" if length is None else b"content-length: 300000") in got[0]


async def test_an_answer_before_all_was_sent() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await head(reader)
        writer.write(b"HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno")
        await asyncio.sleep(0.2)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)
            await asyncio.sleep(0.001)

    async with served(handler) as (client, origin):
        assert await asked(client, origin, "POST", body=endless()) == (413, b"no")


async def test_no_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    client = Client(0.2, 4.0)
    with pytest.raises(ConnectError, match=f"refused.*{port}|{port}"):
        await client.ask(Origin.of(f"http://127.0.0.1:{port}"), "GET", b"/", [])
    with pytest.raises(ConnectError):
        await client.ask(Origin.of("http://name.invalid"), "GET", b"/", [])
    with socket.socket() as full:  # it listens, and nobody ever accepts
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        with pytest.raises(ConnectTimeout):
            await client.ask(Origin.of(f"http://127.0.0.1:{full.getsockname()[1]}"), "GET", b"/", [])
        for one in waiting:
            one.close()
    await client.close()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    made = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "1",
            "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "key", "-out", folder / "cert"]  # fmt: skip
    subprocess.run([str(part) for part in made], check=True, capture_output=True)
    return folder


async def test_tls_is_checked(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate / "cert", certificate / "key")
    async with served(saying(OK + b"content-length: 2\r\n\r\nok"), tls) as (client, origin):
        with pytest.raises(ConnectError, match="certificate"):
            await asked(client, origin)
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "cert"))
        trusting = Client(5.0, 4.0)
        assert [await asked(trusting, origin) for _ in range(2)] == [(200, b"ok")] * 2
        with pytest.raises(ConnectError, match="certificate"):
            await asked(trusting, origin._replace(host="127.0.0.1"))
        await trusting.close()


@contextmanager
def canned(data: bytes) -> Iterator[int]:
    """A server that says these bytes to each connection, and hangs up."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        stopping = False

        def run() -> None:
            while not stopping:
                connection, _ = server.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(data)

        thread = threading.Thread(target=run, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        stopping = True
        socket.create_connection(server.getsockname()).close()
        thread.join(5)


CHUNKS = st.lists(st.binary(min_size=1, max_size=300), max_size=5)


@settings(max_examples=60, deadline=None)
@given(chunks=CHUNKS, framing=st.sampled_from(["length", "chunked", "end"]), cut=st.integers(0, 40))
def test_what_it_reads_is_what_the_standard_library_reads(chunks: list[bytes], framing: str, cut: int) -> None:
    body = b"".join(chunks)
    if framing == "length":
        data = OK + b"content-length: %d\r\n\r\n" % len(body) + body
    elif framing == "chunked":
        coded = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
        data = OK + b"transfer-encoding: chunked\r\n\r\n" + coded + b"0\r\n\r\n"
    else:
        data = OK + b"\r\n" + body
    if framing == "chunked" and 0 < cut < 5:
        cut = 5  # the standard library does not mind if the end of the end is missing
    data = data[: len(data) - cut] if cut < len(data) - 60 else data

    async def ours(port: int) -> bytes | None:
        client = Client(5.0, 4.0)
        try:
            return (await asked(client, Origin.of(f"http://127.0.0.1:{port}")))[1]
        except BrokenError:
            return None
        finally:
            await client.close()

    with canned(data) as port:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.request("GET", "/")
        theirs: bytes | None
        try:
            theirs = connection.getresponse().read()
        except (http.client.HTTPException, ValueError):
            theirs = None
        connection.close()
        assert asyncio.run(ours(port)) == theirs
