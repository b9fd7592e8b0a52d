"""Which tasks are ones for a small model, and what the others lack."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from suffice.core.types import OutputContract, Policy
from suffice.core.values import Value, plain
from suffice.learn.contracts import told
from suffice.learn.verdict import Inputs, Seen, Verdict, judge
from suffice.specialists.heads import unsupported
from suffice.specialists.pieces import slots_of

TOPICS = {
    "refund": ["money", "back", "refund", "return", "reimburse", "charged", "twice", "invoice", "wrong", "amount"],
    "card": ["card", "lost", "stolen", "blocked", "pin", "contactless", "terminal", "magnet", "replacement"],
    "login": ["password", "login", "account", "locked", "email", "code", "verify", "device", "phone", "sign"],
    "travel": ["abroad", "country", "currency", "trip", "airport", "holiday", "flight", "hotel", "foreign", "border"],
}
FILLERS = [
    "hello",
    "my",
    "the",
    "yesterday",
    "since",
    "please",
    "again",
    "still",
    "morning",
    "shop",
    "friend",
    "monday",
    "why",
    "when",
    "app",
    "month",
    "bank",
    "help",
]


def request(random: np.random.Generator, topic: str) -> str:
    """A request about a topic: words of its own among words of no topic."""
    words = [*random.choice(TOPICS[topic], 3), *random.choice(FILLERS, 4)]
    return " ".join(str(word) for word in random.permutation(words))


def triage(n: int, seed: int = 0) -> list[tuple[str, Value]]:
    random = np.random.default_rng(seed)
    topics = [str(topic) for topic in random.choice(list(TOPICS), n)]
    return [(request(random, topic), topic) for topic in topics]


def verdict(
    rows: Sequence[tuple[str, Value]],
    *,
    groups: Callable[[int], str | None] = lambda _: None,
    policy: Policy | None = None,
    supports: Callable[[OutputContract], str | None] = unsupported,
    records: int | None = None,
    whole: int | None = None,
    cost_usd: float | None = None,
    days: float = 30.0,
    **asked: Any,
) -> Verdict:
    """The verdict on rows of (input, answer), all of the task's unless said."""
    inferred = told([text for text, _ in rows], [plain(value) for _, value in rows], **asked)
    return judge(
        [Seen(text, plain(value), groups(i)) for i, (text, value) in enumerate(rows)],
        inferred,
        records=len(rows) if records is None else records,
        whole=len(rows) if whole is None else whole,
        cost_usd=cost_usd,
        days=days,
        policy=policy or Policy(),
        supports=supports,
    )


def says(found: Verdict, text: str) -> bool:
    return any(text in sentence for sentence in (*found.reasons, *found.missing))


def test_labels_that_follow_from_diverse_inputs_are_for_a_small_model() -> None:
    found = verdict(triage(1500), cost_usd=600.0, days=60.0)
    assert found.verdict == "small model"
    assert found.verifiable == "labels"
    assert found.missing == ()
    assert found.needed == 0
    assert found.probe is not None
    assert found.probe.low > 0.9
    assert found.baseline is not None
    assert found.baseline < 0.35
    assert found.distinct.value is not None
    assert found.distinct.value > 1300
    assert found.coverage is not None
    assert found.coverage.value is not None
    assert found.monthly_usd == pytest.approx(300.0)
    assert found.saves_usd == pytest.approx(300.0 * found.coverage.value)
    assert says(found, "would be saved")


def test_every_sentence_is_one_plain_line() -> None:
    for rows in (triage(1500), triage(40), [(f"q{i}", f"poem {i} " * 20) for i in range(500)]):
        for sentence in verdict(rows, cost_usd=5.0).reasons:
            assert "\n" not in sentence
            assert sentence.endswith(".")
            assert sentence[0].isupper() or sentence[0].isdigit()


def test_too_few_rows_say_how_many_more() -> None:
    found = verdict(triage(40))
    assert found.verdict == "not yet"
    assert found.needed == 326  # 366 rows are the fewest that certify 2% at the first attempt
    assert says(found, "326 more rows")
    assert verdict(triage(40), whole=2000, records=2000).needed == 0


