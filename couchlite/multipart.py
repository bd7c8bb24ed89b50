"""Documents and their attachments as one stream of bytes, the form in which peers exchange them: reading and
writing multipart/related, writing multipart/mixed.

What must stay true here:
- A part is never whole in memory: what is read ahead is one chunk and a delimiter's length; what is written
  goes out chunk by chunk, no faster than the client takes it.
- The framing is CouchDB's to the byte (couch_httpd_multipart.erl), lengths are known before the first byte
  is sent.
- Parts are told apart by their order alone; their headers only say how the first one is to be read.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from email.message import Message
from functools import partial
from typing import TYPE_CHECKING, Any

from . import document
from .document import Meta, Revision
from .errors import BadRequest, TooLarge, UnsupportedMediaType
from .records import AttachmentInfo
from .revision import Rev

if TYPE_CHECKING:
    from .database import Database

# A part needs a handful of headers; more than this is not a part's head but an attack or a missing empty
# line.
PART_HEAD_MAX_BYTES = 65_536

_HEAD_END = b"\r\n\r\n"


class MultipartReader:
    """The parts of a multipart body, in order.

    async for part in reader: ... ; a part not read to its end is skipped when the next is asked for.

    :param chunks: the body as it arrives.
    :raises BadRequest: no boundary; later, when reading: a malformed head or a body that ends too early.
    """

    def __init__(self, content_type: str, chunks: AsyncIterator[bytes]) -> None:
        boundary = _boundary(content_type)
        self._delimiter = b"\r\n--" + boundary
        self._chunks = chunks
        self._buffer = b""
        self._begun = False
        self._in_body = False

    async def document(self, size_max: int) -> bytes:
        """The first part, which must be JSON.

        :raises UnsupportedMediaType: it says it is something else, or nothing.
        :raises TooLarge: it is longer than `size_max`.
        """
        headers = await self.next_part()
        if headers is None or _media_type(headers.get("content-type", "")) != "application/json":
            raise UnsupportedMediaType("Content-Type must be application/json")
        pieces = []
        size = 0
        async for piece in self.body():
            size += len(piece)
            if size > size_max:
                raise TooLarge()
            pieces.append(piece)
        return b"".join(pieces)

    async def next_part(self) -> dict[str, str] | None:
        """Go to the next part: its headers, names in lower case; None after the last one."""
        if not self._begun:
            self._begun = True
            async for _ in self._until(self._delimiter[2:]):
                pass  # what stands before the first delimiter means nothing
        elif self._in_body:
            async for _ in self.body():
                pass
        while len(self._buffer) < 2:
            await self._more()
        if self._buffer.startswith(b"--"):
            return None
        head = []
        size = 0
        async for piece in self._until(_HEAD_END):
            size += len(piece)
            if size > PART_HEAD_MAX_BYTES:
                raise BadRequest("bad part header")
            head.append(piece)
        self._in_body = True
        return _headers(b"".join(head))

    async def body(self) -> AsyncIterator[bytes]:
        """The bytes of the current part, piece by piece."""
        async for piece in self._until(self._delimiter):
            yield piece

    async def _until(self, pattern: bytes) -> AsyncIterator[bytes]:
        """What comes before `pattern`; the buffer then begins behind it."""
        kept = len(pattern) - 1  # so much of the pattern may be at the end of the buffer
        while (found := self._buffer.find(pattern)) < 0:
            if len(self._buffer) > kept:
                piece = self._buffer[:-kept]
                self._buffer = self._buffer[-kept:]
                yield piece
            await self._more()
        piece = self._buffer[:found]
        self._buffer = self._buffer[found + len(pattern) :]
        self._in_body = False  # now, for who takes the last piece need not ask for another
        if piece:
            yield piece

    async def _more(self) -> None:
        chunk = await anext(self._chunks, None)
        if chunk is None:
            raise BadRequest("expected more data")
        self._buffer += chunk


@dataclass(frozen=True, slots=True)
class AttachmentPart:
    """An attachment as a part: `length` is that of the bytes sent, which are encoded if `encoding` says
    so.
    """

    name: str
    content_type: str
    length: int
    encoding: str | None
    chunks: Callable[[], Iterable[bytes]]

    def head(self) -> bytes:
        lines = [
            f'Content-Disposition: attachment; filename="{header_text(self.name)}"',
            f"Content-Type: {header_text(self.content_type)}",
            f"Content-Length: {self.length}",
        ]
        if self.encoding is not None:
            lines.append(f"Content-Encoding: {self.encoding}")
        return "".join(f"\r\n{line}" for line in lines).encode() + _HEAD_END


Write = Callable[[bytes], Awaitable[None]]

_JSON_HEAD = b"\r\nContent-Type: application/json\r\n\r\n"
_ERROR_HEAD = b'\r\nContent-Type: application/json; error="true"\r\n\r\n'


def new_boundary() -> str:
    return secrets.token_hex(16)


def related_type(boundary: str) -> str:
    return f'multipart/related; boundary="{boundary}"'


def related_length(boundary: str, document: bytes, parts: Sequence[AttachmentPart]) -> int:
    """How many bytes `write_related` will write."""
    delimiters = len("--") + len("\r\n--") * (1 + len(parts)) + len(boundary) * (2 + len(parts)) + len("--")
    return (
        delimiters + len(_JSON_HEAD) + len(document) + sum(len(part.head()) + part.length for part in parts)
    )


async def write_related(
    write: Write, boundary: str, document: bytes, parts: Sequence[AttachmentPart]
) -> None:
    """A document and the attachments it says `follows` of, in the order of its `_attachments`."""
    delimiter = f"\r\n--{boundary}".encode()
    await write(delimiter[2:] + _JSON_HEAD + document + delimiter)
    for part in parts:
        await write(part.head())
        for chunk in part.chunks():
            await write(chunk)
        await write(delimiter)
    await write(b"--")


async def related_pieces(
    boundary: str,
    document: bytes,
    parts: Sequence[AttachmentPart],
    bodies: AsyncIterator[AsyncIterator[bytes]],
) -> AsyncIterator[bytes]:
    """What `write_related` writes, piece by piece, of attachments that are still to come: `bodies` gives them
    in the order of `parts`, and only as fast as they are taken."""
    delimiter = f"\r\n--{boundary}".encode()
    yield delimiter[2:] + _JSON_HEAD + document + delimiter
    ahead = iter(parts)
    async for body in bodies:
        yield next(ahead).head()
        async for piece in body:
            yield piece
        yield delimiter
    yield b"--"


async def bodies_of(parts: Sequence[AttachmentPart]) -> AsyncIterator[AsyncIterator[bytes]]:
    """The bodies of parts that are at hand, as `related_pieces` takes them."""
    for part in parts:
        yield _pieces(part)


async def _pieces(part: AttachmentPart) -> AsyncIterator[bytes]:
    for chunk in part.chunks():
        yield chunk
        await asyncio.sleep(0)  # reading a disk is quick: others must have their turn


class MixedWriter:
    """A multipart/mixed body: documents (with attachments: each a multipart/related inside), and errors.

    open_revs and _bulk_get frame theirs a little differently; `bulk` has _bulk_get's: a line break before
    the first delimiter and after the last one, headers that name document and revision, and on request
    another `kind`.
    """

    def __init__(self, write: Write, *, bulk: bool = False, kind: str = "mixed") -> None:
        self._kind = kind
        self.boundary = ("--" if bulk else "") + new_boundary()
        self._inner = ("--" if bulk else "") + new_boundary()
        self._write = write
        self._bulk = bulk
        self._delimiter = f"\r\n--{self.boundary}".encode()
        self._begun = bulk

    @property
    def content_type(self) -> str:
        return f'multipart/{self._kind}; boundary="{self.boundary}"'

    async def document(self, doc_id: str, rev: str, document: bytes, parts: Sequence[AttachmentPart]) -> None:
        """One revision; without parts it is plain JSON."""
        if not parts:
            await self.part(_JSON_HEAD)
            await self._write(document)
            return
        if self._bulk:
            head = (
                f"\r\nX-Doc-Id: {header_text(doc_id)}\r\nX-Rev-Id: {rev}"
                f"\r\nContent-Type: multipart/related; boundary={self._inner}\r\n\r\n"
            )
        else:
            head = f"\r\nContent-Type: {related_type(self._inner)}\r\n\r\n"
        await self.part(head.encode())
        await write_related(self._write, self._inner, document, parts)

    async def error(self, body: bytes) -> None:
        """A revision that can't be given, told as JSON."""
        await self.part(_ERROR_HEAD)
        await self._write(body)

    async def part(self, head: bytes) -> None:
        """Begin a part; `head` begins with a line break and ends with an empty line."""
        await self._write((self._delimiter if self._begun else self._delimiter[2:]) + head)
        self._begun = True

    async def end(self) -> None:
        """The closing delimiter."""
        await self._write(self._delimiter + (b"--\r\n" if self._bulk else b"--"))


