"""A scenario from traffic: what was asked, what it cost, how it grows, and how much of it a small model answers.

Traffic comes as plain sums (`paid.Log`), what is known of tasks as `Known`: where either came from is not known here.
What a scenario file states is kept, key by key; `Sources` says of each input which of the two it was.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from suffice.plan.forecast import DAY_HOURS, Fit, Series, fit
from suffice.plan.paid import FEWEST_DAYS, Log, Priced, requests_series, told_length
from suffice.plan.result import Sources
from suffice.plan.scenario import Band, Scenario, Small, Source, sure

GUESSED = 0.25
"""Tokens that were estimated may be this far off."""
MOSTLY = 0.6
"""The share of requests from which on the work is of one kind."""

Value = Band | str | bool


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a task.

    `covered`: the share of its requests that its release answers, by live decisions or the gate's test (`evidence`);
    without a release the best that a search found on tune, or discovery's probe. `next_rung` would cover
    `next_covered`. `verdict`: discovery's ("small model" | "not yet" | "keep on the frontier"). `audit`: of accepted
    requests, by its policy.
    """

    covered: Band | None = None
    evidence: Literal["live", "certificate", "tune", "probe"] | None = None
    release: str | None = None
    next_rung: str | None = None
    next_covered: Band | None = None
    verdict: str | None = None
    verifiable: bool | None = None
    sparse: bool | None = None
    audit: float = 0.01
    note: str = ""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs by name ("volume.requests_per_day"), each with where it came from, and what to say about the log."""

    values: Mapping[str, Value]
    sources: Sources
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------- the inputs


def measure(log: Log, priced: Priced, known: Mapping[str, Known], seed: int = 0) -> Measured:
    """All inputs that a log tells. Same arguments, same inputs."""
    found = _Found()
    series = requests_series(log)
    fitted = fit(series, seed)
    _volume(found, log, series, fitted)
    _frontier(found, log, priced)
    _small(found, log, known)
    _needs(found, log, known)
    return Measured(values=found.values, sources=found.sources, notes=tuple(found.notes))


class _Found:
    """What was found so far."""

    def __init__(self) -> None:
        self.values: dict[str, Value] = {}
        self.sources: dict[str, tuple[Source, str]] = {}
        self.notes: list[str] = []

    def put(self, name: str, value: Value, note: str = "", source: Source = "measured") -> None:
        self.values[name] = _rounded(value) if isinstance(value, Band) else value
        self.sources[name] = source, note


def _rounded(band: Band) -> Band:
    """To six figures: who edits the scenario that is written from it reads no more."""
    low, point, high = (float(f"{value:.6g}") for value in (band.low, band.point, band.high))
    return Band(low, point, high, band.n)


def _volume(found: _Found, log: Log, series: Series, fitted: Fit) -> None:
    seen = told_length(series, log)
    found.put("volume.requests_per_day", fitted.level(), f"{log.requests:,} requests in {seen}; the level at its end")
    short = "" if series.days >= 28 else ": too short to tell much, so mostly what is assumed of any traffic"
    found.put("volume.growth_per_month", fitted.growth(), f"trend of {seen}{short}")
    told = sum(use.requests for use in log.uses if use.told)
    off = GUESSED * (1 - told / log.requests)
    guessed = f"; tokens of {log.requests - told:,} requests are estimated" if off else ""
    for kind, tokens in (
        ("input", sum(use.prompt for use in log.uses)),
        ("output", sum(use.completion for use in log.uses)),
    ):
        each = tokens / log.requests
        band = Band(each * (1 - off), each, each * (1 + off), log.requests)
        found.put(f"volume.{kind}_tokens_per_request", band, f"mean of {log.requests:,} requests{guessed}")
    busy = {n % DAY_HOURS for n, count in enumerate(log.hours) if count}
    if len(log.hours) >= DAY_HOURS and len(busy) > 1:
        peak = max(log.hours) * len(log.hours) / sum(log.hours)
        found.put("volume.peak_to_mean", sure(max(peak, 1.0)), f"the busiest of {len(log.hours):,} hours")
    prompt = sum(use.prompt for use in log.uses if not use.imported)
    if prompt:
        cached = sum(use.cached for use in log.uses if not use.imported)
        found.put("frontier.cached_share", sure(min(cached / prompt, 1.0)), "live requests")
    if series.days < FEWEST_DAYS:
        found.notes.append(
            f"the records cover only {seen}: volume and growth are rough; more days, or a scenario with `volume`, help"
        )


def _frontier(found: _Found, log: Log, priced: Priced) -> None:
    """The models asked, and their prices weighed by use."""
    used: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for use in log.uses:
        if use.model in priced.units:
            for i, tokens in enumerate(
                (use.prompt - use.cached - use.written, use.completion, use.cached, use.written)
            ):
                used[use.model][i] += max(tokens, 0)
    if not used:
        return
    total = sum(map(sum, used.values())) or 1
    shares = sorted(((sum(tokens) / total, model) for model, tokens in used.items()), reverse=True)
    if (
        len(used) == 1
        and priced.listed >= set(used)
        and priced.paid_to_list == 1.0
        and not any(tokens[3] for tokens in used.values())
    ):
        found.put("frontier.model", shares[0][1], "the model that was asked")
        return
    mix = ", ".join(f"{model or 'a model without a name'} {share:.0%}" for share, model in shares[:3])
    note = f"by use of {mix}" + (" and others" if len(shares) > 3 else "")
    if priced.paid_to_list != 1.0:
        note += f"; paid was {priced.paid_to_list:.2f} of the list price"

    units = {model: (priced.units[model], priced.paid_to_list if model in priced.listed else 1.0) for model in used}
    read = [(u.input_usd_per_mtok * r, used[model][0]) for model, (u, r) in units.items()]
    read += [(u.written_usd_per_mtok * r, used[model][3]) for model, (u, r) in units.items()]
    said = [(u.output_usd_per_mtok * r, used[model][1]) for model, (u, r) in units.items()]
    cached = [(u.cached_usd_per_mtok * r, used[model][2]) for model, (u, r) in units.items()]
    for kind, pairs in (("input", read), ("output", said), ("cached", cached)):
        found.put(f"frontier.{kind}_usd_per_mtok", sure(_mean(pairs)), note)


def _mean(pairs: Sequence[tuple[float, int]]) -> float:
    """The mean price of so many tokens each; the plain mean where there were none."""
    tokens = sum(n for _, n in pairs)
    if not tokens:
        return sum(usd for usd, _ in pairs) / len(pairs)
    return sum(usd * n for usd, n in pairs) / tokens


# ---------------------------------------------------------------------------------------------- the small model


def _small(found: _Found, log: Log, known: Mapping[str, Known]) -> None:
    """What escalates: each task's share by what is known of it, weighed by its requests."""
    requests: defaultdict[str | None, int] = defaultdict(int)
    tokens: defaultdict[str | None, int] = defaultdict(int)
    for use in log.uses:
        requests[use.task] += use.requests
        tokens[use.task] += use.tokens
    asked = {task: n for task, n in requests.items() if task in known}
    if sum(asked.values()):
        audited = sum(n * known[task].audit for task, n in asked.items() if task is not None) / sum(asked.values())
        found.put("small.audit_share", sure(audited), "by the tasks' policies")
    certified = {t for t in requests if t is not None and t in known and known[t].covered is not None}
    if not certified:
        return
    assumed = Small().escalated_share
    default = Band(1 - assumed.high, 1 - assumed.point, 1 - assumed.low)
    accepted = {task: _covered(task, known, default) for task in requests}
    total = sum(requests.values())
    low, point, high = (
        1 - sum(requests[task] * getattr(accepted[task], end) for task in requests) / total
        for end in ("high", "point", "low")
    )
    found.put("small.escalated_share", Band(low, point, high, total), *_evidence(requests, certified, known, accepted))
    if point > 0 and sum(tokens.values()):
        escalated = sum(tokens[task] * (1 - accepted[task].point) for task in requests) / sum(tokens.values())
        note = "tasks that escalate more or less have longer or shorter requests"
        found.put("small.escalated_to_mean_tokens", sure(escalated / point), note)