def test_a_few_labels_that_had_no_time_to_come_back_are_not_open_ended() -> None:
    found = verdict([(f"question about {word}", f"label_{word}") for word in FILLERS])
    assert found.verdict == "not yet"
    assert found.needed > 300


def test_a_laxer_promise_needs_fewer_rows() -> None:
    lax = verdict(triage(150), policy=Policy(max_error=0.1))
    assert lax.needed == 0
    assert verdict(triage(150)).needed > 0


def test_copies_are_work_for_a_cache() -> None:
    found = verdict(triage(12) * 500)
    assert found.verdict == "not yet"
    assert says(found, "12 distinct inputs answer 100% of it: an exact cache would do")
    assert found.distinct.value == pytest.approx(12, abs=0.2)
    assert found.saves_usd is None


def test_copies_with_other_answers_each_time_are_told() -> None:
    random = np.random.default_rng(0)
    texts = [text for text, _ in triage(12)]
    rows: list[tuple[str, Value]] = [(texts[i % 12], str(random.choice(list(TOPICS)))) for i in range(2000)]
    assert says(verdict(rows), "differ from the commonest one to the same input")


def test_inputs_that_differ_only_in_numbers_are_not_diverse() -> None:
    found = verdict([(f"What is the status of order number {i}?", ["open", "shut"][i % 2]) for i in range(1000)])
    assert found.verdict == "not yet"
    assert found.distinct.value == pytest.approx(1)
    assert says(found, "too much alike")
    assert not says(found, "cache")


def test_worked_answers_stay_on_the_frontier() -> None:
    random = np.random.default_rng(1)
    rows: list[tuple[str, Value]] = [
        (request(random, "refund"), f"First, {i} and {i + 7} are added. " * 8 + f"#### {i}") for i in range(800)
    ]
    found = verdict(rows, cost_usd=100.0)
    assert found.verdict == "keep on the frontier"
    assert found.verifiable == "no"
    assert found.probe is None
    assert found.saves_usd is None
    assert says(found, "800 of 800 answers are different texts, median 2")
    assert says(found, "nothing to check them by")


def test_an_object_with_an_explanation_is_open_ended_too() -> None:
    rows: list[tuple[str, Value]] = [
        (text, {"label": label, "why": f"The customer {i} speaks of {text}, which is a matter of the {label} team."})
        for i, (text, label) in enumerate(triage(800))
    ]
    found = verdict(rows)
    assert found.verdict == "keep on the frontier"
    assert says(found, "The field `why` is free text")


def test_labels_that_do_not_follow_from_the_input_stay_on_the_frontier() -> None:
    rows = triage(1500)
    shuffled = np.random.default_rng(2).permutation(1500)
    found = verdict([(text, rows[j][1]) for (text, _), j in zip(rows, shuffled, strict=True)])
    assert found.verdict == "keep on the frontier"
    assert says(found, "Unpredictable from the input")
    assert says(found, "for always saying `")


def test_a_few_unpredictable_rows_may_only_be_too_few() -> None:
    random = np.random.default_rng(4)
    rows: list[tuple[str, Value]] = [(text, str(random.choice(list(TOPICS)))) for text, _ in triage(120)]
    assert verdict(rows).verdict == "not yet"
    assert verdict(rows, policy=Policy(max_error=0.2)).verdict == "not yet"


def test_a_rare_label_is_predictable_where_the_probe_is_surer_than_the_commonest_answer() -> None:
    rows: list[tuple[str, Value]] = [
        (text, "yes" if label == "card" and i % 4 == 0 else "no") for i, (text, label) in enumerate(triage(2000))
    ]
    found = verdict(rows)
    assert found.baseline is not None
    assert found.baseline > 0.9  # "no" is right nearly always, and the probe hardly more often
    assert found.verdict == "small model"
    assert found.coverage is not None
    assert found.coverage.low > 0.5


