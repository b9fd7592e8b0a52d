from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence

import pytest

from suffice.core.match import ANY, Matcher, tools_of
from suffice.core.types import Message, Request
from suffice.learn.mining import Mined, mine, mine_members, template

NAMES = ("Anna", "Max", "Sofia", "Nova", "Leo", "Clara", "Otto", "Mira", "Kai", "Ben", "Ida", "Theo")
FIRMS = ("ACME GmbH", "Northwind Traders", "Hooli", "Blue Harbor Bank", "Zephyr AG", "Globex", "Initech")
WORDS = (
    "river", "stone", "paper", "cloud", "window", "garden", "silver",
    "yellow", "quiet", "morning", "train", "letter", "market", "winter", "copper",
    "engine", "bottle", "island", "pepper", "saddle", "ticket", "violin", "walnut",
    "button", "candle", "desert", "falcon", "ginger", "hammer", "jungle", "kettle", "ladder",
)  # fmt: skip
VERBS = ("Classify", "Extract", "Summarise", "Translate", "Rank", "Detect", "Rewrite", "Count")


def chat(*turns: tuple[str, str], tools: str = "", response_format: str = "") -> Request:
    messages = tuple(Message(role, text) for role, text in turns)
    return Request(model="m", messages=messages, tools=tools, response_format=response_format)


def said(rng: random.Random, low: int = 3, high: int = 14) -> str:
    return " ".join(rng.choice(WORDS) for _ in range(rng.randint(low, high))).capitalize() + rng.choice((".", "?", ""))


def checked(requests: Sequence[Request], least: int = 10) -> list[Mined]:
    """What is mined; every member meets its rule, and a matcher of all rules gives it that rule."""
    found = mine_members(requests, least=least)
    matcher = Matcher((i, one.rule) for i, one in enumerate(found))
    members = {}
    for number, one in enumerate(found):
        assert len(one.members) >= least
        assert list(one.members) == sorted(set(one.members))
        for i in one.members:
            assert i not in members
            members[i] = number
            assert one.rule.meets(requests[i])
            assert one.rule.response_format == requests[i].response_format
            assert one.rule.tools in (tools_of(requests[i]), ANY if requests[i].tools else "")
    for i, request in enumerate(requests):
        match = matcher.match(request)
        assert (match[0] if match else None) == members.get(i)
    return found


def groups(found: list[Mined], truth: Sequence[object]) -> list[dict[object, int]]:
    """What each rule covers, by the truth."""
    return [dict(Counter(truth[i] for i in one.members)) for one in found]


def mixed(styles: dict[str, Callable[[random.Random], Request]], each: int, seed: int = 1) -> None:
    """Requests of all the styles, shuffled: each style must be one rule with all of its requests."""
    rng = random.Random(seed)
    rows = [(name, style(rng)) for name, style in styles.items() for _ in range(each)]
    rng.shuffle(rows)
    found = groups(checked([request for _, request in rows]), [name for name, _ in rows])
    assert sorted(found, key=str) == sorted(({name: each} for name in styles), key=str)


def test_instructions_with_slots_of_names_dates_and_locales_are_one_rule() -> None:
    def style(ask: str) -> Callable[[random.Random], Request]:
        def made(rng: random.Random) -> Request:
            day = f"{rng.randint(1, 28)} {rng.choice(('March', 'April', 'July'))} 2026"
            text = (
                f"You are {rng.choice(NAMES)}, the assistant of {rng.choice(FIRMS)}. Today is {day}. {ask} "
                f"The locale is {rng.choice(('en-US', 'de-DE', 'fr-FR'))}. Answer with one word only."
            )
            return chat(("system", text), ("user", said(rng)))

        return made

    mixed(
        {
            "intent": style("Classify the intent of the message."),
            "slots": style("Extract the slots of the message."),
            "mood": style("Say how the writer of the message feels about us."),
        },
        60,
    )


def test_a_slot_with_few_values_is_a_slot_even_where_each_recurs() -> None:
    def made(rng: random.Random) -> Request:
        return chat(("system", f"You answer for {rng.choice(FIRMS[:3])}. Name the intent of it."), ("user", said(rng)))

    mixed({"one": made}, 120)


