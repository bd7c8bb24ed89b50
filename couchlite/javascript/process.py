"""A child process, from its parent's side: one call at a time, and an end to it when it misbehaves."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import Config
from ..errors import BadRequest
from ..jsontext import loads
from .child import ANSWER_HEAD, CPU_TIME_GRACE_S, REQUEST_HEAD

_log = logging.getLogger(__name__)

_LONE_SURROGATE = re.compile(rb"\\\\|\\u[dD][89a-fA-F][0-9a-fA-F]{2}")
_CHILD = Path(__file__).with_name("child.py")
# The time zone is for JavaScript's Date, the other for interpreters that need it to start.
_ENVIRONMENT_KEPT = ("TZ", "LD_LIBRARY_PATH")


TIME_S_MIN = 0.1
MEMORY_BYTES_MIN = 4 * 1024 * 1024
"""With less, no function could run at all."""
WALL_TIME_S_MIN = 60.0
WALL_TIMES = 12


@dataclass(frozen=True, slots=True)
class Limits:
    """What a function may use.

    :param time_s: of the processor, for one document (CouchDB's os_process_timeout).
    :param wall_time_s: of the clock on the wall, for a batch, after which a child is given up that neither
        the engine nor the kernel has stopped; far more than time_s, since a machine may be busy.
    :param memory_bytes: for what it allocates and keeps, the documents of a batch included.
    :param answer_bytes: for what it returns for a batch.
    """

    time_s: float = 5.0
    wall_time_s: float = WALL_TIME_S_MIN
    memory_bytes: int = 128 * 1024 * 1024
    answer_bytes: int = 64 * 1024 * 1024

    @classmethod
    def of(cls, config: Config) -> Limits:
        """Those of [couchdb] os_process_timeout, in milliseconds, and [couchlite] function_memory_bytes."""
        time_s = max(TIME_S_MIN, config.integer("couchdb", "os_process_timeout") / 1000)
        return cls(
            time_s=time_s,
            wall_time_s=max(WALL_TIME_S_MIN, WALL_TIMES * time_s),
            memory_bytes=max(MEMORY_BYTES_MIN, config.integer("couchlite", "function_memory_bytes")),
        )


class ChildLost(Exception):
    """The process ended or had to be ended. `in_time` tells whether it did so before a time ran out."""

    def __init__(self, reason: str, *, in_time: bool = True) -> None:
        super().__init__(reason)
        self.in_time = in_time


class Child:
    """A process that runs child.py. Bound to the event loop it was started in."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        sender: socket.socket,
        limits: Limits,
    ) -> None:
        self._process = process
        self._reader = reader
        self._writer = writer
        self._sender = sender
        self.limits = limits
        self.loaded: set[bytes] = set()
        """Keys of programs that it knew at some time; a hint for whom to give a call to."""
        self._may_be_kept = True
        self.idle_since = time.monotonic()

    @classmethod
    async def start(cls, limits: Limits) -> Child:
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-I", str(_CHILD)]
        command += [str(limits.time_s), str(limits.memory_bytes), str(limits.answer_bytes)]
        with theirs:
            process = subprocess.Popen(
                command,
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={name: os.environ[name] for name in _ENVIRONMENT_KEPT if name in os.environ},
            )
        # The stream writer holds Python's lock while it copies a request into the socket, and the kernel may
        # let the child that wakes go first: a tenth of an index's build. This one sends without the lock.
        sender = ours.dup()
        sender.setblocking(False)
        try:
            reader, writer = await asyncio.open_connection(sock=ours)
        except BaseException:
            ours.close()
            sender.close()
            process.kill()
            process.wait()
            raise
        return cls(process, reader, writer, sender, limits)

    async def call(self, operation: int, key: bytes, text: bytes) -> dict[str, Any]:
        """Send a request and wait for the answer.

        :raises ChildLost: there will be none; the process is gone, or of no use any more.
        """
        self._may_be_kept = False  # also if this is cancelled: an answer would be left over
        return await self._answer(REQUEST_HEAD.pack(operation, len(text), key), text)

    async def next_answer(self) -> dict[str, Any]:
        """The answer that follows one that was not the last, without a request. :raises ChildLost:"""
        return await self._answer()

    async def _answer(self, *request: bytes) -> dict[str, Any]:
        try:
            async with asyncio.timeout(self.limits.wall_time_s):
                if request:
                    loop = asyncio.get_running_loop()
                    await loop.sock_sendall(self._sender, b"".join(request))
                has_grown, length = ANSWER_HEAD.unpack(await self._reader.readexactly(ANSWER_HEAD.size))
                if length > self.limits.answer_bytes:
                    raise ChildLost("it sent more than it may")
                answer = _read(await self._reader.readexactly(length))
        except TimeoutError:
            raise ChildLost("it did not answer", in_time=False) from None
        except (OSError, asyncio.IncompleteReadError):
            raise self._epitaph() from None
        self._may_be_kept = not has_grown and "wants" not in answer
        self.idle_since = time.monotonic()
        return answer

    def _epitaph(self) -> ChildLost:
        """Why it ended, which it has, or is about to."""
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            return ChildLost("it closed its connection")
        if code == -signal.SIGPROF:
            return ChildLost(f"it used {self.limits.time_s + CPU_TIME_GRACE_S} s", in_time=False)
        return ChildLost(
            f"it was ended by {signal.Signals(-code).name}" if code < 0 else f"it exited with {code}"
        )

    @property
    def usable(self) -> bool:
        """Whether it can take a call: it is idle, not too big, and alive."""
        return self._may_be_kept and self._process.poll() is None

    def end(self) -> None:
        self._writer.close()
        self._sender.close()
        self._process.kill()
        self._process.wait()


def _with_whole_characters(answer: bytes) -> bytes:
    """As CouchDB does it: with U+FFFD for halves of surrogate pairs, which JavaScript escapes when alone."""
    if b"\\ud" not in answer:
        return answer
    return _LONE_SURROGATE.sub(lambda match: match[0] if match[0] == b"\\\\" else b"\\ufffd", answer)


def _read(answer: bytes) -> dict[str, Any]:
    """What a child says, which a function may have had a hand in."""
    try:
        value = loads(_with_whole_characters(answer))
    except BadRequest:
        raise ChildLost("its answer is no JSON") from None
    if not isinstance(value, dict):
        raise ChildLost("its answer is no object")
    if "failed" in value:
        _log.error("The process that runs functions has a fault: %s", value["failed"])
        raise ChildLost("it has a fault")
    return value
