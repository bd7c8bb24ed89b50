"""The ledger's rows as bytes: what ledger.py keeps in the directory ledger.mdb.

    META            format          the version of this layout
                    next            the number that the next replication gets
    REPLICATIONS    replication id  its number, and what it is: JSON
    SUMMARIES       number          what came of it since ever
    SESSIONS        number, n       one run of it
    EXCEPTIONS      number, n       a revision that was not written, and why
    OUTCOMES        number, n       documents that were written or skipped, some thousands a row

Numbers are eight bytes, high byte first, so that the rows of a replication lie together, oldest first.
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple

from couchlite.engine import Keyspace
from couchlite.jsontext import dumps, loads
from couchlite.records import decode_fields, encode_fields, u64

FORMAT_VERSION = 1
COMPRESSION_LEVEL = 1
"""Ids resemble each other; more effort gains little."""


class LedgerSpace(Keyspace):
    META = 0
    REPLICATIONS = 1
    SUMMARIES = 2
    SESSIONS = 3
    EXCEPTIONS = 4
    OUTCOMES = 5

    @property
    def is_sealed(self) -> bool:
        return True


@dataclass(slots=True)
class Counts:
    """Revisions, by what came of them."""

    written: int = 0
    skipped: int = 0
    """The target had them already."""
    refused: int = 0
    """The target didn't take them."""
    missing: int = 0
    """The source announced them and doesn't have them any more."""

    def add(self, other: Counts) -> None:
        self.written += other.written
        self.skipped += other.skipped
        self.refused += other.refused
        self.missing += other.missing

    @property
    def is_nothing(self) -> bool:
        return not (self.written or self.skipped or self.refused or self.missing)


@dataclass(slots=True)
class Summary:
    """What came of a replication since ever."""

    counts: Counts = field(default_factory=Counts)
    reasons: dict[str, int] = field(default_factory=dict)
    """Error -> how many revisions were not written because of it."""
    sessions: int = 0
    exceptions_dropped: int = 0
    """How many of the oldest rows are no longer kept, because there were too many."""
    outcomes_kept: int = 0
    outcomes_dropped: int = 0
    begun_ms: int = 0
    active_ms: int = 0

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @classmethod
    def decode(cls, row: bytes | None) -> Summary:
        if row is None:
            return cls()
        fields: dict[str, Any] = decode_fields(row)
        return cls(counts=Counts(**fields.pop("counts")), **fields)


@dataclass(slots=True)
class SessionRow:
    """A run, as it is shown."""

    id: str
    state: str
    """running, resting (until there are changes), completed, stopped (by somebody), failed, or interrupted:
    its process has died."""
    begun_ms: int
    ended_ms: int | None = None
    reason: str | None = None
    repeats: int = 0
    """How often a run failed so after this one, having done nothing."""
    start_seq: Any = None
    end_seq: Any = None
    counts: Counts = field(default_factory=Counts)

    def encode(self) -> bytes:
        return encode_fields(asdict(self))

    @classmethod
    def decode(cls, row: bytes) -> SessionRow:
        fields: dict[str, Any] = decode_fields(row)
        return cls(counts=Counts(**fields.pop("counts")), **fields)

    def shown(self) -> dict[str, Any]:
        return {
            **asdict(self.counts),
            "id": self.id,
            "state": self.state,
            "started": moment(self.begun_ms),
            "ended": None if self.ended_ms is None else moment(self.ended_ms),
            "reason": self.reason,
            "repeats": self.repeats,
            "start_seq": self.start_seq,
            "end_seq": self.end_seq,
        }


class ExceptionRow(NamedTuple):
    """A revision that was not written."""

    at_ms: int
    doc_id: str
    rev: str
    outcome: str
    """refused or missing."""
    error: str
    reason: str
    session: str

    def encode(self) -> bytes:
        return encode_fields(list(self))

    @classmethod
    def decode(cls, row: bytes) -> ExceptionRow:
        return cls(*decode_fields(row))

    def shown(self) -> dict[str, Any]:
        return {
            "at": moment(self.at_ms),
            "id": self.doc_id,
            "rev": self.rev,
            "outcome": self.outcome,
            "error": self.error,
            "reason": self.reason,
            "session": self.session,
        }


class Outcome(NamedTuple):
    """What came of a document: the revision is known when it was written."""

    at_ms: int
    outcome: str
    rev: str | None
    session: str

    def shown(self, doc_id: str) -> dict[str, Any]:
        return {
            "at": moment(self.at_ms),
            "id": doc_id,
            "rev": self.rev,
            "outcome": self.outcome,
            "session": self.session,
        }


class Block(NamedTuple):
    """Some documents with what came of them, all within moments: `written_revs` go with `written`."""

    at_ms: int
    session: str
    written: Sequence[str]
    written_revs: Sequence[str]
    skipped: Sequence[str]

    @property
    def size(self) -> int:
        return len(self.written) + len(self.skipped)

    def encode(self) -> bytes:
        text = dumps([list(self.written), list(self.written_revs), list(self.skipped)])
        packed = zlib.compress(text, COMPRESSION_LEVEL)
        return encode_fields([self.at_ms, self.session, self.size, packed])


def size_of_block(row: bytes) -> int:
    size: int = decode_fields(row)[2]
    return size


def find_in_block(row: bytes, doc_id: str, id_text: bytes) -> list[Outcome]:
    """What a block tells of a document; `id_text` is its id as JSON."""
    at_ms, session, _size, packed = decode_fields(row)
    text = zlib.decompress(packed)
    if id_text not in text:  # far faster than to read the whole list
        return []
    written, revs, skipped = loads(text)
    found = [
        Outcome(at_ms, "written", rev, session)
        for known, rev in zip(written, revs, strict=True)
        if known == doc_id
    ]
    return found + [Outcome(at_ms, "skipped", None, session)] * (doc_id in skipped)


def row_key(number: int, row: int) -> bytes:
    return u64(number) + u64(row)


def now_ms() -> int:
    return int(time.time() * 1000)


def moment(at_ms: int) -> str:
    """As text, such as 2026-01-31T12:00:00.123Z."""
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
