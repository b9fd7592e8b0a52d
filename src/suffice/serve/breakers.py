"""Circuit breakers: an upstream that fails most of the time is left alone for a while, then tried by one call.

Per worker and in memory. The clock is an argument, in seconds and monotonic.
"""

from __future__ import annotations

WINDOW = 32
LEAST = 10
"""Outcomes that a share is taken of, and the fewest that say anything."""
SHARE = 0.5
SPAN_S = 1.0
SPAN_MOST_S = 30.0
"""It stays open for the first, twice as long after each try that fails, never longer than the second."""
STALE_S = 60.0
"""Outcomes say nothing any more when the last one is older than this."""
_ALL = (1 << WINDOW) - 1


class Breaker:
    """One upstream's. Closed: all calls go. Open: none do, but one in each span, which tries whether it is back."""

    __slots__ = ("_failures", "_last", "_seen", "_span", "_until")

    def __init__(self) -> None:
        self._failures = 0  # a bit for each of the last outcomes, the newest lowest
        self._seen = 0
        self._last = 0.0
        self._until: float | None = None
        self._span = SPAN_S

    @property
    def open(self) -> bool:
        """Whether only tries get through."""
        return self._until is not None

    def admits(self, now: float) -> bool:
        """Whether a call may go now. When a span is over the first that asks may, and opens the next.

        A try that never ends thus holds nobody back for longer than a span.
        """
        if self._until is None:
            return True
        if now < self._until:
            return False
        self._until = now + self._span
        return True

    def wait_s(self, now: float) -> float:
        """Until a call may go."""
        return 0.0 if self._until is None else max(0.0, self._until - now)

    def succeeded(self, now: float) -> None:
        """It answered."""
        if self._until is not None:
            self._until, self._span, self._seen, self._failures = None, SPAN_S, 0, 0
        self._failures = (self._failures << 1) & _ALL
        self._seen += 1
        self._last = now

    def failed(self, now: float) -> None:
        """It did not answer, or that it cannot."""
        if self._until is not None:
            self._span = min(2 * self._span, SPAN_MOST_S)
            self._until = now + self._span
            return
        if now - self._last > STALE_S:
            self._failures = self._seen = 0
        self._failures = ((self._failures << 1) | 1) & _ALL
        self._seen += 1
        self._last = now
        seen = min(self._seen, WINDOW)
        if seen >= LEAST and self._failures.bit_count() >= SHARE * seen:
            self._until = now + self._span
