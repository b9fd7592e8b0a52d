"""The simulated frontier as its own process, over real HTTP, with the official client."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from openai import AuthenticationError, BadRequestError, NotFoundError, OpenAI
from openai.types.chat import ChatCompletionMessageParam

ASK: list[ChatCompletionMessageParam] = [
    {"role": "system", "content": "Sort it."},
    {"role": "user", "content": "where is my parcel"},
]

Start = Callable[..., tuple[int, "subprocess.Popen[str]"]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    answers = tmp_path / "answers.jsonl"
    answers.write_text(
        json.dumps({"text": "where is my parcel", "answer": "order_status"}) + "\n"
        + json.dumps({"text": "Grüße", "answer": "schöne Grüße"}) + "\n"
    )  # fmt: skip
    running: list[subprocess.Popen[str]] = []

    def run(*flags: str) -> tuple[int, "subprocess.Popen[str]"]:
        command = [sys.executable, "-m", "suffice.demo.frontier", "--port", "0", "--answers", str(answers), *flags]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        running.append(process)
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        assert ready["simulated"] is True
        return ready["port"], process

    yield run
    for process in running:
        process.kill()
        process.communicate()


def client(port: int, key: str = "any") -> OpenAI:
    return OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=30)


def test_plain_answer(start: Start) -> None:
    port, _ = start("--latency-ms", "0")
    raw = client(port).chat.completions.with_raw_response.create(model="big", messages=ASK)
    assert raw.headers["x-simulated"] == "true" and raw.headers["x-simulated-latency-ms"] == "0.0"
    answer = raw.parse()
    assert answer.choices[0].message.content == "order_status"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.model == "big" and answer.system_fingerprint == "simulated"
    assert answer.usage is not None
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens > 0


def test_streamed_answer(start: Start) -> None:
    port, _ = start("--latency-ms", "20")
    chunks = list(
        client(port).chat.completions.create(
            model="big", messages=ASK, stream=True, stream_options={"include_usage": True}
        )
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == "order_status" and len(pieces) > 3
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert chunks[-1].choices == [] and chunks[-1].usage is not None and chunks[-1].usage.total_tokens > 0
    assert all(chunk.system_fingerprint == "simulated" for chunk in chunks)
    bare = list(client(port).chat.completions.create(model="big", messages=ASK, stream=True))
    assert all(chunk.choices and chunk.usage is None for chunk in bare)


def test_unknown_text_parts_and_several_choices(start: Start) -> None:
    port, _ = start("--latency-ms", "0")
    create = client(port).chat.completions.create
    unknown = create(model="big", messages=[{"role": "user", "content": "tell me a story"}])
    assert "simulated" in (unknown.choices[0].message.content or "")
    parts = create(model="big", messages=[{"role": "user", "content": [{"type": "text", "text": "Grüße"}]}], n=2)
    assert [choice.message.content for choice in parts.choices] == ["schöne Grüße"] * 2


def test_it_becomes_another_frontier_from_one_moment_on(start: Start) -> None:
    port, _ = start("--latency-ms", "3000", "--speed", "1000")
    create = client(port).chat.completions.create

    def simulate(body: object) -> dict[str, object]:
        request = urllib.request.Request(
            f"http://127.0.0.1:{port}/simulate", json.dumps(body).encode(), {"Authorization": "Bearer any"}
        )
        with urllib.request.urlopen(request, timeout=30) as answer:
            found: dict[str, object] = json.loads(answer.read())
            return found

    def said() -> str | None:
        return create(model="big", messages=ASK).choices[0].message.content

    assert said() == "order_status"
    assert simulate({"renames": {"order_status": "parcels"}, "speed": 500}) == {"asked": 1, "simulated": True}
    assert said() == "parcels"
    assert simulate({}) == {"asked": 2, "simulated": True}
    assert said() == "order_status", "what is left out is as it was"
    bad: list[object] = [[], {"speed": 0}, {"renames": {"a": 1}}, {"speeed": 2}]
    for wrong in bad:
        with pytest.raises(urllib.error.HTTPError) as caught:
            simulate(wrong)
        with caught.value as answer:
            assert answer.code == 400


def test_models(start: Start) -> None:
    port, _ = start("--latency-ms", "0")
    assert [model.id for model in client(port).models.list()] == ["simulated-frontier"]
    assert client(port).models.retrieve("simulated-frontier").owned_by == "simulated"


def post(port: int, body: bytes, headers: dict[str, str]) -> tuple[int, dict[str, object]]:
    request = urllib.request.Request(f"http://127.0.0.1:{port}/v1/chat/completions", body, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as answer:
        assert answer.headers["x-simulated"] == "true"
        return answer.code, json.loads(answer.read())["error"]


def test_keys(start: Start) -> None:
    port, _ = start("--latency-ms", "0", "--key", "right")
    status, error = post(port, b"{}", {})
    assert status == 401 and error["code"] == "missing_api_key"
    with pytest.raises(AuthenticationError) as caught:
        client(port, "wrong").chat.completions.create(model="big", messages=ASK)
    assert caught.value.code == "invalid_api_key"
    assert client(port, "right").chat.completions.create(model="big", messages=ASK).choices


def test_bad_requests(start: Start) -> None:
    port, _ = start("--latency-ms", "0")
    bearer = {"Authorization": "Bearer any"}
    for body, says in ((b"{nope", "not JSON"), (b"[]", "object"), (b'{"model": "m"}', "messages"), (b"\xff", "JSON")):
        status, error = post(port, body, bearer)
        assert status == 400 and error["type"] == "invalid_request_error" and says in str(error["message"])
    assert post(port, b'{"model": "m", "messages": "hi"}', bearer)[0] == 400
    with pytest.raises(BadRequestError, match="empty list"):
        client(port).chat.completions.create(model="big", messages=[])
    with pytest.raises(NotFoundError):
        client(port).embeddings.create(model="big", input="x")


def test_many_at_once_wait_together(start: Start) -> None:
    port, _ = start("--latency-ms", "500", "--latency-p99-ms", "500")
    one = client(port)

    def ask(_: int) -> str | None:
        return one.chat.completions.create(model="big", messages=ASK).choices[0].message.content

    began = time.monotonic()
    with ThreadPoolExecutor(64) as pool:
        assert set(pool.map(ask, range(64))) == {"order_status"}
    assert 0.5 <= time.monotonic() - began < 16  # one after the other would be 32 seconds


def test_sigterm_ends_it_while_an_answer_is_due(start: Start) -> None:
    port, process = start("--latency-ms", "60000", "--latency-p99-ms", "60000")
    body = json.dumps({"model": "big", "messages": ASK}).encode()
    lines = ("POST /v1/chat/completions HTTP/1.1", "Host: x", "Authorization: Bearer k", f"Content-Length: {len(body)}")
    head = "\r\n".join((*lines, "", ""))
    with socket.create_connection(("127.0.0.1", port), timeout=30) as waiting:
        waiting.sendall(head.encode() + body)
        assert client(port).models.list().data  # it serves others while that one waits
        process.terminate()
        process.wait(timeout=10)


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads the kernel's list of listening sockets")
def test_listens_on_the_loopback_only(start: Start) -> None:
    port, _ = start("--latency-ms", "0")
    listening = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    addresses = {row[1].split(":")[0] for row in listening if row[3] == "0A" and int(row[1].split(":")[1], 16) == port}
    assert addresses == {"0100007F"}
