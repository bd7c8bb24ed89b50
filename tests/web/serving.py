"""A real `couchlite serve` for tests: its own process, data directory and port, stopped at the end."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from .player import Target

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 20.0
ADMIN = "adm"
PASSWORD = "pass"


@contextlib.contextmanager
def serving(directory: Path, *options: str) -> Iterator[Target]:
    """Serve from `directory`; `options` are further ones of the command line."""
    port = free_port()
    command = [sys.executable, "-m", "cli.main", "serve", "--bind", "127.0.0.1", "--port", str(port)]
    command += ["--data-dir", str(directory / "data"), *options]
    log = directory / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            env=os.environ | {"COUCHDB_USER": ADMIN, "COUCHDB_PASSWORD": PASSWORD},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            _wait_until_listening(process, port, log)
            yield Target("127.0.0.1", port, ADMIN, PASSWORD)
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def free_port() -> int:
    """A port nobody listens on; should another process take it first, the server fails to start."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_listening(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"couchlite serve ended with {process.returncode}:\n{log.read_text()}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise RuntimeError(f"couchlite serve does not listen:\n{log.read_text()}")
