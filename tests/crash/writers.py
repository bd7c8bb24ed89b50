"""Threads that write to a server in every way there is, and note in a ledger what was acknowledged."""

from __future__ import annotations

import base64
import json
import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from .client import Answer, Client, Lost, Unreachable
from .ledger import Key, Ledger, Version, Versions, digest

RETRY_S = 0.03
OWN_DOCUMENTS = 30
"""How many documents a writer has: few enough for each to be written often."""


class Crew:
    """The writers of a server: they work, or all rest."""

    def __init__(self, port: int, ledger: Ledger) -> None:
        self.port = port
        self.ledger = ledger
        self.failures: list[str] = []
        self.may_work = threading.Event()
        self.over = False
        kinds = (
            Singles,
            Batches,
            Inline,
            Streams,
            Multipart,
            Locals,
            Grafts,
            Resolutions,
            Databases,
            Compactions,
        )
        self._writers = [kind(self, number) for number, kind in enumerate(kinds)]

    def __enter__(self) -> Crew:
        for writer in self._writers:
            writer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over = True
        self.may_work.set()
        for writer in self._writers:
            writer.join()

    def work(self) -> None:
        self.may_work.set()

    def rest(self) -> None:
        """Returns when all of them do."""
        self.may_work.clear()
        for writer in self._writers:
            writer.at_rest.wait()
        assert not self.failures, self.failures

    def check(self, client: Client) -> None:
        """Called while all of them rest."""
        for writer in self._writers:
            writer.check(client)


class Writer(threading.Thread):
    """Does one thing, `step`, over and over."""

    def __init__(self, crew: Crew, seed: int) -> None:
        super().__init__(name=type(self).__name__)
        self.crew = crew
        self.ledger = crew.ledger
        self.chance = random.Random(seed)
        self.client = Client(crew.port)
        self.at_rest = threading.Event()
        self.number = 0

    def run(self) -> None:
        while not self.crew.over:
            if not self.crew.may_work.is_set():
                self.at_rest.set()
                self.crew.may_work.wait()
                self.at_rest.clear()
                continue
            self.number += 1
            try:
                self.step()
            except Unreachable:
                time.sleep(RETRY_S)
            except Lost:
                pass
            except Exception as error:
                self.crew.failures.append(f"{self.name}: {error!r}")
        self.at_rest.set()
        self.client.close()

    def step(self) -> None:
        raise NotImplementedError

    def check(self, client: Client) -> None:
        """Look at what is not in the ledger."""

    def pick(self, kind: str = "") -> Key | None:
        """One of the writer's documents; None when it is not known what it holds."""
        key = Key(f"{kind}{self.name}-{self.chance.randrange(OWN_DOCUMENTS)}")
        return None if self.ledger.is_doubtful(key) else key

    def send(
        self,
        versions: Versions,
        method: str,
        path: str,
        body: Any = None,
        *,
        revs: Callable[[Answer], Mapping[Key, str]],
        **options: Any,
    ) -> None:
        """Write; `revs` reads the acknowledged revisions from the answer."""
        try:
            answer = self.client.ask(method, path, body, **options)
        except (Lost, TimeoutError):
            self.ledger.doubt(versions)
            raise
        assert answer.status in (200, 201), (method, path, answer)
        acknowledged = revs(answer)
        self.ledger.acknowledge(
            {
                key: Version(version.fields, version.attachments, version.deleted, acknowledged[key])
                for key, version in versions.items()
            }
        )

    def put(self, key: Key, version: Version, doc: dict[str, Any]) -> None:
        known = self.ledger.known(key)
        if known is not None and not known.deleted:
            doc["_rev"] = known.rev
        self.send({key: version}, "PUT", key.path, doc, revs=lambda answer: {key: answer.json["rev"]})

    def noise(self, length: int) -> bytes:
        return self.chance.randbytes(length)


