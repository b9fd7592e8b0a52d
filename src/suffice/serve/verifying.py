"""How live answers are judged: by the certificate's own verifiers, where these can be asked here.

A model that judges is asked while learning only: nobody's words leave this machine for a watch. What it has certified
is watched by how alike the answers are to the frontier's (`watched`), against what the first audits show of that.
"""

from __future__ import annotations

from collections.abc import Callable

from suffice.core import grading
from suffice.core.errors import InputError
from suffice.core.losses import Graders, Keeps, Unverified, loss
from suffice.core.types import LossName, Reason
from suffice.core.values import Value
from suffice.store import records
from suffice.store.home import Home
from suffice.store.releases import Stored
from suffice.wire import dialects

Grade = Callable[[LossName, Value, Value, str], float]
"""The loss of what was said where something else is right, for the request of a record. Raises Unverified."""


def watched(name: LossName) -> LossName:
    """The loss that live answers are judged by, of a release that was certified by this one."""
    return grading.EMBEDDING if grading.judge_of(name) is not None else name


def alike(declared: LossName, certified: LossName) -> bool:
    """Whether a loss is declared still, whatever the files say by now that a certificate pins."""

    def bare(name: LossName) -> list[tuple[str, str, float | None]]:
        return [(part.verifier, part.of, part.least) for part in grading.parts(name)]

    return bare(declared) == bare(certified)


def by_value(name: LossName, said: Value, right: Value, record: str) -> float:
    """By the two answers alone. Raises Unverified for what takes more."""
    return loss(name, said, right)


class Verifiers:
    """The verifiers of all that is served, made when first asked for; `graders_of` makes those of one loss."""

    def __init__(self, home: Home, graders_of: Callable[[LossName], Graders]) -> None:
        self._home, self._graders_of = home, graders_of
        self._known: dict[LossName, Graders] = {}

    def grade(self, stored: Stored) -> Grade:
        """How answers of this release are judged."""

        def grade(name: LossName, said: Value, right: Value, record: str) -> float:
            reads = any(part.verifier == grading.RULE for part in grading.parts(name))
            return loss(name, said, right, self._input(stored, record) if reads else "", self._of(name, stored))

        return grade

    def forget(self) -> None:
        """Make them anew when they are next asked for: a file may be there again that was gone."""
        self._known.clear()

    def faults(self, name: LossName) -> list[str]:
        """What went wrong with the verifiers of a loss since this was last asked."""
        return [told for grader in self._known.get(name, {}).values() if (told := grader.fault()) is not None]

    def _of(self, name: LossName, stored: Stored) -> Graders:
        if name not in self._known:
            self._known[name] = self._graders_of(name)
        if grading.SCHEMA in {part.key for part in grading.parts(name)}:
            return {**self._known[name], grading.SCHEMA: Keeps(stored.release.draft.contract)}
        return self._known[name]

    def _input(self, stored: Stored, record: str) -> str:
        """What the specialist reads of a recorded request. Raises Unverified where nothing can be read of it."""
        row = next((row for row, _ in records.query(self._home, ids=[record])), None)
        if row is not None and row.dialect == "short":
            return row.input or ""
        if row is None or row.request is None or stored.prompt is None:
            raise Unverified("the request that an answer was given to is not at hand")
        try:
            text = stored.prompt.read(dialects.request_in(row.dialect, row.request))
        except InputError as error:
            raise Unverified(f"the request that an answer was given to cannot be read: {error}") from error
        if isinstance(text, Reason):
            raise Unverified("the request that an answer was given to has another prompt")
        return text
