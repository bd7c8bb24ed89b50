"""JSON Web Tokens and a proxy's headers as credentials. What is expected of HMAC, RSA and EC keys is what a
CouchDB 3.5.0 answered to the same, unless a comment says otherwise."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import pytest
from aiohttp import web as aiohttp_web

from tests.issuer import (
    ED25519,
    OTHER_RSA,
    P256,
    P384,
    P521,
    RSA,
    SECRET,
    claims,
    pem,
    published,
    raw_token,
    token,
)

from .in_process import Reply, Site

ALL_HANDLERS = ", ".join(
    f"{{chttpd_auth, {name}_authentication_handler}}" for name in ("jwt", "proxy", "cookie", "default")
)
KEYS = {
    "hmac:_default": base64.b64encode(SECRET).decode(),
    "hmac:broken": "!!",
    "rsa:r": pem(RSA),
    "rsa:e": pem(P256),
    "rsa:junk": "junk",
    "ec:e": pem(P256),
    "ec:e384": pem(P384),
    "ec:e521": pem(P521),
    "ec:r": pem(RSA),
    "eddsa:d": pem(ED25519),
}
NOW = int(time.time())
BAD, DENIED = 400, 401


@pytest.fixture
def web(web: Site) -> Site:
    config = web.server.config
    config.set("chttpd", "authentication_handlers", ALL_HANDLERS)
    for name, key in KEYS.items():
        config.set("jwt_keys", name, key)
    return web


async def session(web: Site, bearer: str, **headers: str) -> Reply:
    return await web.ask(
        "GET", "/_session", headers={"Authorization": f"Bearer {bearer}", **headers}, auth=None
    )


async def proxied(web: Site, name: str = "bob", roles: str | None = None, **headers: str) -> Any:
    fields = {"X-Auth-CouchDB-UserName": name, **headers}
    if roles is not None:
        fields["X-Auth-CouchDB-Roles"] = roles
    return (await web.ask("GET", "/_session", headers=fields, auth=None)).json()["userCtx"]


@pytest.mark.parametrize(
    ("algorithm", "key", "kid"),
    [
        ("HS256", SECRET, None),
        ("HS384", SECRET, None),
        ("HS512", SECRET, "_default"),
        ("RS256", RSA, "r"),
        ("RS384", RSA, "r"),
        ("RS512", RSA, "r"),
        ("ES256", P256, "e"),
        ("ES384", P384, "e384"),
        ("ES512", P521, "e521"),
        pytest.param("EdDSA", ED25519, "d", id="EdDSA, which CouchDB doesn't know"),
    ],
)
async def test_a_good_token(web: Site, algorithm: str, key: Any, kid: str | None) -> None:
    text = token(None, algorithm, key, **({} if kid is None else {"kid": kid}))
    reply = await session(web, text)
    assert (reply.status, reply.json()["userCtx"]) == (200, {"name": "bob", "roles": []})
    info = reply.json()["info"]
    assert info["authenticated"] == "jwt"
    assert info["authentication_handlers"] == ["jwt", "proxy", "cookie", "default"]
    body, _, signature = text.rpartition(".")
    forged = body + "." + ("A" if signature[0] != "A" else "B") + signature[1:]
    assert (await session(web, forged)).status == 400


@pytest.mark.parametrize(
    ("bearer", "status", "reason"),
    [
        ("a.b", BAD, "Malformed token"),
        ("a.b.c", BAD, "Malformed token"),
        (raw_token([], {}), BAD, "Not an object"),
        (raw_token({"alg": "HS256"}, []), BAD, "Not an object"),
        (raw_token({}, {}), BAD, "Missing alg header parameter"),
        (raw_token({"alg": 5}, {}), BAD, "Invalid alg header parameter"),
        (raw_token({"alg": "none"}, claims(), b""), BAD, "Invalid alg header parameter"),
        (raw_token({"alg": "PS256"}, claims()), BAD, "Invalid alg header parameter"),
        (raw_token({"alg": "HS256", "typ": "logout+jwt"}, claims()), BAD, "Invalid typ header parameter"),
        (raw_token({"alg": "HS256", "kid": 5}, claims()), BAD, "Unknown kid"),
        (raw_token({"alg": "HS256"}, claims()), BAD, "Bad HMAC"),
        (raw_token({"alg": "RS256", "kid": "r"}, claims()), BAD, "Bad signature"),
        (raw_token({"alg": "ES256", "kid": "e"}, claims()), BAD, "Bad signature"),
        (token(key=SECRET + b"!"), BAD, "Bad HMAC"),
        (token(None, "RS256", OTHER_RSA, kid="r"), BAD, "Bad signature"),
        (token(None, "ES256", P256, kid="e384"), BAD, "Bad signature"),
        (token(kid="r"), BAD, "Unknown kid"),
        (token(None, "RS256", RSA, kid="_default"), BAD, "Unknown kid"),
        (token(kid="broken"), BAD, "Not a valid key"),
        (token(None, "RS256", RSA, kid="junk"), BAD, "Not a valid key"),
        (token(None, "RS256", RSA, kid="e"), BAD, "not an RSA public key"),
        (token(None, "ES256", P256, kid="r"), BAD, "not an EC public key"),
        (token({"sub": "bob"}), BAD, "Missing exp claim"),
        (raw_token({"alg": "HS256"}, claims(exp="9999999999")), BAD, "Invalid exp claim"),
        (token(claims(exp=NOW - 1)), DENIED, "exp not in future"),
        (token({"exp": NOW + 600}), DENIED, "Token missing sub claim."),
        (token(claims(**{"_couchdb.roles": ["a", 5]})), BAD, "Malformed token"),
        (token(claims(**{"_couchdb.roles": None})), BAD, "Malformed token"),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else None,  # whole tokens differ each time
)
async def test_a_bad_token(web: Site, bearer: str, status: int, reason: str) -> None:
    reply = await session(web, bearer)
    assert (reply.status, reply.json()["reason"]) == (status, reason)


@pytest.mark.parametrize(
    ("setting", "more", "status", "reason"),
    [
        ("nbf", {}, BAD, "Missing nbf claim"),
        ("nbf", {"nbf": NOW - 60}, 200, None),
        ("nbf", {"nbf": NOW + 600}, DENIED, "nbf not in past"),
        ("iat", {}, BAD, "Missing iat claim"),
        ("iat", {"iat": NOW}, 200, None),
        ("iat", {"iat": "x"}, BAD, "Invalid iat claim"),
        ("iss", {"iss": "me"}, BAD, "Invalid iss claim"),
        ('{iss, "me"}', {}, BAD, "Missing iss claim"),
        ('{iss, "me"}', {"iss": "me"}, 200, None),
        ('exp, {iss , "me"}, nbf', {"iss": "you", "nbf": NOW - 60}, BAD, "Invalid iss claim"),
        ('exp, {iss,"me"}, nbf', {"iss": "me", "nbf": NOW - 60}, 200, None),
        ("kid", {}, BAD, "Missing kid claim"),
        ("typ", {}, 200, None),
        ("", {"exp": NOW - 600}, 200, None),
        ("!!", {}, 500, "JWT is not configured correctly"),
        ("foo", {}, 500, "JWT is not configured correctly"),
    ],
)
async def test_required_claims(
    web: Site, setting: str, more: dict[str, Any], status: int, reason: str | None
) -> None:
    web.server.config.set("jwt_auth", "required_claims", setting)
    reply = await session(web, token(claims(**more)))
    assert (reply.status, reply.json().get("reason")) == (status, reason)


@pytest.mark.parametrize(
    ("settings", "more", "roles"),
    [
        ({}, {"_couchdb.roles": ["a", "b"]}, ["a", "b"]),
        ({}, {"_couchdb.roles": " a , b,, c,"}, [" a", "b", "", "c"]),
        ({"roles_claim_name": "r"}, {"r": ["a"], "_couchdb.roles": ["b"]}, ["a"]),
        (
            {"roles_claim_path": r"my.nested._couchdb\.roles"},
            {"my": {"nested": {"_couchdb.roles": ["a"]}}},
            ["a"],
        ),
        ({"roles_claim_path": "my.nested", "roles_claim_name": "r"}, {"my": {"nested": "x,y"}}, ["x", "y"]),
        ({"roles_claim_path": "my.nested"}, {}, "missing json key: my"),
        ({"roles_claim_path": "my.nested"}, {"my": {}}, "missing json key: nested"),
        ({"roles_claim_path": "my.nested"}, {"my": 5}, "json_mismatch"),
    ],
)
async def test_roles(web: Site, settings: dict[str, str], more: dict[str, Any], roles: object) -> None:
    for key, value in settings.items():
        web.server.config.set("jwt_auth", key, value)
    reply = await session(web, token(claims(**more)))
    assert (reply.json().get("userCtx") or {}).get("roles", reply.json().get("reason")) == roles
    assert reply.status == (404 if isinstance(roles, str) else 200)


async def test_a_token_may_be_meant_for_others(web: Site) -> None:
    """CouchDB doesn't look at `aud`; here a setting asks for it."""
    assert (await session(web, token(claims(aud="them")))).status == 200
    web.server.config.set("jwt_auth", "audience", "us")
    for audience, status in (("us", 200), (["them", "us"], 200), ("them", 400), (["them"], 400), (None, 400)):
        assert (await session(web, token(claims(aud=audience)))).status == status, audience


