"""A server that is told to stop under load: feeds end with their last line, and what was acknowledged is
there."""

from __future__ import annotations

import contextlib
import http.client
import json
import signal
import threading
import time
from pathlib import Path

import pytest

from couchlite import Server

from ..waiting import wait_until
from .running import Served, served

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


@WORKERS
@pytest.mark.parametrize("feed", ["continuous", "longpoll", "eventsource"])
def test_feeds_end_with_their_last_line(tmp_path: Path, workers: str, feed: str) -> None:
    with served(tmp_path, "--workers", workers) as server, contextlib.ExitStack() as stack:
        server.request("PUT", "/db")
        server.request("PUT", "/db/a", {})
        server.request("PUT", "/db/_security", {})
        since = "now" if feed == "longpoll" else "0"
        connections = [
            _follow(server, f"/db/_changes?feed={feed}&heartbeat=60000&since={since}") for _ in range(8)
        ]
        for connection in connections:
            stack.callback(connection.close)
        responses = [connection.getresponse() for connection in connections] if feed != "longpoll" else []
        time.sleep(0.5)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        responses = responses or [connection.getresponse() for connection in connections]
        bodies = [response.read() for response in responses]  # raises if a body is cut short
        assert server.process.wait(20) == 0
        assert time.monotonic() - began < 5
        for body in bodies:
            if feed == "continuous":
                first, last = [json.loads(line) for line in body.splitlines() if line]
                assert first["id"] == "a" and last["last_seq"].startswith("1-")
            elif feed == "longpoll":
                assert json.loads(body)["results"] == []
            else:
                assert b'"id":"a"' in body


def _follow(server: Served, path: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    connection.request("GET", path)
    return connection


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_was_acknowledged_is_there(tmp_path: Path, workers: str, number: signal.Signals) -> None:
    acknowledged: list[tuple[str, str]] = []
    with served(tmp_path, "--workers", workers) as server:
        server.request("PUT", "/db")
        server.request("PUT", "/db/_security", {})
        writers = [threading.Thread(target=_write, args=(server.port, who, acknowledged)) for who in range(8)]
        for writer in writers:
            writer.start()
        wait_until(lambda: len(acknowledged) > 20)
        assert server.stop(number) == 0
        for writer in writers:
            writer.join()
    with Server(tmp_path / "data") as store:
        database = store.open("db")
        for doc_id, rev in acknowledged:
            assert database.get(doc_id)["_rev"] == rev
        stored = database.info().doc_count
    # A request whose answer was lost may have been stored, but there is at most one such for each writer.
    assert len(acknowledged) <= stored <= len(acknowledged) + len(writers)


def _write(port: int, who: int, acknowledged: list[tuple[str, str]]) -> None:
    """Write documents one after the other until the server is gone."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        for number in range(1_000_000):
            doc_id = f"{who}-{number}"
            connection.request("PUT", f"/db/{doc_id}", json.dumps({"n": number}))
            response = connection.getresponse()
            body = json.loads(response.read())
            if response.status != 201:
                raise AssertionError(body)
            acknowledged.append((doc_id, body["rev"]))
    except (OSError, http.client.HTTPException):
        return
    finally:
        connection.close()
