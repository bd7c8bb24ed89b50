"""A real client that a test talks to: a program in a process of its own, which holds a PouchDB."""

from __future__ import annotations

import base64
import contextlib
import json
import queue
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

HERE = Path(__file__).parent
ANSWER_TIMEOUT_S = 60.0
END_TIMEOUT_S = 10.0


class DeviceError(AssertionError):
    """What a client threw; its stack, and what it has printed."""


class Device:
    """A running client, spoken to in lines of JSON: see commands.mjs."""

    def __init__(self, program: str, arguments: Sequence[str | Path], log: Path) -> None:
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                ["node", HERE / program, *arguments],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()
        self.greeting: str = self._answer()
        """A Node's version; a browser's page's origin."""

    def __enter__(self) -> Device:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(END_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._listener.join()
        self._process.stdout.close()

    def ask(self, command: str, **arguments: Any) -> Any:
        """Let the client do something; its answer.

        :raises DeviceError: it failed, or takes too long.
        """
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which its missing answer tells
            self._process.stdin.write(json.dumps({"command": command, "args": arguments}) + "\n")
            self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        try:
            line = self._answers.get(timeout=ANSWER_TIMEOUT_S)
        except queue.Empty:
            line = ""
        answer = json.loads(line) if line else {"error": "no answer"}
        if "error" in answer:
            raise DeviceError(f"{answer['error']}\n{self._log.read_text()}")
        return answer["ok"]

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")


class DeviceDatabase:
    """The client's database; the same questions as site.RemoteDatabase answers."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def put(self, doc: dict[str, Any]) -> str:
        """The new revision."""
        return str(self.device.ask("put", doc=doc))

    def bulk(self, docs: list[dict[str, Any]], *, new_edits: bool = True) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.device.ask("bulk", docs=docs, options={"new_edits": new_edits})
        return answer

    def edit(self, doc_id: str, **fields: Any) -> str:
        """Change fields of the winner, keeping its attachments; the new revision."""
        return str(self.device.ask("edit", id=doc_id, fields=fields))

    def attach(self, doc_id: str, **attachments: tuple[str, bytes]) -> str:
        """Add attachments to the winner or to a new document, each a type and its bytes."""
        stubs = {
            name: {"content_type": kind, "data": base64.b64encode(content).decode()}
            for name, (kind, content) in attachments.items()
        }
        return str(self.device.ask("attach", id=doc_id, attachments=stubs))

    def remove(self, doc_id: str) -> str:
        return str(self.device.ask("remove", id=doc_id))

    def get(self, doc_id: str) -> dict[str, Any]:
        doc: dict[str, Any] = self.device.ask("get", id=doc_id)
        return doc

    def revisions(self) -> dict[str, list[str]]:
        """The leaf revisions of every document, deleted ones too."""
        revisions: dict[str, list[str]] = self.device.ask("revisions")
        return revisions

    def leaves(self) -> dict[str, Any]:
        """Every document with its leaves: see device.mjs."""
        documents: dict[str, Any] = self.device.ask("leaves")
        return documents
