"""An adapter that was tuned elsewhere (peft's form): checked against its base, then made a specialist like one of ours.

What is looked at before anything is loaded: the settings, the names and shapes of its matrices against the base's, and
whether their numbers are finite. Two bases of one shape are told apart by their names only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from suffice.core.errors import InputError
from suffice.core.types import Recipe, digest_of
from suffice.specialists.causal import CausalFamily
from suffice.specialists.causal_store import ADAPTER
from suffice.specialists.runtimes.chosen import Choice, Place

Shape = tuple[int, ...]
NOTE = "suffice.json"
"""Written by `suffice dataset --as-served` beside the rows."""
_PREFIX = "base_model.model."
_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


class _Note(msgspec.Struct, frozen=True):
    """What an export notes for the way back."""

    instruction: str | None = None


class AdapterConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What of `adapter_config.json` matters here."""

    peft_type: str
    r: int = 8
    task_type: str | None = None
    base_model_name_or_path: str | None = None
    target_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: Any = None
    rank_pattern: dict[str, int] | None = None
    exclude_modules: Any = None


class AdaptedFamily(CausalFamily):
    """The causal family with an adapter that was tuned elsewhere: nothing is tuned, all else is the same.

    `digest` is `checked`'s. Runs with other adapters are other runs.
    """

    def __init__(
        self,
        base: str | None,
        bases: Path,
        adapter: Path,
        digest: str,
        choice: Choice | None = None,
        places: Mapping[str, Place] | None = None,
    ) -> None:
        super().__init__(base, bases, True, adapter, choice=choice, places=places)
        self._digest, self._told = digest, told_instruction(adapter)
        self.identity = " ".join([f"{self.name} {base} {digest} {self._told}", *self._choice.told.values()])

    def recipes(self, seed: int) -> list[Recipe]:
        """As the family's, with the adapter's digest."""
        return [
            msgspec.structs.replace(recipe, params={**recipe.params, "adapter": self._digest[:12]})
            for recipe in super().recipes(seed)
        ]


def told_base(adapter: Path) -> str | None:
    """The base that an adapter says it is for. Raises InputError where its settings cannot be read."""
    return _config(adapter).base_model_name_or_path


def told_instruction(adapter: Path) -> str | None:
    """The instruction of the export that an adapter was tuned on: what the export has noted lies beside the adapter, or
    one folder up, where the configurations that it writes put what they train. None: that of the contract holds.

    Raises InputError for a note that cannot be read.
    """
    for path in (adapter / NOTE, adapter.resolve().parent / NOTE):
        if path.is_file():
            try:
                return msgspec.json.decode(path.read_bytes(), type=_Note).instruction
            except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
                raise InputError(f"{path} cannot be read: {error}") from error
    return None


def checked(adapter: Path, base: Path, named: str | None) -> str:
    """The digest of an adapter that fits the base in this folder (named `named`, None: the installed package's).

    Raises InputError, in one sentence, for whatever keeps it from being used.
    """
    config = _config(adapter)
    _check_names(adapter, config, named)
    weights = adapter / ADAPTER[0]
    if not weights.is_file():
        if (adapter / "adapter_model.bin").exists():
            raise InputError(
                f"{adapter}: its weights are pickled (adapter_model.bin), which is not read: save them as safetensors"
            )
        raise InputError(f"{adapter}: there is no {ADAPTER[0]}")
    shapes, modules = _header(weights), _modules(base)
    pairs = _pairs(adapter, shapes)
    for module, pair in sorted(pairs.items()):
        _check_pair(adapter, module, pair, modules, config)
    _check_whole(adapter, config, pairs, modules)
    _check_finite(weights)
    return digest_of(*((adapter / name).read_bytes() for name in ADAPTER))


def _config(adapter: Path) -> AdapterConfig:
    path = adapter / ADAPTER[1]
    if not adapter.is_dir():
        raise InputError(f"--adapter {adapter}: there is no such folder")
    if not path.is_file():
        raise InputError(f"{adapter}: there is no {ADAPTER[1]}, so it is no adapter in peft's form")
    try:
        config = msgspec.json.decode(path.read_bytes(), type=AdapterConfig)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
    if config.peft_type != "LORA":
        raise InputError(f"{adapter}: it is an adapter of the kind {config.peft_type}, and only LORA is merged here")
    if config.task_type not in (None, "CAUSAL_LM"):
        raise InputError(f"{adapter}: it is for {config.task_type}, not for a model that writes (CAUSAL_LM)")
    if config.modules_to_save:
        raise InputError(
            f"{adapter}: it brings whole layers along (modules_to_save: {', '.join(config.modules_to_save)}), "
            "where only low-rank matrices are merged here"
        )
    return config


