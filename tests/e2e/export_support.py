"""An exported folder in Chromium without a network: a page that answers texts, and the server that hands it out."""

from __future__ import annotations

import contextlib
import json
import random
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Sequence
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
_DONE_S = 240

_PAGE = """<!doctype html><meta charset="utf-8"><script type="module">
import { load } from "./specialist.js";
const told = {};
try {
  const asked = await (await fetch("/asked.json")).json();
  const specialist = await load();
  await specialist.answer(asked[0] ?? "");
  const began = performance.now();
  told.answers = [];
  for (const text of asked) told.answers.push(await specialist.answer(text));
  told.ms = (performance.now() - began) / Math.max(asked.length, 1);
} catch (error) {
  told.error = String(error && error.stack || error);
}
await fetch("/told", { method: "POST", body: JSON.stringify(told) });
</script>"""

ODD = [
    "",
    "  \n\t ",
    "?",
    "🎉 " * 3,
    "👩‍👩‍👧‍👦 my card e\u0301a\u0308\u0323 n\u0303",
    "我的卡在哪里 どこ 카드 어디",
    "أين بطاقتي שלום",
    "ΟΔΟΣ ΣΑΣ Σ ΑΣ\u0301 ΑΣ\u0301Α İstanbul ẞ",
    "\x1cwhere\x85is\u3000my\u2003card\x00\ufeff",
    "</s> [MASK] <unk> [CLS]my card",
    "card " * 4_000,
    "Ünïcödé " * 1_500,
    "好" * 9_000,
]


def odd_texts(count: int, seed: int) -> list[str]:
    """Texts that nobody writes: characters out of all of Unicode."""
    dice = random.Random(seed)
    planes = [(0x20, 0x7F), (0x80, 0x250), (0x300, 0x600), (0x900, 0x3000), (0x3000, 0xD7FF), (0xE000, 0x1FBFF)]
    return [
        "".join(chr(dice.randrange(*dice.choice(planes))) for _ in range(dice.randrange(1, 60))) for _ in range(count)
    ]


class _Handler(SimpleHTTPRequestHandler):
    """Hands the folder out, the page that asks, and takes what it tells."""

    asked: Sequence[str] = ()
    told: dict[str, Any]
    done: threading.Event
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {".mjs": "text/javascript", ".js": "text/javascript"}

    def do_GET(self) -> None:
        own = {"/asked.json": json.dumps(list(self.asked)), "/check.html": _PAGE}.get(self.path)
        if own is None:
            super().do_GET()
            return
        body = own.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if self.path.endswith("html") else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.told.update(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()
        self.done.set()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@contextlib.contextmanager
def _served(folder: Path, handler: type[_Handler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


def in_chromium(folder: Path, asked: Sequence[str]) -> dict[str, Any]:
    """`answers` of the page to each text and `ms` a text, or an `error`. No name resolves in this browser."""
    assert CHROMIUM is not None
    own: dict[str, Any] = {"asked": asked, "told": {}, "done": threading.Event()}
    handler = type("_Asking", (_Handler,), own)
    with _served(folder, handler) as address, tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
                 f"--user-data-dir={profile}"]  # fmt: skip
        browser = subprocess.Popen(
            [CHROMIUM, *flags, f"{address}/check.html"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            found: bool = own["done"].wait(_DONE_S)
        finally:
            browser.terminate()
            browser.wait(30)
    told: dict[str, Any] = own["told"]
    return told if found else {"error": f"the page said nothing within {_DONE_S} s"}


LOADING = "Loading the model"
"""What the page says until it can answer."""


def page_of(folder: Path) -> str:
    """The folder's own page as it stands in Chromium once the model is there."""
    assert CHROMIUM is not None
    with _served(folder, _Handler) as address, tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
                 "--virtual-time-budget=60000", "--dump-dom", f"--user-data-dir={profile}"]  # fmt: skip
        for _ in range(6):  # its clock runs ahead while nothing waits but the compiler: then the page is not done yet
            done = subprocess.run([CHROMIUM, *flags, f"{address}/"], capture_output=True, text=True, check=False)
            if LOADING not in done.stdout:
                break
    return done.stdout
