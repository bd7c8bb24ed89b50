"""Whether changes arrive when they happen: feeds that a proxy holds back look like a server that hangs."""

from __future__ import annotations

import base64
import contextlib
import secrets
import threading
import time
from collections.abc import Iterator

from .findings import Finding, Notes
from .patient import Patient
from .wire import TIMEOUT_S, Unreachable

PROMPT_S = 4.0
HEARTBEAT_MS = 1000
LINES_MAX = 50

STREAM_REPAIR = (
    "have the proxy pass answers on at once (nginx: proxy_buffering off; Caddy: flush_interval -1), "
    "and compress no feed"
)


def examine(patient: Patient, path: str) -> Iterator[Finding]:
    yield _continuous(patient, path)
    yield _longpoll(patient, path)
    if patient.is_couchlite:
        yield _websocket(patient, path)


def _continuous(patient: Patient, path: str) -> Finding:
    notes = Notes("feeds")
    feed = f"{path}/_changes?feed=continuous&since=now&heartbeat={HEARTBEAT_MS}"
    why = "its heartbeats are held back"
    try:
        with (
            patient.wire.opened("GET", feed, timeout_s=PROMPT_S) as response,
            contextlib.suppress(OSError),
        ):
            response.readline()
            why = "changes are held back"
            doc = f"fed-{secrets.token_hex(4)}"
            patient.wire.ask("PUT", f"{path}/{doc}", {})
            for _ in range(LINES_MAX):
                if doc.encode() in response.readline():
                    return notes.ok("a continuous feed tells of changes at once")
    except Unreachable:
        why = "its answer does not even begin"
    return notes.fail(f"a continuous feed does not come through: {why}", STREAM_REPAIR)


def _longpoll(patient: Patient, path: str) -> Finding:
    notes = Notes("feeds")
    writer = threading.Timer(0.5, _write, (patient, path))
    begun_at = time.monotonic()
    writer.start()
    try:
        answer = patient.wire.ask("GET", f"{path}/_changes?feed=longpoll&since=now&heartbeat=10000")
        is_prompt = bool(answer.fields.get("results")) and time.monotonic() - begun_at < PROMPT_S
        told = answer.problem if answer.status != 200 else f"after {time.monotonic() - begun_at:.0f} s"
    except Unreachable as error:
        is_prompt, told = False, str(error)
    finally:
        writer.join()
    return notes.judge(
        is_prompt,
        "a waiting request (longpoll) ends when something changes",
        f"a waiting request (longpoll) does not end in time: {told}",
        f"let requests wait longer than {TIMEOUT_S:.0f} s (nginx: proxy_read_timeout 1h;), and cache nothing",
    )


def _write(patient: Patient, path: str) -> None:
    with contextlib.suppress(Unreachable):
        patient.wire.ask("PUT", f"{path}/polled-{secrets.token_hex(4)}", {})


def _websocket(patient: Patient, path: str) -> Finding:
    headers = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(secrets.token_bytes(16)).decode(),
    }
    try:
        with patient.wire.opened("GET", f"{path}/_changes?feed=websocket", headers=headers) as response:
            status: int | str = response.status
    except Unreachable as error:
        status = str(error)
    return Notes("feeds").judge(
        status == 101,
        "WebSockets come through",
        f"WebSockets don't come through ({status}); only feed=websocket needs them",
        "nginx: proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $connection_upgrade; "
        "(see docs/deploy/nginx.conf)",
        "warn",
    )
