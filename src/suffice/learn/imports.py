"""Traffic from files: JSON Lines, one JSON document, or CSV, plain or compressed by gzip.

An entry is in one of the formats of `learn.formats`, told apart by its keys, each line for itself. A bad line is
reported with its number and reason; the good lines are kept. JSON Lines and CSV are streamed: what is in memory does
not grow with the file. One JSON document is read as a whole, up to 512 MB.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args

import msgspec

from suffice.core.errors import InputError
from suffice.core.types import TASK_NAME, Reference, Usage, digest_of
from suffice.core.values import INTEGERS, checked, decode
from suffice.learn import formats
from suffice.learn.formats import Entry
from suffice.store.imports import PREFIX, START, Place
from suffice.store.records import Row, Trusted
from suffice.wire import chat, dialects

LATEST = 1e11  # seconds since 1970: beyond this a time in milliseconds was meant
LONGEST = 64 * 2**20
"""Bytes of a line, which is what the gateway takes for a body; a longer one is a bad line."""
LARGEST = 512 * 2**20
"""Bytes of one JSON document."""
HEAD = 64 * 2**10
_BLOCK = 2**20
_BOM = codecs.BOM_UTF8
_KEYS = {"reference_kind", "task", "at", "session", "group", "slices", "cost_usd"}
_ID = re.compile(r"[\w.:-]{1,200}")
_PLACE = re.compile(rf"imp_([0-9a-f]{{{PREFIX}}})([0-9]{{8}})")
_BYTE = re.compile(r"\(byte (\d+)\)")
_OURS = re.compile(r"(?:^|/)suffice/[\w.-]+@\d+$")
"""The model that an answer of a specialist names; a proxy may have put its provider before it."""
_encode = msgspec.json.encode

Cost = Callable[[str, Usage], float | None]
"""Model and tokens to US dollars; None for a model whose price is not known."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """A file of traffic: the digest and the size in bytes of its content, uncompressed, and how it is laid out."""

    path: Path
    digest: str
    size: int
    packed: bool
    layout: Literal["lines", "table", "document"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is read.

    `task` is for rows that name none, `now` (seconds since 1970) for those without a time. `format` is one of
    `formats.KNOWN`; None tells it by each line's keys. `cost` prices a call of which the log tells no cost. `by_user`
    makes a group of each user's rows where the log names users and no groups.
    """

    task: str | None
    now: float
    format: str | None = None
    cost: Cost | None = None
    by_user: bool = False


class Line(msgspec.Struct, kw_only=True):
    """What a line came to: a row, perhaps with a trusted answer, or the reason why it is bad or left out (`skipped`).

    `line` is the number of the line, in a table the last one of its row, in a document that of the item; `offset` is
    the byte after it, which in a table and a document says only about how far the reading is. `strange` are the keys
    of an entry in no known format.
    """

    line: int
    offset: int
    row: Row | None = None
    trusted: Trusted | None = None
    reason: str = ""
    skipped: bool = False
    format: str | None = None
    strange: list[str] = []


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
    """All of a file at once, for one that is known to be small. Raises InputError as `examine` and `read` do."""
    lines = list(read(examine(path), Reading(task=task, now=now)))
    if not lines:
        raise InputError(f"{path}: the file is empty")
    return Parsed(
        [line.row for line in lines if line.row is not None],
        [line.trusted for line in lines if line.trusted is not None],
        [Bad(line.line, line.reason) for line in lines if line.row is None],
    )


def origin_of(record: str) -> tuple[str, int] | None:
    """The file that a record was imported from (its digest's beginning) and the line; None if it came otherwise."""
    found = _PLACE.match(record)
    return (found[1], int(found[2])) if found is not None else None


def import_of(record: str) -> str:
    """What all records have in common that one file brought under one task; "" where a record came otherwise."""
    found = _PLACE.match(record)
    return found[1] + record[found.end() :] if found is not None else ""


# ---------------------------------------------------------------------------------------------- the file


