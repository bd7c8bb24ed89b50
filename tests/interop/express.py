"""express-pouchdb: a server of databases that is neither CouchDB's code nor ours."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..shell.running import Answer
from .device import END_TIMEOUT_S, HERE


class ExpressSite:
    """The server; it answers what site.Site answers. There are no users: everybody may do everything."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        line = process.stdout.readline()
        self.port: int = json.loads(line)["ok"]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def request(self, method: str, path: str, body: Any = None) -> Answer:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        with contextlib.closing(connection):
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be a success."""
        answer = self.request(method, path, body)
        assert answer.status < 300, (method, path, answer)
        return answer.json


@contextlib.contextmanager
def express_site(directory: Path, port: int = 0) -> Iterator[ExpressSite]:
    """A running server with its databases in `directory`."""
    directory.mkdir(exist_ok=True)
    with (directory / "errors.log").open("ab") as errors:
        process = subprocess.Popen(
            ["node", HERE / "express.mjs", directory, str(port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield ExpressSite(process)
    finally:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        try:
            process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
