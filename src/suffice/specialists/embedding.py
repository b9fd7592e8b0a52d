"""The static embedding: one vector per word piece, averaged. 20,000 short texts a second on one core.

The table and its tokenizer are the two data files inside the installed `wordllama` wheel (MIT). They are located and
read directly: the package's own loader looks in another folder and would try the network. What this does not know:
word order, or any language its 32,000 word pieces do not cover well.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Encoding, Tokenizer

from suffice.core.errors import ArtefactError

Floats32 = npt.NDArray[np.float32]

LONGEST_CHARS = 2_000

TABLE = Path("weights", "l2_supercat_256.safetensors")
TOKENIZER = Path("tokenizers", "l2_supercat_tokenizer_config.json")


class Reading(Protocol):
    """What an embedding reads of one text."""

    @property
    def vector(self) -> Floats32:
        """Of the whole text: shape (dimensions,), of length 1, or zeros for a text without anything to read."""
        ...

    def words(self, places: Sequence[tuple[int, int]]) -> Floats32:
        """Of each piece of the text, given as (start, stop) in characters: shape (len(places), word_dimensions)."""
        ...


class Embedding(Protocol):
    """A way of turning texts into vectors; the heads of any family are fitted on one. Thread-safe."""

    dimensions: int
    word_dimensions: int
    batch_rows: int
    shared_bytes: int

    def read(self, inputs: Sequence[str]) -> Sequence[Reading]:
        """One pass over the texts."""
        ...


def cut(text: str) -> str:
    """What is read of a long text, word by word: its beginning, since word pieces are slow to split."""
    return text[:LONGEST_CHARS]


class StaticReading:
    """What the static embedding reads of one text: its vector, and on demand those of its words."""

    __slots__ = ("_encoded", "_table", "vector")

    def __init__(self, table: npt.NDArray[np.float16], encoded: Encoding) -> None:
        self._table = table
        self._encoded = encoded
        self.vector = _direction(np.add.reduce(table[encoded.ids].astype(np.float32), axis=0))

    def words(self, places: Sequence[tuple[int, int]]) -> Floats32:
        """For each place the direction of the word pieces that overlap it; zeros where none does."""
        offsets = np.array(self._encoded.offsets, dtype=np.int64).reshape(-1, 2)
        wanted = np.array(places, dtype=np.int64).reshape(-1, 2)
        start = offsets[:, 1].searchsorted(wanted[:, 0], "right")
        stop = np.maximum(offsets[:, 0].searchsorted(wanted[:, 1], "left"), start)
        summed = np.zeros((len(offsets) + 1, self._table.shape[1]), dtype=np.float32)
        np.cumsum(self._table[self._encoded.ids], axis=0, dtype=np.float32, out=summed[1:])
        result: Floats32 = summed[stop] - summed[start]
        result[stop == start] = 0
        lengths = np.sqrt(np.einsum("ij,ij->i", result, result))[:, None]
        result /= np.where(lengths > 0, lengths, 1)
        return result


class StaticEmbedding:
    """A table of word-piece vectors (V x 256, float16 in memory) with its tokenizer. Immutable and thread-safe."""

    def __init__(self, table: npt.NDArray[np.float16], tokenizer: Tokenizer) -> None:
        self._table = table
        self._tokenizer = tokenizer
        self.dimensions = self.word_dimensions = int(table.shape[1])
        self.batch_rows = 1
        self.shared_bytes = int(table.nbytes)

    def read(self, inputs: Sequence[str]) -> list[StaticReading]:
        """One pass over the texts, of each what `cut` leaves."""
        return [StaticReading(self._table, self._encode(cut(text))) for text in inputs]

    def vector(self, text: str) -> Floats32:
        """The mean of the text's word-piece vectors, scaled to length 1: shape (dimensions,); zeros for empty text."""
        return StaticReading(self._table, self._encode(text)).vector

    def _encode(self, text: str) -> Encoding:
        if not text.isascii():
            text = text.encode("utf-8", "replace").decode("utf-8")  # the tokenizer refuses half a surrogate pair
        return self._tokenizer.encode(text, add_special_tokens=False)

    def vectors(self, texts: Sequence[str]) -> Floats32:
        """`vector` of each text: shape (len(texts), dimensions)."""
        result = np.zeros((len(texts), self.dimensions), dtype=np.float32)
        for row, text in enumerate(texts):
            result[row] = self.vector(text)
        return result


def _direction(total: Floats32) -> Floats32:
    """A sum of vectors at length 1: the mean's direction."""
    length = float(total @ total) ** 0.5
    return total / np.float32(length) if length > 0 else total


def read_static_embedding(folder: Path) -> StaticEmbedding:
    """Read the table and tokenizer below `folder`. Raises ArtefactError where either is missing or unreadable."""
    try:
        tensors = load_file(folder / TABLE)
        tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
    except (OSError, SafetensorError) as error:
        raise ArtefactError(f"the static embedding in {folder} cannot be read: {error}") from error
    except Exception as error:  # tokenizers raises bare Exception for a missing or malformed file
        raise ArtefactError(f"the tokenizer in {folder} cannot be read: {error}") from error
    if len(tensors) != 1:
        raise ArtefactError(f"the static embedding in {folder} should hold one table, not {len(tensors)}")
    table = next(iter(tensors.values()))
    if table.ndim != 2 or table.shape[0] < tokenizer.get_vocab_size() or not np.isfinite(table).all():
        raise ArtefactError(f"the static embedding in {folder} is not a finite table with a row for each word piece")
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return StaticEmbedding(table.astype(np.float16), tokenizer)


def installed_folder() -> Path:
    """Where the installed table and tokenizer lie. Raises ArtefactError where they are not installed."""
    spec = importlib.util.find_spec("wordllama")
    if spec is None or not spec.submodule_search_locations:
        raise ArtefactError("the package `wordllama`, whose embedding table the linear family reads, is not installed")
    return Path(next(iter(spec.submodule_search_locations)))


@cache
def shared_static_embedding() -> StaticEmbedding:
    """The installed table, read at the first call and shared by the whole process (17 MB). Raises ArtefactError."""
    return read_static_embedding(installed_folder())
