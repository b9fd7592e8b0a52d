"""The commented scenario to start from: it asks what matters, and reads back as what it was written from."""

from __future__ import annotations

import json

import msgspec

from suffice.plan.parsing import TABLES
from suffice.plan.scenario import DAYS_PER_MONTH, Band, Claim, Frontier, Needs, Scenario, Volume

HEAD = """\
# A scenario for `suffice plan FILE`. A number that you are not sure of is a range, [low, high] or [low, point, high]:
# nine times in ten it should lie within. 50e6, "50M" and "25%" are numbers too. What is left out is assumed, and the
# plan says so. `suffice plan FILE --what-if tokens_per_day=50e6` changes one value without editing.
"""

TITLES = {
    "volume": "How much is asked. Or: tokens_per_day (tokens_per_month), and growth_per_year.",
    "frontier": "What answers now, by its name in the table of prices; or input_usd_per_mtok and output_usd_per_mtok,\n"
    "# or usd_per_mtok, or the bill as usd_per_month.",
    "small": "How much of the work stays with the frontier. `suffice learn` measures it; until then it is assumed.",
    "hardware": "Where the small model runs. cpu: beside the gateway, as Suffice's own specialists do. rented and\n"
    "# owned need tokens_per_s (of one, input and output together, under load), serverless too or usd_per_mtok.",
    "work": "What building and keeping it takes.",
    "needs": "What binds before money does, and what is known of the work. Leave out what you do not know.",
}

ASKED: dict[str, tuple[tuple[str, str, str], ...]] = {
    "volume": (
        ("requests_per_day", "[500, 1000, 2000]", "now"),
        ("input_tokens_per_request", "[400, 800, 1500]", "instructions included"),
        ("output_tokens_per_request", "[50, 100, 200]", ""),
        ("growth_per_month", "[0.0, 0.05, 0.1]", "0.05: a twentieth more each month"),
        ("peak_to_mean", "3", "the busiest hour against the mean one"),
    ),
    "frontier": (
        ("model", '"gpt-5.5"', ""),
        ("cached_share", "0.0", "of the input, from the provider's cache"),
        ("batch_share", "0.0", "of the tokens that may wait for a batch at half the price"),
        ("price_change_per_year", "[-0.5, -0.2, 0.1]", "-0.2: prices fall by a fifth in a year"),
    ),
    "small": (
        ("escalated_share", "[0.1, 0.25, 0.5]", "of requests that still ask the frontier"),
        ("escalated_to_mean_tokens", "1.0", "their tokens against those of a mean request"),
        ("audit_share", "0.01", "of the others, asked twice to watch the quality"),
    ),
    "hardware": (
        ("kind", '"cpu"', '"rented", "owned", "serverless" or "cpu"'),
        ("usd_per_hour", "1.0", "of one machine, or of a core where it is the processor"),
        ("tokens_per_s", "2000", "of one under full load; needed unless it is the processor"),
        ("operations_usd_per_month", "0.0", "watching, backups, being on call"),
    ),
    "work": (
        ("engineer_weeks", "[1.0, 2.0, 6.0]", "to build, once"),
        ("engineer_weeks_per_month", "[0.0, 0.1, 0.5]", "to keep"),
        ("usd_per_engineer_week", "[2500, 4000, 6000]", ""),
        ("labels", "0", "that people give, once"),
    ),
    "needs": (
        ("p99_ms", "200", "the slowest answer in a hundred may take so long"),
        ("runs_on", '"server"', 'or "edge": on a device'),
        ("residency", '"none"', '"region" or "no_egress": nothing may leave'),
        ("compliance", "false", ""),
        ("work", '"narrow"', '"mixed" or "wide"'),
        ("data", '"plenty"', 'or "sparse"'),
        ("verifiable", "true", "a right answer can be told quickly"),
        ("reasoning", "false", "long documents, several steps, broad knowledge"),
        ("product", '"growing"', '"early" or "mature"'),
        ("ml_team", '"none"', '"some" or "strong"'),
    ),
}
"""What is asked, table by table: key, an example, a remark."""

START = Scenario(
    name="my plan",
    volume=Volume(
        requests_per_day=Band(500.0, 1_000.0, 2_000.0),
        input_tokens_per_request=Band(400.0, 800.0, 1_500.0),
        output_tokens_per_request=Band(50.0, 100.0, 200.0),
        growth_per_month=Band(0.0, 0.05, 0.1),
    ),
    frontier=Frontier(model="gpt-5.5"),
    needs=Needs(),
)
"""What is written where nothing is known: figures to be replaced."""


def written(scenario: Scenario | None = None) -> str:
    """The file, as text. What is asked but not known is there as a comment; what differs from a default always."""
    told = scenario or START
    lines = [HEAD, f"name = {_toml(told.name)}", f"months = {told.months}"]
    if told.days_per_month != DAYS_PER_MONTH:
        lines.append(f"days_per_month = {_toml(told.days_per_month)}")
    for table in TABLES:
        lines += ["", f"# {TITLES[table]}", f"[{table}]", *_keys(told, table)]
    for claim in told.claims:
        lines += ["", "[[claims]]", *_claim(claim)]
    return "\n".join(lines) + "\n"


def _keys(told: Scenario, table: str) -> list[str]:
    values = msgspec.structs.asdict(getattr(told, table))
    defaults = msgspec.structs.asdict(TABLES[table]())
    lines = []
    for key, example, remark in ASKED[table]:
        value = values.pop(key)
        known = f"{key} = {example}" if value is None else f"{key} = {_toml(value)}"
        lines.append(f"{'# ' if value is None else ''}{known}" + (f"  # {remark}" if remark else ""))
    return lines + [f"{key} = {_toml(value)}" for key, value in values.items() if value != defaults[key]]


def _claim(claim: Claim) -> list[str]:
    default = msgspec.structs.asdict(Claim(of=claim.of))
    values = msgspec.structs.asdict(claim)
    return [f"{key} = {_toml(value)}" for key, value in values.items() if key == "of" or value != default[key]]


def _toml(value: object) -> str:
    if isinstance(value, Band):
        low, point, high = (_toml(each) for each in (value.low, value.point, value.high))
        if value.n is not None:
            return f"{{low = {low}, point = {point}, high = {high}, n = {value.n}}}"
        return point if low == point == high else f"[{low}, {point}, {high}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)
