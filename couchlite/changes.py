"""The sequence index, read in pages, and the text form of update sequences.

A sequence is shown as `N-` and a tag of the database it belongs to. CouchDB's clients take it as opaque or
parse the leading integer; the tag lets a sequence of another, or of a recreated, database be told from one
of this one, which then means "from the start", as it does in CouchDB.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from . import records
from .engine import Reader, Space
from .errors import BadRequest
from .records import from_u64, u64

PAGE_ROWS = 1000

_SEQ = re.compile(r"([0-9]+)(?:-([A-Za-z0-9_-]*))?\Z")


class ChangeRow(NamedTuple):
    """A document's last change. `flags` are the record's: DELETED, BRANCHED, ..."""

    seq: int
    flags: int
    body: int
    rev: bytes
    id: bytes


def page(
    reader: Reader, since: int, *, until: int | None = None, limit: int = PAGE_ROWS, reverse: bool = False
) -> list[ChangeRow]:
    """Up to `limit` changes with `since < seq <= until`, oldest first or reversed."""
    rows: list[ChangeRow] = []
    if limit <= 0:
        return rows
    decode = records.decode_seq_row
    stop = None if until is None else u64(until + 1)
    for key, row in reader.scan(Space.SEQS, u64(since + 1), stop, reverse=reverse):
        rows.append(ChangeRow(from_u64(key), *decode(row)))
        if len(rows) == limit:
            break
    return rows


def count_after(reader: Reader, since: int) -> int:
    """How many changes come after `since`."""
    return sum(1 for _pair in reader.scan(Space.SEQS, u64(since + 1)))


def format_seq(seq: int, tag: str) -> str:
    return f"{seq}-{tag}"


def parse_seq(text: str, tag: str) -> int:
    """The number in an update sequence; 0 for a sequence of another database.

    :raises BadRequest: it is no update sequence.
    """
    if text == "0":
        return 0
    match = _SEQ.match(text)
    if match is None or match[2] is None:
        raise BadRequest("Malformed sequence supplied in 'since' parameter.")
    return int(match[1]) if match[2] == tag else 0
