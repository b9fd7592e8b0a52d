"""Is this task one for a small model? Two conditions, then volume, cost and how well the answer follows from the input.

The conditions: its answers can be *verified* (labels, a schema, tool calls, pieces of the input, exact match), and its
inputs are *diverse* enough that a model learns the work instead of a list of copies. What this does not know: whether
the answers are right, what a better family than the quick probe would reach, or what happens outside of the sample.
Nothing here is a promise; only a certificate is.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.contracts import covers
from suffice.core.types import (
    Bools,
    Choice,
    Choices,
    Estimate,
    Fields,
    Floats,
    Many,
    Number,
    OutputContract,
    Policy,
    Span,
    Text,
    ToolCall,
)
from suffice.core.values import Value, calls_of, canonical, plain
from suffice.learn import curate
from suffice.learn.contracts import Inferred, called, worked_out
from suffice.proof import bounds
from suffice.specialists.embedding import shared_static_embedding

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

Verdicts = Literal["small model", "not yet", "keep on the frontier"]
Verifiable = Literal["labels", "schema", "tool calls", "pieces of the input", "exact match", "no"]

MOST_ROWS = 2_000
MOST_CHARS = 400
"""What is read of a text, its beginning and end: word pieces are slow to split."""
DIMENSIONS = 512
"""Buckets that words and pairs of words are hashed into; a collision moves a similarity by about 0.04."""
NEAR = 0.8
"""Two texts with at least this cosine of weighted words are near copies."""
WORDS_WEIGHT = 0.5
RIDGE = 1.0
"""Of four and three values tried on BANKING77, SNIPS and MetaTool (1,333 rows), about the best on each."""
HELD_OUT = 1 / 3
FEWEST_HELD_OUT = 30
"""Fewer rows to look at say nothing of how predictable the answers are."""
PLENTY = 300
PLENTY_PER_LABEL = 5
"""Rows below which unpredictable answers may only be too few: PLENTY, or this many for each label if that is more."""
CACHED = 0.95
"""From this chance on that the next input is one already seen, a cache does what a model would."""
NEVER_AGAIN = 0.97
"""The share of different texts beyond which short answers are written anew each time."""
SHORT_TEXT = 60
"""Characters up to which the texts of a field are compared exactly; longer ones are written, not looked up."""
RARE = 0.05
"""A field in fewer answers than this decides nothing about all of them."""
ONE_FIELD = 0.2
"""A field that by itself keeps so many more answers from being right is named."""
MORE = 2
"""With so many times the sample's rows there is more to learn from than the probe was shown."""
DAYS_A_MONTH = 30.0
SHORT_DAYS = 7.0
"""A month's cost that rests on less is told with how long that was."""
NAMED = 3
"""Fields that a sentence names."""
MOST_COLUMNS = 4_000
"""Answers that the probe tells apart; the rarest beyond it count as wrong."""

SETS = 20
"""Labels of a list up to which each is a question of its own."""

_WORD = re.compile(r"\w+")
_NUMBER = re.compile(r"\w*\d\w*")


