"""Replications of a server with several workers: one process runs them, and only when there are any."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.shell.running import Served, served, wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")


def ask(server: Served, method: str, path: str, body: Any = None) -> tuple[int, Any]:
    answer = server.request(method, path, body)
    return answer.status, answer.json


def test_the_process_is_started_when_it_is_needed_and_again_when_it_dies(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        workers = set(server.workers())
        assert len(workers) == 2
        assert ask(server, "GET", "/_scheduler/jobs") == (200, {"total_rows": 0, "offset": 0, "jobs": []})
        assert set(server.workers()) == workers
        for name in ("a", "b"):
            ask(server, "PUT", f"/{name}")
        ask(server, "PUT", "/a/doc", {})
        for _ in range(2):
            status, told = ask(server, "POST", "/_replicate", {"source": "a", "target": "b"})
            assert (status, told["history"][0]["docs_written"]) == (200, 1)
            [replicator] = set(server.workers()) - workers
            os.kill(replicator, signal.SIGKILL)
        assert set(server.workers()) & workers == workers


def test_all_workers_see_the_same_jobs(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        for name in ("a", "b"):
            ask(server, "PUT", f"/{name}")
        asked = {"source": "a", "target": "b", "continuous": True}
        _, started = ask(server, "POST", "/_replicate", asked)
        job = f"/_scheduler/jobs/{started['_local_id']}"
        wait_until(lambda: ask(server, "GET", "/_active_tasks")[1] != [])
        for _ in range(10):  # each by a connection of its own
            assert ask(server, "GET", job)[0] == 200
            assert len(ask(server, "GET", "/_active_tasks")[1]) == 1
        ask(server, "PUT", "/a/doc", {})
        wait_until(lambda: ask(server, "GET", "/b/doc")[0] == 200)
        for _ in range(2):
            cancelled = [ask(server, "POST", "/_replicate", asked | {"cancel": True})[0] for _ in range(2)]
            assert cancelled == [200, 404]
            ask(server, "POST", "/_replicate", asked)


def test_a_server_stops_in_the_midst_of_replications(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        for name in ("a", "b"):
            ask(server, "PUT", f"/{name}")
        ask(server, "POST", "/_replicate", {"source": "a", "target": "b", "continuous": True})
        begun = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(20) == 0
        assert time.monotonic() - begun < 8
        assert list((tmp_path / "data" / "run").glob("replicator*")) == []
    assert "Traceback" not in server.output
