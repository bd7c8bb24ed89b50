"""What the configuration says, what a single node needs, and how much room there is."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from .clients import CLIENTS
from .findings import Finding, Notes
from .patient import Patient

FREE_SHARE_MIN = 0.1
FREE_MIN_BYTES = 1 << 30
SYSTEM_DATABASES = ("_users", "_replicator")


def read(patient: Patient) -> None:
    """Set `config` of the patient, if it can be read."""
    if patient.wire.logs_in:
        answer = patient.wire.ask("GET", "/_node/_local/_config")
        if answer.status == 200 and answer.fields:
            patient.config = answer.fields


def examine(patient: Patient) -> Iterator[Finding]:
    if patient.is_admin:
        yield from _system_databases(patient)
    yield from _wanted(patient)
    if patient.is_couchlite and patient.config is not None and CLIENTS["livesync"] in patient.clients:
        yield Notes("settings").judge(
            patient.setting("couchlite", "show_merge_bases") == "true",
            "[couchlite] show_merge_bases = true",
            "LiveSync can't merge by the version that both sides started from",
            patient.set_command("couchlite", "show_merge_bases", "true"),
            "warn",
        )
    yield _room(patient)


def _system_databases(patient: Patient) -> Iterator[Finding]:
    notes = Notes("settings")
    missing = [name for name in SYSTEM_DATABASES if patient.wire.ask("GET", f"/{name}").status == 404]
    set_up = {"action": "enable_single_node", "username": patient.wire.user, "password": "PASSWORD"}
    yield notes.judge(
        not missing,
        "the system databases are there",
        f"system databases are missing: {', '.join(missing)}; the server was never set up",
        patient.curl("POST", "/_cluster_setup", {**set_up, "bind_address": "0.0.0.0", "port": 5984}),
    )


def _wanted(patient: Patient) -> Iterator[Finding]:
    notes = Notes("settings")
    clients = [client for client in patient.clients if client.settings]
    if not clients:
        return
    if patient.config is None:
        yield notes.skip("the configuration can't be read", "give an administrator's --user")
        return
    seen = set()
    for client in clients:
        is_old = bool(patient.version) and patient.version < (3, 2)
        for wanted in client.older_settings if is_old else client.settings:
            name = f"[{wanted.section}] {wanted.key}"
            if (client.title, name) in seen:
                continue
            seen.add((client.title, name))
            value = patient.setting(wanted.section, wanted.key)
            yield notes.judge(
                wanted.is_met(value),
                f"{name} = {value}",
                f"{name} is {value or 'not set'}, and {client.title} wants {wanted.value}",
                patient.set_command(wanted.section, wanted.key, wanted.value),
            )


def _room(patient: Patient) -> Finding:
    """Only where the directory of the databases is on this machine."""
    notes = Notes("disk")
    path = patient.setting("couchdb", "database_dir")
    if patient.wire.is_local and path.startswith("/"):
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(Path(path))
            free = f"{disk.free / (1 << 30):.1f} GiB of {disk.total / (1 << 30):.1f} are free at {path}"
            return notes.judge(
                disk.free >= min(FREE_MIN_BYTES, disk.total * FREE_SHARE_MIN),
                free,
                free,
                "couchlite db compact NAME for the largest, or a larger disk; CouchDB's databases need as "
                "much room again while they are compacted",
                "warn",
            )
    return notes.skip("how much room there is can only be seen on the server's own machine")
