"""A `couchlite serve` of its own for a test: started, spoken to, stopped; its output is kept."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from http_api.workers import PR_SET_PDEATHSIG

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 30.0
READY = re.compile(r"serves .* at (https?)://(?:[^/]*):(\d+)/")
# Few iterations: a test that starts a server shouldn't wait for a hash that is slow on purpose.
FAST_HASHES = "[chttpd_auth]\niterations = 10\n"


class Answer(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Served:
    """A running server."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output
        self.port = self._wait_until_ready()

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return self._output.read_text()

    def request(
        self, method: str, path: str, body: Any = None, *, user: tuple[str, str] | None = ("adm", "pass")
    ) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(":".join(user).encode()).decode()
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def workers(self) -> list[int]:
        """The process ids of its worker processes."""
        pid = self.process.pid
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return sorted(int(child) for child in children)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and wait for the end; the exit code."""
        self.process.send_signal(number)
        return self.process.wait(STOP_TIMEOUT_S)

    def _wait_until_ready(self) -> int:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            ready = READY.search(self.output)
            if ready:
                return int(ready[2])
            if self.process.poll() is not None:
                raise RuntimeError(f"couchlite serve ended with {self.process.returncode}:\n{self.output}")
            time.sleep(0.02)
        raise RuntimeError(f"couchlite serve does not become ready:\n{self.output}")


def start(
    directory: Path, *options: str, environment: dict[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start `couchlite serve` on the data directory `directory`/data and a free port."""
    settings = directory / "fast.ini"
    settings.write_text(FAST_HASHES)
    command = [sys.executable, "-m", "cli.main", "serve", "--data-dir", str(directory / "data")]
    if "--port" not in options:
        command += ["--port", "0"]
    if "--config" not in options:
        command += ["--config", str(settings)]
    log = directory / f"serve-{time.monotonic_ns()}.log"
    given = {"COUCHDB_USER": "adm", "COUCHDB_PASSWORD": "pass"} if environment is None else environment
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("COUCHDB_")}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *options],
            env={**inherited, **given},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_end_with_the_tests,
        )
    return process, log


def _end_with_the_tests() -> None:
    """Have the kernel kill the server when the test process dies (Linux), which then can't."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


@contextlib.contextmanager
def served(directory: Path, *options: str, environment: dict[str, str] | None = None) -> Iterator[Served]:
    """A server on the data directory `directory`/data."""
    process, log = start(directory, *options, environment=environment)
    with running(process, log) as server:
        yield server


@contextlib.contextmanager
def running(process: subprocess.Popen[bytes], log: Path) -> Iterator[Served]:
    """A server that was started, once it is ready; whatever is left of it at the end is killed."""
    try:
        yield Served(process, log)
    finally:
        kill(process)


def refused(directory: Path, *options: str, environment: dict[str, str] | None = None) -> str:
    """The one line that a server prints that can't start."""
    process, log = start(directory, *options, environment=environment)
    try:
        assert process.wait(START_TIMEOUT_S) != 0
    finally:
        kill(process)
    lines = log.read_text().splitlines()
    assert len(lines) == 1, lines
    return lines[0]


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a server and all of its workers: they are a process group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
