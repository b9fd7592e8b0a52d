"""`suffice plan` as a user runs it: on an imported log, on live traffic, on a scenario, on neither, on nonsense."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_support import FakeUpstream, Gateway, chat, completion, config, rows, suffice, told, until, whole

from suffice.cli.main import suffice as cli
from suffice.demo.workload import Ticket

Serve = Callable[..., Gateway]
DAY = 86_400.0
START = 1_780_000_000.0
KEYS = {
    "verdict",
    "tier",
    "monthly_usd",
    "break_even",
    "sensitivity",
    "warnings",
    "assumptions",
    "prices",
    "bill",
    "tasks",
}
USD = 500 * 2.5e-6 + 20 * 10e-6
"""Of each call in the log, at the price of gpt-4o."""


def exchange(n: int, at: float, task: str | None, model: str = "gpt-4o") -> dict[str, Any]:
    """A line of a log: 500 tokens in, 20 out."""
    answer = json.loads(completion("ok"))
    answer |= {
        "id": f"r-{n}",
        "model": model,
        "usage": {"prompt_tokens": 500, "completion_tokens": 20, "total_tokens": 520},
    }
    asked = {"model": model, "messages": [{"role": "user", "content": f"message {n}"}]}
    return {"at": at, "request": asked, "response": answer, **({"task": task} if task else {})}


def write(file: Path, days: int = 42, model: str = "gpt-4o") -> int:
    """Weeks of traffic, fewer calls at weekends; how many."""
    coins = random.Random(5)
    lines: list[str] = []
    for day in range(days):
        for _ in range(round((20 if day % 7 < 5 else 6) * coins.lognormvariate(0, 0.1))):
            at = START + day * DAY + coins.random() * DAY
            lines.append(
                json.dumps(exchange(len(lines), at, coins.choice(["triage", "triage", "extract", None]), model))
            )
    file.write_text("\n".join(lines) + "\n")
    return len(lines)


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """A home with an imported log, and its number of calls. Never write to it."""
    folder = tmp_path_factory.mktemp("plan")
    n = write(folder / "log.jsonl")
    assert suffice("import", folder / "log.jsonl", "--home", folder / "home").returncode == 0
    return folder / "home", n


def asked_of(home: Path, question: str) -> list[Any]:
    with sqlite3.connect(home / "suffice.db") as connection:
        return connection.execute(question).fetchall()


def inputs(plan: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {each["input"]: each for each in plan["assumptions"]}


def adds_up(plan: dict[str, Any]) -> float:
    """The bill of a month, which is the sum of its lines to the last digit."""
    bill = sum(line["usd_now"]["point"] for line in plan["tasks"])
    assert bill == plan["bill"]["observed"]["usd_per_month"]
    return float(bill)


def test_an_imported_log_is_planned_and_adds_up(imported: tuple[Path, int]) -> None:
    home, n = imported
    plan = told("plan", "--home", home)
    assert plan.keys() >= KEYS
    assert plan["monthly_usd"].keys() == {"frontier", "hybrid", "self_hosted"}
    assert plan["verdict"] == "frontier", "a few cents a month are worth no engineer"
    observed = plan["bill"]["observed"]
    assert (observed["requests"], observed["imported"]) == (n, n)
    assert observed["usd"] == pytest.approx(n * USD)
    assert adds_up(plan) == pytest.approx(n * USD / observed["days"] * 365 / 12)
    assert [line["task"] for line in plan["tasks"]] == ["triage", "extract", "(no task)"]
    found = inputs(plan)
    assert found["volume.input_tokens_per_request"]["band"]["point"] == 500
    assert found["volume.requests_per_day"]["source"] == "measured"
    assert found["frontier.input_usd_per_mtok"]["source"] == "table"
    assert found["small.escalated_share"]["source"] == "assumed"


def test_the_second_half_is_predicted_from_the_first(imported: tuple[Path, int]) -> None:
    tested = told("plan", "--home", imported[0], "--backtest")["bill"]["backtest"]
    assert tested["within"] and tested["predicted"]["low"] <= tested["actual"] <= tested["predicted"]["high"]
    shown = suffice("plan", "--home", imported[0], "--backtest").stdout.decode()
    assert "Backtest: from the first 21.0 days" in shown and "within the band" in shown
    assert max(map(len, shown.splitlines())) <= 100


def test_a_scenario_beside_records_says_what_they_cannot(imported: tuple[Path, int], tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    file.write_text('name = "launch"\n[volume]\ntokens_per_day = "50M"\n[needs]\nml_team = "some"\n')
    plan = told("plan", file, "--home", imported[0], "--report", tmp_path / "plan.html")
    found = inputs(plan)
    assert plan["verdict"] != "frontier" and plan["name"] == "launch"
    assert found["volume.tokens_per_day"]["source"] == "scenario"
    assert found["volume.input_tokens_per_request"]["source"] == "measured"
    adds_up(plan)
    assert "launch" in (tmp_path / "plan.html").read_text()
    more = told("plan", file, "--home", imported[0], "--what-if", "tokens_per_day=100e6", "--months", "6")
    assert more["monthly_usd"]["frontier"]["point"] == pytest.approx(2 * plan["monthly_usd"]["frontier"]["point"])
    assert len(more["months"]["frontier"]) == 6


def test_a_scenario_is_written_from_records_and_plans_alike(imported: tuple[Path, int], tmp_path: Path) -> None:
    file = tmp_path / "s.toml"
    assert suffice("plan", "--init", file, "--home", imported[0]).returncode == 0
    alone = told("plan", file, "--home", tmp_path / "none")
    assert alone["bill"] is None and alone["tasks"] == []
    recorded = told("plan", "--home", imported[0])
    assert alone["year_usd"]["frontier"]["point"] == pytest.approx(recorded["year_usd"]["frontier"]["point"], rel=1e-3)
    again = suffice("plan", "--init", file, "--home", imported[0])
    assert again.returncode == 2 and b"there already" in again.stderr


def test_init_alone_writes_a_scenario_that_can_be_planned(tmp_path: Path) -> None:
    assert suffice("plan", "--init", cwd=tmp_path).returncode == 0
    assert suffice("plan", "scenario.toml", cwd=tmp_path).returncode == 0


def test_a_model_without_a_price_is_asked_for(tmp_path: Path) -> None:
    write(tmp_path / "log.jsonl", 5, model="acme-9")
    home = tmp_path / "home"
    assert suffice("import", tmp_path / "log.jsonl", "--home", home).returncode == 0
    refused = suffice("plan", "--home", home)
    assert refused.returncode == 2 and b"`acme-9`, whose price is not known" in refused.stderr
    bill = told("plan", "--home", home, "--what-if", "frontier.model=gpt-4o")["bill"]["observed"]
    assert bill["usd"] == pytest.approx(bill["requests"] * USD) and bill["guessed"] == {"acme-9": bill["requests"]}
    (home / "suffice.toml").write_text('[prices."acme-9"]\ninput_usd_per_mtok = 2.5\noutput_usd_per_mtok = 10\n')
    plan = told("plan", "--home", home)
    assert plan["bill"]["observed"]["usd"] == pytest.approx(bill["usd"]) and plan["bill"]["observed"]["guessed"] == {}


def test_live_traffic_of_a_released_task_is_planned_by_its_decisions(
    learned: Path, serve: Serve, upstream: FakeUpstream, tickets: list[Ticket], tmp_path: Path
) -> None:
    unknown = suffice("plan", "--home", learned)
    assert unknown.returncode == 2 and b"need a time, `at`" in unknown.stderr, "labelled rows are no traffic"
    upstream.answer = lambda seen: whole(seen.text[:1])
    assert suffice("stage", "triage", "live", "--home", learned).returncode == 0
    policy = "[tasks.triage]\nmax_error = 0.05\naudit = 0.3\nprobe = 0\n"
    gateway = serve(config(upstream.url, policy), home=learned)
    until(lambda: asked_of(learned, "SELECT 1 FROM watches WHERE closed_at IS NULL"), "the watch is open")
    for ticket in tickets[2500:2620]:
        assert gateway.post(chat(ticket.text), {"X-Suffice-Task": "triage"}).status == 200
    for n in range(5):
        assert gateway.post(chat(f"about anything {n}")).status == 200
    audited = len(rows(learned, "audited = 1"))
    until(lambda: len(asked_of(learned, "SELECT 1 FROM audits")) == audited > 0, "the audits are written")
    gateway.close()
    write(tmp_path / "log.jsonl", 7)
    assert suffice("import", tmp_path / "log.jsonl", "--home", learned).returncode == 0
    plan = told("plan", "--home", learned)
    costs = told("costs", "--home", learned)
    observed = plan["bill"]["observed"]
    adds_up(plan)
    assert observed["usd"] == pytest.approx(costs["usd"] + observed["imported"] * USD)
    assert observed["audits"] == costs["audits"]["audits"] > 0
    assert observed["untimed"] == 2500
    line = next(line for line in plan["tasks"] if line["task"] == "triage")
    row = next(row for row in costs["rows"] if row["task"] == "triage")
    assert line["release"] == "triage@1"
    share = 1 - row["specialist"] / row["requests"]
    assert line["escalated_share"]["point"] == pytest.approx(share) and line["escalated_share"]["n"] == row["requests"]
    assert line["usd_certified"]["point"] < line["usd_frontier"]["point"]
    assert 0.01 < inputs(plan)["small.audit_share"]["band"]["point"] < 0.3
    assert inputs(plan)["small.escalated_share"]["source"] == "certificate"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "suffice plan --init"),
        (["missing.toml"], "missing.toml: cannot be read"),
        (["--case", "nope"], "there is no case 'nope'"),
        (["--case", "triage", "s.toml"], "--case is a scenario of its own"),
        (["s.toml", "--backtest"], "--backtest needs records"),
        (["s.toml", "--what-if", "tokns_per_day=5"], "did you mean `tokens_per_day`"),
        (["s.toml", "--months", "0"], "0 is not in the range"),
        (["s.toml", "--since", "nan"], "--since is a number of seconds"),
        (["s.toml", "--what-if", "escalated_share=120%"], "escalated_share"),
        (["bad.toml"], "did you mean `growth_per_month`"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.toml").write_text('[volume]\ntokens_per_day = 5e6\n[frontier]\nmodel = "gpt-4o"\n')
    (tmp_path / "bad.toml").write_text("[volume]\ngrowth_per_mnth = 0.1\n")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["plan", *arguments]) == 2
    shown, sentence = capsys.readouterr()
    assert shown == ""
    assert said in sentence and sentence.startswith("suffice: ") and sentence.count("\n") == 1


def test_a_worked_case_needs_no_home(tmp_path: Path) -> None:
    plan = told("plan", "--case", "moderation", "--home", tmp_path / "none")
    assert plan["checks"] and plan["bill"] is None
