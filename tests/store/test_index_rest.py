"""Indexes whose files are closed while nobody needs them, and opened again when somebody does."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from couchlite import Database, Server
from couchlite.errors import CouchliteError
from couchlite.index import DesignViews, Index, IndexDefinition, IndexFunctions, rest_indexes, store
from couchlite.javascript import FunctionThread


@pytest.fixture(scope="module")
def functions() -> Iterator[IndexFunctions]:
    with FunctionThread() as thread:
        yield IndexFunctions(thread.pool, thread.loop)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Server(tmp_path / "data") as server:
        yield server.create("db")


def definition(number: int) -> IndexDefinition:
    """Of a Mango index, which needs no process."""
    view = {"map": {"fields": {f"n{number}": "asc"}}, "reduce": "_count"}
    document = {"_id": "_design/d", "language": "query", "views": {"v": view}}
    return DesignViews("db", document).find("v")


def built(database: Database, number: int, functions: IndexFunctions) -> Index:
    index = database.indexes.get(definition(number))
    index.build(database, functions).result()
    return index


def open_files(database: Database) -> int:
    """How many files of indexes this process has open."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            found += str(database.path / "index") in os.readlink(f"/proc/self/fd/{descriptor}")
        except FileNotFoundError:
            continue
    return found


def rows(index: Index) -> int:
    with index.read() as reader:
        return len(list(store.rows_in(reader)))


def test_an_index_at_rest_has_no_open_files_and_is_there_when_asked(
    database: Database, functions: IndexFunctions
) -> None:
    database.put({"_id": "a"} | {f"n{number}": 1 for number in range(20)})
    found = [built(database, number, functions) for number in range(20)]
    assert open_files(database) >= 20
    rest_indexes(found, idle_s=0)
    assert open_files(database) == 0
    assert [rows(index) for index in found] == [1] * 20
    rest_indexes(found, idle_s=0)
    database.put({"_id": "b", "n3": 1})
    assert rows(built(database, 3, functions)) == 2
    assert database.indexes.get(definition(3)) is found[3]


def test_those_used_last_stay_awake(database: Database, functions: IndexFunctions) -> None:
    found = [built(database, number, functions) for number in range(6)]
    for index in (found[1], found[4]):
        rows(index)
    rest_indexes(found, idle_s=1000, awake_max=2)
    assert [number for number, index in enumerate(found) if not index.engine.is_at_rest] == [1, 4]


def test_an_index_that_is_read_or_built_does_not_rest(database: Database, functions: IndexFunctions) -> None:
    index = built(database, 0, functions)
    with index.read() as reader:
        rest_indexes([index], idle_s=0)
        assert not index.engine.is_at_rest
        assert store.state_of(reader).docs == 0
    rest_indexes([index], idle_s=0)
    assert index.engine.is_at_rest


def test_a_server_puts_indexes_to_rest(
    database: Database, functions: IndexFunctions, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = built(database, 0, functions)
    monkeypatch.setattr(rest_indexes, "__kwdefaults__", {"idle_s": 0.0, "awake_max": 0})
    rested = threading.Event()
    for _ in range(100):
        if index.engine.is_at_rest:
            break
        rested.wait(0.1)
    assert index.engine.is_at_rest


def test_nobody_notices_that_indexes_rest(database: Database, functions: IndexFunctions) -> None:
    indexes = [built(database, number, functions) for number in range(4)]
    done = threading.Event()
    errors: list[CouchliteError | BaseException] = []

    def rest() -> None:
        while not done.is_set():
            rest_indexes(indexes, idle_s=0)

    def read(index: Index) -> None:
        seen = 0
        try:
            while not done.is_set():
                now = rows(index)
                assert now >= seen
                seen = now
        except BaseException as error:
            errors.append(error)

    threads = [
        threading.Thread(target=rest),
        *(threading.Thread(target=read, args=(one,)) for one in indexes),
    ]
    for thread in threads:
        thread.start()
    try:
        for count in range(1, 11):
            database.put({"_id": f"d{count}"} | {f"n{number}": count for number in range(4)})
            for index in indexes:
                index.build(database, functions).result()
                assert rows(index) == count
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not errors


def test_an_index_at_rest_can_be_compacted_removed_and_closed(
    database: Database, functions: IndexFunctions
) -> None:
    index, other = built(database, 0, functions), built(database, 1, functions)
    rest_indexes([index, other], idle_s=0)
    index.engine.reclaim()
    rest_indexes([index, other], idle_s=0)
    database.indexes.clean_up({index.definition.signature})
    assert not other.path.exists() and index.path.exists()
    assert rows(built(database, 1, functions)) == 0
