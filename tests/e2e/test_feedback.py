"""`POST /v1/feedback`: trusted answers by HTTP: on the disk once they are answered, counted once, none in silence."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import pairwise
from pathlib import Path
from typing import Any

import openai
import pytest
from e2e_support import Answer, FakeUpstream, Gateway, chat, config, events, rows, streamed, suffice, told, until

from suffice.demo.workload import generate, system_prompt

Serve = Callable[..., Gateway]
NAN = float("nan")


def give(gateway: Gateway, record: str, reference: Any, **more: Any) -> Answer:
    """Feedback about a record."""
    return post(gateway, json.dumps({"record": record, "reference": reference, **more}).encode())


def post(gateway: Gateway, body: bytes) -> Answer:
    return gateway.post(body, path="/v1/feedback")


def trusted(home: Path) -> list[tuple[str, str, Any]]:
    """(record, kind, value) of every trusted answer, in the order in which they came."""
    with closing(sqlite3.connect(home / "suffice.db", timeout=20)) as connection:
        found = connection.execute("SELECT record, kind, value FROM trusted ORDER BY seq").fetchall()
    return [(record, kind, json.loads(value)) for record, kind, value in found]


def of(home: Path, record: str) -> list[tuple[str, Any]]:
    return [(kind, value) for name, kind, value in trusted(home) if name == record]


def exported(home: Path, record: str) -> tuple[Any, Any]:
    """The reference and its kind, as `suffice records` shows them."""
    done = suffice("records", "--json", "--id", record, "--home", home)
    line = json.loads(done.stdout)
    return line["reference"], line["reference_kind"]


# ---------------------------------------------------------------------------------------------- what it does


def test_with_the_official_client(gateway: Gateway, upstream: FakeUpstream) -> None:
    client = gateway.client()
    raw = client.chat.completions.with_raw_response.create(model="m", messages=[{"role": "user", "content": "x"}])
    record = raw.headers["x-suffice-record"]
    answer = client.post("/feedback", body={"record": record, "reference": "billing"}, cast_to=object)
    assert answer == {"record": record, "kind": "human", "changed": True}
    assert of(gateway.home, record) == [("human", "billing")]
    assert exported(gateway.home, record) == ("billing", "human")
    assert len(upstream.seen) == 1, "feedback goes nowhere"
    with pytest.raises(openai.NotFoundError) as missing:
        client.post("/feedback", body={"record": "rec_none", "reference": "x"}, cast_to=object)
    assert missing.value.code == "unknown_record" and missing.value.param == "record"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.post("/feedback", body={"record": record, "reference": [1]}, cast_to=object)
    assert (wrong.value.code, wrong.value.param) == ("invalid_request", "reference")


@pytest.mark.parametrize(
    "reference",
    [
        "text",
        "",
        "🪐 né\n",
        5,
        -1.5,
        2**63 - 1,
        True,
        None,
        [],
        ["a", "b"],
        {},
        {"city": ["Boston"], "date": None},
        {"tool_calls": []},
        {"tool_calls": [{"name": "f", "arguments": {"a": [1, {"b": 2}]}}]},
    ],
    ids=repr,
)
def test_every_shape_of_answer(gateway: Gateway, upstream: FakeUpstream, reference: Any) -> None:
    record = gateway.post(chat()).id
    answer = give(gateway, record, reference, kind="rule")
    assert (answer.status, answer.json) == (200, {"record": record, "kind": "rule", "changed": True})
    assert of(gateway.home, record) == [("rule", reference)]


def test_repeated_it_writes_nothing_and_another_counts_from_then_on(gateway: Gateway, upstream: FakeUpstream) -> None:
    record = gateway.post(chat()).id
    said: list[tuple[Any, dict[str, Any], bool]] = [
        ("a", {}, True),
        ("a", {}, False),
        ("a", {"kind": "human"}, False),
        (" a\n", {}, False),
        ("b", {}, True),
        ("a", {}, True),
        ("a", {"kind": "rule"}, True),
        (["x", "y"], {"kind": "rule"}, True),
        (["y", "x"], {"kind": "rule"}, False),
    ]
    for reference, more, changed in said:
        answer = give(gateway, record, reference, **more)
        assert (answer.status, answer.json["changed"]) == (200, changed), (reference, more)
    assert of(gateway.home, record) == [("human", "a"), ("human", "b"), ("human", "a"), ("rule", "a"), ("rule", ["x", "y"])]  # fmt: skip # noqa: E501
    assert exported(gateway.home, record) == (["x", "y"], "rule")


def test_in_another_order_than_the_answers(gateway: Gateway, upstream: FakeUpstream) -> None:
    records = [gateway.post(chat(f"{i}")).id for i in range(12)]
    for i in (7, 0, 11, 3, 7, 5, 0):
        assert give(gateway, records[i], f"label {i}").status == 200
    assert {i: of(gateway.home, record) for i, record in enumerate(records)} == {
        i: [("human", f"label {i}")] if i in (0, 3, 5, 7, 11) else [] for i in range(12)
    }


def test_late_after_a_restart_and_for_what_was_imported(
    serve: Serve, upstream: FakeUpstream, labelled: Path, tmp_path: Path
) -> None:
    first = serve(config(upstream.url))
    early = first.post(chat()).id
    assert first.stop() == 0
    assert told("import", labelled, "--task", "t", "--home", first.home)["imported"] == 2500
    known = rows(first.home, "source = 'import'")[0]["id"]
    again = serve(config(upstream.url))
    for record in (early, known):
        assert give(again, record, "late").json["changed"] is True
        assert of(again.home, record)[-1] == ("human", "late")
        assert give(again, record, "late").json["changed"] is False


def test_at_once_behind_the_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    """The record is written some milliseconds after its answer: who is quicker waits."""
    for _ in range(50):
        answer = give(gateway, gateway.post(chat()).id, "x")
        assert (answer.status, answer.json["changed"]) == (200, True)


def test_during_a_streamed_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    gate = threading.Event()
    parts = events({"content": "a"})
    upstream.answer = lambda seen: streamed([parts[0], gate, *parts[1:]])
    response = gateway.begin(chat(stream=True))
    record = response.getheader("x-suffice-record") or ""
    response.read1(65536)
    threading.Timer(0.25, gate.set).start()
    assert give(gateway, record, "x").status == 200
    response.read()


def test_feedback_for_every_kind_of_record(gateway: Gateway, upstream: FakeUpstream) -> None:
    """A refused request has a record too; whether its reference teaches anything is not the endpoint's to say."""
    for answer in (gateway.post(b"not json"), gateway.post(chat(), {"X-Suffice-Route": "specialist"})):
        assert give(gateway, answer.id, "x").status == 200


