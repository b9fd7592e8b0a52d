"""`suffice costs`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import click
import msgspec

from suffice.cli import common
from suffice.core.types import Usage
from suffice.plan.prices import Prices
from suffice.store import costs
from suffice.store.costs import By, Sum

OURS = ("specialist", "cache")
"""Routes on which an answer costs nothing, where the model that was asked would have cost something."""
UNIT = 1_000
Cost = Callable[[str, Usage], float | None]


@click.command()
@click.option("--by", type=click.Choice(get_args(By)), default="task", show_default=True, help="What to sum up by.")
@click.option("--since", type=float, help="From this time on (seconds since 1970).")
@click.option("--until", type=float, help="Before this time.")
@common.everywhere
def command(
    by: By, since: float | None, until: float | None, folder: Path, config_file: Path | None, as_json: bool
) -> int:
    """What the live requests cost, what specialists saved, and why requests escalated.

    The lines and the audits add up to the bill. Saved is what the same tokens would have cost at the price of the
    model that was asked.
    """
    settings = common.configured(folder, config_file)
    home = common.opened(folder, settings)
    cost = Prices(settings.prices).usd
    of: dict[str, list[Sum]] = {}
    for one in costs.sums(home, by, since, until):
        of.setdefault(one.group, []).append(one)
    rows = [{by: group, **_row(some, cost)} for group, some in of.items()]
    if by != "day":
        rows.sort(key=lambda row: (-row["usd"], -row["saved_usd"], row[by]))
    audits = costs.audit_sums(home, since, until)
    document = {
        "by": by,
        "since": since,
        "until": until,
        "rows": rows,
        "audits": msgspec.structs.asdict(audits),
        "usd": sum(row["usd"] for row in rows) + audits.usd,
        "saved_usd": sum(row["saved_usd"] for row in rows),
        "unpriced": sum(row["unpriced"] for row in rows) + audits.unpriced,
    }
    if as_json:
        common.emit(document)
    else:
        _tell(document)
    return 0


def _row(some: Sequence[Sum], cost: Cost) -> dict[str, Any]:
    """One line of the bill."""
    reasons: Counter[str] = Counter()
    for one in some:
        reasons[one.reason] += one.requests
    saved = [(one, _saved(one, cost)) for one in some if one.route in OURS]
    return {
        "requests": sum(one.requests for one in some),
        "specialist": sum(one.requests for one in some if one.route == "specialist"),
        "prompt_tokens": sum(one.prompt for one in some),
        "cached_tokens": sum(one.cached for one in some),
        "written_tokens": sum(one.written for one in some),
        "completion_tokens": sum(one.completion for one in some),
        "usd": sum(one.usd for one in some),
        "unpriced": sum(one.unpriced for one in some),
        "saved_usd": sum(usd for _, usd in saved if usd is not None),
        "saved_unpriced": sum(one.requests for one, usd in saved if usd is None),
        "reasons": dict(reasons.most_common()),
    }


def _saved(one: Sum, cost: Cost) -> float | None:
    """What these tokens would have cost, less what was paid for a specialist that is elsewhere; None for a model
    without a price."""
    # In small pieces: none of these requests was a large one.
    prompt = cost(one.model, Usage(prompt=UNIT, completion=0))
    completion = cost(one.model, Usage(prompt=0, completion=UNIT))
    if prompt is None or completion is None:
        return None
    return (prompt * one.prompt + completion * one.completion) / UNIT - one.usd


def _tell(document: dict[str, Any]) -> None:
    by = document["by"]
    rows = [[by, "requests", "specialist", "prompt", "cached", "completion", "usd", "saved usd", "most escalated"]]
    for row in document["rows"]:
        rows.append(
            [
                row[by],
                f"{row['requests']:,}",
                f"{row['specialist']:,}",
                f"{row['prompt_tokens']:,}",
                f"{row['cached_tokens']:,}",
                f"{row['completion_tokens']:,}",
                f"{row['usd']:.4f}",
                f"{row['saved_usd']:.4f}",
                _most(row["reasons"]),
            ]
        )
    audits = document["audits"]
    rows.append(
        ["(audits)", f"{audits['audits']:,}", "-", f"{audits['prompt']:,}", "-", f"{audits['completion']:,}",
         f"{audits['usd']:.4f}", "-", "-"]
    )  # fmt: skip
    click.echo(common.table(rows))
    click.echo(f"\nbill {document['usd']:.4f} USD, saved {document['saved_usd']:.4f} USD")
    if document["unpriced"]:
        click.echo(f"{document['unpriced']:,} paid answers have no known price: add [prices.MODEL] to suffice.toml")


def _most(reasons: dict[str, int]) -> str:
    """The most frequent reasons but acceptance."""
    told = [f"{reason} {count:,}" for reason, count in reasons.items() if reason != "accepted"]
    return ", ".join(told[:3]) or "-"
