"""A full disk: writes are refused, reads go on; writes too, without a restart, when there is room again."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from couchlite import Server
from couchlite.errors import InsufficientStorage

from ..shell.running import FAST_HASHES, Served, served
from ..waiting import wait_until
from .client import Answer, Client
from .disks import SmallDisk, small_disk

SIZE_BYTES = 24 << 20
NO_ROOM = {
    "error": "insufficient_storage",
    "reason": "there is not enough free disk space for this write",
}


@pytest.fixture(params=["tmpfs", "ext4"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path, request.param, SIZE_BYTES) as mounted:
        yield mounted


@contextlib.contextmanager
def server_on(disk: SmallDisk, tmp_path: Path, min_free: int = 0) -> Iterator[Served]:
    """With 0, nothing is refused before there is really no room."""
    settings = tmp_path / "settings.ini"
    settings.write_text(f"{FAST_HASHES}[couchlite]\nmin_free_disk = {min_free}\n")
    options = ["--workers", "2", "--data-dir", str(disk.path / "data"), "--config", str(settings)]
    with served(tmp_path, *options) as server:
        yield server
        server.stop()
        assert "Traceback" not in server.output


def test_writes_are_refused_while_the_disk_is_full_and_taken_when_it_is_not(
    disk: SmallDisk, tmp_path: Path
) -> None:
    stored: dict[str, str] = {}
    with server_on(disk, tmp_path) as server, Client(server.port) as client:
        assert client.ask("PUT", "/a").status == 201
        for number in range(20):
            stored |= _put(client, f"before-{number}", 201)
        disk.fill()
        _write_until_refused(server.port, stored)
        assert _refused(client.ask("PUT", "/a/one-more", _too_large()))
        assert _refused(client.ask("POST", "/a/_bulk_docs", {"docs": [_too_large(), {"_id": "beside"}]}))
        assert _refused(client.ask("PUT", "/b"))
        _all_there(client, stored)
        assert client.ask("GET", "/a/_changes?limit=1").status == 200
        disk.free()
        for number in range(20):
            stored |= _put(client, f"after-{number}", 201)
        assert client.ask("PUT", "/b").status == 201
        _all_there(client, stored)
    _fits_together(disk)


def _write_until_refused(port: int, stored: dict[str, str]) -> None:
    """Several at once, so that a refused commit has several writes in it."""

    def write(name: str) -> None:
        with Client(port) as client:
            for number in range(10_000):
                answer = client.ask("PUT", f"/a/{name}-{number}", {"pad": "x" * 3_000})
                if answer.status != 201:
                    refusals.append(answer)
                    break
                stored[f"{name}-{number}"] = answer.json["rev"]

    refusals: list[Answer] = []
    writers = [threading.Thread(target=write, args=(f"writer{number}",)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(refusals) == 4 and all(_refused(answer) for answer in refusals), refusals


def test_an_upload_that_does_not_fit_is_refused_and_gives_its_space_back(
    disk: SmallDisk, tmp_path: Path
) -> None:
    with server_on(disk, tmp_path) as server, Client(server.port) as client:
        assert client.ask("PUT", "/a").status == 201
        stored = _put(client, "doc", 201)
        for _ in range(3):
            pieces = (os.urandom(100_000) for _ in range(400))
            headers = {"Content-Type": "image/png"}
            path = f"/a/doc/film?rev={stored['doc']}"
            assert _refused(client.ask("PUT", path, headers=headers, pieces=pieces))
            client.close()
        _all_there(client, stored)
        answer = client.ask("PUT", path, headers=headers, pieces=[os.urandom(1_000_000)] * 2)
        assert answer.status == 201
        assert len(client.ask("GET", "/a/doc/film").body) == 2_000_000
    _fits_together(disk)


def test_a_compaction_that_finds_no_room_harms_nothing_and_succeeds_later(
    disk: SmallDisk, tmp_path: Path
) -> None:
    with server_on(disk, tmp_path) as server, Client(server.port) as client:
        assert client.ask("PUT", "/a").status == 201
        stored: dict[str, str] = {}
        for number in range(150):
            doc_id = f"doc{number % 10}"
            body = {"pad": os.urandom(20_000).hex()} | ({"_rev": stored[doc_id]} if doc_id in stored else {})
            stored[doc_id] = client.ask("PUT", f"/a/{doc_id}", body).json["rev"]
        disk.fill()
        _compact(client)
        wait_until(lambda: "compaction of 'a' failed" in server.output)
        _all_there(client, stored)
        disk.free()
        before = client.ask("GET", "/a").json["sizes"]["file"]
        _compact(client)
        assert client.ask("GET", "/a").json["sizes"]["file"] < before / 2
        _all_there(client, stored)
        stored |= _put(client, "after", 201)
    _fits_together(disk)


def _compact(client: Client) -> None:
    assert client.ask("POST", "/a/_compact").status == 202
    wait_until(lambda: not client.ask("GET", "/a").json["compact_running"])


def test_a_server_starts_on_a_full_disk_and_a_database_can_be_deleted_to_make_room(
    disk: SmallDisk, tmp_path: Path
) -> None:
    with server_on(disk, tmp_path) as server, Client(server.port) as client:
        for name in ("a", "b"):
            assert client.ask("PUT", f"/{name}").status == 201
        stored = _put(client, "doc", 201)
        for number in range(300):
            assert client.ask("PUT", f"/b/{number}", {"pad": os.urandom(10_000).hex()}).status == 201
    disk.fill()
    with server_on(disk, tmp_path) as server, Client(server.port) as client:
        _all_there(client, stored)
        assert _refused(client.ask("PUT", "/a/large", _too_large()))
        assert client.ask("DELETE", "/b").status == 200
        assert client.ask("PUT", "/a/large", _too_large()).status == 201
    _fits_together(disk)


def test_writes_are_refused_before_the_disk_is_full(disk: SmallDisk, tmp_path: Path) -> None:
    """Reads, deletions and compactions go on; all goes on when there is room again."""
    with server_on(disk, tmp_path, 64 << 20) as server, Client(server.port) as client:
        assert client.ask("PUT", "/a").status == 201
        stored = {name: client.ask("PUT", f"/a/{name}", _half_a_megabyte()).json["rev"] for name in "xyz"}
        disk.fill(leave_bytes=SIZE_BYTES // 25)
        wait_until(lambda: _refused(client.ask("PUT", "/a/x", {})))  # which would conflict
        assert _refused(client.ask("POST", "/a/_bulk_docs", {"docs": [{"_id": "small"}]}))
        assert _refused(client.ask("PUT", "/a/x/att?rev=" + stored["x"], pieces=[b"data"]))
        assert _refused(client.ask("PUT", "/b"))
        _all_there(client, stored)
        for name in "yz":
            assert client.ask("DELETE", f"/a/{name}?rev={stored.pop(name)}").status == 200
        before = client.ask("GET", "/a").json["sizes"]["file"]
        _compact(client)
        assert client.ask("GET", "/a").json["sizes"]["file"] < before
        wait_until(lambda: client.ask("PUT", "/b").status == 201)
        _all_there(client, stored)
        assert "writes are refused" in server.output and server.output.count("writes are refused") <= 3
    _fits_together(disk)


def _half_a_megabyte() -> dict[str, str]:
    return {"pad": os.urandom(1 << 19).hex()}


def test_many_snapshots_at_once_on_a_full_disk(disk: SmallDisk) -> None:
    """Each takes a place in a file that processes share; it must have been there before."""
    with Server(disk.path / "data") as server:
        database = server.create("a")
        database.put({"_id": "doc"})
        disk.fill()
        with contextlib.ExitStack() as stack:
            for _ in range(300):
                snapshot = stack.enter_context(database.snapshot())
                assert snapshot.winner("doc").rev.generation == 1


def test_a_failed_write_of_the_root_page_is_got_over(tmp_path: Path) -> None:
    """LMDB refuses all work in an environment after that: it is opened again."""
    with Server(tmp_path) as server:
        database = server.create("a")
        database.put({"_id": "before"})
        root_page = _descriptor_of_root_page(database.path / "store.mdb")
        full = os.open("/dev/full", os.O_RDWR)
        os.dup2(full, root_page)
        os.close(full)
        with pytest.raises(InsufficientStorage):
            database.put({"_id": "refused"})
        assert database.get("before")["_id"] == "before"
        database.put({"_id": "after"})
        assert database.get("after")["_id"] == "after"
        assert database.check(deep=True) == []


def _put(client: Client, doc_id: str, status: int) -> dict[str, str]:
    answer = client.ask("PUT", f"/a/{doc_id}", {"pad": "x" * 500})
    assert answer.status == status, answer
    return {doc_id: answer.json["rev"]}


def _too_large() -> dict[str, str]:
    """A body for which a full disk has no room: it does not compress, and the pages that a store of these
    tests has free come nowhere near it, since all of its file is smaller."""
    return {"pad": os.urandom(2 << 20).hex()}


def _refused(answer: Answer) -> bool:
    return (answer.status, answer.json) == (507, NO_ROOM)


def _all_there(client: Client, stored: dict[str, str]) -> None:
    rows = client.ask("GET", "/a/_all_docs").json["rows"]
    assert {row["id"]: row["value"]["rev"] for row in rows} == stored


def _fits_together(disk: SmallDisk) -> None:
    with Server(disk.path / "data") as server:
        for name in server.names():
            assert server.open(name).check(deep=True) == [], name
        assert len(os.listdir(disk.path / "data" / "db")) == len(server.names())


def _descriptor_of_root_page(store: Path) -> int:
    """LMDB writes it by a descriptor of its own, which writes through."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            target = os.readlink(f"/proc/self/fd/{name}")
            flags = int(Path(f"/proc/self/fdinfo/{name}").read_text().split()[3], 8)
            if target.startswith(str(store)) and target.endswith("data.mdb") and flags & os.O_DSYNC:
                return int(name)
    raise AssertionError("the store is not open")
