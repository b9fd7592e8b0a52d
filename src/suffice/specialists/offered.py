"""Calling one of the functions that a request brings along, or none, and filling its arguments: any embedding's.

The functions need not have been seen in training: they are chosen by what is said of them (`offered_choice`), and their
arguments are filled from what the request mentions (`arguments`). An answer keeps to the function's schema; where a
required argument cannot be found the score is 0, and the request escalates.
What this does not know: more than one call for a request, and values that the request does not mention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from suffice.core.errors import ArtefactError
from suffice.core.offered import apart
from suffice.core.types import OutputContract, Prediction, Recipe, ToolCall
from suffice.core.values import Value
from suffice.specialists.arguments import KINDS, WIDTH, Asked, Filled, Filler, Seen
from suffice.specialists.conditional import log_softmax
from suffice.specialists.embedding import Embedding, Reading
from suffice.specialists.offered_choice import FEATURES, Chooser, Shelf
from suffice.specialists.saved import Arrays, Kinds, fault_in, read_saved
from suffice.specialists.scorer import Guard, Scorer

Floats = npt.NDArray[np.float64]
Floats32 = npt.NDArray[np.float32]

FORMAT = 1
TENSORS, SETTINGS = "offered.safetensors", "offered.json"
MOST_OFFERED = 256
"""Functions of a request that are looked at; with more the score is 0."""

GATE = (
    *FEATURES,
    *(f"seen {name}" for name in FEATURES),
    *("lead", "offered", "entropy", "none", "elsewhere", "filled", "arguments", "weakest", "questions", "one"),
)
"""Whether any function is called at all: the likeliest function's features, the same again where it was seen called,
how far it leads (logit), the log of how many are offered, the entropy, what `Chooser.context` tells, whether arguments
were found, the log of their probability, the least sure one's log-odds, how many there are, and 1."""

SIGNALS = (
    "evidence",
    "margin",
    "gate",
    "entropy",
    "told",
    "told_lead",
    "told_words",
    "name_cover",
    "seen",
    "centroid",
    "arguments",
    "weakest",
    "questions",
    "offered",
    "no_call",
    "distance",
    "length",
)
"""Per answer: log-odds of the joint probability of call, function and arguments; the smallest of their leads; the
log-odds that the call, or no call, is right; then as in GATE; 1 for no call; the distance of the request from train's
(Mahalanobis'); the log of its length."""

STRANGENESS = ("distance", "unlike")
"""What the guard limits: the distance, and minus the best likeness to what is offered."""

_SUREST = 10.0
_LEAST = -20.0


class Settings(msgspec.Struct, frozen=True):
    """What `offered.json` holds: `tools` are the functions with evidence of their own, `words` have a weight each."""

    format: int
    contract: OutputContract
    recipe: Recipe
    tools: tuple[str, ...]
    words: tuple[str, ...]
    seen: Seen


class Read(NamedTuple):
    """One answer before it is scored; `possible` is False where it cannot be trusted whatever the signals."""

    value: Value
    signals: list[float]
    strangeness: list[float]
    possible: bool
    gate: list[float]


class AskedEncoder:
    """An embedding that reads what was asked, and not the functions that came with it; equal over the same one."""

    def __init__(self, embedding: Embedding) -> None:
        self.embedding = embedding
        self.batch_rows, self.shared_bytes = embedding.batch_rows, embedding.shared_bytes

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AskedEncoder) and other.embedding is self.embedding

    def __hash__(self) -> int:
        return hash((AskedEncoder, id(self.embedding)))

    def read(self, inputs: Sequence[str]) -> Sequence[Reading]:
        """One pass over what is asked in each input."""
        return self.embedding.read([apart(text)[0] for text in inputs])


def supports(contract: OutputContract) -> str | None:
    """None for a call of functions that each request offers, else why not, in one sentence."""
    if isinstance(contract, ToolCall) and contract.offered and not contract.tools:
        return None
    return "the requests do not bring functions of their own to choose from."


