"""Attachments over HTTP: alone, inside documents, as parts of multipart bodies; streamed, ranged, damaged."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import gzip
import hashlib
import json
import random
import resource
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from http_api.attachments import parse_ranges

from .in_process import ADMIN, Reply, Site, parse

BOUNDARY = "gc0p4Jq0M2Yt08jU534c0p"
RELATED = {"Content-Type": f'multipart/related; boundary="{BOUNDARY}"'}
JSON = {"Accept": "application/json"}
MULTIPART = {"Accept": "multipart/related, multipart/mixed"}
CREDENTIALS = base64.b64encode(":".join(ADMIN).encode()).decode()


@pytest.fixture
async def db(web: Site) -> AsyncIterator[Site]:
    """The application with one database, `db`; at the end it must fit together, and nothing half uploaded may
    be left in it."""
    web.server.create("db")
    yield web
    database = web.server.open("db")
    assert database.check(deep=True) == []
    assert [path for path in (database.path / "blobs" / "tmp").rglob("*") if path.is_file()] == []


def random_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def md5(data: bytes) -> str:
    return base64.b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()


def related(document: dict[str, Any], *parts: bytes) -> bytes:
    pieces = [b"Content-Type: application/json\r\n\r\n" + json.dumps(document).encode()]
    pieces += [b"\r\n" + part for part in parts]
    delimiter = f"--{BOUNDARY}".encode()
    return b"".join(delimiter + b"\r\n" + piece + b"\r\n" for piece in pieces) + delimiter + b"--"


def following(**lengths: int | None) -> dict[str, Any]:
    return {
        name: {"follows": True, "content_type": "a/b"} | ({} if length is None else {"length": length})
        for name, length in lengths.items()
    }


def split(reply: Reply) -> list[tuple[dict[str, str], bytes]]:
    """The parts of a multipart answer: headers, in lower case, and bodies."""
    boundary = reply.headers["content-type"].partition("boundary=")[2].strip('"')
    pieces = reply.body.split(f"--{boundary}".encode())
    assert (pieces[0], pieces[-1]) == (b"", b"--")
    parts = []
    for piece in pieces[1:-1]:
        head, _, body = piece.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n") if line)
        parts.append(({name.lower(): text for name, text in headers.items()}, body.removesuffix(b"\r\n")))
    return parts


async def upload(site: Site, target: str, data: bytes, content_type: str = "a/b") -> str:
    reply = await site.ask("PUT", target, data, headers={"Content-Type": content_type})
    assert reply.status == 201, reply
    rev: str = reply.json()["rev"]
    return rev


async def stubs(site: Site, doc_id: str, query: str = "") -> dict[str, Any]:
    found: dict[str, Any] = (await site.ask("GET", f"/db/{doc_id}{query}")).json()["_attachments"]
    return found


# --- alone


@pytest.mark.parametrize("size", [0, 1, 16 * 1024, 16 * 1024 + 1, 3_000_000])
@pytest.mark.parametrize("content_type", ["application/octet-stream", "text/plain"])
async def test_what_is_put_is_what_is_got(db: Site, size: int, content_type: str) -> None:
    data = random_bytes(size)
    await upload(db, "/db/a/file", data, content_type)
    got = await db.ask("GET", "/db/a/file")
    assert (got.status, got.body) == (200, data)
    assert got.headers["content-type"] == content_type
    assert got.headers["content-length"] == str(size)
    head = await db.ask("HEAD", "/db/a/file")
    assert (head.status, head.body, head.headers["content-length"]) == (200, b"", str(size))
    assert (await stubs(db, "a"))["file"]["length"] == size


async def test_the_tag_is_the_digest_of_what_is_stored(db: Site) -> None:
    await upload(db, "/db/a/file", b"abc")
    reply = await db.ask("GET", "/db/a/file")
    assert reply.headers["etag"] == f'"{md5(b"abc")}"'
    again = await db.ask("GET", "/db/a/file", headers={"If-None-Match": reply.headers["etag"]})
    assert (again.status, again.body) == (304, b"")


async def test_a_page_that_was_attached_does_not_act_as_one_of_the_server(db: Site) -> None:
    await upload(db, "/db/a/page", b"<script>", "text/html")
    assert (await db.ask("GET", "/db/a/page")).headers["content-security-policy"] == "sandbox"


async def test_no_content_type_breaks_a_header(db: Site) -> None:
    large = base64.b64encode(random_bytes(100_000)).decode()
    for name, data in (("small", "YQ=="), ("large", large)):
        attachments = {"f": {"data": data, "content_type": "a\r\nX-Evil: \0\u00e9"}}
        assert (await db.ask("PUT", f"/db/{name}", {"_attachments": attachments})).status == 201
        reply = await db.ask("GET", f"/db/{name}/f")
        assert (reply.status, "x-evil" in reply.headers) == (200, False)


@pytest.mark.parametrize(
    ("accepted", "encoded"),
    [
        (None, False),
        ("gzip", True),
        ("deflate, gzip;q=0.5", True),
        ("gzip;q=0", False),
        ("*", True),
        ("*, gzip;q=0", False),
        ("identity", False),
        ("nonsense;;", False),
    ],
)
async def test_what_is_stored_gzipped_is_sent_so_to_those_who_take_it(
    db: Site, accepted: str | None, encoded: bool
) -> None:
    data = b"compress me " * 1000
    await upload(db, "/db/a/file", data, "text/plain")
    headers = {} if accepted is None else {"Accept-Encoding": accepted}
    reply = await db.ask("GET", "/db/a/file", headers=headers)
    assert (reply.headers.get("content-encoding") == "gzip") is encoded
    assert (gzip.decompress(reply.body) if encoded else reply.body) == data
    assert reply.headers["content-length"] == str(len(reply.body))
    assert reply.headers["accept-ranges"] == "none"


async def test_a_body_that_comes_gzipped_is_kept_as_it_is(db: Site) -> None:
    data = b"compress me " * 100_000
    headers = {"Content-Type": "text/plain", "Content-Encoding": "GZIP"}
    assert (await db.ask("PUT", "/db/a/file", gzip.compress(data), headers=headers)).status == 201
    reply = await db.ask("GET", "/db/a/file")
    assert (reply.body, reply.headers["transfer-encoding"]) == (data, "chunked")
    inline = (await db.ask("GET", "/db/a?attachments=true", headers=JSON)).json()
    assert base64.b64decode(inline["_attachments"]["file"]["data"]) == data
    reply = await db.ask("PUT", "/db/b/file", b"x", headers={"Content-Encoding": "br"})
    assert (reply.status, reply.json()["error"]) == (415, "bad_content_type")


async def test_a_body_that_lies_about_being_gzipped_can_only_be_got_as_it_came(db: Site) -> None:
    await db.ask("PUT", "/db/a/file", b"not gzip at all", headers={"Content-Encoding": "gzip"})
    assert (await db.ask("GET", "/db/a/file")).status == 500
    assert (await db.ask("GET", "/db/a/file", headers={"Accept-Encoding": "gzip"})).body == b"not gzip at all"


@pytest.mark.parametrize(
    "target", ["/db/a/x/y%2Fz", "/db/a/x%2Fy/z", "/db/_design/a/x/y/z", "/db/a//x//y/z/"]
)
async def test_names_may_have_slashes(db: Site, target: str) -> None:
    reply = await db.ask("PUT", target, b"x")
    assert reply.status == 201
    assert reply.headers["location"].endswith("/x%2Fy%2Fz")
    assert (await db.ask("GET", target)).body == b"x"


@pytest.mark.parametrize(
    ("method", "target", "headers", "expected"),
    [
        ("GET", "/db/none/file", {}, (404, "not_found", "missing")),
        ("GET", "/db/a/none", {}, (404, "not_found", "Document is missing attachment")),
        ("GET", "/db/a/file?rev=1-abc", {}, (404, "not_found", "missing")),
        ("PUT", "/db/a/file", {}, (409, "conflict", "Document update conflict.")),
        ("PUT", "/db/a/file?rev=1-abc", {}, (409, "not_found", "missing_rev")),
        ("PUT", "/db/a/file?rev=x", {}, (400, "bad_request", "Invalid rev format")),
        (
            "PUT",
            "/db/a/_x",
            {},
            (400, "bad_request", "Attachment name '_x' starts with prohibited character '_'"),
        ),
        (
            "PUT",
            "/db/_a/file",
            {},
            (400, "illegal_docid", "Only reserved document ids may start with underscore."),
        ),
        ("DELETE", "/db/none/file", {}, (404, "not_found", "missing")),
        ("DELETE", "/db/a/none", {}, (404, "not_found", "Document is missing attachment")),
        ("DELETE", "/db/a/file", {}, (409, "conflict", "Document update conflict.")),
        ("DELETE", "/db/a/none?rev=REV", {}, (404, "not_found", "Document is missing attachment")),
        (
            "DELETE",
            "/db/a/file?rev=REV",
            {"If-Match": "1-abc"},
            (400, "bad_request", "Document rev and etag have different values"),
        ),
        ("POST", "/db/a/file", {}, (405, "method_not_allowed", "Only DELETE,GET,HEAD,PUT allowed")),
    ],
)
async def test_requests_that_are_refused(
    db: Site, method: str, target: str, headers: dict[str, str], expected: tuple[int, str, str]
) -> None:
    rev = await upload(db, "/db/a/file", b"abc")
    reply = await db.ask(
        method, target.replace("REV", rev), None if method == "GET" else b"x", headers=headers
    )
    assert (reply.status, reply.json()["error"], reply.json()["reason"]) == expected


async def test_adding_replacing_and_removing_leaves_the_others_as_they_are(db: Site) -> None:
    rev = (await db.ask("PUT", "/db/a", {"v": 1, "_attachments": {"one": {"data": "MQ=="}}})).json()["rev"]
    rev = await upload(db, f"/db/a/two?rev={rev}", b"2")
    rev = await upload(db, f"/db/a/one?rev={rev}", b"11")
    found = (await db.ask("GET", "/db/a")).json()
    assert found["v"] == 1
    assert {name: stub["revpos"] for name, stub in found["_attachments"].items()} == {"one": 3, "two": 2}
    reply = await db.ask("DELETE", f"/db/a/one?rev={rev}")
    assert (reply.status, "location" in reply.headers) == (200, False)
    assert list(await stubs(db, "a")) == ["two"]
    assert (await db.ask("GET", f"/db/a/one?rev={rev}")).body == b"11"


async def test_chunked_bodies_need_no_length(db: Site) -> None:
    pieces = [random_bytes(size) for size in (5, 70_000, 1)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
    head = put_head(db, "/db/a/file", "Transfer-Encoding: chunked")
    assert parse(await db.send(head + body)).status == 201
    assert (await db.ask("GET", "/db/a/file")).body == b"".join(pieces)


async def test_an_upload_without_a_body_is_an_empty_attachment(db: Site) -> None:
    assert parse(await db.send(put_head(db, "/db/a/file"))).status == 201
    assert (await stubs(db, "a"))["file"]["length"] == 0


async def test_an_upload_that_breaks_off_leaves_nothing(db: Site) -> None:
    head = put_head(db, "/db/a/file", "Content-Length: 1000000")
    await hang_up_after(db, head + random_bytes(300_000))
    assert (await db.ask("GET", "/db/a")).status == 404


async def test_a_conflict_is_told_before_the_body_is_asked_for(db: Site) -> None:
    await upload(db, "/db/a/file", b"abc")
    head = put_head(db, "/db/a/file", "Content-Length: 1000000", "Expect: 100-continue")
    assert (await db.send(head)).startswith(b"HTTP/1.1 409 ")


async def test_an_attachment_is_as_large_as_the_configuration_allows(db: Site) -> None:
    db.server.config.set("couchdb", "max_attachment_size", "5")
    await upload(db, "/db/a/file", b"12345")
    too_large = {"error": "attachment_too_large", "reason": "file"}
    reply = await db.ask("PUT", "/db/b/file", b"123456")
    assert (reply.status, reply.json()) == (413, too_large)
    head = put_head(db, "/db/b/file", "Transfer-Encoding: chunked")
    reply = parse(await db.send(head + b"6\r\n123456\r\n0\r\n\r\n"))
    assert (reply.status, reply.json()) == (413, too_large)
    reply = await db.ask(
        "PUT", "/db/b", related({"_attachments": following(file=6)}, b"123456"), headers=RELATED
    )
    assert (reply.status, reply.json()) == (413, too_large)


# --- ranges


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, []),
        ("bytes=0-4", [(0, 4)]),
        ("bytes=5-", [(5, 19)]),
        ("bytes=-5", [(15, 19)]),
        ("bytes=-50", [(1, 19)]),
        ("bytes=15-99", [(15, 19)]),
        ("bytes=0-0, 2-3,-1", [(0, 0), (2, 3), (19, 19)]),
        ("bytes=0-", []),
        ("bytes=", []),
        ("bytes=x", []),
        ("bytes=1-2-3", []),
        ("items=1-2", []),
        ("bytes=" + "9" * 5000 + "-", []),
        ("bytes=" + ",".join(["1-1"] * 9), [(1, 1)] * 9),
        ("bytes=" + ",".join(["1-1"] * 10), []),
    ],
)
def test_ranges_of_twenty_bytes(header: str | None, expected: list[tuple[int, int]]) -> None:
    assert parse_ranges(header, 20) == expected


@pytest.mark.parametrize("header", ["bytes=20-", "bytes=9-5", "bytes=-0", "bytes=30-40", "bytes=0-1,7-5"])
async def test_ranges_that_hold_no_byte(db: Site, header: str) -> None:
    await upload(db, "/db/a/file", b"01234567890123456789")
    reply = await db.ask("GET", "/db/a/file", headers={"Range": header})
    assert (reply.status, reply.json()["error"]) == (416, "requested_range_not_satisfiable")


async def test_one_range(db: Site) -> None:
    data = random_bytes(100_000)
    await upload(db, "/db/a/file", data)
    reply = await db.ask("GET", "/db/a/file", headers={"Range": "bytes=70000-70009"})
    assert (reply.status, reply.body) == (206, data[70_000:70_010])
    assert reply.headers["content-range"] == "bytes 70000-70009/100000"
    assert reply.headers["content-length"] == "10"
    head = await db.ask("HEAD", "/db/a/file", headers={"Range": "bytes=70000-"})
    assert (head.status, head.body, head.headers["content-length"]) == (206, b"", "30000")


async def test_several_ranges_are_parts(db: Site) -> None:
    await upload(db, "/db/a/file", b"0123456789")
    reply = await db.ask("GET", "/db/a/file", headers={"Range": "bytes=0-1,4-5"})
    assert reply.status == 206
    assert split(reply) == [
        ({"content-type": "a/b", "content-range": "bytes 0-1/10"}, b"01"),
        ({"content-type": "a/b", "content-range": "bytes 4-5/10"}, b"45"),
    ]


async def test_what_is_stored_encoded_has_no_ranges(db: Site) -> None:
    await upload(db, "/db/a/file", b"0123456789", "text/plain")
    reply = await db.ask("GET", "/db/a/file", headers={"Range": "bytes=0-1"})
    assert (reply.status, reply.body) == (200, b"0123456789")
    reply = await db.ask("GET", "/db/a/file", headers={"Range": "bytes=10-"})
    assert (reply.status, reply.json()["error"]) == (416, "requested_range_not_satisfiable")


# --- in documents


async def test_inline_data_comes_back_as_stub_or_as_data(db: Site) -> None:
    large = random_bytes(200_000)
    data = {
        "small": {"data": "YWJj", "content_type": "a/b"},
        "large": {"data": base64.b64encode(large).decode(), "content_type": "text/plain"},
    }
    assert (await db.ask("PUT", "/db/a", {"_attachments": data})).status == 201
    assert (await stubs(db, "a"))["small"] == {
        "content_type": "a/b",
        "revpos": 1,
        "digest": f"md5-{md5(b'abc')}",
        "length": 3,
        "stub": True,
    }
    found = (await db.ask("GET", "/db/a?attachments=true", headers=JSON)).json()["_attachments"]
    assert [base64.b64decode(found[name]["data"]) for name in data] == [b"abc", large]
    info = (await stubs(db, "a", "?att_encoding_info=true"))["large"]
    assert (info["encoding"], info["length"]) == ("gzip", 200_000)


async def test_a_large_document_with_data_is_streamed(db: Site) -> None:
    bodies = {name: random_bytes(size) for name, size in (("a", 700_001), ("b", 2), ("c", 700_003))}
    rev = ""
    for name, body in bodies.items():
        rev = await upload(db, f"/db/a/{name}" + (f"?rev={rev}" if rev else ""), body)
    reply = await db.ask("GET", "/db/a?attachments=true", headers=JSON)
    assert reply.headers["transfer-encoding"] == "chunked"
    found = reply.json()["_attachments"]
    assert {name: base64.b64decode(found[name]["data"]) for name in found} == bodies


async def test_atts_since_sends_what_is_newer_than_what_the_client_has(db: Site) -> None:
    first = await upload(db, "/db/a/one", b"1")
    second = await upload(db, f"/db/a/two?rev={first}", b"2")
    for known, sent in (([], {"one", "two"}), ([first, "1-abc"], {"two"}), ([first, second], set())):
        query = f"?atts_since={json.dumps(known)}".replace(" ", "")
        found = (await db.ask("GET", f"/db/a{query}", headers=JSON)).json()["_attachments"]
        assert {name for name in found if "data" in found[name]} == sent
    reply = await db.ask("GET", f'/db/a?atts_since=["{second}"]', headers=MULTIPART)
    assert reply.headers["content-type"] == "application/json"  # nothing would follow


async def test_follows_without_parts_is_refused(db: Site) -> None:
    reply = await db.ask("PUT", "/db/a", {"_attachments": following(file=3)})
    assert (reply.status, reply.json()["error"]) == (400, "bad_request")


# --- multipart


async def test_parts_belong_to_what_follows_in_the_order_of_the_document(db: Site) -> None:
    large = random_bytes(300_000)
    document = {"_attachments": {"inline": {"data": "YQ=="}} | following(z=3, a=len(large), m=None)}
    reply = await db.ask("PUT", "/db/a", related(document, b"abc", large, b"--" + b"x" * 9), headers=RELATED)
    assert reply.status == 201
    for name, body in (("inline", b"a"), ("z", b"abc"), ("a", large), ("m", b"--" + b"x" * 9)):
        assert (await db.ask("GET", f"/db/a/{name}")).body == body


async def test_what_is_got_as_multipart_can_be_put_as_it_is(db: Site) -> None:
    text = b"text " * 5000
    await upload(db, "/db/a/text", text, "text/plain")
    rev = (await db.ask("GET", "/db/a")).json()["_rev"]
    await upload(db, f"/db/a/binary?rev={rev}", random_bytes(50_000))
    got = await db.ask("GET", "/db/a?attachments=true&revs=true", headers=MULTIPART)
    assert got.headers["content-length"] == str(len(got.body))
    head = await db.ask("HEAD", "/db/a?attachments=true&revs=true", headers=MULTIPART)
    assert head.headers["content-length"] == got.headers["content-length"]
    db.server.create("copy")
    sent = {"Content-Type": got.headers["content-type"]}
    assert (await db.ask("PUT", "/copy/a?new_edits=false", got.body, headers=sent)).status == 201
    query = "?attachments=true&revs=true&att_encoding_info=true"
    original = await db.ask("GET", f"/db/a{query}", headers=JSON)
    assert (await db.ask("GET", f"/copy/a{query}", headers=JSON)).body == original.body
    assert db.server.open("copy").check(deep=True) == []


async def test_open_revs_as_multipart_mixed(db: Site) -> None:
    rev = await upload(db, "/db/a/file", b"abc")
    reply = await db.ask("GET", f'/db/a?open_revs=["{rev}","2-x"]', headers=MULTIPART)
    assert reply.headers["content-type"].startswith("multipart/mixed; ")
    (found_head, found), (missing_head, missing) = split(reply)
    assert missing_head == {"content-type": 'application/json; error="true"'}
    assert json.loads(missing) == {"missing": "2-x"}
    (_, document), (_, data) = split(Reply(200, found_head, found))
    assert (json.loads(document)["_attachments"]["file"]["follows"], data) == (True, b"abc")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            related({"_attachments": following(f=3)}), "attachment shorter than expected", id="no part"
        ),
        pytest.param(
            related({"_attachments": following(f=9)}, b"abc"),
            "attachment shorter than expected",
            id="a part shorter than announced",
        ),
        pytest.param(
            related({"_attachments": following(f=1)}, b"abc"),
            "attachment longer than expected",
            id="a part longer than announced",
        ),
        pytest.param(
            related({"_attachments": following(f=3)}, b"abc")[:-9],
            "expected more data",
            id="a body cut short",
        ),
        pytest.param(
            related({"_attachments": {"f": {**following(f=3)["f"], "digest": f"md5-{md5(b'xyz')}"}}}, b"abc"),
            "Possible message corruption.",
            id="a part that was damaged on its way",
        ),
        pytest.param(
            related({"_attachments": following(_f=3)}, b"abc"), None, id="a name that is not allowed"
        ),
        pytest.param(b"", "expected more data", id="nothing"),
        pytest.param(
            f"--{BOUNDARY}\r\n\r\n{{}}\r\n--{BOUNDARY}--".encode(), None, id="a first part of no type"
        ),
    ],
)
async def test_multipart_bodies_that_are_refused(db: Site, body: bytes, expected: str | None) -> None:
    reply = await db.ask("PUT", "/db/a", body, headers=RELATED)
    assert reply.status in (400, 415)
    assert expected in (None, reply.json()["reason"])
    assert (await db.ask("GET", "/db/a")).status == 404


async def test_a_conflicting_upload_is_not_received(db: Site) -> None:
    await db.ask("PUT", "/db/a", {})
    reply = await db.ask("PUT", "/db/a", related({"_attachments": following(f=5)}, b"short"), headers=RELATED)
    assert (reply.status, reply.json()["error"]) == (409, "conflict")


# --- forms


def form(*fields: tuple[str, bytes]) -> bytes:
    pieces = [
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {name}\r\n\r\n".encode() + value + b"\r\n"
        for name, value in fields
    ]
    return b"".join(pieces) + f"--{BOUNDARY}--".encode()


async def post_form(site: Site, *fields: tuple[str, bytes]) -> Reply:
    headers = {
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Referer": f"http://127.0.0.1:{site.port}/page",
    }
    return await site.ask("POST", "/db/a", form(*fields), headers=headers)


async def test_a_form_attaches_files_to_a_revision_or_a_new_document(db: Site) -> None:
    file = 'name="_attachments"; filename="f.bin"'
    reply = await post_form(db, (file, b"1"), ('name="_doc"', b'{"v":1}'))
    assert reply.status == 201
    rev = reply.json()["rev"].encode()
    reply = await post_form(db, ('name="_rev"', rev), (file, b"2"), (file.replace("f.bin", "g"), b"3"))
    assert reply.status == 201
    assert (await db.ask("GET", "/db/a")).json()["v"] == 1
    assert [(await db.ask("GET", f"/db/a/{name}")).body for name in ("f.bin", "g")] == [b"2", b"3"]


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ([('name="_attachments"; filename="f"', b"1")], 400),
        ([('name="_rev"', b"1-abc"), ('name="_attachments"; filename="f"', b"1")], 409),
        ([('name="_attachments"; filename="_f"', b"1"), ('name="_doc"', b"{}")], 400),
        ([('name="_attachments"; filename="f"', b"1" * 100_000), ('name="_doc"', b"{")], 400),
    ],
)
async def test_forms_that_are_refused(db: Site, fields: list[tuple[str, bytes]], status: int) -> None:
    assert (await post_form(db, *fields)).status == status


async def test_a_form_comes_from_a_page_of_this_server(db: Site) -> None:
    for headers in ({}, {"Referer": "http://elsewhere.example/"}):
        assert (await db.ask("POST", "/db/a", b"", headers=headers)).status == 400


# --- streaming


async def test_memory_does_not_grow_with_the_size_of_a_body(db: Site) -> None:
    size = 200 * 1024 * 1024
    await stream_up(db, "/db/a/small", 20 * 1024 * 1024)
    before = peak_rss_bytes()
    await stream_up(db, "/db/b/large", size)
    assert await stream_down(db, "/db/b/large") == size
    assert peak_rss_bytes() - before < size // 4


async def test_a_large_body_leaves_other_requests_their_turn(db: Site) -> None:
    await stream_up(db, "/db/a/large", 50 * 1024 * 1024)
    download = asyncio.create_task(stream_down(db, "/db/a/large"))
    turns = 0
    while not download.done():
        assert (await db.ask("GET", "/db")).status == 200
        turns += 1
    assert turns > 3


# --- by hand


def put_head(site: Site, target: str, *lines: str) -> bytes:
    fields = [
        f"PUT {target} HTTP/1.1",
        f"Host: 127.0.0.1:{site.port}",
        f"Authorization: Basic {CREDENTIALS}",
        "Connection: close",
        *lines,
    ]
    return "\r\n".join([*fields, "", ""]).encode()


async def hang_up_after(site: Site, data: bytes) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", site.port)
    writer.write(data)
    await writer.drain()
    await asyncio.sleep(0.2)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    await asyncio.sleep(0.2)


async def stream_up(site: Site, target: str, size: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    with contextlib.closing(writer):
        writer.write(put_head(site, target, f"Content-Length: {size}"))
        piece = bytes(1024 * 1024)
        for _ in range(size // len(piece)):
            writer.write(piece)
            await writer.drain()
        assert (await reader.read()).startswith(b"HTTP/1.1 201 ")


async def stream_down(site: Site, target: str) -> int:
    """How many bytes of body came."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
    with contextlib.closing(writer):
        writer.write(put_head(site, target).replace(b"PUT", b"GET", 1))
        await reader.readuntil(b"\r\n\r\n")
        size = 0
        while piece := await reader.read(1024 * 1024):
            size += len(piece)
        return size


def peak_rss_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
