"""`suffice plan`."""

from __future__ import annotations

import math
import textwrap
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec

from suffice.cli import common
from suffice.cli.plan_records import known_of, log_of
from suffice.core.config import Config
from suffice.core.errors import InputError
from suffice.plan import cases, measured, paid, planner, reading, tasks, wording
from suffice.plan.forecast import Backtest, Forecast, backtest, forecast
from suffice.plan.measured import Measured
from suffice.plan.paid import Log, Priced
from suffice.plan.prices import Prices, Unit, table_date, table_version
from suffice.plan.result import Plan, Sources, TaskLine
from suffice.plan.scenario import Scenario
from suffice.plan.told import WIDTH, told
from suffice.store import patterns, traffic
from suffice.store.home import Home

INIT = "scenario.toml"
"""Where `--init` writes if it is not told."""
DATED = "%Y-%m-%d"


class Records(NamedTuple):
    """What a home says: its traffic, what that cost, its lines by task, and the inputs measured from it."""

    seen: traffic.Traffic
    log: Log
    priced: Priced
    lines: tuple[TaskLine, ...]
    inputs: Measured


@click.command()
@click.argument("scenario", required=False, type=click.Path(path_type=Path))
@click.option(
    "--init",
    is_flag=False,
    flag_value=INIT,
    type=click.Path(path_type=Path),
    metavar="[FILE]",
    help=f"Write a scenario to fill in [{INIT}], with what the records say, and end.",
)
@click.option("--what-if", "changes", multiple=True, metavar="KEY=VALUE", help="Change one input; may be repeated.")
@click.option("--report", type=click.Path(path_type=Path), metavar="FILE.html", help="Write a page to pass on.")
@click.option("--case", "case", metavar="NAME", help="Plan a worked case that comes with Suffice.")
@click.option("--backtest", "test", is_flag=True, help="Predict the second half of the log from its first half.")
@click.option("--since", type=float, help="Records from this time on (seconds since 1970).")
@click.option("--until", type=float, help="Records before this time.")
@click.option("--months", type=click.IntRange(1, 120), help="How far to look [12].")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of the draws.")
@common.everywhere
def command(
    scenario: Path | None,
    init: Path | None,
    changes: tuple[str, ...],
    report: Path | None,
    case: str | None,
    test: bool,
    since: float | None,
    until: float | None,
    months: int | None,
    seed: int,
    folder: Path,
    config_file: Path | None,
    as_json: bool,
) -> int:
    """Is a small model worth it? Frontier, hybrid or self-hosted: what each costs, when it pays, what would flip it.

    From the home's records, from a SCENARIO file, or from both: records for what is measured, the scenario for the
    rest; what it states wins. Exit 0 whatever the verdict.
    """
    for name, at in (("--since", since), ("--until", until)):
        if at is not None and not math.isfinite(at):
            raise InputError(f"{name} is a number of seconds since 1970, not {at:g}")
    settings = common.configured(folder, config_file)
    if case is not None and (scenario is not None or test or init is not None):
        raise InputError("--case is a scenario of its own: give it without SCENARIO, --init and --backtest")
    given = cases.read(case) if case is not None else reading.read(scenario) if scenario is not None else None
    asked = given or Scenario(name=f"the records in {folder}")
    asked = reading.override(asked, *changes, *([f"months={months}"] if months is not None else []))
    prices = Prices(settings.prices)
    home = None
    if case is None and (folder / "suffice.db").exists():
        home = common.opened(folder, settings)
    records = _records(home, settings, prices, asked, (since, until), seed) if home is not None else None
    if init is not None:
        return _init(init, asked if given is not None or changes else None, records, as_json)
    if records is None and given is None:
        raise InputError(_nothing(folder, home))
    if records is None and test:
        raise InputError(f"--backtest needs records, and there are none in {folder}")
    planned, sources = _inputs(asked, records)
    plan = planner.plan(
        planned, seed=seed, measured=sources, prices=prices, tasks=records.lines if records is not None else ()
    )
    bill = _bill(records, planned, test, seed) if records is not None else None
    if report is not None:
        _write(report, plan, folder if records is not None else None, bill)
    if as_json:
        common.emit({**msgspec.to_builtins(plan), "prices": _prices(settings), "bill": bill})
    else:
        click.echo(told(plan))
        if bill is not None:
            click.echo("\n" + textwrap.fill(bill["told"], WIDTH, break_on_hyphens=False))
        if report is not None:
            click.echo(f"\nreport: {report}")
    return 0


