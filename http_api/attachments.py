"""/{db}/{docid}/{name}: attachments alone, streamed both ways.

What must stay true here: no body is whole in memory, however large; a body that is being sent leaves other
requests their turn; and what CouchDB can't range over (stored encoded) isn't ranged over.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Sequence

from aiohttp import web

from couchlite import document
from couchlite.blobs import BlobSource
from couchlite.document import DEFAULT_CONTENT_TYPE, AttachmentEdit, Edit, Revision
from couchlite.errors import NotFound, RangeNotSatisfiable
from couchlite.multipart import new_boundary
from couchlite.records import AttachmentInfo

from . import response
from .documents import fairly, open_document, parse_options
from .request import Request
from .staging import receive
from .submission import check_id, edit_of, named_revision, store
from .updates import asked_revision, matched_revision, written_status
from .values import encode, media_ranges, shown

PIECE_BYTES = 1024 * 1024
"""What is read and handed to the socket at a time: fewer, larger pieces are what makes large bodies fast."""
RANGES_MAX = 9
"""A request for more ranges than these gets the whole, as in CouchDB."""

_RANGE = re.compile(r"([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18})")
_CONTROLS = re.compile("[\\0-\\x1f\\x7f]")
"""What may not stand in a header; a content type may hold anything."""

Range = tuple[int, int]
"""First and last byte."""


async def get(request: Request) -> web.StreamResponse:
    """GET and HEAD, of the winner or of `rev`."""
    revision, _ = open_document(request, parse_options(request))
    info = _find(revision, request.attachment_name)
    etag = f'"{base64.b64encode(info.md5).decode()}"'
    if response.matches(request, etag):
        return response.not_modified(request, etag)
    with request.database().snapshot() as snapshot:
        source = snapshot.blob(info)
    with source:
        return await _send(request, info, source, etag)


def _find(revision: Revision, name: str) -> AttachmentInfo:
    for info in revision.attachments:
        if info.name == name:
            return info
    raise NotFound("Document is missing attachment")


async def _send(request: Request, info: AttachmentInfo, source: BlobSource, etag: str) -> web.StreamResponse:
    headers = {
        "ETag": etag,
        "Cache-Control": "must-revalidate",
        "Content-Type": _CONTROLS.sub("?", info.content_type),
        "Accept-Ranges": "bytes" if info.encoding is None else "none",
    }
    config = request.server.config
    if config.boolean("csp", "attachments_enable"):
        headers["Content-Security-Policy"] = config.text("csp", "attachments_header_value")
    if info.encoding is None:
        ranges = parse_ranges(request.headers.get("Range"), source.length)
        if len(ranges) == 1:
            return await _send_range(request, source, headers, ranges[0])
        if ranges:
            return await _send_ranges(request, source, headers["Content-Type"], ranges)
        return await _stream(request, 200, headers, source.length, source.chunks(chunk_bytes=PIECE_BYTES))
    length: int | None
    if accepts_encoding(request.headers.get("Accept-Encoding"), info.encoding):
        headers["Content-Encoding"] = info.encoding
        length, chunks = source.length, source.chunks(chunk_bytes=PIECE_BYTES)
    else:
        # Of a body that came encoded the decoded length is not known.
        length = None if info.identity_length == info.length else info.identity_length
        chunks = source.gunzipped()
    if length is not None:
        parse_ranges(request.headers.get("Range"), length)  # for its refusals, which CouchDB has here too
    return await _stream(request, 200, headers, length, chunks)


async def _stream(
    request: Request, status: int, headers: dict[str, str], length: int | None, chunks: Iterator[bytes]
) -> web.StreamResponse:
    if length is not None and length < response.PIECE_SIZE_BYTES and not request.is_head:
        return response.raw(request, status, b"".join(chunks), headers)
    stream = response.Stream(request, status, headers, is_json=False, length=length)
    write = fairly(stream)
    if not request.is_head:
        for chunk in chunks:
            await write(chunk)
    return await stream.end()


# --- ranges -------------------------------------------------------------------------------------------------


def parse_ranges(text: str | None, length: int) -> list[Range]:
    """The ranges of a Range header; none when the whole is to be sent: the header is malformed, asks for
    everything or for too much.

    Source: mochiweb_http:parse_range_request and chttpd_db:parse_ranges, whose last byte is cut to the length
    before a range from the end is counted: `-50` of 20 bytes is 1-19.

    :raises RangeNotSatisfiable: a range ends before it begins, or begins behind the end.
    """
    if text is None or not text.startswith("bytes="):
        return []
    ranges = []
    for piece in text.removeprefix("bytes=").split(","):
        if not piece.strip():
            continue
        match = _RANGE.fullmatch(piece.strip())
        if match is None:
            return []
        first, last, suffix = match.groups()
        if suffix is not None:
            bounds = length - min(int(suffix), length - 1), length - 1
        elif last:
            bounds = int(first), min(int(last), length - 1)
        elif int(first) == 0:
            return []
        else:
            bounds = int(first), length - 1
        if bounds[1] < bounds[0]:
            raise RangeNotSatisfiable()
        ranges.append(bounds)
    return ranges if len(ranges) <= RANGES_MAX else []


async def _send_range(
    request: Request, source: BlobSource, headers: dict[str, str], bounds: Range
) -> web.StreamResponse:
    first, last = bounds
    size = last - first + 1
    headers["Content-Range"] = f"bytes {first}-{last}/{source.length}"
    return await _stream(request, 206, headers, size, source.chunks(first, size, PIECE_BYTES))


async def _send_ranges(
    request: Request, source: BlobSource, content_type: str, ranges: Sequence[Range]
) -> web.StreamResponse:
    boundary = new_boundary()
    headers = {"Content-Type": f'multipart/byteranges; boundary="{boundary}"'}
    stream = response.Stream(request, 206, headers, is_json=False)
    write = fairly(stream)
    await write(f"--{boundary}".encode())
    for first, last in ranges:
        head = (
            f"\r\nContent-Type: {content_type}\r\nContent-Range: bytes {first}-{last}/{source.length}\r\n\r\n"
        )
        await write(head.encode())
        for chunk in source.chunks(first, last - first + 1, PIECE_BYTES):
            await write(chunk)
        await write(f"\r\n--{boundary}".encode())
    return await stream.end(b"--")


def accepts_encoding(header: str | None, encoding: str) -> bool:
    """Whether an Accept-Encoding header lets a body be sent encoded so."""
    if header is None:
        return False
    accepted = media_ranges(header)
    return accepted.get(encoding, accepted.get("*", 0.0)) > 0


# --- changing -----------------------------------------------------------------------------------------------


async def put(request: Request) -> web.StreamResponse:
    """Add an attachment to a revision, or replace it; without a revision, to a new document."""
    name = request.attachment_name
    document.validate_attachment_name(name)
    added = AttachmentEdit(
        name,
        shown(request.headers.get("Content-Type", DEFAULT_CONTENT_TYPE)),
        encoding=_content_encoding(request),
        sent_length=request.content_length,
    )
    status = written_status(request, 201)
    edit = _edit(request)
    edit.attachments = [added, *(kept for kept in edit.attachments if kept.name != name)]

    async def receive_body() -> None:
        added.staged = await receive(request, added, request.body_chunks())

    rev = await store(request, edit, receive=receive_body)
    path = "/".join(encode(piece) for piece in (request.segments[0], request.doc_id, name))
    body = {"ok": True, "id": edit.id, "rev": rev.text}
    return response.json(request, status, body, {"Location": request.absolute_uri(f"/{path}")})


async def delete(request: Request) -> web.StreamResponse:
    """Remove an attachment from a revision."""
    name = request.attachment_name
    document.validate_attachment_name(name)
    edit = _edit(request)
    if not edit.path:
        # There will be a conflict, but CouchDB looks first whether there is anything to remove.
        with request.database().snapshot() as snapshot:
            _find(snapshot.winner(request.doc_id), name)
    elif all(kept.name != name for kept in edit.attachments):
        raise NotFound("Document is missing attachment")
    edit.attachments = [kept for kept in edit.attachments if kept.name != name]
    rev = await store(request, edit)
    return response.json(request, 200, {"ok": True, "id": edit.id, "rev": rev.text})


def _edit(request: Request) -> Edit:
    """An edit of the revision that the request names."""
    rev = matched_revision(request, asked_revision(request))
    if rev is not None:
        return edit_of(named_revision(request, rev))
    document.validate_id(request.doc_id)
    check_id(request, request.doc_id)
    return Edit(request.doc_id)


def _content_encoding(request: Request) -> str | None:
    given = request.headers.get("Content-Encoding", "identity").strip().lower()
    return None if given == "identity" else given
