"""What must not teach: every rule, what it is not, and that none touches calibration or test."""

from __future__ import annotations

import json
import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.core.secrets import leaked
from suffice.core.types import Choice, Example
from suffice.learn import curate, filters
from suffice.learn.filters import Marks, Rule

LETTERS = "Ab3dE6gH9jKlMn0pQrStUvWx12345yZ7c8F"


def example(i: int, text: str, output: str = "a", **more: Any) -> Example:
    return Example(id=f"e{i:05d}", input=text, output=output, has_output=True, **more)


# ---------------------------------------------------------------------------------------------- keys


@pytest.mark.parametrize(
    "key",
    [
        f"sk-proj-{LETTERS}",
        f"sk-ant-api03-{LETTERS}",
        "AKIAIOSFODNN7EXAMPLE",
        f"ghp_{LETTERS}0a",
        f"hf_{LETTERS}",
        "xoxb-123456789012-AbCdEf123456",
        f"AIza{LETTERS}",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N",
        "-----BEGIN RSA PRIVATE KEY-----",
        "-----BEGIN PRIVATE KEY-----",
        f"my password is {LETTERS}",
        f"api_key = '{LETTERS}'",
        f'{{"access_token": "{LETTERS}"}}',
        f"Authorization: Bearer {LETTERS}",
    ],
    ids=lambda key: key[:14],
)
def test_a_key_is_found_wherever_it_stands(key: str) -> None:
    assert leaked(f"hello, {key} and so on")
    assert filters.of_request(f"please use {key}") is filters.KEY
    assert filters.of_answer(f"it is {key}") is filters.KEY
    assert filters.of_answer({"note": [key]}) is filters.KEY
    for before in ("\n", "\t", "\x1b"):  # written with a letter before the key
        assert filters.of_answer({"note": before + key}) is filters.KEY
        assert filters.of_request(json.dumps({"arguments": json.dumps({"note": before + key})})) is filters.KEY


@pytest.mark.parametrize(
    "text",
    [
        "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
        "use sk-your-api-key-goes-right-here",
        "I lost my key and my password, what is the token for?",
        "the secret is responsibilities-and-misunderstandings",
        "password: ************************",
        "my card 4111 1111 1111 1111",
        "risk-assessment-of-the-whole-organisation",
        "-----BEGIN PUBLIC KEY-----",
        "https://example.com/keys/list-of-all-the-things",
        "eyJ is how they begin",
        "order a1b2c3, 20 keys, token 17",
    ],
)
def test_what_is_no_key_raises_no_alarm(text: str) -> None:
    assert not leaked(text)


# ---------------------------------------------------------------------------------------------- single rows


@pytest.mark.parametrize(
    "text",
    [
        "test",
        "Test!",
        "  TESTING  ",
        "test 123",
        "asdf",
        "asdfasdf",
        "ping",
        "Hello, world!",
        "this is a test.",
        "aaaa",
        "Lorem ipsum dolor sit amet, consectetur",
        "Das ist ein Test",
        "qwertz",
    ],
)
def test_test_traffic(text: str) -> None:
    assert filters.of_request(text) is filters.TEST_TRAFFIC


@pytest.mark.parametrize(
    "text", ["", "42", "no", "where is my test kit?", "my ping is high", "testament", "I want to test drive it", "abba"]
)
def test_short_requests_are_no_test_traffic(text: str) -> None:
    assert filters.of_request(text) is None


@pytest.mark.parametrize(
    "answer",
    [
        "I'm sorry, but I can't help with that.",
        "I’m sorry, I cannot assist with this request",
        "Sorry, I am unable to do this.",
        "I cannot provide that information.",
        "As an AI language model, I have no opinion.",
        "Es tut mir leid, aber ich kann dabei nicht helfen.",
        "Je suis désolé, mais je ne peux pas vous aider.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Mi dispiace, ma non posso aiutarti.",
        "抱歉，我无法回答这个问题。",
        "申し訳ありませんが、お手伝いできません。",
    ],
)
def test_refusals_in_words(answer: str) -> None:
    assert filters.of_answer(answer) is filters.DECLINED


