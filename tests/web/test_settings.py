"""What the configuration changes about every request and response. Expected is what CouchDB 3.5.0
answered."""

from __future__ import annotations

import gzip
import hashlib

import pytest

from .in_process import Site


@pytest.mark.parametrize("method", ["FOO", "foo", "POSTX", "CONNECT", "PATCH", "M-SEARCH", "X_Y", "UNLINK"])
@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/", 405, "Only GET,HEAD allowed"),
        ("/_session", 405, "Only GET,HEAD,POST,DELETE allowed"),
        ("/nodb", 404, "Database does not exist."),
        ("/db/doc", 405, "Only DELETE,GET,HEAD,POST,PUT,COPY allowed"),
    ],
)
async def test_methods_nobody_knows(web: Site, method: str, path: str, status: int, reason: str) -> None:
    await web.ask("PUT", "/db")
    reply = await web.ask(method, path)
    assert (reply.status, reply.json()["reason"]) == (status, reason)
    assert (await web.ask(method, path, {"a": "body"})).status == status


async def test_what_looks_like_a_request_line_in_a_body(web: Site) -> None:
    await web.ask("PUT", "/db")
    data = b"FOO / HTTP/1.1\r\n" * 1000
    assert (await web.ask("PUT", "/db/a/x", data, headers={"Content-Type": "image/png"})).status == 201
    assert (await web.ask("GET", "/db/a/x")).body == data


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("callback=foo", b'/* CouchDB */foo({"status":"ok","seeds":{}});\n'),
        ("callback=a.b%5B0%5D", b'/* CouchDB */a.b[0]({"status":"ok","seeds":{}});\n'),
        ("callback=", b'{"status":"ok","seeds":{}}\n'),
        ("callback=a-b", b'{"error":"bad_request","reason":"invalid_callback"}\n'),
    ],
)
async def test_jsonp(web: Site, query: str, body: bytes) -> None:
    plain = await web.ask("GET", f"/_up?{query}")
    assert (plain.status, plain.body) == (200, b'{"status":"ok","seeds":{}}\n')
    web.server.config.set("chttpd", "allow_jsonp", "true")
    reply = await web.ask("GET", f"/_up?{query}")
    assert reply.body == body
    kind = "application/javascript" if body.startswith(b"/*") else "application/json"
    assert (reply.status, reply.headers["content-type"]) == (400 if b"error" in body else 200, kind)


async def test_jsonp_of_rows_and_errors(web: Site) -> None:
    web.server.config.set("chttpd", "allow_jsonp", "true")
    await web.ask("PUT", "/db")
    rows = await web.ask("GET", "/db/_all_docs?callback=f")
    assert rows.body.startswith(b'/* CouchDB */f({"total_rows":0') and rows.body.endswith(b");\n")
    error = await web.ask("GET", "/nodb?callback=f")
    assert (error.status, error.headers["content-type"]) == (404, "application/javascript")
    assert error.body == b'/* CouchDB */f({"error":"not_found","reason":"Database does not exist."});\n'
    await web.ask("PUT", "/db/a/x", b"plain", headers={"Content-Type": "text/plain"})
    assert (await web.ask("GET", "/db/a/x?callback=f")).body == b"plain"
    head = await web.ask("HEAD", "/db/_all_docs?callback=f")
    assert (head.status, head.body) == (200, b"")


@pytest.mark.parametrize(
    ("settings", "headers", "expected"),
    [
        ({}, {}, "DENY"),
        ({"same_origin": "true"}, {}, "SAMEORIGIN"),
        ({"hosts": "https://a.example, http://b.example"}, {}, "DENY"),
        (
            {"hosts": "https://a.example, http://b.example"},
            {"Host": "b.example"},
            "ALLOW-FROM http://b.example",
        ),
        (
            {"hosts": "https://b.example"},
            {"X-Forwarded-Host": "b.example", "X-Forwarded-Ssl": "on"},
            "ALLOW-FROM https://b.example",
        ),
        ({"hosts": "*"}, {"Host": "c.example"}, "ALLOW-FROM http://c.example"),
    ],
)
async def test_frames(web: Site, settings: dict[str, str], headers: dict[str, str], expected: str) -> None:
    assert "x-frame-options" not in (await web.ask("GET", "/", headers=headers)).headers
    web.server.config.set("chttpd", "enable_xframe_options", "true")
    for key, value in settings.items():
        web.server.config.set("x_frame_options", key, value)
    for path in ("/", "/nodb"):
        assert (await web.ask("GET", path, headers=headers)).headers["x-frame-options"] == expected


