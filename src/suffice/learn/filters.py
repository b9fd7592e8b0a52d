"""What must not teach: rules with a reason each, and what they find in single records or among many. Pure.

A rule looks at the request or at the answer, and touches train, or train and tune. None touches calibration or test:
a filter there would certify another traffic than the one that comes (docs/proof.md). Tune loses only rows that have
nothing to judge by, and keys: what else is odd in the traffic is in tune as it will be in calibration.

Not known here: where records come from, and which split a row is in.
"""

from __future__ import annotations

import math
import re
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec
import numpy as np
import numpy.typing as npt

from suffice.core.errors import InputError
from suffice.core.secrets import leaked
from suffice.core.types import Example, digest_of
from suffice.core.values import Value, calls_of, canonical, decode, plain


class Rule(msgspec.Struct, frozen=True):
    """Why a row does not teach. `looks_at` says by what it is told, `splits` where rows are left out for it."""

    name: str
    told: str
    looks_at: Literal["request", "answer"]
    splits: tuple[Literal["train", "tune"], ...] = ("train",)


KEY = Rule("key", "it holds a key, a token or a private key", "request", ("train", "tune"))
REFUSED = Rule("refused", "the frontier refused to answer", "answer", ("train", "tune"))
TRUNCATED = Rule("truncated", "the answer was cut off", "answer", ("train", "tune"))
UNREADABLE = Rule("unreadable", "the answer cannot be read", "answer", ("train", "tune"))
DECLINED = Rule("declined", "the answer declines in words", "answer")
SCHEMA = Rule("schema", "the answer breaks the JSON schema that its request asks for", "answer")
CONTRACT = Rule("contract", "the answer is not of the task's contract", "answer")
TEST_TRAFFIC = Rule("test", "it is test traffic by its words", "request")
BURST = Rule("burst", "one sender sent the same input over and over", "request")
CONTRADICTING = Rule("contradicting", "of contradicting answers to the same input it is in the minority", "answer")
ALIKE = Rule("alike", "enough rows like it train already", "answer")
SHARE = Rule("share", "its customer has its share of train already", "request")

RULES = (
    *(KEY, REFUSED, TRUNCATED, UNREADABLE, DECLINED, SCHEMA, CONTRACT, TEST_TRAFFIC, BURST),
    *(CONTRADICTING, ALIKE, SHARE),
)
"""The closed list. The first rule that a row meets is its reason."""