def examine(path: Path, progress: Callable[[float], None] | None = None) -> Source:
    """Read a file through once: its digest, and how it is laid out. Raises InputError, naming it, if it is of no use.

    `progress` is told now and then which share of the file (of its size on the disk) was read.

    That is one that cannot be read (twice), is empty or binary, is compressed and damaged, or is a table that is not
    UTF-8 or has no columns that are known.
    """
    try:
        with path.open("rb") as file:
            if not path.is_file():
                raise InputError(f"{path}: not a file that can be read twice: save it as one first")
            packed = file.read(2) == b"\x1f\x8b"
        with _opened(path, packed) as file:
            head = file.read(HEAD)
            if b"\0" in head and head.removeprefix(_BOM).lstrip()[:1] not in (b"{", b"["):
                what = "Parquet" if head.startswith(b"PAR1") else "a binary file, or not UTF-8"
                raise InputError(f"{path}: {what}: export it as JSON Lines, JSON or CSV")
            layout = _layout(path, head, file)
        with _opened(path, packed) as file:
            digest, size = hashlib.sha256(), 0
            text = codecs.getincrementaldecoder("utf-8")()
            while block := file.read(_BLOCK):
                digest.update(block)
                size += len(block)
                if layout == "table":
                    text.decode(block)
                if progress is not None and size % (64 * _BLOCK) == 0:
                    progress(size / max(path.stat().st_size, 1))
            text.decode(b"", final=layout == "table")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8: {error}") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path}: not a whole gzip file: {error}") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if size == 0:
        raise InputError(f"{path}: the file is empty")
    return Source(path=path, digest=digest.hexdigest(), size=size, packed=packed, layout=layout)


def read(source: Source, reading: Reading, after: Place = START) -> Iterator[Line]:
    """What each line after a place came to; blank lines are passed over.

    A row's id comes from the file's digest, the line and its task, so that importing it again changes nothing. Raises
    InputError for a document that is too large or is none, and for a format that is not known.
    """
    if reading.format is not None and reading.format not in formats.KNOWN:
        raise InputError(f"no format is called {reading.format}; known: {', '.join(formats.KNOWN)}")
    with _opened(source.path, source.packed) as file:
        entries: Iterator[tuple[int, int, Entry | str]]
        if source.layout == "table":
            entries = _table(source.path, file, after)
        elif source.layout == "document":
            entries = _document(source, file, after)
        else:
            entries = _lines(file, after)
        for line, offset, entry in entries:
            if isinstance(entry, str):
                yield Line(line=line, offset=offset, reason=entry)
                continue
            known = reading.format or formats.format_of(entry)
            try:
                row, trusted = _row(entry, known, f"imp_{source.digest[:PREFIX]}{line:08d}", reading)
            except InputError as error:
                miss = Line(line=line, offset=offset, reason=str(error), skipped=isinstance(error, formats.Skip))
                miss.format = known
                miss.strange = list(entry) if known is None else []
                yield miss
                continue
            yield Line(line=line, offset=offset, row=row, trusted=trusted, format=known)


def _opened(path: Path, packed: bool) -> IO[bytes]:
    return cast("IO[bytes]", gzip.open(path)) if packed else path.open("rb", buffering=_BLOCK)


def _layout(path: Path, head: bytes, rest: IO[bytes]) -> Literal["lines", "table", "document"]:
    """How a file is laid out, by its name and its first line; `head` is its beginning and `rest` what follows.

    A document is a list, an object that goes on after its first line, or one that is all there is and holds `data`.
    """
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    text = head.removeprefix(_BOM).lstrip()
    first, end, after = text.partition(b"\n")
    if text[:1] not in (b"{", b"["):
        if suffixes[-1:] != [".csv"] and not (b"," in first and _columns(first)):
            return "lines"
        if _columns(first) is None:
            raise unknown(path, "the columns are", next(csv.reader([first.decode("utf-8", "replace")]), []))
        return "table"
    if not end:
        more = rest.read(LONGEST)
        first, _, after = (text + more).partition(b"\n")
    try:
        value = decode(first)
    except InputError as error:
        return "document" if "truncated" in str(error) and len(first) < LONGEST else "lines"
    if after.strip() or rest.read(HEAD).strip():
        return "lines"
    return "document" if isinstance(value, list) or isinstance(value.get("data"), list) else "lines"


