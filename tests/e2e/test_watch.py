"""The watch as users see it: audits after the answer, an alarm that stops the task everywhere, and the way back."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest
from e2e_support import Answer, FakeUpstream, Gateway, Reply, Seen, config, rows, told, until, whole

from suffice.demo.workload import Ticket, generate, system_prompt

Serve = Callable[..., Gateway]
SYSTEM = system_prompt("2026-03-20")
TASK = "[tasks.triage]\nmax_error = 0.05\naudit = 0.3\nprobe = 0\n"


@pytest.fixture(scope="session")
def agreeing_home(tickets: list[Ticket], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home with triage@1, certified to agree with a frontier that tells the truth. Copy it."""
    file = tmp_path_factory.mktemp("agreeing") / "recorded.jsonl"
    lines = [json.dumps({"input": ticket.text, "output": ticket.truth}) + "\n" for ticket in tickets[:2500]]
    file.write_text("".join(lines))
    home = tmp_path_factory.mktemp("agreed") / "home"
    document = told("learn", "triage", "--data", file, "--home", home, "--max-error", "0.05")
    assert document["release"] == "triage@1"
    assert document["certificate"]["promise"] == "agreement"
    return home


@pytest.fixture(scope="session")
def fresh() -> list[Ticket]:
    """Traffic that was not learned from."""
    return generate(6000, 77)


@pytest.fixture
def truthful(upstream: FakeUpstream, fresh: list[Ticket], tickets: list[Ticket]) -> FakeUpstream:
    """The upstream that tells the truth."""
    upstream.answer = answering({ticket.text: ticket.truth for ticket in (*fresh, *tickets)})
    return upstream


def answering(truths: dict[str, Any]) -> Callable[[Seen], Reply]:
    return lambda seen: whole(written(truths[seen.text]))


def written(truth: Any) -> str:
    return truth if isinstance(truth, str) else json.dumps(truth)


def live(agreeing_home: Path, tmp_path: Path, stage: str = "live") -> Path:
    home = Path(shutil.copytree(agreeing_home, tmp_path / "home"))
    told("stage", "triage", stage, "--home", home)
    return home


def ask(gateway: Gateway, text: str, **headers: str) -> Answer:
    messages = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
    body = json.dumps({"model": "gpt-4o", "messages": messages}).encode()
    return gateway.post(body, {"X-Suffice-Task": "triage", **headers})


def send(gateway: Gateway, tickets: Sequence[Ticket], at_once: int = 8) -> list[Answer]:
    with ThreadPoolExecutor(at_once) as pool:
        return list(pool.map(lambda ticket: ask(gateway, ticket.text), tickets))


def watching(gateway: Gateway) -> None:
    """Until the workers stamp requests with a watch."""
    ticket = generate(1, 3)[0]
    assert isinstance(ticket.text, str)
    until(lambda: state(gateway.home) is not None, "the watch is open")
    until(lambda: gateway.record(ask(gateway, "are you there").id)["watch"], "the workers know of the watch")


def state(home: Path, n: int | None = None) -> dict[str, Any] | None:
    found = sql(home, "SELECT state FROM watches WHERE n = COALESCE(?, (SELECT MAX(n) FROM watches))", n)
    return json.loads(found[0][0]) if found else None


def stage(home: Path) -> str:
    return str(sql(home, "SELECT stage FROM tasks WHERE name = 'triage'")[0][0])


def happened(home: Path, kind: str) -> list[str]:
    return [row[0] for row in sql(home, "SELECT what FROM events WHERE kind = ? ORDER BY seq", kind)]


def sql(home: Path, query: str, *values: Any) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(home / "suffice.db", timeout=20)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


def liar(seen: Seen) -> Reply:
    return whole("something else entirely")


# ---------------------------------------------------------------------------------------------- audits


