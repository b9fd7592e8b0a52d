"""Discovery as a user sees it: raw traffic in, named tasks with a verdict out; what people decide stays decided."""

from __future__ import annotations

import fcntl
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_support import SUFFICE, FakeUpstream, Gateway, config, suffice, told, until

from suffice.cli import discover_command
from suffice.core.types import TASK_NAME
from suffice.demo.workload import Ticket, generate
from suffice.store import patterns, releases
from suffice.store.home import Home

Serve = Callable[..., Gateway]
Line = dict[str, Any]

TRIAGE = "You are Anna, the support assistant of ACME. Today is 2026-03-{day:02d}. Classify the customer's message by its intent. Answer with the label only."  # noqa: E501
SENTIMENT = (
    "Decide whether the sentiment of the review below is positive or negative. Reply with one word.\n\nReview: {text}"
)
INCIDENT = "Assess the incident report you are given: how urgent is it, and which team takes it? Return a JSON object with the keys urgency and team."  # noqa: E501
PRODUCT = "Write a friendly product description for the online shop out of the facts you are given. Two sentences."

_THINGS = "pump router invoice chair laptop camera kettle bicycle jacket printer lamp sofa phone oven drone tent"
_PLACES = "Lyon Oslo Porto Graz Turin Malmo Ghent Leeds Brno Kiel Cork Pisa Lviv Bergen Basel Utrecht"
_HOW = "suddenly again slowly twice today outside overnight upstairs yesterday mostly"
THINGS, PLACES, HOW = _THINGS.split(), _PLACES.split(), _HOW.split()
GOOD = ["works wonderfully", "is a delight", "was worth every cent", "looks splendid", "made us happy"]
BAD = ["broke at once", "is a disgrace", "was a waste of money", "looks shabby", "made us furious"]
REVIEWS = [
    "The {thing} I bought in {place} {said}.", "{place}, {how}: my {thing} {said}! Nothing to add", "It {said}. {how}!",
    "Our {thing} {said} {how}, as {place} had warned me", "{thing} from {other}: {said}", "{how} the {thing} {said}?!",
]  # fmt: skip
TEAMS = {"parcels": ["parcel", "item", "order"], "accounts": ["login", "account", "app"], "money": ["charge", "refund"]}
CHAT = [
    "How do I boil an egg so that the yolk stays soft?", "Tell me a joke about {thing}s.",
    "Who won the race in {place}?", "My {thing} makes a noise, is that normal?", "Why is the sky blue?",
    "Is {place} far from {other}?",
    "Give me three names for a cat.", "What rhymes with {thing}?", "Should I visit {place} or {other} in winter?",
    "I am bored.", "Write a haiku on a {thing}.", "Can you help me plan a weekend in {place}?",
]  # fmt: skip


def line(id: str, at: float, messages: list[tuple[str, str]], answer: str | None) -> Line:
    """An exchange in the form of an import."""
    message = {"role": "assistant", "content": answer}
    return {
        "at": at,
        "request": {"model": "gpt-4o", "messages": [{"role": role, "content": text} for role, text in messages]},
        "response": {
            "id": id,
            "object": "chat.completion",
            "model": "gpt-4o-2024-08-06",
            "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
            "usage": {"prompt_tokens": 120, "completion_tokens": 8, "total_tokens": 128},
        },
    }


def facts(rng: random.Random) -> dict[str, str]:
    place, other = rng.sample(PLACES, 2)
    return {"thing": rng.choice(THINGS), "place": place, "other": other, "how": rng.choice(HOW)}


