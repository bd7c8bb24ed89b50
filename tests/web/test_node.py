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


async def test_what_databases_do_is_counted(web: Site) -> None:
    async def counted() -> dict[str, Any]:
        tree = (await web.ask("GET", "/_node/_local/_stats")).json()
        flat = {name: entry.get("value") for name, entry in tree["couchdb"].items()}
        return flat | {
            "bulk": tree["couchdb"]["httpd"]["bulk_requests"]["value"],
            "largest bulk": tree["couchdb"]["httpd"]["bulk_docs"]["value"]["max"],
            "views": tree["couchdb"]["httpd"]["view_reads"]["value"],
            "mapped": tree["couchdb"]["mrview"]["map_doc"]["value"],
            "emitted": tree["couchdb"]["mrview"]["emits"]["value"],
            "purged": tree["couchdb"]["document_purges"]["total"]["value"],
            "found": tree["mango"]["results_returned"]["value"],
            "unindexed": tree["mango"]["unindexed_queries"]["value"],
        }

    await web.ask("PUT", "/a")
    before = await counted()
    design = {"views": {"v": {"map": "function (doc) { emit(1); emit(2); }"}}}
    await web.ask("PUT", "/a/_design/d", design)
    docs = [{"_id": f"{number}"} for number in range(5)]
    rev = (await web.ask("POST", "/a/_bulk_docs", {"docs": docs})).json()[0]["rev"]
    await web.ask("PUT", "/a/0", {"_rev": rev})
    await web.ask("PUT", "/a/_local/x", {})
    await web.ask("GET", "/a/0")
    await web.ask("GET", "/a/_all_docs?include_docs=true")
    await web.ask("GET", "/a/_design/d/_view/v")
    await web.ask("POST", "/a/_find", {"selector": {"_id": "1"}})
    await web.ask("POST", "/a/_find", {"selector": {"x": {"$exists": False}}})
    await web.ask("POST", "/a/_purge", {"1": [rev]})
    after = await counted()
    grown = {name: after[name] - before[name] for name in after if isinstance(after[name], int | float)}
    assert grown["database_reads"] >= 1 + 6
    assert grown["document_writes"] == 8, "a design document, five, a change of one, a purge"
    assert grown["document_inserts"] == 6
    assert grown["local_document_writes"] == 1
    assert 0 < grown["commits"] <= grown["database_writes"] == 5
    assert (grown["bulk"], grown["largest bulk"], grown["views"]) == (1, pytest.approx(5, rel=0.2), 1)
    assert (grown["mapped"], grown["emitted"], grown["purged"]) == (5, 10, 1)
    assert (grown["found"], grown["unindexed"]) == (1 + 5, 2)


async def test_the_numbers_for_prometheus(web: Site) -> None:
    await web.ask("PUT", "/A")
    reply = await web.ask("GET", "/_node/_local/_prometheus")
    assert reply.headers["content-type"] == "text/plain; version=2.0"
    lines = reply.body.decode().splitlines()
    assert 'couchdb_httpd_status_codes{code="400"} 1' in lines
    assert 'couchdb_httpd_request_methods{method="PUT"} 1' in lines
    assert "couchdb_request_time_seconds_count 1" in lines
    assert "# TYPE couchdb_open_databases gauge" in lines
    assert "# TYPE couchdb_document_writes_total counter" in lines
    families = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(families) == len(set(families))
    samples = [line.split(" ")[0] for line in lines if not line.startswith("#")]
    assert len(samples) == len(set(samples))
    assert {sample.split("{")[0].removesuffix("_sum").removesuffix("_count") for sample in samples} == {
        *families
    }


async def test_resharding_is_nothing_to_do_here(web: Site) -> None:
    assert (await web.ask("GET", "/_reshard")).json()["total"] == 0
    assert (await web.ask("GET", "/_reshard/jobs")).json() == {"total_rows": 0, "offset": 0, "jobs": []}
    assert (await web.ask("GET", "/_reshard/jobs/x")).status == 404
    assert (await web.ask("GET", "/_reshard", auth=None)).status == 401


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
    for path, status in (("_stats", 200), ("_system", 200), ("_prometheus", 200), ("_config", 401)):
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