@pytest.mark.parametrize("answer", ["billing", "sorry", "I can help", "cannot_login", "", {"a": "I cannot help"}, None])
def test_answers_are_no_refusals(answer: Any) -> None:
    assert filters.of_answer(answer) is None


def completion(finish: str = "stop", **message: Any) -> bytes:
    return json.dumps({"choices": [{"message": {"role": "assistant", **message}, "finish_reason": finish}]}).encode()


@pytest.mark.parametrize(
    ("answer", "rule"),
    [
        (completion("length", content="a"), filters.TRUNCATED),
        (completion("content_filter", content="a"), filters.REFUSED),
        (completion(content=None, refusal="no"), filters.REFUSED),
        (completion(content=None), filters.UNREADABLE),
        (b"[", filters.UNREADABLE),
        (b'{"choices": []}', filters.UNREADABLE),
        (None, filters.UNREADABLE),
    ],
)
def test_why_nothing_can_be_learned(answer: bytes | None, rule: Rule) -> None:
    assert filters.of_failure(answer) is rule


SCHEMA = {
    "type": "object",
    "properties": {
        "label": {"enum": ["a", "b"]},
        "count": {"type": ["integer", "null"]},
        "items": {"type": "array", "items": {"$ref": "#/$defs/item"}},
    },
    "required": ["label"],
    "additionalProperties": False,
    "$defs": {"item": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}},
}
FORMAT = json.dumps({"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA}})


@pytest.mark.parametrize(
    ("answer", "broken"),
    [
        ('{"label": "a"}', False),
        ('{"label": "a", "count": null, "items": [{"name": "x"}]}', False),
        ('```json\n{"label": "b", "count": 3}\n```', False),
        ('{"label": "c"}', True),
        ('{"count": 3}', True),
        ('{"label": "a", "count": "3"}', True),
        ('{"label": "a", "count": true}', True),
        ('{"label": "a", "other": 1}', True),
        ('{"label": "a", "items": [{}]}', True),
        ("just text", True),
        ({"tool_calls": []}, False),
    ],
)
def test_answers_that_break_the_schema_of_their_request(answer: Any, broken: bool) -> None:
    assert filters.breaks(FORMAT, answer) == broken
    assert (filters.of_answer(answer, FORMAT) is filters.SCHEMA) == broken


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["type", "properties", "items", "enum", "required", "$ref", "anyOf", "a"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ),
    st.recursive(st.none() | st.integers() | st.text(max_size=3), lambda inner: st.lists(inner, max_size=2)),
)
def test_no_schema_is_too_odd(schema: Any, answer: Any) -> None:
    filters.breaks(json.dumps({"type": "json_schema", "json_schema": {"schema": schema}}), answer)
    filters.breaks(json.dumps(schema), answer)


# ---------------------------------------------------------------------------------------------- among many


def test_a_burst_of_one_sender() -> None:
    sent = [example(i, "same", at=float(i), group="group loop") for i in range(30)]
    spread = [example(100 + i, "daily", at=86_400.0 * i, group="group calm") for i in range(30)]
    many = [example(200 + i, "same", at=float(i), group=f"group {i}") for i in range(30)]
    alone = [example(300 + i, "same", at=float(i)) for i in range(30)]
    untimed = [example(400 + i, "same", at=7.0, group="group file") for i in range(30)]
    later = [example(500, "same", at=50_000.0, group="group loop")]
    found = filters.bursts([*sent, *spread, *many, *alone, *untimed, *later])
    assert set(found) == {one.id for one in sent}


def test_the_same_words_are_alike() -> None:
    texts = ["Where is order 123?", "where is  ORDER 98765", "where is my order", "Where's order 5"]
    like = filters.clusters([example(i, text) for i, text in enumerate(texts)])
    assert set(like) == {"e00000", "e00001"}


def test_long_texts_that_share_most_of_their_words_are_alike() -> None:
    dice = random.Random(0)
    words = [
        f"{a}{b}" for a in ("lo", "ka", "mi", "tu", "re", "so") for b in ("ran", "pel", "dim", "gos", "vat", "nek")
    ]
    base = dice.choices(words, k=120)
    one_changed = [*base[:60], "other", *base[61:]]
    half_changed = [*base[:60], *dice.choices(words, k=60)]
    strangers = [dice.choices(words, k=120) for _ in range(200)]
    found = [example(i, " ".join(text)) for i, text in enumerate([base, one_changed, half_changed, *strangers])]
    like = filters.clusters(found)
    assert set(like) == {"e00000", "e00001"}
    assert filters.clusters(found[::-1]).keys() == like.keys()


@given(st.lists(st.text(max_size=8), max_size=12))
def test_any_texts_can_be_compared(texts: list[str]) -> None:
    like = filters.clusters([example(i, text) for i, text in enumerate(texts)])
    for i, one in enumerate(texts):
        for j, other in enumerate(texts):
            same = filters.normal(one) == filters.normal(other) and i != j
            assert not same or like[f"e{i:05d}"] == like[f"e{j:05d}"]


def test_of_like_rows_with_one_answer_so_many_train_and_those_people_judged_first() -> None:
    rows = [example(i, f"order {i}") for i in range(80)]
    rows += [example(100 + i, f"order {900 + i}", output="b") for i in range(5)]
    judged = [example(200 + i, f"order {i}", reference="a", has_reference=True) for i in range(10)]
    found = [*rows, *judged]
    kept, dropped = filters.taught(found, Marks(like=filters.clusters(found)))
    assert sum(one.target == "a" for one in kept) == filters.LIKE
    assert sum(one.target == "b" for one in kept) == 5
    assert {one.id for one in judged} <= {one.id for one in kept}
    assert {rule.name: len(ids) for rule, ids in dropped.items()} == {"alike": 90 - filters.LIKE}


def test_a_person_outvotes_the_majority() -> None:
    rows = [example(i, "x", output="a") for i in range(9)]
    person = example(20, "x", output="a", reference="b", has_reference=True)
    kept, dropped = filters.taught([*rows, person], Marks())
    assert [one.id for one in kept] == [person.id]
    assert {rule.name: len(ids) for rule, ids in dropped.items()} == {"contradicting": 9}


def test_a_person_stands_in_for_what_is_wrong_with_the_answer_and_not_with_the_request() -> None:
    person = example(0, "x", reference="b", has_reference=True)
    for rule in filters.RULES:
        met = filters.of_row(person, Marks(rules={person.id: rule}))
        assert (met is None) == (rule.looks_at == "answer")


@pytest.mark.parametrize(
    ("sizes", "alone", "most"),
    [
        ([600], 400, 100),  # a fifth of the 500 that train then
        ([30, 20], 5, 50),  # small data: nobody is cut
        ([1000, 1000, 1000], 0, 1000),  # three customers: a third each is no more than their share
        ([5000, 10], 0, 2505),
        ([1000, *[10] * 100], 0, 250),
    ],
)
def test_the_share_of_a_customer(sizes: list[int], alone: int, most: int) -> None:
    found = filters.most_of_a_group(sizes, alone)
    assert min(found, max(sizes)) == min(most, max(sizes))


def test_a_customer_trains_with_its_share() -> None:
    rows = [example(i, f"a{i}x", group="group big") for i in range(600)]
    rows += [example(1000 + i, f"b{i}y") for i in range(400)]
    kept, dropped = filters.taught(rows, Marks())
    assert sum(one.group is not None for one in kept) == 100
    assert {rule.name: len(ids) for rule, ids in dropped.items()} == {"share": 500}


# ---------------------------------------------------------------------------------------------- calibration and test


def mixed(n: int = 1200) -> tuple[list[Example], Marks]:
    """Traffic with everything that a rule is against."""
    dice = random.Random(3)
    found, met = [], {}
    for i in range(n):
        kind = i % 12
        text = {0: "test", 1: "same order 5", 2: f"order {i}"}.get(kind, f"mail {dice.random()} {i}")
        one = example(i, text, output=dice.choice("ab"), at=float(i), group=f"group {i % 300}" if kind > 8 else None)
        if kind == 3:
            one = msgspec.structs.replace(one, usable=False)
        if kind in (4, 5, 6, 7):
            met[one.id] = (filters.KEY, filters.DECLINED, filters.SCHEMA, filters.BURST)[kind - 4]
        found.append(one)
    for one in found:
        if (rule := filters.of_request(one.input)) is not None:
            met[one.id] = rule
    return found, Marks(rules=met, like=filters.clusters(found))


def test_calibration_and_test_are_the_same_with_and_without_the_filters() -> None:
    found, marks = mixed()
    sizes = curate.sizes(len({curate.unit(one) for one in found}), 100)
    assert isinstance(sizes, curate.Sizes)
    assigned = curate.split(found, {}, sizes, 0)
    bare, _ = curate.splits(found, assigned, 3)
    filtered, dropped = curate.splits(found, assigned, 3, None, marks)
    kept, _ = curate.keeping(filtered, Choice(("a",)))
    for splits in (filtered, kept):
        for name in ("calibration", "test"):
            before, after = getattr(bare, name), getattr(splits, name)
            assert [msgspec.json.encode(one) for one in before] == [msgspec.json.encode(one) for one in after]
    assert len(filtered.train) < len(bare.train)
    assert {"key", "declined", "schema", "test", "burst", "contradicting", "alike"} <= {rule.name for rule in dropped}


def test_tune_keeps_its_rows_but_for_keys_and_answers_that_are_none() -> None:
    found, marks = mixed()
    splits, dropped = curate.splits(found, dict.fromkeys([one.id for one in found], "tune"), None, None, marks)
    assert {rule.name for rule in dropped} == {"key", "unreadable"}
    assert len(splits.tune) == len(found) - 200


def test_every_rule_is_in_the_list_and_says_why() -> None:
    known = [value for value in vars(filters).values() if isinstance(value, Rule)]
    assert sorted(rule.name for rule in known) == sorted(rule.name for rule in filters.RULES)
    assert all(rule.told and set(rule.splits) <= {"train", "tune"} for rule in filters.RULES)


def test_tune_has_its_share_of_every_answer_and_calibration_does_not_look() -> None:
    dice = random.Random(1)
    found = [example(i, f"x{i}", output=dice.choices("abcde", (50, 25, 15, 7, 3))[0]) for i in range(4000)]
    wanted = curate.Sizes(2400, 400, 600, 600)
    assigned = curate.split(found, {}, wanted, 0)
    other = [msgspec.structs.replace(one, output="z") for one in found]
    unlabelled = curate.split(other, {}, wanted, 0)
    for place in ("calibration", "test"):
        assert {i for i, p in assigned.items() if p == place} == {i for i, p in unlabelled.items() if p == place}
    left = [one for one in found if assigned[one.id] in ("train", "tune")]
    for answer in "abcde":
        of_all = sum(one.output == answer for one in left) / len(left)
        of_tune = sum(one.output == answer for one in left if assigned[one.id] == "tune")
        assert abs(of_tune - 400 * of_all) <= 1


def test_rows_whose_answers_were_looked_at_train() -> None:
    found = [example(i, f"x{i}") for i in range(400)]
    peeked = {f"e{i:05d}" for i in range(0, 400, 10)}
    assigned = curate.split(found, {}, curate.Sizes(240, 40, 60, 60), 0, peeked=peeked)
    assert {assigned[name] for name in peeked} == {"train"}
    assert sorted(assigned.values()).count("calibration") == 60
