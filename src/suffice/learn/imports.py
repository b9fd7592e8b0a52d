"""Traffic from files: JSON Lines in the full or the short form, or CSV with the short form's columns.

A bad line is reported with its number and reason; the good lines are kept.
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, get_args

import msgspec

from suffice.core.errors import InputError
from suffice.core.types import TASK_NAME, Reference, digest_of
from suffice.core.values import checked, decode
from suffice.store.records import Row, Trusted
from suffice.wire import chat

LATEST = 1e11  # seconds since 1970: beyond this a time in milliseconds was meant
_KEYS = {"reference_kind", "task", "at", "session", "group", "slices"}


class Bad(msgspec.Struct, frozen=True):
    """A line that could not be used, and why."""

    line: int
    reason: str


class Parsed(msgspec.Struct, frozen=True):
    """What a file holds."""

    rows: list[Row]
    trusted: list[Trusted]
    bad: list[Bad]


def parse(path: Path, task: str | None, now: float) -> Parsed:
    """Read a file of traffic; rows without a task of their own get `task`. Raises InputError if it is no such file.

    A row's id comes from the file's digest, the line and its task, so that importing it again changes nothing.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    digest = hashlib.sha256(data).hexdigest()
    rows: list[Row] = []
    trusted: list[Trusted] = []
    bad: list[Bad] = []
    for line, entry in _csv(path, data) if path.suffix.lower() == ".csv" else _jsonl(data):
        if isinstance(entry, str):
            bad.append(Bad(line, entry))
            continue
        try:
            row, answer = _row(entry, f"imp_{digest[:16]}{line:08d}", task, now)
        except InputError as error:
            bad.append(Bad(line, str(error)))
            continue
        rows.append(row)
        trusted += [answer] if answer else []
    if not rows and not bad:
        raise InputError(f"{path}: the file is empty")
    return Parsed(rows, trusted, bad)


def file_of(row: Row) -> str:
    """Which file a row was imported from; "" where it came otherwise."""
    return row.id[4:20] if row.source == "import" and row.id.startswith("imp_") else ""


def _jsonl(data: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each line that is not blank: its number, and the object or what is wrong with it."""
    for line, raw in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not raw.strip():
            continue
        try:
            entry = decode(raw)
        except InputError as error:
            yield line, str(error)
            continue
        yield line, entry if isinstance(entry, dict) else "not a JSON object"


def _csv(path: Path, data: bytes) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Each row by its columns; an empty cell is an absent one."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error}") from error
    csv.field_size_limit(max(csv.field_size_limit(), len(data) + 1))
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if "input" not in (reader.fieldnames or []):
            raise InputError(f"{path}: the first line must name the columns, `input` among them")
        for entry in reader:
            if None in entry:
                yield reader.line_num, "more cells than columns"
            else:
                yield reader.line_num, {key: value for key, value in entry.items() if value not in (None, "")}
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: not CSV: {error}") from error


def _row(entry: dict[str, Any], place: str, task: str | None, now: float) -> tuple[Row, Trusted | None]:
    """One line as a record and, where it has one, its trusted answer. Raises InputError saying what is wrong."""
    given = _text(entry, "task") or task
    if given is not None and not TASK_NAME.fullmatch(given):
        raise InputError(f"`task` is 1 to 64 letters, digits, dots, dashes or underscores, not {given!r}")
    name = place + digest_of(given or "")[:8]
    common: dict[str, Any] = {
        "id": name,
        "at": _at(entry.get("at"), now),
        "source": "import",
        "task": given,
        "session": _text(entry, "session"),
        "group": _text(entry, "group"),
        "slices": _slices(entry.get("slices")),
    }
    answer = None
    if "reference" in entry:
        kind = entry.get("reference_kind", "human")
        if kind not in get_args(Reference) or kind == "frontier":
            raise InputError(f"`reference_kind` is human or rule, not {kind!r}")
        answer = Trusted(name, kind, checked(entry["reference"], "reference"))
    if "request" in entry:
        return _exchange(entry, common, answer), answer
    if not isinstance(entry.get("input"), str):
        unknown = ", ".join(key for key in entry if key not in _KEYS)
        raise InputError(
            "`input` must be a text"
            if "input" in entry
            else "neither `request` nor `input`" + (f" (found: {unknown})" if unknown else "")
        )
    if "output" not in entry and answer is None:
        raise InputError("neither `output` nor `reference`: there is no answer to learn from")
    output = msgspec.json.encode(checked(entry["output"], "output")) if "output" in entry else None
    row = Row(
        **common,
        dialect="short",
        route="frontier" if output is not None else "none",
        status=200,
        input=entry["input"],
        request=msgspec.json.encode({"input": entry["input"]}),
        answer=output,
    )
    return row, answer


def _exchange(entry: dict[str, Any], common: dict[str, Any], answer: Trusted | None) -> Row:
    asked = chat.request_of(entry["request"])
    response = entry.get("response")
    if response is None and answer is None:
        raise InputError("neither `response` nor `reference`: there is no answer to learn from")
    if response is not None and not isinstance(response, dict):
        raise InputError("`response` must be a chat completion")
    usage = response.get("usage") if isinstance(response, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    return Row(
        **common,
        model=asked.model,
        route="frontier" if response is not None else "none",
        status=200,
        request=msgspec.json.encode(entry["request"]),
        answer=msgspec.json.encode(response) if response is not None else None,
        response_id=response.get("id") if isinstance(response, dict) and isinstance(response.get("id"), str) else None,
        prompt_tokens=_count(usage.get("prompt_tokens")),
        completion_tokens=_count(usage.get("completion_tokens")),
    )


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _text(entry: dict[str, Any], key: str) -> str | None:
    value = entry.get(key)
    if value is not None and (not isinstance(value, str) or not value):
        raise InputError(f"`{key}` must be a text")
    return value


def _slices(value: Any) -> str:
    names = value.split(",") if isinstance(value, str) else value or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError("`slices` must be a list of names")
    return ",".join(name.strip() for name in names)


def _at(value: Any, now: float) -> float:
    if value is None:
        return now
    wrong = f"`at` is seconds since 1970 or an ISO 8601 time, not {value!r}"
    try:
        at = float(value)
    except (TypeError, ValueError):
        try:
            at = datetime.fromisoformat(value).timestamp()
        except (TypeError, ValueError, OverflowError) as error:
            raise InputError(wrong) from error
    if isinstance(value, bool) or not 0 <= at < LATEST:
        raise InputError(wrong)
    return at
