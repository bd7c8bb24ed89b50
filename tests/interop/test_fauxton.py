"""Fauxton, CouchDB's web console, looked at page by page."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from ..shell.running import Served, served
from ..waiting import wait_until
from .device import HERE
from .site import PASSWORD, USER

pytestmark = pytest.mark.slow

DESIGN = {
    "_id": "_design/by",
    "views": {"legs": {"map": "function (doc) { emit(doc.legs, 1) }", "reduce": "_count"}},
}


def fill(server: Served) -> None:
    def ask(method: str, path: str, body: object = None) -> None:
        answer = server.request(method, path, body)
        assert answer.status < 300, answer

    for name in ("_users", "_replicator", "_global_changes", "animals"):
        server.request("PUT", f"/{name}")  # some are there
    docs = [{"_id": "aardvark", "legs": 4}, {"_id": "zebra", "legs": 4}, {"_id": "gone", "_deleted": True}]
    ask("POST", "/animals/_bulk_docs", {"docs": [*docs, DESIGN]})
    sides = [{"_id": "platypus", "_rev": f"1-{letter * 32}", "side": letter} for letter in "ab"]
    ask("POST", "/animals/_bulk_docs", {"docs": sides, "new_edits": False})
    ask("POST", "/animals/_index", {"index": {"fields": ["legs"]}})
    members = {"names": [], "roles": ["keepers"]}
    ask("PUT", "/animals/_security", {"admins": {"names": [], "roles": ["_admin"]}, "members": members})
    address = f"http://{USER}:{PASSWORD}@127.0.0.1:{server.port}"
    copying = {"source": f"{address}/animals", "target": f"{address}/copy", "create_target": True}
    ask("PUT", "/_replicator/copying", {**copying, "continuous": True})
    wait_until(
        lambda: server.request("GET", "/_scheduler/docs/_replicator/copying").json["state"] == "running"
    )


def test_every_page_of_fauxton(clients: None, chromium: str, fauxton: Path, tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2", "--fauxton-dir", str(fauxton)) as server:
        fill(server)
        look = subprocess.run(
            [
                *("node", HERE / "fauxton.mjs", chromium, tmp_path / "profile"),
                *(f"http://127.0.0.1:{server.port}", USER, PASSWORD),
            ],
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert look.returncode == 0, look.stderr