def _check_names(adapter: Path, config: AdapterConfig, named: str | None) -> None:
    """Names of the hub say whose weights they are; a path says nothing."""
    told = config.base_model_name_or_path or ""
    if named is not None and _HUB.fullmatch(told) and _HUB.fullmatch(named) and told != named:
        raise InputError(f"{adapter}: it was tuned on {told}, and the base here is {named}: say --base {told}")


def _header(file: Path) -> dict[str, tuple[str, Shape]]:
    """The type and shape of each tensor in a safetensors file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as opened:
            parts = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118 - it is no mapping
            return {name: (str(part.get_dtype()), tuple(part.get_shape())) for name, part in parts.items()}
    except (OSError, SafetensorError) as error:
        raise InputError(f"{file} is not whole: {error}") from error


def _modules(base: Path) -> dict[str, Shape]:
    """The matrices of a base: (out, in) by the name of their module."""
    found: dict[str, Shape] = {}
    for file in sorted(base.glob("*.safetensors")):
        for name, (_, shape) in _header(file).items():
            if name.endswith(".weight") and len(shape) == 2:
                found[name.removesuffix(".weight")] = shape
    return found


def _pairs(adapter: Path, shapes: Mapping[str, tuple[str, Shape]]) -> dict[str, dict[str, Shape]]:
    """The two matrices of each module, by the module's name in the base."""
    found: dict[str, dict[str, Shape]] = {}
    for name, (_, shape) in shapes.items():
        module, _, rest = name.removeprefix(_PREFIX).partition(".lora_")
        if rest in ("A.weight", "B.weight"):
            found.setdefault(module, {})[rest[0]] = shape
        elif rest != "magnitude_vector":
            raise InputError(f"{adapter}: it holds {name}, which is no low-rank matrix")
    if not found:
        raise InputError(f"{adapter}: it holds no low-rank matrix")
    return found


def _check_pair(
    adapter: Path, module: str, pair: Mapping[str, Shape], modules: Mapping[str, Shape], config: AdapterConfig
) -> None:
    if missing := [side for side in "AB" if side not in pair]:
        raise InputError(f"{adapter}: {module} has no lora_{missing[0]}: it is not whole")
    if module not in modules:
        raise InputError(f"{adapter}: it changes {module}, which the base does not have: it is for another base")
    (rank, width), (height, other) = pair["A"], pair["B"]
    if rank != other or (not config.rank_pattern and rank != config.r):
        raise InputError(
            f"{adapter}: {module} has matrices of rank {rank} and {other} where its settings say {config.r}"
        )
    if (height, width) != modules[module]:
        told = " x ".join(map(str, modules[module]))
        raise InputError(
            f"{adapter}: {module} is {height} x {width} where the base's is {told}: it is for another base"
        )


def _check_whole(
    adapter: Path, config: AdapterConfig, pairs: Mapping[str, object], modules: Mapping[str, Shape]
) -> None:
    """Raises InputError where a module that the settings name has no matrices; settings by a pattern name none."""
    if not isinstance(config.target_modules, list) or config.layers_to_transform is not None or config.exclude_modules:
        return
    wanted = [name for name in modules if _targeted(name, config.target_modules)]
    missing = [name for name in wanted if name not in pairs]
    if missing:
        raise InputError(
            f"{adapter}: {len(missing)} of {len(wanted)} modules that its settings name have no matrices, "
            f"{missing[0]} among them: it is not whole, or for another base"
        )


def _targeted(module: str, targets: Sequence[str]) -> bool:
    return any(module == target or module.endswith(f".{target}") for target in targets)


def _check_finite(weights: Path) -> None:
    from safetensors.torch import load_file

    for name, tensor in load_file(weights).items():
        if not bool(tensor.isfinite().all()):
            raise InputError(f"{weights}: {name} holds a number that is not finite")
