"""CTranslate2 and onnxruntime-genai, real ones on a tiny model: the same answers and the same chances as transformers,
and a release that is served by the one it was certified with."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from suffice.core.errors import ArtefactError, InputError
from suffice.core.types import Example, OutputContract, Recipe, Text, TrainSet, TuneSet
from suffice.specialists.causal_grammar import schema_of
from suffice.specialists.runtimes import chosen
from suffice.specialists.runtimes.chosen import Choice

for needed in ("torch", "transformers", "trl", "peft", "gguf", "llguidance"):
    pytest.importorskip(needed, reason="the extra llm is not installed")

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from causal_tiny import CONTRACTS, PROMPTS, loaded  # noqa: E402

BOTH = ("ctranslate2", "onnxruntime_genai")


@pytest.fixture(scope="module", params=BOTH)
def served(request: pytest.FixtureRequest, checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Each runtime with the model in 32 bits."""
    pytest.importorskip(request.param, reason="the extra runtimes is not installed")
    folder = tmp_path_factory.mktemp(request.param)
    ends = [loaded(checkpoint).tokenizer.eos_token_id]
    if request.param == "ctranslate2":
        from suffice.specialists.runtimes.ctranslate2_ import open_ctranslate2, write_ctranslate2

        write_ctranslate2(checkpoint, folder, bits=32)
        yield open_ctranslate2(folder, context=256, ends=ends)
        return
    from suffice.specialists.runtimes.genai import open_genai, write_genai

    write_genai(checkpoint, folder)
    yield open_genai(folder, context=256, ends=ends)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: type(contract).__name__)
def test_it_writes_what_transformers_writes_and_is_as_sure(
    contract: OutputContract | None, reference: Any, served: Any
) -> None:
    schema = None if contract is None else schema_of(contract)
    ours = served.write(PROMPTS, schema=schema, most_tokens=40)
    theirs = reference.write(PROMPTS, schema=schema, most_tokens=40)
    for own, other in zip(ours, theirs, strict=True):
        assert (own.tokens, own.pieces, own.text, own.finished) == (
            other.tokens, other.pieces, other.text, other.finished,
        )  # fmt: skip
        assert np.allclose(own.logprobs, other.logprobs, atol=1e-3)
        assert np.allclose(own.others, other.others, atol=1e-3)


def test_a_given_answer_is_read_alike_and_limits_are_told(reference: Any, served: Any) -> None:
    assert np.allclose(served.read(PROMPTS[0], "Zoë, 日本!"), reference.read(PROMPTS[0], "Zoë, 日本!"), atol=1e-3)
    with pytest.raises(ValueError, match=r"the prompt has \d+ tokens, the model's context is 256 tokens"):
        served.write(["word " * 300], schema=None, most_tokens=1)
    with pytest.raises(ValueError, match="schema"):
        served.write(PROMPTS[:1], schema={"type": "string", "pattern": "(?=a)b"}, most_tokens=9)
    [cut] = served.write(PROMPTS[:1], schema={"type": "string", "minLength": 30}, most_tokens=5)
    assert not cut.finished
    assert len(cut.tokens) == 5


def test_eight_bits_pass_for_what_they_are_and_another_model_does_not(
    checkpoint: Path, reference: Any, tmp_path: Path
) -> None:
    pytest.importorskip("ctranslate2", reason="the extra runtimes is not installed")
    import torch

    from suffice.specialists.causal_parity import parity
    from suffice.specialists.runtimes.ctranslate2_ import open_ctranslate2, rounded_rows, write_ctranslate2

    write_ctranslate2(checkpoint, tmp_path, bits=8)
    runtime = open_ctranslate2(tmp_path, context=256, ends=[reference.tokenizer.eos_token_id])
    answers = runtime.write(PROMPTS, schema=None, most_tokens=20)
    assert parity(reference, runtime.name, 8, PROMPTS, answers, rounded_rows).fault is None
    other = loaded(checkpoint)
    with torch.no_grad():
        for name, weight in other.model.named_parameters():
            if "q_proj" in name:
                weight.copy_(weight.flip(0))
    assert parity(other, runtime.name, 8, PROMPTS, answers, rounded_rows).fault is not None
    (tmp_path / "model.bin").write_bytes((tmp_path / "model.bin").read_bytes()[:5_000])
    with pytest.raises(ArtefactError, match="CTranslate2 cannot load"):
        open_ctranslate2(tmp_path, context=256, ends=[0])


