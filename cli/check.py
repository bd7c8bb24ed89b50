"""`couchlite check`: verify a data directory, and repair what can be made anew."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from couchlite.directory_check import Finding, Repair, check_directory
from replicator.ledger import DIRECTORY as LEDGER
from replicator.ledger_rows import LedgerSpace

from .options import data_dir_option, json_option, print_json
from .progress import ProgressLine


@click.command("check")
@click.argument("names", metavar="[NAME]...", nargs=-1)
@data_dir_option
@click.option("--repair", is_flag=True, help="Make anew what can be: indexes, counters.")
@json_option
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...], data_dir: Path, repair: bool, as_json: bool) -> None:
    """Verify the databases named, or everything: pages, checksums, indexes, counters, attachments.

    Servers may go on meanwhile. Exit code 1 if something is wrong that was not repaired. --repair writes to
    damaged databases only: stop the server before, if you can.
    """
    found: list[Finding] = []
    repairs: list[Repair] = []
    with ProgressLine() as progress:
        for one in check_directory(
            data_dir, names, others={LEDGER: LedgerSpace}, with_repair=repair, progress=progress.show
        ):
            progress.clear()
            if isinstance(one, Repair):
                repairs.append(one)
            else:
                found.append(one)
            if not as_json:
                _print(one)
    left = [finding for finding in found if not finding.is_repaired]
    if as_json:
        print_json(
            {
                "ok": not left,
                "findings": [asdict(finding) for finding in found],
                "repairs": [asdict(done) for done in repairs],
            }
        )
    elif not found:
        click.secho("all is well", fg="green")
    elif left:
        click.secho(f"{len(left)} things are wrong", fg="red")
    else:
        click.secho("all is well again", fg="green")
    ctx.exit(1 if left else 0)


def _print(one: Finding | Repair) -> None:
    if isinstance(one, Repair):
        click.echo(f"{one.where}: {click.style(one.done, fg='green')}")
    else:
        click.echo(f"{one.where}: {one.problem}{' (repaired)' if one.is_repaired else ''}")
