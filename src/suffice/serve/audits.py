"""Audits: the frontier is asked about an answer that the caller already has.

Only what came of it is written here; what it means is the keeper's. A frontier that fails is asked again, a few times
and with pauses; an audit that stays without an answer is written down as such, and one that is lost with the process is
missed by the keeper, for the coin stands in the record.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable

from suffice.serve.capture import Cost, Exchange
from suffice.serve.edges import Refused
from suffice.serve.outbound import Outbound, Sending
from suffice.serve.upstream import UpstreamError
from suffice.store.watches import Audit

log = logging.getLogger(__name__)

AT_ONCE = 16
WAITING = 1_000
"""Audits under way and waiting; beyond that the frontier is plainly not keeping up, and new ones are given up."""
PAUSES_S = (0.5, 2.0, 8.0)
AGAIN = frozenset({408, 409, 425, 429})

Add = Callable[[Audit], None]
"""Writes an audit down; raises sqlite3.Error or sqlalchemy's."""


class Audits:
    """Asks in the background. All methods belong to the event loop."""

    def __init__(self, outbound: Outbound, add: Add, cost: Cost) -> None:
        self._outbound, self._add, self._cost = outbound, add, cost
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._running: set[asyncio.Task[None]] = set()

    def ask(self, exchange: Exchange, sending: Sending) -> None:
        """Ask the frontier what it would have answered to this exchange's request; returns at once."""
        asked = asyncio.ensure_future(self._one(exchange, sending))
        self._running.add(asked)
        asked.add_done_callback(self._running.discard)

    async def stop(self, within_s: float) -> None:
        """Give what is under way some time; what is left is missing, which the keeper sees by the record's coin."""
        if self._running:
            _, late = await asyncio.wait(self._running, timeout=within_s)
            for task in late:
                task.cancel()

    async def _one(self, exchange: Exchange, sending: Sending) -> None:
        if len(self._running) > WAITING:
            audit = Audit(record=exchange.id, at=exchange.at, failure=f"{WAITING} audits were waiting already")
        else:
            async with self._slots:
                audit = await self._asked(exchange, sending)
        try:
            await asyncio.to_thread(self._add, audit)
        except Exception as error:  # noqa: BLE001 - the boundary of an audit: a full disk must not end the others
            log.error("the audit of %s cannot be written: %s", exchange.id, error)

    async def _asked(self, exchange: Exchange, sending: Sending) -> Audit:
        """The frontier's answer, after some tries if need be."""
        for pause_s in (*PAUSES_S, None):
            heard = Exchange(id=exchange.id, dialect=exchange.dialect, request=exchange.request, model=exchange.model)
            try:
                async with self._outbound.call(sending, [], fallbacks=False) as answer:
                    heard.route = heard.upstream = answer.target.name
                    heard.status, heard.encoding, heard.streamed = answer.status, answer.encoding, answer.streamed
                    while data := await answer.read():
                        heard.chunk(data)
            except UpstreamError as error:
                heard.failure = str(error)
            except Refused as error:
                heard.failure = str(error)
                break
            else:
                if heard.status != 200:
                    heard.failure = f"upstream {heard.upstream!r} answered with status {heard.status}"
                if heard.status is not None and heard.status < 500 and heard.status not in AGAIN:
                    break
            if pause_s is not None:
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.5))
        heard.latency_ms = heard.elapsed_ms()
        row = heard.row(self._cost)
        return Audit(
            record=exchange.id,
            at=heard.at,
            upstream=heard.upstream,
            status=heard.status,
            answer=row.answer if row.failure is None else None,
            failure=row.failure,
            prompt_tokens=row.prompt_tokens,
            completion_tokens=row.completion_tokens,
            cost_usd=row.cost_usd,
            latency_ms=row.latency_ms,
        )
