"""Cross-origin requests: who may read what from where."""

from __future__ import annotations

import pytest

from .in_process import Site

APP = "http://app.example"
EVIL = "http://evil.example"


@pytest.fixture(autouse=True)
def _enabled(web: Site) -> None:
    web.server.config.set("chttpd", "enable_cors", "true")
    web.server.config.set("cors", "origins", f"{APP}, http://other.example")
    web.server.create("db")


async def test_a_listed_origin_may_read(web: Site) -> None:
    reply = await web.ask("GET", "/", headers={"Origin": APP})
    assert reply.headers["access-control-allow-origin"] == APP
    assert "access-control-allow-credentials" not in reply.headers
    assert reply.headers["access-control-expose-headers"] == (
        "content-type, cache-control, accept-ranges, etag, server, x-couch-request-id, "
        "x-couch-update-newrev, x-couchdb-body-time"
    )


@pytest.mark.parametrize("origin", [EVIL, "HTTP://APP.EXAMPLE", "null", APP + ":80"])
async def test_others_may_not(web: Site, origin: str) -> None:
    reply = await web.ask("GET", "/", headers={"Origin": origin})
    assert "access-control-allow-origin" not in reply.headers


async def test_errors_and_streams_can_be_read_too(web: Site) -> None:
    for target, auth in (
        ("/db", None),
        ("/db/none", ("adm", "wrong")),
        ("/%zz", None),
        ("/_all_dbs", ("adm", "pass")),
    ):
        reply = await web.ask("GET", target, headers={"Origin": APP}, auth=auth)
        assert reply.headers["access-control-allow-origin"] == APP, target


async def test_every_origin_when_the_list_says_so(web: Site) -> None:
    web.server.config.set("cors", "origins", "*")
    web.server.config.set("cors", "credentials", "true")
    reply = await web.ask("GET", "/", headers={"Origin": EVIL})
    assert reply.headers["access-control-allow-origin"] == EVIL
    assert reply.headers["access-control-allow-credentials"] == "true"


@pytest.mark.parametrize(
    ("method", "wanted_headers"),
    [
        ("GET", None),
        ("PUT", "content-type"),
        ("DELETE", "Authorization, Content-Type"),
        ("COPY", "destination,accept"),
    ],
)
async def test_a_preflight_needs_no_credentials(web: Site, method: str, wanted_headers: str | None) -> None:
    headers = {"Origin": APP, "Access-Control-Request-Method": method}
    if wanted_headers is not None:
        headers["Access-Control-Request-Headers"] = wanted_headers
    reply = await web.ask("OPTIONS", "/db/doc", headers=headers, auth=None)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == APP
    assert reply.headers["access-control-max-age"] == "600"
    assert reply.headers["access-control-allow-headers"] == (wanted_headers or "")
    assert (
        reply.headers["access-control-allow-methods"]
        == "CONNECT, COPY, DELETE, GET, HEAD, OPTIONS, POST, PUT, TRACE"
    )


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Origin": EVIL, "Access-Control-Request-Method": "PUT"}, id="a foreign origin"),
        pytest.param({"Origin": APP}, id="no method"),
        pytest.param({"Access-Control-Request-Method": "PUT"}, id="no origin"),
        pytest.param({"Origin": APP, "Access-Control-Request-Method": "PATCH"}, id="an unknown method"),
        pytest.param(
            {
                "Origin": APP,
                "Access-Control-Request-Method": "PUT",
                "Access-Control-Request-Headers": "x-custom",
            },
            id="an unknown header",
        ),
    ],
)
async def test_what_is_not_granted_is_an_ordinary_request(web: Site, headers: dict[str, str]) -> None:
    stranger = await web.ask("OPTIONS", "/db", headers=headers, auth=None)
    assert (stranger.status, stranger.json()["error"]) == (401, "unauthorized")
    known = await web.ask("OPTIONS", "/db", headers=headers)
    assert (known.status, known.headers["allow"]) == (405, "DELETE,GET,HEAD,POST")
    assert "access-control-allow-methods" not in known.headers


async def test_settings_change_what_is_granted(web: Site) -> None:
    for key, value in {
        "methods": "GET, PATCH",
        "headers": "X-Custom",
        "max_age": "7",
        "exposed_headers": "X-A",
    }.items():
        web.server.config.set("cors", key, value)
    headers = {
        "Origin": APP,
        "Access-Control-Request-Method": "PATCH",
        "Access-Control-Request-Headers": "x-custom",
    }
    reply = await web.ask("OPTIONS", "/db", headers=headers, auth=None)
    assert (reply.status, reply.headers["access-control-max-age"]) == (204, "7")
    assert reply.headers["access-control-allow-methods"] == "GET, PATCH"
    read = await web.ask("GET", "/", headers={"Origin": APP})
    assert read.headers["access-control-expose-headers"] == "content-type, cache-control, x-a"


async def test_a_section_of_the_host_comes_first(web: Site) -> None:
    web.server.config.set("cors:127.0.0.1", "origins", EVIL)
    assert "access-control-allow-origin" in (await web.ask("GET", "/", headers={"Origin": EVIL})).headers
    assert "access-control-allow-origin" not in (await web.ask("GET", "/", headers={"Origin": APP})).headers


async def test_nothing_is_granted_unless_it_is_enabled(web: Site) -> None:
    web.server.config.set("chttpd", "enable_cors", "false")
    assert "access-control-allow-origin" not in (await web.ask("GET", "/", headers={"Origin": APP})).headers
    headers = {"Origin": APP, "Access-Control-Request-Method": "GET"}
    assert (await web.ask("OPTIONS", "/db", headers=headers)).status == 405
