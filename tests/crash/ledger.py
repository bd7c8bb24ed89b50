"""What a server has acknowledged, what it may have taken without saying so, and whether that is what it has.

What must stay true here: whoever writes a document is the only one to do so, and leaves a doubtful one alone
until it has been looked at.
"""

from __future__ import annotations

import base64
import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple
from urllib.parse import quote

from .client import Client


class Key(NamedTuple):
    """A document; with a `rev`, one leaf of it."""

    doc_id: str
    rev: str | None = None

    @property
    def path(self) -> str:
        return "/a/" + quote(self.doc_id, safe="/_-")


@dataclass(frozen=True)
class Version:
    """What a document holds; of attachments, the digests. Its revision comes with the acknowledgement."""

    fields: dict[str, Any] = field(default_factory=dict)
    attachments: dict[str, str] = field(default_factory=dict)
    deleted: bool = False
    rev: str | None = None

    def holds_what(self, other: Version) -> bool:
        return replace(self, rev=None) == replace(other, rev=None) and self.rev in (None, other.rev)


Versions = Mapping[Key, Version]


class Ledger:
    """Filled by many threads; looked through while they rest."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[Key, Version] = {}
        self._batches_in_doubt: list[Versions] = []
        self._unchecked: set[Key] = set()
        self.acknowledged = 0

    def acknowledge(self, versions: Versions) -> None:
        with self._lock:
            self._known.update(versions)
            self._unchecked.update(versions)
            self.acknowledged += len(versions)

    def doubt(self, versions: Versions) -> None:
        """They were sent together, and no answer came."""
        with self._lock:
            self._batches_in_doubt.append(versions)

    def known(self, key: Key) -> Version | None:
        """None: it was never written."""
        return self._known.get(key)

    def is_doubtful(self, key: Key) -> bool:
        with self._lock:
            return any(key in batch for batch in self._batches_in_doubt)

    def settle(self, client: Client) -> None:
        """See what became of every doubtful batch: all of it was taken, or nothing."""
        for batch in self._batches_in_doubt:
            found = {key: fetch(client, key, self._known.get(key)) for key in batch}
            taken = {key: batch[key].holds_what(now) for key, now in found.items() if now is not None}
            if any(taken.values()):
                assert len(taken) == len(batch) and all(taken.values()), f"half a batch is there: {taken}"
                self._known.update({key: now for key, now in found.items() if now is not None})
            else:
                self._unchecked.update(key for key in batch if key in self._known)
        self._batches_in_doubt.clear()

    def check(self, client: Client, *, everything: bool = False) -> None:
        """Nothing acknowledged is missing or different."""
        for key in sorted(self._known if everything else self._unchecked, key=str):
            expected = self._known[key]
            found = fetch(client, key, expected)
            assert found is not None and expected.holds_what(found), f"{key}: {expected} became {found}"
        self._unchecked.clear()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(client: Client, key: Key, expected: Version | None) -> Version | None:
    """What the server has of a document; of a deleted one, the tombstone that is expected."""
    query = "?attachments=true" + (f"&rev={key.rev}" if key.rev else "")
    answer = client.ask("GET", key.path + query, headers={"Accept": "application/json"})
    if answer.status == 404 and expected is not None and expected.deleted and expected.rev:
        answer = client.ask("GET", f"{key.path}?rev={expected.rev}")
    if answer.status == 404:
        return Version(deleted=True) if answer.json["reason"] == "deleted" else None
    assert answer.status == 200, (key, answer)
    doc = answer.json
    return Version(
        fields={name: value for name, value in doc.items() if not name.startswith("_")},
        attachments={
            name: digest(base64.b64decode(stored["data"]))
            for name, stored in doc.get("_attachments", {}).items()
        },
        deleted=doc.get("_deleted", False),
        rev=doc["_rev"],
    )