class Seen(NamedTuple):
    """One answered request: its input, the answer, and the group it hangs together with (None: it stands alone)."""

    input: str
    value: Value
    group: str | None = None


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What to do about a task, why, and what is missing. Sums are US dollars a month of 30 days.

    "small model": train one now. "not yet": the conditions hold, or may, and `missing` says what to wait for. "keep on
    the frontier": open-ended, not verifiable, or unpredictable.

    `distinct` is the effective number of distinct inputs in the sample (`Inputs`). `probe` is the quick probe's share
    of right answers on inputs it never saw, and `baseline` that of always giving the commonest answer; `coverage` is
    about the largest share of the traffic that the probe could answer within `max_error` (for display only, and None
    where a part of the answer was not probed). `needed` is how many rows are missing for a certificate. `saves_usd` is
    `monthly_usd` times `coverage`.
    """

    verdict: Verdicts
    reasons: tuple[str, ...]
    verifiable: Verifiable
    distinct: Estimate
    probe: Estimate | None = None
    baseline: float | None = None
    coverage: Estimate | None = None
    needed: int = 0
    monthly_usd: float | None = None
    saves_usd: float | None = None
    missing: tuple[str, ...] = ()


def judge(
    sample: Sequence[Seen],
    inferred: Inferred,
    *,
    records: int,
    whole: int,
    cost_usd: float | None,
    days: float,
    policy: Policy,
    supports: Callable[[OutputContract], str | None],
) -> Verdict:
    """The verdict on one task.

    `sample` holds records with a whole answer (MOST_ROWS of it are looked at), `inferred` the contract of their
    answers. `records` are all of the task's, `whole` those with a whole answer, `cost_usd` what all of them cost
    (None: not known), over `days`. `supports` says why no installed family answers such a contract, None if one does.
    """
    monthly = cost_usd / days * DAYS_A_MONTH if cost_usd is not None and days > 0 else None
    return _Case(sample, inferred, records, whole, monthly, days, policy).through(supports)


class _Case:
    """One task on its way to a verdict: each step adds a sentence, and what is missing if anything is."""

    def __init__(
        self,
        sample: Sequence[Seen],
        inferred: Inferred,
        records: int,
        whole: int,
        monthly: float | None,
        days: float,
        policy: Policy,
    ) -> None:
        self.rows = rows = _spread(sample)
        self.values = [plain(row.value) for row in rows]
        self.inferred, self.contract = inferred, inferred.contract
        self.records, self.whole, self.monthly, self.days, self.policy = records, whole, monthly, days, policy
        self.inputs = Inputs([row.input for row in rows])
        self.distinct = self.inputs.effective(max(whole, len(rows)))
        self.needed, self.rows_missing = _rows_missing(rows, whole, policy)
        few = self.rows_missing is not None
        self.verifiable, self.unverifiable = _verifiable(self.contract, self.values, few=few)
        self.probed: _Probed | None = None
        self.diverse = True
        self.saves: float | None = None
        self.reasons: list[str] = []
        self.missing: list[str] = []

    def through(self, supports: Callable[[OutputContract], str | None]) -> Verdict:
        """The steps."""
        word = self.without_probe()
        if word is not None:
            return self.verdict(word)
        if self.inputs.cached() is None:
            self.probed = _probe(self.rows, self.values, self.contract, self.inputs, self.policy)
        self.tell_answers()
        self.tell_inputs()
        unpredictable = self.unpredictable()
        self.tell_weakest()
        if unpredictable:
            return self.verdict("keep on the frontier")
        self.tell_family(supports)
        self.tell_coverage()
        self.tell_cost()
        return self.verdict("not yet" if self.missing else "small model")

    def verdict(self, word: Verdicts) -> Verdict:
        """What is known by now, with this word."""
        return Verdict(
            verdict=word,
            reasons=tuple(self.reasons),
            verifiable=self.verifiable,
            distinct=self.distinct,
            probe=self.probed.accuracy if self.probed else None,
            baseline=self.probed.baseline if self.probed else None,
            coverage=self.probed.coverage if self.probed else None,
            needed=self.needed if word == "not yet" else 0,
            monthly_usd=self.monthly,
            saves_usd=self.saves,
            missing=tuple(self.missing),
        )

    def without_probe(self) -> Verdicts | None:
        """The verdict where there is nothing to probe: no rows, nothing to check by, no fixed form; else None."""
        sure = self.inferred.sureness
        if not self.rows:
            self.reasons.append(f"None of {self.records:,} records has a whole answer to learn from.")
            self.missing.append(self.rows_missing or "whole answers")
            return "not yet"
        if (sentence := _worked_out(self.contract, self.rows, self.values)) is not None:
            self.reasons.append(sentence)
            return "keep on the frontier"
        if self.unverifiable is not None:
            self.reasons.append(self.unverifiable)
            if self.verifiable == "no":
                return "keep on the frontier"
            self.reasons.append("They are short: with more rows they may turn out to be labels out of a closed list.")
            self.missing.append(self.rows_missing or "more rows")
            return "not yet"
        if sure.n >= FEWEST_HELD_OUT and sure.high < 0.5:
            self.reasons.append(
                f"Only {_percent(sure.value)} of further answers would keep one form ({_told(self.verifiable)}): there "
                "is no fixed answer to learn."
            )
            return "keep on the frontier"
        return None

    def tell_answers(self) -> None:
        """How they are checked, and how many there are that are whole and keep the contract."""
        self.reasons.append(f"Its answers can be verified: {_told(self.verifiable)}.")
        if self.inferred.share < 0.95:
            share = _percent(self.inferred.share)
            self.reasons.append(f"{share} of {self.inferred.records:,} answers keep the contract.")
        if self.whole < self.records:
            self.reasons.append(f"{self.whole:,} of {self.records:,} records have a whole answer.")

    def tell_inputs(self) -> None:
        """Whether they are diverse enough, and enough."""
        n, value, cached = len(self.rows), self.distinct.value or 0.0, self.inputs.cached()
        least = bounds.floor(self.policy.max_error, _delta(self.policy), "binary")
        if cached is not None:
            self.diverse = False
            answer = "input answers" if cached == 1 else "inputs answer"
            share = _percent(self.inputs.seen_before)
            self.reasons.append(f"{cached:,} distinct {answer} {share} of it: an exact cache would do.")
            self.missing.append(f"inputs that differ: {cached:,} distinct ones are work for a cache")
            differ = _disagreement(self.rows, self.values)
            if differ is not None and differ > self.policy.max_error:
                share = _percent(differ)
                self.reasons.append(f"But {share} of the answers differ from the commonest one to the same input.")
        elif value >= least:
            self.reasons.append(f"The inputs are diverse: {n:,} rows count as {value:,.0f} distinct ones.")
        elif n >= least:
            self.diverse = False
            self.reasons.append(
                f"The inputs are too much alike: {n:,} rows count as {value:,.0f} distinct ones, and {least:,} are "
                f"needed to show anything at an error of {_percent(self.policy.max_error)}."
            )
            self.missing.append(f"{least - value:,.0f} more distinct inputs")
        if self.rows_missing is not None:
            self.reasons.append(f"A certificate needs more rows: {self.rows_missing}.")
            self.missing.append(self.rows_missing)

    def unpredictable(self) -> bool:
        """Tell how well the answer follows from the input; True where it does not, though rows are plenty."""
        probed, answers = self.probed, {canonical(value) for value in self.values}
        if len(answers) == 1:
            self.reasons.append(
                f"All {len(self.values):,} answers are {answers.pop()[:60]}: there is nothing to learn yet."
            )
            self.missing.append("a second answer")
            return False
        if probed is None:
            return False
        against = f"{_percent(probed.baseline)} for always saying {probed.usual}"
        shown = f"{_percent(probed.accuracy.value)} against {against}"
        if probed.accuracy.low > probed.baseline:
            self.reasons.append(f"The answer follows from the input: a quick probe is right on {shown}.")
            return False
        if probed.clear:
            self.reasons.append(
                "The answer follows from the input where a quick probe is sure: it is right on "
                f"{_percent(probed.surest.value)} of its surest {probed.surest.n:,} of {probed.accuracy.n:,} rows (of "
                f"all rows on {shown})."
            )
            return False
        plenty = max(PLENTY, PLENTY_PER_LABEL * probed.columns)
        if len(self.rows) < plenty or probed.accuracy.n < FEWEST_HELD_OUT:
            short = plenty - len(self.rows)
            self.reasons.append(f"Too few rows to say if the answer follows from the input: {shown}, by a quick probe.")
            if short > self.needed or not self.missing:
                more = f"{short:,} more rows" if short > 0 else "more rows that are no copies of each other"
                self.missing.append(f"{more}, to see if the answer follows from the input")
                self.needed = max(self.needed, short)
            return False
        if not self.diverse:
            return False
        if _open_parts(self.contract):  # what was probed may be the least of it
            self.reasons.append(f"What could be probed is unpredictable from the input: {shown}.")
            return False
        self.reasons.append(f"Unpredictable from the input: {shown}.")
        differ = _disagreement(self.rows, self.values)
        if differ is not None and differ > 0.1:
            share = _percent(differ)
            self.reasons.append(f"Where an input repeats, {share} of its answers differ from its commonest.")
        return True

    def tell_weakest(self) -> None:
        """Which field it is where one alone keeps most answers from being right, as a confidence does."""
        if self.probed is None or self.probed.weakest is None:
            return
        name, own, others = self.probed.weakest
        if others - (self.probed.accuracy.value or 0.0) >= ONE_FIELD:
            self.reasons.append(
                f"It fails at `{name}`, which is right on {_percent(own)}; all other fields are on {_percent(others)}."
            )

    def tell_family(self, supports: Callable[[OutputContract], str | None]) -> None:
        """Whether any answers such a contract, and what of it was not probed."""
        parts = _open_parts(self.contract)
        if parts:
            more = f" and {len(parts) - NAMED:,} more" if len(parts) > NAMED else ""
            self.reasons.append(f"Verifiable but not probed: {', '.join(parts[:NAMED])}{more}.")
        unsupported = supports(called(self.contract, self.values))
        if unsupported is not None:
            self.reasons.append(f"No installed family answers this: {unsupported.rstrip('.')}.")
            self.missing.append("a family that answers such a contract")

    def tell_coverage(self) -> None:
        """What the probe could answer, and so what a month of it would save."""
        probed = self.probed
        if probed is None or not probed.clear or probed.coverage is None or probed.coverage.value is None:
            return
        about = f"about {_percent(probed.coverage.value)} of it at an error of {_percent(self.policy.max_error)}"
        if probed.coverage.high >= self.policy.min_coverage:
            self.reasons.append(f"The quick probe alone could answer {about}.")
        else:
            asked = _percent(self.policy.min_coverage)
            self.reasons.append(f"The quick probe could answer only {about}; {asked} is asked for.")
            # Of many more rows than the probe was shown a family makes more; of these few it would have to be better.
            if self.whole < MORE * len(self.rows):
                self.missing.append("more rows, or a stronger family: the surest answers are not sure enough yet")
        if self.monthly is not None:
            self.saves = self.monthly * probed.coverage.value

    def tell_cost(self) -> None:
        if self.monthly is None:
            return
        span = f" (measured over {_span(self.days)} only)" if self.days < SHORT_DAYS else ""
        saved = f", of which about ${self.saves:,.2f} would be saved" if self.saves is not None else ""
        self.reasons.append(f"It costs ${self.monthly:,.2f} a month{span}{saved}.")


def _percent(share: float | None) -> str:
    if share is None:
        return "an unknown share"
    text = f"{share:.1%}" if share < 0.1 or 0.9 < share < 1 else f"{share:.0%}"
    return text.replace(".0%", "%")


def _span(days: float) -> str:
    if days >= 1:
        return f"{days:.1f} days"
    return f"{days * 24:.1f} hours" if days * 24 >= 1 else f"{days * 24 * 60:.0f} minutes"


def _spread(sample: Sequence[Seen]) -> list[Seen]:
    """At most MOST_ROWS: one at random (fixed seed) out of each of as many equal stretches."""
    if len(sample) <= MOST_ROWS:
        return list(sample)
    edges = np.linspace(0, len(sample), MOST_ROWS + 1).astype(int)
    return [sample[i] for i in np.random.default_rng(0).integers(edges[:-1], edges[1:]).tolist()]


def _delta(policy: Policy) -> float:
    """What the first attempt of a task may spend."""
    return bounds.attempt_delta(policy.delta, 1)


def _rows_missing(rows: Sequence[Seen], whole: int, policy: Policy) -> tuple[int, str | None]:
    """Rows that are missing for a first certificate, and that in words.

    Where rows come in groups only the groups of the sample are counted: how many more there are it does not tell.
    """
    groups = len({row.group if row.group is not None else i for i, row in enumerate(rows)})
    grouped = groups < len(rows)
    units = groups if grouped else whole
    floor = bounds.floor(policy.max_error, _delta(policy), "binary", grouped=grouped)
    sizes = curate.sizes(units, floor)
    if not isinstance(sizes, int):
        return 0, None
    if not grouped:
        return sizes, f"{sizes:,} more rows with a whole answer"
    more = round(sizes * len(rows) / groups)
    return more, f"{sizes:,} more groups, about {more:,} more rows with a whole answer"


def _disagreement(rows: Sequence[Seen], values: Sequence[Value]) -> float | None:
    """The share of repeated inputs' rows whose answer is not the commonest to that input; None if none repeats."""
    given: dict[str, Counter[str]] = {}
    for row, value in zip(rows, values, strict=True):
        given.setdefault(row.input, Counter())[canonical(value)] += 1
    repeated = [counts for counts in given.values() if counts.total() > 1]
    total = sum(counts.total() for counts in repeated)
    return 1 - sum(max(counts.values()) for counts in repeated) / total if total else None


