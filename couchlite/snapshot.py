"""One consistent look at a database. Opened with `with database.snapshot() as snapshot:`, never held across
an await."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager

from . import (
    base_bodies,
    changes,
    conflicts,
    doc_texts,
    listing,
    local_docs,
    proposals,
    reads,
    records,
    resolution_log,
    resolutions,
    seq_counts,
)
from .blobs import BlobSource, BlobStore
from .changes import ChangeRow
from .compression import BodyCodec
from .conflicts import ConflictPage, Inspection
from .counts import Counts
from .document import Edit, Revision
from .engine import Reader, Space
from .errors import CouchliteError, NotFound
from .listing import DocPage, DocRow
from .local_docs import LocalDoc
from .proposals import Sides
from .reads import Document, MissingRev, RevsDiff
from .records import AttachmentInfo, State
from .resolution_log import Resolution
from .resolutions import Plan
from .revision import Rev
from .revtree import Node


class Snapshot:
    """Reads of a database; all of them see the same state."""

    __slots__ = ("_blobs", "_codec", "_context", "_counts", "_latest", "reader")

    def __init__(
        self, context: AbstractContextManager[Reader], codec: BodyCodec, blobs: BlobStore, counts: Counts
    ) -> None:
        self._context = context
        self._codec = codec
        self._blobs = blobs
        self._counts = counts
        self._latest: Document | None = None

    def __enter__(self) -> Snapshot:
        self.reader: Reader = self._context.__enter__()
        return self

    def __exit__(self, *exc: object) -> None:
        self._context.__exit__(None, None, None)

    def state(self) -> State:
        """The counters: update sequence, document counts, limits."""
        return State.decode(self.reader.get(Space.META, records.STATE_KEY))

    def winner(self, doc_id: str) -> Revision:
        """The winning revision, without its path. :raises NotFound: "missing" or "deleted"."""
        self._counts["database_reads"] += 1
        return reads.winner(self.reader, self._codec, doc_id)

    def document(self, doc_id: str) -> Document | None:
        """A document with its whole history; None when nothing was ever known of it. Not to be changed."""
        # The latest one is kept: a thousand edits of one document need its thousand branches once.
        if self._latest is None or self._latest.id != doc_id:
            self._latest = reads.document(self.reader, doc_id)
        return self._latest

    def revision(self, document: Document, node: Node) -> Revision:
        """A revision with its path. :raises NotFound: its body is gone."""
        self._counts["database_reads"] += 1
        found = document.revision(self.reader, self._codec, node)
        if isinstance(found, MissingRev):
            raise NotFound("missing")
        return found

    def open_revs(
        self,
        document: Document | None,
        revs: Sequence[Rev] | None,
        *,
        latest: bool = False,
        merge_bases: bool = False,
    ) -> list[Revision | MissingRev]:
        """See reads.open_revs."""
        self._counts["database_reads"] += 1
        return reads.open_revs(
            self.reader, self._codec, document, revs, latest=latest, merge_bases=merge_bases
        )

    def revs_diff(self, doc_id: str, revs: Sequence[Rev]) -> RevsDiff | None:
        return reads.revs_diff(self.reader, doc_id, revs)

    def revs_diffs(
        self, wanted: Mapping[str, Sequence[str]]
    ) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
        """See reads.revs_diffs."""
        return reads.revs_diffs(self.reader, wanted)

    def leaf_texts(
        self, ids: Sequence[bytes], revs: Sequence[bytes | None], *, with_path: bool
    ) -> list[bytes | None]:
        """See doc_texts.leaf_texts."""
        texts = doc_texts.leaf_texts(self.reader, self._codec, ids, revs, with_path=with_path)
        self._counts["database_reads"] += len(texts)
        return texts

    def body(self, number: int) -> tuple[bytes, tuple[AttachmentInfo, ...]]:
        """A body by its number, as listings and feeds name it: its JSON text and its attachments."""
        self._counts["database_reads"] += 1
        frame = self.reader.get(Space.BODIES, records.u64(number))
        if frame is None:
            raise NotFound("missing")
        codec, data, attachments = records.decode_body(frame)
        return self._codec.decode(codec, data), attachments

    def plain_bodies(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """See doc_texts.plain_bodies."""
        bodies = doc_texts.plain_bodies(self.reader, self._codec, keys)
        self._counts["database_reads"] += len(bodies)
        return bodies

    def docs(
        self,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int = listing.PAGE_ROWS,
    ) -> DocPage:
        """A page of documents by id; see listing.page."""
        return listing.page(self.reader, start, stop, reverse=reverse, limit=limit)

    def doc_row(self, doc_id: str) -> DocRow | None:
        return listing.find(self.reader, doc_id)

    def doc_records(self, ids: Sequence[bytes]) -> list[bytes | None]:
        """The records of documents, deleted or not; None for each of which no revision was ever seen."""
        return reads.records_of(self.reader, ids)

    def count_docs_before(self, doc_id: bytes) -> int:
        """How many documents that are not deleted have smaller ids."""
        return listing.rank(self.reader, doc_id)

    def doc_after(self, count: int) -> bytes | None:
        """The id of the document that comes after `count` others; None when there are not so many."""
        return listing.find_rank(self.reader, count)

    def changes(
        self,
        since: int,
        *,
        until: int | None = None,
        limit: int = changes.PAGE_ROWS,
        reverse: bool = False,
    ) -> list[ChangeRow]:
        """A page of the sequence index; see changes.page."""
        return changes.rows(changes.page(self.reader, since, until=until, limit=limit, reverse=reverse))

    def count_changes(self, since: int) -> int:
        """How many changes come after a sequence."""
        return seq_counts.count_after(self.reader, since)

    def local(self, doc_id: str) -> LocalDoc:
        """:raises NotFound:"""
        return local_docs.get(self.reader, doc_id)

    def local_docs(
        self, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False, limit: int = 1000
    ) -> list[LocalDoc]:
        return local_docs.page(self.reader, start, stop, reverse=reverse, limit=limit)

    # conflicts

    def conflicts(
        self,
        start: bytes = b"",
        stop: bytes | None = None,
        *,
        reverse: bool = False,
        limit: int = conflicts.PAGE_ROWS,
    ) -> ConflictPage:
        """A page of the documents in conflict; see conflicts.page."""
        return conflicts.page(self.reader, start, stop, reverse=reverse, limit=limit)

    def inspect(self, doc_id: str) -> Inspection:
        """A document's tree for merging. :raises NotFound:"""
        return conflicts.inspect(self.reader, doc_id)

    def kept_revision(self, document: Document, node: Node) -> Revision | None:
        """A revision whose body is here, be it for merging only; None when it is gone."""
        return conflicts.revision(self.reader, self._codec, document, node)

    def lacking_bases(self, ids: Sequence[str]) -> dict[str, list[Rev]]:
        """Whose bodies are lacking to merge these documents; see base_bodies.lacking."""
        return base_bodies.lacking(self.reader, ids)

    def sides(self, doc_id: str, chosen: Sequence[Rev] = ()) -> Sides:
        """What a three-way merge of a document's leaves takes; see proposals.sides."""
        return proposals.sides(self.reader, self._codec, doc_id, chosen)

    def plan_resolution(
        self,
        doc_id: str,
        seen: Sequence[Rev],
        content: Edit | Rev | None,
        *,
        chosen: Sequence[Rev] = (),
        using: str = "document",
        by: str | None = None,
    ) -> Plan:
        """See resolutions.plan."""
        return resolutions.plan(
            self.reader, self._codec, doc_id, seen, content, chosen=chosen, using=using, by=by
        )

    def plan_undo(self, number: int, *, by: str | None = None) -> Plan:
        """See resolutions.plan_undo."""
        return resolutions.plan_undo(self.reader, self._codec, number, by=by)

    def resolutions(
        self,
        *,
        doc_id: str | None = None,
        before: int | None = None,
        limit: int = resolution_log.PAGE_RECORDS,
    ) -> list[Resolution]:
        """A page of the record of resolutions, newest first; see resolution_log.page."""
        return resolution_log.page(self.reader, doc_id=doc_id, before=before, limit=limit)

    def undo_obstacle(self, entry: Resolution) -> CouchliteError | None:
        """Why a resolution can't be undone; None when it can."""
        return resolutions.obstacle(self.reader, entry)

    # the rest

    def blob(self, info: AttachmentInfo) -> BlobSource:
        """An attachment's bytes as stored; it stays readable after the snapshot."""
        return self._blobs.open(self.reader, info.key)
