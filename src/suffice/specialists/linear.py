"""The linear family: words, pieces of words and a static embedding, read by logistic regression. No download, no GPU.

Fitting uses scikit-learn; loading and predicting use numpy alone, on the fitted arrays: one look-up of all the text's
features in a sorted vocabulary, one gather of their coefficient rows, one product for all heads together.
What this does not know: word order beyond pairs, and answers that are not among those seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from suffice.core.errors import ArtefactError
from suffice.core.protocols import Progress
from suffice.core.types import Example, OutputContract, Prediction, Recipe, ToolCall, TrainSet, TuneSet
from suffice.core.values import canonical
from suffice.specialists.embedding import StaticEmbedding, shared_static_embedding
from suffice.specialists.features import Hasher, Hashes, normalised
from suffice.specialists.heads import Head, Scalar, answers, composer, heads_of, index_of, unsupported
from suffice.specialists.heads import Path as HeadPath
from suffice.specialists.scorer import Guard, Scorer, fit_guard, fit_scorer

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Arrays = dict[str, npt.NDArray[Any]]

FORMAT = 1
TENSORS, SETTINGS = "model.safetensors", "model.json"

SIGNALS = ("evidence", "margin", "entropy", "similarity", "gap", "agrees", "known", "length")
"""Per answer: log-odds of the joint probability; smallest margin over heads (log-odds of first to second); entropy
summed over heads; cosine to the predicted class's centroid, how much that falls short of the nearest centroid's, and
whether they are the same; share of the text's features that are in the vocabulary; log of the number of features."""

_CHARS_END = np.uint64(1 << 63)
_FEWEST_FOR_PAIRS = 200
_MOST_FEATURES = 40_000
_COEFFICIENTS = 4_000_000
"""Features times columns: 8 MB in float16. With many classes the rarest features go."""
_CLIP = 700.0


class _Text(NamedTuple):
    """What is read off one text: known features (sorted vocabulary rows), their values, the embedding, two counts."""

    rows: Ints
    values: Floats32
    dense: Floats32
    known: float
    found: int


class Vocabulary:
    """Which features count, and how much: sorted hashes (V,), their inverse document frequencies (V,) float32."""

    def __init__(self, hashes: Hashes, weights: Floats32) -> None:
        self.hashes = hashes
        self.weights = weights
        self._words_from = int(hashes.searchsorted(_CHARS_END))

    def read(self, hashes: Hashes) -> tuple[Ints, Floats32, float]:
        """Known rows (ascending), their TF-IDF values with pieces and words each of length 1, and the share known."""
        if not len(hashes) or not len(self.hashes):
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32), 0.0
        at = self.hashes.searchsorted(hashes)
        at[at == len(self.hashes)] = 0
        rows = at[self.hashes[at] == hashes]
        known = len(rows) / len(hashes)
        if not len(rows):
            return rows, np.zeros(0, dtype=np.float32), 0.0
        rows.sort()
        first = np.flatnonzero(np.concatenate(([True], rows[1:] != rows[:-1])))
        counts = np.diff(first, append=len(rows))
        rows = rows[first]
        values = self.weights[rows]
        if counts.max() > 1:
            values *= (1 + np.log(counts)).astype(np.float32)
        split = int(rows.searchsorted(self._words_from))
        for part in (values[:split], values[split:]):
            if len(part):
                part /= np.float32(math.sqrt(float(part @ part)))
        return rows, values, known


def build_vocabulary(texts: Sequence[Hashes], fewest: int, most: int) -> Vocabulary:
    """The `most` features that occur in the most texts (at least `fewest`); ties go by hash, so that it reproduces."""
    per_text = [np.unique(hashes) for hashes in texts]
    every, counts = np.unique(np.concatenate(per_text), return_counts=True)
    keep = counts >= fewest
    every, counts = every[keep], counts[keep]
    if len(every) > most:
        chosen = np.sort(np.lexsort((every, -counts))[:most])
        every, counts = every[chosen], counts[chosen]
    weights = (np.log((1 + len(texts)) / (1 + counts)) + 1).astype(np.float32)
    return Vocabulary(every, weights)


