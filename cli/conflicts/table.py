"""Leaves beside their base: a column for each where there is room, else the values and who has them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from couchlite.merging import MISSING

from .differences import Difference
from .screen import ADDED, CONFLICT, FAINT, REMOVED, WINNER, compared, place, some

COLUMN_MIN = 20
"""A narrower column can't be read."""
PLACES_MAX = 40
VARIANTS_MAX = 5
"""So many places, and values of one, are shown where not all are asked for."""
NAMES_MAX = 3


def side_by_side(
    found: Sequence[Difference],
    leaves: Sequence[str],
    base: str | None,
    clashes: Collection[str],
    width: int,
    *,
    whole: bool = False,
) -> Iterator[RenderableType]:
    """What to print of the differences.

    :param leaves: what the leaves are called, the winner first.
    :param base: what the base is called, if there is one.
    :param clashes: pointers of places that can't be merged.
    """
    rows = found if whole else found[:PLACES_MAX]
    columns = len(leaves) + (base is not None)
    place_width = min(max((len(row.pointer) for row in rows), default=0), width // 4)
    if columns * (COLUMN_MIN + 2) + place_width <= width:
        yield _table(rows, leaves, base, clashes, whole)
    else:
        for row in rows:
            yield from _variants(row, leaves, base, clashes, whole)
    if len(rows) < len(found):
        yield Text(f"⋮ {len(found) - len(rows):,} more places (--all shows them)", FAINT)


def _table(
    rows: Sequence[Difference], leaves: Sequence[str], base: str | None, clashes: Collection[str], whole: bool
) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("PLACE", overflow="fold", no_wrap=all(len(row.pointer) <= COLUMN_MIN for row in rows))
    if base is not None:
        table.add_column(f"BASE {base}", overflow="fold", ratio=1)
    for at, leaf in enumerate(leaves):
        table.add_column(Text(leaf, "bold green" if at == 0 else "bold red"), overflow="fold", ratio=1)
    for row in rows:
        cells = [] if base is None else [_base_cell(row, whole)]
        for at, value in enumerate(row.values):
            is_same = base is not None and not row.changed(at)
            cells.append(
                compared(
                    value,
                    row.base,
                    "" if is_same else ADDED if value is not MISSING else REMOVED,
                    whole=whole,
                )
            )
        table.add_row(_place(row, clashes), *cells)
    return table


def _place(row: Difference, clashes: Collection[str]) -> Text:
    is_clash = row.pointer in clashes
    return Text(("! " if is_clash else "  ") + place(row.pointer), "bold red" if is_clash else "cyan")


def _base_cell(row: Difference, whole: bool) -> Text:
    """With what the first leaf that changed it has changed."""
    changed = [value for at, value in enumerate(row.values) if row.changed(at)]
    other: Any = changed[0] if changed else row.base
    return compared(row.base, other, REMOVED, whole=whole)


def _variants(
    row: Difference, leaves: Sequence[str], base: str | None, clashes: Collection[str], whole: bool
) -> Iterator[Text]:
    yield _place(row, clashes)
    if base is not None:
        yield Text().append("    base  ", FAINT).append_text(compared(row.base, row.base, "", whole=whole))
    variants = row.variants()
    most = len(variants) if whole else VARIANTS_MAX
    for value, owners in variants[:most]:
        names = some([leaves[at] for at in owners], len(owners) if whole else NAMES_MAX)
        style = WINNER if 0 in owners else CONFLICT
        yield (
            Text("    ")
            .append(names, style)
            .append("  ")
            .append_text(compared(value, row.base, ADDED, whole=whole))
        )
    if most < len(variants):
        yield Text(f"    ⋮ {len(variants) - most:,} other values (--all shows them)", FAINT)
