"""What `suffice plan` reads of a home: its traffic as a plan's plain sums, and what is known of each task."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from suffice.core.config import Config
from suffice.core.types import Estimate, Reason, Stage
from suffice.plan.measured import Known
from suffice.plan.paid import Checked, Log, Use
from suffice.plan.scenario import Band
from suffice.proof.bounds import clopper_pearson
from suffice.store import patterns, releases
from suffice.store.home import Home
from suffice.store.releases import Stored
from suffice.store.traffic import Flow, Traffic

ENOUGH = 100
"""Live decisions from which on they say more of a task's coverage than the gate's test did."""
BETTER = 0.01
"""A next rung covers at least so much more."""
LONGEST_REASON = 160


def log_of(traffic: Traffic) -> Log:
    """Traffic as the plan counts it: flows that differ in their reason alone are one use."""
    sums: dict[tuple[Any, ...], list[float]] = {}
    for flow in traffic.flows:
        key = (flow.day, flow.task, flow.model, not flow.free, flow.source == "import", flow.told, flow.priced)
        into = sums.setdefault(key, [0, 0, 0, 0, 0, 0.0])
        counted = (flow.requests, flow.prompt, flow.completion, flow.cached, flow.written, flow.usd)
        for i, value in enumerate(counted):
            into[i] += value
    return Log(
        start=traffic.start,
        end=traffic.end,
        uses=tuple(_use(key, counted) for key, counted in sums.items()),
        audits=tuple(
            Checked(
                day=each.day,
                task=each.task,
                model=each.model,
                audits=each.audits,
                prompt=each.prompt,
                completion=each.completion,
                usd=each.usd if each.priced else None,
            )
            for each in traffic.audits
        ),
        hours=traffic.hours,
    )


def _use(key: tuple[Any, ...], counted: list[float]) -> Use:
    day, task, model, paid, imported, told, priced = key
    requests, prompt, completion, cached, written = (int(value) for value in counted[:5])
    return Use(
        day=day,
        task=task,
        model=model,
        paid=paid,
        imported=imported,
        told=told,
        requests=requests,
        prompt=prompt,
        completion=completion,
        cached=cached,
        written=written,
        usd=counted[5] if priced else None,
    )


def known_of(home: Home, settings: Config, traffic: Traffic) -> dict[str, Known]:
    """What is known of each task that has traffic."""
    staged = releases.all_tasks(home)
    documents = patterns.documents(home)
    decided: defaultdict[str, list[Flow]] = defaultdict(list)
    for flow in traffic.flows:
        if flow.task is not None and flow.decided:
            decided[flow.task].append(flow)
    found = {}
    for name in sorted({flow.task for flow in traffic.flows if flow.task is not None}):
        task = staged.get(name)
        stored = releases.get_release(home, name, task.release if task is not None else None)
        run = releases.last_run(home, name)
        known = _known(name, stored, decided[name], run[1] if run is not None else None, documents.get(name))
        on = task is not None and task.stage in (Stage.CANARY, Stage.LIVE)
        if stored is not None and not on:
            stage = task.stage if task is not None else Stage.OBSERVE
            note = f"{stored.name} is in {stage}: `suffice stage {stored.name} live` lets it answer"
            known = msgspec.structs.replace(known, note="; ".join(filter(None, (note, known.note))))
        found[name] = msgspec.structs.replace(known, audit=settings.policy_of(name).audit)
    return found


def _known(
    name: str,
    stored: Stored | None,
    decided: Iterable[Flow],
    run: Mapping[str, Any] | None,
    told: Mapping[str, Any] | None,
) -> Known:
    verdict = dict(_verdict(told)) if told is not None and "verdict" in told else {}
    recipe = stored.release.draft.recipe.name if stored is not None else None
    best = _best(run, recipe)
    if stored is not None:
        live = _live(decided)
        covered = live or _band(stored.release.report.coverage)
        better = best is not None and (covered is None or best[1].point > covered.point + BETTER)
        return Known(
            covered=covered,
            evidence="live" if live is not None else "certificate",
            release=stored.name,
            next_rung=best[0] if best is not None and better else None,
            next_covered=best[1] if best is not None and better else None,
            note="" if better else f"no better rung is known: `suffice learn {name} --all` tries every candidate",
            **verdict,
        )
    if run is not None:
        reasons = [str(reason) for reason in run.get("reasons", [])]
        why = f"the last search ended without a release: {reasons[0][:LONGEST_REASON]}" if reasons else ""
        found = best if best is not None and best[1].point > 0 else None
        return Known(
            covered=found[1] if found is not None else None,
            evidence="tune" if found is not None else None,
            next_rung=found[0] if found is not None else None,
            next_covered=found[1] if found is not None else None,
            note=why,
            **verdict,
        )
    probe = _estimated(told.get("coverage")) if told is not None else None
    note = f"`suffice learn {name}` says what a small model would answer of it"
    if told is not None and told.get("verdict") == "keep on the frontier":
        return Known(note="discovery: keep it on the frontier", **verdict)
    return Known(covered=probe, evidence="probe" if probe is not None else None, note=note, **verdict)


def _verdict(told: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """Discovery's words about a task."""
    yield "verdict", told["verdict"]
    yield "verifiable", told.get("verifiable") != "no"
    if told["verdict"] != "keep on the frontier":
        yield "sparse", bool(told.get("needed"))


def _live(decided: Iterable[Flow]) -> Band | None:
    """The share that a release answered of what was its to answer; None before there is enough of it."""
    accepted, n = 0, 0
    for flow in decided:
        n += flow.requests
        accepted += flow.requests if flow.reason == Reason.ACCEPTED else 0
    if n < ENOUGH:
        return None
    low, high = clopper_pearson(accepted, n, 0.9)
    return Band(low, accepted / n, high, n)


def _band(estimate: Estimate) -> Band | None:
    return Band(estimate.low, estimate.value, estimate.high, estimate.n) if estimate.value is not None else None


def _estimated(told: Mapping[str, Any] | None) -> Band | None:
    return _band(msgspec.convert(told, Estimate)) if told is not None else None


def _best(run: Mapping[str, Any] | None, recipe: str | None) -> tuple[str, Band] | None:
    """The candidate of a search, other than the release's own recipe, that covers most on tune."""
    candidates = run.get("candidates", []) if run is not None else []
    found = [(each["recipe"], _estimated(each.get("coverage"))) for each in candidates if each["recipe"] != recipe]
    told = [(name, band) for name, band in found if band is not None]
    return max(told, key=lambda each: each[1].point) if told else None
