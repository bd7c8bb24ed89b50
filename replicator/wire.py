"""What goes over the wire between a replicator and a server, as text: addresses, and answers taken apart.

Pure functions; a server may answer anything, so each says what it makes of nonsense.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit, urlunsplit

from couchlite.jsontext import dumps
from couchlite.multipart import AttachmentPart

from .errors import PeerFailure
from .peer import Batch, Change, ChangesPage, ChangesQuery, Doc, Missing, Refusal, Seq, StreamedDoc

UNZIPPED_BYTES_MAX = 1 << 18
"""So much is unzipped at a time, however well it was compressed."""
_GZIP = 16 + zlib.MAX_WBITS
QUERY_BYTES_MAX = 5_000
"""What a list of revisions may take of an address; many servers and proxies end at 8,000 bytes."""


def address(url: str, path: str, query: Mapping[str, str] | None = None) -> str:
    """The address of `path` (escaped already) in the database at `url`, whose own query is kept."""
    parts = urlsplit(url)
    texts = [parts.query] if parts.query else []
    texts += [f"{quote(name)}={quote(value, safe='')}" for name, value in (query or {}).items()]
    whole = parts.path if not path else parts.path.rstrip("/") + "/" + path
    return urlunsplit((parts.scheme, parts.netloc, whole, "&".join(texts), ""))


def escape_id(doc_id: str) -> str:
    """A document's id as a path; the slash that belongs to the kind of a document stays."""
    for prefix in ("_design/", "_local/"):
        if doc_id.startswith(prefix):
            return prefix + quote(doc_id.removeprefix(prefix), safe="")
    return quote(doc_id, safe="")


def changes_query(since: Seq, query: ChangesQuery) -> tuple[dict[str, str], bytes | None]:
    """The query of a _changes request and, where it has to be a POST, its body."""
    asked = {"style": "main_only" if query.winners_only else "all_docs", "since": seq_text(since)}
    if query.doc_ids is not None:
        return asked | {"filter": "_doc_ids"}, dumps({"doc_ids": list(query.doc_ids)})
    if query.selector is not None:
        return asked | {"filter": "_selector"}, dumps({"selector": dict(query.selector)})
    if query.filter is None:
        return asked, None
    return filter_arguments(query) | asked | {"filter": query.filter}, None


def filter_arguments(query: ChangesQuery) -> dict[str, str]:
    """The arguments of a filter as the query of a request has them."""
    return {
        name: value if isinstance(value, str) else dumps(value).decode()
        for name, value in (query.query_params or {}).items()
    }


def seq_text(seq: Seq) -> str:
    """A sequence as it is sent: text as it is, anything else as JSON."""
    return seq if isinstance(seq, str) else dumps(seq).decode()


def changes_page(answer: Any) -> tuple[ChangesPage, int | None]:
    """A whole _changes answer, and how many changes it says are left.

    :raises PeerFailure: it is none.
    """
    if not isinstance(answer, dict) or not isinstance(answer.get("results"), list):
        raise PeerFailure("changes_req_failed", "the source's _changes is no changes feed")
    changes = [change for row in answer["results"] if (change := read_change(row)) is not None]
    last_seq = answer.get("last_seq", changes[-1].seq if changes else None)
    pending = answer.get("pending")
    return ChangesPage(changes, last_seq), pending if isinstance(pending, int) else None


def read_change(row: Any) -> Change | None:
    """A row of a feed; None for what is none, or has no id (ancient servers had such documents)."""
    if not isinstance(row, dict):
        return None
    doc_id, leaves = row.get("id"), row.get("changes")
    if not isinstance(doc_id, str) or not doc_id or not isinstance(leaves, list):
        return None
    return Change(row.get("seq"), doc_id, [leaf["rev"] for leaf in leaves])


def missing(answer: Any) -> list[Missing]:
    """An answer of _revs_diff. :raises PeerFailure:"""
    if not isinstance(answer, dict):
        raise PeerFailure("revs_diff_failed", "the target's _revs_diff answers no object")
    return [
        Missing(doc_id, diff.get("missing", ()), diff.get("possible_ancestors", ()))
        for doc_id, diff in answer.items()
    ]


def bulk_get_body(wanted: Sequence[Missing]) -> tuple[bytes, list[Missing]]:
    """The body of a _bulk_get, and what its results are about, in order: each revision has its own."""
    asked = [Missing(item.id, (rev,), item.ancestors) for item in wanted for rev in item.revs]
    docs = [
        {"id": item.id, "rev": item.revs[0], "atts_since": list(item.ancestors)}
        if item.ancestors
        else {"id": item.id, "rev": item.revs[0]}
        for item in asked
    ]
    # As CouchDB does, the options are in the body, too, for servers that look for them there.
    return dumps({"docs": docs, "latest": True, "revs": True, "attachments": False}), asked


def bulk_got(answer: Any, asked: Sequence[Missing]) -> Batch:
    """The documents of a _bulk_get; what isn't simply there is left to be asked for singly.

    :raises PeerFailure: it is no answer to what was asked.
    """
    results = answer.get("results") if isinstance(answer, dict) else None
    if not isinstance(results, list) or len(results) != len(asked):
        raise PeerFailure("bulk_get_failed", "the source's _bulk_get answers something else")
    docs: dict[tuple[str, str], Doc] = {}
    single: list[Missing] = []
    for item, result in zip(asked, results, strict=True):
        found = _ok_docs(result) if result.get("id") == item.id else None
        if found is None or any(value.get("_attachments") for value in found):
            single.append(item)
        else:
            docs |= {(item.id, value["_rev"]): Doc(item.id, value["_rev"], value=value) for value in found}
    return Batch(list(docs.values()), single)


