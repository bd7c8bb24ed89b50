"""Who may do what: every address with every method, by everybody, in each kind of database.

The tables were filled in by a CouchDB 3.5.0, except for what it doesn't have; where it answers 500 to who may
not do something, the refusal stands. A route that is in no table fails a test.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pytest

from couchlite.provision import provision
from http_api import app

from .in_process import ADMIN, Site

# --- the tables
#
# A cell has one character for each of: somebody anonymous, a stranger, a member, an administrator of the
# database, a server administrator. `.` may, `u` is told 401 (unauthorized), `f` 403 (forbidden).

#                 ordinary public  closed  _users  _replicator
MEMBERS = ("uf...", ".....", "ufff.", "ufff.", "ufff.")
"""What documents are for."""
LISTINGS = ("uf...", ".....", "ufff.", "uuuu.", "uuuu.")
"""Where documents of all users would show."""
DATABASE = ("uff..", "uff..", "ufff.", "ufff.", "ufff.")
"""What changes the rules of a database."""
UPKEEP = ("ufu..", "uuu..", "ufff.", "ufff.", "ufff.")
ADMINS = ("uuuu.", "uuuu.", "uuuu.", "ufff.", "ufff.")
NOBODY_ELSE = ("uuuu.", "uuuu.", "uuuu.", "uuuu.", "uuuu.")
RIGHTS = ("uff..", "uff..", "ufff.", "uffff", "ufff.")
"""`_security` of `_users` is fixed unless a setting says otherwise."""

DOCUMENT_AND_KEYS = {"docs": [{"id": "_design/v"}]}
QUERIES = {"queries": [{}]}


@dataclass(frozen=True)
class Row:
    """A request of an address. In the address and the body, {doc} is a document's id, made before if `has`
    says so (with {rev}), {n} a number that is new each time."""

    method: str
    address: str
    cells: tuple[str, ...]
    body: Any = None
    has: str | None = None
    status: int = 200
    """What those who may get."""

    @property
    def name(self) -> str:
        return f"{self.method} {self.address}"


DATABASES = (
    Row("GET", "/{db}", MEMBERS),
    Row("HEAD", "/{db}", MEMBERS),
    Row("POST", "/{db}", MEMBERS, {"_id": "{doc}", "and": "fields"}, status=201),
    Row("PUT", "/{db}", NOBODY_ELSE, status=412),
    Row("DELETE", "/{db}", NOBODY_ELSE),
    Row("PATCH", "/{db}", MEMBERS, status=405),
    Row("GET", "/{db}/_all_docs", LISTINGS),
    Row("POST", "/{db}/_all_docs", LISTINGS, {"keys": []}),
    Row("POST", "/{db}/_all_docs/queries", LISTINGS, QUERIES),
    Row("GET", "/{db}/_design_docs", MEMBERS),
    Row("POST", "/{db}/_design_docs", MEMBERS, {"keys": []}),
    Row("POST", "/{db}/_design_docs/queries", MEMBERS, QUERIES),
    Row("GET", "/{db}/_local_docs", MEMBERS),
    Row("POST", "/{db}/_local_docs", MEMBERS, {"keys": []}),
    Row("POST", "/{db}/_local_docs/queries", MEMBERS, QUERIES),
    Row("GET", "/{db}/_changes", LISTINGS),
    Row("POST", "/{db}/_changes", LISTINGS, {}),
    Row("GET", "/{db}/_changes?filter=_view&view=v/v", LISTINGS),
    Row("POST", "/{db}/_bulk_docs", MEMBERS, {"docs": [{"_id": "{doc}", "and": "fields"}]}, status=201),
    Row("POST", "/{db}/_bulk_docs", DATABASE, {"docs": [{"_id": "_design/b{n}"}]}, status=201),
    Row("POST", "/{db}/_bulk_get", MEMBERS, DOCUMENT_AND_KEYS),
    Row("POST", "/{db}/_revs_diff", MEMBERS, {"x": ["1-a"]}),
    Row("POST", "/{db}/_missing_revs", MEMBERS, {"x": ["1-a"]}),
    Row("GET", "/{db}/_security", MEMBERS),
    Row("PUT", "/{db}/_security", RIGHTS, "{security}"),
    Row("GET", "/{db}/_revs_limit", MEMBERS),
    Row("PUT", "/{db}/_revs_limit", DATABASE, 900),
    Row("POST", "/{db}/_ensure_full_commit", MEMBERS, {}, status=201),
    Row("POST", "/{db}/_view_cleanup", UPKEEP, {}, status=202),
    Row("POST", "/{db}/_search_cleanup", MEMBERS, {}, status=202),
    Row("POST", "/{db}/_nouveau_cleanup", MEMBERS, {}, status=202),
    Row("POST", "/{db}/_compact", UPKEEP, {}, status=202),
    Row("POST", "/{db}/_compact/v", UPKEEP, {}, status=202),
    Row("POST", "/{db}/_temp_view", MEMBERS, {}, status=410),
    Row("POST", "/{db}/_purge", ADMINS, {"x": ["1-a"]}, status=201),
    Row("GET", "/{db}/_purged_infos", MEMBERS),
    Row("GET", "/{db}/_purged_infos_limit", ADMINS),
    Row("PUT", "/{db}/_purged_infos_limit", ADMINS, 900),
    Row("POST", "/{db}/_find", MEMBERS, {"selector": {}}),
    Row("POST", "/{db}/_explain", MEMBERS, {"selector": {}}),
    Row("GET", "/{db}/_index", MEMBERS),
    Row("POST", "/{db}/_index", DATABASE, {"index": {"fields": ["x{n}"]}}),
    Row("DELETE", "/{db}/_index/_design%2Fnone/json/none", MEMBERS, status=404),
    Row("POST", "/{db}/_index/_bulk_delete", MEMBERS, {"docids": []}),
    Row("GET", "/{db}/_shards", MEMBERS),
    Row("GET", "/{db}/_shards/x", MEMBERS),
    Row("POST", "/{db}/_sync_shards", ADMINS, {}, status=202),
    Row("GET", "/{db}/_partition/p", MEMBERS, status=400),
    Row("GET", "/{db}/_conflicts", MEMBERS),
    Row("GET", "/{db}/_conflicts/_resolvers", MEMBERS),
    Row("PUT", "/{db}/_conflicts/_resolvers", DATABASE, {}),
    Row("POST", "/{db}/_conflicts/_resolve", DATABASE, {}),
    Row("GET", "/{db}/_conflicts/{doc}", MEMBERS, has="document"),
    Row("GET", "/{db}/_conflicts/_resolutions", MEMBERS),
    Row("POST", "/{db}/_conflicts/{doc}", MEMBERS, {}, has="document", status=400),
    Row("POST", "/{db}/_conflicts/{doc}/_merge", MEMBERS, {}, has="document", status=400),
    Row("POST", "/{db}/_conflicts/{doc}/_undo", MEMBERS, {"resolution": 9}, status=404),
    Row("POST", "/{db}/_conflicts/_missing_bases", MEMBERS, {"ids": []}),
    Row("POST", "/{db}/_conflicts/_bases", MEMBERS, {"docs": []}, status=201),
    Row("GET", "/{db}/{doc}", MEMBERS, has="document"),
    Row("HEAD", "/{db}/{doc}", MEMBERS, has="document"),
    Row("PUT", "/{db}/{doc}", MEMBERS, {"and": "fields"}, status=201),
    Row("PUT", "/{db}/{doc}?rev={rev}", MEMBERS, {"and": "fields"}, has="document", status=201),
    Row("DELETE", "/{db}/{doc}?rev={rev}", MEMBERS, has="document"),
    Row("COPY", "/{db}/_local/x{n}", MEMBERS, has="local document", status=201),
    Row("COPY", "/{db}/{doc}", MEMBERS, has="document", status=201),
    Row("POST", "/{db}/{doc}", MEMBERS, {}, has="document", status=400),
    Row("GET", "/{db}/{doc}/a", MEMBERS, has="attachment"),
    Row("PUT", "/{db}/{doc}/a?rev={rev}", MEMBERS, b"x", has="document", status=201),
    Row("DELETE", "/{db}/{doc}/a?rev={rev}", MEMBERS, has="attachment"),
    Row("GET", "/{db}/_local/x{n}", MEMBERS, has="local document"),
    Row("PUT", "/{db}/_local/x{n}", MEMBERS, {}, status=201),
    Row("DELETE", "/{db}/_local/x{n}?rev=0-1", MEMBERS, has="local document"),
    Row("POST", "/{db}/_local/x{n}", MEMBERS, {}, has="local document", status=400),
    Row("GET", "/{db}/_design/x{n}", MEMBERS, has="design document"),
    Row("PUT", "/{db}/_design/x{n}", DATABASE, {}, status=201),
    Row("DELETE", "/{db}/_design/x{n}?rev={rev}", DATABASE, has="design document"),
    Row("PUT", "/{db}/_design/x{n}/a?rev={rev}", DATABASE, b"x", has="design document", status=201),
    Row("GET", "/{db}/_design/v/_view/v", MEMBERS),
    Row("POST", "/{db}/_design/v/_view/v", MEMBERS, {}),
    Row("POST", "/{db}/_design/v/_view/v/queries", MEMBERS, QUERIES),
    Row("GET", "/{db}/_design/v/_info", MEMBERS),
    Row("GET", "/{db}/_design/v/_search/x", MEMBERS, status=503),
    Row("POST", "/{db}/_design/v/_search/x", MEMBERS, {}, status=503),
    Row("GET", "/{db}/_design/v/_search_info/x", MEMBERS, status=503),
    Row("GET", "/{db}/_design/v/_search_disk_size/x", MEMBERS, status=503),
    Row("GET", "/{db}/_design/v/_list/none/v", MEMBERS, status=404),
    Row("POST", "/{db}/_design/v/_list/none/v", MEMBERS, {}, status=404),
    *(
        Row(method, f"/{{db}}/_design/v/{action}/none", MEMBERS, status=404)
        for action in ("_show", "_update", "_rewrite")
        for method in app.ANY_METHOD
    ),
    Row("GET", "/{db}/_nope", MEMBERS, status=404),
    Row("GET", "/{db}/_compact", UPKEEP, status=405),
    Row("GET", "/{db}/_purge", ADMINS, status=405),
)

# A cell has one character for each of: somebody anonymous, a user, a user with the role _metrics, a server
# administrator.
OPEN, LOGGED_IN, COUNTING, ADMIN_ONLY = "....", "u...", "uu..", "uuu."
CONFIG = "/_node/_local/_config"
SERVER = (
    Row("GET", "/", (OPEN,)),
    Row("GET", "/favicon.ico", (OPEN,), status=204),
    Row("GET", "/_up", (OPEN,)),
    Row("GET", "/_utils/", (OPEN,), status=404),
    Row("GET", "/_up/x", (ADMIN_ONLY,)),
    Row("GET", "/_uuids", (OPEN,)),
    Row("GET", "/_session", (OPEN,)),
    Row("POST", "/_session", (OPEN,), {"name": ADMIN[0], "password": ADMIN[1]}),
    Row("DELETE", "/_session", (OPEN,)),
    Row("GET", "/_all_dbs", (ADMIN_ONLY,)),
    Row("GET", "/_dbs_info", (ADMIN_ONLY,)),
    Row("POST", "/_dbs_info", (ADMIN_ONLY,), {"keys": []}),
    Row("GET", "/_active_tasks", (ADMIN_ONLY,)),
    Row("GET", "/_membership", (ADMIN_ONLY,)),
    Row("GET", "/_cluster_setup", (ADMIN_ONLY,)),
    Row("POST", "/_cluster_setup", (ADMIN_ONLY,), {"action": "x"}, status=400),
    Row("POST", "/_reload_query_servers", (ADMIN_ONLY,), {}),
    Row("GET", "/_db_updates", (ADMIN_ONLY,), status=404),
    Row("POST", "/_replicate", (LOGGED_IN,), {}, status=500),
    Row("GET", "/_replicate", (LOGGED_IN,), status=400),
    Row("PUT", "/_replicate", (LOGGED_IN,), {}, status=405),
    Row("DELETE", "/_replicate", (LOGGED_IN,), status=400),
    Row("GET", "/_scheduler/jobs", (ADMIN_ONLY,)),
    Row("GET", "/_replications", (ADMIN_ONLY,)),
    Row("GET", "/_reshard", (ADMIN_ONLY,)),
    Row("GET", "/_node", (ADMIN_ONLY,), status=400),
    Row("GET", "/_node/_local", (ADMIN_ONLY,)),
    Row("GET", "/_node/x", (ADMIN_ONLY,), status=404),
    Row("GET", CONFIG, (ADMIN_ONLY,)),
    Row("GET", f"{CONFIG}/chttpd", (ADMIN_ONLY,)),
    Row("GET", f"{CONFIG}/x/y", (ADMIN_ONLY,), status=404),
    Row("PUT", f"{CONFIG}/x/y", (ADMIN_ONLY,), "z"),
    Row("DELETE", f"{CONFIG}/x/y", (ADMIN_ONLY,), status=404),
    Row("POST", f"{CONFIG}/_reload", (ADMIN_ONLY,)),
    Row("GET", "/_node/_local/_stats", (COUNTING,)),
    Row("GET", "/_node/_local/_system", (COUNTING,)),
    Row("GET", "/_node/_local/_prometheus", (COUNTING,)),
    Row("GET", "/_node/_local/_versions", (ADMIN_ONLY,)),
    Row("POST", "/_node/_local/_restart", (ADMIN_ONLY,), {}, status=501),
    Row("GET", "/_node/_local/_nope", (ADMIN_ONLY,), status=404),
    Row("PUT", "/new{n}", (ADMIN_ONLY,), status=201),
    Row("PUT", "/_nope", (ADMIN_ONLY,), status=400),
    Row("GET", "/_nope", (ADMIN_ONLY,), status=404),
    Row("GET", "/_nope/x", (ADMIN_ONLY,), status=404),
    Row("GET", "/nope", (OPEN,), status=404),
    Row("GET", "/_global_changes", (ADMIN_ONLY,), status=404),
)

# --- that they are complete

ALONE = {
    "NODE_NAME": "/_node/_local",
    "NODE_RELOAD": f"{CONFIG}/_reload",
    "NODE_STATS": "/_node/_local/_stats",
    "CREATE_OR_DELETE": "/{db}",
    "DATABASE": "/{db}",
    "PARTITION": "/{db}/_partition/p",
    "DOCUMENT": "/{db}/{doc}",
    "LOCAL_DOCUMENT": "/{db}/_local/x{n}",
    "ATTACHMENT": "/{db}/{doc}/a",
    "VIEW_QUERIES": "/{db}/_design/v/_view/v/queries",
}
"""Routes that are in no table of the application, and an address of each."""
BEHIND = {"_config": ["", "/chttpd", "/x/y"]}


def routes() -> Iterator[tuple[str, app.Route]]:
    """All routes, each with the beginning of its address."""
    for name, value in vars(app).items():
        if isinstance(value, app.Route):
            yield ALONE.get(name, name), value
    yield from ((f"/{name}", route) for name, route in app.SERVER_ROUTES.items())
    for name, lengths in app.NODE_ROUTES.items():
        for length, route in lengths.items():
            yield f"/_node/_local/{name}" + "".join(BEHIND.get(name, [""])[length - 1]), route
    for segments, route in app.DATABASE_ROUTES.items():
        yield "/{db}/" + "/".join(segments), route
    for name, route in app.DATABASE_PREFIX_ROUTES.items():
        yield "/{db}/" + name, route
    for name, route in app.DESIGN_ROUTES.items():
        yield "/{db}/_design/v/" + name, route


def is_in_a_table(address: str, method: str) -> bool:
    for row in (*SERVER, *DATABASES):
        path = row.address.partition("?")[0]
        if row.method == method and (path == address or path.startswith(address + "/")):
            return True
    return False


def test_every_route_is_in_a_table() -> None:
    missing = [
        f"{method} {address}"
        for address, route in routes()
        for method in route.methods
        if not is_in_a_table(address, method)
    ]
    assert not missing


# --- that they are true

PEOPLE = {
    "anonymous": None,
    "stranger": ("stranger", "pw"),
    "member": ("member", "pw"),
    "database admin": ("owner", "pw"),
    "server admin": ADMIN,
}
USERS = {"anonymous": None, "user": ("stranger", "pw"), "metrics": ("metrics", "pw"), "server admin": ADMIN}
OWNED = {"admins": {"names": ["owner"]}}
KINDS: dict[str, dict[str, Any] | None] = {
    "ordinary": {"members": {"names": ["member"]}, **OWNED},
    "public": {"members": {}, **OWNED},
    "closed": {"members": {"roles": ["_admin"]}, "admins": {"roles": ["_admin"]}},
    "_users": None,
    "_replicator": None,
}
VIEW = {"views": {"v": {"map": "function (doc) { emit(doc._id); }"}}}
SHOWN = {401: "u", 403: "f"}
numbers = itertools.count()


@pytest.fixture
async def web(web: Site) -> Site:
    provision(web.server)
    for name, roles in (("stranger", []), ("member", []), ("owner", []), ("metrics", ["_metrics"])):
        fields = {"type": "user", "name": name, "roles": roles, "password": "pw"}
        await expect(web, 201, "PUT", f"/_users/org.couchdb.user:{name}", fields)
    return web


async def expect(web: Site, status: int, method: str, path: str, body: Any = None) -> Any:
    reply = await web.ask(method, path, body)
    assert reply.status == status, (method, path, reply)
    return reply.json()


@pytest.mark.parametrize("row", SERVER, ids=lambda row: row.name)
async def test_the_server(web: Site, row: Row) -> None:
    found = ""
    for credentials in USERS.values():
        path = row.address.replace("{n}", str(next(numbers)))
        reply = await web.ask(row.method, path, row.body, auth=credentials)
        found += SHOWN.get(reply.status) or ("." if reply.status == row.status else f" {reply.status} ")
    assert found == row.cells[0]


@pytest.mark.parametrize("row", DATABASES, ids=lambda row: row.name)
async def test_databases(web: Site, row: Row) -> None:
    found = []
    for kind, security in KINDS.items():
        if security is not None:
            await expect(web, 201, "PUT", f"/{kind}")
            await expect(web, 200, "PUT", f"/{kind}/_security", security)
        await expect(web, 201, "PUT", f"/{kind}/_design/v", VIEW)
        found.append("".join([await outcome(web, row, kind, who) for who in PEOPLE]))
    assert dict(zip(KINDS, found, strict=True)) == dict(zip(KINDS, row.cells, strict=True))


async def outcome(web: Site, row: Row, kind: str, who: str) -> str:
    number = next(numbers)
    doc_id, fields = document(kind, number)
    rev = "" if row.has is None else await make(web, row.has, kind, number)
    texts = {"{db}": kind, "{doc}": quote(doc_id), "{rev}": rev, "{n}": str(number)}
    path = filled(row.address, texts)
    body = row.body
    if body is not None and not isinstance(body, bytes):
        text = filled(json.dumps(body), {**texts, "{doc}": doc_id})
        text = text.replace('"and": "fields"', json.dumps(fields)[1:-1]) if fields else text
        text = text.replace('"{security}"', json.dumps(KINDS[kind] or KINDS["closed"]))
        body = json.loads(text)
    destination = f"copy{number}"
    if row.method == "COPY":
        if "_local" in path:
            destination = f"_local/{destination}"
        elif fields:  # the copy of a user's document must be that user's: over itself
            destination = f"{doc_id}?rev={rev}"
    headers = {"Destination": destination} if row.method == "COPY" else {}
    reply = await web.ask(row.method, path, body, headers=headers, auth=PEOPLE[who])
    status = reply.status
    if status == 201 and "_bulk_docs" in path:
        status = {"unauthorized": 401, "forbidden": 403}.get(reply.json()[0].get("error"), status)
    return SHOWN.get(status) or ("." if status == row.status else f" {status} ")


def filled(text: str, texts: dict[str, str]) -> str:
    for name, value in texts.items():
        text = text.replace(name, value)
    return text


def document(kind: str, number: int) -> tuple[str, dict[str, Any]]:
    """The id of a document, and fields that it must have in such a database."""
    if kind == "_users":
        return f"org.couchdb.user:u{number}", {"type": "user", "name": f"u{number}", "roles": []}
    if kind == "_replicator":
        ends = {"source": "http://127.0.0.1:1/a", "target": "http://127.0.0.1:1/b"}
        return f"r{number}", {**ends, "_replication_state": "completed"}
    return f"d{number}", {}


async def make(web: Site, what: str, kind: str, number: int) -> str:
    """The revision of a document made by the administrator."""
    doc_id, fields = document(kind, number)
    if what == "attachment":
        fields["_attachments"] = {"a": {"data": "eHg=", "content_type": "image/png"}}
    if what == "design document":
        doc_id, fields = f"_design/x{number}", {}
    if what == "local document":
        doc_id, fields = f"_local/x{number}", {}
    rev: str = (await expect(web, 201, "PUT", f"/{kind}/{quote(doc_id, safe='/')}", fields))["rev"]
    return rev