async def test_an_administrator_by_token(web: Site) -> None:
    bearer = {"Authorization": "Bearer " + token(claims(**{"_couchdb.roles": ["_admin"]}))}
    assert (await web.ask("GET", "/_all_dbs", headers=bearer, auth=None)).status == 200


async def test_a_token_that_was_good_stops_to_be(web: Site) -> None:
    good = token()
    for _ in range(2):
        assert (await session(web, good)).status == 200
    web.server.config.delete("jwt_keys", "hmac:_default")
    assert (await session(web, good)).json()["reason"] == "Unknown kid"
    web.server.config.set("jwt_keys", "hmac:_default", base64.b64encode(b"x" * 64).decode())
    assert (await session(web, good)).json()["reason"] == "Bad HMAC"


async def test_a_token_ends_while_it_is_remembered(web: Site) -> None:
    brief = token(claims(exp=int(time.time()) + 2))
    reply = await session(web, brief)
    assert reply.status == 200
    deadline = time.monotonic() + 20
    while reply.status == 200 and time.monotonic() < deadline:
        reply = await session(web, brief)
    assert reply.json() == {"error": "unauthorized", "reason": "exp not in future"}


async def test_only_handlers_that_are_named_count(web: Site) -> None:
    web.server.config.delete("chttpd", "authentication_handlers")
    reply = await session(web, token())
    assert reply.json()["info"] == {"authentication_handlers": ["cookie", "default"]}
    assert reply.json()["userCtx"]["name"] is None
    assert (await proxied(web))["name"] is None


