"""Vendors: upstreams with paths, bodies and credentials of their own. Signing is left to the vendors' own libraries.

A vendor is asked twice for each call: `shaped` says under which path and with which body (before it is cleared to
leave), `sign` puts the credentials in (after). An answer in a framing of its own is turned by what `turning` gives.
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
import time
from collections.abc import Callable, Iterable
from datetime import UTC
from typing import Any, Protocol
from urllib.parse import quote, urlsplit

import msgspec
from multidict import CIMultiDict

from suffice.core.config import Upstream
from suffice.core.errors import InputError
from suffice.wire import translate
from suffice.wire.dialect import Turning
from suffice.wire.renaming import with_members

ANTHROPIC_VERSION = translate.ANTHROPIC_VERSION.decode()
"""For callers who tell none; the later one refuses sampling parameters."""
BEDROCK_VERSION = "bedrock-2023-05-31"
"""`InvokeModel` knows no later one. What a later one allows to ask, this one does too."""
VERTEX_VERSION = "vertex-2023-10-16"
"""Its name for the version of 2023; later ones have one name everywhere."""
ENTRA_SCOPE = "https://cognitiveservices.azure.com/.default"
GOOGLE_SCOPE = "https://www.googleapis.com/auth/cloud-platform"
CALLERS_KEYS = ("authorization", "x-api-key", "api-key")
"""Where callers put a key; where the upstream has credentials of its own, theirs stay here."""
EARLY_S = 300.0
"""A token is renewed in the background this long before it ends."""
RENEW_S = 20.0
_REGION = re.compile(r"\.([a-z]{2}(?:-[a-z]+)+-\d)\.")


class CredentialError(Exception):
    """The machine's identity gives no credentials, or not now; never says what they are."""


