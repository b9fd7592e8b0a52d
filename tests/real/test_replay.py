"""What would this release have said? Recorded traffic through a release, beside what was answered then."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from suffice.core.style import Rendered
from suffice.core.values import Value
from suffice.store import records
from suffice.store.home import Home
from suffice.wire import chat
from suffice.wire.dialect import Told

Cli = Callable[..., tuple[int, list[Any], str]]
Write = Callable[..., Path]

LABELS = {"billing": ["invoice", "refund", "card"], "tech": ["crash", "login", "screen"], "post": ["parcel", "late"]}
SUMMARY = re.compile(r"requests: ([\d,]+), accepted: ([\d,]+), accepted and different from then: ([\d,]+)\n")


def mails(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """(text, right label)."""
    dice = random.Random(seed)
    labels = [dice.choice(sorted(LABELS)) for _ in range(n)]
    return [(" ".join([*dice.choices(LABELS[label], k=4), *dice.choices("abcdefgh", k=3)]), label) for label in labels]


def request(text: str) -> dict[str, Any]:
    system = {"role": "system", "content": "Answer with the queue."}
    return {"model": "m", "messages": [system, {"role": "user", "content": text}]}


def completion(content: str | None, **more: Any) -> dict[str, Any]:
    message = {"role": "assistant", "content": content, **more}
    return {"id": "c", "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def exchanges(n: int, seed: int = 0) -> list[dict[str, Any]]:
    return [
        {"request": request(text), "response": {**completion(label + "\n"), "id": f"c{seed}-{i}"}, "at": i}
        for i, (text, label) in enumerate(mails(n, seed))
    ]


def learned(cli: Cli, file: Path) -> None:
    code, documents, told = cli("learn", "t", "--data", file, "--max-error", 0.05)
    assert code == 0, (documents, told)


def add(home: Path, name: str, **fields: Any) -> None:
    """A record of live traffic at the time 10,000."""
    text, _ = mails(1, seed=9)[0]
    given = {"request": msgspec.json.encode(request(text)), "status": 200, "route": "frontier", "task": "t"}
    row = records.Row(id=name, at=10_000.0, source="live", **{**given, **fields})
    records.import_rows(Home(home), [row], [])


def replayed(cli: Cli, *options: object) -> tuple[dict[str, dict[str, Any]], tuple[int, ...]]:
    """Lines by record, and the summary's numbers."""
    code, lines, told = cli("answer", "t", *options)
    found = SUMMARY.fullmatch(told)
    assert code == 0 and found is not None, (code, told)
    return {line["id"]: line for line in lines}, tuple(int(number.replace(",", "")) for number in found.groups())


def test_chat_traffic_beside_what_was_answered(cli: Cli, written: Write) -> None:
    learned(cli, written(exchanges(600)))
    lines, summary = replayed(cli)
    accepted = sum(line["accepted"] for line in lines.values())
    assert summary == (600, accepted, 0) and accepted > 300
    for line in lines.values():
        assert line["then"]["choices"][0]["message"]["content"] == line["said"]
        assert line["then_route"] == "frontier"
        assert line["differs"] is (line["said"] != line["output"])
        assert {"output", "score", "accepted", "reason"} < line.keys()


@pytest.mark.parametrize("stored", ["tech\n", " tech", "```\ntech"], ids=repr)
def test_what_was_said_then_is_written_as_the_release_writes_it(
    cli: Cli, written: Write, tmp_path: Path, stored: str
) -> None:
    learned(cli, written(exchanges(600)))
    add(tmp_path / "home", "rec_1", answer=msgspec.json.encode(completion(stored)))
    lines, _ = replayed(cli, "--since", 10_000)
    known = stored.strip() == "tech"
    assert lines["rec_1"]["said"] == ("tech\n" if known else stored)
    assert lines["rec_1"]["differs"] is (lines["rec_1"]["output"] != "tech\n")


def test_whoever_answered_then_is_compared(cli: Cli, written: Write, tmp_path: Path) -> None:
    learned(cli, written(exchanges(600)))
    home, (_, right) = tmp_path / "home", mails(1, seed=9)[0]
    wrong = next(label for label in LABELS if label != right)

    def said(label: str) -> bytes:
        told = Told(record="r", model="suffice/t@1", created=1, prompt_tokens=1)
        return chat.completion(Rendered(label + "\n"), told, chat.ChatRequest(b'{"messages": []}'))

    cut = completion(right)
    cut["choices"][0]["finish_reason"] = "length"
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    then: dict[str, tuple[dict[str, Any], Any, Any]] = {
        "by the specialist": ({"route": "specialist", "answer": said(right)}, right + "\n", False),
        "by the specialist, wrong": ({"route": "specialist", "answer": said(wrong)}, wrong + "\n", True),
        "by another upstream": ({"route": "cheap", "answer": said(wrong)}, wrong + "\n", True),
        "a call": (
            {"answer": msgspec.json.encode(completion(None, tool_calls=[call]))},
            {"tool_calls": [{"name": "f", "arguments": {"a": 1}}]},
            True,
        ),
        "a text of another kind": ({"answer": msgspec.json.encode(completion('{"a": 1}'))}, '{"a": 1}', True),
        "cut off": ({"answer": msgspec.json.encode(cut)}, None, None),
        "an error": ({"status": 429, "answer": b'{"error": {"message": "slow"}}'}, None, None),
        "refused": ({"route": "none", "status": 424, "answer": b'{"error": {}}'}, None, None),
        "broken off": ({"answer": said(right), "failure": "the upstream broke off"}, None, None),
        "not JSON": ({"answer": b"\xff<html>"}, None, None),
        "nobody": ({"route": "none", "status": None, "answer": None}, None, None),
    }
    for name, (fields, _, _) in then.items():
        add(home, name, **fields)
    lines, summary = replayed(cli, "--since", 10_000)
    assert lines.keys() == then.keys()
    for name, (fields, expected, differs) in then.items():
        line = lines[name]
        assert (line["said"], line["differs"]) == (expected, differs), name
        assert line["then_route"] == fields.get("route", "frontier")
        assert (line["output"], line["accepted"]) == (right + "\n", True)
    assert summary == (len(then), len(then), 4)


