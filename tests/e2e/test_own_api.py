"""The gateway's own API against its document, and raw bytes that are no request: no 5xx of our own making, no hang."""

from __future__ import annotations

import contextlib
import random
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from e2e_support import FakeUpstream, Gateway, chat, config, told, until

Serve = Callable[..., Gateway]
DOCUMENT = Path(__file__).parents[2] / "docs" / "openapi.json"
OWN = "^/(admin/v1/(?!keys|reload)|v1/feedback|healthz|readyz)"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
)
BODY = chat()
GOOD = (
    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
)


def test_the_document_tells_the_truth(serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    gateway = serve(config(upstream.url))
    key = told("keys", "create", "ops", "--admin", "--home", gateway.home)["key"]
    headers = {"Authorization": f"Bearer {key}"}
    until(lambda: gateway.ask("GET", "/admin/v1/jobs", None, headers).status == 200)
    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "schemathesis"), "run", str(DOCUMENT), "--url", gateway.url[:-3],
            "--include-path-regex", OWN, "-H", f"Authorization: Bearer {key}",
            "--phases", "coverage,fuzzing", "--max-time", "20", "--seed", "1", "--max-examples", "3", "--no-color",
            "--no-shrink", "--workers", "2", "--request-timeout", "20", "--generation-database", "none",
            "--suppress-health-check", "all", "--warnings", "off", "--continue-on-failure",
            "--checks", ",".join(CHECKS),
        ],
        capture_output=True, timeout=120, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout.decode()[-6000:]
    assert gateway.get("/readyz").status == 200 and "Traceback" not in gateway.log


def sent(gateway: Gateway, *pieces: bytes, wait_s: float = 5.0) -> bytes:
    """What comes back for these bytes, until the gateway closes or says nothing for a moment."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=wait_s) as link:
        back = b""
        with contextlib.suppress(OSError):
            for piece in pieces:
                link.sendall(piece)
            link.settimeout(0.3)
            while some := link.recv(65536):
                back += some
        return back


def statuses(back: bytes) -> list[int]:
    return [int(part[:3]) for part in back.split(b"HTTP/1.1 ")[1:] if part[:3].isdigit()]


def rss_mb(gateway: Gateway) -> float:
    status = Path(f"/proc/{gateway.process.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


def odd(rng: random.Random) -> bytes:
    """A request with something wrong somewhere."""
    good = bytearray(GOOD % (len(BODY), BODY))
    kind = rng.randrange(4)
    if kind == 0:
        for _ in range(rng.randrange(1, 8)):
            good[rng.randrange(len(good))] = rng.randrange(256)
        return bytes(good)
    if kind == 1:
        return bytes(good[: rng.randrange(len(good))])
    if kind == 2:
        place = rng.randrange(len(good))
        return bytes(good[:place] + rng.randbytes(rng.randrange(1, 40)) + good[place:])
    return rng.randbytes(rng.randrange(1, 400))


def test_bytes_that_are_no_request(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\n"
    plain = [
        head + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        head + b"Content-Length: -1\r\n\r\n",
        head + b"Content-Length: 99999999999999999999\r\n\r\n{}",
        head + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\n{}\r\n",
        head + b"Transfer-Encoding: nonsense\r\n\r\n{}",
        head + b"X-Suffice-Task: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        head + "X-Suffice-Task: t\u00e4sk\r\nContent-Length: 2\r\n\r\n{}".encode(),
        head + b"X-Suffice-Task: a\rX-Injected: b\r\nContent-Length: 2\r\n\r\n{}",
        head + b"X-Suffice-Task: \x00\r\nContent-Length: 2\r\n\r\n{}",
        head + b"X-Suffice-Task: a\r\nX-Suffice-Task: b\r\nContent-Length: 2\r\n\r\n{}",
        head + b"Authorization: Bearer \xff\xfe\r\nContent-Length: 2\r\n\r\n{}",
        head + b"Content-Length: 3\r\n\r\n\xff\xfe\xfd",
        b"GET /%00%ff%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://elsewhere.example/v1/models HTTP/1.1\r\nHost: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n",
        b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    ]
    rng = random.Random(7)
    for case in [*plain, *(odd(rng) for _ in range(60))]:
        found = statuses(sent(gateway, case))
        assert not [status for status in found if status >= 500], (case[:300], found)
    assert b"injected" not in b"".join(key for seen in upstream.seen for key, _ in seen.headers)

    before = rss_mb(gateway)
    for _ in range(20):
        back = sent(gateway, head, *[b"X-Filler-%d: %s\r\n" % (n, b"y" * 8000) for n in range(200)], b"\r\n")
        assert not [status for status in statuses(back) if status >= 500]
    piped = statuses(sent(gateway, (GOOD % (len(BODY), BODY)) * 30, wait_s=20))
    assert piped == [200] * 30
    assert rss_mb(gateway) < before + 40
    assert gateway.post(BODY).status == 200 and "Traceback" not in gateway.log


def test_idle_and_slow_connections_do_not_stop_others(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    gateway.post(BODY)
    before = rss_mb(gateway)
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    links = []
    try:
        for n in range(min(5_000, most // 3)):
            link = socket.create_connection(("127.0.0.1", gateway.port), timeout=20)
            if n % 2:
                link.sendall(
                    b"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n"
                    + b"\r\n{" * (n % 4 // 2)
                )
            links.append(link)
        began = time.monotonic()
        assert gateway.post(BODY).status == 200
        assert time.monotonic() - began < 5
        assert (rss_mb(gateway) - before) * 2**20 / len(links) < 64 * 1024, "bytes a connection"
    finally:
        for link in links:
            link.close()
    assert gateway.post(BODY).status == 200
    assert gateway.stop() == 0 and "Traceback" not in gateway.log
