"""The part of the graph that reads a text: from code points to the known features with their weights.

What `features.py` does, step for step: lower case, white space collapsed, words, pairs of words and pieces of words,
each by its 64-bit hash, looked up in the sorted vocabulary. Whole numbers wrap around in the graph as they do there, so
features agree bit by bit; weights are in double precision.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from suffice.core.errors import ArtefactError
from suffice.specialists.exporting import characters
from suffice.specialists.exporting.graph import Graph
from suffice.specialists.features import _BASE, _MIX, _REST_BITS, LONGEST_CHARS, PIECE_LENGTHS

_SEPARATOR, _ALONE, WHITE = 0, 2, 3
_SIGN = -(1 << 63)
_LONGEST = 3 * LONGEST_CHARS + 3


class Counted(NamedTuple):
    """What is read of a text. `rows`, `values`: places in the vocabulary, ascending, and TF-IDF weights (n,), the last
    of them one that stands for nothing; `known`: the share of features that the vocabulary has; `found`: how many there
    are; all but `rows` in double precision."""

    rows: str
    values: str
    known: str
    found: str


@functools.cache
def _pages() -> dict[str, characters.Pages]:
    """Read off Python's tables once a process."""
    told = {"low": characters.lowered, "kind": characters.kind, "sigma": characters.beside_sigma}
    if characters.grows() != [characters.DOTTED_I]:
        raise ArtefactError("this Python's Unicode has a new character that becomes two in lower case")
    return {name: characters.paged(of) for name, of in told.items()}


def property_of(graph: Graph, name: str, codes: str) -> str:
    """A property of each character: (n,) of int64."""
    pages = _pages()[name]
    size = graph.ints(characters.PAGE)
    block = graph.op("Gather", graph.constant(pages.pages), graph.op("Div", codes, size))
    at = graph.op("Add", graph.op("Mul", block, size), graph.op("Mod", codes, size))
    return graph.op("Gather", graph.constant(pages.values[pages.blocks].reshape(-1)), at)


def _lower(graph: Graph, codes: str) -> str:
    """In lower case. A capital sigma looks at the nearest characters to either side that are not ignored."""
    low = graph.op("Add", codes, property_of(graph, "low", codes))
    beside = property_of(graph, "sigma", codes)
    counts = graph.op("Not", graph.op("Equal", beside, graph.ints(characters.IGNORED)))
    behind = graph.op("CumSum", graph.cast(counts, np.int64), graph.constant(np.int64(0)), exclusive=1)
    seen = graph.joined(graph.ints(0), graph.op("Compress", beside, counts, axis=0), graph.ints(0, 0))
    cased = graph.ints(characters.CASED)
    before = graph.op("Equal", graph.op("Gather", seen, behind), cased)
    after = graph.op("Equal", graph.op("Gather", seen, graph.op("Add", behind, graph.ints(2))), cased)
    ends = graph.op("And", before, graph.op("Not", after))
    final = graph.op("And", ends, graph.op("Equal", codes, graph.ints(characters.SIGMA)))
    low = graph.op("Where", final, graph.ints(characters.FINAL_SIGMA), low)
    two = graph.op("Equal", codes, graph.ints(characters.DOTTED_I))
    second = graph.op("Where", two, graph.ints(characters.DOT_ABOVE), graph.ints(-1))
    columns = [graph.op("Unsqueeze", each, graph.ints(1)) for each in (low, second)]
    both = graph.flat(graph.joined(*columns, axis=1))
    return graph.op("Compress", both, graph.op("GreaterOrEqual", both, graph.ints(0)), axis=0)


def _collapsed(graph: Graph, codes: str) -> tuple[str, str]:
    """White space as single spaces, one before and one after, and the kind of each character; " " for blank text."""
    kinds = property_of(graph, "kind", codes)
    space = graph.op("Equal", kinds, graph.ints(WHITE))
    chars = graph.op("Where", space, graph.ints(32), codes)
    edge = graph.constant(np.array([True]))
    spaces = graph.joined(edge, space, edge)
    earlier = graph.joined(graph.constant(np.array([False])), edge, space)
    keep = graph.op("Not", graph.op("And", spaces, earlier))
    chars = graph.op("Compress", graph.joined(graph.ints(32), chars, graph.ints(32)), keep, axis=0)
    white = graph.ints(WHITE)
    kinds = graph.op("Compress", graph.joined(white, kinds, white), keep, axis=0)
    return chars, graph.op("Where", graph.op("Equal", kinds, white), graph.ints(_SEPARATOR), kinds)


def _but_last(graph: Graph, row: str) -> str:
    return graph.cut(row, graph.ints(0), graph.ints(-1))


def _but_first(graph: Graph, row: str) -> str:
    return graph.cut(row, graph.ints(1), graph.ints(np.iinfo(np.int64).max))


