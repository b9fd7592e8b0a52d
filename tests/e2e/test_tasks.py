"""Tasks, stages and releases as a caller sees them."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from e2e_support import (
    Answer,
    FakeUpstream,
    Gateway,
    Reply,
    chat,
    config,
    events,
    rows,
    streamed,
    suffice,
    told,
    until,
    whole,
)

from suffice.demo.workload import Ticket, generate, system_prompt

Serve = Callable[..., Gateway]
DAY = "2026-03-20"
FOREIGN = "Der Quantenverschränkungsalgorithmus zerlegt orthogonale Hamiltonoperatoren: ψ = ∑ αᵢ|i⟩, ∇×B − ∂E/∂t = μ₀J."


@pytest.fixture(scope="session")
def offline(
    learned_home: Path, tickets: list[Ticket], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, dict[str, Any]]:
    """What the release says offline to texts that it never saw."""
    home = Path(shutil.copytree(learned_home, tmp_path_factory.mktemp("offline") / "home"))
    lines = "".join(json.dumps({"input": ticket.text}) + "\n" for ticket in tickets[2500:])
    done = suffice("answer", "triage", "-", "--home", home, stdin=lines.encode())
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == 300
    return {ticket.text: answer for ticket, answer in zip(tickets[2500:], answers, strict=True)}


@pytest.fixture(scope="session")
def sure(offline: dict[str, dict[str, Any]]) -> str:
    """A text whose answer is accepted."""
    return next(text for text, answer in offline.items() if answer["accepted"] and len(answer["output"]) > 8)


@pytest.fixture(scope="module")
def live(
    learned_home: Path, upstream_server: FakeUpstream, sure: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    """A gateway with triage@1 live and pinned to the demo's system prompt."""
    home = Path(shutil.copytree(learned_home, tmp_path_factory.mktemp("live") / "home"))
    (home / "suffice.toml").write_text(config(upstream_server.url))
    told("stage", "triage", "live", "--home", home)
    gateway = Gateway(home)
    first = ask(gateway, sure)
    assert first.reason == "accepted"
    yield gateway
    gateway.close()


def messages(text: str, system: str | None = "default") -> Any:
    head = system_prompt(DAY) if system == "default" else system
    return ([{"role": "system", "content": head}] if head is not None else []) + [{"role": "user", "content": text}]


def ask(
    gateway: Gateway,
    text: str,
    route: str | None = None,
    system: str | None = "default",
    task: str = "triage",
    **fields: Any,
) -> Answer:
    body = json.dumps({"model": "gpt-4o", "messages": messages(text, system), **fields}).encode()
    headers = {"X-Suffice-Task": task} | ({"X-Suffice-Route": route} if route else {})
    return gateway.post(body, headers)


# ---------------------------------------------------------------------------------------------- declaring


def test_a_header_starts_a_task_in_observe(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url))
    answers = [ask(gateway, "x", task="new.task-1") for _ in range(3)]
    assert {(a.route, a.reason, a.headers["x-suffice-task"]) for a in answers} == {
        ("frontier", "observe", "new.task-1")
    }
    gateway.record(answers[-1].id)
    assert [task["name"] for task in _tasks(gateway.home)] == ["new.task-1"]
    done = suffice("stage", "new.task-1", "live", "--home", gateway.home)
    assert (done.returncode, done.stdout) == (2, b"") and b"has no release" in done.stderr


