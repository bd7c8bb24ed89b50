"""Errors: every one is an object of `error` and `reason`, whatever went wrong and whenever."""

from __future__ import annotations

import gc
import json
import logging
import weakref
from typing import Any

import pytest
from aiohttp import web as aiohttp_web

from couchlite.errors import Conflict
from http_api import access, app, errors, response
from http_api.request import Request

from ..waiting import until
from .in_process import Site


def rows_that_fail(count: int, error: Exception) -> app.Route:
    """A route that writes `count` rows, then fails."""

    async def handler(request: Request) -> aiohttp_web.StreamResponse:
        stream = response.Stream(request)
        await stream.write(b"[\n")
        for _ in range(count):
            await stream.write(b'"a row of some forty bytes, as they come",\n')
        raise error

    return app.Route(access.anyone, "GET", {"GET": handler})


@pytest.mark.parametrize(
    ("method", "target", "status", "error"),
    [
        ("GET", "/%", 400, "bad_request"),
        ("GET", "/missing", 404, "not_found"),
        ("PUT", "/_upper", 400, "illegal_database_name"),
        ("DELETE", "/_up", 405, "method_not_allowed"),
        ("GET", "/db/_local", 400, "bad_request"),
        ("GET", "/db/_local/a/b", 400, "bad_request"),
        ("PUT", "/db/%ff", 400, "illegal_docid"),
        ("GET", "/db/%ff", 404, "not_found"),
        ("PUT", "/db/a/%ff", 400, "bad_request"),
        ("GET", "/db/a/%ff", 404, "not_found"),
    ],
)
async def test_the_shape_of_an_error(web: Site, method: str, target: str, status: int, error: str) -> None:
    web.server.create("db")
    reply = await web.ask(method, target)
    assert reply.status == status
    assert set(reply.json()) == {"error", "reason"}
    assert reply.json()["error"] == error
    assert reply.headers["content-type"] == "application/json"
    assert reply.headers["x-couch-request-id"]


async def test_a_fault_of_ours_is_logged_and_not_told(
    web: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(app.SERVER_ROUTES, "_fail", rows_that_fail(1, ValueError("a secret")))
    reply = await web.ask("GET", "/_fail")
    assert (reply.status, reply.json()["error"]) == (500, "internal_server_error")
    assert b"secret" not in reply.body
    assert b"Traceback" not in reply.body
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert reply.headers["x-couch-request-id"] in record.getMessage()
    assert record.exc_info is not None


async def test_an_error_before_the_first_piece_has_its_status(
    web: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(app.SERVER_ROUTES, "_fail", rows_that_fail(10, Conflict()))
    assert (await web.ask("GET", "/_fail")).status == 409


@pytest.mark.parametrize("error", [Conflict(), ValueError("a secret")])
async def test_an_error_in_the_midst_of_a_body_cuts_it(
    web: Site, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    monkeypatch.setitem(app.SERVER_ROUTES, "_fail", rows_that_fail(5_000, error))
    answer = await web.send(b"GET /_fail HTTP/1.1\r\nHost: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")
    assert not answer.endswith(b"0\r\n\r\n"), "a body that is cut must not look complete"
    last_line = answer.rstrip().rsplit(b"\n", 1)[1]
    assert set(json.loads(last_line)) == {"code", "error", "reason"}
    assert b"secret" not in answer


async def test_a_browser_is_sent_to_the_login_page(web: Site) -> None:
    web.server.create("db")
    reply = await web.ask("GET", "/db/a%20b", headers={"Accept": "text/html"}, auth=None)
    assert reply.status == 302
    assert reply.headers["location"] == (
        f"http://127.0.0.1:{web.port}/_utils/session.html?return=%2Fdb%2Fa%20b"
        "&reason=You%20are%20not%20authorized%20to%20access%20this%20db."
    )
    for accept in ("application/json", "*/*", "text/html, application/json;q=0.1", "image/png"):
        assert (await web.ask("GET", "/db", headers={"Accept": accept}, auth=None)).status == 401


async def test_the_configuration_may_ask_for_credentials(web: Site) -> None:
    web.server.config.set("chttpd", "WWW-Authenticate", 'Basic realm="x"')
    reply = await web.ask("GET", "/_all_dbs", auth=None)
    assert (reply.status, reply.headers["www-authenticate"]) == (401, 'Basic realm="x"')


async def test_valid_users_only_when_the_configuration_says_so(web: Site) -> None:
    web.server.config.set("chttpd", "require_valid_user", "true")
    for target in ("/", "/_up"):
        reply = await web.ask("GET", target, auth=None)
        assert (reply.status, reply.json()["reason"]) == (401, "Authentication required.")
        assert reply.headers["www-authenticate"] == 'Basic realm="server"'
    web.server.config.set("chttpd", "require_valid_user_except_for_up", "true")
    assert (await web.ask("GET", "/_up", auth=None)).status == 200
    assert (await web.ask("GET", "/", auth=None)).status == 401
    assert (await web.ask("GET", "/")).status == 200


@pytest.mark.parametrize(
    "authorization",
    [
        "Basic",
        "Basic: YWRtOnBhc3M=",
        "Bearer abc",
        "Basic !!!",
        "Basic YWRt",
        "Basic YWRtOnBhc3",
        "Basic Xzpf",
        "",
    ],
)
async def test_a_header_without_credentials_is_anonymous(web: Site, authorization: str) -> None:
    headers = {"Authorization": authorization}
    assert (await web.ask("GET", "/", headers=headers)).status == 200
    reply = await web.ask("GET", "/_all_dbs", headers=headers)
    assert reply.json()["reason"] == "You are not a server admin."


@pytest.mark.parametrize("authorization", ["Basic Og==", "Basic YWRtOndyb25n", "Basic /zp4"])
async def test_wrong_credentials_are_refused_everywhere(web: Site, authorization: str) -> None:
    reply = await web.ask("GET", "/", headers={"Authorization": authorization})
    assert (reply.status, reply.json()["reason"]) == (401, "Name or password is incorrect.")


@pytest.mark.parametrize(
    ("method", "target", "body"),
    [
        ("PUT", "/db/a", {"n": 2}),
        ("PUT", "/db/_design/d", b"{"),
        ("GET", "/db/missing", None),
        ("PUT", "/db/a/file", b"x"),
        ("POST", "/db/_bulk_docs", {"docs": [{"_id": "a"}, {"_id": "_a"}]}),
    ],
)
async def test_an_error_holds_nothing_back(web: Site, method: str, target: str, body: Any) -> None:
    await web.ask("PUT", "/db")
    await web.ask("PUT", "/db/a", {"n": 1})
    database = weakref.ref(web.server.open("db"))
    gc.collect()
    gc.disable()
    try:
        assert (await web.ask(method, target, body)).status >= 400
        await web.ask("DELETE", "/db")
        await until(lambda: database() is None)
    finally:
        gc.enable()


def test_what_an_error_came_from_is_let_go_of() -> None:
    with pytest.raises(Conflict) as caught:
        try:
            raise OSError
        except OSError as cause:
            raise Conflict from cause
    error = caught.value
    errors.let_go(error)
    assert error.__traceback__ is None
    assert error.__cause__ is not None
    assert error.__cause__.__traceback__ is None
