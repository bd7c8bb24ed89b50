"""`couchlite replications`: list, show and explain, from the ledger of a data directory or of a server."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote, urlencode

import click

from couchlite.jsontext import dumps
from replicator import Ledger

from .main import CommandGroup
from .options import json_option, place_options, print_json
from .remote_store import RemoteStore
from .stores import require_data_directory
from .tables import print_table

COLOURS = {
    "written": "green",
    "skipped": "blue",
    "refused": "red",
    "missing": "yellow",
    "completed": "green",
    "running": "blue",
    "resting": "blue",
    "failed": "red",
    "interrupted": "yellow",
}
COUNTS = ("WRITTEN", "SKIPPED", "REFUSED", "MISSING")
ROWS_MAX = 10_000
ID_SHOWN = 12
"""So much of an id is enough to ask for it, and leaves room on a terminal."""


class Told(Protocol):
    """Where the ledger is asked."""

    def replications(self) -> list[dict[str, Any]]: ...

    def show(self, name: str, *, limit: int) -> dict[str, Any]:
        """:raises NotFound:"""
        ...

    def explain(self, doc_id: str, name: str | None = None) -> list[dict[str, Any]]:
        """:raises NotFound:"""
        ...


class RemoteLedger:
    """The ledger of a server."""

    def __init__(self, server: RemoteStore) -> None:
        self._server = server

    def replications(self) -> list[dict[str, Any]]:
        return list(self._server.ask("GET", f"/_replications?limit={ROWS_MAX}")["replications"])

    def show(self, name: str, *, limit: int) -> dict[str, Any]:
        shown: dict[str, Any] = self._server.ask("GET", f"/_replications/{_segment(name)}?limit={limit}")
        return shown

    def explain(self, doc_id: str, name: str | None = None) -> list[dict[str, Any]]:
        path = "/_replications" if name is None else f"/_replications/{_segment(name)}"
        return list(
            self._server.ask("GET", f"{path}/_explain?{urlencode({'doc_id': doc_id})}")["replications"]
        )


def _segment(name: str) -> str:
    return quote(name, safe="")


def on_ledger(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say where the ledger is, and the ledger as its first argument."""

    @place_options
    @functools.wraps(function)
    def command(
        data_dir: Path, url: str | None, user: str | None, password: str | None, **arguments: Any
    ) -> None:
        if url is not None:
            function(RemoteLedger(RemoteStore(url, user, password)), **arguments)
            return
        require_data_directory(data_dir)
        ledger = Ledger(data_dir)
        try:
            function(ledger, **arguments)
        finally:
            ledger.close()

    return command


@click.group("replications", cls=CommandGroup)
def command() -> None:
    """Tell what replications wrote, skipped and were refused, and why."""


@command.command("list")
@on_ledger
@json_option
def list_(ledger: Told, as_json: bool) -> None:
    """Print all replications with their counts, the one that was last active first."""
    found = ledger.replications()
    if as_json:
        print_json(found)
        return
    names = ["ID", "STATE", "SOURCE", "TARGET", *COUNTS, "LAST ACTIVE"]
    ends = ("id", "state", "source", "target")
    cells = [[*(row[name] for name in ends), *_counts(row), row["last_active"]] for row in found]
    if sys.stdout.isatty():
        cells = [[cell[0][:ID_SHOWN], *cell[1:]] for cell in cells]
    print_table(names, cells, COLOURS)


@command.command()
@click.argument("replication", metavar="ID")
@click.option(
    "--limit", type=click.IntRange(0, ROWS_MAX), default=100, show_default=True, help="How many of each."
)
@on_ledger
@json_option
def show(ledger: Told, replication: str, limit: int, as_json: bool) -> None:
    """Print a replication's runs and the revisions that were not written, newest first. The beginning of its
    ID will do."""
    found = ledger.show(replication, limit=limit)
    if as_json:
        print_json(found)
        return
    for name, value in found.items():
        if name not in ("sessions", "exceptions") and value not in (None, {}):
            click.echo(f"{name}: {value if isinstance(value, str) else dumps(value).decode()}")
    cells = []
    for row in found["sessions"]:
        reason = (row["reason"] or "") + (f" ({row['repeats']} times more)" if row["repeats"] else "")
        cells.append([row["started"], row["ended"], row["state"], *_counts(row), reason])
    click.echo()
    print_table(["STARTED", "ENDED", "STATE", *COUNTS, "REASON"], cells, COLOURS)
    if found["exceptions"]:
        click.echo()
        _print_events(found["exceptions"])


@command.command()
@click.argument("doc_id", metavar="DOCID")
@click.option("--replication", metavar="ID", help="Only this one.")
@on_ledger
@json_option
def explain(ledger: Told, doc_id: str, replication: str | None, as_json: bool) -> None:
    """Print what each replication did with a document; where there is nothing, why that may be so."""
    found = ledger.explain(doc_id, replication)
    if as_json:
        print_json({"doc_id": doc_id, "replications": found})
        return
    for row in found:
        click.echo(f"{row['id']}  {row['source']} -> {row['target']}")
        if row["events"]:
            _print_events(row["events"])
        else:
            click.echo(row["note"])
    if not found:
        click.echo("there was no replication yet")


def _print_events(rows: list[dict[str, Any]]) -> None:
    cells = []
    for row in rows:
        why = f"{row['error']}: {row['reason']}" if "error" in row else ""
        cells.append([row["at"], row["outcome"], row["id"], row["rev"], why])
    print_table(["AT", "OUTCOME", "DOCUMENT", "REVISION", "WHY"], cells, COLOURS)


def _counts(row: dict[str, Any]) -> list[int]:
    return [row[name] for name in ("written", "skipped", "refused", "missing")]
