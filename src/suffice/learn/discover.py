"""Discovery, from top to bottom: what happens between raw records and a list of tasks with a verdict on each.

    new records -> the pattern of each, by its prompt; what no rule knows is mined for new rules
    -> prompts that mix work are divided by meaning -> prompts that are the same work are joined: tasks, with names
    -> each task's output contract, what changed in it, and the verdict

Only what is new is read, in the order in which it was recorded; samples are drawn by coins that stay. What a person has
decided (a name, a merge, a split, to ignore) is never undone. Not known here: how rules are mined, groups are found or
contracts inferred.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import msgspec

from suffice.core.config import Config
from suffice.core.contracts import told as contract_told
from suffice.core.errors import InputError, StoreError
from suffice.core.find import gist
from suffice.core.match import Rule, first_user
from suffice.core.prompt import conversation, last_user
from suffice.core.protocols import Progress, Specialist
from suffice.core.types import Message, OutputContract, Request
from suffice.core.values import Value, calls_of, decode, plain
from suffice.learn import contracts, joining, meaning, mining, naming, verdict
from suffice.learn.joining import Side
from suffice.learn.meaning import Asked
from suffice.learn.verdict import Seen
from suffice.store import artefacts, patterns, releases
from suffice.store.home import Home
from suffice.store.patterns import Bookmark, Looked, Pattern, Unread
from suffice.wire import dialects

LEAST = 10
"""Fewer requests than this that are alike are no task yet."""
POOL = 10_000
POOL_BYTES = 200 * 2**20
"""Requests that no rule knows are mined when they are this many, or this large."""
LEFT = 10_000
LEFT_BYTES = 50 * 2**20
"""Requests that stay unknown are kept in mind up to this many, and this large: a task may come in drop by drop."""
DIVIDED, FITTED = 5_000, 2_000
"""Rows of a prompt by which it is divided: the share that trains anyway, up to the first figure, but all up to the
second. They train only: the matcher has seen their answers, and may place them better than what it has not seen."""
FEWEST_DIVIDED = 60
"""Fewer rows of a prompt could not show that it mixes work."""
NOTHING: tuple[Value, ...] = ({}, [], "")
"""Answers that found nothing: of which work they are, only the request could tell."""
LABEL_CHARS = 60
"""A longer answer is no label."""
JOINED = 400
LOOKED_AT = 2_000
NEW = 1_000
GROWN = 1.05
"""A task is looked at again when it has grown by this factor, or something about it has changed."""

Asking = tuple[Unread, Request]
Supports = Callable[[OutputContract], str | None]

EXCERPT = 200
"""Characters of a prompt's fixed text that people are shown."""

