"""What traffic of one prompt divides into, on generated works: form first, then inputs; chat belongs nowhere."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest

from suffice.core.values import Value, plain
from suffice.learn.meaning import NOWHERE, Asked, Division, divide, fit, identifier, label_of, regular, style

GOODS = "lamp kettle tent watch camera phone sofa printer jacket drill blender mattress"
THINGS = GOODS.split()
SUBJECTS = "volcanoes,tax law,jazz,beehives,opera,chess,castles,sleep,compost,tides,yoga,vaccines,rust,maps"
TOPICS = SUBJECTS.split(",")
GOOD = ["works like a charm", "i love it", "superb quality", "would buy it again", "my kids adore it"]
BAD = ["broke after two days", "a waste of money", "smells odd and feels cheap", "i want my money back"]


def review(rng: random.Random) -> tuple[str, Value]:
    good = rng.random() < 0.5
    told = rng.choice(GOOD if good else BAD)
    text = (
        f"Bought this {rng.choice(THINGS)} in {rng.choice(['May', 'winter', 'a sale'])}, {told}! {rng.choice(THINGS)}"
    )
    return text, "positive" if good else "negative"


def ticket(rng: random.Random) -> tuple[str, Value]:
    trouble = {"high": "is down for everybody", "medium": "fails now and then", "low": "has a typo in its footer"}
    level = rng.choice(sorted(trouble))
    name = rng.choice(["VPN", "mail server", "payroll portal", "wiki", "build pipeline", "data warehouse"])
    hour = rng.randint(7, 18)
    return (
        f"Subject: {name} {trouble[level]}\n\nHello team,\nsince {hour}:15 the {name} {trouble[level]}.\nRegards",
        level,
    )


def booking(rng: random.Random) -> tuple[str, Value]:
    people, hour, name = rng.randint(2, 9), rng.randint(5, 9), rng.choice(["Weber", "Nair", "Kim", "Lopez"])
    said: dict[str, Value] = {"people": str(people)}
    text = f"a table for {people} please"
    if rng.random() < 0.5:
        said["time"], text = f"{hour} pm", f"{text} at {hour} pm"
    if rng.random() < 0.5:
        said["name"], text = name, f"{text}, name is {name}"
    return text, f"```json\n{said}\n```".replace("'", '"')


def query(rng: random.Random) -> tuple[str, Value]:
    table, column = rng.choice(["orders", "flights", "sensors"]), rng.choice(["price", "status", "weight"])
    number = rng.randint(1, 999)
    return (
        f"How many {table} have a {column} above {number}?",
        f"SELECT COUNT(*) FROM {table} WHERE {column} > {number};",
    )


def chat(rng: random.Random) -> tuple[str, Value]:
    one, other = rng.sample(TOPICS, 2)
    ask = rng.choice(
        [
            "what should I read about {a}?", "Explain {a} to a child of ten.", "write me a limerick on {a}",
            "is there a link between {a} and {b}", "hey, plan a weekend around {a}", "tell me a joke about {a}",
            "Why do people care so much about {a}?", "can you compare {a} with {b}?", "help me write to my aunt on {a}",
        ]
    )  # fmt: skip
    words = [
        "It depends.",
        "There is a long history.",
        "Start small.",
        "I would not worry.",
        "Few know this.",
        "Ask {b}.",
    ]
    said = " ".join(rng.sample(words, rng.randint(1, 5))) + rng.choice(
        ["", " {a} is old.", " So much for {a} and {b}!"]
    )
    return ask.format(a=one, b=other), said.format(a=one, b=other)


Work = Callable[[random.Random], tuple[str, Value]]


def traffic(works: dict[Work, int], seed: int = 1) -> tuple[list[Asked], list[str]]:
    """Shuffled rows of these works, and the name of each row's work."""
    rng = random.Random(seed)
    rows = [(work.__name__, *work(rng)) for work, count in works.items() for _ in range(count)]
    rng.shuffle(rows)
    return [Asked(text, plain(value)) for _, text, value in rows], [name for name, _, _ in rows]


def pure(division: Division, names: list[str]) -> bool:
    """Whether no group mixes works."""
    return all(
        len({name for name, group in zip(names, division.groups, strict=True) if group == one}) == 1
        for one in range(len(division.found))
    )


def test_a_mixture_is_divided_by_form_and_by_meaning() -> None:
    sample, names = traffic({review: 120, ticket: 120, booking: 120, query: 80, chat: 120})
    division = divide(sample)
    assert not division.one
    found = Counter(zip(names, division.groups, strict=True))
    assert pure(division, names)
    assert len({group for name, group in found if group is not None}) == 4
    assert found["chat", None] >= 110
    assert sum(count for (name, group), count in found.items() if name != "chat" and group is not None) >= 420
    assert divide(sample) == division


@pytest.mark.parametrize("work", [review, ticket, booking, query])
@pytest.mark.parametrize("rows", [60, 300])
def test_one_work_is_not_divided(work: Work, rows: int) -> None:
    sample, _ = traffic({work: rows})
    division = divide(sample)
    assert division.one, division.why
    assert set(division.groups) == {0}
    assert len(division.found) == 1


