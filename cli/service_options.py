"""Options that `couchlite serve` and `couchlite replicator` have in common; apart from options.py because
they need the server's code, whose import the other commands shall not wait for.
"""

from __future__ import annotations

import click

from http_api import logs

from .options import EXISTING_FILE, Decorator

log_format_option = click.option(
    "--log-format",
    type=click.Choice(logs.FORMATS),
    default="text",
    show_default=True,
    help="How a line of the log looks.",
)


def config_option(purpose: str) -> Decorator:
    """`--config`; `purpose` goes on where the sentence that all have ends."""
    return click.option(
        "--config",
        "config_file",
        type=EXISTING_FILE,
        help=f"Settings in the form of CouchDB's local.ini{purpose}",
    )


def log_level_option(default: str | None) -> Decorator:
    """:param default: None where the configuration may say it, too."""
    return click.option(
        "--log-level",
        metavar="LEVEL",
        type=click.Choice(list(logs.LEVELS)),
        default=default,
        help="What to log: debug, info, warning, error, critical, none, or another of CouchDB's levels.  "
        "[default: info]",
    )
