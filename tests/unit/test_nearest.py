"""The nearest-answer family on traffic made here: what it repeats and what it does not dare to, its artefact."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from suffice.core.contracts import refusal
from suffice.core.errors import ArtefactError
from suffice.core.types import (
    Choice,
    Example,
    Fields,
    Many,
    Number,
    OutputContract,
    Reason,
    Recipe,
    Span,
    Text,
    ToolCall,
    TrainSet,
    TuneSet,
)
from suffice.core.values import Value, canonical
from suffice.specialists.features import Hasher
from suffice.specialists.nearest import NearestFamily
from suffice.specialists.nearest_model import NearestSpecialist, read_text

Rows = Sequence[tuple[str, Value]]

ASKS = ("where is my order", "what is the state of order", "tell me about order", "has this been sent: order")
ASIDES = ("please", "thanks", "today", "hello", "quickly", "if you can", "")
TOPICS = {
    "refund": ("I want my money back", "please refund what I paid", "return the money to my account"),
    "address": ("I moved to another house", "change where you deliver to", "my address is a new one"),
    "invoice": ("send me the bill again", "I need an invoice for the office", "the receipt is missing"),
}


def quiet(what: str, share: float) -> None:
    assert what and 0 <= share <= 1


def examples(rows: Rows, prefix: str) -> list[Example]:
    return [
        Example(id=f"{prefix}{i}", input=text, output=value, has_output=True) for i, (text, value) in enumerate(rows)
    ]


def fitted(contract: OutputContract, train: Rows, tune: Rows = ()) -> NearestSpecialist:
    sets = TrainSet(examples(train, "a")), TuneSet(examples(tune, "t"))
    return NearestFamily().fit(Recipe(family="nearest"), contract, *sets, quiet)


def topics(n: int, seed: int) -> list[tuple[str, Value]]:
    """Repetitive traffic with a label each; what is asked, is asked in about 60 ways."""
    dice = random.Random(seed)
    rows: list[tuple[str, Value]] = []
    for _ in range(n):
        topic = dice.choice(sorted(TOPICS))
        rows.append((f"{dice.choice(TOPICS[topic])} {dice.choice(ASIDES)}".strip(), topic))
    return rows


def orders(n: int, seed: int) -> list[tuple[str, Value]]:
    """The answer hangs on the number alone, which is one of 400; a new number has an answer nobody can know."""
    dice = random.Random(seed)
    states = ["sent", "packed", "lost", "paid"]
    return [
        (f"{dice.choice(ASKS)} {number} {dice.choice(ASIDES)}".strip(), states[random.Random(number).randrange(4)])
        for number in (dice.randrange(1000, 1400) for _ in range(n))
    ]


@pytest.fixture(scope="module")
def choosing() -> NearestSpecialist:
    return fitted(Choice(tuple(sorted(TOPICS))), topics(300, 1), topics(150, 2))


def test_known_inputs_and_those_like_them_get_the_known_answer(choosing: NearestSpecialist) -> None:
    found = choosing.predict(
        ["  I want my  money back\nplease ", "I WANT my money back, please!", "could I have my money back please"]
    )
    assert [p.value for p in found] == ["refund"] * 3
    assert found[0].parts["exact"] == 1 and found[1].parts["exact"] == 0
    assert found[0].parts["likeness"] == pytest.approx(1, abs=1e-6)
    assert found[0].score > found[2].score > choosing.predict(["what a fine day in the hills"])[0].score
    rows = topics(100, 3)
    right = [p.value == value for p, (_, value) in zip(choosing.predict([t for t, _ in rows]), rows, strict=True)]
    assert np.mean(right) > 0.98
    assert not choosing.predict(["zqx wvvk jjyq"])[0].familiar


def test_another_number_is_another_question() -> None:
    train, tune, rows = orders(1200, 1), orders(300, 2), orders(300, 3)
    model = fitted(Choice(("sent", "packed", "lost", "paid")), train, tune)
    found = model.predict([text for text, _ in rows])
    right = np.array([p.value == value for p, (_, value) in zip(found, rows, strict=True)])
    scores = np.array([p.score for p in found])
    numbers = np.array([p.parts["numbers"] for p in found]) == 1
    assert 10 < (~numbers).sum() < 250, "some numbers are new"
    assert scores[numbers & right].mean() > scores[~numbers].mean() + 0.3
    surest = np.argsort(-scores)[: len(scores) // 2]
    assert right[surest].mean() > 0.98
    # the same words with a number that was never sent, against one that was
    known = train[0][0]
    number = next(word for word in known.split() if word.isdigit())
    assert model.predict([known])[0].score > 0.9 > model.predict([known.replace(number, "7777")])[0].score


def test_contradicting_answers_lower_the_score() -> None:
    rows = [("the same question", "yes"), ("the same question", "no"), ("the same question", "yes")] * 4
    rows += [("another question altogether", "yes")] * 12
    torn, agreed = fitted(Choice(("yes", "no")), rows).predict(["the same question", "another question altogether"])
    assert torn.value == "yes" and torn.score < agreed.score
    assert torn.parts["agreement"] == pytest.approx(8.5 / 13) and torn.parts["copies"] == pytest.approx(np.log(9))


def test_free_text_is_repeated_word_for_word() -> None:
    said = "Our shop is open from 9 to 5.\n\nSee you  soon!"
    model = fitted(Text(), [("when are you open", said), ("who are you", "A shop.")])
    assert model.predict(["when are you open?"])[0].value == said
    assert model.predict(["When are you  open"])[0].score > model.predict(["who opened the door"])[0].score


def test_a_piece_that_does_not_stand_in_the_input_is_not_answered() -> None:
    rows: list[tuple[str, Value]] = [
        ("a table in Oslo for 4", {"where": ["Oslo"], "people": 4}),
        ("book a room in Lima", {"where": ["Lima"]}),
        ("two and one more in Rome", {"where": ["Rome"], "people": 3}),
    ]
    model = fitted(Fields((("where", Many(Span())), ("people", Number()))), rows * 5)
    same, elsewhere, more, worked_out, moved = model.predict(
        [
            "a table in  Oslo for 4",
            "a table in Bergen for 4",
            "a table in Oslo for 5",
            "two and one more in Rome",
            "two and one more in Rome please",
        ]
    )
    assert same.value == {"where": ["Oslo"], "people": 4} and same.score > 0
    assert elsewhere.score == more.score == 0
    assert worked_out.value == {"where": ["Rome"], "people": 3} and worked_out.score > 0
    assert moved.score == 0, "3 stands nowhere in another text"
    calls: Rows = [("find Anna", {"tool_calls": [{"name": "find", "arguments": {"who": "Anna"}}]})] * 3
    model = fitted(ToolCall((("find", Fields((("who", Span()),))),), none_allowed=True), calls)
    assert model.predict(["please find Anna"])[0].score > 0 == model.predict(["find Anne"])[0].score


@pytest.mark.parametrize(("text", "number"), [("pay 1,200.50 now", 1200.5), ("pay 1.200,50 now", 1200.5), ("-3 C", -3)])
def test_numbers_stand_in_the_input_however_they_are_written(text: str, number: float) -> None:
    model = fitted(Number(), [(text, number)])
    assert model.predict([text + " please"])[0].score > 0 == model.predict(["pay 7 now"])[0].score


def test_every_contract_but_tools_of_the_request() -> None:
    family = NearestFamily()
    for contract in (Choice(("a",)), Text(), Span(), Fields((("x", Many(Text())),)), ToolCall((), none_allowed=True)):
        assert family.supports(contract) is None
    assert "tools of its own" in str(family.supports(ToolCall((), offered=True)))
    with pytest.raises(ValueError, match="tools of its own"):
        family.fit(family.recipes(0)[0], ToolCall((), offered=True), TrainSet([]), TuneSet([]), quiet)
    assert [recipe.family for recipe in family.recipes(3)] == ["nearest"]


def test_hardly_any_training_rows() -> None:
    contract = Choice(("x", "y"))
    nothing = fitted(contract, [], [("a text", "x")]).predict(["a text", ""])
    assert all(refusal(found, contract, 0.0) is Reason.CONTRACT and found.score == 0 for found in nothing)
    one = fitted(contract, [("a text", "x"), ("lost", "not in the contract")])
    same, other = one.predict(["a text", "what else is there"])
    assert same.value == other.value == "x" and same.score > other.score
    blank = fitted(contract, [("", "x"), ("  ", "x"), ("a word", "y")])
    assert [p.value for p in blank.predict(["", " \n", "a word"])] == ["x", "x", "y"]


def test_odd_texts(choosing: NearestSpecialist) -> None:
    texts = ["", " \n\t ", "明日の天気", "الطقس غدا", "🙂" * 50, "a" * 40_000, "\ud800 \x00 İ" * 9_000, "7" * 30]
    found = choosing.predict(texts)
    assert all(np.isfinite([p.score, *p.parts.values()]).all() for p in found)
    assert [choosing.predict([text])[0] for text in texts] == found, "a prediction is a function of its text alone"


def test_a_long_text_is_only_known_as_a_whole() -> None:
    long = "one word and another " * 2_000
    changed = long[:20_000] + "but not this time " + long[20_000:]
    model = fitted(Choice(("x", "y")), [(long, "x")] * 3 + [("a short one", "y")] * 3)
    same, other = model.predict([long, changed])
    assert same.value == "x" and same.score > 0 == other.score


def test_save_and_load_give_the_same_answers(tmp_path: Path, choosing: NearestSpecialist) -> None:
    choosing.save(tmp_path)
    texts = [text for text, _ in topics(50, 4)] + ["", "something else"]
    assert NearestFamily().load(tmp_path).predict(texts) == choosing.predict(texts)
    again = fitted(Choice(tuple(sorted(TOPICS))), topics(300, 1), topics(150, 2))
    (tmp_path / "again").mkdir()
    again.save(tmp_path / "again")
    for name in ("model.safetensors", "model.json"):
        assert (tmp_path / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert b"money" not in (tmp_path / "model.safetensors").read_bytes(), "inputs are not kept as text"


def test_what_is_not_whole_is_refused(tmp_path: Path, choosing: NearestSpecialist) -> None:
    choosing.save(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    settings = json.loads((tmp_path / "model.json").read_bytes())
    broken = {
        "digests": arrays["digests"][::-1].copy(),
        "norms": np.full_like(arrays["norms"], np.nan),
        "answer": arrays["answer"] + 100,
        "feature_starts": arrays["feature_starts"] + 1,
        "agreeing": arrays["copies"] + 1,
        "score": arrays["score"][1:],
        "limits": arrays["limits"] * np.nan,
    }
    for name, array in broken.items():
        save_file({**arrays, name: array}, tmp_path / "model.safetensors")
        with pytest.raises(ArtefactError, match="is not whole"):
            NearestFamily().load(tmp_path)
    save_file({k: v for k, v in arrays.items() if k != "words"}, tmp_path / "model.safetensors")
    with pytest.raises(ArtefactError, match="`words"):
        NearestFamily().load(tmp_path)
    save_file(arrays, tmp_path / "model.safetensors")
    (tmp_path / "model.json").write_text(json.dumps({**settings, "format": 99}), "utf-8")
    with pytest.raises(ArtefactError, match="format is 99"):
        NearestFamily().load(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(ArtefactError, match="cannot be read"):
        NearestFamily().load(tmp_path)


def test_likeness_is_the_cosine_of_the_weighted_features() -> None:
    rows = topics(80, 5)
    model = fitted(Choice(tuple(sorted(TOPICS))), rows)
    texts, hasher = sorted({" ".join(text.split()) for text, _ in rows}), Hasher()
    sets = [set(read_text(text, hasher).features.tolist()) for text in texts]

    def weight(feature: int) -> float:
        return float(np.log((1 + len(sets)) / (1 + max(1, sum(feature in each for each in sets)))) + 1)

    for probe in ("please send me the bill and the receipt again", "money money money", "my house is new to you"):
        own = set(read_text(probe, hasher).features.tolist())
        cosines = [
            sum(weight(f) ** 2 for f in own & each)
            / np.sqrt(sum(weight(f) ** 2 for f in own) * sum(weight(f) ** 2 for f in each))
            for each in sets
        ]
        likeness = model.predict([probe])[0].parts["likeness"]
        assert any(abs(likeness - cosine) < 1e-4 for cosine in cosines)
        assert likeness > np.median(cosines)


def test_traffic_that_repeats_itself_is_answered() -> None:
    """A few inputs make up most of the traffic; each new one has an answer of its own that nobody can know."""
    dice, words = np.random.default_rng(0), [f"word{i}" for i in range(300)]
    inputs = [" ".join(dice.choice(words, 8)) for _ in range(3_000)]
    shares = 1 / np.arange(1, len(inputs) + 1)
    drawn = dice.choice(len(inputs), 2_500, p=shares / shares.sum())
    rows: list[tuple[str, Value]] = [(inputs[i], f"label {hash_of(i)}") for i in drawn.tolist()]
    model = fitted(Choice(tuple(f"label {k}" for k in range(20))), rows[:1500], rows[1500:2000])
    found, held_out = model.predict([text for text, _ in rows[2000:]]), rows[2000:]
    right = np.array([canonical(p.value) == canonical(v) for p, (_, v) in zip(found, held_out, strict=True)])
    sure = np.array([p.score > 0.9 for p in found])
    assert sure.mean() > 0.6 and right[sure].mean() > 0.99
    assert right[~sure].mean() < 0.5


def hash_of(number: int) -> int:
    return random.Random(number).randrange(20)