class FittedHead(msgspec.Struct, frozen=True):
    """A head with the values it learned. One value: constant. Two: one column. More: a column each, from `start`."""

    path: HeadPath
    tool: str | None
    values: tuple[Scalar, ...]
    start: int

    @property
    def columns(self) -> int:
        """How many columns of the coefficient matrix are this head's."""
        return {1: 0, 2: 1}.get(len(self.values), len(self.values))


class _Settings(msgspec.Struct, frozen=True):
    """What `model.json` holds."""

    format: int
    contract: OutputContract
    heads: tuple[FittedHead, ...]
    recipe: Recipe


class _Read(NamedTuple):
    """One answer before it is scored."""

    value: Any
    signals: list[float]
    strangeness: list[float]


class LinearSpecialist:
    """A fitted linear model: a pure function of the text. Immutable, so thread-safe.

    Arrays: `hashes`, `idf` (V,); `sparse` (V, K) float16, `dense` (D, K), `bias` (K,) with K columns over all heads;
    `centroids` (classes of the main head, D), `mean` (D,); `score` (F + 1,), `limits` (G,).
    """

    def __init__(self, settings: _Settings, arrays: Arrays, embedding: StaticEmbedding) -> None:
        self._settings = settings
        self._arrays = arrays
        self._embedding = embedding
        self._hasher = Hasher()
        self._vocabulary = Vocabulary(arrays["hashes"], arrays["idf"])
        self._sparse = arrays["sparse"]
        self._dense = arrays["dense"]
        self._bias = arrays["bias"]
        self._mean = arrays["mean"]
        self._centroids = arrays["centroids"].astype(np.float32)
        self._compose = composer(settings.contract)
        self._which_tool = isinstance(settings.contract, ToolCall)
        self._main = _main_head(settings.heads)
        score = arrays["score"]
        self._scorer = Scorer(score[:-1], float(score[-1]))
        self._guard = Guard(arrays["limits"])

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order."""
        return [self._predict(text) for text in inputs]

    def probabilities(self, text: str) -> list[tuple[FittedHead, Floats]]:
        """For each head the probability of each of its values."""
        logits = self._logits(self._text(text))
        return [(head, np.exp(_log_probabilities(logits, head))) for head in self._settings.heads]

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `model.json` into an existing folder."""
        save_file({name: np.ascontiguousarray(array) for name, array in self._arrays.items()}, folder / TENSORS)
        (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(self._settings), indent=1))

    def _text(self, text: str) -> _Text:
        plain = normalised(text)
        hashes = self._hasher.hashes(plain)
        rows, values, known = self._vocabulary.read(hashes)
        return _Text(rows, values, self._embedding.vector(cut(text)), known, len(hashes))

    def _logits(self, text: _Text) -> Floats:
        logits = text.dense @ self._dense + self._bias
        if len(text.rows):
            logits = logits + text.values @ self._sparse[text.rows].astype(np.float32)
        return np.asarray(logits, dtype=np.float64)

    def _predict(self, text: str) -> Prediction:
        read = self._read(text)
        score = float(self._scorer.scores(np.array([read.signals]))[0])
        familiar = bool(self._guard.familiar(np.array([read.strangeness]))[0])
        parts = dict(zip(SIGNALS, read.signals, strict=True))
        return Prediction(value=read.value, score=score, familiar=familiar, parts=parts)

    def _read(self, text: str) -> _Read:
        seen = self._text(text)
        logits = self._logits(seen)
        found: dict[HeadPath, Scalar] = {}
        tool: Scalar = None
        log_right, log_wrong_terms, margin, entropy, picked = 0.0, 0.0, _CLIP, 0.0, 0
        for position, head in enumerate(self._settings.heads):
            if head.tool is not None and head.tool != tool:
                continue
            best = 0
            if len(head.values) > 1:
                log_p = _log_probabilities(logits, head)
                best = int(log_p.argmax())
                top = float(log_p[best])
                p = np.exp(log_p)
                rest = float(p.sum() - p[best]) if len(p) < 3 else float(np.delete(p, best).sum())
                second = float(np.partition(log_p, -2)[-2])
                margin = min(margin, top - second)
                entropy -= float(p @ log_p)
                log_right += top
                log_wrong_terms += rest
            found[head.path] = head.values[best]
            if self._which_tool and position == 0:
                tool = head.values[best]
            if position == self._main:
                picked = best
        wrong = max(-math.expm1(log_right), 1e-300)
        evidence = log_right - math.log(wrong)
        similarity, gap, agrees, nearest = self._compare(seen.dense, picked)
        signals = [evidence, margin, entropy, similarity, gap, agrees, seen.known, math.log1p(seen.found)]
        return _Read(self._compose(found), signals, [-nearest, -seen.known])

    def _compare(self, dense: Floats32, picked: int) -> tuple[float, float, float, float]:
        shifted = dense - self._mean
        length = math.sqrt(float(shifted @ shifted))
        cosines = self._centroids @ (shifted / np.float32(length or 1.0))
        nearest = int(cosines.argmax())
        similarity = float(cosines[picked])
        return similarity, float(cosines[nearest]) - similarity, float(nearest == picked), float(cosines[nearest])


