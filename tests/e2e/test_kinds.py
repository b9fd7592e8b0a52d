"""Upstreams with paths and credentials of their own, judged by the vendors' own libraries on what arrived."""

from __future__ import annotations

import base64
import json
import struct
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic._constants import ANTHROPIC_API_VERSION
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from e2e_support import DEADLINE_S, FakeUpstream, Gateway, Reply, Seen, chat, suffice, whole
from openai import AzureOpenAI

Serve = Callable[..., Gateway]
AWS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "aws-secret", "AWS_SESSION_TOKEN": "aws-session"}
CALLERS = {"Authorization": "Bearer caller-secret", "x-api-key": "caller-secret", "api-key": "caller-secret"}
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "claude",
    "content": [{"type": "text", "text": "hi"}],
    "stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 3, "output_tokens": 1},
}  # fmt: skip
STREAM: list[dict[str, Any]] = [
    {"type": "message_start", "message": {**MESSAGE, "content": [], "stop_reason": None}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "hi"}},
    {"type": "content_block_stop", "index": 0},
    {
        "type": "message_delta",
        "delta": {"stop_reason": "end_turn", "stop_sequence": None},
        "usage": {"output_tokens": 1},
    },
    {"type": "message_stop"},
]


def table(kind: str, base_url: str, more: str = "") -> str:
    return f'[upstreams.own]\nkind = "{kind}"\nbase_url = "{base_url}"\n{more}\n'


def message(seen: Seen) -> Reply:
    return Reply(parts=[json.dumps(MESSAGE).encode()], length=True)


def sdk(gateway: Gateway) -> anthropic.Anthropic:
    url = gateway.url.removesuffix("/v1")
    return anthropic.Anthropic(base_url=url, api_key="caller-secret", max_retries=0, timeout=DEADLINE_S)


def say(gateway: Gateway, **more: Any) -> str:
    asked: Any = {"model": "claude-x", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], **more}
    return str(sdk(gateway).messages.create(**asked).content[0].text)


def told_nothing(seen: Seen) -> bool:
    """Nothing of the caller's own credentials has come here."""
    return b"caller-secret" not in b"".join(value for _, value in seen.headers) + seen.body


# ---------------------------------------------------------------------------------------------- Anthropic, Azure


def test_anthropic_gets_its_key_and_a_version(serve: Serve, upstream: FakeUpstream) -> None:
    upstream.answer = message
    gateway = serve(table("anthropic", upstream.url, 'api_key_env = "A_KEY"'), env={"A_KEY": "configured"})
    body = b'{"model":"claude-x","max_tokens":9,"messages":[{"role":"user","content":"x"}]}'
    assert gateway.post(body, CALLERS, path="/v1/messages").status == 200
    assert say(gateway) == "hi"
    for seen in upstream.seen:
        assert (seen.path, seen.header("x-api-key")) == ("/v1/messages", ["configured"]) and told_nothing(seen)
    assert upstream.seen[0].body == body
    assert upstream.seen[0].header("anthropic-version") == ["2023-06-01"]
    assert upstream.seen[1].header("anthropic-version") == [ANTHROPIC_API_VERSION]


def test_azure_by_its_v1_surface(serve: Serve, upstream: FakeUpstream) -> None:
    base = upstream.url.replace("/v1", "/openai/v1")
    gateway = serve(table("azure", base, 'api_key_env = "A_KEY"'), env={"A_KEY": "configured"})
    assert gateway.post(chat(), CALLERS).status == 200
    seen = upstream.seen[0]
    assert (seen.path, seen.header("api-key")) == ("/openai/v1/chat/completions", ["configured"]) and told_nothing(seen)


def test_azure_by_deployment_asks_as_its_own_sdk_does(serve: Serve, upstream: FakeUpstream) -> None:
    base = upstream.url.removesuffix("/v1")
    azure = AzureOpenAI(azure_endpoint=base, api_key="configured", api_version="2024-10-21", max_retries=0)
    azure.chat.completions.create(model="my deployment", messages=[{"role": "user", "content": "x"}])
    more = 'api_version = "2024-10-21"\napi_key_env = "A_KEY"\nrename = { "gpt-4o" = "my deployment" }'
    gateway = serve(table("azure", base, more), env={"A_KEY": "configured"})
    assert gateway.post(chat(), CALLERS).status == 200
    theirs, ours = upstream.seen
    assert ours.target == theirs.target and "api-version=2024-10-21" in ours.path and "deployments" in ours.path
    assert ours.header("api-key") == theirs.header("api-key") == ["configured"] and told_nothing(ours)


