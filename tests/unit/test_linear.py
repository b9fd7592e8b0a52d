"""The linear family on data made here: parity with scikit-learn, all contracts, the artefact, odd texts."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from suffice.core.errors import ArtefactError
from suffice.core.types import (
    Choice,
    Choices,
    Example,
    Fields,
    Many,
    Number,
    OutputContract,
    Recipe,
    Span,
    Text,
    ToolCall,
    TrainSet,
    TuneSet,
)
from suffice.core.values import Value, canonical
from suffice.specialists.embedding import shared_static_embedding
from suffice.specialists.features import LONGEST_CHARS, Hasher, build_vocabulary, normalised
from suffice.specialists.linear import LinearFamily
from suffice.specialists.linear_model import LinearSpecialist
from suffice.specialists.solver import Problem, minimise

PLACES = ("Boston", "Oslo", "Lima")
THINGS = {
    "weather": ("will it rain in {}", "how warm is it in {}", "is there snow in {} now"),
    "travel": ("book a train to {}", "I need a flight to {}", "find me a bus to {}"),
    "food": ("a table for two in {}", "where to eat in {}", "order a pizza in {}"),
}
ASIDES = ("please", "today", "if you can", "thanks", "quickly", "my friend", "again", "hello", "tomorrow", "")


def made(n: int, seed: int) -> list[tuple[str, str, str]]:
    """(text, thing, place) rows."""
    dice = random.Random(seed)
    rows = []
    for _ in range(n):
        thing, place = dice.choice(sorted(THINGS)), dice.choice(PLACES)
        text = f"{dice.choice(ASIDES)} {dice.choice(THINGS[thing]).format(place)} {dice.choice(ASIDES)}"
        rows.append((text.strip(), thing, place))
    return rows


def examples(rows: Sequence[tuple[str, Value]], prefix: str) -> list[Example]:
    return [
        Example(id=f"{prefix}{i}", input=text, output=value, has_output=True) for i, (text, value) in enumerate(rows)
    ]


def quiet(what: str, share: float) -> None:
    assert what and 0 <= share <= 1


def fitted(
    contract: OutputContract, train: Sequence[tuple[str, Value]], tune: Sequence[tuple[str, Value]]
) -> LinearSpecialist:
    model = LinearFamily().fit(
        Recipe(family="linear"), contract, TrainSet(examples(train, "a")), TuneSet(examples(tune, "t")), quiet
    )
    assert isinstance(model, LinearSpecialist)
    return model


@pytest.fixture(scope="module")
def choosing() -> LinearSpecialist:
    train: list[tuple[str, Value]] = [(text, thing) for text, thing, _ in made(400, 1)]
    tune: list[tuple[str, Value]] = [(text, thing) for text, thing, _ in made(150, 2)]
    return fitted(Choice(("weather", "travel", "food")), train, tune)


def accuracy(model: LinearSpecialist, rows: Sequence[tuple[str, Value]]) -> float:
    found = model.predict([text for text, _ in rows])
    return float(np.mean([canonical(p.value) == canonical(v) for p, (_, v) in zip(found, rows, strict=True)]))


def test_choice_is_learned_and_scored(choosing: LinearSpecialist) -> None:
    rows: list[tuple[str, Value]] = [(text, thing) for text, thing, _ in made(200, 3)]
    assert accuracy(choosing, rows) > 0.97
    found = choosing.predict([text for text, _ in rows])
    assert all(0 < p.score < 1 for p in found)
    assert np.mean([p.familiar for p in found]) > 0.9
    assert not choosing.predict(["xqz vvkw jjyq zzpf"])[0].familiar


def test_training_texts_are_the_nearest_of_their_class(tmp_path: Path, choosing: LinearSpecialist) -> None:
    rows = made(400, 1)
    signals = [found.parts for found in choosing.predict([text for text, _, _ in rows])]
    assert all(0 < each["nearest_lead"] < 2 for each in signals)
    choosing.save(tmp_path)
    arrays = load_file(tmp_path / "model.safetensors")
    things = [thing for _, thing, _ in rows]
    assert sorted(arrays["kept"].tolist()) == sorted(min(100, things.count(thing)) for thing in THINGS)


def test_features_are_those_of_scikit_learn() -> None:
    text_module = pytest.importorskip("sklearn.feature_extraction.text")
    texts = [text for text, _, _ in made(60, 4)] + ["Ça va? Übergröße, naïve  café!", "x", "a  b\tc\nd", "don't — stop"]
    pieces = text_module.CountVectorizer(analyzer="char_wb", ngram_range=(2, 5)).build_analyzer()
    words = text_module.CountVectorizer(ngram_range=(1, 2), token_pattern=r"\w+").build_analyzer()
    hasher = Hasher()
    named: dict[tuple[int, str], None] = {}
    for text in texts:
        hashes = hasher.hashes(normalised(text))
        for block, analyse in ((0, pieces), (1, words)):
            ours = hashes[(hashes >> np.uint64(63)) == block].tolist()
            theirs = analyse(text)
            assert len(ours) == len(theirs)
            counted = sorted((ours.count(h), h) for h in set(ours))
            assert [c for c, _ in counted] == sorted(theirs.count(t) for t in set(theirs))
            named.update({(block, gram): None for gram in theirs})
    every = np.unique(np.concatenate([hasher.hashes(normalised(text)) for text in texts]))
    assert len(every) == len(named), "as many hashes as there are different features: no collision, no omission"


def test_probabilities_are_those_of_scikit_learn() -> None:
    vectorizers = pytest.importorskip("sklearn.feature_extraction.text")
    models = pytest.importorskip("sklearn.linear_model")
    sparse = pytest.importorskip("scipy.sparse")
    rows, probes = made(300, 5), [text for text, _, _ in made(50, 6)] + ["", "never seen wörds"]
    model = fitted(Choice(("weather", "travel", "food")), [(t, y) for t, y, _ in rows], [])
    texts = [text for text, _, _ in rows]
    words = vectorizers.TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+", sublinear_tf=True, min_df=2)
    pieces = vectorizers.TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True, min_df=2)
    embedding = shared_static_embedding()
    train_dense = embedding.vectors(texts)

    def design(of: list[str], fit: bool) -> object:
        blocks = [(v.fit_transform if fit else v.transform)(of) for v in (pieces, words)]
        return sparse.hstack([*blocks, sparse.csr_matrix(embedding.vectors(of) - train_dense.mean(axis=0))]).tocsr()

    oracle = models.LogisticRegression(C=10.0, tol=1e-7, max_iter=2000).fit(
        design(texts, True), [y for _, y, _ in rows]
    )
    expected = oracle.predict_proba(design(probes, False))
    for text, row in zip(probes, expected, strict=True):
        ((head, ours),) = model.probabilities(text)
        theirs = [row[list(oracle.classes_).index(value)] for value in head.values]
        # ours stops at a gradient of 1e-4, and stores coefficients in float16
        np.testing.assert_allclose(ours, theirs, atol=1e-2)

    # The path itself, on the very same coefficients, to 1e-4.
    order = [list(oracle.classes_).index(value) for value in head.values]
    arrays = model._arrays
    vocabulary = model._vocabulary
    assert len(vocabulary.hashes) == len(pieces.vocabulary_) + len(words.vocabulary_)
    hasher = Hasher()
    at = {}
    for offset, vectorizer, block in ((0, pieces, 0), (len(pieces.vocabulary_), words, 1)):
        for gram, column in vectorizer.vocabulary_.items():
            at[offset + column] = int(vocabulary.hashes.searchsorted(_hash_of(hasher, gram, block)))
    coefficients = np.zeros((3, len(at) + embedding.dimensions))
    for column, row_number in at.items():
        coefficients[:, column] = model._sparse[row_number]
    coefficients[:, len(at) :] = arrays["dense"].T
    oracle.coef_ = coefficients[np.argsort(order)]
    oracle.intercept_ = (arrays["bias"] + train_dense.mean(axis=0) @ arrays["dense"])[np.argsort(order)]
    for text, row in zip(probes, oracle.predict_proba(design(probes, False)), strict=True):
        ((_, ours),) = model.probabilities(text)
        np.testing.assert_allclose(ours, row[order], atol=1e-4)


def test_the_solver_reaches_the_optimum_of_scikit_learn() -> None:
    models = pytest.importorskip("sklearn.linear_model")
    sparse = pytest.importorskip("scipy.sparse")
    dice = np.random.default_rng(0)
    left = sparse.csr_matrix(dice.random((200, 30)) * (dice.random((200, 30)) < 0.2), dtype=np.float32)
    right = dice.normal(size=(200, 5)).astype(np.float32)
    both = np.hstack([left.toarray(), right])
    classes = dice.integers(0, 4, 200)
    ours = minimise(Problem(left, right, classes, 4, 3.0), 1e-6, 1000)
    logits = both @ ours[:-1] + ours[-1]
    oracle = models.LogisticRegression(C=3.0, tol=1e-8, max_iter=5000).fit(both, classes)
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(chances / chances.sum(axis=1, keepdims=True), oracle.predict_proba(both), atol=1e-3)
    # two yes/no questions at once, the second asked of half the rows
    asked = np.stack([classes % 2, np.where(np.arange(200) < 100, classes // 2, -1)], axis=1)
    ours = minimise(Problem(left, right, asked, 2, 3.0), 1e-6, 1000)
    for column in (0, 1):
        rows = asked[:, column] >= 0
        # the loss is a mean over all rows, so a question asked of half of them keeps the strength it would have alone
        oracle = models.LogisticRegression(C=3.0, tol=1e-8, max_iter=5000).fit(both[rows], asked[rows, column])
        chances = 1 / (1 + np.exp(-(both @ ours[:-1, column] + ours[-1, column])))
        np.testing.assert_allclose(chances, oracle.predict_proba(both)[:, 1], atol=1e-3)


def _hash_of(hasher: Hasher, gram: str, block: int) -> np.uint64:
    """The hash of one feature by its characters, computed the slow way."""
    total = sum(ord(char) * pow(int(hasher._powers[1]), at, 1 << 64) for at, char in enumerate(gram)) % (1 << 64)
    total ^= total >> 32
    total = total * 0xD6E8FEB86659FD93 % (1 << 64)
    return np.uint64((total & ((1 << 63) - 1)) | (block << 63))


def test_labels(choosing: LinearSpecialist) -> None:
    rows: list[tuple[str, Value]] = [
        (t, [x for x in (thing, place) if x != "Lima"]) for t, thing, place in made(500, 7)
    ]
    model = fitted(Choices(("weather", "travel", "food", "Boston", "Oslo", "never")), rows[:400], rows[400:])
    assert accuracy(model, rows[400:]) > 0.9
    value = model.predict(["will it rain in Boston"])[0].value
    assert value == ["weather", "Boston"]  # in the order of the contract
    assert model.predict(["will it rain in Boston"])[0].score > model.predict(["boston oslo pizza"])[0].score


def test_fields_nested_and_absent() -> None:
    def answer(thing: str, place: str) -> Value:
        value: dict[str, Value] = {
            "thing": thing,
            "urgent": thing == "travel",
            "tags": [place] if place != "Lima" else [],
        }
        if place != "Oslo":
            value["where"] = {"place": place, "note": None}
        return value

    contract = Fields(
        (
            ("thing", Choice(("weather", "travel", "food"))),
            ("urgent", Choice((True, False))),
            ("tags", Choices(("Boston", "Oslo"))),
            ("where", Fields((("place", Choice(("Boston", "Lima", None))), ("note", Choice((None,)))))),
            ("same", Choice((None,))),
        )
    )
    rows: list[tuple[str, Value]] = [(text, answer(thing, place)) for text, thing, place in made(500, 8)]
    model = fitted(contract, rows[:400], rows[400:])
    assert accuracy(model, rows[400:]) > 0.9
    assert model.predict(["book a train to Oslo"])[0].value == {"thing": "travel", "urgent": True, "tags": ["Oslo"]}
    # targets may be texts that hold the object
    as_text: list[tuple[str, Value]] = [(text, json.dumps(value)) for text, value in rows]
    assert accuracy(fitted(contract, as_text[:400], as_text[400:]), rows[400:]) > 0.9


def test_tool_calls() -> None:
    def call(thing: str, place: str) -> Value:
        if thing == "food":
            return {"tool_calls": []}
        arguments: Value = {"place": place} if thing == "weather" else {"to": place, "by": "train"}
        return {"tool_calls": [{"name": thing, "arguments": arguments}]}

    contract = ToolCall(
        (
            ("weather", Fields((("place", Choice(PLACES)),))),
            ("travel", Fields((("to", Choice(PLACES)), ("by", Choice(("train", None)))))),
            ("never", Fields((("x", Choice((1, 2))),))),
        ),
        none_allowed=True,
    )
    rows: list[tuple[str, Value]] = [(text, call(thing, place)) for text, thing, place in made(500, 9)]
    model = fitted(contract, rows[:400], rows[400:])
    assert accuracy(model, rows[400:]) > 0.9
    assert model.predict(["order a pizza in Lima"])[0].value == {"tool_calls": []}
    assert model.predict(["how warm is it in Oslo"])[0].value == {
        "tool_calls": [{"name": "weather", "arguments": {"place": "Oslo"}}]
    }


def test_unsupported_contracts_say_where() -> None:
    family = LinearFamily()
    assert family.supports(Choice(("a", "b"))) is None
    assert family.supports(Fields((("order", Fields((("city", Many(Span())), ("count", Number())))),))) is None
    for open_ended in (Text(), Many(Text()), Many(Choice(("a",))), Many(Fields((("a", Span()),)))):
        reason = family.supports(Fields((("order", Fields((("city", open_ended),))),)))
        assert reason is not None and "order.city" in reason
    reason = family.supports(ToolCall((("find", Fields((("q", Text()),))),)))
    assert reason is not None and "find().q" in reason
    assert family.supports(Text()) is not None
    assert [recipe.seed for recipe in family.recipes(7)] == [7] * len(family.recipes(7))


def test_degenerate_training_sets() -> None:
    one: list[tuple[str, Value]] = [("a text", "only"), ("another", "only")]
    constant = fitted(Choice(("only", "other")), one, one)
    assert constant.predict(["anything", ""])[0].value == "only"
    for values in (["x"] * 50 + ["once"], ["x", "y"]):
        rows: list[tuple[str, Value]] = [(f"row {i} says {v}", v) for i, v in enumerate(values)]
        assert fitted(Choice(tuple(sorted(set(values)))), rows, rows[:3]).predict(["row says y"])[0].value in values
    blank: list[tuple[str, Value]] = [("", "x"), ("  ", "y")]
    assert fitted(Choice(("x", "y")), blank, blank).predict([""])[0].value in ("x", "y")
    assert fitted(Choice(("x", "y")), [], []).predict(["text"])[0].value == "x"
    out_of_contract: list[tuple[str, Value]] = [("one", "x"), ("two", "y"), ("three", "z"), ("four", {"a": 1})]
    assert fitted(Choice(("x", "y")), out_of_contract, out_of_contract).predict(["one"])[0].value == "x"


def test_odd_texts(choosing: LinearSpecialist) -> None:
    texts = [
        "",
        " \n\t ",
        "明日の天気",
        "الطقس غدا",
        "🙂" * 50,
        "a" * 40_000,
        "rain in Oslo " * 3_000,
        "\ud800 \x00 İ" * 9_000,
    ]
    found = choosing.predict(texts)
    assert all(np.isfinite([p.score, *p.parts.values()]).all() for p in found)
    assert not any(p.familiar for p in found[:6])
    alone = [choosing.predict([text])[0] for text in texts]
    assert alone == found, "a prediction is a function of its text alone"
    assert len(normalised("x" * 90_000)) <= LONGEST_CHARS + 3


def test_other_scripts_are_learned() -> None:
    things = {"天気": ("明日は雨ですか", "外は寒いですか"), "列車": ("切符を予約したい", "次の列車はいつ")}
    rows: Sequence[tuple[str, Value]] = [
        (f"{aside}{text}", thing)
        for aside in ("", "すみません、", "教えて、", "至急、")
        for thing, texts in things.items()
        for text in texts
    ] * 8
    assert accuracy(fitted(Choice(tuple(things)), rows, rows), rows) == 1.0


def test_scores_of_sure_answers_do_not_tie(choosing: LinearSpecialist) -> None:
    texts = sorted({text for text, _, _ in made(300, 12)})
    scores = [p.score for p in choosing.predict(texts)]
    assert len(set(scores)) > 0.99 * len(texts)
    assert max(scores) < 1


def test_same_arguments_same_bytes_and_loads_back(tmp_path: Path) -> None:
    rows: list[tuple[str, Value]] = [(text, thing) for text, thing, _ in made(250, 10)]
    folders = [tmp_path / "one", tmp_path / "two"]
    models = []
    for folder in folders:
        folder.mkdir()
        models.append(fitted(Choice(("weather", "travel", "food")), rows[:150], rows[150:]))
        models[-1].save(folder)
    files = sorted(path.name for path in folders[0].iterdir())
    assert files == ["model.json", "model.safetensors"]
    for name in files:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()
    texts = [text for text, _ in rows]
    assert LinearFamily().load(folders[0]).predict(texts) == models[0].predict(texts)


def test_damage_is_one_clear_sentence(tmp_path: Path, choosing: LinearSpecialist) -> None:
    family = LinearFamily()
    with pytest.raises(ArtefactError):
        family.load(tmp_path / "missing")
    choosing.save(tmp_path)
    tensors, settings = tmp_path / "model.safetensors", tmp_path / "model.json"
    whole, told = tensors.read_bytes(), settings.read_bytes()

    def refused(word: str) -> None:
        with pytest.raises(ArtefactError, match=word) as caught:
            family.load(tmp_path)
        assert "\n" not in str(caught.value)
        tensors.write_bytes(whole)
        settings.write_bytes(told)

    tensors.write_bytes(whole[:-10])
    refused("cannot be read")
    settings.write_text("{}")
    refused("cannot be read")
    settings.write_bytes(told.replace(b"weather", b"wea").replace(b'"format": 3', b'"format": 2'))
    refused("format")
    for name, array in load_file(tensors).items():
        arrays = load_file(tensors)
        del arrays[name]
        save_file(arrays, tensors)
        refused(name)
        if array.dtype.kind == "f" and name != "limits":
            arrays = load_file(tensors)
            arrays[name] = array.copy()
            arrays[name].flat[0] = np.nan
            save_file(arrays, tensors)
            refused("finite")
        if not len(array):  # one question has no combinations
            continue
        arrays = load_file(tensors)
        arrays[name] = array[:-1].copy()
        save_file(arrays, tensors)
        refused("is not whole")
    arrays = load_file(tensors)
    arrays["kept"] = arrays["kept"] + np.array([-1000, 1000, 0])
    save_file(arrays, tensors)
    refused("miscounted")
    assert family.load(tmp_path).predict(["rain"]) == choosing.predict(["rain"])


def test_loading_and_predicting_need_no_training_library(tmp_path: Path, choosing: LinearSpecialist) -> None:
    choosing.save(tmp_path)
    script = (
        "import sys, pathlib\n"
        "from suffice.specialists.linear import LinearFamily\n"
        "print(LinearFamily().load(pathlib.Path(sys.argv[1])).predict(['rain in Oslo'])[0].value)\n"
        "assert not {'sklearn', 'scipy', 'torch', 'wordllama'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "weather"


def test_vocabulary_is_capped_and_keeps_the_commonest() -> None:
    hasher = Hasher()
    hashes = [hasher.hashes(normalised(text)) for text, _, _ in made(200, 11)]
    small = build_vocabulary(hashes, 2, 50)
    large = build_vocabulary(hashes, 2, 10**6)
    assert len(small.hashes) == 50
    assert set(small.hashes.tolist()) <= set(large.hashes.tolist())
    assert small.weights.max() <= np.sort(large.weights)[:50].max() + 1e-6
