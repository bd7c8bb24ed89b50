"""`couchlite serve --preset` and `--origin`: what they set, what wins over them, and that the clients are
content."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from couchlite.presets import LIVESYNC_ORIGINS, PRESETS, merged

from .running import FAST_HASHES, Answer, Served, served

CONFIG = "/_node/_local/_config"
EVIL = "https://evil.example"


def ask(
    server: Served, method: str, path: str, body: Any = None, *, origin: str = "", **headers: str
) -> Answer:
    """A request as a page of that origin sends it, with the administrator's password."""
    fields = {"Authorization": "Basic " + b64encode(b"adm:pass").decode(), **headers}
    if origin:
        fields["Origin"] = origin
    with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), fields)
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())


@pytest.fixture(scope="module")
def livesync(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("livesync"), "--workers", "1", "--preset", "livesync") as server:
        yield server


# Self-hosted LiveSync: what its settings page and its scripts look at, one by one


class LiveSync:
    """The checks of the plugin's settings page: each of `wrong` has a button that PUTs the value."""

    def __init__(self, server: Served, origin: str) -> None:
        self.server = server
        self.origin = origin

    def wrong(self) -> dict[str, str]:
        """The settings the plugin finds wrong, and what it would set them to."""
        answer = ask(self.server, "GET", CONFIG, origin=self.origin)
        assert answer.status == 200
        config: dict[str, dict[str, str]] = answer.json
        banner = re.search(r"CouchDB(/([0-9.]+))?", answer.headers["Server"])
        is_new = banner is not None and [int(part) for part in banner[2].split(".")] >= [3, 2]
        assert "adm" in config["admins"]
        section = "chttpd" if is_new else "chttpd_auth"
        found = {}
        if config.get(section, {}).get("require_valid_user") != "true":
            found[f"{section}/require_valid_user"] = "true"
        if not config["httpd"].get("WWW-Authenticate"):
            found["httpd/WWW-Authenticate"] = 'Basic realm="couchdb"'
        section = "chttpd" if is_new else "httpd"
        if config.get(section, {}).get("enable_cors") != "true":
            found[f"{section}/enable_cors"] = "true"
        if int(config["chttpd"].get("max_http_request_size", 0)) < 4294967296:
            found["chttpd/max_http_request_size"] = "4294967296"
        if int(config["couchdb"].get("max_document_size", 0)) < 50000000:
            found["couchdb/max_document_size"] = "50000000"
        cors = config.get("cors", {})
        if cors.get("credentials") != "true":
            found["cors/credentials"] = "true"
        origins = cors.get("origins", "").split(",")
        if cors.get("origins") != "*" and not set(LIVESYNC_ORIGINS) <= set(origins):
            kept = [origin.strip() for origin in origins]
            found["cors/origins"] = ",".join(dict.fromkeys([*kept, *LIVESYNC_ORIGINS]))
        return found

    def fix(self, key: str, value: str) -> None:
        assert ask(self.server, "PUT", f"{CONFIG}/{key}", value, origin=self.origin).status == 200

    def unreachable_from(self) -> list[str]:
        """The origins to which the server doesn't grant cross-origin requests."""
        found = []
        for origin in LIVESYNC_ORIGINS:
            headers = ask(self.server, "GET", CONFIG, origin=origin).headers
            granted = headers["Access-Control-Allow-Credentials"], headers["Access-Control-Allow-Origin"]
            if granted != ("true", origin):
                found.append(origin)
        return found


@pytest.mark.parametrize("origin", LIVESYNC_ORIGINS)
def test_livesync_finds_nothing_wrong(livesync: Served, origin: str) -> None:
    plugin = LiveSync(livesync, origin)
    assert plugin.wrong() == {}
    assert plugin.unreachable_from() == []


@pytest.mark.parametrize("path", ["chttpd_auth/require_valid_user", "httpd/enable_cors"])
def test_what_it_asks_of_older_servers_is_set_too(livesync: Served, path: str) -> None:
    assert ask(livesync, "GET", f"{CONFIG}/{path}").json == "true"


