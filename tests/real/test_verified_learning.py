"""Free text, from a file to a release: every verifier through the command line, and a judge on the loopback.

The data are replies of a help desk, made here: what the frontier writes to one topic differs from time to time in a
number and a thing, so that hardly any answer is ever given twice.
"""

from __future__ import annotations

import json
import random
import threading
import zlib
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., tuple[int, list[Any], str]]
Write = Callable[..., Path]
Row = dict[str, Any]

TOPICS = {
    "refund": (
        "i want my money back for the {thing}",
        "We are sorry to hear about your {thing}. Your refund has been started and arrives within {n} working days.",
    ),
    "parcel": (
        "where is the parcel with my {thing}",
        "Your {thing} is on its way and should be with you in {n} days. You can follow it in your account.",
    ),
    "password": (
        "cannot log in to the {thing} app any more",
        "Please use the link on the sign in page of the {thing} app to choose a new password; it is valid {n} hours.",
    ),
    "hours": (
        "when does the {thing} shop open",
        "Our {thing} shop opens at {n} in the morning on every day of the week but Sunday.",
    ),
}
MARKS = {"refund": "refund has been", "parcel": "on its way", "password": "new password", "hours": "opens at"}
THINGS = ["phone", "lamp", "chair", "kettle", "bike", "jacket", "table", "camera"]
EXTRA = ["", "please", "hello,", "thanks", "it is urgent", "today", "again"]


def replies(n: int, seed: int = 0, worse: float = 0.0) -> list[Row]:
    """(input, output) rows; a share `worse` of the outputs is about something else."""
    dice = random.Random(seed)
    found = []
    for _ in range(n):
        topic = dice.choice(list(TOPICS))
        said = dice.choice([t for t in TOPICS if t != topic]) if dice.random() < worse else topic
        thing, n_days = dice.choice(THINGS), dice.randint(3, 9)
        text = f"{dice.choice(EXTRA)} {TOPICS[topic][0].format(thing=thing)} {dice.choice(EXTRA)}".strip()
        found.append({"input": text, "output": TOPICS[said][1].format(thing=thing, n=n_days)})
    return found


@pytest.fixture
def learn(cli: Cli, written: Write, tmp_path: Path) -> Callable[..., tuple[int, Row, str]]:
    """Learn the replies by these settings of the task: exit code, document, what stderr says."""

    def run(settings: str, data: list[Row], more: str = "", home: str = "home") -> tuple[int, Row, str]:
        config = tmp_path / "suffice.toml"
        config.write_text(f"[tasks.t]\n{settings}\n{more}")
        code, documents, told = cli(
            "learn", "t", "--data", written(data), "--recipe", "nearest", "--config", config, home=home
        )
        return code, documents[0] if documents else {}, told

    return run


Learn = Callable[..., tuple[int, Row, str]]


def test_free_text_judged_letter_by_letter_says_what_to_declare(learn: Learn) -> None:
    code, document, _ = learn("", replies(1500))
    assert code == 1
    assert any(
        'nothing without a verifier is certified: declare one, such as [tasks.t] loss = "rouge >= 0.6"' in reason
        for reason in document["reasons"]
    ), document["reasons"]


@pytest.mark.parametrize("loss", ["rouge >= 0.7", "embedding >= 0.85", "schema + rouge >= 0.7"])
def test_replies_are_certified_by_likeness(learn: Learn, loss: str) -> None:
    code, document, told = learn(f'loss = "{loss}"', replies(1500))
    assert code == 0, (document.get("reasons"), told)
    certificate = document["certificate"]
    assert certificate["loss"] == document["loss"] == loss
    assert document["kind"] == "binary" and certificate["method"].startswith("binomial")
    assert f"differs from the frontier's by {loss}" in document["sentence"]
    assert document["accuracy"]["value"] > 0.95, "right is what the verifier says"
    assert document["coverage"]["value"] > 0.9
    assert document["accepted_error"]["high"] < 0.03


