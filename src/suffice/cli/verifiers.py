"""The verifiers that a task declares, put together: rules and schemas from files, likeness, a judge that is asked.

Files lie beside `suffice.toml`. What is read from one is pinned to its contents, so that a certificate names the very
rule that it was made by, and a watch never goes by another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click
import msgspec

from suffice.cli.asker import Asker
from suffice.core import grading
from suffice.core.config import CandidateModel, Config
from suffice.core.errors import InputError
from suffice.core.grading import Part
from suffice.core.losses import Graders, Unverified
from suffice.core.protocols import Grader
from suffice.core.types import Egress, LossName, Usage
from suffice.core.values import Value
from suffice.learn.referee import Pair, Referee, pairs_in
from suffice.plan.prices import Prices
from suffice.serve.verifying import Verifiers
from suffice.store.home import Home


class Declared(msgspec.Struct, frozen=True):
    """What learning needs of a task's verifiers: the loss with its pins, the verifiers, the pairs of its judge."""

    loss: LossName
    graders: Graders
    pairs: Sequence[Pair] | None


def to_learn(home: Home, config: Config, place: Path, task: str, loss: LossName, egress: Egress) -> Declared:
    """All that `loss` declares, ready to be asked; `place` is the folder of the settings.

    Raises InputError, naming the file, for a rule or schema that cannot be used, and for a judge without a price.
    """
    found, graders, pairs = [], {}, None
    for part in grading.parts(loss):
        grader: Grader | None
        if part.verifier == grading.JUDGE:
            judge = config.judges[part.of]
            grader = _judge(home, config, part.of, task, egress)
            part = msgspec.structs.replace(part, pin=grader.pin)
            pairs = pairs_in(place / judge.pairs) if judge.pairs is not None else None
        else:
            part = _pinned(part, place)
            grader = _local(part, place)
        found.append(part)
        if grader is not None:
            graders[part.key] = grader
    return Declared(grading.text_of(tuple(found)), graders, pairs)


def to_watch(place: Path, loss: LossName) -> Graders:
    """What a certificate's loss takes to judge live answers. A file that is gone, or another by now, judges none."""
    graders: dict[str, Grader] = {}
    for part in grading.parts(loss):
        try:
            now = _pinned(msgspec.structs.replace(part, pin=""), place)
            if part.pin and now.pin != part.pin:
                graders[part.key] = Absent(f"{part.of} is not the file that {part.text} was certified with")
                continue
            grader = _local(part, place)
        except InputError as error:
            grader = Absent(f"{part.text}: {error}")
        if grader is not None:
            graders[part.key] = grader
    return graders


def at_hand(home: Home, place: Path | None) -> Verifiers:
    """What judges live answers of this home; `place` is the file of its settings, None without one."""
    return Verifiers(home, partial(to_watch, place.parent if place is not None else Path()))


class Absent:
    """A verifier that cannot be asked, and why."""

    def __init__(self, why: str) -> None:
        self._why = why

    def __call__(self, input: str, said: Value, right: Value) -> float:
        """Raises Unverified."""
        raise Unverified(self._why)

    def prepare(self, cases: Sequence[tuple[str, Value, Value]]) -> None:
        """Nothing."""

    def fault(self) -> str | None:
        """None: asking it says so."""
        return None


def _local(part: Part, place: Path) -> Grader | None:
    """A verifier that asks nobody; None for one that needs the two answers alone, or the contract."""
    if part.verifier == grading.EMBEDDING:
        from suffice.specialists.embedding import shared_static_embedding
        from suffice.specialists.verifying import Likeness

        return Likeness(shared_static_embedding().vector)
    if part.verifier == grading.SCHEMA and part.of:
        from suffice.specialists.verifying import schema_of

        return schema_of(place / part.of)
    if part.verifier == grading.RULE:
        from suffice.specialists.rules import Rule

        file, _, function = part.of.rpartition(":")
        rule = Rule(place / file, function)
        rule.check()
        return rule
    return None


def _pinned(part: Part, place: Path) -> Part:
    """With the digest of the file that it is read from. Raises InputError where that cannot be read."""
    name = part.of.rpartition(":")[0] if part.verifier == grading.RULE else part.of
    if part.verifier not in (grading.RULE, grading.SCHEMA) or not name:
        return part
    try:
        contents = (place / name).read_bytes()
    except OSError as error:
        raise InputError(f"{place / name}: cannot be read: {error.strerror}") from error
    return msgspec.structs.replace(part, pin=hashlib.sha256(contents).hexdigest()[:12])


def _judge(home: Home, config: Config, name: str, task: str, egress: Egress) -> Referee:
    """A judge, with the way to its upstream. Says that rows of the task leave for it."""
    told = config.judges[name]
    candidate = CandidateModel(upstream=told.upstream, model=told.model)
    inside = config.upstreams[told.upstream].inside
    if not inside and Prices(config.prices).usd(told.model, Usage(prompt=1, completion=1)) is None:
        raise InputError(f"what judge {name} costs is not known: add [prices.{told.model!r}] to suffice.toml")
    asker = Asker(home, config, candidate, egress, told.max_usd, config.keep_days_of(task))
    where = "" if inside else ", outside"
    click.echo(
        f"suffice: judge {name} is asked twice about every answer that differs: rows of task {task} go to upstream "
        f"{told.upstream!r}{where}, model {told.model}; at most {told.max_usd:g} USD",
        err=True,
    )
    return Referee(name, told.model, told.instruction, asker)
