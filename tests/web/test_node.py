"""/_node and /_cluster_setup: the configuration over HTTP, and the numbers of a server."""

from __future__ import annotations

from typing import Any

import pytest

from couchlite.passwords import from_admin_value

from .in_process import Site

CONFIG = "/_node/_local/_config"


async def test_a_value_s_life(web: Site) -> None:
    key = f"{CONFIG}/couchdb/max_document_size"
    assert (await web.ask("GET", key)).json() == {"error": "not_found", "reason": "unknown_config_value"}
    assert (await web.ask("PUT", key, "  5000 ")).json() == ""
    assert (await web.ask("PUT", key, "6000")).json() == "5000"
    assert (await web.ask("GET", key)).json() == "6000"
    assert (await web.ask("GET", f"{CONFIG}/couchdb")).json()["max_document_size"] == "6000"
    assert (await web.ask("GET", CONFIG)).json()["couchdb"]["max_document_size"] == "6000"
    assert (await web.ask("DELETE", key)).json() == "6000"
    assert (await web.ask("DELETE", key)).status == 404


async def test_a_default_comes_back(web: Site) -> None:
    key = f"{CONFIG}/chttpd_auth/hash_algorithms"
    assert (await web.ask("PUT", key, "sha")).json() == "sha256, sha"
    assert (await web.ask("DELETE", key)).json() == "sha"
    assert (await web.ask("GET", key)).json() == "sha256, sha"


async def test_a_value_that_is_not_kept(web: Site) -> None:
    key = f"{CONFIG}/log/level"
    assert (await web.ask("PUT", key, "error", headers={"X-Couch-Persist": "false"})).status == 200
    assert (await web.ask("GET", key)).json() == "error"
    web.server.config.forget_volatile()
    assert (await web.ask("GET", key)).status == 404


async def test_administrators_are_hashed(web: Site) -> None:
    assert (await web.ask("PUT", f"{CONFIG}/admins/bob", "secret")).json() == ""
    stored = (await web.ask("GET", f"{CONFIG}/admins/bob")).json()
    assert from_admin_value(stored)
    assert (await web.ask("GET", "/_all_dbs", auth=("bob", "secret"))).status == 200
    assert (await web.ask("PUT", f"{CONFIG}/admins/eve", stored)).status == 200
    assert (await web.ask("GET", "/_all_dbs", auth=("eve", "secret"))).status == 200
    assert (await web.ask("DELETE", f"{CONFIG}/admins/bob")).json() == stored
    assert (await web.ask("GET", "/_all_dbs", auth=("bob", "secret"))).status == 401


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "reason"),
    [
        ("PUT", "/couchdb/x", 5, 400, "a JSON string expected"),
        ("PUT", "/couchdb/x", b"{", 400, "invalid UTF-8 JSON"),
        ("PUT", "/couchdb/x", None, 400, "Missing request body"),
        ("PUT", "/couchdb/x", "a\nb", 400, "Invalid configuration value"),
        ("PUT", "/cou%5Bchdb/x", "a", 400, "Invalid configuration section"),
        ("PUT", "/couchdb/x%5D", "a", 400, "Invalid configuration key"),
        ("PUT", "/couchdb/" + "x" * 300, "a", 400, "Invalid configuration key"),
        ("PUT", "/query_servers/x", "a", 403, "Config section blacklisted for modification over HTTP API."),
        (
            "DELETE",
            "/query_servers/x",
            None,
            403,
            "Config section blacklisted for modification over HTTP API.",
        ),
        ("POST", "", {}, 405, "Only GET allowed"),
        ("PUT", "/couchdb", {}, 405, "Only GET allowed"),
        ("POST", "/couchdb/x", {}, 405, "Only GET,PUT,DELETE allowed"),
        ("GET", "/_reload", None, 405, "Only POST allowed"),
        ("GET", "/a/b/c", None, 404, "missing"),
    ],
)
async def test_refusals(web: Site, method: str, path: str, body: Any, status: int, reason: str) -> None:
    reply = await web.ask(method, CONFIG + path, body)
    assert (reply.status, reply.json()["reason"]) == (status, reason)


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/_node", 400, "Incomplete path to _node request"),
        ("/_node/nope/_config", 404, "no such node: nope"),
        ("/_node/_local/_nope", 404, "missing"),
        ("/_node/_local/_config", None, None),
        ("/_node/couchdb@127.0.0.1/_config", None, None),
    ],
)
async def test_nodes(web: Site, path: str, status: int | None, reason: str | None) -> None:
    reply = await web.ask("GET", path)
    if status is None:
        assert reply.status == 200
    else:
        assert (reply.status, reply.json()["reason"]) == (status, reason)


