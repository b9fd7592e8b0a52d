"""Routes that are not hot: is it alive, is it ready, what was counted, which models there are."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount
from starlette.routing import Route as HttpRoute
from starlette.types import ASGIApp

from suffice.core.config import Config
from suffice.serve.access import Access
from suffice.serve.audits import Audits
from suffice.serve.capture import Capture
from suffice.serve.edges import Refused, error_response
from suffice.serve.feedback import feedback
from suffice.serve.metrics import Metrics
from suffice.serve.models import Models
from suffice.serve.outbound import Outbound
from suffice.serve.roster import Roster
from suffice.wire import chat

_OTHERS = ("GET", "PUT", "PATCH", "DELETE")


class Cold:
    """The routes as a Starlette application, `app`. What else is below `/v1` is `passing`'s."""

    def __init__(
        self,
        config: Config,
        roster: Roster,
        capture: Capture,
        audits: Audits,
        outbound: Outbound,
        metrics: Metrics,
        access: Access,
        passing: ASGIApp,
    ) -> None:
        self._models = Models(config, roster, access, outbound)
        self._access, self._given = access, feedback(roster.home)
        self._roster, self._capture, self._audits = roster, capture, audits
        self._outbound, self._metrics_of = outbound, metrics
        self.app = Starlette(
            routes=[
                HttpRoute("/healthz", self._healthz),
                HttpRoute("/readyz", self._readyz),
                HttpRoute("/metrics", self._metrics),
                HttpRoute("/v1/models", self._models.listed),
                HttpRoute("/v1/models/{model:path}", self._models.one),
                HttpRoute("/v1/feedback", self._feedback, methods=["POST", *_OTHERS]),
                Mount("/v1", passing),
            ],
            exception_handlers={404: _not_found, 405: _not_found, Refused: _refused},  # type: ignore[dict-item]
        )

    async def _healthz(self, request: HttpRequest) -> Response:
        """The process is alive."""
        return _json({"status": "ok"})

    async def _readyz(self, request: HttpRequest) -> Response:
        """It can serve: records can be written and the routing state is fresh."""
        problems = [self._capture.failure] if self._capture.failure else []
        if not self._roster.fresh:
            problems.append("the routing state is older than a second")
        document = {"status": "ready" if not problems else "not ready", "problems": problems}
        return _json({**document, "specialists": len(self._roster.shelf)}, 503 if problems else 200)

    async def _metrics(self, request: HttpRequest) -> Response:
        """What all workers have counted, in Prometheus' text format."""
        self._access.admit_scrape(request.scope["headers"])
        page = await self._metrics_of.text(self._roster.home)
        return PlainTextResponse(page, media_type="text/plain; version=0.0.4")

    async def _feedback(self, request: HttpRequest) -> Response:
        """A trusted answer, from whoever may ask at all."""
        self._access.look_at(dict(request.scope))
        self._access.admit(request.scope["headers"])
        if request.method in _OTHERS:  # ours alone: nothing of it is an upstream's
            raise HTTPException(405)
        return await self._given(request)


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


async def _refused(request: HttpRequest, error: Refused) -> Response:
    return error_response(error)


async def _not_found(request: HttpRequest, error: Exception) -> Response:
    body = chat.error(f"{request.method} {request.url.path} is not served here", "not_found")
    return Response(body, getattr(error, "status_code", 404), media_type="application/json")