# ---------------------------------------------------------------------------------------------- verifiable


def _told(verifiable: Verifiable) -> str:
    return {
        "labels": "labels out of a closed list",
        "schema": "fields of a schema",
        "tool calls": "tool calls",
        "pieces of the input": "pieces of the input",
        "exact match": "compared exactly",
        "no": "free text",
    }[verifiable]


def _leaves(contract: OutputContract, where: str = "") -> list[tuple[str, OutputContract]]:
    """The ends of a contract with where they stand."""
    if isinstance(contract, Fields):
        return [
            leaf for name, inner in contract.fields for leaf in _leaves(inner, f"{where}.{name}" if where else name)
        ]
    if isinstance(contract, ToolCall):
        return [leaf for name, arguments in contract.tools for leaf in _leaves(arguments, f"{name}()")]
    if isinstance(contract, Many):
        return _leaves(contract.of, f"{where}[]")
    return [(where, contract)]


def _texts_at(contract: OutputContract, value: Value, where: str = "") -> list[tuple[str, str]]:
    """The free texts of an answer with where they stand."""
    if isinstance(contract, Text):
        return [(where, value)] if isinstance(value, str) else []
    if isinstance(contract, Many) and isinstance(value, list):
        return [found for item in value for found in _texts_at(contract.of, item, f"{where}[]")]
    if isinstance(contract, Fields) and isinstance(value, dict):
        return [
            found
            for name, inner in contract.fields
            for found in _texts_at(inner, value.get(name), f"{where}.{name}" if where else name)
        ]
    if isinstance(contract, ToolCall) and (calls := calls_of(value)):
        arguments = dict(contract.tools).get(str(calls[0]["name"]))
        return _texts_at(arguments, calls[0].get("arguments", {}), f"{calls[0]['name']}()") if arguments else []
    return []