def test_the_frontier_is_asked_after_the_caller_has_his_answer(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    gateway = serve(config(truthful.url, TASK.replace("0.3", "1")), home=live(agreeing_home, tmp_path))
    watching(gateway)
    held = threading.Event()
    truth = truthful.answer
    truthful.answer = lambda seen: Reply(parts=truth(seen).parts, length=True, before=held)
    accepted = next(
        a for a in (ask(gateway, t.text, **{"X-Suffice-Route": "specialist"}) for t in fresh) if a.status == 200
    )
    text = gateway.record(accepted.id)["input"]
    truthful.seen.clear()
    answer = ask(gateway, text)
    assert answer.reason == "accepted"
    row = gateway.record(answer.id)
    assert (row["audited"], row["coin"]) == (1, 1.0)
    until(lambda: truthful.seen, "the audit is asked")
    assert truthful.seen[0].text == text
    assert not any(name.startswith(b"x-suffice") for name, _ in truthful.seen[0].headers)
    assert sql(gateway.home, "SELECT 1 FROM audits WHERE record = ?", answer.id) == []
    held.set()
    until(lambda: sql(gateway.home, "SELECT 1 FROM audits WHERE record = ? AND status = 200", answer.id))
    until(lambda: sql(gateway.home, "SELECT 1 FROM steps WHERE record = ? AND loss = 0", answer.id), "it is settled")
    forced = gateway.record(ask(gateway, text, **{"X-Suffice-Route": "frontier"}).id)
    kept = gateway.record(ask(gateway, text, **{"X-Suffice-Route": "specialist"}).id)
    assert (forced["watch"], kept["watch"], kept["audited"]) == (None, None, None), "outside of the promise"


def test_traffic_like_the_certificates_gives_no_alarm(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    gateway = serve(config(truthful.url, TASK), home=live(agreeing_home, tmp_path))
    watching(gateway)
    send(gateway, fresh[:600])
    found = until(lambda: (s := state(gateway.home)) and s["steps"] >= 600 and s["settled"] == s["audited"] and s)
    assert 60 < found["audited"] < 320
    assert stage(gateway.home) == "live"
    assert found["missing"] == 0


# ---------------------------------------------------------------------------------------------- the alarm


def test_a_frontier_that_changes_its_mind_revokes_within_a_second_in_every_worker(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    told_of: list[dict[str, Any]] = []
    with hook(told_of) as address:
        toml = config(truthful.url, TASK + f'recover = "manual"\n[alerts]\nwebhook = "{address}"\n')
        gateway = serve(toml, "--workers", "2", home=live(agreeing_home, tmp_path))
        watching(gateway)
        send(gateway, fresh[:200])
        truthful.answer = liar
        asked = iter(fresh[200:])
        until(
            lambda: send(gateway, [next(asked) for _ in range(8)]) and happened(gateway.home, "alarm"), "an alarm", 60
        )
        at = time.monotonic()
        until(
            lambda: all(a.reason == "revoked" for a in send(gateway, [next(asked) for _ in range(16)])),
            "all escalate",
            5,
        )
        assert time.monotonic() - at < 2, "a second, and the time it takes to see it"
        assert all(a.route == "frontier" for a in send(gateway, [next(asked) for _ in range(50)]))
        event = until(lambda: [e for e in told_of if e["kind"] == "alarm"], "the webhook is told")[0]
    assert event["task"] == "triage"
    assert "triage@1" in event["what"]
    assert "differs from the frontier's" in event["what"]
    assert stage(gateway.home) == "revoked"
    assert sql(gateway.home, "SELECT outcome FROM watches") == [("alarm",)]


def test_the_watch_survives_kills_of_the_server_mid_stream(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    home = live(agreeing_home, tmp_path)
    toml = config(truthful.url, TASK + 'recover = "manual"\n')
    truthful.answer = answering(
        {t.text: t.truth if i % 30 else "other" for i, t in enumerate(fresh)} | {"are you there": "x"}
    )
    steps = 0
    for start in range(0, 800, 200):
        gateway = serve(toml, home=home)
        watching(gateway)
        send(gateway, fresh[start : start + 200])
        gateway.process.send_signal(signal.SIGKILL)
        gateway.process.wait(20)
        found = state(home)
        assert found is not None
        assert found["steps"] >= steps, "what was booked stays booked"
        steps = found["steps"]
    gateway = serve(toml, home=home)
    stamped = len(rows(home, "watch = 1"))
    until(lambda: (s := state(home, 1)) and s["steps"] >= stamped, "every step is booked")
    found = state(home, 1)
    assert found is not None and found["steps"] == stamped, "and booked once"
    assert len(sql(home, "SELECT 1 FROM steps")) == found["audited"] == len(rows(home, "watch = 1 AND audited = 1"))


def unanswered(gateway: Gateway, upstream: FakeUpstream, tickets: Sequence[Ticket]) -> threading.Event:
    """What the specialist is sure of is sent, and its audits hang until the event is set."""
    watching(gateway)
    never = threading.Event()
    upstream.answer = lambda seen: Reply(before=never)
    send(gateway, [t for t in tickets if ask(gateway, t.text, **{"X-Suffice-Route": "specialist"}).status == 200])
    return never


def test_audits_that_never_return_are_said_to_be_missing_and_are_no_evidence(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    toml = config(truthful.url, TASK + "audit_deadline_s = 1\n")
    gateway = serve(toml, home=live(agreeing_home, tmp_path))
    never = unanswered(gateway, truthful, fresh[:200])
    assert until(lambda: happened(gateway.home, "missing"), "it says so", 30)
    found = state(gateway.home)
    assert found is not None and found["settled"] == 0 and found["missing"] >= 20
    assert stage(gateway.home) == "live", "a silent frontier is no proof of errors"
    assert max(found["wealth"]["log"]) <= 0
    never.set()


def test_by_choice_missing_audits_escalate_the_task(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    toml = config(truthful.url, TASK + 'audit_deadline_s = 1\non_missing_audits = "escalate"\n')
    gateway = serve(toml, home=live(agreeing_home, tmp_path))
    never = unanswered(gateway, truthful, fresh[:200])
    until(lambda: stage(gateway.home) == "revoked", "revoked", 30)
    assert "have no answer" in happened(gateway.home, "alarm")[0]
    never.set()


# ---------------------------------------------------------------------------------------------- who changed


@pytest.mark.parametrize("who", ["frontier", "traffic"])
def test_a_changed_frontier_is_told_apart_from_drifted_traffic(
    who: str, agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    toml = config(truthful.url, TASK.replace("probe = 0", "probe = 30") + 'recover = "manual"\n')
    gateway = serve(toml, home=live(agreeing_home, tmp_path))
    watching(gateway)
    truth = truthful.answer
    send(gateway, fresh[:400])
    until(lambda: (s := state(gateway.home)) and s["probed"], "the probe was asked once", 60)
    truthful.answer = liar if who == "frontier" else lambda s: liar(s) if s.text.endswith("!?") else truth(s)
    asked = iter(fresh[400:])

    def drifted(ticket: Ticket) -> Ticket:
        return ticket if who == "frontier" else msgspec.structs.replace(ticket, text=f"{ticket.text} !?")

    until(
        lambda: send(gateway, [drifted(next(asked)) for _ in range(16)]) and happened(gateway.home, "alarm"),
        "alarm",
        60,
    )
    cause = until(lambda: happened(gateway.home, "cause"), "the cause is told", 30)[0]
    assert ("the frontier has changed" if who == "frontier" else "the traffic has drifted") in cause


# ---------------------------------------------------------------------------------------------- the way back


def test_after_an_alarm_the_release_is_certified_again_and_resumes_with_a_new_watch(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    gateway = serve(config(truthful.url, TASK), home=live(agreeing_home, tmp_path))
    watching(gateway)
    truth = truthful.answer
    truthful.answer = liar
    asked = iter(fresh)
    until(lambda: send(gateway, [next(asked) for _ in range(8)]) and happened(gateway.home, "alarm"), "an alarm", 60)
    truthful.answer = truth  # it was an outage of the frontier's mind
    until(lambda: send(gateway, [next(asked) for _ in range(100)]) and stage(gateway.home) == "live", "it resumes", 120)
    assert told("show", "triage", "--home", gateway.home)["release"] == "triage@2"
    certificate = told("show", "triage@2", "--home", gateway.home)["draft"]["threshold"]["certificate"]
    assert certificate["attempt"] == 2
    assert certificate["n"] == 500
    until(lambda: any(a.headers.get("x-suffice-release") == "triage@2" and a.reason == "accepted"
                      for a in send(gateway, [next(asked) for _ in range(10)])), "it answers")  # fmt: skip
    found = until(lambda: (s := state(gateway.home, 2)) and s, "a new watch")
    assert found["delta"] == pytest.approx(0.05 / 6)
    assert happened(gateway.home, "recovery")


def test_what_cannot_be_certified_again_asks_to_be_learned_anew(
    agreeing_home: Path, tmp_path: Path, truthful: FakeUpstream, fresh: list[Ticket], serve: Serve
) -> None:
    gateway = serve(config(truthful.url, TASK), home=live(agreeing_home, tmp_path))
    watching(gateway)
    truthful.answer = liar
    asked = iter(fresh)
    until(lambda: send(gateway, [next(asked) for _ in range(8)]) and happened(gateway.home, "alarm"), "an alarm", 60)
    until(
        lambda: send(gateway, [next(asked) for _ in range(100)]) and len(happened(gateway.home, "recovery")) == 2,
        "two attempts",
        120,
    )
    assert "suffice learn triage --since" in happened(gateway.home, "recovery")[1]
    assert stage(gateway.home) == "revoked"
    assert told("show", "triage", "--home", gateway.home)["attempts"] == 3
    send(gateway, [next(asked) for _ in range(100)])
    time.sleep(0)
    assert len(happened(gateway.home, "recovery")) == 2, "no third attempt"


class hook:
    """A webhook's other end."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                events.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *arguments: Any) -> None:
                pass

        self._server = HTTPServer(("127.0.0.1", 0), Handler)

    def __enter__(self) -> str:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{self._server.server_port}/hook"

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