LIKE = 50
"""Rows of one cluster and one answer that train. On BANKING77 with inputs that repeat as in traffic every number from 1
on gives the same accuracy as no limit (docs/datasets.md); so this one leaves frequencies as they are until a template
sent by the thousand would drown the rest."""
SHARE_OF_TRAIN = 0.2
LEAST_OF_A_GROUP = 50
"""A single customer trains with this share of train at most, but with this many rows at least."""
SENT = 20
WITHIN_S = 600.0
"""So many equal inputs of one sender within so many seconds are a burst."""


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of examples, by id: `rules` that single rows meet, and `like`: the cluster of inputs like theirs.

    `peeked` rows had their answers looked at before there were splits: they train.
    """

    rules: Mapping[str, Rule] = {}
    like: Mapping[str, int] = {}
    peeked: frozenset[str] = frozenset()


# ---------------------------------------------------------------------------------------------- single rows

_TESTS = re.compile(
    r"(?:hi |just )?(?:an? )?tests?(?: (?:test|message|input|prompt|0))*|testing(?: testing| 0)*"
    r"|this is (?:just )?a test|ping|pong|foo|bar|foo ?bar|hello world"
    r"|(?:asdf ?)+|asdfgh\w*|qwert[yz]\w*|a{3,}|x{3,}|abcd?"
    r"|(?:sample|dummy|lorem)(?: text)?|lorem ipsum.*|placeholder"
    r"|(?:das ist )?ein test|ceci est un test|essai|(?:esto es una )?prueba|(?:questa è una )?prova|teste"
)
"""Of normalised text: numbers are 0."""
_DECLINES = re.compile(
    r"(?i)^\W*(?:"
    r"(?:i['’]?m |i am |we['’]?re )?(?:very |so |really )?(?:sorry|afraid)[,.:;!]?(?: but)?,? (?:that )?i"
    r"(?: am|['’]m)? ?(?:can ?not|can['’]?t|won['’]?t|unable|not able|do not feel comfortable)"
    r"|i (?:can ?not|can['’]?t|am unable to|am not able to|won['’]?t)"
    r" (?:help|assist|answer|comply|provide|fulfil|do that)"
    r"|i must (?:decline|refuse)|as an ai(?: language)? (?:model|assistant)"
    r"|(?:es tut mir leid|tut mir leid|entschuldigung)[,.]? (?:aber )?(?:ich kann|das kann ich|dabei kann ich|ich darf)"
    r"|(?:je suis )?désolée?[,.]? (?:mais )?je ne (?:peux|suis)|je ne peux pas (?:vous )?(?:aider|répondre)"
    r"|lo siento[,.]? (?:pero )?no puedo|no puedo (?:ayudar|responder|asistir)"
    r"|(?:mi dispiace|spiacente)[,.]? (?:ma )?non posso|(?:desculpe|lamento|sinto muito)[,.]? (?:mas )?não posso"
    r"|het spijt me[,.]? (?:maar )?ik kan|przykro mi[,.]? (?:ale )?nie mogę|извините[,.]? (?:но )?я не могу"
    r"|(?:很)?抱歉[，,]?(?:但)?我(?:无法|不能)|对不起[，,]?(?:但)?我(?:无法|不能)|申し訳(?:ありません|ございません)が"
    r"|죄송하지만"
    r")"
)
_LONG = 600  # characters from which on a text is an answer that happens to begin so


def of_request(text: str) -> Rule | None:
    """What the input that a specialist would read says against a row."""
    if leaked(text):
        return KEY
    return TEST_TRAFFIC if text and _TESTS.fullmatch(normal(text[:200])) else None


def of_answer(answer: Value, response_format: str = "") -> Rule | None:
    """What an answer says against its row; `response_format` is what the request asked for."""
    if leaked(answer if isinstance(answer, str) else canonical(answer)):
        return KEY
    if isinstance(answer, str) and len(answer) < _LONG and _DECLINES.match(answer):
        return DECLINED
    return SCHEMA if response_format and breaks(response_format, answer) else None


def of_failure(answer: bytes | None) -> Rule:
    """Why nothing can be learned from a whole completion without an answer to read."""
    try:
        choice = decode(answer or b"")["choices"][0]
        ended, refusal = choice.get("finish_reason"), choice["message"].get("refusal")
    except (InputError, AttributeError, LookupError, TypeError):
        return UNREADABLE
    if ended == "length":
        return TRUNCATED
    return REFUSED if ended == "content_filter" or refusal else UNREADABLE


def breaks(response_format: str, answer: Value) -> bool:
    """Whether an answer surely breaks the JSON schema of a response format (or is no JSON where JSON was asked for).

    Types, required and unknown properties, lists of values, items: what a schema says beyond that is not looked at.
    """
    asked = _decoded(response_format)
    if asked is None:
        return False
    said = answer if not isinstance(answer, str) else _json(answer)
    if calls_of(said) is not None:
        return False
    if asked.get("type") == "json_object":
        return not isinstance(said, dict)
    schema = asked.get("json_schema")
    schema = schema.get("schema") if isinstance(schema, dict) else None
    return isinstance(schema, dict) and not _fits(schema, said, schema)


_TYPES: dict[str, tuple[type, ...]] = {
    "object": (dict,), "array": (list,), "string": (str,), "boolean": (bool,), "null": (type(None),),
    "integer": (int,), "number": (int, float),
}  # fmt: skip


def _decoded(response_format: str) -> dict[str, Any] | None:
    try:
        found = decode(response_format)
    except InputError:
        return None
    return found if isinstance(found, dict) else None


def _json(text: str) -> Value:
    try:
        said: Value = decode(text)
    except InputError:
        said = plain(text)  # fenced
    return said


def _fits(schema: Any, value: Any, root: Mapping[str, Any], depth: int = 0) -> bool:
    """Whether nothing that is looked at speaks against a value."""
    if not isinstance(schema, dict) or depth > 20:
        return True
    if isinstance(reference := schema.get("$ref"), str):
        found: Any = root
        for part in reference.removeprefix("#").strip("/").split("/"):
            found = found.get(part) if isinstance(found, dict) and part else found
        return _fits(found, value, root, depth + 1)
    for way in ("anyOf", "oneOf"):
        if isinstance(schema.get(way), list) and not any(_fits(s, value, root, depth + 1) for s in schema[way]):
            return False
    if "enum" in schema and isinstance(schema["enum"], list) and value not in schema["enum"]:
        return False
    if "const" in schema and value != schema["const"]:
        return False
    kinds = schema.get("type")
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if isinstance(kinds, list) and kinds:
        types = tuple(t for kind in kinds for t in _TYPES.get(str(kind), (object,)))
        if not isinstance(value, types) or (isinstance(value, bool) and bool not in types and object not in types):
            return False
    if isinstance(value, dict):
        known = schema.get("properties")
        known = known if isinstance(known, dict) else {}
        required = schema.get("required")
        if isinstance(required, list) and not all(name in value for name in required):
            return False
        if schema.get("additionalProperties") is False and not value.keys() <= known.keys():
            return False
        return all(_fits(known[name], item, root, depth + 1) for name, item in value.items() if name in known)
    if isinstance(value, list):
        return all(_fits(schema.get("items"), item, root, depth + 1) for item in value)
    return True


# ---------------------------------------------------------------------------------------------- among many

_WORD = re.compile(r"[^\W_]+")
_NUMBER = re.compile(r"\d+")


def normal(text: str) -> str:
    """The words of a text: case, digits, white space and punctuation made equal."""
    return " ".join(_WORD.findall(_NUMBER.sub("0", text.casefold())))


def bursts(found: Iterable[Example]) -> dict[str, Rule]:
    """The rows of bursts: one input that one sender (group or session) sent over and over in a short time."""
    sent: defaultdict[tuple[str, str], list[tuple[float, str]]] = defaultdict(list)
    for example in found:
        if example.group is not None:
            sent[example.group, example.input].append((example.at, example.id))
    rows: dict[str, Rule] = {}
    for times in sent.values():
        if len(times) < SENT:
            continue
        times.sort()
        at = np.array([moment for moment, _ in times])
        # Rows of one moment are a file without times: nothing is known of when they were sent.
        different = np.concatenate([[0], np.cumsum(np.diff(at) > 0)])
        first = np.searchsorted(at, at - WITHIN_S)
        last = np.searchsorted(at, at + WITHIN_S, side="right") - 1
        crowd = np.zeros(len(at), dtype=np.bool_)
        for i in np.flatnonzero(different - different[first] + 1 >= SENT):
            crowd[first[i] : i + 1] = True
        for i in np.flatnonzero(different[last] - different + 1 >= SENT):
            crowd[i : last[i] + 1] = True
        rows |= {times[i][1]: BURST for i in np.flatnonzero(crowd)}
    return rows


HASHES = 32
BANDS = 8
SHINGLE = 3
LONG = 12
"""Texts of as many words are also compared by their word triples; shorter ones are alike only word for word."""
MOST_WORDS = 400
ALIKE_FROM = 0.8
"""The share of common triples (Jaccard, estimated from 32 minima) from which on texts are alike."""

_Hashes = npt.NDArray[np.uint64]


def clusters(found: Sequence[Example]) -> dict[str, int]:
    """Which inputs are alike: a number by id, the same for like inputs. Only clusters of several rows are named.

    Alike are texts of the same words (`normal`), and long texts that share most of their word triples. The order of
    the examples does not matter to who is alike.
    """
    numbers: dict[str, int] = {}
    same = np.array([numbers.setdefault(normal(example.input), len(numbers)) for example in found], dtype=np.int64)
    texts = list(numbers)
    heads = np.arange(len(texts))
    long = [i for i, text in enumerate(texts) if text.count(" ") + 1 >= LONG]
    if len(long) > 1:
        minima = _minima([texts[i] for i in long])
        _unite(heads, np.array(long), minima)
    groups = heads[same] if len(same) else same
    sizes = np.bincount(groups, minlength=len(heads)) if len(groups) else np.zeros(0, dtype=np.int64)
    return {example.id: int(group) for example, group in zip(found, groups, strict=True) if sizes[group] > 1}


def _minima(texts: Sequence[str]) -> _Hashes:
    """The least of the hashes of each text's word triples, by each of the hash functions; shape (texts, HASHES)."""
    dice = np.random.default_rng(7)
    factors = dice.integers(1, 2**63, HASHES, dtype=np.uint64) | np.uint64(1)
    shifts = dice.integers(0, 2**63, HASHES, dtype=np.uint64)
    weights = factors[:SHINGLE]
    found = np.empty((len(texts), HASHES), dtype=np.uint64)
    for i, text in enumerate(texts):
        words = text.split(" ", MOST_WORDS)[:MOST_WORDS]
        codes = np.array([zlib.crc32(word.encode()) for word in words], dtype=np.uint64)
        triples = codes[:-2] * weights[0] + codes[1:-1] * weights[1] + codes[2:] * weights[2]
        triples ^= triples >> np.uint64(31)  # multiplication alone leaves the low bits poor
        found[i] = ((triples[:, None] * factors + shifts) >> np.uint64(16)).min(axis=0)
    return found


