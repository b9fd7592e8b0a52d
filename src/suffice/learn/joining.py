"""Are two prompts the same work? Wordings, versions and few-shot variants of one prompt give different rules.

Two sides are one work when they have one contract, nobody can tell their inputs apart, and answers follow inputs in
the same way. The last is what tells "is it spam?" from "is it urgent?" over the same messages: a probe that learned
from one side's answers must predict the other's as well as a probe of its own. What this does not know: a difference
that shows in fewer answers than chance would explain.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.types import Choice, Choices, Fields, Many, Number, OutputContract, ToolCall
from suffice.core.values import Value, calls_of, canonical
from suffice.learn.meaning import LONGEST, Asked, apart, identifier, label_of
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.solver import one_thread

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEWEST = 12
"""Rows of a side below which its inputs and answers tell too little. At 3,000 requests under 77 prompts
(`bench/mixture.py`) the tasks are found with an adjusted Rand index of .54 with 40, .80 with 20, .84 with 12; no false
join in any."""
SAME_FIXED = 0.97
"""Cosine of fixed texts that are nearly equal: the same sentences, a word changed."""
LOOKED_UP, COMPARED = 64, 6
"""Groups that a side is compared with at most, cheaply and in full: those with the nearest inputs, where its own is."""
NO_PROMPT = "no instructions"
"""What a side without a prompt is compared by: two such sides ask for the same."""
ALIKE_FIXED = 0.2
"""Cosine of fixed texts below which free text is not the same work even if neither inputs nor answers differ. Wordings
of one instruction have a median of 0.44, other instructions of 0.18."""
SURELY_FIXED = 0.8
"""The same where answers tell nothing, because inputs do not predict them: the prompt alone decides then. "Is it toxic?
Answer yes or no." and "Is it long? Answer yes or no." are beyond 0.6."""
TELLABLE = 0.65
"""AUC up to which inputs count as the same, chance apart: two months of one traffic differ by about as much."""
KEPT = 0.5
"""The part of what a probe knows beyond the commonest answer that must hold on the other side. Versions of one prompt
keep nearly all, but a probe of a hundred rows is noisy; other questions about the same inputs keep nothing."""
LEARNT = 0.1
"""What a probe must know beyond the commonest answer for its loss to tell anything."""
MANY_NAMES = 4
"""Names in common (labels, fields) from which a contract is hardly two works' by chance, as yes and no are."""
TAG, EDGE = 0.2, 0.8
"""Shares of texts from which a word with a colon ("Message:"), or any word, at their edge is left of a prompt."""
SHARED_INPUTS = 8
"""Requests asked of both sides from which their answers are compared directly."""
_ROWS = 300
"""Rows of a side that are looked at, evenly spread."""
_RIDGE = 0.3
"""Penalty of a probe on embeddings of length 1."""


class Side(msgspec.Struct, frozen=True):
    """Requests of one prompt: `text` of each is the varying part as a specialist would read it.

    `contract` is that of the answers, `fixed` the fixed text of the prompt.
    """

    asked: Sequence[Asked]
    contract: OutputContract
    fixed: str


class Verdict(msgspec.Struct, frozen=True):
    """Whether two sides are the same work, and why, in a sentence."""

    same: bool
    why: str


def same(a: Side, b: Side) -> Verdict:
    """Whether two prompts are the same work. Symmetric, the same sides give the same verdict."""
    with one_thread():
        return _same(a, b)


def _same(a: Side, b: Side) -> Verdict:
    return _compare(*sorted((_Read(a), _Read(b)), key=lambda read: (-len(read.rows), read.fixed_text)))


def join(sides: Sequence[Side]) -> list[list[int]]:
    """Groups of the same work: positions in `sides`, each in one group, the largest side of a group first.

    A side joins a group by agreement with all of it, a sample of every member's rows, never with one member alone.
    """
    with one_thread():
        return _join(sides)


def _join(sides: Sequence[Side]) -> list[list[int]]:
    reads = [_Read(side) for side in sides]
    groups: list[list[int]] = []
    pools: list[_Read] = []
    for i in sorted(range(len(sides)), key=lambda i: (-len(sides[i].asked), i)):
        fitting = [place for place in _nearest(pools, reads[i]) if _compare(pools[place], reads[i]).same]
        if fitting:
            best = fitting[0]  # several may fit a small side: the one whose inputs are nearest
            groups[best].append(i)
            pools[best] = _pool([reads[member] for member in groups[best]])
        else:
            groups.append([i])
            pools.append(reads[i])
    return groups


