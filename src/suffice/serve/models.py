"""`/v1/models`: the default upstream's models and the releases that are served, in the shape that the caller reads.

The vendors' lists differ: who sends `anthropic-version` gets Anthropic's. Where the policy lets nothing leave, and the
upstream is outside, ours are all there is.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from suffice.core.config import Config
from suffice.core.types import Stage
from suffice.serve.access import Access, Caller
from suffice.serve.edges import Refused, error_response
from suffice.serve.egress import strictest
from suffice.serve.outbound import Outbound, Sending
from suffice.serve.roster import Roster, Routed
from suffice.serve.upstream import UpstreamError
from suffice.wire import chat, other

OURS = "suffice/"
SERVED = (Stage.CANARY, Stage.LIVE)
Doc = dict[str, Any]


class Models:
    """The two endpoints."""

    def __init__(self, config: Config, roster: Roster, access: Access, outbound: Outbound) -> None:
        self._config, self._roster, self._access, self._outbound = config, roster, access, outbound

    async def listed(self, request: HttpRequest) -> Response:
        """All that this caller may ask."""
        caller = self._admit(request)
        theirs_alike = _wants_anthropic(request)
        ours = [_model(task, theirs_alike) for task in self._served(caller)]
        query = f"?{request.url.query}" if request.url.query else ""
        found = await self._asked(request, caller, "/models" + query, "")
        if found is None:
            return _json(_shaped({}, ours, theirs_alike))
        listed = _object(found)
        if not isinstance(listed.get("data"), list):
            return found
        theirs = [told for told in listed["data"] if self._access.may_ask(caller, _id(told))]
        if theirs_alike:
            theirs = [_as_anthropic(told) for told in theirs]
        return _json(_shaped(listed, [*theirs, *ours], theirs_alike))

    async def one(self, request: HttpRequest) -> Response:
        """One model: a release of ours, else the upstream's that lists it."""
        caller = self._admit(request)
        name: str = request.path_params["model"]
        if name.startswith(OURS):
            for task in self._served(caller):
                if task.stored is not None and name.removeprefix(OURS) in (task.name, task.stored.name):
                    return _json(_model(task, _wants_anthropic(request)))
            return _missing(name)
        if not self._access.may_ask(caller, name):
            return _missing(name)
        found = await self._asked(request, caller, f"/models/{quote(name, safe='')}", name)
        return found if found is not None else _missing(name)

    def _admit(self, request: HttpRequest) -> Caller:
        """Who asks. Raises Refused: also where a key is in the address, which an upstream would be sent."""
        self._access.look_at(dict(request.scope))
        return self._access.admit(request.scope["headers"])

    def _served(self, caller: Caller) -> list[Routed]:
        return [
            task
            for task in self._roster.tasks.values()
            if task.stored is not None and task.stage in SERVED
            if not caller.tasks or task.name in caller.tasks
        ]

    async def _asked(self, request: HttpRequest, caller: Caller, path: str, model: str) -> Response | None:
        """The upstream's answer; None where there is none to ask, or nothing may leave, or no list is to be had."""
        asked = Sending(
            dialect=None,
            method="GET",
            path=path,
            headers=request.scope["headers"],
            model=model,
            body=b"",
            egress=strictest(self._config.policy.egress, caller.egress),
        )
        try:
            async with self._outbound.call(asked, []) as heard:
                body = await heard.whole()
                kind = next((value.decode() for key, value in heard.headers if key == b"content-type"), "text/plain")
                return Response(body, heard.status, headers={"content-type": kind})
        except Refused:
            return None
        except UpstreamError as error:
            if not model:  # what there is stays to be told: clients ask for the list to see whether anybody is there
                return None
            return error_response(Refused(str(error), error.status, error.code, None, error.headers))


def task_of(model: str, tasks: Mapping[str, Routed]) -> str:
    """The task whose release a request names as its model (`suffice/TASK`, `suffice/TASK@N`): no other may answer it.

    Raises Refused (404) where that release is not the one that is served.
    """
    asked = model.removeprefix(OURS)
    name = asked.partition("@")[0]
    task = tasks.get(name)
    if task is None or task.stored is None or asked not in (name, task.stored.name):
        raise Refused(f"there is no model {model[:200]!r}", 404, "model_not_found", "model")
    return name


def _wants_anthropic(request: HttpRequest) -> bool:
    return "anthropic-version" in request.headers


def _model(task: Routed, anthropic: bool) -> Doc:
    """A release as a model of the list."""
    stored = task.stored
    assert stored is not None
    told = {"id": OURS + stored.name, "created": int(stored.created_at), "owned_by": "suffice"}
    return _as_anthropic(told) if anthropic else {"id": told["id"], "object": "model", **told}


def _as_anthropic(told: Any) -> Any:
    if not isinstance(told, dict) or told.get("type") == "model":
        return told
    created = told.get("created")
    at = datetime.fromtimestamp(created if chat.is_count(created) and created < 2**33 else 0, UTC)
    return {"type": "model", "id": _id(told), "display_name": _id(told), "created_at": f"{at:%Y-%m-%dT%H:%M:%SZ}"}


def _shaped(listed: Doc, models: list[Any], anthropic: bool) -> Doc:
    if not anthropic:
        return {**({} if listed else {"object": "list"}), **listed, "data": models}
    ends = {"first_id": _id(models[0]), "last_id": _id(models[-1])} if models else {"first_id": None, "last_id": None}
    return {"data": models, "has_more": listed.get("has_more") is True, **ends}


def _id(told: Any) -> str:
    return str(told.get("id")) if isinstance(told, dict) else ""


def _object(response: Response) -> Doc:
    try:
        found = msgspec.json.decode(bytes(response.body)) if response.status_code == 200 else None
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    return found if isinstance(found, dict) else {}


def _json(document: Any) -> Response:
    return Response(msgspec.json.encode(document), media_type="application/json")


def _missing(name: str) -> Response:
    body = other.DIALECT.error(f"there is no model {name[:200]!r}", "model_not_found", "invalid_request_error", "model")
    return Response(body, 404, media_type="application/json")
