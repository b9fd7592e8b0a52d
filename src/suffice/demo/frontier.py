"""A SIMULATED frontier model: its own process, real HTTP, prepared answers. No model runs here.

    python -m suffice.demo.frontier --port 0 --answers answers.jsonl --seed 1

It speaks the OpenAI Chat Completions dialect as far as a client sees it: answers whole or streamed, `usage`, error
bodies, `/v1/models`. The last user message is looked up in the answers file; an unknown text gets a polite sentence.
Latency is drawn from a log-normal distribution shaped like that of a large hosted model on a one-label answer.

So that nobody takes it for the real thing, every answer carries `x-simulated: true` and
`"system_fingerprint": "simulated"`, and the server listens on the loopback interface only. `x-simulated-latency-ms` is
the latency drawn before `--speed` divided it, for reports that ran compressed. Token counts are estimates (a token per
four characters); it does not know tools, images, logprobs or stop sequences, and ignores sampling parameters.

`POST /simulate` makes it another frontier from that moment on, as a vendor's silent update would: the JSON object
`{"renames": {answer: another}, "speed": 10}`, where what is left out is as it was at the start. Answered is how many
completions it was asked for so far, by which a demo sees that nothing is under way.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import socket
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import msgspec
import uvicorn

from suffice.core.errors import InputError

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MODEL = "simulated-frontier"
UNKNOWN = (
    "Thank you for your message. This is a simulated model with prepared answers, and it has none for this text. "
    "Could you tell me a little more about what you need?"
)

_P99 = 2.3263478740408408  # standard normal deviate of the 99th percentile
_encode = msgspec.json.encode


class Latency(msgspec.Struct, frozen=True, kw_only=True):
    """How long an answer takes: log-normal with this median and 99th percentile, in milliseconds; 0 is none.

    `first_share` in [0, 1] is the part of it before the first chunk of a stream; `speed` divides the time really
    waited, so that a demo can compress an hour. Raises ValueError for a value out of range.
    """

    p50_ms: float = 650.0
    p99_ms: float = 2000.0
    first_share: float = 0.7
    speed: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.p50_ms < math.inf:
            raise ValueError(f"the median latency is a number of milliseconds, 0 or more, not {self.p50_ms}")
        if self.p50_ms > 0 and not self.p50_ms <= self.p99_ms < math.inf:
            raise ValueError(f"the 99th percentile ({self.p99_ms} ms) is below the median ({self.p50_ms} ms)")
        if not 0 <= self.first_share <= 1:
            raise ValueError(f"the share before the first chunk is between 0 and 1, not {self.first_share}")
        if not 0 < self.speed < math.inf:
            raise ValueError(f"the speed is a factor above 0, not {self.speed}")

    def draw_ms(self, rng: random.Random) -> float:
        """One latency in milliseconds, before `speed`."""
        if self.p50_ms == 0:
            return 0.0
        return rng.lognormvariate(math.log(self.p50_ms), math.log(self.p99_ms / self.p50_ms) / _P99)


NO_LATENCY = Latency(p50_ms=0.0)


class _Refusal(Exception):
    """An error answer in the vendor's form."""

    def __init__(
        self,
        status: int,
        message: str,
        *,
        kind: str = "invalid_request_error",
        param: str | None = None,
        code: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


# ---------------------------------------------------------------------------------------------- the application


def app(answers: Mapping[str, str], latency: Latency = NO_LATENCY, seed: int = 0, *, key: str | None = None) -> App:
    """The simulated frontier as a raw ASGI application; `answers` maps the last user message to what is said.

    Latencies are drawn from `seed` in the order requests arrive. With `key` only that API key is let in, otherwise any.
    Holds no state beyond its random generator and what `POST /simulate` has set; safe under many connections of one
    event loop.
    """
    rng = random.Random(seed)
    now, asked = _Simulated(speed=latency.speed), 0

    async def simulated_frontier(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal now, asked
        if scope["type"] == "lifespan":
            return await _lifespan(receive, send)
        if scope["type"] != "http":
            raise RuntimeError(f"the simulated frontier speaks HTTP only, not {scope['type']}")
        try:
            body = await _body(receive)
            _authorize(scope, key)
            match (scope["method"], scope["path"]):
                case ("POST", "/v1/chat/completions"):
                    asked += 1
                    waits = msgspec.structs.replace(latency, speed=now.speed)
                    await _complete(_chat(body), answers, now.renames, waits, rng, send)
                case ("POST", "/simulate"):
                    now = _simulated(body, latency.speed)
                    await _send_json(send, 200, {"asked": asked, "simulated": True})
                case ("GET", "/v1/models"):
                    await _send_json(send, 200, {"object": "list", "data": [_model(MODEL)]})
                case ("GET", path) if path.startswith("/v1/models/"):
                    await _send_json(send, 200, _model(path.removeprefix("/v1/models/")))
                case (method, "/v1/chat/completions" | "/v1/models"):
                    raise _Refusal(405, f"Not allowed: {method} on {scope['path']}.", code="method_not_allowed")
                case (method, path):
                    raise _Refusal(404, f"Unknown request URL: {method} {path}.", code="unknown_url")
        except _Refusal as refusal:
            await _send_json(send, refusal.status, refusal.body)
        return None

    return simulated_frontier


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _body(receive: Receive) -> bytes:
    chunks: list[bytes] = []
    while True:
        message = await receive()
        chunks.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(chunks)


def _authorize(scope: Scope, key: str | None) -> None:
    sent = next((value for name, value in scope["headers"] if name == b"authorization"), b"").decode("latin-1")
    scheme, _, token = sent.partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        message = "No API key in the request: send it as `Authorization: Bearer KEY`."
        raise _Refusal(401, message, code="missing_api_key")
    if key is not None and token.strip() != key:
        raise _Refusal(401, "This API key is not known here.", code="invalid_api_key")


class _Chat(msgspec.Struct):
    """What the simulated frontier reads of a chat request."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = False
    stream_options: dict[str, Any] | None = None
    n: int | None = 1


def _chat(body: bytes) -> _Chat:
    """The request in `body`, or a refusal that says what is wrong with it."""
    try:
        plain = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refusal(400, f"The body of the request is not JSON: {error}.") from error
    if not isinstance(plain, dict):
        raise _Refusal(400, "The body of the request must be a JSON object.")
    for name in ("model", "messages"):
        if name not in plain:
            message = f"Missing required parameter: '{name}'."
            raise _Refusal(400, message, param=name, code="missing_required_parameter")
    try:
        chat = msgspec.convert(plain, _Chat)
    except msgspec.ValidationError as error:
        raise _Refusal(400, f"Invalid parameter: {error}.", code="invalid_type") from error
    if not chat.messages:
        raise _Refusal(400, "Invalid 'messages': an empty list.", param="messages", code="empty_array")
    if not 1 <= (chat.n or 1) <= 128:
        raise _Refusal(400, f"Invalid 'n': between 1 and 128, not {chat.n}.", param="n", code="invalid_value")
    return chat


class _Simulated(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is simulated from now on: prepared answers that go by another name, and how fast."""

    renames: dict[str, str] = {}
    speed: float

    def __post_init__(self) -> None:
        if not 0 < self.speed < math.inf:
            raise ValueError(f"the speed is a factor above 0, not {self.speed}")


def _simulated(body: bytes, speed: float) -> _Simulated:
    """What `body` asks for, with the `speed` of the start unless it names one; or a refusal."""
    try:
        return msgspec.convert({"speed": speed, **msgspec.json.decode(body, type=dict[str, Any])}, _Simulated)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _Refusal(400, f"Not a simulation: {error}.") from error


async def _complete(
    chat: _Chat,
    answers: Mapping[str, str],
    renames: Mapping[str, str],
    latency: Latency,
    rng: random.Random,
    send: Send,
) -> None:
    answer = answers.get(_last_user_text(chat.messages), UNKNOWN)
    answer = renames.get(answer, answer)
    drawn_ms = latency.draw_ms(rng)
    wait_s = drawn_ms / 1000 / latency.speed
    count = chat.n or 1
    prompt = sum(4 + _tokens(_text_of(message.get("content"))) for message in chat.messages) + 3
    completion = count * (_tokens(answer) + 1)
    usage = {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
    head: dict[str, Any] = {
        "id": f"chatcmpl-simulated-{rng.getrandbits(96):024x}",
        "object": "chat.completion.chunk" if chat.stream else "chat.completion",
        "created": int(time.time()),
        "model": chat.model,
        "system_fingerprint": "simulated",
    }
    headers = [(b"x-simulated-latency-ms", f"{drawn_ms:.1f}".encode())]
    if not chat.stream:
        await _wait(wait_s)
        said = {"role": "assistant", "content": answer, "refusal": None}
        choices = [
            {"index": index, "message": said, "logprobs": None, "finish_reason": "stop"} for index in range(count)
        ]
        await _send_json(send, 200, {**head, "choices": choices, "usage": usage}, headers)
        return
    wants_usage = bool((chat.stream_options or {}).get("include_usage"))
    if wants_usage:
        head["usage"] = None
    await _wait(wait_s * latency.first_share)
    await _send_head(send, 200, [(b"content-type", b"text/event-stream; charset=utf-8"), *headers])
    pieces = _pieces(answer)
    for event in _events(head, pieces, count):
        if event["choices"][0]["delta"].get("content"):
            await _wait(wait_s * (1 - latency.first_share) / (len(pieces) * count))
        await _send_event(send, _encode(event))
    if wants_usage:
        await _send_event(send, _encode({**head, "choices": [], "usage": usage}))
    await _send_event(send, b"[DONE]", last=True)


def _events(head: Mapping[str, Any], pieces: Sequence[str], count: int) -> list[dict[str, Any]]:
    """The chunks of a streamed answer: who speaks, the pieces, why it stopped; for each of `count` choices."""
    steps: list[tuple[dict[str, str], str | None]] = [({"role": "assistant", "content": ""}, None)]
    steps += [({"content": piece}, None) for piece in pieces]
    steps.append(({}, "stop"))
    return [
        {**head, "choices": [{"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}]}
        for delta, reason in steps
        for index in range(count)
    ]


async def _wait(seconds: float) -> None:
    if seconds > 0:
        await asyncio.sleep(seconds)


def _last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    for message in reversed(messages):
        if message.get("role") == "user":
            return _text_of(message.get("content"))
    return ""


def _text_of(content: object) -> str:
    """The text of a message's content, which is a text or a list of parts."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return ""


def _tokens(text: str) -> int:
    """An estimate: a token for every four characters, rounded up."""
    return -(-len(text) // 4)


def _pieces(answer: str) -> list[str]:
    """`answer` cut into pieces of about a token."""
    return [answer[start : start + 4] for start in range(0, len(answer), 4)]


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "simulated"}


async def _send_head(send: Send, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [*headers, (b"x-simulated", b"true")]})


async def _send_json(send: Send, status: int, value: object, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
    body = _encode(value)
    length = (b"content-length", str(len(body)).encode())
    await _send_head(send, status, [(b"content-type", b"application/json"), length, *headers])
    await send({"type": "http.response.body", "body": body})


async def _send_event(send: Send, data: bytes, *, last: bool = False) -> None:
    await send({"type": "http.response.body", "body": b"data: " + data + b"\n\n", "more_body": not last})


# ---------------------------------------------------------------------------------------------- the process


class _Line(msgspec.Struct):
    """One line of the answers file."""

    text: str
    answer: str


def read_answers(path: Path) -> dict[str, str]:
    """The answers file, JSON Lines of `{"text", "answer"}`: text to answer, the first line of a text counts.

    Raises InputError naming the file, the line and what is wrong with it.
    """
    answers: dict[str, str] = {}
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    decoder = msgspec.json.Decoder(_Line)
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            pair = decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise InputError(f'{path}, line {number}: not a {{"text", "answer"}} object: {error}') from error
        answers.setdefault(pair.text, pair.answer)
    return answers


class _Server(uvicorn.Server):
    """A server that says on stdout where it listens, and ends at the first signal without waiting for anybody."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            line = {"port": sockets[0].getsockname()[1], "simulated": True}
            sys.stdout.write(_encode(line).decode() + "\n")
            sys.stdout.flush()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self.force_exit = True
        super().handle_exit(sig, frame)


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve on 127.0.0.1 until a signal; the exit code is 2, with one line on stderr, for input that is no use."""
    parser = argparse.ArgumentParser(
        prog="python -m suffice.demo.frontier",
        description="A simulated frontier model with prepared answers, on the loopback interface.",
    )
    parser.add_argument("--port", type=int, default=0, help="port on 127.0.0.1; 0 takes a free one (default)")
    parser.add_argument("--answers", type=Path, required=True, help='JSON Lines of {"text", "answer"}')
    parser.add_argument("--seed", type=int, default=0, help="seeds the latencies (default 0)")
    parser.add_argument("--latency-ms", type=float, default=650.0, help="median latency; 0 is none (default 650)")
    parser.add_argument("--latency-p99-ms", type=float, help="99th percentile (default 3.1 times the median)")
    parser.add_argument("--first-share", type=float, default=0.7, help="share of it before the first chunk (0.7)")
    parser.add_argument("--speed", type=float, default=1.0, help="divides every wait: 10 is ten times as fast (1)")
    parser.add_argument("--key", help="let in only this API key, which is no secret (default: any key)")
    options = parser.parse_args(arguments)
    p99_ms = 3.1 * options.latency_ms if options.latency_p99_ms is None else options.latency_p99_ms
    try:
        latency = Latency(
            p50_ms=options.latency_ms, p99_ms=p99_ms, first_share=options.first_share, speed=options.speed
        )
        answers = read_answers(options.answers)
        listener = _listen(options.port)
    except (InputError, ValueError) as error:
        sys.stderr.write(f"simulated frontier: {error}\n")
        return 2
    config = uvicorn.Config(
        app(answers, latency, options.seed, key=options.key),
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=2048,
    )
    with listener:
        _Server(config).run(sockets=[listener])
    return 0


def _listen(port: int) -> socket.socket:
    """A bound socket on the loopback interface. Raises InputError when the port cannot be had."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(("127.0.0.1", port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise InputError(f"port {port} on 127.0.0.1 cannot be had: {error}") from error
    return listener


if __name__ == "__main__":
    raise SystemExit(main())
