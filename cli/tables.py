"""Tables: aligned and coloured on a terminal, tab-separated lines without a head elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

SHORT_CELL = 24
"""A column of cells no longer than this, such as times, is not folded."""


def print_table(
    names: Sequence[str], rows: Iterable[Sequence[object]], colours: Mapping[str, str] | None = None
) -> None:
    """:param colours: words that stand out where they are all there is in a cell."""
    texts = [[_plain(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for row in texts:
            click.echo("\t".join(row))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for at, name in enumerate(names):
        widest = max((len(row[at]) for row in texts), default=0)
        table.add_column(name, overflow="fold", no_wrap=widest <= SHORT_CELL)
    for row in texts:
        table.add_row(*[Text(cell, style=(colours or {}).get(cell, "")) for cell in row])
    Console().print(table)


def _plain(cell: object) -> str:
    """A cell's text; what would move the cursor or break the line is shown escaped."""
    text = "" if cell is None else str(cell)
    return text if text.isprintable() else text.encode("unicode_escape").decode()
