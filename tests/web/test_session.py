"""/_session beyond the recorded scenarios: what the settings change about a cookie, and how it is renewed."""

from __future__ import annotations

import time

import pytest

from couchlite import cookies
from couchlite.provision import provision

from .in_process import ADMIN, Reply, Site

LOGIN = {"name": ADMIN[0], "password": ADMIN[1]}


@pytest.fixture
def web(web: Site) -> Site:
    """With everything that a server has when it is served: `_users`, a secret for cookies."""
    provision(web.server)
    return web


async def log_in(web: Site, query: str = "") -> Reply:
    return await web.ask("POST", f"/_session{query}", LOGIN, auth=None)


def cookie_of(reply: Reply) -> str:
    return reply.headers["set-cookie"].split(";")[0]


async def test_a_cookie_instead_of_a_password(web: Site) -> None:
    cookie = cookie_of(await log_in(web))
    reply = await web.ask("GET", "/_session", headers={"Cookie": f"other=1; {cookie}; more=2"}, auth=None)
    assert reply.json()["userCtx"] == {"name": "adm", "roles": ["_admin"]}
    assert reply.json()["info"]["authenticated"] == "cookie"
    assert (await web.ask("GET", "/_all_dbs", headers={"Cookie": cookie}, auth=None)).status == 200
    assert "set-cookie" not in reply.headers, "a fresh cookie needs no renewal"


async def test_a_cookie_comes_before_a_password(web: Site) -> None:
    cookie = cookie_of(await log_in(web))
    reply = await web.ask("GET", "/_session", headers={"Cookie": cookie}, auth=("adm", "wrong"))
    assert reply.json()["info"]["authenticated"] == "cookie"


async def test_a_cookie_is_renewed_on_any_response(web: Site) -> None:
    account = web.app.accounts.find("adm")
    assert account
    key = (web.server.config.text("chttpd_auth", "secret") + account.salt).encode()
    old = cookies.seal("adm", key, "sha256", int(time.time()) - 100)
    reply = await web.ask("GET", "/_all_dbs", headers={"Cookie": f"AuthSession={old}"}, auth=None)
    assert reply.status == 200
    renewed = cookie_of(reply)
    assert renewed != f"AuthSession={old}"
    assert (await web.ask("GET", "/_all_dbs", headers={"Cookie": renewed}, auth=None)).status == 200


@pytest.mark.parametrize(
    ("settings", "attributes"),
    [
        pytest.param({}, ["Version=1", "Max-Age=600", "Path=/", "HttpOnly"], id="by default"),
        pytest.param({"timeout": "60"}, ["Version=1", "Max-Age=60", "Path=/", "HttpOnly"], id="another time"),
        pytest.param(
            {"allow_persistent_cookies": "false"}, ["Version=1", "Path=/", "HttpOnly"], id="for the session"
        ),
        pytest.param(
            {"cookie_domain": "example.com", "same_site": "Strict"},
            ["Version=1", "Max-Age=600", "Domain=example.com", "Path=/", "HttpOnly", "SameSite=Strict"],
            id="domain and site",
        ),
        pytest.param(
            {"same_site": "nonsense"},
            ["Version=1", "Max-Age=600", "Path=/", "HttpOnly"],
            id="an unknown site rule",
        ),
    ],
)
async def test_attributes(web: Site, settings: dict[str, str], attributes: list[str]) -> None:
    for key, value in settings.items():
        web.server.config.set("chttpd_auth", key, value)
    found = (await log_in(web)).headers["set-cookie"].split("; ")[1:]
    assert [attribute for attribute in found if not attribute.startswith("Expires=")] == attributes


async def test_where_a_browser_goes_next(web: Site) -> None:
    done = await log_in(web, "?next=/_utils/")
    assert done.status == 302
    assert done.headers["location"] == f"http://127.0.0.1:{web.port}/_utils/"
    failed = await web.ask("POST", "/_session?fail=/again", {**LOGIN, "password": "x"}, auth=None)
    assert (failed.status, failed.headers["location"]) == (302, f"http://127.0.0.1:{web.port}/again")
    assert cookie_of(failed) == "AuthSession="


@pytest.mark.parametrize(
    "form",
    [
        pytest.param({"name": 5, "password": "x"}, id="a number as name"),
        pytest.param({"name": "adm", "password": None}, id="no text as password"),
        pytest.param([], id="a list"),
        pytest.param({"name": "adm", "username": "eve", "password": "pass"}, id="two names"),
        pytest.param({}, id="no name"),
    ],
)
async def test_a_form_that_makes_no_sense(web: Site, form: object) -> None:
    assert (await web.ask("POST", "/_session", form, auth=None)).status == 400


@pytest.mark.parametrize("name", ["\ud800", "x" * 10_000, "\0", "a:b"])
async def test_a_hostile_name_is_just_unknown(web: Site, name: str) -> None:
    reply = await web.ask("POST", "/_session", {"name": name, "password": "x"}, auth=None)
    assert reply.status in (400, 401)


async def test_login_needs_no_valid_user(web: Site) -> None:
    web.server.config.set("chttpd", "require_valid_user", "true")
    assert (await web.ask("GET", "/_session", auth=None)).status == 401
    assert (await log_in(web)).status == 200


async def test_log_out_clears_the_cookie(web: Site) -> None:
    reply = await web.ask("DELETE", "/_session", headers={"Cookie": cookie_of(await log_in(web))}, auth=None)
    assert (reply.status, cookie_of(reply)) == (200, "AuthSession=")
