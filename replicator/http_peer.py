"""A database on a server that is reached by HTTP: the questions of a replication as requests.

What must stay true here: servers differ. What one doesn't know (_bulk_get, multipart) is asked for in another
way, and what can't be understood is a failure of that server, not of ours.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from typing import Any

from couchlite.errors import BadRequest, Conflict, MissingStub
from couchlite.jsontext import dumps, loads
from couchlite.multipart import (
    MultipartReader,
    new_boundary,
    related_length,
    related_pieces,
    related_type,
)

from . import wire
from .attachment_bodies import Bodies
from .errors import EndpointRefused, PeerFailure
from .http_client import Answer, HttpClient, Response
from .options import Endpoint, Options
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
from .retries import BatchSize

CHANGES_PAGE_ROWS = 2_000
DOCUMENT_MAX_BYTES = 1 << 30
"""A document's JSON is held in memory; the target has its own, smaller limit."""
LINE_MAX_BYTES = 64 << 20


class HttpPeer:
    def __init__(self, endpoint: Endpoint, options: Options, tls: ssl.SSLContext | bool = True) -> None:
        self.name = endpoint.url
        self._client = HttpClient(endpoint, options, tls)
        self._timeout_s = options.connection_timeout_ms / 1000
        self._batch = BatchSize(options.worker_batch_size)
        self._bulk_get = options.use_bulk_get
        self._knows_encodings: bool | None = None
        self._is_couchlite = False

    @property
    def batch_docs_max(self) -> int:
        return self._batch.docs

    # opening

    async def open(self, *, create: bool = False, create_params: Mapping[str, Any] | None = None) -> PeerInfo:
        if create:
            query = {name: _plain(value) for name, value in (create_params or {}).items()}
            answer = await self._client.ask("PUT", query=query)
            if answer.status in (401, 403):
                self._check_access(answer)
        answer = await self._client.ask("GET")
        self._check_access(answer)
        value = answer.value if answer.status == 200 and isinstance(answer.value, dict) else {}
        if "update_seq" not in value or "instance_start_time" not in value:
            raise EndpointRefused.missing(self.name)
        self._is_couchlite = "couchlite" in answer.server
        return PeerInfo(value["update_seq"], str(value["instance_start_time"]))

    def _check_access(self, answer: Answer) -> None:
        if answer.status == 401:
            raise EndpointRefused.unauthorized(self.name)
        if answer.status == 403:
            raise EndpointRefused.forbidden(self.name)

    async def close(self) -> None:
        await self._client.close()

    # reading

    async def changes(self, since: Seq, query: ChangesQuery) -> AsyncGenerator[ChangesPage]:
        left: int | None = None
        while True:
            page, pending = await self._changes_page(since, query)
            if page.changes:
                since = page.last_seq
                yield page
            if left is None and pending is not None:
                left = len(page.changes) + pending
            if left is not None:
                left -= len(page.changes)
            # While the source is being written to, the newest of the beginning is as far as it goes.
            if len(page.changes) < CHANGES_PAGE_ROWS or (left is not None and left <= 0):
                break
        while query.continuous:
            async with contextlib.aclosing(self._follow(since, query)) as pages:
                async for page in pages:
                    since = page.last_seq
                    yield page

    async def _changes_page(self, since: Seq, query: ChangesQuery) -> tuple[ChangesPage, int | None]:
        asked, body = wire.changes_query(since, query)
        asked |= {"feed": "normal", "limit": str(CHANGES_PAGE_ROWS), "timeout": self._feed_timeout}
        answer = await self._client.ask("GET" if body is None else "POST", "_changes", query=asked, body=body)
        if answer.status != 200:
            raise self._client.failure("changes_req_failed", answer)
        return wire.changes_page(answer.value)

    @property
    def _feed_timeout(self) -> str:
        return str(max(1000, int(self._timeout_s * 1000 / 3)))

    async def _follow(self, since: Seq, query: ChangesQuery) -> AsyncGenerator[ChangesPage]:
        """What comes on one continuous feed, until the server or the network ends it."""
        asked, body = wire.changes_query(since, query)
        is_filtered = len(asked) > 2
        # An idle feed is kept alive; a filtered one is ended, to learn how far nothing has passed.
        asked |= {"feed": "continuous", "timeout" if is_filtered else "heartbeat": self._feed_timeout}
        begun = time.monotonic()
        with contextlib.suppress(PeerFailure):
            async with self._client.stream(
                "GET" if body is None else "POST", "_changes", query=asked, body=body, takes_slot=False
            ) as response:
                if response.status != 200:
                    raise self._client.failure("changes_req_failed", Answer(response.status, None, 0))
                async for lines in _lines(response):
                    page = _page_of_lines(lines)
                    if page is not None and page.last_seq is not None:
                        yield page
        if time.monotonic() - begun < 1:
            # It broke at once: the next page tells whether the source is well, with the usual waits.
            await asyncio.sleep(1)
            page, _pending = await self._changes_page(since, query)
            if page.changes:
                yield page

    async def count_pending(self, since: Seq) -> int | None:
        query = {"since": wire.seq_text(since), "limit": "0"}
        answer = await self._client.ask("GET", "_changes", query=query)
        pending = answer.value.get("pending") if isinstance(answer.value, dict) else None
        return pending if isinstance(pending, int) else None

    async def revs_diff(self, changes: Sequence[Change]) -> list[Missing]:
        wanted: dict[str, list[str]] = {}
        for change in changes:
            wanted.setdefault(change.id, []).extend(change.revs)
        answer = await self._client.ask("POST", "_revs_diff", body=dumps(wanted))
        if answer.status != 200:
            raise self._client.failure("revs_diff_failed", answer)
        return wire.missing(answer.value)

    async def bulk_get(self, wanted: Sequence[Missing]) -> Batch:
        if not self._bulk_get:
            return Batch((), wanted)
        body, asked = wire.bulk_get_body(wanted)
        query = {"latest": "true", "revs": "true", "attachments": "false"}
        begun = time.monotonic()
        answer = await self._client.ask("POST", "_bulk_get", query=query, body=body, raises=False)
        if answer.status != 200:
            if answer.status in (400, 404, 405, 415, 501):
                self._bulk_get = False  # it doesn't know the address
            self._batch.too_much()
            return Batch((), wanted)
        self._batch.took(len(asked), answer.size, time.monotonic() - begun)
        return wire.bulk_got(answer.value, asked)

    @contextlib.asynccontextmanager
    async def open_revs(self, wanted: Missing) -> AsyncIterator[AsyncIterator[StreamedDoc | Refusal]]:
        async with contextlib.aclosing(self._open_revs(wanted)) as found:
            yield found

    async def _open_revs(self, wanted: Missing) -> AsyncGenerator[StreamedDoc | Refusal]:
        accept = {"Accept": "multipart/mixed, application/json;q=0.5"}
        path = wire.escape_id(wanted.id)
        for query in wire.open_revs_queries(wanted):
            rows: list[Any] = []
            async with self._client.stream("GET", path, query=query, headers=accept) as response:
                if response.status == 404:
                    rows = [{"missing": rev} for rev in loads(query["open_revs"])]
                elif response.status != 200:
                    raise self._client.failure("open_revs_failed", Answer(response.status, None, 0))
                elif response.content_type == "application/json":
                    rows = loads(await response.read())
                else:
                    content = self._client.told(path, response.content.iter_any())
                    content_type = response.headers["Content-Type"]
                    async for result in self._from_mixed(wanted.id, path, content_type, content):
                        yield result
            # Only now, for their attachments take more requests: who waits for a free one must hold none.
            async for result in self._from_json(wanted, rows):
                yield result

    async def _from_mixed(
        self, doc_id: str, path: str, content_type: str, content: AsyncIterator[bytes]
    ) -> AsyncIterator[StreamedDoc | Refusal]:
        """The parts of a multipart/mixed answer: documents, alone or with their attachments, and errors."""
        reader = MultipartReader(content_type, content)
        while (headers := await reader.next_part()) is not None:
            content_type = headers.get("content-type", "")
            if content_type.startswith("multipart/related"):
                inner = MultipartReader(content_type, reader.body())
                value = loads(await inner.document(DOCUMENT_MAX_BYTES))
                parts = wire.following_parts(value)
                doc = Doc(doc_id, value["_rev"], value=value)
                bodies = Bodies(self._client, doc, parts, wire.digests(value))
                yield StreamedDoc(doc, parts, bodies.of_multipart(path, inner))
                continue
            value = loads(b"".join([piece async for piece in reader.body()]))
            if "error=" in content_type or "_rev" not in value:
                yield Refusal(doc_id, str(value.get("missing")), "not_found", "missing on the source")
            else:
                doc = Doc(doc_id, value["_rev"], value=value)
                yield StreamedDoc(doc, (), Bodies(self._client, doc, (), {}).singly())

    async def _from_json(self, wanted: Missing, rows: Sequence[Any]) -> AsyncIterator[StreamedDoc | Refusal]:
        """A server that knows no multipart gives stubs; their attachments are asked for one by one."""
        for row in rows:
            if "ok" not in row:
                yield Refusal(wanted.id, str(row.get("missing")), "not_found", "missing on the source")
                continue
            value = row["ok"]
            digests = wire.digests(value)
            _make_newer_follow(value, wanted.ancestors)
            doc = Doc(wanted.id, value["_rev"], value=value)
            parts = wire.following_parts(value)
            yield StreamedDoc(doc, parts, Bodies(self._client, doc, parts, digests).singly())

    async def lacking_bases(self, ids: Sequence[str]) -> list[Missing]:
        if not self._is_couchlite:
            return []
        body = dumps({"ids": list(ids)})
        answer = await self._client.ask("POST", "_conflicts/_missing_bases", body=body, raises=False)
        if answer.status != 200:
            self._is_couchlite = False  # an older one, or one that doesn't let us
            return []
        return wire.lacking_bases(answer.value)

    async def read_bases(self, wanted: Sequence[Missing]) -> list[Doc]:
        if not self._bulk_get:
            return []
        query = {"revs": "true", "merge_bases": "true"}
        body = wire.bases_body(wanted)
        answer = await self._client.ask("POST", "_bulk_get", query=query, body=body, raises=False)
        return wire.bases(answer.value) if answer.status == 200 else []

    async def store_bases(self, docs: Sequence[Doc]) -> None:
        body = b'{"docs":[%b]}' % b",".join([doc.text for doc in docs])
        answer = await self._client.ask("POST", "_conflicts/_bases", body=body, raises=False)
        if answer.status != 201:
            raise self._client.failure("bases_failed", answer)

    async def read_doc(self, doc_id: str) -> dict[str, Any] | None:
        return await self._client.read_doc(doc_id)

    # writing

    async def bulk_docs(self, docs: Sequence[Doc]) -> list[Refusal]:
        body = b'{"new_edits":false,"docs":[%b]}' % b",".join([doc.text for doc in docs])
        answer = await self._client.ask("POST", "_bulk_docs", body=body)
        if answer.status not in (200, 201, 202, 417):
            raise self._client.failure("bulk_docs_failed", answer)
        return wire.refusals(answer.value)

    async def put(self, streamed: StreamedDoc) -> Refusal | None:
        if any(part.encoding for part in streamed.parts) and not await self._takes_encoded():
            streamed = wire.decoded(streamed)
        doc, parts = streamed.doc, streamed.parts
        boundary = new_boundary()
        length = related_length(boundary, doc.text, parts)
        headers = {"Content-Type": related_type(boundary), "Content-Length": str(length)}

        def body() -> AsyncIterator[bytes]:
            return related_pieces(boundary, doc.text, parts, streamed.bodies)

        if not parts:
            headers = {"Content-Type": "application/json"}
        path = wire.escape_id(doc.id)
        content = body if parts else doc.text
        logins = self._client.logins
        answer = await self._client.upload(path, {"new_edits": "false"}, content, headers)
        if answer.status in (200, 201, 202):
            return None
        word, reason = wire.told(answer.value, answer.status)
        if answer.status == 412 and word == "missing_stub":
            raise MissingStub(reason)
        if answer.status in (401, 403):
            await self.open()  # it was not the database as a whole that was refused
            if self._client.logins > logins:
                # Nor the document, but a session that had ended; what was just asked began another one.
                raise self._client.failure("session_ended", answer)
        elif answer.status not in (400, 412, 413, 414, 415, 417, 422):
            raise self._client.failure("doc_write_failed", answer)
        return Refusal(doc.id, doc.rev, word, reason)

    async def _takes_encoded(self) -> bool:
        """Whether the server knows what an attachment's encoding is; others take the encoded bytes for the
        attachment itself."""
        if self._knows_encodings is None:
            self._knows_encodings = await self._client.is_couchdb()
        return self._knows_encodings

    async def write_local(self, doc_id: str, value: dict[str, Any]) -> str:
        answer = await self._client.ask("PUT", wire.escape_id(doc_id), body=dumps(value))
        if answer.status == 409:
            raise Conflict()
        if answer.status not in (200, 201, 202) or not isinstance(answer.value, dict):
            raise self._client.failure("checkpoint_commit_failure", answer)
        return str(answer.value.get("rev"))

    async def commit(self) -> str:
        answer = await self._client.ask("POST", "_ensure_full_commit", body=b"{}")
        if answer.status == 201 and isinstance(answer.value, dict) and "instance_start_time" in answer.value:
            return str(answer.value["instance_start_time"])
        return (await self.open()).instance_start_time


