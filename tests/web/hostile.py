"""What bad clients send: Hypothesis strategies for bodies, queries, headers, ids and broken HTTP."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote_from_bytes

from hypothesis import strategies as st


def _words(text: str) -> list[str]:
    return text.split()


SPECIAL_NAMES = _words(
    "_id _rev _revisions _attachments _deleted _revs_info _conflicts _deleted_conflicts _local_seq _foo "
    "docs new_edits id rev revs atts_since keys key start_key startkey end_key endkey startkey_docid limit "
    "skip queries doc_ids selector fields since conflicts include_docs descending names admins members roles "
    "name password data content_type stub follows length digest encoding encoded_length revpos start ids "
    "validate_doc_update views filters language $and $or $not $regex $gt $in $elemMatch $mod $type $size"
)

PARAMETERS = _words(
    "rev revs revs_info conflicts deleted_conflicts meta local_seq open_revs latest attachments "
    "att_encoding_info atts_since new_edits batch since limit skip descending include_docs update_seq key "
    "keys start_key startkey end_key endkey start_key_doc_id end_key_doc_id inclusive_end feed heartbeat "
    "timeout style filter view doc_ids seq_interval reduce group group_level stale stable update sorted q n "
    "partitioned count next name all_docs w r full missing"
)

HOSTILE_IDS = [
    *(
        "",
        ".",
        "..",
        "/",
        "a/b",
        "_",
        "_foo",
        "_design",
        "_design/",
        "_design/a/b/c",
        "_local",
        "_local/",
        "+",
    ),
    *(
        " ",
        "\x00",
        "\x01",
        "a\x00b",
        "\n",
        "\r\n",
        "\u2028",
        "\ufffe",
        "\U0001f600",
        "e\u0301",
        "%",
        "%2F",
        "?",
    ),
    *("x" * 600, "_design/" + "y" * 600, "é" * 300, "'\"<>&;", "../../etc/passwd", "null", "-0", "9" * 400),
]
HOSTILE_REVS = [
    "",
    "1",
    "1-",
    "-1-a",
    "0-0",
    "1-z",
    "x-y",
    "1-" + "a" * 32,
    "1-" + "A" * 40,
    "99999999999999-a",
    "*",
]

NUMBERS = st.sampled_from([0, -1, 1, 2**31, 2**63, 2**64, -(2**70), 10**400, 0.5, -0.0, 1e308, 5e-324])
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    NUMBERS,
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(HOSTILE_IDS),
    st.sampled_from(HOSTILE_REVS),
)
NAMES = st.one_of(st.sampled_from(SPECIAL_NAMES), st.text(max_size=6))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


def _object(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Objects with some of these members."""
    return st.fixed_dictionaries({}, optional=members)


@st.composite
def nearly(draw: st.DrawFn, right: st.SearchStrategy[Any]) -> Any:
    """A right value, of which up to two parts became something else."""
    value = draw(right)
    for _ in range(draw(st.integers(0, 2))):
        path = draw(st.sampled_from(list(_paths(value))))
        value = _replaced(value, path, draw(VALUES))
    return value


