"""`/v1/batches` through the official client: specialists first, in the background, across a restart."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable
from typing import Any

import openai
import pytest
from e2e_support import DEADLINE_S, FakeUpstream, Gateway, Reply, Seen, completion, config, rows, told, until, whole

Serve = Callable[..., Gateway]


def line(name: str, text: str, **more: Any) -> dict[str, Any]:
    body = {"model": "gpt-4o", "messages": [{"role": "user", "content": text}]}
    return {"custom_id": name, "method": "POST", "url": "/v1/chat/completions", "body": body, **more}


def sent(client: openai.OpenAI, lines: list[dict[str, Any]]) -> str:
    data = "".join(json.dumps(one) + "\n" for one in lines).encode()
    return client.files.create(file=("in.jsonl", io.BytesIO(data)), purpose="batch").id


def begun(client: openai.OpenAI, lines: list[dict[str, Any]], **more: Any) -> openai.types.Batch:
    return client.batches.create(
        input_file_id=sent(client, lines), endpoint="/v1/chat/completions", completion_window="24h", **more
    )


def ended(client: openai.OpenAI, batch: str) -> openai.types.Batch:
    def done() -> openai.types.Batch | None:
        found = client.batches.retrieve(batch)
        return found if found.status in ("completed", "failed", "cancelled", "expired") else None

    return until(done, "the batch ends", 30)


def answers(client: openai.OpenAI, file: str | None) -> dict[str, Any]:
    assert file is not None
    return {one["custom_id"]: one for one in map(json.loads, client.files.content(file).text.splitlines())}


def test_a_batch_is_answered_in_the_background(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    client = gateway.client()

    def answer(seen: Seen) -> Reply:
        return Reply(status=400, parts=[b'{"error": {"message": "no"}}']) if seen.text == "bad" else whole(seen.text)

    upstream.answer = answer
    batch = begun(client, [line(f"r{i}", "bad" if i == 3 else f"text {i}") for i in range(10)], metadata={"a": "b"})
    assert batch.status == "validating" and batch.metadata == {"a": "b"}
    done = ended(client, batch.id)
    assert done.status == "completed" and done.completed_at is not None
    assert done.request_counts is not None
    assert (done.request_counts.total, done.request_counts.completed, done.request_counts.failed) == (10, 9, 1)
    good, bad = answers(client, done.output_file_id), answers(client, done.error_file_id)
    said = {name: one["response"]["body"]["choices"][0]["message"]["content"] for name, one in good.items()}
    assert said == {f"r{i}": f"text {i}" for i in range(10) if i != 3}
    assert bad["r3"]["response"]["status_code"] == 400
    assert gateway.record(good["r0"]["response"]["request_id"])["status"] == 200

    assert [one.id for one in client.batches.list(limit=1)] == [batch.id]
    client.files.delete(done.output_file_id or "")
    with pytest.raises(openai.NotFoundError, match="there is no file 'file-"):
        client.files.content(done.output_file_id or "")


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ([line("a", "x"), line("a", "y")], "stands twice"),
        ([line("a", "x", url="/v1/embeddings")], "the batch's endpoint"),
        ([{**line("a", "x"), "custom_id": 7}], "`custom_id`"),
        ([{**line("a", "x"), "body": {"stream": True}}], "`stream`"),
        ([], "no request"),
    ],
)
def test_a_file_that_cannot_run_says_where(gateway: Gateway, lines: list[dict[str, Any]], says: str) -> None:
    client = gateway.client()
    done = ended(client, begun(client, lines).id)
    assert done.status == "failed" and done.errors is not None and done.errors.data
    assert says in (done.errors.data[0].message or "")
    assert done.errors.data[0].line == (len(lines) or None)


def test_what_is_asked_wrongly_is_told(gateway: Gateway) -> None:
    client = gateway.client()
    file = sent(client, [line("a", "x")])
    for wrong, param in (
        ({"input_file_id": "file-abc"}, "input_file_id"), ({"endpoint": "/v1/else"}, "endpoint"),
        ({"completion_window": "soon"}, "completion_window"),
    ):  # fmt: skip
        asked: Any = {"input_file_id": file, "endpoint": "/v1/chat/completions", "completion_window": "24h", **wrong}
        with pytest.raises(openai.BadRequestError) as error:
            client.batches.create(**asked)
        assert error.value.param == param
    with pytest.raises(openai.NotFoundError):
        client.batches.retrieve("batch_suffice_" + "0" * 32)


def test_files_of_another_purpose_are_the_upstreams(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    upstream.answer = lambda seen: Reply(parts=[b'{"id": "file-up", "object": "file"}'])
    data = bytes(range(256)) * 2000
    gateway.client().files.create(file=("x.bin", io.BytesIO(data)), purpose="fine-tune")
    (seen,) = upstream.seen
    assert seen.path == "/v1/files" and data in seen.body and b"fine-tune" in seen.body
    gateway.client().files.retrieve("file-up")
    assert upstream.seen[-1].path == "/v1/files/file-up"
    gateway.client().batches.list()
    assert len(upstream.seen) == 2, "batches run here"


def test_a_cancelled_batch_stops_and_keeps_what_it_has(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, "[batches]\nat_once = 1\n"))
    client, gate = gateway.client(), threading.Event()

    def answer(seen: Seen) -> Reply:
        return Reply(parts=[completion("x")], before=gate if len(upstream.seen) > 60 else None)

    upstream.answer = answer
    batch = begun(client, [line(f"r{i}", str(i)) for i in range(500)])
    until(lambda: len(upstream.seen) > 60)
    assert client.batches.cancel(batch.id).status == "cancelling"
    gate.set()
    done = ended(client, batch.id)
    assert done.status == "cancelled" and done.request_counts is not None
    assert 60 <= done.request_counts.completed == len(answers(client, done.output_file_id)) < 500


def test_a_batch_goes_on_where_a_killed_server_had_come_to(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, "[batches]\nat_once = 2\n"))
    batch = begun(gateway.client(), [line(f"r{i}", f"text {i}") for i in range(400)])
    until(lambda: len(upstream.seen) > 100)
    gateway.process.kill()
    gateway.process.wait(DEADLINE_S)
    again = serve(config(upstream.url, "[batches]\nat_once = 8\n"), home=gateway.home)
    done = ended(again.client(), batch.id)
    assert done.status == "completed" and done.request_counts is not None
    assert done.request_counts.completed == 400
    assert len(answers(again.client(), done.output_file_id)) == 400
    assert len(upstream.seen) <= 400 + 2, "only what was under way is asked again"


def test_a_batch_belongs_to_the_key_that_made_it(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    keys = [told("keys", "create", name, "--home", gateway.home)["key"] for name in ("one", "two")]
    until(lambda: gateway.get("/v1/batches").status == 401)
    one, two = (gateway.client(key) for key in keys)
    batch = begun(one, [line("a", "x")])
    done = ended(one, batch.id)
    for there in (lambda: two.batches.retrieve(batch.id), lambda: two.files.content(done.output_file_id or "")):
        with pytest.raises(openai.NotFoundError):
            there()
    assert [len(client.batches.list().data) for client in (one, two)] == [1, 0]
    until(lambda: rows(gateway.home, "key = 'one'"))