@pytest.mark.parametrize(
    "path", [CONFIG, f"{CONFIG}/admins", "/_node/_local", "/_node/nope", "/_cluster_setup"]
)
async def test_what_only_administrators_see(web: Site, path: str) -> None:
    reply = await web.ask("GET", path, auth=None)
    assert (reply.status, reply.json()["reason"]) == (401, "You are not a server admin.")


async def test_requests_are_counted(web: Site) -> None:
    stats = "/_node/_local/_stats/couchdb"

    async def value(path: str) -> Any:
        return (await web.ask("GET", f"{stats}/{path}")).json()["value"]

    before = await value("httpd/requests")
    for _ in range(3):
        await web.ask("PUT", "/A")
    assert await value("httpd/requests") == before + 4
    assert await value("httpd_request_methods/PUT") == 3
    assert await value("httpd_status_codes/400") == 3
    times = await value("request_time")
    assert times["n"] == before + 7
    assert 0 < times["min"] <= times["median"] <= times["max"]
    assert [name for name, _ in times["percentile"]] == [50, 75, 90, 95, 99, 999]


@pytest.mark.parametrize("path", ["nope", "couchdb/nope", "couchdb/httpd/requests/value/x"])
async def test_what_is_not_counted(web: Site, path: str) -> None:
    assert (await web.ask("GET", f"/_node/_local/_stats/{path}")).json() is None


async def test_system_and_versions(web: Site) -> None:
    system = (await web.ask("GET", "/_node/_local/_system")).json()
    assert system["memory"]["processes"] > 1_000_000
    assert system["process_count"] == 1
    assert "couchlite" in (await web.ask("GET", "/_node/_local/_versions")).json()
    assert (await web.ask("POST", "/_node/_local/_restart", {})).status == 501


async def test_a_role_reads_numbers_but_not_the_configuration(web: Site) -> None:
    from couchlite.provision import provision

    provision(web.server)
    user = {"type": "user", "name": "m", "roles": ["_metrics"], "password": "x"}
    assert (await web.ask("PUT", "/_users/org.couchdb.user:m", user)).status == 201
    for path, status in (("_stats", 200), ("_system", 200), ("_config", 401)):
        assert (await web.ask("GET", f"/_node/_local/{path}", auth=("m", "x"))).status == status


async def test_set_up_of_a_single_node(web: Site) -> None:
    setup = {"action": "enable_single_node", "username": "second", "password": "pw", "port": 1234}
    setup |= {"bind_address": "0.0.0.0", "singlenode": True}
    assert (await web.ask("POST", "/_cluster_setup", setup)).status == 201
    assert (await web.ask("GET", f"{CONFIG}/chttpd", auth=("second", "pw"))).json()["port"] == "1234"
    assert (await web.ask("GET", "/_cluster_setup")).json() == {"state": "single_node_enabled"}


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"action": "finish_cluster"}, "Cluster is already finished"),
        ({"action": "add_node"}, "couchlite runs on a single node"),
        ({"action": "nope"}, "Invalid Action'"),
        ({}, "Invalid Action'"),
        ([], "Missing JSON body'"),
    ],
)
async def test_other_set_ups(web: Site, body: Any, reason: str) -> None:
    reply = await web.ask("POST", "/_cluster_setup", body)
    assert (reply.status, reply.json()["reason"]) == (400, reason)