def _unite(heads: npt.NDArray[np.int64], places: npt.NDArray[np.int64], minima: _Hashes) -> None:
    """Give texts that are alike one head: the first of them; candidates agree in one of the bands throughout."""

    def head(i: int) -> int:
        while heads[i] != i:
            heads[i] = heads[heads[i]]
            i = int(heads[i])
        return i

    width = HASHES // BANDS
    for band in range(BANDS):
        part = np.ascontiguousarray(minima[:, band * width : (band + 1) * width])
        keys = part.view(np.dtype((np.void, part.dtype.itemsize * width))).ravel()
        order = np.argsort(keys, kind="stable")
        equal = keys[order[1:]] == keys[order[:-1]]
        for j in np.flatnonzero(equal):
            a, b = int(order[j]), int(order[j + 1])
            if (minima[a] == minima[b]).mean() >= ALIKE_FROM:
                one, two = head(int(places[a])), head(int(places[b]))
                heads[max(one, two)] = min(one, two)
    for i in range(len(heads)):
        heads[i] = head(i)


# ---------------------------------------------------------------------------------------------- train

Kept = tuple[list[Example], dict[Rule, list[str]]]


def taught(train: Sequence[Example], marks: Marks, one_answer: bool = True) -> Kept:
    """Train without what must not teach, and what was left out, by rule. The order stays.

    `one_answer`: to the same input only one answer teaches.
    """
    dropped: defaultdict[Rule, list[str]] = defaultdict(list)
    kept: list[Example] = []
    for example in train:
        rule = of_row(example, marks)
        if rule is not None and "train" in rule.splits:
            dropped[rule].append(example.id)
        else:
            kept.append(example)
    agreeing = _agreeing if one_answer else list
    steps = ((CONTRADICTING, agreeing), (ALIKE, lambda rows: _thinned(rows, marks.like)), (SHARE, _shared))
    for rule, step in steps:
        left = step(kept)
        if len(left) < len(kept):
            there = {example.id for example in left}
            dropped[rule] += [example.id for example in kept if example.id not in there]
            kept = left
    return kept, {rule: dropped[rule] for rule in RULES if rule in dropped}