def test_match_rules_and_the_header_above_them(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(
        config(
            upstream.url,
            '[tasks.sorted.match]\nsystem_contains = "You sort"\n'
            '[tasks.mini]\nmax_error = 0.1\nmatch = { model = "gpt-4o-mini", user_contains = "urgent" }\n'
            '[tasks.tooled.match]\ntool = "route"\n',
        )
    )
    tools = [{"type": "function", "function": {"name": "route", "parameters": {}}}]
    asked = [
        (chat("x", messages=messages("x")), None, "sorted"),
        (chat("urgent", model="gpt-4o-mini"), None, "mini"),
        (chat("urgent"), None, None),
        (chat("calm", model="gpt-4o-mini"), None, None),
        (chat("x", tools=tools), None, "tooled"),
        (chat("x", messages=messages("x")), "other", "other"),
        (chat("x", messages=[{"role": "user", "content": [{"type": "text", "text": "urgent"}]}], model="gpt-4o-mini"), None, "mini"),  # noqa: E501
        (chat("x", messages=[7, None, {"role": ["x"], "content": 3}]), None, None),
    ]  # fmt: skip
    for body, header, task in asked:
        answer = gateway.post(body, {"X-Suffice-Task": header} if header else {})
        assert (answer.status, answer.headers.get("x-suffice-task")) == (200, task)
        assert answer.reason == ("observe" if task else "no_task")


@pytest.mark.parametrize(
    "headers",
    [
        *({"X-Suffice-Task": name} for name in ("a b", "-x", "x" * 65, "a/b", "a@1", "../x", "é", "")),
        {"X-Suffice-Route": "Frontier"},
        {"X-Suffice-Route": ""},
        {"X-Suffice-Session": "x" * 201},
        {"X-Suffice-Group": "tab\there"},
        {"X-Suffice-Slices": "ok,not ok"},
    ],
)
def test_a_bad_header_is_a_400_that_names_it(gateway: Gateway, upstream: FakeUpstream, headers: dict[str, str]) -> None:
    answer = gateway.post(chat(), headers)
    assert answer.status == 400 and not upstream.seen
    assert next(iter(headers)).lower() in answer.json["error"]["message"].lower()
    assert gateway.record(answer.id)["status"] == 400


# ---------------------------------------------------------------------------------------------- live


def test_live_answers_are_those_of_answer(
    live: Gateway, upstream: FakeUpstream, offline: dict[str, dict[str, Any]]
) -> None:
    upstream.answer = lambda seen: whole("the frontier's")
    accepted = audited = 0
    for text, expected in offline.items():
        answer = ask(live, text)
        audited += bool(live.record(answer.headers["x-suffice-record"])["audited"])
        assert (answer.reason == "accepted") == expected["accepted"], text
        assert answer.reason == expected["reason"]
        assert answer.content == (expected["output"] if expected["accepted"] else "the frontier's")
        assert float(answer.headers["x-suffice-score"]) == pytest.approx(expected["score"], abs=1e-6)
        accepted += expected["accepted"]
    until(lambda: len(upstream.seen) >= 300 - accepted + audited, "the audits are done")
    assert len(upstream.seen) == 300 - accepted + audited and accepted > 150


def test_live_answer_in_the_sdk(
    live: Gateway, upstream: FakeUpstream, sure: str, offline: dict[str, dict[str, Any]]
) -> None:
    raw = live.client().chat.completions.with_raw_response.create(
        model="gpt-4o",
        messages=messages(sure),
        extra_headers={"X-Suffice-Task": "triage"},
    )
    answer = raw.parse()
    assert answer.choices[0].message.content == offline[sure]["output"]
    assert answer.choices[0].finish_reason == "stop" and answer.model == "suffice/triage@1"
    assert answer.usage is not None and answer.usage.prompt_tokens > 50 and answer.usage.completion_tokens > 0
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert raw.headers["x-suffice-route"] == "specialist" and raw.headers["x-suffice-release"] == "triage@1"
    assert float(raw.headers["x-suffice-score"]) >= float(raw.headers["x-suffice-threshold"])
    assert not upstream.seen
    record = live.record(raw.headers["x-suffice-record"])
    assert (record["route"], record["reason"], record["release"], record["stage"]) == (
        "specialist",
        "accepted",
        "triage@1",
        "live",
    )
    assert record["input"] == sure and record["cost_usd"] is None and record["tokens_estimated"] == 1
    assert record["status"] == 200 and record["latency_ms"] < 1000 and json.loads(record["answer"])["id"] == answer.id


def test_live_stream_in_the_sdk(
    live: Gateway, upstream: FakeUpstream, sure: str, offline: dict[str, dict[str, Any]]
) -> None:
    for include in (False, True):
        stream = live.client().chat.completions.create(
            model="gpt-4o", messages=messages(sure), stream=True, extra_headers={"X-Suffice-Task": "triage"},
            stream_options={"include_usage": include},
        )  # fmt: skip
        chunks = list(stream)
        assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == offline[sure]["output"]
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
        assert chunks[0].choices[0].delta.role == "assistant" and {c.model for c in chunks} == {"suffice/triage@1"}
        assert (chunks[-1].usage is not None) is include
    assert not upstream.seen
    record = until(lambda: rows(live.home, "streamed = 1 AND route = 'specialist'"))[-1]
    assert json.loads(record["answer"])["choices"][0]["message"]["content"] == offline[sure]["output"]


def test_models_list_the_release(live: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: Reply(
        parts=[b'{"object":"list","data":[{"id":"gpt-4o","object":"model"}]}'], length=True
    )
    assert [model["id"] for model in live.get("/v1/models").json["data"]] == ["gpt-4o", "suffice/triage@1"]
    assert "suffice/triage@1" in [model.id for model in live.client().models.list()]


@pytest.mark.parametrize(
    "system",
    [system_prompt(DAY) + "\nnew_label: a rule", system_prompt(DAY).replace("one label", "a label"), None, ""],
    ids=["label added", "reworded", "no system prompt", "empty system prompt"],
)
def test_a_changed_prompt_escalates(live: Gateway, upstream: FakeUpstream, sure: str, system: str | None) -> None:
    answer = ask(live, sure, system=system)
    assert (answer.route, answer.reason, answer.content) == ("frontier", "prompt_changed", "hi")


def test_another_day_is_the_same_prompt(live: Gateway, sure: str) -> None:
    assert ask(live, sure, system=system_prompt("2027-11-03")).reason == "accepted"


def test_pinning_without_a_system_prompt_makes_one_a_change(
    learned: Path, serve: Serve, upstream: FakeUpstream, sure: str
) -> None:
    told("stage", "triage", "live", "--home", learned)
    gateway = serve(config(upstream.url), home=learned)
    assert ask(gateway, sure, system=None).reason == "accepted"
    assert ask(gateway, sure).reason == "prompt_changed"
    assert gateway.stop() == 0
    again = serve(config(upstream.url), home=learned)
    assert ask(again, sure).reason == "prompt_changed", "the pin outlives the server"
    assert ask(again, sure, system=None).reason == "accepted"


UNSUPPORTED: dict[str, dict[str, Any]] = {
    "n": {"n": 2},
    "logprobs": {"logprobs": True},
    "stop": {"stop": ["\n"]},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    "response_format": {"response_format": {"type": "json_object"}},
    "max_tokens": {"max_tokens": 1},
    "max_completion_tokens": {"max_completion_tokens": 1},
    "audio": {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "wav"}},
}


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_what_no_specialist_can_give_escalates(live: Gateway, upstream: FakeUpstream, sure: str, name: str) -> None:
    answer = ask(live, sure, **UNSUPPORTED[name])
    assert (answer.route, answer.reason, answer.content) == ("frontier", "unsupported", "hi")


def test_an_image_in_the_view_escalates(live: Gateway, upstream: FakeUpstream, sure: str) -> None:
    parts = [{"type": "text", "text": sure}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]
    body = chat(messages=[messages("")[0], {"role": "user", "content": parts}])
    assert live.post(body, {"X-Suffice-Task": "triage"}).reason == "unsupported"


def test_what_does_not_matter_does_not_escalate(live: Gateway, upstream: FakeUpstream, sure: str) -> None:
    fields: dict[str, Any] = {
        "temperature": 0.7, "top_p": 0.1, "seed": 3, "user": "u", "metadata": {"a": "b"}, "store": True, "n": 1,
        "max_tokens": 64, "presence_penalty": 1, "logit_bias": {"50256": -100}, "unknown_field": [1], "stop": None,
        "response_format": {"type": "text"}, "tools": [], "logprobs": False, "service_tier": "auto",
    }  # fmt: skip
    assert ask(live, sure, **fields).reason == "accepted"
    parts = [{"type": "text", "text": sure}]
    body = chat(messages=[messages("")[0], {"role": "user", "content": parts}], model="another")
    assert live.post(body, {"X-Suffice-Task": "triage"}).reason == "accepted"


@pytest.mark.parametrize("text", [FOREIGN, "", "🪐" * 50, "x" * 200_000], ids=["foreign", "empty", "emoji", "200 KB"])
def test_unfamiliar_input_escalates(live: Gateway, upstream: FakeUpstream, text: str) -> None:
    answer = ask(live, text)
    assert answer.route == "frontier" and answer.reason in ("unfamiliar", "timeout"), answer.reason


def test_route_frontier_is_obeyed(live: Gateway, upstream: FakeUpstream, sure: str) -> None:
    answer = ask(live, sure, "frontier")
    assert (answer.route, answer.reason, answer.content) == ("frontier", "forced", "hi")


def test_route_specialist_never_leaves_the_machine(live: Gateway, upstream: FakeUpstream, sure: str) -> None:
    assert ask(live, sure, "specialist").reason == "accepted"
    for answer, code in (
        (ask(live, FOREIGN, "specialist"), "unfamiliar"),
        (ask(live, sure, "specialist", n=2), "unsupported"),
        (ask(live, sure, "specialist", system="another"), "prompt_changed"),
        (ask(live, sure, "specialist", task="unknown"), "observe"),
        (live.post(chat(), {"X-Suffice-Route": "specialist"}), "no_task"),
    ):
        assert (answer.status, answer.json["error"]["code"], answer.reason) == (424, code, code)
        assert live.record(answer.id)["status"] == 424
    assert not upstream.seen
    with pytest.raises(openai.APIStatusError) as caught:
        live.client().chat.completions.create(
            model="m", messages=messages(FOREIGN), stream=True,
            extra_headers={"X-Suffice-Task": "triage", "X-Suffice-Route": "specialist"},
        )  # fmt: skip
    assert caught.value.status_code == 424 and caught.value.code == "unfamiliar"


ODD = {
    "invalid utf-8": b'{"model":"m","messages":[{"role":"user","content":"\xff\xfe"}]}',
    "number too large": b'{"model":"m","messages":[{"role":"user","content":"x","y":1e999}],"max_tokens":1e999}',
    "max_tokens is a text": b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":"5","n":"2"}',
    "max_tokens is true": b'{"model":"m","messages":[{"role":"user","content":"x"}],"max_tokens":true}',
    "messages of other kinds": b'{"model":"m","messages":[1,null,"x",[],{"role":7,"content":{"a":1}}]}',
    "no messages at all": b'{"model":"m","messages":[]}',
    "tools of other kinds": b'{"model":"m","messages":[{"role":"user","content":"x"}],"tools":"no","tool_choice":[1]}',
    "nested content": b'{"model":"m","messages":[{"role":"user","content":' + b"[" * 20_000 + b"]" * 20_000 + b"}]}",
}


@pytest.mark.parametrize("name", ODD)
def test_odd_requests_of_a_live_task_go_to_the_frontier(live: Gateway, upstream: FakeUpstream, name: str) -> None:
    answer = live.post(ODD[name], {"X-Suffice-Task": "triage"})
    assert answer.status == 200 or (answer.status == 400 and "error" in answer.json), (answer.status, answer.body)
    assert answer.route != "specialist"
    assert live.record(answer.id)["status"] == answer.status


# ---------------------------------------------------------------------------------------------- stages


def test_a_stage_change_is_followed_within_a_second(
    learned: Path, serve: Serve, upstream: FakeUpstream, sure: str
) -> None:
    gateway = serve(config(upstream.url), home=learned)
    assert ask(gateway, sure).reason == "observe"
    for stage, reason in (("live", "accepted"), ("shadow", "shadow"), ("live", "accepted"), ("revoked", "revoked")):
        told("stage", "triage", stage, "--home", learned)
        began = time.monotonic()
        until(lambda reason=reason: ask(gateway, sure).reason == reason, f"{stage}: {reason}", 3)  # type: ignore[misc]
        assert time.monotonic() - began < 1.2
    shadowed = [row for row in rows(learned) if row["reason"] == "shadow"]
    assert shadowed and all(
        row["route"] == "frontier" and row["score"] is not None and row["input"] for row in shadowed
    )
    assert ask(gateway, sure).content == "hi"


def test_kill_switch(learned: Path, serve: Serve, upstream: FakeUpstream, sure: str) -> None:
    told("stage", "triage", "live", "--home", learned)
    gateway = serve(config(upstream.url), home=learned)
    assert ask(gateway, sure).reason == "accepted"
    assert told("stage", "--all", "observe", "--home", learned)["moved"] == ["triage"]
    until(lambda: ask(gateway, sure).reason == "observe", deadline_s=1.2)
    assert suffice("stage", "--all", "live", "--home", learned).returncode == 2


@pytest.mark.parametrize(("share", "expected"), [(0.0, {"canary"}), (0.5, {"canary", "accepted"})])
def test_canary_answers_its_share(
    learned: Path, serve: Serve, upstream: FakeUpstream, sure: str, share: float, expected: set[str]
) -> None:
    told("stage", "triage", "canary", "--home", learned)
    gateway = serve(config(upstream.url, f"[tasks.triage]\ncanary_share = {share}\n"), home=learned)
    reasons = [ask(gateway, sure).reason for _ in range(60)]
    assert set(reasons) == expected
    if len(expected) == 2:
        assert 12 <= reasons.count("accepted") <= 48  # 1 in a million either way


def test_back_to_an_older_release(
    learned: Path, serve: Serve, upstream: FakeUpstream, sure: str, tmp_path: Path
) -> None:
    more = tmp_path / "more.jsonl"
    more.write_text("".join(json.dumps({"input": t.text, "reference": t.truth}) + "\n" for t in generate(2500, 6)))
    gateway = serve(config(upstream.url), home=learned)
    told("stage", "triage", "live", "--home", learned)
    until(lambda: ask(gateway, sure).reason == "accepted")
    second = told("learn", "triage", "--data", more, "--home", learned, "--max-error", "0.06")
    assert second["release"] == "triage@2"
    assert ask(gateway, sure).headers["x-suffice-release"] == "triage@1", "a live release stays until somebody says so"
    told("stage", "triage@2", "live", "--home", learned)
    until(lambda: ask(gateway, sure).headers["x-suffice-release"] == "triage@2", deadline_s=1.5)
    told("stage", "triage@1", "live", "--home", learned)
    until(lambda: ask(gateway, sure).headers["x-suffice-release"] == "triage@1", deadline_s=1.5)
    assert ask(gateway, sure).reason == "accepted"
    assert suffice("stage", "triage@9", "live", "--home", learned).returncode == 2


# ---------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete the folder"])
def test_a_damaged_artefact_escalates_and_is_counted(
    learned: Path, serve: Serve, upstream: FakeUpstream, sure: str, damage: str
) -> None:
    told("stage", "triage", "live", "--home", learned)
    folder = next((learned / "releases").iterdir())
    file = max(folder.iterdir(), key=lambda path: path.stat().st_size)
    data = bytearray(file.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 0xFF
        file.write_bytes(data)
    elif damage == "truncate":
        file.write_bytes(data[: len(data) // 2])
    else:
        shutil.rmtree(folder)
    gateway = serve(config(upstream.url), home=learned)
    answer = ask(gateway, sure)
    assert (answer.status, answer.route, answer.reason, answer.content) == (200, "frontier", "fault", "hi")
    assert ask(gateway, sure, "specialist").json["error"]["code"] == "fault"
    assert gateway.metric("suffice_faults_total") >= 1
    assert gateway.metric('suffice_requests_total{route="frontier",reason="fault"}') == 1
    assert "Traceback" not in gateway.log and gateway.get("/readyz").status == 200
    assert gateway.log.count("cannot be loaded") == 1, "the reason is told once, however often it is asked"
    assert gateway.metric("suffice_specialists_loaded") == 0
    offline = suffice("answer", "triage", "-", "--home", learned, stdin=b'{"input": "x"}')
    assert offline.returncode == 2 and len(offline.stderr.splitlines()) == 1, offline.stderr


def test_an_artefact_deleted_while_it_serves(learned: Path, serve: Serve, upstream: FakeUpstream, sure: str) -> None:
    told("stage", "triage", "live", "--home", learned)
    gateway = serve(config(upstream.url), home=learned)
    assert ask(gateway, sure).reason == "accepted"
    shutil.rmtree(next((learned / "releases").iterdir()))
    assert ask(gateway, sure).reason in ("accepted", "fault")
    told("stage", "triage", "observe", "--home", learned)
    until(lambda: ask(gateway, sure).reason == "observe")
    told("stage", "triage", "live", "--home", learned)
    until(lambda: ask(gateway, sure).reason == "fault")
    assert gateway.metric("suffice_faults_total") >= 1


def test_without_room_for_any_specialist_one_is_served(
    learned: Path, serve: Serve, upstream: FakeUpstream, sure: str
) -> None:
    told("stage", "triage", "live", "--home", learned)
    gateway = serve(config(upstream.url) + "\n[server]\nspecialists_mb = 0.001\n", home=learned)
    assert gateway.metric("suffice_specialists_loaded") == 0, "nothing is loaded ahead beyond the budget"
    until(lambda: ask(gateway, sure).reason == "accepted")  # who asks first may wait in vain
    assert gateway.metric("suffice_specialists_loaded") == 1
    assert gateway.metric('suffice_specialist_loads_total{outcome="loaded"}') == 1


def test_slower_than_its_budget_the_frontier_answers(
    learned: Path, serve: Serve, upstream: FakeUpstream, sure: str
) -> None:
    told("stage", "triage", "live", "--home", learned)
    gateway = serve(config(upstream.url) + "\n[policy]\nmax_latency_ms = 0.01\n", home=learned)
    for _ in range(3):
        answer = ask(gateway, sure)
        assert (answer.status, answer.route, answer.reason) == (200, "frontier", "timeout")
    assert gateway.log.count("gave no answer within 0.01 ms") == 1


def test_a_pin_that_cannot_be_written_escalates(learned: Path, serve: Serve, upstream: FakeUpstream, sure: str) -> None:
    told("stage", "triage", "live", "--home", learned)
    full = (learned / "suffice.db").stat().st_size / 2**20 - 0.01
    gateway = serve(config(upstream.url, f'[records]\non_full = "pass"\nmax_db_mb = {full}\n'), home=learned)
    answers = [ask(gateway, f"{sure} {'x' * 20_000}", system=f"{system_prompt(DAY)} {'y' * 50_000}") for _ in range(20)]
    assert {answer.status for answer in answers} == {200}


def _tasks(home: Path) -> list[dict[str, Any]]:
    document = told("tasks", "--home", home)
    found: list[dict[str, Any]] = document["tasks"] if isinstance(document, dict) else document
    return found


def test_stream_of_the_frontier_behind_a_live_task(live: Gateway, upstream: FakeUpstream) -> None:
    upstream.answer = lambda seen: streamed(events({"content": "from afar"}))
    answer = ask(live, FOREIGN, stream=True)
    assert answer.route == "frontier" and b"from afar" in answer.body
