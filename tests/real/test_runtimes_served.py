"""Servers of generating models, in their documented words: small ones on loopback behind which transformers computes a
tiny model, so that answers and chances can be compared; and what is said where one is silent, slow, gone or another."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from suffice.core.config import from_dict
from suffice.core.errors import ArtefactError, InputError
from suffice.core.types import Fields, Number
from suffice.specialists.causal_grammar import schema_of
from suffice.specialists.runtime import Written
from suffice.specialists.runtimes.chosen import Choice, Place, Used, choose, make, opening

for needed in ("torch", "transformers", "gguf", "llguidance", "tokenizers"):
    pytest.importorskip(needed, reason="the extra llm is not installed")

sys.path.insert(0, str(Path(__file__).parents[1] / "e2e"))

from causal_tiny import PROMPTS  # noqa: E402

SCHEMA = schema_of(Fields((("n", Number(whole=True, least=0, most=99)),), required=("n",)))
ELSE = 1
"""The number of the token that a stand-in names as the next likeliest."""
Body = dict[str, Any] | bytes
Answer = Callable[[str, str, bytes, dict[str, str]], tuple[int, Body]]


@contextmanager
def server(answer: Answer) -> Iterator[str]:
    """The address of a server that answers so."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, said = answer(self.command, self.path, body, dict(self.headers))
            raw = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(raw)

        do_GET = do_POST = do_HEAD = _answer

        def log_message(self, *_: Any) -> None:
            pass

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=httpd.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
    finally:
        httpd.shutdown()
        httpd.server_close()


class Vllm:
    """vLLM's completions with `return_tokens_as_token_ids`; the token that ends an answer is told too."""

    def __init__(self, reference: Any) -> None:
        self.reference, self.loaded, self.keys = reference, ["base"], set[str | None]()
        self.asked: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Body]:
        self.keys.add(headers.get("Authorization"))
        if path == "/version":
            return 200, {"version": "0.28.0"}
        if path == "/v1/models":
            return 200, {"object": "list", "data": [{"id": name, "object": "model"} for name in self.loaded]}
        asked = json.loads(body)
        if path == "/v1/load_lora_adapter":
            self.loaded.append(asked["lora_name"])
            return 200, f"Success: LoRA adapter '{asked['lora_name']}' added successfully.".encode()
        self.asked.append(asked)
        if asked["model"] not in self.loaded:
            return 404, {"error": {"message": f"The model `{asked['model']}` does not exist.", "code": 404}}
        if "prompt_logprobs" in asked:
            return 200, {"choices": [{"text": "", "prompt_logprobs": self._prompt(asked["prompt"])}]}
        prompt = self.reference.tokenizer.decode(asked["prompt"])
        schema = asked.get("structured_outputs", {}).get("json")
        [written] = self.reference.write([prompt], schema=schema, most_tokens=asked["max_tokens"])
        told = [*zip(written.tokens, written.logprobs, written.others, strict=True)]
        told += [(self.reference.tokenizer.eos_token_id, -0.5, -2.0)] if written.finished else []
        logprobs = {
            "tokens": [f"token_id:{token}" for token, _, _ in told],
            "token_logprobs": [own for _, own, _ in told],
            "top_logprobs": [{f"token_id:{t}": own, f"token_id:{t + ELSE}": other} for t, own, other in told],
            "text_offset": [0] * len(told),
        }
        reason = "stop" if written.finished else "length"
        return 200, {"choices": [{"index": 0, "text": written.text, "logprobs": logprobs, "finish_reason": reason}]}

    def _prompt(self, tokens: list[int]) -> list[Any]:
        import torch

        with torch.inference_mode():
            chances = torch.log_softmax(self.reference.model(torch.tensor([tokens])).logits[0].double(), -1)
        told = [{str(t): {"logprob": float(chances[at, t]), "rank": 1}} for at, t in enumerate(tokens[1:])]
        return [None, *told]


