"""A cheaper upstream as a candidate: asked only where the settings say so, within its money, certified and served."""

from __future__ import annotations

import json
import math
import random
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_support import SUFFICE, FakeUpstream, Gateway, Reply, Seen, completion, rows, suffice, told, until

from suffice.core.types import digest_of
from suffice.demo.workload import Ticket

Serve = Callable[..., Gateway]
WRONG = 0.06
"""How often the cheap model is wrong; it is unsure then, mostly."""
PRICES = '[prices."mini"]\ninput_usd_per_mtok = 1.0\noutput_usd_per_mtok = 4.0\n'
EACH = (400 * 1.0 + 10 * 4.0) / 1e6


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
        return Reply(parts=[_completion(json.dumps({"answer": label, "sure": round(100 * sure)}))], length=True)


def _completion(text: str) -> bytes:
    usage = {"prompt_tokens": 400, "completion_tokens": 10, "total_tokens": 410}
    return json.dumps({**json.loads(completion(text)), "usage": usage}).encode()


def _with_logprobs(text: str, chance: float) -> Reply:
    document = json.loads(_completion(text))
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
    assert row["usd_per_1k"] == pytest.approx(1e3 * EACH)
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
    for kept in rows(home, "source = 'live'"):
        if kept["route"] == "specialist":
            assert kept["cost_usd"] == pytest.approx(EACH) and kept["upstream"] == "cheap"
        else:
            assert kept["cost_usd"] > EACH, "both were asked"
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


# ---------------------------------------------------------------------------------------------- what may not be