def cut(text: str) -> str:
    """What the embedding reads of a long text: its beginning, since word pieces are slow to split."""
    return text[:2_000]


def _log_probabilities(logits: Floats, head: FittedHead) -> Floats:
    count = len(head.values)
    if count == 1:
        return np.zeros(1)
    if count == 2:
        z = float(logits[head.start])
        # log sigmoid without overflow, for both signs
        tail = math.log1p(math.exp(-abs(z)))
        return np.array([min(-z, 0.0) - tail, min(z, 0.0) - tail])
    own = logits[head.start : head.start + count]
    shifted = own - own.max()
    return np.asarray(shifted - math.log(float(np.exp(shifted).sum())))


def _main_head(heads: Sequence[FittedHead]) -> int:
    """The position of the always-asked head with the most values: its classes have the centroids."""
    asked = [index for index, head in enumerate(heads) if head.tool is None]
    return max(asked, key=lambda index: (len(heads[index].values), -index))


class LinearFamily:
    """Builds linear specialists. `embedding` is a function so that nothing is read before it is needed."""

    name = "linear"

    def __init__(self, embedding: Callable[[], StaticEmbedding] = shared_static_embedding) -> None:
        self._embedding = embedding

    def supports(self, contract: OutputContract) -> str | None:
        """None for choices, labels, objects of them and tool calls with such arguments; else why not."""
        return unsupported(contract)

    def recipes(self, seed: int) -> list[Recipe]:
        """One setting that is good everywhere, and one that trusts the embedding more (few examples, many classes)."""
        return [
            Recipe(family=self.name, seed=seed),
            Recipe(family=self.name, seed=seed, params={"embedding": 2.0}),
        ]

    def fit(
        self, recipe: Recipe, contract: OutputContract, train: TrainSet, tune: TuneSet, progress: Progress
    ) -> LinearSpecialist:
        """Fit heads on train, score and guard on tune. Raises ValueError for a contract it does not support."""
        reason = unsupported(contract)
        if reason is not None:
            raise ValueError(reason)
        embedding = self._embedding()
        settings, arrays = _fit_heads(recipe, contract, train, embedding, progress)
        progress("fitting score and guard", 0.95)
        arrays["score"] = np.eye(1, len(SIGNALS) + 1)[0]
        arrays["limits"] = np.full(2, np.inf)
        plain = LinearSpecialist(settings, arrays, embedding)
        scorer, guard = _fit_trust(plain, tune)
        arrays = {**arrays, "score": np.append(scorer.weights, scorer.bias), "limits": guard.limits}
        progress("fitted", 1.0)
        return LinearSpecialist(settings, arrays, embedding)

    def load(self, folder: Path) -> LinearSpecialist:
        """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
        try:
            arrays = load_file(folder / TENSORS)
            settings = msgspec.json.decode((folder / SETTINGS).read_bytes(), type=_Settings)
        except (OSError, SafetensorError, msgspec.DecodeError, ValueError) as error:
            raise ArtefactError(f"the linear artefact in {folder} cannot be read: {error}") from error
        embedding = self._embedding()
        wrong = _fault(settings, arrays, embedding.dimensions)
        if wrong is not None:
            raise ArtefactError(f"the linear artefact in {folder} is not whole: {wrong}")
        return LinearSpecialist(settings, arrays, embedding)


def _fault(settings: _Settings, arrays: Arrays, dimensions: int) -> str | None:
    """What is wrong with a loaded artefact, or None."""
    if settings.format != FORMAT:
        return f"its format is {settings.format}, this version reads {FORMAT}"
    if unsupported(settings.contract) is not None:
        return "its contract is not a linear one"
    expected = [(head.path, head.tool) for head in heads_of(settings.contract)]
    if [(head.path, head.tool) for head in settings.heads] != expected or not all(h.values for h in settings.heads):
        return "its heads are not those of its contract"
    columns, features = sum(head.columns for head in settings.heads), len(arrays.get("hashes", ()))
    classes = len(settings.heads[_main_head(settings.heads)].values)
    kinds: dict[str, tuple[Any, tuple[int, ...]]] = {
        "hashes": (np.uint64, (features,)),
        "idf": (np.float32, (features,)),
        "sparse": (np.float16, (features, columns)),
        "dense": (np.float32, (dimensions, columns)),
        "bias": (np.float32, (columns,)),
        "mean": (np.float32, (dimensions,)),
        "centroids": (np.float16, (classes, dimensions)),
        "score": (np.float64, (len(SIGNALS) + 1,)),
        "limits": (np.float64, (2,)),
    }
    for name, (dtype, shape) in kinds.items():
        if name not in arrays:
            return f"`{name}` is missing"
        array = arrays[name]
        if array.dtype != dtype or array.shape != shape:
            return f"`{name}` is {array.dtype}{list(array.shape)} where {np.dtype(dtype)}{list(shape)} belongs"
        if name not in ("hashes", "limits") and not np.isfinite(array).all():
            return f"`{name}` holds a number that is not finite"
    if np.isnan(arrays["limits"]).any() or bool((arrays["hashes"][1:] <= arrays["hashes"][:-1]).any()):
        return "its limits or its vocabulary are out of order"
    starts = [head.start for head in settings.heads]
    if starts != [0, *np.cumsum([head.columns for head in settings.heads]).tolist()][:-1]:
        return "its heads do not tile the coefficients"
    return None


def _fit_heads(
    recipe: Recipe, contract: OutputContract, train: Sequence[Example], embedding: StaticEmbedding, progress: Progress
) -> tuple[_Settings, Arrays]:
    from scipy.sparse import csr_matrix, hstack

    heads = heads_of(contract)
    given = [answers(contract, example.target) for example in train]
    columns = sum(len(head.values) if len(head.values) > 2 else 1 for head in heads)
    progress("reading features", 0.0)
    hasher = Hasher()
    hashes = [hasher.hashes(normalised(example.input)) for example in train]
    fewest = 2 if len(train) >= _FEWEST_FOR_PAIRS else 1
    most = max(2_000, min(_MOST_FEATURES, _COEFFICIENTS // max(columns, 1)))
    vocabulary = build_vocabulary(hashes or [np.zeros(0, dtype=np.uint64)], fewest, most)
    read = [vocabulary.read(each)[:2] for each in hashes]
    indptr = np.cumsum([0] + [len(rows) for rows, _ in read])
    sparse = csr_matrix(
        (
            np.concatenate([values for _, values in read] or [np.zeros(0, dtype=np.float32)]),
            np.concatenate([rows for rows, _ in read] or [np.zeros(0, dtype=np.int64)]).astype(np.int32),
            indptr.astype(np.int32),
        ),
        shape=(len(train), len(vocabulary.hashes)),
    )
    dense = embedding.vectors([cut(example.input) for example in train])
    mean = dense.mean(axis=0) if len(dense) else np.zeros(embedding.dimensions, dtype=np.float32)
    weight = np.float32(recipe.params.get("embedding", 1.0))
    design = hstack([sparse, csr_matrix((dense - mean) * weight)], format="csr", dtype=np.float32)
    strength = float(recipe.params.get("c", 10.0))

    fitted: list[FittedHead] = []
    coefficients: list[Floats32] = []
    intercepts: list[Floats32] = []
    start, targets = 0, np.zeros(0, dtype=np.int64)
    classes: list[Ints] = []
    for number, head in enumerate(heads):
        progress(f"fitting head {number + 1} of {len(heads)}", 0.1 + 0.8 * number / len(heads))
        targets = _targets(head, given)
        rows = np.flatnonzero(targets >= 0)
        present = np.unique(targets[rows])
        values = tuple(head.values[index] for index in present.tolist()) or (_unseen(head),)
        fitted.append(FittedHead(head.path, head.tool, values, start))
        classes.append(np.where(targets >= 0, np.searchsorted(present, targets), -1))
        if len(values) > 1:
            coefficient, intercept = _logistic(design[rows], targets[rows], strength)
            coefficients.append(coefficient)
            intercepts.append(intercept)
        start += fitted[-1].columns
    size = design.shape[1]
    joined = np.concatenate(coefficients, axis=1) if coefficients else np.zeros((size, 0), dtype=np.float32)
    bias = np.concatenate(intercepts) if intercepts else np.zeros(0, dtype=np.float32)
    features = len(vocabulary.hashes)
    on_dense = joined[features:] * weight
    main = _main_head(fitted)
    arrays: Arrays = {
        "hashes": vocabulary.hashes,
        "idf": vocabulary.weights,
        "sparse": joined[:features].astype(np.float16),
        "dense": on_dense,
        "bias": (bias - mean @ on_dense).astype(np.float32),
        "mean": mean,
        "centroids": _centroids(dense - mean, classes[main], len(fitted[main].values)),
    }
    return _Settings(FORMAT, contract, tuple(fitted), recipe), arrays


def _targets(head: Head, given: Sequence[dict[HeadPath, Scalar] | None]) -> Ints:
    """The position among the head's values of each row's answer; -1 where it was not asked or is not among them."""
    index = index_of(head)
    found = np.full(len(given), -1, dtype=np.int64)
    for row, answer in enumerate(given):
        if answer is not None and head.path in answer and (head.tool is None or answer.get(()) == head.tool):
            found[row] = index.get(canonical(answer[head.path]), -1)
    return found


def _unseen(head: Head) -> Scalar:
    """What a head without a single example says: absent where that is an answer."""
    return None if None in head.values else head.values[0]


def _logistic(design: Any, targets: Ints, strength: float) -> tuple[Floats32, Floats32]:
    """Coefficients (features, K) and intercepts (K,), K = 1 for two classes. Logistic regression run to convergence."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=300).fit(design, targets)
    return model.coef_.T.astype(np.float32), model.intercept_.astype(np.float32)


