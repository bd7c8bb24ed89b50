"""What a server's databases did in this process since it was opened, for statistics: plain numbers by
CouchDB's names. Threads add to them without a lock; a rare lost addition harms nobody."""

from __future__ import annotations

from typing import NamedTuple

from .records import State

NAMES = (
    "database_reads",
    "database_writes",
    "document_writes",
    "document_inserts",
    "local_document_writes",
    "commits",
    "database_purges",
    "document_purges.total",
    "document_purges.success",
    "mrview.map_doc",
    "mrview.emits",
)

Counts = dict[str, int]


class Mark(NamedTuple):
    """How far a database had come before a commit."""

    update_seq: int
    documents: int
    purge_seq: int

    @classmethod
    def of(cls, state: State) -> Mark:
        return cls(state.update_seq, state.doc_count + state.deleted_count, state.purge_seq)


def new_counts() -> Counts:
    return dict.fromkeys(NAMES, 0)


def add_commit(counts: Counts, before: Mark, after: Mark, writes: int) -> None:
    """Count a group of so many writes, which was committed."""
    counts["commits"] += 1
    counts["database_writes"] += writes
    counts["document_writes"] += after.update_seq - before.update_seq
    counts["document_inserts"] += max(0, after.documents - before.documents)
    purges = after.purge_seq - before.purge_seq
    if purges:
        counts["database_purges"] += 1
        counts["document_purges.total"] += purges
        counts["document_purges.success"] += purges
