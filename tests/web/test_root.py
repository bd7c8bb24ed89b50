"""The server's own addresses."""

from __future__ import annotations

import pytest

from .in_process import Site


async def test_welcome_needs_no_credentials(web: Site) -> None:
    reply = await web.ask("GET", "/", auth=None)
    body = reply.json()
    assert (reply.status, body["couchdb"], body["uuid"]) == (200, "Welcome", web.server.uuid)
    assert reply.headers["server"].startswith("CouchDB/")
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["cache-control"] == "must-revalidate"
    assert reply.body.endswith(b"}\n")


async def test_head_has_the_headers_of_get_and_no_body(web: Site) -> None:
    for target in ("/", "/_up", "/_uuids"):
        get = await web.ask("GET", target)
        head = await web.ask("HEAD", target)
        assert (head.status, head.body) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"] == str(len(get.body))


ADMINS_ONLY = [
    "/_all_dbs",
    "/_dbs_info",
    "/_active_tasks",
    "/_membership",
    "/_db_updates",
    "/_nope",
    "/_nope/x",
]


@pytest.mark.parametrize("target", ADMINS_ONLY)
async def test_what_only_administrators_see(web: Site, target: str) -> None:
    reply = await web.ask("GET", target, auth=None)
    assert reply.status == 401
    assert reply.json() == {"error": "unauthorized", "reason": "You are not a server admin."}
    assert "www-authenticate" not in reply.headers


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        ("POST", "/", "GET,HEAD"),
        ("DELETE", "/_up", "GET,HEAD"),
        ("PUT", "/_uuids", "GET"),
        ("POST", "/_all_dbs", "GET,HEAD"),
        ("DELETE", "/_dbs_info", "GET,HEAD,POST"),
        ("PUT", "/_active_tasks", "GET,HEAD"),
        ("POST", "/_db_updates", "GET"),
        ("PATCH", "/", "GET,HEAD"),
    ],
)
async def test_wrong_methods_are_told_the_right_ones(web: Site, method: str, target: str, allow: str) -> None:
    reply = await web.ask(method, target)
    assert (reply.status, reply.headers["allow"]) == (405, allow)
    assert reply.json() == {"error": "method_not_allowed", "reason": f"Only {allow} allowed"}


async def test_maintenance_mode_shows_in_up(web: Site) -> None:
    assert (await web.ask("GET", "/_up", auth=None)).json() == {"status": "ok", "seeds": {}}
    web.server.config.set("couchdb", "maintenance_mode", "true")
    reply = await web.ask("GET", "/_up", auth=None)
    assert (reply.status, reply.json()) == (404, {"status": "maintenance_mode"})


async def test_uuids_are_fresh_and_not_cached(web: Site) -> None:
    reply = await web.ask("GET", "/_uuids?count=3", auth=None)
    found = reply.json()["uuids"]
    assert len(set(found)) == 3
    assert all(len(uuid) == 32 for uuid in found)
    assert reply.headers["cache-control"] == "no-cache"
    assert reply.headers["pragma"] == "no-cache"


@pytest.mark.parametrize(
    ("count", "reason"),
    [
        ("1001", "count parameter too large"),
        ("-1", "count must be a positive integer"),
        ("x", "count must be a positive integer"),
        ("", "count must be a positive integer"),
    ],
)
async def test_uuids_by_the_wrong_number(web: Site, count: str, reason: str) -> None:
    reply = await web.ask("GET", f"/_uuids?count={count}")
    assert (reply.status, reply.json()["reason"]) == (400, reason)


async def test_all_dbs_by_range(web: Site) -> None:
    for name in ("a", "b", "c"):
        web.server.create(name)
    cases = {
        "": ["a", "b", "c"],
        "?startkey=%22b%22": ["b", "c"],
        "?end_key=%22b%22": ["a", "b"],
        "?endkey=%22b%22&inclusive_end=false": ["a"],
        "?descending=true": ["c", "b", "a"],
        "?descending=true&startkey=%22b%22": ["b", "a"],
        "?key=%22b%22": ["b"],
        "?skip=1&limit=1": ["b"],
        "?limit=0": [],
        "?startkey=%22z%22&endkey=%22a%22": [],
        "?startkey=3": ["a", "b", "c"],
        "?endkey=3": [],
    }
    for query, names in cases.items():
        assert (await web.ask("GET", f"/_all_dbs{query}")).json() == names, query


async def test_wrong_options_of_all_dbs(web: Site) -> None:
    for query, reason in {
        "group=true": "Invalid use of grouping on a map view.",
        "descending=": "Invalid boolean parameter: []",
        "limit=x": 'Invalid value for integer: "x"',
    }.items():
        reply = await web.ask("GET", f"/_all_dbs?{query}")
        assert (reply.status, reply.json()["reason"]) == (400, reason)


async def test_all_dbs_that_did_not_change_are_not_sent_again(web: Site) -> None:
    etag = (await web.ask("GET", "/_all_dbs")).headers["etag"]
    again = await web.ask("GET", "/_all_dbs", headers={"If-None-Match": f'"x", W/{etag}'})
    assert (again.status, again.body) == (304, b"")
    assert again.headers["etag"] == etag
    assert "content-length" not in again.headers
    web.server.create("a")
    assert (await web.ask("GET", "/_all_dbs", headers={"If-None-Match": etag})).status == 200


async def test_listing_for_everybody_when_the_configuration_says_so(web: Site) -> None:
    web.server.config.set("chttpd", "admin_only_all_dbs", "false")
    assert (await web.ask("GET", "/_all_dbs", auth=None)).status == 200


async def test_dbs_info_tells_known_from_unknown(web: Site) -> None:
    web.server.create("a")
    rows = (await web.ask("POST", "/_dbs_info", {"keys": ["a", "nope", "Not A Name", 1]})).json()
    assert rows[0]["info"]["db_name"] == "a"
    assert rows[1:] == [{"key": key, "error": "not_found"} for key in ("nope", "Not A Name", 1)]
    rows = (await web.ask("GET", "/_dbs_info?limit=1")).json()
    assert [row["key"] for row in rows] == ["a"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "`keys` member must exist."),
        ({"keys": "a"}, "`keys` member must be an array."),
        ({"keys": ["a"] * 101}, "too_many_keys"),
    ],
)
async def test_dbs_info_by_the_wrong_keys(web: Site, body: object, reason: str) -> None:
    reply = await web.ask("POST", "/_dbs_info", body)
    assert (reply.status, reply.json()["reason"]) == (400, reason)


async def test_doubled_slashes_mean_nothing(web: Site) -> None:
    assert (await web.ask("GET", "//")).json()["couchdb"] == "Welcome"
    assert (await web.ask("GET", "//_all_dbs//")).json() == []
