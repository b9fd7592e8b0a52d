"""Wrong answers by whose mistake they are, as far as somebody has said what is right.

A *misroute* is a request that was taken for another task's (or for none's): whatever the specialist said, it was asked
the wrong thing, and its rule is to blame. Only of a request in its right task a wrong answer is the *specialist*'s, or
the *frontier*'s. Disagreement alone is no mistake: it does not tell who is right.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal

from suffice.core.values import Value, canonical, decode
from suffice.store import patterns, records
from suffice.store.belongings import belongings, spoken_of
from suffice.store.home import Home
from suffice.store.records import Row, Trusted
from suffice.wire import dialects

Kind = Literal["misroute", "specialist", "frontier"]
KINDS: tuple[Kind, ...] = ("misroute", "specialist", "frontier")
BATCH = 500

Read = Callable[[Sequence[str]], Iterator[tuple[Row, Trusted | None]]]


@dataclass(frozen=True, slots=True)
class Mistake:
    """A record that went wrong, and whose mistake it was.

    `task` is the record's as it is called today, `belongs` the one it was said to belong to (None: to none; the same
    where nobody spoke of it), `said` the answer that was given, in a list; an empty one where there was none.
    """

    error: Kind
    row: Row
    trusted: Trusted | None
    task: str | None
    belongs: str | None
    said: Sequence[Value]


def mistakes(home: Home, task: str | None = None, read: Read | None = None) -> Iterator[Mistake]:
    """The mistakes that are known, oldest first; `task`: only records of this task, or that belong to it.

    `read` gives those of some records that are to be looked at; left out, all.
    """
    told = iter(spoken_of(home))
    names: dict[str, str] = {}
    while some := list(islice(told, BATCH)):
        belonging = belongings(home, some)
        for row, trusted in read(some) if read is not None else records.query(home, ids=some):
            found = _mistake(home, row, trusted, belonging, names)
            if found is not None and task in (None, found.task, found.belongs):
                yield found


def counts(home: Home, task: str) -> dict[str, Any]:
    """How many of each kind a task has, and how many of its records were misroutes by each rule."""
    found = list(mistakes(home, task))
    kinds = Counter(mistake.error for mistake in found)
    rules = Counter(mistake.row.rule or "none" for mistake in found if mistake.error == "misroute")
    return {**{kind: kinds[kind] for kind in KINDS}, "misroutes_by_rule": dict(sorted(rules.items()))}


def _mistake(
    home: Home, row: Row, trusted: Trusted | None, belonging: Mapping[str, str | None], names: dict[str, str]
) -> Mistake | None:
    """What went wrong with a record, if anything did."""
    task = _today(home, row.task, names)
    belongs = _today(home, belonging[row.id], names) if row.id in belonging else task
    said = _said(row)
    if belongs != task:
        return Mistake("misroute", row, trusted, task, belongs, said)
    if trusted is None or not said or canonical(said[0]) == canonical(trusted.value):
        return None
    return Mistake("specialist" if row.route == "specialist" else "frontier", row, trusted, task, belongs, said)


def _today(home: Home, name: str | None, names: dict[str, str]) -> str | None:
    if name is None:
        return None
    if name not in names:
        names[name] = patterns.today(home, name)
    return names[name]


def _said(row: Row) -> list[Value]:
    """The answer that was given, in a list; an empty one where there was none."""
    if row.route == "specialist" or row.dialect == "short":
        return [decode(row.predicted)] if row.predicted is not None else []
    return dialects.heard(row.answer) if row.answer is not None and row.status in (None, 200) else []