def test_many_values_of_one_word_are_a_slot() -> None:
    def made(rng: random.Random) -> Request:
        return chat(
            ("system", f"You are helping user {rng.choice(WORDS[:12])} with the shop. Be brief."), ("user", "x")
        )

    mixed({"one": made}, 240)


def test_a_paragraph_that_comes_and_goes() -> None:
    def style(ask: str) -> Callable[[random.Random], Request]:
        def made(rng: random.Random) -> Request:
            parts = [ask, "The customer is a premium customer: be kind.", "Use plain words, please.", "Answer shortly."]
            kept = [part for part, share in zip(parts, (1, 0.4, 0.5, 1), strict=True) if rng.random() < share]
            return chat(("system", "\n\n".join(kept)), ("user", said(rng)))

        return made

    mixed({ask: style(ask) for ask in ("Classify the intent of the message.", "Sum up what is wanted of us.")}, 150)


def test_the_task_in_the_midst_of_a_long_manual() -> None:
    manual = " ".join(said(random.Random(i)) for i in range(120))

    def style(ask: str) -> Callable[[random.Random], Request]:
        return lambda rng: chat(
            ("system", f"Manual of {rng.choice(FIRMS)}. {manual} {ask} {manual} Shift of {rng.choice(NAMES)}."),
            ("user", said(rng)),
        )

    mixed({ask: style(ask) for ask in ("Classify the intent of it.", "Extract all the places named.")}, 60)


def test_rare_works_are_not_one_for_what_surrounds_them() -> None:
    asks = [f"{VERBS[i]} {' '.join(WORDS[4 * i : 4 * i + 4])} as told in the handbook." for i in range(6)]
    frame = "You are {}, who works with care for our company and its customers. {} Answer in JSON, never explain."
    rng = random.Random(13)
    requests = [
        chat(("system", frame.format(rng.choice(NAMES), asks[i % 6])), ("user", said(rng))) for i in range(6 * 7)
    ]
    assert checked(requests) == []


def test_what_is_asked_differs_in_one_word() -> None:
    def style(word: str) -> Callable[[random.Random], Request]:
        return lambda rng: chat(("system", f"Name the {word} of the text in one word."), ("user", said(rng)))

    mixed({word: style(word) for word in ("language", "sentiment", "topic")}, 40)


def test_prompts_inline_in_the_user_turn() -> None:
    helpful = ("system", "You are a helpful assistant.")
    mixed(
        {
            "before": lambda rng: chat(
                ("user", f"Classify the intent of the message.\n\nMessage: {said(rng)}\nIntent:")
            ),
            "after": lambda rng: chat(
                ("user", f"{said(rng)}\n\n---\nExtract all the places that the text above names.")
            ),
            "tags": lambda rng: chat(
                helpful, ("user", f"<task>\nName the mood.\n</task>\n<text>\n{said(rng)}\n</text>")
            ),
            "short": lambda rng: chat(("user", f"{said(rng)}\nTopic:")),
            "chat": lambda rng: chat(helpful, ("user", said(rng))),
            "bare": lambda rng: chat(("user", said(rng))),
        },
        50,
    )


def test_prompts_in_the_user_turn_under_instructions_of_any_kind() -> None:
    rng = random.Random(12)
    requests = [
        chat(("system", said(rng)), ("user", f"Name the mood of this text.\n\nText: {said(rng)}\nMood:"))
        for _ in range(40)
    ]
    requests += [chat(("system", said(rng)), ("user", said(rng))) for _ in range(40)]
    found = checked(requests)
    assert [(one.rule.bare, one.members) for one in found] == [(False, tuple(range(40)))]


def test_few_shot_examples_vary_in_number_and_place() -> None:
    pool = [said(random.Random(i)) for i in range(9)]

    def shots(rng: random.Random) -> str:
        return "\n\n".join(f"Text: {shot}\nLabel: {rng.choice(WORDS)}" for shot in rng.sample(pool, rng.randint(1, 4)))

    def turns(rng: random.Random) -> Request:
        shown = [
            turn for _ in range(rng.randint(0, 3)) for turn in (("user", rng.choice(pool)), ("assistant", "quiet"))
        ]
        return chat(("system", "Label what the user writes as in the examples."), *shown, ("user", said(rng)))

    mixed(
        {
            "system": lambda rng: chat(
                ("system", f"Give each text one of our labels. Some examples:\n\n{shots(rng)}"), ("user", said(rng))
            ),
            "user": lambda rng: chat(
                ("user", f"Put the text into a category of ours.\n\n{shots(rng)}\n\nText: {said(rng)}\nLabel:")
            ),
            "turns": turns,
        },
        80,
    )


