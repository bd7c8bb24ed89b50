"""The application: every route on one screen, then how a request goes through them.

A request is split, answered if it is a CORS preflight, authenticated, routed, authorised by the guard of
its route, checked for its method and handed to one handler. The order decides which of two errors a client
sees; it is CouchDB's: a missing database before a wrong method, a lack of rights before both. aiohttp's
low-level server is used without its router and middlewares, which would cost a third of the speed.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from couchlite.accounts import Accounts
from couchlite.errors import (
    BadRequest,
    IllegalDocumentId,
    MethodNotAllowed,
    NotFound,
)
from couchlite.javascript import FunctionPool, Limits
from couchlite.server import Server

from . import (
    attachments,
    bulk,
    changes,
    cluster_setup,
    conflicts,
    cors,
    databases,
    db_updates,
    documents,
    errors,
    find,
    functions,
    listings,
    lists,
    local,
    mango_indexes,
    node,
    partitions,
    process_numbers,
    replication,
    replication_ledger,
    response,
    rewrites,
    root,
    scheduler,
    search,
    session,
    updates,
    utils,
    views,
)
from .access import (
    SYSTEM_DATABASES,
    administered_database,
    anyone,
    authenticated,
    database_admin,
    member,
    server_admin,
)
from .access_log import AccessLog
from .authentication import Authentication
from .metrics import Metrics
from .replication_service import Replications
from .request import Request
from .settings import Settings
from .values import is_text

# Who may use which of these addresses is written down in tests/web/test_access.py, in a table that names all.

Handler = Callable[[Request], Awaitable[web.StreamResponse]]
Guard = Callable[[Request], None]


@dataclass(frozen=True, slots=True)
class Route:
    """What one kind of address answers: who may, which methods, and the Allow text of its 405."""

    guard: Guard
    allow: str
    methods: dict[str, Handler]


# /{name}: the first segment alone decides. HEAD is GET.
SERVER_ROUTES = {
    "": Route(anyone, "GET,HEAD", {"GET": root.welcome}),
    "favicon.ico": Route(anyone, "GET,HEAD", {"GET": root.favicon}),
    "_session": Route(
        anyone,
        "GET,HEAD,POST,DELETE",
        {"GET": session.who_am_i, "POST": session.log_in, "DELETE": session.log_out},
    ),
    "_up": Route(anyone, "GET,HEAD", {"GET": root.up}),
    "_utils": Route(anyone, "GET,HEAD", {"GET": utils.get}),
    "_uuids": Route(anyone, "GET", {"GET": root.uuids}),
    "_all_dbs": Route(root.lister, "GET,HEAD", {"GET": root.all_dbs}),
    "_dbs_info": Route(root.lister, "GET,HEAD,POST", {"GET": root.dbs_info, "POST": root.dbs_info_of}),
    "_active_tasks": Route(server_admin, "GET,HEAD", {"GET": root.active_tasks}),
    "_membership": Route(server_admin, "GET", {"GET": root.membership}),
    "_cluster_setup": Route(
        server_admin, "GET,POST", {"GET": cluster_setup.state, "POST": cluster_setup.act}
    ),
    "_reload_query_servers": Route(server_admin, "POST", {"POST": root.reload_query_servers}),
    "_db_updates": Route(server_admin, "GET", {"GET": db_updates.db_updates}),
    "_replicate": Route(
        authenticated,
        "POST",
        {
            "POST": replication.replicate,
            "GET": replication.no_replicate,
            "PUT": replication.no_replicate,
            "DELETE": replication.no_replicate,
        },
    ),
    "_reshard": Route(server_admin, "GET,HEAD", {"GET": root.reshard}),
    "_scheduler": Route(server_admin, "GET,HEAD", {"GET": scheduler.get}),
    "_replications": Route(server_admin, "GET,HEAD", {"GET": replication_ledger.get}),
}

EXACT = ("_session", "_up", "_uuids")
"""Open to everybody as they are; with more behind, to server administrators, to whom it means nothing."""

# /_node/{node}/{name}/...: the address behind the node has one of these lengths
NODE_ROUTES = {
    "_config": {
        1: Route(server_admin, "GET", {"GET": node.get_config}),
        2: Route(server_admin, "GET", {"GET": node.get_section}),
        3: Route(
            server_admin,
            "GET,PUT,DELETE",
            {"GET": node.get_key, "PUT": node.put_key, "DELETE": node.delete_key},
        ),
    },
    "_restart": {1: Route(server_admin, "POST", {"POST": node.restart})},
    "_prometheus": {1: Route(node.reader_of_metrics, "GET", {"GET": node.prometheus_text})},
    "_system": {1: Route(node.reader_of_metrics, "GET", {"GET": node.system})},
    "_versions": {1: Route(server_admin, "GET", {"GET": node.versions})},
}
NODE_NAME = Route(server_admin, "GET", {"GET": node.name})
NODE_RELOAD = Route(server_admin, "POST", {"POST": node.reload_config})
NODE_STATS = Route(node.reader_of_metrics, "GET", {"GET": node.stats})

# /{db}
CREATE_OR_DELETE = Route(server_admin, "", {"PUT": databases.create, "DELETE": databases.delete})
DATABASE = Route(member, "DELETE,GET,HEAD,POST", {"GET": databases.info, "POST": updates.post})

# /{db}/...: exactly these segments
DATABASE_ROUTES: dict[tuple[str, ...], Route] = {
    ("_bulk_docs",): Route(member, "POST", {"POST": bulk.bulk_docs}),
    ("_bulk_get",): Route(member, "POST", {"POST": bulk.bulk_get}),
    ("_revs_diff",): Route(member, "POST", {"POST": bulk.revs_diff}),
    ("_missing_revs",): Route(member, "POST", {"POST": bulk.missing_revs}),
    ("_all_docs",): Route(
        listings.lister, "GET,HEAD,POST", {"GET": listings.all_docs, "POST": listings.all_docs}
    ),
    ("_design_docs",): Route(
        listings.lister, "GET,HEAD,POST", {"GET": listings.design_docs, "POST": listings.design_docs}
    ),
    ("_local_docs",): Route(
        listings.lister, "GET,HEAD,POST", {"GET": listings.local_docs, "POST": listings.local_docs}
    ),
    ("_all_docs", "queries"): Route(listings.lister, "POST", {"POST": listings.all_docs_queries}),
    ("_design_docs", "queries"): Route(listings.lister, "POST", {"POST": listings.design_docs_queries}),
    ("_local_docs", "queries"): Route(listings.lister, "POST", {"POST": listings.local_docs_queries}),
    ("_changes",): Route(member, "GET,POST,HEAD", {"GET": changes.get, "POST": changes.post}),
    ("_security",): Route(member, "PUT,GET", {"GET": databases.get_security, "PUT": databases.put_security}),
    ("_revs_limit",): Route(
        member, "PUT,GET", {"GET": databases.get_revs_limit, "PUT": databases.put_revs_limit}
    ),
    ("_ensure_full_commit",): Route(member, "POST", {"POST": databases.ensure_full_commit}),
    ("_view_cleanup",): Route(database_admin, "POST", {"POST": views.clean_up}),
    ("_search_cleanup",): Route(member, "POST", {"POST": search.clean_up}),
    ("_nouveau_cleanup",): Route(member, "POST", {"POST": search.clean_up}),
    ("_temp_view",): Route(member, "POST", {"POST": views.no_temporary_view}),
    ("_purge",): Route(administered_database, "POST", {"POST": databases.purge}),
    ("_purged_infos",): Route(member, "GET", {"GET": databases.purged_infos}),
    ("_purged_infos_limit",): Route(
        administered_database,
        "GET,PUT",
        {"GET": databases.get_purged_infos_limit, "PUT": databases.put_purged_infos_limit},
    ),
    ("_shards",): Route(member, "GET", {"GET": databases.shards}),
    ("_sync_shards",): Route(administered_database, "POST", {"POST": databases.sync_shards}),
}

# /{db}/{name}/...: whatever follows
DATABASE_PREFIX_ROUTES = {
    "_index": Route(
        member,
        "GET,POST",
        {"GET": mango_indexes.listing, "POST": mango_indexes.create, "DELETE": mango_indexes.delete},
    ),
    "_conflicts": Route(
        conflicts.reader,
        "GET,HEAD,POST",
        {"GET": conflicts.get, "POST": conflicts.post, "PUT": conflicts.put},
    ),
    "_find": Route(member, "POST", {"POST": find.find}),
    "_explain": Route(member, "POST", {"POST": find.explain}),
    "_compact": Route(database_admin, "POST", {"POST": databases.compact}),
    "_shards": Route(member, "GET", {"GET": databases.shard_of}),
}

# /{db}/_partition/{name}
PARTITION = Route(member, "GET", {"GET": partitions.info})

# /{db}/{docid}, /{db}/_design/{name}, /{db}/_local/{name}, and /{docid}/{attachment}
DOCUMENT = Route(
    partitions.document_member,
    "DELETE,GET,HEAD,POST,PUT,COPY",
    {
        "GET": documents.get,
        "PUT": updates.put,
        "DELETE": updates.delete,
        "COPY": updates.copy,
        "POST": updates.post_form,
    },
)
LOCAL_DOCUMENT = Route(member, DOCUMENT.allow, DOCUMENT.methods | {"GET": local.get})
ATTACHMENT = Route(
    partitions.document_member,
    "DELETE,GET,HEAD,PUT",
    {"GET": attachments.get, "PUT": attachments.put, "DELETE": attachments.delete},
)

ANY_METHOD = ("GET", "PUT", "POST", "DELETE", "COPY", "PATCH", "OPTIONS")

# /{db}/_design/{name}/{action}/...: any other action is an attachment's name
DESIGN_ROUTES: dict[str, Route] = {
    "_view": Route(member, "GET,POST,HEAD", {"GET": views.view, "POST": views.view}),
    "_info": Route(member, "GET", {"GET": views.info}),
    "_search": Route(member, "GET,POST", {"GET": search.unavailable, "POST": search.unavailable}),
    "_search_info": Route(member, "GET", {"GET": search.unavailable}),
    "_search_disk_size": Route(member, "GET", {"GET": search.unavailable}),
    "_show": Route(member, "", dict.fromkeys(ANY_METHOD, functions.show)),
    "_update": Route(member, "", dict.fromkeys(ANY_METHOD, functions.update)),
    "_rewrite": Route(member, "", dict.fromkeys(ANY_METHOD, rewrites.rewrite)),
    "_list": Route(member, "GET,POST,HEAD", {"GET": lists.write, "POST": lists.write}),
}
VIEW_QUERIES = Route(member, "POST", {"POST": views.queries})


_ESCAPED_DESIGN = re.compile("_design%2f", re.IGNORECASE)


class App:
    """What all requests share: the server, the accounts, and whether it is time to stop."""

    def __init__(
        self,
        server: Server,
        accounts: Accounts,
        *,
        metrics: Metrics | None = None,
        access_log: AccessLog | None = None,
        replications: Replications | None = None,
        fauxton_dir: Path | None = None,
    ) -> None:
        self.server = server
        self.accounts = accounts
        self.metrics = metrics or Metrics(1)
        self._access_log = access_log
        # Set when the server stops: endless feeds end cleanly when they see it.
        self.stopping = asyncio.Event()
        self.functions = FunctionPool(lambda: Limits.of(server.config))
        self.authentication = Authentication(server.config)
        self._settings: tuple[object, Settings] = (None, Settings.read(server.config))
        self.replications = replications
        """Made on first need, in this process, where it isn't given."""
        self.fauxton_dir = None if fauxton_dir is None else fauxton_dir.resolve()
        """What /_utils/ shows."""

    @property
    def settings(self) -> Settings:
        """Read again when the configuration has changed."""
        state = self.server.config.as_dict()
        known, settings = self._settings
        if known is not state:
            settings = Settings.read(self.server.config)
            self._settings = state, settings
        return settings

    def tell_metrics(self) -> None:
        """Bring into the statistics what this process counts elsewhere."""
        process_numbers.tell(self.metrics, self.server, self.accounts, self.functions)
        if self.replications is not None:
            self.replications.tell_metrics(self.metrics)

    async def handle(self, raw: web.BaseRequest) -> web.StreamResponse:
        """Answer one request; never raises but for a lost connection."""
        request = Request(self, raw)
        begun = time.perf_counter()
        reply = await self.answer(request)
        took_s = time.perf_counter() - begun
        self.metrics.count_request(raw.method, reply.status, took_s)
        if self._access_log is not None:
            self._access_log.add(request, reply, took_s)
        return reply

    async def answer(self, request: Request) -> web.StreamResponse:
        """Answer a request, or what it was rewritten to."""
        try:
            request.split_target()
            self.settings.check_host(request)
            if "callback=" in request.query_text:
                request.callback = self.settings.callback(request)
            if request.method == "OPTIONS" and (granted := cors.preflight(request)) is not None:
                return response.granted(request, granted)
            await self.authentication.authenticate(request)
            route = find_route(request)
            route.guard(request)
            handler = route.methods.get(request.method)
            if handler is None:
                raise MethodNotAllowed(route.allow)
            return await handler(request)
        except response.HeadAnswered as head:
            return head.response
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            try:
                return await errors.answer(request, error)
            finally:
                errors.let_go(error)


