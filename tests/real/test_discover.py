"""Discovery on a real home: what traffic of every kind comes out as, what a second run reads, what people decided."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from suffice.cli import families
from suffice.core.config import Config
from suffice.core.errors import InputError, StoreError
from suffice.core.types import OutputContract
from suffice.learn import decisions
from suffice.learn import discover as discovering
from suffice.learn.discover import Found, discover
from suffice.store import patterns, records, releases
from suffice.store.home import Home
from suffice.store.records import Row

WORDS = (
    "invoice parcel login password refund card account order printer screen phone contract",
    "lost broke forgot changed cancelled paid returned missed opened damaged reset sent",
)
THINGS, VERBS = (words.split() for words in WORDS)
TAILS = ("yesterday evening", "this morning", "after the update", "two weeks ago", "on my way home", "without reason")
LABELS = {thing: f"{thing}_issue" for thing in THINGS}


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


def complaint(rng: random.Random) -> tuple[str, str]:
    """A sentence and its label."""
    thing = rng.choice(THINGS)
    who = rng.choice(["I", "my wife", "a colleague", "our office"])
    return f"{who} {rng.choice(VERBS)} the {thing} {rng.choice(TAILS)}, ticket {rng.randrange(9999)}", LABELS[thing]


class Traffic:
    """Rows as the gateway records them."""

    def __init__(self, home: Home, seed: int = 0) -> None:
        self.home, self.rng, self.n = home, random.Random(seed), 0

    def row(self, messages: Sequence[dict[str, Any]], said: Any, status: int = 200, **more: Any) -> Row:
        self.n += 1
        body = {"model": "gpt-5", "messages": list(messages), **more}
        message = said if isinstance(said, dict) else {"role": "assistant", "content": said}
        answer = {"id": f"c{self.n}", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
        return Row(
            id=f"rec_{self.n:06}", at=1e9 + 60 * self.n, source="live", route="frontier" if status == 200 else "none",
            status=status, cost_usd=0.001, prompt_tokens=50, completion_tokens=5,
            request=msgspec.json.encode(body), answer=msgspec.json.encode(answer) if status == 200 else None,
        )  # fmt: skip

    def put(self, rows: Sequence[Row]) -> list[str]:
        with self.home.connect() as db:
            records.insert(db, rows)
        return [row.id for row in rows]

    def tickets(
        self, n: int, system: str = "Sort the ticket into one of our queues. Say the queue's name."
    ) -> list[str]:
        rows = []
        for _ in range(n):
            text, label = complaint(self.rng)
            rows.append(self.row([{"role": "system", "content": system}, {"role": "user", "content": text}], label))
        return self.put(rows)

    def summaries(self, n: int) -> list[str]:
        rows = []
        for _ in range(n):
            text = ". ".join(complaint(self.rng)[0] for _ in range(self.rng.randrange(3, 8)))
            said = f"In short, someone {self.rng.choice(VERBS)} something: {text[: self.rng.randrange(40, 160)]}"
            prompt = f"Summarise the following report in two sentences.\n\nReport:\n{text}\n\nSummary:"
            rows.append(self.row([{"role": "user", "content": prompt}], said))
        return self.put(rows)


def run(home: Home) -> Found:
    def supports(contract: OutputContract) -> str | None:
        return next((f.supports(contract) for f in families.installed()), None)

    return discover(
        home,
        Config(),
        load_matcher=families.load_matcher(home),
        supports=supports,
        clock=lambda: 1.0,
        progress=lambda what, done: None,
    )


def of(found: Found, home: Home) -> dict[str, set[str]]:
    return {name: set(patterns.record_ids(home, ids)) for name, ids in found.patterns.items()}


def only(found: Found) -> dict[str, Any]:
    assert len(found.document["tasks"]) == 1, [task["name"] for task in found.document["tasks"]]
    task: dict[str, Any] = found.document["tasks"][0]
    return task


# ---------------------------------------------------------------------------------------------- what comes out


def test_prompts_are_told_apart_and_each_gets_a_contract_and_a_verdict(home: Home) -> None:
    traffic = Traffic(home)
    tickets, summaries = traffic.tickets(600), traffic.summaries(200)
    found = run(home)
    assert sorted(map(sorted, of(found, home).values())) == sorted([sorted(tickets), sorted(summaries)])
    first, second = found.document["tasks"]
    assert (first["records"], first["contract"]["type"], first["verdict"]) == (600, "choice", "small model")
    assert set(first["contract"]["values"]) == set(LABELS.values())
    assert first["saves_usd"] > 0
    assert (second["contract"]["type"], second["verdict"]) == ("text", "keep on the frontier")
    assert found.document["unassigned"]["records"] == 0


def test_ten_records_are_a_task_that_waits_for_more(home: Home) -> None:
    Traffic(home).tickets(10)
    task = only(run(home))
    assert (task["records"], task["verdict"]) == (10, "not yet")
    assert task["needed"] > 100


def test_fewer_than_ten_are_no_task_and_become_one_when_more_come(home: Home) -> None:
    traffic = Traffic(home)
    traffic.tickets(6)
    found = run(home)
    assert found.document["tasks"] == []
    assert "6 records" in found.document["unassigned"]["why"][0]
    traffic.tickets(6)
    assert only(run(home))["records"] == 12


def test_the_same_call_over_and_over_is_for_a_cache(home: Home) -> None:
    traffic = Traffic(home)
    asked = [{"role": "system", "content": "Say whether the service is up."}, {"role": "user", "content": "Status?"}]
    traffic.put([traffic.row(asked, "up") for _ in range(300)])
    task = only(run(home))
    assert task["verdict"] != "small model"
    assert any("cache" in line for line in [*task["reasons"], *task["missing"]])


def test_failures_only_leave_nothing_to_learn_from_and_say_so(home: Home) -> None:
    traffic = Traffic(home)
    system = {"role": "system", "content": "Sort the ticket into one of our queues."}
    asked = [[system, {"role": "user", "content": complaint(traffic.rng)[0]}] for _ in range(50)]
    traffic.put([traffic.row(messages, "", 500) for messages in asked])
    task = only(run(home))
    assert (task["records"], task["contract_records"]) == (50, 0)
    assert task["verdict"] == "not yet"
    assert any("answer" in line for line in [*task["reasons"], *task["missing"]])


def test_an_empty_home_has_no_tasks(home: Home) -> None:
    found = run(home)
    assert found.document["tasks"] == []
    assert found.document["unassigned"] == {"records": 0, "share": 0.0, "why": []}


def test_a_thousand_prompts_are_a_thousand_tasks_or_say_why_not(home: Home) -> None:
    traffic, rows = Traffic(home), []
    for i in range(200):
        about = (
            " ".join(traffic.rng.choice(THINGS + VERBS) for _ in range(5)) + f" {chr(97 + i % 26)}{chr(97 + i // 26)}x"
        )
        for _ in range(12):
            text, label = complaint(traffic.rng)
            system = f"Department of {about}: name the thing that is spoken of."
            rows.append(traffic.row([{"role": "system", "content": system}, {"role": "user", "content": text}], label))
    traffic.rng.shuffle(rows)
    traffic.put(rows)
    found = run(home)
    assert sum(task["records"] for task in found.document["tasks"]) == len(rows)


def test_odd_requests_cost_nothing_but_themselves(home: Home) -> None:
    traffic = Traffic(home)
    good = traffic.tickets(100)
    enormous = "word " * 200_000
    odd = [
        traffic.row([{"role": "user", "content": enormous}], "ok"),
        traffic.row([{"role": "user", "content": "\x00\x01\x02" * 50}], "\x00"),
        traffic.row([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:x"}}]}], "a cat"),
        traffic.row([], "nothing was asked"),
        msgspec.structs.replace(traffic.row([], ""), request=b"\xff\xfe not json"),
        msgspec.structs.replace(traffic.row([], ""), request=None),
    ]
    traffic.put(odd)
    found = run(home)
    assert of(found, home) == {only(found)["name"]: set(good)}
    assert found.document["unassigned"]["records"] == len(odd)


def test_conversations_and_tool_loops_belong_to_their_prompt(home: Home) -> None:
    traffic, rows = Traffic(home), []
    tools = [
        {"type": "function", "function": {"name": "find_order", "parameters": {"type": "object", "properties": {}}}}
    ]
    system = {"role": "system", "content": "You help customers of our shop with their orders. Use the tools."}
    for i in range(80):
        turns: list[dict[str, Any]] = [system]
        for _ in range(traffic.rng.randrange(1, 6)):
            turns += [{"role": "user", "content": complaint(traffic.rng)[0]}]
            call = {"id": "x", "type": "function", "function": {"name": "find_order", "arguments": f'{{"id": {i}}}'}}
            turns += [{"role": "assistant", "content": None, "tool_calls": [call]}]
            turns += [{"role": "tool", "tool_call_id": "x", "content": f"order {i} is on its way"}]
            turns += [{"role": "assistant", "content": "It is on its way."}]
        turns += [{"role": "user", "content": complaint(traffic.rng)[0]}]
        call = {"id": "y", "type": "function", "function": {"name": "find_order", "arguments": f'{{"id": {i}}}'}}
        rows.append(traffic.row(turns, {"role": "assistant", "content": None, "tool_calls": [call]}, tools=tools))
    ids = traffic.put(rows)
    assert set().union(*of(run(home), home).values()) == set(ids)


def test_prompts_in_other_languages_and_scripts_are_told_apart(home: Home) -> None:
    traffic = Traffic(home)
    german = traffic.tickets(60, "Ordne das Ticket einer Warteschlange zu. Nenne nur den Namen.")
    japanese = traffic.tickets(60, "チケットの種類を一つだけ答えてください。余計な説明は不要です。")
    found = run(home)
    assert set().union(*of(found, home).values()) == {*german, *japanese}
    assert all(name.isascii() for name in found.patterns)


# ---------------------------------------------------------------------------------------------- again and again


def test_a_second_run_reads_only_what_is_new_and_notices_a_new_label(home: Home) -> None:
    traffic = Traffic(home)
    traffic.tickets(300)
    name = only(run(home))["name"]
    LABELS_THEN = dict(LABELS)
    try:
        LABELS["refund"] = "money_back"
        traffic.tickets(100)
        task = only(run(home))
    finally:
        LABELS.update(LABELS_THEN)
    assert (task["name"], task["records"]) == (name, 400)
    assert any("money_back" in change["what"] for change in task["changes"])
    before = patterns.bookmark(home)
    assert only(run(home))["records"] == 400
    assert patterns.bookmark(home) == before


def test_an_interrupted_run_goes_on_where_it_stopped(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    traffic = Traffic(home)
    ids = traffic.tickets(5_000)

    def interrupted(what: str, done: float) -> None:
        if done > 0.7:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        discover(
            home, Config(), load_matcher=families.load_matcher(home), supports=lambda c: None, clock=lambda: 1.0,
            progress=interrupted,
        )  # fmt: skip
    assert of(run(home), home) == {only(run(home))["name"]: set(ids)}


def test_what_a_person_decided_survives(home: Home) -> None:
    traffic = Traffic(home)
    traffic.tickets(200)
    traffic.summaries(100)
    first, second = (task["name"] for task in run(home).document["tasks"])
    patterns.rename(home, first, "triage")
    patterns.ignore(home, second)
    traffic.tickets(300)
    traffic.summaries(200)
    found = run(home).document["tasks"]
    assert [(task["name"], task["records"], task["ignored"]) for task in found] == [
        ("triage", 500, False),
        (second, 300, True),
    ]
    with pytest.raises(InputError):
        patterns.rename(home, first, "other")


def test_requests_without_a_name_join_the_task_that_others_name(home: Home) -> None:
    traffic = Traffic(home)
    rows = []
    for i in range(400):
        text, label = complaint(traffic.rng)
        system = {"role": "system", "content": "Sort the ticket into one of our queues. Say the queue's name."}
        row = traffic.row([system, {"role": "user", "content": text}], label)
        rows.append(msgspec.structs.replace(row, task="triage", rule="header") if i % 2 else row)
    traffic.put(rows)
    task = only(run(home))
    assert (task["name"], task["records"]) == ("triage", 400)
    assert len(list(records.query(home, task="triage"))) == 400


# ---------------------------------------------------------------------------------------------- interrupted, raced


HELPFUL = {"role": "system", "content": "You are a helpful assistant."}


def mixed(traffic: Traffic, n: int) -> None:
    """Two works under one prompt that says nothing: labels for complaints, and objects for orders."""
    rows = []
    for i in range(n):
        text, label = complaint(traffic.rng)
        if i % 2:
            text = f"SELECT {traffic.rng.choice(THINGS)} FROM stock WHERE id = {traffic.rng.randrange(9999)};"
            label = msgspec.json.encode({"table": "stock", "rows": traffic.rng.randrange(9)}).decode()
        rows.append(traffic.row([HELPFUL, {"role": "user", "content": text}], label))
    traffic.put(rows)


class Killed(BaseException):
    """As by a signal: nobody handles it."""


def shape(found: Found) -> list[tuple[str, int]]:
    return [(task["name"], task["records"]) for task in found.document["tasks"]]


@pytest.mark.parametrize(
    ("step", "nth"),
    [("add_group", 1), ("set_matcher", 1), ("place", 1), ("place", 3), ("assign", 1), ("put_document", 1)],
)
def test_killed_at_any_step_the_next_run_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, nth: int
) -> None:
    found = []
    for name in ("whole", "killed"):
        home = Home(tmp_path / name)
        mixed(Traffic(home), 400)
        if name == "killed":
            with monkeypatch.context() as patched:
                counted = 0
                known = getattr(patterns, step)

                def kill(*args: Any, known: Any = known, **more: Any) -> Any:
                    nonlocal counted
                    done = known(*args, **more)
                    # Members move in batches: these are cut in the middle of the division.
                    counted += step != "place" or any(p.matcher for p in patterns.all_patterns(args[0]))
                    if counted == nth:
                        raise Killed
                    return done

                patched.setattr(patterns, step, kill)
                if step == "place":
                    patched.setattr(patterns, "members", partial(patterns.members, batch=50))
                with pytest.raises(Killed):
                    run(home)
        found.append(shape(run(home)))
    assert len(found[0]) == 2
    assert found[1] == found[0]
    assert len(releases.all_tasks(home)) == 2, "no task without records is left behind"


def test_killed_before_bare_traffic_was_looked_at_again_it_is_the_next_time(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    traffic = Traffic(home)
    mixed(traffic, 100)
    run(home)
    before = patterns.bookmark(home)
    patterns.place(home, [], msgspec.structs.replace(before, late=0))
    looked: list[tuple[int, int | None]] = []
    known = patterns.members

    def members(home: Home, pattern: int, after: int = 0, last: int | None = None) -> Any:
        looked.append((after, last))
        return known(home, pattern, after, last)

    monkeypatch.setattr(patterns, "members", members)
    monkeypatch.setattr(discovering._Run, "bare", lambda self, pattern: True)
    run(home)
    assert (0, before.seq) in looked
    assert patterns.bookmark(home) == before


def test_what_is_new_is_told_however_little_comes_at_a_time(home: Home) -> None:
    traffic = Traffic(home)
    traffic.tickets(400)
    run(home)
    then = dict(LABELS)
    try:
        LABELS.update(dict.fromkeys(THINGS[:5], "money_back"))
        traffic.tickets(16)
    finally:
        LABELS.update(then)
    assert not only(run(home))["changes"], "too few to look at it again"
    traffic.tickets(16)
    assert any("money_back" in change["what"] for change in only(run(home))["changes"])


def test_a_task_renamed_while_discovery_runs_keeps_its_name(home: Home) -> None:
    traffic = Traffic(home)
    traffic.tickets(200)
    name = only(run(home))["name"]
    traffic.tickets(200, "Please put each ticket into one of our queues. Say the queue's name.")

    def rename(what: str, done: float) -> None:
        if what.startswith("comparing") and name in releases.all_tasks(home):
            patterns.rename(home, name, "triage")

    discover(
        home, Config(), load_matcher=families.load_matcher(home), supports=lambda c: None, clock=lambda: 1.0,
        progress=rename,
    )  # fmt: skip
    tasks = {p.task for p in patterns.all_patterns(home) if p.records and p.task is not None}
    assert tasks <= set(releases.all_tasks(home))
    assert set(patterns.documents(home)) <= set(releases.all_tasks(home))
    assert "triage" in tasks
    assert run(home).document["records"] == 400


def test_a_prompt_whose_task_somebody_named_is_not_divided(home: Home) -> None:
    traffic = Traffic(home)
    traffic.put(
        [
            traffic.row([HELPFUL, {"role": "user", "content": text}], label)
            for text, label in (complaint(traffic.rng) for _ in range(100))
        ]
    )
    patterns.rename(home, only(run(home))["name"], "desk")
    mixed(traffic, 500)
    assert shape(run(home)) == [("desk", 600)]


def test_a_text_divides_nothing_while_discovery_runs(home: Home) -> None:
    Traffic(home).tickets(100)
    name = only(run(home))["name"]
    with home.discovering(), pytest.raises(StoreError, match="suffice discover"):
        decisions.split_containing(home, name, "login", "logins", lambda: 1.0)
    assert decisions.split_containing(home, name, "login", "logins", lambda: 1.0)
