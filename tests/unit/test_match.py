from __future__ import annotations

import random
import time
from typing import Any

import pytest

from suffice.core.match import ANY, Matcher, Rule, fingerprint, first_user, tools_of
from suffice.core.prompt import DATE, DATES, Template, split_at_dates, without_dates
from suffice.core.types import Message, Request


def asked(*turns: tuple[str, str], tools: str = "", response_format: str = "") -> Request:
    messages = tuple(Message(role, text) for role, text in turns)
    return Request(model="m", messages=messages, tools=tools, response_format=response_format)


def head(*literals: str, **more: Any) -> Rule:
    return Rule(head=(("system", Template(literals)),), **more)


def found(rules: list[Rule], request: Request) -> int | None:
    match = Matcher(enumerate(rules)).match(request)
    return match[0] if match is not None else None


def test_an_exact_head_is_told_by_its_fingerprint() -> None:
    rules = [head("Classify."), head("Extract.")]
    assert Matcher(enumerate(rules)).match(asked(("system", "Extract."), ("user", "x"))) == (1, "fingerprint")
    assert found(rules, asked(("system", "Extract!"), ("user", "x"))) is None
    assert found(rules, asked(("developer", "Extract."), ("user", "x"))) == 1  # another word for the same role
    assert found(rules, asked(("user", "Extract."), ("user", "x"))) is None
    assert found(rules, asked(("system", "Extract."), ("system", "More."), ("user", "x"))) is None


def test_a_rule_has_the_fingerprint_of_the_requests_that_meet_it() -> None:
    text = "Today is 3 March 2026, 12:30. Classify."
    rule = Rule(head=(("system", Template(tuple(split_at_dates(text)))),), dated=True)
    other = asked(("system", text.replace("3 March", "14 May")), ("user", "x"))
    assert rule.exact
    assert rule.fingerprints()[0] == fingerprint(asked(("system", text))) == fingerprint(other)
    assert found([rule], other) == 0


def test_a_date_that_is_no_slot_is_compared_as_it_stands() -> None:
    rule = head("Since 3 March 2026 we answer shortly.")
    assert not rule.exact
    assert found([rule], asked(("system", "Since 3 March 2026 we answer shortly."))) == 0
    assert found([rule], asked(("system", "Since 4 March 2026 we answer shortly."))) is None


@pytest.mark.parametrize(
    ("literals", "text"),
    [
        (("You are ", ", an agent of the bank."), "You are Anna, an agent of the bank."),
        (("", ": answer with one label."), "Anna: answer with one label."),
        (("", " answer with exactly one label ", ""), "Anna, answer with exactly one label please"),
        (("Hi", ""), "Hi there"),
        (("", "?"), "who?"),
        (("", ""), "anything"),
    ],
)
def test_templates_are_found_however_they_begin_and_end(literals: tuple[str, ...], text: str) -> None:
    others = [head("You are ", f", a {i}th agent of the bank.") for i in range(50)]
    others += [Rule(turn=Template(("Read this: ", f" and {i}"))) for i in range(50)]
    assert found([*others, head(*literals)], asked(("system", text), ("user", "x"))) == 100
    assert found([*others, Rule(turn=Template(literals))], asked(("user", text))) == 100


def test_the_rule_that_says_more_wins_then_its_tools_then_the_lower_number() -> None:
    request = asked(("system", "You are Anna. Classify."), ("user", "Message: hello"), tools='["t"]')
    general = head("You are ", ".", tools=ANY)
    narrow = head("You are ", ". Classify.", tools=ANY)
    turned = head("You are ", ". Classify.", tools=ANY, turn=Template(("Message: ", "")))
    named = head("You are ", ". Classify.", tools=tools_of(request), turn=Template(("Message: ", "")))
    rules = [general, narrow, turned, named, named]
    for kept in range(1, 5):
        assert found(rules[:kept], request) == kept - 1
        assert found(rules[:kept][::-1], request) == 0
    assert found(rules, request) == 3


