"""Writes GGUF, what llama.cpp reads, from a checkpoint as transformers writes it (config, safetensors, tokenizer).

Known: decoders of the Llama, Mistral, Qwen2 and Qwen3 kinds with a byte-level BPE tokenizer. The format is told in
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Numbers are kept in 32 or 16 bits, or rounded to 8 (Q8_0) or
4 (Q4_1: blocks of 32 with a scale and a least value each), with the embedding in 8 and what has one dimension in 32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.errors import InputError

Array = npt.NDArray[Any]

BITS = (32, 16, 8, 4)
"""What a number may be kept in."""

_TYPES = {32: "F32", 16: "F16", 8: "Q8_0", 4: "Q4_1"}
_FILE_TYPES = {32: "ALL_F32", 16: "MOSTLY_F16", 8: "MOSTLY_Q8_0", 4: "MOSTLY_Q4_1"}
_BLOCK = 32
_ARCHITECTURES = {"llama": "llama", "mistral": "llama", "qwen2": "qwen2", "qwen3": "qwen3"}
_NORMAL, _CONTROL, _USER_DEFINED, _UNUSED = 1, 3, 4, 5


class _Tensor(NamedTuple):
    name: str
    shape: tuple[int, ...]
    kind: str
    read: Callable[[], Array]


def write_gguf(checkpoint: Path, target: Path, *, bits: int = 16) -> None:
    """Write `target` from the checkpoint in a folder, whole or not at all.

    Raises InputError for an architecture, a way of counting positions or a tokenizer that is not known here, for a
    checkpoint that cannot be read, and where there is no space. Needs gguf and torch.
    """
    if bits not in BITS:
        raise InputError(f"bits must be one of {', '.join(map(str, BITS))}, not {bits}")
    config = _json(checkpoint / "config.json")
    kind = config.get("model_type")
    if kind not in _ARCHITECTURES:
        raise InputError(
            f"a model of type {kind!r} ({checkpoint}) cannot be written as GGUF: known are {', '.join(_ARCHITECTURES)}"
        )
    if config.get("sliding_window") and config.get("use_sliding_window", kind == "mistral"):
        raise InputError(
            f"the model in {checkpoint} looks through a sliding window, which cannot be written as GGUF here"
        )
    from safetensors import SafetensorError

    partial = target.with_name(target.name + ".partial")
    try:
        with ExitStack() as opened:
            tensors = list(_tensors(checkpoint, config, bits, opened))
            _write(partial, checkpoint, config, tensors, bits)
        partial.replace(target)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{checkpoint} cannot be written as {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _write(path: Path, checkpoint: Path, config: Mapping[str, Any], tensors: list[_Tensor], bits: int) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, _ARCHITECTURES[config["model_type"]])
    try:
        _describe(writer, checkpoint, config)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[bits]])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_tokenizer(writer, checkpoint, config)
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.kind]
            shape, dtype = tensor.shape, np.dtype({"F32": np.float32, "F16": np.float16}.get(tensor.kind, np.uint8))
            if dtype == np.uint8:
                shape = gguf.quant_shape_to_byte_shape(shape, kind)
            writer.add_tensor_info(tensor.name, shape, dtype, math.prod(shape) * dtype.itemsize, raw_dtype=kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for tensor in tensors:
            kind = gguf.GGMLQuantizationType[tensor.kind]
            writer.write_tensor_data(gguf.quants.quantize(np.ascontiguousarray(tensor.read()), kind))
    finally:
        writer.close()


# ---------------------------------------------------------------------------------------------- numbers


def _tensors(checkpoint: Path, config: Mapping[str, Any], bits: int, opened: ExitStack) -> Iterator[_Tensor]:
    """All tensors under their GGUF names. Those are mapped, and read when asked for."""
    import gguf
    from safetensors import safe_open

    arch = gguf.MODEL_ARCH[_ARCHITECTURES[config["model_type"]].upper()]
    names = gguf.get_tensor_name_map(arch, config["num_hidden_layers"])
    factors = _frequency_factors(config, checkpoint)
    if factors is not None:
        yield _Tensor("rope_freqs.weight", factors.shape, "F32", lambda: factors)
    files = sorted(checkpoint.glob("*.safetensors"))
    if not files:
        raise InputError(f"{checkpoint} holds no weights in safetensors")
    for file in files:
        weights = opened.enter_context(safe_open(file, framework="pt"))
        for name in weights.keys():  # noqa: SIM118 (no mapping)
            if name.endswith("rotary_emb.inv_freq") or (name == "lm_head.weight" and config.get("tie_word_embeddings")):
                continue
            known = names.get_name(name, try_suffixes=(".weight", ".bias"))
            if known is None:
                raise InputError(
                    f"{file} holds `{name}`, which has no place in a GGUF of a {config['model_type']} model"
                )
            shape = tuple(weights.get_slice(name).get_shape())
            yield _Tensor(known, shape, _kind(known, shape, bits), _reader(weights, name, config))


def rounded(model: Any, bits: int) -> Any:
    """A copy of a torch model whose weights are what a GGUF of so many bits holds, as 32-bit numbers again."""
    import copy

    import gguf
    import torch

    model = copy.deepcopy(model)
    ends = {id(model.get_input_embeddings().weight), id(model.get_output_embeddings().weight)}
    with torch.no_grad():
        for weight in model.parameters():
            name = "output.weight" if id(weight) in ends else ""
            kind = gguf.GGMLQuantizationType[_kind(name, tuple(weight.shape), bits)]
            kept = gguf.quants.quantize(weight.detach().float().cpu().numpy(), kind)
            weight.copy_(torch.from_numpy(gguf.quants.dequantize(kept, kind).reshape(weight.shape)))
    return model


def _kind(name: str, shape: tuple[int, ...], bits: int) -> str:
    if len(shape) == 1:
        return "F32"
    if bits < 16 and shape[-1] % _BLOCK:
        return "F16"
    return "Q8_0" if bits == 4 and name in ("token_embd.weight", "output.weight") else _TYPES[bits]


def _reader(weights: Any, name: str, config: Mapping[str, Any]) -> Callable[[], Array]:
    def read() -> Array:
        array: Array = weights.get_tensor(name).float().numpy()
        heads = {"q_proj": config["num_attention_heads"], "k_proj": _kv_heads(config)}.get(name.split(".")[-2])
        if heads and _ARCHITECTURES[config["model_type"]] == "llama":
            return interleaved(array, heads)
        return array

    return read


def interleaved(array: Array, heads: int) -> Array:
    """Rows of queries or keys in the order that llama.cpp turns them in: pairs side by side, not in two halves."""
    halves = array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:])
    return halves.swapaxes(1, 2).reshape(array.shape)


def _rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """How positions are counted, as transformers writes it since version 5 or as it did before."""
    rope = dict(config.get("rope_parameters") or config.get("rope_scaling") or {})
    rope.setdefault("rope_theta", config.get("rope_theta", 10_000.0))
    rope.setdefault("rope_type", rope.get("type", "default"))
    return rope


def _frequency_factors(config: Mapping[str, Any], checkpoint: Path) -> Array | None:
    """What each frequency is divided by, shape (head size / 2,): Llama 3's way to longer contexts; None for others.

    Frequencies of long waves are divided by the factor, those of short waves are left, and between the two the share
    goes over evenly (as in transformers' `modeling_rope_utils`).
    """
    rope = _rope(config)
    if rope["rope_type"] in ("default", "linear"):
        return None
    if rope["rope_type"] != "llama3":
        raise InputError(f"positions of the kind {rope['rope_type']!r} ({checkpoint}) cannot be written as GGUF here")
    size = _head_size(config)
    frequencies = rope["rope_theta"] ** -(np.arange(0, size, 2, dtype=np.float64) / size)
    waves = 2 * math.pi / frequencies
    low, high, original = rope["low_freq_factor"], rope["high_freq_factor"], rope["original_max_position_embeddings"]
    smooth = np.clip((original / waves - low) / (high - low), 0.0, 1.0)
    factors: Array = (1 / ((1 - smooth) / rope["factor"] + smooth)).astype(np.float32)
    return factors


def _head_size(config: Mapping[str, Any]) -> int:
    return int(config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"])


def _kv_heads(config: Mapping[str, Any]) -> int:
    return int(config.get("num_key_value_heads") or config["num_attention_heads"])


def _describe(writer: Any, checkpoint: Path, config: Mapping[str, Any]) -> None:
    import gguf

    writer.add_name(checkpoint.name)
    writer.add_vocab_size(config["vocab_size"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(_kv_heads(config))
    writer.add_key_length(_head_size(config))
    writer.add_value_length(_head_size(config))
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_dimension_count(_head_size(config))
    rope = _rope(config)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    if rope["rope_type"] == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(float(rope["factor"]))


# ---------------------------------------------------------------------------------------------- the tokenizer


def _add_tokenizer(writer: Any, checkpoint: Path, config: Mapping[str, Any]) -> None:
    """The tokenizer, special tokens and chat template. Nothing is put before a prompt: the template says all."""
    found = _json(checkpoint / "tokenizer.json")
    settings = _json(checkpoint / "tokenizer_config.json")
    model = found["model"]
    if model.get("type") != "BPE" or model.get("byte_fallback"):
        raise InputError(f"the tokenizer in {checkpoint} is no byte-level BPE, and cannot be written as GGUF here")
    tokens = [f"[PAD{index}]" for index in range(config["vocab_size"])]
    types = [_UNUSED] * len(tokens)
    for text, index in model["vocab"].items():
        tokens[index], types[index] = text, _NORMAL
    for added in found.get("added_tokens", []):
        tokens[added["id"]] = added["content"]
        types[added["id"]] = _CONTROL if added["special"] else _USER_DEFINED
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_splitting(found, checkpoint))
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([pair if isinstance(pair, str) else " ".join(pair) for pair in model["merges"]])
    writer.add_add_space_prefix(False)
    writer.add_add_bos_token(False)
    _add_special(writer, checkpoint, settings, {text: index for index, text in enumerate(tokens)})
    template = _template(checkpoint, settings)
    if template is not None:
        writer.add_chat_template(template)


def _add_special(writer: Any, checkpoint: Path, settings: Mapping[str, Any], ids: Mapping[str, int]) -> None:
    named = {}
    for word in ("bos", "eos", "unk", "pad"):
        given = settings.get(f"{word}_token")
        text = str(given["content"] if isinstance(given, dict) else given)
        if text in ids:
            named[word] = ids[text]
    if "eos" not in named:
        raise InputError(f"the tokenizer in {checkpoint} has no token that ends an answer")
    for word, index in named.items():
        getattr(writer, f"add_{word}_token_id")(index)
    writer.add_eot_token_id(named["eos"])  # else llama.cpp guesses one by its name, and ends JSON with it


def _splitting(found: Mapping[str, Any], checkpoint: Path) -> str:
    """llama.cpp's name for how a text is split before merges, told by the parts of tokenizer.json."""
    given = found.get("pre_tokenizer") or {}
    steps = given.get("pretokenizers", [given])
    kinds = [step.get("type") for step in steps]
    if kinds == ["ByteLevel"] and steps[0].get("use_regex", True):
        return "gpt-2"
    if kinds == ["Digits", "ByteLevel"] and steps[0].get("individual_digits") and steps[1].get("use_regex", True):
        return "smollm"
    if kinds == ["Split", "ByteLevel"]:
        pattern = str(steps[0].get("pattern", {}).get("Regex"))
        known = {r"|\p{N}{1,3}|": "llama-bpe", r"|\p{N}|": "qwen2"}
        for piece, name in known.items():
            if piece in pattern and pattern.startswith(r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"):
                return name
    raise InputError(
        f"the tokenizer in {checkpoint} splits texts in a way that llama.cpp has no name for here: {kinds}"
    )


def _template(checkpoint: Path, settings: Mapping[str, Any]) -> str | None:
    file = checkpoint / "chat_template.jinja"
    if file.is_file():
        return file.read_text(encoding="utf-8")
    given = settings.get("chat_template")
    return given if isinstance(given, str) else None


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read: {error}") from error
