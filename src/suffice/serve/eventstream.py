"""Bedrock's framing of a stream, turned into server-sent events. The frames are read by botocore."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
from botocore.eventstream import EventStreamBuffer, ParserError

from suffice.core.errors import InputError


class FromEventStream:
    """A `Turning`: the events of an `InvokeModelWithResponseStream` in Anthropic's own stream."""

    def __init__(self) -> None:
        self._frames: Any = EventStreamBuffer()
        self._ended = False

    def feed(self, data: bytes) -> list[bytes]:
        """The events that are whole by now. Raises InputError for bytes that are no frames."""
        try:
            self._frames.add_data(data)
            return [self._event(frame) for frame in self._frames]
        except (ParserError, msgspec.DecodeError, LookupError, TypeError, ValueError) as error:
            raise InputError(f"an event stream that cannot be read ({type(error).__name__})") from error

    def end(self) -> list[bytes]:
        """Nothing is kept back. Raises InputError for a stream that was cut short."""
        if not self._ended:
            raise InputError("an event stream that ends in the middle of a message")
        return []

    def _event(self, frame: Any) -> bytes:
        payload = msgspec.json.decode(frame.payload)
        if frame.headers.get(":message-type") != "event":
            kind = str(frame.headers.get(":exception-type") or frame.headers.get(":error-code") or "api_error")
            self._ended = True
            error = {"type": "api_error", "message": f"{kind}: {payload.get('message', '')}"}
            return b"event: error\ndata: " + msgspec.json.encode({"type": "error", "error": error}) + b"\n\n"
        event = base64.b64decode(payload["bytes"])
        name = str(msgspec.json.decode(event)["type"])
        self._ended = self._ended or name == "message_stop"
        return b"event: " + name.encode() + b"\ndata: " + event + b"\n\n"