# ---------------------------------------------------------------------------------------------- many at once


def test_two_clients_at_once(gateway: Gateway, upstream: FakeUpstream) -> None:
    records = [gateway.post(chat(f"{i}")).id for i in range(10)]

    def client(name: str) -> list[bool]:
        return [give(gateway, record, reference).json["changed"] for record in records for reference in ("same", name)]

    with ThreadPoolExecutor(2) as pool:
        changed = list(pool.map(client, ("a", "b")))
    for record in records:
        said = of(gateway.home, record)
        assert all(before != after for before, after in pairwise(said)), said
        assert said[0] == ("human", "same") and {value for _, value in said} == {"same", "a", "b"}
    assert sum(map(sum, changed)) == sum(len(of(gateway.home, record)) for record in records)


def test_the_same_from_many_at_once_is_written_once(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url), "--workers", "2")
    record = gateway.post(chat()).id
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: give(gateway, record, "x"), range(24)))
    assert {answer.status for answer in answers} == {200}
    assert sum(answer.json["changed"] for answer in answers) == 1
    assert of(gateway.home, record) == [("human", "x")]


def test_what_was_answered_survives_a_kill(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    records = [gateway.post(chat(f"{i}")).id for i in range(40)]
    kept: list[tuple[str, str, Any]] = []

    def client(name: str) -> None:
        for i in range(100_000):
            record = records[i % len(records)]
            try:
                answer = give(gateway, record, f"{name} {i}")
            except (OSError, ValueError):
                return
            if answer.status == 200:
                kept.append((record, "human", f"{name} {i}"))

    threads = [threading.Thread(target=client, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    until(lambda: len(kept) > 60)
    gateway.process.kill()
    gateway.process.wait()
    for thread in threads:
        thread.join()
    assert not {json.dumps(told) for told in kept} - {json.dumps(told) for told in trusted(gateway.home)}


def test_a_database_that_others_hold_holds_no_request_up(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    record = gateway.post(chat()).id
    gateway.record(record)
    with closing(sqlite3.connect(gateway.home / "suffice.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with ThreadPoolExecutor(16) as pool:
            waiting = [pool.submit(give, gateway, record, f"{i}") for i in range(16)]
            time.sleep(1.5)
            assert gateway.get("/readyz").status == 200, "the routing state is still looked at"
            assert gateway.post(chat()).status == 200
            assert not any(one.done() for one in waiting)
            other.execute("COMMIT")
            assert {one.result().status for one in waiting} == {200}
    assert len(of(gateway.home, record)) == 16


# ---------------------------------------------------------------------------------------------- bad input

BAD: dict[str, tuple[bytes, str | None, str]] = {
    "nothing": (b"", None, "JSON"),
    "no JSON": (b"record=1&reference=2", None, "JSON"),
    "half": (b'{"record": "RECORD", "reference": "x"', None, "JSON"),
    "two documents": (b'{"record": "RECORD", "reference": "x"} {}', None, "JSON"),
    "bytes": (b"\xff\xfe\x00", None, "JSON"),
    "a list": (b'[{"record": "RECORD", "reference": "x"}]', None, "object"),
    "null": (b"null", None, "object"),
    "deep": (b"[" * 100_000, None, "JSON"),
    "no record": (b'{"reference": "x"}', "record", "missing"),
    "an empty record": (b'{"record": "", "reference": "x"}', "record", "id"),
    "a number for a record": (b'{"record": 5, "reference": "x"}', "record", "id"),
    "null for a record": (b'{"record": null, "reference": "x"}', "record", "id"),
    "no reference": (b'{"record": "RECORD"}', "reference", "missing"),
    "an unknown key": (b'{"record": "RECORD", "reference": "x", "score": 1}', "score", "no key"),
    "an unknown key of two lines": (b'{"record": "RECORD", "reference": "x", "a\\nb": 1}', "a\nb", "no key"),
    "kind frontier": (b'{"record": "RECORD", "reference": "x", "kind": "frontier"}', "kind", "human or rule"),
    "kind of two": (b'{"record": "RECORD", "reference": "x", "kind": ["human"]}', "kind", "human or rule"),
    "kind null": (b'{"record": "RECORD", "reference": "x", "kind": null}', "kind", "human or rule"),
    "a list of numbers": (b'{"record": "RECORD", "reference": [1, 2]}', "reference", "list"),
    "a list with null": (b'{"record": "RECORD", "reference": ["a", null]}', "reference", "list"),
    "calls that are none": (b'{"record": "RECORD", "reference": {"tool_calls": "f"}}', "reference", "tool_calls"),
    "a call without a name": (b'{"record": "RECORD", "reference": {"tool_calls": [{}]}}', "reference", "tool_calls"),
    "NaN": (b'{"record": "RECORD", "reference": NaN}', None, "JSON"),
    "infinity": (b'{"record": "RECORD", "reference": {"a": -Infinity}}', None, "JSON"),
    "1e999": (b'{"record": "RECORD", "reference": 1e999}', None, "JSON"),
    "an integer of 65 bits": (b'{"record": "RECORD", "reference": 18446744073709551616}', "reference", "64 bits"),
    "an integer of 400 digits": (b'{"record": "RECORD", "reference": {"a": [%s]}}' % (b"9" * 400), "reference", "64"),
    "an integer of 9,000 digits": (b'{"record": "RECORD", "reference": %s}' % (b"9" * 9000), None, "JSON"),
    "half a surrogate pair": (b'{"record": "RECORD", "reference": "\\ud800"}', None, "JSON"),
    "nested deep": (b'{"record": "RECORD", "reference": {"a": %s}}' % (b"[" * 300 + b"]" * 300), "reference", "deeper"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_feedback_is_named_in_one_sentence(gateway: Gateway, upstream: FakeUpstream, name: str) -> None:
    body, key, word = BAD[name]
    record = gateway.post(chat()).id
    answer = post(gateway, body.replace(b"RECORD", record.encode()))
    error = answer.json["error"]
    assert (answer.status, error["type"], error["code"]) == (400, "invalid_request_error", "invalid_request"), error
    assert error["param"] == key and word in error["message"] and "\n" not in error["message"], error
    assert of(gateway.home, record) == []
    assert "Traceback" not in gateway.log


@pytest.mark.parametrize("record", ["rec_0", "x" * 10_000, "'; DROP TABLE records; --", "nul \0", "%"])
def test_an_unknown_record_is_a_404(gateway: Gateway, upstream: FakeUpstream, record: str) -> None:
    began = time.monotonic()
    answer = give(gateway, record, "x")
    assert (answer.status, answer.json["error"]["code"], answer.json["error"]["param"]) == (404, "unknown_record", "record")  # fmt: skip # noqa: E501
    assert len(answer.body) < 1000 and time.monotonic() - began < 5
    assert trusted(gateway.home) == [each for each in trusted(gateway.home) if each[0] != record]


def test_a_body_beyond_a_megabyte(gateway: Gateway, upstream: FakeUpstream) -> None:
    record = gateway.post(chat()).id
    assert give(gateway, record, "x" * (2**20 - 200)).status == 200
    for size in (2**20, 3 * 2**20):
        answer = give(gateway, record, "y" * size)
        assert (answer.status, answer.json["error"]["code"]) == (413, "body_too_large")
        assert "1 MB" in answer.json["error"]["message"]
    assert len(of(gateway.home, record)) == 1


def test_a_client_that_hangs_up(gateway: Gateway, upstream: FakeUpstream) -> None:
    for _ in range(3):
        connection = gateway.open()
        connection.putrequest("POST", "/v1/feedback")
        connection.putheader("Content-Length", "1000")
        connection.endheaders(b'{"record"')
        connection.close()
    assert give(gateway, gateway.post(chat()).id, "x").status == 200
    assert "Traceback" not in gateway.log


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_other_methods(gateway: Gateway, upstream: FakeUpstream, method: str) -> None:
    answer = gateway.ask(method, "/v1/feedback")
    assert answer.status == 405 and "not served" in answer.json["error"]["message"]


def test_on_a_full_disk_it_says_so(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    record = gateway.post(chat()).id
    gateway.stop()
    full = (gateway.home / "suffice.db").stat().st_size / 2**20
    again = serve(config(upstream.url, f"[records]\nmax_db_mb = {full}\n"))
    answer = give(again, record, "x" * 500_000)
    assert (answer.status, answer.json["error"]["code"]) == (503, "records_unavailable"), answer.body
    assert "full" in answer.json["error"]["message"] and "Traceback" not in again.log
    assert of(gateway.home, record) == []


# ---------------------------------------------------------------------------------------------- what it is good for


def test_it_teaches_the_task(learned: Path, serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    """People correct what the live specialist answered: the next release has seen it, and was not certified on it."""
    told("stage", "triage", "live", "--home", learned)
    gateway = serve(config(upstream.url), home=learned)
    given: list[str] = []
    for ticket in generate(400, 11):
        messages = [
            {"role": "system", "content": system_prompt("2026-03-20")},
            {"role": "user", "content": ticket.text},
        ]
        answer = gateway.post(chat(messages=messages), {"X-Suffice-Task": "triage"})
        if answer.route == "specialist":
            assert give(gateway, answer.id, ticket.truth).json["changed"]
            given.append(answer.id)
    assert len(given) > 100
    gateway.stop()
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"input": t.text, "reference": t.truth}) + "\n" for t in generate(1500, 6)))
    again = told("learn", "triage", "--data", more, "--home", learned, "--max-error", "0.06")
    assert again["release"] == "triage@2", again["reasons"]
    with closing(sqlite3.connect(learned / "suffice.db")) as connection:
        splits = dict(connection.execute("SELECT example, split FROM splits").fetchall())
    assert {splits[record] for record in given} == {"train"}
