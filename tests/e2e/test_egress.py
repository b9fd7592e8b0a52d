"""What may leave: a canary upstream that must never be called, over every path; and one that gets placeholders."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Answer, FakeUpstream, Gateway, Reply, chat, streamed, suffice, told, until, whole
from e2e_support import called as call_of
from e2e_support import events as events_of

from suffice.demo.workload import Ticket, system_prompt

Serve = Callable[..., Gateway]
NEVER = 'egress = "never"\n'
SECRET = "bob@example.com"


@pytest.fixture
def canary() -> Iterator[FakeUpstream]:
    """Outside; it must never be called."""
    server = FakeUpstream()
    yield server
    server.close()


def upstreams(canary: FakeUpstream, inside: FakeUpstream | None = None, more: str = "") -> str:
    toml = f'[upstreams.outside]\nbase_url = "{canary.url}"\n{more}'
    if inside is not None:
        toml += f'[upstreams.inside]\nbase_url = "{inside.url}"\ninside = true\nmodels = ["local-*"]\n'
    return toml


def denied(gateway: Gateway, answer: Answer) -> None:
    assert (answer.status, answer.reason, answer.route) == (403, "egress_denied", "none"), answer.body
    row = gateway.record(answer.id)
    assert (row["reason"], row["egress"], row["status"]) == ("egress_denied", "denied", 403)
    assert "may not leave" in row["failure"]


BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]},
    "/v1/messages": {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]},
    "/v1/responses": {"model": "gpt-4o", "input": "hi"},
    "/v1/embeddings": {"model": "e", "input": "hi"},
}


@pytest.mark.parametrize("path", BODIES)
def test_no_dialect_gets_out(canary: FakeUpstream, serve: Serve, path: str) -> None:
    gateway = serve(upstreams(canary) + f"[policy]\n{NEVER}")
    for more in ({}, {"stream": True}):
        body = json.dumps({**BODIES[path], **more}).encode()
        answer = gateway.post(body, path=path)
        if answer.status == 404:
            pytest.skip(f"{path} is not served yet")
        denied(gateway, answer)
        assert "egress_denied" in answer.body.decode() or "may not leave" in answer.body.decode()
    assert canary.seen == []


def test_models_batches_files_and_the_rest_stay(canary: FakeUpstream, serve: Serve) -> None:
    gateway = serve(upstreams(canary) + f"[policy]\n{NEVER}")
    for method, path, body in (
        ("GET", "/v1/models", None),
        ("GET", "/v1/models/gpt-4o", None),
        ("POST", "/v1/completions", b'{"model": "m", "prompt": "hi"}'),
        ("POST", "/v1/audio/speech", b'{"model": "m", "input": "hi"}'),
        ("POST", "/v1/moderations", b'{"input": "hi"}'),
        ("GET", "/v1/responses/resp_1", None),
        ("POST", "/v1/messages/count_tokens", b'{"model": "m", "messages": []}'),
    ):
        gateway.ask(method, path, body, {"Content-Type": "application/json"})
    assert canary.seen == []


def test_a_fallback_outside_is_not_asked_and_one_inside_is(
    canary: FakeUpstream, upstream: FakeUpstream, serve: Serve
) -> None:
    toml = upstreams(canary, upstream, 'fallbacks = ["inside"]\n').replace(
        "inside = true\n", 'inside = true\nfallbacks = ["outside"]\n'
    )
    gateway = serve(toml + f"[policy]\n{NEVER}")
    answer = gateway.post(chat(model="gpt-4o"))
    assert (answer.status, answer.route) == (200, "inside")
    upstream.answer = lambda seen: whole_error()
    assert gateway.post(chat(model="local-1")).status == 500
    assert canary.seen == []


def whole_error() -> Reply:
    return Reply(status=500, parts=[b'{"error": {"message": "broken"}}'], length=True)


def test_a_tasks_rule_and_no_tasks_rule_are_two(canary: FakeUpstream, serve: Serve) -> None:
    gateway = serve(upstreams(canary) + f"[tasks.private]\n{NEVER}")
    denied(gateway, gateway.post(chat(), {"X-Suffice-Task": "private"}))
    denied(gateway, gateway.post(chat(), {"X-Suffice-Task": "private", "X-Suffice-Route": "frontier"}))
    assert canary.seen == []
    assert gateway.post(chat()).status == 200


def test_a_keys_rule_counts_where_it_is_stricter(canary: FakeUpstream, tmp_path: Path, serve: Serve) -> None:
    home = tmp_path / "home"
    home.mkdir()
    keys = {
        rule: told("keys", "create", rule, "--egress", rule, "--home", home)["key"] for rule in ("never", "allowed")
    }
    gateway = serve(upstreams(canary) + f"[tasks.private]\n{NEVER}", home=home)
    for rule, task in (("never", "public"), ("allowed", "private")):
        denied(gateway, gateway.post(chat(), {"X-Suffice-Key": keys[rule], "X-Suffice-Task": task}))
    assert canary.seen == []
    assert gateway.post(chat(), {"X-Suffice-Key": keys["allowed"]}).status == 200


@pytest.mark.parametrize("stage", ["shadow", "live"])
def test_with_a_release_the_sure_ones_are_answered_and_nothing_leaves(
    canary: FakeUpstream, learned_home: Path, tmp_path: Path, tickets: list[Ticket], serve: Serve, stage: str
) -> None:
    home = Path(shutil.copytree(learned_home, tmp_path / "home"))
    assert suffice("stage", "triage", stage, "--home", home).returncode == 0
    toml = upstreams(canary) + f"[tasks.triage]\nmax_error = 0.05\naudit = 1\nprobe = 20\ncanary_share = 0.5\n{NEVER}"
    gateway = serve(toml, home=home)
    answers = [ask(gateway, ticket.text) for ticket in tickets[-60:]]
    accepted = [answer for answer in answers if answer.status == 200]
    assert all(answer.route == "specialist" for answer in accepted)
    for answer in answers:
        if answer.status != 200:
            denied(gateway, answer)
    assert (len(accepted) > 0) == (stage != "shadow")
    audited = [answer.id for answer in accepted if gateway.record(answer.id)["audited"]]
    failures = [until(lambda name=name: audit_of(home, name), "the audit's failure") for name in audited]  # type: ignore[misc]
    assert all("may not leave" in failure for failure in failures)
    assert canary.seen == []


def ask(gateway: Gateway, text: Any) -> Answer:
    messages = [{"role": "system", "content": system_prompt("2026-03-20")}, {"role": "user", "content": text}]
    body = json.dumps({"model": "gpt-4o", "messages": messages}).encode()
    return gateway.post(body, {"X-Suffice-Task": "triage"})


def audit_of(home: Path, record: str) -> str | None:
    connection = sqlite3.connect(home / "suffice.db", timeout=20)
    try:
        found = connection.execute("SELECT failure FROM audits WHERE record = ?", (record,)).fetchall()
        return found[0][0] if found else None
    finally:
        connection.close()


# ---------------------------------------------------------------------------------------------- redacted


def redacting(canary: FakeUpstream, more: str = "") -> str:
    return upstreams(canary) + f'[policy]\negress = "redacted"\n{more}'


def test_placeholders_leave_and_the_words_come_back(canary: FakeUpstream, serve: Serve) -> None:
    gateway = serve(redacting(canary, '[privacy]\nalso = { EMPLOYEE = "E[0-9]{6}" }\n'))
    canary.answer = lambda seen: whole(f"I wrote to {seen.text.split()[-1]}")
    answer = gateway.post(chat(f"E123456 asks you to write to {SECRET}"), {"X-User": SECRET})
    assert answer.content == f"I wrote to {SECRET}"
    assert canary.seen[0].text == "<EMPLOYEE_1> asks you to write to <EMAIL_1>"
    assert SECRET not in str(canary.seen[0].headers)
    assert canary.seen[0].header("authorization") == []
    row = gateway.record(answer.id)
    assert row["egress"] == "redacted"
    assert row["reason"] == "no_task"


def test_a_stream_and_a_tool_call_come_back_through_the_sdk(canary: FakeUpstream, serve: Serve) -> None:
    gateway = serve(redacting(canary))
    pieces = ["to <", "EMA", "IL_", "1", ">", " it went"]
    canary.answer = lambda seen: streamed(events_of(*({"content": piece} for piece in pieces)))
    stream = gateway.client().chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": f"write to {SECRET}"}], stream=True
    )
    said = "".join(chunk.choices[0].delta.content or "" for chunk in stream if chunk.choices)
    assert said == f"to {SECRET} it went"
    canary.answer = lambda seen: whole(None, **call_of("send", '{"to": "<EMAIL_1>"}'))
    answer = gateway.client().chat.completions.create(
        model="gpt-4o", messages=[{"role": "user", "content": f"write to {SECRET}"}]
    )
    call = (answer.choices[0].message.tool_calls or [])[0]
    assert json.loads(call.function.arguments) == {"to": SECRET}  # type: ignore[union-attr]
    assert not any(SECRET.encode() in seen.body for seen in canary.seen)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_words_come_back_in_the_callers_dialect_from_an_upstream_of_another(
    canary: FakeUpstream, serve: Serve, path: str
) -> None:
    gateway = serve(redacting(canary).replace("[policy]", 'dialects = ["chat"]\n[policy]'))
    asked: dict[str, Any] = {"model": "m", "input": f"write to {SECRET}", "store": False}
    if path == "/v1/messages":
        asked = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": f"write to {SECRET}"}]}
    canary.answer = lambda seen: whole("to <EMAIL_1> it went")
    answer = gateway.post(json.dumps(asked).encode(), path=path)
    assert f"to {SECRET} it went" in answer.body.decode()
    pieces = [{"content": piece} for piece in ("to <", "EMA", "IL_1", "> it went")]
    canary.answer = lambda seen: streamed(events_of(*pieces))
    answer = gateway.post(json.dumps({**asked, "stream": True}).encode(), path=path)
    said = [json.loads(line[6:]) for line in answer.body.decode().splitlines() if line.startswith("data: {")]
    deltas = [event["delta"] for event in said if event["type"].endswith("delta")]
    text = "".join(d if isinstance(d, str) else d.get("text", "") for d in deltas)
    assert text == f"to {SECRET} it went", answer.body
    assert gateway.record(answer.id)["egress"] == "redacted"
    assert not any(SECRET.encode() in seen.body for seen in canary.seen)


def test_what_cannot_be_looked_into_is_denied(canary: FakeUpstream, serve: Serve) -> None:
    gateway = serve(redacting(canary))
    image = [{"type": "image_url", "image_url": {"url": "https://example.com/x.png"}}]
    denied(gateway, gateway.post(json.dumps({"model": "m", "messages": [{"role": "user", "content": image}]}).encode()))
    denied(gateway, gateway.post(b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}'))
    assert canary.seen == []


def test_a_wrong_expression_is_told_before_anything_starts(tmp_path: Path) -> None:
    (tmp_path / "suffice.toml").write_text('[privacy]\nalso = { X = "(a" }\n')
    done = suffice("serve", "--port", "0", "--home", tmp_path)
    assert done.returncode == 2
    assert b"also.X" in done.stderr and done.stderr.count(b"\n") == 1


def test_an_answer_that_is_no_json_is_restored_too(canary: FakeUpstream, serve: Serve) -> None:
    gateway = serve(redacting(canary))
    reply = Reply(status=400, headers=[(b"content-type", b"text/plain")], parts=[b"no <EMAIL_1> here"])
    canary.answer = lambda seen: reply
    assert gateway.post(chat(f"hi {SECRET}")).body == f"no {SECRET} here".encode()
