"""Records to examples, and examples to the four splits.

The rule that keeps the proof honest: a filter that looks at the *answer* touches train and tune only; a record leaves
calibration or test only for what its *request* says, by the rule that escalates it when serving (`Prompt.read`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.prompt import Prompt
from suffice.core.style import Style
from suffice.core.style import infer as infer_style
from suffice.core.types import (
    CalibrationSet,
    Example,
    Reason,
    Request,
    Splits,
    Stage,
    TestSet,
    TrainSet,
    TuneSet,
    digest_of,
    group_of,
    unit_of,
)
from suffice.core.values import Value, canonical, decode
from suffice.learn import imports, prompts
from suffice.store.records import Row, Trusted
from suffice.wire import chat

TUNE, CALIBRATION, TEST = 0.10, 0.15, 0.15
MAX_CALIBRATION = 3_000
FLOORS = 1.5
MIN_TEST = 15
"""Fewer test requests could not refute anything."""


class Curated(msgspec.Struct, frozen=True, kw_only=True):
    """A task's examples. `prompt` is None where no record came with its request (the short form).

    `arguments` keeps, by record, how the arguments of tool calls were written. `dropped` lists, by reason, the records
    that are no examples.
    """

    examples: tuple[Example, ...]
    prompt: Prompt | None
    short_form: bool
    arguments: dict[str, list[str]]
    dropped: dict[str, list[str]]


def examples(rows: Iterable[tuple[Row, Trusted | None]], known: Mapping[str, str] | None = None) -> Curated:
    """A task's records, oldest first, as examples; `known` are the splits of earlier runs, by record.

    The view and the fixed part are mined from the requests; records of an older prompt are dropped with that reason.
    """
    dropped: defaultdict[str, list[str]] = defaultdict(list)
    rows, dropped["another imported file has the same row; `at` tells a repeated request from a copy"] = _once(
        list(rows), known or {}
    )
    bare: list[Example] = []
    asked: list[tuple[Row, Trusted | None, Request]] = []
    for row, trusted in rows:
        if row.dialect == "short":
            bare.append(_example(row, trusted, row.input or "", _short_output(row)))
            continue
        reason = _unlabelled(row, trusted)
        if reason is not None:
            dropped[reason].append(row.id)
            continue
        request = _request(row)
        if request is None:
            dropped["the request cannot be read"].append(row.id)
        else:
            asked.append((row, trusted, request))
    if not asked:
        return _curated(bare, None, True, {}, dropped)
    current = prompts.in_force([request for _, _, request in asked])
    dropped["its prompt was another (changed since)"] += [
        asked[i][0].id for i in sorted(set(range(len(asked))) - set(current))
    ]
    readable = [i for i in current if not asked[i][2].unsupported]
    prompt = prompts.mine([asked[i][2] for i in readable or current])
    found: list[Example] = []
    arguments: dict[str, list[str]] = {}
    for row, trusted, request in (asked[i] for i in current):
        text = prompt.read(request)
        if not isinstance(text, Reason):
            found.append(_example(row, trusted, text, _chat_output(row)))
            arguments[row.id] = chat.arguments_of(row.answer)
        else:
            dropped[f"the request is not one a specialist may answer ({text})"].append(row.id)
    return _curated(found + bare, prompt, False, arguments, dropped)


def _once(
    rows: Sequence[tuple[Row, Trusted | None]], known: Mapping[str, str]
) -> tuple[list[tuple[Row, Trusted | None]], list[str]]:
    """The rows without the copies that other files brought, and these: a file that has grown holds its old rows too.

    A copy in calibration of a row in train would be no proof. The n-th of equal lines in a file is the n-th in another:
    requests that repeat within a file stay. Times tell lines apart where a file has any. Of copies the one stays that
    an earlier run knows; it takes a trusted answer from the others if it has none.
    """
    times: defaultdict[str, set[float]] = defaultdict(set)
    for row, _ in rows:
        times[imports.file_of(row)].add(row.at)
    events: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
    nth: Counter[tuple[Any, ...]] = Counter()
    for i, (row, _) in enumerate(rows):
        if file := imports.file_of(row):
            line = row.request, row.answer, row.session, row.group, row.at if len(times[file]) > 1 else None
            nth[file, line] += 1
            events[nth[file, line], line].append(i)
    found = list(rows)
    copies: set[int] = set()
    for same in events.values():
        first = min(same, key=lambda i: (known.get(rows[i][0].id) != "train", rows[i][0].id not in known))
        told = next((trusted for trusted in (rows[first][1], *(rows[i][1] for i in same)) if trusted), None)
        found[first] = rows[first][0], told
        copies |= {*same} - {first}
    return [row for i, row in enumerate(found) if i not in copies], [rows[i][0].id for i in sorted(copies)]


def _curated(
    found: list[Example],
    prompt: Prompt | None,
    short_form: bool,
    arguments: Mapping[str, list[str]],
    dropped: Mapping[str, list[str]],
) -> Curated:
    return Curated(
        examples=tuple(found),
        prompt=prompt,
        short_form=short_form,
        arguments=dict(arguments),
        dropped={reason: ids for reason, ids in dropped.items() if ids},
    )


def _unlabelled(row: Row, trusted: Trusted | None) -> str | None:
    """Why a record has nothing to learn from. What a specialist answered is never training truth."""
    if trusted is not None:
        return None
    if row.route == "specialist":
        return "a specialist answered it"
    if row.status != 200 or row.answer is None or row.failure is not None:
        return "the frontier gave no whole answer"
    return None


def _request(row: Row) -> Request | None:
    try:
        request = chat.ChatRequest(row.request or b"").request
    except InputError:
        return None
    return request if request.messages else None


def _short_output(row: Row) -> tuple[Value, bool] | None:
    return (msgspec.json.decode(row.answer), True) if row.answer is not None else None


def _chat_output(row: Row) -> tuple[Value, bool] | None:
    """What the frontier said, and whether it can be learned from; None if it was not the frontier, or said nothing."""
    if row.answer is None or row.route in ("specialist", "none") or row.status != 200 or row.failure is not None:
        return None
    try:
        return chat.answer_of(decode(row.answer)), True
    except InputError:
        return None, False


def _example(row: Row, trusted: Trusted | None, text: str, output: tuple[Value, bool] | None) -> Example:
    kind: Any = trusted.kind if trusted else "human"
    return Example(
        id=row.id,
        input=text,
        output=output[0] if output else None,
        has_output=output is not None,
        usable=output is None or output[1] or trusted is not None,
        reference=trusted.value if trusted else None,
        has_reference=trusted is not None,
        reference_kind=kind,
        sampled=row.source == "import" or (output is not None and row.stage not in (Stage.CANARY, Stage.LIVE)),
        group=group_of(row.group, row.session),
        slices=tuple(name for name in row.slices.split(",") if name),
        at=row.at,
    )


# ---------------------------------------------------------------------------------------------- splits


class Sizes(msgspec.Struct, frozen=True):
    """How many units each split should have."""

    train: int
    tune: int
    calibration: int
    test: int


def sizes(units: int, floor: int) -> Sizes | int:
    """60/10/15/15, calibration at least 1.5 floors and at most 3,000 (what is over trains); int: units missing.

    Half of the units is the most that calibration may take.
    """
    least = math.ceil(FLOORS * floor)
    calibration = min(max(round(CALIBRATION * units), least), max(MAX_CALIBRATION, least), units // 2)
    if calibration < floor:
        return 2 * floor - units
    test, tune = max(round(TEST * units), min(MIN_TEST, units // 4)), max(round(TUNE * units), 1)
    return Sizes(units - calibration - test - tune, tune, calibration, test)


def certifies(example: Example, since: float | None = None) -> bool:
    """Whether an example may stand outside of train: a sample of the traffic, and not from before `since`."""
    return example.sampled and (since is None or example.at >= since)


def split(
    found: Sequence[Example],
    known: Mapping[str, str],
    wanted: Sizes,
    seed: int,
    *,
    by_time: bool = False,
    since: float | None = None,
) -> dict[str, str]:
    """Example id to split. What earlier runs assigned stays; new units go where they lack, in an order of `seed`.

    A unit is a group, a session, or a row that stands alone; it is never divided, and never stratified by answer:
    calibration must stay a sample of the traffic. So a unit with a row that is there because a specialist was unsure of
    it trains only, and one from before `since` (seconds since 1970) does from now on, wherever it was.

    `by_time`: the newest units test, those before them calibrate, the next choose, the oldest train; a unit is as new
    as its newest row. Raises InputError where the examples have no times to tell them apart by.
    """
    units: dict[str, list[Example]] = defaultdict(list)
    for example in found:
        units[unit(example)].append(example)
    assigned: dict[str, str | None] = {}
    for name, rows in units.items():
        old = since is not None and all(row.at < since for row in rows)
        unsure = not all(row.sampled for row in rows)
        there = [known[row.id] for row in rows if row.id in known]
        # What was read of a unit is read: where one of its rows trains, all do.
        before = "train" if "train" in there else next(iter(there), "train" if unsure else None)
        assigned[name] = "train" if old else before
    counts = Counter(split for split in assigned.values() if split is not None)
    new = sorted(
        (name for name, split in assigned.items() if split is None), key=lambda name: digest_of(str(seed), name)
    )
    if by_time:
        newest = {name: max(row.at for row in units[name]) for name in new}
        if new and len({row.at for row in found}) < len(Sizes.__struct_fields__):
            raise InputError(
                f"a time split needs times: the {len(found):,} examples carry only {len({row.at for row in found})} "
                'different ones (`at` in the file, or `split = "random"`)'
            )
        new.sort(key=lambda name: -newest[name])
    for name in new:
        for place in ("test", "calibration", "tune"):
            if counts[place] < getattr(wanted, place):
                break
        else:
            place = "train"
        assigned[name] = place
        counts[place] += 1
    return {row.id: str(assigned[name]) for name, rows in units.items() for row in rows}


def unit(example: Example) -> str:
    """The unit of dependence that an example belongs to."""
    return unit_of(example.group, example.id)


def splits(
    found: Sequence[Example], assigned: Mapping[str, str], cap: int | None = None, since: float | None = None
) -> tuple[Splits, int]:
    """The typed splits; train and tune lose what teaches nothing, calibration and test keep every row (up to `cap`).

    Returns them with the number of rows in train whose input has contradicting answers (the minority is left out).
    `cap` limits the rows of a group in calibration and test, chosen without looking at them. Of a group that is not in
    train, rows from before `since` are used for nothing.
    """
    parts: dict[str, list[Example]] = {"train": [], "tune": [], "calibration": [], "test": []}
    taken: Counter[str] = Counter()
    for example in sorted(found, key=lambda e: digest_of(e.id)):
        place = assigned[example.id]
        if place != "train" and not certifies(example, since):
            continue
        if place in ("train", "tune"):
            if example.usable:
                parts[place].append(example)
        elif cap is None or taken[unit(example)] < cap:
            taken[unit(example)] += 1
            parts[place].append(example)
    train, contradicting = _agreeing(parts["train"])
    return (
        Splits(
            train=TrainSet(train),
            tune=TuneSet(parts["tune"]),
            calibration=CalibrationSet(parts["calibration"]),
            test=TestSet(parts["test"]),
        ),
        contradicting,
    )


def _agreeing(train: Sequence[Example]) -> tuple[list[Example], int]:
    """Train without the minority answers to the same input."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    for example in train:
        answers[example.input][canonical(example.target)] += 1
    chosen = {text: max(counts.items(), key=lambda c: (c[1], c[0]))[0] for text, counts in answers.items()}
    kept = [example for example in train if canonical(example.target) == chosen[example.input]]
    return kept, sum(sum(counts.values()) for counts in answers.values() if len(counts) > 1)


def style_of(sets: Sequence[Example], curated: Curated) -> Style:
    """How the frontier writes its answers down, by train and tune; by the trusted answers where it said nothing."""
    said = [example.output for example in sets if example.has_output and example.usable]
    written = [text for example in sets for text in curated.arguments.get(example.id, [])]
    trusted = [example.reference for example in sets if example.has_reference]
    return infer_style(said or trusted, curated.short_form, written)
