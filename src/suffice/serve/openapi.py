"""The OpenAPI 3.1 document of the gateway's own API. The vendors' routes are told briefly: they are the vendors'."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from suffice import __version__
from suffice.serve.commands import LONGEST, MOST, NAME, Command, Parameter
from suffice.wire import dialects

Document = dict[str, Any]
_CODES = {
    400: "It cannot be used; `param` names the key to blame, if it is one.",
    401: "No key of this gateway, or one that is not an administrator's.",
    403: "There is no admin key yet, or it may not.",
    404: "There is no such thing.",
    413: "The body is too large.",
    429: "Not now; `Retry-After` says when.",
    503: "It cannot be done now; the message says why.",
    504: "It took too long.",
}
_ADMIN = (401, 403, 503)


def document(commands: Sequence[Command]) -> Document:
    """The whole document, as JSON has it."""
    paths: Document = {**_open(), **_vendors(), "/v1/feedback": {"post": _feedback()}}
    for command in commands:
        paths["/admin/v1/" + "/".join(command.path)] = {"post": _command(command)}
    return {
        "openapi": "3.1.0",
        "info": {"title": "Suffice", "version": __version__, "license": {"name": "Apache-2.0"}},
        "paths": {**paths, **_files(), **_jobs(), **_about()},
        "components": {
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": _ERROR, "Job": _JOB},
        },
        "security": [{"key": []}],
    }


_ERROR: Document = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": {"type": ["string", "null"]},
                "code": {"type": ["string", "null"]},
            },
        }
    },
}
_JOB: Document = {
    "type": "object",
    "required": ["id", "command", "by", "at", "state", "exit"],
    "properties": {
        "id": {"type": "string"},
        "command": {"type": "string"},
        "by": {"type": ["string", "null"], "description": "The name of the key that started it."},
        "at": {"type": "number", "description": "Seconds since 1970."},
        "state": {"enum": ["running", "ended", "cancelled", "lost"]},
        "exit": {"type": ["integer", "null"], "description": "0: done. 1: it says no. 2: unusable input."},
        "said": {"type": "array", "items": {"type": "string"}, "description": "The last lines on its way."},
        "document": {"description": "What the command prints with --json, when it has ended."},
    },
}


def _operation(summary: str, answers: Document, codes: Sequence[int], **more: Any) -> Document:
    errors = {
        str(code): {
            "description": _CODES[code],
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for code in codes
    }
    return {"summary": summary, **more, "responses": {**answers, **errors}}


def _answer(description: str, schema: Document, kind: str = "application/json") -> Document:
    return {"description": description, "content": {kind: {"schema": schema}}}


def _object(required: bool = False, **properties: Any) -> Document:
    return {"type": "object", "properties": properties, **({"required": list(properties)} if required else {})}


# ---------------------------------------------------------------------------------------------- what is not admin


def _open() -> Document:
    status = _object(True, status={"type": "string"})
    return {
        "/healthz": {"get": _operation("The process is alive.", {"200": _answer("It is.", status)}, (), security=[])},
        "/readyz": {
            "get": _operation(
                "It can serve.",
                {"200": _answer("It can.", status), "503": _answer("It cannot: `problems` says why.", status)},
                (),
                security=[],
            )
        },
        "/metrics": {
            "get": _operation(
                "Prometheus' text format.", {"200": _answer("Metrics.", {"type": "string"}, "text/plain")}, (401,)
            )
        },
    }


def _vendors() -> Document:
    """The routes that are the vendors': bodies go upstream as they came."""
    found: Document = {}
    for dialect in dialects.DIALECTS.values():
        found[f"/v1{dialect.path}"] = {
            "post": {
                "summary": f"As the vendor defines it (dialect `{dialect.name}`).",
                "requestBody": {"required": True, "content": {"application/json": {"schema": {"type": "object"}}}},
                "responses": {
                    "200": {"description": "The answer, with the headers `X-Suffice-*`."},
                    "default": {
                        "description": "An error in the dialect's shape: the upstream's own, or the gateway's."
                    },
                },
            }
        }
    listed = {"200": {"description": "The models."}, "default": {"description": "The upstream's error, or ours."}}
    found["/v1/models"] = {"get": {"summary": "The upstream's list with the releases served.", "responses": listed}}
    return found


def _feedback() -> Document:
    asked = {
        **_object(
            record={"type": "string"}, reference={}, kind={"enum": ["human", "rule"]}, task={"type": ["string", "null"]}
        ),
        "required": ["record"],
        "anyOf": [{"required": ["reference"]}, {"required": ["task"]}],
        "additionalProperties": False,
    }
    told = _object(True, record={"type": "string"}, kind={"type": "string"}, changed={"type": "boolean"})
    return _operation(
        "A trusted answer for a record, or the task that it belongs to.",
        {"200": _answer("It is on the disk.", told)},
        (400, 401, 403, 404, 413, 429, 503),
        requestBody={"required": True, "content": {"application/json": {"schema": asked}}},
    )


