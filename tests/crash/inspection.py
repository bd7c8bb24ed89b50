"""Servers that are stopped by force, and what is looked at once they run again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from couchlite import Server

from ..shell.running import Served, kill, start
from .client import Client
from .follower import Follower
from .ledger import Ledger
from .writers import Crew

WORKERS = 2


@contextlib.contextmanager
def running(directory: Path, port: int, data: Path) -> Iterator[Served]:
    """A server with its log in `directory`, killed at the end."""
    process, log = start(
        directory, "--workers", str(WORKERS), "--port", str(port), "--data-dir", str(data), "--no-access-log"
    )
    try:
        yield Served(process, log)
    finally:
        kill(process)


def look_through(
    client: Client, crew: Crew, follower: Follower, ledger: Ledger, data: Path, *, everything: bool
) -> None:
    """All that was acknowledged is there, batches are whole, changes and counters agree."""
    crew.check(client)
    ledger.settle(client)
    ledger.check(client, everything=everything)
    follower.catch_up(client)
    follower.compare(client)
    with Server(data) as server:
        for name in server.names():
            assert server.open(name).check(deep=True) == [], name
