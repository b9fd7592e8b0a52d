"""Which model families are installed, which of them a search may try, and how what they made is loaded."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from suffice.core.config import RUNTIMES, Config, Learn
from suffice.core.errors import ArtefactError, InputError
from suffice.core.protocols import Family, Specialist
from suffice.specialists.runtimes.chosen import Place
from suffice.store import artefacts
from suffice.store.home import Home
from suffice.store.releases import Stored

ALLOWED = "SUFFICE_FAMILIES"
"""An environment variable that says what `[learn] families` says, and comes before it: names between commas."""


UPSTREAM = "upstream"
"""The family whose models are elsewhere: nothing of it is installed, and settings say what may be tried."""
_TO_SERVE = ("onnxruntime",)
_TO_LEARN = ("torch", "transformers", "onnx")
CAUSAL = "causal"
"""The family that generates. Discovery does not count on it: it takes minutes, and a verifier for what it writes."""
_TO_TUNE = ("torch", "transformers", "trl", "peft", "gguf", "llguidance")


def installed(folder: Path = Path(), base: str | None = None) -> list[Family]:
    """The families that this machine can serve, cheapest first: of the home `folder`, over the base model `base`."""
    from suffice.specialists.linear import LinearFamily
    from suffice.specialists.nearest import NearestFamily

    known: list[Family] = [LinearFamily(), NearestFamily()]
    if not _missing(_TO_SERVE):
        from suffice.specialists.encoder import EncoderFamily

        known.append(EncoderFamily(base, folder / "bases"))
    return known


def no_encoder(base: str | None) -> str | None:
    """Why encoders cannot be learned here, in a few words; None if they can.

    Raises InputError where the settings name a base model that is not there.
    """
    missing = _missing((*_TO_SERVE, *_TO_LEARN))
    if missing:
        return f"not installed: {', '.join(missing)} (`make encoders`)"
    from suffice.specialists.encoder_export import named_folder

    try:
        named_folder(base)
    except InputError as error:
        if base is not None:
            raise
        return str(error)
    return None


def no_causal(base: str | None, runtime: str = "auto") -> str | None:
    """Why generating models cannot be tuned here, in a few words; None if they can. Raises InputError as above."""
    from suffice.specialists.runtimes import chosen

    missing = _missing(_TO_TUNE)
    if missing:
        return f"not installed: {', '.join(missing)} (`make llm`)"
    lacking = {kind: chosen.missing(kind) for kind in RUNTIMES}
    if runtime == "auto" and all(lacking.values()):
        return f"no runtime is installed: {', '.join(RUNTIMES)} (`make llm`)"
    if runtime in RUNTIMES and lacking[runtime]:
        return f"[learn] runtime {runtime}: {lacking[runtime]}"
    from suffice.specialists.causal_base import named

    try:
        named(base)
    except InputError as error:
        if base is not None:
            raise
        return str(error)
    return None


def places(settings: Config) -> dict[str, Place]:
    """The servers that run models which write, as the settings have them, with their keys."""
    return {
        name: Place(
            name=name,
            kind=server.kind,
            url=server.base_url.rstrip("/"),
            model=server.model,
            key=os.environ.get(server.api_key_env) if server.api_key_env else None,
            timeout_s=server.timeout_s,
        )
        for name, server in settings.runtimes.items()
    }


def causal(
    folder: Path,
    base: str | None = None,
    wanted: bool = True,
    runtime: str | None = None,
    servers: Mapping[str, Place] | None = None,
) -> Family:
    """The family that generates, of the home `folder`; not `wanted`: only for what smaller families cannot answer.
    `runtime`: what runs what it makes, None where nothing is made."""
    from suffice.specialists.causal import CausalFamily
    from suffice.specialists.runtimes.chosen import choose

    choice = choose(runtime, servers or {}) if runtime is not None else None
    return CausalFamily(base, folder / "bases", wanted, choice=choice, places=servers)


def _missing(packages: Sequence[str]) -> list[str]:
    return [name for name in packages if importlib.util.find_spec(name) is None]


def allowed(
    settings: Learn, folder: Path, recipe: str | None = None, servers: Mapping[str, Place] | None = None
) -> list[Family]:
    """Those that a search may try in the home `folder`: all that can be learned here, unless the settings name some;
    only one, if `recipe` names it.

    Raises InputError for a name that is not installed, and for a base model that is not there.
    """
    lacking = no_encoder(settings.encoder)
    known = [one for one in installed(folder, settings.encoder) if lacking is None or one.name != "encoder"]
    place, wanted = wished(settings, recipe)
    untuned = no_causal(settings.causal, settings.runtime) if CAUSAL in wanted or not wanted else ""
    if untuned is None:
        known.append(causal(folder, settings.causal, CAUSAL in wanted, settings.runtime, servers))
    for name in wanted:
        if name == CAUSAL and untuned:
            raise InputError(f"{place} causal: {untuned}")
        if name != UPSTREAM and name not in [family.name for family in known]:
            if name == "encoder" and lacking is not None:
                raise InputError(f"{place} encoder: {lacking}")
            here = ", ".join(family.name for family in known)
            raise InputError(f"{place} {name}: no such family here; known: {here}")
    return [family for family in known if not wanted or family.name in wanted]


def wished(settings: Learn, recipe: str | None) -> tuple[str, list[str]]:
    """The families that are asked for by name, and where; none: all."""
    named = os.environ.get(ALLOWED, "").replace(",", " ").split()
    if recipe is not None:
        return "--recipe", [recipe]
    return (ALLOWED, named) if named else ("[learn] families:", list(settings.families))


def load_specialist(home: Home, servers: Mapping[str, Place] | None = None) -> Callable[[Stored], Specialist]:
    """How a release's specialist is loaded: its family reads the artefact, after its digest was checked. `servers` run
    what one of them was certified with."""

    def load(stored: Stored) -> Specialist:
        draft = stored.release.draft
        return _artefact(home, draft.artefact, draft.recipe.family, f"release {stored.name}", servers)

    return load


def load_matcher(home: Home) -> Callable[[str], Specialist]:
    """How the model is loaded that tells work apart which shares a prompt; it is of the linear family."""
    return lambda artefact: _artefact(home, artefact, "linear", "the matcher")


def _artefact(
    home: Home, digest: str, family: str, whose: str, servers: Mapping[str, Place] | None = None
) -> Specialist:
    """Raises ArtefactError where the files are not whole, not the ones with this digest, or nothing here reads them."""
    folder = artefacts.folder_of(home, digest)
    if not folder.is_dir():
        raise ArtefactError(f"{folder}: the files of {whose} are gone")
    if artefacts.digest_of_files(folder) != digest:
        raise ArtefactError(f"{folder}: the files of {whose} are not the ones that were certified")
    if family == UPSTREAM:
        from suffice.specialists.upstream import UpstreamFamily

        return UpstreamFamily().load(folder)
    for known in [*installed(home.folder), causal(home.folder, servers=servers)]:
        if known.name == family:
            return known.load(folder)
    raise ArtefactError(f"{whose} is of the family `{family}`, which is not installed here")