def _paths(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield above
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield from _paths(part, (*above, key))


def _replaced(value: Any, path: tuple[Any, ...], part: Any) -> Any:
    if not path:
        return part
    copy = value.copy()
    copy[path[0]] = _replaced(value[path[0]], path[1:], part)
    return copy


IDS = st.sampled_from(["doc", "other", *HOSTILE_IDS])
REVS = st.sampled_from(["1-" + "a" * 32, "2-" + "b" * 32, *HOSTILE_REVS])
ANY_REVS = st.lists(REVS, max_size=3)
BASE64 = st.binary(max_size=20).map(lambda data: base64.b64encode(data).decode())
ATTACHMENTS = st.dictionaries(
    st.just("att") | IDS,
    _object(
        content_type=st.sampled_from(["text/plain", "image/png", "", "x" * 300, "a\nb"]),
        data=BASE64,
        stub=st.just(True),
        follows=st.just(True),
        revpos=NUMBERS,
        length=NUMBERS,
        digest=st.sampled_from(["md5-", "md5-AAAAAAAAAAAAAAAAAAAAAA==", "sha1-x"]),
        encoding=st.sampled_from(["gzip", "identity", "br"]),
        encoded_length=NUMBERS,
    ),
    max_size=2,
)
DOCUMENTS = _object(
    _id=IDS,
    _rev=REVS,
    _deleted=st.booleans(),
    _attachments=ATTACHMENTS,
    _revisions=_object(start=st.integers(0, 5), ids=ANY_REVS | st.just(["a" * 32, "b" * 32])),
    value=VALUES,
)
QUERIES = _object(
    keys=st.lists(IDS, max_size=3),
    key=IDS,
    start_key=IDS,
    end_key=IDS,
    limit=st.integers(0, 5),
    skip=NUMBERS,
    descending=st.booleans(),
    include_docs=st.booleans(),
)
WANTED = st.lists(_object(id=IDS, rev=REVS, atts_since=ANY_REVS), max_size=3)
REVS_OF_IDS = st.dictionaries(IDS, ANY_REVS, max_size=3)
SELECTORS = st.dictionaries(NAMES, VALUES, max_size=3)
SOME_IDS = st.lists(IDS, max_size=3)
SORTS = st.lists(IDS | st.dictionaries(IDS, st.sampled_from(["asc", "desc", ""]), max_size=2), max_size=2)
FINDS = _object(
    selector=SELECTORS,
    fields=SOME_IDS,
    sort=SORTS,
    limit=st.integers(0, 5),
    skip=NUMBERS,
    bookmark=IDS | BASE64,
    use_index=IDS | SOME_IDS,
    update=st.booleans(),
    conflicts=st.booleans(),
    r=NUMBERS,
    execution_stats=st.booleans(),
)
MANGO_INDEXES = _object(
    index=_object(fields=SORTS, partial_filter_selector=SELECTORS),
    name=IDS,
    ddoc=IDS,
    type=st.sampled_from(["json", "text", "nouveau", "special", "x"]),
    partitioned=st.booleans(),
)
PEOPLE = _object(names=SOME_IDS, roles=SOME_IDS)
BATCHES = _object(docs=st.lists(DOCUMENTS, max_size=3), new_edits=st.booleans())

CALLS: dict[str, st.SearchStrategy[Any]] = {
    "PUT /db/doc": DOCUMENTS,
    "PUT /db/other?new_edits=false": DOCUMENTS,
    "PUT /db/_local/doc": DOCUMENTS,
    "PUT /db/_design/doc": DOCUMENTS,
    "POST /db": DOCUMENTS,
    "POST /db/_bulk_docs": BATCHES,
    "POST /db/_bulk_get": _object(docs=WANTED),
    "POST /db/_bulk_get?revs=true&attachments=true&latest=true": _object(docs=WANTED),
    "POST /db/_revs_diff": REVS_OF_IDS,
    "POST /db/_missing_revs": REVS_OF_IDS,
    "POST /db/_purge": REVS_OF_IDS,
    "POST /db/_conflicts/doc": _object(leaves=SOME_IDS, only=SOME_IDS, document=DOCUMENTS, pick=IDS),
    "POST /db/_conflicts/doc/_merge": _object(only=SOME_IDS, rules=st.dictionaries(IDS, IDS)),
    "POST /db/_conflicts/_missing_bases": _object(ids=SOME_IDS),
    "POST /db/_conflicts/_bases": BATCHES,
    "POST /db/_conflicts/doc/_undo": _object(resolution=NUMBERS),
    "POST /db/_all_docs": QUERIES,
    "POST /db/_all_docs/queries": _object(queries=st.lists(QUERIES, max_size=3)),
    "POST /db/_design_docs": QUERIES,
    "POST /db/_local_docs": QUERIES,
    "POST /db/_changes?filter=_doc_ids": _object(doc_ids=SOME_IDS),
    "POST /db/_changes?filter=_selector": _object(selector=SELECTORS, fields=SOME_IDS),
    "POST /db/_changes": _object(doc_ids=SOME_IDS, selector=SELECTORS),
    "POST /db/_find": FINDS,
    "POST /db/_explain": FINDS,
    "POST /db/_index": MANGO_INDEXES,
    "POST /db/_design/doc/_view/v": QUERIES,
    "POST /db/_design/doc/_view/v?group_level=1": QUERIES,
    "POST /db/_design/doc/_view/v/queries": _object(queries=st.lists(QUERIES, max_size=3)),
    "PUT /db/_security": _object(admins=PEOPLE, members=PEOPLE),
    "PUT /db/_revs_limit": st.just(1000),
    "PUT /db/_purged_infos_limit": st.just(1000),
    "PUT /_node/_local/_config/a/b": st.just("text"),
    "POST /_dbs_info": _object(keys=st.just(["db"])),
    "POST /_session": st.just({"name": "adm", "password": "pass"}),
    "POST /_cluster_setup": _object(action=IDS, username=IDS, password=IDS, port=NUMBERS),
    "PUT /_users/org.couchdb.user:x": _object(name=IDS, password=IDS, roles=SOME_IDS, type=IDS),
}
"""Requests with JSON, and what their bodies should be."""


def encode(value: Any) -> bytes:
    return json.dumps(value).encode()


def _spoilt(data: bytes, at: int, insert: bytes) -> bytes:
    at %= len(data) + 1
    return data[:at] + insert + data[at + len(insert) // 2 :]


JSON_BODIES = nearly(st.one_of(*CALLS.values())).map(encode)
SPOILT_BODIES = st.builds(
    _spoilt,
    JSON_BODIES,
    st.integers(0, 10_000),
    st.sampled_from(
        [b"", b'"', b"\\", b"\xff", b"\x00", b"\xed\xa0\x80", b"{", b"]", b",", b"1e999", b"NaN"]
    ),
)
MULTIPART_BODIES = st.builds(
    lambda doc, rest: b"--x\r\nContent-Type: application/json\r\n\r\n" + doc + rest,
    JSON_BODIES,
    st.sampled_from(
        [
            *(b"", b"\r\n--x--", b"\r\n--x\r\n\r\nabc\r\n--x--", b"\r\n--x\r\nno colon\r\n\r\n", b"\r\n--x"),
            *(b"\r\n--x\r\n" + b"h: v\r\n" * 20_000, b"\r\n--xx--", b"--x--"),
        ]
    ),
)
CONTENT_TYPES = st.sampled_from(
    [
        *(
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-16",
            ";",
            "",
            "text/plain",
        ),
        *("multipart/related", "multipart/related; boundary=x", 'multipart/related;boundary="'),
        *("multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "x" * 5_000),
    ]
)
ODD_HEADERS: dict[str, st.SearchStrategy[str]] = {
    "Content-Encoding": st.sampled_from(["gzip", "identity", "deflate", "br", "gzip, gzip", ""]),
    "Accept": st.sampled_from(
        [
            "*/*",
            "application/json",
            "multipart/mixed",
            "multipart/related",
            "text/html",
            ";q=x,,",
            "x" * 5_000,
        ]
    ),
    "If-Match": REVS,
    "If-None-Match": st.sampled_from(["*", '"', "W/", '"1-a", "2-b"', "\xff"]),
    "Range": st.sampled_from(
        ["bytes=0-0", "bytes=-1", "bytes=9-1", "bytes=a-b", "bytes=" + "1-2," * 500, "x=1"]
    ),
    "Destination": IDS.map(lambda text: quote_from_bytes(text.encode("utf-8", "surrogatepass"))),
    "Authorization": st.sampled_from(
        [
            "Basic",
            "Basic !",
            "Basic OjpA",
            "Basic /w==",
            "Bearer x",
            "Negotiate",
            "\xff",
            "Basic " + "QUFB" * 900,
        ]
    ),
    "Cookie": st.sampled_from(["AuthSession=", "AuthSession=YWRtOjY=", "AuthSession=%", "=;=;", "\xfe\xff"]),
    "X-HTTP-Method-Override": st.sampled_from(["GET", "PUT", "DELETE", "COPY", "TRACE", "get", "X"]),
    "Origin": st.sampled_from(["http://evil.example", "null", "x" * 2_000, "\xff"]),
    "Expect": st.sampled_from(["100-continue", "200-ok"]),
    "Host": st.sampled_from(["", "[", "a:b:c", "x" * 3_000, "\xff", "a b"]),
    "X-Couch-Request-ID": st.sampled_from(["", "x" * 100, "\xff", "a b"]),
    "X-Couch-Full-Commit": st.sampled_from(["true", "maybe"]),
    "Content-MD5": st.sampled_from(["", "x", "1B2M2Y8AsgTpgAmY7PhCfg=="]),
    "X-Forwarded-Host": st.sampled_from(["", "\xff"]),
    "Prefer": st.sampled_from(["return=minimal", "x"]),
    "Accept-Encoding": st.sampled_from(["gzip", "*;q=0", "\xff"]),
    "Huge": st.sampled_from(["x" * 60_000, "x" * 70_000, "\xff" * 60_000]),
}
# Few, since each of them alone may end the request early.
HEADERS = st.lists(
    st.one_of(*[st.tuples(st.just(name), values) for name, values in ODD_HEADERS.items()]), max_size=2
).map(dict)

_LONG_BODIES = [
    *(b"[" * 100_000, b'{"a":' * 50_000, b'"' + b"x" * 300_000, b"[" + b"1," * 100_000 + b"1]"),
    *(b"", b"\xef\xbb\xbf{}"),
]
_JSON = {"Content-Type": "application/json"}
PAYLOADS: st.SearchStrategy[tuple[dict[str, str], bytes | None]] = st.one_of(
    st.tuples(st.just(_JSON), JSON_BODIES),
    st.tuples(st.just(_JSON), JSON_BODIES),
    st.tuples(st.just(_JSON), SPOILT_BODIES | st.binary(max_size=30) | st.sampled_from(_LONG_BODIES)),
    st.tuples(
        st.just(_JSON | {"Content-Encoding": "gzip"}), (JSON_BODIES | SPOILT_BODIES).map(gzip.compress)
    ),
    st.tuples(
        st.sampled_from(["related", "form-data", "mixed"]).map(
            lambda kind: {"Content-Type": f"multipart/{kind}; boundary=x"}
        ),
        MULTIPART_BODIES,
    ),
    st.tuples(CONTENT_TYPES.map(lambda text: {"Content-Type": text}), JSON_BODIES | MULTIPART_BODIES),
    st.tuples(st.just({}), st.none()),
)
"""Headers that tell of a body, and the body."""

QUERY_VALUES = st.one_of(
    st.sampled_from(
        [
            *(
                "",
                "true",
                "false",
                "TRUE",
                "null",
                "0",
                "-1",
                "1",
                "1.5",
                "9" * 50,
                "abc",
                '"a"',
                "[]",
                "{}",
                "[1,",
                "%22",
            ),
            *(
                "all",
                "now",
                "continuous",
                "longpoll",
                "eventsource",
                "websocket",
                "normal",
                "main_only",
                "all_docs",
                "ok",
                "_selector",
            ),
            *(
                "_doc_ids",
                "_design",
                "a/b",
                "%ff",
                "%00",
                "%",
                "%zz",
                "é",
                "+",
                "&",
                "%5B%22" + "1-a%22%5D",
                "lazy",
                "inf",
            ),
        ]
    ),
    VALUES.map(lambda value: quote_from_bytes(encode(value))),
)
QUERIES_TEXT = st.one_of(
    st.just(""),
    st.lists(st.tuples(st.sampled_from(PARAMETERS), QUERY_VALUES), min_size=1, max_size=4).map(
        lambda pairs: "?" + "&".join(f"{name}={value}" for name, value in pairs)
    ),
)

SEGMENTS = st.one_of(
    st.sampled_from(HOSTILE_IDS).map(
        lambda text: quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="")
    ),
    st.sampled_from(HOSTILE_IDS).map(
        lambda text: quote_from_bytes(text.encode("utf-8", "surrogatepass"), safe="/?&+'\"<>;")
    ),
    st.binary(max_size=6).map(quote_from_bytes),
    st.sampled_from(
        [
            *(
                "%",
                "%z",
                "%ED%A0%80",
                "%C0%AF",
                "%FF",
                "é",
                "\xff",
                "a" * 2_000,
                "_all_docs",
                "_design",
                "_local",
                "db",
                "doc",
            ),
            *(
                "_config",
                "_node",
                "_local_docs",
                "queries",
                "_security",
                "_changes",
                "_conflicts",
                "_resolutions",
                "#",
                "a#b",
                "a?b",
                "//",
                "*",
                "http:",
            ),
        ]
    ),
)
TARGETS = st.lists(SEGMENTS, max_size=5).map(lambda segments: "/" + "/".join(segments))

_LINES = [
    *(
        b"GET / HTTP/1.1",
        b"GET /db HTTP/1.0",
        b"GET / HTTP/9.9",
        b"GET /",
        b"GET",
        b"",
        b" ",
        b"\x00",
        b"\xff" * 30,
    ),
    *(
        b"PUT /db/doc HTTP/1.1",
        b"POST /db/_bulk_docs HTTP/1.1",
        b"POST /db HTTP/1.1",
        b"PUT /db/doc/att HTTP/1.1",
    ),
    *(
        b"G\xc3\xa9T / HTTP/1.1",
        b"get / http/1.1",
        b"GET  /  HTTP/1.1",
        b"GET http://[::1/ HTTP/1.1",
        b"GET * HTTP/1.1",
    ),
    *(
        b"CONNECT a:1 HTTP/1.1",
        b"OPTIONS * HTTP/1.1",
        b"PRI * HTTP/2.0",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1",
    ),
    *(
        b"GET /db/_changes?feed=websocket HTTP/1.1",
        b"GET /\r HTTP/1.1",
        b"GET /\n/ HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"X" * 5_000 + b" / HTTP/1.1",
    ),
]
_FIELDS = [
    *(
        b"Content-Length: 5",
        b"Content-Length: -5",
        b"Content-Length: +5",
        b"Content-Length: 5, 5",
        b"Content-Length: 5 5",
    ),
    *(
        b"Content-Length: " + b"9" * 40,
        b"Content-Length: 0x5",
        b"Content-Length:",
        b"Content-Length: \xb2",
        b"Content-Length: 4",
    ),
    *(
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, chunked",
    ),
    *(
        b"Transfer-Encoding: identity",
        b"Transfer-Encoding:",
        b"Transfer-Encoding: x",
        b"Transfer-Encoding\x00: chunked",
    ),
    *(
        b"Content-Type: application/json",
        b"Expect: 100-continue",
        b"Upgrade: websocket",
        b"Connection: Upgrade",
    ),
    *(
        b"Connection: close",
        b"Connection: keep-alive",
        b"no colon",
        b": no name",
        b" folded",
        b"a b: c",
        b"x: \x00",
        b"x: \r y",
    ),
    *(
        b"x: " + b"y" * 70_000,
        b"Host: a",
        b"Host: b",
        b"Content-Encoding: gzip",
        b"Sec-WebSocket-Key: x",
        b"Sec-WebSocket-Version: 13",
        b"\xff: \xff",
    ),
]
_BODIES = [
    *(
        b"",
        b"{}",
        b'{"a"',
        b"hello",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"zz\r\nhello\r\n0\r\n\r\n",
        b"-1\r\n",
        b"5\r\nhel",
    ),
    *(
        b"FFFFFFFFFFFFFFFFFF\r\n",
        b"5;x=y\r\nhello\r\n0\r\ntrailer: x\r\n\r\n",
        b"5\nhello\n0\n\n",
        b"5\r\nhelloXX0\r\n\r\n",
    ),
    *(
        b"2\r\n{}\r\n0\r\n\r\n",
        b"2\r\n{}\r\n0\r\nno colon\r\n\r\n",
        b"0\r\n\r\n",
        b"\x00" * 100,
        b"GET / HTTP/1.1\r\n\r\n",
    ),
    *(b"2" + b";" * 70_000 + b"\r\n{}\r\n0\r\n\r\n", b"0\r\n" + b"t: x\r\n" * 5_000 + b"\r\n"),
]


def _message(line: bytes, fields: list[bytes], body: bytes, end: bytes) -> bytes:
    return b"\r\n".join([line, b"Authorization: Basic YWRtOnBhc3M=", *fields, b"", b""]) + body + end


GARBAGE = st.lists(
    st.one_of(
        st.builds(
            _message,
            st.sampled_from(_LINES),
            st.lists(st.sampled_from(_FIELDS), max_size=4),
            st.sampled_from(_BODIES),
            st.sampled_from([b"", b"\r\n"]),
        ),
        st.binary(max_size=40),
    ),
    min_size=1,
    max_size=3,
).map(b"".join)
