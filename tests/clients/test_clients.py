"""Real clients in front of the gateway: each dialect relayed, translated to both others, answered by a specialist."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))
sys.path.insert(0, str(Path(__file__).parent))

from clients_upstream import (
    CALL,
    COMPLETION_TOKENS,
    FINAL,
    HELLO,
    PROMPT_TOKENS,
    VALUES,
    chat,
    messages,
    responses,
)
from e2e_support import FakeUpstream, Gateway, Reply, Seen, rows, told, until

HERE = Path(__file__).parent
CLIENTS = HERE.parents[1] / ".clients"
SPEAKS: dict[str, Callable[[Seen], Reply]] = {"chat": chat, "messages": messages, "responses": responses}
PATHS = {"chat": "/v1/chat/completions", "messages": "/v1/messages", "responses": "/v1/responses"}
DEFAULT = "chat"
"""The upstream that is called the frontier: the first."""
TASK = "triage"
LABELS = {"refund": "My money has not come back for order", "delivery": "Where is the parcel of order",
          "account": "I cannot log in since I made order"}  # fmt: skip
ASKED = "Where is the parcel of order 777?"
RELEASE = f"suffice/{TASK}@1"


pytestmark = pytest.mark.skipif(
    not (CLIENTS / ".ready").exists() or not (HERE / "node" / "node_modules").exists(),
    reason="the clients are not installed: `make clients`",
)


@dataclass(frozen=True)
class Client:
    """One script, and the dialect that each of its variants speaks."""

    script: str
    variants: dict[str, str]
    runner: str = "bin/python"


OLDER, NODE = "older/bin/python", "bin/node"
SCRIPTS = [
    Client("py/openai_sdk.py", {"chat": "chat", "responses": "responses"}),
    Client("py/anthropic_sdk.py", {"messages": "messages"}),
    Client("py/langchain_clients.py", {"chat": "chat", "tools": "chat", "responses": "responses", "messages": "messages", "formats": "messages"}),  # noqa: E501
    Client("py/llama_index_client.py", {"chat": "chat"}, OLDER),
    Client("py/pydantic_ai_client.py", {"chat": "chat", "formats": "chat", "responses": "responses", "messages": "messages"}),  # noqa: E501
    Client("py/instructor_client.py", {"tools": "chat", "tools_partial": "chat", "schema": "chat", "schema_partial": "chat", "responses": "responses", "messages": "messages", "messages_partial": "messages"}, OLDER),  # noqa: E501
    Client("py/llm_cli.py", {"chat": "chat", "responses": "responses"}),
    Client("node/openai_sdk.mjs", {"chat": "chat", "responses": "responses"}, NODE),
    Client("node/anthropic_sdk.mjs", {"messages": "messages"}, NODE),
    Client("node/ai_sdk.mjs", {"chat": "chat", "responses": "responses", "messages": "messages"}, NODE),
]  # fmt: skip
VARIANTS = [(client, name) for client in SCRIPTS for name in client.variants]
PIECES_UNSEEN = ("py/llm_cli.py",)
"""Clients of which only all that they wrote is seen."""
VALUES_ALONE = ("py/instructor_client.py",)
"""Clients that are there for structured output alone; the task's answers are labels."""
TEXTS = [(client, name) for client, name in VARIANTS if client.script not in VALUES_ALONE]


@dataclass(frozen=True)
class World:
    """A gateway with a live task in front of upstreams of one dialect each, and what each script has told."""

    gateway: Gateway
    upstreams: dict[str, FakeUpstream]
    told: dict[str, Any]

    def of(self, client: Client) -> Any:
        """What the client's script tells; it is run once."""
        if client.script not in self.told:
            self.told[client.script] = _run(client, self.gateway)
        return self.told[client.script]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("clients")
    home = folder / "home"
    upstreams = {dialect: FakeUpstream() for dialect in SPEAKS}
    toml = f"[tasks.{TASK}]\nmax_latency_ms = 5000\naudit = 0\n"  # whatever else this machine does
    for dialect, upstream in upstreams.items():
        upstream.answer = SPEAKS[dialect]
        toml += f'[upstreams.{dialect}]\nbase_url = "{upstream.url}"\n'
        toml += f'dialects = ["{dialect}"]\nmodels = ["{dialect}-*"]\n'
    _learn(folder / "labelled.jsonl", home)
    (home / "suffice.toml").write_text(toml)
    gateway = Gateway(home)
    yield World(gateway, upstreams, {})
    gateway.close()
    for upstream in upstreams.values():
        upstream.close()


