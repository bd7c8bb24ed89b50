"""Whether the server can be reached: address, certificate, what answers, its clock, kept connections."""

from __future__ import annotations

import contextlib
import email.utils
import http.client
import ssl
import time
from collections.abc import Iterator

from .findings import Finding, Notes
from .patient import Patient
from .wire import Reply, Unreachable

EXPIRES_SOON_S = 21 * 86400
CLOCK_WARN_S = 5.0
CLOCK_FAIL_S = 60.0
NOBODY_LOGGED_IN = "Authentication required."
"""CouchDB's words to who sends no password; a wrong one has others."""
HEADER_REPAIR = "have the proxy pass the header Authorization on, and ask for no password itself"
REDIRECTS = (301, 302, 303, 307, 308)


def examine(patient: Patient, *, insecure: bool) -> Iterator[Finding]:
    """Sets `answers` and `welcome` of the patient."""
    if patient.wire.is_https:
        yield from _certificate(patient, insecure)
    else:
        yield from _without_tls(patient)
    notes = Notes("connection")
    try:
        sent_at = time.time()
        reply = patient.wire.ask("GET", "/")
        took_s = time.time() - sent_at
    except (Unreachable, ssl.SSLError) as error:
        yield notes.fail(
            f"{patient.wire.base} does not answer: {error}",
            "start the server, and check its address and port, --bind (127.0.0.1 is this machine only) "
            "and the firewall",
        )
        return
    patient.welcome = reply
    yield from _what_answers(patient, reply)
    if not patient.answers:
        return
    yield _clock(reply, sent_at + took_s / 2, took_s)
    yield _protocol(reply)
    with contextlib.suppress(Unreachable):
        yield _kept_connection(patient)


def _without_tls(patient: Patient) -> Iterator[Finding]:
    notes = Notes("tls")
    if patient.wire.is_local:
        yield notes.skip("not looked at: http to this machine itself")
        return
    why = next((client.needs_https for client in patient.clients if client.needs_https), "")
    repair = "couchlite serve --tls-cert CHAIN.pem --tls-key KEY.pem, or a proxy such as Caddy before it"
    if why:
        yield notes.fail(f"there is no TLS: {why}", repair)
    else:
        yield notes.warn("there is no TLS: passwords and documents can be read on their way", repair)


def _certificate(patient: Patient, insecure: bool) -> Iterator[Finding]:
    notes = Notes("tls")
    wire = patient.wire
    try:
        with contextlib.closing(wire.connection()) as connection:
            connection.connect()
            assert isinstance(connection.sock, ssl.SSLSocket)
            certificate, protocol = connection.sock.getpeercert(), connection.sock.version()
    except ssl.SSLCertVerificationError as error:
        yield notes.fail(
            f"the certificate is not accepted: {error.verify_message}", _certificate_repair(error)
        )
        if not insecure:
            wire.forget_credentials()
            yield notes.skip(
                "nobody logs in over such a connection, so much can't be looked at",
                "--insecure logs in all the same; --ca-file FILE trusts a certificate authority of your own",
            )
        wire.tls = ssl._create_unverified_context()
        return
    except ssl.SSLError as error:
        yield notes.fail(
            f"no TLS connection comes about: {error.reason or error}",
            "is it https that is spoken at this port? If not, ask http://",
        )
        return
    except OSError:
        return  # what comes next says so
    yield notes.ok(f"{protocol}, the certificate is trusted and has the right name")
    if certificate:  # without verification there is none
        left_s = ssl.cert_time_to_seconds(str(certificate["notAfter"])) - time.time()
        yield notes.judge(
            left_s > EXPIRES_SOON_S,
            f"the certificate is valid for {left_s / 86400:.0f} more days",
            f"the certificate expires in {left_s / 86400:.0f} days",
            "renew it, and see why that doesn't happen by itself (certbot renew, or Caddy's log)",
            "warn",
        )


def _certificate_repair(error: ssl.SSLCertVerificationError) -> str:
    message = error.verify_message.lower()
    if "expired" in message:
        return "renew the certificate (certbot renew) and reload the server that presents it"
    if "mismatch" in message or "not valid for" in message:
        return "ask the name that is in the certificate, or have one made for this name"
    if "self" in message:
        return "use a certificate of a public authority (Let's Encrypt), or trust this one on each device"
    return "present the whole chain: --tls-cert fullchain.pem, not cert.pem"


def _what_answers(patient: Patient, reply: Reply) -> Iterator[Finding]:
    notes = Notes("connection")
    is_json_error = "error" in reply.fields
    if reply.status in REDIRECTS:
        yield notes.fail(
            f"the server redirects to {reply.headers.get('Location')}",
            "give clients that address: many drop the password when they are redirected",
        )
    elif reply.status == 200 and "couchdb" in reply.fields:
        version = reply.fields.get("version", "?")
        patient.answers = True
        yield notes.ok(f"CouchDB {version} answers ({patient.server or 'without the header Server'})")
    elif reply.status == 401 and is_json_error and not patient.wire.logs_in:
        patient.answers = True
        yield notes.ok("the server answers, and wants to know who asks")
    elif reply.status == 401 and reply.fields.get("reason") == NOBODY_LOGGED_IN:
        yield notes.fail(f"the password of {patient.wire.user} does not arrive", HEADER_REPAIR)
    elif reply.status in (401, 403) and is_json_error:
        yield notes.fail(
            f"the user or the password is wrong: {reply.problem}",
            "check --user and --password; an administrator's is set by "
            + patient.curl("PUT", f"/_node/_local/_config/admins/{patient.wire.user}", "NEW"),
        )
    else:
        kind = reply.headers.get_content_type()
        yield notes.fail(
            f"no CouchDB answers here, but {reply.status} with {kind} ({patient.server or 'nameless'})",
            "give the address with the path under which the proxy has the server; the proxy has to cut "
            "that path off, and log nobody in by itself",
        )


def _clock(reply: Reply, asked_at: float, took_s: float) -> Finding:
    notes = Notes("clock")
    try:
        told = email.utils.parsedate_to_datetime(reply.headers["Date"]).timestamp()
    except (TypeError, ValueError):
        return notes.skip("the server doesn't tell its time")
    # It tells whole seconds, and some time passes on the way.
    apart_s = max(0.0, abs(told + 0.5 - asked_at) - 0.5 - took_s / 2)
    return notes.judge(
        apart_s < CLOCK_WARN_S,
        "the clocks agree",
        f"the server's clock is {apart_s:.0f} s apart from this one: logins end too early or too late",
        "timedatectl set-ntp true, on the machine that is wrong",
        "fail" if apart_s >= CLOCK_FAIL_S else "warn",
    )


def _protocol(reply: Reply) -> Finding:
    return Notes("connection").judge(
        reply.version == 11,
        "HTTP/1.1",
        "answers come by HTTP/1.0: no connection is kept and no feed can be streamed",
        "have the proxy speak HTTP/1.1 (nginx: proxy_http_version 1.1;)",
    )


def _kept_connection(patient: Patient) -> Finding:
    with contextlib.closing(patient.wire.connection()) as connection:
        for _ in range(2):
            response = patient.wire.send(connection, "GET", "/")
            response.read()
            is_kept = connection.sock is not None and not _will_close(response)
    return Notes("connection").judge(
        is_kept,
        "connections are kept for further requests",
        "each request needs a connection of its own, which makes a replication slow",
        "allow keep-alive in the proxy (nginx: keepalive_timeout 75s;)",
        "warn",
    )


def _will_close(response: http.client.HTTPResponse) -> bool:
    return response.will_close
