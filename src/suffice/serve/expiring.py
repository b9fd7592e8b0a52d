"""Retention: what was said is dropped once it is older than its task allows. The keeper's, in a thread of its own."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable

from suffice.core.config import Config
from suffice.store import dropping
from suffice.store.dropping import Dropped
from suffice.store.home import Home

log = logging.getLogger(__name__)

PERIOD_S = 900.0
"""Between two looks at all that may be too old by now."""
PAUSE_S = 0.05
"""Between two bites: whoever serves comes first."""


class Expiring:
    """Looks again and again, where there is a limit at all. `clock` is wall time."""

    def __init__(self, home: Home, clock: Callable[[], float]) -> None:
        self._home, self._clock = home, clock
        self._last = -math.inf
        self._thread: threading.Thread | None = None

    def look(self, config: Config, now: float) -> None:
        """Start dropping what is too old, if it is time again; `now` by a clock that does not jump."""
        limited = config.records.keep_days is not None or any(task.keep_days for task in config.tasks.values())
        if not limited or now - self._last < PERIOD_S or (self._thread is not None and self._thread.is_alive()):
            return
        self._last = now
        self._thread = threading.Thread(target=self._drop, args=(config,), name="expiring", daemon=True)
        self._thread.start()

    def _drop(self, config: Config) -> None:
        """Every bite is a transaction: a process that ends in between leaves the rest to the next one."""
        total = Dropped()
        try:
            for dropped in dropping.expire(self._home, config.keep_days_of, tuple(config.tasks), self._clock()):
                total = total.plus(dropped)
                time.sleep(PAUSE_S)
            if total.records:
                dropping.settle(self._home)
        except Exception:  # the boundary of a thread: a busy disk must not end retention for good
            log.exception("what is too old could not all be dropped; the next look goes on")
        if total.records:
            log.info("dropped what was said in %d records that are older than they may be", total.records)
