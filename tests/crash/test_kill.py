"""`kill -9` of a server's workers, and of the whole server, while it is written to in every way."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from couchlite import Server

from ..shell.running import Served, kill
from . import KILLS
from .client import Client, Lost, Unreachable
from .follower import Follower
from .inspection import look_through, running
from .ledger import Ledger
from .writers import Crew


@pytest.mark.timeout(60 + 10 * KILLS)
def test_killed_servers_lose_nothing(tmp_path: Path) -> None:
    """Each round: some workers die, then the whole server; it is started again, and all must be there."""
    chance = random.Random(7)
    data = tmp_path / "data"
    ledger = Ledger()
    follower = Follower()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(running(tmp_path, 0, data))
        client = stack.enter_context(Client(server.port))
        assert client.ask("PUT", "/a").status == 201
        crew = stack.enter_context(Crew(server.port, ledger))
        for round_number in range(KILLS):
            crew.work()
            for _ in range(chance.randrange(3)):
                time.sleep(chance.random() * 0.3)
                _kill_a_worker(server, chance)
            time.sleep(0.1 + chance.random() * 0.4)
            with contextlib.suppress(Lost, Unreachable):
                follower.catch_up(client)
            kill(server.process)
            crew.rest()
            client.close()
            server = stack.enter_context(running(tmp_path, server.port, data))
            look_through(client, crew, follower, ledger, data, everything=round_number == KILLS - 1)
            assert "Traceback" not in server.output
        assert ledger.acknowledged > 20 * KILLS
    _nothing_left_behind(data)


def _kill_a_worker(server: Served, chance: random.Random) -> None:
    workers = server.workers()
    if workers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)


def _nothing_left_behind(data: Path) -> None:
    """What killed processes were in the middle of is swept away by those that follow them."""
    with Server(data) as server:
        database = server.open("a")
        database.compact().result()
        assert sorted(path.name for path in (database.path / "blobs" / "tmp").iterdir()) == []
        with database.engine.read() as reader:
            assert list(database.blobs.orphans(reader)) == []
        generations = set(os.listdir(database.path / "store.mdb")) - {"seal.lock"}
        assert len(generations) == 1
        assert len(os.listdir(data / "db")) == len(server.names())
        database.put({"_id": "after all"})
        assert server.tasks() == []
        assert len(list((data / "run").glob("*.sock"))) == 1, "the server's own"