def _verifiable(
    contract: OutputContract, values: Sequence[Value], *, few: bool = False
) -> tuple[Verifiable, str | None]:
    """How answers are checked; for free texts with a sentence that says what was measured.

    A field of free texts is compared exactly where its texts are short; long ones make the whole answer open-ended.
    Whole answers that are short texts may be labels that had no time to come back, where there are `few` rows; but of
    30 answers out of 200 labels hardly ever all differ.
    """
    if isinstance(contract, Text):
        texts = [value for value in values if isinstance(value, str)]
        distinct = len({canonical(text) for text in texts})
        median = int(np.median([len(text) for text in texts])) if texts else 0
        measured = f"{distinct:,} of {len(values):,} answers are different texts, median {median:,} characters"
        written = len(texts) >= FEWEST_HELD_OUT and distinct > NEVER_AGAIN * len(texts)
        if few and texts and median <= SHORT_TEXT and not written:
            return "exact match", f"{measured}."
        return "no", f"{measured}: nothing to check them by."
    by_place: dict[str, list[str]] = {}
    for value in values:
        for where, text in _texts_at(contract, value):
            by_place.setdefault(where, []).append(text)
    for where, texts in sorted(by_place.items(), key=lambda place: -len(place[1])):
        median = int(np.median([len(text) for text in texts]))
        if median > SHORT_TEXT and len(texts) > RARE * len(values):
            distinct = len(set(texts))
            return "no", (
                f"The field `{where}` is free text ({distinct:,} of {len(texts):,} are different, median {median:,} "
                "characters): nothing to check it by."
            )
    if isinstance(contract, ToolCall):
        return "tool calls", None
    if isinstance(contract, Choice | Choices):
        return "labels", None
    kinds = {type(leaf) for _, leaf in _leaves(contract)}
    if kinds == {Span}:
        return "pieces of the input", None
    if isinstance(contract, Fields):
        closed = kinds & {Choice, Choices, Number}
        pieces = sum(isinstance(leaf, Span) for _, leaf in _leaves(contract))
        return ("schema" if closed or not pieces else "pieces of the input"), None
    return "exact match", None