def _nothing(folder: Path, home: Home | None) -> str:
    """That there is nothing to plan from, and the three ways to begin."""
    where = f"there is no home at {folder}"
    if home is not None:
        where = f"the home {folder} has no records in that time"
        if patterns.count_records(home):
            where = f"no record in the home {folder} is a request of that time (imported rows need a time, `at`)"
    return (
        f"nothing to plan from: {where}, and no scenario is given. Begin with records (`suffice import FILE`, or "
        "`suffice serve`), with a scenario (`suffice plan --init` writes one to fill in), or with a worked case "
        f"(`suffice plan --case {cases.names()[0]}`; also {', '.join(cases.names()[1:])})"
    )


# ---------------------------------------------------------------------------------------------- records


def _records(
    home: Home,
    settings: Config,
    prices: Prices,
    asked: Scenario,
    window: tuple[float | None, float | None],
    seed: int,
) -> Records | None:
    """What the home says; None where nothing was asked in that time."""
    seen = traffic.read(home, *window)
    if seen is None:
        return None
    log, known = log_of(seen), known_of(home, settings, seen)
    priced = paid.price(log, prices, _stated_unit(asked, prices))
    days = asked.days_per_month
    return Records(seen, log, priced, tasks.lines(log, priced, known, days), measured.measure(log, priced, known, seed))


def _stated_unit(asked: Scenario, prices: Prices) -> Unit | None:
    """The price that the scenario states: what records of unknown models are counted at."""
    frontier = asked.frontier
    if frontier.usd_per_mtok is not None:
        each = frontier.usd_per_mtok.point
        return Unit(each, each, each, each, "the scenario")
    if frontier.input_usd_per_mtok is not None and frontier.output_usd_per_mtok is not None:
        read, said = frontier.input_usd_per_mtok.point, frontier.output_usd_per_mtok.point
        cached = frontier.cached_usd_per_mtok.point if frontier.cached_usd_per_mtok is not None else read
        return Unit(read, said, cached, read, "the scenario")
    return prices.unit(frontier.model) if frontier.model is not None else None


def _inputs(asked: Scenario, records: Records | None) -> tuple[Scenario, Sources]:
    """The scenario to plan, and which of its inputs were measured."""
    if records is None:
        return asked, {}
    merged, sources = measured.merged(records.inputs, asked)
    frontier = merged.frontier
    told = (frontier.model, frontier.usd_per_mtok, frontier.usd_per_month, frontier.input_usd_per_mtok)
    if all(each is None for each in told):
        models = sorted(records.priced.unpriced, key=lambda model: -records.priced.unpriced[model])
        named = ", ".join(f"`{model[:60]}`" for model in models[:3] if model)
        wanted = f"the records ask for {named}" if named else "the records name no model"
        raise InputError(
            f"{wanted}, whose price is not known: give it as [prices.MODEL] in suffice.toml, or name a model by "
            "--what-if frontier.model=NAME, or give `frontier` in a scenario"
        )
    return reading.whole(merged, "with what the records say"), sources


def _init(page: Path, given: Scenario | None, records: Records | None, as_json: bool) -> int:
    """Write a scenario to fill in."""
    if page.exists():
        raise InputError(f"{page} is there already: name another FILE, --init={page.stem}-2.toml say")
    scenario = given
    if records is not None:
        scenario, _ = measured.merged(records.inputs, given or Scenario(name="my plan"))
    page.write_text(reading.template(scenario), "utf-8")
    if as_json:
        common.emit({"scenario": str(page), "from_records": records is not None})
    else:
        by = "what the records say" if records is not None else "figures to replace"
        click.echo(f"{page} is written, with {by}; next: suffice plan {page}")
    return 0


