import pytest

from suffice.demo import phrases
from suffice.demo.workload import Ticket, frontier_answers, generate, messages, system_prompt, write_answers


def share(flags: list[bool]) -> float:
    return sum(flags) / len(flags)


def test_same_seed_same_traffic_and_start_continues_it() -> None:
    stream = generate(300, 7, unseen_share=0.1)
    assert stream == generate(300, 7, unseen_share=0.1)
    assert stream[100:] == generate(200, 7, unseen_share=0.1, start=100)
    assert stream != generate(300, 8, unseen_share=0.1)


def test_texts_are_nearly_all_distinct_and_whole() -> None:
    tickets = generate(6000, 1, unseen_share=0.05)
    assert len({ticket.text for ticket in tickets}) > 0.985 * len(tickets)
    for ticket in tickets:
        assert ticket.text.strip() and not set(ticket.text) & set("[]{}|")
        assert ticket.truth in phrases.RULES and ticket.rival in phrases.RULES and ticket.rival != ticket.truth
        assert 0 <= ticket.difficulty <= 1


def test_every_label_occurs_and_the_noise_has_its_share() -> None:
    tickets = generate(4000, 2)
    assert {ticket.truth for ticket in tickets} == set(phrases.RULES)
    assert 0.02 < share([ticket.kind == "paired" for ticket in tickets]) < 0.05
    assert 0.02 < share([ticket.kind == "vague" for ticket in tickets]) < 0.05
    assert all(ticket.topic_seen for ticket in tickets)


def test_unseen_topics_are_other_by_the_rule_of_the_prompt() -> None:
    tickets = generate(2000, 3, unseen_share=0.2)
    unseen = [ticket for ticket in tickets if not ticket.topic_seen]
    assert 0.16 < len(unseen) / len(tickets) < 0.24
    assert {ticket.truth for ticket in unseen} == {"other"}


def test_shares_and_counts_out_of_range_are_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        generate(1, 1, unseen_share=1.5)
    with pytest.raises(ValueError, match="negative"):
        generate(-1, 1)
    with pytest.raises(ValueError, match=r"between 0 and 0\.5"):
        frontier_answers([], 1, error=0.9)


def test_every_template_of_the_bank_can_be_filled() -> None:
    from random import Random

    from suffice.demo.workload import _expand

    banks = [*phrases.CORES.values(), *phrases.RARE.values(), *phrases.DETAILS.values(), *phrases.UNSEEN.values()]
    banks += [phrases.ASIDES, phrases.OPENINGS, phrases.CLOSINGS, phrases.ANGER, *[row[2] for row in phrases.VAGUE]]
    for template in [template for bank in banks for template in bank]:
        assert template.count("[") == template.count("]")
        for seed in range(5):
            assert not set(_expand(template, Random(seed))) & set("[]{}|"), template
    assert set(phrases.CORES) == set(phrases.RARE) == set(phrases.DETAILS) == set(phrases.SHARES) == set(phrases.RULES)


def test_only_the_day_varies_in_the_prompt() -> None:
    first, later = generate(1, 4)[0], generate(1, 4, start=5000)[0]
    assert first.day != later.day
    prompts = [messages(ticket)[0]["content"].replace(ticket.day, "DAY") for ticket in (first, later)]
    assert prompts[0] == prompts[1] == system_prompt("DAY")
    assert [message["role"] for message in messages(first)] == ["system", "user"]
    assert messages(first)[1]["content"] == first.text
    assert all(label in prompts[0] for label in phrases.RULES)
    assert 800 < len(prompts[0]) < 1300  # about 250 tokens
    assert phrases.SHOP not in system_prompt("DAY", {"a": "", "b": ""})


def test_the_frontiers_errors_follow_difficulty_towards_the_rival() -> None:
    tickets = generate(8000, 5)
    answers = frontier_answers(tickets, 1)
    assert answers == frontier_answers(tickets, 1) != frontier_answers(tickets, 2)
    wrong = [answer != ticket.truth for ticket, answer in zip(tickets, answers, strict=True)]
    assert 0.033 < share(wrong) < 0.052
    hard = [flag for flag, ticket in zip(wrong, tickets, strict=True) if ticket.difficulty >= 0.5]
    plain = [flag for flag, ticket in zip(wrong, tickets, strict=True) if ticket.difficulty < 0.1]
    assert share(hard) > 0.25 and share(plain) < 0.01
    by_text: dict[str, set[str]] = {}
    for ticket, answer in zip(tickets, answers, strict=True):
        by_text.setdefault(ticket.text, set()).add(answer)
    assert all(len(said) == 1 for said in by_text.values())


def test_no_error_asked_for_means_none() -> None:
    tickets = [ticket for ticket in generate(500, 6) if ticket.kind != "misfiled"]
    distinct = list({ticket.text: ticket for ticket in tickets}.values())
    assert frontier_answers(distinct, 1, error=0.0) == [ticket.truth for ticket in distinct]


def test_answers_file_has_one_line_per_text_and_the_first_counts() -> None:
    twice = [Ticket(text="same", truth=truth, difficulty=0, rival="c") for truth in ("a", "b")]
    assert write_answers(twice, ["a", "b"]) == b'{"text":"same","answer":"a"}\n'
    with pytest.raises(ValueError, match="2 tickets but 1 answers"):
        write_answers(twice, ["a"])


def test_a_linear_model_is_mostly_right_and_knows_when() -> None:
    import numpy as np
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline, make_union

    train, fresh = generate(2500, 11), generate(2000, 11, start=2500)
    words = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
    letters = TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2)
    model = make_pipeline(
        make_union(words, letters), SGDClassifier(loss="log_loss", alpha=2e-5, max_iter=8, tol=None, random_state=0)
    )
    model.fit([ticket.text for ticket in train], [ticket.truth for ticket in train])
    chances = model.predict_proba([ticket.text for ticket in fresh])
    right = model.classes_[chances.argmax(1)] == np.array([ticket.truth for ticket in fresh])
    assert 0.85 < right.mean() < 0.94
    surest = np.argsort(-chances.max(1))[: len(fresh) // 2]
    assert right[surest].mean() > 0.97
