"""An index whose builders were killed goes on where the last one was, and ends as one that was built at
once; two processes that build the same one do it one after the other."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from couchlite import Server, document
from couchlite.index import IndexFunctions, levels, store
from couchlite.javascript import FunctionThread

from .builders import DATABASE, definition

ROOT = Path(__file__).parents[2]
DOCUMENTS = 2500
ALWAYS, NEVER = "0", "1000000"
"""From how many changes on the nodes are made in the end."""


def fill(directory: Path) -> None:
    numbers = random.Random(5)
    with Server(directory) as server:
        database = server.create(DATABASE)
        docs = [
            {"_id": f"d{at}", "keys": [numbers.randrange(500) for _ in range(3)], "n": at}
            for at in range(DOCUMENTS)
        ]
        database.update([document.parse(doc) for doc in docs])


def start(directory: Path, bulk: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.crash.builders", str(directory), bulk]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)


def contents(directory: Path, *, anew: bool = False) -> list[Any]:
    with Server(directory) as server, FunctionThread() as thread:
        database = server.open(DATABASE)
        if anew:
            database.indexes.clean_up([])
        index = database.indexes.get(definition())
        index.build(database, IndexFunctions(thread.pool, thread.loop)).result()
        with index.read() as reader:
            nodes = [list(levels.nodes(reader, level)) for level in range(1, levels.LEVELS_MAX)]
            return [store.state_of(reader), list(store.rows_in(reader)), nodes]


def progress(directory: Path) -> int:
    with Server(directory) as server:
        return server.open(DATABASE).indexes.get(definition()).state().seq


@pytest.mark.slow
@pytest.mark.parametrize("bulk", [ALWAYS, NEVER])
def test_a_killed_build_goes_on(tmp_path: Path, bulk: str) -> None:
    fill(tmp_path)
    chance = random.Random(bulk)
    seen = [0]
    for _ in range(8):
        builder = start(tmp_path, bulk)
        assert builder.stdout is not None
        builder.stdout.readline()
        time.sleep(chance.uniform(0.05, 0.4))
        builder.kill()
        builder.wait()
        builder.stdout.close()
        seen.append(progress(tmp_path))
    assert seen == sorted(seen) and seen[-1] > 0
    assert contents(tmp_path) == contents(tmp_path, anew=True)


@pytest.mark.slow
def test_processes_build_an_index_one_after_the_other(tmp_path: Path) -> None:
    fill(tmp_path)
    builders = [start(tmp_path, NEVER) for _ in range(3)]
    for builder in builders:
        output, _ = builder.communicate(timeout=60)
        assert output.split() == [b"begun", b"built"]
    assert progress(tmp_path) == DOCUMENTS
    assert contents(tmp_path) == contents(tmp_path, anew=True)
