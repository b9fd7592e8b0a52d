"""Virtual keys in a running server: who gets in, what he may, how much; and that a key is nowhere to be found."""

from __future__ import annotations

import json
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest
from e2e_support import Answer, FakeUpstream, Gateway, chat, config, rows, suffice, told, until, whole

from suffice.core.budgets import Budget
from suffice.core.types import Stage
from suffice.store import keys, releases
from suffice.store.home import Home
from suffice.store.keys import Limits

Serve = Callable[..., Gateway]
PRICES = '[prices."gpt-4o"]\ninput_usd_per_mtok = 1000\noutput_usd_per_mtok = 1000\n'
"""A call of the fake upstream (100 and 10 tokens) costs 11 cents."""


def make(home: Path, name: str, **limits: Any) -> str:
    """A key."""
    key = keys.create(Home(home), name, Limits(**limits), secrets.token_bytes)
    assert key.startswith("sk-suffice-") and len(key) == len("sk-suffice-") + 43
    return key


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def code(answer: Answer) -> Any:
    return answer.json["error"]["code"]


@pytest.fixture(scope="module")
def keyed(upstream_server: FakeUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, str]]:
    """A gateway whose home has a key without limits."""
    home = tmp_path_factory.mktemp("keyed") / "home"
    home.mkdir()
    (home / "suffice.toml").write_text(config(upstream_server.url, PRICES))
    key = make(home, "plain")
    running = Gateway(home)
    yield running, key
    running.close()


def follows(gateway: Gateway, key: str, status: int, headers: dict[str, str] | None = None) -> Answer:
    """The answer once the server has seen what was changed; it has a second."""

    def asked() -> Answer | None:
        answer = gateway.post(chat(), headers or bearer(key))
        return answer if answer.status == status else None

    return until(asked, f"status {status}", 1.5)


# ---------------------------------------------------------------------------------------------- who


def test_every_header_that_may_carry_a_key(keyed: tuple[Gateway, str], upstream: FakeUpstream) -> None:
    gateway, key = keyed
    ways = [
        bearer(key),
        {"authorization": f"bearer {key}"},
        {"x-api-key": key},
        {"api-key": key},
        {"X-Suffice-Key": key, "Authorization": "Bearer callers-own"},
        {"x-api-key": key, "Authorization": "Bearer callers-own"},
    ]
    for headers in ways:
        answer = gateway.post(chat(), headers)
        assert answer.status == 200, headers
        assert gateway.record(answer.id)["key"] == "plain"
    sent = [upstream_seen.header("authorization") for upstream_seen in upstream.seen]
    assert sent == [[], [], [], [], ["Bearer callers-own"], ["Bearer callers-own"]]
    assert all(b"sk-suffice" not in name + value for seen in upstream.seen for name, value in seen.headers)


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("sk-real"), bearer("sk-suffice-" + "x" * 43), {"X-Suffice-Key": ""}, {"x-api-key": "sk-suffice-"}],
)
def test_nobody_else_gets_in(keyed: tuple[Gateway, str], upstream: FakeUpstream, headers: dict[str, str]) -> None:
    gateway, _ = keyed
    before = len(rows(gateway.home))
    for answer in (
        gateway.post(chat(), headers),
        gateway.ask("GET", "/v1/models", None, headers),
        gateway.post(b'{"record": "x", "reference": "y"}', headers, path="/v1/feedback"),
    ):
        assert (answer.status, code(answer)) == (401, "invalid_key")
        assert answer.headers["www-authenticate"] == "Bearer"
    assert gateway.get("/healthz").status == gateway.get("/readyz").status == gateway.get("/metrics").status == 200
    assert not upstream.seen and len(rows(gateway.home)) == before