def _worked_out(contract: OutputContract, rows: Sequence[Seen], values: Sequence[Value]) -> str | None:
    """What says that a number in most answers is the outcome of some work, not one that stands in the input."""
    found = worked_out(contract, [row.input for row in rows], values)
    for where, (share, n) in sorted(found.items(), key=lambda place: -place[1][1]):
        if n >= FEWEST_HELD_OUT and n > RARE * len(values):
            return (
                f"{f'The field `{where}`' if where else 'The answer'} is a number, and only {_percent(share)} of {n:,} "
                "stand in their input: the others are worked out, which no specialist does."
            )
    return None


def _open_parts(contract: OutputContract) -> list[str]:
    told = {Span: "a piece of the input", Number: "a number", Text: "a short text"}
    return [
        f"`{where or 'the answer'}` ({told[type(leaf)]})" for where, leaf in _leaves(contract) if type(leaf) in told
    ]


# ---------------------------------------------------------------------------------------------- diverse


class Inputs:
    """How many different inputs there are among these texts, near copies taken together.

    Two texts are the same when they agree but for case, white space, punctuation and digits (a word with a digit in it
    is any number). They are near copies when the cosine of their words and pairs of words, each weighted by the
    logarithm of its rarity and hashed into DIMENSIONS signed buckets, is at least NEAR. Rarity decides because a
    template's own words occur everywhere and weigh next to nothing: requests that differ only in a slot differ by the
    words in it, and stay distinct. Min-hash weighs every word the same, and so takes all slots of a long template for
    copies; the static embedding knows what words mean, and so takes similar slots for copies. One product of an
    (n, DIMENSIONS) matrix with itself: 0.03 s for 2,000 rows. `words` is that matrix, rows of length about 1.
    """

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = [_cut(text) for text in texts]
        self._exact = Counter(" ".join(text.split()) for text in texts)
        keys = [tuple(_words(text)) for text in self.texts]
        index: dict[tuple[str, ...], int] = {}
        codes = np.array([index.setdefault(key, len(index)) for key in keys], dtype=np.int64)
        matrix = _hashed(list(index))
        self.words = matrix[codes]
        self.clusters = _clusters(matrix, np.bincount(codes, minlength=len(index)))[codes] if len(codes) else codes

    @property
    def seen_before(self) -> float:
        """The chance that the next input is, but for white space, one already here (Good and Turing)."""
        n = self._exact.total()
        return 1 - sum(count == 1 for count in self._exact.values()) / n if n else 0.0

    def cached(self) -> int | None:
        """How many exact inputs a cache would have to hold, where it would answer CACHED of the traffic; else None."""
        if not self._exact or self.seen_before < CACHED:
            return None
        return sum(count > 1 for count in self._exact.values())

    def effective(self, most: int) -> Estimate:
        """The exponential of the entropy over near copies: n for n different inputs, 12 for 12 equally often copied.

        The interval takes in Basharin's (1959) variance of the entropy and, upwards, Miller's (1955) correction for
        inputs that the sample missed; it is cut at `most`, the rows that there are.
        """
        n = len(self.clusters)
        if n == 0:
            return Estimate(value=None, low=0.0, high=float(most), n=0)
        shares = np.bincount(self.clusters) / n
        shares = shares[shares > 0]
        logs = np.log(shares)
        entropy = float(-(shares * logs).sum())
        error = 1.96 * float(np.sqrt(max(float((shares * logs**2).sum()) - entropy**2, 0.0) / n))
        missed = (len(shares) - 1) / (2 * n) if most > n else 0.0
        value = float(np.exp(entropy))
        high = min(float(np.exp(entropy + missed + error)), float(max(most, n)))
        return Estimate(value=value, low=float(np.exp(max(entropy - error, 0.0))), high=max(high, value), n=n)