def test_a_graded_loss_limits_its_mean(learn: Learn) -> None:
    code, document, told = learn('loss = "rouge"\nmax_error = 0.12', replies(1500))
    assert code == 0, (document.get("reasons"), told)
    assert document["kind"] == "graded" and document["certificate"]["method"].startswith("betting")
    assert "the mean loss (1 - ROUGE-L F1 against the frontier's answers" in document["sentence"]
    assert 0.01 < document["accepted_error"]["value"] < 0.12
    code, document, _ = learn('loss = "rouge"\nmax_error = 0.02', replies(1500), home="second")
    assert code == 1, "the frontier itself is not as like to itself as that"


def test_replies_that_are_too_often_wrong_are_not_certified(learn: Learn) -> None:
    code, document, _ = learn('loss = "rouge >= 0.7"', replies(1500, worse=0.15))
    assert code == 1 and document["certificate"] is None


RULE = """
def topic(input, answer, reference):
    first, second = set(answer.split()), set(reference.split())
    return len(first & second) / len(first | second) >= 0.6

def broken(input, answer, reference):
    raise LookupError("no such order")

def own(input, answer, reference):
    thing = next((word for word in input.split() if word in "phone lamp chair kettle bike jacket table camera"), "")
    return thing in answer
"""


def test_a_rule_certifies_and_a_broken_one_certifies_nothing(learn: Learn, tmp_path: Path) -> None:
    (tmp_path / "rules.py").write_text(RULE)
    code, document, told = learn('loss = "rules.py:topic >= 1"', replies(1200))
    assert code == 0, (document.get("reasons"), told)
    assert document["certificate"]["loss"].startswith("rules.py:topic#") and document["kind"] == "binary"
    code, document, _ = learn('loss = "rules.py:own + rouge >= 0.6"\nmax_error = 0.05', replies(1200), home="second")
    assert document["kind"] == "graded", "one that counts so far makes all of it so"
    code, document, _ = learn('loss = "rules.py:broken >= 1"', replies(1200), home="third")
    assert code == 1
    assert any("rules.py:broken failed on" in note and "no such order" in note for note in document["notes"])


def test_a_rule_that_is_not_there_is_unusable_input(learn: Learn, tmp_path: Path) -> None:
    assert learn('loss = "rules.py:topic"', replies(50))[0] == 2
    (tmp_path / "rules.py").write_text("def other(): pass\n")
    code, _, told = learn('loss = "rules.py:topic"', replies(50))
    assert code == 2 and "rules.py: it has no function topic" in told
    code, _, told = learn('loss = "ruge"', replies(50))
    assert code == 2 and "did you mean 'rouge'?" in told and "[tasks.t]" in told


# ---------------------------------------------------------------------------------------------- a judge


