"""What compaction drops, what it keeps, and that it gives the space back."""

import os

import pytest

from couchlite import Database, Server
from couchlite.compact import LOCK_FILE, Retention
from couchlite.errors import NotFound
from couchlite.file_lock import FileLock
from couchlite.revision import Rev
from couchlite.storage import environment

from .helpers import attachment, graft, statuses

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def history(database: Database, doc_id: str, edits: int) -> str:
    rev = database.put({"_id": doc_id, "n": 0})
    for n in range(1, edits):
        rev = database.put({"_id": doc_id, "_rev": rev, "n": n})
    return rev


def has_body(database: Database, doc_id: str, rev: str) -> bool:
    """Whether the body of a revision is stored, whoever may read it."""
    with database.snapshot() as snapshot:
        found = snapshot.document(doc_id)
        assert found is not None
        node = found.tree.find(Rev.parse(rev))
        assert node is not None
        return bool(node.info.body)


def test_only_the_leaf_of_a_line_keeps_its_body(database: Database) -> None:
    rev = history(database, "a", 4)
    assert statuses(database, "a", rev) == ["available"] * 4
    done = database.compact().result()
    assert done is not None and done.bodies_dropped == 3
    assert statuses(database, "a", rev) == ["available", "missing", "missing", "missing"]
    assert database.get("a")["n"] == 3


def test_the_merge_base_of_an_open_conflict_survives_until_the_conflict_ends(database: Database) -> None:
    base = history(database, "a", 3)
    parent = database.get("a")
    one = database.put({**parent, "n": "one"})
    two = database.put({"_id": "a", "_rev": one, "n": "one more"})
    graft(database, "a", [f"4-{A}", base], n="other")
    done = database.compact().result()
    assert done is not None and done.bodies_dropped == 3
    # Whoever asks for it is told what CouchDB tells.
    assert statuses(database, "a", two) == ["available"] + ["missing"] * 4
    with pytest.raises(NotFound):
        database.get("a", rev=base)
    assert has_body(database, "a", base)
    database.compact().result()
    assert has_body(database, "a", base)

    database.delete("a", f"4-{A}")
    done = database.compact().result()
    assert done is not None and done.bodies_dropped == 2
    assert not has_body(database, "a", base)


def test_merge_bases_are_shown_where_that_is_wanted(database: Database) -> None:
    base = history(database, "a", 2)
    one = database.put({"_id": "a", "_rev": base, "n": "one"})
    graft(database, "a", [f"3-{A}", base], n="other")
    database.compact().result()
    assert statuses(database, "a", one) == ["available", "missing", "missing"]
    database.compact(Retention(show_merge_bases=True)).result()
    assert statuses(database, "a", one) == ["available", "available", "missing"]
    assert database.get("a", base)["n"] == 1
    database.compact().result()
    assert statuses(database, "a", one) == ["available", "missing", "missing"]


def test_retention_keeps_the_newest_revisions_of_each_branch(database: Database) -> None:
    rev = history(database, "a", 5)
    database.compact(Retention(revisions=3)).result()
    assert statuses(database, "a", rev) == ["available"] * 3 + ["missing"] * 2


def test_retention_keeps_what_was_written_lately(database: Database) -> None:
    rev = history(database, "a", 5)
    database.compact(Retention(seconds=3600)).result()
    assert statuses(database, "a", rev) == ["available"] * 5


def test_attachments_that_nobody_refers_to_are_swept(database: Database) -> None:
    rev = database.put({"_id": "a", "_attachments": {"x": attachment(os.urandom(100_000))}})
    rev = database.put({"_id": "a", "_rev": rev, "_attachments": {"y": attachment(os.urandom(50_000))}})
    assert database.state().blob_bytes == 150_000
    done = database.compact().result()
    assert done is not None and done.blob_bytes_freed == 100_000
    assert database.state().blob_bytes == 50_000
    assert len(list(database.blobs.directory.glob("??/*"))) == 1


def test_free_space_is_given_back_and_writes_go_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "RECLAIM_MIN_BYTES", 0)
    rev = None
    for n in range(30):
        doc = {"_id": "a", "text": os.urandom(50_000).hex()} | ({"_rev": rev} if rev else {})
        rev = database.put({**doc, "n": n})
    before = database.info().file_bytes
    done = database.compact().result()
    assert done is not None and done.store_bytes_freed > before / 2
    assert database.info().file_bytes == before - done.store_bytes_freed
    assert database.put({"_id": "b"}).startswith("1-")
    assert database.get("a")["n"] == 29


def test_one_compaction_at_a_time_and_it_shows(database: Database) -> None:
    history(database, "a", 3)
    held = FileLock(database.path / LOCK_FILE).acquire()
    assert held is not None
    assert database.info().compact_running
    assert database.compact().result() is None
    os.close(held)
    assert not database.info().compact_running


def test_another_process_that_opened_the_store_before_moves_to_the_compact_copy(
    store: Server, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "RECLAIM_MIN_BYTES", 0)
    monkeypatch.setattr(environment, "RECLAIM_MIN_SHARE", 0.0)
    history(database, "a", 50)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        _write_when_told(store, read)
    try:
        database.compact().result()
    finally:
        os.write(write, b"go")
        assert os.waitpid(child, 0)[1] == 0
    assert database.get("child") == {"_id": "child", "_rev": database.get("child")["_rev"]}


def _write_when_told(store: Server, read: int) -> None:
    """In a new process image, since an LMDB environment must not be used across a fork."""
    program = (
        "import couchlite, os, sys\n"
        "with couchlite.Server(sys.argv[1]) as server:\n"
        "    database = server.open('notes')\n"
        "    os.read(int(sys.argv[2]), 2)\n"
        "    database.put({'_id': 'child'})\n"
    )
    os.set_inheritable(read, True)
    import sys

    os.execv(sys.executable, [sys.executable, "-c", program, str(store.path), str(read)])
