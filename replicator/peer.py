"""What a replication asks of its source and of its target: a small protocol, spoken with a database that is
opened in-process (local_peer.py) and with a remote server (http_peer.py).

What must stay true here: documents are passed on as they came, in JSON; an attachment is never whole in
memory; and whatever a target will not take is told as a Refusal with its reason, never left out in silence.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from couchlite.jsontext import dumps, loads
from couchlite.multipart import AttachmentPart

Seq = Any
"""An update sequence: text, as a rule; a number or a list with some servers. Opaque."""


class PeerInfo(NamedTuple):
    """What a database tells of itself."""

    update_seq: Seq
    instance_start_time: str


class Change(NamedTuple):
    """A document that changed, with its leaves (or its winner only, if those were asked for)."""

    seq: Seq
    id: str
    revs: Sequence[str]


class ChangesPage(NamedTuple):
    """Some changes, in order. What was before `last_seq` has been told; it may be beyond the last change."""

    changes: Sequence[Change]
    last_seq: Seq


@dataclass(frozen=True, slots=True)
class ChangesQuery:
    """Which changes a replication wants. At most one of `doc_ids`, `selector` and `filter` is given."""

    continuous: bool = False
    winners_only: bool = False
    doc_ids: tuple[str, ...] | None = None
    selector: Mapping[str, Any] | None = None
    filter: str | None = None
    query_params: Mapping[str, Any] | None = None


class Missing(NamedTuple):
    """Revisions of a document that a target doesn't have, and those it has that may be their ancestors."""

    id: str
    revs: Sequence[str]
    ancestors: Sequence[str] = ()


class Doc:
    """A revision with its history, on its way. Kept as JSON text or as a value, whichever it came as."""

    __slots__ = ("_text", "_value", "id", "rev")

    def __init__(self, doc_id: str, rev: str, *, text: bytes | None = None, value: Any = None) -> None:
        self.id = doc_id
        self.rev = rev
        self._text = text
        self._value = value

    @property
    def text(self) -> bytes:
        if self._text is None:
            self._text = dumps(self._value)
        return self._text

    @property
    def value(self) -> dict[str, Any]:
        if self._value is None:
            self._value = loads(self._text or b"null")
        value: dict[str, Any] = self._value
        return value


class StreamedDoc(NamedTuple):
    """A revision whose attachments follow: `bodies` gives them in the order of `parts`, each of which must be
    read to its end before the next. It is valid until the next document is asked for."""

    doc: Doc
    parts: Sequence[AttachmentPart]
    bodies: AsyncIterator[AsyncIterator[bytes]]


class Batch(NamedTuple):
    """What one request for many documents brought."""

    docs: Sequence[Doc]
    single: Sequence[Missing] = ()
    """To be asked for one by one: they have attachments, or there was an error with them."""
    left: Sequence[Missing] = ()
    """Not dealt with yet: it would have been too much at once."""


class Refusal(NamedTuple):
    """A revision that was not written, and why."""

    id: str
    rev: str
    error: str
    reason: str


class Peer(Protocol):
    """One database. Every method may raise ReplicationError."""

    @property
    def name(self) -> str:
        """How it is called in answers and logs: its URL, without credentials."""
        ...

    @property
    def batch_docs_max(self) -> int:
        """How many documents to ask for or to send at once, as things are."""
        ...

    async def open(self, *, create: bool = False, create_params: Mapping[str, Any] | None = None) -> PeerInfo:
        """Make sure that it is there; with `create` it is made if it is not.

        :raises EndpointRefused:
        """
        ...

    def changes(self, since: Seq, query: ChangesQuery) -> AsyncGenerator[ChangesPage]:
        """The changes after `since`: up to the newest of now, or for ever if `continuous`."""
        ...

    async def count_pending(self, since: Seq) -> int | None:
        """How many changes there are after `since`; None when that can't be told."""
        ...

    async def revs_diff(self, changes: Sequence[Change]) -> list[Missing]:
        """What of the changes is not here."""
        ...

    async def bulk_get(self, wanted: Sequence[Missing]) -> Batch:
        """The revisions wanted, or the leaves they have become; those with attachments are left to
        `open_revs`."""
        ...

    def open_revs(self, wanted: Missing) -> AbstractAsyncContextManager[AsyncIterator[StreamedDoc | Refusal]]:
        """The revisions of one document, with the attachments that are newer than those of its ancestors; a
        Refusal for each that isn't there."""
        ...

    async def bulk_docs(self, docs: Sequence[Doc]) -> list[Refusal]:
        """Graft revisions without attachments."""
        ...

    async def put(self, streamed: StreamedDoc) -> Refusal | None:
        """Graft one revision with its attachments.

        :raises MissingStub: it has stubs of attachments that aren't here.
        """
        ...

    async def lacking_bases(self, ids: Sequence[str]) -> list[Missing]:
        """Which of these documents are in conflict here and can't be merged for want of the body of what the
        leaves come from, and which revisions that are. Nothing where the server doesn't know of such."""
        ...

    async def read_bases(self, wanted: Sequence[Missing]) -> list[Doc]:
        """These very revisions, without the data of attachments, as far as their bodies are here."""
        ...

    async def store_bases(self, docs: Sequence[Doc]) -> None:
        """Take over bodies that `lacking_bases` told of."""
        ...

    async def read_doc(self, doc_id: str) -> dict[str, Any] | None:
        """The winner of a document, design or local; None when it isn't there."""
        ...

    async def write_local(self, doc_id: str, value: dict[str, Any]) -> str:
        """Store a local document on top of its `_rev`; its new revision. :raises Conflict:"""
        ...

    async def commit(self) -> str:
        """All that was written is on disk; the instance_start_time."""
        ...

    async def close(self) -> None: ...
