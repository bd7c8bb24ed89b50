"""Compaction moves a store to a compact copy while others write to it. Its process may die at any moment."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import time
from pathlib import Path

from couchlite import Server

from ..waiting import wait_until
from . import KILLS
from .processes import DATABASE, process

WRITERS = ("one", "two", "three")


def test_compactions_killed_while_others_write_lose_nothing(tmp_path: Path) -> None:
    chance = random.Random(1)
    data = tmp_path / "data"
    with Server(data) as server:
        server.create(DATABASE)
    logs = {name: tmp_path / f"{name}.log" for name in WRITERS}
    generations = set()
    with contextlib.ExitStack() as stack:
        writers = [stack.enter_context(process("write", data, name, log)) for name, log in logs.items()]
        wait_until(lambda: all(log.read_text().count("\n") > 20 for log in logs.values()))
        for kill in range(KILLS):
            _compact_for(chance.random() * 0.3, data, tmp_path / f"compact-{kill}.log")
            generations.add(_newest_generation(data))
            assert [writer.poll() for writer in writers] == [None] * len(writers), _logs(logs)
        for writer in writers:
            writer.send_signal(signal.SIGTERM)
        assert [writer.wait(20) for writer in writers] == [0, 0, 0], _logs(logs)
    assert len(generations) > KILLS // 3, "the copies were hardly ever finished"
    with Server(data) as server:
        database = server.open(DATABASE)
        for log in logs.values():
            for doc_id, rev, number in _acknowledged(log):
                stored = database.get(doc_id)
                assert (stored["_rev"], stored["n"]) == (rev, number)
        assert database.check(deep=True) == []
        database.compact().result()
        assert len(os.listdir(database.path / "store.mdb")) == 2, "a generation, and the lock"


def _compact_for(seconds: float, data: Path, log: Path) -> None:
    with process("compact", data, "", log) as compaction:
        wait_until(lambda: "ready" in log.read_text())
        time.sleep(seconds)
        assert compaction.poll() is None, log.read_text()


def _newest_generation(data: Path) -> int:
    return max(int(path.name) for path in data.glob("db/*/store.mdb/[0-9]*"))


def _acknowledged(log: Path) -> list[tuple[str, str, int]]:
    """The newest acknowledged revision of each document."""
    newest = {}
    for line in log.read_text().splitlines():
        if line != "ready":
            doc_id, rev, number = json.loads(line)
            newest[doc_id] = rev, number
    return [(doc_id, rev, number) for doc_id, (rev, number) in newest.items()]


def _logs(logs: dict[str, Path]) -> str:
    lines = (line for log in logs.values() for line in log.read_text().splitlines())
    return "\n".join(line for line in lines if not line.startswith('["'))
