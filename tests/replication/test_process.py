"""Replications of a server with several workers: one process runs them, and only when there are any."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.shell.running import Served, served
from tests.waiting import wait_until

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


def state_of(server: Served, doc_id: str) -> Any:
    return ask(server, "GET", f"/_scheduler/docs/_replicator/{doc_id}")[1].get("state")


def endpoint(server: Served, name: str) -> dict[str, Any]:
    basic = {"username": "adm", "password": "pass"}
    return {"url": f"http://127.0.0.1:{server.port}/{name}", "auth": {"basic": basic}}


def ask_for(server: Served, doc_id: str, **more: Any) -> None:
    for name in ("a", "b"):
        ask(server, "PUT", f"/{name}")
    fields = {"source": endpoint(server, "a"), "target": endpoint(server, "b"), **more}
    assert ask(server, "PUT", f"/_replicator/{doc_id}", fields)[0] == 201


@pytest.mark.parametrize("workers", ["1", "2"])
def test_what_documents_ask_for_survives_a_restart(tmp_path: Path, workers: str) -> None:
    with served(tmp_path, "--workers", workers) as server:
        ask_for(server, "always", continuous=True)
        ask_for(server, "once", doc_ids=["x"])
        wait_until(lambda: state_of(server, "always") == "running")
        wait_until(lambda: state_of(server, "once") == "completed")
        ask(server, "PUT", "/a/first", {})
        wait_until(lambda: ask(server, "GET", "/b/first")[0] == 200)
        port = server.port
        done = ask(server, "GET", "/_replicator/once")[1]
        server.stop()
    with served(tmp_path, "--workers", workers, "--port", str(port)) as server:
        wait_until(lambda: state_of(server, "always") == "running")
        ask(server, "PUT", "/a/second", {})
        wait_until(lambda: ask(server, "GET", "/b/second")[0] == 200)
        assert ask(server, "GET", "/_replicator/once")[1] == done


def test_a_replicator_that_is_killed_in_mid_run_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        workers = set(server.workers())
        ask(server, "PUT", "/a")
        for start in range(0, 20_000, 2_000):
            docs = [{"_id": f"{number:05}", "text": "x" * 200} for number in range(start, start + 2_000)]
            assert ask(server, "POST", "/a/_bulk_docs", {"docs": docs})[0] == 201
        ask_for(server, "doc", checkpoint_interval=100, worker_batch_size=100)

        def is_under_way() -> bool:
            return bool(ask(server, "GET", "/b")[1].get("doc_count", 0) > 1_000)

        wait_until(is_under_way)
        for replicator in set(server.workers()) - workers:
            os.kill(replicator, signal.SIGKILL)
        wait_until(lambda: state_of(server, "doc") == "completed", 60)
        assert ask(server, "GET", "/b")[1]["doc_count"] == 20_000
        stats = ask(server, "GET", "/_replicator/doc")[1]["_replication_stats"]
        assert stats["docs_written"] <= 20_000
        assert ask(server, "GET", "/_scheduler/jobs")[1]["jobs"] == []
        assert set(server.workers()) & workers == workers


@pytest.mark.parametrize("workers", ["1", "2"])
def test_monitors_see_what_the_jobs_do(tmp_path: Path, workers: str) -> None:
    with served(tmp_path, "--workers", workers) as server:

        def jobs() -> dict[str, int]:
            told = ask(server, "GET", "/_node/_local/_stats/couch_replicator/jobs")[1]
            return {name: entry["value"] for name, entry in told.items()}

        assert set(jobs().values()) == {0}
        for name in ("a", "b"):
            ask(server, "PUT", f"/{name}")
        asked = {"source": "a", "target": "b", "continuous": True}
        for _ in range(2):
            ask(server, "POST", "/_replicate", asked)
        wait_until(lambda: jobs()["running"] == 1 and jobs()["duplicate_adds"] == 1)
        lost = {"source": "nowhere", "target": "b", "continuous": True}
        ask(server, "POST", "/_replicate", lost)
        wait_until(lambda: (jobs()["crashed"], jobs()["total"]) == (1, 2))
        prometheus = server.request("GET", "/_node/_local/_prometheus").body.decode().splitlines()
        assert "couchdb_couch_replicator_jobs_running 1" in prometheus
        assert "couchdb_couch_replicator_jobs_total 2" in prometheus
        for each in (asked, lost):
            ask(server, "POST", "/_replicate", each | {"cancel": True})
        wait_until(lambda: jobs()["total"] == 0)
        told = jobs()
        assert [told[name] for name in ("running", "pending", "crashed")] == [0, 0, 0]
        assert [told[name] for name in ("adds", "removes", "duplicate_adds")] == [2, 2, 1]
        assert told["starts"] >= 2 and told["crashes"] >= 1


def test_what_the_replicator_writes_is_counted_too(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:

        def inserts() -> int:
            answer = ask(server, "GET", "/_node/_local/_stats/couchdb/document_inserts/value")
            return int(answer[1])

        for name in ("a", "b"):
            ask(server, "PUT", f"/{name}")
        ask(server, "POST", "/a/_bulk_docs", {"docs": [{} for _ in range(50)]})
        wait_until(lambda: inserts() >= 50)
        ask(server, "POST", "/_replicate", {"source": "a", "target": "b"})
        wait_until(lambda: inserts() >= 100)
