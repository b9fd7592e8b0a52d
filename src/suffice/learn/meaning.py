"""Traffic that shares one prompt but mixes work: what it divides into, and the small model that tells it apart.

Two kinds of evidence, in this order. The *form* of the answers (a label, an object and its keys, a list, a tool call,
text): work with different contracts is never joined. Then, within a form, the *inputs*: two sets of labels are two
works only where a classifier that learned the boundary on some labels is right about labels that it never saw. Seven
well-separated intents of one application fail that test, however they are cut in two; two applications pass it.
What this does not know: works that differ in neither answers nor inputs, and whether free text is worth dividing
further: free text is a work if inputs and answers are regular, else chat, which belongs nowhere.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.protocols import Fitted
from suffice.core.types import Choice, Estimate, Example, Recipe, TrainSet, TuneSet, digest_of
from suffice.core.values import Value, calls_of, canonical, parse, plain
from suffice.proof.bounds import share
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.linear import LinearFamily
from suffice.specialists.solver import one_thread

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

FEWEST = 20
"""Rows of the smallest group: with fewer, a boundary cannot be checked on rows that did not draw it."""
RECURS = 3
"""A short text is a label if it was the answer this often."""
SEPARABLE = 0.95
"""AUC on held-out labels from which two sides are two works by all that is known of their inputs. The best cuts within
one data set reach 0.71 to 0.98 (those at the top are coherent topics of one application), two data sets 0.96 to 1."""
OTHER_KIND = 0.9
"""... and by the kind of text alone (length, punctuation, small words), which topics of one application share: cuts
within a data set reach 0.55 to 0.86, two data sets 0.93 to 1 (one pair of fourteen 0.76)."""
OTHER_KIND_AND_STYLE = 0.7
"""The same where the labels are written differently too (`card_arrival`, `PlayMusic`): two weaker signs agree."""
OTHER_KIND_OF_TEXT = 0.95
"""The same for free text, where answers are read too: within a data set up to 0.95, two data sets 0.97 to 1."""
SAME_ANSWERS = 0.5
"""Cosine of mean answers from which free text has one form and is not divided, whatever its inputs."""
CHATTER = 0.25
"""The largest share of a work's requests that may be answered in free text instead (refusals, questions back)."""
ALIKE = 0.7
"""AUC up to which two sets of requests count as the same: with 20 rows on one side, chance alone reaches 0.65."""
PRECISION = 0.98
"""What a match must reach on held-out rows."""
NOWHERE = "-"
"""The matcher's class for requests that belong to no group."""
FEWEST_NOWHERE = 30
"""Rows from which these are a class of their own; below, the guard alone keeps strangers out."""
TELLABLE = 0.8
"""Held-out AUC below which two groups' requests look alike, and neither can be matched."""

LONGEST = 1_000
"""Characters of a text that are read: its kind and topic show long before."""
_MOST_ROWS = 2_000
"""Rows of a form that draw its boundaries; the others follow."""
_MOST_ATOMS = 120
_COMPONENTS = 64
"""Principal directions kept of embeddings: fits are three times as fast, and separate as well."""
_RIDGE = 100.0
"""Penalty for features of variance one, balanced classes: about what n in the hundreds and 150 features ask for."""
_FOLDS = 4
_NEIGHBOURS = 10
SILENT = ("open", "none")
"""Forms that tell nothing: an empty object or list, and no answer."""
_SCALE = 16.0
"""The square root of the embedding's dimensions: each has then about the variance of the standardised kinds."""

_SMALL = (
    "the a an of to in on for with at from by is are was be been have has had do does did i you he she it we they my "
    "your this that and or but not can could will would should what how why when where which who if so as there me "
    "please"
)
_WORDS = tuple(_SMALL.split())
_OPENER = re.compile(
    r"^\W*(?:(?:hi|hey|hello|so|ok|okay|please|thanks|thank you|and|also)\b\W*)*(?:what|how|why|who|when|where|which|"
    r"is|are|was|do|does|did|can|could|would|should|will|explain|write|tell|give|help|list|compare|draft|suggest|make|"
    r"plan|translate|summari[sz]e|show|find|create|describe|i|my|recommend|name|teach|rewrite|generate)\b",
    re.IGNORECASE,
)
_IDENTIFIER = re.compile(r"[A-Za-z]\w*[_A-Z0-9.-][\w.&?-]*")
_NUMBER = re.compile(r"[-+$€£]?\d[\d,. ]*%?")


class Asked(msgspec.Struct, frozen=True):
    """One request with its answer: `text` is the last user turn, `value` the answer in plain form (`values.plain`).

    `answered` is False where there is no whole answer; `tools` is "" where none were offered, else anything that is
    equal for equal tools.
    """

    text: str
    value: Value
    answered: bool = True
    tools: str = ""


class Group(msgspec.Struct, frozen=True):
    """One work found: the form of its answers ("labels", "object", "list", "calls", "text"), rows, and in words."""

    form: str
    rows: int
    told: str


class Division(msgspec.Struct, frozen=True):
    """What a sample divides into.

    `groups` has a number per row, None where it belongs nowhere, and `found` describes each group. `one`: it is all one
    work, and every row is in group 0. No group at all: nothing in it repeats as a work (chat). `why` is a sentence.
    """

    groups: tuple[int | None, ...]
    found: tuple[Group, ...]
    one: bool
    why: str
    stats: dict[str, float] = {}


