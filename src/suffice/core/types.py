"""The nouns. All frozen; a number never travels alone, and no threshold without its evidence."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from enum import StrEnum
from functools import cached_property
from typing import Literal, Self, overload

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core import grading
from suffice.core.errors import LeakError
from suffice.core.values import Value, canonical

Floats = npt.NDArray[np.float64]
TASK_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""A task's name, wherever it is given."""
ANSWER_SLICE = "answer:"
"""A declared slice that begins so holds the requests that the specialist answers with what follows."""

Bools = npt.NDArray[np.bool_]
READING_MS, GENERATING_MS = 50.0, 10_000.0
"""What a prediction may take unless a policy says so: of a specialist that reads, and of one that writes its answer
token by token, whose callers have waited seconds for the frontier's."""


def digest_of(*parts: bytes | str) -> str:
    """SHA-256 over the parts, each preceded by its length so that no two sequences collide; 64 hex digits."""
    sha = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        sha.update(len(data).to_bytes(8, "big") + data)
    return sha.hexdigest()


# ---------------------------------------------------------------------------------------------- closed lists


class Stage(StrEnum):
    """How much a release may do."""

    OBSERVE = "observe"
    SHADOW = "shadow"
    CANARY = "canary"
    LIVE = "live"
    REVOKED = "revoked"


class Reason(StrEnum):
    """Why a request went where it went. Closed: the same words label metrics, headers, records and errors."""

    ACCEPTED = "accepted"
    NO_TASK = "no_task"
    OBSERVE = "observe"
    SHADOW = "shadow"
    CANARY = "canary"
    NO_RELEASE = "no_release"
    BELOW_THRESHOLD = "below_threshold"
    UNFAMILIAR = "unfamiliar"
    SLICE = "slice"
    CONTRACT = "contract"
    PROMPT_CHANGED = "prompt_changed"
    UNSUPPORTED = "unsupported"
    FAULT = "fault"
    TIMEOUT = "timeout"
    REVOKED = "revoked"
    FORCED = "forced"
    EGRESS_DENIED = "egress_denied"


class Route(StrEnum):
    """What the caller asks for with `X-Suffice-Route`."""

    AUTO = "auto"
    FRONTIER = "frontier"
    SPECIALIST = "specialist"


Reference = Literal["frontier", "human", "rule"]
LossKind = Literal["binary", "signed", "graded"]
LossName = str
"""Declared verifiers, as `core.grading` reads them."""
Promise = Literal["agreement", "absolute", "signed"]
Egress = Literal["allowed", "redacted", "never"]
"""What of a request may leave for an upstream outside: all, all but what identifies people and secrets, nothing."""


# ---------------------------------------------------------------------------------------------- contracts


class Choice(msgspec.Struct, frozen=True, tag="choice", dict=True):
    """One of a closed list of values (texts, numbers, booleans; null for an absent field)."""

    values: tuple[str | int | float | bool | None, ...]

    @cached_property
    def known(self) -> frozenset[tuple[bool, str | int | float | bool | None]]:
        """The values, each with whether it is true or false: 1 and true are two answers, 1 and 1.0 are one."""
        return frozenset((isinstance(value, bool), value) for value in self.values)


class Choices(msgspec.Struct, frozen=True, tag="choices", omit_defaults=True, dict=True):
    """A set of labels out of a closed list, at least `least` and at most `most` (None: any number) of them."""

    values: tuple[str, ...]
    least: int = 0
    most: int | None = None

    @cached_property
    def known(self) -> frozenset[str]:
        """The labels."""
        return frozenset(self.values)


class Fields(msgspec.Struct, frozen=True, tag="fields", omit_defaults=True):
    """An object: a contract for each field, in the order the frontier writes them. Any field may be absent but those
    `required`.

    `either`: the object keeps one of these as well (a schema with several forms, whose fields are all in `fields`).
    """

    fields: tuple[tuple[str, OutputContract], ...]
    required: tuple[str, ...] = ()
    either: tuple[Fields, ...] = ()


