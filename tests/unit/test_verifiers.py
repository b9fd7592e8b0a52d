"""Declared verifiers: how they are read, what each says of an answer, and what happens where one says nothing."""

from __future__ import annotations

import json
import random
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.core import grading
from suffice.core.config import from_dict
from suffice.core.errors import InputError
from suffice.core.losses import Keeps, Unverified, common, kind_of, loss, words
from suffice.core.types import Choice, Policy
from suffice.core.values import Value
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.rules import SPENT, Rule
from suffice.specialists.verifying import Likeness, schema_of

# ---------------------------------------------------------------------------------------------- how they are declared


@pytest.mark.parametrize(
    ("text", "binary"),
    [
        ("exact", True),
        ("f1", False),
        ("rouge", False),
        ("rouge >= 0.6", True),
        ("rouge>=.6", True),
        ("schema + embedding >= 0.9", True),
        ("schema + embedding", False),
        ("schema:reply.schema.json", True),
        ("rules.py:polite", False),
        ("checks/rules.py:polite >= 1", True),
        ("rules.py:polite#0123456789ab >= 0.5", True),
        ("judge:tone", True),
        ("judge:tone#0123456789ab + f1", False),
    ],
)
def test_what_is_declared_is_read_and_said_again(text: str, binary: bool) -> None:
    assert grading.is_binary(text) is binary
    again = grading.text_of(grading.parts(text))
    assert grading.parts(again) == grading.parts(text)
    assert kind_of(text, "signed") == "signed"
    assert kind_of(text, "agreement") == ("binary" if binary else "graded")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("rogue", "did you mean 'rouge'"),
        ("embeding >= 0.9", "did you mean 'embedding'"),
        ("", "none of"),
        ("rouge + ", "none of"),
        ("rouge >= 0", "above 0"),
        ("rouge >= 1.5", "at most 1"),
        ("rouge >= -1", "none of"),
        ("exact >= 0.9", "right and wrong only"),
        ("judge:a >= 0.9", "right and wrong only"),
        ("judge:", "did you mean 'judge:NAME'"),
        ("judge:a + judge:b", "more than one judge"),
        ("rules.py", "none of"),
    ],
)
def test_what_is_no_verifier_is_refused_in_a_sentence(text: str, says: str) -> None:
    with pytest.raises(ValueError, match="`loss`") as found:
        Policy(loss=text)
    assert says in str(found.value)


JUDGED = {
    "upstreams": {"out": {"base_url": "https://api.example.com/v1"}, "in": {"base_url": "http://h/v1", "inside": True}},
    "judges": {"tone": {"upstream": "out", "model": "m"}, "ours": {"upstream": "in", "model": "m"}},
}


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (
            {"policy": {"loss": "judge:tome"}},
            "[policy]: `loss` names judge 'tome', which is none; did you mean 'tone'?",
        ),
        ({"tasks": {"a": {"loss": "judge:x"}}}, "[tasks.a]: `loss` names judge 'x', which is none: add [judges.x]"),
        ({"tasks": {"a": {"loss": "judge:tone", "egress": "never"}}}, "`egress` is never, and judge 'tone' is outside"),
        ({"judges": {"tone": {"upstream": "nobody", "model": "m"}}}, "`upstream` names 'nobody'"),
        ({"judges": {"tone": {"upstream": "out", "modell": "m"}}}, "did you mean `model`"),
    ],
)
def test_a_judge_that_cannot_be_asked_is_an_error_of_the_settings(more: dict[str, object], says: str) -> None:
    with pytest.raises(InputError) as found:
        from_dict(JUDGED | more, "s.toml")
    assert says in str(found.value)
    from_dict(JUDGED | {"tasks": {"a": {"loss": "judge:ours", "egress": "never"}}}, "s.toml")


# ---------------------------------------------------------------------------------------------- ROUGE-L

LIN = "police killed the gunman"