class Ollama:
    """Ollama's `/api/generate` with `logprobs`, and how it gets a model."""

    def __init__(self, reference: Any) -> None:
        self.reference, self.blobs, self.models = reference, dict[str, int](), set[str]()
        self.asked: list[dict[str, Any]] = []

    def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Body]:
        if path == "/api/version":
            return 200, {"version": "0.13.5"}
        if path.startswith("/api/blobs/"):
            name = path.removeprefix("/api/blobs/")
            if method == "HEAD":
                return (200 if name in self.blobs else 404), b""
            assert name == f"sha256:{hashlib.sha256(body).hexdigest()}"
            self.blobs[name] = len(body)
            return 201, b""
        asked = json.loads(body)
        if path == "/api/create":
            assert set(asked["files"].values()) <= self.blobs.keys()
            self.models.add(asked["model"])
            return 200, {"status": "success"}
        if asked["model"] not in self.models:
            return 404, {"error": f"model '{asked['model']}' not found"}
        if path == "/api/show":
            return 200, {"details": {"format": "gguf"}}
        self.asked.append(asked)
        assert asked["raw"] and not asked["stream"]
        most = asked["options"]["num_predict"]
        [written] = self.reference.write([asked["prompt"]], schema=asked.get("format"), most_tokens=most)
        entries = [
            {"token": "", "bytes": [*piece], "logprob": own, "top_logprobs": [
                {"token": "", "bytes": [*piece], "logprob": own}, {"token": "?", "bytes": [1, 2], "logprob": other}]}
            for piece, own, other in zip(written.pieces, written.logprobs, written.others, strict=True)
        ]  # fmt: skip
        reason = "stop" if written.finished else "length"
        return 200, {"response": written.text, "done": True, "done_reason": reason, "logprobs": entries}


class Mlx:
    """`mlx_lm.server`'s completions: no schema is kept to, the model is a folder."""

    def __init__(self, reference: Any) -> None:
        self.reference, self.asked = reference, list[dict[str, Any]]()

    def __call__(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Body]:
        asked = json.loads(body)
        self.asked.append(asked)
        assert path == "/v1/completions"
        assert (Path(asked["model"]) / "model.safetensors").exists()
        [written] = self.reference.write([asked["prompt"]], schema=None, most_tokens=asked["max_tokens"])
        content = [
            {"id": token, "token": "x", "logprob": own, "top_logprobs": [
                {"id": token, "token": "x", "logprob": own}, {"id": token + ELSE, "token": "y", "logprob": other}]}
            for token, own, other in zip(written.tokens, written.logprobs, written.others, strict=True)
        ]  # fmt: skip
        choice = {"index": 0, "finish_reason": "stop" if written.finished else "length", "text": written.text}
        return 200, {"system_fingerprint": "0.28", "choices": [{**choice, "logprobs": {"content": content}}]}


KINDS: dict[str, type[Vllm | Ollama | Mlx]] = {"vllm": Vllm, "ollama": Ollama, "mlx": Mlx}


def place(kind: str, url: str, **more: Any) -> Place:
    return Place(name="there", kind=kind, url=url, model="base", **more)


def opened(kind: str, url: str, checkpoint: Path, own: Path, reference: Any, **more: Any) -> Any:
    """A runtime at this address, its model made and placed as when a task is learned."""
    at = place(kind, url, **more)
    if kind == "vllm":
        (own / "adapter_model.safetensors").write_bytes(b"an adapter")
    used = make(Choice(kind, at), checkpoint, own, 16, [reference.tokenizer.eos_token_id])
    return opening(used, own, 256, {"there": at})()


@pytest.mark.parametrize("kind", KINDS)
def test_a_server_writes_what_its_model_writes_and_tells_how_sure_it_was(
    kind: str, checkpoint: Path, reference: Any, tmp_path: Path
) -> None:
    behind = KINDS[kind](reference)
    with server(behind) as url:
        runtime = opened(kind, url, checkpoint, tmp_path, reference)
        for schema in (SCHEMA,) if kind == "ollama" else (None, SCHEMA):
            ours = runtime.write(PROMPTS, schema=schema, most_tokens=12)
            theirs = reference.write(PROMPTS, schema=None if kind == "mlx" else schema, most_tokens=12)
            for own, other in zip(ours, theirs, strict=True):
                assert _same(own, other)
        with pytest.raises(ValueError, match=r"the prompt has \d+ tokens, the model's context is 256 tokens"):
            runtime.write(["word " * 300], schema=None, most_tokens=1)  # some servers would cut it
        assert all(len(each["prompt"]) < 300 for each in behind.asked)


def _same(own: Written, other: Written) -> bool:
    told = (own.tokens, own.pieces, own.text, own.finished) == (other.tokens, other.pieces, other.text, other.finished)
    return told and np.allclose(own.logprobs, other.logprobs) and np.allclose(own.others, other.others)