class ToolCall(msgspec.Struct, frozen=True, tag="tool_call", omit_defaults=True):
    """At most one call of one of these tools, with its arguments; `none_allowed` where no call is an answer too.

    `offered`: each request offers tools of its own, and one of those is called; `tools` is empty then, and what an
    argument may be is the schema's to say that came with the request.
    """

    tools: tuple[tuple[str, Fields], ...]
    none_allowed: bool = False
    offered: bool = False


class Many(msgspec.Struct, frozen=True, tag="many", omit_defaults=True):
    """An ordered list whose items keep one contract; at least `least` and at most `most` (None: any number) of them."""

    of: OutputContract
    least: int = 0
    most: int | None = None


class Span(msgspec.Struct, frozen=True, tag="span", omit_defaults=True):
    """A piece of the input, of `least` to `most` characters; `pattern` (a regular expression, "" for none) is found in
    it."""

    least: int = 0
    most: int | None = None
    pattern: str = ""


class Number(msgspec.Struct, frozen=True, tag="number", omit_defaults=True):
    """A number out of an open range: `whole`, where it has no fraction, and from `least` to `most`, where those are
    set."""

    whole: bool = False
    least: float | None = None
    most: float | None = None


class Text(msgspec.Struct, frozen=True, tag="text", omit_defaults=True):
    """Free text: nothing closed to choose from. Limits as for `Span`."""

    least: int = 0
    most: int | None = None
    pattern: str = ""


OutputContract = Choice | Choices | Fields | ToolCall | Many | Span | Number | Text


# ---------------------------------------------------------------------------------------------- examples and splits


class Example(msgspec.Struct, frozen=True, kw_only=True):
    """One input with what the frontier said (`output`) and what is right (`reference`), at least one of them.

    `id` is the event's identity (record id, or file digest and line); `group` is the unit of dependence (a customer, a
    template, a session), None where every row stands alone. `has_output` and `has_reference` tell an absent answer
    from the answer null. `usable` is False where the frontier answered with a refusal or was cut off: such a row trains
    nothing, and in calibration whatever a specialist answers differs from it. `sampled` is False where the row has its
    answer because a specialist was not sure of it (a live task's escalations), or because someone volunteered it where
    the frontier gave none: such rows train, but never certify. `chances`: what else the frontier might have written
    (`core.chances`), None where that was not told.
    """

    id: str
    input: str
    output: Value = None
    reference: Value = None
    has_output: bool = False
    has_reference: bool = False
    reference_kind: Reference = "human"
    usable: bool = True
    sampled: bool = True
    group: str | None = None
    slices: tuple[str, ...] = ()
    at: float = 0.0
    chances: bytes | None = None

    @property
    def target(self) -> Value:
        """What a specialist is trained on: the trusted answer where there is one, else the frontier's."""
        return self.reference if self.has_reference else self.output

    def digest(self) -> str:
        """Content hash of this example, identity included (the same text twice in the traffic is two examples)."""
        label = canonical(self.reference) if self.has_reference else "-"
        told = [self.chances] if self.chances is not None else []
        kind = self.reference_kind if self.has_reference else "frontier"
        return digest_of(self.unlabelled_digest(), label, kind, *told)

    def unlabelled_digest(self) -> str:
        """The same without its trusted answer."""
        output = canonical(self.output) if self.has_output else "-"
        return digest_of(self.id, self.input, output, self.group or "", "\n".join(self.slices))


def group_of(group: str | None, session: str | None) -> str | None:
    """What a request's fate may hang together with: its group, else its session; None where it stands alone."""
    return f"group {group}" if group else f"session {session}" if session else None


def unit_of(group: str | None, record: str) -> str:
    """The unit of dependence: the group (`group_of`), or the record by itself."""
    return group if group is not None else f"row {record}"


