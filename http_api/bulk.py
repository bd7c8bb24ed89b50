"""Many documents in one request: _bulk_docs, _bulk_get, _revs_diff, _missing_revs.

What must stay true here: an answer is written page by page while it is read, in the order of what was asked;
most documents are answered without being looked at one by one (couchlite/doc_texts.py), and what that can't
answer takes the way of a single GET. Source: chttpd_db.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from aiohttp import web

from couchlite import document, partitions
from couchlite.document import Edit, Revision
from couchlite.edits import Result
from couchlite.errors import BadRequest, CouchliteError, IllegalDocumentId
from couchlite.jsontext import dumps, escape_all
from couchlite.multipart import MixedWriter, Write
from couchlite.reads import MissingRev
from couchlite.revision import Rev

from . import documents, response, system_documents
from .documents import Options, parse_options
from .metrics import BULK_DOCS
from .partitions import check_ids
from .request import Request
from .response import Stream
from .submission import IN_LOOP_MAX_EDITS, check_id, read_documents, submit
from .updates import NEEDS_REVISION, written_status

PAGE_DOCUMENTS = 500
"""So many documents are read in one snapshot."""


# --- _bulk_docs


async def bulk_docs(request: Request) -> web.StreamResponse:
    """POST /{db}/_bulk_docs."""
    request.require_json_type()
    body = await request.json_object()
    docs = _list_of(body, "docs", "POST body must include `docs` parameter.")
    status = _status(request, body.get("w"))
    request.app.metrics.count("couchdb.httpd.bulk_requests")
    request.app.metrics.observe(BULK_DOCS, len(docs))
    new_edits = body.get("new_edits", True)
    if len(docs) <= IN_LOOP_MAX_EDITS:
        edits = read_documents(request, docs)
    else:
        edits = await asyncio.to_thread(read_documents, request, docs)
    if new_edits is False and not all(edit.path for edit in edits):
        raise BadRequest(NEEDS_REVISION)
    if not isinstance(new_edits, bool):
        raise BadRequest("`new_edits` parameter must be a boolean.")
    for edit in edits:
        if not edit.id:
            edit.id = request.server.uuids.new()
            check_id(request, edit.id)
    if new_edits and body.get("all_or_nothing") is True:
        refusal = CouchliteError("all_or_nothing is not supported", error="not_implemented")
        return response.json(request, 417, [_refused(edit, refusal, with_rev=True) for edit in edits])
    results = await submit(request, edits, new_edits=new_edits)
    if new_edits:
        return response.json(request, status, _rows(edits, results, accepted=status == 202))
    refused = [
        _refused(edit, result, with_rev=True)
        for edit, result in zip(edits, results, strict=True)
        if isinstance(result, CouchliteError)
    ]
    return response.json(request, 201, refused)


def _list_of(body: dict[str, Any], name: str, missing: str) -> list[Any]:
    if name not in body:
        raise BadRequest(missing)
    value = body[name]
    if not isinstance(value, list):
        raise BadRequest(f"`{name}` parameter must be an array.")
    return value


def _status(request: Request, copies: Any) -> int:
    """202 when more copies are wanted than one node makes."""
    if isinstance(copies, int) and not isinstance(copies, bool):
        return 202 if copies > 1 else 201
    return written_status(request, 201)


def _rows(edits: Sequence[Edit], results: Sequence[Result], *, accepted: bool) -> bytes:
    """For each edit its new revision, or what refused it."""
    more = b',"accepted":true' if accepted else b""
    ids = escape_all([edit.id.encode() for edit in edits])
    rows = [
        b'{"ok":true,"id":"%b","rev":"%b"%b}' % (doc_id, result.text.encode(), more)
        if isinstance(result, Rev)
        else dumps(_refused(edit, result))
        for doc_id, edit, result in zip(ids, edits, results, strict=True)
    ]
    return b"[%b]" % b",".join(rows)


def _refused(edit: Edit, error: CouchliteError, *, with_rev: bool = False) -> dict[str, Any]:
    row = {"id": edit.id}
    if with_rev:
        row["rev"] = edit.path[0].text if edit.path else "0-"
    return row | {"error": error.error, "reason": error.reason}


# --- _revs_diff, _missing_revs


async def revs_diff(request: Request) -> web.StreamResponse:
    """POST /{db}/_revs_diff."""
    diffs = await _diffs(request)
    rows = {
        doc_id: {"missing": missing, "possible_ancestors": ancestors} if ancestors else {"missing": missing}
        for doc_id, (missing, ancestors) in diffs.items()
    }
    return response.json(request, 200, rows)


async def missing_revs(request: Request) -> web.StreamResponse:
    """POST /{db}/_missing_revs."""
    diffs = await _diffs(request)
    rows = {doc_id: missing for doc_id, (missing, _ancestors) in diffs.items()}
    return response.json(request, 200, {"missing_revs": rows})


async def _diffs(request: Request) -> dict[str, tuple[Sequence[str], Sequence[str]]]:
    request.require_json_type()
    wanted = await request.json_object()
    for revs in wanted.values():
        if not isinstance(revs, list):
            raise BadRequest("Revisions must be an array.")
    check_ids(request, wanted)
    diffs = {}
    pairs = list(wanted.items())
    for at in range(0, len(pairs), PAGE_DOCUMENTS):
        with request.database().snapshot() as snapshot:
            diffs.update(snapshot.revs_diffs(dict(pairs[at : at + PAGE_DOCUMENTS])))
        await asyncio.sleep(0)
    return diffs


# --- _bulk_get


class _Failed(NamedTuple):
    """What is told instead of a document; `rev` is what was given, or what CouchDB puts in its place."""

    id: Any
    rev: Any
    error: str
    reason: str

    def text(self) -> bytes:
        members = {"rev": self.rev, "reason": self.reason, "id": self.id, "error": self.error}
        return dumps(members)


class _Wanted(NamedTuple):
    """One of the documents asked for."""

    id: str
    rev: Rev | None
    """None for all leaves."""
    atts_since: list[Rev] | None


_UNACCEPTABLE = frozenset(("open_revs", "new_edits", "w", "rev", "atts_since"))


async def bulk_get(request: Request) -> web.StreamResponse:
    """POST /{db}/_bulk_get."""
    request.require_json_type()
    items = _list_of(await request.json_object(), "docs", "Missing JSON list of 'docs'.")
    for name, _value in request.query:
        if name in _UNACCEPTABLE:
            raise BadRequest(f'"{name}" query parameter is not acceptable')
    for item in items:
        if isinstance(item, dict) and not isinstance(item.get("id", ""), str):
            raise IllegalDocumentId("Document id must be a string")
    answer = _BulkGet(request, items, parse_options(request))
    if not request.accepts("application/json"):
        for kind in ("mixed", "related"):
            if request.accepts(f"multipart/{kind}"):
                return await answer.send_multipart(kind)
    return await answer.send_json()


class _BulkGet:
    """One answer on its way out."""

    def __init__(self, request: Request, items: list[Any], options: Options) -> None:
        self._request = request
        self._database = request.database()
        self._items = items
        self._options = options
        # Asked for by couchlite's replicator: what is kept for merging a conflict is served, too.
        self._merge_bases = request.query_flag("merge_bases")
        self._hides = not request.principal.is_admin and system_documents.concerns(request)

    async def send_json(self) -> web.StreamResponse:
        stream = Stream(self._request)
        await stream.write(b'{"results":[')
        write = documents.fairly(stream)
        at = 0
        separator = b""
        while at < len(self._items):
            texts = self._texts(self._items[at : at + PAGE_DOCUMENTS])
            for text in texts:
                if text is not None:
                    await stream.write_all((separator, text))
                else:
                    await stream.write(separator)
                    await self._write_json(write, self._items[at])
                at += 1
                separator = b","
            await asyncio.sleep(0)  # a client that takes all that comes must not keep the others waiting
        return await stream.end(b"]}\n")

    def _texts(self, items: Sequence[Any]) -> list[bytes | None]:
        """The answers to the first items, at least one; None for each that needs more than a look."""
        if self._hides:
            return [None] * len(items)
        plain = [_plain(item) for item in items]
        asked = [pair for pair in plain if pair is not None]
        ids = [doc_id for doc_id, _rev in asked]
        with self._database.snapshot() as snapshot:
            texts = snapshot.leaf_texts(
                ids, [rev for _doc_id, rev in asked], with_path="revs" in self._options
            )
        answers = iter(
            [
                text and b'{"id":"%b","docs":[{"ok":%b}]}' % (doc_id, text)
                for doc_id, text in zip(escape_all(ids), texts, strict=False)
            ]
        )
        if len(asked) == len(items):
            return list(answers)
        found: list[bytes | None] = []
        for pair in plain:
            try:
                found.append(None if pair is None else next(answers))
            except StopIteration:
                break
        return found

    async def _write_json(self, write: Write, item: Any) -> None:
        wanted = self._read(item)
        await write(b'{"id":%b,"docs":[' % dumps(wanted.id))
        separator = b""
        for result in self._open(wanted):
            if isinstance(result, MissingRev):
                result = _Failed(wanted.id, result.rev.text, "not_found", "missing")
            if isinstance(result, _Failed):
                await write(b'%b{"error":%b}' % (separator, result.text()))
            else:
                await write(separator + b'{"ok":')
                for piece in documents.as_json_with_data(self._database, *result):
                    await write(piece)
                await write(b"}")
            separator = b","
        await write(b"]}")

    async def send_multipart(self, kind: str) -> web.StreamResponse:
        """Documents with their attachments, whether these were asked for or not."""
        mixed = MixedWriter(lambda piece: write(piece), bulk=True, kind=kind)
        stream = Stream(self._request, headers={"Content-Type": mixed.content_type}, is_json=False)
        write = documents.fairly(stream)
        for item in self._items:
            wanted = self._read(item)
            for result in self._open(wanted):
                if isinstance(result, MissingRev):
                    members = {"rev": result.rev.text, "error": "not_found", "reason": "missing"}
                    await mixed.error(dumps(members))
                elif isinstance(result, _Failed):
                    await mixed.error(result.text())
                else:
                    revision, options = result
                    text, parts = documents.as_related(self._database, revision, options)
                    await mixed.document(revision.id, str(revision.rev), text, parts)
        if self._items:
            await mixed.end()
        return await stream.end()

    def _open(self, wanted: _Wanted | _Failed) -> Sequence[tuple[Revision, Options] | MissingRev | _Failed]:
        """What there is of a document, with how it is to be shown."""
        if isinstance(wanted, _Failed):
            return [wanted]
        options = self._options
        if wanted.atts_since is not None:
            options = replace(options, atts_since=wanted.atts_since, flags=options.flags | {"attachments"})
        revs = None if wanted.rev is None else [wanted.rev]
        with self._database.snapshot() as snapshot:
            results = snapshot.open_revs(
                snapshot.document(wanted.id),
                revs,
                latest="latest" in options,
                merge_bases=self._merge_bases,
            )
        if not results:
            return [_Failed(wanted.id, "undefined", "not_found", "missing")]
        results.sort(key=lambda result: (isinstance(result, MissingRev), result.rev))
        return [
            result if isinstance(result, MissingRev) else self._shown(result, options) for result in results
        ]

    def _read(self, item: Any) -> _Wanted | _Failed:
        wanted = _read(item)
        if isinstance(wanted, _Wanted) and self._database.is_partitioned:
            try:
                partitions.check_id(wanted.id)
            except CouchliteError as error:
                return _Failed(wanted.id, None, error.error, error.reason)
        return wanted

    def _shown(self, revision: Revision, options: Options) -> tuple[Revision, Options] | _Failed:
        try:
            return system_documents.shown(self._request, revision), options
        except CouchliteError as error:
            return _Failed(revision.id, revision.rev.text, error.error, error.reason)


_ABSENT = object()


def _plain(item: Any) -> tuple[bytes, bytes | None] | None:
    """Id and revision of an item that is as most are; None if `_read` must see to it."""
    if type(item) is not dict or "atts_since" in item:
        return None
    doc_id, rev = item.get("id", ""), item.get("rev", _ABSENT)
    if not doc_id or doc_id[0] == "_":
        return None
    if rev is _ABSENT:
        return doc_id.encode(), None
    return (doc_id.encode(), rev.encode()) if type(rev) is str else None


def _read(item: Any) -> _Wanted | _Failed:
    if not isinstance(item, dict) or not item:
        return _Failed(None, None, "bad_request", "document must be a JSON object")
    if "id" not in item:
        return _Failed(None, None, "bad_request", "document id missed")
    given: Any = None  # what is wrong, when something is
    try:
        document.validate_id(item["id"])
        rev = None
        if "rev" in item:
            given = item["rev"]
            rev = Rev.parse(given)
        atts_since = []
        given = known = item.get("atts_since", [])
        if not isinstance(known, list):
            raise BadRequest("att_since value must be array of revs.")
        for given in known:
            atts_since.append(Rev.parse(given))
    except CouchliteError as error:
        return _Failed(item["id"], given, error.error, error.reason)
    return _Wanted(item["id"], rev, atts_since or None)
