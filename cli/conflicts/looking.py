"""The commands that look: list, show, diff, stats, log."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click
from rich.text import Text

from couchlite.errors import NotFound
from couchlite.merging import MISSING, Merged, merge

from ..main import CommandGroup
from ..options import bytes_text, json_option, print_json
from ..progress import ProgressLine
from ..tables import print_table
from . import completion
from .case import Case, JsonObject, Listed, short
from .choosing import leaf_names
from .differences import differences
from .opening import Places, on_places
from .places import ConflictPlace, Told
from .screen import ADDED, FAINT, REMOVED, age, compared, console, plural, printable
from .screen import place as place_text
from .table import side_by_side
from .tree import draw

DIFFS_MAX = 10
"""So many leaves are compared by `diff`, where not all are asked for."""

Result = TypeVar("Result")

databases_argument = click.argument(
    "databases", metavar="[DATABASE]...", nargs=-1, shell_complete=completion.databases
)
database_argument = click.argument("database", metavar="DATABASE", shell_complete=completion.databases)
document_argument = click.argument("doc_id", metavar="ID", shell_complete=completion.documents)
all_option = click.option("--all", "whole", is_flag=True, help="Leave nothing out, however much there is.")


class _Conflicts(CommandGroup):
    """Without the name of a command it lists."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        # To complete a command's name is not to leave it out.
        if ctx.resilient_parsing:
            return super().parse_args(ctx, args)
        if not args or (args[0] not in self.commands and args[0] not in ctx.help_option_names):
            args.insert(0, "list")
        return super().parse_args(ctx, args)


@click.group("conflicts", cls=_Conflicts, no_args_is_help=False)
def command() -> None:
    """List conflicts, look into them, merge and resolve them.

    DATABASE is the name of a database of --data-dir or of the server at --url, or the http address of a
    database, of a CouchDB too. ID is a document's id, REV a revision or the beginning of one.
    `couchlite conflicts [DATABASE]...` is short for `couchlite conflicts list`.
    """


@command.command("list")
@databases_argument
@on_places
@json_option
def list_(places: Places, databases: Sequence[str], as_json: bool) -> None:
    """Print the documents in conflict, of the databases named or of all."""
    rows = [row for name in databases or places.names() for row in listed(places.open(name))]
    if as_json:
        print_json(
            [
                {
                    "database": row.database,
                    "id": row.id,
                    "leaves": row.leaves,
                    "since": row.since,
                    "size": row.size,
                    "rev": row.rev,
                }
                for row in rows
            ]
        )
        return
    if not sys.stdout.isatty():
        print_table((), [[row.database, row.id, row.leaves, row.since, row.size, row.rev] for row in rows])
    elif rows:
        print_table(("DATABASE", "DOCUMENT", "LEAVES", "AGE", "SIZE", "WINNER"), map(_cells, rows))
    else:
        click.secho("no conflicts", fg="green")


def _cells(row: Listed) -> list[object]:
    size = "" if row.size is None else bytes_text(row.size)
    return [row.database, row.id, row.leaves, age(row.since), size, short([row.rev])[row.rev]]


def listed(place: ConflictPlace) -> list[Listed]:
    """The documents in conflict; shows how far it is, where that takes a while."""
    return _with_progress(place, lambda told: list(place.rows(told)))


def _with_progress(place: ConflictPlace, read: Callable[[Told], Result]) -> Result:
    with ProgressLine() as progress:
        return read(lambda done, total: progress.show(f"{place.name}: changes read", done, total))


@command.command()
@database_argument
@document_argument
@all_option
@on_places
@json_option
def show(places: Places, database: str, doc_id: str, whole: bool, as_json: bool) -> None:
    """Draw the revision tree of document ID, and its leaves beside the version that they come from."""
    place = places.open(database)
    case = place.case(doc_id)
    merged = merge(case.base, case.documents) if len(case.leaves) > 1 else Merged({}, ())
    clashes = list(dict.fromkeys(clash.pointer for clash in merged.clashes))
    if as_json:
        print_json(case.to_json() | {"clashes": clashes})
        return
    screen = console()
    names = _names(case)
    screen.print(_head(case), soft_wrap=True)
    screen.print()
    for line in draw(case, names, whole=whole):
        screen.print(line, soft_wrap=True)
    if len(case.leaves) < 2:
        return
    screen.print()
    if case.no_base_reason is not None:
        screen.print(Text(case.no_base_reason, "yellow"), soft_wrap=True)
    brief = short([*case.revs, *([] if case.base_rev is None else [case.base_rev])])
    base = None if case.base_rev is None else brief[case.base_rev]
    found = differences(case.base, case.documents)
    for part in side_by_side(found, leaf_names(case, brief), base, clashes, screen.width, whole=whole):
        screen.print(part)
    screen.print()
    screen.print(_verdict(clashes), soft_wrap=True)


def _names(case: Case) -> dict[str, str]:
    """What revisions are called: on a terminal by their beginnings, elsewhere whole."""
    revs = [revision.rev for branch in case.branches for revision in branch.revs]
    return short(revs) if sys.stdout.isatty() else {rev: rev for rev in revs}


def _head(case: Case) -> Text:
    head = Text().append(printable(case.id), "bold").append(f" in {case.database}: ", "")
    if len(case.leaves) < 2:
        return head.append("not in conflict", "green" if case.leaves else "yellow")
    since = "" if case.since is None else f" for {age(case.since)}"
    size = bytes_text(sum(leaf.size for leaf in case.leaves))
    return head.append(f"{plural(len(case.leaves), 'leaf')} in conflict{since}, {size}", "red")


