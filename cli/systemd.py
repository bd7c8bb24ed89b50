"""Telling systemd how a service does (sd_notify), where it has started it with Type=notify."""

from __future__ import annotations

import contextlib
import os
import socket


def notify(state: str) -> None:
    """:param state: such as `READY=1`."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):  # of the abstract namespace
        address = "\0" + address[1:]
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect(address)
        channel.send(state.encode())
