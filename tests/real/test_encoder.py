"""The encoder family: export, fine-tuning, resuming, artefacts and what it refuses, on a tiny random model made here;
and the installed base model, frozen. Skips where its packages are not installed (`make encoders`)."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from suffice.core.errors import ArtefactError, BudgetSpent, InputError
from suffice.core.protocols import Encoded
from suffice.core.types import (
    Choice,
    Choices,
    Example,
    Fields,
    Many,
    OutputContract,
    Recipe,
    Span,
    ToolCall,
    TrainSet,
    TuneSet,
)
from suffice.core.values import Value
from suffice.specialists.encoder import BASE, EncoderFamily
from suffice.specialists.encoder_base import ABOUT, GRAPH, TOKENIZER, digest, load_encoder, read_about
from suffice.specialists.encoder_export import PACKAGED, base_folder, load_model, torch_vectors
from suffice.specialists.encoder_targets import targets_of
from suffice.specialists.encoder_tune import Tuning, tune

for package in ("torch", "transformers", "onnx", "onnxruntime"):
    pytest.importorskip(package, reason=f"{package} is not installed: make encoders")

THINGS = {
    "animal": ("cat", "dog", "horse", "bird", "fish", "mouse"),
    "colour": ("red", "green", "blue", "black", "white", "pink"),
    "food": ("bread", "cheese", "rice", "soup", "apple", "cake"),
}
ASIDES = ("please", "i", "want", "the", "a", "now", "show", "me", "is", "it", "very", "nice")


def made(n: int, seed: int) -> list[tuple[str, str]]:
    """(text, kind of the thing in it) rows; a text names a thing between other words."""
    dice = random.Random(seed)
    rows = []
    for _ in range(n):
        kind = dice.choice(sorted(THINGS))
        words = [*dice.choices(ASIDES, k=dice.randint(1, 3)), dice.choice(THINGS[kind]), *dice.choices(ASIDES, k=2)]
        rows.append((" ".join(words), kind))
    return rows


def examples(rows: Sequence[tuple[str, Value]], prefix: str) -> list[Example]:
    return [
        Example(id=f"{prefix}{i}", input=text, output=value, has_output=True) for i, (text, value) in enumerate(rows)
    ]


def quiet(what: str, share: float) -> None:
    assert what and 0 <= share <= 1


KINDS = Choice(tuple(sorted(THINGS)))
TRAIN, TUNE = TrainSet(examples(made(200, 1), "a")), TuneSet(examples(made(60, 2), "t"))


def vocabulary() -> list[str]:
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    return [*marks, *ASIDES, *(thing for things in THINGS.values() for thing in things)]


def tiny(folder: Path, kind: str = "bert") -> Path:
    """A random model of some kind with a tokenizer that knows the words above."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModel

    sizes: dict[str, Any] = {
        "bert": {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 40,
            "hidden_dropout_prob": 0.1,
        },
        "gpt2": {"n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 40},
        "t5": {"d_model": 32, "d_ff": 32, "d_kv": 16, "num_layers": 1, "num_heads": 2},
    }
    tokenizer = Tokenizer(WordLevel({word: at for at, word in enumerate(vocabulary())}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(kind, vocab_size=len(vocabulary()), **sizes[kind]))
    model.save_pretrained(folder)
    tokenizer.save(str(folder / TOKENIZER))
    return folder


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def tuned(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artefact of a fine-tuned specialist."""
    folder = tmp_path_factory.mktemp("tuned")
    family = EncoderFamily(str(base), folder.parent / "bases")
    recipe = Recipe(family="encoder", seed=3, params={"epochs": 4, "rate": 3e-3})
    family.fit(recipe, KINDS, TRAIN, TUNE, quiet).save(folder)
    return folder


def test_tuned_specialist_learns_and_comes_back_whole(tuned: Path, tmp_path: Path) -> None:
    family = EncoderFamily("not needed to serve", tmp_path)
    model = family.load(tuned)
    rows = made(100, 9)
    found = model.predict([text for text, _ in rows])
    assert np.mean([p.value == kind for p, (_, kind) in zip(found, rows, strict=True)]) > 0.95
    assert isinstance(model, Encoded)
    # alone, in company, read before, and saved again: the same answer with the same score
    assert [model.predict([text])[0] for text, _ in rows[:9]] == found[:9]
    assert model.predict_read([rows[0][0]], model.encoder.read([rows[0][0]])) == found[:1]
    model.save(tmp_path)
    assert family.load(tmp_path).predict([text for text, _ in rows]) == found
    assert {path.suffix for path in tuned.iterdir()} == {".onnx", ".json", ".safetensors"}


def test_fit_again_is_the_same_artefact(base: Path, tuned: Path, tmp_path: Path) -> None:
    recipe = Recipe(family="encoder", seed=3, params={"epochs": 4, "rate": 3e-3})
    EncoderFamily(str(base), tmp_path / "bases").fit(recipe, KINDS, TRAIN, TUNE, quiet).save(tmp_path)
    for path in tuned.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name


def test_serving_needs_no_torch(tuned: Path, tmp_path: Path) -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from pathlib import Path; from suffice.specialists.encoder import EncoderFamily;"
            f"print(EncoderFamily(None, Path()).load(Path({str(tuned)!r})).predict(['show me the cat now'])[0].value);"
            "print(sorted({'torch', 'transformers', 'onnx', 'sklearn'} & sys.modules.keys()))",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split("\n")[:2] == ["animal", "[]"]


def test_odd_texts(tuned: Path, tmp_path: Path) -> None:
    model = EncoderFamily(None, tmp_path).load(tuned)
    odd = ["", " \n ", "\ud800 cat \udfff", "我的卡在哪里", "red " * 20_000, "\x00", "a\u0301" * 50]
    found = model.predict(odd)
    assert len(found) == len(odd) and all(0 <= p.score <= 1 for p in found)
    readings = model.encoder.read(odd)
    assert all(abs(float(np.linalg.norm(r.vector)) - 1) < 1e-5 for r in readings[2:])
    assert not readings[0].vector.any() and not readings[1].words([(0, 1)]).any()
    assert readings[4].words([(0, 3), (79_000, 79_003)]).any(axis=1).tolist() == [True, False]


def weights(model: Any) -> dict[str, Any]:
    return {name: each.detach().numpy().copy() for name, each in model.named_parameters()}


@pytest.mark.parametrize("stopped_at", [4, 8])
def test_interrupted_tuning_ends_where_an_uninterrupted_one_does(base: Path, tmp_path: Path, stopped_at: int) -> None:
    texts, targets = [example.input for example in TRAIN][:70], targets_of(KINDS, list(TRAIN)[:70])
    settings = Tuning(epochs=3, rate=1e-3, seed=5)
    whole, tokenizer, _ = load_model(base)
    before = weights(whole)
    tune(whole, tokenizer, texts, targets, settings, quiet)
    stopped, tokenizer, _ = load_model(base)

    steps = []

    def spent(what: str, share: float) -> None:
        steps.append(share)
        if len(steps) == stopped_at:
            raise BudgetSpent("the budget is spent")

    with pytest.raises(BudgetSpent):
        tune(stopped, tokenizer, texts, targets, settings, spent, tmp_path)
    resumed, tokenizer, _ = load_model(base)
    again: list[float] = []
    tune(resumed, tokenizer, texts, targets, settings, lambda what, share: again.append(share), tmp_path)
    assert len(steps) + len(again) == 9
    after, expected = weights(resumed), weights(whole)
    for name, each in expected.items():
        np.testing.assert_allclose(after[name], each, atol=1e-6, err_msg=name)
    assert any(np.abs(expected[name] - before[name]).max() > 1e-4 for name in before)


def test_a_checkpoint_is_left_every_minute(base: Path, tmp_path: Path) -> None:
    texts, targets = [example.input for example in TRAIN][:70], targets_of(KINDS, list(TRAIN)[:70])
    for name, seconds in (("slow", 100), ("fast", 0)):
        model, tokenizer, _ = load_model(base)
        kept: list[bool] = []

        def look(what: str, share: float, folder: Path = tmp_path / name, kept: list[bool] = kept) -> None:
            kept.append((folder / "tuning.safetensors").is_file())

        clock = map(float, count(0, seconds)).__next__
        tune(model, tokenizer, texts, targets, Tuning(epochs=1), look, tmp_path / name, clock)
        assert kept == [name == "slow", name == "slow", True]  # the last step is kept anyway


def test_a_torn_checkpoint_is_not_gone_on_from(base: Path, tmp_path: Path) -> None:
    (tmp_path / "tuning.safetensors").write_bytes(b"half of it")
    model, tokenizer, _ = load_model(base)
    seen: list[float] = []
    targets = targets_of(KINDS, list(TRAIN)[:32])
    texts = [example.input for example in TRAIN][:32]
    tune(model, tokenizer, texts, targets, Tuning(epochs=2), lambda what, share: seen.append(share), tmp_path)
    assert seen == [0.5, 1.0]


def test_tuning_tells_when_memory_runs_out(base: Path) -> None:
    model, tokenizer, _ = load_model(base)

    def short(**inputs: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes")

    model.forward = short
    targets = targets_of(KINDS, list(TRAIN))
    with pytest.raises(MemoryError, match=r"batches of 32 texts.*smaller base"):
        tune(model, tokenizer, [example.input for example in TRAIN], targets, Tuning(), quiet)


def test_targets_of_pieces_and_classes() -> None:
    contract = Fields((("kind", KINDS), ("things", Many(Span()))))
    rows: list[tuple[str, Value]] = [
        ("show me the red cat", {"kind": "animal", "things": ["red", "cat"]}),
        ("now a soup", {"kind": "food", "things": ["soup"]}),
        ("it is nice", {"kind": "colour"}),
        ("a cake", {"kind": "food", "things": ["bread"]}),
    ]
    targets = targets_of(contract, examples(rows, "a"))
    assert targets.sizes == [3] and targets.classes[0].tolist() == [0, 2, 1, 2]
    tags = [None if row is None else row.tags.tolist() for row in targets.tagged]
    assert tags == [[0, 0, 0, 1, 1], [0, 0, 1], [0, 0, 0], None]


def test_targets_of_labels_and_arguments(base: Path) -> None:
    rows: list[tuple[str, Value]] = [("red cat", ["animal", "colour"]), ("soup", []), ("a dog", ["animal"])]
    labels = targets_of(Choices(tuple(sorted(THINGS))), examples(rows, "a"))
    assert labels.sizes == [] and labels.yes_no.tolist() == [[1, 1], [0, 0], [1, 0]]  # nobody says `food`
    model, tokenizer, _ = load_model(base)
    before = weights(model)
    tune(model, tokenizer, [text for text, _ in rows], labels, Tuning(epochs=1), quiet)
    assert any(np.abs(each - before[name]).max() > 0 for name, each in weights(model).items())

    tools = ToolCall((("show", Fields((("thing", Span()),))), ("stop", Fields(()))), none_allowed=True)
    calls: list[tuple[str, Value]] = [
        ("show the cat", {"tool_calls": [{"name": "show", "arguments": {"thing": "cat"}}]}),
        ("now", {"tool_calls": [{"name": "stop", "arguments": {}}]}),
        ("nice", {"tool_calls": []}),
    ]
    called = targets_of(tools, examples(calls, "a"))
    assert called.sizes == [3] and called.tags == 3
    assert [None if row is None else row.tags.tolist() for row in called.tagged] == [[0, 0, 1], None, None]


def test_tuned_on_pieces(base: Path, tmp_path: Path) -> None:
    rows: list[tuple[str, Value]] = [
        (text, {"thing": next(word for word in text.split() if word in THINGS[kind])}) for text, kind in made(120, 4)
    ]
    contract: OutputContract = Fields((("thing", Span()),))
    family = EncoderFamily(str(base), tmp_path)
    recipe = Recipe(family="encoder", params={"epochs": 1, "rate": 1e-3})
    train, tune_on = TrainSet(examples(rows[:90], "a")), TuneSet(examples(rows[90:], "t"))
    model = family.fit(recipe, contract, train, tune_on, quiet)
    assert [p.value for p in model.predict([rows[100][0]])] == [rows[100][1]]


def test_a_fit_that_is_stopped_leaves_no_encoder_behind(
    base: Path, tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    scratch = tmp_path / "scratch"
    (scratch / "encoder").mkdir(parents=True)
    for name in (GRAPH, TOKENIZER, ABOUT):
        (scratch / "encoder" / name).write_bytes((tuned / name).read_bytes())
    (tmp_path / "tmp").mkdir()
    family = EncoderFamily(str(base), tmp_path / "bases")
    recipe = Recipe(family="encoder", seed=3, params={"epochs": 4, "rate": 3e-3})

    def spent(what: str, share: float) -> None:
        raise BudgetSpent("the budget is spent")

    with pytest.raises(BudgetSpent):
        family.fit(recipe, KINDS, TRAIN, TUNE, spent, scratch)
    assert list((tmp_path / "tmp").iterdir()) == []

    # what an earlier run left there is taken; torn by a crash, it is made again
    (scratch / "encoder" / GRAPH).write_bytes(b"")
    family.fit(recipe, KINDS, TRAIN, TUNE, quiet, scratch).save(tmp_path)
    assert (tmp_path / GRAPH).read_bytes() == (tuned / GRAPH).read_bytes()


def test_a_recipe_that_names_its_base_is_fitted_over_it(base: Path, tmp_path: Path) -> None:
    family = EncoderFamily(str(tmp_path / "another"), tmp_path / "bases")
    recipe = Recipe(family="encoder", params={"base": str(base)})
    assert family.fit(recipe, KINDS, TRAIN, TUNE, quiet).predict(["a cat"])


def test_blank_texts_that_have_no_word_pieces_teach_nothing(base: Path) -> None:
    from tokenizers.processors import TemplateProcessing

    model, tokenizer, _ = load_model(base)
    tokenizer.post_processor = TemplateProcessing("$A", special_tokens=[])
    rows = [*made(40, 1), *((" ", "food") for _ in range(40))]
    targets = targets_of(KINDS, examples(rows, "a"))
    tune(model, tokenizer, [text for text, _ in rows], targets, Tuning(epochs=1), quiet)
    assert all(np.isfinite(each).all() for each in weights(model).values())


# ---------------------------------------------------------------------------------------------- what is refused


def test_other_models_are_no_base(base: Path, tmp_path: Path) -> None:
    def copied(without: str) -> Path:
        folder = tmp_path / f"without-{without}"
        folder.mkdir()
        for path in base.iterdir():
            if path.name != without:
                (folder / path.name).write_bytes(path.read_bytes())
        return folder

    cases: list[tuple[Callable[[], Path], str]] = [
        (lambda: tiny(tmp_path / "gpt2", "gpt2"), "is a decoder"),
        (lambda: tiny(tmp_path / "t5", "t5"), "sequence-to-sequence"),
        (lambda: copied("tokenizer.json"), "has no tokenizer.json"),
        (lambda: copied("model.safetensors"), "no weights in safetensors"),
    ]
    for make, said in cases:
        with pytest.raises(InputError, match=said):
            load_model(make())
    for name in (str(tmp_path / "nowhere"), "./nowhere", str(base / "config.json")):
        with pytest.raises(InputError, match="is not a folder with a model"):
            base_folder(name)


def test_artefacts_that_are_not_whole(base: Path, tuned: Path, tmp_path: Path) -> None:
    family = EncoderFamily(str(base), tmp_path / "bases")
    frozen = tmp_path / "frozen"
    frozen.mkdir()
    family.fit(Recipe(family="encoder"), KINDS, TRAIN, TUNE, quiet).save(frozen)
    assert (frozen / BASE).is_file() and not (frozen / GRAPH).exists()
    with pytest.raises(ArtefactError, match="is gone"):
        EncoderFamily(None, tmp_path / "elsewhere").load(frozen)

    moved = tmp_path / "moved"
    (tmp_path / "bases").rename(moved)
    graph = next(moved.glob(f"*/{GRAPH}"))
    graph.write_bytes(graph.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtefactError, match="corrupt"):
        EncoderFamily(None, moved).load(frozen)
    # learning again makes the base again, byte for byte: what was fitted on it before can be served again
    EncoderFamily(str(base), moved).fit(Recipe(family="encoder"), KINDS, TRAIN, TUNE, quiet)
    assert EncoderFamily(None, moved).load(frozen).predict(["a cat"])

    # one that is whole, and cannot be loaded here, is left alone: releases elsewhere read with it
    folder = next(moved.iterdir())
    (folder / GRAPH).write_bytes(b"of another version")
    about = read_about(folder)
    (folder / ABOUT).write_bytes(msgspec.json.encode(msgspec.structs.replace(about, files=digest(folder))))
    with pytest.raises(ArtefactError, match="cannot be loaded"):
        EncoderFamily(str(base), moved).fit(Recipe(family="encoder"), KINDS, TRAIN, TUNE, quiet)
    assert (folder / GRAPH).read_bytes() == b"of another version"

    for name in (TOKENIZER, ABOUT, GRAPH):
        broken = tmp_path / f"broken-{name}"
        broken.mkdir()
        for path in tuned.iterdir():
            (broken / path.name).write_bytes(b"{}" if path.name == name else path.read_bytes())
        with pytest.raises(ArtefactError):
            family.load(broken)


# ---------------------------------------------------------------------------------------------- the installed base


def test_installed_base_as_it_is(tmp_path: Path) -> None:
    pytest.importorskip(PACKAGED, reason="no base model is installed: make encoders")
    questions = {
        "lost": ("I lost my {}", "my {} is gone", "someone stole my {}", "I cannot find my {} any more"),
        "fee": (
            "why was I charged for the {}",
            "what does a {} cost",
            "is there a fee for my {}",
            "the {} is too dear",
        ),
        "order": ("please send me a {}", "I want a new {}", "how do I get a {}", "may I have another {}"),
    }
    dice = random.Random(7)
    things = ("card", "phone", "passport", "ticket", "key", "wallet")
    rows: list[tuple[str, Value]] = []
    for _ in range(200):
        kind = dice.choice(sorted(questions))
        rows.append((f"{dice.choice(questions[kind]).format(dice.choice(things))} {dice.choice(ASIDES)}", kind))
    family = EncoderFamily(None, tmp_path / "bases")
    train, tune_on = TrainSet(examples(rows[:140], "a")), TuneSet(examples(rows[140:], "t"))
    contract = Choice(tuple(sorted(questions)))
    model = family.fit(family.recipes(0)[0], contract, train, tune_on, quiet)
    new = {
        "my purse has vanished": "lost",
        "what is the price of a permit": "fee",
        "could I order a second badge": "order",
    }
    assert [p.value for p in model.predict(list(new))] == list(new.values())
    model.save(tmp_path)
    loaded = family.load(tmp_path)
    assert loaded.encoder is model.encoder
    assert sum(path.stat().st_size for path in tmp_path.iterdir() if path.is_file()) < 2_000_000

    torch_model, tokenizer, _ = load_model(base_folder(None))
    texts = [*new, "Wo ist meine Karte?", "我的卡在哪里"]
    own = torch_vectors(torch_model, tokenizer, texts)
    served = np.stack([reading.vector for reading in model.encoder.read(texts)])
    assert (own * served).sum(axis=1).min() > 0.95
    assert load_encoder(next((tmp_path / "bases").iterdir())).about.cosine > 0.98
