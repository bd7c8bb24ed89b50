"""/{db}/_conflicts: documents in conflict, one of them with all that merging it takes, what was resolved.

    GET  /{db}/_conflicts                        which there are; `statistics=true` counts them all
    GET  /{db}/_conflicts/{docid}                tree, leaves, merge bases and bodies
    POST /{db}/_conflicts/{docid}/_merge         what a three-way merge would give: {"rules": {...}}
    POST /{db}/_conflicts/{docid}                resolve: {"leaves": [...], "document" or "pick" or ...}
    POST /{db}/_conflicts/{docid}/_undo          undo a resolution: {"resolution": number}
    GET  /{db}/_conflicts/{docid}/_resolutions   what was resolved of it, by whom, if it can be undone
    GET  /{db}/_conflicts/_resolutions           the same of all documents
    POST /{db}/_conflicts/_missing_bases         whose bodies are lacking for merging: {"ids": [...]}
    POST /{db}/_conflicts/_bases                 these bodies, from a peer that has them: {"docs": [...]}
    ...  /{db}/_conflicts/_resolvers, _resolve   see resolvers.py

CouchDB has no such thing: `_conflicts` is no document's id there, and it says so. An id may have its slashes
escaped or not. docs/conflicts.md explains the members.

What must stay true here: who may read a document may look into its conflict, who may write it may resolve
it, under the same limits and validation functions; bodies are read a few at a time, in short snapshots.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from aiohttp import web

from couchlite import base_bodies, document, resolution_log
from couchlite.conflicts import PAGE_ROWS, Branch, ConflictCounts, ConflictRow, Inspection
from couchlite.document import Edit
from couchlite.errors import (
    BadRequest,
    CouchliteError,
    IllegalDocumentId,
    MethodNotAllowed,
    NotFound,
    QueryParseError,
    TooLarge,
)
from couchlite.jsontext import dumps
from couchlite.landing import landed
from couchlite.merging import Merged, Rules
from couchlite.proposals import Sides, describe_clash
from couchlite.resolution_log import Resolution, time_text
from couchlite.resolutions import DELETE, Plan, check_leaves
from couchlite.resolving import SIZE_MAX_BYTES
from couchlite.revision import Rev
from couchlite.revtree import Node
from couchlite.security import check_admin

from . import resolvers, response, system_documents
from .documents import fairly
from .listings import ALL, id_range
from .request import Request
from .resolvers import known_members
from .response import Stream
from .submission import carry_out, read_document, read_documents, refusals
from .values import boolean, is_text, positive_integer
from .view_options import ViewOptions, read_options

PAGE_BODIES = 32
PAGE_BYTES = 4 << 20
"""So many bodies are read in one snapshot, and none more once they are that large together."""
RESOLUTIONS_LIMIT = 100
RESOLUTIONS_LIMIT_MAX = 1_000
NAME_MAX = 100
"""Characters in the name of what a resolution was made by."""

_SEPARATOR = b",\r\n"


def reader(request: Request) -> None:
    """Guard: members; where documents are hidden from some of these, only who sees all."""
    database = request.database()
    if not request.principal.is_admin and system_documents.concerns(request):
        check_admin(database.security, request.principal)


async def get(request: Request) -> web.StreamResponse:
    """Any of the addresses that are read."""
    match request.segments[2:]:
        case []:
            return await _list(request)
        case ["_resolutions"]:
            return await _resolutions(request, None)
        case ["_resolvers"]:
            return await resolvers.get(request)
        case [*names, "_resolutions"]:
            return await _resolutions(request, _id(names))
        case names:
            return await _show(request, _id(names))


async def post(request: Request) -> web.StreamResponse:
    """Any of the addresses that change something."""
    request.require_json_type()
    match request.segments[2:]:
        case []:
            raise BadRequest("POST needs a document's id: /{db}/_conflicts/{docid}")
        case ["_missing_bases"]:
            return await _missing_bases(request)
        case ["_bases"]:
            return await _bases(request)
        case ["_resolve"]:
            return await resolvers.resolve_all(request)
        case [*names, "_merge"]:
            return await _merge(request, _id(names))
        case [*names, "_undo"]:
            return await _undo(request, _id(names))
        case names:
            return await _resolve(request, _id(names))


async def put(request: Request) -> web.StreamResponse:
    """The one address that is written to."""
    if request.segments[2:] != ["_resolvers"]:
        raise MethodNotAllowed("GET,HEAD,POST")
    return await resolvers.put(request)


def _id(names: Sequence[str]) -> str:
    """:raises IllegalDocumentId:"""
    doc_id = "/".join(names)
    if not is_text(doc_id):
        raise IllegalDocumentId("Document id must be valid UTF-8")
    document.validate_id(doc_id)
    return doc_id


# --- the list


async def _list(request: Request) -> web.StreamResponse:
    options = await read_options(request)
    if options.keys is not None or options.include_docs:
        raise QueryParseError("`keys` and `include_docs` are not supported here")
    with_statistics = _flag(request, "statistics")
    stream = Stream(request)
    await stream.write(b"{")
    if with_statistics:
        await stream.write(b'"statistics":%b,' % dumps(await _statistics(request)))
    await stream.write(b'"rows":[')
    separator = b"\r\n"
    async for row in _rows(request, options):
        await stream.write_all((separator, dumps(_row(row))))
        separator = _SEPARATOR
    return await stream.end(b"\r\n]}\n")


async def _rows(request: Request, options: ViewOptions) -> Any:
    start, stop = id_range(options, ALL)
    reverse, skip, left = options.descending, options.skip, options.limit
    while left > 0:
        with request.database().snapshot() as snapshot:
            page = snapshot.conflicts(start, stop, reverse=reverse, limit=min(skip + left, PAGE_ROWS))
        for row in page.rows[skip : skip + left]:
            yield row
        left -= len(page.rows[skip : skip + left])
        skip = max(0, skip - len(page.rows))
        if page.resume is None:
            return
        start, stop = (start, page.resume) if reverse else (page.resume, stop)
        await asyncio.sleep(0)


def _row(row: ConflictRow) -> dict[str, Any]:
    return {
        "id": row.id,
        "rev": row.rev.text,
        "leaves": row.leaves,
        "since": time_text(row.since_ms),
        "size": row.size,
    }


async def _statistics(request: Request) -> dict[str, Any]:
    counts = ConflictCounts()
    at: bytes | None = b""
    while at is not None:
        with request.database().snapshot() as snapshot:
            page = snapshot.conflicts(at)
        counts.add(page.rows)
        at = page.resume
        await asyncio.sleep(0)
    shown = asdict(counts)
    for name in ("oldest", "newest"):
        shown[name] = time_text(shown.pop(f"{name}_ms"))
    return shown


# --- one document


async def _show(request: Request, doc_id: str) -> web.StreamResponse:
    revs = _revs(request.query_json("leaves"), "leaves") if request.query_value("leaves") else []
    with_docs = _flag(request, "include_docs", default=True)
    with request.database().snapshot() as snapshot:
        found = snapshot.inspect(doc_id)
    leaves = found.choose(revs) if revs else found.leaves
    winner = leaves[:1]
    bases = [None if leaf in winner else found.merge_base([*winner, leaf]) for leaf in leaves]
    ancestor = found.common_ancestor(leaves) if len(leaves) > 1 else None
    base = found.merge_base(leaves) if len(leaves) > 1 else None
    head = {
        "id": doc_id,
        "rev": found.document.head.rev.decode(),
        "since": time_text(found.since_ms),
        "common_ancestor": _text(ancestor),
        "base": _text(base),
    }
    stream = Stream(request)
    write = fairly(stream)
    await stream.write(dumps(head)[:-1] + b',"leaves":[')
    separator = b"\r\n"
    texts = _docs(request, found, leaves) if with_docs else iter([])
    for leaf, leaf_base in zip(leaves, bases, strict=True):
        members = {"rev": leaf.rev.text, "size": leaf.info.size}
        if leaf not in winner:
            members["base"] = _text(leaf_base)
        await stream.write(separator + dumps(members)[:-1])
        if with_docs:
            await write(b',"doc":' + next(texts))
        await stream.write(b"}")
        separator = _SEPARATOR
    await stream.write(b'\r\n],"bases":{')
    if with_docs:
        needed = dict.fromkeys(node for node in (base, *bases) if node is not None)
        separator = b"\r\n"
        for node, text in zip(needed, _docs(request, found, needed), strict=True):
            await write(b"%b%b:%b" % (separator, dumps(node.rev.text), text))
            separator = _SEPARATOR
    await stream.write(
        b'},"deleted_leaves":%b,"branches":[' % dumps([leaf.rev.text for leaf in found.deleted_leaves])
    )
    separator = b"\r\n"
    for branch in found.branches():
        await stream.write_all((separator, dumps(_branch(branch))))
        separator = _SEPARATOR
    return await stream.end(b"\r\n]}\n")


def _docs(request: Request, found: Inspection, nodes: Iterable[Node]) -> Iterator[bytes]:
    """The JSON text of each revision, or null where its body has gone meanwhile."""
    waiting = deque(nodes)
    while waiting:
        texts: list[bytes] = []
        size = 0
        with request.database().snapshot() as snapshot:
            while waiting and len(texts) < PAGE_BODIES and size < PAGE_BYTES:
                node = waiting.popleft()
                try:
                    revision = snapshot.kept_revision(found.document, node)
                except CouchliteError:
                    revision = None
                texts.append(b"null" if revision is None else document.render(revision))
                size += len(texts[-1])
        yield from texts


def _branch(branch: Branch) -> dict[str, Any]:
    return {
        "leaf": branch.leaf.text,
        "deleted": branch.deleted,
        "parent": None if branch.parent is None else branch.parent.text,
        "revs": [{"rev": rev.text, "status": status} for rev, status in branch.revs],
    }


# --- merging and resolving


async def _merge(request: Request, doc_id: str) -> web.StreamResponse:
    body = await known_members(request, "rules", "only")
    sides, merged = await _merged(request, doc_id, Rules.parse(body.get("rules", {})), _chosen(body))
    return response.json(request, 200, await asyncio.to_thread(_proposal, doc_id, sides, merged))


def _proposal(doc_id: str, sides: Sides, merged: Merged) -> bytes:
    proposal = {
        "id": doc_id,
        "leaves": [rev.text for rev in sides.seen],
        "merged": [rev.text for rev in sides.revs],
        "base": None if sides.base_rev is None else sides.base_rev.text,
        "document": None if merged.deleted else merged.document,
        "clashes": [describe_clash(clash, sides.revs) for clash in merged.clashes],
    }
    return dumps(proposal)


async def _merged(request: Request, doc_id: str, rules: Rules, chosen: Sequence[Rev]) -> tuple[Sides, Merged]:
    database = request.database()

    def run() -> tuple[Sides, Merged]:
        with database.snapshot() as snapshot:
            found = snapshot.inspect(doc_id)
            leaves = found.choose(chosen) if chosen else found.leaves
            if sum(leaf.info.size for leaf in leaves) > SIZE_MAX_BYTES:
                raise TooLarge(f"The leaves are larger than {SIZE_MAX_BYTES >> 20} MiB together.")
            sides = snapshot.sides(doc_id, chosen)
        return sides, sides.merge(rules)

    return await asyncio.to_thread(run)


async def _resolve(request: Request, doc_id: str) -> web.StreamResponse:
    body = await known_members(request, "leaves", "only", "using", *_CONTENTS)
    chosen = _chosen(body)
    seen = await asyncio.to_thread(_revs, body.get("leaves"), "leaves")
    given = [name for name in _CONTENTS if name in body]
    if len(given) != 1:
        raise BadRequest(f"One of {', '.join(_CONTENTS)} says what becomes of the leaves.")
    content: Edit | Rev | None
    database = request.database()
    if "rules" in body:
        with database.snapshot() as snapshot:
            found = snapshot.inspect(doc_id)
        await asyncio.to_thread(check_leaves, found, seen)
        sides, merged = await _merged(request, doc_id, Rules.parse(body["rules"]), chosen)
        content = sides.content(merged)
    else:
        content = _content(request, body, doc_id)
    means, name = _means(body, _CONTENTS[given[0]]), request.principal.name

    def make_plan() -> Plan:
        with database.snapshot() as snapshot:
            return snapshot.plan_resolution(doc_id, seen, content, chosen=chosen, using=means, by=name)

    return _resolved(request, await carry_out(request, await asyncio.to_thread(make_plan)))


_CONTENTS = {"document": "document", "rules": "three-way", "pick": "pick", "delete": "delete"}
"""What may become of leaves, and what the record says of it."""


def _content(request: Request, body: dict[str, Any], doc_id: str) -> Edit | Rev | None:
    if "document" in body:
        return read_document(request, body["document"], doc_id)
    if "pick" in body:
        return Rev.parse(body["pick"])
    if body["delete"] is not True:
        raise BadRequest("`delete` must be true.")
    return DELETE


def _chosen(body: dict[str, Any]) -> list[Rev]:
    return _revs(body["only"], "only") if "only" in body else []


def _means(body: dict[str, Any], default: str) -> str:
    using = body.get("using", default)
    if not isinstance(using, str) or not 0 < len(using) <= NAME_MAX:
        raise BadRequest(f"`using` must be a name of at most {NAME_MAX} characters.")
    return using


async def _undo(request: Request, doc_id: str) -> web.StreamResponse:
    number = (await known_members(request, "resolution")).get("resolution")
    if not isinstance(number, int) or isinstance(number, bool):
        raise BadRequest("`resolution` must be the number of a resolution.")
    database, name = request.database(), request.principal.name

    def make_plan() -> Plan:
        with database.snapshot() as snapshot:
            return snapshot.plan_undo(number, by=name)

    plan = await asyncio.to_thread(make_plan)
    if plan.id != doc_id:
        raise NotFound(f"There is no record of a resolution {number} of this document.")
    return _resolved(request, await carry_out(request, plan))


def _resolved(request: Request, done: Resolution) -> web.StreamResponse:
    answer = {"ok": True, "id": done.id, "rev": done.into.text, "resolution": done.number}
    return response.json(request, 201, answer)


# --- what a replicator brings along


async def _missing_bases(request: Request) -> web.StreamResponse:
    ids = (await known_members(request, "ids")).get("ids")
    if not isinstance(ids, list) or not all(isinstance(doc_id, str) for doc_id in ids):
        raise BadRequest("`ids` must be a list of document ids.")
    missing: dict[str, list[Rev]] = {}
    for at in range(0, len(ids), PAGE_ROWS):
        with request.database().snapshot() as snapshot:
            missing |= snapshot.lacking_bases(ids[at : at + PAGE_ROWS])
        await asyncio.sleep(0)
    shown = {doc_id: [rev.text for rev in revs] for doc_id, revs in missing.items()}
    return response.json(request, 200, {"missing": shown})


async def _bases(request: Request) -> web.StreamResponse:
    docs = (await known_members(request, "docs")).get("docs")
    if not isinstance(docs, list):
        raise BadRequest("`docs` must be a list of documents.")
    edits = await asyncio.to_thread(read_documents, request, docs)
    if not all(edit.path for edit in edits):
        raise BadRequest("Each document needs its revision.")
    proposed = await asyncio.to_thread(base_bodies.judged, edits)
    refused = await refusals(request.app, request.database(), request.principal, proposed, new_edits=False)
    edits = [edit for edit, refusal in zip(edits, refused, strict=True) if refusal is None]
    stored = await landed(await asyncio.to_thread(request.database().submit_bases, edits))
    return response.json(request, 201, {"ok": True, "stored": stored})


# --- the record


async def _resolutions(request: Request, doc_id: str | None) -> web.StreamResponse:
    limit = min(_count(request, "limit", RESOLUTIONS_LIMIT), RESOLUTIONS_LIMIT_MAX)
    before = _count(request, "before", 1 << 63)
    with request.database().snapshot() as snapshot:
        entries = snapshot.resolutions(doc_id=doc_id, before=before, limit=limit)
    stream = Stream(request)
    await stream.write(b'{"rows":[')
    separator = b"\r\n"
    for entry in entries:
        with request.database().snapshot() as snapshot:
            obstacle = snapshot.undo_obstacle(entry)
        await stream.write_all((separator, dumps(resolution_log.describe(entry, obstacle))))
        separator = _SEPARATOR
        await asyncio.sleep(0)
    return await stream.end(b"\r\n]}\n")


# --- small things


def _revs(value: Any, name: str) -> list[Rev]:
    if not isinstance(value, list) or not value:
        raise BadRequest(f"`{name}` must be a list of revisions.")
    return [Rev.parse(rev) for rev in value]


def _text(node: Node | None) -> str | None:
    return None if node is None else node.rev.text


def _flag(request: Request, name: str, *, default: bool = False) -> bool:
    value = request.query_value(name)
    return default if value is None else boolean(value)


def _count(request: Request, name: str, default: int) -> int:
    value = request.query_value(name)
    return default if value is None else positive_integer(value)