# ---------------------------------------------------------------------------------------------- the bill


def _bill(records: Records, planned: Scenario, test: bool, seed: int) -> dict[str, Any]:
    """What was paid, what will be, and in words; the lines by task add up to `observed.usd_per_month`."""
    log, priced = records.log, records.priced
    series = paid.bill_series(log, priced)
    ahead = forecast(series, planned.days_per_month, seed)
    tested = backtest(series, seed) if test else None
    by_month = tasks.bill(records.lines)
    observed = {
        "from": _day(log.start),
        "to": _day(log.end),
        "days": log.days,
        "requests": log.requests,
        "imported": sum(use.requests for use in log.uses if use.imported),
        "estimated": sum(use.requests for use in log.uses if not use.told),
        "unanswered": records.seen.unanswered,
        "untimed": records.seen.untimed,
        "unpriced": dict(priced.unpriced),
        "guessed": dict(priced.guessed),
        "audits": sum(audit.audits for audit in log.audits),
        "audits_usd": math.fsum(usd or 0.0 for usd in priced.audits),
        "usd": by_month * log.days / planned.days_per_month,
        "usd_per_month": by_month,
    }
    return {
        "observed": observed,
        "forecast": msgspec.to_builtins(ahead),
        "backtest": msgspec.to_builtins(tested) if tested is not None else None,
        "notes": list(records.inputs.notes),
        "told": " ".join(_sentences(records, observed, ahead, tested)),
    }


def _sentences(records: Records, observed: dict[str, Any], ahead: Forecast, tested: Backtest | None) -> list[str]:
    seen = paid.told_length(paid.requests_series(records.log), records.log)
    said = [
        f"The bill: {wording.usd(observed['usd'])} for {observed['requests']:,} requests in {seen} ({observed['from']} "
        f"to {observed['to']}), {wording.usd(observed['usd_per_month'])} a month; the next month is predicted to cost "
        f"{wording.money(ahead.total)}."
    ]
    if observed["imported"]:
        whole = observed["imported"] == observed["requests"]
        them = "They" if whole else f"{observed['imported']:,} of them"
        said.append(f"{them} were imported, and are priced as if paid here.")
    if observed["estimated"]:
        said.append(f"The tokens of {observed['estimated']:,} are estimated.")
    if observed["guessed"]:
        told = ", ".join(f"`{model}`" if model else "no model" for model in list(observed["guessed"])[:3])
        said.append(f"No price is known for {told}: those are counted at the scenario's price.")
    if observed["unpriced"]:
        told = ", ".join(f"{model or 'no model'} {n:,}" for model, n in list(observed["unpriced"].items())[:3])
        said.append(f"Not in it, for want of a price ([prices.MODEL] in suffice.toml): {told}.")
    if observed["untimed"]:
        said.append(f"{observed['untimed']:,} imported rows tell no time (`at`) and are left out.")
    if tested is not None:
        said.append(
            f"Backtest: from the first {tested.days_seen:.1f} days, {wording.money(tested.predicted)} was predicted "
            f"for the next {tested.days_predicted:.1f}; it was {wording.usd(tested.actual)}, "
            f"{'within' if tested.within else 'outside of'} the band."
        )
    return said + [f"{note[0].upper()}{note[1:]}." for note in records.inputs.notes]


def _prices(settings: Config) -> dict[str, Any]:
    """Where prices come from."""
    return {
        "source": table_version(),
        "date": table_date(datetime.now(UTC).date()),
        "overrides": sorted(settings.prices),
    }


def _write(page: Path, plan: Plan, folder: Path | None, bill: dict[str, Any] | None) -> None:
    from suffice.plan.report import write_report

    of = f" from the records in {folder}" if folder is not None else ""
    made = f"made {datetime.now(UTC).strftime(DATED)}{of}"
    write_report(page, plan, made, bill["told"] if bill is not None else "")


def _day(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime(DATED)
