"""The family of cheaper upstreams: another model over HTTP, told the task by examples out of the data.

Nothing is trained but the score and the guard. What is asked is fixed by the recipe (upstream, model, number of
examples) and the artefact (instruction, the examples, what the upstream takes): were the model changed under its name,
no digest would tell; the watch does. Not known here: how an upstream is reached, what may leave, what it may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from suffice.core.config import CandidateModel
from suffice.core.contracts import covers
from suffice.core.errors import InputError
from suffice.core.protocols import Ask, Progress, Reply, Right
from suffice.core.types import Example as Row
from suffice.core.types import OutputContract, Recipe, ToolCall, TrainSet, TuneSet, digest_of
from suffice.core.values import canonical, plain
from suffice.specialists.embedding import Floats32, StaticEmbedding, cut, shared_static_embedding
from suffice.specialists.judged import JudgedFamily
from suffice.specialists.scorer import fit_guard, fit_scorer
from suffice.specialists.upstream_model import (
    EVIDENCE,
    FORMAT,
    LOGPROBS,
    MEMBERS,
    SIGNALS,
    STRANGENESS,
    Example,
    Settings,
    UpstreamSpecialist,
    load,
    tells_logprobs,
)

NAME = "upstream"
MOST_KNOWN = 2_000
LONGEST_EXAMPLE = 4_000
"""Longer requests are no examples: they would stand in every question near them."""
CHUNK = 64
"""Questions between two words on how far it is."""
MOST_FAILED = 0.05
FEWEST_FAILED = 3
"""Where more of tune's questions than this share, and this number, get no answer, the upstream is plainly not there."""
UNTAKEN = (400, 404, 415, 422)
"""Statuses by which an upstream says that it does not take a question as it is."""


class UpstreamFamily(JudgedFamily):
    """One candidate of the settings. Without one it only loads what another run has made.

    `refused` says why this candidate may not be asked about the task at hand, in one sentence.
    """

    name = NAME

    def __init__(
        self,
        candidate: CandidateModel | None = None,
        ask: Ask | None = None,
        refused: str | None = None,
        embedding: Callable[[], StaticEmbedding] = shared_static_embedding,
    ) -> None:
        self._candidate, self._ask, self._refused, self._embedding = candidate, ask, refused, embedding
        self.identity = f"{NAME} {_identity(candidate)}" if candidate is not None else NAME

    def supports(self, contract: OutputContract) -> str | None:
        """None for every contract but tools that requests bring themselves; else, or where it may not be, why not."""
        if self._refused is not None:
            return self._refused
        if isinstance(contract, ToolCall) and contract.offered:
            return "each request offers tools of its own, which the questions to an upstream do not carry"
        return None

    def recipes(self, seed: int) -> list[Recipe]:
        """One: the candidate as the settings have it. The seed changes nothing."""
        told = self._candidate
        if told is None:
            return []
        params: dict[str, float | int | str] = {
            "upstream": told.upstream, "model": told.model, "examples": told.examples, "pick": told.pick,
        }  # fmt: skip
        if told.prompt:
            params["prompt"] = digest_of(told.prompt)[:12]
        return [Recipe(family=self.name, seed=seed, params=params)]

    def fit(
        self,
        recipe: Recipe,
        contract: OutputContract,
        train: TrainSet,
        tune: TuneSet,
        progress: Progress,
        scratch: Path | None = None,
    ) -> UpstreamSpecialist:
        """Choose examples from train, ask about every row of tune, fit score and guard on what comes back.

        Raises InputError where the upstream cannot be asked, takes no such question, or may not cost as much.
        """
        if (reason := self.supports(contract)) is not None:
            raise InputError(reason)
        if self._candidate is None or self._ask is None:
            raise InputError("an upstream is a candidate where [candidates.NAME] says so")
        embedding, ask = self._embedding(), self._ask
        progress("choosing examples", 0.0)
        settings, vectors = _settings(recipe, contract, train, self._candidate, embedding)
        whole = UpstreamSpecialist(settings, _arrays(vectors), embedding, ask)
        ask.announce([whole.question(row.input) for row in tune], _usual_tokens(settings))
        if len(tune):
            whole = _taken(whole, tune[0].input, ask, embedding)
        replies = _replies(whole, tune, ask, progress)
        progress("fitting score and guard", 0.95)
        return _trusted(whole, tune, replies, embedding, ask, self._right)

    def load(self, folder: Path) -> UpstreamSpecialist:
        """Read what `save` wrote. Raises ArtefactError when it is not whole."""
        return load(folder, self._embedding(), self._ask)


