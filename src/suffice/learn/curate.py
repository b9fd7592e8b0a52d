"""Records to examples, and examples to the four splits.

The rule that keeps the proof honest: a filter that looks at the *answer* touches train and tune only; a record leaves
calibration or test only for what its *request* says, by the rule that escalates it when serving (`Prompt.read`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

from suffice.core.contracts import beyond, covers
from suffice.core.errors import InputError
from suffice.core.losses import kind_of
from suffice.core.match import Matcher, Rule
from suffice.core.prompt import Prompt
from suffice.core.same import same_format
from suffice.core.style import Style
from suffice.core.style import infer as infer_style
from suffice.core.types import (
    CalibrationSet,
    Example,
    OutputContract,
    Policy,
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
from suffice.core.values import Value, canonical, decode, plain
from suffice.learn import filters, imports, promises, prompts
from suffice.learn.filters import Marks
from suffice.proof import bounds
from suffice.store.records import Row, Trusted
from suffice.wire import dialects

TUNE, CALIBRATION, TEST = 0.10, 0.15, 0.15
MAX_CALIBRATION = 3_000
FLOORS = 1.53
"""Floors of calibration at the least. A first certificate may then count one error, which takes up to 1.529 floors; at
1.5 it may count none, and one odd answer of the frontier among the surest costs most of the coverage."""
MIN_TEST = 15
"""Fewer test requests could not refute anything."""


MOST = 100_000
"""The newest records of a task that take part: a run's cost is bounded, and what came before is another traffic."""
SAMPLE = 4_000
"""Up to twice as many requests of a prompt, evenly chosen, show what they have in common."""
SAMPLE_CHARS = 64_000_000
"""Fewer, where they are so long: a passage in each prompt must not fill the memory."""
PEEKED = 1_000
"""Answers that mining may look at, if it must; their rows train."""

LEAST = 10
"""Records from which on a prompt beside others is one."""
TOOLSETS = 8
"""Different lists of tools from which on requests may be said to bring their own; fewer are changes of one list."""
PROOF = ("calibration", "test")
READ_FIRST = ("train", "tune", *PROOF)

OLDER = f"older than the newest {MOST:,} records of its task"
COPIED = "another import, or the gateway, brought it already; `at` tells a repeated request from a copy"
UNREADABLE = "the request cannot be read"
CHANGED = "its prompt was another (changed since)"
BY_SPECIALIST = "a specialist answered it"
NOT_WHOLE = "the frontier gave no whole answer"

Recorded = tuple[Row, Trusted | None]


class Curated(msgspec.Struct, frozen=True, kw_only=True):
    """A task's examples. `prompt` is None where no record came with its request (the short form).

    `arguments` keeps, by record, how the arguments of tool calls were written. `dropped` lists, by reason, the records
    that are no examples; `marks` is what is known of examples that must not teach. `sources` names, by record, the file
    that an example was imported from and the line in it (`digest:line`); the others were recorded live.
    """

    examples: tuple[Example, ...]
    prompt: Prompt | None
    short_form: bool
    arguments: dict[str, list[str]]
    dropped: dict[str, list[str]]
    marks: Marks = Marks()
    sources: dict[str, str] = {}


def examples(
    rows: Iterable[Recorded],
    known: Mapping[str, str] | None = None,
    rules: Sequence[Rule] = (),
    left: Mapping[str, Sequence[str]] | None = None,
) -> Curated:
    """A task's records, oldest first, as examples; `known` are the splits of earlier runs, by record.

    The view and the fixed part are mined from the requests; records of an older prompt are dropped with that reason.
    Of a task with several prompts (`rules`) each part has its own. `left` are records that whoever fetched the rows has
    left out, by reason.

    The rows are gone through twice, and no body is held: give something that can be (a list, `store.datasets.newest`);
    what can be gone through once only is held whole.
    """
    again = list(rows) if isinstance(rows, Iterator) else rows
    dropped: defaultdict[str, list[str]] = defaultdict(list)
    for reason, names in (left or {}).items():
        dropped[reason] += names
    survey = _Survey(again, known or {}, rules, dropped[BY_SPECIALIST])
    dropped[OLDER] += survey.older
    dropped[COPIED] += sorted(survey.copies)
    prompt = survey.prompt()
    bare: list[Example] = []
    found: list[Example] = []
    arguments: dict[str, list[str]] = {}
    sources: dict[str, str] = {}
    met: dict[str, filters.Rule] = {}
    for row, trusted in again:
        if row.id not in survey.taken:
            continue
        trusted = survey.told.get(row.id, trusted)
        read = _read(row, trusted, prompt)
        if isinstance(read, str):
            dropped[read].append(row.id)
            continue
        example = _example(row, trusted, read.text, survey)
        (bare if row.dialect == "short" else found).append(example)
        if row.dialect != "short" and (written := dialects.arguments_of(row.answer)):
            arguments[row.id] = written
        rule = filters.of_request(example.input) or _of_answer(example, row, read.response_format)
        if rule is not None:
            met[row.id] = rule
        if (source := _source(row)) is not None:
            sources[row.id] = source
    found += bare
    marks = Marks(
        rules={**filters.bursts(found), **met},
        like=filters.clusters(found),
        peeked=frozenset(survey.peeked),
    )
    return Curated(
        examples=tuple(found),
        prompt=prompt,
        short_form=prompt is None,
        arguments=arguments,
        dropped={reason: ids for reason, ids in dropped.items() if ids},
        marks=marks,
        sources=sources,
    )


