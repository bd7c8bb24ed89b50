"""One area after the other."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator

from . import accounts, connection, cross_origin, fauxton, settings, traffic
from .findings import Finding, Notes
from .patient import Patient
from .wire import Unreachable


def examine(patient: Patient, *, insecure: bool = False) -> Iterator[Finding]:
    """All findings, each as soon as it is made.

    :param insecure: log in to a server whose certificate can't be verified.
    """
    yield from connection.examine(patient, insecure=insecure)
    if not patient.answers:
        return
    try:
        settings.read(patient)
    except Unreachable as error:
        yield Notes("settings").fail(f"the configuration can't be read: {error}", "see the server's log")
    areas: tuple[Callable[[Patient], Iterator[Finding]], ...] = (
        accounts.examine,
        settings.examine,
        cross_origin.examine,
        traffic.examine,
        fauxton.examine,
    )
    for area in areas:
        try:
            yield from area(patient)
        except (Unreachable, ssl.SSLError) as error:
            yield Notes("connection").fail(
                f"the connection broke off: {error}", "see the log of the server and of what stands before it"
            )
