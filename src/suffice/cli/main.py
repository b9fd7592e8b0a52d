"""`suffice`: the commands, what they share, and how they end.

Exit 0: done. 1: it ran and says no (a rejection, "cannot certify"). 2: unusable input, with one line that says what
and where.
"""

from __future__ import annotations

import importlib
import sqlite3
import sys
from typing import Any

import click

from suffice import __version__
from suffice.core.errors import SufficeError

COMMANDS = {
    "serve": "Serve the gateway at the application's base URL.",
    "reload": "Have the running server read its settings again.",
    "demo": "Show the whole loop on simulated traffic, or on your own labelled text.",
    "import": "Import recorded traffic or labelled text from a file.",
    "discover": "Find the tasks in what was recorded, and say which are work for a small model.",
    "learn": "Learn a task: fit, certify, judge; a release or the reasons against one.",
    "dataset": "Show, compare and export what a task learns from.",
    "export": "Write a release as a folder that runs anywhere, a browser included.",
    "answer": "Answer a batch, or recorded traffic, through a release, offline.",
    "tasks": "List the tasks; rename, merge, split or ignore one.",
    "show": "Show a task or a release.",
    "stage": "Say how much a release may do: observe, shadow, canary, live.",
    "keys": "Make, list, change, rotate and revoke virtual keys.",
    "records": "Query and export records.",
    "erase": "Erase what was said in one person's records.",
    "backup": "Write a backup of the home to a file, while it serves.",
    "restore": "Make a home of a backup.",
    "rekey": "Encrypt what is stored with another key, or with none.",
    "costs": "What requests cost, and what specialists saved, by task, key, model, upstream or day.",
    "plan": "Is a small model worth it? What each architecture costs, and what would flip the verdict.",
    "check": "Check the configuration and the environment.",
}


class _Commands(click.Group):
    """Loads a command's file when it is asked for: `suffice --help` needs no model library."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"suffice.cli.{cmd_name}_command")
        command: click.Command = module.command
        command.name = cmd_name
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run, and turn what the user can mend into one line and exit 2."""
        try:
            return super().main(*args, **{**kwargs, "standalone_mode": False})
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message())
            return 0
        except click.ClickException as error:
            click.echo(f"suffice: {error.format_message()}", err=True)
            return 2
        except SufficeError as error:
            click.echo(f"suffice: {error}", err=True)
            return 2
        except (click.Abort, KeyboardInterrupt):
            click.echo("suffice: interrupted", err=True)
            return 130
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                sys.stderr.close()
                return 1
            click.echo(f"suffice: {error.filename or 'input/output'}: {error.strerror}", err=True)
            return 2
        except Exception as error:  # the database's faults (disk full, locked) are the user's to mend; others are ours
            cause = getattr(error, "orig", error)
            if not isinstance(cause, sqlite3.Error):
                raise
            click.echo(f"suffice: the database cannot be used: {cause}", err=True)
            return 2


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="suffice")
def suffice() -> None:
    """Find the smallest model that suffices for each repeated LLM call, prove it, serve it."""


def main() -> None:
    """Entry point."""
    result = suffice.main()
    sys.exit(result if isinstance(result, int) else 0)


if __name__ == "__main__":
    main()