class _Hashes:
    """Hashes of any pieces of a text, from prefix sums."""

    def __init__(self, graph: Graph, chars: str) -> None:
        powers, inverses = np.full(_LONGEST, _BASE, np.uint64), np.full(_LONGEST, pow(_BASE, -1, 1 << 64), np.uint64)
        for table in (powers, inverses):
            table[0] = 1
            np.cumprod(table, out=table)
        self._graph = graph
        self._inverses = graph.constant(inverses.view(np.int64))
        own = graph.cut(graph.constant(powers.view(np.int64)), graph.ints(0), graph.length(chars))
        summed = graph.op("CumSum", graph.op("Mul", own, chars), graph.constant(np.int64(0)))
        self._prefix = graph.joined(graph.ints(0), summed)

    def of(self, starts: str, stops: str, words: bool) -> str:
        """One hash a piece (n,), the top bit turned over: so they are in order as signed numbers."""
        graph = self._graph
        stop, start = (graph.op("Gather", self._prefix, each) for each in (stops, starts))
        raw = graph.op("Mul", graph.op("Sub", stop, start), graph.op("Gather", self._inverses, starts))
        bits = graph.cast(raw, np.uint64)
        shifted = graph.op("BitShift", bits, graph.constant(np.array([32], np.uint64)), direction="RIGHT")
        mixed = graph.cast(graph.op("BitwiseXor", bits, shifted), np.int64)
        mixed = graph.op("Mul", mixed, graph.constant(np.array([_MIX]).view(np.int64)))
        rest = graph.op("BitwiseAnd", mixed, graph.constant(np.array([_REST_BITS]).view(np.int64)))
        return rest if words else graph.op("BitwiseOr", rest, graph.ints(_SIGN))


def _features(graph: Graph, codes: str) -> str:
    """The hashes of all features of a text, one for each time it occurs."""
    chars, kinds = _collapsed(graph, _lower(graph, codes))
    hashes = _Hashes(graph, chars)
    space = graph.op("Equal", chars, graph.ints(32))
    spaces = graph.where(space)
    before = graph.op("CumSum", graph.cast(space, np.int64), graph.constant(np.int64(0)))
    behind = graph.op("Add", graph.op("Gather", spaces, _but_last(graph, before)), graph.ints(1))
    places = graph.op(
        "Range",
        graph.constant(np.int64(0)),
        graph.scalar(graph.op("Sub", graph.length(chars), graph.ints(1))),
        graph.constant(np.int64(1)),
    )
    room = graph.op("Sub", behind, places)
    found = []
    for size in PIECE_LENGTHS:
        starts = graph.where(graph.op("GreaterOrEqual", room, graph.ints(size)))
        found.append(hashes.of(starts, graph.op("Add", starts, graph.ints(size)), words=False))
    left, right = _but_last(graph, kinds), _but_first(graph, kinds)
    edge = graph.op("Not", graph.op("Equal", left, right))
    edges = []
    for side in (right, left):
        alone = graph.op("Or", edge, graph.op("Equal", side, graph.ints(_ALONE)))
        inside = graph.op("Not", graph.op("Equal", side, graph.ints(_SEPARATOR)))
        edges.append(graph.op("Add", graph.where(graph.op("And", inside, alone)), graph.ints(1)))
    starts, stops = edges
    found.append(hashes.of(starts, stops, words=True))
    found.append(hashes.of(_but_last(graph, starts), _but_first(graph, stops), words=True))
    return graph.joined(*found)


def _looked_up(graph: Graph, wanted: str, table: npt.NDArray[np.int64]) -> tuple[str, str]:
    """Where each number stands in a sorted table, and whether it does: a binary search, all numbers at once."""
    steps = max(1, int(np.ceil(np.log2(len(table) + 1))))
    padded = np.full(1 << steps, np.iinfo(np.int64).max)
    padded[: len(table)] = table
    sorted_table = graph.constant(padded)
    at = graph.op("Mul", wanted, graph.ints(0))
    for step in reversed(range(steps)):
        ahead = graph.op("Add", at, graph.ints(1 << step))
        passed = graph.op("LessOrEqual", graph.op("Gather", sorted_table, ahead), wanted)
        at = graph.op("Where", passed, ahead, at)
    same = graph.op("Equal", graph.op("Gather", sorted_table, at), wanted)
    return at, graph.op("And", same, graph.op("Less", at, graph.ints(len(table))))


def counted(graph: Graph, codes: str, hashes: npt.NDArray[np.uint64], weights: npt.NDArray[np.float32]) -> Counted:
    """Known features of a text given as code points (T,), with pieces and words each of length 1."""
    one = graph.number(1)
    if not len(hashes):
        return Counted(graph.ints(0), graph.constant([0.0], np.float64), graph.number(0), graph.number(0))
    wanted = _features(graph, codes)
    signed = (hashes ^ np.uint64(1 << 63)).view(np.int64)
    at, same = _looked_up(graph, wanted, signed)
    # One row that stands for nothing: no operator ever sees an empty tensor of features.
    rows = graph.joined(graph.op("Compress", at, same, axis=0), graph.ints(len(hashes)))
    rows, _, _, counts = graph.ops("Unique", 4, rows, sorted=1)
    every = graph.cast(graph.length(wanted), np.float64)
    hits = graph.total(graph.cast(same, np.float64))
    known = graph.op("Div", hits, graph.op("Max", graph.scalar(every), one))
    idf = graph.double(np.append(weights, np.float32(0)))
    damped = graph.op("Add", one, graph.op("Log", graph.cast(counts, np.float64)))
    values = graph.op("Mul", graph.op("Gather", idf, rows), damped)
    split = int(signed.searchsorted(0))
    words = graph.op("GreaterOrEqual", rows, graph.ints(split))
    nothing = graph.number(0)
    scaled = []
    for part in (graph.op("Where", words, nothing, values), graph.op("Where", words, values, nothing)):
        length = graph.op("Sqrt", graph.total(graph.op("Mul", part, part)))
        safe = graph.op("Where", graph.op("Equal", length, nothing), one, length)
        scaled.append(graph.op("Div", part, safe))
    return Counted(rows, graph.op("Add", *scaled), known, graph.scalar(every))
