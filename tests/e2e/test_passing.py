"""Pass-through, models and embeddings: what is relayed without being read."""

from __future__ import annotations

import http.client
import json
from pathlib import Path
from typing import Any

import openai
import pytest
from e2e_support import FakeUpstream, Gateway, Reply, chat, config, rows, told, until

from conftest import Serve

FILE = {
    "id": "file-1",
    "object": "file",
    "bytes": 3,
    "created_at": 1,
    "filename": "a",
    "purpose": "user_data",
    "status": "processed",
}


def replies(document: Any, status: int = 200, **more: Any) -> Reply:
    return Reply(status, parts=[json.dumps(document).encode()], length=True, **more)


def recorded(gateway: Gateway, count: int = 1) -> list[dict[str, Any]]:
    return until(lambda: len(found := rows(gateway.home, "dialect = 'other'")) >= count and found)


def test_other_paths_and_methods_go_upstream_with_their_query(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: replies({"object": "list", "data": [], "has_more": False})
    assert list(gateway.client().fine_tuning.jobs.list(limit=3, after="x")) == []
    upstream.answer = lambda seen: replies({"id": "vs_1", "object": "vector_store.deleted", "deleted": True})
    assert gateway.client().vector_stores.delete("vs_1").deleted
    told = [(seen.method, seen.path) for seen in upstream.seen]
    assert told == [("GET", "/v1/fine_tuning/jobs?limit=3&after=x"), ("DELETE", "/v1/vector_stores/vs_1")] or told == [
        ("GET", "/v1/fine_tuning/jobs?after=x&limit=3"),
        ("DELETE", "/v1/vector_stores/vs_1"),
    ]
    paths = [row["path"] for row in recorded(gateway, 2)]
    assert "GET /fine_tuning/jobs" in paths and "DELETE /vector_stores/vs_1" in paths


def test_an_upload_is_streamed_whatever_its_size_and_not_kept(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, "[server]\nmax_body_mb = 1\n"))
    upstream.answer = lambda seen: replies(FILE)
    content = bytes(range(256)) * 4096 * 5
    assert gateway.client().files.create(file=("a.bin", content), purpose="user_data").id == "file-1"
    assert content in upstream.seen[0].body and upstream.seen[0].header("content-length")
    row = recorded(gateway)[0]
    assert (row["path"], row["request"], row["status"]) == ("POST /files", b"", 200)
    assert json.loads(row["answer"])["id"] == "file-1"