def _covered(task: str | None, known: Mapping[str, Known], default: Band) -> Band:
    """The share of a task's requests that a small model would answer; nothing of what belongs to no task."""
    if task is None or task not in known:
        return sure(0.0)
    if known[task].covered is not None:
        return known[task].covered or default
    return sure(0.0) if known[task].verdict == "keep on the frontier" else default


def _evidence(
    requests: Mapping[str | None, int],
    certified: set[str],
    known: Mapping[str, Known],
    accepted: Mapping[str | None, Band],
) -> tuple[str, Source]:
    """What the share rests on, and its source: a certificate's where most of what is accepted has one."""
    of = {task: requests[task] * accepted[task].point for task in requests}
    kinds: defaultdict[str, float] = defaultdict(float)
    for task in certified:
        kinds[known[task].evidence or "tune"] += of[task]
    whole = sum(of.values()) or 1.0
    words = {"live": "live decisions", "certificate": "certificates", "tune": "searches", "probe": "discovery's probe"}
    parts = [f"{words[kind]} {value / whole:.0%}" for kind, value in sorted(kinds.items(), key=lambda item: -item[1])]
    rest = 1 - sum(kinds.values()) / whole
    parts += [f"assumed {rest:.0%}"] if rest > 0.005 else []
    nowhere = requests.get(None, 0) / sum(requests.values())
    apart = f"; {nowhere:.0%} of requests belong to no task and escalate" if nowhere > 0.005 else ""
    sound = kinds["live"] + kinds["certificate"] >= 0.5 * whole
    return f"of what is accepted: {', '.join(parts)}{apart}", "certificate" if sound else "measured"