def _identity(candidate: CandidateModel) -> str:
    """What of a candidate makes another model; not what it may cost."""
    return digest_of(candidate.upstream, candidate.model, str(candidate.examples), candidate.pick, candidate.prompt)


# ---------------------------------------------------------------------------------------------- examples


def _settings(
    recipe: Recipe, contract: OutputContract, train: TrainSet, told: CandidateModel, embedding: StaticEmbedding
) -> tuple[Settings, Floats32]:
    """What is asked, with everything hoped for that an upstream may take; and the vectors of the known requests."""
    known = _known(contract, train)
    vectors = embedding.vectors([cut(example.input) for example in known])
    fixed = _spread(vectors, told.examples) if told.pick == "fixed" else ()
    longest = max((len(canonical(example.answer)) for example in known), default=0)
    settings = Settings(
        format=FORMAT,
        contract=contract,
        recipe=recipe,
        upstream=told.upstream,
        model=told.model,
        prompt=told.prompt,
        examples=tuple(known),
        takes=MEMBERS,
        shows=told.examples,
        fixed=fixed,
        limit=64 + longest,  # a token is a character at the least, but for a few scripts
    )
    return settings, vectors


def _known(contract: OutputContract, train: Sequence[Row]) -> list[Example]:
    """Train's requests, each once with the first answer that it was given; of many, every so-manyth."""
    found: dict[str, Example] = {}
    for row in train:
        value = plain(row.target)
        if covers(contract, value) and len(row.input) <= LONGEST_EXAMPLE:
            found.setdefault(" ".join(row.input.split()), Example(row.input, value))
    distinct = list(found.values())
    places = np.unique(np.linspace(0, len(distinct) - 1, min(len(distinct), MOST_KNOWN)).round().astype(int))
    return [distinct[i] for i in places] if distinct else []


def _spread(vectors: Floats32, count: int) -> tuple[int, ...]:
    """Requests unlike each other: the one nearest to the mean, then always the one farthest from those chosen
    (Gonzalez 1985)."""
    if not len(vectors) or not count:
        return ()
    chosen = [int(np.argmax(vectors @ vectors.mean(axis=0)))]
    nearest: npt.NDArray[np.float32] = vectors @ vectors[chosen[0]]
    while len(chosen) < min(count, len(vectors)):
        chosen.append(int(np.argmin(nearest)))
        nearest = np.maximum(nearest, vectors @ vectors[chosen[-1]])
    return tuple(chosen)


def _arrays(vectors: Floats32) -> dict[str, npt.NDArray[np.generic]]:
    """Arrays of a specialist without a score, whose guard lets everything pass."""
    return {
        "vectors": vectors.astype(np.float16),
        "score": np.zeros(len(SIGNALS) + 1),
        "limits": np.full(len(STRANGENESS), np.inf),
    }