@pytest.mark.parametrize(
    ("setting", "names"),
    [
        (
            "{chttpd_auth, default_authentication_handler},{chttpd_auth,jwt_authentication_handler}",
            ["default", "jwt"],
        ),
        ("{couch_httpd_auth, cookie_authentication_handler}", ["cookie"]),
        ("{couch_httpd_auth, proxy_authentification_handler}", ["proxy"]),
        ("{chttpd_auth, cookie_authentication_handler}, {my, own}, 5", ["cookie"]),
        ("{couch_httpd_auth, null_authentication_handler}", ["cookie", "default"]),
        ("nonsense", ["cookie", "default"]),
        ("{", ["cookie", "default"]),
    ],
)
async def test_which_handlers_there_are(web: Site, setting: str, names: list[str]) -> None:
    web.server.config.set("chttpd", "authentication_handlers", setting)
    reply = await web.ask("GET", "/_session", auth=None)
    assert reply.json()["info"]["authentication_handlers"] == names
    assert reply.json()["userCtx"]["roles"] == []


async def test_the_order_of_handlers_is_kept(web: Site) -> None:
    reverse = "{chttpd_auth, default_authentication_handler}, {chttpd_auth, jwt_authentication_handler}"
    web.server.config.set("chttpd", "authentication_handlers", reverse)
    good = token()
    for _ in range(3):
        assert (await session(web, good)).json()["info"]["authenticated"] == "jwt"
    web.server.config.set("chttpd", "authentication_handlers", reverse.partition(", {")[0])
    assert (await session(web, good)).json()["userCtx"]["name"] is None


@pytest.mark.parametrize("header", ["bearer x", "Bearer", "BEARER x", "Token x"])
async def test_what_is_no_token_at_all(web: Site, header: str) -> None:
    reply = await web.ask("GET", "/_session", headers={"Authorization": header}, auth=None)
    assert (reply.status, reply.json()["userCtx"]["name"]) == (200, None)


