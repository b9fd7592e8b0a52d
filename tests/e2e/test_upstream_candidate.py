"""A cheaper upstream as a candidate: asked only where the settings say so, within its money, certified and served."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_support import FakeUpstream, Gateway, Reply, Seen, completion, rows, suffice, told, until

from suffice.core.types import digest_of
from suffice.demo.workload import Ticket

Serve = Callable[..., Gateway]
WRONG = 0.06
"""How often the cheap model is wrong; it is unsure then, mostly."""
PRICES = '[prices."mini"]\ninput_usd_per_mtok = 1.0\noutput_usd_per_mtok = 4.0\n'


class Mini:
    """A model that knows the answers but for a share of them, drawn by the text: the same each time."""

    def __init__(self, tickets: list[Ticket], *, logprobs: bool = True, takes_temperature: bool = True) -> None:
        self.truths = {ticket.text: ticket.truth for ticket in tickets}
        self.labels = sorted(set(self.truths.values()))
        self.logprobs, self.takes_temperature = logprobs, takes_temperature

    def __call__(self, seen: Seen) -> Reply:
        """The answer to one question."""
        asked = seen.json
        if asked["model"] != "mini":
            return Reply(parts=[completion(self.truths[seen.text])], length=True)
        if "temperature" in asked and not self.takes_temperature:
            error = {"error": {"message": "Unsupported value: 'temperature'", "param": "temperature"}}
            return Reply(status=400, parts=[json.dumps(error).encode()], length=True)
        coin = random.Random(digest_of(seen.text))
        label, sure = self.truths[seen.text], coin.uniform(0.90, 0.999)
        if coin.random() < WRONG:
            label, sure = coin.choice([each for each in self.labels if each != label]), coin.uniform(0.35, 0.93)
        if self.logprobs and asked.get("logprobs"):
            return _with_logprobs(label, sure)
        return Reply(parts=[completion(json.dumps({"answer": label, "sure": round(100 * sure)}))], length=True)


def _with_logprobs(text: str, chance: float) -> Reply:
    document = json.loads(completion(text))
    other = {"token": "other", "logprob": math.log(1 - chance)}
    tokens = [{"token": text, "logprob": math.log(chance), "top_logprobs": [other]}]
    document["choices"][0]["logprobs"] = {"content": tokens}
    return Reply(parts=[json.dumps(document).encode()], length=True)


def settings(upstream: FakeUpstream, *, candidate: str = "", more: str = "") -> str:
    """A suffice.toml with a frontier, a cheap upstream and a candidate on it."""
    return (
        f'[upstreams.frontier]\nbase_url = "{upstream.url}"\n[upstreams.cheap]\nbase_url = "{upstream.url}"\n'
        f'models = ["mini"]\n[candidates.mini]\nupstream = "cheap"\nmodel = "mini"\nexamples = 4\n{candidate}'
        f"{PRICES}{more}"
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A folder for a home."""
    folder = tmp_path / "home"
    folder.mkdir()
    return folder


def learn(home: Path, data: Path, *more: str, code: int = 0) -> Any:
    """`suffice learn` of the labelled texts, of this family."""
    return told("learn", "triage", "--data", data, "--home", home, "--max-error", "0.05", "--recipe", "upstream", *more, code=code)  # fmt: skip  # noqa: E501


