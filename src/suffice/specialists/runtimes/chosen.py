"""Which runtime runs a causal specialist: its files made, opened again, and the same one as it was certified with.

The runtimes themselves are imported when one of them is opened: each needs packages of its own.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.errors import ArtefactError, InputError
from suffice.specialists.runtime import Runtime

LLAMACPP, CTRANSLATE2, GENAI, VLLM, OLLAMA, MLX = "llamacpp", "ctranslate2", "genai", "vllm", "ollama", "mlx"
GGUF = "model.gguf"
Open = Callable[[], Runtime]

PACKAGES: Mapping[str, Sequence[str]] = {
    LLAMACPP: ("xllamacpp",),
    CTRANSLATE2: ("ctranslate2", "llguidance", "tokenizers"),
    GENAI: ("onnxruntime_genai", "llguidance", "tokenizers"),
}
"""What each that runs in this process is imported from; the first has the version that counts."""
_MADE = {LLAMACPP: "make llm", CTRANSLATE2: "pip install 'suffice[runtimes]'", GENAI: "pip install 'suffice[runtimes]'"}
_BITS: Mapping[str, tuple[int, ...]] = {
    LLAMACPP: (4, 8),
    CTRANSLATE2: (8,),
    GENAI: (32,),
    OLLAMA: (4, 8),
    VLLM: (16,),
    MLX: (16,),
}
"""What weights are rounded to, the fewest bits first."""


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A server of the settings: its name there, what it is, how it is reached. `key` is its key, never stored."""

    name: str
    kind: str
    url: str
    model: str | None = None
    key: str | None = None
    timeout_s: float = 60.0


class Used(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a release is served by: the one it was certified with.

    `server`: the name under `[runtimes.NAME]`, None for one in this process; `model`: what that server calls it;
    `ends`: the tokens that end an answer.
    """

    kind: str = LLAMACPP
    server: str | None = None
    version: str = ""
    model: str | None = None
    ends: tuple[int, ...] = ()


class Choice(msgspec.Struct, frozen=True):
    """What the settings name: a kind, and where it is a server, its place."""

    kind: str = LLAMACPP
    place: Place | None = None

    @property
    def told(self) -> dict[str, str]:
        """What a recipe says of it: nothing of llama.cpp in this process, which is what recipes mean."""
        if self.place is not None:
            return {"runtime": f"{self.kind}:{self.place.name}"}
        return {} if self.kind == LLAMACPP else {"runtime": self.kind}

    @property
    def bits(self) -> tuple[int, ...]:
        """What weights may be rounded to, the fewest bits first. A server of llama.cpp has the one file it has."""
        return (8,) if self.place is not None and self.kind == LLAMACPP else _BITS[self.kind]


def missing(kind: str) -> str | None:
    """Why a runtime of this process cannot be used here, in a few words; None where it can."""
    lacking = [name for name in PACKAGES[kind] if importlib.util.find_spec(name) is None]
    return f"not installed: {', '.join(lacking)} (`{_MADE[kind]}`)" if lacking else None


def choose(wanted: str, places: Mapping[str, Place]) -> Choice:
    """What `[learn] runtime` names. Raises InputError, with how to install it, for one that is not here."""
    if wanted in places:
        return Choice(places[wanted].kind, places[wanted])
    if wanted == "auto":
        return Choice(next((kind for kind in PACKAGES if missing(kind) is None), LLAMACPP))
    lacking = missing(wanted)
    if lacking is not None:
        raise InputError(f"[learn] runtime {wanted}: {lacking}")
    return Choice(wanted)


def make(choice: Choice, checkpoint: Path, own: Path, bits: int, ends: Sequence[int]) -> Used:
    """Write what this runtime reads into the folder `own`, from a checkpoint as transformers writes it.

    Raises InputError, in one sentence, for a model that it has no form for, and a server that does not answer.
    """
    from suffice.specialists.causal_gguf import write_gguf

    kind, place = choice.kind, choice.place
    if kind == CTRANSLATE2:
        from suffice.specialists.runtimes.ctranslate2_ import write_ctranslate2

        write_ctranslate2(checkpoint, own, bits=bits)
    elif kind == GENAI:
        from suffice.specialists.runtimes.genai import write_genai

        write_genai(checkpoint, own)
    elif kind in (LLAMACPP, OLLAMA):
        write_gguf(checkpoint, own / GGUF, bits=bits)
    if place is None:
        return Used(kind=kind, version=_version(kind), ends=tuple(ends) if kind != LLAMACPP else ())
    from suffice.specialists.runtimes.served import keep_files, version_at

    keep_files(kind, checkpoint, own)
    return Used(kind=kind, server=place.name, version=version_at(place), model=place.model, ends=tuple(ends))


def rounding(kind: str) -> Callable[[Any, int], Any]:
    """How this runtime rounds weights: a copy of a torch model with what they are then."""
    from suffice.specialists.causal_gguf import rounded

    if kind == CTRANSLATE2:
        from suffice.specialists.runtimes.ctranslate2_ import rounded_rows

        return rounded_rows
    return rounded


def opening(used: Used, folder: Path, context: int, places: Mapping[str, Place]) -> Open:
    """How the runtime that serves is opened. Raises ArtefactError, when called, where it is not here, is another
    version than the one that was certified, or cannot read the files."""

    def open_one() -> Runtime:
        if used.server is not None:
            return _served(used, folder, context, places)
        lacking = missing(used.kind)
        if lacking is not None:
            raise ArtefactError(f"{folder} was certified with the runtime {used.kind}, which is {lacking}")
        here = _version(used.kind)
        if used.version not in ("", here):
            raise ArtefactError(
                f"{folder} was certified with {used.kind} {used.version}, and {here} is here: install that one, or "
                "learn the task again"
            )
        return _in_process(used, folder, context)

    return open_one


def _in_process(used: Used, folder: Path, context: int) -> Runtime:
    if used.kind == CTRANSLATE2:
        from suffice.specialists.runtimes.ctranslate2_ import open_ctranslate2

        return open_ctranslate2(folder, context=context, ends=used.ends)
    if used.kind == GENAI:
        from suffice.specialists.runtimes.genai import open_genai

        return open_genai(folder, context=context, ends=used.ends)
    from suffice.specialists.runtimes.llamacpp import open_llamacpp

    return open_llamacpp(folder / GGUF, context=context)


def _served(used: Used, folder: Path, context: int, places: Mapping[str, Place]) -> Runtime:
    place = places.get(used.server or "")
    if place is None or place.kind != used.kind:
        raise ArtefactError(
            f"{folder} was certified with {used.kind} at [runtimes.{used.server}], which the settings do not have"
        )
    from suffice.specialists.runtimes.served import open_served

    return open_served(place, folder, context=context, used=used)


def _version(kind: str) -> str:
    return importlib.metadata.version(PACKAGES[kind][0].replace("_", "-"))
