"""The rows of a changes feed as JSON, and how each kind of feed frames them.

Clients read line by line: one row a line, `last_seq` on a line of its own. Lines are broken where CouchDB
breaks them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from couchlite.changes_feed import Page
from couchlite.jsontext import dumps, escape_all
from couchlite.records import DELETED

from .changes_options import Options


class Rows:
    """The rows of a page, ready to be framed."""

    __slots__ = ("seqs", "texts")

    def __init__(self, texts: list[bytes], seqs: Sequence[bytes]) -> None:
        self.texts = texts
        """JSON objects; where documents come as revisions, what stands before each document (`}` closes the
        row)."""
        self.seqs = seqs
        """The sequences as JSON, if the feed frames rows with them."""


class RowFormat:
    """Makes the rows of one feed, a page at a time: whole columns go through one template.

    :param tag: ends the sequences of the database.
    :param spells_seqs: whether the framing wants the sequences apart.
    """

    def __init__(self, tag: str, options: Options, *, spells_seqs: bool) -> None:
        self._seq = b'"%%d-%b"' % tag.encode()
        self._spells_seqs = spells_seqs or options.seq_interval is not None
        self._interval = options.seq_interval
        self._limit = options.limit
        self._made = 0
        row = b'{"seq":%b,"id":"%%b","changes":[{"rev":"%%b"}]' % (b"%b" if self._spells_seqs else self._seq)
        self._templates = _by_deletion(row, b"}")
        self._templates_with_text = _by_deletion(row, b',"doc":%b}')
        self._templates_with_revision = _by_deletion(row, b',"doc":')

    def rows(self, page: Page) -> Rows:
        columns = page.columns
        revs = list(escape_all(columns.revs))
        for at, leaves in page.leaves.items():
            revs[at] = b'"},{"rev":"'.join(escape_all(leaves))
        spelt = self._spell(columns.seqs) if self._spells_seqs else ()
        shown = [spelt or columns.seqs, escape_all(columns.ids), revs]
        plain, deleted = self._templates
        if page.texts is not None:
            shown.append(page.texts)
            plain, deleted = self._templates_with_text
        elif page.revisions is not None:
            plain, deleted = self._templates_with_revision
        rows = zip(*shown, strict=True)
        if not columns.flags.strip(b"\0"):  # the usual case, and twice as fast
            return Rows([plain % row for row in rows], spelt)
        flagged = zip(columns.flags, rows, strict=True)
        return Rows([(deleted if flags & DELETED else plain) % row for flags, row in flagged], spelt)

    def _spell(self, seqs: Sequence[int]) -> list[bytes]:
        """The sequences as JSON; with `seq_interval` most are null, and which aren't depends on the rows
        left to the limit."""
        first, self._made = self._limit - self._made, self._made + len(seqs)
        if self._interval is None:
            return [self._seq % seq for seq in seqs]
        return [
            b"null" if left % self._interval else self._seq % seq
            for seq, left in zip(seqs, range(first, first - len(seqs), -1), strict=True)
        ]


def _by_deletion(row: bytes, end: bytes) -> tuple[bytes, bytes]:
    """The templates for documents that are there and for deleted ones."""
    return row + end, row + b',"deleted":true' + end


class Framing(Protocol):
    """What stands around the rows of a feed."""

    headers: dict[str, str]
    opening: bytes
    heartbeat: bytes
    spells_seqs: bool
    is_stateless: bool
    """Whether a page is framed alike wherever it stands."""

    def join(self, rows: Rows) -> bytes:
        """The rows of a page."""
        ...

    def around(self, rows: Rows, at: int) -> tuple[bytes, bytes]:
        """What stands before and after one row."""
        ...

    def closing(self, last_seq: str, pending: int) -> bytes: ...


class Results:
    """One JSON object, for normal feeds and long polls."""

    opening = b'{"results":[\n'
    heartbeat = b"\n"
    spells_seqs = False
    is_stateless = False

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}
        self._separator = b""

    def join(self, rows: Rows) -> bytes:
        before, _after = self.around(rows, 0)
        return before + b",\r\n".join(rows.texts)

    def around(self, rows: Rows, at: int) -> tuple[bytes, bytes]:
        before, self._separator = self._separator, b",\r\n"
        return before, b""

    def closing(self, last_seq: str, pending: int) -> bytes:
        return b'\n],\n"last_seq":%b,"pending":%d}\n' % (dumps(last_seq), pending)


class Lines:
    """One JSON object a line, for continuous feeds."""

    opening = b""
    heartbeat = b"\n"
    spells_seqs = False
    is_stateless = True

    def __init__(self) -> None:
        self.headers: dict[str, str] = {}

    def join(self, rows: Rows) -> bytes:
        return b"\n".join(rows.texts) + b"\n"

    def around(self, rows: Rows, at: int) -> tuple[bytes, bytes]:
        return b"", b"\n"

    def closing(self, last_seq: str, pending: int) -> bytes:
        return b'{"last_seq":%b,"pending":%d}\n' % (dumps(last_seq), pending)


class Events:
    """Events for a browser's EventSource: https://html.spec.whatwg.org/multipage/server-sent-events.html"""

    opening = b""
    heartbeat = b"event: heartbeat\ndata: \n\n"
    spells_seqs = True
    is_stateless = True

    def __init__(self) -> None:
        self.headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}

    def join(self, rows: Rows) -> bytes:
        return b"".join([b"data: %b\nid: %b\n\n" % pair for pair in zip(rows.texts, rows.seqs, strict=True)])

    def around(self, rows: Rows, at: int) -> tuple[bytes, bytes]:
        return b"data: ", b"\nid: %b\n\n" % rows.seqs[at]

    def closing(self, last_seq: str, pending: int) -> bytes:
        return b""