def test_retrieved_passages_do_not_split_a_prompt() -> None:
    rng = random.Random(4)
    pool = [" ".join(said(rng, 12, 12) for _ in range(6)) for _ in range(12)]

    def made(rng: random.Random) -> Request:
        passages = "\n\n".join(rng.sample(pool, rng.randint(1, 3)))
        ask = "Answer the question from the passages below, and say so if they do not hold the answer."
        return chat(("user", f"{ask}\n\nPassages:\n{passages}\n\nQuestion: {said(rng)}"))

    mixed({"one": made}, 150)


def test_mails_off_a_form_are_no_prompts_under_instructions_that_list_the_answers() -> None:
    rng = random.Random(3)
    forms = {
        "billing": "Subject: charged twice\nWe were charged twice on the invoice with number {}, please look at it.",
        "technical": "Subject: interface down\nThe interface returns error {} since the last update of the week.",
        "sales": "Subject: quote wanted\nPlease send us a quote for {} licences of the larger edition as a file.",
    }
    route = "Route the e-mail to its department: billing, technical or sales. Say the name of the department only."
    labels = [rng.choice(list(forms)) for _ in range(150)]
    mails = [chat(("system", route), ("user", forms[label].format(rng.randint(10, 9999)))) for label in labels]
    assert len(mine(mails)) > 1, "by the requests alone they may be prompts"
    (rule,) = mine(mails, labels)
    assert rule.turn is None
    route += " As JSON: label and confidence."
    mails = [chat(("system", route), ("user", mail.messages[-1].text)) for mail in mails]
    (rule,) = mine(mails, [{"label": label, "confidence": 0.9} for label in labels])
    assert rule.turn is None
    obeying = "Do as the user asks for the team of the shop, with yes or no, and with nothing else besides."
    asked = [
        chat(("system", obeying), ("user", f"Is this mail {what}, in your opinion? Here it is: {said(rng)}"))
        for what in ("an advertisement of somebody", "in need of an urgent reply") * 40
    ]
    assert len(mine(asked, ["yes", "no"] * 40)) == len(mine(asked)), "yes and no are listed for any question"


def test_what_people_write_is_no_prompt() -> None:
    rng = random.Random(5)
    openings = (
        "How do I ",
        "I want to ",
        "Can you tell me how to ",
        "What is the ",
        "I would like to book a table for ",
    )
    requests = [chat(("user", rng.choice(openings) + said(rng).lower())) for _ in range(600)]
    found = checked(requests)
    assert [(one.rule.bare, len(one.members)) for one in found] == [(True, 600)]


def test_tools_are_the_same_or_each_its_own() -> None:
    rng = random.Random(6)
    one, two = '["one"]', '["two"]'
    requests = [chat(("system", "Act."), ("user", said(rng)), tools=rng.choice((one, two))) for _ in range(60)]
    requests += [chat(("user", said(rng)), tools=f'["{i}"]') for i in range(30)]
    requests += [chat(("user", said(rng))) for _ in range(20)]
    requests += [chat(("user", said(rng)), response_format='{"type":"json_object"}') for _ in range(20)]
    found = checked(requests)
    tools = Counter({one.rule.tools: len(one.members) for one in found if one.rule.head})
    assert tools == Counter(tools_of(request) for request in requests[:60])
    assert sorted((one.rule.tools, one.rule.response_format, len(one.members)) for one in found if one.rule.bare) == [
        ("", "", 20),
        ("", '{"type":"json_object"}', 20),
        (ANY, "", 30),
    ]


def test_tool_loops_and_long_conversations_are_told_by_how_they_begin() -> None:
    def loop(rng: random.Random) -> Request:
        turns = [("system", "You book trains."), ("user", said(rng))]
        for _ in range(rng.randint(0, 30)):
            turns += [("assistant", ""), ("tool", said(rng)), ("assistant", said(rng)), ("user", said(rng))]
        return chat(*turns, tools='["book"]')

    mixed({"loop": loop}, 40)


