"""A task's dataset: what a run learns from, as it stands now, as it was, and what changed between the two.

A manifest lists every example with its split, where it came from and who said what is right. Its digest is that of the
splits (`Splits.digest`), which a release names too: so every release leads back to the records it was made of.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping

import msgspec

from suffice.core.errors import InputError
from suffice.core.types import OutputContract, Policy, Splits, digest_of
from suffice.core.values import canonical, plain
from suffice.learn import contracts, curate
from suffice.learn.curate import Curated, Dropped, Sizes
from suffice.learn.filters import RULES
from suffice.proof import bounds
from suffice.store import datasets, patterns, releases
from suffice.store.home import Home

SPLITS = Splits.__struct_fields__
LIVE = "live"
GONE = {
    "expired": "what was said was dropped: older than `keep_days`",
    "erased": "what was said was dropped: erased for a person's sake",
}
"""Why a tombstone teaches nothing."""


def curated(home: Home, task: str, since: float | None = None) -> Curated:
    """A task's records (from `since` on) as examples, with what earlier runs know of them."""
    rows = datasets.newest(home, task, curate.MOST, since)
    left = {curate.OLDER: rows.older(), curate.BY_SPECIALIST: rows.served()}
    left |= {told: rows.gone(why) for why, told in GONE.items()}
    return curate.examples(rows, releases.get_splits(home, task), patterns.rules_of(home, task), left)


# ---------------------------------------------------------------------------------------------- what would be learned


class Planned(msgspec.Struct, frozen=True, kw_only=True):
    """What the next run would learn from. `assigned` is every example's split, `unlearned` what does not teach.

    `short` says why it could not certify yet, in one sentence. `contract` is None where all answers are the same.
    """

    curated: Curated
    assigned: dict[str, str]
    splits: Splits
    unlearned: Dropped
    contract: OutputContract | None
    short: str | None

    def dropped(self) -> dict[str, list[str]]:
        """The records that are left out, by reason: no examples at all, then those that must not teach."""
        rules = {f"{rule.name}: {rule.told}": self.unlearned[rule] for rule in RULES if rule in self.unlearned}
        return {**self.curated.dropped, **rules}


def plan(home: Home, task: str, policy: Policy, seed: int) -> Planned:
    """Divide a task's examples as a run of this policy and seed would; nothing is written, no label of the proof read.

    Raises InputError where there is no example, or no times to divide by.
    """
    found = curated(home, task)
    if not found.examples:
        left = "".join(f"; {len(ids):,} left out: {reason}" for reason, ids in found.dropped.items())
        raise InputError(f"task {task!r} has no records to learn from" + left)
    delta = bounds.attempt_delta(policy.delta, releases.attempts(home, task) + 1)
    room = curate.room(found.examples, policy, delta)
    short = None
    sizes = room.sizes
    if isinstance(sizes, int):
        short = f"too few to certify at max_error = {100 * policy.max_error:.3g}%: at least {sizes:,} more are needed"
        sizes = curate.sizes(room.units, 1)
        sizes = Sizes(room.units, 0, 0, 0) if isinstance(sizes, int) else sizes
    assigned = curate.split(
        found.examples,
        releases.get_splits(home, task),
        sizes,
        seed,
        by_time=policy.split == "time",
        peeked=found.marks.peeked,
    )
    cap = curate.most_of_a_unit(found.examples, assigned)
    splits, unlearned = curate.splits(found.examples, assigned, cap, None, found.marks)
    learnable = [*splits.train, *splits.tune]
    values = [plain(example.target) for example in learnable]
    contract = None
    if len({canonical(value) for value in values}) > 1:
        contract = contracts.of_task(found.prompt, [example.input for example in learnable], values)
        splits, outside = curate.keeping(splits, contract)
        unlearned = {**unlearned, **outside}
    return Planned(curated=found, assigned=assigned, splits=splits, unlearned=unlearned, contract=contract, short=short)


# ---------------------------------------------------------------------------------------------- manifests