def test_one_answer_only_is_nothing_to_learn() -> None:
    found = verdict([(text, "ok") for text, _ in triage(800)])
    assert found.verdict == "not yet"
    assert says(found, "nothing to learn")
    assert "a second answer" in found.missing


def test_fields_are_right_together() -> None:
    random = np.random.default_rng(5)
    rows: list[tuple[str, Value]] = []
    for text, label in triage(1500):
        loud = bool(random.integers(2))
        rows.append((f"{text} {'urgent' if loud else 'later'}", {"team": label, "urgent": loud, "tags": [label]}))
    found = verdict(rows)
    assert (found.verdict, found.verifiable) == ("small model", "schema")
    assert found.probe is not None
    assert found.probe.low > 0.85
    coin: list[tuple[str, Value]] = [
        (text, {"team": label, "coin": int(random.integers(2))}) for text, label in triage(1500)
    ]
    halved = verdict(coin).probe
    assert halved is not None
    assert halved.value is not None
    assert halved.value < 0.62  # a field that nothing tells halves it


def test_the_field_that_nothing_tells_is_named() -> None:
    sure = np.random.default_rng(5)
    rows = [(text, {"label": label, "confidence": float(sure.choice([0.8, 0.9, 0.95]))}) for text, label in triage(600)]
    found = verdict(rows)
    assert says(found, "It fails at `confidence`"), found.reasons
    assert not says(verdict([(text, {"label": label, "again": label}) for text, label in triage(600)]), "It fails at")


def test_tool_calls_are_told_by_their_name_and_arguments() -> None:
    nothing: Value = {"tool_calls": []}
    rows: list[tuple[str, Value]] = [
        (text, nothing if label == "travel" else {"tool_calls": [{"name": f"open_{label}", "arguments": {"q": "x"}}]})
        for text, label in triage(1500)
    ]
    found = verdict(rows)
    assert (found.verdict, found.verifiable) == ("small model", "tool calls")


def test_tools_that_are_never_called_do_not_stand_in_the_way() -> None:
    rows: list[tuple[str, Value]] = [
        (text, {"tool_calls": [{"name": str(label), "arguments": {}}]}) for text, label in triage(800)
    ]
    tools = [{"name": name, "parameters": {}} for name in TOPICS]
    tools.append({"name": "write", "parameters": {"type": "object", "properties": {"letter": {"type": "string"}}}})
    assert verdict(rows, tools=json.dumps([tools])).verdict == "small model"


def closed_only(contract: OutputContract) -> str | None:
    """A family that tells no pieces of the input."""
    slots = slots_of(contract)
    return f"the field `{'.'.join(slots[0].path)}` is a piece of the input." if slots else unsupported(contract)


def test_pieces_of_the_input_are_verifiable_and_wait_for_a_family() -> None:
    rows: list[tuple[str, Value]] = [
        (f"{text} in town{i}x", {"topic": label, "town": f"town{i}x"}) for i, (text, label) in enumerate(triage(1200))
    ]
    found = verdict(rows, cost_usd=90.0, supports=closed_only)
    assert (found.verdict, found.verifiable) == ("not yet", "schema")
    assert "a family that answers such a contract" in found.missing
    assert says(found, "Verifiable but not probed: `town` (a piece of the input)")
    assert says(found, "`town` is a piece of the input")
    assert found.probe is not None  # of the closed field
    assert found.coverage is None
    assert found.saves_usd is None
    with_one = verdict(rows, supports=lambda _: None)
    assert with_one.verdict == "small model"
    pieces: list[tuple[str, Value]] = [(f"{text} town{i}x", f"town{i}x") for i, (text, _) in enumerate(triage(1200))]
    assert verdict(pieces).verifiable == "pieces of the input"


