"""Counts of documents by ranges of ids agree with counting them, whatever was done in whatever order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchlite import keys, ranks, records
from couchlite.database import Database
from couchlite.document import Edit
from couchlite.engine import Space
from couchlite.revision import Rev
from couchlite.server import Server

IDS = [f"{number:02x}" for number in range(64)] + [f"{'long' * 150}{number}" for number in range(4)]

edit = st.tuples(st.sampled_from(IDS), st.sampled_from(["create", "update", "delete", "graft", "purge"]))
batches = st.lists(st.lists(edit, max_size=12), max_size=12)


@pytest.fixture(autouse=True)
def small_buckets(monkeypatch: pytest.MonkeyPatch) -> None:
    """One key in four, and one in sixteen, begins a bucket."""
    monkeypatch.setattr(ranks, "BUCKET_BITS", (2, 4))


@given(batches)
def test_ranks_agree_with_a_scan(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, str]]]
) -> None:
    with Server(tmp_path_factory.mktemp("ranks")) as server:
        database = server.create("db")
        for batch in batches:
            apply(database, batch)
            check(database)


def apply(database: Database, batch: list[tuple[str, str]]) -> None:
    """Do what of a batch can be done, in one transaction where that is possible."""
    interactive, grafted, purged = [], [], {}
    with database.snapshot() as snapshot:
        for doc_id, operation in batch:
            row = snapshot.doc_row(doc_id)
            rev = None if row is None else Rev.parse(row.rev.decode())
            deleted = row is not None and bool(row.flags & records.DELETED)
            if operation == "create" and (rev is None or deleted):
                interactive.append(Edit(doc_id))
            elif operation in ("update", "delete") and rev is not None and not deleted:
                interactive.append(Edit(doc_id, (rev,), deleted=operation == "delete"))
            elif operation == "graft":
                grafted.append(Edit(doc_id, (Rev(1, b"x"),), deleted=doc_id < "30"))
            elif operation == "purge" and rev is not None:
                purged[doc_id] = [rev]
    database.submit_edits(interactive).result()
    database.submit_replicated(grafted).result()
    database.purge(purged).result()


def check(database: Database) -> None:
    with database.snapshot() as snapshot:
        reader = snapshot.reader
        assert list(ranks.problems(reader)) == []
        live = [key for key, record in reader.scan(Space.DOCS) if not record[0] & records.DELETED]
        for place in [
            b"",
            b"\xff",
            *live,
            *(keys.bound(reader, Space.DOCS, doc_id.encode()) for doc_id in IDS),
        ]:
            assert ranks.rank(reader, place) == sum(key < place for key in live)
        for number in range(len(live) + 2):
            assert ranks.find(reader, number) == (live[number] if number < len(live) else None)
