"""The candidates that are upstreams' models: which of them may be asked about a task, and how."""

from __future__ import annotations

from suffice.cli import families
from suffice.cli.asker import Asker
from suffice.core.config import CandidateModel, Config
from suffice.core.errors import InputError
from suffice.core.protocols import Family, Specialist
from suffice.core.types import Egress, Usage
from suffice.plan.prices import Prices
from suffice.serve.egress import strictest
from suffice.store import artefacts, keys
from suffice.store.home import Home
from suffice.store.releases import Stored


def allowed(home: Home, config: Config, task: str, recipe: str | None) -> list[Family]:
    """The candidates that one run for a task may try, the cheapest first; each has an account of its own.

    Raises InputError where `recipe` asks for one and there is none that may be asked.
    """
    from suffice.specialists.upstream import UpstreamFamily

    wanted = families.wished(config.learn, recipe)[1]
    if wanted and families.UPSTREAM not in wanted:
        return []
    egress, keep_days = _rule(home, config, task), config.keep_days_of(task)
    told = sorted(config.candidates.items(), key=lambda named: _price(config, named[1]))
    refused = {name: _kept_here(config, name, one, egress) for name, one in told}
    if recipe == families.UPSTREAM and all(refused.values()):
        why = "; ".join(why for why in refused.values() if why)
        raise InputError(why or "--recipe upstream: there is no candidate: [candidates.NAME] names upstream and model")
    return [
        UpstreamFamily(
            one,
            Asker(home, config, one, egress, one.max_usd, keep_days) if refused[name] is None else None,
            refused[name],
        )
        for name, one in told
    ]


def to_answer(home: Home, config: Config, stored: Stored, specialist: Specialist) -> Specialist:
    """The specialist of a release as `suffice answer` asks it: one that is elsewhere with a way there.

    Raises InputError where the task's requests may not leave for it.
    """
    from suffice.specialists.upstream import UpstreamFamily
    from suffice.specialists.upstream_model import UpstreamSpecialist

    if not isinstance(specialist, UpstreamSpecialist):
        return specialist
    egress, keep_days = _rule(home, config, stored.task), config.keep_days_of(stored.task)
    told = CandidateModel(upstream=specialist.upstream, model=specialist.model)
    refused = _kept_here(config, None, told, egress)
    if refused is not None:
        raise InputError(f"release {stored.name}: {refused}")
    asker = Asker(home, config, told, egress, None, keep_days)
    folder = artefacts.folder_of(home, stored.release.draft.artefact)
    return UpstreamFamily(told, asker).load(folder)


def _rule(home: Home, config: Config, task: str) -> Egress:
    """The strictest rule under which any of the task's requests may have come: the task's own, or that of a key.

    Which key a row came by is no part of an example, so the rule of one is that of all.
    """
    able = [key for key in keys.all_keys(home) if not key.tasks or task in key.tasks]
    return strictest(config.policy_of(task).egress, *(key.egress for key in able))


def _kept_here(config: Config, name: str | None, candidate: CandidateModel, egress: Egress) -> str | None:
    """Why no request of a task under this rule may go to a candidate, in words; None if it may."""
    known = config.upstreams.get(candidate.upstream)
    place = f"[candidates.{name}]: " if name is not None else ""
    if known is None:
        return f"{place}upstream {candidate.upstream!r} is not configured"
    if egress == "never" and not known.inside:
        rule = f"(egress = {egress!r}), which is not inside"
        return f"{place}requests may not leave for upstream {candidate.upstream!r} {rule}"
    return None


def _price(config: Config, candidate: CandidateModel) -> float:
    """For the order: what a question of a thousand tokens and a short answer costs."""
    return Prices(config.prices).usd(candidate.model, Usage(prompt=1_000, completion=20)) or 0.0