def _columns(line: bytes) -> str | None:
    """The format of a table with this first line."""
    try:
        return formats.format_of(next(csv.reader([line.decode().strip()]), []))
    except (UnicodeDecodeError, csv.Error):
        return None


def unknown(path: Path, what: str, keys: list[str]) -> InputError:
    """That a file is in no known format: which keys were found, and which formats there are."""
    known = "; ".join(f"{name}: {keys}" for name, keys in formats.KNOWN.items())
    found = ", ".join(key[:40] for key in keys[:20]) + (", ..." if len(keys) > 20 else "")
    return InputError(f"{path}: in no known format: {what} {found or 'none'}. Known are {known}")


# ---------------------------------------------------------------------------------------------- layouts


def _lines(file: IO[bytes], after: Place) -> Iterator[tuple[int, int, Entry | str]]:
    """Each line that is not blank: its number, the byte after it, and the object or what is wrong with it."""
    line, offset = after.line, after.offset
    file.seek(offset)
    while raw := file.readline(LONGEST + 1):
        line, offset = line + 1, offset + len(raw)
        if len(raw) > LONGEST and not raw.endswith(b"\n"):
            del raw
            while (more := file.readline(_BLOCK)) and not more.endswith(b"\n"):
                offset += len(more)
            offset += len(more)
            yield line, offset, f"longer than {LONGEST // 2**20} MB"
            continue
        if line == 1:
            raw = raw.removeprefix(_BOM)
        if raw.strip():
            yield line, offset, _entry(raw)


def _entry(raw: bytes | msgspec.Raw) -> Entry | str:
    try:
        entry = decode(raw)
    except InputError as error:
        return str(error)
    if not isinstance(entry, dict):
        return "not a JSON object"
    if isinstance(entry.get("data"), list) and formats.format_of(entry) is None:
        return "a page of a list (`data`) among lines: one line is one exchange (`jq -c '.data[]'` divides it)"
    return entry


class _Page(msgspec.Struct):
    """An object that holds its entries under `data`, as the lists of many APIs do."""

    data: list[msgspec.Raw]


def _document(source: Source, file: IO[bytes], after: Place) -> Iterator[tuple[int, int, Entry | str]]:
    """The items of one JSON document, a list or a page of one, numbered from 1; an object without `data` is one item.

    The whole text is in memory, its items are read one by one. Lines whose first is broken look like a document; where
    another one can be read by itself, or the file is called so, they are lines.
    """
    if source.size > LARGEST:
        raise InputError(
            f"{source.path}: one JSON document of {source.size / 2**20:,.0f} MB; more than {LARGEST // 2**20} MB is "
            "read as JSON Lines only (`jq -c '.[]'` makes them)"
        )
    data = file.read().removeprefix(_BOM).strip()
    try:
        if data[:1] == b"[":
            items = msgspec.json.decode(data, type=list[msgspec.Raw])
        else:
            try:
                items = msgspec.json.decode(data, type=_Page).data
            except msgspec.ValidationError:
                items = [msgspec.Raw(data)]
                msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError) as error:
        lines = ".jsonl" in source.path.suffixes or ".ndjson" in source.path.suffixes
        if lines or any(isinstance(_entry(raw), dict) for raw in data[:HEAD].split(b"\n")[1:]):
            yield from _lines(file, after)
            return
        at = _BYTE.search(str(error))
        where = f"line {data[: int(at[1])].count(10) + 1}: " if at is not None else ""
        raise InputError(f"{source.path}: neither JSON Lines nor one JSON document: {where}{error}") from error
    for number, item in enumerate(items, 1):
        if number > after.line:
            yield number, source.size * number // len(items), _entry(item)


def _table(path: Path, file: IO[bytes], after: Place) -> Iterator[tuple[int, int, Entry | str]]:
    """Each row by its columns; an empty cell is an absent one. Rows up to a place are read over: cells hold lines."""
    csv.field_size_limit(max(csv.field_size_limit(), LONGEST))
    reader = csv.DictReader(_text_lines(path, file))
    while True:
        try:
            entry = next(reader, None)
        except csv.Error as error:
            if reader.line_num > after.line:
                yield reader.line_num, file.tell(), f"not CSV: {error}"
            continue
        if entry is None:
            return
        if reader.line_num <= after.line:
            continue
        if None in entry:
            yield reader.line_num, file.tell(), "more cells than columns"
        else:
            cells = {key: value for key, value in entry.items() if value not in (None, "")}
            yield reader.line_num, file.tell(), cells


