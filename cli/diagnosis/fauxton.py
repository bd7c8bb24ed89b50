"""What Fauxton, CouchDB's web interface, needs of a server."""

from __future__ import annotations

from collections.abc import Iterator

from .clients import CLIENTS
from .findings import Finding, Notes
from .patient import Patient

ADDRESSES = ("/_all_dbs", "/_active_tasks", "/_scheduler/jobs", "/_scheduler/docs", "/_membership")


def examine(patient: Patient) -> Iterator[Finding]:
    if CLIENTS["fauxton"] not in patient.clients:
        return
    notes = Notes("fauxton")
    wire = patient.wire
    page = wire.ask("GET", "/_utils/", headers={"Accept": "text/html"})
    yield notes.judge(
        page.status == 200 and page.headers.get_content_type() == "text/html",
        "the pages of /_utils/ are there",
        f"/_utils/ answers {page.problem}",
        "couchlite serve --fauxton-dir DIRECTORY, with the files of Fauxton's npm package",
        "warn",
    )
    if not patient.is_admin:
        return
    nodes = wire.ask("GET", "/_membership").fields.get("all_nodes") or ["_local"]
    refused = [
        f"{address} ({reply.status})"
        for address in (*ADDRESSES, f"/_node/{nodes[0]}/_config")
        if (reply := wire.ask("GET", address)).status > 202
    ]
    yield notes.judge(
        not refused,
        "all that it asks for is answered",
        f"it would miss: {', '.join(refused)}",
        "have the proxy pass all paths on, those that begin with _ too",
    )
