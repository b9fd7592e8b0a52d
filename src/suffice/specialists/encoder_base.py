"""A sentence encoder as an ONNX graph in int8: what the encoder family reads texts with. Needs no torch.

The folder of an encoder holds `encoder.onnx` (word pieces in, last hidden states out), `tokenizer.json` and
`encoder.json`. A text's vector is the mean of its word pieces' last hidden states, scaled to length 1.

Texts go through the graph one at a time. Dynamic quantisation takes its scale from the whole batch, so in a batch a
text's vector depends on its neighbours (cosine 0.98 to its own, as much as int8 itself moves it): an answer would
depend on who else asks. Batches of 8 would be 1.4 times faster, on one core.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from suffice.core.errors import ArtefactError

Floats32 = npt.NDArray[np.float32]

GRAPH, TOKENIZER, ABOUT = "encoder.onnx", "tokenizer.json", "encoder.json"
FORMAT = 1

LONGEST = 256
"""Word pieces read of a text, marks at its start and end included: what comes behind is not seen."""
LONGEST_CHARS = 4_000
"""Characters split into word pieces: 256 pieces rarely need more, and splitting is slow."""
_FEWEST_FOR_THREADS = 64
GROWS = 3.2
"""Bytes in memory for each byte of the graph's file."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """What `encoder.json` holds. `source`: where the weights came from. `files`: the digest of graph and tokenizer.

    `cosine`: mean cosine between the vectors of the int8 graph and the model's own in float32, on some texts.
    """

    format: int
    source: str
    dimensions: int
    longest: int
    files: str
    cosine: float


class EncoderReading:
    """What the encoder has read of one text: `embedding.Reading`."""

    __slots__ = ("_offsets", "_states", "vector")

    def __init__(
        self,
        vector: Floats32,
        offsets: list[tuple[int, int]],
        states: npt.NDArray[np.float16],
    ) -> None:
        self.vector = vector
        self._offsets = offsets
        self._states = states

    def words(self, places: Sequence[tuple[int, int]]) -> Floats32:
        """The direction of the word pieces' last hidden states that overlap each place (start, stop): (P, D).

        Each is of length 1, or zeros where none does: white space, and what lies behind the cut.
        """
        result = np.zeros((len(places), self._states.shape[1]), dtype=np.float32)
        if not places:
            return result
        begins, ends = np.array(self._offsets, dtype=np.int64).reshape(-1, 2).T
        for row, (start, stop) in enumerate(places):
            # A mark at the text's edge is no place: its stop is its start.
            inside = np.flatnonzero((begins < stop) & (ends > start) & (ends > begins))
            if len(inside):
                result[row] = _direction(self._states[inside].astype(np.float32).sum(axis=0))
        return result


class OnnxEncoder:
    """`embedding.Embedding` over an ONNX graph. Immutable and thread-safe; one thread and no spinning for a text."""

    def __init__(self, session: Any, tokenizer: Tokenizer, about: About, shared_bytes: int = 0) -> None:
        self._session = session
        self._tokenizer = tokenizer
        self.about = about
        self.dimensions = about.dimensions
        self.word_dimensions = about.dimensions
        self.batch_rows = 1
        self.shared_bytes = shared_bytes

    def read(self, inputs: Sequence[str]) -> list[EncoderReading]:
        """One pass over each text, in order. Many texts are spread over the machine's cores."""
        if len(inputs) < _FEWEST_FOR_THREADS:
            return [self.read_one(text) for text in inputs]
        with ThreadPoolExecutor(_cores()) as pool:
            return list(pool.map(self.read_one, inputs))

    def read_one(self, text: str) -> EncoderReading:
        """One pass over a text. Text without anything to read has a vector of zeros."""
        plain = readable(text)
        pieces = self._tokenizer.encode(plain)
        if not plain.strip() or not pieces.ids:
            nothing = np.zeros((0, self.dimensions), dtype=np.float16)
            return EncoderReading(np.zeros(self.dimensions, dtype=np.float32), [], nothing)
        states = self._session.run(None, {"input_ids": np.array([pieces.ids], dtype=np.int64)})[0][0]
        return EncoderReading(_direction(states.sum(axis=0)), pieces.offsets, states.astype(np.float16))


def _direction(total: Floats32) -> Floats32:
    """A sum of states at length 1: the mean's direction."""
    length = float(total @ total) ** 0.5
    return total / np.float32(length) if length > 0 else total


def readable(text: str) -> str:
    """`text` as far as it is split into word pieces, without halves of surrogate pairs; characters keep their place."""
    text = text[:LONGEST_CHARS]
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def read_tokenizer(path: Path, longest: int) -> Tokenizer:
    """A tokenizer that cuts after `longest` pieces and does not pad. Raises ArtefactError if it cannot be read."""
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for a missing or malformed file
        raise ArtefactError(f"the tokenizer {path} cannot be read: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(longest)
    return tokenizer


def load_encoder(folder: Path, shared: bool = False) -> OnnxEncoder:
    """Read an encoder's folder; `shared`: it is a base, which many specialists read with.

    Raises ArtefactError where a file is missing, corrupt or not the one it tells of.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ArtefactError(f"the encoder in {folder} needs the package `onnxruntime`, which is not here") from error

    about = read_about(folder)
    if digest(folder) != about.files:
        raise ArtefactError(f"the encoder in {folder} is corrupt: its files are not those that were written")
    tokenizer = read_tokenizer(folder / TOKENIZER, about.longest)
    try:
        session = onnxruntime.InferenceSession(
            str(folder / GRAPH), _options(onnxruntime), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime raises a dozen kinds for a graph that it cannot use
        raise ArtefactError(f"the graph in {folder} cannot be loaded: {_first_line(error)}") from error
    takes = int(GROWS * (folder / GRAPH).stat().st_size) if shared else 0
    encoder = OnnxEncoder(session, tokenizer, about, takes)
    try:
        found = encoder.read_one("a").words([(0, 1)]).shape[1]
    except Exception as error:  # as above, at its first run
        raise ArtefactError(f"the graph in {folder} does not run: {_first_line(error)}") from error
    if found != about.dimensions:
        raise ArtefactError(f"the graph in {folder} gives {found} numbers a word piece, not {about.dimensions}")
    return encoder


def read_about(folder: Path) -> About:
    """`encoder.json` of a folder. Raises ArtefactError where it is missing, or of another format."""
    try:
        about = msgspec.json.decode((folder / ABOUT).read_bytes(), type=About)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtefactError(f"the encoder in {folder} cannot be read: {error}") from error
    if about.format != FORMAT:
        raise ArtefactError(f"the encoder in {folder} has the format {about.format}, this version reads {FORMAT}")
    return about


def is_whole(folder: Path) -> bool:
    """Whether an encoder's files are all there, of this format, and those that were written."""
    try:
        return digest(folder) == read_about(folder).files
    except ArtefactError:
        return False


def digest(folder: Path) -> str:
    """SHA-256 over graph and tokenizer. Raises ArtefactError where one is missing."""
    found = hashlib.sha256()
    for name in (GRAPH, TOKENIZER):
        try:
            found.update(hashlib.sha256((folder / name).read_bytes()).digest())
        except OSError as error:
            raise ArtefactError(f"the encoder in {folder} is not whole: {name} cannot be read") from error
    return found.hexdigest()


def _options(onnxruntime: Any) -> Any:
    """One thread a text: workers and cores go by processes, and a spinning thread takes a core from the gateway."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    return options


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
