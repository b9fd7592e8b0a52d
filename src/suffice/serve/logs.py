"""What a server writes on stderr: lines of text or of JSON, and if wanted one for each request. Never what was said.

The lines of requests are made from rows that are on the disk, and written by a thread of their own: a reader of the log
that falls behind loses lines, which are counted, and holds nothing up.
"""

from __future__ import annotations

import json
import logging
import queue
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from logging.handlers import QueueHandler, QueueListener
from typing import Any

from suffice.core import secrets
from suffice.core.config import Log
from suffice.store.records import Row

REQUESTS = "suffice.requests"
WAITING = 10_000
HIDDEN = "[secret]"
_TEXT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


def clean(text: str) -> str:
    """A line without what looks like a key: nothing should write one, and a foreign library might."""
    found = secrets.spans(text)
    if not found:
        return text
    kept, end = [], 0
    for begin, until in sorted(found):
        if begin >= end:
            kept += [text[end:begin], HIDDEN]
        end = max(end, until)
    return "".join([*kept, text[end:]])


class _Text(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return clean(super().format(record))


class _Json(logging.Formatter):
    """A JSON object a line: `at`, `level`, `logger`, `message`, and what the line is about."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "at": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        fields = getattr(record, "fields", None)
        if fields is not None:
            told = {**told, "message": "request", **fields}
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return clean(json.dumps(told))


class _Queued(QueueHandler):
    """Drops what has no room, and says later how much that was."""

    dropped = 0

    def prepare(self, record: logging.LogRecord) -> logging.LogRecord:
        return record

    def enqueue(self, record: logging.LogRecord) -> None:
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self.dropped += 1
            return
        if self.dropped:
            dropped, self.dropped = self.dropped, 0
            logging.getLogger(__name__).warning("%d lines of requests had no room in the log", dropped)


def begun(settings: Log) -> Callable[[], None]:
    """Write logs as the settings say, from now on; call what is returned at the end, so that the last line is out."""
    formatter = _Json() if settings.format == "json" else _Text(_TEXT)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    logging.basicConfig(level=settings.level.upper(), handlers=[handler], force=True)
    requests = logging.getLogger(REQUESTS)
    requests.propagate = False
    requests.setLevel(logging.INFO if settings.requests else logging.CRITICAL)
    if not settings.requests:
        return lambda: None
    lines: queue.Queue[Any] = queue.Queue(WAITING)
    requests.addHandler(_Queued(lines))
    listener = QueueListener(lines, handler)
    listener.start()
    return listener.stop


def requests(written: Sequence[Row]) -> None:
    """A line for each of these rows."""
    log = logging.getLogger(REQUESTS)
    for row in written:
        fields = {
            "record": row.id,
            "dialect": row.dialect,
            "route": row.route,
            "reason": row.reason,
            "task": row.task,
            "release": row.release,
            "key": row.key,
            "model": row.model,
            "upstream": row.upstream,
            "status": row.status,
            "ms": round(row.latency_ms, 2) if row.latency_ms is not None else None,
            "prompt_tokens": row.prompt_tokens,
            "completion_tokens": row.completion_tokens,
        }
        told = " ".join(f"{name}={_word(value)}" for name, value in fields.items() if value is not None)
        log.info("%s", told, extra={"fields": fields})


def _word(value: object) -> str:
    """A value within its line: what could end it, or be taken for another value, is written as JSON."""
    text = str(value)
    return text if text.isascii() and text.isprintable() and text and not set(text) & set(' ="') else json.dumps(text)
