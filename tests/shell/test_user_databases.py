"""Databases of users on a server of several processes, some of which are killed."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ..waiting import wait_until
from .running import Served, served

CONFIG = "/_node/_local/_config/couch_peruser"


def put_user(server: Served, name: str) -> str:
    fields = {"type": "user", "name": name, "roles": [], "password": "pw"}
    answer = server.request("PUT", f"/_users/org.couchdb.user:{name}", fields)
    assert answer.status == 201
    return str(answer.json["rev"])


def test_whichever_process_dies_users_get_their_databases(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        put_user(server, "before")
        assert server.request("PUT", f"{CONFIG}/enable", "true").status == 200
        own = f"/userdb-{b'before'.hex()}"
        wait_until(
            lambda: server.request("PUT", f"{own}/doc", {}, user=("before", "pw")).status in (201, 409)
        )
        assert server.request("GET", own, user=("adm", "pass")).json["doc_count"] == 1
        put_user(server, "other")
        assert server.request("GET", own, user=("other", "pw")).status == 403
        assert server.request("GET", own, user=None).status == 401
        for number, worker in enumerate(server.workers()):
            os.kill(worker, signal.SIGKILL)
            wait_until(lambda dead=worker: dead not in server.workers() and len(server.workers()) == 2)
            name = f"after{number}"
            put_user(server, name)
            database = f"/userdb-{name.encode().hex()}"
            wait_until(lambda path=database: server.request("GET", path).status == 200)
        assert server.request("PUT", f"{CONFIG}/delete_dbs", "true").status == 200
        doc = server.request("GET", "/_users/org.couchdb.user:before").json
        path = f"/_users/org.couchdb.user:before?rev={doc['_rev']}"
        assert server.request("DELETE", path).status == 200
        wait_until(lambda: server.request("GET", own).status == 404)
        assert server.stop() == 0
