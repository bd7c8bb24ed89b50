"""`couchlite replicator`: the service standing alone, beside a server that runs nothing of it."""

from __future__ import annotations

import contextlib
import http.server
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..waiting import wait_until
from .running import Served, served

ENVIRONMENT = {**os.environ, "COUCHDB_USER": "adm", "COUCHDB_PASSWORD": "pass"}


def command(tmp_path: Path, url: str, *arguments: str) -> list[str]:
    directory = str(tmp_path / "alone")
    return [sys.executable, "-m", "cli.main", "replicator", url, "--data-dir", directory, *arguments]


@contextlib.contextmanager
def alone(tmp_path: Path, server: Served, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """The service running; its output is in `alone.log`."""
    asked = command(tmp_path, f"http://127.0.0.1:{server.port}", "--database", "jobs", *arguments)
    with (
        (tmp_path / "alone.log").open("ab") as output,
        subprocess.Popen(asked, stdout=output, stderr=output, env=ENVIRONMENT) as process,
    ):
        try:
            yield process
        finally:
            process.kill()


def log(tmp_path: Path) -> str:
    return (tmp_path / "alone.log").read_text()


def ask(server: Served, method: str, path: str, body: Any = None) -> Any:
    return server.request(method, path, body).json


def has(server: Served, path: str) -> bool:
    return server.request("GET", path).status == 200


def ask_for(server: Served, doc_id: str, **more: Any) -> None:
    basic = {"username": "adm", "password": "pass"}
    ends = {
        name: {"url": f"http://127.0.0.1:{server.port}/{name}", "auth": {"basic": basic}}
        for name in ("source", "target")
    }
    assert server.request("PUT", f"/jobs/{doc_id}", ends | more).status == 201


def make_databases(server: Served) -> None:
    for name in ("jobs", "source", "target"):
        assert server.request("PUT", f"/{name}").status == 201
    assert server.request("PUT", "/source/first", {}).status == 201


def test_what_documents_ask_for_is_done_and_told(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        make_databases(server)
        ask_for(server, "always", continuous=True)
        with alone(tmp_path, server) as process:
            wait_until(lambda: has(server, "/target/first"))
            ask_for(server, "once", doc_ids=["first"])
            ask_for(server, "wrong", source="name")
            wait_until(lambda: ask(server, "GET", "/jobs/once").get("_replication_state") == "completed")
            wait_until(lambda: ask(server, "GET", "/jobs/wrong").get("_replication_state") == "failed")
            assert (
                ask(server, "GET", "/jobs/wrong")["_replication_state_reason"]
                == "local_endpoints_not_supported"
            )
            server.request("PUT", "/source/second", {})
            wait_until(lambda: has(server, "/target/second"))
            document = ask(server, "GET", "/jobs/always")
            assert document["_rev"].startswith("1-")
            server.request("DELETE", f"/jobs/always?rev={document['_rev']}")
            ask_for(server, "after", doc_ids=["second"])
            wait_until(lambda: ask(server, "GET", "/jobs/after").get("_replication_state") == "completed")
            server.request("PUT", "/source/third", {})
            process.send_signal(signal.SIGTERM)
            assert process.wait(20) == 0
        assert not has(server, "/target/third")
        assert "pass" not in log(tmp_path) and "Traceback" not in log(tmp_path)


def test_it_goes_on_when_the_server_comes_back_and_when_it_is_killed_itself(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        make_databases(server)
        ask_for(server, "always", continuous=True)
        port = server.port
        with alone(tmp_path, server):
            wait_until(lambda: has(server, "/target/first"))
            server.stop(signal.SIGKILL)
            with served(tmp_path, "--workers", "1", "--port", str(port)) as again:
                again.request("PUT", "/source/second", {})
                wait_until(lambda: has(again, "/target/second"), 60)
                ask_for(again, "once", doc_ids=["first"])
                wait_until(
                    lambda: ask(again, "GET", "/jobs/once").get("_replication_state") == "completed", 60
                )
    with served(tmp_path, "--workers", "1", "--port", str(port)) as server:
        server.request("PUT", "/source/third", {})
        with alone(tmp_path, server):
            wait_until(lambda: has(server, "/target/third"))
    assert "Traceback" not in log(tmp_path)


class Stranger(http.server.BaseHTTPRequestHandler):
    """A server that is no CouchDB."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<h1>Welcome</h1>")

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def stranger() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Stranger) as listening:
        thread = threading.Thread(target=listening.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{listening.server_address[1]}"
        listening.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("url", "arguments", "told"),
    [
        ("{server}", ["--database", "none"], "there is no database none on {server}/"),
        ("{server}", ["--password", "s3cret"], "{server}/ wants another name or password"),
        ("http://adm:s3cret@127.0.0.1:1", [], "http://127.0.0.1:1/ can't be reached: nobody listens there"),
        ("{stranger}", [], "{stranger}/ is no CouchDB server"),
        ("nonsense", [], "the URL of a server is needed, such as http://127.0.0.1:5984"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(
    tmp_path: Path, shared_server: Served, stranger: str, url: str, arguments: list[str], told: str
) -> None:
    places = {"server": f"http://127.0.0.1:{shared_server.port}", "stranger": stranger}
    asked = command(tmp_path, url.format(**places), *arguments)
    done = subprocess.run(asked, capture_output=True, text=True, timeout=60, env=ENVIRONMENT, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"couchlite: {told.format(**places)}\n"


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("shared"), "--workers", "1") as server:
        yield server