def _usual_tokens(settings: Settings) -> int:
    """What an answer takes, for an estimate."""
    sizes = [len(canonical(example.answer)) for example in settings.examples]
    return 12 + (round(float(np.mean(sizes))) // 4 if sizes else 0)


# ---------------------------------------------------------------------------------------------- asking


def _taken(whole: UpstreamSpecialist, text: str, ask: Ask, embedding: StaticEmbedding) -> UpstreamSpecialist:
    """The specialist that asks for what this upstream takes. Raises InputError where it takes no question at all."""
    left = list(MEMBERS)
    shed: list[str] = []
    while (failed := _untaken(trial := _asking(whole, left, embedding, ask), text, ask)) is not None:
        if not left:
            raise InputError(f"upstream {whole.upstream!r} takes no question for {whole.model}: {failed.failure}")
        shed.append(left.pop(0))
    for member in shed[:-1]:  # the last was in its way; those before it perhaps not
        more = [each for each in MEMBERS if each in left or each == member]
        again = _asking(whole, more, embedding, ask)
        if _untaken(again, text, ask) is None:
            left, trial = more, again
    return trial


def _untaken(trial: UpstreamSpecialist, text: str, ask: Ask) -> Reply | None:
    """The refusal of a question as it is; None if it is taken. Raises InputError where there is no answer at all."""
    reply = ask([trial.question(text)])[0]
    if reply.status == 200:
        lacking = LOGPROBS in trial.settings.takes and not tells_logprobs(reply.body)
        return replace(reply, failure="it tells no log-probabilities") if lacking else None
    if reply.status in UNTAKEN:
        return reply
    raise InputError(reply.failure or f"upstream {trial.upstream!r} answered with status {reply.status}")


def _asking(
    whole: UpstreamSpecialist, takes: Sequence[str], embedding: StaticEmbedding, ask: Ask
) -> UpstreamSpecialist:
    return UpstreamSpecialist(replace(whole.settings, takes=tuple(takes)), whole.arrays, embedding, ask)


def _replies(whole: UpstreamSpecialist, tune: TuneSet, ask: Ask, progress: Progress) -> list[Reply]:
    """What came of asking about each row of tune."""
    replies: list[Reply] = []
    for start in range(0, len(tune), CHUNK):
        progress(f"asking {whole.model}", 0.05 + 0.9 * start / len(tune))
        replies += ask([whole.question(row.input) for row in tune[start : start + CHUNK]])
        failed = [reply for reply in replies if reply.status != 200]
        if len(failed) > max(FEWEST_FAILED, MOST_FAILED * len(tune)):
            raise InputError(f"{len(failed)} of {len(replies)} questions got no answer: {failed[-1].failure}")
    return replies


# ---------------------------------------------------------------------------------------------- score, and figures


def _trusted(
    whole: UpstreamSpecialist,
    tune: TuneSet,
    replies: Sequence[Reply],
    embedding: StaticEmbedding,
    ask: Ask,
    right_of: Right,
) -> UpstreamSpecialist:
    """With score and guard fitted on tune, and what a request takes and costs."""
    heard = [(row, whole.read(row.input, reply.body)) for row, reply in zip(tune, replies, strict=True)]
    told = [(row, each) for row, each in heard if each.open]
    signals = np.array([each.signals for _, each in told]).reshape(len(told), len(SIGNALS))
    usable = np.array([row.usable for row, _ in told], dtype=np.bool_)
    right = usable & np.array(right_of([(row.input, each.value, row.target) for row, each in told]), dtype=np.bool_)
    scorer = fit_scorer(signals, right, EVIDENCE)
    limits = fit_guard(np.array([each.strangeness for _, each in heard]).reshape(len(heard), len(STRANGENESS))).limits
    answered = [reply for reply in replies if reply.status == 200]
    took = np.array([reply.ms for reply in answered]) if answered else np.zeros(1)
    priced = [reply.usd for reply in answered if reply.usd is not None]
    settings = replace(
        whole.settings,
        p50_ms=round(float(np.percentile(took, 50)), 3),
        p99_ms=round(float(np.percentile(took, 99)), 3),
        usd_per_1k=round(1e3 * sum(priced) / len(priced), 6) if priced else None,
    )
    arrays = {**whole.arrays, "score": np.append(scorer.weights, scorer.bias), "limits": limits}
    return UpstreamSpecialist(settings, arrays, embedding, ask)
