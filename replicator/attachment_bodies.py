"""The bytes of attachments as they come from a server.

What must stay true here: a connection that is lost in the midst of an attachment costs what was on its way,
not what has come: the rest is asked for by its range. It is the rest of the same bytes only if the server
says so, by an entity tag that is the digest which the document announced; else the document begins again.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from urllib.parse import quote

from couchlite.errors import BadRequest
from couchlite.multipart import AttachmentPart, MultipartReader

from . import wire
from .errors import PeerFailure
from .http_client import Answer, HttpClient, Response
from .peer import Doc
from .retries import Backoff


class _Changed(Exception):
    """What the server has now can't be told to be the rest of what has come."""


class Bodies:
    """The attachments of a document that follow it, as StreamedDoc wants them.

    :param digests: of the attachments, by name, as the source's document has them.
    """

    def __init__(
        self, client: HttpClient, doc: Doc, parts: Sequence[AttachmentPart], digests: Mapping[str, str]
    ) -> None:
        self._client = client
        self._doc = doc
        self._parts = parts
        self._digests = digests

    async def of_multipart(self, path: str, reader: MultipartReader) -> AsyncIterator[AsyncIterator[bytes]]:
        """They follow in `reader`; once that is cut off, they are asked for one by one."""
        lost: PeerFailure | None = None
        for part in self._parts:
            body = _Body(self._client, self._doc, part, self._digests.get(part.name))
            body.failure = lost
            if lost is None:
                try:
                    found = await reader.next_part()
                except PeerFailure as error:
                    body.failure = error
                except BadRequest as error:
                    body.failure = self._client.lost("GET", path, error)
                else:
                    if found is None:
                        reason = f"attachments are missing in {wire.address(self._client.url, path)}"
                        raise PeerFailure("missing_attachment", reason)
                    body.first = self._client.told(path, reader.body())
            yield body.pieces()
            lost = lost or body.failure

    async def singly(self) -> AsyncIterator[AsyncIterator[bytes]]:
        """Each is asked for."""
        for part in self._parts:
            body = _Body(self._client, self._doc, part, self._digests.get(part.name))
            async with contextlib.aclosing(body.whole()) as first:
                body.first = first
                yield body.pieces()


class _Body:
    def __init__(self, client: HttpClient, doc: Doc, part: AttachmentPart, digest: str | None) -> None:
        self._client = client
        self._path = f"{wire.escape_id(doc.id)}/{quote(part.name, safe='')}"
        self._rev = doc.rev
        self._part = part
        self._digest = digest
        self._received = 0
        self.first: AsyncIterator[bytes] | None = None
        """What comes without being asked for."""
        self.failure: PeerFailure | None = None
        """Why that has ended early."""

    async def pieces(self) -> AsyncGenerator[bytes]:
        if self.first is not None:
            try:
                async for piece in self.first:
                    self._received += len(piece)
                    yield piece
            except PeerFailure as error:
                self.failure = error
        if self.failure is None:
            return
        backoff = Backoff(self._client.retries)
        while self._received < self._part.length:
            if self._digest is None or not await backoff.wait():
                raise self.failure
            before = self._received
            try:
                async with contextlib.aclosing(self._rest()) as rest:
                    async for piece in rest:
                        self._received += len(piece)
                        yield piece
            except PeerFailure as error:
                self.failure = error
            except _Changed:
                raise self.failure from None
            if self._received > before:
                backoff = Backoff(self._client.retries)

    async def whole(self) -> AsyncGenerator[bytes]:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity"}
        async with self._client.stream(
            "GET", self._path, query={"rev": self._rev}, headers=headers
        ) as response:
            if response.status != 200:
                raise self._client.failure("attachment_failed", Answer(response.status, None, 0))
            async for piece in response.content.iter_any():
                yield piece

    async def _rest(self) -> AsyncGenerator[bytes]:
        """What has not come yet. :raises _Changed:"""
        offset = self._received
        headers = {"Accept": "*/*", "Accept-Encoding": self._part.encoding or "identity"}
        if self._part.encoding is None and offset:
            headers["Range"] = f"bytes={offset}-"
        # Whoever waits for a slot may hold one, for the stream that was lost.
        async with self._client.stream(
            "GET", self._path, query={"rev": self._rev}, headers=headers, takes_slot=False, as_sent=True
        ) as response:
            if not self._is_the_same(response, offset):
                raise _Changed()
            to_skip = 0 if response.status == 206 else offset
            async for piece in response.content.iter_any():
                if to_skip < len(piece):
                    yield piece[to_skip:] if to_skip else piece
                to_skip = max(0, to_skip - len(piece))

    def _is_the_same(self, response: Response, offset: int) -> bool:
        length = self._part.length
        tag = response.headers.get("ETag", "").removeprefix("W/").strip('"')
        encoding = response.headers.get("Content-Encoding", "identity")
        if f"md5-{tag}" != self._digest or encoding != (self._part.encoding or "identity"):
            return False
        if response.status == 206:
            return response.headers.get("Content-Range") == f"bytes {offset}-{length - 1}/{length}"
        return response.status == 200 and response.content_length in (None, length)