class Singles(Writer):
    """One document at a time: created, changed, deleted, made again."""

    def step(self) -> None:
        key = self.pick()
        if key is None:
            return
        known = self.ledger.known(key)
        if known is not None and not known.deleted and self.chance.random() < 0.2:
            target = f"{key.path}?rev={known.rev}"
            gone = Version(deleted=True)
            self.send({key: gone}, "DELETE", target, revs=lambda answer: {key: answer.json["rev"]})
        else:
            fields = {"n": self.number, "pad": "x" * self.chance.randrange(3000)}
            self.put(key, Version(fields), dict(fields))


class Batches(Writer):
    """Batches of new documents, and of changes to all documents of an earlier batch."""

    def step(self) -> None:
        batch = self.chance.randrange(8)
        keys = [Key(f"batch-{batch}-{number}") for number in range(25)]
        if self.ledger.is_doubtful(keys[0]):
            return
        versions = {key: Version({"n": self.number, "of": batch}) for key in keys}
        docs = []
        for key, version in versions.items():
            known = self.ledger.known(key)
            rev = {} if known is None else {"_rev": known.rev}
            docs.append({"_id": key.doc_id, **rev, **version.fields})
        self.send(versions, "POST", "/a/_bulk_docs", {"docs": docs}, revs=_revs_of_rows)


def _revs_of_rows(answer: Answer) -> dict[Key, str]:
    return {Key(row["id"]): row["rev"] for row in answer.json}


class Inline(Writer):
    """Documents with attachments in their JSON: small, large and compressible ones."""

    def step(self) -> None:
        key = self.pick()
        if key is None:
            return
        attachments = {
            "small": self.noise(self.chance.randrange(200)),
            "large": self.noise(20_000 + self.chance.randrange(60_000)),
            "text": b"%d, " % self.number * self.chance.randrange(20_000),
        }
        doc: dict[str, Any] = {"n": self.number}
        doc["_attachments"] = {
            name: {
                "content_type": "text/plain" if name == "text" else "application/octet-stream",
                "data": base64.b64encode(data).decode(),
            }
            for name, data in attachments.items()
        }
        digests = {name: digest(data) for name, data in attachments.items()}
        self.put(key, Version({"n": self.number}, digests), doc)


class Streams(Writer):
    """Attachments of their own requests, in chunks that take their time."""

    def step(self) -> None:
        key = self.pick()
        if key is None:
            return
        known = self.ledger.known(key) or Version()
        pieces = [self.noise(self.chance.randrange(1, 80_000)) for _ in range(self.chance.randrange(1, 12))]
        name = f"part{self.chance.randrange(2)}"
        attachments = {**known.attachments, name: digest(b"".join(pieces))}
        query = "" if known.rev is None else f"?rev={known.rev}"
        self.send(
            {key: Version(known.fields, attachments)},
            "PUT",
            f"{key.path}/{name}{query}",
            revs=lambda answer: {key: answer.json["rev"]},
            headers={"Content-Type": "application/octet-stream"},
            pieces=_slowly(pieces),
        )


class Multipart(Writer):
    """Documents whose attachments follow them in the same request, as replicators send them."""

    def step(self) -> None:
        key = self.pick()
        if key is None:
            return
        files = {"short": self.noise(100), "long": self.noise(200_000)}
        stubs = {
            name: {"follows": True, "content_type": "application/octet-stream", "length": len(data)}
            for name, data in files.items()
        }
        known = self.ledger.known(key)
        rev = {} if known is None else {"_rev": known.rev}
        doc = json.dumps({"n": self.number, "_attachments": stubs, **rev}).encode()
        parts = [b"--cut\r\nContent-Type: application/json\r\n\r\n" + doc, *files.values()]
        pieces = [b"\r\n--cut\r\n\r\n".join(parts), b"\r\n--cut--"]
        self.send(
            {key: Version({"n": self.number}, {name: digest(data) for name, data in files.items()})},
            "PUT",
            key.path,
            revs=lambda answer: {key: answer.json["rev"]},
            headers={"Content-Type": 'multipart/related; boundary="cut"'},
            pieces=_slowly(pieces),
        )


