"""`couchlite backup` and `couchlite restore` from a shell, also beside a running server, and killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from couchlite import Server

from ..crash.client import Client
from .running import served


def couchlite(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    with Server(tmp_path / "data") as server:
        for name in ("a", "b"):
            server.create(name).put({"_id": "doc", "of": name})
    return tmp_path / "data"


def test_what_is_printed(data: Path, tmp_path: Path) -> None:
    file = tmp_path / "backup"
    done = couchlite("backup", file, "--data-dir", data)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a\nb\nbacked up 2 databases into ")
    assert os.stat(file).st_mode & 0o777 == 0o600
    done = couchlite("backup", file, "--data-dir", data)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"couchlite: {file} exists already\n")
    done = couchlite("restore", file, "--list")
    assert done.stdout.startswith("a\nb\na sound backup of a whole server, made at ")
    done = couchlite("restore", file, "--data-dir", data)
    assert (done.returncode, done.stdout) == (4, "")
    assert "there is a database 'a' already" in done.stderr
    done = couchlite("restore", file, "a", "--data-dir", data, "--rename", "a=c")
    assert done.stdout.startswith("c (was a)\nrestored 1 database into ")
    done = couchlite("backup", tmp_path / "one", "c", "--data-dir", data, "--json")
    answer = json.loads(done.stdout)
    assert (answer["ok"], answer["databases"], answer["warnings"]) == (True, ["c"], [])
    done = couchlite("backup", tmp_path / "none", "d", "--data-dir", data)
    assert (done.returncode, done.stdout, done.stderr) == (3, "", "couchlite: there is no database 'd'\n")
    done = couchlite("backup", tmp_path / "nowhere" / "file", "--data-dir", data)
    assert (done.returncode, done.stdout) == (1, "")
    assert "file.partial can't be written: No such file or directory" in done.stderr
    file.write_bytes(file.read_bytes()[:-3000])
    done = couchlite("restore", file, "--data-dir", tmp_path / "new")
    assert done.returncode == 1 and done.stderr.startswith(f"couchlite: {file}: ")
    assert sorted(os.listdir(tmp_path)) == ["backup", "data", "one"]


def size_of(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def test_an_interrupted_backup_leaves_nothing(data: Path, tmp_path: Path) -> None:
    with Server(data) as server:
        server.open("a").put({"_id": "long", "text": os.urandom(3_000_000).hex()})
    target = tmp_path / "backup"
    sizes = os.listdir(tmp_path)
    for _ in range(3):
        command = [sys.executable, "-m", "cli.main", "backup", str(target), "--data-dir", str(data)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and not size_of(Path(f"{target}.partial")):
            pass
        process.terminate()
        if process.wait(30) == 0:  # it was through
            target.unlink()
        assert os.listdir(tmp_path) == sizes


def test_a_killed_backup_and_one_under_load_beside_a_server(tmp_path: Path) -> None:
    target = tmp_path / "backup"
    with served(tmp_path, "--workers", "2") as server, Client(server.port) as client:
        assert client.ask("PUT", "/a").status == 201
        stop = threading.Event()
        writers = [threading.Thread(target=_write_pairs, args=(server.port, at, stop)) for at in range(2)]
        for writer in writers:
            writer.start()
        try:
            for delay_s in (0.3, 0.4, 0.5, 0.6):
                command = [sys.executable, "-m", "cli.main", "backup", str(target)]
                command += ["--data-dir", str(tmp_path / "data")]
                process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
                stop.wait(delay_s)
                process.send_signal(signal.SIGKILL)
                process.wait(30)
                if target.exists():  # it was quicker
                    assert couchlite("restore", target, "--list").returncode == 0
                    target.unlink()
            done = couchlite("backup", target, "--data-dir", tmp_path / "data")
            assert done.returncode == 0, done.stderr
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert not Path(f"{target}.partial").exists()
        done = couchlite("restore", target, "a", "--rename", "a=copy", "--data-dir", tmp_path / "data")
        assert done.returncode == 0, done.stderr
        rows = client.ask("GET", "/copy/_all_docs").json["rows"]
        ids = {row["id"] for row in rows}
        assert ids and all(doc_id.translate(OTHER_SIDE) in ids for doc_id in ids)
        assert client.ask("PUT", "/copy/afterwards", {}).status == 201
    with Server(tmp_path / "data") as store:
        for name in store.names():
            assert store.open(name).check(deep=True) == []
            assert {path.name for path in store.open(name).path.iterdir()} <= FOLDER


OTHER_SIDE = str.maketrans("lr", "rl")
FOLDER = {"store.mdb", "blobs", "index", "compact.lock"}


def _write_pairs(port: int, writer: int, stop: threading.Event) -> None:
    with Client(port) as client:
        number = 0
        while not stop.is_set():
            number += 1
            docs = [{"_id": f"{side}{writer}-{number}", "pad": os.urandom(500).hex()} for side in "lr"]
            assert client.ask("POST", "/a/_bulk_docs", {"docs": docs}).status == 201
