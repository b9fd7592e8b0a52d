"""Writes the parts of the docs that follow from the code: `python docs/generate.py`. A test compares them."""

from __future__ import annotations

from pathlib import Path

import click

from suffice.cli.main import COMMANDS, suffice

HERE = Path(__file__).parent


def cli() -> str:
    """Every command's help, as a terminal shows it."""
    parts = ["# Command line\n\nWritten by `python docs/generate.py` from the commands themselves.\n"]
    for name in COMMANDS:
        with click.Context(suffice, info_name="suffice", **suffice.context_settings) as parent:
            command = suffice.get_command(parent, name)
            assert command is not None
            with click.Context(
                command, info_name=name, parent=parent, terminal_width=100, max_content_width=100
            ) as context:
                parts.append(f"## suffice {name}\n\n```\n{command.get_help(context)}\n```\n")
    return "\n".join(parts)


GENERATED = {"cli.md": cli}

if __name__ == "__main__":
    for name, write in GENERATED.items():
        (HERE / name).write_text(write(), "utf-8")
