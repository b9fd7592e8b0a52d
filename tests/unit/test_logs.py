"""Logs: a line is one line, says what it is about, and holds no key."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from suffice.core.config import Log
from suffice.serve import logs
from suffice.store.records import Row

KEY = "sk-proj-" + "aB3dE5gH7jK9mN1pQ3sT5vW7"


class Err:
    """What stands on stderr by now."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys, self._text = capsys, ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Err]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield Err(capsys)
    root.handlers[:] = before
    root.setLevel(level)
    requests = logging.getLogger(logs.REQUESTS)
    requests.handlers.clear()
    requests.propagate = True


def _row(**fields: object) -> Row:
    told = {"id": "rec_1", "at": 1.0, "source": "live", "model": "gpt-4o", "route": "frontier", "status": 200}
    return Row(**{**told, "latency_ms": 12.345, "request": b"what was said", **fields})  # type: ignore[arg-type]


def test_json_lines(stderr: Err) -> None:
    ended = logs.begun(Log(format="json", requests=True))
    logs.requests([_row(task="triage", key="app"), _row(id="rec_2", status=None)])
    logging.getLogger("elsewhere").error("bad %s", "thing")
    ended()
    lines = {line.get("record") or line["logger"]: line for line in map(json.loads, stderr.getvalue().splitlines())}
    first = lines["rec_1"]
    assert (first["message"], first["task"], first["key"], first["status"], first["ms"]) == (
        "request", "triage", "app", 200, 12.35,
    )  # fmt: skip
    assert lines["rec_2"]["status"] is None
    assert (lines["elsewhere"]["level"], lines["elsewhere"]["message"]) == ("error", "bad thing")
    assert "what was said" not in stderr.getvalue()


def test_text_lines_stay_one_line(stderr: Err) -> None:
    ended = logs.begun(Log(requests=True))
    logs.requests([_row(model='gpt\n2026-01-01 INFO forged: x"=\u2028')])
    ended()
    assert len(stderr.getvalue().splitlines()) == 1
    assert 'model="gpt\\n2026' in stderr.getvalue() and "status=200" in stderr.getvalue()


def test_requests_are_told_only_if_wanted(stderr: Err) -> None:
    logs.begun(Log(level="warning"))()
    logs.requests([_row()])
    logging.getLogger("elsewhere").info("quiet")
    assert stderr.getvalue() == ""


@pytest.mark.parametrize("format", ["text", "json"])
def test_no_key_gets_through(stderr: Err, format: str) -> None:
    logs.begun(Log(format=format))()  # type: ignore[arg-type]
    try:
        raise ValueError(f"in a trace: {KEY}")
    except ValueError:
        logging.getLogger("elsewhere").exception("two: %s and %s here", KEY, KEY)
    assert KEY not in stderr.getvalue()
    assert stderr.getvalue().count(logs.HIDDEN) >= 3 and "here" in stderr.getvalue()


def test_a_full_queue_loses_lines_and_says_so(stderr: Err, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "WAITING", 1)
    logs.begun(Log(requests=True))()  # nobody reads the queue any more
    logs.requests([_row() for _ in range(10)])
    (handler,) = logging.getLogger(logs.REQUESTS).handlers
    assert isinstance(handler, logs._Queued) and handler.dropped == 9
    handler.queue.get_nowait()  # type: ignore[attr-defined]
    logs.requests([_row()])
    assert "9 lines of requests had no room" in stderr.getvalue()