def _needs(found: _Found, log: Log, known: Mapping[str, Known]) -> None:
    """The shape of the work, by discovery's verdicts, weighed by requests."""
    total = log.requests
    judged = {task: each for task, each in known.items() if each.verdict is not None}
    if not judged:
        return
    of: defaultdict[str, int] = defaultdict(int)
    for use in log.uses:
        task = judged.get(use.task) if use.task is not None else None
        of["narrow"] += use.requests if task is not None and task.verdict != "keep on the frontier" else 0
        of["sparse"] += use.requests if task is not None and task.sparse else 0
        of["enough"] += use.requests if task is not None and task.sparse is False else 0
        of["verifiable"] += use.requests if task is not None and task.verifiable else 0
    share = {what: count / total for what, count in of.items()}
    work = "narrow" if share["narrow"] >= MOSTLY else "wide" if share["narrow"] <= 1 - MOSTLY else "mixed"
    found.put("needs.work", work, f"discovery: {share['narrow']:.0%} of requests are of tasks that repeat")
    if share["sparse"] >= MOSTLY or share["enough"] >= MOSTLY:
        sparse = share["sparse"] >= MOSTLY
        found.put("needs.data", "sparse" if sparse else "plenty", "discovery: rows that tasks have and need")
    verifiable = share["verifiable"] >= 0.5
    found.put("needs.verifiable", verifiable, f"discovery: answers to {share['verifiable']:.0%} of requests")


# ---------------------------------------------------------------------------------------------- beside a file


def merged(measured: Measured, scenario: Scenario) -> tuple[Scenario, Sources]:
    """A scenario with what was measured wherever it states nothing, and which inputs those are.

    A stated volume keeps the measured tokens of a request (scaled, where requests and tokens are both stated); a
    stated price or model replaces all measured prices, and a stated share that escalates what was seen of its length.
    """
    stated = scenario.stated
    values = {name: value for name, value in measured.values.items() if name not in stated}
    sources = dict(measured.sources)
    if "volume.tokens_per_day" in stated:
        values.pop("volume.requests_per_day", None)
        if "volume.requests_per_day" in stated:
            _scaled(values, scenario)
    if "small.escalated_share" in stated:
        values.pop("small.escalated_to_mean_tokens", None)
    prices = {f"frontier.{kind}_usd_per_mtok" for kind in ("input", "output")}
    if stated & {"frontier.model", "frontier.usd_per_mtok", "frontier.usd_per_month"} or prices <= stated:
        for name in (*prices, "frontier.cached_usd_per_mtok", "frontier.model"):
            values.pop(name, None)
    tables: defaultdict[str, dict[str, Value]] = defaultdict(dict)
    for name, value in values.items():
        table, _, key = name.partition(".")
        tables[table][key] = value
    changed = {table: msgspec.structs.replace(getattr(scenario, table), **entries) for table, entries in tables.items()}
    return msgspec.structs.replace(scenario, **changed), {name: sources[name] for name in values}


def _scaled(values: dict[str, Value], scenario: Scenario) -> None:
    """Tokens of a request so that requests and tokens of a day, both stated, agree."""
    volume = scenario.volume
    names = [f"volume.{kind}_tokens_per_request" for kind in ("input", "output")]
    each = [values.get(name) for name in names]
    if volume.requests_per_day is None or volume.tokens_per_day is None:
        return
    bands = [band for band in each if isinstance(band, Band)]
    if len(bands) < len(names):
        for name in names:
            values.pop(name, None)
        return
    seen = sum(band.point for band in bands)
    times = volume.tokens_per_day.point / volume.requests_per_day.point / seen if seen else 0.0
    for name, band in zip(names, bands, strict=True):
        values[name] = Band(times * band.low, times * band.point, times * band.high, band.n)
