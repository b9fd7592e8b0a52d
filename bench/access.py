"""What a virtual key costs a request: `python bench/access.py` (microseconds, medians of 20,000)."""

from __future__ import annotations

import secrets
import statistics
import tempfile
import time
from pathlib import Path

from suffice.core.budgets import Budget
from suffice.core.config import Access as Settings
from suffice.core.config import Price
from suffice.plan.prices import Prices
from suffice.serve.access import Access
from suffice.serve.capture import Exchange
from suffice.store import keys
from suffice.store.home import Home
from suffice.store.keys import Limits

HEADERS = [
    *((b"host", b"127.0.0.1:4000"), (b"accept", b"application/json"), (b"accept-encoding", b"gzip")),
    *((b"connection", b"keep-alive"), (b"user-agent", b"OpenAI/Python"), (b"x-stainless-lang", b"python")),
    *((b"x-stainless-os", b"Linux"), (b"x-stainless-arch", b"x64"), (b"content-type", b"application/json")),
]
LIMITS = {
    "a key": Limits(),
    "with a rate": Limits(requests_per_minute=1e9),
    "with all limits": Limits(
        requests_per_minute=1e9,
        tokens_per_minute=1e12,
        budget_usd=Budget(1e9, "day"),
        budget_tokens=Budget(1e14, "month"),
        models=("gpt-*",),
    ),
}


def one(access: Access, headers: list[tuple[bytes, bytes]]) -> float:
    exchange = Exchange(request=b"x" * 1000, model="gpt-4o")
    began = time.perf_counter()
    caller = access.admit(headers)
    access.weigh(caller, exchange)
    access.allow(caller, exchange.model, None)
    access.reserve(caller, exchange)
    took = time.perf_counter() - began
    access.unrecorded(exchange)
    return took * 1e6


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        made = {name: keys.create(home, name.replace(" ", "-"), of, secrets.token_bytes) for name, of in LIMITS.items()}
        cost = Prices({"gpt-4o": Price(input_usd_per_mtok=1, output_usd_per_mtok=1)}).usd
        access, off = Access(home, Settings(), cost), Access(home, Settings(keys="off"), cost)
        access.open()
        print(f"no key asked for: {statistics.median(one(off, HEADERS) for _ in range(20_000)):.1f}")
        for name, key in made.items():
            headers = [*HEADERS, (b"authorization", b"Bearer " + key.encode())]
            print(f"{name}: {statistics.median(one(access, headers) for _ in range(20_000)):.1f}")
        access.close()


if __name__ == "__main__":
    main()