def _nearest(pools: Sequence[_Read], side: _Read) -> list[int]:
    """The pools that a side may be the same work as, by what is cheap to tell: the nearest inputs first, a few."""
    if not side.rows:
        return []
    known = [place for place, pool in enumerate(pools) if pool.rows]
    if not known:
        return []
    away = np.min(
        [np.linalg.norm(np.array([pools[at].means[k] for at in known]) - side.means[k], axis=1) for k in (0, 1)],
        axis=0,
    )
    found: list[int] = []
    for nearest in np.argsort(away, kind="stable")[:LOOKED_UP].tolist():
        place = known[nearest]
        if _cheaply_apart(pools[place], side) is None:
            found.append(place)
            if len(found) == COMPARED:
                break
    return found


# ------------------------------------------------------------------------------------------------ what is read


class _Read:
    """A side with all that comparisons ask of it, computed once."""

    def __init__(self, side: Side) -> None:
        rows = [row for row in side.asked if row.answered]
        step = max(1.0, len(rows) / _ROWS)
        rows = [rows[int(k * step)] for k in range(min(len(rows), _ROWS))]
        embedding = shared_static_embedding()
        self.rows = rows
        self.kind = _kind(side.contract, rows)
        self.names = [_names(row.value, self.kind) for row in rows]
        self.any_tools = len({row.tools for row in rows}) > max(3, len(rows) // 10)
        self.fixed_text = side.fixed
        self.fixed = [embedding.vector(side.fixed[: 4 * LONGEST] or NO_PROMPT).astype(np.float64)]
        # what precedes the input in the varying part (examples, passages, a tag) is left out in the second reading
        self.inputs = [
            embedding.vectors([text[-LONGEST:] for text in texts]).astype(np.float64)
            for texts in (_bare([row.text for row in rows]), _bare([_last(row.text) for row in rows]))
        ]
        self.means = _means(self.inputs)
        self.said = embedding.vectors(
            [(row.value if isinstance(row.value, str) else canonical(row.value))[:LONGEST] for row in rows]
        ).astype(np.float64)


def _pool(members: Sequence[_Read]) -> _Read:
    """One side out of several: as many rows of each as go into one."""
    pooled = object.__new__(_Read)
    each = max(1, _ROWS // len(members))
    chosen = [np.unique(np.linspace(0, len(m.rows) - 1, min(each, len(m.rows))).astype(np.int64)) for m in members]
    pooled.rows = [m.rows[i] for m, own in zip(members, chosen, strict=True) for i in own.tolist()]
    pooled.names = [m.names[i] for m, own in zip(members, chosen, strict=True) for i in own.tolist()]
    pooled.kind, pooled.fixed_text = members[0].kind, members[0].fixed_text
    pooled.any_tools = any(member.any_tools for member in members)
    pooled.fixed = [fixed for member in members for fixed in member.fixed]
    pooled.inputs = [
        np.vstack([m.inputs[reading][own] for m, own in zip(members, chosen, strict=True)]) for reading in (0, 1)
    ]
    pooled.means = _means(pooled.inputs)
    pooled.said = np.vstack([m.said[own] for m, own in zip(members, chosen, strict=True)])
    return pooled


def _means(inputs: Sequence[Floats]) -> list[Floats]:
    """The mean input of each reading."""
    return [rows.mean(axis=0) if len(rows) else rows for rows in inputs]


def _bare(texts: Sequence[str]) -> list[str]:
    """Texts without what nearly all of them begin or end with: left over where a prompt's fixed text was too short."""
    rows = [text.split() for text in texts]
    for edge in (0, -1):
        for _ in range(8):
            word, count = Counter(row[edge] for row in rows if row).most_common(1)[0] if any(rows) else ("", 0)
            if count < max(5, (TAG if word.endswith(":") else EDGE) * len(rows)):
                break
            for row in rows:
                if row and row[edge] == word:
                    del row[edge]
    return [" ".join(row) or text for row, text in zip(rows, texts, strict=True)]


def _last(text: str) -> str:
    """The last line that says something."""
    return next((line for line in reversed(text.splitlines()) if any(map(str.isalnum, line))), text)


def _kind(contract: OutputContract, rows: Sequence[Asked]) -> str:
    """The form of the answers: label, object, list, calls or text; few rows of many labels look open."""
    if isinstance(contract, ToolCall):
        return "calls"
    if isinstance(contract, Fields):
        return "object"
    if isinstance(contract, Choices | Many):
        return "list"
    if isinstance(contract, Choice | Number):
        return "label"
    labels = [label_of(row.value) for row in rows]
    often = Counter(label for label in labels if label)
    known = sum(label is not None and (often[label] >= 2 or identifier(label)) for label in labels)
    return "label" if known * 2 > len(rows) else "text"


def _names(value: Value, kind: str) -> tuple[str, ...]:
    """What of an answer is out of a closed vocabulary: its label, items, tools, or keys with true and false values."""
    if kind == "calls":
        return tuple(sorted({str(call["name"]) for call in calls_of(value) or []}))
    if kind == "object" and isinstance(value, dict):
        return tuple(sorted(value))
    if kind == "list" and isinstance(value, list):
        return tuple(sorted({canonical(item) for item in value}))
    label = label_of(value)
    return (label.casefold(),) if kind == "label" and label else ()


# --------------------------------------------------------------------------------------------------- comparing


def _likeness(a: _Read, b: _Read) -> float:
    """Of the fixed texts: the mean over members of the best cosine."""
    return float(np.mean([max(float(one @ other) for other in b.fixed) for one in a.fixed]))


def _cheaply_apart(a: _Read, b: _Read) -> str | None:
    """Why two sides differ, by what costs microseconds; None where that does not tell."""
    if a.kind != b.kind:
        return f"one answers with {a.kind}, the other with {b.kind}"
    if a.kind != "text" and not (a.kind == "calls" and a.any_tools and b.any_tools):
        for one, other in ((a, b), (b, a)):
            held, known = _held(one, other), _coverage(other)
            if held < max(0.1, known - 0.25):
                return f"only {held:.0%} of one side's {_WORD[a.kind]} occur on the other"
    if not a.rows or not b.rows:
        return "a side has no answers"
    # the means of two samples of one traffic differ by their spread over the root of the rows
    for left, right in zip(a.inputs, b.inputs, strict=True):
        spread = np.sqrt(left.var(axis=0).sum() / len(left) + right.var(axis=0).sum() / len(right))
        if np.linalg.norm(left.mean(axis=0) - right.mean(axis=0)) <= 2 * spread + 0.25:
            return None
    return "their inputs are about other things"


_WORD = {"label": "labels", "object": "fields", "list": "items", "calls": "tools"}


def _held(one: _Read, other: _Read) -> float:
    """The share of one side's names, by frequency, that occur on the other."""
    known = {name for names in other.names for name in names}
    names = [name for row in one.names for name in row]
    return sum(name in known for name in names) / len(names) if names else float(not known)


def _coverage(side: _Read) -> float:
    """About the share of new names that a side has shown already (Good-Turing)."""
    counts = Counter(name for row in side.names for name in row)
    return 1 - sum(count == 1 for count in counts.values()) / max(1, counts.total())


def _compare(a: _Read, b: _Read) -> Verdict:
    apart_because = _cheaply_apart(a, b)
    if apart_because is not None:
        return Verdict(False, apart_because.capitalize() + ".")
    alike = _likeness(a, b)
    if min(len(a.rows), len(b.rows)) < FEWEST:
        if alike >= SAME_FIXED:
            return Verdict(True, "Few answers, but the prompts are nearly equal.")
        return Verdict(False, f"Fewer than {FEWEST} answers on a side are too few to tell.")
    noise = ((len(a.rows) + len(b.rows) + 1) / (12 * len(a.rows) * len(b.rows))) ** 0.5
    told = [apart(one * 16, two * 16)[0] for one, two in zip(a.inputs, b.inputs, strict=True)]
    reading = int(np.argmin(told))
    if told[reading] > TELLABLE + 2 * noise:
        return Verdict(False, f"Their inputs can be told apart (AUC {told[reading]:.2f}).")
    if a.kind == "text":
        outputs = apart(a.said * 16, b.said * 16)[0]
        if outputs > TELLABLE + 2 * noise:
            return Verdict(False, f"Their answers can be told apart (AUC {outputs:.2f}).")
        if alike < ALIKE_FIXED:
            return Verdict(False, f"Free text under prompts that ask for other things (likeness {alike:.2f}).")
        return Verdict(True, "Inputs and answers cannot be told apart, and the prompts ask for the same.")
    if a.kind == "calls" and (a.any_tools or b.any_tools):
        return Verdict(True, "Both call whatever tools are offered, for inputs that cannot be told apart.")
    return _follows(a, b, reading, alike)


def _follows(a: _Read, b: _Read, reading: int, alike: float) -> Verdict:
    """Whether closed answers follow inputs in the same way."""
    agreed = _on_shared(a, b)
    if len(agreed) >= SHARED_INPUTS:
        rate = sum(agreed) / len(agreed)
        if rate < 0.6:
            return Verdict(False, f"Asked the same, they agree on {rate:.0%} of {len(agreed)} answers.")
    targets = sorted({name for row in a.names + b.names for name in row})
    place = {name: column for column, name in enumerate(targets)}
    answers = [_targets(side, place) for side in (a, b)]
    inputs = [side.inputs[reading] for side in (a, b)]
    few = len(targets) < MANY_NAMES
    gains = []
    for here, there in ((0, 1), (1, 0)):
        own, base = _own(inputs[here], answers[here])
        # as many rows as a fold leaves to the probe of one's own
        size = min(len(inputs[there]), len(inputs[here]) * 3 // 4)
        moved = _right(_probe(inputs[there][:size], answers[there][:size]), inputs[here], answers[here])
        noise = 0.0 if few else (0.5 / len(inputs[here])) ** 0.5
        gains.append(own - base)
        if own - base < LEARNT:
            continue  # nothing learnt, nothing to compare
        if moved - base + noise < KEPT * (own - base):
            return Verdict(False, f"Their answers follow inputs in other ways ({moved:.0%} against {own:.0%}).")
    if a.kind != "label" and max(gains) < LEARNT:  # one field of open values: are those alike?
        noise = ((len(a.rows) + len(b.rows) + 1) / (12 * len(a.rows) * len(b.rows))) ** 0.5
        if (outputs := apart(a.said * 16, b.said * 16)[0]) > TELLABLE + 2 * noise:
            return Verdict(False, f"Their answers can be told apart (AUC {outputs:.2f}).")
    elif few and min(gains) < LEARNT and len(agreed) < SHARED_INPUTS and alike < SURELY_FIXED:
        return Verdict(False, "Inputs do not tell the answers, and the prompts differ.")
    return Verdict(True, "One contract, inputs that cannot be told apart, and answers that follow in the same way.")


def _on_shared(a: _Read, b: _Read) -> list[bool]:
    """For inputs asked of both sides, whether their closed answers are the same."""
    by_text: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    for row, names in zip(a.rows, a.names, strict=True):
        by_text[_last(row.text)].add(_closed(row.value, names))
    return [
        _closed(row.value, names) in by_text[_last(row.text)]
        for row, names in zip(b.rows, b.names, strict=True)
        if _last(row.text) in by_text
    ]


def _closed(value: Value, names: tuple[str, ...]) -> tuple[str, ...]:
    return (canonical(value),) if isinstance(value, dict) else names


def _targets(side: _Read, place: dict[str, int]) -> Floats:
    """Which names each answer has, and of an object's flags and labels which value: (n, names)."""
    found = np.zeros((len(side.rows), len(place)))
    for row, names in enumerate(side.names):
        for name in names:
            found[row, place[name]] = 1
        value = side.rows[row].value
        if isinstance(value, dict):
            for name in names:
                if value.get(name) is False:  # tool calls are an object too, of other names
                    found[row, place[name]] = -1
    return found


def _probe(inputs: Floats, answers: Floats) -> tuple[Floats, Floats, Floats]:
    """Ridge regression of the answers on the inputs: means of both, and coefficients."""
    mean, level = inputs.mean(axis=0), answers.mean(axis=0)
    centred = inputs - mean
    gram = centred @ centred.T + _RIDGE * np.eye(len(inputs))
    return mean, level, np.asarray(centred.T @ np.linalg.solve(gram, answers - level))


def _right(probe: tuple[Floats, Floats, Floats], inputs: Floats, answers: Floats) -> float:
    """The share of answers that a probe gets right: the label, or the mean over an object's names and flags."""
    mean, level, coefficients = probe
    return _hits((inputs - mean) @ coefficients + level, answers)


def _hits(said: Floats, answers: Floats) -> float:
    if bool((np.abs(answers).sum(axis=1) == 1).all()) and bool((answers >= 0).all()):
        if answers.shape[1] >= MANY_NAMES:
            return float((said.argmax(axis=1) == answers.argmax(axis=1)).mean())
        # of few labels one may be most of the rows: each counts the same, and is said where it is likelier than usual
        right = ((said - answers.mean(axis=0)).argmax(axis=1) == answers.argmax(axis=1))[:, None] & (answers > 0)
        seen = answers.sum(axis=0)
        return float((right.sum(axis=0)[seen > 0] / seen[seen > 0]).mean())
    # each name by how well its values are ranked, so that rare ones count as much as they vary
    spread = ((answers - answers.mean(axis=0)) ** 2).sum()
    missed = ((said - answers) ** 2).sum()
    return float(1 - missed / max(spread, 1e-9))


def _own(inputs: Floats, answers: Floats) -> tuple[float, float]:
    """What a probe on the same side reaches on rows held out, and what the commonest answer does."""
    fold = np.arange(len(inputs)) % 4
    said, level = np.zeros(answers.shape), np.zeros(answers.shape)
    for held in range(4):
        mean, base, coefficients = _probe(inputs[fold != held], answers[fold != held])
        said[fold == held] = (inputs[fold == held] - mean) @ coefficients + base
        level[fold == held] = base
    return _hits(said, answers), _hits(level, answers)
