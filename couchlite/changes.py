"""The sequence index, read in pages, and the text form of update sequences.

A sequence is shown as `N-` and a tag of the database it belongs to. CouchDB's clients take it as opaque or
parse the leading integer; the tag lets a sequence of another, or of a recreated, database be told from one of
this one, which then means "from the start", as it does in CouchDB.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from . import records
from .engine import Reader, Space
from .errors import BadRequest
from .records import SeqColumns, u64

PAGE_ROWS = 1000

TAG_LENGTH = 12
_SEQ = re.compile(r'"?(?:([0-9]{1,18})-)?([A-Za-z0-9_-]*)"?')
_TAG = re.compile(rf"[0-9a-f]{{{TAG_LENGTH}}}")
_ERLANG_TERM = 131
"""The first byte of what CouchDB encodes in its sequences."""


class ChangeRow(NamedTuple):
    """A document's last change. `flags` are the record's: DELETED, BRANCHED, ..."""

    seq: int
    flags: int
    body: int
    rev: bytes
    id: bytes


def page(
    reader: Reader, since: int, *, until: int | None = None, limit: int = PAGE_ROWS, reverse: bool = False
) -> SeqColumns:
    """Up to `limit` changes with `since < seq <= until`, oldest first or reversed."""
    stop = None if until is None else u64(until + 1)
    return records.decode_seq_rows(
        list(islice(reader.scan(Space.SEQS, u64(since + 1), stop, reverse=reverse), max(0, limit)))
    )


def rows(columns: SeqColumns) -> list[ChangeRow]:
    return list(map(ChangeRow._make, zip(*columns, strict=True)))


def columns(rows: Sequence[ChangeRow]) -> SeqColumns:
    """The opposite of `rows`."""
    seqs, flags, bodies, revs, ids = zip(*rows, strict=True) if rows else ((),) * 5
    return SeqColumns(seqs, bytes(flags), bodies, list(revs), list(ids))


def format_seq(seq: int, tag: str) -> str:
    return f"{seq}-{tag}"


def parse_seq(text: str, tag: str) -> int:
    """The number in an update sequence, which may stand in quotes; 0 for a sequence of another database.

    :raises BadRequest: it is no update sequence.
    """
    if text == "0":
        return 0
    match = _SEQ.fullmatch(text)
    if match is not None:
        number, opaque = match.groups()
        if number is not None and _TAG.fullmatch(opaque):
            return int(number) if opaque == tag else 0
        if _is_of_couchdb(opaque):
            return 0
    raise BadRequest("Malformed sequence supplied in 'since' parameter.")


def _is_of_couchdb(text: str) -> bool:
    """Whether a sequence's second part can be CouchDB's."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))[:1] == bytes((_ERLANG_TERM,))
    except (ValueError, binascii.Error):
        return False