def lacking_bases(answer: Any) -> list[Missing]:
    """An answer of _missing_bases."""
    missing = answer.get("missing") if isinstance(answer, dict) else None
    return [Missing(doc_id, revs) for doc_id, revs in missing.items()] if isinstance(missing, dict) else []


def bases_body(wanted: Sequence[Missing]) -> bytes:
    """The body of a _bulk_get for these very revisions."""
    return dumps({"docs": [{"id": item.id, "rev": rev} for item in wanted for rev in item.revs]})


def bases(answer: Any) -> list[Doc]:
    """The documents of a _bulk_get, as far as there are."""
    results = answer.get("results") if isinstance(answer, dict) else None
    found = [_ok_docs(result) or [] for result in results if isinstance(result, dict)] if results else []
    return [Doc(value["_id"], value["_rev"], value=value) for values in found for value in values]


def _ok_docs(result: Any) -> list[dict[str, Any]] | None:
    rows = result.get("docs")
    if not isinstance(rows, list) or not rows or not all("ok" in row for row in rows):
        return None
    return [row["ok"] for row in rows]


def open_revs_queries(wanted: Missing) -> list[dict[str, str]]:
    """The queries that together ask for all revisions of a document; no list makes an address too long."""
    since, _ = _fitting(wanted.ancestors)
    queries = []
    rest: Sequence[str] = wanted.revs
    while rest:
        revs, rest = _fitting(rest)
        query = {"revs": "true", "latest": "true", "open_revs": dumps(list(revs)).decode()}
        if since:
            query["atts_since"] = dumps(list(since)).decode()
        queries.append(query)
    return queries


def _fitting(revs: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """So many revisions as an address can take (one at least), and the others."""
    size = 0
    for at, rev in enumerate(revs):
        size += len(quote(rev, safe="")) + len("%22%2C%22")
        if size > QUERY_BYTES_MAX and at:
            return revs[:at], revs[at:]
    return revs, ()


def following_parts(value: Mapping[str, Any]) -> list[AttachmentPart]:
    """The attachments that a document says `follows` of, in order, with the lengths it announces."""
    parts = []
    for name, props in (value.get("_attachments") or {}).items():
        if props.get("follows"):
            encoding = props.get("encoding")
            length = props.get("encoded_length") if encoding else props.get("length")
            if not isinstance(length, int):
                raise PeerFailure("bad_attachment", f"attachment {name} comes without its length")
            content_type = props.get("content_type", "application/octet-stream")
            parts.append(AttachmentPart(name, content_type, length, encoding, tuple))
    return parts


def digests(value: Mapping[str, Any]) -> dict[str, str]:
    """Those of a document's attachments, by name."""
    stubs = (value.get("_attachments") or {}).items()
    return {name: props["digest"] for name, props in stubs if isinstance(props.get("digest"), str)}


def plain_stub(props: Mapping[str, Any]) -> dict[str, Any]:
    """What of a stub holds for the bytes when they are not encoded."""
    return {key: props[key] for key in ("content_type", "revpos", "length") if key in props}


def decoded(streamed: StreamedDoc) -> StreamedDoc:
    """The same with attachments that are not encoded."""
    value = streamed.doc.value
    attachments = dict(value["_attachments"])
    parts = []
    for part in streamed.parts:
        if part.encoding is not None:
            props = attachments[part.name]
            attachments[part.name] = plain_stub(props) | {"follows": True}
            part = AttachmentPart(part.name, part.content_type, props["length"], None, part.chunks)
        parts.append(part)
    doc = Doc(streamed.doc.id, streamed.doc.rev, value=value | {"_attachments": attachments})
    return StreamedDoc(doc, parts, _decoded_bodies(streamed))


async def _decoded_bodies(streamed: StreamedDoc) -> AsyncIterator[AsyncIterator[bytes]]:
    at = 0
    async for body in streamed.bodies:
        encoding = streamed.parts[at].encoding
        at += 1
        yield body if encoding is None else _unzipped(body)


async def _unzipped(body: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """:raises PeerFailure: it is damaged."""
    unzip = zlib.decompressobj(_GZIP)
    try:
        async for piece in body:
            while piece:
                yield unzip.decompress(piece, UNZIPPED_BYTES_MAX)
                piece = unzip.unconsumed_tail
        yield unzip.flush()
    except zlib.error as error:
        raise PeerFailure("bad_attachment", "an attachment is no gzip though it is said to be") from error


def refusals(answer: Any) -> list[Refusal]:
    """The rows of a _bulk_docs that tell of an error."""
    rows = answer if isinstance(answer, list) else []
    return [
        Refusal(str(row.get("id")), str(row.get("rev", "")), str(row["error"]), str(row.get("reason", "")))
        for row in rows
        if isinstance(row, dict) and "error" in row
    ]


def told(answer: Any, status: int) -> tuple[str, str]:
    """Error and reason of an answer."""
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        return answer["error"], str(answer.get("reason", ""))
    return "http_error", f"status {status}"
