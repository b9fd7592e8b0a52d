"""llama.cpp, in this process (by `xllamacpp`) or as its own server: what serves a generating model on a processor.

One request at a time, nothing cached between requests: an answer depends on its prompt alone, not on what was asked
before it. In this process the library listens too: on a socket in a folder that only this user can enter, through which
it is asked, so that both ways are the same words.
"""

from __future__ import annotations

import json
import shutil
import socket
import tempfile
from collections.abc import Callable, Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import urlsplit

from suffice.core.errors import ArtefactError, InputError
from suffice.specialists.causal_grammar import check_grammar, grammar_of
from suffice.specialists.runtime import Schema, Written

ANSWER_S = 600.0
"""Seconds that one request may take: far beyond what a caller waits, so that a thread cannot hang for ever."""

_FEW, _ALL = 64, 10**7
Connect = Callable[[], HTTPConnection]
_SURE = 10_000.0
"""Added to a token's logit, it is chosen whatever the model thinks; the probabilities told are those before."""


def open_llamacpp(model: Path, *, context: int, threads: int = 1) -> LlamaCpp:
    """The model of a GGUF file, mapped into memory; `context` tokens are room for prompt and answer together.

    Raises ArtefactError where the file is not a whole GGUF file of an architecture that llama.cpp knows.
    """
    import xllamacpp

    folder = Path(tempfile.mkdtemp(prefix="suffice-"))
    path = folder / "llama.sock"  # the ending tells llama.cpp that it is a path
    settings = xllamacpp.CommonParams()
    settings.model.path = str(model)
    settings.n_ctx, settings.n_parallel = context, 1
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = threads
    settings.hostnames, settings.n_threads_http, settings.ui = [str(path)], 2, False
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

    def connect() -> HTTPConnection:
        return _Local(path)

    runtime = LlamaCpp(connect, server=server, folder=folder)
    runtime.write(["a"], schema=None, most_tokens=1)  # a server that is let go of before it has begun never ends
    return runtime


def connect_llamacpp(url: str, *, key: str | None = None, timeout_s: float = ANSWER_S) -> LlamaCpp:
    """The model that a llama.cpp server elsewhere has loaded, asked over HTTP; it should have one slot. `key`: what it
    was started with as `--api-key`.

    Raises InputError for an address that is none.
    """
    try:
        where = urlsplit(url)
        port = where.port
    except ValueError as error:
        raise InputError(f"{url!r} is no address of a llama.cpp server: {error}") from error
    if where.scheme not in ("http", "https") or not where.hostname or where.path.strip("/"):
        raise InputError(f"{url!r} is no address of a llama.cpp server: http://HOST:PORT is")
    host, kind = where.hostname, HTTPSConnection if where.scheme == "https" else HTTPConnection

    def connect() -> HTTPConnection:
        return kind(host, port, timeout=timeout_s)

    return LlamaCpp(connect, key=key)


