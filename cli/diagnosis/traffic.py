"""Whether requests and answers come through as they were sent: what proxies tend to break. Done with a
database of its own, which is deleted at the end."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator

from . import feeds
from .findings import Finding, Notes
from .patient import Patient
from .wire import Unreachable

ANNOUNCED_BYTES = 50_000_000
"""LiveSync's largest document, and a usual attachment."""
SENT_BYTES = 2 << 20
"""More than nginx takes unless it is told to."""
MULTIPART = "multipart/mixed"

BODY_REPAIR = "take the proxy's limit away (nginx: client_max_body_size 0;), the server has its own: "


def examine(patient: Patient) -> Iterator[Finding]:
    if not patient.is_admin:
        return
    notes = Notes("requests")
    path = f"/couchlite-doctor-{secrets.token_hex(6)}"
    made = patient.wire.ask("PUT", path)
    if made.status == 507:
        yield Notes("disk").fail("the server takes no writes: its disk is full", "make room on that disk")
        return
    if made.status not in (201, 202):
        yield notes.fail(
            f"no database can be made: {made.problem}", "have the proxy let PUT, DELETE and COPY through"
        )
        return
    try:
        for check in (_addresses, _methods, _headers, _bodies, feeds.examine, _protocol):
            try:
                yield from check(patient, path)
            except Unreachable as error:
                yield notes.fail(
                    f"a connection broke off: {error}",
                    "see the log of the server and of what stands before it",
                )
    finally:
        with contextlib.suppress(Unreachable):
            patient.wire.ask("DELETE", path)


def _addresses(patient: Patient, path: str) -> Iterator[Finding]:
    notes = Notes("requests")
    repair = (
        "have the proxy pass the address on as it came (nginx: proxy_pass http://HOST:5984; without a path; "
        "Apache: AllowEncodedSlashes NoDecode and nocanon)"
    )
    made = patient.wire.ask("PUT", f"{path}/a%2Fb", {"of": "couchlite doctor"})
    yield notes.judge(
        made.fields.get("id") == "a/b",
        "encoded slashes arrive",
        f"encoded slashes don't arrive: a%2Fb became {made.fields.get('id') or made.problem}",
        repair,
    )
    made = patient.wire.ask("PUT", f"{path}/a%2Bb%25", {})
    yield notes.judge(
        made.fields.get("id") == "a+b%",
        "other escaped characters arrive",
        f"escaped characters don't arrive: a%2Bb%25 became {made.fields.get('id') or made.problem}",
        repair,
    )
    location = made.headers.get("Location", "")
    scheme, _, rest = location.partition("://")
    expected = patient.wire.base.partition("://")
    yield notes.judge(
        not rest or (scheme == expected[0] and rest.startswith(expected[2])),
        "answers name the address that was asked",
        f"answers name another address than was asked: Location {location}",
        "have the proxy pass Host and X-Forwarded-Proto on (nginx: proxy_set_header Host $http_host; "
        "proxy_set_header X-Forwarded-Proto $scheme;)",
        "warn",
    )


def _methods(patient: Patient, path: str) -> Iterator[Finding]:
    wire = patient.wire
    rev = str(wire.ask("PUT", f"{path}/doc", {}).fields.get("rev", ""))
    replies = {
        "COPY": wire.ask("COPY", f"{path}/doc", headers={"Destination": "copy"}),
        "POST": wire.ask("POST", path, {}),
        "HEAD": wire.ask("HEAD", f"{path}/doc"),
        "DELETE": wire.ask("DELETE", f"{path}/doc?rev={rev}"),
    }
    refused = [f"{method} ({reply.status})" for method, reply in replies.items() if reply.status >= 300]
    yield Notes("requests").judge(
        not refused,
        "all methods arrive",
        f"methods are refused: {', '.join(refused)}",
        "have the proxy let all methods through, COPY too",
    )