def _text_lines(path: Path, file: IO[bytes]) -> Iterator[str]:
    text = io.TextIOWrapper(cast("io.BufferedReader", file), "utf-8-sig", newline="")
    while line := text.readline(LONGEST + 1):
        if len(line) > LONGEST:
            raise InputError(f"{path}: a line is longer than {LONGEST // 2**20} MB")
        yield line


# ---------------------------------------------------------------------------------------------- rows


def _row(entry: Entry, known: str | None, place: str, reading: Reading) -> tuple[Row, Trusted | None]:
    """One line as a record and, where it has one, its trusted answer. Raises InputError saying what is wrong."""
    if known == "records":
        return _record(entry, reading)
    cost = _cost(entry.get("cost_usd")) if known == "suffice" else None
    user = None
    if known is not None and known in formats.ADAPTERS:
        given_task = _text(entry, "task") if known == "finetuning" else None
        entry = {**formats.ADAPTERS[known](entry), "task": given_task}
        cost, user = entry.get("cost_usd"), entry.get("user")
    given = _text(entry, "task") or reading.task
    if given is not None and not TASK_NAME.fullmatch(given):
        raise InputError(f"`task` is 1 to 64 letters, digits, dots, dashes or underscores, not {given!r}")
    name = place + digest_of(given or "")[:8]
    common: dict[str, Any] = {
        "id": name,
        "at": _at(entry.get("at"), reading.now),
        "source": "import",
        "task": given,
        "session": _text(entry, "session"),
        "group": _text(entry, "group") or (user if reading.by_user else None),
        "slices": _slices(entry.get("slices")),
        "cost_usd": cost,
    }
    answer = None
    if "reference" in entry:
        kind = entry.get("reference_kind", "human")
        if kind not in get_args(Reference) or kind == "frontier":
            raise InputError(f"`reference_kind` is human or rule, not {kind!r}")
        answer = Trusted(name, kind, checked(entry["reference"], "reference"))
    if "request" in entry:
        return _exchange(entry, common, answer, reading.cost), answer
    if not isinstance(entry.get("input"), str):
        unknown = ", ".join(key for key in entry if key not in _KEYS)
        raise InputError(
            "`input` must be a text"
            if "input" in entry
            else "neither `request` nor `input`" + (f" (found: {unknown})" if unknown else "")
        )
    if "output" not in entry and answer is None:
        raise InputError("neither `output` nor `reference`: there is no answer to learn from")
    output = _encode(checked(entry["output"], "output")) if "output" in entry else None
    row = Row(
        **common,
        dialect="short",
        route="frontier" if output is not None else "none",
        status=200,
        input=entry["input"],
        request=_encode({"input": entry["input"]}),
        answer=output,
    )
    return row, answer


def _exchange(entry: Entry, common: dict[str, Any], trusted: Trusted | None, cost: Cost | None) -> Row:
    """A request and its answer, in the dialect that the answer is written in (chat where there is none).

    With `cost`, what the log does not tell is priced, by estimated tokens too.
    """
    request = _encode(entry["request"])
    response = entry.get("response")
    spoken = dialects.spoken_in(response)
    asked = spoken.read(request)
    if response is None and trusted is None:
        raise InputError("neither `response` nor `reference`: there is no answer to learn from")
    if response is not None and not isinstance(response, dict):
        raise InputError("`response` must be a chat completion, or another dialect's answer")
    if response is None:
        return Row(**common, model=asked.model, status=200, request=request)
    usage = response.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    tokens = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    if spoken is not chat.DIALECT and (counted := spoken.usage_of(response)) is not None:
        tokens = counted.prompt, counted.completion
    answer = _encode(response)
    estimated = cost is not None and None in tokens
    if estimated:
        guess = dialects.estimated_usage(spoken.name, request, answer)
        tokens = guess.prompt, guess.completion
    if cost is not None and common["cost_usd"] is None:
        # A proxy's name for a model has no price; the model that answered may have one.
        names = [name for name in (asked.model, response.get("model")) if name and isinstance(name, str)]
        spent = Usage(prompt=tokens[0] or 0, completion=tokens[1] or 0)
        told = (cost(name, spent) for name in names)
        common["cost_usd"] = next((usd for usd in told if usd is not None), None)
    name = response.get("id")
    by = response.get("model") or asked.model
    return Row(
        **common,
        dialect=spoken.name,
        model=asked.model,
        route="specialist" if isinstance(by, str) and _OURS.search(by) else "frontier",
        status=200,
        request=request,
        answer=answer,
        response_id=name if isinstance(name, str) else None,
        prompt_tokens=tokens[0],
        completion_tokens=tokens[1],
        tokens_estimated=estimated,
    )