def test_the_sdk_sees_its_own_exceptions(keyed: tuple[Gateway, str], upstream: FakeUpstream) -> None:
    gateway, key = keyed
    ask: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    assert gateway.client(key).chat.completions.create(**ask).choices[0].message.content == "hi"
    with pytest.raises(openai.AuthenticationError) as wrong:
        gateway.client("sk-suffice-wrong").chat.completions.create(**ask)
    assert wrong.value.code == "invalid_key"
    one, other = make(gateway.home, "once", requests_per_minute=1), make(gateway.home, "o3", models=("o3*",))
    follows(gateway, other, 403)
    gateway.client(one).chat.completions.create(**ask)
    with pytest.raises(openai.RateLimitError) as often:
        gateway.client(one).chat.completions.create(**ask)
    assert often.value.code == "rate_limited" and 50 <= int(often.value.response.headers["retry-after"]) <= 60
    with pytest.raises(openai.PermissionDeniedError) as model:
        gateway.client(other).chat.completions.create(**ask)
    assert model.value.code == "model_not_allowed" and "o3*" in model.value.message and "'o3'" in model.value.message


def test_the_other_sdk_sees_its_own(keyed: tuple[Gateway, str]) -> None:
    gateway, _ = keyed
    ask: dict[str, Any] = {"model": "claude", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}

    def client(key: str) -> anthropic.Anthropic:
        return anthropic.Anthropic(base_url=gateway.url.removesuffix("/v1"), api_key=key, max_retries=0)

    with pytest.raises(anthropic.AuthenticationError) as wrong:
        client("sk-suffice-wrong").messages.create(**ask)
    assert wrong.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    never = make(gateway.home, "never", models=("gpt*",))
    follows(gateway, never, 200)
    with pytest.raises(anthropic.PermissionDeniedError):
        client(never).messages.create(**ask)
    one = make(gateway.home, "one", requests_per_minute=1)
    follows(gateway, one, 200)
    with pytest.raises(anthropic.RateLimitError):
        client(one).messages.create(**ask)


def test_models_are_those_that_a_key_may_ask(keyed: tuple[Gateway, str], upstream: FakeUpstream) -> None:
    gateway, key = keyed
    listed = json.dumps({"object": "list", "data": [{"id": "gpt-4o"}, {"id": "o3-mini"}]}).encode()
    upstream.answer = lambda seen: whole() if seen.method == "POST" else type(whole())(parts=[listed], length=True)
    few = make(gateway.home, "few", models=("o3*",))
    follows(gateway, few, 403)
    for asking, names in ((key, ["gpt-4o", "o3-mini"]), (few, ["o3-mini"])):
        answer = gateway.ask("GET", "/v1/models", None, bearer(asking))
        assert [model["id"] for model in answer.json["data"]] == names


def test_tasks_that_a_key_may_not_send_are_not_even_started(keyed: tuple[Gateway, str], upstream: FakeUpstream) -> None:
    gateway, _ = keyed
    key = make(gateway.home, "triage-only", tasks=("triage", "other"))
    follows(gateway, key, 200, {**bearer(key), "X-Suffice-Task": "triage"})
    for headers, word in ((bearer(key), "no task"), ({**bearer(key), "X-Suffice-Task": "strange"}, "no task")):
        answer = gateway.post(chat(), headers)
        assert (answer.status, code(answer)) == (403, "task_not_allowed") and word in answer.json["error"]["message"]
        assert gateway.record(answer.id)["key"] == "triage-only"
    assert "strange" not in releases.all_tasks(Home(gateway.home))


def test_expiry_rotation_and_revocation(keyed: tuple[Gateway, str], upstream: FakeUpstream) -> None:
    gateway, _ = keyed
    first = make(gateway.home, "turned")
    follows(gateway, first, 200)
    home = Home(gateway.home)
    second, _ = keys.rotate(home, "turned", 3600, secrets.token_bytes)
    follows(gateway, second, 200)
    assert gateway.post(chat(), bearer(first)).status == 200
    third, _ = keys.rotate(home, "turned", 0, secrets.token_bytes)
    assert follows(gateway, second, 401).status == 401 and gateway.post(chat(), bearer(first)).status == 401
    keys.revoke(home, "turned")
    assert code(follows(gateway, third, 401)) == "invalid_key"
    soon = make(gateway.home, "soon", expires_at=time.time() + 2)
    follows(gateway, soon, 200)
    assert (
        code(until(lambda: (a := gateway.post(chat(), bearer(soon))).status == 401 and a, "expiry", 4)) == "expired_key"
    )