class _Split(Sequence[Example]):
    """An immutable sequence of examples that knows which use it was set aside for."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = tuple(examples)

    def __len__(self) -> int:
        return len(self._examples)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Example, ...]: ...
    def __getitem__(self, index: int | slice) -> Example | tuple[Example, ...]:
        return self._examples[index]

    def where(self, kept: Callable[[Example], bool]) -> Self:
        """The examples for which `kept` holds, still set aside for the same use."""
        return type(self)([example for example in self._examples if kept(example)])

    def digest(self) -> str:
        """Content hash over the examples, order independent."""
        return digest_of(*sorted(example.digest() for example in self._examples))


class TrainSet(_Split):
    """Fits models."""


class TuneSet(_Split):
    """Chooses: recipe, score, guard, grid, slices, every constant."""


class CalibrationSet(_Split):
    """Certifies, once per attempt of the ledger."""


class TestSet(_Split):
    """May refute, once."""

    __test__ = False  # not a pytest class


class Splits(msgspec.Struct, frozen=True, kw_only=True):
    """The four splits of one dataset. Construction fails if any example, or any group, stands in two of them."""

    train: TrainSet
    tune: TuneSet
    calibration: CalibrationSet
    test: TestSet

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for name in ("train", "tune", "calibration", "test"):
            for example in getattr(self, name):
                keys = [f"id {example.id}"] + ([f"group {example.group}"] if example.group is not None else [])
                for key in keys:
                    if seen.setdefault(key, name) != name:
                        raise LeakError(f"{key} stands in both {seen[key]} and {name}")

    def digest(self) -> str:
        """Content hash of the dataset, splits included."""
        return digest_of(self.train.digest(), self.tune.digest(), self.calibration.digest(), self.test.digest())


# ---------------------------------------------------------------------------------------------- models


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """Frozen settings from which a specialist is fitted. Recipe + dataset reproduce it."""

    family: str
    seed: int = 0
    params: dict[str, float | int | str] = {}

    @property
    def name(self) -> str:
        """Short form for tables: the family and what differs from its defaults."""
        shown = ",".join(f"{key}={value}" for key, value in sorted(self.params.items()))
        return f"{self.family}({shown})" if shown else self.family


class Prediction(msgspec.Struct, frozen=True, kw_only=True):
    """One answer of a specialist.

    `score` in [0, 1] is the learned chance of being right: higher is surer. `familiar` is the guard: False for an
    input unlike anything seen. `parts` are the raw numbers that the score was made from, for display.
    """

    value: Value
    score: float
    familiar: bool = True
    parts: dict[str, float] = {}


# ---------------------------------------------------------------------------------------------- evidence


class Estimate(msgspec.Struct, frozen=True, kw_only=True):
    """A number with its 95% interval and the number of rows it rests on; `value` is None when n is 0."""

    value: float | None
    low: float
    high: float
    n: int


class JudgeError(msgspec.Struct, frozen=True, kw_only=True):
    """How a model that judges answers compares with people.

    `false_passes`: of the answers that people call wrong, the share that it lets pass; `false_fails`: of those that
    they call right, the share that it does not. `bound`: what the first is shown to be below, at half of the chance
    that the attempt may spend; the certificate was tried at `max_error` times one less this.
    """

    judge: str
    false_passes: Estimate
    false_fails: Estimate
    bound: float


class Certificate(msgspec.Struct, frozen=True, kw_only=True):
    """The evidence behind a threshold (the statistics are told in docs/proof.md).

    `confidence` is the user's, `delta` what this attempt of the ledger may spend, `n` the number of calibration units
    (requests, or groups), `p_value` at the chosen threshold. `coverage` is the accepted share of calibration. `loss`
    says what an answer costs (`core.losses`), `window` from when to when calibration was asked, in seconds since 1970,
    where the splits are by time: that is what the certificate speaks for; `max_slice_error` is the limit within each of
    the draft's slices (None: none has a promise of its own). `judge`: how the model that judges compares with people.
    """

    max_error: float
    confidence: float
    attempt: int
    delta: float
    n: int
    method: str
    p_value: float
    threshold: float
    coverage: float
    promise: Promise
    reference: Reference
    at: float = 0.0
    loss: LossName = "exact"
    window: tuple[float, float] | None = None
    max_slice_error: float | None = None
    judge: JudgeError | None = None


class Threshold(msgspec.Struct, frozen=True, kw_only=True):
    """The cutoff below which a request escalates, inseparable from its evidence."""

    score: float
    certificate: Certificate


class Tail(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the least sure accepted answers (the band just above the threshold)."""

    promised: bool
    max_tail_error: float
    error: Estimate
    labels_missing: int


