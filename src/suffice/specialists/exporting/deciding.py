"""The part of the graph that decides: from what was read of a text to each head's answer, the score and the guard.

What `linear_model.py` does, in double precision: there it is float32, and the two differ by about 1e-7 of a logit. Two
signals are left to the runner, since they need a digest of the answers to all heads: see `Compiled.combined`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from suffice.core.errors import InputError
from suffice.core.types import ToolCall
from suffice.specialists.exporting.graph import Graph, expm1, log1p
from suffice.specialists.exporting.reading import Counted, counted
from suffice.specialists.linear_model import (
    _LARGEST_MARGIN,
    _NEAREST,
    NEIGHBOUR_SCALE,
    SIGNALS,
    STRANGENESS,
    FittedHead,
    Settings,
    main_head,
)
from suffice.specialists.saved import Arrays

PICKS, EVIDENCE, FAMILIAR = "picks", "log_odds", "familiar"
"""What the graph gives: the position of each head's answer (H,), -1 where it is not asked; the learned score as
log-odds; whether the guard knows such inputs (1 or 0)."""

GUARD_SLACK = 1e-5
"""By how much of itself each of the guard's limits is widened: a limit is one of tune's own rows, and its rounding
would decide on which side of itself such a row falls."""


class _Judged(NamedTuple):
    """Of some heads, in their order: see `linear_model._judged`. All (n,); positions whole, the rest double."""

    heads: list[int]
    best: str
    second: str
    log_top: str
    lead: str
    spread: str
    top: str


def decided(graph: Graph, settings: Settings, arrays: Arrays, codes: str, vector: str, weights: list[float]) -> None:
    """Write the decision over a text's code points (T,) and its vector (D,), of length 1 or zeros, in double.

    `weights` are the score's, bias last. Raises InputError for a contract with open questions.
    """
    if settings.tagger is not None:
        raise InputError("pieces of the input are found by a tagger, which cannot be exported yet")
    read = counted(graph, codes, arrays["hashes"], arrays["idf"])
    by_embedding = graph.op(
        "Add", graph.op("MatMul", vector, graph.double(arrays["dense"])), graph.double(arrays["bias"])
    )
    logits = _logits(graph, arrays, read, by_embedding)
    judged = _all_judged(graph, settings.heads, logits)
    picks, asked = _asked(graph, settings, judged)
    signals, strangeness = _signals(graph, settings, arrays, read, vector, by_embedding, judged, asked)
    ordered = graph.joined(*(graph.op("Reshape", signals[name], graph.ints(1)) for name in SIGNALS))
    weighted = graph.op("Mul", ordered, graph.constant(weights[:-1], np.float64))
    graph.named(graph.op("Add", graph.total(weighted), graph.number(weights[-1])), EVIDENCE)
    graph.named(picks, PICKS)
    graph.named(_familiar(graph, strangeness, arrays), FAMILIAR)


def _logits(graph: Graph, arrays: Arrays, read: Counted, by_embedding: str) -> str:
    """Of all heads: (K,)."""
    sparse = arrays["sparse"]
    if not len(sparse) or not sparse.shape[1]:
        return by_embedding
    table = np.concatenate((sparse, np.zeros((1, sparse.shape[1]), dtype=sparse.dtype)))
    rows = graph.cast(graph.op("Gather", graph.constant(table), read.rows), np.float64)
    return graph.op("Add", by_embedding, graph.op("MatMul", read.values, rows))


def _all_judged(graph: Graph, heads: tuple[FittedHead, ...], logits: str) -> _Judged:
    """All heads, in order: those of two values at once, larger ones one by one, those of one value by themselves."""
    two = [at for at, head in enumerate(heads) if len(head.values) == 2]
    one = [at for at, head in enumerate(heads) if len(head.values) == 1]
    parts = [_of_many(graph, head, at, logits) for at, head in enumerate(heads) if len(head.values) > 2]
    if two:
        parts.append(_of_two(graph, two, graph.op("Gather", logits, graph.ints(*(heads[at].start for at in two)))))
    if one:
        whole, none = graph.ints(*(0 for _ in one)), graph.constant(np.zeros(len(one)))
        sure = graph.constant(np.full(len(one), _LARGEST_MARGIN))
        parts.append(_Judged(one, whole, whole, none, sure, none, none))
    order = [at for part in parts for at in part.heads]
    back = graph.ints(*(order.index(at) for at in range(len(heads))))
    columns = [graph.op("Gather", graph.joined(*column), back) for column in list(zip(*parts, strict=True))[1:]]
    return _Judged(list(range(len(heads))), *columns)


def _of_two(graph: Graph, heads: list[int], z: str) -> _Judged:
    lead = graph.op("Abs", z)
    rest = graph.op("Exp", graph.op("Neg", lead))
    log_total = log1p(graph, rest)
    one = graph.number(1)
    share = graph.op("Div", rest, graph.op("Add", one, rest))
    up = graph.cast(graph.op("Greater", z, graph.number(0)), np.int64)
    return _Judged(
        heads,
        up,
        graph.op("Sub", graph.ints(1), up),
        graph.op("Neg", log_total),
        lead,
        graph.op("Add", log_total, graph.op("Mul", lead, share)),
        graph.op("Div", lead, graph.number(2)),
    )


def _of_many(graph: Graph, head: FittedHead, at: int, logits: str) -> _Judged:
    own = graph.cut(logits, graph.ints(head.start), graph.ints(head.stop))
    best = graph.op("ArgMax", own, axis=0, keepdims=1)
    top = graph.op("Gather", own, best)
    behind = graph.op("Sub", own, top)
    raised = graph.op("Exp", behind)
    weighted = graph.total(graph.op("Mul", raised, behind))
    is_best = graph.op("Equal", graph.ints(*range(len(head.values))), best)
    others = graph.op("Where", is_best, graph.number(0), raised)
    log_total = log1p(graph, graph.total(others))
    rival = graph.op("Where", is_best, graph.number(-np.inf), behind)
    second = graph.op("ArgMax", rival, axis=0, keepdims=1)
    entropy = graph.op("Sub", log_total, graph.op("Mul", weighted, graph.op("Exp", graph.op("Neg", log_total))))
    return _Judged(
        [at],
        best,
        second,
        graph.flat(graph.op("Neg", log_total)),
        graph.op("Neg", graph.op("Gather", rival, second)),
        graph.flat(entropy),
        top,
    )


def _asked(graph: Graph, settings: Settings, judged: _Judged) -> tuple[str, str]:
    """The position of each head's answer, -1 where it is not asked, and whether it is asked (H,)."""
    heads = settings.heads
    if not isinstance(settings.contract, ToolCall):
        return judged.best, graph.constant(np.ones(len(heads), dtype=bool))
    table = np.array([[head.tool is None or head.tool == tool for head in heads] for tool in heads[0].values])
    first = graph.scalar(graph.cut(judged.best, graph.ints(0), graph.ints(1)))
    asked = graph.op("Gather", graph.constant(table), first)
    return graph.op("Where", asked, judged.best, graph.ints(-1)), asked


