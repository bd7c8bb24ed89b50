"""`couchlite restore`: databases, or a whole server, from a backup."""

from __future__ import annotations

from pathlib import Path

import click

from couchlite.restore import BackupFile, DamagedBackup, restore

from .options import data_dir_option, json_option, print_json
from .progress import ProgressLine


@click.command("restore")
@click.argument("source", metavar="FILE", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.argument("names", metavar="[NAME]...", nargs=-1)
@data_dir_option
@click.option(
    "--rename", "renames", metavar="OLD=NEW", multiple=True, help="Call a database otherwise from now on."
)
@click.option(
    "--list", "only_list", is_flag=True, help="Verify FILE and tell what is in it; restore nothing."
)
@json_option
def command(
    source: Path,
    names: tuple[str, ...],
    data_dir: Path,
    renames: tuple[str, ...],
    only_list: bool,
    as_json: bool,
) -> None:
    """Restore the databases named, or all, from a backup FILE. No database is replaced: delete it before, or
    restore under another name. A server may be running on the data directory.

    Each database appears when it is whole. Into a new data directory, a whole server's backup also restores
    configuration and administrators.
    """
    renamed = dict(_pair(text) for text in renames)
    with ProgressLine() as progress, source.open("rb") as file:
        try:
            backup = BackupFile(source, file, progress.show)
        except DamagedBackup as damage:
            raise DamagedBackup(f"{source}: {damage.reason}") from None
        if only_list:
            progress.clear()
            _list(backup, as_json)
            return
        done = restore(backup, data_dir, names or None, rename=renamed, progress=progress.show)
    if as_json:
        pairs = [{"name": new, "backed_up_as": old} for old, new in done.databases]
        print_json({"ok": True, "databases": pairs, "configuration": done.has_configuration})
        return
    for old, new in done.databases:
        click.echo(new if new == old else f"{new} (was {old})")
    what = "with the configuration" if done.has_configuration else "without a configuration"
    count = f"{len(done.databases)} database{'' if len(done.databases) == 1 else 's'}"
    click.secho(f"restored {count} into {data_dir}, {what}", fg="green")


def _list(backup: BackupFile, as_json: bool) -> None:
    if as_json:
        print_json(backup.manifest | {"ok": True, "bytes": backup.size})
        return
    for one in backup.databases:
        click.echo(one.name)
    kind = "a whole server" if backup.manifest["whole_server"] else "databases"
    click.secho(f"a sound backup of {kind}, made at {backup.manifest['made_at']}", fg="green")


def _pair(text: str) -> tuple[str, str]:
    old, equals, new = text.partition("=")
    if not (old and equals and new):
        raise click.UsageError(f"--rename needs OLD=NEW, not {text!r}")
    return old, new