@pytest.mark.parametrize("shaped", [float, str, lambda total: {"topic": "sum", "total": total}])
def test_numbers_that_are_worked_out_stay_on_the_frontier(shaped: Callable[[int], Value]) -> None:
    random = np.random.default_rng(5)
    rows: list[tuple[str, Value]] = []
    for text, _ in triage(600):
        a, b = (int(number) for number in random.integers(20, 5000, 2))
        rows.append((f"{text}: {a} apples at {b} each", shaped(a * b)))
    found = verdict(rows, supports=lambda _: None)
    assert found.verdict == "keep on the frontier"
    assert says(found, "stand in their input: the others are worked out")
    there: list[tuple[str, Value]] = [(f"{text}, {7 * i} of them", 7 * i) for i, (text, _) in enumerate(triage(600))]
    assert verdict(there, supports=lambda _: None).verdict == "small model"


def test_answers_of_no_fixed_form_stay_on_the_frontier() -> None:
    random = np.random.default_rng(7)
    form = '{"type":"json_object"}'
    rows: list[tuple[str, Value]] = [
        (text, {"topic": label} if random.random() < 0.2 else f"Sorry, about {i} I am not sure")
        for i, (text, label) in enumerate(triage(900))
    ]
    found = verdict(rows, response_format=form)
    assert found.verdict == "keep on the frontier"
    assert says(found, "would keep one form")


def test_a_noisy_frontier_leaves_too_few_sure_answers_unless_there_is_more_to_learn_from() -> None:
    random = np.random.default_rng(12)
    rows: list[tuple[str, Value]] = [
        (text, label if random.random() < 0.6 else str(random.choice(list(TOPICS)))) for text, label in triage(1500)
    ]
    found = verdict(rows)
    assert found.verdict == "not yet"
    assert says(found, "is asked for")
    assert says(found, "not sure enough yet")
    assert verdict(rows, records=20_000, whole=20_000).verdict == "small model"


def test_a_side_field_that_nothing_tells_does_not_condemn_the_pieces() -> None:
    random = np.random.default_rng(13)
    rows: list[tuple[str, Value]] = [
        (f"{text} in town{i}x", {"coin": int(random.integers(2)), "town": f"town{i}x"})
        for i, (text, _) in enumerate(triage(1200))
    ]
    found = verdict(rows, supports=closed_only)
    assert found.verdict == "not yet"
    assert says(found, "What could be probed is unpredictable")


# ---------------------------------------------------------------------------------------------- held out, and groups


def test_copies_never_stand_on_both_sides() -> None:
    """Answers at random, each input several times: a probe that had seen the copies would be right on all."""
    random = np.random.default_rng(8)
    texts = [text for text, _ in triage(250)]
    labels = [str(random.choice(list(TOPICS))) for _ in texts]
    rows: list[tuple[str, Value]] = [(texts[i % 250], labels[i % 250]) for i in range(1000)]
    rows += [(text, str(random.choice(list(TOPICS)))) for text, _ in triage(900, seed=9)]
    found = verdict(rows)
    assert found.probe is not None
    assert found.probe.value is not None
    assert found.probe.value < 0.4
    apart = verdict(rows, groups=str)  # every copy in a group of its own
    assert apart.probe is not None
    assert apart.probe.value is not None
    assert apart.probe.value < 0.4


def test_groups_are_held_out_whole() -> None:
    """A customer's every request has one answer, and names the customer: known customers would be told by name."""
    random = np.random.default_rng(10)
    names = ["".join(random.choice(list("bcdfghklmnprstvz"), 8)) for _ in range(300)]
    labels = [str(random.choice(list(TOPICS))) for _ in names]
    rows: list[tuple[str, Value]] = [
        (f"{names[i % 300]} {' '.join(random.choice(FILLERS, 6))}", labels[i % 300]) for i in range(1800)
    ]
    apart, grouped = verdict(rows), verdict(rows, groups=lambda i: names[i % 300])
    assert apart.probe is not None
    assert grouped.probe is not None
    assert (apart.probe.value or 0) > 0.6
    assert (grouped.probe.value or 1) < 0.4


def test_rows_of_few_groups_are_few() -> None:
    found = verdict(triage(1500), groups=lambda i: f"customer {i % 10}")
    assert found.verdict == "not yet"
    assert says(found, "more groups")
    assert found.needed > 1500
    assert verdict(triage(1500), groups=lambda _: "one").verdict == "not yet"


# ---------------------------------------------------------------------------------------------- edges


