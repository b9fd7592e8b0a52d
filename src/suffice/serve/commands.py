"""The commands that can be given over HTTP, as plain data, and how what a body says becomes a command line.

Which commands there are is not known here: the composition root derives them from the command line.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import msgspec

from suffice.core.errors import InputError

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
"""Of an uploaded file."""
LONGEST = 20_000
"""Characters of one value: the system limits a command line."""
MOST = 1_000
"""Values of one parameter."""

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
}


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    """A parameter: `name` in a body, `option` on a command line (None: an argument), `schema` of one value.

    `bare`: `true` gives the option without a value. `file`: a name in the upload folder, read or written.
    """

    name: str
    option: str | None
    schema: dict[str, Any]
    help: str = ""
    many: bool = False
    bare: bool = False
    required: bool = False
    file: Literal["read", "written"] | None = None


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A command. `answers`: at once, as JSON Lines while it runs, or later, as a job."""

    path: tuple[str, ...]
    summary: str
    help: str
    parameters: tuple[Parameter, ...]
    answers: Literal["once", "lines", "job"] = "once"

    @property
    def name(self) -> str:
        """As people write it: `tasks rename`."""
        return " ".join(self.path)


class Wrong(InputError):
    """A body that a command cannot take, and the key that is to blame, if it is one."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


def line(command: Command, body: Mapping[str, Any], files: Path) -> list[str]:
    """The words after the command's name. Raises Wrong naming the key."""
    known = {parameter.name: parameter for parameter in command.parameters}
    for key in body:
        if key not in known:
            raise Wrong(f"unknown key `{key[:100]}`; known: {', '.join(known) or 'none'}", key[:100])
    options: list[str] = []
    arguments: list[str] = []
    missing: str | None = None
    for name, parameter in known.items():
        value = body.get(name)
        if value is None:
            if parameter.required:
                raise Wrong(f"`{name}` is missing", name)
            missing = missing or (name if parameter.option is None else None)
        elif parameter.option is not None:
            options += _options(parameter, parameter.option, value, files)
        elif missing is not None:
            raise Wrong(f"`{missing}` is missing: it comes before `{name}`", missing)
        else:
            arguments += [_word(parameter, one, files) for one in _values(parameter, value)]
    return [*options, "--", *arguments]


def _options(parameter: Parameter, option: str, value: Any, files: Path) -> list[str]:
    if parameter.schema.get("type") == "boolean":
        _word(parameter, value, files)
        return [option] if value else []
    if parameter.bare and value is True:
        return [option]
    return [f"{option}={_word(parameter, one, files)}" for one in _values(parameter, value)]


def _values(parameter: Parameter, value: Any) -> list[Any]:
    if not parameter.many:
        return [value]
    if not isinstance(value, list) or len(value) > MOST:
        raise Wrong(f"`{parameter.name}` is a list of at most {MOST:,} values", parameter.name)
    return value


def _word(parameter: Parameter, value: Any, files: Path) -> str:
    """One value, checked, as a command line has it."""
    name, schema = parameter.name, parameter.schema
    kind = schema.get("type", "string")
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise Wrong(f"`{name}` is {_a(kind)}", name)
    if isinstance(value, float) and not math.isfinite(value):
        raise Wrong(f"`{name}` is a finite number", name)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
        raise Wrong(f"`{name}` is too large", name)
    if "enum" in schema and value not in schema["enum"]:
        raise Wrong(f"`{name}` is one of {', '.join(schema['enum'])}", name)
    if parameter.file is not None:
        return str(_file(parameter, str(value), files))
    text = str(value)
    if len(text) > LONGEST or "\0" in text:
        raise Wrong(f"`{name}` is at most {LONGEST:,} characters, none of them NUL", name)
    return text


def _file(parameter: Parameter, value: str, files: Path) -> Path:
    if not NAME.fullmatch(value):
        raise Wrong(f"`{parameter.name}` is the name of an uploaded file: letters, digits, . _ -", parameter.name)
    if parameter.file == "read" and not (files / value).is_file():
        raise Wrong(f"`{parameter.name}`: no file {value!r} was uploaded (PUT /admin/v1/files/{value})", parameter.name)
    return files / value


def _a(kind: str) -> str:
    return {"string": "a text", "integer": "a whole number", "number": "a number", "boolean": "true or false"}[kind]
