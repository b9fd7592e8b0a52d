"""A specialist that is an upstream's model: what is asked, what is made of the answer, and its artefact.

Each question holds the instruction, answered examples out of train, and the request. The score is made of what the
answer itself tells (the probabilities of its tokens, or the model's own word) and of what is known here: whether the
nearest known requests were answered so, and how near they are.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file

from suffice.core.errors import ArtefactError, InputError
from suffice.core.protocols import Ask, Reply
from suffice.core.types import OutputContract, Prediction, Recipe
from suffice.core.values import Value, canonical, decode, plain
from suffice.specialists import upstream_text
from suffice.specialists.embedding import Floats32, StaticEmbedding, cut
from suffice.specialists.saved import Arrays, fault_in, read_saved
from suffice.specialists.scorer import Guard, Scorer

FORMAT = 1
TENSORS, SETTINGS = "upstream.safetensors", "upstream.json"
NEIGHBOURS = 8
"""Known requests whose answers are compared with the model's."""
CERTAIN = 15.0
"""Log-odds beyond which nothing surer is known."""
SAID_LEAST, SAID_MOST = 0.02, 0.98
"""Nobody's word makes anything surer than this: models say 100 of nearly everything."""
SIGNALS = ("evidence", "agreement", "least", "margin", "nearest", "answer_size", "input_size")
EVIDENCE = (0, 1)
STRANGENESS = ("distance",)

LOGPROBS, SCHEMA, COOL, LIMIT = "logprobs", "schema", "temperature", "limit"
MEMBERS = (LOGPROBS, SCHEMA, COOL, LIMIT)
"""What a question asks for beside its messages, where the upstream takes it."""