class Vendor(Protocol):
    """What is particular about one upstream."""

    base: str

    def shaped(
        self, dialect: str | None, path: str, model: str, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[str, bytes]:
        """The path below `base`, and the body. Raises InputError where the body is no JSON object."""

    async def sign(self, method: str, url: str, sent: CIMultiDict[str], body: bytes) -> None:
        """Put the credentials into the headers. Raises CredentialError."""

    def turning(self, content_type: str) -> Turning | None:
        """What makes an event stream of the answer; None where it is one, or none is needed."""


def vendor_of(name: str, upstream: Upstream, key: str | None) -> Vendor | None:
    """The vendor of an upstream; None for one that is asked like OpenAI.

    Raises InputError where its library is not installed or its settings do not suffice.
    """
    if upstream.kind == "anthropic":
        return Anthropic(upstream, key)
    if upstream.kind == "azure":
        return Azure(upstream, key, Tokens(entra(name)) if upstream.identity else None)
    if upstream.kind == "bedrock":
        return Bedrock(name, upstream, key)
    if upstream.kind == "vertex":
        return Vertex(upstream, key, Tokens(google(name)) if key is None else None)
    return None


class Tokens:
    """A token that is renewed off the loop before it ends. `fetch` blocks: the token, and when it ends (seconds since
    1970); raises whatever its library does."""

    def __init__(self, fetch: Callable[[], tuple[str, float]], clock: Callable[[], float] = time.time) -> None:
        self._fetch, self._clock = fetch, clock
        self._token, self._ends = "", 0.0
        self._renewing: asyncio.Task[None] | None = None

    async def token(self) -> str:
        """One that holds now. Raises CredentialError."""
        now = self._clock()
        if now < self._ends - EARLY_S:
            return self._token
        if self._renewing is None or self._renewing.done():
            self._renewing = asyncio.ensure_future(self._renew())
            self._renewing.add_done_callback(lambda task: task.cancelled() or task.exception())
        if now >= self._ends:
            await asyncio.shield(self._renewing)
        return self._token

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(RENEW_S):
                self._token, self._ends = await asyncio.to_thread(self._fetch)
        except (
            Exception
        ) as error:  # the boundary of a library with many errors of its own; their texts may tell secrets
            raise CredentialError(f"no token could be had ({type(error).__name__})") from error


def entra(name: str) -> Callable[[], tuple[str, float]]:
    """Tokens of Microsoft Entra, by the machine's identity. Raises InputError without the library."""
    _needs(name, "azure.identity", "azure")
    kept: list[Any] = []

    def fetch() -> tuple[str, float]:
        from azure.identity import DefaultAzureCredential

        if not kept:
            kept.append(DefaultAzureCredential())
        found = kept[0].get_token(ENTRA_SCOPE)
        return str(found.token), float(found.expires_on)

    return fetch


def google(name: str) -> Callable[[], tuple[str, float]]:
    """Tokens of Google Cloud, by the application default credentials. Raises InputError without the library."""
    _needs(name, "google.auth.transport.requests", "vertex")
    kept: list[Any] = []

    def fetch() -> tuple[str, float]:
        import google.auth
        from google.auth.transport.requests import Request

        if not kept:
            kept.append(google.auth.default(scopes=[GOOGLE_SCOPE])[0])
        kept[0].refresh(Request())
        ends = kept[0].expiry  # UTC, and does not say so
        ends_s = ends.replace(tzinfo=UTC).timestamp() if ends is not None else time.time() + 2 * EARLY_S
        return str(kept[0].token), ends_s

    return fetch


class Anthropic:
    """`x-api-key` and a version that is always told."""

    def __init__(self, upstream: Upstream, key: str | None) -> None:
        self.base, self._key = upstream.base_url.rstrip("/"), key

    def shaped(
        self, dialect: str | None, path: str, model: str, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[str, bytes]:
        """As `Vendor` says."""
        return path, body

    async def sign(self, method: str, url: str, sent: CIMultiDict[str], body: bytes) -> None:
        """As `Vendor` says."""
        if self._key is not None:
            _own(sent, "x-api-key", self._key)
        sent.setdefault("anthropic-version", ANTHROPIC_VERSION)

    def turning(self, content_type: str) -> Turning | None:
        """Nothing to turn."""
        return None


class Azure:
    """The v1 surface below `base_url`, or by deployment where a dated API version is configured."""

    def __init__(self, upstream: Upstream, key: str | None, tokens: Tokens | None) -> None:
        self.base = upstream.base_url.rstrip("/")
        self._key, self._tokens, self._version = key, tokens, upstream.api_version
        if self._version is not None:
            self.base = self.base.removesuffix("/v1").removesuffix("/openai") + "/openai"

    def shaped(
        self, dialect: str | None, path: str, model: str, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[str, bytes]:
        """As `Vendor` says."""
        if self._version is None:
            return path, body
        bare, _, query = path.partition("?")
        if "api-version=" not in query:
            query = "&".join(part for part in (query, f"api-version={quote(self._version)}") if part)
        deployment = f"/deployments/{quote(model, safe='')}" if dialect in ("chat", "embeddings") else ""
        return f"{deployment}{bare}?{query}", body

    async def sign(self, method: str, url: str, sent: CIMultiDict[str], body: bytes) -> None:
        """As `Vendor` says."""
        if self._tokens is not None:
            _own(sent, "Authorization", f"Bearer {await self._tokens.token()}")
        elif self._key is not None:
            _own(sent, "api-key", self._key)

    def turning(self, content_type: str) -> Turning | None:
        """Nothing to turn."""
        return None


class Vertex:
    """OpenAI's dialect at the endpoint for it, Anthropic's by `rawPredict`; `base_url` ends with the location."""

    def __init__(self, upstream: Upstream, key: str | None, tokens: Tokens | None) -> None:
        self.base, self._key, self._tokens = upstream.base_url.rstrip("/"), key, tokens

    def shaped(
        self, dialect: str | None, path: str, model: str, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[str, bytes]:
        """As `Vendor` says."""
        if dialect != "messages":
            return f"/endpoints/openapi{path}", body
        verb = "streamRawPredict" if _streams(body) else "rawPredict"
        named = f"/publishers/anthropic/models/{quote(model, safe='@')}:{verb}"
        asked = next(
            (value.decode("latin-1") for key, value in headers if key == b"anthropic-version"), ANTHROPIC_VERSION
        )
        version = VERTEX_VERSION if asked == ANTHROPIC_VERSION else asked
        return named, with_members(body, "model", anthropic_version=version)

    async def sign(self, method: str, url: str, sent: CIMultiDict[str], body: bytes) -> None:
        """As `Vendor` says."""
        token = await self._tokens.token() if self._tokens is not None else self._key
        _own(sent, "Authorization", f"Bearer {token}")

    def turning(self, content_type: str) -> Turning | None:
        """Nothing to turn."""
        return None


class Bedrock:
    """OpenAI's dialects at `/openai/v1`, Anthropic's at `/anthropic/v1` of a `bedrock-mantle` host, by `InvokeModel` of
    any other; a key of Bedrock's own, else AWS's signature."""

    def __init__(self, name: str, upstream: Upstream, key: str | None) -> None:
        self.base, self._key = upstream.base_url.rstrip("/").removesuffix("/v1").removesuffix("/openai"), key
        self.base = self.base.removesuffix("/anthropic")
        host = urlsplit(self.base).hostname or ""
        told = upstream.region or next(iter(_REGION.findall(f".{host}.")), None)
        _needs(name, "botocore", "bedrock")  # event streams need it too
        if key is None and told is None:
            raise InputError(f"upstream {name!r}: `base_url` tells no AWS region: set `region`")
        self._region = told or ""
        self._mantle = host.startswith("bedrock-mantle")
        self._service = "bedrock-mantle" if self._mantle else "bedrock"
        self._credentials: Any = None
        self._finding = asyncio.Lock()

    def shaped(
        self, dialect: str | None, path: str, model: str, body: bytes, headers: Iterable[tuple[bytes, bytes]]
    ) -> tuple[str, bytes]:
        """As `Vendor` says."""
        if dialect != "messages":
            return f"/openai/v1{path}", body
        if self._mantle:
            return f"/anthropic/v1{path}", body
        verb = "invoke-with-response-stream" if _streams(body) else "invoke"
        betas = [
            part.strip()
            for key, value in headers
            if key == b"anthropic-beta"
            for part in value.decode("latin-1").split(",")
        ]
        more: dict[str, object] = {"anthropic_beta": betas} if betas else {}
        body = with_members(body, "model", "stream", anthropic_version=BEDROCK_VERSION, **more)
        return f"/model/{quote(model, safe='')}/{verb}", body

    async def sign(self, method: str, url: str, sent: CIMultiDict[str], body: bytes) -> None:
        """As `Vendor` says."""
        if self._mantle:
            sent.setdefault("anthropic-version", ANTHROPIC_VERSION)
        if self._key is not None:
            _own(sent, "Authorization", f"Bearer {self._key}")
            return
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest

        signed = {"Content-Type": sent.get("Content-Type", "application/json")}
        request = AWSRequest(method, url, data=body, headers=signed)
        SigV4Auth(await self._frozen(), self._service, self._region).add_auth(request)
        _own(sent, "Authorization", request.headers["Authorization"])
        for key, value in request.headers.items():
            if key not in sent:
                sent[key] = value

    async def _frozen(self) -> Any:
        """The credentials as they hold now; found and renewed off the loop, for both may ask the network."""
        try:
            if self._credentials is None:
                async with self._finding:
                    self._credentials = self._credentials or await asyncio.to_thread(_aws)
            if self._credentials is not None:
                return await asyncio.to_thread(self._credentials.get_frozen_credentials)
        except (
            Exception
        ) as error:  # the boundary of a library with many errors of its own; their texts may tell secrets
            raise CredentialError(f"AWS gives no credentials ({type(error).__name__})") from error
        raise CredentialError("AWS gives no credentials: none are configured on this machine")

    def turning(self, content_type: str) -> Turning | None:
        """As `Vendor` says."""
        if content_type != "application/vnd.amazon.eventstream":
            return None
        from suffice.serve.eventstream import FromEventStream

        return FromEventStream()


def _aws() -> Any:
    from botocore.session import Session

    return Session().get_credentials()


def _own(sent: CIMultiDict[str], header: str, value: str) -> None:
    """Our own credentials, and none of the caller's."""
    for theirs in CALLERS_KEYS:
        sent.popall(theirs, None)
    sent[header] = value


class _Streams(msgspec.Struct):
    stream: Any = False


def _streams(body: bytes) -> bool:
    try:
        return msgspec.json.decode(body, type=_Streams).stream is True
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False


def _needs(name: str, module: str, extra: str) -> None:
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise InputError(f"upstream {name!r} needs the extra `{extra}`: pip install 'suffice[{extra}]'")