# ---------------------------------------------------------------------------------------------- Bedrock


def signed_well(seen: Seen, service: str = "bedrock") -> bool:
    """Whether AWS's own library gives the signature that came, for what came."""
    host = seen.header("host")[0]
    request = AWSRequest(
        seen.method,
        f"http://{host}{seen.target}",
        data=seen.body,
        headers={"Content-Type": seen.header("content-type")[0]},
    )
    stamp = seen.header("x-amz-date")[0]
    request.context["timestamp"] = stamp
    request.headers["X-Amz-Date"] = stamp
    request.headers["X-Amz-Security-Token"] = AWS["AWS_SESSION_TOKEN"]
    keys = ReadOnlyCredentials(AWS["AWS_ACCESS_KEY_ID"], AWS["AWS_SECRET_ACCESS_KEY"], AWS["AWS_SESSION_TOKEN"])
    judge = SigV4Auth(keys, service, "eu-west-1")
    expected = judge.signature(judge.string_to_sign(request, judge.canonical_request(request)), request)
    age = datetime.now(UTC) - datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return seen.header("authorization")[0].endswith(f"Signature={expected}") and age.total_seconds() < 60


def bedrock(upstream: FakeUpstream, more: str = "") -> str:
    return table("bedrock", upstream.url.removesuffix("/v1"), f'region = "eu-west-1"\n{more}')


def test_bedrock_is_signed(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(bedrock(upstream), env=AWS)
    assert gateway.post(chat("grüße"), CALLERS, path="/v1/chat/completions?x=%20a&b=c").status == 200
    seen = upstream.seen[0]
    assert seen.path == "/openai/v1/chat/completions?x=%20a&b=c" and signed_well(seen) and told_nothing(seen)
    assert AWS["AWS_SECRET_ACCESS_KEY"] not in gateway.log


def test_bedrock_with_a_key_of_its_own(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(bedrock(upstream, 'api_key_env = "B_KEY"'), env={"B_KEY": "configured"})
    assert gateway.post(chat(), CALLERS).status == 200
    assert upstream.seen[0].header("authorization") == ["Bearer configured"] and told_nothing(upstream.seen[0])


def frame(payload: bytes, **headers: str) -> bytes:
    """A frame of AWS's event stream."""
    told = b"".join(
        bytes([len(key)]) + key.encode() + b"\x07" + struct.pack("!H", len(value)) + value.encode()
        for key, value in headers.items()
    )
    prelude = struct.pack("!II", 16 + len(told) + len(payload), len(told))
    prelude += struct.pack("!I", zlib.crc32(prelude))
    return prelude + told + payload + struct.pack("!I", zlib.crc32(prelude + told + payload))


def framed(event: dict[str, Any]) -> bytes:
    payload = json.dumps({"bytes": base64.b64encode(json.dumps(event).encode()).decode()}).encode()
    return frame(payload, **{":message-type": "event", ":event-type": "chunk", ":content-type": "application/json"})


def test_bedrock_answers_for_anthropics_models(serve: Serve, upstream: FakeUpstream) -> None:
    frames = b"".join(framed(event) for event in STREAM)
    cuts = [frames[at : at + 37] for at in range(0, len(frames), 37)]
    streams = [(b"content-type", b"application/vnd.amazon.eventstream")]
    upstream.answer = lambda seen: Reply(headers=streams, parts=cuts) if "stream" in seen.path else message(seen)
    more = 'dialects = ["messages"]\nrename = { "claude-x" = "eu.anthropic.claude-x-v1:0" }'
    gateway = serve(bedrock(upstream, more), env=AWS)
    assert say(gateway, extra_headers={"anthropic-beta": "one,two"}) == "hi"
    with sdk(gateway).messages.stream(
        model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "x"}]
    ) as stream:
        assert "".join(stream.text_stream) == "hi"
        assert stream.response.headers["content-type"].startswith("text/event-stream")
        record = gateway.record(stream.response.headers["x-suffice-record"])
    plain, streamed = upstream.seen
    assert plain.target == "/model/eu.anthropic.claude-x-v1%3A0/invoke"
    assert streamed.target == "/model/eu.anthropic.claude-x-v1%3A0/invoke-with-response-stream"
    assert set(plain.json) == {"max_tokens", "messages", "anthropic_version", "anthropic_beta"}
    assert plain.json["anthropic_beta"] == ["one", "two"] and "stream" not in streamed.json
    assert all(signed_well(seen) and told_nothing(seen) for seen in upstream.seen)
    assert json.loads(record["answer"])["content"][0]["text"] == "hi" and record["prompt_tokens"] == 3


