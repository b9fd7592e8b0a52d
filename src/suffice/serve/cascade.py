"""The decision, pure: who answers this request, and why. Nothing here waits, reads a clock or fails."""

from __future__ import annotations

from suffice.core.types import Accepted, Decision, Escalated, Prediction, Reason, Route, Stage


def closed(route: Route, stage: Stage | None, has_release: bool, fresh: bool, broken: bool) -> Reason | None:
    """Why the specialist is not even asked; None if it is.

    `stage` is None where no task matched; `fresh`: the routing state was looked at within the last second; `broken`:
    the release's files could not be loaded.
    """
    if route is Route.FRONTIER:
        return Reason.FORCED
    if stage is None:
        return Reason.NO_TASK
    if stage is Stage.OBSERVE:
        return Reason.OBSERVE
    if not has_release:
        return Reason.REVOKED if stage is Stage.REVOKED else Reason.NO_RELEASE
    if not fresh or broken:
        return Reason.REVOKED if stage is Stage.REVOKED else Reason.FAULT
    return None


def decide(
    prediction: Prediction,
    refused: Reason | None,
    *,
    release: str,
    stage: Stage,
    fits: bool,
    coin: float,
    canary_share: float,
) -> Decision:
    """The decision on an answer that the specialist has given.

    `refused` is what the accepting rule says (`core.contracts.refusal`); `fits`: the rendered answer is within the
    caller's token limit; `coin` is uniform in [0, 1), drawn by the caller. A revoked release is asked all the same, as
    in shadow: what it would have said is what it may be certified by again.
    """
    reason = refused
    if reason is None and not fits:
        reason = Reason.UNSUPPORTED
    if reason is None and stage is Stage.SHADOW:
        reason = Reason.SHADOW
    if reason is None and stage is Stage.CANARY and coin >= canary_share:
        reason = Reason.CANARY
    if stage is Stage.REVOKED:
        reason = Reason.REVOKED
    if reason is not None:
        return Escalated(reason=reason, release=release, prediction=prediction)
    return Accepted(release=release, prediction=prediction)


def audit_chance(stage: Stage, reason: Reason, chance: float, canary_share: float) -> float | None:
    """With which probability the frontier's answer comes to be known too; None where the specialist does not answer.

    `chance` is that of an audit of an answer given. In a canary the specialist is kept from answering by a coin, and
    the frontier's answer is then at hand anyway: (1 - s) + s·q.
    """
    if reason is Reason.ACCEPTED and stage is Stage.LIVE:
        return chance
    if reason in (Reason.ACCEPTED, Reason.CANARY):
        return (1 - canary_share) + canary_share * chance
    return None