async def test_the_server_may_keep_its_versions_to_itself(web: Site) -> None:
    assert (await web.ask("GET", "/")).headers["server"].startswith("CouchDB/3.5.")
    web.server.config.set("chttpd", "server_header_versions", "false")
    assert (await web.ask("GET", "/")).headers["server"] == "CouchDB"


async def test_a_plus_may_be_a_plus(web: Site) -> None:
    await web.ask("PUT", "/db")
    await web.ask("PUT", "/db/a+b%2Bc%20d", {})
    web.server.config.set("chttpd", "decode_plus_to_space", "false")
    reply = await web.ask("PUT", "/db/a+b%2Bc%20d", {})
    assert reply.json()["id"] == "a+b+c d"
    rows = (await web.ask("GET", "/db/_all_docs?key=%22a+b%2Bc+d%22")).json()["rows"]
    assert [row["id"] for row in rows] == ["a b+c d"], "in a query it still is a space"


async def test_only_known_hosts(web: Site) -> None:
    config = web.server.config
    config.set("chttpd", "valid_hosts", "a.example,b.example")
    config.set("chttpd", "validate_host", "true")
    for host, status in (("a.example", 200), ("b.example:5984", 200), ("c.example", 400), ("", 400)):
        reply = await web.ask("GET", "/", headers={"Host": host})
        assert reply.status == status, host
    assert reply.json() == {"error": "bad_request", "reason": "Invalid host header"}


async def test_what_browsers_may_do_with_attachments(web: Site) -> None:
    await web.ask("PUT", "/db")
    await web.ask("PUT", "/db/a/x", b"x", headers={"Content-Type": "text/html"})
    for key, value, expected in (
        (None, None, "sandbox"),
        ("attachments_header_value", "sandbox allow-scripts", "sandbox allow-scripts"),
        ("attachments_enable", "false", None),
    ):
        if key and value:
            web.server.config.set("csp", key, value)
        assert (await web.ask("GET", "/db/a/x")).headers.get("content-security-policy") == expected


@pytest.mark.parametrize(
    ("settings", "content_type", "digest", "encoded_length"),
    [
        ({}, "text/plain", "q3B8P7vkN4lWWQqWCe1xQA==", 905),
        ({}, "application/x-foo", "zTZb7cs+mtRnQ5oQrvZOSw==", None),
        ({"compressible_types": "image/*"}, "text/plain", "zTZb7cs+mtRnQ5oQrvZOSw==", None),
        ({"compressible_types": "image/*"}, "IMAGE/png; x=y", "q3B8P7vkN4lWWQqWCe1xQA==", 905),
        ({"compression_level": "0"}, "text/plain", "zTZb7cs+mtRnQ5oQrvZOSw==", None),
        ({"compression_level": "1"}, "text/plain", "msvjfpSR0ONjOYoTL3FRkw==", 881),
        ({"compression_level": "9"}, "text/plain", "cW1lZ2GAGA/d402aJKhcJA==", 905),
        ({"compression_level": "12"}, "text/plain", "zTZb7cs+mtRnQ5oQrvZOSw==", None),
        ({"compression_level": "x"}, "text/plain", "q3B8P7vkN4lWWQqWCe1xQA==", 905),
    ],
)
async def test_which_attachments_are_compressed(
    web: Site, settings: dict[str, str], content_type: str, digest: str, encoded_length: int | None
) -> None:
    for key, value in settings.items():
        web.server.config.set("attachments", key, value)
    data = "\n".join(str(number) for number in range(1, 501)).encode()
    await web.ask("PUT", "/db")
    await web.ask("PUT", "/db/a/x", data, headers={"Content-Type": content_type})
    stub = (await web.ask("GET", "/db/a?att_encoding_info=true")).json()["_attachments"]["x"]
    assert (stub["digest"], stub.get("encoded_length")) == (f"md5-{digest}", encoded_length)
    body = (await web.ask("GET", "/db/a/x", headers={"Accept-Encoding": "gzip"})).body
    assert (
        hashlib.md5(gzip.decompress(body) if encoded_length else body).digest() == hashlib.md5(data).digest()
    )
