"""What a worker gives back of its memory."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from couchlite import Server
from http_api import memory

from ..waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nothing is given back elsewhere")

MIB = 1 << 20


def mapped_bytes() -> int:
    """What of the stores' maps is in this process's page table."""
    total, is_store = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if line.split(" ", 1)[0].count("-") == 1:
            is_store = line.endswith("/data.mdb")
        elif is_store and line.startswith("Rss:"):
            total += int(line.split()[1]) * 1024
    return total


def work(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_pages_that_were_read_are_let_go_when_the_work_is_over(tmp_path: Path) -> None:
    with Server(tmp_path) as server:
        database = server.create("a")
        for number in range(8):
            database.put({"_id": str(number), "pad": os.urandom(MIB // 2).hex()})
        tidier = memory.Tidier()
        assert sum(len(database.text(doc_id)[1]) for doc_id in database.ids()) > 8 * MIB
        work(memory.WORK_S)
        tidier.look()
        assert mapped_bytes() > 4 * MIB, "it was busy until now"

        def is_released() -> bool:
            time.sleep(0.5)  # idle
            tidier.look()
            return mapped_bytes() < MIB

        wait_until(is_released)
        assert database.get("7")["_id"] == "7"
