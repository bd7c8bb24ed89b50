"""Options and output that commands have in common: the same thing has one name, and one sentence,
everywhere."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from couchlite.jsontext import dumps

from .stores import Store, local_store

Decorator = Callable[[Callable[..., None]], Callable[..., None]]

EXISTING_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
"""The type of an option that names a file to be read."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
user_option = click.option(
    "--user", metavar="NAME", envvar="COUCHDB_USER", show_envvar=True, help="Who logs in to the server."
)
password_option = click.option(
    "--password", envvar="COUCHDB_PASSWORD", show_envvar=True, help="With which password."
)


def data_directory_option(
    purpose: str, *, default: str = "couchlite-data", variable: str = "COUCHLITE_DATA_DIR"
) -> Decorator:
    """`--data-dir`, with what it is for."""
    return click.option(
        "--data-dir",
        type=click.Path(path_type=Path),
        default=Path(default),
        envvar=variable,
        show_default=True,
        show_envvar=True,
        help=purpose,
    )


data_dir_option = data_directory_option("Work on this data directory, whether it is being served or not.")


def place_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where the databases are: `data_dir`, or `url`, `user` and
    `password`."""

    @data_dir_option
    @click.option(
        "--url",
        metavar="URL",
        envvar="COUCHLITE_URL",
        show_envvar=True,
        help="Work on the server at this address instead, such as http://127.0.0.1:5984.",
    )
    @user_option
    @password_option
    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        function(**arguments)

    return command


def on_store(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command options that say where the databases are, and the open store as its first argument."""

    @place_options
    @functools.wraps(function)
    def command(
        data_dir: Path, url: str | None, user: str | None, password: str | None, **arguments: Any
    ) -> None:
        if url is None:
            with local_store(data_dir) as store:
                function(store, **arguments)
            return
        from .remote_store import RemoteStore  # which costs a local command's start nothing

        remote: Store = RemoteStore(url, user, password)
        function(remote, **arguments)

    return command


def print_json(value: Any) -> None:
    """One value: in a readable layout on a terminal, on one line elsewhere."""
    if sys.stdout.isatty():
        import json

        click.echo(json.dumps(value, indent=2, ensure_ascii=False))
    else:
        click.echo(dumps(value))


def bytes_text(size: int) -> str:
    """`1.5 MiB`."""
    number = float(size)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if number < 1024:
            return f"{size} bytes" if unit == "bytes" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TiB"
