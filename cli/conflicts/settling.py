"""The commands that end conflicts: merge, pick, resolve, undo; and the settings of resolvers.

What must stay true here: what is written is what was shown, of the leaves that were seen; every command that
writes can tell instead what it would write (--dry-run); clashes are decided by people or by what they named.
"""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

import click
from rich.text import Text

from couchlite.errors import BadRequest, CouchliteError, NotFound
from couchlite.jsontext import loads
from couchlite.merging import Merged, Rules
from couchlite.merging import merge as merge_leaves
from couchlite.merging.settings import NAMES

from ..main import EXIT_CODES, CommandGroup, Failure, tell
from ..options import json_option, print_json
from ..progress import ProgressLine
from . import choosing, completion
from .case import Case, JsonObject, short
from .differences import differences
from .looking import database_argument, databases_argument, document_argument, listed
from .opening import Places, on_places
from .places import ConflictPlace, Content, Delete, Pick
from .screen import FAINT, console, plural, some
from .table import side_by_side

LEFT = EXIT_CODES[409]
"""Exit code when conflicts stay."""
REASONS_MAX = 10

dry_run_option = click.option("--dry-run", is_flag=True, help="Only tell what would be done.")
yes_option = click.option("--yes", is_flag=True, help="Don't ask whether to write.")


def resolver_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command `using`, the name of a resolver or None, and `options`, what that is to be told."""

    @click.option("--using", metavar="RESOLVER", type=click.Choice(NAMES), help=f"One of {', '.join(NAMES)}.")
    @click.option(
        "--rules", metavar="JSON|@FILE", help="Rules for places: of three-way, union, or no resolver."
    )
    @click.option("--clashes", type=click.Choice(["leave", "winner"]), help="Of three-way and union.")
    @click.option("--field", metavar="POINTER", help="Of last-write-wins, such as /updated_at.")
    @click.option("--function", "function_", metavar="DESIGN/NAME", help="Of javascript.")
    @functools.wraps(function)
    def command(
        *places: Places,
        rules: str | None,
        clashes: str | None,
        field: str | None,
        function_: str | None,
        **arguments: Any,
    ) -> None:
        given = {"clashes": clashes, "field": field, "function": function_}
        options = {name: value for name, value in given.items() if value is not None}
        if rules is not None:
            options["rules"] = _json("--rules", rules)
        function(*places, options=options, **arguments)

    return command


def _json(option: str, text: str) -> Any:
    try:
        return loads(Path(text[1:]).read_bytes() if text.startswith("@") else text.encode())
    except OSError as error:
        raise Failure(f"{option}: {text[1:]}: {error.strerror}") from error
    except CouchliteError as error:
        raise Failure(f"{option}: {error.reason}") from error


# --- one document


@click.command()
@database_argument
@document_argument
@on_places
@resolver_options
@click.option("--edit", is_flag=True, help="Merge in $EDITOR, with conflict markers where values clash.")
@dry_run_option
@yes_option
@json_option
@click.pass_context
def merge(
    context: click.Context,
    places: Places,
    database: str,
    doc_id: str,
    using: str | None,
    options: JsonObject,
    edit: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Merge the leaves of document ID three ways. What clashes is asked on the terminal, decided in an editor
    (--edit), or by a resolver (--using); where there is nobody to ask it is left, with exit code 4."""
    place = places.open(database)
    if using is not None:
        if edit:
            raise click.UsageError("--edit and --using exclude each other.")
        _settle_one(context, place, doc_id, using, options, dry_run=dry_run, as_json=as_json)
        return
    if options.keys() - {"rules"}:
        raise click.UsageError(f"--{min(options.keys() - {'rules'})} needs --using.")
    case = place.case(doc_id)
    case.require_conflict()
    merged = merge_leaves(case.base, case.documents, Rules.parse(options.get("rules", {})))
    is_asking = not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    if is_asking and case.no_base_reason is not None:
        console().print(Text(case.no_base_reason, "yellow"), soft_wrap=True)
    names = choosing.leaf_names(case, short(case.revs))
    means = "three-way"
    if edit:
        means, document = "editor", choosing.edit(merged, names)
        decided = None if document is None else Merged(document, ())
    elif merged.clashes and is_asking:
        means, decided = "choice", choosing.ask(merged, names, console())
    else:
        decided = merged
    if decided is None:
        raise Failure("nothing was written")
    if decided.clashes:
        _tell_clashes(case, decided, as_json)
        context.exit(LEFT)
    content: Content = Delete() if decided.deleted else decided.document
    _finish(place, case, content, means, dry_run=dry_run, as_json=as_json, ask=is_asking and not yes)


