"""Servers that run a generating model, over HTTP: vLLM, Ollama, MLX's, llama.cpp's own.

Each is asked in the words of its documentation for the tokens that it wrote and what the model thought of each and of
the likeliest other; one that does not say cannot be trusted with a score. A server has to have the model: vLLM takes
adapters by their folder and Ollama the GGUF file; MLX's reads the folder that it is told; llama.cpp's has the one that
it was started with. Prompts are counted here before they are sent, since some servers cut what is too long.

Sources: https://docs.vllm.ai (OpenAI-compatible server, structured outputs, LoRA adapters), Ollama's docs/api.md,
mlx-lm's SERVER.md, llama.cpp's tools/server/README.md.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from suffice.core.errors import ArtefactError, InputError
from suffice.specialists.causal_store import ADAPTER
from suffice.specialists.runtime import Runtime, Schema, Written, check_fits
from suffice.specialists.runtimes.chosen import GGUF, LLAMACPP, MLX, OLLAMA, VLLM, Place, Used
from suffice.specialists.runtimes.llamacpp import connect_llamacpp
from suffice.specialists.runtimes.words import TOKENIZER, Words

_SECOND = 2
"""So many of the likeliest tokens are asked for: the one that was written, and another."""
_AS_ID = "token_id:"


class Token(NamedTuple):
    """A token that a server wrote: its number, its log-probability, that of the likeliest other."""

    token: int
    logprob: float
    other: float


class Told(NamedTuple):
    """A server's answer. `finished`: it ended by itself."""

    tokens: list[Token]
    finished: bool


def open_served(place: Place, folder: Path, *, context: int, used: Used) -> Runtime:
    """The model in `folder` as this server runs it; nothing is asked before the first answer is.

    Raises ArtefactError where the folder holds no tokenizer.
    """
    if place.kind == LLAMACPP:
        opened = connect_llamacpp(place.url, key=place.key, timeout_s=place.timeout_s)
        return _Checked(opened, Server(place), used)
    words = Words(folder, used.ends)
    return Served(_WIRES[place.kind](Server(place), folder, words, context), words, context, used)


def keep_files(kind: str, checkpoint: Path, own: Path) -> None:
    """Copy into `own` what such a server, or the asking of it, needs of a checkpoint."""
    wanted = {VLLM: [TOKENIZER], OLLAMA: [TOKENIZER], LLAMACPP: []}.get(kind)
    for path in checkpoint.iterdir():
        if path.is_file() and (wanted is None or path.name in wanted):
            shutil.copyfile(path, own / path.name)


def version_at(place: Place) -> str:
    """What a server says it is; "" where it does not. Raises InputError where it does not answer."""
    server = Server(place)
    match place.kind:
        case "vllm":
            return str(server.get("/version").get("version", ""))
        case "ollama":
            return str(server.get("/api/version").get("version", ""))
        case "mlx":
            return ""  # it says it of each answer only, with the machine's own figures in it
    return str(server.get("/props").get("build_info", ""))