def mixture(tickets: list[Ticket], seed: int = 0) -> list[Line]:
    """Three prompts with closed answers, one with free text, and talk without a prompt; ids tell the truth."""
    rng = random.Random(seed)
    made: list[tuple[str, list[tuple[str, str]], str]] = []
    for i, ticket in enumerate(tickets):
        made.append(("triage", [("system", TRIAGE.format(day=1 + i % 28)), ("user", ticket.text)], ticket.truth))
    for _ in range(len(tickets) // 2):
        f, good = facts(rng), rng.random() < 0.6
        said = rng.choice(GOOD if good else BAD)
        text = rng.choice(REVIEWS).format(**f, said=said)
        made.append(("sentiment", [("user", SENTIMENT.format(text=text))], "positive" if good else "negative"))
    for ticket in generate(len(tickets) // 2, 900 + seed):
        team = next((team for team, words in TEAMS.items() if any(w in ticket.truth for w in words)), "desk")
        answer = json.dumps({"urgency": "high" if team in ("parcels", "accounts") else "low", "team": team})
        made.append(("incident", [("system", INCIDENT), ("user", ticket.text)], answer))
    for i in range(len(tickets) // 4):
        f = facts(rng)
        text = f"{f['thing']}, made in {f['place']}, {i} grams"
        free = f"Our {f['thing']} comes straight from {f['place']} and weighs {i} grams. {f['how'].title()} a joy!"
        made.append(("product", [("system", PRODUCT), ("user", text)], free))
    for i in range(len(tickets) // 5):
        f = facts(rng)
        said = " ".join(rng.choices([*THINGS, *PLACES, *HOW, "so", "you", "see", "the", "of", "and"], k=4 + i))
        made.append(("chat", [("user", f"{rng.choice(CHAT).format(**f)} ({i})")], said))
    rng.shuffle(made)
    return [
        line(f"{kind}-{seed}-{i}", 1_770_000_000 + i * 900.0, messages, answer)
        for i, (kind, messages, answer) in enumerate(made)
    ]


def write(file: Path, lines: list[Line]) -> Path:
    file.write_text("".join(json.dumps(one) + "\n" for one in lines))
    return file


@pytest.fixture(scope="module")
def traffic(tickets: list[Ticket]) -> list[Line]:
    return mixture(tickets[:360])


@pytest.fixture(scope="module")
def imported(traffic: list[Line], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with the traffic, not discovered. Copy it."""
    folder = tmp_path_factory.mktemp("mixture")
    told("import", write(folder / "traffic.jsonl", traffic), "--home", folder / "home")
    return folder / "home"


@pytest.fixture(scope="module")
def found(imported: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A home after discovery with the document; copy it, never write to it."""
    home = Path(shutil.copytree(imported, tmp_path_factory.mktemp("found") / "home"))
    return home, told("discover", "--home", home)


@pytest.fixture
def home(found: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """A copy of the discovered home for this test."""
    return Path(shutil.copytree(found[0], tmp_path / "home"))


def truths(home: Path) -> dict[str, str]:
    """The kind of each record."""
    done = suffice("records", "--home", home, "--json")
    rows = [json.loads(row) for row in done.stdout.splitlines()]
    return {row["id"]: row["response_id"].split("-")[0] for row in rows}


@pytest.fixture(scope="module")
def names(found: tuple[Path, dict[str, Any]]) -> dict[str, str]:
    """The name that each kind of traffic got."""
    kinds = truths(found[0])
    tasks = found[1]["tasks"]
    return {Counter(kinds[id] for id in task["record_ids"]).most_common(1)[0][0]: task["name"] for task in tasks}


def tasks_of(home: Path) -> dict[str, dict[str, Any]]:
    return {task["name"]: task for task in told("tasks", "--home", home)["tasks"]}


def refused(*arguments: str | Path, word: str) -> None:
    """Exit 2 with one line that holds a word."""
    done = suffice(*arguments)
    assert done.returncode == 2 and done.stdout == b"", (done.returncode, done.stdout, done.stderr)
    assert len(done.stderr.splitlines()) == 1 and word in done.stderr.decode(), done.stderr.decode()


# ---------------------------------------------------------------------------------------------- what is found


def test_tasks_are_found_named_and_judged(found: tuple[Path, dict[str, Any]], names: dict[str, str]) -> None:
    home, document = found
    kinds = truths(home)
    assert document["records"] == document["new"] == len(kinds)
    assert {"triage", "sentiment", "incident", "product"} <= set(names)
    tasks = {task["name"]: task for task in document["tasks"]}
    assert len(tasks) == len(document["tasks"])
    for kind in ("triage", "sentiment", "incident", "product"):
        task = tasks[names[kind]]
        own = [kinds[id] for id in task["record_ids"]]
        assert len(own) == task["records"] and own.count(kind) >= 0.97 * len(own)
        assert own.count(kind) >= 0.97 * list(kinds.values()).count(kind)
        assert task["share"] == pytest.approx(task["records"] / len(kinds))
        assert TASK_NAME.fullmatch(task["name"]) and re.fullmatch(r"[a-z]+(-[a-z]+){1,3}(-\d+)?", task["name"])
    every = [id for task in tasks.values() for id in task["record_ids"]]
    assert len(every) == len(set(every)) == len(kinds) - document["unassigned"]["records"]
    assert document["unassigned"]["share"] == pytest.approx(document["unassigned"]["records"] / len(kinds))
    assert tasks[names["triage"]]["contract"]["type"].lower() == "choice"
    assert tasks[names["product"]]["verdict"] == "keep on the frontier"
    assert tasks[names["sentiment"]]["verdict"] in ("small model", "not yet")
    assert "classify" in names["triage"] and "anna" not in names["triage"] and "acme" not in names["triage"]
    keys = list(document["tasks"][0])
    assert keys[:5] == ["name", "records", "share", "contract", "record_ids"] and "verdict" in keys


def test_the_next_run_reads_only_what_is_new(
    home: Path, found: tuple[Path, dict[str, Any]], names: dict[str, str], tickets: list[Ticket], tmp_path: Path
) -> None:
    before = {task["name"]: task["records"] for task in found[1]["tasks"]}
    again = told("discover", "--home", home)
    assert again["new"] == 0 and {task["name"]: task["records"] for task in again["tasks"]} == before
    more = [one for one in mixture(tickets[400:480], seed=1) if one["response"]["id"].startswith("triage")]
    told("import", write(tmp_path / "more.jsonl", more), "--home", home)
    grown = told("discover", "--home", home)
    assert grown["new"] == len(more) == 80
    assert {task["name"]: task["records"] for task in grown["tasks"]} == before | {
        names["triage"]: before[names["triage"]] + 80
    }


def test_what_a_user_reads(home: Path, names: dict[str, str]) -> None:
    done = suffice("discover", "--home", home)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.decode().splitlines()
    text = " ".join(done.stdout.decode().split())
    assert re.match(r"\d+ tasks are \d+% of [\d,]+ calls and \d+% of \$[\d.]+", text)
    assert all(len(one) <= 100 for one in lines), max(lines, key=len)
    assert all(name in text for name in names.values())
    assert "would save" in text or "a month" in text
    assert lines[-1].startswith("next: ")


def test_many_tasks_are_told_in_few_lines() -> None:
    def task(i: int, verdict: str, **more: Any) -> dict[str, Any]:
        return {
            "name": f"classify-customer-intents-{i}", "records": 100, "share": 0.02, "cost_share": 0.02,
            "ignored": False, "contract_told": "JSON with " + ", ".join(f"f_{k} (one of 5 values)" for k in range(9)),
            "verdict": verdict, "reasons": ["Its answers can be verified: labels.", "Why. " * 80], "missing": ["rows"],
            "changes": [{"what": "the answer has a new label, `refund_fee`, in 14 of 200 answers"}],
            "monthly_usd": 1234.5, "saves_usd": 800.0 + i, **more,
        }  # fmt: skip

    tasks = [task(0, "small model", ignored=True), *(task(i, "not yet") for i in range(1, 49)), task(49, "small model")]
    document = {
        "tasks": tasks, "unassigned": {"records": 100, "share": 0.02, "why": ["100 records are chat"]},
        "records": 5_100, "new": 40, "cost_usd": 41.2,
        "suggestions": ["a and b look like the same work: `suffice tasks merge classify-a classify-b`"],
    }  # fmt: skip
    lines = list(discover_command.told(document, 10))
    text = "\n".join(lines)
    assert lines[0].startswith("50 tasks are 100% of 5,100 calls (40 of them new) and 100% of $41.20; 1 looks like")
    assert all(len(line) <= 100 for line in text.splitlines()) and len(text.splitlines()) < 130
    assert "and 10 more, 20% of the calls" in text and "`suffice tasks merge classify-a classify-b`" in text
    assert "classify-customer-intents-49: work for a small model" in text and "`refund_fee`, in 14 of 200" in text
    assert "100 calls (2%) belong to no task: 100 records are chat." in text
    assert lines[-1] == "next: suffice learn classify-customer-intents-49"
    free = [{**one, "monthly_usd": None, "saves_usd": None, "cost_share": None} for one in tasks]
    text = "\n".join(discover_command.told({**document, "tasks": free, "cost_usd": 0.0}, 10))
    assert "$" not in text and "month" not in text


# ---------------------------------------------------------------------------------------------- little or nothing


@pytest.mark.parametrize("rows", [0, 1, 10])
def test_little_traffic_is_told(rows: int, traffic: list[Line], tmp_path: Path) -> None:
    if rows:
        told("import", write(tmp_path / "few.jsonl", traffic[:rows]), "--home", tmp_path / "home")
    else:
        assert suffice("learn", "x", "--home", tmp_path / "home", "--data", "/dev/null").returncode == 2
    done = suffice("discover", "--home", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert (b"no records yet" in done.stdout) == (rows == 0)
    assert b"suffice import" in done.stdout
    document = told("discover", "--home", tmp_path / "home")
    assert document["tasks"] == [] and document["unassigned"]["records"] == rows


def test_a_home_that_is_not_there(tmp_path: Path) -> None:
    refused("discover", "--home", tmp_path / "nowhere", word="nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_failures_only(serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    gateway = serve(config("http://127.0.0.1:1/v1"))
    for i in range(12):
        messages = [{"role": "system", "content": INCIDENT}, {"role": "user", "content": f"Smoke in {PLACES[i]}"}]
        answer = gateway.post(json.dumps({"model": "gpt-4o", "messages": messages}).encode())
        assert answer.status in (502, 503), "it cannot be reached, and soon is left alone"
    gateway.record(answer.id)
    done = suffice("discover", "--home", gateway.home)
    assert done.returncode == 0, done.stderr
    text = " ".join(done.stdout.decode().split())
    assert "12 calls" in text and ("whole answer" in text or "cannot be read" in text)


# ---------------------------------------------------------------------------------------------- decisions


def test_decisions_survive(
    home: Path, names: dict[str, str], tickets: list[Ticket], traffic: list[Line], tmp_path: Path
) -> None:
    old, feeling, incident = names["triage"], names["sentiment"], names["incident"]
    before = tasks_of(home)
    assert told("tasks", "rename", old, "triage", "--home", home)["task"] == "triage"
    assert told("tasks", "merge", feeling, incident, "--home", home)["merged"] == feeling
    assert told("tasks", "ignore", names["product"], "--home", home)["ignored"] is True
    refused("tasks", "split", "triage", "--as", "part", "--containing", "no such text", "--home", home, word="no such")
    assert "part" not in tasks_of(home)
    cut = told("tasks", "split", incident, "--as", "orders", "--containing", "order", "--home", home)
    asked = [one for one in traffic if one["response"]["id"].split("-")[0] in ("incident", "sentiment")]
    orders = sum(any("order" in message["content"] for message in one["request"]["messages"]) for one in asked)
    assert cut["records"] == orders > 20

    def check(more: int = 0) -> None:
        now = tasks_of(home)
        assert old not in now and feeling not in now
        assert now["triage"]["names"] == [old] and now[incident]["names"] == [feeling]
        assert now["triage"]["records"] == before[old]["records"] + more
        assert now["orders"]["records"] == orders
        assert now[incident]["records"] == before[incident]["records"] + before[feeling]["records"] - orders
        assert now[names["product"]]["ignored"] is True

    check()
    told("discover", "--home", home)
    check()
    more = [one for one in mixture(tickets[500:540], seed=2) if one["response"]["id"].startswith("triage")]
    told("import", write(tmp_path / "more.jsonl", more), "--home", home)
    document = told("discover", "--home", home)
    check(40)
    tasks = {task["name"]: task for task in document["tasks"]}
    assert tasks["orders"]["verdict"] and tasks[incident]["verdict"]
    assert [task for task in tasks.values() if task["ignored"]] == [tasks[names["product"]]]
    assert told("tasks", "unignore", names["product"], "--home", home)["ignored"] is False
    assert tasks_of(home)[names["product"]]["ignored"] is False


def test_a_part_by_its_prompts(home: Path, names: dict[str, str]) -> None:
    whole, other = names["triage"], names["sentiment"]
    told("tasks", "merge", other, whole, "--home", home)
    prompts = told("tasks", "prompts", whole, "--home", home)["prompts"]
    assert len(prompts) >= 2 and {"id", "told", "records", "fixed"} <= set(prompts[0])
    reviews = [one for one in prompts if "sentiment of the review" in one["fixed"]]
    flags = [flag for one in reviews for flag in ("--pattern", str(one["id"]))]
    cut = told("tasks", "split", whole, "--as", "reviews", *flags, "--home", home)
    assert cut["records"] == sum(one["records"] for one in reviews)
    assert tasks_of(home)["reviews"]["records"] == cut["records"]
    listed = suffice("tasks", "prompts", "reviews", "--home", home).stdout.decode()
    assert "by its prompt" in listed and "sentiment of the review" in listed
    refused("tasks", "split", whole, "--as", "x", "--pattern", "999", "--home", home, word="999")
    rest = [flag for one in prompts if one not in reviews for flag in ("--pattern", str(one["id"]))]
    refused("tasks", "split", whole, "--as", "x", *rest, "--home", home, word="rename")


def test_an_old_name_is_known_everywhere(home: Path, names: dict[str, str]) -> None:
    old = names["triage"]
    (home / "suffice.toml").write_text(f"[tasks.{old}]\nmax_error = 0.1\n")
    done = suffice("tasks", "--home", home, "rename", old, "triage")
    assert done.returncode == 0 and f"still has [tasks.{old}]".encode() in done.stdout
    (home / "suffice.toml").unlink()
    assert told("show", old, "--home", home)["task"] == "triage"
    assert told("stage", old, "observe", "--home", home)["task"] == "triage"
    count = tasks_of(home)["triage"]["records"]
    assert len(suffice("records", "--task", old, "--home", home, "--json").stdout.splitlines()) == count
    done = suffice("answer", old, "--home", home)
    assert done.returncode == 1 and b"no release" in done.stderr
    document = told("learn", old, "--home", home, "--budget", "1", code=1)
    assert document["task"] == "triage" and document["reasons"]
    refused("tasks", "rename", "triage", names["sentiment"], "--home", home, word="merge")
    assert "classify" in suffice("tasks", "--home", home).stdout.decode()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["rename", "nothing", "x"], "nothing"),
        (["rename", "{triage}", "a b"], "a b"),
        (["rename", "{triage}", "x@1"], "x@1"),
        (["merge", "{triage}", "{triage}"], "itself"),
        (["merge", "{triage}", "nothing"], "nothing"),
        (["split", "{triage}", "--as", "x"], "--pattern"),
        (["split", "{triage}", "--as", "x", "--containing", " "], "--containing"),
        (["split", "{triage}", "--as", "x", "--containing", "a", "--pattern", "1"], "--pattern"),
        (["split", "{triage}", "--as", "{sentiment}", "--containing", "the"], "already"),
        (["split", "{triage}", "--as", "x", "--containing", "Classify the customer"], "nothing would be left"),
        (["ignore", "nothing"], "nothing"),
        (["unignore", "{triage}@1"], "@1"),
        (["prompts", "nothing"], "nothing"),
    ],
)
def test_decisions_that_cannot_be(
    found: tuple[Path, dict[str, Any]], names: dict[str, str], arguments: list[str], word: str
) -> None:
    refused("tasks", *(one.format(**names) for one in arguments), "--home", found[0], word=word)


def test_requests_told_by_name_are_not_divided_by_a_text(traffic: list[Line], tmp_path: Path) -> None:
    home = tmp_path / "home"
    told("import", write(tmp_path / "t.jsonl", traffic[:40]), "--task", "named", "--home", home)
    refused("tasks", "split", "named", "--as", "x", "--containing", "a", "--home", home, word="suffice discover")
    told("discover", "--home", home)
    refused("tasks", "split", "named", "--as", "x", "--containing", "a", "--home", home, word="X-Suffice-Task")


def test_requests_told_by_meaning_are_not_divided_by_a_text(home: Path, names: dict[str, str]) -> None:
    store = Home(home)
    parent = next(p for p in patterns.all_patterns(store) if p.task == names["triage"])
    child = patterns.add_group(store, parent.id, "g0", 1.0)
    releases.ensure_task(store, "refunds")
    patterns.assign(store, [child], "refunds")
    refused("tasks", "split", "refunds", "--as", "x", "--containing", "a", "--home", home, word="by meaning")
    assert told("tasks", "prompts", "refunds", "--home", home)["prompts"][0]["told"] == "by meaning"


# ---------------------------------------------------------------------------------------------- one run at a time


def test_one_run_at_a_time(home: Path) -> None:
    with (home / "discover.lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused("discover", "--home", home, word="another")


def test_interrupted_it_goes_on(imported: Path, found: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    home = Path(shutil.copytree(imported, tmp_path / "home"))
    process = subprocess.Popen(
        [*SUFFICE, "discover", "--home", str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ},
    )  # fmt: skip
    lock = home / "discover.lock"
    until(lambda: lock.exists() and lock.read_text(), "the run has begun", 120)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130 and out == b"", (process.returncode, out, error)
    assert error.decode() == "suffice: interrupted: what was read is kept, the next run goes on\n"
    after = told("discover", "--home", home)
    assert {(t["name"], t["records"]) for t in after["tasks"]} == {(t["name"], t["records"]) for t in found[1]["tasks"]}


# ---------------------------------------------------------------------------------------------- serving


@pytest.fixture
def served(home: Path, names: dict[str, str], serve: Serve, upstream: FakeUpstream) -> Iterator[Gateway]:
    """A gateway on the discovered home; triage was renamed."""
    told("tasks", "rename", names["triage"], "triage", "--home", home)
    yield serve(config(upstream.url), home=home)


def test_serving_tells_tasks_and_by_which_rule(served: Gateway, names: dict[str, str], tickets: list[Ticket]) -> None:
    def ask(system: str | None, text: str, **headers: str) -> tuple[str | None, str | None]:
        head = [{"role": "system", "content": system}] if system else []
        body = {"model": "gpt-4o", "messages": [*head, {"role": "user", "content": text}]}
        answer = served.post(json.dumps(body).encode(), headers)
        assert answer.status == 200
        return answer.headers.get("x-suffice-task"), answer.headers.get("x-suffice-match")

    unseen = tickets[700].text
    task, rule = ask(TRIAGE.format(day=30), unseen)
    assert task == "triage" and rule is not None and re.fullmatch(r"(fingerprint|template|meaning):\d+", rule)
    assert ask(TRIAGE.format(day=30), unseen) == (task, rule)
    assert ask(None, "hello", **{"X-Suffice-Task": names["triage"]}) == ("triage", "header")
    task, rule = ask(None, SENTIMENT.format(text="The kettle is a delight."))
    assert task == names["sentiment"] and str(rule).startswith("template:")
    assert ask("You are a pirate. Answer in rhymes about the sea.", "hello") == (None, None)

    product = names["product"]
    assert ask(PRODUCT, "tent, made in Kiel, 7 grams")[0] == product
    told("tasks", "ignore", product, "--home", served.home)
    until(lambda: ask(PRODUCT, "tent, made in Kiel, 7 grams") == (None, None), "the ignored task is left alone", 5)
    told("tasks", "rename", "triage", "intents", "--home", served.home)
    until(lambda: ask(None, "hi", **{"X-Suffice-Task": names["triage"]}) == ("intents", "header"), "renamed twice", 5)
    assert ask(TRIAGE.format(day=30), unseen)[0] == "intents"