@pytest.mark.parametrize("fault", ["cut", "noise", "exception"])
def test_a_stream_of_bedrock_that_fails_does_not_look_whole(serve: Serve, upstream: FakeUpstream, fault: str) -> None:
    first = framed(STREAM[0])
    throttled = frame(b'{"message":"slow"}', **{":message-type": "exception", ":exception-type": "throttlingException"})
    parts = {"cut": [first], "noise": [first, bytes(100)], "exception": [first, throttled]}[fault]
    upstream.answer = lambda seen: Reply(
        headers=[(b"content-type", b"application/vnd.amazon.eventstream")], parts=parts
    )
    gateway = serve(bedrock(upstream, 'dialects = ["messages"]'), env=AWS)
    with (
        pytest.raises(Exception, match=r"throttling|incomplete|peer closed|disconnect"),
        sdk(gateway).messages.stream(
            model="claude-x", max_tokens=9, messages=[{"role": "user", "content": "x"}]
        ) as stream,
    ):
        stream.get_final_message()


def test_bedrock_without_credentials_is_told_and_tried_elsewhere(
    serve: Serve, upstream: FakeUpstream, tmp_path: Path
) -> None:
    nobody = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path), "AWS_CONFIG_FILE": "/nowhere"}
    gateway = serve(bedrock(upstream), env=nobody)
    answer = gateway.post(chat())
    assert (answer.status, answer.json["error"]["code"]) == (502, "upstream_credentials")
    assert "none are configured" in answer.json["error"]["message"] and not upstream.seen


# ---------------------------------------------------------------------------------------------- Vertex


def test_vertex_by_a_service_account(serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    account = {"type": "service_account", "client_email": "a@b", "private_key": pem, "private_key_id": "k",
               "project_id": "p", "token_uri": upstream.url + "/token"}  # fmt: skip
    file = tmp_path / "account.json"
    file.write_text(json.dumps(account))

    def answer(seen: Seen) -> Reply:
        if seen.path == "/v1/token":
            token = {"access_token": "google-token", "expires_in": 3600, "token_type": "Bearer"}
            return Reply(parts=[json.dumps(token).encode()], length=True)
        if seen.path.endswith(":streamRawPredict"):
            parts = [f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode() for event in STREAM]
            return Reply(headers=[(b"content-type", b"text/event-stream")], parts=parts)
        return message(seen) if "rawPredict" in seen.path else whole()

    upstream.answer = answer
    place = upstream.url + "/projects/p/locations/l"
    gateway = serve(
        table("vertex", place, 'dialects = ["messages", "chat"]'), env={"GOOGLE_APPLICATION_CREDENTIALS": str(file)}
    )
    assert gateway.post(chat(), CALLERS).status == 200
    assert say(gateway) == "hi"
    with sdk(gateway).messages.stream(
        model="claude-x@1", max_tokens=9, messages=[{"role": "user", "content": "x"}]
    ) as stream:
        assert "".join(stream.text_stream) == "hi"
    token, plain, raw, streamed = upstream.seen
    assert b"assertion=" in token.body  # once, for all calls
    assert plain.path == "/v1/projects/p/locations/l/endpoints/openapi/chat/completions"
    assert raw.path == "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x:rawPredict"
    assert streamed.path == "/v1/projects/p/locations/l/publishers/anthropic/models/claude-x@1:streamRawPredict"
    assert raw.json["anthropic_version"] == ANTHROPIC_API_VERSION and "model" not in raw.json
    for seen in (plain, raw, streamed):
        assert seen.header("authorization") == ["Bearer google-token"] and told_nothing(seen)


@pytest.mark.parametrize("kind", ["bedrock"])
def test_what_is_missing_is_told_before_anything_starts(tmp_path: Path, kind: str) -> None:
    (tmp_path / "suffice.toml").write_text(table(kind, "https://host.example"))
    done = suffice("serve", "--port", "0", "--home", tmp_path)
    assert done.returncode == 2 and b"region" in done.stderr and len(done.stderr.splitlines()) == 1
