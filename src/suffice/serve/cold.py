"""Routes that are not hot: is it alive, is it ready, what was counted, which models there are."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route as HttpRoute

from suffice.core.types import Stage
from suffice.serve.access import Access
from suffice.serve.audits import Audits
from suffice.serve.capture import Capture
from suffice.serve.edges import Refused
from suffice.serve.feedback import feedback
from suffice.serve.metrics import Metrics
from suffice.serve.outbound import Outbound, Sending
from suffice.serve.roster import Roster
from suffice.serve.upstream import UpstreamError
from suffice.wire import chat


class Cold:
    """The routes as a Starlette application, `app`."""

    def __init__(
        self,
        roster: Roster,
        capture: Capture,
        audits: Audits,
        outbound: Outbound,
        metrics: Metrics,
        access: Access,
    ) -> None:
        self._access, self._given = access, feedback(roster.home)
        self._roster, self._capture, self._audits = roster, capture, audits
        self._outbound, self._metrics_of = outbound, metrics
        self.app = Starlette(
            routes=[
                HttpRoute("/healthz", self._healthz),
                HttpRoute("/readyz", self._readyz),
                HttpRoute("/metrics", self._metrics),
                HttpRoute("/v1/models", self._models),
                HttpRoute("/v1/feedback", self._feedback, methods=["POST"]),
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
        self._access.admit(request.scope["headers"])
        return await self._given(request)

    async def _models(self, request: HttpRequest) -> Response:
        """The default upstream's list as it came, with the releases that are served added to it; what a key may ask."""
        caller = self._access.admit(request.scope["headers"])
        ours = [
            {
                "id": f"suffice/{task.stored.name}",
                "object": "model",
                "created": int(task.stored.created_at),
                "owned_by": "suffice",
            }
            for task in self._roster.tasks.values()
            if task.stored is not None and task.stage in (Stage.CANARY, Stage.LIVE)
            if not caller.tasks or task.name in caller.tasks
        ]
        asked = Sending(
            dialect=None, method="GET", path="/models", headers=request.scope["headers"], model="", body=b""
        )
        try:
            async with self._outbound.call(asked, []) as heard:
                body = b"".join([data async for data in heard.chunks()])
                kind = next((value.decode() for key, value in heard.headers if key == b"content-type"), "text/plain")
                status = heard.status
            listed = msgspec.json.decode(body) if status == 200 else None
        except Refused:  # there is no upstream: ours are all
            return _json({"object": "list", "data": ours})
        except UpstreamError as error:
            return Response(
                chat.error(str(error), error.code, "api_error"), error.status, media_type="application/json"
            )
        except msgspec.DecodeError:
            listed = None
        if isinstance(listed, dict) and isinstance(listed.get("data"), list):
            theirs = [told for told in listed["data"] if self._access.may_ask(caller, _id(told))]
            return _json({**listed, "data": [*theirs, *ours]})
        return Response(body, status, headers={"content-type": kind})


def _json(document: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(document), status, media_type="application/json")


def _id(told: Any) -> str:
    return str(told.get("id")) if isinstance(told, dict) else ""


async def _refused(request: HttpRequest, error: Refused) -> Response:
    headers = {key.decode(): value.decode() for key, value in error.headers}
    body = chat.error(str(error), error.code)
    return Response(body, error.status, headers, media_type="application/json")


async def _not_found(request: HttpRequest, error: Exception) -> Response:
    body = chat.error(f"{request.method} {request.url.path} is not served here", "not_found")
    return Response(body, getattr(error, "status_code", 404), media_type="application/json")
