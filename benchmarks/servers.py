"""The servers under test: a `couchlite serve` started here, and any other by its URL."""

from __future__ import annotations

import base64
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

START_TIMEOUT_S = 20


class Server:
    """A CouchDB-compatible server. `pid` is the root of its process tree, when memory is to be measured."""

    def __init__(self, name: str, url: str, pid: int | None = None) -> None:
        parts = urlsplit(url)
        self.name = name
        self.pid = pid
        self.host = parts.hostname or "127.0.0.1"
        self.port = parts.port or 5984
        self.credentials = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
        self.authorization = "Basic " + base64.b64encode(self.credentials.encode()).decode()
        self.base = f"http://{self.host}:{self.port}"
        self.prepared: set[str] = set()
        """Which data sets are loaded; set-ups note themselves here."""

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=900)
        connection.connect()
        assert isinstance(connection.sock, socket.socket)
        connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection

    def send(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        connection: http.client.HTTPConnection | None = None,
        content_type: str = "application/json",
    ) -> tuple[int, bytes]:
        """One exchange; the status and the whole body."""
        used = connection or self.connect()
        headers = {"Authorization": self.authorization, "Accept": "application/json"}
        if body is not None:
            headers["Content-Type"] = content_type
        used.request(method, path, body, headers)
        response = used.getresponse()
        data = response.read()
        if connection is None:
            used.close()
        return response.status, data

    def call(self, method: str, path: str, value: Any = None, **how: Any) -> Any:
        """An exchange of JSON that must succeed."""
        body = None if value is None else value if isinstance(value, bytes) else json.dumps(value).encode()
        status, data = self.send(method, path, body, **how)
        if status >= 400:
            raise RuntimeError(f"{method} {path}: {status} {data[:200]!r}")
        return json.loads(data) if data else None

    def fresh(self, database: str) -> None:
        self.send("DELETE", f"/{database}")
        self.call("PUT", f"/{database}")

    def pss_mib(self) -> float:
        """Proportional set size of the whole process tree."""
        return sum(self.pss_of_processes_mib().values())

    def pss_of_processes_mib(self) -> dict[int, float]:
        if self.pid is None:
            raise RuntimeError("the process is not known; give it as NAME=URL,PID")
        sizes = {}
        for pid in processes_of(self.pid):
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except (FileNotFoundError, ProcessLookupError):
                continue
            sizes[pid] = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
        return sizes


def processes_of(pid: int) -> list[int]:
    """A process and all that it started."""
    pids = [pid]
    for parent in pids:
        listed = subprocess.run(["pgrep", "-P", str(parent)], capture_output=True, text=True, check=False)
        pids.extend(int(child) for child in listed.stdout.split())
    return pids


class Couchlite(Server):
    """A `couchlite serve` of this checkout, on a free port and a temporary data directory."""

    def __init__(self, workers: int | None = None, directory: Path | None = None) -> None:
        self._directory = tempfile.TemporaryDirectory(dir=directory, prefix="couchlite-bench-")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        arguments = ["--data-dir", f"{self._directory.name}/data", "--port", str(port), "--no-access-log"]
        if workers is not None:
            arguments += ["--workers", str(workers)]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "serve", *arguments],
            env={**os.environ, "COUCHDB_USER": "admin", "COUCHDB_PASSWORD": "benchmark"},
            cwd=Path(__file__).parent.parent,
            stdout=subprocess.DEVNULL,
        )
        name = "couchlite" if workers is None else f"couchlite -w{workers}"
        super().__init__(name, f"http://admin:benchmark@127.0.0.1:{port}", self._process.pid)

    def __enter__(self) -> Self:
        deadline = time.monotonic() + START_TIMEOUT_S
        while True:
            try:
                self.call("GET", "/_up")
                return self
            except OSError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.__exit__()
                    raise RuntimeError("couchlite did not start") from None
                time.sleep(0.05)

    def __exit__(self, *exc: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._directory.cleanup()