class OfferedSpecialist:
    """Chooses among the functions of each request and fills their arguments. Thread-safe.

    Arrays: those of `Chooser`; `choice` (FEATURES,), `gate` (GATE,), `arguments` (KINDS, WIDTH), `mean` (D,),
    `whitener` (D, D), `score` (SIGNALS + 1,), `limits` (STRANGENESS,).
    """

    def __init__(self, settings: Settings, arrays: Arrays, shelf: Shelf) -> None:
        self._settings = settings
        self._arrays = arrays
        self._encoder = AskedEncoder(shelf.embedding)
        self._none_allowed = isinstance(settings.contract, ToolCall) and settings.contract.none_allowed
        self.chooser = Chooser(arrays, settings.tools, settings.words, shelf)
        self.filler = Filler(arrays["arguments"], settings.seen, shelf.embedding)
        self._choice = arrays["choice"].astype(np.float64)
        self._gate = arrays["gate"].astype(np.float64)
        self._mean = arrays["mean"].astype(np.float32)
        self._whitener = arrays["whitener"].astype(np.float32)
        score = arrays["score"]
        self._scorer = Scorer(score[:-1], float(score[-1]))
        self._guard = Guard(arrays["limits"])

    @property
    def encoder(self) -> AskedEncoder:
        """What reads the inputs."""
        return self._encoder

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Answers for a batch of inputs, in order."""
        return self.predict_read(inputs, self._encoder.read(inputs))

    def predict_read(self, inputs: Sequence[str], read: Sequence[Reading]) -> list[Prediction]:
        """As `predict`, from what the encoder has read of each input."""
        return [self._predict(text, reading) for text, reading in zip(inputs, read, strict=True)]

    def save(self, folder: Path) -> None:
        """Write `offered.safetensors` and `offered.json` into an existing folder."""
        save_file({name: np.ascontiguousarray(array) for name, array in self._arrays.items()}, folder / TENSORS)
        (folder / SETTINGS).write_bytes(msgspec.json.format(msgspec.json.encode(self._settings), indent=1))

    def _predict(self, text: str, reading: Reading) -> Prediction:
        asked, functions = apart(text)
        if not functions or not asked.strip() or not np.any(reading.vector):
            return Prediction(value={"tool_calls": []}, score=0.0, familiar=False)
        read = self.read(asked, reading, functions[:MOST_OFFERED])
        score = self._scorer.score(read.signals) if read.possible and len(functions) <= MOST_OFFERED else 0.0
        return Prediction(
            value=read.value,
            score=score,
            familiar=self._guard.familiar(read.strangeness),
            parts=dict(zip(SIGNALS, read.signals, strict=True)),
        )

    def read(self, asked: str, reading: Reading, functions: Sequence[dict[str, Any]]) -> Read:
        """The answer to one request with its signals and strangeness, before it is scored: for fitting. Offers some."""
        features = self.chooser.features(asked, reading.vector, self.chooser.cards(functions))
        context = self.chooser.context(reading.vector, features)
        return self.judged(Asked(asked, reading), reading.vector, functions, features, context)

    def judged(
        self,
        asked: Asked,
        vector: Floats32,
        functions: Sequence[dict[str, Any]],
        features: Floats,
        context: tuple[float, float],
        own: dict[str, Value] | None = None,
    ) -> Read:
        """The same from a chooser's features (functions, FEATURES).

        `own` are the arguments that this very request was trained on: they do not count as seen.
        """
        logits = features @ self._choice
        chances = log_softmax(logits)
        best = int(chances.argmax())
        others = np.delete(chances, best)
        lead = float(chances[best] - others.max()) if len(others) else _SUREST
        entropy = float(-(np.exp(chances) @ chances))
        filled = self.filler.fill(asked, functions[best], own)
        possible = filled.arguments is not None
        log_right = max(filled.log_right, _LEAST) if possible else _LEAST
        weakest = min(max(filled.weakest, _LEAST), _SUREST) if possible else _LEAST
        questions = len(self.filler.questions(functions[best]))
        top = features[best]
        gate = [
            *top.tolist(),
            *(top * top[FEATURES.index("seen")]).tolist(),
            lead,
            math.log(len(functions)),
            entropy,
            *context,
            float(possible),
            log_right,
            weakest,
            math.log1p(questions),
            1.0,
        ]
        call = float(np.clip(self._gate @ gate, -30, 30)) if self._none_allowed else 30.0
        if call < 0:
            value, joint, margin = _calls(), -math.log1p(math.exp(call)), -call
            possible, log_right, weakest, questions = True, 0.0, _SUREST, 0
        else:
            value, margin = _calls(functions[best], filled), min(lead, weakest, call)
            joint = float(chances[best]) + log_right - math.log1p(math.exp(-call))
        white = (vector - self._mean) @ self._whitener
        distance = math.sqrt(float(white @ white))
        signals = [
            joint - math.log(max(-math.expm1(joint), 1e-12)),
            margin,
            abs(call),
            entropy,
            float(top[FEATURES.index("told")]),
            float(top[FEATURES.index("told_lead")]),
            float(top[FEATURES.index("told_words")]),
            float(top[FEATURES.index("name_cover")]),
            float(top[FEATURES.index("seen")]),
            float(top[FEATURES.index("centroid")]),
            log_right,
            weakest,
            math.log1p(questions),
            math.log(len(functions)),
            float(call < 0),
            distance,
            math.log1p(len(asked.text)),
        ]
        return Read(value, signals, [distance, -float(features[:, 0].max())], possible, gate)


def _calls(function: dict[str, Any] | None = None, filled: Filled | None = None) -> Value:
    """The answer's form: one call, or none."""
    if function is None or filled is None:
        return {"tool_calls": []}
    arguments: Value = filled.arguments if filled.arguments is not None else {}
    return {"tool_calls": [{"name": function["name"], "arguments": arguments}]}


def load(folder: Path, embedding: Embedding) -> OfferedSpecialist:
    """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
    settings, arrays = read_saved(folder, TENSORS, SETTINGS, Settings, "artefact")
    wrong = _fault(settings, arrays, embedding.dimensions)
    if wrong is not None:
        raise ArtefactError(f"the artefact in {folder} is not whole: {wrong}")
    return OfferedSpecialist(settings, arrays, Shelf(embedding))


def _fault(settings: Settings, arrays: Arrays, dimensions: int) -> str | None:
    """What is wrong with a loaded artefact, or None."""
    if settings.format != FORMAT:
        return f"its format is {settings.format}, this version reads {FORMAT}"
    if supports(settings.contract) is not None:
        return "its contract is not one of functions that requests offer"
    tools = len(settings.tools)
    shapes: Kinds = {
        "map": (np.float32, (dimensions, dimensions)),
        "none": (np.float32, (dimensions + 1,)),
        "own": (np.float32, (tools, dimensions)),
        "centroids": (np.float32, (tools, dimensions)),
        "idf": (np.float32, (len(settings.words),)),
        "choice": (np.float64, (len(FEATURES),)),
        "gate": (np.float64, (len(GATE),)),
        "arguments": (np.float64, (len(KINDS), WIDTH)),
        "mean": (np.float32, (dimensions,)),
        "whitener": (np.float16, (dimensions, dimensions)),
        "score": (np.float64, (len(SIGNALS) + 1,)),
        "limits": (np.float64, (len(STRANGENESS),)),
    }
    return fault_in(arrays, shapes)