def test_no_rows_at_all() -> None:
    found = verdict([], records=30, whole=0)
    assert found.verdict == "not yet"
    assert found.needed == 366
    assert says(found, "None of 30 records has a whole answer")
    assert verdict([], records=0, whole=0).verdict == "not yet"


def test_odd_inputs_do_no_harm() -> None:
    rows: list[tuple[str, Value]] = [
        *[("", "a")] * 3,
        ("\x00\n \ud800", "b"),
        ("我的卡在哪里", "a"),
        ("x" * 100_000, "b"),
        ("!!! ???", "a"),
    ]
    assert verdict(rows * 2).verdict == "not yet"
    assert says(verdict(rows * 200), "5 distinct inputs")
    assert verdict([("t", "a")]).verdict == "not yet"


def test_costs_over_a_short_time_say_so() -> None:
    found = verdict(triage(800), cost_usd=1.0, days=0.5)
    assert found.monthly_usd == pytest.approx(60.0)
    assert says(found, "measured over 12.0 hours only")
    assert verdict(triage(800), cost_usd=1.0, days=0.0).monthly_usd is None
    assert verdict(triage(800)).monthly_usd is None


def test_the_same_sample_gives_the_same_verdict() -> None:
    assert verdict(triage(900)) == verdict(triage(900))


def test_two_thousand_rows_are_judged_fast() -> None:
    rows = triage(5000)
    verdict(rows[:10])  # the embedding is read once
    began = time.perf_counter()
    verdict(rows)
    assert time.perf_counter() - began < 8  # 0.4 s on a free core


# ---------------------------------------------------------------------------------------------- distinct inputs


def effective(texts: Sequence[str]) -> float:
    value = Inputs(texts).effective(len(texts)).value
    assert value is not None
    return value


def test_distinct_inputs_are_counted_by_what_differs() -> None:
    towns = ["boston", "denver", "paris", "rome", "london", "berlin", "madrid", "oslo", "vienna", "dublin"]
    template = "I would like to book a cheap flight to {} for next week, can you help me with that today?"
    assert effective([template.format(town) for town in towns] * 50) == pytest.approx(10)
    assert effective(["Where is my  card?", "where is my card", "WHERE IS MY CARD!!"] * 9) == pytest.approx(1)
    assert effective([f"status of order A-{i}" for i in range(400)]) == pytest.approx(1)
    assert effective([text for text, _ in triage(300)]) > 250
    assert effective(["我的卡在哪里", "我想取消订单", "请退款"] * 5) == pytest.approx(3)


def test_long_near_copies_count_once() -> None:
    random = np.random.default_rng(11)
    words = [*FILLERS, *(word for topic in TOPICS.values() for word in topic)]
    long = [" ".join(random.choice(words, 40)) for _ in range(20)]
    assert effective([f"{text} {random.choice(FILLERS)}" for text in long for _ in range(20)]) == pytest.approx(
        20, rel=0.1
    )


def test_a_common_input_counts_for_less_than_its_rows() -> None:
    texts = ["where is my card"] * 900 + [text for text, _ in triage(100)]
    assert effective(texts) < 3
    found = Inputs(texts).effective(5000)
    assert found.value is not None
    assert found.low <= found.value <= found.high <= 5000


def test_a_cache_is_told_by_exact_repeats_only() -> None:
    assert Inputs(["a", "b"] * 50).cached() == 2
    assert Inputs([f"order {i}" for i in range(100)]).cached() is None
    assert Inputs([]).cached() is None


def test_short_texts_that_never_come_back_stay_on_the_frontier_and_rare_labels_do_not() -> None:
    random = np.random.default_rng(3)
    queries = [f"SELECT name FROM t{i} WHERE id = {random.integers(10**6)}" for i in range(38)]
    written = verdict([(request(random, "refund"), query) for query in queries])
    assert written.verdict == "keep on the frontier"
    labels = [f"label_{random.integers(60)}" for _ in range(38)]
    rare = verdict([(request(random, "refund"), label) for label in labels])
    assert rare.verdict == "not yet"