async def _lines(response: Response) -> AsyncIterator[list[bytes]]:
    """The complete lines of an endless answer, as many at a time as have come."""
    rest = b""
    async for chunk in response.content.iter_any():
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > LINE_MAX_BYTES:
            raise BadRequest("an endless line")
        if lines:
            yield lines


def _page_of_lines(lines: Sequence[bytes]) -> ChangesPage | None:
    """Heartbeats are empty lines; the last line of a feed tells its last sequence."""
    rows = [loads(line) for line in lines if line.strip()]
    if not rows:
        return None
    changes = [change for row in rows if (change := wire.read_change(row)) is not None]
    last = rows[-1] if isinstance(rows[-1], dict) else {}
    return ChangesPage(changes, last.get("last_seq", last.get("seq")))


def _make_newer_follow(value: dict[str, Any], ancestors: Sequence[str]) -> None:
    """Let the stubs follow that are newer than the newest of the ancestors. What comes is not encoded, so
    neither is its digest the one announced."""
    revisions = value.get("_revisions", {})
    path = [f"{revisions['start'] - at}-{digest}" for at, digest in enumerate(revisions.get("ids", ()))]
    since = next((int(rev.partition("-")[0]) for rev in path if rev in ancestors), 0)
    for name, props in (value.get("_attachments") or {}).items():
        if props.get("stub") and props.get("revpos", 0) > since:
            value["_attachments"][name] = wire.plain_stub(props) | {"follows": True}


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value).decode()
