"""GET and HEAD of a document: the winner or any revision, as JSON or multipart, with every option of CouchDB.

The plain GET, without a query, is the busiest path of a server and has a function of its own. What must stay
true here: one short snapshot a response; nothing is awaited while it is open. Attachments are read one after
the other, piece by piece, so their sizes do not matter for memory.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from aiohttp import web
from multidict import istr

from couchlite import document, multipart
from couchlite.database import Database
from couchlite.document import Meta, Revision
from couchlite.errors import BadRequest, NotFound
from couchlite.jsontext import dumps
from couchlite.multipart import (
    AttachmentPart,
    MixedWriter,
    new_boundary,
    related_length,
    related_type,
    write_related,
)
from couchlite.reads import Document, MissingRev, revs_info
from couchlite.records import AttachmentInfo
from couchlite.revision import Rev
from couchlite.revtree import Node
from couchlite.snapshot import Snapshot

from . import response, system_documents
from .request import Request
from .values import json_value

IN_MEMORY_MAX_BYTES = 1024 * 1024
"""A JSON answer with attachments up to this is made whole; a larger one is streamed."""
BASE64_PIECE_BYTES = 3 * 64 * 1024
"""A multiple of 3, so that the encoded pieces join without padding."""

_IF_NONE_MATCH = istr("If-None-Match")

_FLAGS = frozenset(
    (
        "attachments",
        "att_encoding_info",
        "conflicts",
        "deleted",
        "deleted_conflicts",
        "latest",
        "local_seq",
        "revs",
        "revs_info",
    )
)


@dataclass(slots=True)
class Options:
    """The query of a document's address, read as CouchDB does: of several `rev` the last one counts, a flag
    is on when any of its values is "true", what is unknown is ignored."""

    rev: Rev | None = None
    open_revs: list[Rev] | None = None
    """None when it was not asked for (an empty list counts as that)."""
    all_leaves: bool = False
    """Asked for by open_revs=all."""
    atts_since: list[Rev] | None = None
    new_edits: bool = True
    flags: frozenset[str] = frozenset()

    def __contains__(self, flag: str) -> bool:
        return flag in self.flags


NO_OPTIONS = Options()


def parse_options(request: Request) -> Options:
    """:raises BadRequest: a malformed revision, or a list of them."""
    if not request.query_text:
        return NO_OPTIONS
    options = Options()
    flags = set()
    for name, value in request.query:
        if value == "true" and name in _FLAGS:
            flags.add(name)
        elif name == "rev":
            options.rev = Rev.parse(value)
        elif name == "open_revs":
            options.all_leaves = value == "all"
            options.open_revs = None if options.all_leaves else _revisions(value) or None
        elif name == "atts_since":
            options.atts_since = _revisions(value)
            flags.add("attachments")
        elif name == "new_edits" and value in ("true", "false"):
            options.new_edits = value == "true"
        elif name == "meta" and value == "true":
            flags.update(("revs_info", "conflicts", "deleted_conflicts"))
    options.flags = frozenset(flags)
    return options


def _revisions(text: str) -> list[Rev]:
    revs = json_value(text)
    if not isinstance(revs, list):
        raise BadRequest("Invalid list of revisions")
    return [Rev.parse(rev) for rev in revs]


async def get(request: Request) -> web.StreamResponse:
    """GET /{db}/{docid}."""
    if not request.query_text and (request.principal.is_admin or not system_documents.concerns(request)):
        return _get_plain(request)
    options = parse_options(request)
    if options.all_leaves or options.open_revs is not None:
        return await get_open_revs(request, options)
    revision, meta = open_document(request, options)
    return await _send(request, revision, meta, options)


def _get_plain(request: Request) -> web.StreamResponse:
    rev, text = request.database().text(request.doc_id)
    etag = etag_of(rev)
    if _IF_NONE_MATCH in request.headers and response.matches(request, etag):
        return response.not_modified(request, etag)
    return response.json(request, 200, text, {"ETag": etag})


def etag_of(rev: str) -> str:
    """A revision as a tag. Peers may give revisions any name; what would end the header line is escaped."""
    return f'"{rev if rev.isprintable() else quote(rev)}"'


def open_document(request: Request, options: Options) -> tuple[Revision, Meta]:
    """The revision that the options ask for (the winner, unless `rev` is given without `latest`), with its
    path, and the members that tell about the rest of the document.

    :raises NotFound: "missing", or "deleted" for a deleted winner; or it is not for the principal to see.
    """
    with request.database().snapshot() as snapshot:
        revision, meta = _open(snapshot, request.doc_id, options)
    return system_documents.shown(request, revision), meta


def _open(snapshot: Snapshot, doc_id: str, options: Options) -> tuple[Revision, Meta]:
    found = snapshot.document(doc_id)
    if found is None:
        raise NotFound("missing")
    if options.rev is not None and "latest" not in options:
        named = snapshot.open_revs(found, [options.rev])[0]
        if isinstance(named, MissingRev):
            raise NotFound("missing")
        return named, ()
    leaves = found.leaves()
    if leaves[0].info.deleted and "deleted" not in options:
        raise NotFound("deleted")
    return snapshot.revision(found, leaves[0]), _meta(found, leaves, options)


def _meta(found: Document, leaves: Sequence[Node], options: Options) -> Meta:
    """In CouchDB's order; conflicts are shown only if there are any."""
    meta: list[tuple[str, Any]] = []
    if "revs_info" in options:
        statuses = revs_info(found, leaves[0])
        meta.append(("_revs_info", [{"rev": str(rev), "status": status} for rev, status in statuses]))
    for flag, deleted in (("conflicts", False), ("deleted_conflicts", True)):
        if flag in options:
            revs = [str(leaf.rev) for leaf in leaves[1:] if leaf.info.deleted is deleted]
            if revs:
                meta.append((f"_{flag}", revs))
    if "local_seq" in options:
        meta.append(("_local_seq", found.head.seq))
    return meta


