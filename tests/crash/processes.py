"""Processes that crash tests start and kill: fresh interpreters, so that none inherits an open environment.

python -m tests.crash.processes write DIRECTORY NAME      puts documents, prints what was acknowledged
python -m tests.crash.processes compact DIRECTORY NAME    compacts, and moves to the copy each time
"""

from __future__ import annotations

import contextlib
import json
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from couchlite import Database, Server
from couchlite.storage import environment

ROOT = Path(__file__).parents[2]
DATABASE = "a"


@contextlib.contextmanager
def process(kind: str, directory: Path, name: str, output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A running process; killed at the end if it still runs."""
    command = [sys.executable, "-m", "tests.crash.processes", kind, str(directory), name]
    with output.open("ab") as file:
        running = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
        try:
            yield running
        finally:
            running.kill()
            running.wait()


def write(database: Database, name: str) -> None:
    """Put documents until SIGTERM, read each one back, print each acknowledged revision."""
    told_to_end = False

    def end(*_: object) -> None:
        nonlocal told_to_end
        told_to_end = True

    signal.signal(signal.SIGTERM, end)
    revs: dict[str, str] = {}
    chance = random.Random(name)
    number = 0
    while not told_to_end:
        number += 1
        doc_id = f"{name}-{chance.randrange(50)}"
        doc = {"_id": doc_id, "n": number, "pad": "x" * chance.randrange(2000)}
        if doc_id in revs:
            doc["_rev"] = revs[doc_id]
        revs[doc_id] = database.put(doc)
        print(json.dumps([doc_id, revs[doc_id], number]), flush=True)
        assert database.get(doc_id)["n"] == number


def compact(database: Database) -> None:
    environment.RECLAIM_MIN_BYTES = 1
    environment.RECLAIM_MIN_SHARE = 0.0
    while True:
        database.compact().result()
        print("compacted", flush=True)


def read(database: Database) -> None:
    with database.snapshot():
        print("reading", flush=True)
        signal.pause()


def main() -> None:
    kind, directory, name = sys.argv[1:]
    with Server(directory) as server:
        database = server.open(DATABASE)
        print("ready", flush=True)
        if kind == "write":
            write(database, name)
        elif kind == "compact":
            compact(database)
        else:
            read(database)


if __name__ == "__main__":
    main()