def test_a_caller_who_hangs_up_in_the_middle_of_an_upload(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    connection = gateway.open()
    connection.putrequest("POST", "/v1/audio/transcriptions")
    connection.putheader("Content-Type", "multipart/form-data; boundary=x")
    connection.putheader("Content-Length", str(10**7))
    connection.endheaders(b"x" * 10**6)
    connection.close()
    row = recorded(gateway)[0]
    assert (row["status"], row["failure"]) == (None, "the caller hung up") and upstream.seen == []


def test_an_answer_that_is_no_json_comes_back_whole_and_is_not_kept(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    sound = bytes(range(256)) * 1000
    upstream.answer = lambda seen: Reply(headers=[(b"content-type", b"audio/mpeg")], parts=[sound[:9], sound[9:]])
    spoken = gateway.client().audio.speech.create(model="tts-1", voice="alloy", input="hello")
    assert spoken.content == sound
    row = recorded(gateway)[0]
    assert (row["path"], row["model"], row["answer"], row["failure"]) == ("POST /audio/speech", "tts-1", None, None)
    assert json.loads(row["request"])["input"] == "hello" and row["cost_usd"] is None and row["task"] is None


@pytest.mark.parametrize(
    "path",
    ["/v1/../admin", "/v1/files/../../admin", "/v1/%2e%2e/admin", "/v1/files/%2E%2e/x", "/v1/files%2f..%2fx",
     "/v1//files", "/v1/files\\x", "/v1/files/%00"],
)  # fmt: skip
def test_a_path_cannot_leave_v1(gateway: Gateway, upstream: FakeUpstream, path: str) -> None:
    connection = gateway.open()
    connection.putrequest("GET", path, skip_host=False)
    connection.endheaders()
    assert connection.getresponse().status in (400, 404)
    connection.close()
    assert upstream.seen == []


def test_redirects_are_not_followed(gateway: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: Reply(302, headers=[(b"location", b"http://169.254.169.254/")], parts=[b""])
    answer = gateway.get("/v1/files/x/content")
    assert (answer.status, answer.headers["location"]) == (302, "http://169.254.169.254/") and len(upstream.seen) == 1


def test_websockets_get_a_clear_answer(gateway: Gateway, upstream: FakeUpstream) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=10)
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x"}
    connection.request("GET", "/v1/realtime?model=x", headers=headers)
    answer = connection.getresponse()
    assert answer.status in (501, 403) and upstream.seen == []
    connection.close()


@pytest.mark.parametrize("rule", ["never", "redacted"])
def test_what_cannot_be_looked_into_does_not_leave(serve: Serve, upstream: FakeUpstream, rule: str) -> None:
    gateway = serve(config(upstream.url, f'[policy]\negress = "{rule}"\n'))
    with pytest.raises(openai.PermissionDeniedError, match="may not leave"):
        gateway.client().files.create(file=("a.bin", b"secret" * 100), purpose="user_data")
    assert upstream.seen == []
    row = recorded(gateway)[0]
    assert (row["status"], row["reason"], row["egress"]) == (403, "egress_denied", "denied")


def test_embeddings_are_relayed_and_priced(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(
        config(upstream.url, '[prices."text-embedding-3-small"]\ninput_usd_per_mtok = 0.02\noutput_usd_per_mtok = 0\n')
    )
    vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}
    usage = {"prompt_tokens": 1_000_000, "total_tokens": 1_000_000}
    listed = {"object": "list", "data": [vector], "model": "text-embedding-3-small", "usage": usage}
    upstream.answer = lambda seen: replies(listed)
    made = gateway.client().embeddings.create(model="text-embedding-3-small", input="hello", encoding_format="float")
    assert made.data[0].embedding == [0.5, 0.25] and upstream.seen[0].path == "/v1/embeddings"
    row = until(lambda: rows(gateway.home, "dialect = 'embeddings'"))[0]
    assert (row["prompt_tokens"], row["completion_tokens"], row["cost_usd"]) == (1_000_000, 0, pytest.approx(0.02))
    upstream.answer = lambda seen: replies({"error": {"message": "no", "code": "x", "type": "y", "param": None}}, 400)
    with pytest.raises(openai.BadRequestError, match="no"):
        gateway.client().embeddings.create(model="text-embedding-3-small", input="hello")


def test_models_are_listed_in_the_callers_shape_with_ours(serve: Serve, upstream: FakeUpstream, learned: Path) -> None:
    gateway = serve(config(upstream.url, "[tasks.triage]\n"), home=learned)
    assert gateway.home == learned

    told("stage", "triage@1", "live", "--home", learned)
    upstream.answer = lambda seen: replies(
        {"object": "list", "data": [{"id": "gpt-4o", "object": "model", "created": 1}]}
    )

    def both() -> list[str]:
        return [model.id for model in gateway.client().models.list()]

    until(lambda: both() == ["gpt-4o", "suffice/triage@1"])
    assert gateway.client().models.retrieve("suffice/triage@1").owned_by == "suffice"
    with pytest.raises(openai.NotFoundError):
        gateway.client().models.retrieve("suffice/other@1")
    seen = len(upstream.seen)
    for name in ("suffice/triage", "suffice/triage@1"):  # asked by its name it answers, or nobody does
        said = gateway.post(chat("my parcel has not come", model=name))
        assert said.status in (200, 424) and (said.status == 424 or said.json["model"] == "suffice/triage@1")
    assert gateway.post(chat("x", model="suffice/triage@2")).json["error"]["code"] == "model_not_found"
    assert len(upstream.seen) == seen
    upstream.answer = lambda seen: replies({"id": "gpt-4o", "object": "model", "created": 1, "owned_by": "o"})
    assert gateway.client().models.retrieve("meta/llama").id == "gpt-4o"
    assert upstream.seen[-1].path == "/v1/models/meta/llama"
    upstream.answer = lambda seen: replies(
        {"object": "list", "data": [{"id": "gpt-4o", "object": "model", "created": 1}]}
    )
    found = gateway.ask("GET", "/v1/models", headers={"anthropic-version": "2023-06-01"}).json
    assert [model["type"] for model in found["data"]] == ["model", "model"]
    assert (found["has_more"], found["last_id"]) == (False, "suffice/triage@1")