# --- one revision -------------------------------------------------------------------------------------------


async def _send(request: Request, revision: Revision, meta: Meta, options: Options) -> web.StreamResponse:
    headers = {}
    if not meta:
        etag = headers["ETag"] = etag_of(revision.rev.text)
        if response.matches(request, etag):
            return response.not_modified(request, etag)
    if not revision.attachments or "attachments" not in options:
        return response.json(request, 200, _as_json(revision, meta, options), headers)
    if request.accepts("multipart/related"):
        return await _send_related(request, revision, meta, options, headers)
    return await _send_with_data(request, revision, meta, options, headers)


def _as_json(revision: Revision, meta: Meta, options: Options) -> bytes:
    """With attachments as stubs."""
    encoding_info = "att_encoding_info" in options
    return document.render(
        revision,
        revs="revs" in options,
        meta=meta,
        attachment=lambda info: document.attachment_stub(info, encoding_info=encoding_info),
    )


async def _send_related(
    request: Request, revision: Revision, meta: Meta, options: Options, headers: dict[str, str]
) -> web.StreamResponse:
    text, parts = as_related(request.database(), revision, options, meta)
    if not parts:
        return response.raw(request, 200, text, {"Content-Type": "application/json", **headers})
    boundary = new_boundary()
    headers["Content-Type"] = related_type(boundary)
    length = related_length(boundary, text, parts)
    stream = response.Stream(request, headers=headers, is_json=False, length=length)
    await write_related(fairly(stream), boundary, text, parts)
    return await stream.end()


async def _send_with_data(
    request: Request, revision: Revision, meta: Meta, options: Options, headers: dict[str, str]
) -> web.StreamResponse:
    pieces = as_json_with_data(request.database(), revision, options, meta)
    if _is_small(revision.attachments):
        return response.json(request, 200, b"".join(pieces), headers)
    stream = response.Stream(request, headers=headers)
    write = fairly(stream)
    for piece in pieces:
        await write(piece)
    return await stream.end(b"\n")


def _is_small(attachments: Sequence[AttachmentInfo]) -> bool:
    """Whether their decoded size is known and fits into memory."""
    if any(_length_is_unknown(info) for info in attachments):
        return False
    return sum(info.identity_length for info in attachments) <= IN_MEMORY_MAX_BYTES


def _length_is_unknown(info: AttachmentInfo) -> bool:
    """Whether it came in encoded: then its decoded length was never known, and the encoded one stands for it
    (as in CouchDB)."""
    return info.encoding is not None and info.identity_length == info.length