def _familiar(graph: Graph, strangeness: dict[str, str], arrays: Arrays) -> str:
    """1 where every strangeness is within its limit, else 0."""
    limits = arrays["limits"]
    widened = np.where(np.isfinite(limits), limits + GUARD_SLACK * np.maximum(np.abs(limits), 1), limits)
    found = graph.joined(*(graph.op("Reshape", strangeness[name], graph.ints(1)) for name in STRANGENESS))
    within = graph.op("LessOrEqual", found, graph.constant(widened))
    return graph.op("ReduceMin", graph.cast(within, np.int64), keepdims=0)


def _signals(
    graph: Graph,
    settings: Settings,
    arrays: Arrays,
    read: Counted,
    vector: str,
    by_embedding: str,
    judged: _Judged,
    asked: str,
) -> tuple[dict[str, str], dict[str, str]]:
    """All signals but for the combination, which is 0 here, and the strangeness; each of one element."""
    nothing, one = graph.number(0), graph.number(1)
    log_right = graph.total(graph.op("Where", asked, judged.log_top, nothing))
    wrong = graph.op("Max", graph.op("Neg", expm1(graph, log_right)), graph.number(1e-300))
    margins = graph.op("Where", asked, judged.lead, graph.number(_LARGEST_MARGIN))
    margin = graph.op("Min", graph.op("ReduceMin", margins, keepdims=0), graph.number(_LARGEST_MARGIN))
    shifted = graph.op("Sub", vector, graph.double(arrays["mean"]))
    length = graph.op("Sqrt", graph.total(graph.op("Mul", shifted, shifted)))
    length = graph.op("Where", graph.op("Equal", length, nothing), one, length)
    white = graph.op("MatMul", shifted, graph.double(arrays["whitener"]))
    distance = graph.op("Sqrt", graph.total(graph.op("Mul", white, white)))
    likeness = graph.op("Div", graph.op("MatMul", graph.double(arrays["centroids"]), shifted), length)
    main = main_head(settings.heads)
    contested = main is not None and len(settings.heads[main].values) > 1
    picked = graph.ints(0)
    energy = nothing
    leads: dict[str, str] = dict.fromkeys(
        ("centroid_lead", "nearest_lead", "neighbours_lead", "embedding_lead"), nothing
    )
    if contested and main is not None:
        at = graph.ints(main)
        picked, second = graph.op("Gather", judged.best, at), graph.op("Gather", judged.second, at)
        energy = graph.op("Sub", graph.op("Gather", judged.top, at), graph.op("Gather", judged.log_top, at))
        leads = _leads(graph, settings.heads[main], arrays, picked, second, likeness, shifted, length, by_embedding)
    kept = graph.constant(np.log1p(arrays["kept"].astype(np.float64)))
    signals = dict.fromkeys(SIGNALS, nothing) | {
        "evidence": graph.op("Sub", log_right, graph.op("Log", wrong)),
        "margin": margin,
        "entropy": graph.total(graph.op("Where", asked, judged.spread, nothing)),
        "similarity": graph.op("Gather", likeness, picked),
        **leads,
        "examples": graph.op("Gather", kept, picked),
        "known": read.known,
        "length": graph.op("Log", graph.op("Add", read.found, one)),
        "energy": energy,
        "distance": distance,
    }
    strangeness = {
        "distance": distance,
        "unknown": graph.op("Sub", one, read.known),
        "silence": graph.op("Neg", energy),
    }
    return signals, strangeness