@pytest.fixture(scope="session")
def few(tickets: list[Ticket], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled texts, enough for a promise of 10%."""
    file = tmp_path_factory.mktemp("few") / "few.jsonl"
    file.write_text("".join(json.dumps({"input": t.text, "reference": t.truth}) + "\n" for t in tickets[:700]))
    return file


def quick(home: Path, data: Path, *more: str) -> tuple[int, str, dict[str, Any]]:
    """`suffice learn` of a promise of 10%: the exit code, stderr, the document."""
    line = ["learn", "triage", "--data", str(data), "--home", str(home), "--max-error", "0.1", "--json", *more]
    done = suffice(*line, env={"SUFFICE_FAMILIES": "linear nearest upstream"})
    return done.returncode, done.stderr.decode(), json.loads(done.stdout) if done.stdout else {}


def test_what_may_not_leave_is_not_sent(upstream: FakeUpstream, home: Path, few: Path) -> None:
    (home / "suffice.toml").write_text(settings(upstream, more='[tasks.triage]\negress = "never"\n'))
    code, said, _ = quick(home, few, "--recipe", "upstream")
    assert code == 2 and "may not leave for upstream 'cheap' (egress = 'never'), which is not inside" in said
    # In the search of all families it is a line of the table, with its reason.
    code, said, document = quick(home, few, "--all")
    row = document["candidates"][-1]
    assert row["recipe"].startswith("upstream(") and row["verdict"] == "not tried" and "may not leave" in row["reason"]
    # A key's rule is that of whatever may have come by it.
    (home / "suffice.toml").write_text(settings(upstream))
    told("keys", "create", "clinic", "--egress", "never", "--home", home)
    code, said, _ = quick(home, few, "--recipe", "upstream")
    assert code == 2 and "may not leave" in said
    assert upstream.seen == []


def test_only_what_is_configured_is_a_candidate(upstream: FakeUpstream, home: Path, few: Path) -> None:
    without = settings(upstream).replace('[candidates.mini]\nupstream = "cheap"\nmodel = "mini"\nexamples = 4\n', "")
    (home / "suffice.toml").write_text(without)
    code, said, _ = quick(home, few, "--recipe", "upstream")
    assert code == 2 and "there is no candidate" in said
    code, _, document = quick(home, few)
    assert not any(row["recipe"].startswith("upstream") for row in document["candidates"]) and upstream.seen == []
    (home / "suffice.toml").write_text(settings(upstream).replace('upstream = "cheap"', 'upstream = "chep"'))
    code, said, _ = quick(home, few)
    assert code == 2 and "`upstream` names 'chep'" in said


def test_an_upstream_that_is_down_or_has_no_price_is_told_in_a_sentence(
    upstream: FakeUpstream, home: Path, few: Path
) -> None:
    (home / "suffice.toml").write_text(settings(upstream).replace(PRICES, ""))
    code, _, document = quick(home, few, "--recipe", "upstream")
    assert code == 1 and "what mini costs is not known" in document["reasons"][0] and upstream.seen == []
    upstream.answer = lambda seen: Reply(status=500, parts=[b"{}"], length=True)
    (home / "suffice.toml").write_text(settings(upstream).replace('models = ["mini"]\n', 'models = ["mini"]\nattempts = 1\n'))  # fmt: skip  # noqa: E501
    code, _, document = quick(home, few, "--recipe", "upstream")
    assert code == 1 and "upstream 'cheap' answered with status 500" in document["reasons"][0]
    assert document["attempt"] == 1, "nothing was read, nothing was charged"


def test_money_ends_a_run_and_what_was_paid_for_is_kept(
    upstream: FakeUpstream, home: Path, few: Path, tickets: list[Ticket]
) -> None:
    upstream.answer = Mini(tickets)
    (home / "suffice.toml").write_text(settings(upstream, candidate="max_usd = 0.001\n"))
    code, _, document = quick(home, few, "--recipe", "upstream")
    assert code == 1 and "and max_usd is 0.001" in document["reasons"][0] and upstream.seen == []
    (home / "suffice.toml").write_text(settings(upstream, candidate="max_usd = 0.04\n"))  # enough for tune alone
    code, said, document = quick(home, few, "--recipe", "upstream")
    assert code == 2 and "is spent on cheap/mini after" in said and document == {}, (code, said, document)
    paid = len(upstream.seen)
    assert 0.04 <= paid * EACH <= 0.04 + 8 * EACH, "no more than what was under way"
    (home / "suffice.toml").write_text(settings(upstream))
    code, _, document = quick(home, few, "--recipe", "upstream")
    assert code == 0 and document["attempt"] == 1, "the attempt that was charged goes on"
    asked = [seen.body for seen in upstream.seen]
    assert len(set(asked)) == len(asked), "nothing was asked twice"


def test_killed_it_goes_on_and_pays_nothing_twice(
    upstream: FakeUpstream, home: Path, few: Path, tickets: list[Ticket]
) -> None:
    upstream.answer = Mini(tickets)
    (home / "suffice.toml").write_text(settings(upstream))
    line = ["learn", "triage", "--data", str(few), "--home", str(home), "--max-error", "0.1", "--recipe", "upstream"]
    process = subprocess.Popen([*SUFFICE, *line], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: len(upstream.seen) > 60, deadline_s=60)
    process.kill()
    process.wait(20)
    code, _, document = quick(home, few, "--recipe", "upstream")
    assert code == 0 and document["release"] == "triage@1"
    asked = [seen.body for seen in upstream.seen]
    assert len(asked) - len(set(asked)) <= 8, "no more than what was under way"


def test_a_candidate_that_fails_or_dawdles_escalates(
    upstream: FakeUpstream, home: Path, few: Path, tickets: list[Ticket], serve: Serve
) -> None:
    mini = Mini(tickets)
    upstream.answer = mini
    toml = settings(upstream, more="[tasks.triage]\nmax_latency_ms = 400\n")
    toml = toml.replace('models = ["mini"]\n', 'models = ["mini"]\nattempts = 1\n')
    (home / "suffice.toml").write_text(toml.replace("400", "60000"))
    assert quick(home, few, "--recipe", "upstream")[0] == 0
    told("stage", "triage", "live", "--home", home)
    gateway = serve(toml, home=home)
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": tickets[2500].text}]}).encode()

    def ask() -> tuple[str, str]:
        answer = gateway.post(body, {"X-Suffice-Task": "triage"})
        assert answer.status == 200
        return answer.route, answer.reason

    assert ask()[1] in ("accepted", "below_threshold", "timeout")
    broken = Reply(status=500, parts=[b"{}"], length=True)
    upstream.answer = lambda seen: broken if seen.json["model"] == "mini" else mini(seen)
    assert ask() == ("frontier", "fault")
    held = threading.Event()
    upstream.answer = lambda seen: Reply(before=held) if seen.json["model"] == "mini" else mini(seen)
    assert ask() == ("frontier", "timeout")
    held.set()
    upstream.answer = lambda seen: (
        Reply(parts=[b"no JSON"], length=True) if seen.json["model"] == "mini" else mini(seen)
    )
    assert ask()[0] == "frontier"
    (home / "suffice.toml").write_text(toml.replace("[upstreams.cheap]", "[upstreams.other]").replace('upstream = "cheap"', 'upstream = "other"'))  # fmt: skip  # noqa: E501
    told("reload", "--home", home)
    upstream.answer = mini
    assert until(lambda: ask() == ("frontier", "fault")), "nobody else is asked in its place"