def _centroids(shifted: Floats32, classes: Ints, count: int) -> npt.NDArray[np.float16]:
    """The mean direction of each class's centred embeddings: (count, D), each of length 1 (0 for an empty class)."""
    lengths = np.linalg.norm(shifted, axis=1, keepdims=True)
    unit = shifted / np.where(lengths > 0, lengths, 1)
    centroids = np.zeros((count, shifted.shape[1]))
    for label in range(count):
        if (classes == label).any():
            centroids[label] = unit[classes == label].sum(axis=0)
    lengths = np.linalg.norm(centroids, axis=1, keepdims=True)
    return (centroids / np.where(lengths > 0, lengths, 1)).astype(np.float16)


def _fit_trust(plain: LinearSpecialist, tune: Sequence[Example]) -> tuple[Scorer, Guard]:
    """The learned score and the guard from the specialist's answers on tune."""
    reads = [plain._read(example.input) for example in tune]
    signals = np.array([read.signals for read in reads]).reshape(len(reads), len(SIGNALS))
    strangeness = np.array([read.strangeness for read in reads]).reshape(len(reads), 2)
    right = np.array(
        [canonical(read.value) == canonical(example.target) for read, example in zip(reads, tune, strict=True)],
        dtype=bool,
    )
    return fit_scorer(signals, right, SIGNALS.index("evidence")), fit_guard(strangeness)
