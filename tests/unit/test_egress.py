"""The gate: one place clears what leaves, and the strictest rule wins."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from suffice.core.config import Config, Privacy, TaskConfig, Upstream
from suffice.core.types import Egress
from suffice.serve.egress import Denied, Gate, may_leave, strictest
from suffice.serve.personal import Found
from suffice.serve.probe import Probe
from suffice.serve.upstream import Upstreams
from suffice.store.home import Home
from suffice.store.records import Row

SOURCE = Path(__file__).parents[2] / "src" / "suffice"
OUTSIDE, INSIDE = Upstream(base_url="http://far/v1"), Upstream(base_url="http://near/v1", inside=True)
BODY = json.dumps({"messages": [{"role": "user", "content": "bob@example.com"}]}).encode()


def test_only_the_gate_clears() -> None:
    clears = re.compile(r"\bCleared(?:Upload)?\(|cast\(\s*[\"']?Cleared")
    found = [path.name for path in SOURCE.rglob("*.py") if clears.search(path.read_text("utf-8"))]
    assert found == ["egress.py"]


@pytest.mark.parametrize(
    ("rules", "wins"),
    [
        ((), "allowed"),
        ((None, None), "allowed"),
        (("allowed", "redacted"), "redacted"),
        (("never", "allowed", None), "never"),
        (("redacted", "never"), "never"),
    ],
)
def test_the_strictest_rule_wins(rules: tuple[Egress | None, ...], wins: Egress) -> None:
    assert strictest(*rules) == wins


def test_what_an_upstream_gets() -> None:
    async def got(rule: Egress, upstream: Upstream, body: bytes = BODY, path: str = "/chat/completions") -> bytes:
        return await Gate(Privacy()).clearance(rule).leaving("it", upstream, body, path)

    assert asyncio.run(got("allowed", OUTSIDE)) is BODY
    assert asyncio.run(got("never", INSIDE)) is BODY
    assert asyncio.run(got("redacted", INSIDE)) is BODY
    assert b"<EMAIL_1>" in asyncio.run(got("redacted", OUTSIDE))
    assert asyncio.run(got("redacted", OUTSIDE, b"", "/models")) == b""
    for rule, body, path in (
        ("never", BODY, "/chat/completions"),
        ("never", b"", "/models"),
        ("redacted", b"--boundary", "/files"),
        ("redacted", b"", "/search?q=bob@example.com"),
        ("redacted", b"", "/files?q=%34111+1111%201111+1111"),
    ):
        with pytest.raises(Denied, match=r"may not leave for upstream 'it'"):
            asyncio.run(got(rule, OUTSIDE, body, path))  # type: ignore[arg-type]
    assert [may_leave("never", upstream) for upstream in (OUTSIDE, INSIDE)] == [False, True]


def test_a_probe_goes_by_the_rule_of_the_task_it_probes(tmp_path: Path) -> None:
    config = Config(upstreams={"it": OUTSIDE}, tasks={"private": TaskConfig(egress="never")})
    probe = Probe(Home(tmp_path), config, lambda *_: Upstreams(config.upstreams, config.server, {}))
    row = Row(id="r", at=0.0, source="live", model="m", request=BODY, answer=b"{}", status=200)
    told = probe._asked("private", {"r": (row, b"{}")}, ("r",))
    assert (told.asked, told.failure) == (0, "this request may not leave for upstream 'it' (egress = 'never')")


def test_a_detector_that_fails_lets_nothing_leave() -> None:
    class Broken:
        slow = False

        def forms(self, text: str) -> list[Found]:
            raise ZeroDivisionError

        find = forms

    gate = Gate(Privacy())
    gate._detectors = Broken()  # type: ignore[assignment]
    with pytest.raises(Denied, match="a detector failed"):
        asyncio.run(gate.clearance("redacted").leaving("it", OUTSIDE, BODY))


def test_headers_that_may_name_someone_stay_where_a_request_is_redacted() -> None:
    headers = [(b"authorization", b"Bearer x"), (b"x-user", b"bob"), (b"cookie", b"a"), (b"anthropic-version", b"1")]
    headers += [(b"idempotency-key", b"order of bob@example.com"), (b"x-api-key", b"sk-Ab3dE6gH9jKlMn0pQrStUvWx")]

    async def sent(rule: Egress, upstream: Upstream) -> list[tuple[bytes, bytes]]:
        clearance = Gate(Privacy()).clearance(rule)
        await clearance.leaving("it", upstream, BODY)
        return list(clearance.headers(headers))

    assert asyncio.run(sent("allowed", OUTSIDE)) == headers
    assert asyncio.run(sent("redacted", INSIDE)) == headers
    assert asyncio.run(sent("redacted", OUTSIDE)) == [headers[0], headers[3], headers[5]]


def test_the_second_upstream_gets_the_same_placeholders_and_one_inside_the_words_themselves() -> None:
    async def asked() -> None:
        clearance = Gate(Privacy()).clearance("redacted")
        first = await clearance.leaving("one", OUTSIDE, BODY)
        assert await clearance.leaving("two", OUTSIDE, BODY) == first
        assert clearance.back(events=False) is not None
        assert await clearance.leaving("three", INSIDE, BODY) == BODY
        assert clearance.egress is None
        assert clearance.back(events=False) is None

    asyncio.run(asked())