def is_related(content_type: str | None) -> bool:
    """Whether a PUT of a document brings its attachments along (compared as CouchDB does)."""
    return content_type is not None and content_type.startswith("multipart/related;")


def _boundary(content_type: str) -> bytes:
    header = Message()
    header["Content-Type"] = content_type
    boundary = header.get_boundary()
    if not boundary:
        raise BadRequest("the multipart Content-Type has no boundary")
    return boundary.encode("utf-8", "surrogateescape")


def _headers(head: bytes) -> dict[str, str]:
    headers = {}
    for line in head.decode("utf-8", "replace").split("\r\n"):
        if not line:
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("bad part header")
        headers[name.strip().lower()] = value.strip()
    return headers


def _media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def header_text(text: str) -> str:
    """Text that can't end the header line it stands in."""
    return text.replace("\r", "%0D").replace("\n", "%0A")


# --- stored revisions as such streams -----------------------------------------------------------------------


def as_related(
    database: Database,
    revision: Revision,
    *,
    revs: bool,
    meta: Meta = (),
    atts_since: Sequence[Rev] | None = None,
) -> tuple[bytes, list[AttachmentPart]]:
    """A document whose attachments follow as parts, but for those that `atts_since` says the receiver has."""
    included = newer_than(revision, atts_since)

    def members(info: AttachmentInfo) -> dict[str, Any]:
        how = {"length": info.identity_length, "follows" if included(info) else "stub": True}
        return document.attachment_members(info, how, encoding_info=True)

    text = document.render(revision, revs=revs, meta=meta, attachment=members)
    parts = [
        AttachmentPart(
            info.name, info.content_type, info.length, info.encoding, partial(_stored, database, info)
        )
        for info in revision.attachments
        if included(info)
    ]
    return text, parts


def newer_than(revision: Revision, known: Sequence[Rev] | None) -> Callable[[AttachmentInfo], bool]:
    """Which attachments are newer than the newest of the receiver's revisions that this one descends from."""
    if known is None:
        return lambda _info: True
    since = next((rev.generation for rev in revision.path if rev in known), 0)
    return lambda info: info.revpos > since


def _stored(database: Database, info: AttachmentInfo) -> Iterator[bytes]:
    with database.snapshot() as snapshot:
        source = snapshot.blob(info)
    with source:
        yield from source.chunks()