def _slowly(pieces: list[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        time.sleep(0.005)


class Locals(Writer):
    """Local documents, as replication checkpoints are."""

    def step(self) -> None:
        key = self.pick("_local/")
        if key is not None:
            fields = {"n": self.number}
            self.put(key, Version(fields), dict(fields))


class Grafts(Writer):
    """Replicated revisions: batches of documents with two conflicting leaves each."""

    def step(self) -> None:
        versions = {}
        revs = {}
        docs = []
        for doc_number in range(10):
            doc_id = f"graft-{self.number}-{doc_number}"
            root = f"{self.chance.getrandbits(128):032x}"
            for leaf_number in range(2):
                leaf = f"{self.chance.getrandbits(128):032x}"
                rev = f"2-{leaf}"
                key = Key(doc_id, rev)
                versions[key] = Version({"leaf": leaf_number}, rev=rev)
                revs[key] = rev
                revisions = {"start": 2, "ids": [leaf, root]}
                docs.append({"_id": doc_id, "_revisions": revisions, "_rev": rev, "leaf": leaf_number})
        body = {"docs": docs, "new_edits": False}
        self.send(versions, "POST", "/a/_bulk_docs", body, revs=lambda _: revs)
        time.sleep(0.05)


class Resolutions(Writer):
    """Conflicts, resolved in one write each."""

    def __init__(self, crew: Crew, seed: int) -> None:
        super().__init__(crew, seed)
        self.merged: dict[str, str | None] = {}
        """The merged revisions; None: it is in doubt whether there is one."""

    def step(self) -> None:
        assert self.client.ask("PUT", "/r").status in (201, 412)
        doc_id = f"resolved-{self.number}"
        root, *leaves = (f"{self.chance.getrandbits(128):032x}" for _ in range(4))
        docs = [{"_id": doc_id, "_revisions": {"start": 2, "ids": [leaf, root]}} for leaf in leaves]
        self.merged[doc_id] = None
        answer = self.client.ask("POST", "/r/_bulk_docs", {"docs": docs, "new_edits": False})
        assert answer.status == 201, answer
        body = {"leaves": [f"2-{leaf}" for leaf in leaves], "document": {"n": self.number}}
        answer = self.client.ask("POST", f"/r/_conflicts/{doc_id}", body)
        assert answer.status == 201, answer
        self.merged[doc_id] = answer.json["rev"]
        time.sleep(0.05)

    def check(self, client: Client) -> None:
        """Each is resolved and recorded, or neither."""
        for doc_id, acknowledged in self.merged.items():
            found = client.ask("GET", f"/r/_conflicts/{doc_id}")
            if acknowledged is None and found.status == 404:
                continue
            leaves = [leaf["rev"] for leaf in found.json["leaves"]]
            record = client.ask("GET", f"/r/_conflicts/{doc_id}/_resolutions")
            recorded = [row["rev"] for row in record.json["rows"]]
            assert leaves == recorded or (len(leaves) == 3 and not recorded), (doc_id, leaves, recorded)
            assert acknowledged is None or leaves == [acknowledged], (doc_id, leaves)


class Databases(Writer):
    """Databases made and deleted."""

    exists: dict[str, bool | None]
    """None: in doubt."""

    def __init__(self, crew: Crew, seed: int) -> None:
        super().__init__(crew, seed)
        self.exists = {f"other{number}": False for number in range(5)}

    def step(self) -> None:
        name = self.chance.choice(list(self.exists))
        was_there = self.exists[name]
        if was_there is None:
            return
        try:
            answer = self.client.ask("DELETE" if was_there else "PUT", f"/{name}")
        except Lost:
            self.exists[name] = None
            raise
        assert answer.status in (200, 201), answer
        self.exists[name] = not was_there
        time.sleep(0.05)

    def check(self, client: Client) -> None:
        listed = client.ask("GET", "/_all_dbs").json
        for name, expected in self.exists.items():
            found = client.ask("GET", f"/{name}/_all_docs").status == 200
            assert found == (name in listed)
            assert expected in (None, found), (name, expected)
            self.exists[name] = found


class Compactions(Writer):
    """Compactions, one after the other."""

    def step(self) -> None:
        answer = self.client.ask("POST", "/a/_compact")
        assert answer.status == 202, answer
        time.sleep(0.2 * self.chance.random())
