"""Records as files: Parquet (extra `parquet`) in row groups, or JSON Lines; never all of them in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.store.records import Row, Trusted

GROUP = 5_000
"""Rows of a row group, fewer where they are large."""
GROUP_BYTES = 64 * 2**20
SUFFIXES = (".parquet", ".jsonl")

Recorded = tuple[Row, Trusted | None]


def export(rows: Iterable[Recorded], file: Path, document: Callable[[Row, Trusted | None], Any]) -> int:
    """Write records to a file by what its name ends with; how many. `document` makes a line of JSON Lines.

    The file is there whole or not at all. Raises InputError for another ending, a file that exists, or a missing extra.
    """
    if file.suffix not in SUFFIXES:
        raise InputError(f"--export {file}: the name ends with {' or '.join(SUFFIXES)}")
    if file.exists():
        raise InputError(f"--export {file}: the file exists, and nothing is overwritten")
    part = file.with_name(file.name + ".part")
    try:
        count = _parquet(rows, part) if file.suffix == ".parquet" else _lines(rows, part, document)
        part.rename(file)
    finally:
        part.unlink(missing_ok=True)
    return count


def _lines(rows: Iterable[Recorded], file: Path, document: Callable[[Row, Trusted | None], Any]) -> int:
    count = 0
    with file.open("wb") as out:
        for row, trusted in rows:
            out.write(msgspec.json.encode(document(row, trusted)) + b"\n")
            count += 1
    return count


def _parquet(rows: Iterable[Recorded], file: Path) -> int:
    """Columns as in the database, bodies as text; `reference` is the latest trusted answer as JSON text."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise InputError("--export FILE.parquet needs the extra `parquet`: pip install 'suffice[parquet]'") from error
    kinds = {
        "float": pa.float64(),
        "int": pa.int64(),
        "bool": pa.bool_(),
        "str": pa.string(),
        "bytes": pa.large_string(),
    }
    fields = {name: kinds[str(told).partition(" ")[0]] for name, told in Row.__annotations__.items()}
    fields["at"] = pa.timestamp("us", tz="UTC")
    fields |= {"reference": pa.large_string(), "reference_kind": pa.string()}
    shape = pa.schema(list(fields.items()))
    count, left = 0, iter(rows)
    with pq.ParquetWriter(file, shape, compression="zstd") as out:
        while some := list(_fitting(left)):
            columns = {name: [line[name] for line in some] for name in fields}
            out.write_table(pa.table(columns, schema=shape))
            count += len(some)
    return count


def _fitting(rows: Iterable[Recorded]) -> Iterable[dict[str, Any]]:
    """The next row group, as values of Parquet."""
    room = GROUP_BYTES
    for row, trusted in islice(rows, GROUP):
        told = msgspec.structs.asdict(row)
        for name in ("request", "answer"):
            told[name] = told[name].decode("utf-8", "replace") if told[name] is not None else None
        told["at"] = round(row.at * 1e6)
        told["reference"] = msgspec.json.encode(trusted.value).decode() if trusted is not None else None
        told["reference_kind"] = trusted.kind if trusted is not None else None
        yield told
        room -= len(row.request or b"") + len(row.answer or b"")
        if room < 0:
            return