async def test_an_issuer_s_keys_by_http(web: Site) -> None:
    """From an address, with another key after the first; what redirects or is too large isn't taken."""
    documents: dict[str, Any] = {"/keys": {"keys": [published(RSA, "RS256", "one")]}}

    async def answer(request: aiohttp_web.BaseRequest) -> aiohttp_web.StreamResponse:
        if request.path == "/moved":
            return aiohttp_web.Response(status=302, headers={"Location": "/keys"})
        if request.path == "/large":
            return aiohttp_web.Response(text=json.dumps({"keys": [], "more": "x" * 2_000_000}))
        return aiohttp_web.json_response(documents[request.path])

    runner = aiohttp_web.ServerRunner(aiohttp_web.Server(answer))
    await runner.setup()
    try:
        await aiohttp_web.TCPSite(runner, "127.0.0.1", 0).start()
        address = f"http://127.0.0.1:{runner.addresses[0][1]}"
        config = web.server.config
        one = token(None, "RS256", RSA, kid="one")
        assert (await session(web, one)).json()["reason"] == "Unknown kid"
        config.set("jwt_auth", "jwks_url", f"{address}/keys")
        assert (await session(web, one)).json()["userCtx"]["name"] == "bob"
        for path in ("/moved", "/large", "/nothing"):
            config.set("jwt_auth", "jwks_url", address + path)
            reply = await session(web, one)
            assert (reply.status, reply.json()["error"]) == (503, "service_unavailable"), path
        issuer = f"{address}/realm"
        documents["/realm/.well-known/openid-configuration"] = {
            "issuer": issuer,
            "jwks_uri": f"{address}/keys",
        }
        config.delete("jwt_auth", "jwks_url")
        config.set("jwt_auth", "oidc_issuer", issuer)
        two = token(claims(iss=issuer), "RS256", RSA, kid="one")
        assert (await session(web, two)).json()["userCtx"]["name"] == "bob"
    finally:
        await runner.cleanup()


# A proxy's headers


async def test_a_proxy_is_believed_without_a_secret(web: Site) -> None:
    assert await proxied(web, roles="a , b,") == {"name": "bob", "roles": ["a", "b"]}
    assert await proxied(web) == {"name": "bob", "roles": []}
    assert await proxied(web, "", "a") == {"name": None, "roles": []}, "CouchDB makes it a user without name"
    reply = await web.ask("GET", "/_session", headers={"X-Auth-CouchDB-UserName": "bob"})
    assert reply.json()["info"]["authenticated"] == "proxy", "it comes before a password"


async def test_a_proxy_must_know_the_secret_if_it_is_asked_to(web: Site) -> None:
    config = web.server.config
    config.set("chttpd_auth", "secret", "sss")
    config.set("chttpd_auth", "proxy_use_secret", "true")
    assert (await proxied(web))["name"] is None
    for algorithm, is_good in (("sha256", True), ("sha1", True), ("sha512", False)):
        digest = hmac.digest(b"sss", b"bob", algorithm).hex()
        found = await proxied(web, roles="a", **{"X-Auth-CouchDB-Token": digest})
        assert found == ({"name": "bob", "roles": ["a"]} if is_good else {"name": None, "roles": []})
        assert (await proxied(web, "eve", **{"X-Auth-CouchDB-Token": digest}))["name"] is None
        assert (await proxied(web, **{"X-Auth-CouchDB-Token": digest.upper()}))["name"] is None
    config.set("chttpd_auth", "hash_algorithms", "sha512")
    digest = hmac.digest(b"sss", b"bob", "sha512").hex()
    assert (await proxied(web, **{"X-Auth-CouchDB-Token": digest}))["name"] == "bob"


async def test_a_proxy_s_headers_may_have_other_names(web: Site) -> None:
    config = web.server.config
    config.set("chttpd_auth", "x_auth_username", "X-User")
    config.set("chttpd_auth", "x_auth_roles", "X-Groups")
    assert (await proxied(web))["name"] is None
    headers = {"X-User": "bob", "X-Groups": "a"}
    reply = await web.ask("GET", "/_session", headers=headers, auth=None)
    assert reply.json()["userCtx"] == {"name": "bob", "roles": ["a"]}