def _cut(text: str) -> str:
    if len(text) <= MOST_CHARS:
        return text
    tail = MOST_CHARS // 4
    return f"{text[: MOST_CHARS - tail]} {text[-tail:]}"


def _words(text: str) -> list[str]:
    return _WORD.findall(_NUMBER.sub("0", text.casefold()))


def _hashed(documents: Sequence[tuple[str, ...]]) -> Floats32:
    """Words and pairs of words, weighted by rarity, in signed buckets: shape (documents, DIMENSIONS)."""
    n = len(documents)
    index: dict[str, int] = {}
    rows, columns = [], []
    for row, words in enumerate(documents):
        for part in {*words, *map(" ".join, pairwise(words))}:
            rows.append(row)
            columns.append(index.setdefault(part, len(index)))
    if not index:
        return np.zeros((n, DIMENSIONS), dtype=np.float32)
    at, which = np.array(rows, dtype=np.int64), np.array(columns, dtype=np.int64)
    rarity = np.log((1 + n) / np.bincount(which))
    hashes = np.array([zlib.crc32(part.encode("utf-8", "replace")) for part in index], dtype=np.int64)
    signed = np.where(hashes >> 20 & 1, rarity, -rarity)
    flat = np.bincount(at * DIMENSIONS + (hashes % DIMENSIONS)[which], signed[which], n * DIMENSIONS)
    lengths = np.sqrt(np.bincount(at, rarity[which] ** 2, n))
    scaled = flat.reshape(n, DIMENSIONS) / np.where(lengths > 0, lengths, 1.0)[:, None]
    return np.asarray(scaled, dtype=np.float32)


def _clusters(matrix: Floats32, counts: Ints) -> Ints:
    """A number for each row: that of the first of the more frequent rows that it is a near copy of, else its own.

    Leaders are never copies themselves, so that a chain of small changes does not make one input of all.
    """
    near = matrix @ matrix.T >= NEAR
    leader = np.full(len(matrix), -1, dtype=np.int64)
    for row in np.argsort(-counts, kind="stable"):
        if leader[row] < 0:
            leader[near[row] & (leader < 0)] = row
            leader[row] = row
    return np.unique(leader, return_inverse=True)[1].astype(np.int64)


# ---------------------------------------------------------------------------------------------- predictable