class Example(msgspec.Struct, frozen=True, array_like=True):
    """A known request with its answer."""

    input: str
    answer: Any  # a `Value`; msgspec cannot decode the recursive type


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All of an artefact but its arrays. `takes`: those of MEMBERS that the upstream took; `shows`: how many examples
    stand in a question, `fixed`: which ones (empty: the nearest). `limit` is in tokens of the answer."""

    format: int
    contract: OutputContract
    recipe: Recipe
    upstream: str
    model: str
    prompt: str
    examples: tuple[Example, ...]
    takes: tuple[str, ...]
    shows: int
    fixed: tuple[int, ...] = ()
    limit: int = 256
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    usd_per_1k: float | None = None


class Heard(NamedTuple):
    """What came back for one input. `open`: there is an answer, whatever it is worth."""

    value: Value
    open: bool
    signals: tuple[float, ...]
    strangeness: tuple[float, ...]


class UpstreamSpecialist:
    """Thread-safe. Without `ask` it can be asked by its `question` and `heard` only."""

    generates = True

    def __init__(self, settings: Settings, arrays: Arrays, embedding: StaticEmbedding, ask: Ask | None) -> None:
        self.settings, self.arrays = settings, arrays
        self.upstream, self.model = settings.upstream, settings.model
        self.p50_ms, self.p99_ms, self.usd_per_1k = settings.p50_ms, settings.p99_ms, settings.usd_per_1k
        self._embedding, self._ask = embedding, ask
        self._vectors: Floats32 = arrays["vectors"].astype(np.float32)
        self._answers = [canonical(example.answer) for example in settings.examples]
        self._scorer = Scorer(arrays["score"][:-1], float(arrays["score"][-1]))
        self._guard = Guard(arrays["limits"])
        self.bare = LOGPROBS in settings.takes and upstream_text.is_bare(settings.contract)
        self.sure = LOGPROBS not in settings.takes
        self._told = upstream_text.instruction(settings.contract, settings.prompt, bare=self.bare, sure=self.sure)
        self._asked_for = self._members()

    # -- the question

    def question(self, text: str) -> bytes:
        """The chat request for one input."""
        return self._question(text, self._near(text)[0])

    def _question(self, text: str, near: Sequence[int]) -> bytes:
        settings = self.settings
        chosen = settings.fixed or tuple(reversed(near[: settings.shows]))  # the nearest stands next to the request
        examples = [settings.examples[i] for i in chosen[: settings.shows]]
        messages = [{"role": "system", "content": self._told}]
        if self.sure:  # shown as answers of its own they would teach it how sure to say it is
            told = "".join(f"\n\nRequest: {each.input}\nAnswer: {self._shown(each)}" for each in examples)
            messages[0]["content"] += f"\n\nExamples:{told}" if told else ""
        else:
            for each in examples:
                messages.append({"role": "user", "content": each.input})
                messages.append({"role": "assistant", "content": self._shown(each)})
        messages.append({"role": "user", "content": text})
        # Escaped: half a surrogate pair in a text has no place in UTF-8.
        return json.dumps({"model": self.model, "messages": messages, **self._asked_for}).encode()

    def _shown(self, example: Example) -> str:
        return upstream_text.shown(self.settings.contract, example.answer, bare=self.bare)

    def _members(self) -> dict[str, Any]:
        found: dict[str, Any] = {}
        takes = self.settings.takes
        if LOGPROBS in takes:
            found |= {"logprobs": True, "top_logprobs": 2}
        if SCHEMA in takes and not self.bare:
            schema = upstream_text.wrapped(upstream_text.schema_of(self.settings.contract), sure=self.sure)
            told = {"name": "answer", "strict": True, "schema": schema}
            found["response_format"] = {"type": "json_schema", "json_schema": told}
        if COOL in takes:
            found["temperature"] = 0
        if LIMIT in takes:
            found["max_tokens"] = self.settings.limit
        return found

    def _near(self, text: str) -> tuple[list[int], npt.NDArray[np.float32]]:
        """The nearest known requests, nearest first, with their cosines."""
        if not len(self._vectors):
            return [], np.zeros(0, dtype=np.float32)
        cosines = self._vectors @ self._embedding.vector(cut(text))
        most = min(max(NEIGHBOURS, self.settings.shows), len(cosines))
        near = np.lexsort((np.arange(len(cosines)), -cosines))[:most]
        return near.tolist(), cosines[near]

    # -- the answer

    def heard(self, text: str, answer: bytes) -> Prediction:
        """The prediction in a chat completion."""
        found = self.read(text, answer)
        if not found.open:
            return Prediction(value=None, score=0.0, familiar=self._guard.familiar(found.strangeness))
        return Prediction(
            value=found.value,
            score=self._scorer.score(found.signals),
            familiar=self._guard.familiar(found.strangeness),
            parts=dict(zip(SIGNALS, found.signals, strict=True)),
        )

    def read(self, text: str, answer: bytes) -> Heard:
        """The answer in a chat completion, with its signals."""
        near, cosines = self._near(text)
        nearest = float(cosines[0]) if len(cosines) else 0.0
        strangeness = (1.0 - nearest,)
        try:
            said, logprobs, others = _completion(answer)
            value, sure = upstream_text.read(self.settings.contract, said, bare=self.bare)
        except (InputError, LookupError, TypeError, ValueError):
            return Heard(None, False, (0.0,) * len(SIGNALS), strangeness)
        told = canonical(plain(value))
        known = near[:NEIGHBOURS]
        agree = sum(self._answers[i] == told for i in known)
        signals = (
            _evidence(logprobs, sure),
            math.log((agree + 0.5) / (len(known) - agree + 0.5)),
            min(logprobs, default=0.0),
            min((own - other for own, other in zip(logprobs, others, strict=True)), default=0.0),
            nearest,
            math.log1p(len(said)),
            math.log1p(len(text)),
        )
        return Heard(value, True, signals, strangeness)

    def predict(self, inputs: Sequence[str]) -> list[Prediction]:
        """Ask for all of them. One that the upstream gives no answer to has the value None, score 0.

        Raises InputError where the money for it is spent, or nothing here may ask.
        """
        if self._ask is None:
            raise InputError(f"the model {self.model} of upstream {self.upstream!r} is asked by the gateway only")
        replies = self._ask([self.question(text) for text in inputs])
        return [self._replied(text, reply) for text, reply in zip(inputs, replies, strict=True)]

    def _replied(self, text: str, reply: Reply) -> Prediction:
        if reply.status != 200:
            return Prediction(value=None, score=0.0, parts={})
        return self.heard(text, reply.body)

    # -- the artefact

    def save(self, folder: Path) -> None:
        """Write the settings, examples included, as JSON and the arrays as safetensors."""
        save_file(self.arrays, folder / TENSORS)
        (folder / SETTINGS).write_bytes(msgspec.json.encode(self.settings))


def load(folder: Path, embedding: StaticEmbedding, ask: Ask | None) -> UpstreamSpecialist:
    """Read what `save` wrote. Raises ArtefactError, in one sentence, when it is missing, corrupt or not finite."""
    settings, arrays = read_saved(folder, TENSORS, SETTINGS, Settings, "questions to an upstream")
    n = len(settings.examples)
    wrong = (
        f"its format is {settings.format}, this version reads {FORMAT}"
        if settings.format != FORMAT
        else fault_in(
            arrays,
            {
                "vectors": (np.float16, (n, embedding.dimensions)),
                "score": (np.float64, (len(SIGNALS) + 1,)),
                "limits": (np.float64, (len(STRANGENESS),)),
            },
        )
    )
    if wrong is None and not all(0 <= i < n for i in settings.fixed):
        wrong = "an example that is shown is not there"
    if wrong is not None:
        raise ArtefactError(f"the questions to an upstream in {folder} are not whole: {wrong}")
    return UpstreamSpecialist(settings, arrays, embedding, ask)


def _completion(answer: bytes) -> tuple[str, list[float], list[float]]:
    """What a chat completion says: its text, each token's log-probability, and that of the likeliest other token.

    Raises InputError, LookupError, TypeError or ValueError where it says nothing whole.
    """
    choice = decode(answer)["choices"][0]
    text = choice["message"]["content"]
    if choice.get("finish_reason") not in ("stop", None) or not isinstance(text, str):
        raise InputError("the reply is not whole")
    told = choice.get("logprobs")
    tokens = (told.get("content") if isinstance(told, dict) else None) or []
    own, others = [], []
    for token in tokens:
        logprob = float(token["logprob"])
        rest = [float(o["logprob"]) for o in token.get("top_logprobs") or [] if o.get("token") != token.get("token")]
        own.append(max(logprob, -100.0))  # some servers write -9999 for what they have cut off
        others.append(max([*rest, -100.0]))
    return text, own, others


def tells_logprobs(answer: bytes) -> bool:
    """Whether a chat completion tells the probabilities of its tokens: some upstreams take the wish and leave it."""
    try:
        return bool(_completion(answer)[1])
    except (InputError, LookupError, TypeError, ValueError):
        return False


def _evidence(logprobs: Sequence[float], sure: float | None) -> float:
    """Log-odds that the answer is right, by itself: of the whole text's probability, or of the model's word."""
    if logprobs:
        total = min(math.fsum(logprobs), -1e-12)
        odds = total - math.log(-math.expm1(total))
        return min(max(odds, -CERTAIN), CERTAIN)
    if sure is None:
        return 0.0
    sure = min(max(sure, SAID_LEAST), SAID_MOST)
    return math.log(sure / (1 - sure))
