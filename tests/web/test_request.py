"""How targets, queries and bodies are taken apart."""

from __future__ import annotations

import gzip
import zlib
from typing import Any

import pytest

from couchlite.errors import BadRequest, CouchliteError, QueryParseError, TooLarge, UnsupportedMediaType
from http_api.values import (
    boolean,
    decode,
    decompress,
    encode,
    integer,
    is_text,
    json_value,
    media_ranges,
    parse_query,
    positive_integer,
    shown,
)

from .in_process import Site


@pytest.mark.parametrize(
    ("sent", "meant"),
    [
        pytest.param("a", "a", id="plain"),
        pytest.param("a%2Fb", "a/b", id="an escaped slash is part of the segment"),
        pytest.param("a+b", "a b", id="plus is a space"),
        pytest.param("a%2Bb", "a+b", id="an escaped plus is a plus"),
        pytest.param("100%25", "100%", id="percent"),
        pytest.param("%00", "\0", id="NUL is legal"),
        pytest.param("..", "..", id="dots are legal"),
        pytest.param("%C3%A9", "é", id="UTF-8"),
        pytest.param("é", "é", id="UTF-8 sent as it is"),
        pytest.param("%F0%9F%98%80", "😀", id="beyond the BMP"),
        pytest.param("%ed%a0%80", "\ufffd", id="an encoded surrogate is a replacement character"),
    ],
)
def test_decode(sent: str, meant: str) -> None:
    assert decode(sent) == meant
    assert is_text(decode(sent))


@pytest.mark.parametrize("sent", ["%ff", "a%ffb", "%c3", "a%80", "%f5%80%80%80"])
def test_what_is_not_utf8_is_no_text(sent: str) -> None:
    assert not is_text(decode(sent))
    shown(decode(sent)).encode()  # may stand in an answer


@pytest.mark.parametrize(
    ("text", "escaped"),
    [("_design/x", "_design%2Fx"), ("a b", "a%20b"), ("a:b.c-d_e", "a:b.c-d_e"), ("~é", "%7E%C3%A9")],
)
def test_encode_escapes_what_couchdb_escapes(text: str, escaped: str) -> None:
    assert encode(text) == escaped


@pytest.mark.parametrize(
    ("sent", "pairs"),
    [
        pytest.param("a=1&b=2", [("a", "1"), ("b", "2")], id="ampersand"),
        pytest.param("a=1;b=2", [("a", "1"), ("b", "2")], id="semicolon"),
        pytest.param("a=1&a=2", [("a", "1"), ("a", "2")], id="both of two are kept, in order"),
        pytest.param("a", [("a", "")], id="no value"),
        pytest.param("a=b=c", [("a", "b=c")], id="the first = separates"),
        pytest.param("&&a=1&", [("a", "1")], id="empty pieces mean nothing"),
        pytest.param("=", [("", "")], id="an empty name"),
        pytest.param("a%26b=%3D+%2B", [("a&b", "= +")], id="decoded after splitting"),
        pytest.param("a=b?c=d", [("a", "b?c=d")], id="a second question mark"),
    ],
)
def test_query(sent: str, pairs: list[tuple[str, str]]) -> None:
    assert parse_query(sent) == pairs


@pytest.mark.parametrize(
    ("read", "text", "value"),
    [
        (boolean, "true", True),
        (boolean, "FALSE", False),
        (integer, "-7", -7),
        (integer, "+7", 7),
        (positive_integer, "0", 0),
        (json_value, '["a",1.0]', ["a", 1.0]),
    ],
)
def test_typed_values(read: Any, text: str, value: Any) -> None:
    assert read(text) == value


@pytest.mark.parametrize(
    ("read", "text", "reason"),
    [
        (boolean, "yes", 'Invalid boolean parameter: "yes"'),
        (integer, "1.5", 'Invalid value for integer: "1.5"'),
        (integer, "", "Invalid value for integer: []"),
        (integer, "\u0661", 'Invalid value for integer: "\u0661"'),
        (positive_integer, "x", 'Invalid value for integer: "x"'),
        (positive_integer, "-1", 'Invalid value for positive integer: "-1"'),
    ],
)
def test_wrong_values_are_query_parse_errors(read: Any, text: str, reason: str) -> None:
    with pytest.raises(QueryParseError) as caught:
        read(text)
    assert caught.value.reason == reason


@pytest.mark.parametrize("text", ["{", "", '"\udcff"'])
def test_malformed_json_in_a_query(text: str) -> None:
    with pytest.raises(BadRequest, match="invalid UTF-8 JSON"):
        json_value(text)


def test_gzip_bodies_are_decompressed_members_and_all() -> None:
    assert decompress(gzip.compress(b"ab") + gzip.compress(b"cd"), "gzip", 100) == b"abcd"
    assert decompress(b"ab", None, 100) == b"ab"
    assert decompress(b"ab", "identity", 100) == b"ab"