_GENERAL = """
a about ai an and answer answers any are as assist assistant assistants at be by can chatbot chatgpt clear concise
concisely conversation current cutoff date do everything friendly for from general gpt have help helpful helpfully
helping honest i in instructions is it kind knowledge language large me model my of on openai or own please polite
politely question questions request requests respond response smart task tasks that the their them these this time to
today trained useful user users way we will with you your
"""
GENERAL = frozenset(_GENERAL.split())
"""A prompt of nothing but such words says nothing about the work."""


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a run found: the document that `--json` prints but for the records' ids, and each task's patterns."""

    document: dict[str, Any]
    patterns: dict[str, list[int]]


def discover(
    home: Home,
    config: Config,
    *,
    load_matcher: Callable[[str], Specialist],
    supports: Supports,
    clock: Callable[[], float],
    progress: Progress,
) -> Found:
    """Read what is new and bring the list of tasks up to date.

    Interrupted at any point it has lost nothing and goes on where it stopped. `supports` says why no installed family
    can answer a contract (None: one can).
    """
    run = _Run(home, config, load_matcher, clock, progress)
    run.read()
    run.divide()
    run.join()
    run.look(supports)
    return run.told()


class _Run:
    """One run: the patterns as they are known by now, and its steps."""

    def __init__(
        self,
        home: Home,
        config: Config,
        load_matcher: Callable[[str], Specialist],
        clock: Callable[[], float],
        progress: Progress,
    ) -> None:
        self.home, self.config, self.load_matcher, self.clock = home, config, load_matcher, clock
        self.progress = progress
        self.began = patterns.bookmark(home)
        self.matchers: dict[str, Specialist] = {}
        self.by_name: dict[str, int] = {}
        self.suggestions: list[str] = []
        self.memory = patterns.memory(home)
        self.refresh()

    def refresh(self) -> None:
        """Take the patterns from the store, and build what finds them."""
        self.known = {pattern.id: pattern for pattern in patterns.all_patterns(self.home)}
        matchers = {p.id: self.matcher(p.matcher) for p in self.known.values() if p.matcher is not None}
        self.finder = patterns.finder_of([*self.known.values()], matchers)

    def matcher(self, artefact: str) -> Specialist:
        """What tells the work of a pattern apart."""
        if artefact not in self.matchers:
            self.matchers[artefact] = self.load_matcher(artefact)
        return self.matchers[artefact]

    @cached_property
    def free(self) -> set[str]:
        """Tasks that discovery alone has made and nobody has used since: they may still become part of another."""
        kept = {p.task for p in self.known.values() if p.decided or p.declared}
        tasks = {p.task for p in self.known.values() if p.task is not None} - kept - {*self.config.tasks}
        return {name for name in tasks if name is not None and not patterns.used(self.home, name)}

    def children(self, pattern: Pattern) -> list[Pattern]:
        """The groups that a pattern was divided into."""
        return [child for child in self.known.values() if child.parent == pattern.id]

    def rule_of(self, pattern: int | None) -> Rule | None:
        """The rule of a pattern's prompt; None where requests came with a name."""
        known = self.known.get(pattern or 0)
        return patterns.rule_of(known, self.known) if known is not None else None

    # -- 1. every new record gets its pattern

    def read(self) -> None:
        """Place what is new; what no prompt's rule knows gathers in a pool, and is mined.

        The bookmark moves when the pool was mined: what is read twice is placed once. A rule that says nothing knows
        requests, yet a new prompt may hide among them: these are mined too, an even part of them where they are many.
        """
        total = patterns.count_unread(self.home, self.began.seq)
        left = readable(patterns.by_seq(self.home, self.began.left)) if total or self.began.late is not None else []
        pool: list[Asking] = []
        done, last, gathered, patience, late = 0, self.began.seq, 0, POOL, self.began.late
        for batch in patterns.unread(self.home, self.began.seq):
            done, last = done + len(batch), batch[-1].seq
            self.progress(f"reading {total:,} new records", done / total)
            patterns.place(self.home, [(row, self.declared(row)) for row in batch if named(row)])
            unknown, vague = self.place(readable([row for row in batch if not named(row)]))
            pool += [*unknown, *vague]
            gathered += len(unknown) + len(vague)
            full = gathered >= patience or weight(pool) >= POOL_BYTES
            if not full and len(pool) >= 2 * POOL:
                pool = self.thinned(pool)
                full = len(pool) >= 2 * POOL
            if full:
                left, found = self.mine(left, pool)
                late = self.began.seq if found and late is None else late
                pool, gathered, patience = [], 0, POOL if found else 2 * patience
            if not pool:
                patterns.place(self.home, [], Bookmark(last, tuple(row.seq for row, _ in left), late))
        if pool:
            left, found = self.mine(left, pool)
            late = self.began.seq if found and late is None else late
        if late is not None:
            self.again(late, last)
        if total or late is not None:
            patterns.place(self.home, [], Bookmark(last, tuple(row.seq for row, _ in left)))
        self.refresh()

    def thinned(self, pool: Sequence[Asking]) -> list[Asking]:
        """Every second of what a bare rule knows, and all that none does."""
        unknown = [met is None for met in self.finder.find_all([request for _, request in pool])]
        return [asking for i, asking in enumerate(pool) if unknown[i] or not i % 2]

    def declared(self, row: Unread) -> int:
        """The pattern of a record that came with the name of its task."""
        name = str(row.task)
        if name not in self.by_name:
            self.by_name[name] = patterns.add_declared(self.home, name, self.clock())
        return self.by_name[name]

    def place(self, rows: Sequence[Asking]) -> tuple[list[Asking], list[Asking]]:
        """Make records members of the patterns that know them: those that none knows, and those of a bare one."""
        met = self.finder.find_all([request for _, request in rows])
        found = [(row, match.pattern) for (row, _), match in zip(rows, met, strict=True) if match is not None]
        patterns.place(self.home, found)
        unknown = [asking for asking, match in zip(rows, met, strict=True) if match is None]
        vague = [a for a, match in zip(rows, met, strict=True) if match is not None and self.bare(match.pattern)]
        return unknown, vague

    def bare(self, pattern: int) -> bool:
        """Whether a pattern's rule has no fixed text at all."""
        rule = self.known[pattern].rule
        return rule is not None and rule.bare

    def mine(self, left: Sequence[Asking], pool: Sequence[Asking]) -> tuple[list[Asking], bool]:
        """New rules out of what no prompt's rule knows: what still none knows (the newest of it), if any was new."""
        rows = [*left, *pool]
        self.progress(f"looking for prompts in {len(rows):,} records", 0.5)
        before = len(self.known)
        answers = [answer_of(row)[0] for row, _ in rows]
        for rule in mining.mine([request for _, request in rows], answers, least=LEAST):
            patterns.add_rule(self.home, rule, self.clock())
        self.refresh()
        if len(self.known) > before:
            unknown, vague = self.place(rows)
            rows = sorted([*unknown, *vague], key=by_seq)
        return newest(rows), len(self.known) > before

    def again(self, first: int, last: int) -> None:
        """Requests of a bare rule that were placed before a prompt among them was found: look once more."""
        for pattern in [pattern for pattern in self.known.values() if self.bare(pattern.id)]:
            self.progress(f"looking again at {pattern.records:,} records", 0.5)
            for batch in patterns.members(self.home, pattern.id, first, last):
                self.place(readable(batch))

    # -- 2. prompts that mix work are divided by meaning

    def divide(self) -> None:
        """Look at each prompt that has grown twofold since it was last looked at: is it one work?

        Not if its task was named, declared or learned: what that is, somebody else has said.
        """
        looked = self.memory.prompts
        if (begun := self.known.get(self.memory.dividing or 0)) is not None:
            self.give(begun)
            looked[begun.id] = Looked(self.known[begun.id].whole)
            patterns.remember(self.home, self.memory)
        prompts = [p for p in self.known.values() if p.rule is not None and not p.ignored]
        prompts = [p for p in prompts if p.task is None or p.task in self.free]
        due = [p for p in prompts if p.whole >= max(FEWEST_DIVIDED, 2 * looked.get(p.id, Looked()).whole)]
        for i, pattern in enumerate(due):
            self.progress(f"telling work apart in {len(due):,} prompts", i / len(due))
            one = self.divide_one(pattern)
            looked[pattern.id] = Looked(self.known[pattern.id].whole, one)
            patterns.remember(self.home, self.memory)

    def divide_one(self, pattern: Pattern) -> bool:
        """Divide what no group of a prompt knows yet, and fit its matcher anew; whether it is all one work.

        A prompt that says what it is for is one work, unless its answers have different contracts.
        """
        assert pattern.rule is not None
        most = min(DIVIDED, max(FITTED, pattern.records * 3 // 5))
        rows = readable(patterns.sample(self.home, [pattern.id], most))
        sample = [one for row, request in rows if (one := meant(row, request)).value not in NOTHING]
        telling = not general(pattern.rule)
        if telling and one_form([one.value for one in sample if one.answered]):
            return True
        division = meaning.divide(sample)
        if division.one or not division.found:
            return division.one
        if telling and not different(sample, division.groups):
            return True
        children = self.children(pattern)
        groups = [None if group is None else len(children) + group for group in division.groups]
        for child in children:
            more = readable(patterns.sample(self.home, [child.id], JOINED))
            rows += more
            sample += [meant(row, request) for row, request in more]
            groups += [int(str(child.label)[1:])] * len(more)
        fitted = meaning.fit(sample, groups)
        if fitted is None:
            return False
        releases.put_fitted(self.home, pattern.id, [row.id for row, _ in rows])
        for label in fitted.labels:
            patterns.add_group(self.home, pattern.id, label, self.clock())
        self.memory = msgspec.structs.replace(self.memory, dividing=pattern.id)
        patterns.remember(self.home, self.memory)
        patterns.set_matcher(self.home, pattern.id, artefacts.save(self.home, fitted.matcher), fitted.least)
        self.refresh()
        self.give(pattern)
        return False

    def give(self, pattern: Pattern) -> None:
        """Make the members of a divided pattern those of its parts; done again where a run was interrupted in it."""
        for batch in patterns.members(self.home, pattern.id):
            self.place(readable(batch))
        self.refresh()
        self.memory = msgspec.structs.replace(self.memory, dividing=None)

    # -- 3. prompts that are the same work are joined: tasks

    def join(self) -> None:
        """Find the task of every pattern that has none: one that is there already, or a new one with a name.

        Patterns are compared when there is a new one, and when there are twice the records: few answers may not have
        shown that two tasks are one.
        """
        working = [pattern for pattern in self.known.values() if self.works(pattern)]
        total = records(working)
        if all(pattern.task is not None for pattern in working) and total < 2 * self.memory.joined:
            return
        sides = []
        for i, pattern in enumerate(working):
            self.progress(f"comparing {len(working):,} kinds of request", i / len(working))
            sides.append(self.side(pattern))
        for group in joining.join(sides):
            tasks: Counter[str] = Counter()
            for i in group:
                if (task := working[i].task) is not None:
                    tasks[task] += working[i].records
            names = [
                name for name, _ in sorted(tasks.items(), key=lambda item: (item[0] in self.free, -item[1], item[0]))
            ]
            for other in names[1:]:
                self.same_work(names[0], other)
            if new := [working[i].id for i in group if working[i].task is None]:
                name = names[0] if names else self.name([sides[i] for i in group])
                patterns.assign(self.home, new, name)
        self.memory = msgspec.structs.replace(self.memory, joined=total)
        patterns.remember(self.home, self.memory)
        self.refresh()

    def same_work(self, task: str, other: str) -> None:
        """Two tasks look like one: made one if nobody has named, declared or learned the other, else suggested."""
        if not self.merged(other, task):
            self.suggestions.append(f"{task} and {other} look like the same work: `suffice tasks merge {other} {task}`")

    def merged(self, task: str, into: str) -> bool:
        """Whether a task could be made part of another: since this run began, somebody may have decided about it."""
        if task not in self.free or patterns.used(self.home, task):
            return False
        try:
            patterns.merge(self.home, task, into, decided=False)
        except (InputError, StoreError):
            return False
        return True

    def works(self, pattern: Pattern) -> bool:
        """Whether a pattern is work by itself: not what is left of a divided one, nor talk about anything."""
        if pattern.task is not None:
            return True
        if pattern.records < LEAST or pattern.ignored or pattern.matcher is not None:
            return False
        if pattern.rule is None or not general(pattern.rule):
            return True
        return self.memory.prompts.get(pattern.id, Looked()).one

    def side(self, pattern: Pattern) -> Side:
        """What a pattern is compared by."""
        rule = self.rule_of(pattern.id)
        rows = readable(patterns.sample(self.home, [pattern.id], JOINED))
        seen = [read(rule, row, request) for row, request in rows]
        heard = [one for one in seen if one.answered]
        contract = contracts.infer([one.text for one in heard], [one.value for one in heard])
        return Side(asked=seen, contract=contract, fixed="" if rule and general(rule) else fixed_text(rule))

    def name(self, sides: Sequence[Side]) -> str:
        """A readable name that no task has or had."""
        taken = {*releases.all_tasks(self.home), *patterns.aliases(self.home)}
        seen = [one for side in sides for one in side.asked if one.answered]
        return naming.name(
            [side.fixed for side in sides], [one.text for one in seen], [one.value for one in seen], taken
        )

    # -- 4. contract, changes and verdict of each task

    def look(self, supports: Supports) -> None:
        """Look at each task that is new or has grown."""
        before = patterns.documents(self.home)
        tasks = self.tasks()
        for i, (task, own) in enumerate(tasks.items()):
            self.progress(f"judging {len(tasks):,} tasks", i / len(tasks))
            known = before.get(task, {})
            if known.get("prompts") == len(own) and records(own) <= GROWN * known.get("looked_at", 0):
                continue
            patterns.put_document(self.home, task, self.document(task, own, known, supports), self.clock())

    def tasks(self) -> dict[str, list[Pattern]]:
        """Every task that has records with its patterns, those with most records first."""
        found: defaultdict[str, list[Pattern]] = defaultdict(list)
        for pattern in self.known.values():
            if pattern.task is not None and pattern.records:
                found[pattern.task].append(pattern)
        return dict(sorted(found.items(), key=lambda item: (-records(item[1]), item[0])))

    def document(self, task: str, own: Sequence[Pattern], known: dict[str, Any], supports: Supports) -> dict[str, Any]:
        """What is found out about a task; `known` is what was found out before."""
        ids = [pattern.id for pattern in own]
        rows = readable(patterns.sample(self.home, ids, LOOKED_AT))
        seen = [(row, request, read(self.rule_of(row.pattern), row, request)) for row, request in rows]
        heard = [(row, request, one) for row, request, one in seen if one.answered]
        texts, values = [one.text for *_, one in heard], [one.value for *_, one in heard]
        inferred = contracts.told(
            texts,
            values,
            response_format=only({request.response_format for _, request, _ in heard}),
            tools=only({request.tools for _, request, _ in heard}),
            unreadable=sum(row.whole and not one.answered for row, _, one in seen),
        )
        cost = priced(own)
        judged = verdict.judge(
            [Seen(text, value, row.unit) for (row, *_), text, value in zip(heard, texts, values, strict=True)],
            inferred,
            records=records(own),
            whole=sum(pattern.whole for pattern in own),
            cost_usd=cost,
            days=days(own),
            policy=self.config.policy_of(task),
            supports=supports,
        )
        return {
            "contract": msgspec.to_builtins(inferred.contract),
            "contract_told": contract_told(inferred.contract),
            "contract_records": inferred.records,
            "contract_sure": msgspec.to_builtins(inferred.sureness),
            "contract_given": inferred.given,
            "notes": list(inferred.notes),
            "changes": [*known.get("changes", []), *self.changes(ids, known)][-20:],
            **msgspec.to_builtins(judged),
            "cost_usd": cost,
            "prompts": len(own),
            "looked_at": records(own),
            "read_to": patterns.bookmark(self.home).seq,
        }

    def changes(self, ids: Sequence[int], known: dict[str, Any]) -> list[dict[str, Any]]:
        """What the answers of new records do that the contract did not know."""
        if "contract" not in known:
            return []
        rows = readable(patterns.newest(self.home, ids, known.get("read_to", self.began.seq), NEW))
        seen = [one for row, request in rows if (one := read(self.rule_of(row.pattern), row, request)).answered]
        contract: OutputContract = msgspec.convert(known["contract"], OutputContract)
        found = contracts.drift(contract, [one.text for one in seen], [one.value for one in seen])
        return [msgspec.to_builtins(change) for change in found]

    def told(self) -> Found:
        """The list of tasks, and what belongs to none."""
        documents = patterns.documents(self.home)
        tasks = self.tasks()
        total, cost = patterns.count_records(self.home), sum(p.cost_usd for p in self.known.values())
        shown = []
        for task, own in tasks.items():
            found = documents.get(task, {})
            shown.append(
                {
                    "name": task,
                    "records": records(own),
                    "share": records(own) / total,
                    "cost_share": (found.get("cost_usd") or 0.0) / cost if cost else None,
                    "ignored": all(pattern.ignored for pattern in own),
                    "patterns": [self.shown(pattern) for pattern in own],
                    **found,
                }
            )
        assigned = sum(entry["records"] for entry in shown)
        rest = total - assigned
        return Found(
            document={
                "tasks": shown,
                "unassigned": {"records": rest, "share": rest / total if total else 0.0, "why": self.why(rest)},
                "records": total,
                "cost_usd": cost,
                "suggestions": self.suggestions,
            },
            patterns={task: [pattern.id for pattern in own] for task, own in tasks.items()},
        )

    def shown(self, pattern: Pattern) -> dict[str, Any]:
        """A pattern as people see it."""
        return {
            "id": pattern.id,
            "told": pattern.told,
            "records": pattern.records,
            "fixed": fixed_text(self.rule_of(pattern.id))[:EXCERPT],
        }

    def why(self, rest: int) -> list[str]:
        """Why records belong to no task, in sentences."""
        nowhere = sum(p.records for p in self.known.values() if p.task is None and p.records >= LEAST)
        few = sum(p.records for p in self.known.values() if p.task is None and p.records < LEAST)
        told = [
            (nowhere, "under a prompt that says nothing of the work, like no others"),
            (few + max(rest - nowhere - few, 0), f"with fewer than {LEAST} like it, or that cannot be read"),
        ]
        return [f"{count:,} record{'s' if count > 1 else ''} {what}" for count, what in told if count]


# ---------------------------------------------------------------------------------------------- reading a record


def named(row: Unread) -> bool:
    """Whether a record came with the name of its task: from its author, a file, or a rule in the configuration."""
    return row.task is not None and ":" not in (row.rule or "")


def readable(rows: Sequence[Unread]) -> list[Asking]:
    """Records with their requests; without those that cannot be read."""
    found: list[Asking] = []
    for row in rows:
        if row.dialect == "short":
            found.append((row, Request(model="", messages=(Message("user", row.input or ""),))))
            continue
        try:
            found.append((row, dialects.request_in(row.dialect, row.request or b"")))
        except InputError:
            continue
    return found


def answer_of(row: Unread) -> tuple[Value, bool]:
    """The answer in its plain form, and whether there is one: whole, not a refusal, by an upstream."""
    if not row.whole or row.answer is None:
        return None, False
    try:
        said = decode(row.answer)
        return plain(said if row.dialect == "short" else dialects.answer_of(said)), True
    except InputError:
        return None, False


def meant(row: Unread, request: Request) -> Asked:
    """What a matcher may see of a request, with its answer."""
    value, answered = answer_of(row)
    return Asked(gist(last_user(request)), value, answered, request.tools)


def read(rule: Rule | None, row: Unread, request: Request) -> Asked:
    """What varies of a request that meets a rule, with its answer."""
    value, answered = answer_of(row)
    return Asked(varying(rule, request), value, answered, request.tools)


def varying(rule: Rule | None, request: Request) -> str:
    """The slots of the user's turn where that holds a prompt, else the last user turn."""
    if rule is not None and rule.turn is not None:
        slots = rule.turn.match(first_user(conversation(request.messages)[1]))
        if slots is not None:
            return "\n".join(slot.strip() for slot in slots if slot.strip())
    return last_user(request)


def by_seq(asking: Asking) -> int:
    """The place of a record."""
    return asking[0].seq


def weight(rows: Sequence[Asking]) -> int:
    """Bytes of requests."""
    return sum(len(row.request or b"") for row, _ in rows)


def newest(rows: Sequence[Asking]) -> list[Asking]:
    """The last of them that may be kept in mind."""
    kept, room = 0, LEFT_BYTES
    while kept < min(len(rows), LEFT) and room >= 0:
        kept += 1
        room -= len(rows[-kept][0].request or b"")
    return list(rows[len(rows) - kept :])


def form(value: Value) -> str:
    """What kind of contract an answer is of, roughly."""
    if isinstance(value, dict):
        return "calls" if calls_of(value) is not None else "object"
    if isinstance(value, list):
        return "list"
    return "text" if isinstance(value, str) and len(value) > LABEL_CHARS else "value"


def one_form(values: Sequence[Value]) -> bool:
    """Whether all but a few answers (refusals, questions back) are of one kind."""
    counts = Counter(map(form, values))
    return not counts or max(counts.values()) >= (1 - meaning.CHATTER) * len(values)


def different(sample: Sequence[Asked], groups: Sequence[int | None]) -> bool:
    """Whether the groups' answers are each of a kind of its own."""
    found: defaultdict[int, list[Asked]] = defaultdict(list)
    for one, group in zip(sample, groups, strict=True):
        if group is not None and one.answered:
            found[group].append(one)
    kinds = {(Counter(form(one.value) for one in rows).most_common(1)[0][0]) for rows in found.values()}
    return len(found) > 1 and len(kinds) == len(found)


def fixed_text(rule: Rule | None) -> str:
    """The fixed text of a rule's prompt."""
    if rule is None:
        return ""
    templates = [template for _, template in rule.head] + ([rule.turn] if rule.turn is not None else [])
    return "\n".join(" … ".join(template.literals) for template in templates).strip()


def general(rule: Rule) -> bool:
    """Whether a prompt says nothing about the work: none, or one like "You are a helpful assistant."."""
    words = "".join(c if c.isalpha() else " " for c in fixed_text(rule).casefold()).split()
    return not rule.tools and not rule.response_format and all(word in GENERAL for word in words)


# ---------------------------------------------------------------------------------------------- sums


def records(own: Sequence[Pattern]) -> int:
    """All records of these patterns."""
    return sum(pattern.records for pattern in own)


def priced(own: Sequence[Pattern]) -> float | None:
    """What they cost, in US dollars; those without a price as much as the others. None where no price is known."""
    known = records(own) - sum(pattern.unpriced for pattern in own)
    return sum(pattern.cost_usd for pattern in own) * records(own) / known if known else None


def days(own: Sequence[Pattern]) -> float:
    """From the first to the last of them."""
    first = [pattern.first_at for pattern in own if pattern.first_at is not None]
    last = [pattern.last_at for pattern in own if pattern.last_at is not None]
    return (max(last) - min(first)) / 86_400 if first and last else 0.0


def only(values: set[str]) -> str:
    """The one value there is, "" where there are several."""
    return next(iter(values)) if len(values) == 1 else ""