def test_an_architecture_that_it_does_not_know_is_told(checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2", reason="the extra runtimes is not installed")
    from suffice.specialists.runtimes.ctranslate2_ import write_ctranslate2

    shutil.copytree(checkpoint, tmp_path / "other")
    config = msgspec.json.decode((tmp_path / "other" / "config.json").read_bytes())
    changed = {**config, "model_type": "xglm", "architectures": ["XGLMForCausalLM"]}
    (tmp_path / "other" / "config.json").write_bytes(msgspec.json.encode(changed))
    with pytest.raises(InputError, match="cannot be converted for CTranslate2"):
        write_ctranslate2(tmp_path / "other", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


# ---------------------------------------------------------------------------------------------- a release of it


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Any], list[str]]:
    """The folder of a specialist that CTranslate2 runs, what it answered before, and what it was asked."""
    pytest.importorskip("ctranslate2", reason="the extra runtimes is not installed")
    import tiny_base

    from suffice.specialists.causal import CausalFamily

    base = tiny_base.make(tmp_path_factory.mktemp("base") / "tiny")

    def rows(n: int, seed: int) -> list[Example]:
        return [
            Example(id=f"{seed}-{i}", input=text, output=tiny_base.REPLY.format(**said), has_output=True)
            for i, (text, said) in enumerate(tiny_base.orders(n, seed))
        ]

    family = CausalFamily(str(base), base.parent / "bases", choice=Choice("ctranslate2"))
    [recipe] = family.recipes(0)
    assert recipe.params["runtime"] == "ctranslate2"
    recipe = Recipe(family="causal", params={**recipe.params, "steps": 0})
    fitted = family.fit(recipe, Text(), TrainSet(rows(200, 1)), TuneSet(rows(24, 2)), lambda *_: None)
    folder = tmp_path_factory.mktemp("saved")
    fitted.save(folder)
    asked = [row.input for row in rows(6, 3)]
    return folder, fitted.predict(asked), asked


def test_a_release_answers_as_it_did_when_it_was_made(saved: tuple[Path, list[Any], list[str]]) -> None:
    from suffice.specialists.causal import CausalFamily

    folder, before, asked = saved
    told = msgspec.json.decode((folder / "causal.json").read_bytes())
    assert told["runtime"]["kind"] == told["parity"]["runtime"] == "ctranslate2"
    assert told["runtime"]["version"] == importlib.metadata.version("ctranslate2")
    assert not (folder / "model.gguf").exists()
    assert CausalFamily(None, folder / "bases").load(folder).predict(asked) == before
    assert any(each.value is not None for each in before)


def test_a_release_is_not_served_by_another_runtime(
    saved: tuple[Path, list[Any], list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suffice.specialists.causal import CausalFamily

    folder = Path(shutil.copytree(saved[0], tmp_path / "model"))
    told = msgspec.json.decode((folder / "causal.json").read_bytes())
    older = {**told, "runtime": {**told["runtime"], "version": "4.0.0"}}
    (folder / "causal.json").write_bytes(msgspec.json.encode(older))
    with pytest.raises(ArtefactError, match=r"certified with ctranslate2 4\.0\.0, and .* is here"):
        CausalFamily(None, tmp_path).load(folder)
    gone = {**chosen.PACKAGES, "ctranslate2": ("no_such_package",)}
    monkeypatch.setattr(chosen, "PACKAGES", gone)
    with pytest.raises(ArtefactError, match=r"certified with the runtime ctranslate2, which is not installed"):
        CausalFamily(None, tmp_path).load(saved[0])


def test_what_is_not_installed_is_told_with_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chosen, "PACKAGES", {"llamacpp": ("none_a",), "ctranslate2": ("none_b",), "genai": ("none_c",)})
    with pytest.raises(InputError, match=r"\[learn\] runtime ctranslate2: not installed: none_b \(`pip install"):
        chosen.choose("ctranslate2", {})
    monkeypatch.setattr(chosen, "PACKAGES", {"llamacpp": ("none_a",), "ctranslate2": ("json",), "genai": ("json",)})
    assert chosen.choose("auto", {}).kind == "ctranslate2"