def test_without_the_preset_the_buttons_repair_it_all(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        plugin = LiveSync(server, "app://obsidian.md")
        wrong = plugin.wrong()
        assert len(wrong) == 7
        for key, value in wrong.items():
            plugin.fix(key, value)
            assert key not in plugin.wrong()
        # The list of origins was empty, which the plugin takes for one empty origin.
        assert ask(server, "GET", f"{CONFIG}/cors/origins").json == ",".join(["", *LIVESYNC_ORIGINS])
        assert plugin.unreachable_from() == []


def test_the_buttons_work_on_top_of_the_preset(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--preset", "livesync") as server:
        plugin = LiveSync(server, "capacitor://localhost")
        plugin.fix("couchdb/max_document_size", "1000")
        assert plugin.wrong() == {"couchdb/max_document_size": "50000000"}
        plugin.fix("couchdb/max_document_size", "50000000")
        assert plugin.wrong() == {}


def test_livesync_s_set_up_script_goes_through(livesync: Served) -> None:
    """It waits for /_up without credentials, sets up the node, sets nine values and makes the database."""
    up = livesync.request("GET", "/_up", user=None)
    assert up.status == 200 and b'"status":"ok"' in up.body
    node = {"action": "enable_single_node", "username": "adm", "password": "pass", "singlenode": True}
    set_up = ask(livesync, "POST", "/_cluster_setup", node, **{"Content-Type": "application/json"})
    assert set_up.status in (200, 201)
    sections = PRESETS["livesync"].sections
    for section, values in sections.items():
        for key, value in values.items():
            assert ask(livesync, "PUT", f"{CONFIG}/{section}/{key}", value).json == value
    assert ask(livesync, "PUT", "/obsidian$notes-1").status in (201, 412)
    for name in ("_users", "_replicator"):
        assert ask(livesync, "GET", f"/{name}").status == 200


@pytest.mark.parametrize("origin", LIVESYNC_ORIGINS)
def test_obsidian_may_ask_before_it_logs_in(livesync: Served, origin: str) -> None:
    """A preflight carries no credentials."""
    with closing(http.client.HTTPConnection("127.0.0.1", livesync.port, timeout=20)) as connection:
        wanted = {
            "Origin": origin,
            "Access-Control-Request-Method": "PUT",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        connection.request("OPTIONS", "/notes/_local/x", headers=wanted)
        response = connection.getresponse()
        response.read()
    assert response.status in (200, 204)
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Access-Control-Allow-Credentials"] == "true"
    assert "PUT" in response.headers["Access-Control-Allow-Methods"]
    assert "authorization" in response.headers["Access-Control-Allow-Headers"]


def test_nobody_gets_in_without_a_password(livesync: Served) -> None:
    for path in ("/", "/_all_dbs", "/notes", "/_session"):
        answer = livesync.request("GET", path, user=None)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == 'Basic realm="couchdb"'


def test_a_page_elsewhere_gets_nothing(livesync: Served) -> None:
    assert ask(livesync, "GET", "/", origin=EVIL).headers["Access-Control-Allow-Origin"] is None


# What a preset is


def test_a_preset_holds_for_one_run(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--preset", "pouchdb"):
        pass
    with served(tmp_path, "--workers", "1") as server:
        assert "cors" not in ask(server, "GET", CONFIG).json


def test_a_file_and_what_was_set_over_http_win(tmp_path: Path) -> None:
    file = tmp_path / "own.ini"
    file.write_text(FAST_HASHES + "[couchdb]\nmax_document_size = 60000000\n")
    options = ("--workers", "1", "--preset", "livesync", "--config", str(file))
    with served(tmp_path, *options) as server:
        ask(server, "PUT", f"{CONFIG}/cors/origins", "http://localhost")
        server.stop()
    with served(tmp_path, *options) as server:
        assert ask(server, "GET", f"{CONFIG}/couchdb/max_document_size").json == "60000000"
        assert ask(server, "GET", f"{CONFIG}/cors/origins").json == "http://localhost"
        assert ask(server, "GET", f"{CONFIG}/cors/credentials").json == "true"


def test_a_small_machine_has_one_process_unless_it_is_told_otherwise(tmp_path: Path) -> None:
    with served(tmp_path, "--preset", "raspberry-pi") as server:
        assert server.workers() == []
        server.stop()
    with served(tmp_path, "--preset", "raspberry-pi", "--workers", "2") as server:
        assert len(server.workers()) == 2


def test_origins_are_added_to_those_of_a_preset() -> None:
    sections = merged(["livesync"], ["https://app.example", "http://localhost"])
    assert sections["cors"]["origins"] == ",".join([*LIVESYNC_ORIGINS, "https://app.example"])
    assert merged([], ["https://app.example"]) == {
        "chttpd": {"enable_cors": "true"},
        "cors": {"credentials": "true", "origins": "https://app.example"},
    }
    assert merged(["livesync", "pouchdb"], ["*"])["cors"]["origins"] == "*"


def test_an_app_s_origin_may_use_the_server(tmp_path: Path) -> None:
    with served(
        tmp_path, "--workers", "1", "--preset", "pouchdb", "--origin", "https://app.example"
    ) as server:
        headers = ask(server, "GET", "/", origin="https://app.example").headers
        assert headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert ask(server, "GET", "/", origin=EVIL).headers["Access-Control-Allow-Origin"] is None


@pytest.mark.parametrize(
    "origin", ["app.example", "https://app.example/", "https://app.example/page", "https://"]
)
def test_what_is_no_origin_is_refused(tmp_path: Path, origin: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "--data-dir", str(tmp_path / "d"), "--origin", origin],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert "is no origin" in done.stderr
