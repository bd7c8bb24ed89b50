"""List functions, which are given rows while they run."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import CouchliteError
from .answers import Answer, loss
from .child import LIST
from .pool import HeldChild
from .process import ChildLost


@dataclass(frozen=True, slots=True)
class Piece:
    """What a list function has for its client so far."""

    text: str
    head: dict[str, Any] | None
    """A response object; None if there is nothing new. It counts until the first text is sent."""
    wants_rows: bool
    is_last: bool


class ListRun:
    """A list function at work: `begin`, and after a piece that wants rows, `give`, else `go_on`, until the
    last piece.

    All of them raise a CouchliteError when the function fails.
    """

    def __init__(
        self,
        child: HeldChild,
        *,
        heard: Callable[[Answer], None],
        failure: Callable[[Answer], CouchliteError],
    ) -> None:
        """:param heard: is told each answer. :param failure: the error for one without a piece."""
        self._child = child
        self._heard = heard
        self._failure = failure

    async def begin(self, head: bytes, request: bytes) -> Piece:
        """:param head: the JSON object that tells of all rows. :param request: CouchDB's request object."""
        return await self._piece(self._child.call(LIST, b'{"head":%b,"req":%b}' % (head, request)))

    async def give(self, rows: Sequence[bytes]) -> Piece:
        """Let it have the next rows; none when there are no more."""
        return await self._piece(self._child.tell(LIST, b"[%b]" % b",".join(rows)))

    async def go_on(self) -> Piece:
        return await self._piece(self._child.next_answer())

    async def _piece(self, asked: Awaitable[Answer]) -> Piece:
        try:
            answer = await asked
        except ChildLost as lost:
            answer = loss(lost)
        self._heard(answer)
        text, head = answer.get("text"), answer.get("head")
        if not isinstance(text, str) or not isinstance(head, dict | None):
            raise self._failure(answer)
        wants = answer.get("wants")
        return Piece(text, head, wants == "rows", wants is None)