class Line(msgspec.Struct, frozen=True, array_like=True):
    """One example: the record, digests of all of it and of its answer, its split, its source, whose word it is.

    `source` is `live`, or the digest and line of the file it was imported from; `kind` is `frontier`, `human` or
    `rule`.
    """

    record: str
    example: str
    answer: str
    split: str
    source: str
    kind: str
    group: str | None


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a dataset is made of; `dropped` counts what was left out, by reason."""

    task: str
    digest: str
    lines: tuple[Line, ...]
    dropped: dict[str, int]


def manifest(task: str, splits: Splits, found: Curated, unlearned: Dropped) -> Manifest:
    """The manifest of these splits, lines in the order of their records' names."""
    lines = [
        Line(
            record=example.id,
            example=example.digest()[:16],
            answer=digest_of(canonical(example.target))[:16],
            split=name,
            source=found.sources.get(example.id, LIVE),
            kind=example.reference_kind if example.has_reference else "frontier",
            group=example.group,
        )
        for name in SPLITS
        for example in getattr(splits, name)
    ]
    dropped = {reason: len(ids) for reason, ids in found.dropped.items()}
    return Manifest(
        task=task,
        digest=splits.digest(),
        lines=tuple(sorted(lines, key=lambda line: line.record)),
        dropped=dropped | {rule.told: len(unlearned[rule]) for rule in RULES if rule in unlearned},
    )


def keep(home: Home, made: Manifest) -> None:
    """Store a manifest as its task's newest."""
    datasets.put_manifest(home, made.task, made.digest, len(made.lines), msgspec.json.encode(made))


def kept(home: Home, task: str, digest: str) -> Manifest:
    """The stored manifest whose digest begins so. Raises InputError where none does, or several do."""
    found = datasets.get_manifest(home, task, digest)
    if found is None:
        known = ", ".join(one.digest[:12] for one in datasets.manifests(home, task)[:10]) or "none"
        raise InputError(
            f"there is no one dataset of task {task!r} whose digest begins with {digest!r}; known: {known}"
        )
    return msgspec.json.decode(found, type=Manifest)


def forget(home: Home, records: Collection[str]) -> list[str]:
    """Take what manifests say of these records out of them, but that they were there; which releases, as `triage@3`,
    were made of them.

    Their digests stay, which releases name: a manifest that was changed so no longer adds up to its own.
    """
    used: set[tuple[str, str]] = set()

    def changed(task: str, text: bytes) -> bytes | None:
        made = msgspec.json.decode(text, type=Manifest)
        if not any(line.record in records for line in made.lines):
            return None
        used.add((task, made.digest))
        lines = tuple(
            msgspec.structs.replace(line, example="", answer="", group=None) if line.record in records else line
            for line in made.lines
        )
        return msgspec.json.encode(msgspec.structs.replace(made, lines=lines))

    datasets.rewrite_manifests(home, changed)
    tasks = sorted({task for task, _ in used})
    stored = [one for task in tasks for one in releases.all_releases(home, task)]
    return [one.name for one in stored if (one.task, one.release.draft.dataset) in used]


class Diff(msgspec.Struct, frozen=True, kw_only=True):
    """What changed from one manifest to another, as record ids. `reread`: the same answer, but another input is read.

    `relabelled` have another answer, or the same on another's word. `moved` gives each record's split before and after.
    """

    added: tuple[str, ...]
    removed: tuple[str, ...]
    relabelled: tuple[str, ...]
    moved: tuple[tuple[str, str, str], ...]
    reread: tuple[str, ...]

    def told(self) -> str:
        """`+312 -4 (3 relabelled, 1 moved)`."""
        parts = ((self.relabelled, "relabelled"), (self.moved, "moved"), (self.reread, "read otherwise"))
        inside = ", ".join(f"{len(rows):,} {name}" for rows, name in parts if rows)
        return f"+{len(self.added):,} -{len(self.removed):,}" + (f" ({inside})" if inside else "")


def diff(old: Manifest, new: Manifest) -> Diff:
    """What changed from `old` to `new`."""
    before: Mapping[str, Line] = {line.record: line for line in old.lines}
    after: Mapping[str, Line] = {line.record: line for line in new.lines}
    both = [(before[name], line) for name, line in after.items() if name in before]
    return Diff(
        added=tuple(name for name in after if name not in before),
        removed=tuple(name for name in before if name not in after),
        relabelled=tuple(b.record for a, b in both if (a.answer, a.kind) != (b.answer, b.kind)),
        moved=tuple((b.record, a.split, b.split) for a, b in both if a.split != b.split),
        reread=tuple(b.record for a, b in both if a.answer == b.answer and a.kind == b.kind and a.example != b.example),
    )


def provenance(made: Manifest) -> dict[str, dict[str, int]]:
    """How many rows came from where (`live`, or a file's digest), and on whose word."""
    sources = Counter(line.source.partition(":")[0] for line in made.lines)
    return {"source": dict(sources.most_common()), "reference": dict(Counter(line.kind for line in made.lines))}