def of_row(example: Example, marks: Marks) -> Rule | None:
    """The rule that a row meets by itself. A person's answer stands in for the recorded one."""
    rule = marks.rules.get(example.id)
    if rule is None and not example.usable:
        return UNREADABLE
    if rule is not None and example.has_reference and rule.looks_at == "answer":
        return None
    return rule


def _agreeing(train: Sequence[Example]) -> list[Example]:
    """Train without the minority answers to the same input. Trusted answers outvote all recorded ones."""
    answers: dict[str, Counter[str]] = defaultdict(Counter)
    trusted: dict[str, Counter[str]] = defaultdict(Counter)
    said = [canonical(example.target) for example in train]
    for example, answer in zip(train, said, strict=True):
        answers[example.input][answer] += 1
        if example.has_reference:
            trusted[example.input][answer] += 1
    chosen = {
        text: max((trusted.get(text) or counts).items(), key=lambda c: (c[1], c[0]))[0]
        for text, counts in answers.items()
    }
    return [example for example, answer in zip(train, said, strict=True) if answer == chosen[example.input]]


def _thinned(train: Sequence[Example], like: Mapping[str, int]) -> list[Example]:
    """At most LIKE rows of one cluster with one answer: those with a trusted answer first, the others by hash."""
    rows: defaultdict[tuple[int, str], list[Example]] = defaultdict(list)
    for example in train:
        if example.id in like:
            rows[like[example.id], canonical(example.target)].append(example)
    gone = {
        example.id
        for same in rows.values()
        if len(same) > LIKE
        for example in sorted(same, key=lambda e: (not e.has_reference, digest_of("like", e.id)))[LIKE:]
    }
    return [example for example in train if example.id not in gone]


def _shared(train: Sequence[Example]) -> list[Example]:
    """At most its share of train from any one group.

    The share is one of what trains then, never less than an even one: of three customers each may give a third.
    """
    sizes = Counter(example.group for example in train if example.group is not None)
    if not sizes:
        return list(train)
    alone = sum(example.group is None for example in train)
    most = most_of_a_group(list(sizes.values()), alone)
    rows: defaultdict[str, list[Example]] = defaultdict(list)
    for example in train:
        if example.group is not None and sizes[example.group] > most:
            rows[example.group].append(example)
    gone = {
        example.id
        for same in rows.values()
        for example in sorted(same, key=lambda e: (not e.has_reference, digest_of("share", e.id)))[most:]
    }
    return [example for example in train if example.id not in gone]


def most_of_a_group(sizes: Sequence[int], alone: int) -> int:
    """How many rows of one group train, given the groups' sizes and the number of rows without a group."""
    counts = np.array(sizes, dtype=np.int64)
    even = (int(counts.sum()) + alone) / (len(counts) + alone)
    least = max(LEAST_OF_A_GROUP, math.ceil(even))
    most = int(counts.max())
    while most > least:
        share = int(SHARE_OF_TRAIN * (np.minimum(counts, most).sum() + alone))
        if share >= most:
            return most
        most = max(share, least)
    return least