def test_vllm_gets_the_adapter_once_and_is_asked_for_it_by_its_name(
    checkpoint: Path, reference: Any, tmp_path: Path
) -> None:
    behind = Vllm(reference)
    with server(behind) as url:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        first = opened("vllm", url, checkpoint, tmp_path / "one", reference, key="secret")
        first.write(PROMPTS, schema=SCHEMA, most_tokens=4)
        opened("vllm", url, checkpoint, tmp_path / "two", reference, key="secret").write(
            PROMPTS[:1], schema=None, most_tokens=4
        )
        assert np.allclose(first.read(PROMPTS[0], "Zoë"), reference.read(PROMPTS[0], "Zoë"))
    assert len(behind.loaded) == 2  # the base, and one adapter
    assert {each["model"] for each in behind.asked} == {behind.loaded[1]}
    assert behind.asked[0]["structured_outputs"]["json"] == SCHEMA
    assert behind.keys == {"Bearer secret"}


def test_a_token_that_ollama_tells_by_no_text_escalates_its_answer(
    checkpoint: Path, reference: Any, tmp_path: Path
) -> None:
    with server(Ollama(reference)) as url:
        runtime = opened("ollama", url, checkpoint, tmp_path, reference)
        with pytest.raises(ValueError, match="wrote b'', which is no token of the model"):
            runtime.write(PROMPTS, schema=None, most_tokens=12)  # what is untrained writes tokens that are no text


def test_ollama_gets_the_file_once(checkpoint: Path, reference: Any, tmp_path: Path) -> None:
    behind = Ollama(reference)
    with server(behind) as url:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            opened("ollama", url, checkpoint, tmp_path / name, reference).write(
                PROMPTS[:1], schema=SCHEMA, most_tokens=2
            )
    assert list(behind.blobs.values()) == [(tmp_path / "one" / "model.gguf").stat().st_size]
    assert len(behind.models) == 1


# ---------------------------------------------------------------------------------------------- what cannot be used


def silent(kind: str) -> dict[str, Any]:
    """The same answer without any probability."""
    if kind == "ollama":
        return {"response": "a", "done": True, "done_reason": "stop"}
    return {"choices": [{"text": "a", "finish_reason": "stop", "logprobs": None}]}


def alone(kind: str) -> dict[str, Any]:
    """With the probability of what was written alone."""
    if kind == "ollama":
        return {"response": "a", "done_reason": "stop", "logprobs": [{"token": "a", "logprob": -0.1}]}
    told: dict[str, Any] = {"content": [{"id": 3, "logprob": -0.1}]}
    if kind == "vllm":
        told = {"tokens": ["token_id:3"], "token_logprobs": [-0.1], "top_logprobs": [{"token_id:3": -0.1}]}
    return {"choices": [{"text": "a", "finish_reason": "stop", "logprobs": told}]}


def wrapped(reference: Any, kind: str, last: Callable[[], tuple[int, Body]]) -> Answer:
    """The stand-in, but for what it is asked to write."""
    behind = KINDS[kind](reference)

    def answer(method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, Body]:
        return last() if path in ("/v1/completions", "/api/generate") else behind(method, path, body, headers)

    return answer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("told", [silent, alone])
def test_a_server_that_tells_no_probabilities_is_refused(
    kind: str, told: Callable[[str], dict[str, Any]], checkpoint: Path, reference: Any, tmp_path: Path
) -> None:
    with server(wrapped(reference, kind, lambda: (200, told(kind)))) as url:
        runtime = opened(kind, url, checkpoint, tmp_path, reference)
        with pytest.raises(InputError, match=f"{kind} at {url} does not tell the log-probabilities"):
            runtime.write(PROMPTS[:1], schema=None, most_tokens=3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (500, {"error": "out of memory"}, "refused: 500 out of memory"),
        (400, {"error": {"message": "the grammar is too large", "code": 400}}, "refused: 400 the grammar is too large"),
        (200, b"<html>", "refused: 200 <html>"),
        (502, b"", "refused: 502"),
    ],
)
def test_what_a_server_refuses_is_told_in_its_words(
    kind: str, status: int, body: Body, said: str, checkpoint: Path, reference: Any, tmp_path: Path
) -> None:
    with server(wrapped(reference, kind, lambda: (status, body))) as url:
        runtime = opened(kind, url, checkpoint, tmp_path, reference)
        with pytest.raises(InputError, match=said):
            runtime.write(PROMPTS[:1], schema=None, most_tokens=3)


