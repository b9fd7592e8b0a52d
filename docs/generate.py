"""Writes the parts of the docs that follow from the code: `python docs/generate.py`. A test compares them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from suffice.cli import remote
from suffice.cli.main import COMMANDS, suffice
from suffice.serve.openapi import document

HERE = Path(__file__).parent


def cli() -> str:
    """Every command's help, as a terminal shows it."""
    parts = ["# Command line\n\nWritten by `python docs/generate.py` from the commands themselves.\n"]
    with click.Context(suffice, info_name="suffice", **suffice.context_settings) as parent:
        for name in COMMANDS:
            command = suffice.get_command(parent, name)
            assert command is not None
            parts += helped(command, name, parent, "##")
    return "\n".join(parts)


def helped(command: click.Command, name: str, parent: click.Context, head: str) -> list[str]:
    """The help of a command, then that of each of its own."""
    width = {"terminal_width": 100, "max_content_width": 100}
    with click.Context(command, info_name=name, parent=parent, **width) as context:  # type: ignore[arg-type]
        parts = [f"{head} {context.command_path}\n\n```\n{command.get_help(context)}\n```\n"]
        if isinstance(command, click.Group):
            for own in command.list_commands(context):
                found = command.get_command(context, own)
                assert found is not None
                parts += helped(found, own, context, head + "#")
    return parts


def openapi() -> str:
    """The OpenAPI document of the gateway's own API."""
    return json.dumps(document(remote.commands()), indent=1, ensure_ascii=False) + "\n"


GENERATED = {"cli.md": cli, "openapi.json": openapi}

if __name__ == "__main__":
    for name, write in GENERATED.items():
        (HERE / name).write_text(write(), "utf-8")