def test_learned_answered_served_and_billed(
    upstream: FakeUpstream, home: Path, labelled: Path, tickets: list[Ticket], serve: Serve, tmp_path: Path
) -> None:
    upstream.answer = Mini(tickets)
    toml = settings(upstream)
    (home / "suffice.toml").write_text(toml)
    done = suffice("learn", "triage", "--data", labelled, "--home", home, "--max-error", "0.05", "--recipe", "upstream", "--json")  # fmt: skip  # noqa: E501
    document = json.loads(done.stdout)
    assert document["release"] == "triage@1", document["reasons"]
    assert "sends" in done.stderr.decode() and "'cheap', model mini: about" in done.stderr.decode()
    (row,) = document["candidates"]
    assert row["recipe"] == "upstream(examples=4,model=mini,pick=nearest,upstream=cheap)"
    assert row["usd_per_1k"] == pytest.approx(1e3 * (100 * 1.0 + 10 * 4.0) / 1e6)
    assert document["accuracy"]["value"] == pytest.approx(1 - WRONG, abs=0.03)
    assert document["coverage"]["value"] > 0.8 and document["accepted_error"]["value"] <= 0.05
    question = next(seen.json for seen in upstream.seen if seen.json.get("logprobs"))
    assert len(question["messages"]) == 2 + 2 * 4 and question["temperature"] == 0
    splits = document["splits"]
    assert len(upstream.seen) <= splits["tune"] + splits["calibration"] + splits["test"] + 5, "train is never asked"

    # Asked again, everything is at hand: nothing is sent.
    upstream.seen.clear()
    again = told("learn", "triage", "--home", home, "--max-error", "0.05", "--recipe", "upstream")
    assert again["release"] == "triage@1" and upstream.seen == []
    lines = tmp_path / "lines.jsonl"
    lines.write_text("".join(json.dumps({"input": t.text}) + "\n" for t in tickets[2500:2560]))
    replay = suffice("answer", "triage", lines, "--home", home)
    answers = [json.loads(line) for line in replay.stdout.splitlines()]
    assert replay.returncode == 0, replay.stderr.decode()
    right = [a["output"] == t.truth for a, t in zip(answers, tickets[2500:2560], strict=True)]
    assert sum(right) >= 50 and sum(a["accepted"] for a in answers) >= 40
    assert len(upstream.seen) == 60

    told("stage", "triage", "live", "--home", home)
    gateway = serve(toml, home=home, env={"OPENAI_API_KEY": "none"})
    upstream.seen.clear()
    client = gateway.client()
    accepted = 0
    for ticket, line in zip(tickets[2500:2540], answers, strict=False):
        raw = client.chat.completions.with_raw_response.create(
            model="gpt-4o", messages=[{"role": "user", "content": ticket.text}],
            extra_headers={"X-Suffice-Task": "triage"},
        )  # fmt: skip
        accepted += raw.headers["x-suffice-route"] == "specialist"
        assert (raw.headers["x-suffice-route"] == "specialist") == line["accepted"]
        if line["accepted"]:
            said = raw.parse()
            assert raw.headers["x-suffice-release"] == said.model.removeprefix("suffice/") == "triage@1"
            assert said.choices[0].message.content == line["output"]
    assert accepted >= 25
    asked = [seen for seen in upstream.seen if seen.json["model"] == "mini"]
    assert len(asked) == 40 and not any(seen.header("authorization") for seen in asked), "the caller's key stays here"
    until(lambda: len(rows(home, "source = 'live'")) == 40)
    each = (100 * 1.0 + 10 * 4.0) / 1e6
    for kept in rows(home, "source = 'live'"):
        if kept["route"] == "specialist":
            assert kept["cost_usd"] == pytest.approx(each) and kept["upstream"] == "cheap"
        else:
            assert kept["cost_usd"] > each, "both were asked"
    bill = told("costs", "--home", home)
    assert bill["usd"] == pytest.approx(sum(r["cost_usd"] for r in rows(home, "source = 'live'")))

    # The caller keeps his request here: it may not leave for the model either.
    kept_here = gateway.post(
        json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": tickets[2500].text}]}).encode(),
        {"X-Suffice-Task": "triage", "X-Suffice-Route": "specialist"},
    )
    assert (kept_here.status, kept_here.reason) == (424, "egress_denied")


def test_where_no_probabilities_are_told_its_own_word_and_its_neighbours_serve(
    upstream: FakeUpstream, home: Path, labelled: Path, tickets: list[Ticket]
) -> None:
    upstream.answer = Mini(tickets, logprobs=False, takes_temperature=False)
    (home / "suffice.toml").write_text(settings(upstream))
    document = learn(home, labelled)
    assert document["release"] == "triage@1", document["reasons"]
    assert document["coverage"]["value"] > 0.8
    last = upstream.seen[-1].json
    assert "logprobs" not in last and "temperature" not in last and "Examples:" in last["messages"][0]["content"]
    assert last["response_format"]["json_schema"]["schema"]["required"] == ["answer", "sure"]