def _learn(data: Path, home: Path) -> None:
    draw = random.Random(1)
    labelled = [(f"{text} {draw.randrange(10**6)}?", label) for label, text in LABELS.items() for _ in range(250)]
    draw.shuffle(labelled)
    data.write_text("".join(json.dumps({"input": text, "reference": label}) + "\n" for text, label in labelled))
    assert told("learn", TASK, "--data", data, "--home", home, "--max-error", "0.1")["release"] == f"{TASK}@1"
    told("stage", TASK, "live", "--home", home)


def _run(client: Client, gateway: Gateway) -> Any:
    script = HERE / client.script
    argument = {
        "base": gateway.url,
        "key": "caller-key",
        "client": script.stem + script.suffix,
        "models": [f"{dialect}-1" for dialect in SPEAKS],
        "task": TASK,
        "text": ASKED,
    }
    done = subprocess.run(
        [CLIENTS / client.runner, script, json.dumps(argument)],
        capture_output=True,
        timeout=120,
        check=False,
        cwd=script.parent,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def _session(client: Client, variant: str) -> str:
    return f"{Path(client.script).name}-{variant}"


def _well(found: Any) -> Any:
    assert not (isinstance(found, dict) and "error" in found), found["error"]
    return found


def _id(value: Any) -> str:
    return value.script if isinstance(value, Client) else str(value)


@pytest.mark.parametrize("upstream", SPEAKS)
@pytest.mark.parametrize(("client", "variant"), VARIANTS, ids=_id)
def test_a_client_gets_what_it_asks_for(world: World, client: Client, variant: str, upstream: str) -> None:
    model = f"{upstream}-1"
    found = world.of(client)[variant][model]
    assert _well(found["structured"]) == VALUES
    if client.script not in VALUES_ALONE:
        plain = _well(found["plain"])
        assert plain["text"] == "".join(HELLO)
        assert plain.get("model", model) == model
        assert plain.get("tokens", [PROMPT_TOKENS, COMPLETION_TOKENS]) == [PROMPT_TOKENS, COMPLETION_TOKENS]
        pieces = _well(found["stream"])
        assert "".join(pieces) == "".join(HELLO)
        assert len(pieces) > 1 or client.script in PIECES_UNSEEN
        tool = _well(found["tool"])
        assert tool["text"] == "".join(FINAL)
        assert tool.get("name", CALL) == CALL and tool.get("arguments", {"city": "Oslo"}) == {"city": "Oslo"}
    _recorded(world, client, variant, upstream)


def _recorded(world: World, client: Client, variant: str, upstream: str) -> None:
    """One record for each call, in the caller's dialect, whole, with what the upstream took."""
    session = f"{_session(client, variant)}-{upstream}-1"
    least = 1 if client.script in VALUES_ALONE else 5
    kept = until(lambda: len(kept := rows(world.gateway.home, "session = ?", session)) >= least and kept)
    route = "frontier" if upstream == DEFAULT else upstream
    assert {(row["dialect"], row["upstream"], row["route"], row["reason"]) for row in kept} == {
        (client.variants[variant], upstream, route, "no_task")
    }
    assert {(row["status"], row["failure"]) for row in kept} == {(200, None)}
    # A stream of chat tells its usage on demand alone, and not every client asks.
    told = [row for row in kept if not row["tokens_estimated"]]
    assert {(row["prompt_tokens"], row["completion_tokens"]) for row in told} <= {(PROMPT_TOKENS, COMPLETION_TOKENS)}
    assert all(row["streamed"] and row["dialect"] == upstream == "chat" for row in kept if row["tokens_estimated"])


@pytest.mark.parametrize(("client", "variant"), TEXTS, ids=_id)
def test_a_client_takes_a_specialists_answer(world: World, client: Client, variant: str) -> None:
    found = world.of(client)[variant]["specialist"]
    plain = _well(found["plain"])
    assert plain["text"] == "delivery" and plain.get("model", RELEASE) == RELEASE
    assert "".join(_well(found["stream"])) == "delivery"
    session = _session(client, variant)
    kept = until(lambda: len(kept := rows(world.gateway.home, "session = ?", session)) >= 2 and kept)
    assert {(row["dialect"], row["route"], row["reason"], row["failure"]) for row in kept} == {
        (client.variants[variant], "specialist", "accepted", None)
    }


def test_each_upstream_was_asked_in_its_own_dialect_alone(world: World) -> None:
    for dialect, upstream in world.upstreams.items():
        assert {seen.path for seen in upstream.seen} <= {PATHS[dialect]}