def test_tools_and_format_are_part_of_a_rule() -> None:
    plain, any_tools = head("Go."), head("Go.", tools=ANY)
    strict = head("Go.", response_format='{"type":"json_object"}')
    turn = (("system", "Go."), ("user", "x"))
    assert found([plain, any_tools, strict], asked(*turn)) == 0
    assert found([plain, any_tools, strict], asked(*turn, tools="[1]")) == 1
    assert found([plain, any_tools, strict], asked(*turn, response_format='{"type":"json_object"}')) == 2
    assert found([plain, strict], asked(*turn, tools="[1]")) is None


def test_a_split_by_what_a_request_contains() -> None:
    rules = [head("Go."), head("Go.", containing="invoice")]
    assert found(rules, asked(("system", "Go."), ("user", "an invoice"))) == 1
    assert found(rules, asked(("system", "Go."), ("user", "a letter"))) == 0


def test_the_first_user_turn_is_compared() -> None:
    rules = [Rule(), Rule(turn=Template(("", "\nIntent:")))]
    turns = [("user", "hello\nIntent:"), ("assistant", "greeting"), ("user", "bye")]
    assert rules[0].bare
    assert not rules[1].bare
    assert found(rules, asked(*turns)) == 1
    assert found(rules, asked(*turns[2:])) == 0
    assert found(rules, asked()) == 0
    assert first_user(asked(("assistant", "x")).messages) == ""


def test_half_a_surrogate_pair_is_text_like_any_other() -> None:
    rule = head("Go \ud800.")
    assert found([rule], asked(("system", "Go \ud800."))) == 0


def test_dates_are_blanked_as_prompts_blank_them() -> None:
    rng = random.Random(3)
    parts = [
        *("2026-03-02", "3 March 2026", "Mon", "Monday", ",", " ", "12:30", "T", "Z", "+02:00", "May", "May 3"),
        *("3rd of June", "1", "12", "Jan.", "/", "-", ".", "20260302", "x", "\n", "2024", "pm", "\u0663", "th", "Sept"),
        *("Marching", "day", "Sunday", "\u00e9", "_"),
    ]
    for _ in range(5_000):
        text = "".join(rng.choice(parts) for _ in range(rng.randint(1, 9)))
        assert without_dates(text) == DATES.sub(DATE, text)


def test_a_thousand_rules_are_as_fast_as_a_few() -> None:
    text = "Tell what kind of message the customer of this shop wrote, as one of its labels. " * 12
    rules = [head("You are ", f", helper{i} of the shop. {text}") for i in range(1_000)]
    rules += [Rule(turn=Template(("", f"\n\nQueue number{i} of ours. {text}"))) for i in range(1_000)]
    matcher = Matcher(enumerate(rules))
    requests = [
        asked(("system", f"You are Anna, helper777 of the shop. {text}"), ("user", "hello")),
        asked(("user", f"hello\n\nQueue number777 of ours. {text}")),
    ]
    for i, request in enumerate(requests):
        match = matcher.match(request)
        assert match == (777 + 1_000 * i, "template")
        began = time.perf_counter()
        for _ in range(200):
            matcher.match(request)
        assert (
            time.perf_counter() - began
        ) / 200 < 0.001  # 30 microseconds alone; scanning them all takes ten times this


def test_instructions_longer_than_any_that_is_known_are_not_read() -> None:
    rules = [head("Today is ", ". Sort.", dated=True), head("You sort ", " for ACME.")]
    assert found(rules, asked(("system", "Today is Wednesday, 12th of September 2024, 12:30:00 UTC. Sort."))) == 0
    assert found(rules, asked(("system", "You sort " + "1:11 " * 200_000 + " for ACME."))) == 1
    began = time.process_time()
    assert found(rules, asked(("system", "1:11 " * 200_000))) is None
    assert time.process_time() - began < 0.1
