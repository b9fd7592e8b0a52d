"""Deadlines by the hundred: one timer for all, where most are taken back long before they come.

A timer of the event loop's own for each request costs more than the rest of its waiting; here it is a set's.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

TICK_S = 0.02
"""How late a deadline may be."""


class Due(Protocol):
    """Something with a deadline, on the event loop's clock."""

    due: float

    def fire(self) -> None:
        """The deadline has come; called once, and never after it was taken back."""


class Ticks:
    """Deadlines of one event loop. The timer runs only while there are any."""

    def __init__(self) -> None:
        self._waiting: set[Due] = set()
        self._timer: asyncio.TimerHandle | None = None

    def add(self, one: Due) -> None:
        """Wait for its deadline."""
        self._waiting.add(one)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(TICK_S, self._tick)

    def take_back(self, one: Due) -> None:
        """It need not fire any more."""
        self._waiting.discard(one)

    def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        late = [one for one in self._waiting if one.due <= now]
        for one in late:
            self._waiting.discard(one)
            one.fire()
        self._timer = loop.call_later(TICK_S, self._tick) if self._waiting else None
