"""The decision, pure: who answers this request, and why. Nothing here waits, reads a clock or fails."""

from __future__ import annotations

from suffice.core.contracts import refusal
from suffice.core.types import Accepted, Decision, Escalated, OutputContract, Prediction, Reason, Route, Stage


def closed(route: Route, stage: Stage | None, has_release: bool, fresh: bool, broken: bool) -> Reason | None:
    """Why the specialist is not even asked; None if it is.

    `stage` is None where no task matched; `fresh`: the routing state was looked at within the last second; `broken`:
    the release's files could not be loaded.
    """
    if route is Route.FRONTIER:
        return Reason.FORCED
    if stage is None:
        return Reason.NO_TASK
    if stage is Stage.REVOKED:
        return Reason.REVOKED
    if stage is Stage.OBSERVE:
        return Reason.OBSERVE
    if not has_release:
        return Reason.NO_RELEASE
    if not fresh or broken:
        return Reason.FAULT
    return None


def decide(
    prediction: Prediction,
    *,
    release: str,
    contract: OutputContract,
    threshold: float,
    stage: Stage,
    fits: bool,
    coin: float,
    canary_share: float,
) -> Decision:
    """The decision on an answer that the specialist has given.

    `fits`: the rendered answer is within the caller's token limit; `coin` is uniform in [0, 1), drawn by the caller.
    """
    reason = refusal(prediction, contract, threshold)
    if reason is None and not fits:
        reason = Reason.UNSUPPORTED
    if reason is None and stage is Stage.SHADOW:
        reason = Reason.SHADOW
    if reason is None and stage is Stage.CANARY and coin >= canary_share:
        reason = Reason.CANARY
    if reason is not None:
        return Escalated(reason=reason, release=release, prediction=prediction)
    return Accepted(release=release, prediction=prediction)
