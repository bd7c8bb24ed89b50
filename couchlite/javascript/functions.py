"""What can be asked of the functions in design documents, and what becomes of what they throw.

What a validation function throws by way of `forbidden` and `unauthorized` becomes that error. Everything else
that goes wrong in a function is, as in CouchDB, an error with status 500 and the name and the text of what
was thrown, or `os_process_error` if it didn't end by itself; it is logged with the document's id. What a
function logs is logged, too.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from ..errors import (
    BadRequest,
    CouchliteError,
    InternalError,
    NotFound,
)
from ..jsontext import dumps, loads
from .answers import (
    Answer,
    Row,
    error_of,
    flags,
    judgements,
    loss,
    object_in,
    reductions,
    refusal_of_thrown,
    resolutions,
    rows,
)
from .child import (
    COMPILE,
    FILTER,
    FILTER_VIEW,
    MAP,
    REDUCE,
    RESOLVE,
    REWRITE,
    SHOW,
    UPDATE,
    VALIDATE,
)
from .design import Design
from .list_run import ListRun
from .pool import ChildPool
from .process import ChildLost, Limits

# What is sent at a time. A child holds a batch several times over: as text and as values.
BATCH_DOCUMENTS_MAX = 500
BATCH_BYTES_MAX = 1024 * 1024

Document = bytes | dict[str, Any]
"""The JSON text of an object, or the object."""

Group = tuple[Sequence[bytes], Sequence[bytes], Sequence[bytes]]
"""What is to be reduced, in order: rows, partial reductions, rows; as JSON texts."""
# What CouchDB sends around rows, and how much less than our text for each of them.
_REDUCE_FRAME_LENGTH = 17
_ROW_SURPLUS_LENGTH = 16

_T = TypeVar("_T")
# What may be exceeded by what was kept from earlier calls.
_MEMORY = ("memory", "null", "process")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Function:
    design: Design
    path: tuple[str, ...]

    def __str__(self) -> str:
        return f"{'/'.join(self.path)} of {self.design.id}"


class FunctionPool:
    """Runs functions of design documents, for one event loop; to be closed there, too."""

    def __init__(self, limits: Limits | Callable[[], Limits] | None = None) -> None:
        """:param limits: may be a function, for limits that change."""
        fixed = Limits() if limits is None else limits
        self._limits = fixed if callable(fixed) else lambda: fixed
        self._children = ChildPool(self._limits)

    @property
    def processes_started(self) -> int:
        return self._children.started

    async def filter_docs(
        self, design: Design, name: str, documents: Sequence[Document], request: Document
    ) -> list[bool]:
        """Which of the documents the filter function of that name lets pass.

        :param documents: with `_rev`, `_revisions` and `_deleted`, as CouchDB gives them to filters.
        :param request: CouchDB's request object.
        """
        function = _Function(design, ("filters", name))
        tail = b',"req":' + _text(request)
        texts = [_text(document) for document in documents]
        return await self._ask_of_each(function, FILTER, b"docs", texts, tail, documents, flags)

    async def filter_view(self, design: Design, view: str, documents: Sequence[Document]) -> list[bool]:
        """For which of the documents the map function of a view emits something."""
        function = _Function(design, ("views", view, "map"))
        texts = [_text(document) for document in documents]
        return await self._ask_of_each(function, FILTER_VIEW, b"docs", texts, b"", documents, flags)

    async def validate(
        self,
        design: Design,
        new_document: Document,
        old_document: Document | None,
        user_context: Document,
        security: Document,
    ) -> None:
        """Let the validation function judge a document that is to be stored.

        :param new_document: with `_rev` and `_revisions`. :param old_document: what it follows, likewise.
        :raises Forbidden: or Unauthorized, if the function says so.
        """
        [refusal] = await self.refusals(design, [(new_document, old_document)], user_context, security)
        if refusal is not None:
            raise refusal

    async def refusals(
        self,
        design: Design,
        pairs: Sequence[tuple[Document, Document | None]],
        user_context: Document,
        security: Document,
    ) -> list[CouchliteError | None]:
        """As `validate`, of many documents of one user: for each what it is refused with."""
        function = _Function(design, ("validate_doc_update",))
        texts = [b"[%b,%b]" % (_text(new), b"null" if old is None else _text(old)) for new, old in pairs]
        # As texts in the text: each judgement gets values of its own.
        tail = b',"user":%b,"security":%b' % (_quoted(user_context), _quoted(security))
        documents = [new for new, _old in pairs]
        found = await self._ask_of_each(function, VALIDATE, b"pairs", texts, tail, documents, judgements)
        return [
            None if judgement is None else self._refusal(function, judgement, document)
            for judgement, document in zip(found, documents, strict=True)
        ]

    async def map_docs(self, design: Design, documents: Sequence[bytes]) -> list[list[Row]]:
        """The rows that the function `map` of a design emits for each of the documents.

        A document for which it throws has none; that is logged.
        """
        function = _Function(design, ("map",))
        return await self._ask_of_each(function, MAP, b"docs", documents, b"", documents, rows)

    async def reduce_groups(
        self, design: Design, groups: Sequence[Group], *, finish: bool, limit: bool
    ) -> list[Any]:
        """The reduction of each group by the function `reduce` of a design.

        :param finish: the results are to be shown: the function sees each of them once more.
        :param limit: a result must be shorter than what went into it; else it is an object with one member,
            `reduce_overflow_error`.
        """
        function = _Function(design, ("reduce",))
        tail = b',"finish":%b,"limit":%b' % (dumps(finish), dumps(limit))
        texts = [_group_text(group) for group in groups]
        return await self._ask_of_each(function, REDUCE, b"groups", texts, tail, (), reductions)

    async def resolve(
        self, design: Design, name: str, base: Document | None, leaves: Sequence[Document]
    ) -> Any:
        """What the resolver function of that name makes of a conflict; None if it leaves it alone.

        :param leaves: the winner first.
        """
        function = _Function(design, ("resolvers", name))
        base_text = b"null" if base is None else _text(base)
        conflict = b"[%b,[%b]]" % (base_text, b",".join(map(_text, leaves)))
        [found] = await self._ask_of_each(
            function, RESOLVE, b"conflicts", [conflict], b"", leaves[:1], resolutions
        )
        return found

    async def show(
        self, design: Design, name: str, document: Document | None, request: dict[str, Any]
    ) -> dict[str, Any]:
        """CouchDB's response object, {"code", "headers", "body" | "json" | "base64"}, that the show function
        of that name has for a document.

        :param document: with `_revisions`, and `_conflicts` if there are any. :param request: CouchDB's
            request object; its `id` is not None if it names a document, here or not.
        """
        text = b'{"doc":%b,"req":%b}' % (_text_or_null(document), dumps(request))
        answer = await self._ask_once(_Function(design, ("shows", name)), SHOW, text, request["id"])
        return object_in(answer, "response")

    async def update(
        self, design: Design, name: str, document: Document | None, request: dict[str, Any]
    ) -> tuple[Any, dict[str, Any]]:
        """What the update function of that name makes of a document, to be stored if it is an object, and
        its response object; parameters as for `show`."""
        text = b'{"doc":%b,"req":%b}' % (_text_or_null(document), dumps(request))
        answer = await self._ask_once(_Function(design, ("updates", name)), UPDATE, text, request["id"])
        return answer.get("doc"), object_in(answer, "response")

    async def rewrite(self, design: Design, request: dict[str, Any]) -> Any:
        """What the function `rewrites` makes of a request, an object if it knows what it should; None if
        there is nothing behind the request's path."""
        text = b'{"req":%b}' % dumps(request)
        answer = await self._ask_once(_Function(design, ("rewrites",)), REWRITE, text, None)
        return answer.get("rewrite")

    @asynccontextmanager
    async def list_rows(self, design: Design, name: str) -> AsyncIterator[ListRun]:
        """A run of the list function of that name, which has a process to itself until it is over."""
        function = _Function(design, ("lists", name))
        async with self._children.hold(design.scope, design.program(*function.path)) as child:
            yield ListRun(
                child,
                heard=lambda answer: _log_lines(function, answer),
                failure=lambda answer: self._failure(function, answer, "some rows"),
            )

    async def check_views(self, design: Design) -> None:
        """Compile the functions of all views.

        :raises BadRequest: one can't be compiled. :raises NotFound: one has no text.
        """
        for kind, view in design.view_functions():
            answer = await self._ask(_Function(design, ("views", view, kind)), COMPILE, b"null")
            if "compiled" not in answer:
                if not design.find("views", view, kind):
                    raise NotFound("missing function")
                problem = answer["reason"] if "error" in answer else self._excess(answer)
                reason = f"Compilation of the {kind} function in the '{view}' view failed: {problem}"
                raise BadRequest(reason, error="compilation_error")

    async def close(self) -> None:
        """End the processes."""
        self._children.close()

    async def _ask_of_each(
        self,
        function: _Function,
        operation: int,
        name: bytes,
        texts: Sequence[bytes],
        tail: bytes,
        documents: Sequence[Document],
        results_in: Callable[[Answer], Sequence[_T]],
    ) -> list[_T]:
        """Ask `{name: [texts ...] tail}` in batches, and collect the result for each text.

        What took too much memory, or its process with it, is asked about again, one by one and of a function
        that was loaded anew: it may have been too much only together, or with what was kept in globals.
        """
        results: list[_T] = []
        one_by_one_until, failed_at = 0, -1
        while len(results) < len(texts):
            start = len(results)
            end = start + 1 if start < one_by_one_until else _batch_end(texts, start)
            request = b'{"%b":[%b]%b}' % (name, b",".join(texts[start:end]), tail)
            answer = await self._ask(function, operation, request)
            found = results_in(answer)
            if 0 < len(found) <= end - start:
                results += found
            elif answer.get("exceeded") in _MEMORY and (start, end) != (failed_at, start + 1):
                one_by_one_until, failed_at = max(end, one_by_one_until), start
            else:
                raise self._failure(function, answer, _which(documents[start:end], answer.get("at")))
        return results

    async def _ask_once(self, function: _Function, operation: int, text: bytes, doc_id: str | None) -> Answer:
        """Ask what is about one document at most. :raises CouchliteError: there is no answer."""
        answer = await self._ask(function, operation, text)
        if answer.get("exceeded") in _MEMORY:  # maybe only with what was kept in globals, which is gone now
            answer = await self._ask(function, operation, text)
        if "error" in answer or "exceeded" in answer:
            raise self._failure(function, answer, "no document" if doc_id is None else f"document {doc_id}")
        return answer

    async def _ask(self, function: _Function, operation: int, text: bytes) -> Answer:
        design = function.design
        try:
            answer = await self._children.call(design.scope, design.program(*function.path), operation, text)
        except ChildLost as lost:
            return loss(lost)
        _log_lines(function, answer)
        return answer

    def _refusal(self, function: _Function, judgement: Answer, document: Document) -> CouchliteError | None:
        if "thrown" in judgement:
            return refusal_of_thrown(judgement["thrown"])
        return self._failure(function, judgement, _which([document], 0))

    def _failure(self, function: _Function, answer: Answer, which: str) -> CouchliteError:
        """The error for an answer without results, logged; `which` is what it would have been about."""
        if "error" in answer:
            failure = error_of(answer["error"], answer.get("reason"))
        else:
            reason = f"The function {function} {self._excess(answer)} for {which}."
            failure = InternalError(reason, error="os_process_error")
        where = answer.get("where", "")
        _log.warning("%s: %s failed for %s: %s %s", function.design.scope, function, which, failure, where)
        return failure

    def _excess(self, answer: Answer) -> str:
        match answer.get("exceeded"):
            case "time":
                return f"took more than {self._limits().time_s:g} s"
            case "memory":
                return f"took more than {self._limits().memory_bytes >> 20} MiB of memory"
            case "null":
                return "threw null, which is also what running out of memory looks like,"
            case "answer":
                return f"gave back more than {self._limits().answer_bytes >> 20} MiB"
            case "process":
                return f"brought its process down ({answer['reason']})"
            case _:
                return "gave an answer that makes no sense"