@pytest.mark.parametrize(
    ("said", "right", "score"),
    [
        ("police kill the gunman", LIN, 0.75),  # the examples of Lin 2004, section 3.1
        ("the gunman kill police", LIN, 0.5),
        ("the gunman police killed", LIN, 0.5),
        ("Police killed, the GUNMAN!", LIN, 1.0),
        ("your order e-mail", "e mail your order #12", 2 * 2 / 9),
        ("x_y will 3.50 NOT", "x y not on 3 50 Monday.", 8 / 13),  # as the package `rouge-score` has it
        ("?", "!", 0.0),
        ("", LIN, 0.0),
        ("Ваш заказ в пути", "ваш заказ уже в пути", 8 / 9),
        ("订单已发货", "订单未发货", 0.8),
        ({"reply": "a b"}, {"reply": "a c"}, 2 * 2 / 6),
    ],
)
def test_rouge_l_f1(said: Value, right: Value, score: float) -> None:
    assert 1 - loss("rouge", said, right) == pytest.approx(score)


@given(st.lists(st.sampled_from("abcd"), max_size=9), st.lists(st.sampled_from("abcd"), max_size=9))
def test_the_longest_common_subsequence_is_the_longest(first: list[str], second: list[str]) -> None:
    @cache
    def longest(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    assert common(first, second) == common(second, first) == longest(0, 0)


def test_long_texts_are_compared_fast_enough_to_watch_by() -> None:
    dice = random.Random(0)
    first, second = ([dice.choice("abcdefgh") for _ in range(5_000)] for _ in range(2))
    assert 2_500 < common(first, second) < 4_000


def test_a_share_that_is_just_reached_is_reached() -> None:
    assert loss("rouge >= 0.75", "police kill the gunman", LIN) == 0.0
    assert loss("rouge >= 0.76", "police kill the gunman", LIN) == 1.0
    assert loss("exact + rouge >= 0.75", "police kill the gunman", LIN) == 1.0, "all must hold"
    assert loss("rouge + f1", LIN, LIN) == 0.0


# ---------------------------------------------------------------------------------------------- what is handed in


def test_what_is_not_at_hand_is_not_made_up() -> None:
    with pytest.raises(Unverified, match="embedding"):
        loss("exact + embedding >= 0.9", "a", "b")
    assert loss("embedding", "a", "a") == 0.0, "of equal answers nobody need be asked"


def test_likeness_tells_topics_apart_and_says_what_it_cannot() -> None:
    alike = {"embedding": Likeness(shared_static_embedding().vector)}
    right = "Your refund has been started and will arrive within five working days."
    reworded = "We have started your refund; it arrives within five working days."
    other = "Our shop is open until nine in the evening."
    near, far = (loss("embedding", said, right, graders=alike) for said in (reworded, other))
    assert 0 < near < 0.2 < far <= 1
    assert loss("embedding >= 0.8", reworded, right, graders=alike) == 0.0
    assert loss("embedding", "", right, graders=alike) == 1.0
    denied = right.replace("has been", "has not been")
    assert loss("embedding", denied, right, graders=alike) < 0.1, "docs/verifiers.md says so"


def test_a_contract_is_kept_or_not_whatever_the_frontier_said() -> None:
    kept = {"schema": Keeps(Choice(("a", "b")))}
    assert loss("schema", "a", "b", graders=kept) == 0.0
    assert loss("schema", "c", "c", graders=kept) == 1.0
    assert loss("schema + exact", "a", "b", graders=kept) == 1.0


def test_a_schema_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text(json.dumps({"type": "object", "required": ["city"], "properties": {"city": {"type": "string"}}}))
    kept = {"schema:s.json": schema_of(path)}
    assert loss("schema:s.json", {"city": "Rome"}, "x", graders=kept) == 0.0
    assert loss("schema:s.json", {"town": "Rome"}, {"town": "Rome"}, graders=kept) == 1.0
    path.write_text('{"type": "object", "properties": {"city": {"maxLength": 3}}}')
    with pytest.raises(InputError, match="`maxLength` is not looked at"):
        schema_of(path)
    path.write_text("[]")
    with pytest.raises(InputError, match="is an object"):
        schema_of(path)
    with pytest.raises(InputError, match="cannot be read"):
        schema_of(tmp_path / "none.json")


RULES = """
import os, sys, time
from helper import LIMIT

def short(input, answer, reference):
    print("a rule may print")
    return len(answer) <= LIMIT

def graded(input, answer, reference):
    return 0.25

def named(input, answer, reference):
    return input in answer and reference is None

def broken(input, answer, reference):
    return 1 / len(answer)

def silent(input, answer, reference):
    pass

def beyond(input, answer, reference):
    return 1.5

def nan(input, answer, reference):
    return float("nan")

def hung(input, answer, reference):
    time.sleep(3600)

def gone(input, answer, reference):
    os._exit(3)

def leaving(input, answer, reference):
    sys.exit(0)
"""


@pytest.fixture(scope="module")
def rules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rules")
    (folder / "helper.py").write_text("LIMIT = 3\n")
    (folder / "rules.py").write_text(RULES)
    return folder / "rules.py"


def test_a_rule_says_how_good_an_answer_is(rules: Path) -> None:
    short, graded, named = (Rule(rules, name) for name in ("short", "graded", "named"))
    known = {"rules.py:short": short, "rules.py:graded": graded, "rules.py:named": named}
    assert loss("rules.py:short", "abc", "abcd", graders=known) == 0.0
    assert loss("rules.py:short", "abcd", "abcd", graders=known) == 1.0, "equal answers may both break it"
    assert loss("rules.py:graded", "x", "y", graders=known) == 0.75
    assert loss("rules.py:graded >= 0.2", "x", "y", graders=known) == 0.0
    assert loss("rules.py:named", "for order 12", None, "order 12", known) == 0.0
    assert loss("rules.py:named", "for order 13", None, "order 12", known) == 1.0
    assert short.fault() is None
    for rule in (short, graded, named):
        rule.close()


@pytest.mark.parametrize(
    ("name", "answer", "says"),
    [
        ("broken", "", "ZeroDivisionError"),
        ("silent", "a", "NoneType"),
        ("beyond", "a", "1.5"),
        ("nan", "a", "nan"),
        ("hung", "a", "no answer within 0.2 s"),
        ("gone", "a", "has ended"),
        ("leaving", "a", "SystemExit"),
    ],
)
def test_a_rule_that_says_nothing_is_a_whole_error_and_is_told(rules: Path, name: str, answer: str, says: str) -> None:
    rule = Rule(rules, name, wait_s=0.2)
    assert rule("", answer, answer) == 1.0
    assert rule("", answer, answer) == 1.0
    told = rule.fault()
    assert told is not None and "failed on 2 answers" in told and says in told
    assert rule.fault() is None, "told once"
    rule.close()


def test_a_rule_that_hangs_again_and_again_is_asked_no_more(rules: Path) -> None:
    rule = Rule(rules, "hung", wait_s=0.001)
    assert all(rule("", "a", "b") == 1.0 for _ in range(SPENT + 200))
    assert f"failed on {SPENT + 200} answers" in (rule.fault() or "")


@pytest.mark.parametrize(
    ("text", "function", "says"),
    [("x = (", "f", "SyntaxError"), ("x = 1", "f", "no function f"), ("import nowhere_at_all", "f", "nowhere_at_all")],
)
def test_a_file_without_such_a_rule_is_refused(tmp_path: Path, text: str, function: str, says: str) -> None:
    path = tmp_path / "r.py"
    path.write_text(text)
    with pytest.raises(InputError, match=r"r\.py") as found:
        Rule(path, function).check()
    assert says in str(found.value)


def test_words_of_any_script() -> None:
    assert words("Don't_e-mail: Straße 3.50") == ["don", "t", "e", "mail", "strasse", "3", "50"]
