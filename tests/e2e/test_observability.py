"""What can be seen from outside: metrics of all workers, traces, logs, costs, mistakes; and no secret in any of it."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from e2e_support import FakeUpstream, Gateway, Reply, chat, completion, config, rows, suffice, told, until
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client.parser import text_string_to_metric_families

from suffice.demo.workload import Ticket

Serve = Callable[..., Gateway]
PRICES = '[prices."gpt-4o"]\ninput_usd_per_mtok = 10\noutput_usd_per_mtok = 100\n'
EACH_USD = 100 * 10e-6 + 10 * 100e-6
"""What one answer of the scripted upstream costs at these prices."""


class Collector:
    """An OTLP receiver on the loopback interface."""

    def __init__(self) -> None:
        bodies: list[bytes] = []
        self.bodies = bodies

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def spans(self) -> list[Any]:
        """All spans that have come."""
        found = []
        for body in list(self.bodies):
            for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                found += [span for scope in resource.scope_spans for span in scope.spans]
        return found

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def collector() -> Iterator[Collector]:
    running = Collector()
    yield running
    running.close()


def _tracing(collector: Collector, **more: str) -> dict[str, str]:
    return {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "100", **more}


def _metrics(gateway: Gateway) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(gateway.get("/metrics").body.decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def _sum(gateway: Gateway, name: str, **labels: str) -> float:
    wanted = set(labels.items())
    return sum(value for (found, told), value in _metrics(gateway).items() if found == name and wanted <= told)


# ---------------------------------------------------------------------------------------------- metrics and costs


def test_one_page_tells_of_all_workers_and_the_bill_adds_up(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url, PRICES), "--workers", "2")
    count = 60
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: gateway.post(chat(f"{n}"), {"X-Suffice-Task": f"t{n % 2}"}), range(count)))
    assert {answer.status for answer in answers} == {200}
    # Each scrape is a connection of its own, and meets one worker or the other: all tell the same.
    for _ in range(6):
        assert _sum(gateway, "suffice_requests_total", route="frontier", reason="observe") == count
        assert _sum(gateway, "suffice_request_seconds_count", route="frontier") == count
        assert _sum(gateway, "suffice_request_seconds_bucket", route="frontier", le="+Inf") == count
    until(lambda: _sum(gateway, "suffice_cost_usd_total") == pytest.approx(count * EACH_USD), "dollars of all rows")
    assert _sum(gateway, "suffice_tokens_total", kind="completion", task="t1", upstream="openai") == 5 * count
    assert _sum(gateway, "suffice_upstream_attempts_total", upstream="openai", outcome="2xx") == count
    assert _sum(gateway, "suffice_task_stage", task="t0", stage="observe") == 1
    assert _sum(gateway, "suffice_requests_in_flight") == 0

    home = gateway.home
    billed = sum(row["cost_usd"] for row in rows(home))
    for by in ("model", "day"):
        document = told("costs", "--by", by, "--home", home)
        assert document["usd"] == pytest.approx(billed), by
        assert sum(row["requests"] for row in document["rows"]) == count
    by_task = {row["task"]: row for row in told("costs", "--home", home)["rows"]}
    assert set(by_task) == {"t0", "t1"} and by_task["t0"]["reasons"] == {"observe": count // 2}
    later = told("costs", "--home", home, "--since", str(rows(home)[-1]["at"] + 1))
    assert (later["rows"], later["usd"]) == ([], 0)
    table = suffice("costs", "--home", home).stdout.decode()
    assert "(audits)" in table and f"bill {billed:.4f} USD" in table


def test_a_specialists_answers_save_what_they_would_have_cost(
    serve: Serve, upstream: FakeUpstream, learned: Path, tickets: list[Ticket]
) -> None:
    told("stage", "triage", "live", "--home", learned)
    more = f"{PRICES}[policy]\naudit = 0.5\nprobe = 0\n"
    gateway = serve(config(upstream.url, more), home=learned)
    upstream.answer = lambda seen: Reply(parts=[completion("billing")], length=True)
    texts = [ticket.text for ticket in tickets[2500:]]

    def audits() -> bool:
        """Ask once more: audits are drawn as soon as the keeper has opened a watch."""
        gateway.post(chat(texts[len(upstream.seen) % len(texts)]), {"X-Suffice-Task": "triage"})
        texts.append(texts.pop(0))
        return len(rows(learned, "audited")) >= 5

    until(audits, "audits drawn")
    until(lambda: _sum(gateway, "suffice_requests_total") == len(rows(learned, "source = 'live'")), "all rows")
    served = rows(learned, "route = 'specialist'")
    audited = len(rows(learned, "audited"))
    until(lambda: _sum(gateway, "suffice_audits_total", outcome="answered") == audited, "audits")
    document = told("costs", "--home", learned)
    (row,) = [row for row in document["rows"] if row["task"] == "triage"]
    assert document["audits"]["audits"] == audited
    assert document["usd"] == pytest.approx(row["usd"] + audited * EACH_USD)
    tokens = sum(r["prompt_tokens"] * 10e-6 + r["completion_tokens"] * 100e-6 for r in served)
    assert document["saved_usd"] == pytest.approx(tokens)
    assert _sum(gateway, "suffice_audit_cost_usd_total", upstream="openai") == pytest.approx(audited * EACH_USD)
    assert _sum(gateway, "suffice_predict_seconds_count") == len(rows(learned, "source = 'live'"))
    assert 0 < _sum(gateway, "suffice_added_seconds_sum", route="specialist") < 5


# ---------------------------------------------------------------------------------------------- whose mistake


def test_a_misroute_and_a_specialists_error_are_told_apart(
    serve: Serve, upstream: FakeUpstream, learned: Path, tickets: list[Ticket]
) -> None:
    told("stage", "triage", "live", "--home", learned)
    gateway = serve(config(upstream.url, "[policy]\naudit = 0\nprobe = 0\n"), home=learned)
    answers = [gateway.post(chat(t.text), {"X-Suffice-Task": "triage"}) for t in tickets[2500:2530]]
    sure = [answer for answer in answers if answer.route == "specialist"]
    unsure = gateway.post(chat("zzz", stop=["x"]), {"X-Suffice-Task": "triage"})
    plain = gateway.post(chat("hello"))
    assert len(sure) >= 4 and unsure.route == plain.route == "frontier"

    def say(record: str, **more: Any) -> Any:
        answer = gateway.post(json.dumps({"record": record, **more}).encode(), path="/v1/feedback")
        assert answer.status == 200, answer.body
        return answer.json

    assert say(sure[0].id, task=None) == {"record": sure[0].id, "kind": "human", "changed": True, "task": None}
    assert not say(sure[0].id, task=None)["changed"]
    say(sure[1].id, reference="something else")
    say(sure[2].id, reference=sure[2].content, task="triage")
    say(sure[3].id, task=None)
    say(sure[3].id, task="triage")  # taken back: the latest counts
    say(unsure.id, reference="something else")
    say(plain.id, task="triage")

    lines = suffice("records", "--errors", "--json", "--home", learned).stdout.splitlines()
    errors = {line["id"]: line for line in map(json.loads, lines)}
    kinds = {id: line["error"] for id, line in errors.items()}
    assert kinds == {
        sure[0].id: "misroute", sure[1].id: "specialist", unsure.id: "frontier", plain.id: "misroute",
    }  # fmt: skip
    wrong = errors[sure[1].id]
    assert (wrong["rule"], wrong["release"], wrong["said"]) == ("header", "triage@1", [sure[1].content])
    assert wrong["reference"] == "something else" and wrong["score"] >= wrong["threshold"]
    assert (errors[plain.id]["task"], errors[plain.id]["belongs"]) == (None, "triage")
    only = suffice("records", "--errors", "--route", "specialist", "--limit", "1", "--home", learned, "--json").stdout
    assert [json.loads(line)["id"] for line in only.splitlines()] == [sure[1].id]
    assert "misroute" in suffice("records", "--errors", "--task", "triage", "--home", learned).stdout.decode()
    counted = told("show", "triage", "--home", learned)["mistakes"]
    assert counted == {"misroute": 2, "specialist": 1, "frontier": 1, "misroutes_by_rule": {"header": 1, "none": 1}}
    assert "known to be wrong" in suffice("show", "triage", "--home", learned).stdout.decode()

    trusted = sqlite3.connect(learned / "suffice.db").execute("SELECT record FROM trusted").fetchall()
    assert {sure[0].id, sure[3].id, plain.id}.isdisjoint(record for (record,) in trusted), "no answer to train on"


@pytest.mark.parametrize(
    ("body", "param"), [({"task": "no-such-task"}, "task"), ({"task": 5}, "task"), ({}, "reference")]
)
def test_bad_words_about_a_task(gateway: Gateway, upstream: FakeUpstream, body: dict[str, Any], param: str) -> None:
    record = gateway.post(chat()).id
    answer = gateway.post(json.dumps({"record": record, **body}).encode(), path="/v1/feedback")
    assert (answer.status, answer.json["error"]["param"]) == (400, param)


def test_records_by_model_and_upstream(gateway: Gateway, upstream: FakeUpstream) -> None:
    record = gateway.post(chat(model="a-model-of-its-own")).id
    gateway.record(record)
    for chosen in (("--model", "a-model-of-its-own"), ("--model", "a-model-of-its-own", "--upstream", "openai")):
        lines = suffice("records", *chosen, "--json", "--home", gateway.home).stdout.splitlines()
        assert [json.loads(line)["id"] for line in lines] == [record]
    assert suffice("records", "--key", "nobody", "--json", "--home", gateway.home).stdout == b""


# ---------------------------------------------------------------------------------------------- traces and logs


def test_a_trace_goes_from_the_caller_to_the_upstream(
    serve: Serve, upstream: FakeUpstream, collector: Collector
) -> None:
    gateway = serve(config(upstream.url), env=_tracing(collector))
    trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
    answer = gateway.post(chat(), {"traceparent": f"00-{trace}-{span}-01"})
    found = until(lambda: {s.kind: s for s in collector.spans} if len(collector.spans) == 2 else None, "two spans")
    call, trying = found[2], found[3]  # server, client
    assert (call.trace_id.hex(), call.parent_span_id.hex()) == (trace, span)
    assert trying.parent_span_id == call.span_id and trying.trace_id == call.trace_id
    assert upstream.seen[0].header("traceparent") == [f"00-{trace}-{call.span_id.hex()}-01"]
    told = {a.key: a.value.string_value or a.value.int_value for s in (call, trying) for a in s.attributes}
    assert told["suffice.record"] == answer.id and told["gen_ai.usage.input_tokens"] == 100
    assert (told["gen_ai.operation.name"], told["gen_ai.response.model"]) == ("chat", "gpt-4o-2024-08-06")
    gateway.post(chat())
    assert gateway.stop() == 0
    assert len(collector.spans) == 4, "what is left is sent at the end"


def test_a_dead_collector_holds_nothing_up(serve: Serve, upstream: FakeUpstream) -> None:
    gateway = serve(config(upstream.url), env={"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9"})
    assert [gateway.post(chat()).status for _ in range(20)] == [200] * 20
    assert len(until(lambda: found if len(found := rows(gateway.home)) == 20 else None)) == 20


def test_no_secret_is_kept_or_told(
    serve: Serve, upstream: FakeUpstream, collector: Collector, learned_home: Path, tmp_path: Path
) -> None:
    """Every secret of a run, looked for in the database (but for what was said), the logs, the traces, the metrics."""
    home = Path(shutil.copytree(learned_home, tmp_path / "home"))
    told("stage", "triage", "live", "--home", home)
    more = (
        'api_key_env = "UPSTREAM_KEY"\n'
        f'[upstreams.relay]\nbase_url = "{upstream.url}"\nmodels = ["relayed"]\n'
        '[upstreams.dead]\nbase_url = "http://127.0.0.1:9/v1"\nmodels = ["dead"]\n'
        '[log]\nformat = "json"\nrequests = true\nlevel = "debug"\n'
    )
    made = json.loads(suffice("keys", "create", "app", "--json", "--home", home).stdout)
    virtual = next(value for value in made.values() if isinstance(value, str) and value.startswith("sk-suffice-"))
    secrets = {
        "the upstream's key": "sk-up-" + "Q7w9E2r4T6y8U1i3O5p7A9s2",
        "the caller's own": "sk-caller-" + "Z1x3C5v7B9n2M4k6J8h1G3f5",
        "one in the address": "sk-url-" + "L2k4J6h8G1f3D5s7A9q2W4e6",
        "one in a header": "sk-cookie-" + "P9o7I5u3Y1t2R4e6W8q1A3s5",
        "the virtual key": virtual,
        "one that was said": "sk-said-" + "M4n6B8v1C3x5Z7l9K2j4H6g8",
        "in a trace's state": "sk-state-" + "T5r3E1w2Q4a6S8d1F3g5H7j9",
    }
    gateway = serve(
        config(upstream.url, more), home=home, env=_tracing(collector, UPSTREAM_KEY=secrets["the upstream's key"])
    )
    own, state = secrets["the caller's own"], secrets["in a trace's state"]
    headers = {
        "X-Suffice-Key": virtual,
        "Authorization": f"Bearer {own}",
        "Cookie": f"session={secrets['one in a header']}",
        "x-api-key": secrets["one in a header"],
        "tracestate": f"v={state}",
    }
    query = f"/v1/chat/completions?key={secrets['one in the address']}"
    said = chat(f"my key is {secrets['one that was said']}")
    for model in ("gpt-4o", "relayed", "dead"):
        body = json.dumps({**json.loads(said), "model": model}).encode()
        gateway.post(body, headers, path=query)
        gateway.post(body, {**headers, "X-Suffice-Task": "triage"}, path=query)
    for bad in (b"{", b'{"model": 5}', said[:-1]):
        gateway.post(bad, headers, path=query)
    upstream.answer = lambda seen: Reply(status=401, parts=[seen.body or b"{}"], length=True)
    gateway.post(said, headers, path=query)
    gateway.post(said, {**headers, "X-Suffice-Key": "sk-suffice-" + "wrong" * 8}, path=query)
    gateway.ask("GET", f"/v1/models?key={secrets['one in the address']}", headers=headers)
    until(lambda: len(rows(home)) >= 10, "records")
    metrics = gateway.ask("GET", "/metrics", headers=headers).body
    assert gateway.stop(signal.SIGTERM) == 0
    assert collector.spans and metrics and '"message": "request"' in gateway.log

    dump = sqlite3.connect(home / "suffice.db")
    for table, columns in {"records": ("request", "answer", "input", "predicted", "cuts"), "parts": ("body",)}.items():
        for column in columns:  # what was said may stand where what was said is kept, and nowhere else
            blank = "X''" if column == "body" else "NULL"
            dump.execute(f"UPDATE {table} SET {column} = {blank}")
    kept = {"database": "\n".join(dump.iterdump()).encode(), "log": gateway.log.encode(), "metrics": metrics}
    kept["traces"] = b"".join(collector.bodies)
    for file in home.rglob("*"):
        if file.is_file() and not file.name.startswith("suffice.db"):
            kept[file.name] = file.read_bytes()
    found = [
        (what, where) for what, secret in secrets.items() for where, text in kept.items() if secret.encode() in text
    ]
    assert not found
    assert b"wrongwrong" not in b"".join(kept.values())