def _source(row: Row) -> str | None:
    """The file and line that a record was imported from, as `Curated.sources` has it; None if it was recorded live."""
    if (origin := imports.origin_of(row.id)) is not None:
        return f"{origin[0]}:{origin[1]}"
    return "import" if row.source == "import" else None


class _Read(msgspec.Struct, frozen=True):
    """What a specialist reads of a record, and the format that its request asks for."""

    text: str
    response_format: str = ""


def _read(row: Row, trusted: Trusted | None, prompt: Prompt | None) -> _Read | str:
    """A record that has an answer to learn from, as it is read; or why it is no example."""
    reason = _unlabelled(row, trusted)
    if row.dialect == "short":
        return _Read(row.input or "") if reason != BY_SPECIALIST else BY_SPECIALIST
    request = _request(row) if reason is None else None
    if request is None:
        return reason or UNREADABLE
    text = prompt.read(request) if prompt is not None else Reason.PROMPT_CHANGED
    if not isinstance(text, Reason):
        return _Read(text, request.response_format)
    changed = text is Reason.PROMPT_CHANGED or _other(request, prompt)
    return CHANGED if changed else f"the request is not one a specialist may answer ({text})"


def _other(request: Request, prompt: Prompt | None) -> bool:
    """Whether what a prompt cannot read has other tools or another format, rather than something unheard of."""
    known = [prompt, *prompt.also] if prompt is not None else []
    form = request.response_format
    return not request.unsupported and not any(
        request.tools == each.tools and same_format(form, each.response_format) for each in known
    )


def _of_answer(example: Example, row: Row, response_format: str) -> filters.Rule | None:
    """What the answers say against a row. A key counts wherever it stands."""
    if example.has_reference and (
        filters.of_answer(example.reference) is filters.KEY or filters.of_answer(example.output) is filters.KEY
    ):
        return filters.KEY
    if not example.has_output:
        return None
    return filters.of_answer(example.output, response_format) if example.usable else filters.of_failure(row.answer)


class _Part:
    """The records of one prompt of a task: an even sample of their requests, oldest first."""

    def __init__(self) -> None:
        self.sample: list[tuple[str, str, Request]] = []  # record, unit, request
        self.chars = 0
        self.newest = -1.0
        self.seen = 0
        self._step = 1
        self._toolsets: Counter[int] = Counter()
        self._switches, self._last = 0, 0

    @property
    def offered(self) -> bool:
        """Whether each request brings its own tools: many lists of them, that alternate. A list that was changed, even
        often, stays for a while each time."""
        lists = len(self._toolsets)
        return lists >= TOOLSETS and self._switches > min(2 * lists, 0.3 * self.seen)

    def add(self, row: Row, request: Request) -> None:
        """Take note of a record: every one, then every other, every fourth."""
        self.newest = max(self.newest, row.at)
        tools = hash(request.tools)
        self._toolsets[tools] += 1
        self._switches, self._last = self._switches + (tools != self._last), tools
        if self.seen % self._step == 0:
            self.sample.append((row.id, unit_of(group_of(row.group, row.session), row.id), request))
            self.chars += _chars(request)
            n = len(self.sample)
            if n >= 2 * SAMPLE or (self.chars > SAMPLE_CHARS and n >= 4 * LEAST):
                self.sample, self._step = self.sample[::2], 2 * self._step
                self.chars = sum(_chars(kept) for _, _, kept in self.sample)
        self.seen += 1


