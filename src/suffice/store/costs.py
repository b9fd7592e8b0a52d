"""What requests have cost, summed up from the records, in the groups that one asks for. Imported rows are not counted:
somebody else has paid for them here.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from suffice.store import schema
from suffice.store.home import Home
from suffice.store.records import FREE, total

By = Literal["task", "key", "model", "upstream", "route", "day"]
DAY_S = 86_400


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """The requests of one group for one model, on one route and for one reason. Tokens are None-free sums; `unpriced`
    are the answers that somebody is paid for and whose price is not known."""

    group: str
    model: str
    route: str
    reason: str
    requests: int
    prompt: int
    cached: int
    written: int
    completion: int
    usd: float
    unpriced: int


class AuditSum(msgspec.Struct, frozen=True, kw_only=True):
    """Audits: how many, their tokens and dollars."""

    audits: int
    prompt: int
    completion: int
    usd: float
    unpriced: int


def sums(home: Home, by: By, since: float | None = None, until: float | None = None) -> list[Sum]:
    """Live requests from a time on and before another (seconds since 1970), by group, model, route and reason.

    A day is one of UTC; a task is called what it is called today. What has no task, key or upstream is `none`.
    """
    record = schema.records
    group = _groups(by).label("of")
    told, paid = record.c.completion_tokens.is_not(None), record.c.route.not_in(FREE)
    wanted = (
        sa.select(
            group,
            record.c.model,
            record.c.route,
            record.c.reason,
            sa.func.count(),
            *(total(record.c[f"{kind}_tokens"]) for kind in ("prompt", "cached", "written", "completion")),
            total(record.c.cost_usd),
            total(sa.case((sa.and_(told, paid, record.c.cost_usd.is_(None)), 1), else_=0)),
        )
        .where(record.c.source == "live")
        .group_by(group, record.c.model, record.c.route, record.c.reason)
        .order_by(group, record.c.model, record.c.route, record.c.reason)
    )
    wanted = _within(_joined(wanted) if by == "task" else wanted, record.c.at, since, until)
    with home.engine.connect() as db:
        found = [Sum(**dict(zip(Sum.__struct_fields__, row, strict=True))) for row in db.execute(wanted)]
    if by != "day":
        return found
    return [msgspec.structs.replace(one, group=_day(int(one.group))) for one in found]


def audit_sums(home: Home, since: float | None = None, until: float | None = None) -> AuditSum:
    """All audits of a time."""
    audit = schema.audits.c
    unpriced = sa.case((sa.and_(audit.completion_tokens.is_not(None), audit.cost_usd.is_(None)), 1), else_=0)
    counted = (total(audit.prompt_tokens), total(audit.completion_tokens), total(audit.cost_usd), total(unpriced))
    wanted = _within(sa.select(sa.func.count(), *counted), audit.at, since, until)
    with home.engine.connect() as db:
        row = db.execute(wanted).one()
    return AuditSum(**dict(zip(AuditSum.__struct_fields__, row, strict=True)))


def _groups(by: By) -> sa.ColumnElement[Any]:
    record = schema.records.c
    if by == "day":
        return sa.cast(sa.cast(record.at / DAY_S, sa.Integer), sa.String)
    if by == "task":
        member, pattern, alias = schema.members, schema.patterns, schema.aliases
        today = sa.func.coalesce(alias.c.task, record.task)
        return sa.func.coalesce(sa.case((member.c.seq.is_not(None), pattern.c.task), else_=today), "none")
    return sa.func.coalesce(record[by], "none")


def _joined(wanted: sa.Select[Any]) -> sa.Select[Any]:
    """With what tells whose a record is: its pattern, or the name that its task has today."""
    record, member, pattern, alias = schema.records, schema.members, schema.patterns, schema.aliases
    return (
        wanted.select_from(record)
        .outerjoin(member, member.c.seq == record.c.seq)
        .outerjoin(pattern, pattern.c.id == member.c.pattern)
        .outerjoin(alias, alias.c.name == record.c.task)
    )


def _within(
    wanted: sa.Select[Any], at: sa.ColumnElement[float], since: float | None, until: float | None
) -> sa.Select[Any]:
    wanted = wanted.where(at >= since) if since is not None else wanted
    return wanted.where(at < until) if until is not None else wanted


def _day(number: int) -> str:
    return datetime.fromtimestamp(number * DAY_S, UTC).strftime("%Y-%m-%d")
