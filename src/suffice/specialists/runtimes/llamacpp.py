"""llama.cpp in this process (by `xllamacpp`): what serves a generating model on a processor.

One request at a time, nothing cached between requests: an answer depends on its prompt alone, not on what was asked
before it. The library listens by itself; here on a socket in a folder that only this user can enter.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

from suffice.core.errors import ArtefactError
from suffice.specialists.causal_grammar import forcing, grammar_of
from suffice.specialists.runtime import Schema, Written


def open_llamacpp(model: Path, *, context: int, threads: int = 1) -> LlamaCpp:
    """The model of a GGUF file, mapped into memory; `context` tokens are room for prompt and answer together.

    Raises ArtefactError where the file is not a whole GGUF file of an architecture that llama.cpp knows.
    """
    import xllamacpp

    folder = Path(tempfile.mkdtemp(prefix="suffice-"))
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model)
    settings.n_ctx, settings.n_parallel = context, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.hostnames, settings.n_threads_http, settings.ui = [str(folder / "llama.sock")], 1, False
    settings.verbosity = -1  # nothing on stderr
    settings.ctx_shift = settings.warmup = settings.fit_params = False
    settings.cache_ram_mib = 0
    try:
        server = xllamacpp.Server(settings)
    except RuntimeError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise ArtefactError(
            f"llama.cpp cannot load {model}: it is missing, truncated, no GGUF file or of an unknown architecture"
        ) from error
    return LlamaCpp(server, folder, context)


class LlamaCpp:
    """A loaded model. Thread-safe: requests of several threads take their turns."""

    name = "llama.cpp"

    def __init__(self, server: Any, folder: Path, context: int) -> None:
        self._server, self._folder, self._context = server, folder, context

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """As `Runtime.write`."""
        grammar = {} if schema is None else {"grammar": grammar_of(schema)}
        return [self._written(prompt, most_tokens, grammar, schema is not None) for prompt in prompts]

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """As `Runtime.read`: the answer's tokens are all that may be written."""
        tokens = self.tokens(answer)
        if not tokens:
            return ()
        written = self._written(prompt, len(tokens) + 1, {"grammar": forcing(tokens)}, False)
        if written.tokens != tuple(tokens):
            raise ValueError(f"prompt and answer do not fit into the model's context of {self._context} tokens")
        return written.logprobs

    def tokens(self, text: str) -> list[int]:
        """The model's tokens of a text, in which nothing stands for a special token."""
        body = {"content": text, "add_special": False, "parse_special": False}
        connection = _Local(str(self._folder / "llama.sock"))
        try:
            connection.request("POST", "/tokenize", json.dumps(body), {"Content-Type": "application/json"})
            found: list[int] = json.loads(connection.getresponse().read())["tokens"]
        finally:
            connection.close()
        return found

    def close(self) -> None:
        """As `Runtime.close`; requests under way end first."""
        self._server = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _written(self, prompt: str, most_tokens: int, grammar: dict[str, str], is_json: bool) -> Written:
        server = self._server
        if server is None:
            raise RuntimeError("the model is closed")
        asked = {"prompt": prompt, "n_predict": max(most_tokens, 1), "temperature": 0, "n_probs": 2}
        answer = server.handle_completions({**asked, "cache_prompt": False, **grammar})
        if "error" in answer:
            raise _fault(answer["error"])
        choice = answer["choices"][0]
        return written_of(choice["text"], choice["logprobs"]["content"], choice["finish_reason"] == "stop", is_json)


def written_of(text: str, content: Sequence[Any], finished: bool, is_json: bool) -> Written:
    """An answer from what llama.cpp tells of each token; the token that ended it is left out.

    Raises ValueError where JSON was asked for and not written: a grammar that llama.cpp cannot take is ignored by it.
    """
    if is_json and finished:
        try:
            json.loads(text)
        except ValueError:
            raise ValueError("llama.cpp did not keep to the schema: its grammar is not one that it takes") from None
    kept = content[:-1] if finished else content
    return Written(
        text=text,
        tokens=tuple(token["id"] for token in kept),
        logprobs=tuple(token["logprob"] for token in kept),
        others=tuple(_other(token) for token in kept),
        finished=finished,
    )


def _other(token: Any) -> float:
    return max(other["logprob"] for other in token["top_logprobs"] if other["id"] != token["id"])


def _fault(error: dict[str, Any]) -> Exception:
    if error.get("type") == "exceed_context_size_error":
        return ValueError(
            f"the prompt has {error['n_prompt_tokens']} tokens, the model's context is {error['n_ctx']} tokens"
        )
    return RuntimeError(f"llama.cpp: {error.get('message', error)}")


class _Local(HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
