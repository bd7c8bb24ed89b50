"""Backups and what is restored from them."""

from __future__ import annotations

import base64
import os
import random
import re
import sys
import tarfile
import threading
from pathlib import Path
from typing import Any

import pytest

from couchlite import Database, Rev, Server
from couchlite import backup as backup_module
from couchlite.archive import ArchiveWriter, DamagedBackup
from couchlite.backup import BACKUP_VERSION, Backup, back_up
from couchlite.compression import compressed
from couchlite.document import parse
from couchlite.errors import BadRequest, DatabaseExists, NotFound
from couchlite.records import FORMAT_VERSION
from couchlite.restore import BackupFile, Restored, restore

from .helpers import graft


def _restore(path: Path, data: Path, *arguments: Any, **options: Any) -> Restored:
    with path.open("rb") as file:
        backup = BackupFile(path, file, lambda _what, _done, _total: None)
        return restore(backup, data, *arguments, **options)


def _fill(database: Database) -> None:
    chance = random.Random(3)
    for number in range(60):
        database.put({"_id": f"doc{number}", "n": number, "pad": "x" * chance.randrange(3000)})
    for number in range(0, 60, 2):
        database.put({"_id": f"doc{number}", "_rev": database.get(f"doc{number}")["_rev"], "n": -number})
    database.delete("doc1", database.get("doc1")["_rev"])
    graft(database, "doc2", ["3-cc", "2-bb", "1-aa"], branch=True)
    graft(database, "stemmed", ["9-99", "8-88"])
    database.put({"_id": "long" * 300})
    for name, length in (("small", 900), ("large", 200_000)):
        data = base64.b64encode(chance.randbytes(length)).decode()
        database.put({"_id": name, "_attachments": {name: {"content_type": "image/png", "data": data}}})
    database.submit_local("_local/checkpoint", 4, b'{"seq":5}').result()
    database.set_security({"admins": {"names": ["ann"]}, "members": {"roles": ["crew"]}})
    database.set_revs_limit(77)
    database.purge({"doc3": [Rev.parse(database.leaves("doc3")[0].rev)]}).result()