class LlamaCpp:
    """A loaded model. Thread-safe: requests of several threads take their turns.

    `connect` opens a connection to llama.cpp's server. `server` and `folder` are what `close` lets go of: the library's
    in this process; without it the server is another's, and keeps to schemas in its own way (white space may be
    written).
    """

    name = "llama.cpp"

    def __init__(
        self, connect: Connect, *, server: Any = None, folder: Path | None = None, key: str | None = None
    ) -> None:
        self._connect, self._server, self._folder = connect, server, folder
        self._headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
        self._own, self._closed, self._turn = server is not None, False, Lock()
        self._checked: set[str] = set()

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """As `Runtime.write`."""
        kept: dict[str, Any] = {}
        if schema is not None:
            kept = {"grammar": self._grammar(schema)} if self._own else {"json_schema": schema}
        return [self._written(prompt, max(most_tokens, 1), kept) for prompt in prompts]

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """As `Runtime.read`."""
        tokens = self.tokens(answer)
        with self._turn:
            return tuple(entry["logprob"] for entry in self._reread(prompt, tokens, fresh=True))

    def tokens(self, text: str) -> list[int]:
        """The model's tokens of a text, in which nothing stands for a special token."""
        found: list[int] = self._post("/tokenize", content=text, add_special=False, parse_special=False)["tokens"]
        return found

    def close(self) -> None:
        """As `Runtime.close`; a request under way ends first."""
        with self._turn:
            self._closed, self._server = True, None
            if self._folder is not None:
                shutil.rmtree(self._folder, ignore_errors=True)

    def _grammar(self, schema: Schema) -> str:
        """The schema's grammar, checked where llguidance is here to say why not (llama.cpp ignores what it cannot)."""
        grammar = grammar_of(schema)
        if grammar not in self._checked and find_spec("llguidance") is not None:
            check_grammar(grammar)
            self._checked.add(grammar)
        return grammar

    def _written(self, prompt: str, most_tokens: int, kept: dict[str, Any]) -> Written:
        with self._turn:
            answer = self._complete(prompt, most_tokens, cache_prompt=False, **kept)
            tokens, entries = answer["tokens"], answer.get("completion_probabilities", [])
            finished = answer["stop_type"] == "eos"
            if len(entries) != len(tokens):  # of a character that is several tokens it tells the last one's alone
                entries = self._reread(prompt, tokens, fresh=False)
        if kept and finished:
            _check_json(answer["content"])
        shown = entries[:-1] if finished else entries
        return Written(
            text=answer["content"],
            tokens=tuple(entry["id"] for entry in shown),
            logprobs=tuple(entry["logprob"] for entry in shown),
            others=tuple(_other(entry) for entry in shown),
            finished=finished,
            pieces=tuple(bytes(entry["bytes"]) for entry in shown),
        )

    def _reread(self, prompt: str, tokens: Sequence[int], *, fresh: bool) -> list[Any]:
        """What the model thinks of each token behind the prompt and the tokens before it. `fresh`: nothing is read yet;
        otherwise what was just written is not read again."""
        return [
            self._thought([prompt, *tokens[:at]] if at else prompt, token, cache_prompt=not fresh or at > 0)
            for at, token in enumerate(tokens)
        ]

    def _thought(self, before: str | list[str | int], token: int, *, cache_prompt: bool) -> Any:
        """What the model thinks of one token: its log-probability, and those of the likeliest."""
        sure = [[token, _SURE]]
        answer = self._complete(before, 1, logit_bias=sure, cache_prompt=cache_prompt)
        if answer.get("completion_probabilities"):
            return answer["completion_probabilities"][0]
        # Of a token that only begins a character nothing is told: another is written, and this one looked up.
        sure = [[self.tokens("a")[0], _SURE]]
        for looked_at in (_FEW, _ALL):
            answer = self._complete(before, 1, logit_bias=sure, cache_prompt=True, n_probs=looked_at)
            likeliest = answer["completion_probabilities"][0]["top_logprobs"]
            for entry in likeliest:
                if entry["id"] == token:
                    return {**entry, "top_logprobs": likeliest[:2]}
        raise RuntimeError(f"llama.cpp knows no token {token}")

    def _complete(self, prompt: str | list[str | int], most_tokens: int, **options: Any) -> dict[str, Any]:
        asked = {"prompt": prompt, "n_predict": most_tokens, "temperature": 0, "n_probs": 2, "return_tokens": True}
        return self._post("/completion", **{**asked, **options})

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        if self._closed:
            raise RuntimeError("the model is closed")
        connection = self._connect()
        try:
            connection.request("POST", path, json.dumps(body), self._headers)
            answer: dict[str, Any] = json.loads(connection.getresponse().read())
        except (OSError, HTTPException, ValueError) as error:
            raise RuntimeError(f"llama.cpp gave no answer: {error}") from error
        finally:
            connection.close()
        if "error" in answer:
            raise _fault(answer["error"])
        return answer


def _check_json(text: str) -> None:
    """Raises ValueError where JSON was asked for and not written: llama.cpp ignores a grammar that it cannot take."""
    try:
        json.loads(text)
    except ValueError:
        raise ValueError("llama.cpp did not keep to the schema: its grammar is not one that it takes") from None


def _other(entry: Any) -> float:
    return max(float(other["logprob"]) for other in entry["top_logprobs"] if other["id"] != entry["id"])


def _fault(error: dict[str, Any]) -> Exception:
    if error.get("type") == "exceed_context_size_error":
        return ValueError(
            f"the prompt has {error['n_prompt_tokens']} tokens, the model's context is {error['n_ctx']} tokens"
        )
    return RuntimeError(f"llama.cpp: {error.get('message', error)}")


class _Local(HTTPConnection):
    """HTTP over a socket in the file system."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_S)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