@pytest.mark.parametrize(
    ("body", "encoding", "error"),
    [
        pytest.param(gzip.compress(bytes(1_000_000)), "gzip", TooLarge, id="a bomb"),
        pytest.param(b"not gzip", "gzip", BadRequest, id="not gzip at all"),
        pytest.param(gzip.compress(b"abcdef")[:-9], "gzip", BadRequest, id="cut off"),
        pytest.param(gzip.compress(b"a") + b"junk", "gzip", BadRequest, id="junk behind"),
        pytest.param(zlib.compress(b"a"), "deflate", UnsupportedMediaType, id="CouchDB knows no deflate"),
    ],
)
def test_bodies_that_can_not_be_decompressed(body: bytes, encoding: str, error: type[CouchliteError]) -> None:
    with pytest.raises(error):
        decompress(body, encoding, 10_000)


def test_media_ranges() -> None:
    assert media_ranges("text/html, */*;q=0.5, a/b; q=0, c/d;q=nonsense") == {
        "text/html": 1.0,
        "*/*": 0.5,
        "a/b": 0.0,
        "c/d": 0.0,
    }


JSON_BODY = b'{"keys":[]}'


@pytest.mark.parametrize(
    ("headers", "body", "status", "reason"),
    [
        pytest.param({}, JSON_BODY, 200, None, id="JSON"),
        pytest.param({"Content-Encoding": "gzip"}, gzip.compress(JSON_BODY), 200, None, id="gzipped"),
        pytest.param(
            {"Content-Type": "application/json; charset=utf-8"}, JSON_BODY, 200, None, id="a parameter"
        ),
        pytest.param(
            {"Content-Type": "APPLICATION/JSON"},
            JSON_BODY,
            415,
            "Content-Type must be application/json",
            id="the type is compared with its case",
        ),
        pytest.param(
            {"Content-Encoding": "br"}, JSON_BODY, 415, "br is not a supported content encoding.", id="brotli"
        ),
        pytest.param(
            {"Content-Encoding": "gzip"},
            JSON_BODY,
            400,
            "Request body is not properly gzipped.",
            id="not gzip",
        ),
        pytest.param({}, b"", 400, "invalid UTF-8 JSON", id="empty"),
        pytest.param({}, b"{", 400, "invalid UTF-8 JSON", id="cut off"),
        pytest.param({}, b'{"keys":["\xff"]}', 400, "invalid UTF-8 JSON", id="not UTF-8"),
        pytest.param({}, b"[]", 400, "Request body must be a JSON object", id="no object"),
    ],
)
async def test_json_bodies(
    web: Site, headers: dict[str, str], body: bytes, status: int, reason: str | None
) -> None:
    reply = await web.ask("POST", "/_dbs_info", body, headers=headers)
    assert reply.status == status
    if reason is not None:
        assert reply.json()["reason"] == reason


async def test_a_chunked_body_is_put_together(web: Site) -> None:
    head = "POST /_dbs_info HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/json\r\n"
    authorization = "Authorization: Basic YWRtOnBhc3M=\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await web.send((head + authorization).encode() + b'5\r\n{"key\r\n6\r\ns":[]}\r\n0\r\n\r\n')
    assert answer.startswith(b"HTTP/1.1 200")


async def test_no_body_at_all_is_a_missing_one(web: Site) -> None:
    reply = await web.ask("POST", "/_dbs_info", headers={"Content-Type": "application/json"})
    assert (reply.status, reply.json()["reason"]) == (400, "Missing request body")


async def test_the_given_request_id_comes_back_when_it_is_a_decent_one(web: Site) -> None:
    given = await web.ask("GET", "/_up", headers={"X-Couch-Request-ID": "abc-DEF_9"})
    assert given.headers["x-couch-request-id"] == "abc-DEF_9"
    for bad in ("a" * 37, "a b", "<x>", ""):
        other = await web.ask("GET", "/_up", headers={"X-Couch-Request-ID": bad})
        assert len(other.headers["x-couch-request-id"]) == 10


async def test_a_post_may_stand_for_another_method(web: Site) -> None:
    override = {"X-HTTP-Method-Override": "PUT"}
    assert (await web.ask("POST", "/stood-for", headers=override)).status == 201
    assert (await web.ask("GET", "/stood-for", headers={"X-HTTP-Method-Override": "DELETE"})).status == 200


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/db/_design/%FF/_view/v", 404),
        ("/db/_design/%FF/_info", 404),
        ("/db/_design/d/_list/l/%FF/v", 404),
        ("/db/_changes?filter=%FF/f", 404),
        ("/db/_changes?filter=_view&view=%FF/v", 404),
        ("/db/_conflicts/%FF", 400),
        ("/_replications/%FF", 404),
        ("/_replications/%FF/_explain?doc_id=a", 404),
        ("/_replications/_explain?doc_id=%FF", 400),
        ("/_scheduler/jobs/%FF", 404),
        ("/_scheduler/docs/_replicator/%FF", 404),
    ],
)
async def test_what_is_no_text_is_not_found_anywhere(web: Site, path: str, status: int) -> None:
    for database in ("db", "_replicator"):
        await web.ask("PUT", f"/{database}")
    design = {"lists": {"l": "function () {}"}}
    assert (await web.ask("PUT", "/db/_design/d", design)).status == 201
    reply = await web.ask("GET", path)
    assert reply.status == status, reply.body
