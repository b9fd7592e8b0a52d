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
from suffice.store.releases import Event

log = logging.getLogger(__name__)

PAUSES_S = (1.0, 5.0, 25.0)
WAIT_S = 10.0


def alerts(settings: Alerts) -> Callable[[Event], None]:
    """A function that tells of an event and returns at once. A webhook that fails is tried again, then given up."""

    def tell(event: Event) -> None:
        log.log(logging.WARNING if event.kind in ("alarm", "missing") else logging.INFO, "%s", event.what)
        if settings.webhook is not None:
            posting = (settings.webhook, msgspec.json.encode(event))
            threading.Thread(target=_post, args=posting, name="webhook", daemon=True).start()

    return tell


def _post(url: str, body: bytes) -> None:
    for pause_s in (*PAUSES_S, None):
        request = urllib.request.Request(url, body, {"content-type": "application/json"}, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=WAIT_S):
                return
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
            # Without the address: it may hold a secret.
            log.error("the webhook cannot be told: %s", getattr(error, "reason", error))
        if pause_s is not None:
            time.sleep(pause_s)