def _log_lines(function: _Function, answer: Answer) -> None:
    for line in answer.get("log", ()):
        _log.info("%s: %s: %s", function.design.scope, function, line)


def _text_or_null(document: Document | None) -> bytes:
    return b"null" if document is None else _text(document)


def _text(document: Document) -> bytes:
    return document if isinstance(document, bytes) else dumps(document)


def _quoted(document: Document) -> bytes:
    return dumps(_text(document).decode())


def _batch_end(texts: Sequence[bytes], start: int) -> int:
    """Where a batch ends that begins at `start`; it has one text at least."""
    end = min(start + BATCH_DOCUMENTS_MAX, len(texts))
    size = 0
    for index in range(start, end):
        size += len(texts[index])
        if size > BATCH_BYTES_MAX and index > start:
            return index
    return end


def _group_text(group: Group) -> bytes:
    left, partials, right = group
    quoted = dumps([partial.decode() for partial in partials])
    sizes = (_size(left), _size(right))
    return b"[[%b],%b,[%b],%d,%d]" % (b",".join(left), quoted, b",".join(right), *sizes)


def _size(rows: Sequence[bytes]) -> int:
    """Of the line by which CouchDB asks for a reduction."""
    return _REDUCE_FRAME_LENGTH + sum(map(len, rows)) - _ROW_SURPLUS_LENGTH * len(rows)


def _which(documents: Sequence[Document], index: object) -> str:
    if not documents:
        return "some rows"
    if len(documents) == 1:
        index = 0
    if not isinstance(index, int) or not 0 <= index < len(documents):
        return f"one of {len(documents)} documents"
    document = documents[index]
    value = loads(document) if isinstance(document, bytes) else document
    return f"document {value.get('_id')}"
