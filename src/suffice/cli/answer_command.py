"""`suffice answer`."""

from __future__ import annotations

import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from suffice.cli import candidates, common, families
from suffice.core.contracts import covers, refusal
from suffice.core.errors import InputError
from suffice.core.prompt import Prompt, last_user
from suffice.core.protocols import Specialist
from suffice.core.types import Prediction, Reason
from suffice.core.values import Value, calls_of, canonical, decode, plain
from suffice.store import records, releases
from suffice.store.releases import Stored
from suffice.wire import chat, dialects

BATCH = 256


@click.command()
@click.argument("task")
@click.argument("file", type=click.Path(path_type=Path, allow_dash=True), required=False)
@click.option("--since", type=float, help="Recorded traffic from this time on (seconds since 1970).")
@click.option("--until", type=float, help="Recorded traffic before this time.")
@click.option("--differs", is_flag=True, help="Of recorded traffic, only what was answered differently then.")
@common.everywhere
def command(
    task: str,
    file: Path | None,
    since: float | None,
    until: float | None,
    differs: bool,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Answer FILE (JSON Lines of {"input"} or {"request"}; - is stdin), or recorded traffic, through TASK[@N].

    Offline: stage, route and upstream are ignored. One line out for each line in: output, score, accepted, reason.
    Recorded traffic also has what was answered then (said, then_route), whether it differs, and a summary on stderr.
    """
    if file is not None and (since is not None or until is not None or differs):
        raise InputError("--since, --until and --differs are for recorded traffic: leave FILE out")
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    name, n = common.named(home, task)
    stored = releases.get_release(home, name, n)
    if stored is None:
        click.echo(f"suffice: there is no release {task}" + ("" if n else f": run `suffice learn {name}`"), err=True)
        return 1
    specialist = candidates.to_answer(
        home, settings, stored, families.load_specialist(home, families.places(settings))(stored)
    )
    if file is None:
        rows = records.query(home, task=name, since=since, until=until)
        lines: Iterator[dict[str, Any]] = (recorded(row, stored) for row, _ in rows)
    else:
        lines = _lines(file)
    seen: Counter[str] = Counter()
    for batch in _batches(lines):
        for line in _answers(stored, specialist, batch):
            if not differs or line["differs"]:
                common.emit(line)
            changed = bool(line.get("differs"))
            seen.update(requests=1, accepted=line["accepted"], different=line["accepted"] and changed)
    if file is None:
        click.echo(
            f"requests: {seen['requests']:,}, accepted: {seen['accepted']:,}, "
            f"accepted and different from then: {seen['different']:,}",
            err=True,
        )
    return 0


def _batches(lines: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    while batch := list(itertools.islice(lines, BATCH)):
        yield batch


def recorded(row: records.Row, stored: Stored) -> dict[str, Any]:
    """A record as a line, with its id and what was answered then: as it came, and as the value `answer` gives."""
    told = records.document(row, None)
    said = _said(row)
    then = {"said": _shaped(stored, said[0]) if said else None, "then_route": row.route, "answered": said is not None}
    asked = {"input": row.input} if row.dialect == "short" else {"request": told["request"]}
    return {"id": row.id, "then": told["answer"], **then, **asked, "slices": told["slices"]}


def _said(row: records.Row) -> tuple[Value] | None:
    """What a record's answer says, whoever gave it; None where there was no whole answer."""
    if row.answer is None or row.status != 200 or row.failure is not None:
        return None
    try:
        answer = decode(row.answer)
        return (answer if row.dialect == "short" else dialects.answer_of(answer),)
    except InputError:
        return None


def _shaped(stored: Stored, answer: Value) -> Value:
    """An answer as the release writes it; one of another kind, or outside of its contract, stays as it was."""
    style, value = stored.serving.style, plain(answer)
    fits = {
        "text": isinstance(value, str),
        "json_text": isinstance(value, dict | list),
        "json": True,
        "calls": calls_of(value) is not None,
    }
    return style.value(value) if fits[style.kind] and covers(stored.release.draft.contract, value) else answer


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
        parsed.append({key: line[key] for key in ("id", "input", "request", "slices") if key in line})
    yield from parsed


def _answers(stored: Stored, specialist: Specialist, lines: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Predict a batch. A request that is not this task's is answered too, though never accepted."""
    views = [view(stored, line) for line in lines]
    draft = stored.release.draft
    predictions = _predict(specialist, [text for text, _ in views])
    for line, (_, closed), prediction in zip(lines, views, predictions, strict=True):
        if prediction is None:
            reason = Reason.FAULT
        else:
            refused = refusal(
                prediction, draft.contract, draft.threshold.score, slices_of(line.get("slices")), draft.closed_slices
            )
            reason = closed or refused or Reason.ACCEPTED
        found = {
            "output": stored.serving.style.value(prediction.value) if prediction else None,
            "score": prediction.score if prediction else None,
            "accepted": reason is Reason.ACCEPTED,
            "reason": reason,
        }
        if "then" in line:
            comparable = line["answered"] and prediction is not None
            found["differs"] = canonical(line["said"]) != canonical(found["output"]) if comparable else None
        yield {**{key: line[key] for key in ("id", "then", "said", "then_route") if key in line}, **found}


def slices_of(given: Any) -> list[str]:
    """The slices of a line, as an import takes them: a list, or names separated by commas."""
    names = given.split(",") if isinstance(given, str) else given if isinstance(given, list) else []
    return [name.strip() for name in names if isinstance(name, str)]


def view(stored: Stored, line: dict[str, Any]) -> tuple[str, Reason | None]:
    """What the specialist reads of a line, and why the line is not this task's, if so."""
    if isinstance(line.get("input"), str):
        return line["input"], None
    try:
        request = chat.request_of(line["request"])
    except InputError:
        return "", Reason.UNSUPPORTED
    # Learned from bare inputs and not live yet: any request may be the first, whose prompt becomes the release's.
    read = (stored.prompt or Prompt.pinned(request)).read(request)
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