class Cvar(msgspec.Struct, frozen=True, kw_only=True):
    """The mean loss of the worst twentieth of all requests (conditional value at risk, graded losses only).

    `promised` as the limit `max_cvar` (None: none was set, and nothing is promised).
    """

    promised: bool
    max_cvar: float | None
    value: Estimate


class SliceReport(msgspec.Struct, frozen=True, kw_only=True):
    """What the test split showed of one slice: `error` is the share of *its* requests that is accepted and wrong."""

    name: str
    promised: bool
    coverage: Estimate
    error: Estimate


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """All that a release is made of, before the gate: what was fitted, from what, and where it may be trusted.

    `slices` have a promise of their own; requests in `closed_slices` (declared, but too rare to be shown anything
    about) always escalate. `generates`: it writes its answers token by token (`Policy.latency_ms`).
    """

    task: str
    recipe: Recipe
    contract: OutputContract
    dataset: str
    artefact: str
    threshold: Threshold
    slices: tuple[str, ...] = ()
    closed_slices: tuple[str, ...] = ()
    generates: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What the test split showed, once, at the one chosen threshold (calibration estimates would be optimistic).

    `accuracy` is the specialist's alone, `coverage` the accepted share, `accepted_error` the share of *all* requests
    that is accepted and wrong, `frontier_error` the recorded answers' own error where trusted answers exist,
    `unseen_coverage` and `unseen_error` the same on inputs that training never saw (None: what was trained on is not
    at hand). `disagreement` is the share of requests accepted and answered otherwise than the frontier's recorded
    answer (None without any), `band_upper` the score below which answers are the least sure ones of the tail,
    `net_loss` the mean signed loss of all requests, `slices` every slice declared or seen, the worst first, `memory_mb`
    the artefact on the disk. Graded answers are wrong by degrees: errors are then mean losses. Fields with a default
    are unknown in releases made before they were there.
    """

    accuracy: Estimate
    coverage: Estimate
    accepted_error: Estimate
    frontier_error: Estimate | None
    worse: Estimate | None
    unseen_coverage: Estimate | None
    unseen_error: Estimate | None
    latency_p50_ms: float
    latency_p99_ms: float
    disagreement: Estimate | None = None
    band_upper: float | None = None
    net_loss: Estimate | None = None
    cvar: Cvar | None = None
    slices: tuple[SliceReport, ...] = ()
    memory_mb: float | None = None


class Release(msgspec.Struct, frozen=True, kw_only=True, tag="release"):
    """A task's specialist that passed the gate. Only `proof.judge` builds one, and serving accepts nothing else."""

    draft: Draft
    tail: Tail
    report: Report


class Rejection(msgspec.Struct, frozen=True, kw_only=True, tag="rejection"):
    """The gate, or an earlier step, says no: each reason in one sentence. An ordinary outcome, returned and stored."""

    reasons: tuple[str, ...]
    tail: Tail | None = None
    report: Report | None = None


class Accepted(msgspec.Struct, frozen=True, kw_only=True, tag="accepted"):
    """The specialist's answer goes out."""

    release: str
    prediction: Prediction


class Escalated(msgspec.Struct, frozen=True, kw_only=True, tag="escalated"):
    """The frontier is asked, for this reason."""

    reason: Reason
    release: str | None = None
    prediction: Prediction | None = None