def find_route(request: Request) -> Route:
    """The route of a request; sets `doc_id` and `attachment_name` for documents and attachments."""
    segments = request.segments
    if not segments:
        return SERVER_ROUTES[""]
    first = segments[0]
    if first.startswith("_") or first == "favicon.ico":
        route = SERVER_ROUTES.get(first)
        if route is not None:
            if len(segments) > 1 and first in EXACT:
                server_admin(request)
            return route
        if first == "_node":
            return _node_route(request)
        if first not in SYSTEM_DATABASES or segments[1:2] in (["_all_docs"], ["_changes"]):
            server_admin(request)  # whether an address exists is not told to others
    if len(segments) == 1:
        return CREATE_OR_DELETE if request.method in CREATE_OR_DELETE.methods else DATABASE
    second = segments[1]
    if not second.startswith("_"):
        return _document_route(request, second, segments[2:])
    return _underscore_route(request, second, segments[2:])


def _node_route(request: Request) -> Route:
    name, *rest = request.segments[1:] or [""]
    if rest and rest[0] == "_stats":
        route: Route | None = NODE_STATS
    elif rest == ["_config", "_reload"]:
        route = NODE_RELOAD
    else:
        route = NODE_ROUTES.get(rest[0], {}).get(len(rest)) if rest else NODE_NAME
    (route.guard if route else server_admin)(request)
    if not name:
        raise BadRequest("Incomplete path to _node request")
    if name not in ("_local", databases.NODE):
        raise NotFound(f"no such node: {name}")
    if route is None:
        raise NotFound()
    return route


