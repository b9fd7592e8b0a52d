"""Records to examples, and examples to splits that keep the proof honest."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.core.errors import InputError, LeakError
from suffice.core.match import Rule
from suffice.core.prompt import Template
from suffice.core.types import CalibrationSet, Example, Splits, TestSet, TrainSet, TuneSet
from suffice.learn import curate
from suffice.learn.curate import Sizes
from suffice.store.records import Row, Trusted

SYSTEM = "Answer with one of: a, b."


def completion(content: str | None = "a", finish: str = "stop", **message: Any) -> bytes:
    told = {"role": "assistant", "content": content, **message}
    return json.dumps({"choices": [{"index": 0, "message": told, "finish_reason": finish}]}).encode()


def record(i: int, *, system: str = SYSTEM, body: dict[str, Any] | None = None, **more: Any) -> Row:
    messages = [{"role": "system", "content": system}, {"role": "user", "content": f"mail number {i}"}]
    told: dict[str, Any] = {"route": "frontier", "status": 200, "answer": completion(), **more}
    request = json.dumps({"model": "m", "messages": messages, **(body or {})}).encode()
    return Row(id=f"r{i:04d}", at=float(i), source="live", request=request, **told)


def human(i: int, value: str = "b") -> Trusted:
    return Trusted(f"r{i:04d}", "human", value)


def curated(*rows: Row, trusted: Sequence[Trusted] = ()) -> curate.Curated:
    """These among 20 plain records before them."""
    told = {answer.record: answer for answer in trusted}
    return curate.examples((row, told.get(row.id)) for row in (*map(record, range(20)), *rows))


def last(*rows: Row, trusted: Sequence[Trusted] = ()) -> Example:
    found = curated(*rows, trusted=trusted)
    assert not found.dropped
    return found.examples[-1]


# ---------------------------------------------------------------------------------------------- examples


def test_a_record_becomes_an_example() -> None:
    example = last(record(30, session="s", slices="x,y"), trusted=[human(30)])
    assert (example.input, example.output, example.reference, example.target) == (
        "30",
        "a",
        "b",
        "b",
    )  # the words around it are fixed
    assert (example.group, example.slices, example.at) == ("session s", ("x", "y"), 30.0)
    assert last(record(30, session="s", group="g")).group == "group g"


def test_what_a_specialist_answered_never_trains() -> None:
    found = curated(record(30, route="specialist"))
    assert found.dropped == {"a specialist answered it": ["r0030"]}
    example = last(record(30, route="specialist"), trusted=[human(30)])
    assert (example.has_output, example.output, example.target) == (False, None, "b")


@pytest.mark.parametrize("failed", [{"status": 500}, {"answer": None}, {"failure": "cut"}, {"status": None}], ids=repr)
def test_where_the_frontier_failed_there_is_nothing_to_learn(failed: dict[str, Any]) -> None:
    assert curated(record(30, **failed)).dropped == {"the frontier gave no whole answer": ["r0030"]}
    assert not last(record(30, **failed), trusted=[human(30)]).has_output


@pytest.mark.parametrize(
    "answer",
    [completion(None, refusal="I cannot"), completion("a", "length"), completion("a", "content_filter"), b"[", b"{}"],
    ids=["refusal", "length", "filter", "no JSON", "no choice"],
)
def test_a_refusal_stays_an_example_that_cannot_be_learned_from(answer: bytes) -> None:
    assert not last(record(30, answer=answer)).usable
    assert last(record(30, answer=answer), trusted=[human(30)]).usable


@pytest.mark.parametrize("body", [{"n": 2}, {"logprobs": True}, {"stop": "."}], ids=repr)
def test_a_request_that_would_escalate_is_no_example(body: dict[str, Any]) -> None:
    (reason,) = curated(record(30, body=body)).dropped
    assert "unsupported" in reason


def test_records_of_the_older_prompt_are_dropped_with_a_reason() -> None:
    rows = [record(i, system=SYSTEM if i < 40 else "Answer with one of: a, b, c.") for i in range(100)]
    found = curate.examples((row, None) for row in rows)
    assert [example.id for example in found.examples] == [row.id for row in rows[40:]]
    assert {reason: len(ids) for reason, ids in found.dropped.items()} == {"its prompt was another (changed since)": 40}


def test_the_short_form_has_no_prompt() -> None:
    row = Row(
        id="a", at=0.0, source="import", dialect="short", route="frontier", status=200, input="x", answer=b'{"a":1}'
    )
    found = curate.examples([(row, None)])
    assert (found.prompt, found.short_form, found.examples[0].output) == (None, True, {"a": 1})


def test_a_broken_record_does_not_stop_the_others() -> None:
    broken = record(30)
    body = (broken.request or b"").replace(b"mail number 30", b"mail \xff")
    found = curate.examples([(record(0), None), (record(30) if not body else _with(broken, body), None)])
    assert len(found.examples) == 1


def _with(row: Row, request: bytes) -> Row:
    return Row(id=row.id, at=row.at, source=row.source, route=row.route, status=200, request=request, answer=row.answer)


def test_what_can_be_gone_through_again_is_not_held() -> None:
    class Rows:
        times = 0

        def __iter__(self) -> Iterator[tuple[Row, Trusted | None]]:
            self.times += 1
            return ((record(i), None) for i in range(40))

    rows = Rows()
    again, once = curate.examples(rows), curate.examples((record(i), None) for i in range(40))
    assert rows.times == 2
    assert again == once


def test_only_the_newest_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate, "MOST", 30)
    found = curate.examples([(record(i), None) for i in range(40)], left={curate.OLDER: ["gone"]})
    assert [example.id for example in found.examples] == [f"r{i:04d}" for i in range(10, 40)]
    assert found.dropped[curate.OLDER] == ["gone", *(f"r{i:04d}" for i in range(10))]


def test_of_many_requests_a_sample_is_mined_and_every_one_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate, "SAMPLE", 50)
    rows = [record(i, system=SYSTEM if i < 400 else "Answer with one of: a, b, c.") for i in range(1000)]
    rows[700] = record(700, system="Answer with one of: a, b, c.", body={"n": 2})
    found = curate.examples([(row, None) for row in rows])
    assert [example.id for example in found.examples] == [row.id for row in rows[400:] if row.id != "r0700"]
    assert {reason: len(ids) for reason, ids in found.dropped.items()} == {
        curate.CHANGED: 400,
        "the request is not one a specialist may answer (unsupported)": 1,
    }


def test_each_prompt_of_a_task_is_mined_by_itself() -> None:
    other = "Which label is it? a or b."
    tool = {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]}
    rows = [record(i, system=other if i % 3 else SYSTEM, body=None if i % 3 else tool) for i in range(90)]
    alone = curate.examples([(row, None) for row in rows])
    assert len(alone.examples) == 60, "without rules the others are of another prompt"
    rows += [record(100 + i, system=f"Something else {i}") for i in range(3)]
    rules = [Rule(head=(("system", Template((text,))),), tools=tools) for text, tools in ((SYSTEM, "*"), (other, ""))]
    found = curate.examples([(row, None) for row in rows], rules=rules)
    assert [example.id for example in found.examples] == [row.id for row in rows[:90]]
    assert found.dropped == {curate.CHANGED: ["r0100", "r0101", "r0102"]}, "so few requests show no prompt"
    assert found.prompt is not None
    assert found.prompt.messages[0][1].literals == (other,), "the newest one leads"
    assert [prompt.messages[0][1].literals for prompt in found.prompt.also] == [(SYSTEM,)]


def test_rows_whose_answers_decided_the_view_train_and_others_do_not_matter() -> None:
    dice = random.Random(0)
    rows = []
    for i in range(1200):
        label = dice.choice("ab")
        shots = [("user", f"mail like {dice.random()}"), ("assistant", dice.choice("ab"))]
        turns = [*shots, ("user", f"mail number {i}")]
        messages = [{"role": role, "content": text} for role, text in (("system", SYSTEM), *turns)]
        rows.append(record(i, body={"messages": messages}, answer=completion(label)))
    found = curate.examples([(row, None) for row in rows])
    assert found.prompt is not None
    assert [example.input for example in found.examples] == [str(i) for i in range(1200)]
    assert 100 <= len(found.marks.peeked) <= 150
    sizes = curate.sizes(1200, 122)
    assert isinstance(sizes, Sizes)
    assigned = curate.split(found.examples, {}, sizes, 0, peeked=found.marks.peeked)
    assert {assigned[name] for name in found.marks.peeked} == {"train"}
    again = curate.examples([(row, None) for row in rows], assigned)
    assert again.marks.peeked == found.marks.peeked
    proof = [i for i, row in enumerate(rows) if assigned[row.id] in ("calibration", "test")]
    for i in proof:
        rows[i] = msgspec.structs.replace(rows[i], answer=completion("quite another answer"))
    assert curate.examples([(row, None) for row in rows], assigned).prompt == found.prompt


def test_the_answers_of_a_group_that_certifies_are_not_looked_at() -> None:
    def turns(i: int) -> dict[str, Any]:
        shots = [("user", f"mail like {i * 7}"), ("assistant", "ab"[i % 2]), ("user", f"mail number {i}")]
        return {"messages": [{"role": role, "content": text} for role, text in (("system", SYSTEM), *shots)]}

    rows = [record(i, body=turns(i), answer=completion("ab"[i % 2]), group=f"g{i % 300}") for i in range(900)]
    known = {f"r{i:04d}": "calibration" for i in range(200)}  # one row of each of 200 groups: the others are new
    found = curate.examples([(row, None) for row in rows], known)
    assert len(found.marks.peeked) > 50
    assert {int(name[1:]) % 300 for name in found.marks.peeked} <= set(range(200, 300))


def test_what_must_not_teach_is_marked() -> None:
    key = "sk-proj-Ab3dE6gH9jKlMn0pQrStUvWx12345"
    wanted = {"type": "json_schema", "json_schema": {"schema": {"type": "object", "required": ["label"]}}}
    test = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": "mail number test"}]
    found = curated(
        record(30, body={"messages": test}),
        record(31, answer=completion("a", "length")),
        record(32, answer=completion("I'm sorry, but I can't help with that.")),
        record(33, answer=completion(f"the key is {key}")),
    )
    met = {name: rule.name for name, rule in found.marks.rules.items()}
    assert met == {"r0030": "test", "r0031": "truncated", "r0032": "declined", "r0033": "key"}
    rows = [record(i, body={"response_format": wanted}, answer=completion('{"label": "a"}')) for i in range(30)]
    rows.append(record(30, body={"response_format": wanted}, answer=completion('{"other": "a"}')))
    found = curate.examples([(row, None) for row in rows])
    assert {name: rule.name for name, rule in found.marks.rules.items()} == {"r0030": "schema"}


def test_a_key_in_the_instructions_does_not_keep_a_task_from_being_learned() -> None:
    system = f"{SYSTEM} The tracker's key is sk-proj-Ab3dE6gH9jKlMn0pQrStUvWx12345."
    found = curate.examples([(record(i, system=system), None) for i in range(30)])
    assert not found.marks.rules, "a specialist never reads it"


# ---------------------------------------------------------------------------------------------- sizes


@given(st.integers(0, 60_000), st.integers(1, 1500))
def test_sizes_add_up_and_keep_their_limits(units: int, floor: int) -> None:
    found = curate.sizes(units, floor)
    if isinstance(found, int):
        assert found > 0
        assert units < 2 * floor
        return
    assert found.train + found.tune + found.calibration + found.test == units
    assert min(found.train, found.test) >= 0
    assert floor <= found.calibration <= min(3000, units // 2)
    assert found.calibration >= min(1.5 * floor, units // 2, 3000)


def test_sizes_of_a_usual_file() -> None:
    assert curate.sizes(10_000, 183) == Sizes(6000, 1000, 1500, 1500)
    assert curate.sizes(1000, 183) == Sizes(470, 100, 280, 150)
    big = curate.sizes(100_000, 183)
    assert isinstance(big, Sizes)
    assert big.calibration == 3000


@pytest.mark.parametrize("eps", [0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2])
def test_the_smallest_usual_calibration_may_count_an_error(eps: float) -> None:
    """Binomial tail at half of 5%, by hand: were one of its requests answered wrong, it could still be certified."""
    floor = math.ceil(math.log(0.025) / math.log(1 - eps))
    found = curate.sizes(4 * floor, floor)
    assert isinstance(found, Sizes)
    n = found.calibration
    assert (1 - eps) ** n + n * eps * (1 - eps) ** (n - 1) <= 0.025


def test_a_floor_above_the_most_that_calibration_takes() -> None:
    found = curate.sizes(20_000, 3688)
    assert isinstance(found, Sizes)
    assert found.calibration >= 3688


# ---------------------------------------------------------------------------------------------- splits


def example(i: int, output: str = "a", *, group: str | None = None, usable: bool = True, text: str = "") -> Example:
    return Example(id=f"e{i:05d}", input=text or f"x{i}", output=output, has_output=True, group=group, usable=usable)


def test_a_split_has_the_sizes_asked_for_and_its_seed() -> None:
    found = [example(i) for i in range(1000)]
    wanted = Sizes(600, 100, 150, 150)
    first = curate.split(found, {}, wanted, 0)
    assert Counter(first.values()) == {"train": 600, "tune": 100, "calibration": 150, "test": 150}
    assert curate.split(found[::-1], {}, wanted, 0) == first
    assert curate.split(found, {}, wanted, 1) != first


def test_what_was_assigned_stays_and_new_rows_fill() -> None:
    found = [example(i) for i in range(2000)]
    before = curate.split(found[:1000], {}, Sizes(600, 100, 150, 150), 0)
    known = {i: "train" if place == "test" else place for i, place in before.items()}  # the gate has read test
    after = curate.split(found, known, Sizes(1200, 200, 300, 300), 0)
    assert {i: after[i] for i in known} == known
    assert Counter(after.values()) == {"train": 1200, "tune": 200, "calibration": 300, "test": 300}


@given(st.lists(st.integers(0, 12), min_size=20, max_size=60), st.integers(0, 5))
def test_a_group_is_never_divided(groups: list[int], seed: int) -> None:
    found = [example(i, group=f"g{g}" if g else None) for i, g in enumerate(groups)]
    units = len({curate.unit(e) for e in found})
    wanted = Sizes(units - 3 * (units // 4), units // 4, units // 4, units // 4)
    assigned = curate.split(found, {}, wanted, seed)
    places: dict[str, set[str]] = {}
    for e in found:
        places.setdefault(curate.unit(e), set()).add(assigned[e.id])
    assert all(len(there) == 1 for there in places.values())
    curate.splits(found, assigned)  # and nothing leaks


def test_a_new_row_of_a_known_group_goes_where_the_group_is() -> None:
    found = [example(0, group="g"), example(1, group="g")]
    assert curate.split(found, {"e00000": "calibration"}, Sizes(2, 0, 0, 0), 0)["e00001"] == "calibration"


def test_a_unit_that_was_read_in_part_trains() -> None:
    found = [example(0, group="g"), example(1, group="g")]
    for read in ("train", "tune"):
        known = {"e00000": "calibration", "e00001": read}
        assert set(curate.split(found, known, Sizes(2, 0, 0, 0), 0).values()) == {read}


def test_a_unit_whose_answers_were_looked_at_never_certifies() -> None:
    found = [example(0, group="g"), example(1, group="g")]
    for place, then in (("calibration", "train"), ("test", "train"), ("tune", "tune")):
        assigned = curate.split(found, {"e00000": place}, Sizes(2, 0, 0, 0), 0, peeked={"e00001"})
        assert set(assigned.values()) == {then}


def imported(
    file: str, line: int, text: str, at: float = 1.0, output: str = "a", task: str = "task", **more: Any
) -> Row:
    body, answer = json.dumps({"input": text}).encode(), json.dumps(output).encode()
    return Row(
        id=f"imp_{file * 16}{line:08d}{task}", at=at, source="import", dialect="short", status=200,
        input=text, request=body, answer=answer, **{"route": "frontier", **more},
    )  # fmt: skip


def ids(rows: Sequence[Row], known: dict[str, str] | None = None) -> list[str]:
    return [f"{e.id[4]}{int(e.id[20:28])}" for e in curate.examples([(row, None) for row in rows], known).examples]


def test_a_file_that_has_grown_brings_its_new_rows_only() -> None:
    old = [imported("a", i, text) for i, text in enumerate(("x", "y", "x"))]
    grown = [imported("b", i, text, at=2.0) for i, text in enumerate(("x", "y", "x", "x", "z"))]
    assert ids(old) == ["a0", "a1", "a2"], "a request that repeats within a file stays"
    assert ids(old + grown) == ["a0", "a1", "a2", "b3", "b4"]
    assert ids(old + grown, {grown[1].id: "calibration"}) == ["a0", "a2", "b1", "b3", "b4"], "what a run knows stays"
    assert ids([*old, imported("b", 0, "x", at=2.0, output="b")]) == ["a0", "a1", "a2", "b0"]


def test_times_tell_a_repeated_request_from_a_copy() -> None:
    old = [imported("a", 0, "x", at=1.0), imported("a", 1, "y", at=2.0)]
    later = [imported("b", 0, "y", at=2.0), imported("b", 1, "x", at=3.0)]
    assert ids(old + later) == ["a0", "a1", "b1"]


def test_a_file_that_was_imported_again_with_times_or_groups_brings_nothing_new() -> None:
    texts = ("x", "y", "x")
    bare = [imported("a", i, text, at=9.0) for i, text in enumerate(texts)]
    dated = [imported("b", i, text, at=float(i)) for i, text in enumerate(texts)]
    grouped = [imported("c", i, text, at=9.5, group=f"g{i}") for i, text in enumerate(texts)]
    for more in (dated, grouped):
        assert ids([*bare, *more], {row.id: "calibration" for row in bare}) == ["a0", "a1", "a2"]
    assert ids([*bare, *grouped]) == ["c0", "c1", "c2"], "what is known of groups is kept"
    found = curate.examples([(row, None) for row in (*bare, *grouped)], {row.id: "calibration" for row in bare})
    assert [(e.id, e.group) for e in found.examples] == [(row.id, f"group g{i}") for i, row in enumerate(bare)]
    other = [imported("d", i, text, at=9.5, group=f"h{i}") for i, text in enumerate(texts)]
    assert ids([*grouped, *other]) == ["c0", "c1", "c2", "d0", "d1", "d2"], "groups tell senders apart"


def test_rows_without_a_time_are_copies_though_others_have_one() -> None:
    at = [1.0, 2.0, 7.0, 7.0]  # the last two were given that of the import
    old = [imported("a", i, f"x{i}", at=moment) for i, moment in enumerate(at)]
    again = [imported("b", i, f"x{i}", at=moment if moment < 7 else 8.0) for i, moment in enumerate(at)]
    assert ids([*old, *again]) == ["a0", "a1", "a2", "a3"]


def test_of_tasks_that_were_merged_a_row_that_both_had_is_one() -> None:
    """The same file was imported under both names: one of the two rows could train, the other certify."""
    one = [imported("a", i, text) for i, text in enumerate(("x", "y", "x"))]
    two = [imported("a", i, text, task="else") for i, text in enumerate(("x", "y", "x"))]
    assert ids([*one, *two], {row.id: "train" for row in two}) == ["a0", "a1", "a2"]


def test_a_response_that_was_recorded_and_imported_is_one_event() -> None:
    live = [record(i, response_id=f"chatcmpl-{i % 20}") for i in range(40)]
    file = [msgspec.structs.replace(record(i), id=f"imp_{'a' * 16}{i:08d}task", source="import") for i in range(15)]
    file = [msgspec.structs.replace(row, response_id=f"chatcmpl-{i}") for i, row in enumerate(file)]
    found = curate.examples([(row, None) for row in (*live, *file)])
    assert [example.id for example in found.examples] == [row.id for row in live], (
        "ids that come again live say nothing"
    )
    assert len(found.dropped[curate.COPIED]) == 15


def test_the_rest_of_a_file_that_a_specialist_answered_is_no_sample() -> None:
    rows = [imported("a", 0, "x"), imported("a", 1, "y", route="specialist"), imported("b", 0, "z")]
    assert [(e.id[4], e.sampled) for e in curate.examples([(row, None) for row in rows]).examples] == [
        ("a", False),
        ("b", True),
    ]
    left = {curate.BY_SPECIALIST: [rows[1].id]}
    assert not curate.examples([(rows[0], None)], left=left).examples[0].sampled


def test_an_imported_record_with_any_name_is_no_line_of_a_file() -> None:
    row = msgspec.structs.replace(imported("a", 0, "x"), id="imp_of_mine")
    assert curate.examples([(row, None)]).sources == {row.id: "import"}


def test_long_requests_are_mined_by_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(curate, "SAMPLE_CHARS", 100 * len(SYSTEM))
    part = curate._Part()
    for i in range(1000):
        request = curate._request(record(i))
        assert request is not None
        part.add(record(i), request)
    assert part.seen == 1000 and 20 <= len(part.sample) <= 100
    assert sum(map(curate._chars, (request for _, _, request in part.sample))) == part.chars


def test_a_copy_hands_on_its_trusted_answer() -> None:
    one, two = imported("a", 0, "x"), imported("b", 0, "x", at=2.0)
    found = curate.examples([(one, None), (two, Trusted(two.id, "rule", "c"))])
    assert [(e.id, e.reference, e.reference_kind) for e in found.examples] == [(one.id, "c", "rule")]
    assert list(found.dropped.values()) == [[two.id]]


def test_a_leak_is_an_error() -> None:
    one, two = example(0, group="g"), example(1, group="g")
    for there in ([one], [two]):
        with pytest.raises(LeakError):
            Splits(train=TrainSet([one]), tune=TuneSet([]), calibration=CalibrationSet(there), test=TestSet([]))


def test_filters_that_look_at_the_answer_touch_train_and_tune_only() -> None:
    found, assigned = [], {}
    for p, place in enumerate(("train", "tune", "calibration", "test")):
        for i in range(10):
            output, usable = ("b" if i < 2 else "a"), i != 9
            found.append(example(100 * p + i, output, usable=usable, text=f"same {place}" if i < 6 else ""))
            assigned[found[-1].id] = place
    splits, dropped = curate.splits(found, assigned)
    assert [len(getattr(splits, name)) for name in ("train", "tune", "calibration", "test")] == [7, 9, 10, 10]
    assert {rule.name: sorted(ids) for rule, ids in dropped.items()} == {
        "contradicting": ["e00000", "e00001"],
        "unreadable": ["e00009", "e00109"],
    }
    assert {e.output for e in splits.train} == {"a"}


def test_the_cap_holds_in_calibration_and_test_only() -> None:
    found = [example(i, group=f"g{i % 4}") for i in range(40)]
    places = ("train", "tune", "calibration", "test")
    splits, _ = curate.splits(found, {e.id: places[int(e.id[1:]) % 4] for e in found}, cap=3)
    assert [len(getattr(splits, name)) for name in places] == [10, 10, 3, 3]


# ---------------------------------------------------------------------------------------------- by time, and since


def timed(n: int, group: Callable[[int], str | None] = lambda i: None) -> list[Example]:
    return [
        Example(id=f"e{i:05d}", input=f"mail {i}", output="a", has_output=True, at=float(i), group=group(i))
        for i in range(n)
    ]


def test_a_split_by_time_tests_on_the_newest() -> None:
    found = timed(1000)
    assigned = curate.split(found[::-1], {}, Sizes(600, 100, 150, 150), 0, by_time=True)
    places = [assigned[example.id] for example in found]
    assert places == ["train"] * 600 + ["tune"] * 100 + ["calibration"] * 150 + ["test"] * 150


def test_a_group_is_as_new_as_its_newest_row() -> None:
    found = timed(1000, lambda i: "old and new" if i in (0, 999) else f"g{i // 2}" if i < 600 else None)
    assigned = curate.split(found, {}, Sizes(400, 50, 50, 50), 0, by_time=True)
    assert assigned["e00000"] == assigned["e00999"] == "test"
    for group in {example.group for example in found if example.group}:
        assert len({assigned[example.id] for example in found if example.group == group}) == 1


def test_newer_rows_certify_a_later_run() -> None:
    found = timed(2000)
    before = curate.split(found[:1000], {}, Sizes(600, 100, 150, 150), 0, by_time=True)
    read = {name: "train" if place == "test" else place for name, place in before.items()}
    after = curate.split(found, read, Sizes(1200, 200, 300, 300), 0, by_time=True)
    assert {name: after[name] for name in read} == read
    assert [after[example.id] for example in found[-450:]] == ["calibration"] * 150 + ["test"] * 300


def test_rows_without_times_cannot_be_split_by_time() -> None:
    found = [msgspec.structs.replace(example, at=7.0) for example in timed(100)]
    with pytest.raises(InputError, match="times"):
        curate.split(found, {}, Sizes(60, 10, 15, 15), 0, by_time=True)


def test_rows_from_before_a_moment_train_wherever_they_were() -> None:
    found = timed(1000)
    known = curate.split(found[:500], {}, Sizes(200, 100, 100, 100), 0)
    assigned = curate.split(found, known, Sizes(200, 50, 75, 75), 0, since=500.0)
    assert {assigned[example.id] for example in found[:500]} == {"train"}
    assert Counter(assigned[example.id] for example in found[500:]) == {
        "train": 300, "tune": 50, "calibration": 75, "test": 75,
    }  # fmt: skip


def test_of_a_group_from_before_and_after_only_the_new_rows_certify() -> None:
    found = timed(400, lambda i: f"customer {i % 40}")
    assigned = curate.split(found, {}, Sizes(20, 5, 8, 7), 0, since=200.0)
    assert Counter(assigned.values()) == {"train": 200, "tune": 50, "calibration": 80, "test": 70}
    parts = curate.splits(found, assigned, 10, 200.0)[0]
    assert len(parts.train) == 200
    assert {len(parts.tune), len(parts.calibration), len(parts.test)} == {25, 40, 35}
    assert all(row.at >= 200 for part in (parts.tune, parts.calibration, parts.test) for row in part)
