"""What requests have in common: mined templates, views, and prompts that change in time."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import msgspec
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from suffice.core.prompt import Prompt
from suffice.core.types import Message, Reason, Request
from suffice.core.values import Value
from suffice.learn.prompts import Answers, in_force, mine

WORDS = [
    "card",
    "lost",
    "refund",
    "price",
    "app",
    "crash",
    "login",
    "slow",
    "invoice",
    "double",
    "charge",
    "where",
    "order",
    "late",
    "parcel",
    "open",
    "account",
]
RULES = "You route support mail.\nLabels: billing, tech.\nAnswer with one label."


def said(n: int, seed: int = 0, length: int = 6) -> list[str]:
    dice = random.Random(seed)
    return [" ".join(dice.choices(WORDS, k=length)) for _ in range(n)]


def request(*turns: tuple[str, str], tools: str = "") -> Request:
    return Request(model="m", messages=tuple(Message(role, text) for role, text in turns), tools=tools)


def chats(system: str | None, texts: Sequence[str], tools: str = "") -> list[Request]:
    head = [("system", system)] if system is not None else []
    return [request(*head, ("user", text), tools=tools) for text in texts]


def learned(requests: Sequence[Request]) -> Prompt:
    """The prompt in force, by which every one of its requests can be read."""
    current = [requests[i] for i in in_force(requests)]
    prompt = mine(current)
    assert not any(isinstance(prompt.read(each), Reason) for each in current)
    return prompt


def test_the_whole_user_message_is_what_varies() -> None:
    prompt = learned(chats(RULES, said(50)))
    assert prompt.view == "last_user"
    assert prompt.read(*chats(RULES, ["quite another text"])) == "quite another text"


@pytest.mark.parametrize("date", ["2026-03-14", "March 14, 2026", "14.03.2026 09:41"])
def test_a_date_is_a_slot_though_all_records_are_of_one_day(date: str) -> None:
    prompt = learned(chats(f"It is {date}. {RULES}", said(50)))
    for later in ("2027-01-02", "January 2, 2027", "02.01.2027 10:00"):
        assert prompt.read(*chats(f"It is {later}. {RULES}", ["x"])) == "x"


def test_a_name_that_alternates_is_a_slot() -> None:
    texts = said(60)
    prompt = learned(
        [chats(f"You work for {'Acme' if i % 2 else 'Initech'}. {RULES}", [t])[0] for i, t in enumerate(texts)]
    )
    assert prompt.read(*chats(f"You work for Hooli. {RULES}", ["x"])) == "x"


@pytest.mark.parametrize(
    "system",
    [
        RULES.replace("tech.", "tech, sales."),
        RULES.replace("billing, ", ""),
        RULES.replace("one label", "the best label"),
        RULES + "\nBe brief.",
        RULES[:-1],
        RULES.lower(),
    ],
    ids=["label added", "label gone", "reworded", "rule added", "full stop gone", "lower case"],
)
def test_another_rule_is_another_prompt(system: str) -> None:
    prompt = learned(chats(f"It is 2026-03-14. {RULES}", said(50)))
    assert prompt.read(*chats(f"It is 2026-03-14. {system}", ["x"])) is Reason.PROMPT_CHANGED


def test_a_system_prompt_that_appears_or_vanishes_is_another_prompt() -> None:
    assert learned(chats(None, said(50))).read(*chats(RULES, ["x"])) is Reason.PROMPT_CHANGED
    assert learned(chats(RULES, said(50))).read(*chats(None, ["x"])) is Reason.PROMPT_CHANGED


def test_a_template_around_the_input() -> None:
    prompt = learned(chats(RULES, [f"Text: {text}\nLabel:" for text in said(50)]))
    assert prompt.read(*chats(RULES, ["Text: my cat is ill\nLabel:"])) == "my cat is ill"
    assert prompt.read(*chats(RULES, ["Text: my cat is ill"])) is Reason.PROMPT_CHANGED


def test_a_prompt_that_is_all_in_the_user_message() -> None:
    prompt = learned(chats(None, [f"{RULES}\n\nMail: {text}" for text in said(50)]))
    assert prompt.read(*chats(None, [f"{RULES}\n\nMail: hello there"])) == "hello there"
    changed = RULES.replace("tech.", "tech, sales.")
    assert prompt.read(*chats(None, [f"{changed}\n\nMail: hello there"])) is Reason.PROMPT_CHANGED


def test_several_slots_are_all_read() -> None:
    titles, bodies = said(50, seed=1), said(50, seed=2)
    prompt = learned(
        chats(RULES, [f"The title is: {t}\nThe body is: {b}\nYour label:" for t, b in zip(titles, bodies, strict=True)])
    )
    found = prompt.read(*chats(RULES, ["The title is: one\nThe body is: two\nYour label:"]))
    assert found == "one\ntwo"


def test_examples_as_messages_are_fixed() -> None:
    shots = [("user", "card lost"), ("assistant", "billing"), ("user", "app crash"), ("assistant", "tech")]
    prompt = learned([request(("system", RULES), *shots, ("user", text)) for text in said(50)])
    assert prompt.read(request(("system", RULES), *shots, ("user", "hello"))) == "hello"
    other = [*shots[:-1], ("assistant", "billing")]
    assert prompt.read(request(("system", RULES), *other, ("user", "hello"))) is Reason.PROMPT_CHANGED


def test_a_conversation_is_read_by_its_latest_turns() -> None:
    texts = said(90)
    short = [request(("system", RULES), ("user", t)) for t in texts[:30]]
    long = [
        request(("system", RULES), ("user", a), ("assistant", "how?"), ("user", b))
        for a, b in zip(texts[30:60], texts[60:], strict=True)
    ]
    prompt = learned([*short, *long])
    assert prompt.view == "turns"
    found = prompt.read(request(("system", RULES), ("user", "one"), ("assistant", "two"), ("user", "three")))
    assert isinstance(found, str)
    assert all(word in found for word in ("one", "two", "three"))
    assert prompt.read(request(("user", "one"))) is Reason.PROMPT_CHANGED


# ---------------------------------------------------------------------------------------------- versions in time


@pytest.mark.parametrize("day", ["", "It is 2026-03-{:02d}. "], ids=["plain", "with a date"])
def test_requests_of_the_older_prompt_are_left_out(day: str) -> None:
    texts = said(120)
    new = RULES.replace("tech.", "tech, sales.")
    requests = [chats(day.format(1 + i // 20) + (RULES if i < 60 else new), [t])[0] for i, t in enumerate(texts)]
    assert in_force(requests) == list(range(60, 120))
    assert learned(requests).read(*chats(day.format(30) + RULES, ["x"])) is Reason.PROMPT_CHANGED


def test_of_three_prompts_the_last_is_in_force() -> None:
    texts = said(150)
    versions = [RULES, RULES.replace("tech.", "tech, sales."), RULES.replace("tech.", "tech, sales, other.")]
    requests = [chats(versions[i // 50], [t])[0] for i, t in enumerate(texts)]
    assert in_force(requests) == list(range(100, 150))


def test_a_system_prompt_or_tools_that_came_later_are_in_force() -> None:
    texts = said(100)
    assert in_force(chats(None, texts[:50]) + chats(RULES, texts[50:])) == list(range(50, 100))
    assert in_force(chats(RULES, texts[:50]) + chats(RULES, texts[50:], tools="[1]")) == list(range(50, 100))


def test_a_change_of_rules_in_the_user_message_is_seen_too() -> None:
    new = RULES.replace("tech.", "tech, sales.")
    requests = chats(None, [f"{RULES if i < 60 else new}\n\nMail: {t}" for i, t in enumerate(said(120))])
    assert in_force(requests) == list(range(60, 120))


def test_a_change_of_role_is_a_change() -> None:
    texts = said(100)
    requests = [request(("system" if i < 50 else "developer", RULES), ("user", t)) for i, t in enumerate(texts)]
    assert learned(requests).read(request(("developer", RULES), ("user", "x"))) == "x"


def test_a_number_in_a_rule_that_changed_once_is_a_change() -> None:
    texts = said(120)
    requests = [chats(f"Give at most {3 if i < 60 else 5} labels.", [t])[0] for i, t in enumerate(texts)]
    assert learned(requests).read(*chats("Give at most 9 labels.", ["x"])) is Reason.PROMPT_CHANGED


# ---------------------------------------------------------------------------------------------- odd traffic


def test_one_request_and_identical_requests() -> None:
    assert learned(chats(RULES, ["same"])).messages[0][1].literals == (RULES,)
    prompt = learned(chats(RULES, ["same"] * 50))
    assert prompt.read(*chats(RULES, ["other"])) is Reason.PROMPT_CHANGED


def test_no_request_is_in_force_without_any() -> None:
    assert in_force([]) == []


@pytest.mark.parametrize("length", [500, 3500], ids=["3 KB inputs", "20 KB inputs"])
def test_long_inputs_and_long_rules_are_mined_fast(length: int) -> None:
    rules = " ".join(said(1, seed=9, length=3500))
    requests = chats(f"It is 2026-01-01. {rules}", said(60, length=length))
    began = time.perf_counter()
    prompt = learned(requests)
    assert time.perf_counter() - began < 6
    assert prompt.read(*chats(f"It is 2026-02-01. {rules}", ["x"])) == "x"


texts = st.text(alphabet=st.sampled_from("ab .\n?0-:{}\0é"), max_size=12)
heads = st.sampled_from(["", "S", "Answer a or b.", "On 2026-01-01 at 10:00.\n"])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(heads, texts, texts, st.lists(texts, min_size=1, max_size=12))
def test_what_was_mined_reads_back_and_holds_what_varies(head: str, before: str, after: str, inputs: list[str]) -> None:
    requests = chats(head or None, [before + text + after for text in inputs])
    prompt = mine([requests[i] for i in in_force(requests)])
    found = [prompt.read(each) for each in requests]
    assert not any(isinstance(text, Reason) for text in found)
    assume(len(set(inputs)) > 1)
    # two requests that differ are read differently, or one of them says no more than the other
    whole = [each.messages[-1].text for each in requests]
    assert len(set(found)) >= min(2, len(set(whole)))


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["system", "user", "assistant"]), texts), min_size=1, max_size=4),
        min_size=1,
        max_size=8,
    )
)
def test_any_traffic_can_be_mined(conversations: list[list[tuple[str, str]]]) -> None:
    requests = [request(*turns) for turns in conversations]
    current = [requests[i] for i in in_force(requests)]
    assert current
    prompt = mine(current)
    assert all(prompt.read(each) is not Reason.PROMPT_CHANGED for each in current)


# ---------------------------------------------------------------------------------------------- which slot is read


def answered(requests: Sequence[Request], values: Sequence[Value]) -> Answers:
    assert len(requests) == len(values)
    return lambda: dict(enumerate(values))


def never() -> dict[int, Value]:
    raise AssertionError("there is nothing to decide by answers")


def few_shots(n: int, last: str = "{}", label: Sequence[str] = ("billing", "tech")) -> list[Request]:
    dice = random.Random(4)
    texts = iter(said(4 * n, seed=3))
    found = []
    for _ in range(n):
        shots = [turn for _ in range(3) for turn in (("user", next(texts)), ("assistant", dice.choice(label)))]
        found.append(request(("system", RULES), *shots, ("user", last.format(next(texts)))))
    return found


def test_examples_that_vary_are_not_read() -> None:
    requests = few_shots(60)
    prompt = mine(requests, answered(requests, ["billing", "tech"] * 30))
    assert prompt.view == "last_user"
    assert prompt.read(requests[0]) == requests[0].messages[-1].text
    assert prompt.read(*chats(RULES, ["no examples at all"])) == "no examples at all"


def test_examples_that_vary_before_a_template() -> None:
    requests = few_shots(60, "Mail: {}\nLabel:")
    prompt = mine(requests, answered(requests, ["billing", "tech"] * 30))
    assert prompt.read(requests[0]) == requests[0].messages[-1].text[len("Mail: ") : -len("\nLabel:")]
    assert isinstance(prompt.read(*chats(RULES, ["x"])), Reason)


def shots_of_any_number(inline: bool, label: Sequence[str] = ("billing", "tech")) -> list[Request]:
    dice = random.Random(6)
    texts = iter(said(300, seed=8))
    found = []
    for _ in range(60):
        shots = [(next(texts), dice.choice(label)) for _ in range(dice.randrange(1, 5))]
        if inline:
            listed = "".join(f"Mail: {text}\nQueue: {name}\n\n" for text, name in shots)
            found += chats(None, [f"Sort the mail into one of our queues.\n\n{listed}Mail: {next(texts)}\nQueue:"])
        else:
            turns = [turn for text, name in shots for turn in (("user", text), ("assistant", name))]
            found.append(request(("system", RULES), *turns, ("user", next(texts))))
    return found


def test_any_number_of_examples_as_turns_is_not_read() -> None:
    requests = shots_of_any_number(inline=False)
    prompt = mine(requests, answered(requests, ["billing", "tech"] * 30))
    assert [prompt.read(each) for each in requests] == [each.messages[-1].text for each in requests]
    asked = shots_of_any_number(inline=False, label=("Which order?", "When was that?"))
    assert mine(asked, answered(asked, ["billing", "tech"] * 30)).view == "turns", "that is a conversation"


def test_any_number_of_examples_in_the_users_text_is_not_read() -> None:
    requests = shots_of_any_number(inline=True)
    prompt = mine(requests, answered(requests, ["billing", "tech"] * 30))
    bare = [each.messages[0].text.rpartition("Mail: ")[2].removesuffix("\nQueue:") for each in requests]
    assert [str(prompt.read(each)).strip() for each in requests] == bare
    assert "Mail:" in prompt.told()


def test_of_a_chat_in_the_users_text_all_is_read() -> None:
    texts = [
        f"Is the customer angry? Say yes or no.\n\nCustomer: {a}\nAgent: {b}\nCustomer: {c}\nAngry:"
        for a, b, c in zip(said(60), said(60, seed=1), said(60, seed=2), strict=True)
    ]
    requests = chats(None, texts)
    prompt = mine(requests, answered(requests, ["yes", "no"] * 30))
    assert all(word in str(prompt.read(requests[0])) for word in said(60)[0].split())


def test_examples_in_json_look_like_answers_by_their_fields() -> None:
    requests = few_shots(60, label=['{"label": "a", "sure": 1}', '{"sure": 0, "label": "b"}'])
    prompt = mine(requests, answered(requests, [{"label": "c", "sure": i} for i in range(60)]))
    assert prompt.view == "last_user"


def test_what_an_assistant_asked_is_no_example() -> None:
    requests = few_shots(60, label=["Which order?", "When was that?"])
    prompt = mine(requests, answered(requests, ["billing", "tech"] * 30))
    assert prompt.view == "slots"
    text = prompt.read(requests[0])
    assert isinstance(text, str)
    assert requests[0].messages[1].text in text
    few = mine(few_shots(60), answered(requests[:10], ["billing"] * 10))
    assert few.view == "slots", "so few answers show nothing"


def test_a_slot_that_says_nothing_of_the_answer_is_not_read() -> None:
    dice = random.Random(2)
    requests, values = [], []
    for noise in said(400, seed=5):
        label = dice.choice(["a", "b", "c"])
        words = {"a": "refund invoice", "b": "crash error", "c": "parcel late"}[label]
        requests += chats(RULES, [f"Like these: {noise}\nThe mail itself: {words} {dice.random()}\nLabel:"])
        values.append(label)
    prompt = mine(requests, answered(requests, values))
    assert prompt.asked == (1,)
    assert prompt.told() == "what varies in user message 2 (slot 2 of 2)"
    assert prompt.read(*chats(RULES, ["Like these: x\nThe mail itself: y\nLabel:"])) == "y"


def test_slots_that_say_something_each_are_all_read() -> None:
    dice = random.Random(2)
    requests, values = [], []
    for _ in range(400):
        kind, tone = dice.choice(["refund", "crash"]), dice.choice(["please", "now"])
        requests += chats(RULES, [f"The title is: {kind} {dice.random()}\nThe body is: {tone} {dice.random()}\nLabel:"])
        values.append(f"{kind} {tone}")
    assert mine(requests, answered(requests, values)).asked == ()


def test_answers_are_not_asked_for_where_they_decide_nothing() -> None:
    fixed = [("user", "card lost"), ("assistant", "billing")]
    for requests in (
        chats(RULES, said(50)),
        chats(RULES, [f"Mail: {text}\nLabel:" for text in said(50)]),
        [request(("system", RULES), *fixed, ("user", text)) for text in said(50)],
    ):
        mine(requests, never)


def test_several_prompts_of_one_task() -> None:
    old, new = (
        mine(chats(RULES, said(50))),
        mine(chats("Which label?", [f"Mail: {t}\nLabel:" for t in said(50)], tools="[1]")),
    )
    both = msgspec.structs.replace(new, also=(old,))
    assert both.read(*chats("Which label?", ["Mail: x\nLabel:"], tools="[1]")) == "x"
    assert both.read(*chats(RULES, ["x"])) == "x"
    assert both.read(*chats("Which label?", ["Mail: x\nLabel:"])) is Reason.UNSUPPORTED
    assert both.told().endswith("(of 2 prompts, each its own way)")
    assert both.digest() != new.digest()
    assert msgspec.json.decode(msgspec.json.encode(both), type=Prompt) == both