def _verdict(clashes: Sequence[str]) -> Text:
    if not clashes:
        return Text("A three-way merge has nothing to ask.", "green")
    places = ", ".join(map(place_text, clashes[:5]))
    more = f" and {len(clashes) - 5:,} more" if len(clashes) > 5 else ""
    return Text(f"A three-way merge has to ask about {places}{more}.", "yellow")


@command.command()
@database_argument
@document_argument
@click.argument("revs", metavar="[REV [REV]]", nargs=-1, shell_complete=completion.leaves)
@all_option
@on_places
@json_option
def diff(places: Places, database: str, doc_id: str, revs: Sequence[str], whole: bool, as_json: bool) -> None:
    """Print what differs between two revisions; with one, between the base and that; with none, between the
    base and each leaf. Where there is no base, the winner stands for it."""
    if len(revs) > 2:
        raise click.UsageError("There are at most two revisions to compare.")
    place = places.open(database)
    case = place.case(doc_id)
    chosen = [case.find(rev) for rev in revs]
    origin = chosen[0] if len(chosen) == 2 else case.base_rev or case.revs[0]
    targets = chosen[-1:] or [rev for rev in case.revs if rev != origin]
    most = len(targets) if whole or as_json else DIFFS_MAX
    before = _body(place, case, origin)
    compared_pairs = [(target, _changes(before, _body(place, case, target))) for target in targets[:most]]
    if as_json:
        print_json([{"from": origin, "to": target, "changes": found} for target, found in compared_pairs])
        return
    names = _names(case)
    screen = console()
    for target, found in compared_pairs:
        screen.print(Text(f"--- {names[origin]}{_role(case, origin)}", REMOVED), soft_wrap=True)
        screen.print(Text(f"+++ {names[target]}{_role(case, target)}", ADDED), soft_wrap=True)
        for change in found:
            screen.print(Text(place_text(change["pointer"]), "cyan"), soft_wrap=True)
            old, new = _value(change["from"]), _value(change["to"])
            for sign, value, other, style in (("- ", old, new, REMOVED), ("+ ", new, old, ADDED)):
                if value is not MISSING:
                    for line in compared(value, other, style, whole=whole).split("\n"):
                        screen.print(Text().append(sign, style).append_text(line), soft_wrap=True)
    if most < len(targets):
        screen.print(Text(f"⋮ {len(targets) - most:,} more leaves (--all shows them)", FAINT))


def _body(place: ConflictPlace, case: Case, rev: str) -> JsonObject:
    found = place.document(case, rev)
    if found is None:
        raise NotFound(f"{rev} is not available: {case.compacted_by}")
    return found


def _role(case: Case, rev: str) -> str:
    if rev == case.common_ancestor:
        return " base"
    return " winner" if rev in case.revs[:1] else ""


def _changes(before: JsonObject, after: JsonObject) -> list[JsonObject]:
    return [
        {"pointer": found.pointer, "from": _member(found.base), "to": _member(found.values[0])}
        for found in differences(before, [after])
    ]


def _member(value: Any) -> JsonObject:
    return {"missing": True} if value is MISSING else {"value": value}


def _value(member: JsonObject) -> Any:
    return member.get("value", MISSING)


@command.command()
@databases_argument
@on_places
@json_option
def stats(places: Places, databases: Sequence[str], as_json: bool) -> None:
    """Print how many conflicts there are, of the databases named or of all."""
    found = {}
    for name in databases or places.names():
        place = places.open(name)
        found[place.name] = _with_progress(place, place.counts)
    if as_json:
        print_json(found)
        return
    is_terminal = sys.stdout.isatty()
    cells = []
    for name, counts in found.items():
        size = bytes_text(counts["bytes"]) if is_terminal else counts["bytes"]
        ages = [age(counts[which]) if is_terminal else counts[which] for which in ("oldest", "newest")]
        cells.append([name, counts["documents"], counts["leaves"], counts["leaves_max"], size, *ages])
    print_table(("DATABASE", "DOCUMENTS", "LEAVES", "MOST", "SIZE", "OLDEST", "NEWEST"), cells)


@command.command()
@database_argument
@click.argument("doc_id", metavar="[ID]", required=False)
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many at most.")
@on_places
@json_option
def log(places: Places, database: str, doc_id: str | None, limit: int, as_json: bool) -> None:
    """Print what was resolved in a database, or of one document, newest first: by whom, by what means, and
    whether it can be undone."""
    entries = places.open(database).log(doc_id, limit)
    if as_json:
        print_json(entries)
        return
    is_terminal = sys.stdout.isatty()
    cells = []
    for entry in entries:
        rev = short([entry["rev"]])[entry["rev"]] if is_terminal else entry["rev"]
        time = entry["time"][:19].replace("T", " ") if is_terminal else entry["time"]
        leaves = len(entry["leaves"])
        cells.append(
            [entry["resolution"], time, entry["id"], entry["using"], entry["by"], leaves, rev, _undo(entry)]
        )
    print_table(("NO", "TIME", "DOCUMENT", "USING", "BY", "LEAVES", "REVISION", "UNDO"), cells)


def _undo(entry: JsonObject) -> str:
    if "undoes" in entry:
        return f"undoes {entry['undoes']}"
    if "undone_by" in entry:
        return f"undone by {entry['undone_by']}"
    return "possible" if entry["can_undo"] else f"not possible: {entry['reason']}"
