"""The fixed part of a prompt: what matches, what is another prompt, what the specialist reads."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from suffice.core.prompt import Prompt, Template
from suffice.core.types import Message, Reason, Request

SYSTEM = "Today is 2026-03-14. Answer with one of: a, b."


def request(*turns: tuple[str, str], tools: str = "", response_format: str = "", unsupported: str = "") -> Request:
    messages = tuple(Message(role, text) for role, text in turns)
    return Request(model="m", messages=messages, tools=tools, response_format=response_format, unsupported=unsupported)


PINNED = Prompt.pinned(request(("system", SYSTEM), ("user", "first")))


def test_a_template_gives_what_stands_in_its_slots() -> None:
    assert Template(("a",)).match("a") == ()
    assert Template(("a",)).match("ab") is None
    assert Template(("", "")).match("any") == ("any",)
    assert Template(("Text: ", "\nLabel:")).match("Text: x\nLabel:") == ("x",)
    assert Template(("Text: ", "\nLabel:")).match("Text: \nLabel:\nLabel:") == ("\nLabel:",)
    assert Template(("ab", "ba")).match("aba") is None  # the edges may not overlap
    assert Template(("A: ", "\nB: ", "")).match("A: x\nB: y\nB: z") == ("x", "y\nB: z")
    assert Template(("A: ", "\nB: ", "")).match("A: x") is None


@given(st.lists(st.text(alphabet="ab ", max_size=4), min_size=1, max_size=4), st.text(alphabet="abc ", max_size=6))
def test_a_text_made_from_a_template_matches_it(literals: list[str], filler: str) -> None:
    template = Template(tuple(literals))
    found = template.match(filler.join(literals))
    assert found is not None
    assert len(found) == template.slots
    rebuilt = literals[0] + "".join(slot + literal for slot, literal in zip(found, literals[1:], strict=True))
    assert rebuilt == filler.join(literals)


def test_a_pinned_prompt_reads_the_last_user_message() -> None:
    assert PINNED.read(request(("system", SYSTEM), ("user", "second"))) == "second"
    assert PINNED.read(request(("system", SYSTEM), ("user", "x"), ("assistant", "y"), ("user", "z"))) == "z"


@pytest.mark.parametrize(
    ("first", "later"),
    [
        ("2026-03-14", "2027-11-02"),
        ("2026-03-14T09:41:00Z", "2026-03-15T23:59:59+02:00"),
        ("14.03.2026", "1.4.2026"),
        ("3/14/2026", "12/1/26"),
        ("14 March 2026", "1 April 2027"),
        ("March 14, 2026", "December 1, 2026"),
        ("Saturday, March 14th", "Sunday, March 15th"),
        ("9:41 AM", "11:05 pm"),
        ("March 2026", "April 2026"),
        ("2026/03/14", "2026/04/01"),
        pytest.param(
            "Sat Mar 14 2026",
            "Sun Mar 15 2026",
        ),
        pytest.param("20260314", "20260401"),
    ],
)
def test_a_date_is_a_slot_even_if_it_was_seen_once(first: str, later: str) -> None:
    prompt = Prompt.pinned(request(("system", f"Today is {first}. Classify."), ("user", "x")))
    assert prompt.read(request(("system", f"Today is {later}. Classify."), ("user", "x"))) == "x"


@pytest.mark.parametrize(
    "system",
    [
        "Today is 2026-03-15. Answer with one of: a, b, c.",
        "Today is 2026-03-15. Answer with one of: a.",
        "",
        SYSTEM + " ",
    ],
)
def test_other_instructions_are_another_prompt(system: str) -> None:
    assert PINNED.read(request(("system", system), ("user", "x"))) is Reason.PROMPT_CHANGED


def test_instructions_that_appear_or_vanish_or_change_their_role_are_another_prompt() -> None:
    bare = Prompt.pinned(request(("user", "x")))
    assert PINNED.read(request(("user", "x"))) is Reason.PROMPT_CHANGED
    assert bare.read(request(("system", "S"), ("user", "x"))) is Reason.PROMPT_CHANGED
    assert PINNED.read(request(("developer", SYSTEM), ("user", "x"))) == "x"  # another word for the same role
    assert PINNED.read(request(("user", SYSTEM), ("user", "x"))) is Reason.PROMPT_CHANGED
    assert PINNED.read(request(("system", SYSTEM), ("system", "more"), ("user", "x"))) is Reason.PROMPT_CHANGED


@pytest.mark.parametrize(("old", "new"), [("Decide 1 of these", "Decide 3 of these"), ("Mark 3 stars", "Mark 5 stars")])
def test_a_rule_with_a_number_is_no_date(old: str, new: str) -> None:
    prompt = Prompt.pinned(request(("system", old), ("user", "x")))
    assert prompt.read(request(("system", new), ("user", "x"))) is Reason.PROMPT_CHANGED


def test_what_a_specialist_cannot_read_is_unsupported() -> None:
    pictured = Request(model="m", messages=(Message("system", SYSTEM), Message("user", "x", plain=False)))
    for asked in (
        request(("system", SYSTEM), ("user", "x"), tools="[]"),
        request(("system", SYSTEM), ("user", "x"), response_format="{}"),
        request(("system", SYSTEM), ("user", "x"), unsupported="n"),
        request(("system", SYSTEM), ("user", "x"), ("assistant", "y")),
        request(("system", SYSTEM)),
        pictured,
    ):
        assert PINNED.read(asked) is Reason.UNSUPPORTED


def test_a_prompt_survives_being_stored() -> None:
    stored = msgspec.json.decode(msgspec.json.encode(PINNED), type=Prompt)
    assert stored == PINNED
    assert stored.digest() == PINNED.digest()
    assert PINNED.told() == "the last user message"
