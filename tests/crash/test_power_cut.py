"""A power cut: what had not been synced to the disk is gone, and everything acknowledged must have been."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from pathlib import Path

import pytest

from ..shell.running import kill
from . import KILLS
from .client import Client
from .disks import copy_of_device, make_image, mounted
from .follower import Follower
from .inspection import look_through, running
from .ledger import Ledger
from .writers import Crew

CUTS = (KILLS + 1) // 2
DISK_BYTES = 256 << 20


@pytest.mark.timeout(60 + 20 * CUTS)
def test_power_cuts_lose_nothing(tmp_path: Path) -> None:
    """The disk is a file. A copy of it, made while the server is under way, is what a power cut would have
    left: it lacks what the kernel had not written back."""
    chance = random.Random(11)
    ledger = Ledger()
    follower = Follower()
    image, data = tmp_path / "disk.0", tmp_path / "disk" / "data"
    make_image(image, DISK_BYTES)
    port = 0
    with contextlib.ExitStack() as at_the_end:
        for cut in range(CUTS + 1):
            with (
                mounted(tmp_path / "disk", "-o", "loop", str(image)),
                running(tmp_path, port, data) as server,
            ):
                if cut == 0:
                    port = server.port
                    client = at_the_end.enter_context(Client(port))
                    assert client.ask("PUT", "/a").status == 201
                    crew = at_the_end.enter_context(Crew(port, ledger))
                else:
                    look_through(client, crew, follower, ledger, data, everything=cut == CUTS)
                crew.work()
                time.sleep(0.2 + chance.random())
                os.killpg(server.process.pid, signal.SIGSTOP)
                left = copy_of_device(tmp_path / "disk", image, tmp_path / f"disk.{cut + 1}")
                kill(server.process)
                crew.rest()
                client.close()
                assert "Traceback" not in server.output
            image.unlink()
            image = left
    assert ledger.acknowledged > 20 * CUTS
