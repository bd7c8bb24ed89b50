"""Tells the other processes that have a data directory open which database moved.

Each process that waits for news binds a datagram socket in the directory's `run/`; after a commit, the
writer sends every such socket a few bytes. A ring may be lost (a full buffer, a process that just starts):
once a second the listener asks the waiting databases themselves.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

POLL_S = 0.5
"""How late news may be when a ring was lost; a feed must hear of a write within a second."""
DIRECTORY_CHECK_S = 0.5


class Doorbell:
    """`rung(payload)` is called in the listener's thread for each ring, `poll()` every POLL_S. Listening
    starts with `listen()`, ringing needs nothing."""

    def __init__(self, directory: Path, rung: Callable[[bytes], None], poll: Callable[[], None]) -> None:
        self._directory = directory
        self._rung = rung
        self._poll = poll
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._own = directory / f"{os.getpid()}-{secrets.token_hex(4)}.sock"
        self._sender: socket.socket | None = None
        self._others: list[str] = []
        self._looked_at = 0.0
        self._closed = False

    def listen(self) -> None:
        """Start listening; further calls do nothing."""
        with self._lock:
            if self._thread is None and not self._closed:
                listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                with short_path(self._own) as address:
                    listener.bind(address)
                self._thread = threading.Thread(
                    target=self._run, args=(listener,), name="doorbell", daemon=True
                )
                self._thread.start()

    def ring(self, payload: bytes) -> None:
        """Tell every other listening process; never blocks, never fails."""
        now = time.monotonic()
        with self._lock:
            if now - self._looked_at > DIRECTORY_CHECK_S:
                self._looked_at = now
                self._others = self._find_others()
            if not self._others:
                return
            if self._sender is None:
                self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                self._sender.setblocking(False)
            for name in self._others:
                self._send(payload, self._directory / name)

    def close(self) -> None:
        with self._lock:
            self._closed = True
            thread = self._thread
        if thread is not None:
            self._wake_listener()
            thread.join(POLL_S * 2)
        if self._sender is not None:
            self._sender.close()
        self._own.unlink(missing_ok=True)

    def _wake_listener(self) -> None:
        """Let it see at once that it is to end."""
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
            short_path(self._own) as address,
        ):
            sender.sendto(b"", address)

    def _find_others(self) -> list[str]:
        try:
            names = os.listdir(self._directory)
        except FileNotFoundError:
            return []
        return [name for name in names if name.endswith(".sock") and name != self._own.name]

    def _send(self, payload: bytes, path: Path) -> None:
        assert self._sender is not None
        try:
            with short_path(path) as address:
                self._sender.sendto(payload, address)
        except BlockingIOError:
            pass  # its buffer is full, so it is about to look anyway
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)  # a process that died
        except OSError:
            pass

    def _run(self, listener: socket.socket) -> None:
        listener.settimeout(POLL_S)
        polled_at = time.monotonic()
        while not self._closed:
            with contextlib.suppress(TimeoutError):
                payload = listener.recv(64)
                if payload:
                    self._rung(payload)
            if time.monotonic() - polled_at >= POLL_S:
                polled_at = time.monotonic()
                self._poll()
        listener.close()


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """A socket address is at most 107 bytes; a longer path is reached through its directory's descriptor."""
    if len(os.fsencode(path)) < 100:
        yield str(path)
        return
    descriptor = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)