_HERE = {"request", "answer", "predicted", "slices", "task", "at", "attempts"}
_ELSEWHERE = {"release", "watch", "stakes", "coin", "audited", "rule"}
"""What names things of the home that a record comes from, where other things bear these names: left behind."""


def _record(entry: Entry, reading: Reading) -> tuple[Row, Trusted | None]:
    """A record that another home exported, as it was: its id, its route, its time. Raises InputError.

    What a specialist answered stays a specialist's answer; and a record that is there because a specialist was unsure
    keeps its stage, which says so.
    """
    kept = {key: entry[key] for key in Row.__struct_fields__ if key in entry and key not in _HERE | _ELSEWHERE}
    given = _text(entry, "task") or reading.task
    if given is not None and not TASK_NAME.fullmatch(given):
        raise InputError(f"`task` is 1 to 64 letters, digits, dots, dashes or underscores, not {given!r}")
    if "at" not in entry:
        raise InputError("`at` is missing from a record")
    short = entry.get("dialect") == "short"
    bodies: dict[str, Any] = {
        "request": _body(entry.get("request"), short),
        "answer": _body(entry.get("answer"), short and entry.get("route") != "none"),
        "attempts": _encode(entry["attempts"]).decode() if entry.get("attempts") else None,
    }
    if entry.get("gone") is not None:
        bodies |= {"request": None, "answer": None}
    predicted = _encode(entry.get("predicted")).decode() if entry.get("score") is not None else None
    try:
        row = msgspec.convert(
            {**kept, "task": given, "at": _at(entry["at"], reading.now), "slices": _slices(entry.get("slices"))}, Row
        )
    except msgspec.ValidationError as error:
        raise InputError(f"not a record as `suffice records` prints it: {error}") from error
    if any(isinstance(value, int) and value not in INTEGERS for value in msgspec.structs.astuple(row)):
        raise InputError("a whole number of more than 64 bits in a record")
    if not _ID.fullmatch(row.id):
        raise InputError(f"`id` is letters, digits, dots, colons, dashes and underscores, not {row.id[:100]!r}")
    if row.source not in ("live", "import"):
        raise InputError(f"`source` is live or import, not {row.source!r}")
    kind = entry.get("reference_kind")
    if kind is not None and (kind not in get_args(Reference) or kind == "frontier"):
        raise InputError(f"`reference_kind` is human or rule, not {kind!r}")
    trusted = Trusted(row.id, kind, checked(entry.get("reference"), "reference")) if kind is not None else None
    return msgspec.structs.replace(row, predicted=predicted, **bodies), trusted


def _body(value: Any, always: bool) -> bytes | None:
    """A body as `records.body` reads it, back as bytes; `always`: null is an answer, and text is JSON."""
    if value is None and not always:
        return None
    return value.encode() if isinstance(value, str) and not always else _encode(value)


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53 else None


def _cost(value: Any) -> float | None:
    """US dollars; a CSV's cell is text."""
    if value is None:
        return None
    try:
        cost = float(value) if not isinstance(value, bool) else -1.0
    except (TypeError, ValueError, OverflowError):
        cost = -1.0
    if not 0 <= cost < float("inf"):
        raise InputError(f"`cost_usd` is a number of US dollars, not {value!r}")
    return cost


def _text(entry: Entry, key: str) -> str | None:
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
