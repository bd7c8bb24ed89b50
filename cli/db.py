"""`couchlite db`: list, create, delete, info, compact."""

from __future__ import annotations

import sys
from dataclasses import asdict

import click

from .main import CommandGroup
from .options import bytes_text, json_option, on_store, print_json
from .stores import Store


@click.group("db", cls=CommandGroup)
def command() -> None:
    """List, create, delete, inspect and compact databases."""


@command.command("list")
@on_store
@json_option
def list_(store: Store, as_json: bool) -> None:
    """Print the names of all databases, one a line."""
    names = store.names()
    if as_json:
        print_json(names)
    else:
        for name in names:
            click.echo(name)


@command.command()
@click.argument("name")
@on_store
@json_option
def create(store: Store, name: str, as_json: bool) -> None:
    """Create a database."""
    store.create(name)
    _done(as_json, f"created {name}")


@command.command()
@click.argument("name")
@click.option("--yes", is_flag=True, help="Don't ask.")
@on_store
@json_option
def delete(store: Store, name: str, yes: bool, as_json: bool) -> None:
    """Delete a database and all that is in it. Asks first if there is a terminal to ask on."""
    if not yes and sys.stdin.isatty():
        click.confirm(f"Delete {name} with {store.facts(name).documents} documents?", abort=True)
    store.delete(name)
    _done(as_json, f"deleted {name}")


@command.command()
@click.argument("name")
@on_store
@json_option
def info(store: Store, name: str, as_json: bool) -> None:
    """Print how many documents a database has and what it takes on the disk."""
    facts = store.facts(name)
    if as_json:
        print_json(asdict(facts))
        return
    lines = {
        "name": facts.name,
        "documents": facts.documents,
        "deleted documents": facts.deleted_documents,
        "update sequence": facts.update_seq,
        "on disk": bytes_text(facts.file_bytes),
        "of that in use": bytes_text(facts.active_bytes),
        "as JSON and attachments": bytes_text(facts.external_bytes),
        "compaction": "running" if facts.compacting else "not running",
    }
    for label, value in lines.items():
        click.echo(f"{click.style(label, dim=True)}{' ' * (25 - len(label))}{value}")


@command.command()
@click.argument("name")
@on_store
@json_option
def compact(store: Store, name: str, as_json: bool) -> None:
    """Drop what no revision in use needs any more; returns when that is done."""
    before = store.facts(name).file_bytes
    store.compact(name)
    after = store.facts(name).file_bytes
    if as_json:
        print_json({"ok": True, "file_bytes_before": before, "file_bytes": after})
    else:
        click.echo(f"compacted {name}: {bytes_text(before)} before, {bytes_text(after)} now")


def _done(as_json: bool, message: str) -> None:
    if as_json:
        print_json({"ok": True})
    else:
        click.secho(message, fg="green")
