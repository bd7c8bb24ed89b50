"""Where the rows of views and listings go: into CouchDB's JSON, or to whoever else takes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from .documents import fairly
from .response import Stream

_SEPARATOR = b",\r\n"


class RowSink(Protocol):
    """Takes what a query finds, in order: its head, its rows, its end."""

    async def head(self, members: bytes) -> None:
        """:param members: the JSON of members that tell of all rows, such as `"total_rows":3,"offset":0`."""
        ...

    async def rows(self, rows: Sequence[bytes]) -> None:
        """Rows as JSON objects."""
        ...

    async def long_row(self, pieces: Iterable[bytes]) -> None:
        """A row that may not fit into memory."""
        ...

    async def end(self) -> None: ...


class JsonRows:
    """Writes `{head,"rows":[...]}`."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._separator = b""

    async def head(self, members: bytes) -> None:
        await self._stream.write(b'{%b%b"rows":[\r\n' % (members, b"," if members else b""))

    async def rows(self, rows: Sequence[bytes]) -> None:
        if rows:
            await self._stream.write_all((self._separator, _SEPARATOR.join(rows)))
            self._separator = _SEPARATOR

    async def long_row(self, pieces: Iterable[bytes]) -> None:
        await self._stream.write(self._separator)
        self._separator = _SEPARATOR
        write = fairly(self._stream)
        for piece in pieces:
            await write(piece)

    async def end(self) -> None:
        await self._stream.write(b"\r\n]}")