Decision = Accepted | Escalated


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """What the user states for a task; everything else follows. Raises ValueError for a value out of range.

    `docs/configuration.md` tells what each key means; a test holds the two together.
    """

    max_error: float = 0.02
    confidence: float = 0.95
    min_coverage: float = 0.3
    target_coverage: float = 0.8
    loss: LossName = "exact"
    slices: tuple[str, ...] = ()
    split: Literal["random", "time"] = "random"
    max_slice_error: float | None = None
    max_tail_error: float | None = None
    max_cvar: float | None = None
    max_latency_ms: float | None = None
    max_memory_mb: float | None = None
    audit: float = 0.01
    audit_reference: Literal["frontier", "trusted"] = "frontier"
    audit_deadline_s: float = 60.0
    on_missing_audits: Literal["tell", "escalate"] = "tell"
    boost: float = 0.2
    boost_budget: int = 2000
    false_alarm: float | None = None
    probe: int = 100
    recover: Literal["auto", "manual"] = "auto"
    promote: Literal["manual", "auto"] = "manual"
    canary_share: float = 0.1
    egress: Egress = "allowed"
    cache_s: float | None = None
    cache_any_temperature: bool = False

    def __post_init__(self) -> None:
        for name in ("max_error", "confidence", "min_coverage", "target_coverage"):
            value = getattr(self, name)
            if not 0 < value < 1:
                raise ValueError(f"`{name}` is a share between 0 and 1, not {value}")
        for name in ("audit", "canary_share", "boost"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` is a share between 0 and 1, not {getattr(self, name)}")
        for name in ("max_slice_error", "max_tail_error", "max_cvar", "false_alarm"):
            value = getattr(self, name)
            if value is not None and not 0 < value < 1:
                raise ValueError(f"`{name}` is a share between 0 and 1, not {value}")
        for name in ("max_latency_ms", "audit_deadline_s", "cache_s", "max_memory_mb"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"`{name}` is above 0, not {value}")
        for name in ("boost_budget", "probe"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` is 0 or more, not {getattr(self, name)}")
        grading.parts(self.loss)
        for name in self.slices:
            if not TASK_NAME.fullmatch(name.removeprefix(ANSWER_SLICE)):
                raise ValueError(
                    f"`slices` holds {name!r}: a slice is a name of letters, digits, dots, dashes and underscores, "
                    f"or {ANSWER_SLICE}LABEL"
                )
        if self.min_coverage <= self.max_error:
            raise ValueError(
                f"`min_coverage` ({self.min_coverage}) must be above `max_error` ({self.max_error}): "
                "below it a specialist that is always wrong would pass"
            )

    @property
    def delta(self) -> float:
        """The chance of a false certificate that the user accepts over the task's lifetime."""
        return round(1 - self.confidence, 12)  # 1 - 0.95 is 0.05, not 0.050000000000000044

    @property
    def monitor_delta(self) -> float:
        """The chance of a false alarm that the user accepts over all watches of the task."""
        return self.false_alarm if self.false_alarm is not None else self.delta

    def latency_ms(self, generates: bool) -> float:
        """What one prediction in a hundred may take: as stated, else what fits how the specialist answers."""
        if self.max_latency_ms is not None:
            return self.max_latency_ms
        return GENERATING_MS if generates else READING_MS

    @property
    def slice_error(self) -> float:
        """The error allowed within a declared slice."""
        return self.max_slice_error if self.max_slice_error is not None else min(2.5 * self.max_error, 0.99)

    @property
    def tail_error(self) -> float:
        """The error allowed among the least sure accepted answers."""
        return self.max_tail_error if self.max_tail_error is not None else min(10 * self.max_error, 0.5)


# ---------------------------------------------------------------------------------------------- requests


class Message(msgspec.Struct, frozen=True):
    """One turn. `text` is all its text; `plain` is False where it also carries images, audio, files or calls."""

    role: str
    text: str
    plain: bool = True


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What the application asked, whatever its dialect, as far as deciding and learning need it.

    `tools` and `response_format` are canonical JSON ("" where absent): two requests have the same if these are equal.
    `unsupported` names what no specialist can give (`n`, `logprobs`, `stop`, ...), "" if nothing. `max_tokens` is the
    caller's limit on the answer.
    """

    model: str
    messages: tuple[Message, ...]
    tools: str = ""
    response_format: str = ""
    unsupported: str = ""
    max_tokens: int | None = None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of an exchange as the vendor counts them.

    `prompt` is all of the input; `cached` of these were read from the provider's cache and `written` were put into it
    (both are priced otherwise); `completion` is all of the output, reasoning included.
    """

    prompt: int
    completion: int
    cached: int = 0
    written: int = 0
