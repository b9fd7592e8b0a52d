"""Which prompts are the same work, on generated sides: one contract, inputs alike, answers that follow alike."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from suffice.core.values import Value, plain
from suffice.learn.contracts import infer
from suffice.learn.joining import Side, join, same
from suffice.learn.meaning import Asked

MAIL = "please urgent now free prize meeting lunch report winner invoice holiday call click team loan coffee"
WORDS = MAIL.split()
WRITERS = "Anna Max Sofia Leo Clara Otto Mira Kai Ben Ida Theo Nora Paul Rosa Emil Vera Hugo Lena Finn Ada"
NAMES = WRITERS.split()
SPAM = {"free", "prize", "winner", "click", "loan"}
URGENT = {"urgent", "now", "call", "report", "prize"}


def message(rng: random.Random) -> str:
    return f"{rng.choice(NAMES)} said: {' '.join(rng.sample(WORDS, 5))} for {rng.choice(NAMES)}"


def ticket(rng: random.Random) -> str:
    place = rng.choice(["kitchen", "roof", "cellar", "garage", "hall"])
    part = rng.choice(["door", "window", "boiler", "pipe"])
    return f"Repair needed: the {part} in the {place} leaks, unit {rng.randint(1, 90)}"


def spam(text: str) -> str:
    return "yes" if SPAM & set(text.split()) else "no"


def urgent(text: str) -> str:
    return "yes" if len(URGENT & set(text.split())) > 1 else "no"


def side(
    answer: Callable[[str], Value],
    fixed: str,
    seed: int,
    rows: int = 200,
    inputs: Callable[[random.Random], str] = message,
    around: str = "{}",
) -> Side:
    """Rows of one prompt; `around` is what its reading leaves around the input."""
    rng = random.Random(seed)
    texts = [inputs(rng) for _ in range(rows)]
    asked = [Asked(around.format(text), plain(answer(text))) for text in texts]
    return Side(asked, infer([row.text for row in asked], [row.value for row in asked]), fixed)


def test_wordings_of_one_prompt_are_one_work() -> None:
    a = side(spam, "Is this message spam? Answer yes or no.", 1)
    b = side(spam, "You filter mail. Reply yes to junk, no otherwise.", 2)
    assert same(a, b).same, same(a, b).why
    assert same(b, a) == same(a, b)


def test_two_questions_about_the_same_messages_are_not() -> None:
    a = side(spam, "Is this message spam? Answer yes or no.", 1)
    b = side(urgent, "Is this message urgent? Answer yes or no.", 2)
    found = same(a, b)
    assert not found.same
    assert "answers" in found.why


@pytest.mark.parametrize("around", ["Message: {}", "case 7\nMax\n{}", "Input: lunch with Max\nOutput: no\n\nInput: {}"])
def test_leftovers_of_a_prompt_do_not_part_it(around: str) -> None:
    a = side(spam, "Is this message spam? Answer yes or no.", 1)
    b = side(spam, "Tell junk from mail.", 2, around=around)
    assert same(a, b).same, same(a, b).why


def test_contracts_are_never_mixed() -> None:
    a = side(spam, "Spam?", 1)
    b = side(lambda text: {"spam": spam(text)}, "Spam? JSON.", 2)
    c = side(lambda text: {"urgent": spam(text)}, "Urgent? JSON.", 3)
    d = side(lambda text: "spam" if spam(text) == "yes" else "ham", "Spam?", 4)
    assert not any(same(one, other).same for one, other in ((a, b), (b, c), (a, d), (a, c)))


def test_other_inputs_are_another_work() -> None:
    a = side(spam, "Answer yes or no.", 1)
    b = side(lambda text: "yes" if "boiler" in text else "no", "Answer yes or no.", 2, inputs=ticket)
    assert not same(a, b).same


def test_free_text_is_one_work_only_if_answers_and_prompts_agree() -> None:
    def short(text: str) -> str:
        return f"In short, {text.split()[0]} wrote about {text.split()[3]} and little else, it seems."

    def letter(text: str) -> str:
        return f"Dear {text.split()[0]},\nthank you for your lines. We shall look into {text.split()[2]} soon.\nYours"

    a = side(short, "Summarise the message in one sentence.", 1)
    b = side(short, "Give a summary of this message, one sentence.", 2)
    c = side(letter, "Write a polite letter in reply.", 3)
    d = side(short, "Übersetze den Text ins Deutsche.", 4)
    assert same(a, b).same, same(a, b).why
    assert not same(a, c).same
    assert not same(a, d).same


def test_too_few_rows_need_nearly_the_same_prompt() -> None:
    a = side(spam, "Is this message spam? Answer yes or no.", 1)
    few = side(spam, "You filter mail. Reply yes to junk, no otherwise.", 2, rows=10)
    found = same(a, few)
    assert not found.same
    assert "few" in found.why.casefold()
    assert same(a, side(spam, "Is this message spam? Answer with yes or no.", 2, rows=10)).same


@pytest.mark.parametrize("rows", [12, 20, 40])
@pytest.mark.parametrize("seed", [2, 3, 4, 5, 6, 7])
def test_few_rows_of_another_question_are_another_work(rows: int, seed: int) -> None:
    a = side(spam, "Is this message spam? Answer yes or no.", 1)
    b = side(urgent, "Is this message urgent? Answer yes or no.", seed, rows=rows)
    assert not same(a, b).same


def test_any_tools_are_one_kind() -> None:
    rng = random.Random(7)

    def calling(seed: int) -> Side:
        plain_side = side(spam, f"Call a function {seed}.", seed)
        asked = [
            Asked(row.text, {"tool_calls": [{"name": f"f{rng.random()}", "arguments": {}}]}, True, f"t{rng.random()}")
            for row in plain_side.asked
        ]
        return Side(asked, infer([row.text for row in asked], [row.value for row in asked]), plain_side.fixed)

    assert same(calling(1), calling(2)).same


def test_one_toolset_under_two_prompts_is_one_work() -> None:
    def calling(text: str) -> Value:
        return {"tool_calls": [{"name": "junk" if spam(text) == "yes" else "keep", "arguments": {"on": False}}]}

    one, other = side(calling, "You sort the mail. Use the tools.", 1), side(calling, "Call one tool for each mail.", 2)
    assert same(one, other).same, same(one, other).why


def test_join_groups_sides() -> None:
    sides = [
        side(spam, "Is this message spam? Answer yes or no.", 1),
        side(urgent, "Is this message urgent? Answer yes or no.", 2),
        side(spam, "Tell junk from mail: yes or no.", 3, around="Message: {}"),
        side(lambda text: {"name": text.split()[0]}, "Extract the name.", 4),
        side(urgent, "Does it need an answer at once?", 5),
        side(lambda text: {"name": text.split()[0]}, "Who wrote this? JSON.", 6),
        side(spam, "Junk filter.", 7),
    ]
    groups = join(sides)
    assert sorted(map(sorted, groups)) == [[0, 2, 6], [1, 4], [3, 5]]
    assert join([]) == []