def _headers(patient: Patient, path: str) -> Iterator[Finding]:
    notes = Notes("requests")
    wire = patient.wire
    wire.ask("PUT", f"{path}/text", {"text": "0123456789" * 500})
    reply = wire.ask("GET", f"{path}/text", headers={"Accept-Encoding": "gzip"})
    etag = reply.headers.get("ETag", "")
    yield notes.judge(
        etag.startswith('"'),
        "answers keep their ETag",
        f"answers lose their ETag ({etag or 'there is none'}): nothing can be cached",
        "leave compression to the server, or leave JSON out (nginx: gzip off;)",
        "warn",
    )
    if etag:
        again = wire.ask("GET", f"{path}/text", headers={"If-None-Match": etag.removeprefix("W/")})
        yield notes.judge(
            again.status == 304,
            "what is cached is not sent again",
            f"If-None-Match is answered {again.problem}",
            "have the proxy pass If-None-Match on, and cache nothing itself",
            "warn",
        )
    yield notes.judge(
        "CouchDB" in patient.server,
        "the server says what it is",
        f"the header Server is {patient.server or 'missing'}: LiveSync takes it for a CouchDB before 3.2",
        "have the proxy pass the header Server on (nginx: proxy_pass_header Server;)",
        "warn",
    )


def _bodies(patient: Patient, path: str) -> Iterator[Finding]:
    notes = Notes("requests")
    wire = patient.wire
    repair = BODY_REPAIR + patient.set_command("chttpd", "max_http_request_size", "4294967296")
    docs = {"docs": [{"_id": "large", "text": "x" * SENT_BYTES}]}
    try:
        sent = wire.ask("POST", f"{path}/_bulk_docs", docs)
        is_taken, told = sent.status == 201, sent.problem
    except Unreachable as error:  # a proxy that refuses often hangs up in the midst
        is_taken, told = False, str(error)
    yield notes.judge(is_taken, "a body of 2 MiB arrives", f"a body of 2 MiB is refused: {told}", repair)
    if not is_taken:
        return
    announced = wire.first_status("POST", f"{path}/_bulk_docs", ANNOUNCED_BYTES)
    if announced is None:
        yield notes.skip("whether bodies of 50 MB are taken: the server doesn't say before it has them")
        return
    yield notes.judge(
        announced == 100,
        "a body of 50 MB is welcome",
        f"a body of 50 MB is refused ({announced})",
        repair,
        "warn",
    )


def _protocol(patient: Patient, path: str) -> Iterator[Finding]:
    """What a replication asks for."""
    notes = Notes("replication")
    wire = patient.wire
    rev = str(wire.ask("PUT", f"{path}/it", {"n": 1}).fields.get("rev", ""))
    diff = wire.ask("POST", f"{path}/_revs_diff", {"it": [rev, "9-abc"]})
    bulk = wire.ask("POST", f"{path}/_bulk_get?revs=true", {"docs": [{"id": "it", "rev": rev}]})
    checkpoint = wire.ask("PUT", f"{path}/_local/doctor==.x_y", {"n": 1})
    commit = wire.ask("POST", f"{path}/_ensure_full_commit", {})
    mixed = wire.ask("GET", f"{path}/it?open_revs=all&revs=true", headers={"Accept": MULTIPART})
    passed = {
        "_revs_diff": diff.fields.get("it", {}).get("missing") == ["9-abc"],
        "_bulk_get": list(bulk.fields) == ["results"],
        "_local documents": checkpoint.status == 201,
        "_ensure_full_commit": commit.status == 201,
        MULTIPART: mixed.headers.get_content_type() == MULTIPART and bool(mixed.headers.get_boundary()),
    }
    missing = [name for name, is_there in passed.items() if not is_there]
    yield notes.judge(
        not missing,
        "all that a replication asks for is answered",
        f"a replication would miss: {', '.join(missing)}",
        "have the proxy pass all paths and Content-Type on; a server that isn't CouchDB may lack them",
    )