class Server:
    """Where JSON is asked of. Raises InputError, in one sentence that names the server, for whatever goes wrong."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.named = f"{place.kind} at {place.url}"
        where = urlsplit(place.url)
        self._host, self._port = where.hostname or "", where.port
        self._kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
        self._under = where.path.rstrip("/").removesuffix("/v1")

    def get(self, path: str) -> dict[str, Any]:
        """The document at a path."""
        return self._document(*self.sent("GET", path, None))

    def post(self, path: str, body: Any) -> dict[str, Any]:
        """The answer to a document."""
        return self._document(*self.sent("POST", path, json.dumps(body).encode()))

    def sent(self, method: str, path: str, body: Any) -> tuple[int, bytes]:
        """Status and body, whatever the status; `body` is bytes or an open file."""
        headers = {"Content-Type": "application/json"}
        if self.place.key is not None:
            headers["Authorization"] = f"Bearer {self.place.key}"
        if body is not None and not isinstance(body, bytes):  # else it would be sent in chunks
            headers["Content-Length"] = str(os.fstat(body.fileno()).st_size)
        connection = self._kind(self._host, self._port, timeout=self.place.timeout_s)
        try:
            connection.request(method, self._under + path, body, headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        except (OSError, HTTPException) as error:
            raise InputError(f"{self.named} gave no answer: {error or type(error).__name__}") from error
        finally:
            connection.close()

    def _document(self, status: int, body: bytes) -> dict[str, Any]:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if status >= 400 or not isinstance(found, dict) or "error" in found:
            raise InputError(f"{self.named} refused: {status} {reason(found, body)}")
        return found


def reason(found: Any, body: bytes) -> str:
    """What a server says went wrong, in its words; cut."""
    error = found.get("error", found) if isinstance(found, dict) else None
    told = error.get("message", error) if isinstance(error, dict) else error
    return " ".join(str(told if told is not None else body.decode("utf-8", "replace")).split())[:300]


class Wire(Protocol):
    """How one kind of server is talked to."""

    server: Server

    def place(self) -> None:
        """See to it that the server has the model."""
        ...

    def complete(self, prompt: str, tokens: Sequence[int], schema: Schema | None, most_tokens: int) -> Told:
        """Write behind a prompt, greedily. Raises InputError where no probabilities are told."""
        ...

    def read(self, tokens: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
        """The log-probability of each token of `answer` behind `tokens`."""
        ...


class Served:
    """A model on a server. Thread-safe: every request has a connection of its own."""

    def __init__(self, wire: Wire, words: Words, context: int, used: Used) -> None:
        self.name = used.kind
        self._wire, self._words, self._context, self._used = wire, words, context, used
        self._ready, self._readying = False, Lock()

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """As `Runtime.write`. Raises InputError for whatever the server does not do."""
        self._prepare()
        return [self._written(prompt, schema, max(most_tokens, 1)) for prompt in prompts]

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """As `Runtime.read`. Raises InputError where the server cannot tell."""
        self._prepare()
        before, tokens = self._words.tokens(prompt), self._words.tokens(answer)
        check_fits(len(before) + len(tokens) - 1, self._context)
        return self._wire.read(before, tokens)

    def close(self) -> None:
        """Nothing: the model stays where it is."""

    def _prepare(self) -> None:
        """Once: the server is the one that was certified, and has the model."""
        with self._readying:
            if not self._ready:
                _same_version(self._wire.server, self._used)
                self._wire.place()
                self._ready = True

    def _written(self, prompt: str, schema: Schema | None, most_tokens: int) -> Written:
        before = self._words.tokens(prompt)
        check_fits(len(before), self._context)
        told = self._wire.complete(prompt, before, schema, min(most_tokens, self._context - len(before)))
        shown = told.tokens
        while shown and told.finished and shown[-1].token in self._words.ends:
            shown = shown[:-1]
        pieces = tuple(self._words.piece(each.token) for each in shown)
        return Written(
            text=b"".join(pieces).decode("utf-8", "replace"),
            tokens=tuple(each.token for each in shown),
            logprobs=tuple(each.logprob for each in shown),
            others=tuple(each.other for each in shown),
            finished=told.finished,
            pieces=pieces,
        )


class _Checked:
    """llama.cpp's server, asked for its version first. The model is the one that it was started with."""

    def __init__(self, opened: Runtime, server: Server, used: Used) -> None:
        self.name = opened.name
        self._opened, self._server, self._used, self._ready = opened, server, used, False

    def write(self, prompts: Sequence[str], *, schema: Schema | None, most_tokens: int) -> list[Written]:
        """As `Runtime.write`."""
        if not self._ready:
            _same_version(self._server, self._used)
            self._ready = True
        try:
            return self._opened.write(prompts, schema=schema, most_tokens=most_tokens)
        except RuntimeError as error:
            raise InputError(f"{self._server.named}: {error}") from error

    def read(self, prompt: str, answer: str) -> tuple[float, ...]:
        """As `Runtime.read`."""
        return self._opened.read(prompt, answer)

    def close(self) -> None:
        """As `Runtime.close`."""
        self._opened.close()