def test_only_what_differs_and_the_summary_of_all(cli: Cli, written: Write, tmp_path: Path) -> None:
    learned(cli, written(exchanges(600)))
    for name, label in (("rec_1", "nonsense"), ("rec_2", mails(1, seed=9)[0][1])):
        add(tmp_path / "home", name, answer=msgspec.json.encode(completion(label)))
    lines, summary = replayed(cli, "--differs", "--since", 10_000)
    assert (list(lines), summary) == (["rec_1"], (2, 2, 1))
    assert replayed(cli, "--differs", "--until", 10_000)[1][::2] == (600, 0)
    assert replayed(cli, "--since", 20_000) == ({}, (0, 0, 0))


def test_a_span_of_time(cli: Cli, written: Write) -> None:
    learned(cli, written(exchanges(600)))
    lines, summary = replayed(cli, "--since", 100, "--until", 350)
    assert len(lines) == summary[0] == 250
    assert replayed(cli)[1][0] == 600


def queue(label: str) -> Value:
    return {"queue": label, "note": None}


@pytest.mark.parametrize("shape", [str, queue, lambda label: json.dumps(queue(label))], ids=["label", "object", "text"])
def test_short_form_traffic(cli: Cli, written: Write, tmp_path: Path, shape: Callable[[str], Value]) -> None:
    data = [{"input": text, "output": shape(label), "at": i} for i, (text, label) in enumerate(mails(600))]
    learned(cli, written(data))
    lines, summary = replayed(cli)
    assert summary[0] == 600
    for line, row in zip(lines.values(), data, strict=True):
        assert line["then"] == line["said"] == row["output"]
        assert line["differs"] is (line["output"] != row["output"])
    text, label = mails(1, seed=9)[0]
    for name, said in (("rec_1", shape(label)), ("rec_2", None), ("rec_3", {"queue": label})):
        answer = msgspec.json.encode(said)
        add(tmp_path / "home", name, dialect="short", input=text, request=b"{}", answer=answer)
    add(tmp_path / "home", "rec_4", dialect="short", input=text, request=b"{}", answer=None, route="none")
    late, _ = replayed(cli, "--since", 10_000)
    assert [line["differs"] for line in late.values()] == [False, True, shape is str, None]
    assert late["rec_2"]["said"] is None and late["rec_4"]["said"] is None


def test_a_file_has_no_then(cli: Cli, written: Write) -> None:
    learned(cli, written(exchanges(600)))
    file = written([{"input": "invoice card", "id": "mine", "then": "x", "said": "y"}], "ask.jsonl")
    code, (line,), told = cli("answer", "t", file)
    assert (code, told) == (0, "")
    assert line.keys() == {"id", "output", "score", "accepted", "reason"}
    for option in (["--differs"], ["--since", 0], ["--until", 5]):
        code, lines, told = cli("answer", "t", file, *option)
        assert (code, lines) == (2, []) and "recorded traffic" in told and len(told.splitlines()) == 1


def test_requests_that_its_view_does_not_hold_are_not_accepted(cli: Cli, written: Write, tmp_path: Path) -> None:
    """As the gateway would: learned from bare inputs, a release reads the last message, if it is text of the user."""
    learned(cli, written([{"input": text, "output": label} for text, label in mails(600)]))
    _, sure, _ = cli("answer", "t")
    text = next(mails(600)[i][0] for i, line in enumerate(sure) if line["accepted"])
    user, image = {"role": "user", "content": text}, {"type": "image_url", "image_url": {"url": "data:image/png,"}}
    conversations: list[tuple[list[dict[str, Any]], str]] = [
        ([user], "accepted"),
        ([{"role": "system", "content": "Say the queue."}, user], "accepted"),
        ([{"role": "user", "content": [{"type": "text", "text": text}, image]}], "unsupported"),
        ([user, {"role": "assistant", "content": "billing"}], "unsupported"),
        ([], "unsupported"),
    ]
    file = written([{"request": {"model": "m", "messages": messages}} for messages, _ in conversations], "asked.jsonl")
    _, lines, _ = cli("answer", "t", file)
    assert [line["reason"] for line in lines] == [reason for _, reason in conversations]