class _Probed(NamedTuple):
    """What the quick probe shows. `clear`: better than the commonest answer beyond chance; `columns`: labels seen.

    `weakest`: the field that most is wrong with, how often it is right, and how often all others are.
    """

    accuracy: Estimate
    baseline: float
    usual: str
    coverage: Estimate | None
    surest: Estimate
    clear: bool
    columns: int
    weakest: tuple[str, float, float] | None = None


Asked = dict[tuple[str, ...], Any]
"""The closed questions of an answer, by where they stand, with what it says to each; equal keys are equal answers."""


def _said(contract: OutputContract, value: Value, path: tuple[str, ...], found: Asked) -> None:
    """Add what a `value` that keeps its contract says to each closed question; open parts are left out.

    Long lists of labels are asked for as whole sets: a yes/no question for each would be most of the work, and nearly
    all of them are answered by "no".
    """
    if isinstance(contract, Choice):
        found[path] = ("bool", value) if isinstance(value, bool) else value
    elif isinstance(contract, Choices):
        labels = value if isinstance(value, list) else []
        if len(contract.values) > SETS:
            found[path] = tuple(sorted({str(label) for label in labels}))
        else:
            found.update({(*path, label): label in labels for label in contract.values})
    elif isinstance(contract, Fields):
        fields = value if isinstance(value, dict) else {}
        for name, inner in contract.fields:
            _said(inner, fields.get(name), (*path, name), found)
    elif isinstance(contract, ToolCall) and (calls := calls_of(value)) is not None:
        found[path] = str(calls[0]["name"]) if calls else None
        arguments = dict(contract.tools).get(str(found[path]))
        if calls and arguments is not None:
            _said(arguments, calls[0].get("arguments", {}), (*path, str(found[path])), found)


def _probe(
    rows: Sequence[Seen], values: Sequence[Value], contract: OutputContract, inputs: Inputs, policy: Policy
) -> _Probed | None:
    """Ridge regression, in closed form, from the static embedding and hashed words to every closed part of the answer.

    Fitted on two thirds, asked on the rest: whole groups, and whole clusters of near copies, are on one side. A row is
    right if all its closed parts are; an answer outside of the contract is never right. None where nothing is closed
    or nothing could be held out.
    """
    seen = called(contract, values)
    units = _units(rows, inputs.clusters)
    fit, ask = _held_out(units, inputs.clusters)
    said: list[Asked] = [{} for _ in values]
    kept = np.array([covers(seen, value) for value in values], dtype=np.bool_)
    for row in np.flatnonzero(kept).tolist():
        _said(seen, values[row], (), said[row])
    heads = list(dict.fromkeys(path for asked in said for path in asked))
    if not heads or not len(ask) or not kept[fit].any():
        return None
    truth = np.full((len(rows), len(heads)), -1, dtype=np.int64)  # -1: not asked
    for h, path in enumerate(heads):
        index: dict[Any, int] = {}
        truth[:, h] = [index.setdefault(asked[path], len(index)) if path in asked else -1 for asked in said]

    counts: Counter[tuple[int, int]] = Counter()
    for h in range(len(heads)):
        found, often = np.unique(truth[fit, h], return_counts=True)
        counts.update({(h, int(v)): int(count) for v, count in zip(found, often, strict=True) if v >= 0})
    columns = np.array(sorted(column for column, _ in counts.most_common(MOST_COLUMNS)))
    scores = _ridge(inputs, truth, columns, fit, ask)
    right, margin = kept[ask], np.full(len(ask), np.inf)
    fields: dict[str, Bools] = {}
    for h, path in enumerate(heads):
        own = np.flatnonzero(columns[:, 0] == h)
        asked_here = truth[ask, h] >= 0
        if not len(own):
            right = right & ~asked_here
            continue
        best = columns[own[scores[:, own].argmax(axis=1)], 1]
        hit = ~asked_here | (best == truth[ask, h])
        right = right & hit
        if isinstance(seen, Fields):
            fields[path[0]] = fields.get(path[0], kept[ask]) & hit
        if len(own) > 1:
            top = np.partition(scores[:, own], -2, axis=1)[:, -2:]
            margin = np.where(asked_here | ~kept[ask], np.minimum(margin, top[:, 1] - top[:, 0]), margin)

    usual, share = _commonest(seen, said, heads, truth, fit[kept[fit]], ask)
    groups = units[ask] if len(np.unique(units[ask])) < len(ask) else None
    accuracy = bounds.share(right) if groups is None else bounds.mean(right.astype(np.float64), 0.0, 0, groups)
    coverage, surest = _coverage(right, margin, groups, policy.max_error)
    clear = accuracy.low > share or (surest.n >= FEWEST_HELD_OUT and surest.low > share)
    whole = not _open_parts(seen)
    return _Probed(accuracy, share, usual, coverage if whole else None, surest, clear, len(columns), _weakest(fields))