class Vllm:
    """vLLM: the base that it serves with an adapter on it, told by its name; it loads adapters when it is started with
    `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=True`, and reads the folder that it is told."""

    def __init__(self, server: Server, folder: Path, words: Words, context: int) -> None:
        del words, context
        self.server, self._folder = server, folder
        self._adapter = (folder / ADAPTER[0]).exists()
        self._model = named_after(folder / ADAPTER[0]) if self._adapter else str(server.place.model)

    def place(self) -> None:
        """As `Wire.place`."""
        listed = {each.get("id") for each in self.server.get("/v1/models").get("data", [])}
        if self._model in listed:
            return
        if not self._adapter:
            raise InputError(f"{self.server.named} does not serve the model {self._model!r}")
        asked = {"lora_name": self._model, "lora_path": str(self._folder.resolve())}
        status, body = self.server.sent("POST", "/v1/load_lora_adapter", json.dumps(asked).encode())
        if status >= 400:  # success is told in plain text
            raise InputError(
                f"{self.server.named} did not load the adapter in {self._folder}: {status} {_told_in(body)}"
            )

    def complete(self, prompt: str, tokens: Sequence[int], schema: Schema | None, most_tokens: int) -> Told:
        """As `Wire.complete`."""
        kept = {} if schema is None else {"structured_outputs": {"json": schema, "disable_any_whitespace": True}}
        answer = self.server.post(
            "/v1/completions",
            {
                "model": self._model,
                "prompt": list(tokens),
                "max_tokens": most_tokens,
                "temperature": 0,
                "logprobs": _SECOND,
                "return_tokens_as_token_ids": True,
                **kept,
            },
        )
        choice = _first(self.server, answer)
        told = choice.get("logprobs") or {}
        names, own, likeliest = (told.get(key) or [] for key in ("tokens", "token_logprobs", "top_logprobs"))
        if not names or not len(names) == len(own) == len(likeliest):
            raise _silent(self.server)
        found = [
            _token(self.server, _numbered(self.server, name), logprob, [v for n, v in top.items() if n != name])
            for name, logprob, top in zip(names, own, likeliest, strict=True)
        ]
        return Told(found, choice.get("finish_reason") == "stop")

    def read(self, tokens: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
        """As `Wire.read`."""
        body = {"model": self._model, "prompt": [*tokens, *answer], "max_tokens": 1, "prompt_logprobs": 0}
        told = _first(self.server, self.server.post("/v1/completions", body)).get("prompt_logprobs")
        if not isinstance(told, list) or len(told) != len(tokens) + len(answer):
            raise _silent(self.server)
        places = told[len(tokens) :]
        return tuple(float(place[str(token)]["logprob"]) for place, token in zip(places, answer, strict=True))


class Ollama:
    """Ollama: the release's GGUF file, uploaded under a name that its content gives."""

    def __init__(self, server: Server, folder: Path, words: Words, context: int) -> None:
        self.server, self._file, self._words, self._context = server, folder / GGUF, words, context
        self._model = named_after(self._file)

    def place(self) -> None:
        """As `Wire.place`."""
        if self.server.sent("POST", "/api/show", json.dumps({"model": self._model}).encode())[0] == 200:
            return
        with self._file.open("rb") as opened:
            blob = f"sha256:{hashlib.file_digest(opened, 'sha256').hexdigest()}"
        if self.server.sent("HEAD", f"/api/blobs/{blob}", None)[0] != 200:
            with self._file.open("rb") as opened:
                status, body = self.server.sent("POST", f"/api/blobs/{blob}", opened)
            if status >= 400:
                raise InputError(f"{self.server.named} did not take {self._file}: {status} {_told_in(body)}")
        self.server.post("/api/create", {"model": self._model, "files": {GGUF: blob}, "stream": False})

    def complete(self, prompt: str, tokens: Sequence[int], schema: Schema | None, most_tokens: int) -> Told:
        """As `Wire.complete`. Raises ValueError for a token of which it does not tell what it is."""
        answer = self.server.post(
            "/api/generate",
            {
                "model": self._model,
                "prompt": prompt,
                "raw": True,
                "stream": False,
                "logprobs": True,
                "top_logprobs": _SECOND,
                "options": {"temperature": 0, "num_predict": most_tokens, "num_ctx": self._context},
                **({} if schema is None else {"format": schema}),
            },
        )
        entries = answer.get("logprobs") or []
        if not entries and answer.get("response"):
            raise _silent(self.server)
        found = []
        for entry in entries:
            piece = _bytes(entry)
            token = self._words.token_of(piece)
            if token is None:
                raise ValueError(f"{self.server.named} wrote {piece!r}, which is no token of the model")
            rest = [each.get("logprob") for each in entry.get("top_logprobs") or [] if _bytes(each) != piece]
            found.append(_token(self.server, token, entry.get("logprob"), rest))
        return Told(found, answer.get("done_reason") == "stop")

    def read(self, tokens: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
        """Never: it tells nothing of a prompt."""
        raise InputError(f"{self.server.named} tells no log-probabilities of a given answer")


class Mlx:
    """`mlx_lm.server`: the merged checkpoint in the release's folder, which it reads by its path. It knows no grammar:
    an answer out of its contract is found when it is read, and escalates."""

    def __init__(self, server: Server, folder: Path, words: Words, context: int) -> None:
        del words, context
        self.server, self._model = server, str(folder.resolve())

    def place(self) -> None:
        """As `Wire.place`: it loads what it is asked for."""

    def complete(self, prompt: str, tokens: Sequence[int], schema: Schema | None, most_tokens: int) -> Told:
        """As `Wire.complete`."""
        answer = self.server.post(
            "/v1/completions",
            {
                "model": self._model,
                "prompt": prompt,
                "max_tokens": most_tokens,
                "temperature": 0,
                "logprobs": True,
                "top_logprobs": _SECOND,
            },
        )
        choice = _first(self.server, answer)
        entries = (choice.get("logprobs") or {}).get("content") or []
        if not entries:
            raise _silent(self.server)
        found = []
        for entry in entries:
            rest = [e.get("logprob") for e in entry.get("top_logprobs") or [] if e.get("id") != entry.get("id")]
            if not isinstance(entry.get("id"), int):
                raise _silent(self.server)
            found.append(_token(self.server, entry["id"], entry.get("logprob"), rest))
        return Told(found, choice.get("finish_reason") == "stop")

    def read(self, tokens: Sequence[int], answer: Sequence[int]) -> tuple[float, ...]:
        """Never: it tells nothing of a prompt."""
        raise InputError(f"{self.server.named} tells no log-probabilities of a given answer")


_WIRES: dict[str, Any] = {VLLM: Vllm, OLLAMA: Ollama, MLX: Mlx}


def named_after(file: Path) -> str:
    """What a server calls the model in a file: a name that its content gives. Raises ArtefactError without one."""
    try:
        with file.open("rb") as opened:
            return f"suffice-{hashlib.file_digest(opened, 'sha256').hexdigest()[:16]}"
    except OSError as error:
        raise ArtefactError(f"{file} cannot be read: {error.strerror}") from error


def _same_version(server: Server, used: Used) -> None:
    here = version_at(server.place)
    if used.version not in ("", here):
        raise InputError(
            f"{server.named} is version {here or 'unknown'}, and the release was certified with {used.version}: serve "
            "that one, or learn the task again"
        )


def _first(server: Server, answer: dict[str, Any]) -> dict[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise InputError(f"{server.named} gave an answer without `choices`")
    return choices[0]


def _token(server: Server, token: int, logprob: Any, rest: list[Any]) -> Token:
    numbers = [float(value) for value in (logprob, *rest) if isinstance(value, int | float)]
    if len(numbers) != len(rest) + 1 or not rest:
        raise _silent(server)
    return Token(token, numbers[0], max(numbers[1:]))


def _numbered(server: Server, name: str) -> int:
    number = name.removeprefix(_AS_ID)
    if not name.startswith(_AS_ID) or not number.isdigit():
        raise InputError(f"{server.named} does not tell tokens by their numbers (`return_tokens_as_token_ids`)")
    return int(number)


def _bytes(entry: Any) -> bytes:
    told = entry.get("bytes")
    return bytes(told) if isinstance(told, list) else str(entry.get("token", "")).encode()


def _silent(server: Server) -> InputError:
    return InputError(
        f"{server.named} does not tell the log-probabilities of what it wrote and of the next likeliest, so its "
        "answers can have no score"
    )


def _told_in(body: bytes) -> str:
    try:
        return reason(json.loads(body), body)
    except ValueError:
        return reason(None, body)
