"""A release's files as one graph: what it reads with, and what it decides by, whichever family of the two that can.

Reads the artefact as data, from its folder. What this does not know: releases, contracts' layouts, runners.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
from safetensors.numpy import load_file

from suffice.core.errors import ArtefactError, InputError
from suffice.core.types import OutputContract
from suffice.specialists import embedding, encoder, encoder_base, features, offered
from suffice.specialists.encoder_store import Base
from suffice.specialists.exporting.deciding import EVIDENCE, FAMILIAR, PICKS, decided
from suffice.specialists.exporting.graph import Graph
from suffice.specialists.exporting.reading import WHITE, property_of
from suffice.specialists.linear_model import SETTINGS, SIGNALS, TENSORS, FittedHead, Settings
from suffice.specialists.saved import read_saved

CODES, PIECES, STATES, VECTOR = "codes", "pieces", "states", "vector"
"""What the graph takes: code points of the text (T,), and word pieces (P,) or an encoder's hidden states of them
(P, D); within, the text's vector (D,)."""


class Compiled(NamedTuple):
    """A decision in one graph.

    `model` is the ONNX model, `tokenizer` its file, `encoder` that of the graph which goes before it, if there is one:
    unchanged, since merged into one the two are optimised otherwise, and int8 rounds otherwise then. `pieces`:
    characters that are split into word pieces, how many of these are read (None: all), whether marks at the text's
    edges are added. `longest` characters are read, the last `tail` of them from the text's end. `combined`: the weight
    of the signal that tells how often train had the answers to all heads together, and by their digest what it is.
    """

    model: Any
    tokenizer: Path
    encoder: Path | None
    pieces: dict[str, Any]
    longest: int
    tail: int
    contract: OutputContract
    heads: tuple[FittedHead, ...]
    combined: dict[str, Any] | None


def compiled(folder: Path, family: str, bases: Path) -> Compiled:
    """The graph of an artefact. `bases`: where a home keeps its base encoders.

    Raises InputError for a family or a contract that cannot be exported so, ArtefactError where a file is missing.
    """
    if family not in ("linear", "encoder"):
        raise InputError(f"a release of the family `{family}` cannot be exported as one graph; linear and encoder can")
    if (folder / offered.SETTINGS).exists():
        raise InputError("a release that chooses among tools which each request offers cannot be exported yet")
    settings, arrays = read_saved(folder, TENSORS, SETTINGS, Settings, f"{family} artefact")
    graph = Graph()
    static = family == "linear"
    tokenizer, encoded, pieces = _static(graph) if static else _encoded(graph, _encoder_folder(folder, bases))
    weights = arrays["score"].tolist()
    decided(graph, settings, arrays, CODES, VECTOR, weights)
    model = graph.model(
        [(CODES, np.int64, 1), (PIECES, np.int64, 1) if static else (STATES, np.float32, 2)],
        [(PICKS, np.int64, 1), (EVIDENCE, np.float64, 0), (FAMILIAR, np.int64, 0)],
    )
    combined = None
    if len(settings.heads) > 1:
        said = np.log1p(arrays["combined"].astype(np.float64)).tolist()
        digests = (int(digest).to_bytes(8, "little").hex() for digest in arrays["combinations"].tolist())
        combined = {"weight": weights[SIGNALS.index("combination")], "known": dict(zip(digests, said, strict=True))}
    longest = features.LONGEST_CHARS
    return Compiled(
        model, tokenizer, encoded, pieces, longest, longest // 4, settings.contract, settings.heads, combined
    )


def _static(graph: Graph) -> tuple[Path, Path | None, dict[str, Any]]:
    """The static embedding: the mean direction of word pieces, as the value VECTOR. Its tokenizer, what is read."""
    folder = embedding.installed_folder()
    table = next(iter(load_file(folder / embedding.TABLE).values())).astype(np.float16)
    rows = graph.cast(graph.op("Gather", graph.constant(table), PIECES), np.float64)
    # A row of zeros: no operator sees an empty tensor where a text has no word piece.
    none = graph.constant(np.zeros((1, table.shape[1])))
    _direction(graph, graph.op("ReduceSum", graph.joined(none, rows), graph.ints(0), keepdims=0))
    return folder / embedding.TOKENIZER, None, {"chars": embedding.LONGEST_CHARS, "most": None, "marks": False}


def _encoded(graph: Graph, where: Path) -> tuple[Path, Path | None, dict[str, Any]]:
    """The mean direction of an encoder's hidden states, as the value VECTOR; zeros where the text is blank."""
    about = encoder_base.read_about(where)
    total = graph.op("ReduceSum", graph.cast(STATES, np.float64), graph.ints(0), keepdims=0)
    # The first code stands for nothing: no operator sees an empty tensor where the text has no character.
    read = graph.cut(CODES, graph.ints(0), graph.ints(encoder_base.LONGEST_CHARS))
    white = graph.op("Equal", property_of(graph, "kind", graph.joined(graph.ints(32), read)), graph.ints(WHITE))
    seen = graph.op("ReduceMax", graph.cast(graph.op("Not", white), np.int64), keepdims=0)
    _direction(graph, graph.op("Mul", total, graph.cast(seen, np.float64)))
    pieces = {"chars": encoder_base.LONGEST_CHARS, "most": about.longest, "marks": True}
    return where / encoder_base.TOKENIZER, where / encoder_base.GRAPH, pieces


def _direction(graph: Graph, total: str) -> None:
    """A sum of vectors at length 1, zeros for none, as the value VECTOR."""
    length = graph.op("Sqrt", graph.total(graph.op("Mul", total, total)))
    nothing = graph.op("Equal", length, graph.number(0))
    graph.named(graph.op("Div", total, graph.op("Where", nothing, graph.number(1), length)), VECTOR)


def _encoder_folder(folder: Path, bases: Path) -> Path:
    """Where an encoder specialist's graph lies: in its own folder, or among the home's bases."""
    if (folder / encoder_base.GRAPH).exists():
        return folder
    try:
        base = msgspec.json.decode((folder / encoder.BASE).read_bytes(), type=Base)
    except (OSError, msgspec.DecodeError) as error:
        raise ArtefactError(f"the encoder artefact in {folder} cannot be read: {error}") from error
    return bases / base.key