# ---------------------------------------------------------------------------------------------- how much


def test_two_workers_share_rates_and_budgets(serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    home = tmp_path / "home"
    rated = make(home, "rated", requests_per_minute=40)
    poor = make(home, "poor", budget_usd=Budget(1.1, "day"))
    gateway = serve(config(upstream.url, PRICES), "--workers", "2", home=home)
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: gateway.post(chat(), bearer(rated)), range(100)))
        counts = Counter(answer.status for answer in answers)
        assert set(counts) == {200, 429} and 40 <= counts[200] <= 42, counts  # 2: what comes back within 3 s
        refused = next(answer for answer in answers if answer.status == 429)
        assert code(refused) == "rate_limited" and 1 <= int(refused.headers["retry-after"]) <= 60
        for _ in range(6):
            gateway.record(gateway.post(chat(), bearer(poor)).id)
        answers = list(pool.map(lambda _: gateway.post(chat(), bearer(poor)), range(60)))
    counts = Counter(answer.status for answer in answers)
    assert set(counts) == {200, 429} and 4 <= counts[200] <= 4 + 16, counts  # no more over than were under way
    refused = next(answer for answer in answers if answer.status == 429)
    assert code(refused) == "budget_exceeded" and "$1.1 a day" in refused.json["error"]["message"]
    assert gateway.record(refused.id)["key"] == "poor"
    assert not rows(home, "key = 'rated' AND status = 429")
    gateway.record(answers[-1].id)
    assert keys.spent(Home(home), "poor", 0.0).usd == pytest.approx(0.11 * (6 + counts[200]))
    gateway.stop()
    gateway = serve(config(upstream.url, PRICES), home=home)  # what was spent is known from the records
    assert code(gateway.post(chat(), bearer(poor))) == "budget_exceeded"
    keys.change(Home(home), "poor", {"budget_usd": Budget(100, "day")})
    follows(gateway, poor, 200)


def test_a_budget_holds_for_what_leaves_not_for_specialists(serve: Serve, upstream: FakeUpstream, learned: Path,
                                                            tickets: list[Any]) -> None:  # fmt: skip
    key = make(learned, "poor", budget_usd=Budget(0.1, "total"), tokens_per_minute=1e6)
    releases.set_stage(Home(learned), "triage", Stage.LIVE, None)
    gateway = serve(config(upstream.url, PRICES + "[policy]\naudit = 0\n"), home=learned)
    headers = {**bearer(key), "X-Suffice-Task": "triage"}
    assert gateway.post(chat(), bearer(key)).status == 200

    def spent() -> bool:
        return gateway.post(chat(), bearer(key)).status == 429

    until(spent, "the budget is used up")
    answers = [gateway.post(chat(ticket.text), headers) for ticket in tickets[-20:]]
    assert {answer.status for answer in answers if answer.route == "specialist"} == {200}
    assert {answer.status for answer in answers if answer.route != "specialist"} <= {429}
    unpriced = gateway.post(json.dumps({"model": "mine", "messages": []}).encode(), bearer(key))
    assert (unpriced.status, code(unpriced)) == (403, "no_price")


