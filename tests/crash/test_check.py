"""`check`: a flipped bit in any file of a data directory is found, or lies where no bit counts."""

from __future__ import annotations

import base64
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from couchlite import Database, DataDirectoryError, Rev, Server, document
from couchlite.directory_check import Finding, check_directory
from couchlite.engine import CatalogSpace, Space
from couchlite.index import DesignViews, IndexFunctions
from couchlite.index.layout import IndexSpace
from couchlite.javascript import FunctionThread, Limits
from couchlite.page_check import meaningful_bytes
from couchlite.records import SECURITY_KEY, STATE_KEY
from couchlite.storage import LmdbEnvironment, names_of
from replicator.ledger import DIRECTORY as LEDGER
from replicator.ledger_rows import LedgerSpace

from ..store.helpers import graft

FLIPS_ANYWHERE = 30
FLIPS_THAT_COUNT = 100
NO_DATA = {"lock.mdb", "beacon"}
"""Files that say how processes share the others, and are made anew."""
DESIGN = {
    "_id": "_design/d",
    "views": {"v": {"map": "function (doc) { emit(doc.n, doc.text); }", "reduce": "_count"}},
}


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with something of everything in it, closed."""
    path = tmp_path_factory.mktemp("original") / "data"
    with Server(path) as server:
        _fill(server.create("notes"))
        server.create("other").put({"_id": "only"})
        server.config.set("log", "level", "warning")
    ledger = LmdbEnvironment(path / LEDGER, LedgerSpace, create=True)
    rows = [(number.to_bytes(8, "big"), b"row" * number) for number in range(50)]
    ledger.write(lambda batch: batch.put_all(LedgerSpace.SESSIONS, rows))
    ledger.close()
    return path


@pytest.fixture
def data(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(original, tmp_path / "data"))


def _fill(database: Database) -> None:
    chance = random.Random(7)
    for start in range(0, 1200, 300):
        database.update([document.parse(_text(chance, number)) for number in range(start, start + 300)])
    for number in range(0, 300, 3):
        database.put(_text(chance, number) | {"_rev": database.get(f"doc{number}")["_rev"]})
    for number in range(1, 300, 7):
        database.delete(f"doc{number}", database.get(f"doc{number}")["_rev"])
    for number in range(20):
        graft(database, f"doc{number}", [f"1-{number:032x}"], branch=number)
    for number in range(3):
        leaves = [leaf.rev for leaf in database.leaves(f"doc{number}") if not leaf.deleted]
        if len(leaves) > 1:
            database.resolve(f"doc{number}", leaves, leaves[0])
    database.put({"_id": "long" * 200})
    database.put({"_id": "tiny"})
    for name, length in (("small", 900), ("large", 70_000)):
        stub = {"content_type": "image/png", "data": base64.b64encode(chance.randbytes(length)).decode()}
        database.put({"_id": f"with-{name}", "_attachments": {name: stub}})
    database.submit_local("_local/checkpoint", 0, b'{"seq":5}').result()
    database.set_security({"admins": {"names": ["ann"]}, "members": {"names": [], "roles": []}})
    database.purge({"doc500": [Rev.parse(database.leaves("doc500")[0].rev)]}).result()
    with FunctionThread(Limits(time_s=5.0, memory_bytes=64 << 20, answer_bytes=8 << 20)) as thread:
        definition = DesignViews("notes", DESIGN).find("v")
        database.put(DESIGN)
        database.indexes.get(definition).build(database, IndexFunctions(thread.pool, thread.loop)).result()


def _text(chance: random.Random, number: int) -> dict[str, Any]:
    return {"_id": f"doc{number}", "text": "lorem ipsum " * chance.randrange(20), "n": number}


def _findings(data: Path, *, with_repair: bool = False) -> list[Finding]:
    others = {LEDGER: LedgerSpace}
    try:
        found = check_directory(data, others=others, with_repair=with_repair)
        return [one for one in found if isinstance(one, Finding)]
    except DataDirectoryError as error:
        return [Finding("catalog", error.reason)]


def test_a_whole_directory_has_no_findings(data: Path) -> None:
    assert _findings(data) == []


@pytest.mark.parametrize("seed", range(2))
def test_a_flipped_bit_is_found(data: Path, seed: int) -> None:
    """In any file. What is not found must lie in bytes that LMDB does not use."""
    chance = random.Random(seed)
    files = [path for path in sorted(data.rglob("*")) if path.is_file() and path.name not in NO_DATA]
    files = [path for path in files if path.stat().st_size]
    counting = {path: _counting_bytes(path) for path in files}
    escaped = []
    for number in range(FLIPS_ANYWHERE + FLIPS_THAT_COUNT):
        path = files[number % len(files)] if number % 2 else max(files, key=lambda path: path.stat().st_size)
        if number < FLIPS_ANYWHERE:
            offset = chance.randrange(path.stat().st_size)
        else:
            start, stop = chance.choice(counting[path])
            offset = chance.randrange(start, stop)
        bit = 1 << chance.randrange(8)
        _flip(path, offset, bit)
        found = _findings(data)
        _flip(path, offset, bit)
        if not found and any(start <= offset < stop for start, stop in counting[path]):
            escaped.append((path.relative_to(data), offset, bit))
    assert escaped == []
    assert _findings(data) == []


def _counting_bytes(path: Path) -> list[tuple[int, int]]:
    if path.name != "data.mdb":
        return [(0, path.stat().st_size)]
    kinds = {"store.mdb": Space, "catalog.mdb": CatalogSpace, LEDGER: LedgerSpace}
    return meaningful_bytes(path, names_of(kinds.get(path.parent.parent.name, IndexSpace)))


def _flip(path: Path, offset: int, bit: int) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bit]))


# Repairing


def _break(data: Path, change: Callable[[LmdbEnvironment], Any]) -> None:
    """Change the store of "notes" as damage would: past the checksums."""
    engine = LmdbEnvironment(_store_of(data), Space)
    change(engine)
    engine.close()


def _store_of(data: Path) -> Path:
    with Server(data) as server:
        return server.open("notes").path / "store.mdb"


def _flip_in_record(space: Space, key: bytes | None = None) -> Callable[[LmdbEnvironment], Any]:
    """Flip a bit of a record's value, by default of the first one."""

    def change(engine: LmdbEnvironment) -> None:
        with engine._env.begin(write=True) as txn:
            cursor = txn.cursor(db=engine._opened.handles[space])
            assert cursor.first() if key is None else cursor.set_key(key)
            value = bytearray(cursor.value())
            value[len(value) // 2] ^= 1
            assert txn.put(cursor.key(), bytes(value), db=engine._opened.handles[space])

    return change


def _empty(space: Space) -> Callable[[LmdbEnvironment], Any]:
    def change(engine: LmdbEnvironment) -> None:
        with engine._env.begin(write=True) as txn:
            txn.drop(engine._opened.handles[space], delete=False)

    return change


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(_flip_in_record(Space.SEQS), id="a row of the sequence index"),
        pytest.param(_empty(Space.SEQS), id="the sequence index"),
        pytest.param(_flip_in_record(Space.RANKS), id="a count"),
        pytest.param(_empty(Space.RANKS), id="all counts"),
        pytest.param(_flip_in_record(Space.CONFLICTS), id="a row of the conflict index"),
        pytest.param(_empty(Space.CONFLICTS), id="the conflict index"),
        pytest.param(_flip_in_record(Space.META, STATE_KEY), id="the counters"),
        pytest.param(_flip_in_record(Space.META, SECURITY_KEY), id="the security object"),
        pytest.param(_flip_in_record(Space.LOCAL), id="a local document"),
        pytest.param(_flip_in_record(Space.PURGES), id="a note of a purge"),
    ],
)
def test_what_can_be_made_anew_is(data: Path, damage: Callable[[LmdbEnvironment], Any]) -> None:
    before = _contents(data)
    _break(data, damage)
    assert [finding.where for finding in _findings(data)][:1] == ["notes"]
    repaired = _findings(data, with_repair=True)
    assert repaired and all(finding.is_repaired for finding in repaired)
    assert _findings(data) == []
    assert _contents(data) == before
    with Server(data) as server:
        database = server.open("notes")
        database.put({"_id": "afterwards"})
        assert database.check(deep=True) == []


