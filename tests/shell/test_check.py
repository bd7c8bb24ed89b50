"""`couchlite check` from a shell, also beside a running server."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from couchlite import Server

from ..crash.client import Client
from .running import served


def check(data: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", "check", "--data-dir", str(data), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_all_is_well_beside_a_running_server(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        assert server.request("PUT", "/a").status == 201
        stop = threading.Event()
        writers = [threading.Thread(target=_write, args=(server.port, at, stop)) for at in range(2)]
        for writer in writers:
            writer.start()
        try:
            for _ in range(3):
                done = check(tmp_path / "data")
                assert (done.returncode, done.stdout, done.stderr) == (0, "all is well\n", "")
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        assert server.request("PUT", "/a/afterwards", {}).status == 201


def _write(port: int, writer: int, stop: threading.Event) -> None:
    with Client(port) as client:
        rev = ""
        number = 0
        while not stop.is_set():
            number += 1
            docs = [{"_id": f"{writer}-{number}-{at}", "pad": "x" * 500} for at in range(20)]
            assert client.ask("POST", "/a/_bulk_docs", {"docs": docs}).status == 201
            body = {"_rev": rev, "n": number} if rev else {"n": number}
            rev = client.ask("PUT", f"/a/counter{writer}", body).json["rev"]


def test_damage_is_told_and_the_exit_code_is_1(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Server(data) as server:
        database = server.create("a")
        database.put({"_id": "doc", "text": "unmistakable"})
        server.create("b").put({"_id": "doc"})
    [file] = [path for path in data.glob("db/*/store.mdb/1/data.mdb") if b"unmistakable" in path.read_bytes()]
    file.write_bytes(file.read_bytes().replace(b"unmistakable", b"unmistakabel"))
    done = check(data, "--json")
    assert done.returncode == 1
    answer = json.loads(done.stdout)
    assert not answer["ok"]
    assert {finding["where"] for finding in answer["findings"]} == {"a"}
    assert check(data, "b").stdout == "all is well\n"
    done = check(data, "a", "--repair")
    assert done.returncode == 1
    assert "body 1 can't be read" in done.stdout and done.stdout.endswith("wrong\n")


def test_a_directory_that_is_none_and_a_database_that_is_not_there(tmp_path: Path) -> None:
    done = check(tmp_path / "none")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"couchlite: {tmp_path / 'none'} is no couchlite data directory\n"
    Server(tmp_path / "data").close()
    done = check(tmp_path / "data", "a")
    assert (done.returncode, done.stderr) == (3, "couchlite: there is no database 'a'\n")
