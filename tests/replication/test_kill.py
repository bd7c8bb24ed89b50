"""`kill -9` of either server, or of the process that replicates, at random moments: the replication is
complete in the end, knows what was refused, and has done little twice."""

from __future__ import annotations

import base64
import contextlib
import http.client
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.interop.proxy import Proxy
from tests.interop.site import PASSWORD, USER, RemoteDatabase, Site, site
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="looks at /proc")]

DOCS = 3_000
REFUSED = 30
ATTACHED = 15
CHECKPOINT_S = 0.4
SLACK_S = 1.0
"""A checkpoint that is due may wait for this: a machine that is busy, a disk, the line to the source."""
BATCH = 50
IN_FLIGHT = 4 * BATCH
"""Documents in the stages and queues of a replication."""
NO_ODD_ONES = "function(doc) { if (doc.odd) throw({forbidden: 'no odd ones'}); }"
WORKERS = 2
VICTIMS = ("source", "replicator", "target", "replicator")


@pytest.fixture
def ends(tmp_path: Path) -> Iterator[tuple[Site, Site]]:
    """A server with documents, and another one that takes all but the odd ones."""
    for name in ("source", "target"):
        (tmp_path / name).mkdir()
    with site(tmp_path / "source") as source, site(tmp_path / "target") as target:
        fill(RemoteDatabase(source, "notes"))
        copy = RemoteDatabase(target, "copy")
        copy.put({"_id": "_design/v", "validate_doc_update": NO_ODD_ONES})
        yield source, target


def fill(notes: RemoteDatabase) -> None:
    chance = random.Random(1)
    text = base64.b64encode(chance.randbytes(900)).decode()
    docs: list[dict[str, Any]] = [
        {"_id": f"{number:05}", "text": text, "odd": number % (DOCS // REFUSED) == 7}
        for number in range(DOCS)
    ]
    content = base64.b64encode(chance.randbytes(50_000)).decode()
    attached = [
        {"_id": f"{number * 200:05}-file", "_attachments": {"f": {"data": content}}}
        for number in range(ATTACHED)
    ]
    docs = sorted([*docs, *attached], key=lambda doc: str(doc["_id"]))
    for start in range(0, len(docs), 500):
        notes.bulk(docs[start : start + 500])
    for digit in "123":
        digests = [digit * 32, "a" * 32]
        graft = {"_id": "conflict", "_revisions": {"start": 2, "ids": digests}}
        notes.bulk([graft], new_edits=False)


class Watch:
    """How many documents the target has, from moment to moment, as far as it can be asked."""

    def __init__(self, target: Site) -> None:
        self._target = target
        self.seen: list[tuple[float, int]] = [(time.monotonic(), 0)]

    def look(self) -> int:
        count = int(self._target.ask("GET", "/copy")["doc_count"])
        self.seen.append((time.monotonic(), count))
        return count

    def look_for(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.look()
            time.sleep(0.02)

    def since(self, moment: float) -> int:
        """Documents that came after a moment."""
        before = max(count for at, count in self.seen if at <= moment or count == 0)
        return self.seen[-1][1] - before


class Asker:
    """Asks for a replication again and again, however it ends: a request outlives the replicator's process,
    and a short absence of the source, but not its own server."""

    def __init__(self, target: Site, body: dict[str, Any]) -> None:
        self._target = target
        self._body = body
        self._told_to_end = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Asker:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._told_to_end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._told_to_end.wait(0.05):
            with contextlib.suppress(OSError, http.client.HTTPException, ValueError):
                self._target.request("POST", "/_replicate", self._body)


def kill(victim: str, source: Site, target: Site) -> None:
    if victim == "replicator":
        # The workers are there from the start; it is started by the first who asks.
        wait_until(lambda: len(target.processes()) > WORKERS)
        os.kill(max(target.processes(), key=started_at), signal.SIGKILL)
        return
    killed = source if victim == "source" else target
    killed.kill()
    killed.start_again()


def started_at(pid: int) -> int:
    """When a process began, in the kernel's ticks."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


@pytest.mark.timeout(240)
def test_killed_at_random_moments_it_completes_and_repeats_little(ends: tuple[Site, Site]) -> None:
    source, target = ends
    chance = random.Random(5)
    watch = Watch(target)
    repeatable = []
    # Slow enough for the kills to come in the middle.
    with Proxy(source.port, delay_s=0.02).running() as proxy:
        body = {
            "source": f"http://{USER}:{PASSWORD}@127.0.0.1:{proxy.port}/notes",
            "target": f"http://{USER}:{PASSWORD}@127.0.0.1:{target.port}/copy",
            "checkpoint_interval": int(CHECKPOINT_S * 1000),
            "worker_batch_size": BATCH,
            "worker_processes": 1,
            "http_connections": 1,
            "retries_per_request": 1,
            "connection_timeout": 5_000,
        }
        with Asker(target, body):
            for victim in VICTIMS:
                before = watch.look()
                wait_until(lambda before=before: watch.look() > before, 30)
                watch.look_for(chance.uniform(0.3, 1.2))
                kill(victim, source, target)
                repeatable.append(watch.since(watch.seen[-1][0] - CHECKPOINT_S - SLACK_S))
            assert watch.look() < DOCS - REFUSED, "too late to interrupt"
        told = target.ask("POST", "/_replicate", body | {"retries_per_request": 5})
        assert told["ok"] is True
    assert_complete(source, target)
    [shown] = target.ask("GET", "/_replications")["replications"]
    shown = target.ask("GET", f"/_replications/{shown['id']}?limit=1000")
    assert {row["id"] for row in shown["exceptions"]} == refused_ids()
    sessions = shown["sessions"][::-1]
    assert len(sessions) >= len(VICTIMS) + 1
    assert any(session["state"] == "interrupted" for session in sessions)
    # What was there already had been written after the last checkpoint.
    skipped = sum(session["skipped"] for session in sessions)
    assert skipped <= sum(repeatable) + len(sessions) * IN_FLIGHT, (skipped, repeatable)
    assert all(session["start_seq"] != 0 for session in sessions[2:]), sessions


def refused_ids() -> set[str]:
    return {f"{number:05}" for number in range(DOCS) if number % (DOCS // REFUSED) == 7}


def leaves(server: Site, name: str) -> dict[str, list[str]]:
    rows = server.ask("GET", f"/{name}/_changes?style=all_docs")["results"]
    return {row["id"]: [change["rev"] for change in row["changes"]] for row in rows}


def assert_complete(source: Site, target: Site) -> None:
    here, there = leaves(source, "notes"), leaves(target, "copy")
    there.pop("_design/v")
    assert {doc_id: revs for doc_id, revs in here.items() if doc_id not in refused_ids()} == there
    for number in range(ATTACHED):
        path = f"{number * 200:05}-file/f"
        assert target.request("GET", f"/copy/{path}").body == source.request("GET", f"/notes/{path}").body
