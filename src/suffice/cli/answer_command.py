"""`suffice answer`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import common
from suffice.core.contracts import refusal
from suffice.core.errors import InputError
from suffice.core.prompt import last_user
from suffice.core.protocols import Specialist
from suffice.core.types import Prediction, Reason
from suffice.store import records, releases
from suffice.store.releases import Stored
from suffice.wire import chat

BATCH = 256


@click.command()
@click.argument("task")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--since", type=float, help="Recorded traffic from this time on (seconds since 1970).")
@common.everywhere
def command(
    task: str, file: Path | None, since: float | None, folder: Path, config_file: Path | None, as_json: bool
) -> int:
    """Answer FILE (JSON Lines of {"input"} or {"request"}; - is stdin), or recorded traffic, through TASK[@N].

    Offline: stage, route and upstream are ignored. One line out for each line in: output, score, accepted, reason.
    """
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    name, n = common.task_and_release(task)
    stored = releases.get_release(home, name, n)
    if stored is None:
        click.echo(f"suffice: there is no release {task}" + ("" if n else f": run `suffice learn {name}`"), err=True)
        return 1
    specialist = common.load_specialist(home)(stored)
    if file is None:
        rows = records.query(home, task=name, since=since)
        lines: Iterator[dict[str, Any]] = (_recorded(row) for row, _ in rows)
    else:
        lines = _lines(file)
    batch: list[dict[str, Any]] = []
    for line in lines:
        batch.append(line)
        if len(batch) == BATCH:
            _answer(stored, specialist, batch)
            batch = []
    _answer(stored, specialist, batch)
    return 0


def _recorded(row: records.Row) -> dict[str, Any]:
    """A record as a line, with its id and what was answered then."""
    told = records.document(row, None)
    line = {"id": row.id, "then": told["answer"]}
    return {**line, "input": row.input} if row.dialect == "short" else {**line, "request": told["request"]}


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """The file's lines. Raises InputError naming the first that cannot be used: nothing is skipped in a batch."""
    try:
        raw = sys.stdin.buffer.read() if str(file) == "-" else file.read_bytes()
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}") from error
    parsed = []
    for number, text in enumerate(raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not text.strip():
            continue
        try:
            line = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f"{file}: line {number}: not JSON: {error}") from error
        if not isinstance(line, dict) or not (
            isinstance(line.get("input"), str) or isinstance(line.get("request"), dict)
        ):
            raise InputError(f'{file}: line {number}: neither a text "input" nor a "request"')
        parsed.append(line)
    yield from parsed


def _answer(stored: Stored, specialist: Specialist, lines: list[dict[str, Any]]) -> None:
    """Predict a batch and print it. A request that is not this task's is answered too, though never accepted."""
    views = [_view(stored, line) for line in lines]
    draft = stored.release.draft
    predictions = _predict(specialist, [text for text, _ in views])
    for line, (_, closed), prediction in zip(lines, views, predictions, strict=True):
        if prediction is None:
            reason = Reason.FAULT
        else:
            reason = closed or refusal(prediction, draft.contract, draft.threshold.score) or Reason.ACCEPTED
        kept = {key: line[key] for key in ("id", "then") if key in line}
        common.emit(
            {
                **kept,
                "output": stored.serving.style.value(prediction.value) if prediction else None,
                "score": prediction.score if prediction else None,
                "accepted": reason is Reason.ACCEPTED,
                "reason": reason,
            }
        )


def _view(stored: Stored, line: dict[str, Any]) -> tuple[str, Reason | None]:
    """What the specialist reads of a line, and why the line is not this task's, if so."""
    if isinstance(line.get("input"), str):
        return line["input"], None
    try:
        request = chat.request_of(line["request"])
    except InputError:
        return "", Reason.UNSUPPORTED
    prompt = stored.prompt
    if prompt is None:
        return last_user(request), Reason.UNSUPPORTED if request.unsupported else None
    read = prompt.read(request)
    return (last_user(request), read) if isinstance(read, Reason) else (read, None)


def _predict(specialist: Specialist, texts: list[str]) -> list[Prediction | None]:
    """A batch; where it fails as a whole, each text by itself, so that one fault is one line's."""
    try:
        return list(specialist.predict(texts)) if texts else []
    except Exception:  # noqa: BLE001 - the boundary of the specialist: a fault is told in its line
        singles: list[Prediction | None] = []
        for text in texts:
            try:
                singles.append(specialist.predict([text])[0])
            except Exception:  # noqa: BLE001 - the same boundary
                singles.append(None)
        return singles
