"""Replies under watch: the frontier never writes the same text twice, and only answers that are worse give an alarm."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Answer, FakeUpstream, Gateway, Reply, Seen, config, told, until, whole

Serve = Callable[..., Gateway]

TOPICS = {
    "money back for the": "We are sorry about your {}. Your refund was started and arrives within {} working days.",
    "parcel with the": "Your {} is on its way and should be with you in {} days. You can follow it in your account.",
    "opening hours of the": "Our {} shop opens at {} in the morning on every day of the week but Sunday.",
}
THINGS = ["phone", "lamp", "chair", "kettle", "bike", "jacket"]
EXTRA = ["please,", "hello,", "urgent:", "again:", "thanks,"]
RULE = """
def sound(input, answer, reference):
    thing = input.split()[-1]
    first, second = set(answer.split()), set(reference.split())
    return thing in input and len(first & second) / len(first | second) >= 0.5
"""


def asked(n: int, seed: int) -> list[str]:
    dice = random.Random(seed)
    return [f"{dice.choice(EXTRA)} {dice.choice(list(TOPICS))} {dice.choice(THINGS)}" for _ in range(n)]


def reply(text: str, dice: random.Random) -> str:
    topic = next(topic for topic in TOPICS if topic in text)
    return TOPICS[topic].format(text.split()[-1], dice.randint(3, 90))


def settings(upstream: str, loss: str) -> str:
    return config(
        upstream,
        f'[tasks.t]\nloss = "{loss}"\nmax_error = 0.05\naudit = 0.5\nprobe = 0\nrecover = "manual"\n'
        "audit_deadline_s = 1\n",
    )


@pytest.fixture
def frontier(upstream: FakeUpstream) -> FakeUpstream:
    """An upstream that answers to the point, and each time in other words."""
    dice = random.Random(1)
    upstream.answer = lambda seen: whole(reply(seen.text, dice))
    return upstream


@pytest.fixture
def live(tmp_path: Path, frontier: FakeUpstream) -> Callable[[str], Path]:
    """A home whose replies were certified by this loss, live."""

    def made(loss: str) -> Path:
        home, dice = tmp_path / "home", random.Random(2)
        home.mkdir()
        (home / "rules.py").write_text(RULE)
        (home / "suffice.toml").write_text(settings(frontier.url, loss))
        data = tmp_path / "replies.jsonl"
        lines = [json.dumps({"input": text, "output": reply(text, dice)}) + "\n" for text in asked(1200, 3)]
        data.write_text("".join(lines))
        document = told("learn", "t", "--data", data, "--recipe", "nearest", "--home", home)
        assert document["coverage"]["value"] > 0.9
        told("stage", "t", "live", "--home", home)
        return home

    return made


def send(gateway: Gateway, texts: Sequence[str]) -> list[Answer]:
    def one(text: str) -> Answer:
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
        return gateway.post(json.dumps(body).encode(), {"X-Suffice-Task": "t"})

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(one, texts))


def watching(gateway: Gateway) -> None:
    """Until the workers stamp requests with a watch."""
    until(lambda: gateway.record(send(gateway, asked(1, 9))[0].id)["watch"], "the workers know of the watch")


def sql(home: Path, query: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(home / "suffice.db", timeout=20)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def state(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(sql(home, "SELECT state FROM watches ORDER BY n DESC LIMIT 1")[0][0])
    return found


def happened(home: Path, kind: str) -> list[str]:
    return [row[0] for row in sql(home, f"SELECT what FROM events WHERE kind = '{kind}' ORDER BY seq")]


def beside_the_point(seen: Seen) -> Reply:
    return whole("I cannot say anything about that, but have a wonderful afternoon everybody.")


def test_other_words_are_no_error_and_other_answers_are(
    live: Callable[[str], Path], frontier: FakeUpstream, serve: Serve
) -> None:
    home = live("rouge >= 0.7")
    gateway = serve(settings(frontier.url, "rouge >= 0.7"), home=home)
    watching(gateway)
    texts = iter(asked(5_000, 4))
    said = send(gateway, [next(texts) for _ in range(250)])
    assert sum(answer.reason == "accepted" for answer in said) > 150
    found = until(lambda: (s := state(home))["settled"] == s["audited"] > 80 and s, "all is settled")
    assert (found["loss"], found["missing"]) == ("rouge >= 0.7", 0)
    assert found["differing"] <= 3, "letter by letter nearly all of them differ"
    assert not happened(home, "alarm")
    frontier.answer = beside_the_point
    until(lambda: send(gateway, [next(texts) for _ in range(16)]) and happened(home, "alarm"), "an alarm", 60)
    assert "t@1" in happened(home, "alarm")[0]
    until(lambda: all(a.reason == "revoked" for a in send(gateway, [next(texts) for _ in range(8)])), "all escalate", 5)


def test_a_rule_judges_audits_and_another_of_its_name_does_not(
    live: Callable[[str], Path], frontier: FakeUpstream, serve: Serve
) -> None:
    home = live("rules.py:sound >= 1")
    gateway = serve(settings(frontier.url, "rules.py:sound >= 1"), home=home)
    watching(gateway)
    send(gateway, asked(100, 5))
    found = until(lambda: (s := state(home))["settled"] == s["audited"] > 30 and s, "all is settled")
    assert found["missing"] == 0 and not happened(home, "verifier")
    gateway.stop()
    (home / "rules.py").write_text(RULE + "# a word more\n")
    gateway = serve(settings(frontier.url, "rules.py:sound >= 1"), home=home)
    watching(gateway)
    send(gateway, asked(100, 6))
    what = until(lambda: happened(home, "verifier"), "it is said", 10)[0]
    assert "t@1: its audits cannot be judged: rules.py:sound is not the file that" in what
    until(lambda: happened(home, "missing"), "they count as missing", 10)
    assert len(happened(home, "verifier")) == 1, "said once"
    assert not happened(home, "alarm"), "what nobody judged is no error"