def _contents(database: Database) -> dict[str, Any]:
    """All that a restored database must have in common with the one that was backed up."""
    state = database.state()
    with database.snapshot() as snapshot:
        changes = [row._asdict() for row in snapshot.changes(0)]
        local = database.get("small") | {"security": database.security}
        trees = {}
        for change in changes:
            found = snapshot.document(change["id"].decode())
            assert found is not None
            trees[found.id] = [
                (str(node.rev), node.info, [str(rev) for rev in found.tree.path(node)])
                for node in found.leaves()
            ]
    return {
        "changes": changes,
        "trees": trees,
        "documents": [database.get(doc_id) for doc_id in database.ids()],
        "attachments": [database.attachment(name, name) for name in ("small", "large")],
        "local": local,
        "purges": database.purged_infos(),
        "state": state,
        "props": database.props,
    }


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A data directory with two databases, closed."""
    with Server(tmp_path / "original") as server:
        _fill(server.create("notes", shards=3))
        server.create("other").put({"_id": "only"})
        server.config.set("log", "level", "warning")
        server.config.set("log", "file", "volatile", persist=False)
    return tmp_path / "original"


def _back_up(data: Path, target: Path, names: list[str] | None = None) -> Backup:
    with Server(data) as server:
        return back_up(server, target, names)


@pytest.mark.parametrize("room", ["spooled", "piped"])
def test_everything_of_a_server_comes_back(
    original: Path, tmp_path: Path, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if room == "piped":  # as when the disk has no room for a copy
        monkeypatch.setattr(backup_module, "SPOOL_ROOM_SHARE", 1e12)
    done = _back_up(original, tmp_path / "backup")
    assert (done.databases, done.warnings) == (["notes", "other"], [])
    restored = _restore(tmp_path / "backup", tmp_path / "restored")
    assert restored.databases == [("notes", "notes"), ("other", "other")] and restored.has_configuration
    with Server(original) as before, Server(tmp_path / "restored") as after:
        assert before.names() == after.names()
        assert _contents(before.open("notes")) == _contents(after.open("notes"))
        for name in after.names():
            assert after.open(name).check(deep=True) == []
        assert after.uuid == before.uuid
        assert after.config.get("log", "level") == "warning"
        assert after.config.get("log", "file") is None


def test_peers_notice_that_a_database_was_restored(original: Path, tmp_path: Path) -> None:
    """Changes after the backup are lost, and others get their sequences: a reader who has seen the former
    must see the latter."""
    _back_up(original, tmp_path / "backup", ["notes"])
    with Server(original) as server:
        database = server.open("notes")
        database.put({"_id": "lost"})
        seen = database.info().update_seq
        updates_seen = server.catalog.updates_tag
    _restore(tmp_path / "backup", tmp_path / "restored")
    with Server(tmp_path / "restored") as server:
        database = server.open("notes")
        database.put({"_id": "instead"})
        assert database.info().update_seq.split("-")[0] == seen.split("-")[0]
        assert "instead" in [row["id"] for row in database.changes(since=seen)]
        assert server.catalog.updates_tag != updates_seen


def test_one_database_under_another_name_beside_the_original(original: Path, tmp_path: Path) -> None:
    _back_up(original, tmp_path / "backup", ["notes"])
    restored = _restore(tmp_path / "backup", original, rename={"notes": "copy"})
    assert restored.databases == [("notes", "copy")] and not restored.has_configuration
    with Server(original) as server:
        assert _contents(server.open("notes")) == _contents(server.open("copy"))
        assert server.open("copy").uuid != server.open("notes").uuid


def test_nothing_is_replaced(original: Path, tmp_path: Path) -> None:
    _back_up(original, tmp_path / "backup")
    with pytest.raises(BadRequest, match="exists already"):
        _back_up(original, tmp_path / "backup")
    with pytest.raises(DatabaseExists):
        _restore(tmp_path / "backup", original, rename={"notes": "copy"})
    with Server(original) as server:
        assert server.names() == ["notes", "other"]
    with pytest.raises(NotFound):
        _restore(tmp_path / "backup", original, ["strange"])
    with pytest.raises(BadRequest, match="two databases"):
        _restore(tmp_path / "backup", tmp_path / "new", rename={"notes": "other"})
    assert sorted(os.listdir(tmp_path)) == ["backup", "original"]


def test_a_damaged_attachment_is_told_and_left_out(original: Path, tmp_path: Path) -> None:
    [file] = original.glob("db/*/blobs/[0-9a-f][0-9a-f]/*")
    file.write_bytes(b"?" + file.read_bytes()[1:])
    done = _back_up(original, tmp_path / "backup")
    assert [warning for warning in done.warnings if "is damaged" in warning]
    _restore(tmp_path / "backup", tmp_path / "restored")
    with Server(tmp_path / "restored") as server:
        database = server.open("notes")
        assert database.attachment("small", "small")
        assert [problem for problem in database.check(deep=True) if "'large'" in problem]


@pytest.mark.parametrize("kind", ["flipped", "cut", "not one"])
def test_a_damaged_backup_is_refused(original: Path, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "backup"
    _back_up(original, path)
    whole = path.read_bytes()
    chance = random.Random(5)
    for number in range(40):
        target = tmp_path / f"restored{number}"
        if kind == "flipped":
            offset = chance.randrange(len(whole))
            path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        elif kind == "cut":
            path.write_bytes(whole[: chance.randrange(len(whole) - 2048)])
        else:
            path.write_bytes(os.urandom(5000))
        try:
            _restore(path, target, ["other"])
        except DamagedBackup:
            assert not target.exists()
        else:
            assert kind == "flipped" and whole[offset] == 0  # what fills a block up


_LISTED = {"name": "db", "folder": "databases/0001", "props": {}}
_MANIFEST = {
    "couchlite_backup": BACKUP_VERSION,
    "data_format": FORMAT_VERSION,
    "byte_order": sys.byteorder,
    "made_at": "",
    "whole_server": False,
    "databases": [_LISTED],
}
_STORE = ("databases/0001/store.mdb.zst", b"".join(compressed([b"no pages" * 2000])))


@pytest.mark.parametrize(
    ("manifest", "members", "reason"),
    [
        pytest.param([], [], "couchlite-backup.json is damaged", id="a manifest of another kind"),
        pytest.param({}, [], "couchlite-backup.json is damaged", id="an empty manifest"),
        pytest.param(_MANIFEST | {"databases": [1]}, [], "json is damaged", id="a database that is none"),
        pytest.param(
            _MANIFEST | {"databases": [_LISTED | {"props": 1}]}, [_STORE], "json is damaged", id="its props"
        ),
        pytest.param(
            _MANIFEST | {"databases": [_LISTED | {"name": "../x"}]}, [_STORE], "Name: '../x'", id="its name"
        ),
        pytest.param(_MANIFEST, [], "other databases than there are", id="a database that is not in it"),
        pytest.param(
            _MANIFEST | {"databases": [_LISTED] * 2}, [_STORE], "other databases than", id="the same twice"
        ),
        pytest.param(_MANIFEST, [_STORE], "pages of db are damaged", id="no store"),
        pytest.param(_MANIFEST, [(_STORE[0], b"x")], "can't be unpacked", id="a store that is not packed"),
        pytest.param(_MANIFEST, [(_STORE[0], _STORE[1][:-5])], "can't be unpacked", id="half a store"),
        pytest.param(
            _MANIFEST, [_STORE, ("databases/0001/../../../x", b"x")], "is no part of db", id="a way out"
        ),
        pytest.param(
            _MANIFEST | {"whole_server": True, "databases": []},
            [("server.json", b'{"uuid":5,"settings":{}}')],
            "server.json is damaged",
            id="no identity",
        ),
    ],
)
def test_what_was_never_a_backup_is_refused(
    tmp_path: Path, manifest: Any, members: list[tuple[str, bytes]], reason: str
) -> None:
    """With sound checksums, as somebody may make it who wants more than to restore databases."""
    path = tmp_path / "backup"
    with path.open("w+b") as file:
        archive = ArchiveWriter(file)
        archive.add_json("couchlite-backup.json", manifest)
        for name, data in members:
            archive.add(name, [data])
        archive.finish()
    with pytest.raises(BadRequest, match=re.escape(reason)):
        _restore(path, tmp_path / "target")
    assert sorted(found.name for found in tmp_path.iterdir()) in (["backup"], ["backup", "target"])
    if (tmp_path / "target").exists():
        with Server(tmp_path / "target") as server:
            assert server.names() == []


@pytest.mark.parametrize("kind", ["a link", "a negative size"])
def test_nothing_but_plain_files_is_in_a_backup(tmp_path: Path, kind: str) -> None:
    member = tarfile.TarInfo("couchlite-backup.json")
    if kind == "a link":
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
    else:
        member.size = -tarfile.BLOCKSIZE
    path = tmp_path / "backup"
    path.write_bytes(member.tobuf(tarfile.GNU_FORMAT) + bytes(2 * tarfile.BLOCKSIZE))
    with pytest.raises(DamagedBackup, match="no plain file"):
        _restore(path, tmp_path / "target")


def test_a_backup_under_load_is_of_one_moment(tmp_path: Path) -> None:
    """Writers put pairs in one request each; compactions go on. A backup has both of a pair or neither, and
    all attachments that its documents have."""
    with Server(tmp_path / "data") as server:
        database = server.create("notes")
        stop = threading.Event()
        threads = [threading.Thread(target=_write_pairs, args=(database, at, stop)) for at in range(3)]
        threads.append(threading.Thread(target=_compact, args=(database, stop)))
        for thread in threads:
            thread.start()
        try:
            paths = [tmp_path / f"backup{number}" for number in range(4)]
            for path in paths:
                before = database.state().update_seq
                assert back_up(server, path, ["notes"]).warnings == []
                while database.state().update_seq < before + 20:
                    stop.wait(0.01)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
    for number, path in enumerate(paths):
        _restore(path, tmp_path / "restored", rename={"notes": f"notes{number}"})
    with Server(tmp_path / "restored") as server:
        for name in server.names():
            database = server.open(name)
            assert database.check(deep=True) == []
            ids = set(database.ids())
            assert {doc_id.replace("left", "right") for doc_id in ids if doc_id.startswith("left")} == {
                doc_id for doc_id in ids if doc_id.startswith("right")
            }


def _write_pairs(database: Database, writer: int, stop: threading.Event) -> None:
    number = 0
    while not stop.is_set():
        number += 1
        data = base64.b64encode(os.urandom(20_000)).decode()
        stub = {"a": {"content_type": "image/png", "data": data}}
        pair = [{"_id": f"{side}-{writer}-{number}", "_attachments": stub} for side in ("left", "right")]
        database.update([parse(doc) for doc in pair])
        old = f"left-{writer}-{number - 1}", f"right-{writer}-{number - 1}"
        if number % 3 == 0:
            database.update(
                [
                    parse({"_id": doc_id, "_rev": database.get(doc_id)["_rev"], "_deleted": True})
                    for doc_id in old
                ]
            )


def _compact(database: Database, stop: threading.Event) -> None:
    while not stop.is_set():
        database.compact().result()
        stop.wait(0.05)