class Told(msgspec.Struct, frozen=True):
    """What a matcher does on held-out rows at its threshold: the share of matched requests that are in the right group,
    and the share of all requests that are matched. `labels` are the groups that it can give, `lost` those that cannot
    be told from another by their requests."""

    precision: Estimate
    matched: Estimate
    labels: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


class Matching(NamedTuple):
    """A matcher with the least score of a match, and what it does."""

    matcher: Fitted
    least: float
    told: Told

    @property
    def labels(self) -> tuple[str, ...]:
        """The groups that it can give: "g0", "g1", ..."""
        return self.told.labels


# ----------------------------------------------------------------------------------------------- what is read


def kinds(text: str) -> list[float]:
    """What kind of text it is, whatever its topic: lengths, cases, marks, endings, and how often small words occur."""
    text = text[:LONGEST]
    words = text.split()
    lower = [word.strip(".,?!;:").lower() for word in words]
    counts = Counter(lower)
    chars, size = max(1, len(text)), max(1, len(words))
    return [
        float(np.log1p(len(text))),
        float(np.log1p(len(words))),
        chars / size,
        sum(char.isupper() for char in text) / chars,
        sum(char.isdigit() for char in text) / chars,
        sum(not char.isalnum() and not char.isspace() for char in text) / chars,
        float(text[:1].isupper()),
        float(text[-1:] == "?"),
        float(text[-1:] == "."),
        float(text[-1:].isalnum()),
        float(np.log1p(text.count("\n"))),
        *(text.count(mark) / size for mark in ",'.?!"),
        sum(char > "\x7f" for char in text) / chars,
        sum(char in "{}[]()<>=_/#@*`\\|" for char in text) / chars,
        sum(word[:1].isupper() for word in words[1:]) / size,
        sum(word in _WORDS for word in lower) / size,
        *(counts[word] / size**0.5 for word in _WORDS),
    ]


class Texts:
    """Texts as numbers: `unit` (n, D) embeddings of length 1, `topic` (n, D) centred and scaled, `kind` (n, K)."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.unit = shared_static_embedding().vectors([text[:LONGEST] for text in texts]).astype(np.float64)
        self.topic = (self.unit - self.unit.mean(axis=0)) * _SCALE
        raw = np.array([kinds(text) for text in texts])
        spread = raw.std(axis=0)
        self.kind = np.clip((raw - raw.mean(axis=0)) / np.where(spread > 1e-9, spread, 1.0), -4, 4)

    @property
    def all(self) -> Floats:
        """Topic and kind side by side."""
        return np.hstack((self.topic, self.kind))


def auc(margins: Floats, side: Bools) -> float:
    """The chance that a row of `side` has the larger margin of two rows of different sides; 0.5 where one is empty."""
    from scipy.stats import rankdata

    ones, noughts = int(side.sum()), int((~side).sum())
    if not ones or not noughts:
        return 0.5
    return float((rankdata(margins)[side].sum() - ones * (ones + 1) / 2) / (ones * noughts))


class Boundary:
    """Ridge classifiers between sets of *atoms* (labels, key sets, clusters), judged on atoms they were not fitted on.

    Products of the features (n, d) are summed per atom once, so that a fit costs one solution of d equations.
    """

    def __init__(self, features: Floats, atoms: Ints) -> None:
        self.atoms = atoms
        self._rows = np.hstack((features, np.ones((len(features), 1))))
        count, width = int(atoms.max()) + 1, self._rows.shape[1]
        self.counts = np.bincount(atoms, minlength=count)
        self._grams = np.zeros((count, width * width), dtype=np.float32)
        self._sums = np.zeros((count, width))
        for atom in range(count):
            own = self._rows[atoms == atom]
            self._grams[atom] = (own.T @ own).ravel()
            self._sums[atom] = own.sum(axis=0)

    def margins(self, side: Bools, fold: Ints) -> Floats:
        """Held-out margins (n,) of all rows, above 0 where `side` (per atom) is more likely; `fold` is per atom."""
        found = np.zeros(len(self._rows))
        held = np.unique(fold)
        for each, coefficients in zip(held, self.fits(side, np.array([fold != each for each in held])), strict=True):
            where = (fold == each)[self.atoms]
            found[where] = self._rows[where] @ coefficients
        return found

    def fits(self, side: Bools, used: Bools) -> list[Floats]:
        """Coefficients (d + 1,) of the boundary drawn by the atoms in each row of `used` (f, atoms)."""
        from scipy.linalg import solve

        signs = np.where(side, 1.0, -1.0)
        weights = np.zeros(used.shape)
        for chosen in (used & side, used & ~side):
            total = chosen @ self.counts
            weights += chosen * (used @ self.counts / 2 / np.maximum(total, 1))[:, None]  # both sides count the same
        width = self._rows.shape[1]
        grams = (weights.astype(np.float32) @ self._grams).reshape(-1, width, width)
        ridge = np.eye(width) * _RIDGE
        lefts = (weights * signs) @ self._sums
        return [np.asarray(solve(gram + ridge, left, assume_a="pos")) for gram, left in zip(grams, lefts, strict=True)]

    def folds(self, side: Bools) -> Ints:
        """A fold per atom, the atoms of each side dealt out by size."""
        fold = np.zeros(len(side), dtype=np.int64)
        for chosen in (side, ~side):
            own = np.flatnonzero(chosen)
            fold[own[np.argsort(-self.counts[own], kind="stable")]] = np.arange(len(own)) % _FOLDS
        return fold

    def judge(self, side: Bools) -> float:
        """AUC on atoms held out."""
        return auc(self.margins(side, self.folds(side)), side[self.atoms])

    def refined(self, side: Bools) -> Bools:
        """Atoms moved to the side that a boundary drawn without them puts them on, until that changes little."""
        for _ in range(4):
            margins = self.margins(side, self.folds(side))
            ahead = np.bincount(self.atoms, margins > 0, len(side)) > self.counts / 2
            if min(ahead.sum(), (~ahead).sum()) < 2 or bool((ahead == side).all()):
                break
            side = ahead
        return side


def apart(one: Floats, other: Floats, seed: int = 0) -> tuple[float, Floats]:
    """How well rows (n, d) of one set are told from another's: the held-out AUC, and the margins of `one`."""
    features = np.vstack((one, other))
    side = np.arange(len(features)) < len(one)
    # rows as atoms would cost a product each: folds as atoms do the same for a split by rows
    rng = np.random.default_rng(seed)
    fold = np.concatenate([rng.permutation(len(part)) % _FOLDS for part in (one, other)])
    boundary = Boundary(features, fold + _FOLDS * ~side)
    sides = np.arange(2 * _FOLDS) < _FOLDS
    margins = boundary.margins(sides, np.arange(2 * _FOLDS) % _FOLDS)
    return auc(margins, side), margins[: len(one)]


