"""One line for every request: who, what, with which outcome, how long.

What must stay true here:
- It costs a few microseconds a request: lines are gathered and written together, a fifth of a second late at
  most.
- It holds no credentials: the Authorization header and cookies are never looked at, and what stands before an
  `@` in an absolute target is left out.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import sys
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, TextIO

from aiohttp import web

from couchlite.jsontext import dumps

from .logs import CONTROLS

if TYPE_CHECKING:
    from .request import Request

WRITE_AFTER_S = 0.2
WRITE_AT_LINES = 500
TARGET_LENGTH_MAX = 1_000

_USERINFO = re.compile("^([a-z]+://)[^/@]*@", re.IGNORECASE)


class AccessLog:
    """:param form: "text" or "json"."""

    def __init__(self, form: str, output: TextIO = sys.stderr) -> None:
        self._line: Callable[[Request, web.StreamResponse, float], str] = _json if form == "json" else _text
        self._output = output
        self._lines: list[str] = []

    def add(self, request: Request, reply: web.StreamResponse, took_s: float) -> None:
        """Note a request that was answered."""
        lines = self._lines
        lines.append(self._line(request, reply, took_s))
        if len(lines) == 1:
            asyncio.get_running_loop().call_later(WRITE_AFTER_S, self.flush)
        elif len(lines) >= WRITE_AT_LINES:
            self.flush()

    def flush(self) -> None:
        if self._lines:
            text = "\n".join(self._lines) + "\n"
            self._lines.clear()
            with contextlib.suppress(OSError):  # a full disk or a closed pipe is no reason to fail a request
                self._output.write(text)
                self._output.flush()


def _text(request: Request, reply: web.StreamResponse, took_s: float) -> str:
    user = request.principal.name or "-"
    if not user.isalnum():
        user = user.translate(CONTROLS).replace(" ", "\\x20")
    return (
        f"{_now()} access: {request.raw.remote or '-'} {user} {request.raw.method} {_target(request)} "
        f"{reply.status} {reply.body_length} {took_s * 1000:.1f}ms {request.id}"
    )


def _json(request: Request, reply: web.StreamResponse, took_s: float) -> str:
    line = {
        "time": _now(),
        "level": "info",
        "logger": "access",
        "remote": request.raw.remote,
        "user": request.principal.name,
        "method": request.raw.method,
        "target": _target(request),
        "status": reply.status,
        "bytes": reply.body_length,
        "ms": round(took_s * 1000, 3),
        "request": request.id,
    }
    return dumps(line).decode("utf-8", "replace")


def _target(request: Request) -> str:
    target = request.target[:TARGET_LENGTH_MAX]
    if not target.startswith("/"):
        target = _USERINFO.sub(r"\1", target)
    return target if target.isascii() and target.isprintable() else target.translate(CONTROLS)


def _now() -> str:
    seconds = time.time()
    whole = int(seconds)
    return f"{_whole_second(whole)}.{int((seconds - whole) * 1000):03d}Z"


@lru_cache(maxsize=2)
def _whole_second(whole: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
