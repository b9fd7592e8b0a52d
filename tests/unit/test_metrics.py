"""Metrics: what is counted is what is told, by one worker or many, and in a format that its readers read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from suffice.core.config import Config, Price, Upstream
from suffice.serve import slots
from suffice.serve.capture import Attempt, Exchange
from suffice.serve.families import FAMILIES, REQUEST_S, text
from suffice.serve.metrics import MOST_NAMES, Metrics
from suffice.serve.slots import Slots
from suffice.store.home import Home
from suffice.store.records import Row
from suffice.store.watches import Audit

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def _page(metrics: Metrics, home: Home) -> Samples:
    page = metrics._page(home)
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }


def _at(samples: Samples, name: str, **labels: str) -> float:
    return samples.get((name, frozenset(labels.items())), 0.0)


def _exchange(**fields: object) -> Exchange:
    exchange = Exchange(route="frontier", reason="no_task", status=200, latency_ms=30.0, first_chunk_ms=20.0)
    for name, value in fields.items():
        setattr(exchange, name, value)
    return exchange


def _row(**fields: object) -> Row:
    base = Row(id="rec_1", at=1.0, source="live", model="gpt-4o", upstream="openai", route="frontier", status=200)
    return msgspec.structs.replace(base, **fields)


def test_a_request_is_told_by_route_reason_dialect_status_and_time(tmp_path: Path) -> None:
    home = Home(tmp_path)
    metrics = Metrics(tmp_path / "metrics")
    for _ in range(3):
        metrics.began()
    metrics.ended(_exchange(asked_ms=1.0, heard_ms=29.0))
    metrics.ended(_exchange(status=None, route="none", first_chunk_ms=None))
    samples = _page(metrics, home)
    assert _at(samples, "suffice_requests_total", route="frontier", reason="no_task") == 1
    assert _at(samples, "suffice_answers_total", route="frontier", dialect="chat", status="2xx") == 1
    assert _at(samples, "suffice_answers_total", route="none", dialect="chat", status="none") == 1
    assert _at(samples, "suffice_requests_in_flight") == 1
    assert _at(samples, "suffice_request_seconds_bucket", route="frontier", le="0.025") == 0
    assert _at(samples, "suffice_request_seconds_bucket", route="frontier", le="0.05") == 1
    assert _at(samples, "suffice_request_seconds_bucket", route="frontier", le="+Inf") == 1
    assert _at(samples, "suffice_first_byte_seconds_count", route="none") == 0
    assert abs(_at(samples, "suffice_added_seconds_sum", route="frontier") - 0.002) < 1e-9


def test_a_bucket_holds_what_is_at_its_bound() -> None:
    metrics = Metrics()
    metrics.ended(_exchange(latency_ms=REQUEST_S[3] * 1e3))
    told = metrics._slots.own()[FAMILIES["suffice_request_seconds"].slot(["frontier"])]
    assert told[3] == 1


def test_workers_add_up_and_one_that_is_killed_keeps_what_it_counted(tmp_path: Path) -> None:
    count = (
        "import sys, pathlib; from suffice.serve.metrics import Metrics; from suffice.serve.capture import Exchange\n"
        "m = Metrics(pathlib.Path(sys.argv[1]) / 'metrics'); e = Exchange(route='frontier', status=200)\n"
        "[(m.began(), m.ended(e)) for _ in range(10)]; m.began(); print('counted', flush=True); sys.stdin.read()"
    )
    line = [sys.executable, "-c", count, str(tmp_path)]
    others = [subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == b"counted\n"
        home, metrics = Home(tmp_path), Metrics(tmp_path / "metrics")
        metrics.ended(_exchange())
        others[0].kill()
        others[0].wait(10)
        requests = {"route": "frontier", "reason": "no_task"}
        assert _at(_page(metrics, home), "suffice_requests_total", **requests) == 21
        successor = Metrics(tmp_path / "metrics")  # takes the dead one's place
        assert len(list((tmp_path / "metrics").glob("*.slots"))) == 3
        successor.ended(_exchange())
        samples = _page(metrics, home)
        assert _at(samples, "suffice_requests_total", **requests) == 22
        assert _at(samples, "suffice_requests_in_flight") == 1 - 1 - 1, "what the dead one had under way is forgotten"
    finally:
        for other in others:
            other.kill()
            other.communicate()
    slots.emptied(tmp_path / "metrics")
    assert not list((tmp_path / "metrics").iterdir())


def test_tokens_and_dollars_are_those_of_the_rows(tmp_path: Path) -> None:
    metrics = Metrics()
    metrics.rows(
        [
            _row(task="triage", key="app", prompt_tokens=100, cached_tokens=40, completion_tokens=7, cost_usd=0.5),
            _row(task="triage", key="app", prompt_tokens=10, completion_tokens=1, cost_usd=0.25),
            _row(model="someone's", prompt_tokens=5, completion_tokens=1),
            _row(upstream=None, route="specialist", task="triage", prompt_tokens=9, completion_tokens=2),
        ]
    )
    metrics.audited(Audit(record="rec_1", at=1.0, upstream="openai", cost_usd=0.125))
    metrics.audited(Audit(record="rec_2", at=1.0, failure="no answer"))
    samples = _page(metrics, Home(tmp_path))
    who = {"task": "triage", "key": "app", "model": "gpt-4o", "upstream": "openai"}
    assert _at(samples, "suffice_tokens_total", kind="prompt", **who) == 110
    assert _at(samples, "suffice_tokens_total", kind="cached", **who) == 40
    assert _at(samples, "suffice_cost_usd_total", **who) == 0.75
    unknown = {"task": "none", "key": "none", "model": "other", "upstream": "openai"}
    assert _at(samples, "suffice_unpriced_total", **unknown) == 1
    served = {"task": "triage", "key": "none", "model": "other", "upstream": "specialist"}
    assert _at(samples, "suffice_tokens_total", kind="completion", **served) == 2
    assert _at(samples, "suffice_unpriced_total", **served) == 0
    assert _at(samples, "suffice_audit_cost_usd_total", upstream="openai") == 0.125
    assert _at(samples, "suffice_audits_total", outcome="failed") == 1


async def test_labels_are_bounded(tmp_path: Path) -> None:
    metrics = Metrics()
    named = Config(upstreams={"openai": Upstream(base_url="http://x/v1", models=("own", "gpt-*"))},
                   prices={"priced": Price(input_usd_per_mtok=1, output_usd_per_mtok=1)})  # fmt: skip
    watching = metrics.watch(named, list)
    most = 2 * MOST_NAMES["task"]
    metrics.rows([_row(task=f"task{n}", model=f"made-up-{n}", prompt_tokens=1) for n in range(most)])
    metrics.rows([_row(model=name, prompt_tokens=1) for name in ("own", "priced", "gpt-*")])
    watching.cancel()
    samples = _page(metrics, Home(tmp_path))
    spent = [dict(labels) for name, labels in samples if name == "suffice_tokens_total"]
    assert len({labels["task"] for labels in spent}) == MOST_NAMES["task"] + 1
    assert {labels["model"] for labels in spent} == {"own", "priced", "other"}
    assert sum(v for (name, _), v in samples.items() if name == "suffice_tokens_total") == most + 3, "none is lost"


def test_attempts_are_told_by_what_came_of_them(tmp_path: Path) -> None:
    metrics = Metrics()
    tried = [Attempt(upstream="openai", ms=1.0, status=429), Attempt(upstream="openai", ms=1.0, failure="no way there")]
    metrics.rows(
        [
            _row(upstream="backup", attempts=msgspec.json.encode(tried).decode()),
            _row(status=502, failure="upstream 'openai' cannot be reached"),
        ]
    )
    samples = _page(metrics, Home(tmp_path))
    assert _at(samples, "suffice_upstream_attempts_total", upstream="openai", outcome="4xx") == 1
    assert _at(samples, "suffice_upstream_attempts_total", upstream="openai", outcome="failed") == 2
    assert _at(samples, "suffice_upstream_attempts_total", upstream="backup", outcome="2xx") == 1


async def test_counters_of_other_parts_only_rise(tmp_path: Path) -> None:
    metrics, told = Metrics(), [5.0, 2.0]
    watching = metrics.watch(
        Config(), lambda: [("suffice_faults_total", (), told[0]), ("suffice_records_slots_free", (), told[1])]
    )
    metrics.collected()
    told[:] = [7.0, 1.0]
    metrics.collected()
    told[:] = [1.0, 1.0]  # counted from 0 again, by a part that was made anew
    metrics.collected()
    watching.cancel()
    samples = _page(metrics, Home(tmp_path))
    assert _at(samples, "suffice_faults_total") == 8
    assert _at(samples, "suffice_records_slots_free") == 1


def test_odd_names_stay_within_their_label(tmp_path: Path) -> None:
    odd = 'a"b\\c\nd,e}\u2028f\x0bg\x85h'
    page = text({FAMILIES["suffice_cost_usd_total"].slot([odd, "k", "m", "u"]): [1.5]})
    (family,) = text_string_to_metric_families(page)
    assert [sample.labels["task"] for sample in family.samples] == [odd]
    shared = Slots(tmp_path)
    at = shared.claim(FAMILIES["suffice_cost_usd_total"].slot([odd, "k", "m", "u"]))
    shared.values[at] += 2
    assert list(slots.added(tmp_path).values()) == [[2.0]]


def test_without_room_on_the_disk_a_worker_counts_for_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    metrics = Metrics(tmp_path / "file" / "metrics")
    metrics.ended(_exchange())
    assert _at(_page(metrics, Home(tmp_path / "home")), "suffice_requests_total", route="frontier", reason="no_task")


def test_when_all_room_is_taken_nothing_fails() -> None:
    metrics = Metrics()
    for n in range(slots.SLOTS):
        try:
            metrics._slots.claim(f"filler\t[{n}]")
        except MemoryError:
            break
    metrics.ended(_exchange())
    metrics.rows([_row(prompt_tokens=1)])