def _tell_clashes(case: Case, merged: Merged, as_json: bool) -> None:
    if as_json:
        found = [{"pointer": clash.pointer, "kind": str(clash.kind)} for clash in merged.clashes]
        print_json({"ok": False, "id": case.id, "leaves": case.revs, "clashes": found})
        return
    for line in choosing.clash_lines(merged.clashes, case.revs):
        click.echo(line)
    tell("the leaves clash: decide on a terminal, with --edit, or with --using RESOLVER")


def _settle_one(
    context: click.Context,
    place: ConflictPlace,
    doc_id: str,
    using: str,
    options: JsonObject,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    rows: list[JsonObject] = []
    place.settle([doc_id], using, options, dry_run=dry_run, tell=rows.append)
    if not rows:
        raise NotFound(f"{doc_id} is not in conflict")
    [row] = rows
    if as_json:
        print_json(row)
    elif "reason" in row:
        tell(f"{doc_id} is left alone: {row['reason']}")
    elif dry_run:
        _print_document(row["document"])
    else:
        _print_done(row)
    if "reason" in row:
        context.exit(LEFT)


def _finish(
    place: ConflictPlace, case: Case, content: Content, means: str, *, dry_run: bool, as_json: bool, ask: bool
) -> None:
    """Show what a case is resolved to, and write it."""
    document = content if isinstance(content, dict) else None
    if isinstance(content, Pick):
        document = case.leaf(content.rev).document
    if dry_run:
        if as_json:
            print_json({"ok": True, "id": case.id, "leaves": case.revs, "document": document})
        else:
            _print_document(document)
        return
    if ask:
        _show_result(case, document)
        click.confirm("Write this?", default=True, abort=True)
    done = place.resolve(case, content, means)
    if as_json:
        print_json(done)
    else:
        _print_done(done)


def _show_result(case: Case, document: JsonObject | None) -> None:
    screen = console()
    if document is None:
        screen.print(Text("\nThe document would be deleted.", "yellow"))
        return
    origin = case.base if case.base is not None else case.documents[0]
    found = differences(origin, [document])
    name = "" if case.base is not None else "(winner)"
    screen.print()
    for part in side_by_side(found, ["MERGED"], name, (), screen.width):
        screen.print(part)
    if not found:
        screen.print(
            Text(f"The merged document is the {'base' if case.base is not None else 'winner'}.", FAINT)
        )
    screen.print()


def _print_document(document: JsonObject | None) -> None:
    if document is None:
        click.echo("(deleted)")
    else:
        click.echo(json.dumps(document, indent=2, ensure_ascii=False))


def _print_done(done: JsonObject) -> None:
    number = f" (resolution {done['resolution']})" if "resolution" in done else ""
    click.secho(f"resolved {done['id']}: {done['rev']}{number}", fg="green")


@click.command()
@database_argument
@document_argument
@click.argument("rev", metavar="REV", shell_complete=completion.leaves)
@on_places
@dry_run_option
@json_option
def pick(places: Places, database: str, doc_id: str, rev: str, dry_run: bool, as_json: bool) -> None:
    """Let the leaf REV of document ID stay as it is, and delete the others."""
    place = places.open(database)
    case = place.case(doc_id)
    case.require_conflict()
    _finish(place, case, Pick(case.find_leaf(rev)), "pick", dry_run=dry_run, as_json=as_json, ask=False)


@click.command()
@database_argument
@document_argument
@click.option("--resolution", type=int, help="Its number in the log; by default the document's latest.")
@on_places
@json_option
def undo(places: Places, database: str, doc_id: str, resolution: int | None, as_json: bool) -> None:
    """Bring the conflict of document ID back, with the same contents as before."""
    done = places.open(database).undo(doc_id, resolution)
    if as_json:
        print_json(done)
    else:
        click.secho(f"{doc_id} is in conflict again: {done['rev']} wins", fg="yellow")


# --- many documents


@click.command()
@databases_argument
@on_places
@click.option(
    "--all", "all_", is_flag=True, help="All conflicts of the databases named, or of all databases."
)
@resolver_options
@dry_run_option
@yes_option
@json_option
@click.pass_context
def resolve(
    context: click.Context,
    places: Places,
    databases: Sequence[str],
    all_: bool,
    using: str | None,
    options: JsonObject,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Let a resolver settle all conflicts; without --using each database's settings say which one.

    Exit code 4 if some are left alone."""
    if not all_:
        raise click.UsageError("--all says that all conflicts are meant; `merge` and `pick` are for one.")
    if options and using is None:
        raise click.UsageError(f"--{min(options)} needs --using.")
    found = []
    for name in databases or places.names():
        place = places.open(name)
        found.append((place, [row.id for row in listed(place)]))
    count = sum(len(ids) for _, ids in found)
    if count and not (yes or dry_run or as_json) and sys.stdin.isatty():
        means = using or "the databases' settings"
        click.confirm(f"Resolve {plural(count, 'conflict')} with {means}?", abort=True)
    rows: list[JsonObject] = []
    with ProgressLine() as progress:

        def settled(database: str, row: JsonObject) -> None:
            rows.append({"database": database, **row})
            progress.show(f"{database}: {row['id']}", len(rows), count)

        for place, ids in found:
            tell_row = functools.partial(settled, place.name)
            if ids:
                place.settle(ids, using, options, dry_run=dry_run, tell=tell_row)
    left = [row for row in rows if "reason" in row]
    if as_json:
        print_json({"resolved": len(rows) - len(left), "left": len(left), "dry_run": dry_run, "rows": rows})
    else:
        _print_summary(rows, left, dry_run)
    if left:
        context.exit(LEFT)


def _print_summary(rows: Sequence[JsonObject], left: Sequence[JsonObject], dry_run: bool) -> None:
    done = len(rows) - len(left)
    overruled = sum(len(row["overruled"]) for row in rows if "reason" not in row)
    by_reason: dict[str, list[str]] = {}
    for row in left:
        by_reason.setdefault(row["reason"], []).append(f"{row['database']}/{row['id']}")
    for reason, names in list(by_reason.items())[:REASONS_MAX]:
        click.echo(f"{click.style('left alone', fg='yellow')}: {some(names, 3)}: {reason}")
    if len(by_reason) > REASONS_MAX:
        click.echo(f"and {len(by_reason) - REASONS_MAX:,} other reasons; --json names them all")
    verb = "would be resolved" if dry_run else "resolved"
    lost = f", {plural(overruled, 'leaf')} overruled" if overruled else ""
    click.secho(
        f"{plural(done, 'conflict')} {verb}{lost}; {len(left):,} left alone", fg="green" if not left else None
    )


# --- settings


@click.group(cls=CommandGroup)
def resolvers() -> None:
    """Print or change how a database's conflicts are resolved."""


@resolvers.command("get")
@database_argument
@on_places
@json_option
def get_resolvers(places: Places, database: str, as_json: bool) -> None:
    """Print the settings, as JSON either way."""
    print_json(places.open(database).resolvers())


@resolvers.command("set")
@database_argument
@click.argument("file", type=click.File("rb"), default="-")
@on_places
@json_option
def set_resolvers(places: Places, database: str, file: IO[bytes], as_json: bool) -> None:
    """Store the settings in FILE (or standard input), as `get` prints them."""
    settings = loads(file.read())
    if not isinstance(settings, dict):
        raise BadRequest(f"{file.name}: settings are a JSON object")
    places.open(database).set_resolvers(settings)
    if as_json:
        print_json({"ok": True})
    else:
        click.secho("stored", fg="green")