def test_hundreds_of_tasks_of_twenty_requests() -> None:
    rng = random.Random(7)
    asks = [f"{rng.choice(VERBS)} the {' '.join(rng.sample(WORDS, 4))} in what the user writes." for _ in range(300)]
    rows = [(i, ask) for i, ask in enumerate(asks) for _ in range(20)]
    rng.shuffle(rows)
    rules = "You are a careful assistant of our company. {} Answer in JSON. Never explain yourself."
    requests = [
        chat(("system", rules.format(ask)), ("user", said(rng)))
        if i % 2
        else chat(("user", f"{ask}\n\nText: {said(rng)}\nAnswer:"))
        for i, ask in rows
    ]
    found = checked(requests)
    pure = [len({rows[i][0] for i in one.members}) == 1 for one in found]
    assert sum(pure) >= 297
    assert sum(len(one.members) for one, good in zip(found, pure, strict=True) if good) >= 5_900


def test_scripts_without_spaces() -> None:
    signs = "春夏秋冬山川東西南北花鳥風月雪雨雲空海島町村道駅店人車船"

    def text(rng: random.Random) -> str:
        return "".join(rng.choice(signs) for _ in range(rng.randint(5, 20)))

    mixed(
        {
            "intent": lambda rng: chat(
                ("system", f"あなたは{rng.choice(NAMES)}です。次の文の意図を一語で答えてください。"),
                ("user", text(rng)),
            ),
            "place": lambda rng: chat(
                ("user", f"次の文から地名をすべて抜き出してください。\n\n文：{text(rng)}\n答え：")
            ),
            "german": lambda rng: chat(
                ("user", f"Übersetze den folgenden Satz ins Französische.\n\nSatz: {said(rng)}")
            ),
        },
        40,
    )


def test_odd_pools() -> None:
    rng = random.Random(9)
    assert mine([]) == []
    assert mine([chat(("user", "x"))] * 9) == []
    same = checked([chat(("system", "Go."), ("user", "x"))] * 10)
    assert [(len(one.members), one.rule.exact) for one in same] == [(10, True)]
    empty = checked([chat()] * 12 + [chat(("system", "")), chat(("user", ""))] * 12)
    assert [(one.rule.bare, len(one.members)) for one in empty] == [(True, 24), (True, 12)]
    noise = ["".join(chr(rng.choice((rng.randrange(1, 300), 0xD800, 0x4E00))) for _ in range(300)) for _ in range(60)]
    checked([chat(("system", text), ("user", text[::-1])) for text in noise] + [chat(("user", text)) for text in noise])
    with pytest.raises(ValueError, match="2 or more"):
        mine([], least=1)


def test_very_long_prompts() -> None:
    rng = random.Random(10)
    book = " ".join(said(rng) for _ in range(2_300))
    requests = [
        chat(("system", "Answer from the book.\n\n" + book[: rng.randint(90_000, 100_000)]), ("user", said(rng)))
        for _ in range(12)
    ]
    requests += [
        chat(("user", f"Sum up this report in a line:\n\n{book[i * 999 : i * 1999]}\n\nSummary:")) for i in range(20)
    ]
    found = checked(requests)
    assert [len(one.members) for one in found] == [20, 12]


def test_the_same_requests_give_the_same_rules() -> None:
    rng = random.Random(11)
    requests = [
        chat(("system", f"You are {rng.choice(NAMES)}. Name the mood of the message."), ("user", said(rng)))
        for _ in range(80)
    ]
    assert mine(requests) == mine(requests)
    assert len(mine(requests[::-1])) == len(mine(requests)) == 1


def test_a_template_keeps_what_all_have() -> None:
    texts = [
        f"Dear {name}, your order {i} from {firm} is ready."
        for i, (name, firm) in enumerate(zip(NAMES, FIRMS * 2, strict=False))
    ]
    assert template(texts).literals == ("Dear ", ", your order", "from", " is ready.") or template(texts).match(
        texts[0]
    )
    assert all(template(texts).match(text) is not None for text in texts)
    assert template(["same"] * 3).literals == ("same",)
