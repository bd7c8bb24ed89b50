"""Damaged files, and directories that can't be written: what is whole is served, the rest is told."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from couchlite import Database, DataDirectoryError, Server
from couchlite.lmdb_pages import is_truncated

from ..shell.running import refused, served
from .client import Client, Lost

BYTES = bytes(range(256)) * 400
PAGE_BYTES = os.sysconf("SC_PAGESIZE")


# An attachment's file


def _truncate(path: Path) -> None:
    os.truncate(path, 50_000)


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(77_777)
        byte = file.read(1)[0]
        file.seek(77_777)
        file.write(bytes([byte ^ 1]))


@pytest.mark.parametrize("damage", [_truncate, _flip, Path.unlink], ids=["truncated", "a bit", "missing"])
def test_a_damaged_attachment_is_told_and_nothing_else_is_affected(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    with served(tmp_path, "--workers", "1") as server, Client(server.port) as client:
        stored = _store_attachments(client)
        [file] = (tmp_path / "data").glob("db/*/blobs/[0-9a-f][0-9a-f]/*")
        damage(file)
        for path in ("/a/doc/large", "/a/doc?attachments=true", "/a/doc?open_revs=all&attachments=true"):
            answer = client.ask("GET", path, headers={"Accept": "application/json"})
            assert (answer.status, answer.json["error"]) == (500, "unknown_error"), path
            assert answer.json["reason"].startswith("attachment body ")
        assert client.ask("GET", "/a/doc").json["_rev"] == stored
        assert client.ask("GET", "/a/doc/small").body == b"small"
        assert client.ask("GET", "/a/other/att").body == b"other"
        assert client.ask("PUT", "/a/new", {"value": 1}).status == 201
        [problem] = _problems(tmp_path / "data")
        assert "large" in problem
        # The same bytes, sent again, heal it.
        headers = {"Content-Type": "image/png"}
        answer = client.ask("PUT", f"/a/doc/large?rev={stored}", headers=headers, pieces=[BYTES])
        assert answer.status == 201
        assert client.ask("GET", "/a/doc/large").body == BYTES
        assert _problems(tmp_path / "data") == []
        assert "Traceback" not in server.output


def test_the_end_of_a_damaged_body_never_comes(tmp_path: Path) -> None:
    """A long one is on its way already when the damage is found: no client takes it for whole."""
    with served(tmp_path, "--workers", "1") as server, Client(server.port) as client:
        assert client.ask("PUT", "/a").status == 201
        pieces = [os.urandom(1_000_000)] * 5
        assert client.ask("PUT", "/a/doc/large", pieces=pieces).status == 201
        [file] = (tmp_path / "data").glob("db/*/blobs/[0-9a-f][0-9a-f]/*")
        _flip(file)
        with pytest.raises(Lost):
            client.ask("GET", "/a/doc/large")
        [problem] = _problems(tmp_path / "data")
        assert "large" in problem and "is damaged" in problem


def _store_attachments(client: Client) -> str:
    """The revision of /a/doc, which has a small and a large one."""
    assert client.ask("PUT", "/a").status == 201
    small = {"content_type": "image/png", "data": "c21hbGw="}
    other = {"content_type": "image/png", "data": "b3RoZXI="}
    rev = client.ask("PUT", "/a/doc", {"_attachments": {"small": small}}).json["rev"]
    assert client.ask("PUT", "/a/other", {"_attachments": {"att": other}}).status == 201
    headers = {"Content-Type": "image/png"}
    answer = client.ask("PUT", f"/a/doc/large?rev={rev}", headers=headers, pieces=[BYTES])
    assert answer.status == 201
    stored: str = answer.json["rev"]
    return stored


def _problems(data: Path) -> list[str]:
    with Server(data) as server:
        return server.open("a").check(deep=True)


# A store's file


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    """A data directory with two databases, closed."""
    with Server(tmp_path / "data") as server:
        for name in ("a", "b"):
            _fill(server.create(name))
    return tmp_path


def _fill(database: Database) -> None:
    for number in range(200):
        database.put({"_id": f"doc{number}", "pad": "x" * (number * 30)})


def _store_file(data: Path, name: str) -> Path:
    with Server(data) as server:
        return next(server.open(name).path.glob("store.mdb/[0-9]*/data.mdb"))


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_a_truncated_catalog_is_refused_in_one_line(filled: Path, share: float) -> None:
    [file] = (filled / "data" / "catalog.mdb").glob("[0-9]*/data.mdb")
    os.truncate(file, int(file.stat().st_size * share))
    line = refused(filled)
    assert line.startswith("couchlite: ") and "is damaged" in line


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5])
def test_a_truncated_store_is_told_and_other_databases_are_served(filled: Path, share: float) -> None:
    file = _store_file(filled / "data", "a")
    os.truncate(file, int(file.stat().st_size * share))
    with served(filled, "--workers", "1") as server, Client(server.port) as client:
        for method, path in (("GET", "/a"), ("GET", "/a/doc1"), ("PUT", "/a/new"), ("GET", "/a/_changes")):
            answer = client.ask(method, path, {} if method == "PUT" else None)
            assert (answer.status, answer.json["error"]) == (500, "data_directory"), path
            assert "is damaged" in answer.json["reason"]
        assert client.ask("GET", "/b/doc199").status == 200
        assert client.ask("GET", "/_all_dbs").json == ["_replicator", "_users", "a", "b"]
        assert client.ask("DELETE", "/a").status == 200
        assert client.ask("PUT", "/a").status == 201
        assert "Traceback" not in server.output


def test_a_store_of_garbage_is_refused_in_one_line(filled: Path) -> None:
    [file] = (filled / "data" / "catalog.mdb").glob("[0-9]*/data.mdb")
    file.write_bytes(os.urandom(100_000))
    assert "is not a couchlite store or is damaged" in refused(filled)


def test_a_store_without_its_file_is_refused_not_made_anew(filled: Path) -> None:
    _store_file(filled / "data", "a").unlink()
    with Server(filled / "data") as server, pytest.raises(DataDirectoryError):
        server.open("a")


def test_a_shorter_file_is_whole_when_nothing_in_use_is_missing(filled: Path) -> None:
    """LMDB does not write pages at the end that it took and gave back."""
    with Server(filled / "data") as server:
        database = server.open("a")
        for number in range(100, 200):
            database.delete(f"doc{number}", str(database.get(f"doc{number}")["_rev"]))
        database.compact().result()
    file = _store_file(filled / "data", "a")
    for _ in range(20):  # until what was written last lies before what became free
        with Server(filled / "data") as server:
            server.open("a").put({"value": 1, "_id": os.urandom(8).hex()})
        whole = file.read_bytes()
        pages = len(whole) // PAGE_BYTES
        shortest = next(kept for kept in range(pages, 0, -1) if _is_truncated_to(file, whole, kept - 1))
        if shortest < pages:
            break
        file.write_bytes(whole)
    assert shortest < pages, "nothing at the end is free"
    assert not _is_truncated_to(file, whole, shortest)
    assert _problems(filled / "data") == []


def _is_truncated_to(file: Path, whole: bytes, pages: int) -> bool:
    file.write_bytes(whole[: pages * PAGE_BYTES])
    return is_truncated(file)


# A directory that can't be written


@contextlib.contextmanager
def read_only(directory: Path) -> Iterator[None]:
    """Root writes where permissions forbid it; nobody does on a file system that is mounted read-only."""
    commands = [
        ["mount", "--bind", str(directory), str(directory)],
        ["mount", "-o", "remount,ro,bind", str(directory)],
    ]
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(
                f"a directory can't be mounted read-only here, which takes root: {done.stderr.strip()}"
            )
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


def test_a_read_only_directory_is_refused_in_one_line(filled: Path) -> None:
    with read_only(filled / "data"):
        line = refused(filled)
        assert line == f"couchlite: {filled / 'data' / 'catalog.mdb'} can't be opened: Read-only file system"


def test_an_empty_read_only_directory_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    with read_only(tmp_path / "data"):
        assert "can't be written: Read-only file system" in refused(tmp_path)
