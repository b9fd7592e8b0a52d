"""Telling people: every event of the keeper goes to the log, and to a webhook where one is configured."""

from __future__ import annotations

import http.client
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable

import msgspec

from suffice.core.config import Alerts
from suffice.core.types import Stage
from suffice.serve.watch import State, text_of
from suffice.store import releases, watches
from suffice.store.home import Home
from suffice.store.releases import Event, Stored, Task
from suffice.store.watches import Watch

log = logging.getLogger(__name__)

PAUSES_S = (1.0, 5.0, 25.0)
WAIT_S = 10.0


def alerts(settings: Alerts) -> Callable[[Event], None]:
    """A function that tells of an event and returns at once. A webhook that fails is tried again, then given up."""

    def tell(event: Event) -> None:
        whose = "" if event.task is None or event.what.startswith(event.task) else f"{event.task}: "
        log.log(
            logging.WARNING if event.kind in ("alarm", "missing", "verifier") else logging.INFO,
            "%s%s",
            whose,
            event.what,
        )
        if settings.webhook is not None:
            threading.Thread(target=_post, args=(settings.webhook, event), name="webhook", daemon=True).start()

    return tell


class Teller:
    """Tells people what has happened, once the store has it. `alert` returns at once; `clock` is wall time."""

    def __init__(self, home: Home, alert: Callable[[Event], None], clock: Callable[[], float]) -> None:
        self._home, self._alert, self._clock = home, alert, clock

    def adopt(self, alert: Callable[[Event], None]) -> None:
        """Tell by this from now on."""
        self._alert = alert

    def say(self, task: str, kind: str, what: str) -> None:
        """Tell of an event that is written already."""
        self._alert(Event(at=self._clock(), task=task, kind=kind, what=what))

    def note(self, task: str, kind: str, what: str) -> None:
        """Write an event, and tell of it."""
        releases.note(self._home, task, kind, what)
        self.say(task, kind, what)

    def tell(self, found: Watch, state: State, kind: str, what: str) -> None:
        """Write a watch's state with the event that goes with it, and tell of it."""
        watches.tell(self._home, found, text_of(state), kind, what)
        self.say(found.task, kind, what)

    def move(self, task: Task, stored: Stored, stage: Stage, kind: str, what: str, known: int) -> None:
        """Put a task into a stage with a release, and tell of it; nothing, if someone has moved it since `known`."""
        before = task.stage, task.release
        if releases.move(self._home, task.name, before, stage, stored.n, kind, what, known):
            self.say(task.name, kind, what)


def _post(url: str, event: Event) -> None:
    body, why = msgspec.json.encode(event), ""
    for pause_s in (0.0, *PAUSES_S):
        time.sleep(pause_s)
        request = urllib.request.Request(url, body, {"content-type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S):
                return
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            why = getattr(error, "reason", "") or type(error).__name__
    # Without the address: it may hold a secret.
    log.error("the webhook was not told (%s of %s), after %d tries: %s", event.kind, event.task, len(PAUSES_S) + 1, why)
