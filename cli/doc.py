"""`couchlite doc`: get, put, delete, history."""

from __future__ import annotations

from dataclasses import asdict
from typing import IO, Any

import click

from couchlite.errors import CouchliteError
from couchlite.jsontext import loads

from .main import CommandGroup, Failure
from .options import json_option, on_store, print_json
from .stores import HistoryEntry, Store

LEAF_COLOURS = {"winner": "green", "conflict": "red", "deleted": "yellow"}


@click.group("doc", cls=CommandGroup)
def command() -> None:
    """Read and change documents. DATABASE is a database's name, ID a document's id."""


@command.command()
@click.argument("database")
@click.argument("doc_id", metavar="ID")
@click.option("--rev", metavar="REV", help="This revision instead of the winning one.")
@on_store
@json_option
def get(store: Store, database: str, doc_id: str, rev: str | None, as_json: bool) -> None:
    """Print a document, as JSON either way: in a readable layout on a terminal, on one line elsewhere."""
    print_json(store.get(database, doc_id, rev))


@command.command()
@click.argument("database")
@click.argument("doc_id", metavar="ID")
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--rev",
    metavar="REV",
    help="The revision that is replaced; not needed if it is in the document as `_rev`.",
)
@on_store
@json_option
def put(store: Store, database: str, doc_id: str, file: IO[bytes], rev: str | None, as_json: bool) -> None:
    """Store the JSON document in FILE (or standard input) and print its new revision."""
    try:
        document = loads(file.read())
    except CouchliteError as error:
        raise Failure(f"{file.name}: {error.reason}") from error
    if not isinstance(document, dict):
        raise Failure(f"{file.name}: a document is a JSON object")
    document["_id"] = doc_id
    if rev is not None:
        document["_rev"] = rev
    _stored(store.put(database, document), as_json)


@command.command()
@click.argument("database")
@click.argument("doc_id", metavar="ID")
@click.option("--rev", metavar="REV", help="This revision instead of the winning one.")
@on_store
@json_option
def delete(store: Store, database: str, doc_id: str, rev: str | None, as_json: bool) -> None:
    """Delete a document and print the revision that says so. If there are conflicts, the next one wins
    then."""
    if rev is None:
        rev = store.get(database, doc_id, None)["_rev"]
    _stored(store.put(database, {"_id": doc_id, "_rev": rev, "_deleted": True}), as_json)


@command.command()
@click.argument("database")
@click.argument("doc_id", metavar="ID")
@on_store
@json_option
def history(store: Store, database: str, doc_id: str, as_json: bool) -> None:
    """Print a document's revisions, newest first, branch by branch, the winning branch first.

    Each line has the revision, whether its body is still here (available, deleted, missing), and for the last
    of a branch whether it is the winner, a conflict or deleted.
    """
    listed = store.history(database, doc_id)
    if as_json:
        print_json([asdict(entry) for entry in listed])
        return
    for entry in listed:
        click.echo(_line(entry))


def _line(entry: HistoryEntry) -> str:
    line = f"{entry.rev}\t{entry.status}"
    if entry.leaf is not None:
        line += "\t" + click.style(entry.leaf, fg=LEAF_COLOURS[entry.leaf])
    return line


def _stored(rev: str, as_json: bool) -> None:
    value: Any = {"ok": True, "rev": rev}
    if as_json:
        print_json(value)
    else:
        click.echo(rev)