def test_a_server_that_is_slow_or_gone_is_told(checkpoint: Path, reference: Any, tmp_path: Path) -> None:
    released = threading.Event()

    def late() -> tuple[int, Body]:
        released.wait(5)
        return 200, silent("mlx")

    began = time.monotonic()
    with server(wrapped(reference, "mlx", late)) as url:
        runtime = opened("mlx", url, checkpoint, tmp_path, reference, timeout_s=0.2)
        with pytest.raises(InputError, match="gave no answer: timed out"):
            runtime.write(PROMPTS[:1], schema=None, most_tokens=3)
        released.set()
    assert time.monotonic() - began < 4
    with pytest.raises(InputError, match="gave no answer"):
        runtime.write(PROMPTS[:1], schema=None, most_tokens=3)


def test_a_release_is_served_by_what_it_was_certified_with(checkpoint: Path, reference: Any, tmp_path: Path) -> None:
    with server(Vllm(reference)) as url:
        opened("vllm", url, checkpoint, tmp_path, reference)
        here = place("vllm", url)
        used = Used(kind="vllm", server="there", version="0.27.1", model="base", ends=(1,))
        runtime = opening(used, tmp_path, 256, {"there": here})()
        with pytest.raises(InputError, match=r"is version 0\.28\.0, and the release was certified with 0\.27\.1"):
            runtime.write(PROMPTS[:1], schema=None, most_tokens=3)
    with pytest.raises(ArtefactError, match=r"certified with vllm at \[runtimes\.there\], which the settings do not"):
        opening(used, tmp_path, 256, {})()


def test_llamacpp_as_a_server_is_asked_for_its_version(checkpoint: Path, reference: Any, tmp_path: Path) -> None:
    pytest.importorskip("xllamacpp", reason="the extra llm is not installed")
    import xllamacpp

    from suffice.specialists.causal_gguf import write_gguf

    write_gguf(checkpoint, tmp_path / "model.gguf", bits=8)
    settings = xllamacpp.CommonParams()
    settings.model.path = str(tmp_path / "model.gguf")
    settings.n_ctx, settings.n_parallel, settings.verbosity, settings.hostnames = 256, 1, -1, ["127.0.0.1"]
    behind = xllamacpp.Server(settings)
    (tmp_path / "own").mkdir()
    runtime = opened("llamacpp", behind.listening_address, checkpoint, tmp_path / "own", reference)
    [written] = runtime.write(PROMPTS[:1], schema=SCHEMA, most_tokens=40)
    assert len(written.tokens) == len(written.others) > 0
    other = Used(kind="llamacpp", server="there", version="b1")
    at = place("llamacpp", behind.listening_address)
    with pytest.raises(InputError, match="certified with b1"):
        opening(other, tmp_path, 256, {"there": at})().write(PROMPTS[:1], schema=None, most_tokens=1)
    del behind


# ---------------------------------------------------------------------------------------------- settings


def test_the_settings_name_a_runtime() -> None:
    there = {"there": {"kind": "ollama", "base_url": "http://127.0.0.1:11434"}}
    settings = from_dict({"learn": {"runtime": "there"}, "runtimes": there}, "s.toml")
    assert settings.runtimes["there"].timeout_s == 60
    assert choose("there", {"there": place("ollama", "http://x")}).told == {"runtime": "ollama:there"}


@pytest.mark.parametrize(
    ("runtime", "server", "said"),
    [
        ("ctranslate", {}, r"\[learn\]: `runtime` names 'ctranslate', which is none; did you mean 'ctranslate2'"),
        ("gpu", {}, r"known: auto, llamacpp, ctranslate2, genai, or add \[runtimes\.gpu\]"),
        ("x", {"kind": "vllm", "base_url": "http://127.0.0.1:8000"}, "`model` is the name by which vLLM serves"),
        ("x", {"kind": "mlx", "base_url": "http://gpu.example.com"}, "gets requests as they are: say `inside = true`"),
        ("x", {"kind": "tgi", "base_url": "http://127.0.0.1:80"}, '`kind` is one of "llamacpp", "vllm"'),
        ("x", {"kind": "mlx", "base_url": "127.0.0.1"}, "must be an http"),
        ("x", {"kind": "mlx", "base_url": "http://127.0.0.1:1", "timeout_s": 0}, "`timeout_s` is above 0"),
    ],
)
def test_a_mistake_in_the_settings_is_told(runtime: str, server: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        from_dict({"learn": {"runtime": runtime}, "runtimes": {"x": server} if server else {}}, "s.toml")


def test_a_server_does_not_take_the_name_of_a_runtime_of_this_process() -> None:
    with pytest.raises(InputError, match="choose another name"):
        from_dict({"runtimes": {"llamacpp": {"kind": "llamacpp", "base_url": "http://127.0.0.1:8080"}}}, "s.toml")