def test_what_failed_costs_nothing(serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    home = tmp_path / "home"
    key = make(home, "poor", budget_tokens=Budget(500, "total"), tokens_per_minute=2_000)
    gateway = serve(config(upstream.url), home=home)
    upstream.answer = lambda seen: type(whole())(status=400, parts=[b"{}"], length=True)
    for _ in range(20):
        answer = gateway.post(chat("x" * 1_500), bearer(key))
        assert answer.status == 400
        gateway.record(answer.id)
    upstream.answer = lambda seen: whole()
    assert gateway.post(chat(), bearer(key)).status == 200


# ---------------------------------------------------------------------------------------------- the command


def test_keys_by_the_command(tmp_path: Path) -> None:
    home = tmp_path / "home"
    made = suffice("keys", "create", "ci", "--budget-usd", "10/day", "--models", "gpt-*, o3", "--expires", "30d",
                   "--egress", "redacted", "--home", home)  # fmt: skip
    key = made.stdout.decode().strip()
    assert made.returncode == 0 and key.startswith("sk-suffice-")
    shown = told("keys", "set", "ci", "--budget-usd", "none", "--requests-per-minute", "60", "--home", home)
    assert (shown["budget_usd"], shown["requests_per_minute"], shown["models"]) == (None, 60, ["gpt-*", "o3"])
    assert (shown["last4"], shown["egress"], shown["state"]) == (key[-4:], "redacted", "active")
    turned = told("keys", "rotate", "ci", "--grace", "1h", "--home", home)
    assert turned["key"] not in ("", key) and turned["former_until"] > time.time() + 3500
    assert told("keys", "revoke", "ci", "--home", home)["state"] == "revoked"
    (listed,) = told("keys", "list", "--home", home)["keys"]
    assert listed["name"] == "ci" and not {"key", "digest", "former"} & set(listed)
    for arguments, word in (
        (("create", "ci"), b"was revoked"),
        (("create", "a", "--budget-usd", "10"), b"--budget-usd"),
        (("create", "a", "--expires", "2020-01-01"), b"passed"),
        (("revoke", "nobody"), b"no key named"),
        (("set", "ci", "--admin"), b"was revoked"),
    ):
        done = suffice("keys", *arguments, "--home", home)
        assert done.returncode == 2 and word in done.stderr and len(done.stderr.splitlines()) == 1, arguments


# ---------------------------------------------------------------------------------------------- safe by default


def test_no_server_for_others_without_a_key(tmp_path: Path) -> None:
    done = suffice("serve", "--host", "0.0.0.0", "--port", "0", "--home", tmp_path / "home")
    assert done.returncode == 2 and len(done.stderr.splitlines()) <= 2 and b"--open" in done.stderr


def test_headers_without_end(keyed: tuple[Gateway, str], upstream: FakeUpstream) -> None:
    gateway, key = keyed
    start = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\n".encode()
    for head in (
        start + b"X-Big: " + b"x" * 2**20 + b"\r\n\r\n",
        start + b"".join(b"X-%d: y\r\n" % n for n in range(100_000)) + b"\r\n",
        b"GET /" + b"x" * 2**20,
    ):
        with socket.create_connection(("127.0.0.1", gateway.port), 5) as raw:
            raw.sendall(head)
            assert raw.recv(100).startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))
    assert gateway.post(chat(), bearer(key)).status == 200 and not [s for s in upstream.seen if s.header("x-big")]


def test_no_key_is_anywhere(keyed: tuple[Gateway, str], upstream: FakeUpstream) -> None:
    gateway, key = keyed
    gateway.post(chat(), bearer(key))
    answer = gateway.ask("POST", f"/v1/chat/completions?key={key}", chat(), bearer(key))
    assert (answer.status, code(answer)) == (400, "key_in_url")
    escaped = key.replace("-", "%2D")
    for path in (f"/v1/models?key={key}", f"/v1/models/{key}", f"/v1/models?key={escaped}", f"/v1/files/{escaped}"):
        answer = gateway.ask("GET", path, None, bearer(key))
        assert (answer.status, code(answer)) == (400, "key_in_url")
    gateway.post(chat(), {"X-Suffice-Key": key, "X-Other": key})
    until(lambda: len(upstream.seen) == 2)
    for seen in upstream.seen:
        assert key not in seen.path and all(key.encode() not in value for _, value in seen.headers)
    kept = [path for path in gateway.home.rglob("*") if path.is_file()] + [gateway.stderr]
    assert any(path.name == "suffice.db" for path in kept)
    assert not [path for path in kept if key.encode() in path.read_bytes()]
