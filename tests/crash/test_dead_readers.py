"""A process that is killed while it reads leaves its snapshot behind, whose pages nobody would use again."""

from __future__ import annotations

from pathlib import Path

import pytest

from couchlite import Database, Server
from couchlite.storage import environment

from ..waiting import wait_until
from .processes import DATABASE, process


def test_the_store_does_not_grow_because_of_a_killed_reader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "DEAD_READERS_CHECK_S", 0.0)
    with Server(tmp_path / "data") as server:
        database = server.create(DATABASE)
        database.set_revs_limit(1)
        rev = _overwrite(database, 100, "")
        size = database.info().file_bytes
        log = tmp_path / "reader.log"
        with process("read", tmp_path / "data", "", log) as reader:
            wait_until(lambda: "reading" in log.read_text())
            rev = _overwrite(database, 100, rev)
            assert database.info().file_bytes > size + 50 * 20_000, "a living snapshot is respected"
            size = database.info().file_bytes
            reader.kill()
            reader.wait()
        _overwrite(database, 300, rev)
        assert database.info().file_bytes < size + 50 * 20_000


def _overwrite(database: Database, times: int, rev: str) -> str:
    """Write a document again and again; only its newest body is kept."""
    for _ in range(times):
        doc = {"_id": "doc", "pad": "x" * 20_000, **({"_rev": rev} if rev else {})}
        rev = database.put(doc)
    return rev
