"""What people decide about tasks beyond what the store alone can do: to divide one by a text in its requests.

A prompt's requests are divided by a rule like its own that also asks for the text; the records that it meets go with
it. Discovery never undoes this. Not known here: names, merges and what is ignored (`store.patterns`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.learn.discover import EXCERPT, fixed_text, readable
from suffice.store import patterns, releases
from suffice.store.home import Home
from suffice.store.patterns import Pattern, Unread


def prompts(home: Home, task: str) -> list[dict[str, Any]]:
    """A task's patterns: `id`, how their requests are `told`, `records`, `fixed` text, and text they are `containing`.

    Those with most records first. Raises InputError if there is no such task.
    """
    _must_exist(home, task)
    known = {pattern.id: pattern for pattern in patterns.all_patterns(home)}
    own = [pattern for pattern in known.values() if pattern.task == task]
    shown: list[dict[str, Any]] = []
    for pattern in sorted(own, key=lambda one: (-one.records, one.id)):
        rule = patterns.rule_of(pattern, known)
        shown.append(
            {
                "id": pattern.id,
                "told": pattern.told,
                "label": pattern.label if pattern.declared else None,
                "records": pattern.records,
                "ignored": pattern.ignored,
                "containing": rule.containing if rule is not None else "",
                "fixed": fixed_text(rule)[:EXCERPT],
            }
        )
    return shown


def split(home: Home, task: str, ids: Sequence[int], name: str) -> int:
    """Make these of a task's patterns a task of their own; how many records that moves.

    Raises InputError, and changes nothing, where one is not the task's, or none would be left to it.
    """
    _must_exist(home, task)
    own = {pattern.id: pattern for pattern in patterns.all_patterns(home) if pattern.task == task}
    for number in ids:
        if number not in own:
            raise InputError(f"task {task!r} has no pattern {number}: `suffice tasks prompts {task}` lists them")
    if set(own) == set(ids):
        raise InputError(f"nothing would be left of {task!r}: `suffice tasks rename {task} {name}` renames it")
    patterns.split_off(home, task, ids, name)
    return sum(own[number].records for number in set(ids))


def split_containing(home: Home, task: str, text: str, name: str, clock: Callable[[], float]) -> int:
    """Make the requests of a task that contain a text a task of their own; how many records that moves.

    It divides prompts that are told by their fixed text; requests that are told by a name or by meaning stay. Raises
    InputError, and changes nothing, where there are none of the first kind, or none of them contains the text;
    StoreError while discovery runs, which places records by the rules that it knows.
    """
    with home.discovering():
        return _split_containing(home, task, text, name, clock)


def _split_containing(home: Home, task: str, text: str, name: str, clock: Callable[[], float]) -> int:
    _must_exist(home, task)
    patterns.may_split(home, task, name)
    own = [pattern for pattern in patterns.all_patterns(home) if pattern.task == task]
    divided = [p for p in own if p.rule is not None and p.matcher is None and not p.rule.containing]
    if not divided:
        raise InputError(_why_not(task, own))
    met: dict[int, list[Unread]] = {}
    for pattern in divided:
        assert pattern.rule is not None
        rule = msgspec.structs.replace(pattern.rule, containing=text)
        found = [
            # What a record said is not needed to place it, and there may be many.
            msgspec.structs.replace(row, request=None, input=None, answer=None if row.answer is None else b"")
            for batch in patterns.members(home, pattern.id)
            for row, request in readable(batch)
            if rule.contained(request)
        ]
        if found:
            met[pattern.id] = found
    if not met:
        raise InputError(f"none of the requests of task {task!r} contains {text!r} as it is written here")
    if len(met) == len(own) and all(len(met.get(pattern.id, ())) == pattern.records for pattern in own):
        raise InputError(f"all requests of task {task!r} contain {text!r}: nothing would be left of it")
    new: dict[int, int] = {}
    for pattern in divided:
        if pattern.id in met and pattern.rule is not None:
            rule = msgspec.structs.replace(pattern.rule, containing=text)
            new[pattern.id] = patterns.add_rule(home, rule, clock())
    patterns.split_off(home, task, list(new.values()), name)
    patterns.place(home, [(row, new[pattern]) for pattern, rows in met.items() for row in rows])
    return sum(map(len, met.values()))


def _why_not(task: str, own: Sequence[Pattern]) -> str:
    """Why a task cannot be divided by a text, and what can be done instead."""
    if not own:
        return f"task {task!r} has no requests that discovery has read: run `suffice discover` first"
    if all(pattern.declared for pattern in own):
        return (
            f"the requests of task {task!r} are told by the name that they come with: "
            "send another X-Suffice-Task (or import with another --task) for those that are other work"
        )
    if any(pattern.rule is not None and pattern.rule.containing for pattern in own):
        return f"task {task!r} was split by a text already: merge it back, then split by the other text"
    return (
        f"the requests of task {task!r} are told by meaning, which no text divides: "
        f"name them by X-Suffice-Task, or split by --pattern (`suffice tasks prompts {task}` lists them)"
    )


def _must_exist(home: Home, task: str) -> None:
    known = releases.all_tasks(home)
    if task not in known:
        raise InputError(f"there is no task {task!r}; known: {', '.join(known) or 'none'}")