def test_chatter_instead_of_labels_belongs_to_the_work() -> None:
    rng = random.Random(2)
    sample, _ = traffic({review: 300})
    refusals = ["I'm sorry, I cannot judge that from the text alone.", "Could you tell me more about what happened?"]
    said = [
        Asked(row.text, f"{rng.choice(refusals)} ({i})") if rng.random() < 0.1 else row for i, row in enumerate(sample)
    ]
    division = divide(said)
    assert division.one, division.why


def test_intents_well_apart_with_one_style_are_one_work() -> None:
    rng = random.Random(3)
    asks = {
        "PlayMusic": "play some {} by the band", "BookTable": "book a table for {} tonight",
        "GetWeather": "will it rain in {} tomorrow", "RateBook": "give the novel {} five stars",
        "FindFilm": "when is {} on at the cinema", "AddSong": "put {} on my running playlist",
    }  # fmt: skip
    sample = []
    for _ in range(300):
        label, ask = rng.choice(sorted(asks.items()))
        sample.append(Asked(ask.format(rng.choice(TOPICS + THINGS)), label))
    assert divide(sample).one


def test_disjoint_objects_are_two_works() -> None:
    rng = random.Random(4)
    sample = [
        Asked(f"note {rng.choice(THINGS)} {rng.random()}", {"urgent": "yes"} if i % 2 else {"topic": "garden"})
        for i in range(100)
    ]
    division = divide(sample)
    assert len(division.found) == 2
    assert set(division.groups[1::2]) != set(division.groups[::2])


def test_same_requests_with_other_forms_stay_apart_and_are_not_matched() -> None:
    sample, _ = traffic({review: 240})
    both = [
        row if i % 2 else Asked(row.text, {"stars": 5 if row.value == "positive" else 1})
        for i, row in enumerate(sample)
    ]
    division = divide(both)
    assert sorted(group.form for group in division.found) == ["labels", "object"]
    assert fit(both, division) is None


def test_calls_with_tools_of_their_own_are_one_work() -> None:
    rng = random.Random(5)
    sample = []
    for i in range(120):
        thing = rng.choice(THINGS)
        call: Value = {"tool_calls": [{"name": f"buy_{thing}", "arguments": {"n": i}}]}
        value = call if rng.random() < 0.9 else "None of the functions at hand can do that."
        sample.append(Asked(f"order {i} of the {thing}", value, True, f"tools {i}"))
    division = divide(sample)
    assert division.one
    assert division.found[0].form == "calls"


def test_rows_without_an_answer_go_where_their_requests_fit() -> None:
    sample, names = traffic({review: 120, ticket: 120})
    held = [Asked(row.text, None, False) if i % 10 == 0 else row for i, row in enumerate(sample)]
    division = divide(held)
    groups = {name: Counter(g for n, g in zip(names, division.groups, strict=True) if n == name) for name in set(names)}
    assert all(group.most_common(1)[0][1] >= 110 for group in groups.values())


def test_too_few_rows_and_varied_text() -> None:
    sample, _ = traffic({review: 10})
    assert divide(sample).groups == (None,) * 10
    assert divide([]).groups == ()
    sample, _ = traffic({chat: 200})
    division = divide(sample)
    assert not division.found
    assert not division.one
    assert fit(sample, division) is None


def test_the_matcher_knows_its_groups_and_keeps_strangers_out() -> None:
    works: dict[Work, int] = {review: 150, ticket: 150, booking: 150, chat: 150}
    sample, _ = traffic(works)
    division = divide(sample)
    matching = fit(sample, division)
    assert matching is not None
    matcher, least, told = matching
    assert told.precision.value is not None
    assert told.precision.value >= 0.98
    assert told.matched.value is not None
    assert told.matched.value > 0.6
    assert matching.labels == ("g0", "g1", "g2")
    fresh, names = traffic(works, seed=9)
    found = matcher.predict([row.text for row in fresh])
    given = [p.value if p.familiar and p.score >= least and p.value != NOWHERE else None for p in found]
    by_name = {name: Counter(g for g, n in zip(given, names, strict=True) if n == name) for name in set(names)}
    assert by_name["chat"][None] >= 145
    assert len({by_name[name].most_common(1)[0][0] for name in ("review", "ticket", "booking")}) == 3
    assert min(by_name[name].most_common(1)[0][1] for name in ("review", "ticket", "booking")) >= 120


def test_forms() -> None:
    labels = ("card_arrival", "PlayMusic", "OK", "Spam", "ham", "not sure", "12.5", "N/A")
    assert [style(label) for label in labels] == [
        "snake", "camel", "upper", "capital", "lower", "words", "number", "upper",
    ]  # fmt: skip
    assert label_of(" Positive. ") == "Positive"
    assert label_of(True) == "true"
    assert label_of("one two three four five six seven eight nine") is None
    assert label_of({"a": "b"}) is None
    assert identifier("card_arrival")
    assert not identifier("Yes")


def test_regular_text() -> None:
    rng = random.Random(6)
    for work, expected in ((query, True), (chat, False)):
        rows = [work(rng) for _ in range(100)]
        assert regular([text for text, _ in rows], [str(value) for _, value in rows]) is expected
