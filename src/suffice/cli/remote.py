"""The commands as the admin API gives them: derived from the command line, so that neither can lag behind the other."""

from __future__ import annotations

import inspect
from typing import Any, Literal

import click

from suffice.cli.main import COMMANDS, suffice
from suffice.serve.commands import Command, Parameter

LEFT_OUT = {
    "serve": "it is what answers",
    "demo": "it shows a simulation on a terminal, on a home of its own",
    "check": "it is about the shell that it runs in",
    "backup": "it writes outside of the home: who may read that is for the machine to say",
    "restore": "it replaces the home under the server",
    "rekey": "its keys are in the environment of whoever gives it",
}
"""Commands that make no sense from elsewhere, and why."""
JOBS = {("learn",), ("discover",), ("import",)}
LINES = {("records",), ("answer",)}
WRITTEN = ("to", "out", "export", "init", "report")
"""Files that a command writes; the others it reads."""
EVERYWHERE = frozenset({"folder", "config_file", "as_json"})


def commands() -> list[Command]:
    """Every command but those left out, groups with what is in them."""
    found: list[Command] = []
    with click.Context(suffice, info_name="suffice") as context:
        for name in COMMANDS:
            command = suffice.get_command(context, name)
            if command is not None and name not in LEFT_OUT:
                found += _of(command, (name,), context)
    return found


def _of(command: click.Command, path: tuple[str, ...], parent: click.Context) -> list[Command]:
    found: list[Command] = []
    with click.Context(command, info_name=path[-1], parent=parent) as context:
        if not isinstance(command, click.Group) or command.invoke_without_command:
            found.append(_command(command, path))
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                own = command.get_command(context, name)
                if own is not None:
                    found += _of(own, (*path, name), context)
    return found


def _command(command: click.Command, path: tuple[str, ...]) -> Command:
    text = inspect.cleandoc(command.help or "").replace("\b\n", "")
    answers: Literal["once", "lines", "job"] = "job" if path in JOBS else "lines" if path in LINES else "once"
    shown = [p for p in command.params if p.name not in EVERYWHERE and not getattr(p, "hidden", False)]
    return Command(
        path=path,
        summary=command.get_short_help_str(100),
        help=text,
        parameters=tuple(map(_parameter, shown)),
        answers=answers,
    )


def _parameter(parameter: click.Parameter) -> Parameter:
    many = parameter.nargs == -1 or parameter.multiple
    if isinstance(parameter, click.Option):
        option = max(parameter.opts, key=len)
        name = option.lstrip("-").replace("-", "_")
        text = (parameter.help or "") if parameter.help else ""
        bare = bool(getattr(parameter, "_flag_needs_value", False))
    else:
        option, name, text, bare = None, str(parameter.name), "", False
    file: Literal["read", "written"] | None = None
    if isinstance(parameter.type, click.Path):
        file = "written" if name in WRITTEN else "read"
        bare = False  # what is written where nothing is named lies in the working directory, which here is nobody's
    return Parameter(
        name=name,
        option=option,
        schema=_schema(parameter),
        help=text,
        many=many,
        bare=bare,
        required=parameter.required,
        file=file,
    )


def _schema(parameter: click.Parameter) -> dict[str, Any]:
    if getattr(parameter, "is_flag", False):
        return {"type": "boolean"}
    kind = parameter.type
    if isinstance(kind, click.Choice):
        return {"type": "string", "enum": list(kind.choices)}
    for base, name in (((click.types.IntParamType), "integer"), ((click.types.FloatParamType), "number")):
        if isinstance(kind, base):
            low, high = getattr(kind, "min", None), getattr(kind, "max", None)
            bounds = {key: value for key, value in (("minimum", low), ("maximum", high)) if value is not None}
            return {"type": name, **bounds}
    return {"type": "string"}
