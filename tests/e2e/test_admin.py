"""The admin API: who gets in, commands, jobs, files, what is written down; and that the document tells the truth."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from e2e_support import Answer, FakeUpstream, Gateway, chat, config, suffice, told, until

Serve = Callable[..., Gateway]
ROOT = "/admin/v1"


@dataclass
class Admin:
    """A gateway and an admin key to it."""

    gateway: Gateway
    key: str

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        return self.gateway.ask(method, ROOT + path, data, {"Authorization": f"Bearer {self.key}", **headers})

    def run(self, command: str, **body: Any) -> Answer:
        return self.ask("POST", f"/{command}", body)

    def done(self, job: Answer) -> Any:
        assert job.status == 202, job.body
        name = job.json["id"]
        assert job.headers["location"] == f"{ROOT}/jobs/{name}"

        def ended() -> Any:
            found = self.ask("GET", f"/jobs/{name}").json
            return found if found["state"] != "running" else None

        return until(ended, "the job ends", 60)


def key_for(home: Path, name: str, *flags: str) -> str:
    return str(told("keys", "create", name, *flags, "--home", home)["key"])


@pytest.fixture
def admin(serve: Serve, upstream: FakeUpstream, learned: Path) -> Admin:
    key = key_for(learned, "ops", "--admin")
    gateway = serve(config(upstream.url), "--workers", "2", home=learned)
    until(lambda: len([*(learned / "processes").glob("*.json")]) == 3, "two workers and a keeper")
    return Admin(gateway, key)


def test_nobody_gets_in_without_an_admin_key(serve: Serve, upstream: FakeUpstream, tmp_path: Path) -> None:
    gateway = serve(config(upstream.url))
    answer = gateway.ask("POST", f"{ROOT}/tasks")
    assert answer.status == 403 and answer.json["error"]["code"] == "no_admin_key"
    plain, ops = key_for(gateway.home, "app"), key_for(gateway.home, "ops", "--admin")

    def status(key: str | None, path: str = "/tasks", method: str = "POST") -> int:
        return gateway.ask(method, ROOT + path, None, {"Authorization": f"Bearer {key}"} if key else {}).status

    until(lambda: status(ops) == 200, "the new key is known")
    for path, method in (("/tasks", "POST"), ("/jobs", "GET"), ("/files/a", "PUT"), ("/openapi.json", "GET")):
        assert [status(key, path, method) for key in (None, plain, ops + "x")] == [401, 401, 401], path
    refused = gateway.ask("POST", f"{ROOT}/tasks", None, {"Authorization": f"Bearer {plain}", "Origin": "http://x"})
    assert refused.headers["x-content-type-options"] == "nosniff" and refused.headers["cache-control"] == "no-store"
    assert not [name for name in refused.headers if name.startswith("access-control") or name == "set-cookie"]


def test_commands_are_those_of_the_command_line(admin: Admin) -> None:
    home = admin.gateway.home
    shown = admin.run("show", task="triage")
    assert shown.status == 200 and shown.json["exit"] == 0
    assert shown.json["document"].keys() == told("show", "triage", "--home", home).keys()
    assert admin.run("stage", task="triage", stage="shadow").json["document"]["stage"] == "shadow"
    assert told("tasks", "--home", home)["tasks"][0]["stage"] == "shadow"
    assert admin.run("tasks/rename", old="triage", new="sorting").status == 400, "not while it is in shadow"
    assert admin.run("stage", all="observe").json["document"]["moved"] == ["triage"]
    assert admin.run("tasks/rename", old="triage", new="sorting").json["document"]["was"] == "triage"

    wrong = admin.run("stage", task="nobody", stage="live")
    assert wrong.status == 400 and "nobody" in wrong.json["error"]["message"]
    for body, param in (
        ({"task": "a", "home": "/etc"}, "home"),
        ({"stage": "live"}, "task"),
        ({"task": 3, "stage": "live"}, "task"),
        ({"task": "a\0", "stage": "live"}, "task"),
        ({"task": "--all", "stage": 1.5}, "stage"),
    ):
        refused = admin.run("stage", **body)
        assert (refused.status, refused.json["error"]["param"]) == (400, param), body
    assert admin.run("stage", task="--all=observe", stage="live").status == 400, "an argument is never an option"
    for path in ("/serve", "/demo", "/tasks/../keys", "/nothing", "/"):
        assert admin.ask("POST", path, {}).status in (404, 405), path
    for raw in (b"[]", b"{", b"\xff", b'{"task":' * 5000, b"3"):
        assert admin.ask("POST", "/stage", raw).status == 400
    assert admin.ask("POST", "/stage", b" " * (2**20 + 1)).status == 413


def test_records_come_as_lines(admin: Admin) -> None:
    ids = [admin.gateway.post(chat(f"text {n}"), {"Authorization": f"Bearer {admin.key}"}).id for n in range(30)]
    for id in ids:
        admin.gateway.record(id)
    answer = admin.run("records", since=time.time() - 600)
    assert answer.status == 200 and answer.headers["content-type"] == "application/jsonl"
    found = [json.loads(one)["id"] for one in answer.body.splitlines()]
    assert set(ids) <= set(found)
    assert admin.run("records", limit=0).status == 400


def test_learning_is_a_job_that_every_worker_knows(admin: Admin, labelled: Path) -> None:
    sent = admin.ask("PUT", "/files/labelled.jsonl", labelled.read_bytes())
    assert sent.status == 201 and sent.json["bytes"] == labelled.stat().st_size
    assert admin.ask("PUT", "/files/..%2Fout", b"x").status in (400, 404, 405)
    assert admin.run("import", file="../suffice.db").json["error"]["param"] == "file"
    assert admin.run("import", file="/etc/passwd").status == 400
    assert admin.run("import", file="absent.jsonl").status == 400

    job = admin.done(admin.run("import", file="labelled.jsonl", task="other"))
    assert (job["state"], job["exit"], job["by"]) == ("ended", 0, "ops")
    first, second = admin.run("discover"), admin.run("learn", task="triage")
    third = admin.run("learn", task="other")
    assert (first.status, second.status) == (202, 202)
    assert third.status in (202, 429), "no more than two at once"
    admin.ask("DELETE", f"/jobs/{third.json.get('id')}")
    gone = admin.ask("DELETE", f"/jobs/{second.json['id']}")
    assert gone.status == 200
    assert admin.done(second)["state"] == "cancelled"
    discovered = admin.done(first)
    assert discovered["exit"] == 0 and "tasks" in discovered["document"]
    assert admin.ask("GET", "/jobs/job_00000000000000000000").status == 404
    assert {one["command"] for one in admin.ask("GET", "/jobs").json["jobs"]} == {"import", "learn", "discover"}
    assert admin.ask("DELETE", "/files/labelled.jsonl").status == 200
    assert admin.ask("GET", "/files").json["files"] == []


def test_settings_are_read_again_by_all_workers(admin: Admin, upstream: FakeUpstream) -> None:
    file = admin.gateway.home / "suffice.toml"
    file.write_text(config(upstream.url, "[policy]\naudit = 0.5\n"))
    told_now = admin.run("reload").json
    assert told_now["exit"] == 0 and told_now["document"]["changed"] == ["policy.audit"]
    file.write_text(config(upstream.url, "[policy]\naudit = 2\n"))
    wrong = admin.run("reload")
    assert wrong.status == 400 and "audit" in wrong.json["error"]["message"]


def test_every_call_is_written_down_and_no_key_is(admin: Admin) -> None:
    made = admin.run("keys/create", name="new-app", budget_usd="10/day")
    assert made.status == 200
    secret = made.json["document"]["key"]
    admin.run("stage", task="triage", stage="nonsense")
    calls = admin.ask("GET", "/calls").json["calls"]
    kept = [(one["by"], one["what"], one["with"], one["status"]) for one in calls[:2]]
    assert kept == [
        ("ops", "POST /admin/v1/stage", {"task": "triage", "stage": "nonsense"}, 400),
        ("ops", "POST /admin/v1/keys/create", {"name": "new-app", "budget_usd": "10/day"}, 200),
    ]
    admin.gateway.stop()
    for file in admin.gateway.home.rglob("*"):
        if file.is_file():
            assert secret.encode() not in file.read_bytes() and admin.key.encode() not in file.read_bytes(), file
    assert secret not in admin.gateway.log
    assert suffice("keys", "revoke", "new-app", "--home", admin.gateway.home).returncode == 0
