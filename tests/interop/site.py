"""A couchlite server in a process of its own, at one address for the whole test, that can be killed and
started again, and what a test asks of its databases.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..shell import running

USER, PASSWORD = "adm", "pass"


class Site:
    """The server of the data directory `directory`/data."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.port = _free_port()
        self._start()

    def _start(self) -> None:
        self._process, log = running.start(self._directory, "--port", str(self.port), "--workers", "2")
        try:
            self._served = running.Served(self._process, log)
        except BaseException:
            running.kill(self._process)
            raise

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def kill(self) -> None:
        """kill -9 of the supervisor and of all its workers at once."""
        running.kill(self._process)

    def stop(self) -> None:
        """Ask it to end, and wait for that."""
        assert self._served.stop() == 0

    def processes(self) -> set[int]:
        """The processes that the supervisor has started."""
        return set(self._served.workers())

    def start_again(self) -> None:
        self._start()

    def request(self, method: str, path: str, body: Any = None) -> running.Answer:
        return self._served.request(method, path, body, user=(USER, PASSWORD))

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of an answer that has to be a success."""
        answer = self.request(method, path, body)
        assert answer.status < 300, (method, path, answer)
        return answer.json

    def configure(self, **sections: dict[str, str]) -> None:
        """Change the running server's configuration, as its users do."""
        for section, settings in sections.items():
            for key, text in settings.items():
                self.ask("PUT", f"/_node/_local/_config/{section}/{key}", text)


class RemoteDatabase:
    """A database of a site, as its users see it over HTTP."""

    def __init__(self, site: Site, name: str) -> None:
        self.site = site
        self.name = name
        site.ask("PUT", f"/{name}")

    def put(self, doc: dict[str, Any]) -> str:
        """The new revision."""
        return str(self.site.ask("PUT", self._path(doc["_id"]), doc)["rev"])

    def bulk(self, docs: list[dict[str, Any]], *, new_edits: bool = True) -> list[dict[str, Any]]:
        answer: list[dict[str, Any]] = self.site.ask(
            "POST", f"/{self.name}/_bulk_docs", {"docs": docs, "new_edits": new_edits}
        )
        return answer

    def edit(self, doc_id: str, **fields: Any) -> str:
        """Change fields of the winner, keeping its attachments; the new revision."""
        return self.put(self.get(doc_id) | fields)

    def attach(self, doc_id: str, **attachments: tuple[str, bytes]) -> str:
        """Add attachments to the winner or to a new document, each a type and its bytes."""
        found = self.site.request("GET", self._path(doc_id))
        doc: dict[str, Any] = found.json if found.status == 200 else {"_id": doc_id}
        stubs = doc.setdefault("_attachments", {})
        for name, (kind, content) in attachments.items():
            stubs[name] = {"content_type": kind, "data": base64.b64encode(content).decode()}
        return self.put(doc)

    def remove(self, doc_id: str) -> str:
        rev = self.get(doc_id)["_rev"]
        return str(self.site.ask("DELETE", f"{self._path(doc_id)}?rev={rev}")["rev"])

    def get(self, doc_id: str) -> dict[str, Any]:
        doc: dict[str, Any] = self.site.ask("GET", self._path(doc_id))
        return doc

    def missing(self, revisions: dict[str, list[str]]) -> dict[str, Any]:
        """Which of the revisions it does not know."""
        answer: dict[str, Any] = self.site.ask("POST", f"/{self.name}/_revs_diff", revisions)
        return answer

    def revisions(self) -> dict[str, list[str]]:
        """The leaf revisions of every document, deleted ones too."""
        rows = self.site.ask("GET", f"/{self.name}/_changes?style=all_docs")["results"]
        return {row["id"]: sorted(change["rev"] for change in row["changes"]) for row in rows}

    def leaves(self) -> dict[str, Any]:
        """Every document with its leaves, in the form of device.mjs."""
        return {doc_id: self._document(doc_id) for doc_id in self.revisions()}

    def _document(self, doc_id: str) -> dict[str, Any]:
        path = self._path(doc_id)
        winner = self.site.request("GET", path)
        leaves = {}
        for found in self.site.ask("GET", f"{path}?open_revs=all&revs=true"):
            doc = found["ok"]
            doc.pop("_id")
            rev = doc.pop("_rev")
            history = doc.pop("_revisions")["ids"]
            attachments = {
                name: {
                    "type": stub["content_type"],
                    "length": stub["length"],
                    "sha256": self._sha256(f"{path}/{quote(name, safe='')}?rev={rev}"),
                }
                for name, stub in doc.pop("_attachments", {}).items()
            }
            leaves[rev] = {"doc": doc, "history": history, "attachments": attachments}
        return {"winner": winner.json["_rev"] if winner.status == 200 else None, "leaves": leaves}

    def _sha256(self, path: str) -> str:
        answer = self.site.request("GET", path)
        assert answer.status == 200, (path, answer)
        return hashlib.sha256(answer.body).hexdigest()

    def _path(self, doc_id: str) -> str:
        return f"/{self.name}/{quote(doc_id, safe='/' if doc_id.startswith('_design/') else '')}"


@contextlib.contextmanager
def site(directory: Path) -> Iterator[Site]:
    """A running site; whatever is left of it at the end is killed."""
    running_site = Site(directory)
    try:
        yield running_site
    finally:
        running_site.kill()


def _free_port() -> int:
    """A port below those that the kernel gives to clients: one of them might take a server's while it is
    dead."""
    for port in random.sample(range(20_000, 30_000), 100):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise OSError("no free port")