def _leads(
    graph: Graph,
    head: FittedHead,
    arrays: Arrays,
    picked: str,
    second: str,
    likeness: str,
    shifted: str,
    length: str,
    by_embedding: str,
) -> dict[str, str]:
    """How far the main head's answer leads: its runner-up, or whichever class comes next."""
    classes = graph.ints(*range(len(head.values)))
    others = graph.op("Where", graph.op("Equal", classes, picked), graph.number(-np.inf), likeness)
    own = graph.op("Gather", likeness, picked)
    near = _nearness(graph, arrays)
    ours, theirs = near(picked, shifted), near(second, shifted)
    # A head of two values has one column: what it says for the second value, and against the first.
    if len(head.values) == 2:
        z = graph.cut(by_embedding, graph.ints(head.start), graph.ints(head.start + 1))
        sides = graph.cast(graph.op("Sub", graph.op("Mul", picked, graph.ints(2)), graph.ints(1)), np.float64)
        lead = graph.op("Mul", z, sides)
    else:
        start = graph.ints(head.start)
        said = [graph.op("Gather", by_embedding, graph.op("Add", start, each)) for each in (picked, second)]
        lead = graph.op("Sub", *said)
    return {
        "centroid_lead": graph.op("Sub", own, graph.op("ReduceMax", others, keepdims=0)),
        "nearest_lead": graph.op("Div", graph.op("Sub", ours[0], theirs[0]), length),
        "neighbours_lead": graph.op("Div", graph.op("Sub", ours[1], theirs[1]), length),
        "embedding_lead": lead,
    }


def _nearness(graph: Graph, arrays: Arrays) -> Any:
    """A function that writes `LinearSpecialist._nearness` of a class down: the nearest training text, and the mean of
    the three nearest."""
    neighbours, ends = arrays["neighbours"], np.cumsum(arrays["kept"])
    # A class without any text gets one that is like nothing: its nearness is 0 then, as it is there.
    none = np.zeros((1, neighbours.shape[1]), dtype=np.int8)
    parts = [own if len(own) else none for own in np.split(neighbours, ends[:-1])]
    starts = [0, *np.cumsum([len(part) for part in parts]).tolist()]
    table, edges = graph.constant(np.concatenate(parts)), graph.ints(*starts)
    scale = graph.number(NEIGHBOUR_SCALE)

    def of(picked: str, shifted: str) -> tuple[str, str]:
        start = graph.op("Gather", edges, picked)
        stop = graph.op("Gather", edges, graph.op("Add", picked, graph.ints(1)))
        texts = graph.cast(graph.cut(table, start, stop), np.float64)
        near = graph.op("Div", graph.op("MatMul", texts, shifted), scale)
        few = graph.op("Min", graph.op("Sub", stop, start), graph.ints(_NEAREST))
        top = graph.ops("TopK", 2, near, few, axis=0)[0]
        return graph.op("ReduceMax", top, keepdims=0), graph.op("ReduceMean", top, keepdims=0)

    return of