# --- several revisions --------------------------------------------------------------------------------------


async def get_open_revs(request: Request, options: Options) -> web.StreamResponse:
    """GET /{db}/{docid}?open_revs=...: all leaves, or those revisions. Unordered in CouchDB's words; in fact
    it gives those found by revision, then those missing."""
    with request.database().snapshot() as snapshot:
        found = snapshot.document(request.doc_id)
        results = snapshot.open_revs(found, options.open_revs, latest="latest" in options)
    if not results:
        raise NotFound("missing")
    results = [
        result if isinstance(result, MissingRev) else system_documents.shown(request, result)
        for result in results
    ]
    results.sort(key=lambda result: (isinstance(result, MissingRev), result.rev))
    if request.accepts("multipart/mixed"):
        return await _send_mixed(request, results, options)
    stream = response.Stream(request)
    write = fairly(stream)
    separator = b"["
    for result in results:
        if isinstance(result, MissingRev):
            await write(separator + dumps({"missing": str(result.rev)}))
        else:
            await write(separator + b'{"ok":')
            for piece in as_json_with_data(request.database(), result, options):
                await write(piece)
            await write(b"}")
        separator = b","
    return await stream.end(b"]\n")


async def _send_mixed(
    request: Request, results: Sequence[Revision | MissingRev], options: Options
) -> web.StreamResponse:
    mixed = MixedWriter(lambda piece: write(piece))
    stream = response.Stream(request, headers={"Content-Type": mixed.content_type}, is_json=False)
    write = fairly(stream)
    for result in results:
        if isinstance(result, MissingRev):
            await mixed.error(dumps({"missing": str(result.rev)}))
        else:
            text, parts = as_related(request.database(), result, options)
            await mixed.document(result.id, str(result.rev), text, parts)
    await mixed.end()
    return await stream.end()


# --- attachments along with documents -----------------------------------------------------------------------


def as_related(
    database: Database, revision: Revision, options: Options, meta: Meta = ()
) -> tuple[bytes, list[AttachmentPart]]:
    """A document whose attachments follow as parts, but for those that `atts_since` says the client has."""
    return multipart.as_related(
        database, revision, revs="revs" in options, meta=meta, atts_since=options.atts_since
    )


def as_json_with_data(
    database: Database, revision: Revision, options: Options, meta: Meta = ()
) -> Iterator[bytes]:
    """The JSON text of a document in pieces: its attachments as base64 if `options` ask for them."""
    if not revision.attachments or "attachments" not in options:
        yield _as_json(revision, meta, options)
        return
    included = multipart.newer_than(revision, options.atts_since)
    encoding_info = "att_encoding_info" in options
    # Stands for the data in the text that is cut there; nobody can have guessed it.
    mark = secrets.token_hex(16)

    def members(info: AttachmentInfo) -> dict[str, Any]:
        if not included(info):
            return document.attachment_stub(info, encoding_info=encoding_info)
        return document.attachment_members(info, {"data": mark}, encoding_info)

    text = document.render(revision, revs="revs" in options, meta=meta, attachment=members)
    first, *rest = text.split(mark.encode())
    yield first
    for info, piece in zip(filter(included, revision.attachments), rest, strict=True):
        yield from _base64(_decoded(database, info))
        yield piece


def _decoded(database: Database, info: AttachmentInfo) -> Iterator[bytes]:
    with database.snapshot() as snapshot:
        source = snapshot.blob(info)
    with source:
        yield from source.chunks() if info.encoding is None else source.gunzipped()


def _base64(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest = b""
    for chunk in chunks:
        rest += chunk
        whole = len(rest) - len(rest) % 3
        for at in range(0, whole, BASE64_PIECE_BYTES):
            yield base64.b64encode(rest[at : min(at + BASE64_PIECE_BYTES, whole)])
        rest = rest[whole:]
    if rest:
        yield base64.b64encode(rest)


def fairly(stream: response.Stream) -> Callable[[bytes], Any]:
    """A `write` that lets other requests have their turn after each large piece: a client that takes all that
    comes would never make it wait."""

    async def write(piece: bytes) -> None:
        await stream.write(piece)
        if len(piece) >= response.PIECE_SIZE_BYTES:
            await asyncio.sleep(0)

    return write
