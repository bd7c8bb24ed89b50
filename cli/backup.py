"""`couchlite backup`: databases, or a whole server, into one file."""

from __future__ import annotations

import signal
from pathlib import Path

import click

from couchlite.backup import Backup, back_up
from couchlite.server import Server

from .main import tell
from .options import bytes_text, data_dir_option, json_option, print_json
from .progress import ProgressLine
from .stores import require_data_directory


@click.command("backup")
@click.argument("target", metavar="FILE", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@data_dir_option
@json_option
@click.pass_context
def command(ctx: click.Context, target: Path, names: tuple[str, ...], data_dir: Path, as_json: bool) -> None:
    """Back up the databases named, or the whole server, into a new FILE, which holds secrets then.

    Servers may go on meanwhile; each database is backed up as of one moment, with every revision, attachment
    and local document. FILE gets its name when it is whole and verified.
    """
    require_data_directory(data_dir)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was begun is removed
    with ProgressLine() as progress, Server(data_dir) as server:
        done = back_up(server, target, names or None, progress=progress.show)
    if as_json:
        print_json(
            {
                "ok": not done.warnings,
                "file": str(target),
                "bytes": done.bytes,
                "databases": done.databases,
                "warnings": done.warnings,
            }
        )
    else:
        _print(done)
    ctx.exit(1 if done.warnings else 0)


def _print(done: Backup) -> None:
    for warning in done.warnings:
        tell(f"{warning}; the backup is without it")
    for name in done.databases:
        click.echo(name)
    count = f"{len(done.databases)} database{'' if len(done.databases) == 1 else 's'}"
    click.secho(f"backed up {count} into {done.path}: {bytes_text(done.bytes)}", fg="green")
