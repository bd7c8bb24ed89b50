"""The command `couchlite` and its groups. Only here and in the commands' own options is the environment
read."""

from __future__ import annotations

import errno
import importlib
import os
import sys
from typing import Any

import click

from couchlite.errors import CouchliteError
from couchlite.version import VERSION

COMMANDS = {
    "serve": "Serve a data directory over HTTP.",
    "db": "List, create, delete, inspect and compact databases.",
    "doc": "Read and change documents.",
    "conflicts": "List conflicts, look into them, merge and resolve them.",
    "replicate": "Replicate a database into another one.",
    "replicator": "Run the replications that documents of any CouchDB ask for.",
    "replications": "Tell what replications did, and why.",
    "backup": "Back up databases, or a whole server, into one file.",
    "restore": "Restore databases, or a whole server, from a backup.",
    "check": "Verify a data directory: every index, counter, checksum and page.",
    "doctor": "Look at a server as its clients see it, and say how to repair it.",
    "completion": "Print what a shell has to load to complete commands.",
}
"""Command -> what it does; the module of the same name is imported only when the command is used."""

HEADINGS = {
    "serve": "Serve",
    "db": "Databases and documents",
    "replicate": "Replicate",
    "backup": "Keep safe",
    "completion": "Use in a shell",
}
"""The first command below each heading."""

EXIT_CODES = {404: 3, 409: 4, 412: 4}
"""HTTP status of an error -> exit code; 1 for any other. 2 is wrong usage, as everywhere with click."""

SENTENCE_LENGTH_MAX = 200
"""Of what is said of a command in its group's list; it folds there."""


class Failure(click.ClickException):
    """One line on standard error, exit code 1."""

    def show(self, file: Any = None) -> None:
        tell(self.message)


def tell(message: str) -> None:
    """Print a line about what went wrong."""
    click.secho(f"couchlite: {message}", fg="red", err=True)


class CommandGroup(click.Group):
    """A group whose commands are listed in the order in which they are defined, each with the whole first
    sentence of what it does."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            rows = self.commands.items()
            formatter.write_dl([(name, one.get_short_help_str(SENTENCE_LENGTH_MAX)) for name, one in rows])


class Commands(click.Group):
    """The commands of COMMANDS, imported when needed; errors of the store become one line and an exit
    code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f"cli.{cmd_name}").command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        names = list(COMMANDS)
        starts = [names.index(first) for first in HEADINGS]
        width = max(map(len, names))
        for heading, start, stop in zip(HEADINGS.values(), starts, [*starts[1:], None], strict=True):
            with formatter.section(heading):
                formatter.write_dl([(name.ljust(width), COMMANDS[name]) for name in names[start:stop]])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except CouchliteError as error:
            tell(error.reason)
            ctx.exit(EXIT_CODES.get(error.status, 1))
        except UnicodeEncodeError as error:
            tell(f"this is no UTF-8, or can't be shown here: {error.object[:100]!a}")
            ctx.exit(1)
        except OSError as error:
            if error.errno == errno.EPIPE:
                raise  # of whom nobody listens to; click sees to it
            tell(f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror or error))
            ctx.exit(1)


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION, message="%(prog)s %(version)s")
def main() -> None:
    """A CouchDB-compatible document database that replicates, and shows and merges conflicts.

    Exit codes: 0 done, 1 failed, 2 wrong usage, 3 not found, 4 conflict.
    """
    _open_missing_streams()


def _open_missing_streams() -> None:
    """Whoever started the program may have closed some. The file opened next would get such a number, and be
    written to as if it were the terminal."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


if __name__ == "__main__":
    main(prog_name="couchlite")