class Judge(ThreadingHTTPServer):
    """A model that knows what each request is about. Of wrong answers it lets `lets` of a hundred pass."""

    daemon_threads = True

    def __init__(self, lets: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lets, self.asked = lets, 0

    def verdict(self, asked: str) -> str:
        request, first, second = (
            asked.split(f"<{name}>\n")[1].split(f"\n</{name}>")[0] for name in ("request", "A", "B")
        )
        good, other = self.is_right(request, first), self.is_right(request, second)
        return "SAME" if good == other else "A" if good else "B"

    def is_right(self, request: str, answer: str) -> bool:
        topic = next(name for name, (said, _) in TOPICS.items() if said.split("{")[0].strip() in request)
        right = MARKS[topic] in answer
        return right or zlib.crc32(f"{request}|{answer}".encode()) % 100 < self.lets


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Judge

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked += 1
        said = self.server.verdict(asked["messages"][1]["content"])
        message = {"role": "assistant", "content": f"{said}"}
        body = json.dumps(
            {
                "id": "c",
                "object": "chat.completion",
                "created": 1,
                "model": asked["model"],
                "choices": [{"index": 0, "message": message, "finish_reason": "stop"}],
                "usage": {"prompt_tokens": 100, "completion_tokens": 1, "total_tokens": 101},
            }
        ).encode()
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None: ...


@pytest.fixture
def judge(request: pytest.FixtureRequest) -> Iterator[Judge]:
    server = Judge(request.param)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def settings_of(judge: Judge, pairs: str = 'pairs = "pairs.jsonl"') -> str:
    return (
        f'[upstreams.near]\nbase_url = "http://127.0.0.1:{judge.server_address[1]}/v1"\ninside = true\n'
        f'[judges.tone]\nupstream = "near"\nmodel = "m"\n{pairs}\n'
    )


def judged(n: int, seed: int = 9) -> list[Row]:
    """Answers that people have judged, `n` of them wrong."""
    wrong, right = replies(n, seed, worse=1.0), replies(n // 2, seed + 1)
    return [
        {"input": row["input"], "answer": row["output"], "reference": reference(row), "good": good}
        for some, good in ((wrong, False), (right, True))
        for row in some
    ]


def reference(row: Row) -> str:
    topic = next(name for name, (said, _) in TOPICS.items() if said.split("{")[0].strip() in row["input"])
    return TOPICS[topic][1].format(thing="thing", n=2)


@pytest.mark.parametrize("judge", [5], indirect=True)
def test_a_judge_certifies_by_its_measured_error(learn: Learn, judge: Judge, written: Write) -> None:
    written(judged(120), "pairs.jsonl")
    code, document, told = learn('loss = "judge:tone"\nmax_error = 0.05', replies(900), more=settings_of(judge))
    assert code == 0, (document.get("reasons"), told)
    found, certificate = document["judge"], document["certificate"]
    assert found["judge"] == "tone" and found["false_passes"]["n"] == 120 and found["false_fails"]["value"] == 0
    assert found["false_passes"]["low"] <= 0.05 <= found["false_passes"]["high"] < found["bound"] + 0.02
    assert certificate["judge"] == found
    assert (certificate["max_error"], certificate["confidence"]) == (0.05, 0.95), "what was asked for, not the means"
    assert "people being the judge of it (tone lets" in document["sentence"]
    assert "rows of task t go to upstream 'near', model m" in told
    assert document["coverage"]["value"] > 0.9
    before = judge.asked
    code, document, _ = learn('loss = "judge:tone"\nmax_error = 0.051', replies(900), more=settings_of(judge))
    assert judge.asked < 2 * before, "what was asked before is not asked again"


@pytest.mark.parametrize("judge", [80], indirect=True)
def test_a_judge_of_unknown_or_no_worth_certifies_nothing(learn: Learn, judge: Judge, written: Write) -> None:
    wanted = 'loss = "judge:tone"\nmax_error = 0.05'
    written(judged(12), "pairs.jsonl")
    code, document, _ = learn(wanted, replies(1200), more=settings_of(judge))
    assert code == 1
    assert any("was compared with people on 12 answers that they call wrong; 60 are" in r for r in document["reasons"])
    written(judged(120), "pairs.jsonl")
    code, document, _ = learn(wanted, replies(1200), more=settings_of(judge))
    assert code == 1 and any("nothing is certified by judge tone: it lets pass" in r for r in document["reasons"])
    code, _, told = learn(wanted, replies(50), more=settings_of(judge, 'pairs = "none.jsonl"'))
    assert code == 2 and "none.jsonl: cannot be read" in told
    assert document["attempt"] == 1, "the ledger was not charged"


def test_the_score_learns_what_counts_as_right(learn: Learn) -> None:
    """Every reply has a number of its own, so that none is ever repeated, and a quarter of the requests is a riddle."""
    dice = random.Random(4)
    data = replies(1600)
    for row in data:
        row["output"] += f" Your case is number {dice.randint(10**6, 10**7)}."
        if dice.random() < 0.25:
            row["input"] = "other matter: " + " ".join(
                dice.choices(["alpha", "beta", "gamma", "delta", "eps", "zeta", "eta", "theta"], k=6)
            )
    code, document, told = learn('loss = "rouge >= 0.7"', data)
    assert code == 0, (document.get("reasons"), told)
    assert 0.4 < document["coverage"]["value"] < 0.85, "the riddles are left to the frontier"
    assert document["accepted_error"]["value"] < 0.02
    assert document["splits"]["train"] > 900, "replies that differ in a number do not contradict each other"