# ---------------------------------------------------------------------------------------------- admin


def _command(command: Command) -> Document:
    properties = {parameter.name: _parameter(parameter) for parameter in command.parameters}
    asked: Document = {"type": "object", "properties": properties, "additionalProperties": False}
    if required := [parameter.name for parameter in command.parameters if parameter.required]:
        asked["required"] = required
    document = _object(True, exit={"enum": [0, 1]}, document={"description": "What the command prints with --json."})
    answers = {
        "once": {"200": _answer("It ran; `exit` 1: it says no.", document)},
        "lines": {"200": _answer("JSON Lines, as they come.", {"type": "string"}, "application/jsonl")},
        "job": {"202": _answer("It has begun: a job.", {"$ref": "#/components/schemas/Job"})},
    }[command.answers]
    codes = (400, 413, 429, *_ADMIN) if command.answers == "job" else (400, 413, 429, 504, *_ADMIN)
    return _operation(
        command.summary,
        answers,
        sorted(codes),
        description=command.help,
        tags=["admin"],
        requestBody={"required": bool(required), "content": {"application/json": {"schema": asked}}},
    )


def _parameter(parameter: Parameter) -> Document:
    schema: Document = dict(parameter.schema)
    if parameter.file is not None:
        schema.update(pattern=f"^{NAME.pattern}$")
    elif schema.get("type") == "string" and "enum" not in schema:
        schema.update(maxLength=LONGEST)
    if parameter.many:
        schema = {"type": "array", "items": schema, "maxItems": MOST}
    if parameter.bare:
        schema = {"anyOf": [schema, {"const": True}]}
    about = {"read": "An uploaded file.", "written": "Written among the uploaded files."}.get(parameter.file or "", "")
    text = " ".join(filter(None, (parameter.help, about)))
    return {**schema, "description": text} if text else schema


def _files() -> Document:
    name = [
        {"name": "name", "in": "path", "required": True, "schema": {"type": "string", "pattern": f"^{NAME.pattern}$"}}
    ]
    file = _object(True, name={"type": "string"}, bytes={"type": "integer"})
    octets = {"required": True, "content": {"application/octet-stream": {"schema": {}}}}
    gone = _object(True, name={"type": "string"}, deleted={"type": "boolean"})
    return {
        "/admin/v1/files": {
            "get": _operation(
                "The uploaded files.",
                {"200": _answer("They.", _object(True, files={"type": "array", "items": file}))},
                _ADMIN,
                tags=["admin"],
            )
        },
        "/admin/v1/files/{name}": {
            "parameters": name,
            "put": _operation(
                "Upload a file.",
                {"201": _answer("It is there.", file)},
                (400, 413, *_ADMIN),
                requestBody=octets,
                tags=["admin"],
            ),
            "get": _operation(
                "A file.", {"200": _answer("It.", {}, "application/octet-stream")}, (400, 404, *_ADMIN), tags=["admin"]
            ),
            "delete": _operation(
                "Delete a file.", {"200": _answer("It is gone.", gone)}, (400, 404, *_ADMIN), tags=["admin"]
            ),
        },
    }


def _jobs() -> Document:
    job = {"$ref": "#/components/schemas/Job"}
    one = [{"name": "id", "in": "path", "required": True, "schema": {"type": "string"}}]
    return {
        "/admin/v1/jobs": {
            "get": _operation(
                "The jobs, newest first.",
                {"200": _answer("They.", _object(True, jobs={"type": "array", "items": job}))},
                _ADMIN,
                tags=["admin"],
            )
        },
        "/admin/v1/jobs/{id}": {
            "parameters": one,
            "get": _operation("A job.", {"200": _answer("It.", job)}, (404, *_ADMIN), tags=["admin"]),
            "delete": _operation("Cancel a job.", {"200": _answer("It, then.", job)}, (404, *_ADMIN), tags=["admin"]),
        },
    }


def _about() -> Document:
    calls = _object(True, calls={"type": "array", "items": {"type": "object"}})
    return {
        "/admin/v1/calls": {
            "get": _operation("Who did what, newest first.", {"200": _answer("They.", calls)}, _ADMIN, tags=["admin"])
        },
        "/admin/v1/openapi.json": {
            "get": _operation("This document.", {"200": _answer("It.", {"type": "object"})}, _ADMIN, tags=["admin"])
        },
    }