def _reduced(features: Floats) -> Floats:
    """The first principal directions of features (n, d)."""
    if features.shape[1] <= _COMPONENTS:
        return features
    centred = features - features.mean(axis=0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(centred @ vectors[:, -_COMPONENTS:])


# ---------------------------------------------------------------------------------------------- forms of answers


class _Shape(NamedTuple):
    """The form of an answer; `names` are what its group is known by (label, keys, items, tools)."""

    form: str  # labels, object, list, calls, text, open (an empty object or list), none
    names: tuple[str, ...] = ()


def style(label: str) -> str:
    """How a label is written: number, snake, camel, upper, capital, lower or words."""
    if _NUMBER.fullmatch(label):
        return "number"
    if len(label.split()) > 1:
        return "words"
    if "_" in label or ("-" in label and label.islower()):
        return "snake"
    if label.isupper() and len(label) > 1:
        return "upper"
    if re.search(r"[a-z][A-Z]", label):
        return "camel"
    return "capital" if label[:1].isupper() else "lower"


def _unwrapped(value: Value) -> Value:
    """JSON that stands in a sentence or two of text, as JSON."""
    if isinstance(value, str) and "{" in value and "}" in value:
        inner = parse(value[value.index("{") : value.rindex("}") + 1])
        if isinstance(inner, dict) and len(canonical(inner)) > len(value) / 3:
            return plain(inner)
    return value


def label_of(value: Value) -> str | None:
    """The label that a scalar answer may be, in one spelling; None for anything longer than eight words."""
    if isinstance(value, bool | int | float) or value is None:
        return canonical(value)
    if not isinstance(value, str) or len(value) > 60 or "\n" in value or len(value.split()) > 8:
        return None
    return value.strip().rstrip(".!")


def identifier(label: str) -> bool:
    """Whether a label is written like a name in code: no one answers a question so by chance."""
    return _IDENTIFIER.fullmatch(label) is not None


def _shapes(sample: Sequence[Asked]) -> list[_Shape]:
    labels = [label_of(row.value) if row.answered else None for row in sample]
    # asked the same again, the same answer is no sign of a label: only other requests count
    often = Counter(
        label for _, label in {(row.text, label.casefold()) for row, label in zip(sample, labels, strict=True) if label}
    )
    spelling: dict[str, str] = {}
    found = []
    for row, label in zip(sample, labels, strict=True):
        value = _unwrapped(row.value)
        calls = calls_of(value)
        if not row.answered:
            shape = _Shape("none")
        elif calls is not None:
            shape = _Shape("calls", tuple(sorted({str(call["name"]) for call in calls})))
        elif isinstance(value, dict):
            shape = _Shape("object", tuple(sorted(value))) if value else _Shape("open")
        elif isinstance(value, list):
            items = [
                item if isinstance(item, str) else "/".join(item) for item in value if isinstance(item, str | dict)
            ]
            shape = _Shape("list", tuple(sorted(set(items)))) if items else _Shape("open")
        elif label and (often[label.casefold()] >= RECURS or identifier(label)):
            shape = _Shape("labels", (spelling.setdefault(label.casefold(), label),))
        elif label and _NUMBER.fullmatch(label):
            shape = _Shape("labels", ("0",))  # numbers out of an open range are one label
        else:
            shape = _Shape("text")
        found.append(shape)
    return found


def _components(keys: Iterable[tuple[str, ...]]) -> dict[str, str]:
    """Which keys belong to one object, by a key that stands for them: those that occur together, not just by chance."""
    counts: Counter[str] = Counter()
    together: Counter[tuple[str, str]] = Counter()
    for row in keys:
        counts.update(row)
        together.update((a, b) for i, a in enumerate(row) for b in row[i + 1 :])
    parent = {key: key for key in counts}

    def root(key: str) -> str:
        while parent[key] != key:
            key = parent[key]
        return key

    for (a, b), count in sorted(together.items()):
        if count >= 0.02 * min(counts[a], counts[b]):
            parent[root(a)] = root(b)
    return {key: root(key) for key in counts}


def _atom_names(sample: Sequence[Asked], shapes: Sequence[_Shape], rows: Sequence[int]) -> list[str]:
    """What each of these rows of one form is known by when a boundary is drawn: the label, item, or object of flags."""
    if shapes[rows[0]].form != "object":
        common = Counter(name for i in rows for name in shapes[i].names)
        return [max(shapes[i].names, key=lambda name: (common[name], name)) for i in rows]
    values: defaultdict[str, Counter[str]] = defaultdict(Counter)
    copied: Counter[str] = Counter()
    objects = [value for i in rows if isinstance(value := _unwrapped(sample[i].value), dict)]
    for i, value in zip(rows, objects, strict=True):
        for key, item in value.items():
            values[key][canonical(item)] += 1
            copied[key] += isinstance(item, str) and item.casefold() in sample[i].text.casefold()
    # a field that always has a value, one of few and not copied, is a label; others do not tell which object it is
    closed = [
        key
        for key, seen in values.items()
        if seen.total() >= max(0.8 * len(rows), 5 * len(seen)) and copied[key] < 0.5 * seen.total()
    ]
    return [" ".join(canonical(value.get(key)) for key in closed) for value in objects]


def _by_hub(keys: Sequence[tuple[str, ...]], features: Floats, kind: Floats, seed: int) -> list[Ints]:
    """Objects with one key in common and no other ({name, date} and {name, amount}), where their inputs differ too."""
    counts = Counter(key for row in keys for key in row)
    for hub in sorted(key for key, count in counts.items() if count >= 0.8 * len(keys)):
        rest = [tuple(key for key in row if key != hub) for row in keys]
        roots = _components(rest)
        parts: defaultdict[str, list[int]] = defaultdict(list)
        for i, row in enumerate(rest):
            if row:
                parts[Counter(roots[key] for key in row).most_common(1)[0][0]].append(i)
        large = [np.array(rows) for _, rows in sorted(parts.items()) if len(rows) >= FEWEST]
        if len(large) > 1 and all(
            apart(features[one], features[other], seed)[0] >= SEPARABLE
            and apart(kind[one], kind[other], seed)[0] >= OTHER_KIND
            for i, one in enumerate(large)
            for other in large[:i]
        ):
            return large
    return [np.arange(len(keys))]


# ------------------------------------------------------------------------------------------------- dividing


def _cuts(boundary: Boundary, features: Floats, kind: Floats, styles: Sequence[str]) -> list[Bools]:
    """Sides worth a try: high branches of Ward's trees over the atoms' means, and each way of writing labels."""
    from scipy.cluster.hierarchy import linkage

    count = len(boundary.counts)
    found: dict[bytes, Bools] = {}
    written = [np.array([name == each for name in styles]) for each in sorted(set(styles))] if styles else []
    sides = list(written)
    for space in (features, kind):
        means = np.array([space[boundary.atoms == atom].mean(axis=0) for atom in range(count)])
        tree = linkage(means, "ward")
        members = {atom: [atom] for atom in range(count)}
        for step, row in enumerate(tree):
            left, right = int(row[0]), int(row[1])
            members[count + step] = members[left] + members[right]
            if step >= len(tree) - 6:
                sides += [np.isin(np.arange(count), members[branch]) for branch in (left, right)]
    sides = list({(side ^ side[0]).tobytes(): side ^ side[0] for side in sides}.values())
    styled = {(side ^ side[0]).tobytes() for side in written}
    for side in sides:
        if min(side.sum(), (~side).sum()) < 2:
            continue
        # a way of writing labels is a sign by itself, and stays; a branch of a tree is only where to begin
        for one in (side, boundary.refined(side)) if side.tobytes() in styled else (boundary.refined(side),):
            if min(boundary.counts[one].sum(), boundary.counts[~one].sum()) >= FEWEST:
                found.setdefault((one ^ one[0]).tobytes(), one)
    return list(found.values())


def _split(features: Floats, kind: Floats, names: Sequence[str], form: str, seed: int) -> list[Ints]:
    """Rows of one form, divided: lists of positions. Features (n, d), kinds (n, k), an atom's name per row.

    The form says how much other kinds of text have to differ, and that the writing of labels tells something.
    """
    whole = [np.arange(len(names))]
    counts = Counter(names)
    kept = [name for name, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if count >= RECURS]
    used = np.flatnonzero(np.isin(names, kept[:_MOST_ATOMS]))
    if len(used) > _MOST_ROWS:
        used = np.sort(np.random.default_rng(seed).choice(used, _MOST_ROWS, replace=False))
    known = [names[row] for row in used.tolist()]
    kept = sorted(set(known))
    place = {name: atom for atom, name in enumerate(kept)}
    atoms = np.array([place[name] for name in known], dtype=np.int64)
    if len(kept) < 4:  # two on each side: one to draw the boundary, one to judge it
        return whole
    boundary, by_kind = Boundary(features[used], atoms), Boundary(kind[used], atoms)
    styles = [style(name) for name in kept] if form == "labels" else []
    best, strongest = None, 0.0
    for side in _cuts(boundary, features[used], kind[used], styles):
        strength = boundary.judge(side)
        if strength < SEPARABLE or strength + 1 <= strongest:
            continue
        other = by_kind.judge(side)
        needed = OTHER_KIND_OF_TEXT if form == "text" else OTHER_KIND
        if styles and _other_style(styles, boundary.counts, side):
            needed = OTHER_KIND_AND_STYLE
        if other >= needed and strength + other > strongest:
            best, strongest = side, strength + other
    if best is None:
        return whole
    # rows of an atom stay together; one that drew no boundary goes where most of its rows fall
    ahead: defaultdict[str, list[bool]] = defaultdict(list)
    for name, margin in zip(names, _all_margins(features[used], features, best[atoms]), strict=True):
        ahead[name].append(bool(margin > 0))
    on = {name: sum(seen) * 2 > len(seen) for name, seen in ahead.items()}
    on.update(zip(kept, map(bool, best), strict=True))
    side = np.array([on[name] for name in names])
    return [
        part[inner]
        for part in (np.flatnonzero(side), np.flatnonzero(~side))
        for inner in _split(features[part], kind[part], [names[row] for row in part.tolist()], form, seed)
    ]


def _all_margins(known: Floats, rows: Floats, side: Bools) -> Floats:
    """Margins of rows (m, d) by a boundary drawn by all the known ones (n, d); `side` (n,) is above 0."""
    boundary = Boundary(known, side.astype(np.int64))
    count = len(boundary.counts)
    (coefficients,) = boundary.fits(np.arange(count) == 1, np.ones((1, count), dtype=bool))
    return np.asarray(np.hstack((rows, np.ones((len(rows), 1)))) @ coefficients)


def _other_style(styles: Sequence[str], counts: Ints, side: Bools) -> bool:
    """Whether the labels of two sides are written differently, but for a tenth of the rows."""
    shares: list[Counter[str]] = []
    for chosen in (side, ~side):
        total: Counter[str] = Counter()
        for atom in np.flatnonzero(chosen).tolist():
            total[styles[atom]] += int(counts[atom])
        shares.append(total)
    one, other = shares
    return sum(min(one[name] / one.total(), other[name] / other.total()) for name in one) < 0.1


def divide(sample: Sequence[Asked], seed: int = 0) -> Division:
    """What requests of one prompt divide into: groups of the same work, or that it is one work, or none.

    Up to about 5,000 rows in a few seconds. The same arguments give the same division.
    """
    with one_thread():
        return _divide(sample, seed)


def _divide(sample: Sequence[Asked], seed: int) -> Division:
    if len(sample) < FEWEST:
        return Division((None,) * len(sample), (), False, f"{len(sample)} requests are too few to tell.")
    shapes = _shapes(sample)
    texts = Texts([row.text for row in sample])
    groups = _form_groups(sample, shapes, texts, seed)
    taken = _Taken(sample, shapes, texts, groups)
    taken.settle()
    taken.absorb(seed)
    taken.add_text(seed)
    return taken.division()


def _form_groups(sample: Sequence[Asked], shapes: Sequence[_Shape], texts: Texts, seed: int) -> list[Ints]:
    """Groups of rows whose answers have a form of their own (all but free text), FEWEST rows or more."""
    classes: defaultdict[str, list[int]] = defaultdict(list)
    roots = _components(shape.names for shape in shapes if shape.form == "object")
    offered = Counter(row.tools for row, shape in zip(sample, shapes, strict=True) if shape.form == "calls")
    few = len([tools for tools, count in offered.items() if count >= FEWEST]) == len(offered)
    for i, shape in enumerate(shapes):
        if shape.form in ("labels", "list"):
            classes[shape.form].append(i)
        elif shape.form == "object":
            # keys with little in common may still share one: the commonest says where the row belongs
            classes[f"object {Counter(roots[key] for key in shape.names).most_common(1)[0][0]}"].append(i)
        elif shape.form == "calls":  # many offers: each request brings its own tools, which is one work
            classes[f"calls {sample[i].tools if few else ''}"].append(i)
    small = [name for name, rows in classes.items() if name.startswith("object") and len(rows) < FEWEST]
    rare = [i for name in small for i in classes.pop(name)]
    if rare:  # fields of one object that too few rows show together
        classes["object"] = sorted(rare)
    found = []
    for rows in classes.values():
        form = shapes[rows[0]].form
        if form == "calls":
            found.append(np.array(rows))
            continue
        features = np.hstack((_reduced(texts.topic[rows]), texts.kind[rows]))
        kind = texts.kind[rows]
        parts = [np.arange(len(rows))]
        if form == "object":
            parts = _by_hub([shapes[i].names for i in rows], features, kind, seed)
        for part in parts:
            names = _atom_names(sample, shapes, [rows[i] for i in part])
            split = _split(features[part], kind[part], names, form, seed)
            found += [np.array(rows)[part[inner]] for inner in split]
    return [rows for rows in found if len(rows) >= FEWEST]


class _Taken:
    """Which group each row is in so far."""

    def __init__(self, sample: Sequence[Asked], shapes: Sequence[_Shape], texts: Texts, groups: list[Ints]) -> None:
        self.sample, self.shapes, self.texts = sample, shapes, texts
        space = texts.all
        self._space = (space / np.maximum(np.linalg.norm(space, axis=1, keepdims=True), 1e-9)).astype(np.float32)
        self.of = np.full(len(sample), -1)
        self.forms: list[str] = []
        self.strays = 0
        for rows in groups:
            self._add(rows, shapes[rows[0]].form)

    def _add(self, rows: Ints, form: str) -> None:
        self.of[rows] = len(self.forms)
        self.forms.append(form)

    def _near(self, rows: Ints) -> tuple[Ints, Floats]:
        """The nearest other rows of each of these (n, k), and how alike they are."""
        near = np.zeros((len(rows), _NEIGHBOURS), dtype=np.int64)
        alike = np.zeros(near.shape)
        # an answer that says nothing of its form is no evidence for or against a group
        silent = [i for i, shape in enumerate(self.shapes) if shape.form in SILENT]
        for start in range(0, len(rows), 500):
            some = rows[start : start + 500]
            likeness = self._space[some] @ self._space.T
            likeness[np.arange(len(some)), some] = -1
            likeness[:, silent] = -1
            best = np.argpartition(-likeness, _NEIGHBOURS, axis=1)[:, :_NEIGHBOURS]
            order = np.argsort(-np.take_along_axis(likeness, best, axis=1), axis=1, kind="stable")
            near[start : start + 500] = np.take_along_axis(best, order, axis=1)
            alike[start : start + 500] = np.take_along_axis(likeness, near[start : start + 500], axis=1)
        return near, alike

    def settle(self) -> None:
        """Rare labels go where their neighbours are: a boundary was drawn without them, or they were chance."""
        for group, form in enumerate(self.forms):
            if form != "labels":
                continue
            rows = np.flatnonzero(self.of == group)
            by_label: defaultdict[str, list[int]] = defaultdict(list)
            written: Counter[str] = Counter()
            for i in rows.tolist():
                by_label[self.shapes[i].names[0]].append(i)
                written[style(self.shapes[i].names[0])] += 1
            for label, own in sorted(by_label.items()):
                if len(own) > 0.05 * len(rows):
                    continue
                usual = written[style(label)] >= 0.05 * len(rows)
                near = self.of[self._near(np.array(own))[0]]
                votes = {other: float((near == other).mean()) for other in set(near.ravel().tolist())}
                if votes.get(group, 0.0) >= (0.3 if usual else 0.6):
                    continue
                rivals = {g: v for g, v in votes.items() if g >= 0 and self.forms[g] == form and g != group}
                best = max(rivals, key=lambda g: (rivals[g], -g), default=-1)
                self.of[own] = best if best >= 0 and rivals[best] >= 0.5 else -1

    def settle_text(self) -> None:
        """Free text without its like in its group leaves it: its answer was chance too."""
        for group, form in enumerate(self.forms):
            if form == "text":
                rows = np.flatnonzero(self.of == group)
                near = self.of[self._near(rows)[0]]
                self.of[rows[(near == group).mean(axis=1) < 0.3]] = -1

    def absorb(self, seed: int, forms: tuple[str, ...] = ("labels", "object", "list", "calls")) -> None:
        """Give rows without a form of their own to a group whose inputs they cannot be told from."""
        hosts = [group for group, form in enumerate(self.forms) if form in forms]
        free = np.flatnonzero(self.of < 0)
        if not hosts or not len(free):
            return
        with_tools = np.array([bool(row.tools) for row in self.sample])
        near, likeness = self._near(free)
        votes = np.stack([(self.of[near] == group).mean(axis=1) for group in hosts], axis=1)
        self._place_open(free)
        for column, group in enumerate(hosts):
            own = np.flatnonzero(self.of == group)
            reach = self._reach(own, seed)
            top = votes.argmax(axis=1) == column
            familiar = likeness[:, :3].mean(axis=1) >= reach
            silent = np.array([self.shapes[i].form in SILENT for i in free.tolist()])
            fits = np.array([self._may_hold(group, i) for i in free.tolist()])
            take = top & fits & silent & familiar & (votes[:, column] >= 0.5)
            loud = top & fits & ~silent
            chosen = loud & familiar & (votes[:, column] >= 2 / 3)
            if loud.sum() >= FEWEST:
                told, margins = apart(self.texts.all[free[loud]], self.texts.all[own], seed)
                if told > ALIKE:
                    chosen[np.flatnonzero(loud)[margins > 0]] = False
                else:
                    chosen = loud & (votes[:, column] >= 0.5)
            calls = self.forms[group] == "calls"
            if calls and len(own) >= 0.6 * with_tools.sum():  # no call is an answer too
                chosen |= np.array([self.shapes[i].form in ("text", "none") for i in free.tolist()]) & with_tools[free]
            elif chosen.sum() > CHATTER * (len(own) + chosen.sum()):
                chosen[:] = False
            still = self.of[free] < 0
            self.of[free[(take | chosen) & still]] = group

    def _place_open(self, free: Ints) -> None:
        """An empty object or list is the answer of a work with objects or lists: of the one its request is like."""
        rows = [i for i in free if self.shapes[i].form == "open"]
        hosts = [group for group, form in enumerate(self.forms) if form in ("object", "list")]
        if not rows or not hosts:
            return
        known = np.flatnonzero(np.isin(self.of, hosts))
        features = np.hstack((_reduced(self.texts.topic), self.texts.kind))
        place = np.searchsorted(hosts, self.of[known])
        margins = [_all_margins(features[known], features[rows], place == one) for one in range(len(hosts))]
        self.of[rows] = np.array(hosts)[np.argmax(margins, axis=0)]

    def _may_hold(self, group: int, row: int) -> bool:
        """Text, or no answer, may stand for any answer; a rare form for text or its own; others for nothing else."""
        form = self.shapes[row].form
        return form in ("text", "none") or self.forms[group] == "text" or form == self.forms[group]

    def _reach(self, own: Ints, seed: int) -> float:
        """How alike the least usual tenth of a group's rows is to its nearest rows of the group."""
        some = np.random.default_rng(seed).permutation(len(own))[:300]
        likeness = self._space[own[some]] @ self._space[own].T
        likeness[np.arange(len(some)), some] = -1
        nearest = np.sort(likeness, axis=1)[:, -3:]
        return float(np.quantile(nearest.mean(axis=1), 0.1))

    def add_text(self, seed: int) -> None:
        """Groups of free text: divided by inputs and answers, kept if regular. Then strays may join those."""
        from sklearn.cluster import KMeans

        rows = np.flatnonzero((self.of < 0) & np.array([shape.form == "text" for shape in self.shapes]))
        if len(rows) < FEWEST:
            return
        asked = [self.sample[i].text for i in rows.tolist()]
        said = [value if isinstance(value := self.sample[i].value, str) else canonical(value) for i in rows.tolist()]
        inputs, answers = Texts(asked), Texts(said)
        topic = _reduced(np.hstack((inputs.topic, answers.topic)))
        kind = np.hstack((inputs.kind, answers.kind))
        clusters = KMeans(int(np.clip(len(rows) // 12, 6, 24)), n_init=1, random_state=seed).fit_predict(topic)

        features = np.hstack((topic, kind))
        parts = _split(features, kind, [str(cluster) for cluster in clusters], "text", seed)
        for part in _alike(parts, answers.unit):
            if len(part) >= FEWEST and regular([asked[i] for i in part], [said[i] for i in part]):
                self._add(rows[part], "text")
        self.settle_text()
        self.absorb(seed, ("text",))

    def division(self) -> Division:
        """The finding."""
        order = sorted(set(self.of.tolist()) - {-1}, key=lambda group: (-int((self.of == group).sum()), group))
        number: dict[int, int | None] = {group: place for place, group in enumerate(order)}
        groups = tuple(number.get(int(group)) for group in self.of)
        nowhere = sum(group is None for group in groups) / len(groups)
        found = tuple(self._told(group) for group in order)
        stats = {"groups": float(len(order)), "nowhere": nowhere}
        if not order:
            return Division(groups, (), False, "Varied text, nothing in it repeats as a work.", stats)
        said = "; ".join(f"{group.told} ({group.rows})" for group in found)
        if len(order) == 1 and nowhere <= 0.05:
            return Division((0,) * len(groups), found, True, f"One work: {found[0].told}.", stats)
        return Division(groups, found, False, f"{said}; {nowhere:.0%} belong nowhere.", stats)

    def _told(self, group: int) -> Group:
        rows = np.flatnonzero(self.of == group)
        names = Counter(
            name for i in rows.tolist() for name in self.shapes[i].names if self.shapes[i].form == self.forms[group]
        )
        shown = ", ".join(name[:40] for name, _ in names.most_common(4)) + (", …" if len(names) > 4 else "")
        words = {"labels": "labels", "object": "objects with", "list": "lists of", "calls": "calls of"}
        form = self.forms[group]
        return Group(form, len(rows), f"{words[form]} {shown}" if form in words else "free text of one kind")


def _alike(parts: Sequence[Ints], unit: Floats) -> list[Ints]:
    """Parts of free text, those joined whose answers (n, D) have one form: of such, only inputs differed."""
    found: list[Ints] = []
    for part in sorted(parts, key=len, reverse=True):
        mean = unit[part].mean(axis=0)
        for place, other in enumerate(found):
            means = unit[other].mean(axis=0)
            if mean @ means >= SAME_ANSWERS * np.linalg.norm(mean) * np.linalg.norm(means):
                found[place] = np.concatenate((other, part))
                break
        else:
            found.append(part)
    return found


def regular(inputs: Sequence[str], answers: Sequence[str]) -> bool:
    """Whether free text is the same work again and again, and not chat: at least two of five signs.

    Measured on 300 rows each: maths, translations, summaries and SQL have two to four, chat has none or one. Signs: the
    lengths of answers follow those of inputs, or hardly vary (chat: a standard deviation of logs of 0.41 to 1.5); the
    answers are alike (mean cosine; chat up to 0.27) or begin with one word; the inputs are alike (chat up to 0.06);
    they end or begin alike; few open as a request to someone (chat: 0.43 to 0.69).
    """
    asked = np.log1p([len(text) for text in inputs])
    said = np.log1p([len(text) for text in answers])
    embedding = shared_static_embedding()
    tight = [
        float(np.linalg.norm(embedding.vectors([text[:LONGEST] for text in texts[:500]]).mean(axis=0)) ** 2)
        for texts in (inputs, answers)
    ]

    def most(values: Iterable[str]) -> float:
        return Counter(values).most_common(1)[0][1] / len(inputs)

    signs = [
        min(float((said - asked).std()), float(said.std()) + 0.1) <= 0.45,
        tight[1] >= 0.35 or most((text.split() or [""])[0] for text in answers) >= 0.5,
        tight[0] >= 0.2,
        max(most(text.strip()[-1:] for text in inputs), most((text.split() or [""])[0] for text in inputs)) >= 0.8,
        sum(_OPENER.match(text) is not None for text in inputs) <= 0.2 * len(inputs),
    ]
    return sum(signs) >= 2


# ------------------------------------------------------------------------------------------------- matching


def fit(sample: Sequence[Asked], division: Division | Sequence[int | None], seed: int = 0) -> Matching | None:
    """The small model that tells from a request's text which group it is in, with its least score and what it does.

    `division` is what `divide` found, or a group's number or None for each row. The model answers "g0", "g1", ... or
    NOWHERE; a match is another answer than NOWHERE, familiar, with at least that score. Three fifths of the rows fit
    it, a fifth fits its score and guard, a fifth, unseen, chooses the least score: the lowest at which PRECISION of the
    matches are right. The figures are from that fifth too, a little flattering therefore. Groups whose requests look
    alike are given up: neither can be matched. None where nothing can be matched so surely.
    """
    with one_thread():
        return _fit(sample, division, seed)


def _fit(sample: Sequence[Asked], division: Division | Sequence[int | None], seed: int) -> Matching | None:
    groups = list(division.groups if isinstance(division, Division) else division)
    texts = Texts([row.text for row in sample])
    lost = _alike_inputs(texts, groups, seed)
    labels = [NOWHERE if group is None or group in lost else f"g{group}" for group in groups]
    order = np.random.default_rng(seed).permutation(len(distinct := sorted({row.text for row in sample}))).tolist()
    place = {text: order[i] % 5 for i, text in enumerate(distinct)}  # equal texts are on one side
    strangers = labels.count(NOWHERE) >= FEWEST_NOWHERE
    parts: list[list[Example]] = [[], [], []]
    held: list[str] = []
    for i, (row, label) in enumerate(zip(sample, labels, strict=True)):
        part = max(0, place[row.text] - 2)
        if part == 2:
            held.append(label)
        if part == 2 or label != NOWHERE or strangers:
            example = Example(id=digest_of(str(i), row.text), input=row.text, reference=label, has_reference=True)
            parts[part].append(example)
    known = tuple(sorted({str(example.reference) for part in parts[:2] for example in part}))
    if not set(known) - {NOWHERE}:
        return None
    recipe = Recipe(family="linear", seed=seed)
    model = LinearFamily().fit(recipe, Choice(known), TrainSet(parts[0]), TuneSet(parts[1]), lambda *_: None)
    found = model.predict([example.input for example in parts[2]])
    scores = np.array([p.score if p.familiar and p.value != NOWHERE else -1.0 for p in found])
    right = np.array([p.value == label for p, label in zip(found, held, strict=True)], dtype=bool)
    least = _least(scores, right)
    if least is None:
        return None
    matched = scores >= least
    given = tuple(label for label in known if label != NOWHERE)
    told = Told(share(right[matched]), share(matched), given, tuple(f"g{group}" for group in sorted(lost)))
    return Matching(model, least, told)


def _least(scores: Floats, right: Bools) -> float | None:
    """The lowest score at which PRECISION of the rows at or above it are right; None where there is none."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    precision = np.cumsum(right[order]) / np.arange(1, len(order) + 1)
    last = np.append(ranked[1:] != ranked[:-1], True)[: len(order)]  # a threshold takes all rows of one score
    good = np.flatnonzero((precision >= PRECISION) & last & (ranked >= 0))
    return float(ranked[good[-1]]) if len(good) else None


def _alike_inputs(texts: Texts, groups: Sequence[int | None], seed: int) -> set[int]:
    """Groups that cannot be told from another by their requests: they differ in their answers alone."""
    features = np.hstack((_reduced(texts.topic), texts.kind))
    own = {
        group: np.array([i for i, each in enumerate(groups) if each == group][:500])
        for group in sorted({group for group in groups if group is not None})
    }
    lost: set[int] = set()
    for one in own:
        for other in own:
            if other < one and apart(features[own[one]], features[own[other]], seed)[0] < TELLABLE:
                lost |= {one, other}
    return lost