def test_what_is_lost_is_said_and_nothing_else_is_touched(data: Path) -> None:
    before = _contents(data)
    _break(data, _flip_in_record(Space.DOCS, b"doc900"))
    _break(data, _empty(Space.RANKS))
    left = _findings(data, with_repair=True)
    assert "document 'doc900': its record is damaged" in [finding.problem for finding in left]
    assert not any(finding.is_repaired for finding in left)
    assert _contents(data) == before


def test_a_damaged_index_is_removed(data: Path) -> None:
    [file] = data.glob("db/*/index/*/1/data.mdb")
    start, stop = _counting_bytes(file)[-1]
    _flip(file, (start + stop) // 2, 1)
    found = _findings(data)
    assert found and all(finding.where.startswith("notes index ") for finding in found)
    assert all(finding.is_repaired for finding in _findings(data, with_repair=True))
    assert not file.exists()
    assert _findings(data) == []


def _contents(data: Path) -> list[Any]:
    """Changes, bodies and numbers of the database, as they are shown."""
    with Server(data) as server:
        database = server.open("notes")
        info = database.info()
        ids = list(database.ids())
        return [
            [database.get(doc_id) for doc_id in ids[:50]],
            list(database.changes()),
            (info.doc_count, info.doc_del_count, info.update_seq, info.external_bytes, info.active_bytes),
        ]
