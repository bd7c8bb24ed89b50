"""Partitions: /{db}/_partition/{name}, and what of a database can be asked of one of them alone.

Such an address is that of the whole database with `partition` in the query, and goes on as that.
Source: chttpd_db:handle_partition_req.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from aiohttp import web

from couchlite.errors import BadRequest, MethodNotAllowed, NotFound
from couchlite.partitions import check_has_partition, check_name

from . import response
from .access import member
from .request import Request

_OF_A_PARTITION = frozenset(("_all_docs", "_find", "_explain", "_index"))


async def info(request: Request) -> web.StreamResponse:
    """GET of a partition: what it holds."""
    database, name = request.database(), request.segments[2]
    counts, whole = database.partition_counts(name), database.state()
    share = counts.external_bytes / max(1, whole.external_bytes)
    return response.json(
        request,
        200,
        {
            "db_name": database.name,
            "sizes": {"active": round(share * whole.stored_bytes), "external": counts.external_bytes},
            "partition": name,
            "doc_count": counts.doc_count,
            "doc_del_count": counts.deleted_count,
        },
    )


def check_ids(request: Request, ids: Iterable[Any]) -> None:
    """:raises IllegalDocumentId: the database is partitioned, and there can be no document of such an id."""
    if request.database().is_partitioned:
        for doc_id in ids:
            if isinstance(doc_id, str):
                check_has_partition(doc_id)


def document_member(request: Request) -> None:
    """The guard of addresses of documents."""
    member(request)
    check_ids(request, (request.doc_id,))


def check_address(request: Request) -> None:
    """Whether a partition is named as it must be. :raises BadRequest: :raises MethodNotAllowed:"""
    names = request.segments[2:]
    if not names:
        raise BadRequest("invalid_partition_req")
    if len(names) == 1 and request.method not in ("GET", "HEAD"):
        if request.method == "POST" and names[0].startswith("_"):
            check_name(names[0])
        raise MethodNotAllowed("GET")
    if len(names) == 1:
        check_name(names[0])
    if not request.database().is_partitioned:
        raise BadRequest("database is not partitioned")
    check_name(names[0])


def turn_into_query(request: Request) -> None:
    """Let the address be that of the whole database, with the partition in the query.

    :raises NotFound: there is nothing of that name in a partition.
    """
    name, *rest = request.segments[2:]
    if request.query_value("partition") not in (None, name):
        raise BadRequest("Conflicting value for `partition` in query string")
    is_of_design = len(rest) > 2 and rest[0] == "_design" and rest[2].startswith("_")
    if rest[0] not in _OF_A_PARTITION and not is_of_design:
        raise NotFound()
    request.set_query_value("partition", name)
    request.segments = [request.segments[0], *rest]