def _underscore_route(request: Request, second: str, rest: list[str]) -> Route:
    if second == "_partition":
        return _partition_route(request)
    route = DATABASE_ROUTES.get((second, *rest)) or DATABASE_PREFIX_ROUTES.get(second)
    if route is not None:
        return route
    if second == "_design" and rest:
        if len(rest) == 4 and rest[1] == "_view" and rest[3] == "queries":
            return VIEW_QUERIES
        if len(rest) > 1 and rest[1] in DESIGN_ROUTES:
            return DESIGN_ROUTES[rest[1]]
        return _document_route(request, f"_design/{rest[0]}", rest[1:])
    if second.startswith("_design/") and request.method == "GET":
        return Route(member, "", {"GET": _redirect_design})
    if second in ("_local", "_local/"):
        if len(rest) == 1 and second == "_local":
            return _document_route(request, f"_local/{rest[0]}", [])
        member(request)
        raise BadRequest(
            "_local documents do not accept attachments." if rest else "Invalid _local document id."
        )
    return _document_route(request, second, rest)


def _partition_route(request: Request) -> Route:
    member(request)
    partitions.check_address(request)
    if len(request.segments) == 3:
        return PARTITION
    partitions.turn_into_query(request)
    return _underscore_route(request, request.segments[1], request.segments[2:])


def _document_route(request: Request, doc_id: str, names: list[str]) -> Route:
    if not is_text(doc_id):
        member(request)
        raise NotFound() if request.method == "GET" else IllegalDocumentId("Document id must be valid UTF-8")
    request.doc_id = doc_id
    if not names:
        return LOCAL_DOCUMENT if doc_id[0] == "_" and local.is_local(doc_id) else DOCUMENT
    if local.is_local(doc_id):
        member(request)
        raise BadRequest("_local documents do not accept attachments.")
    request.attachment_name = "/".join(names)
    if not is_text(request.attachment_name):
        member(request)
        if request.method == "GET":
            raise NotFound("Document is missing attachment")
        raise BadRequest("Attachment name is not UTF-8 encoded")
    return ATTACHMENT


async def _redirect_design(request: Request) -> web.StreamResponse:
    """GET of `_design%2Fname` answers where the unescaped address is."""
    target = _ESCAPED_DESIGN.sub("_design/", request.target, count=1)
    return response.empty(request, 301, {"Location": request.absolute_uri(target)})