def _chars(request: Request) -> int:
    return sum(len(message.text) for message in request.messages) + len(request.tools)


class _Survey:
    """The first time through the records: which take part, what their requests have in common."""

    def __init__(
        self, rows: Iterable[Recorded], known: Mapping[str, str], rules: Sequence[Rule], served: Iterable[str]
    ) -> None:
        self.known = known
        self.matcher = Matcher(enumerate(rules)) if rules else None
        self.rules, self.rest = rules, len(rules)
        self.parts: defaultdict[int, _Part] = defaultdict(_Part)
        self.peeked: set[str] = set()
        self._held: set[str] = set()  # units that an earlier run has set aside to certify with
        self.partly = set(map(imports.import_of, served)) - {""}  # files that also hold what a specialist answered
        ids: list[str] = []
        lines: list[_Line] = []
        self._rows = rows
        for row, trusted in rows:
            ids.append(row.id)
            if known.get(row.id) in PROOF:
                self._held.add(unit_of(group_of(row.group, row.session), row.id))
            line = _Line(row, trusted)
            if line.file or line.response:
                lines.append(line)
            if line.file and row.route == "specialist":
                self.partly.add(line.file)
            if row.dialect != "short" and _unlabelled(row, trusted) is None:
                request = _request(row)
                if request is not None:
                    self.parts[self.part(request)].add(row, request)
        self.older = ids[:-MOST]
        self.taken = set(ids[-MOST:])
        self.copies, self.told, self.groups = _once([line for line in lines if line.id in self.taken], known)
        self.taken -= self.copies

    def part(self, request: Request) -> int:
        """The number of the prompt that a request belongs to."""
        met = self.matcher.match(request) if self.matcher is not None else None
        return met[0] if met is not None else self.rest

    def prompt(self) -> Prompt | None:
        """The prompts of all parts, those with most fixed text first; None where no record came with its request.

        Of several parts one of a handful of records is no prompt: nothing shows there what varies.
        """
        parts = {number: part for number, part in self.parts.items() if part.seen >= LEAST or len(self.parts) == 1}
        if not parts and self.parts:
            parts = dict(self.parts)
        mined = [self._prompt(number, part) for number, part in sorted(parts.items())]
        if not mined:
            return None
        first, *others = sorted(mined, key=lambda prompt: -prompt.weight)
        return msgspec.structs.replace(first, also=tuple(others))

    def _prompt(self, number: int, part: _Part) -> Prompt:
        sample = [one for one in part.sample if one[0] in self.taken] or part.sample
        if part.offered:
            sample = [(*one[:2], msgspec.structs.replace(one[2], tools="")) for one in sample]
        current = [sample[i] for i in prompts.in_force([request for _, _, request in sample])]
        readable = [one for one in current if not one[2].unsupported] or current
        turn = self.rules[number].turn if number < len(self.rules) else None
        mined = prompts.mine([request for _, _, request in readable], lambda: self._peek(readable), turn)
        return msgspec.structs.replace(mined, offered=True) if part.offered else mined

    def _peek(self, sample: Sequence[tuple[str, str, Request]]) -> dict[int, Value]:
        """What some requests were answered, by position. Whoever looks must not be judged by them: these rows train.

        They are an eighth of the units at most, drawn by hash so that what is left stays a sample of the traffic, from
        those that no run has set aside to certify with.
        """
        free = {name for _, name, _ in sample} - self._held
        most = min(PEEKED, len({name for _, name, _ in sample}) // 8)
        units = set(sorted(free, key=lambda name: digest_of("view", name))[:most])
        wanted = {record: at for at, (record, name, _) in enumerate(sample) if name in units}
        self.peeked |= {record for record in wanted if self.known.get(record) != "tune"}
        said: dict[int, Value] = {}
        for row, trusted in self._rows:
            if row.id in wanted:
                output = _output(row)
                if trusted is not None or (output is not None and output[1]):
                    said[wanted[row.id]] = trusted.value if trusted is not None else output[0] if output else None
        return said


class _Line:
    """What of a record tells whether another import brought it too. `file`: of one import, "" where there was none."""

    __slots__ = ("at", "digest", "file", "id", "response", "trusted", "unit")

    def __init__(self, row: Row, trusted: Trusted | None) -> None:
        self.id, self.trusted, self.response, self.file = row.id, trusted, row.response_id, imports.import_of(row.id)
        self.at: float | None = row.at
        self.unit = group_of(row.group, row.session)
        parts = (row.request or b"", row.answer if row.answer is not None else b"\0none")
        self.digest = digest_of(*parts)[:32] if self.file else ""


def _once(lines: Sequence[_Line], known: Mapping[str, str]) -> tuple[set[str], dict[str, Trusted], dict[str, str]]:
    """The records of events that are there already, by another import: a file that has grown holds its old rows too.

    A copy in calibration of a row in train would be no proof. Of copies the one stays that an earlier run knows; it
    takes a trusted answer and a group from the others if it has none: these are the other values.
    """
    copies: set[str] = set()
    told: dict[str, Trusted] = {}
    groups: dict[str, str] = {}
    for every in (*_by_response(lines), *_by_content(lines)):
        same = [line for line in every if line.id not in copies]
        if len(same) < 2:
            continue
        first = min(same, key=lambda line: (known.get(line.id) != "train", line.id not in known, line.unit is None))
        answer = next((line.trusted for line in (first, *same) if line.trusted is not None), None)
        if answer is not None:
            told[first.id] = answer
        group = next((line.unit for line in (first, *same) if line.unit is not None), None)
        if group is not None:
            groups[first.id] = group
        copies |= {line.id for line in same} - {first.id}
    return copies, told, groups


def _by_response(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Records of one response: imported under two tasks that were merged, or recorded live and imported."""
    first: dict[str, str] = {}
    several = {
        line.response for line in lines if line.response and first.setdefault(line.response, line.file) != line.file
    }
    return _paired((line.response, line) for line in lines if line.response in several)


def _by_content(lines: Sequence[_Line]) -> list[list[_Line]]:
    """Imported lines with the same request and answer. Times, groups and sessions tell them apart where all have any.

    A file without times has that of its import on every line, so the time that most lines of a file have says nothing.
    """
    imported = [line for line in lines if line.file]
    times: defaultdict[str, Counter[float | None]] = defaultdict(Counter)
    for line in imported:
        times[line.file][line.at] += 1
    usual = {file: counts.most_common(1)[0] for file, counts in times.items()}
    for line in imported:
        at, count = usual[line.file]
        if line.at == at and (count > 1 or len(times[line.file]) == 1):
            line.at = None
    untimed = {line.digest for line in imported if line.at is None}
    alone = {line.digest for line in imported if line.unit is None}
    return _paired(
        (
            (
                line.digest,
                None if line.digest in untimed else line.at,
                None if line.digest in alone else line.unit,
            ),
            line,
        )
        for line in imported
    )


def _paired(keyed: Iterable[tuple[object, _Line]]) -> list[list[_Line]]:
    """Lines that are the same event: the n-th with a key in one file, and the n-th with it in another.

    So requests that repeat within a file stay.
    """
    nth: Counter[tuple[str, object]] = Counter()
    events: defaultdict[tuple[object, int], list[_Line]] = defaultdict(list)
    for key, line in keyed:
        nth[line.file, key] += 1
        events[key, nth[line.file, key]].append(line)
    return [same for same in events.values() if len(same) > 1]


def _unlabelled(row: Row, trusted: Trusted | None) -> str | None:
    """Why a record has nothing to learn from. What a specialist answered is never training truth."""
    if trusted is not None:
        return None
    if row.route == "specialist":
        return BY_SPECIALIST
    if row.status != 200 or row.answer is None or row.failure is not None:
        return NOT_WHOLE
    return None


def _request(row: Row) -> Request | None:
    try:
        request = dialects.request_in(row.dialect, row.request or b"")
    except InputError:
        return None
    if row.source == "import" and request.unsupported == "logprobs":  # asked for to learn from, not to be served by
        request = msgspec.structs.replace(request, unsupported="")
    return request if request.messages else None


def _output(row: Row) -> tuple[Value, bool] | None:
    """What the frontier said, and whether it can be learned from; None if it was not the frontier, or said nothing."""
    if row.answer is None or row.route in ("specialist", "none") or row.status != 200 or row.failure is not None:
        return None
    if row.dialect == "short":
        return decode(row.answer), True
    try:
        return dialects.answer_of(decode(row.answer)), True
    except InputError:
        return None, False


def _example(row: Row, trusted: Trusted | None, text: str, survey: _Survey) -> Example:
    """What is left of a file by a specialist that answered the rest of it is no sample, as of live traffic."""
    output = _output(row)
    kind: Any = trusted.kind if trusted else "human"
    if row.source == "import":
        sampled = imports.import_of(row.id) not in survey.partly
    else:
        sampled = output is not None and row.stage not in (Stage.CANARY, Stage.LIVE)
    return Example(
        id=row.id,
        input=text,
        output=output[0] if output else None,
        has_output=output is not None,
        usable=output is None or output[1] or trusted is not None,
        reference=trusted.value if trusted else None,
        has_reference=trusted is not None,
        reference_kind=kind,
        sampled=sampled,
        group=survey.groups.get(row.id) or group_of(row.group, row.session),
        slices=tuple(name for name in row.slices.split(",") if name),
        at=row.at,
        chances=dialects.chances_of(row.answer) if output is not None and output[1] else None,
    )


# ---------------------------------------------------------------------------------------------- splits


class Sizes(msgspec.Struct, frozen=True):
    """How many units each split should have."""

    train: int
    tune: int
    calibration: int
    test: int


def sizes(units: int, floor: int) -> Sizes | int:
    """60/10/15/15, calibration at least 1.53 floors and at most 3,000 (what is over trains); int: units missing.

    Half of the units is the most that calibration may take.
    """
    least = math.ceil(FLOORS * floor)
    calibration = min(max(round(CALIBRATION * units), least), max(MAX_CALIBRATION, least), units // 2)
    if calibration < floor:
        return 2 * floor - units
    test, tune = max(round(TEST * units), min(MIN_TEST, units // 4)), max(round(TUNE * units), 1)
    return Sizes(units - calibration - test - tune, tune, calibration, test)


class Room(msgspec.Struct, frozen=True):
    """What the examples have room for: the independent units that may certify, the floor, and the sizes of the splits.

    `sizes` is the number of units missing where there are too few.
    """

    units: int
    floor: int
    sizes: Sizes | int


def room(found: Sequence[Example], policy: Policy, delta: float, since: float | None = None) -> Room:
    """How large the splits of these examples may be; `delta` is what the attempt to come may spend."""
    sampled = [example for example in found if certifies(example, since)]
    units = len({unit(example) for example in sampled})
    kind = kind_of(policy.loss, promises.likely(found))
    floor = bounds.floor(policy.max_error, delta, kind, grouped=units < len(sampled))
    return Room(units, floor, sizes(units, floor))


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
    peeked: Collection[str] = (),
) -> dict[str, str]:
    """Example id to split. What earlier runs assigned stays; new units go where they lack, in an order of `seed`.

    A unit is a group, a session, or a row that stands alone; it is never divided. Calibration and test are never
    stratified by answer: they must stay a sample of the traffic. So a unit with a row that is there because a
    specialist was unsure of it trains only, one with a `peeked` row too, and one from before `since` (seconds since
    1970) does from now on, wherever it was. Of what is left, tune takes its share of every answer (`_stratified`).

    `by_time`: the newest units test, those before them calibrate, the next choose, the oldest train; a unit is as new
    as its newest row. Raises InputError where the examples have no times to tell them apart by.
    """
    units: dict[str, list[Example]] = defaultdict(list)
    for example in found:
        units[unit(example)].append(example)
    assigned: dict[str, str | None] = {}
    for name, rows in units.items():
        old = since is not None and all(row.at < since for row in rows)
        assigned[name] = "train" if old else _standing(rows, known, peeked)
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
    for place in ("test", "calibration", "tune"):
        lacking = max(0, getattr(wanted, place) - counts[place])
        chosen = new[:lacking] if by_time or place != "tune" else _stratified(new, units, lacking)
        assigned |= dict.fromkeys(chosen, place)
        taken = set(chosen)
        new = [name for name in new if name not in taken]
    assigned |= dict.fromkeys(new, "train")
    return {row.id: str(assigned[name]) for name, rows in units.items() for row in rows}


def _standing(rows: Sequence[Example], known: Mapping[str, str], peeked: Collection[str]) -> str | None:
    """The split that a unit has; None for a new one that may go anywhere.

    What was read of a unit is read: where one of its rows trains, all do, and what has chosen does not certify.
    """
    there = {known[row.id] for row in rows if row.id in known}
    looked = any(row.id in peeked for row in rows)
    before = next((place for place in READ_FIRST if place in there), None)
    if before is None:
        return "train" if looked or not all(row.sampled for row in rows) else None
    return "train" if looked and before in PROOF else before


def _stratified(names: Sequence[str], units: Mapping[str, Sequence[Example]], wanted: int) -> list[str]:
    """So many of the units, each answer's share of them as large as among all: every so-manyth in the answers' order.

    The order within an answer is that of `names`. A unit of several rows stands with the answer of its first.
    """
    if wanted >= len(names):
        return list(names)
    said = {name: canonical(min(units[name], key=lambda row: row.id).target) for name in names}
    ordered = sorted(range(len(names)), key=lambda i: (said[names[i]], i))
    return [names[ordered[(2 * k + 1) * len(names) // (2 * wanted)]] for k in range(wanted)]


def unit(example: Example) -> str:
    """The unit of dependence that an example belongs to."""
    return unit_of(example.group, example.id)


def most_of_a_unit(found: Sequence[Example], assigned: Mapping[str, str], since: float | None = None) -> int | None:
    """The cap on rows of a unit in calibration and test, told by tune; None where every row stands alone."""
    if len({unit(example) for example in found}) == len(found):
        return None
    in_tune = Counter(unit(e) for e in found if assigned[e.id] == "tune" and certifies(e, since))
    return max(1, int(np.percentile(list(in_tune.values()), 75))) if in_tune else 1


Dropped = dict[filters.Rule, list[str]]
"""Records that are in no split though they are examples, by rule."""


def splits(
    found: Sequence[Example],
    assigned: Mapping[str, str],
    cap: int | None = None,
    since: float | None = None,
    marks: Marks | None = None,
    one_answer: bool = True,
) -> tuple[Splits, Dropped]:
    """The typed splits; train and tune lose what must not teach, calibration and test keep every row (up to `cap`).

    Returns them with what was left out of train and tune, by rule (`learn.filters`). `cap` limits the rows of a group
    in calibration and test, chosen without looking at them. Of a group that is not in train, rows from before `since`
    are used for nothing. `one_answer`: to the same input only one answer teaches.
    """
    marks = marks or Marks()
    parts: dict[str, list[Example]] = {"train": [], "tune": [], "calibration": [], "test": []}
    taken: Counter[str] = Counter()
    unlearned: defaultdict[filters.Rule, list[str]] = defaultdict(list)
    for example in sorted(found, key=lambda e: digest_of(e.id)):
        place = assigned[example.id]
        if place != "train" and not certifies(example, since):
            continue
        if place == "tune":
            rule = filters.of_row(example, marks)
            if rule is not None and "tune" in rule.splits:
                unlearned[rule].append(example.id)
                continue
        if place in ("train", "tune"):
            parts[place].append(example)
        elif cap is None or taken[unit(example)] < cap:
            taken[unit(example)] += 1
            parts[place].append(example)
    train, dropped = filters.taught(parts["train"], marks, one_answer)
    dropped = {
        rule: [*dropped.get(rule, []), *unlearned.get(rule, [])]
        for rule in filters.RULES
        if rule in dropped or rule in unlearned
    }
    return (
        Splits(
            train=TrainSet(train),
            tune=TuneSet(parts["tune"]),
            calibration=CalibrationSet(parts["calibration"]),
            test=TestSet(parts["test"]),
        ),
        dropped,
    )


def keeping(splits: Splits, contract: OutputContract) -> tuple[Splits, Dropped]:
    """The splits without the training rows whose answer is not of the contract, and these.

    Rows that a call does not answer stay: they teach which requests to leave to the frontier.
    """
    targets = ((example.id, plain(example.target)) for example in splits.train)
    outside = [name for name, said in targets if not covers(contract, said) and not beyond(contract, said)]
    if not outside:
        return splits, {}
    gone = set(outside)
    kept = msgspec.structs.replace(splits, train=splits.train.where(lambda example: example.id not in gone))
    return kept, {filters.CONTRACT: outside}


def style_of(sets: Sequence[Example], curated: Curated) -> Style:
    """How the frontier writes its answers down, by train and tune; by the trusted answers where it said nothing."""
    said = [example.output for example in sets if example.has_output and example.usable]
    written = [text for example in sets for text in curated.arguments.get(example.id, [])]
    trusted = [example.reference for example in sets if example.has_reference]
    return infer_style(said or trusted, curated.short_form, written)
