"""A database of this very data directory as a peer: opened in-process, with the rights of somebody.

What must stay true here: whoever replicates into or out of a database may do no more than over HTTP. So the
security object is asked when the database is opened, and what is written passes the same checks: limits,
rights, validation functions.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from couchlite import base_bodies, document, jsontext, multipart, partitions, validation
from couchlite.changes_feed import ChangesFeed, FeedOptions, Page
from couchlite.changes_filters import (
    DesignDocs,
    DocIds,
    Filter,
    FunctionFilter,
    SelectorFilter,
    ViewFilter,
)
from couchlite.database import Database
from couchlite.document import Edit, Revision
from couchlite.errors import (
    CouchliteError,
    DatabaseExists,
    Forbidden,
    IllegalDocumentId,
    MissingStub,
    NotFound,
    TooLarge,
    Unauthorized,
)
from couchlite.javascript import Design, FunctionPool
from couchlite.reads import MissingRev
from couchlite.revision import Rev
from couchlite.security import Principal, check_member, check_server_admin
from couchlite.server import Server
from couchlite.upload import Encoding

from . import wire
from .errors import EndpointRefused, PeerFailure
from .peer import (
    Batch,
    Change,
    ChangesPage,
    ChangesQuery,
    Doc,
    Missing,
    PeerInfo,
    Refusal,
    Seq,
    StreamedDoc,
)

BATCH_DOCS_MAX = 500
LOOK_UP_S = 60.0
"""A continuous feed without news looks this often whether its database is still there."""


class _Limits(NamedTuple):
    """What a document may be; None: there is no limit."""

    document_bytes: int
    attachment_bytes: int | None
    id_bytes: int | None
    partitioned: bool


class LocalPeer:
    """The database called `database_name`, as `principal` may use it."""

    def __init__(
        self, server: Server, functions: FunctionPool, database_name: str, principal: Principal, name: str
    ) -> None:
        self.name = name
        self._server = server
        self._functions = functions
        self._database_name = database_name
        self._principal = principal
        self._opened: Database | None = None

    @property
    def batch_docs_max(self) -> int:
        return BATCH_DOCS_MAX

    @property
    def _database(self) -> Database:
        database = self._opened
        if database is None or database.gone:
            raise EndpointRefused.missing(self.name)
        return database

    async def open(self, *, create: bool = False, create_params: Mapping[str, Any] | None = None) -> PeerInfo:
        try:
            if create:
                await self._create(create_params or {})
            database = self._server.open(self._database_name)
            check_member(database.security, self._principal)
        except Unauthorized as error:
            raise EndpointRefused.unauthorized(self.name) from error
        except Forbidden as error:
            raise EndpointRefused.forbidden(self.name) from error
        except CouchliteError as error:
            raise EndpointRefused.missing(self.name) from error
        self._opened = database
        return self._info(database)

    async def _create(self, params: Mapping[str, Any]) -> None:
        check_server_admin(self._principal)
        shards = params.get("q", self._server.config.integer("cluster", "q"))
        partitioned = params.get("partitioned") in (True, "true")
        with contextlib.suppress(DatabaseExists):
            await asyncio.to_thread(
                self._server.create, self._database_name, partitioned=partitioned, shards=int(shards)
            )

    def _info(self, database: Database) -> PeerInfo:
        return PeerInfo(database.format_seq(database.state().update_seq), str(int(database.created_s)))

    # reading

    async def changes(self, since: Seq, query: ChangesQuery) -> AsyncGenerator[ChangesPage]:
        database = self._database
        options = FeedOptions(all_leaves=not query.winners_only, filter=self._filter(database, query))
        feed = ChangesFeed(database, self._number(database, since), options)
        told = feed.last_seq
        while True:
            while (page := await feed.read()) is not None:
                if page.columns.seqs:
                    told = page.columns.seqs[-1]
                    yield ChangesPage(_changes(database, page), database.format_seq(told))
                await asyncio.sleep(0)  # a filter that nothing passes must leave turns to others
            if feed.last_seq != told:
                told = feed.last_seq
                yield ChangesPage((), database.format_seq(told))
            if not query.continuous:
                return
            await feed.wait(LOOK_UP_S)
            database = self._database

    def _number(self, database: Database, since: Seq) -> int:
        try:
            return database.parse_seq(str(since))
        except CouchliteError as error:
            raise PeerFailure("changes_req_failed", error.reason, code=error.status) from error

    def _filter(self, database: Database, query: ChangesQuery) -> Filter | None:
        if query.doc_ids is not None:
            most = self._server.config.integer("couchdb", "changes_doc_ids_optimization_threshold")
            return DocIds(query.doc_ids, most)
        if query.selector is not None:
            return SelectorFilter(dict(query.selector), functions=self._functions)
        if query.filter == "_design":
            return DesignDocs()
        if query.filter is None:
            return None
        arguments = wire.filter_arguments(query)
        named = arguments.get("view", "") if query.filter == "_view" else query.filter
        design_name, _, function = named.partition("/")
        try:
            design = Design(database.name, database.get(f"_design/{design_name}"))
            if query.filter == "_view":
                return ViewFilter(self._functions, design, function)
            request = jsontext.dumps(self._request_object(database, arguments))
            return FunctionFilter(self._functions, design, function, request)
        except CouchliteError as error:
            raise PeerFailure("changes_req_failed", error.reason, code=error.status) from error

    def _request_object(self, database: Database, arguments: Mapping[str, str]) -> dict[str, Any]:
        """What a filter function is given, with what there is of it where no HTTP request is."""
        return {
            "method": "GET",
            "path": [database.name, "_changes"],
            "query": arguments,
            "headers": {},
            "cookie": {},
            "form": {},
            "body": "undefined",
            "id": None,
            "userCtx": {
                "db": database.name,
                "name": self._principal.name,
                "roles": list(self._principal.roles),
            },
            "secObj": database.security,
        }

    async def count_pending(self, since: Seq) -> int | None:
        database = self._database
        with database.snapshot() as snapshot:
            return snapshot.count_changes(self._number(database, since))

    async def revs_diff(self, changes: Sequence[Change]) -> list[Missing]:
        asked: dict[str, Sequence[str]] = {}
        for change in changes:
            known = asked.get(change.id)
            asked[change.id] = change.revs if known is None else list(dict.fromkeys((*known, *change.revs)))
        with self._database.snapshot() as snapshot:
            diffs = snapshot.revs_diffs(asked)
        return [Missing(doc_id, revs, ancestors) for doc_id, (revs, ancestors) in diffs.items()]

    async def bulk_get(self, wanted: Sequence[Missing]) -> Batch:
        database = self._database
        docs: list[Doc] = []
        single: list[Missing] = []
        plain = [item for item in wanted if len(item.revs) == 1]
        with database.snapshot() as snapshot:
            texts = snapshot.leaf_texts(
                [item.id.encode() for item in plain],
                [item.revs[0].encode() for item in plain],
                with_path=True,
            )
        others = [item for item in wanted if len(item.revs) != 1]
        for item, text in zip(plain, texts, strict=False):
            if text is None:
                others.append(item)
            else:
                docs.append(Doc(item.id, item.revs[0], text=text))
        for item in others:
            found = self._open(database, item)
            if any(isinstance(result, MissingRev) or result.attachments for result in found):
                single.append(item)
            else:
                docs += [_doc(result) for result in found if isinstance(result, Revision)]
        return Batch(docs, single, plain[len(texts) :])

    def _open(self, database: Database, item: Missing) -> list[Revision | MissingRev]:
        with database.snapshot() as snapshot:
            revs = [Rev.parse(rev) for rev in item.revs]
            return snapshot.open_revs(snapshot.document(item.id), revs, latest=True)

    @contextlib.asynccontextmanager
    async def open_revs(self, wanted: Missing) -> AsyncIterator[AsyncIterator[StreamedDoc | Refusal]]:
        yield self._stream(wanted)

    async def _stream(self, wanted: Missing) -> AsyncIterator[StreamedDoc | Refusal]:
        database = self._database
        known = [Rev.parse(rev) for rev in wanted.ancestors] or None
        for result in self._open(database, wanted):
            if isinstance(result, MissingRev):
                yield Refusal(wanted.id, result.rev.text, "not_found", "missing on the source")
                continue
            text, parts = multipart.as_related(database, result, revs=True, atts_since=known)
            doc = Doc(result.id, result.rev.text, text=text)
            yield StreamedDoc(doc, parts, multipart.bodies_of(parts))

    async def lacking_bases(self, ids: Sequence[str]) -> list[Missing]:
        with self._database.snapshot() as snapshot:
            lacking = snapshot.lacking_bases(ids)
        return [Missing(doc_id, [rev.text for rev in revs]) for doc_id, revs in lacking.items()]

    async def read_bases(self, wanted: Sequence[Missing]) -> list[Doc]:
        docs = []
        for item in wanted:
            with self._database.snapshot() as snapshot:
                revs = [Rev.parse(rev) for rev in item.revs]
                found = snapshot.open_revs(snapshot.document(item.id), revs, merge_bases=True)
            docs += [_doc(result) for result in found if isinstance(result, Revision)]
        return docs

    async def read_doc(self, doc_id: str) -> dict[str, Any] | None:
        database = self._database
        try:
            if not doc_id.startswith("_local/"):
                return database.get(doc_id)
            with database.snapshot() as snapshot:
                found = snapshot.local(doc_id)
        except NotFound:
            return None
        value: dict[str, Any] = jsontext.loads(found.body)
        return {"_id": doc_id, "_rev": f"0-{found.revision}", **value}

    # writing

    async def bulk_docs(self, docs: Sequence[Doc]) -> list[Refusal]:
        refused: list[Refusal] = []
        edits = []
        limits = self._limits()
        for doc in docs:
            try:
                edits.append(self._edit(doc, limits))
            except CouchliteError as error:
                refused.append(_refusal(doc.id, doc.rev, error))
        database = self._database
        judged = await self._refusals(database, edits)
        refused += [
            _refusal(edit.id, edit.path[0].text, error)
            for edit, error in zip(edits, judged, strict=True)
            if error is not None
        ]
        accepted = [edit for edit, error in zip(edits, judged, strict=True) if error is None]
        if accepted:
            await self._write(database, accepted)
        return refused

    async def store_bases(self, docs: Sequence[Doc]) -> None:
        limits = self._limits()
        edits = [self._edit(doc, limits) for doc in docs]
        refused = await self._refusals(self._database, base_bodies.judged(edits))
        accepted = [edit for edit, refusal in zip(edits, refused, strict=True) if refusal is None]
        await asyncio.wrap_future(self._database.submit_bases(accepted))

    async def put(self, streamed: StreamedDoc) -> Refusal | None:
        doc = streamed.doc
        database = self._database
        try:
            edit = self._edit(doc, self._limits())
            [error] = await self._refusals(database, [edit])
        except MissingStub:
            raise
        except CouchliteError as refusal:
            error = refusal
        if error is not None:
            return _refusal(doc.id, doc.rev, error)
        try:
            await self._stage(database, edit, streamed)
        except BaseException:
            for attachment in edit.attachments:
                if attachment.staged is not None:
                    attachment.staged.discard()
            raise
        await self._write(database, [edit])
        return None

    def _edit(self, doc: Doc, limits: _Limits) -> Edit:
        """:raises CouchliteError: what is over a limit, or no document."""
        value = doc.value
        if "_revisions" in value:
            value.pop("_rev", None)  # it says the same
        edit = document.parse(value, max_size_bytes=limits.document_bytes)
        if not edit.path:
            edit.path = (Rev.parse(doc.rev),)
        if limits.id_bytes is not None and len(edit.id.encode()) > limits.id_bytes:
            raise IllegalDocumentId("Document id is too long")
        if limits.partitioned:
            partitions.check_id(edit.id)
        for attachment in edit.attachments:
            size = attachment.sent_length
            if limits.attachment_bytes is not None and size is not None and size > limits.attachment_bytes:
                raise TooLarge(attachment.name, error="attachment_too_large")
        return edit

    def _limits(self) -> _Limits:
        config = self._server.config
        return _Limits(
            config.integer("couchdb", "max_document_size"),
            config.limit("couchdb", "max_attachment_size"),
            config.limit("couchdb", "max_document_id_length"),
            self._database.is_partitioned,
        )

    async def _refusals(self, database: Database, edits: Sequence[Edit]) -> list[CouchliteError | None]:
        return await validation.refusals(database, edits, self._principal, self._functions, new_edits=False)

    async def _stage(self, database: Database, edit: Edit, streamed: StreamedDoc) -> None:
        """Receive the attachments that follow; what was announced of them must turn out to be true."""
        follow = [attachment for attachment in edit.attachments if attachment.follows]
        at = 0
        async for body in streamed.bodies:
            attachment = follow[at]
            at += 1
            encoding: Encoding | None = "gzip" if attachment.encoding == "gzip" else None
            async with database.blobs.stage(attachment.content_type, encoding) as upload:
                async for chunk in body:
                    await upload.write_async(chunk)
                staged = await upload.finish_async()
            attachment.staged = staged
            digest = attachment.sent_md5
            if digest is not None and digest not in (staged.received_md5, staged.md5):
                raise PeerFailure("md5_mismatch", f"attachment {attachment.name} of {edit.id} came damaged")
        if at < len(follow):
            raise PeerFailure("missing_attachment", f"attachments of {edit.id} did not come")

    async def _write(self, database: Database, edits: Sequence[Edit]) -> None:
        try:
            await asyncio.wrap_future(database.submit_replicated(edits))
        except MissingStub:
            raise
        except CouchliteError as error:
            raise PeerFailure(error.error, error.reason, code=error.status) from error

    async def write_local(self, doc_id: str, value: dict[str, Any]) -> str:
        given = value.get("_rev", "0-0")
        body = jsontext.dumps({name: member for name, member in value.items() if name[:1] != "_"})
        number = int(given.partition("-")[2])
        written = await asyncio.wrap_future(self._database.submit_local(doc_id, number, body))
        return f"0-{written}"

    async def commit(self) -> str:
        return self._info(self._database).instance_start_time

    async def close(self) -> None:
        self._opened = None


def _changes(database: Database, page: Page) -> list[Change]:
    columns = page.columns
    tag = database.tag
    changes = [
        Change(f"{seq}-{tag}", doc_id.decode(), (rev.decode(),))
        for seq, doc_id, rev in zip(columns.seqs, columns.ids, columns.revs, strict=True)
    ]
    for at, leaves in page.leaves.items():
        changes[at] = changes[at]._replace(revs=[leaf.decode() for leaf in leaves])
    return changes


def _doc(revision: Revision) -> Doc:
    return Doc(revision.id, revision.rev.text, text=document.render(revision, revs=True))


def _refusal(doc_id: str, rev: str, error: CouchliteError) -> Refusal:
    return Refusal(doc_id, rev, error.error, error.reason)