def _weakest(fields: Mapping[str, Bools]) -> tuple[str, float, float] | None:
    """The field without which most rows would be right, its own share of right ones, and that of all others."""
    if len(fields) < 2:
        return None
    without = {
        name: float(np.logical_and.reduce([right for other, right in fields.items() if other != name]).mean())
        for name in fields
    }
    name = max(without, key=lambda name: (without[name], name))
    return name, float(fields[name].mean()), without[name]


def _units(rows: Sequence[Seen], clusters: Ints) -> Ints:
    """The group of each row, as a number; where it has none, its near copies'."""
    names = [
        f"g{row.group}" if row.group is not None else f"c{cluster}" for row, cluster in zip(rows, clusters, strict=True)
    ]
    return np.unique(names, return_inverse=True)[1].astype(np.int64) if names else np.zeros(0, dtype=np.int64)


def _held_out(units: Ints, clusters: Ints) -> tuple[Ints, Ints]:
    """Rows to fit on and rows to ask: whole units by a fixed shuffle, and no near copy of what was fitted on."""
    if not len(units):
        return units, units
    order = np.random.default_rng(0).permutation(int(units.max()) + 1)
    sizes = np.bincount(units)[order].cumsum()
    ask_units = order[sizes <= max(HELD_OUT * len(units), sizes[0])]
    if len(ask_units) == len(order):
        return units[:0], units[:0]
    ask = np.isin(units, ask_units)
    known = np.isin(clusters, np.unique(clusters[~ask]))
    return np.flatnonzero(~ask), np.flatnonzero(ask & ~known)


def _ridge(inputs: Inputs, truth: Ints, columns: Ints, fit: Ints, ask: Ints) -> Floats32:
    """A score for each asked row and column (head, answer): shape (len(ask), len(columns)), near 1 where it is that."""
    dense = shared_static_embedding().vectors(inputs.texts)
    dense = np.hstack([dense - dense[fit].mean(axis=0), WORDS_WEIGHT * inputs.words])
    targets = (truth[fit][:, columns[:, 0]] == columns[:, 1]).astype(np.float32)
    mean = targets.mean(axis=0)
    read = dense[fit]
    if len(fit) < dense.shape[1]:
        kernel = read @ read.T
        kernel[np.diag_indices_from(kernel)] += RIDGE
        weights = read.T @ np.linalg.solve(kernel, targets - mean)
    else:
        moments = read.T @ read
        moments[np.diag_indices_from(moments)] += RIDGE
        weights = np.linalg.solve(moments, read.T @ (targets - mean))
    return np.asarray(dense[ask] @ weights + mean, dtype=np.float32)


def _commonest(
    contract: OutputContract, said: Sequence[Asked], heads: Sequence[tuple[str, ...]], truth: Ints, fit: Ints, ask: Ints
) -> tuple[str, float]:
    """The answer that is given most often among `fit`, in a few characters, and how often it is right among `ask`."""
    _, first, counts = np.unique(truth[fit], axis=0, return_index=True, return_counts=True)
    row = int(fit[first[counts.argmax()]])
    share = float((truth[ask] == truth[row]).all(axis=1).mean())
    if heads[0] != () or len(said[row]) > 1:
        return "the commonest answer", share
    answer = said[row][()]
    if isinstance(contract, ToolCall) and answer is None:
        return "that no tool is called", share
    return f"`{str(answer[1] if isinstance(answer, tuple) else answer)[:60]}`", share


def _coverage(right: Bools, margin: Floats, groups: Ints | None, eps: float) -> tuple[Estimate, Estimate]:
    """About how large a share of the asked rows could be answered with at most `eps` of all rows answered wrongly, and
    how often those surest answers are right.

    The cut is found on one half and used on the other, both ways: found and counted on the same rows it flatters.
    """
    halves = np.random.default_rng(1).permutation(len(right)) % 2 if groups is None else groups % 2
    accepted = np.zeros(len(right), dtype=np.bool_)
    for half in (0, 1):
        here, there = np.flatnonzero(halves == half), np.flatnonzero(halves != half)
        order = here[np.argsort(-margin[here], kind="stable")]
        fine = np.flatnonzero(np.cumsum(~right[order]) <= eps * len(here))
        if len(fine):
            accepted[there] = margin[there] >= margin[order[fine[-1]]]
    return bounds.share(accepted), bounds.share(right[accepted])
