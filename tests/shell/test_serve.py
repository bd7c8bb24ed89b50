"""`couchlite serve` from outside: what it says, how it ends, what it refuses."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

from couchlite import Server
from couchlite.catalog import CATALOG_DIRECTORY
from couchlite.config import Config
from couchlite.engine import CatalogSpace
from couchlite.passwords import from_admin_value
from couchlite.records import u64
from couchlite.storage import LmdbEnvironment

from ..waiting import wait_until
from .running import refused, running, served, start

WORKERS = pytest.mark.parametrize("workers", ["1", "2"])


# Starting


@WORKERS
def test_it_says_where_it_is_and_answers(tmp_path: Path, workers: str) -> None:
    with served(tmp_path, "--workers", workers) as server:
        assert server.request("GET", "/", user=None).json["couchdb"] == "Welcome"
        assert server.request("GET", "/_all_dbs").json == ["_replicator", "_users"]
        assert len(server.workers()) == (0 if workers == "1" else 2)


def test_all_workers_answer_and_agree(tmp_path: Path) -> None:
    """Enough connections that each worker gets some; what one did, all know at once."""
    with served(tmp_path, "--workers", "3") as server:
        for number in range(20):
            assert server.request("PUT", f"/db{number}").status == 201
            assert server.request("GET", f"/db{number}").status == 200
        assert server.request("PUT", "/_node/_local/_config/a/b", "c").status == 200
        for _ in range(10):
            assert server.request("GET", "/_node/_local/_config/a/b").json == "c"


def test_without_an_administrator_one_is_made_and_told_once(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", environment={}) as server:
        made = re.search(r"Administrator 'admin' was made, with the password (\S+)", server.output)
        assert made
        assert server.request("GET", "/_all_dbs", user=("admin", made[1])).status == 200
        server.stop()
    with served(tmp_path, "--workers", "1", environment={}) as server:
        assert "password" not in server.output
        assert server.request("GET", "/_all_dbs", user=("admin", made[1])).status == 200
        assert server.request("GET", "/_all_dbs", user=None).status == 401


@pytest.mark.parametrize(
    ("options", "environment"),
    [
        pytest.param(["--admin", "boss", "--password", "säcret"], {}, id="by options"),
        pytest.param([], {"COUCHDB_USER": "boss", "COUCHDB_PASSWORD": "säcret"}, id="by the environment"),
        pytest.param(["--admin", "boss", "--password-file", "{file}"], {}, id="by a file"),
    ],
)
def test_an_administrator_is_given(tmp_path: Path, options: list[str], environment: dict[str, str]) -> None:
    file = tmp_path / "password"
    file.write_text("säcret\n")
    filled = [option.format(file=file) for option in options]
    with served(tmp_path, "--workers", "1", *filled, environment=environment) as server:
        assert server.request("GET", "/_all_dbs", user=("boss", "säcret")).status == 200


def test_an_administrator_keeps_the_password_it_has(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        assert server.request("PUT", "/_node/_local/_config/admins/adm", "changed").status == 200
        server.stop()
    with served(tmp_path, "--workers", "2") as server:
        wait_until(lambda: "has another password than the one given now" in server.output)
        assert server.request("GET", "/_all_dbs", user=("adm", "pass")).status == 401
        assert server.request("GET", "/_all_dbs", user=("adm", "changed")).status == 200


def test_clear_administrators_of_a_file_are_hashed(tmp_path: Path) -> None:
    settings = tmp_path / "local.ini"
    settings.write_text("[admins]\nfiled = clear\n[chttpd_auth]\niterations = 10\n[cors]\norigins = *\n")
    with served(tmp_path, "--workers", "1", "--config", str(settings), environment={}) as server:
        assert "Administrator" not in server.output
        filed = ("filed", "clear")
        assert server.request("GET", "/_all_dbs", user=filed).status == 200
        assert from_admin_value(server.request("GET", "/_node/_local/_config/admins/filed", user=filed).json)
        assert server.request("GET", "/_node/_local/_config/cors", user=filed).json == {"origins": "*"}


def test_port_and_address_of_the_configuration_count_at_the_next_start(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = tmp_path / "local.ini"
    settings.write_text(f"[chttpd]\nport = {port}\n[chttpd_auth]\niterations = 10\n")
    options = ["--workers", "1", "--config", str(settings), "--port", "0"]
    with served(tmp_path, *options) as server:
        assert server.port != port
    with served(
        tmp_path, "--workers", "1", "--config", str(settings), "--bind", "127.0.0.1", "--port", str(port)
    ):
        pass


def test_tls(tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    files = ["-addext", "subjectAltName=IP:127.0.0.1", "-out", str(certificate), "-keyout", str(key)]
    subprocess.run([*make.split(), *files], check=True, capture_output=True)
    with served(tmp_path, "--workers", "2", "--tls-cert", str(certificate), "--tls-key", str(key)) as server:
        context = ssl.create_default_context(cafile=str(certificate))
        connection = HTTPSConnection("127.0.0.1", server.port, context=context, timeout=10)
        connection.request("GET", "/_up")
        assert json.loads(connection.getresponse().read())["status"] == "ok"
        connection.close()


# Stopping


@WORKERS
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_when_told_to(tmp_path: Path, workers: str, number: signal.Signals) -> None:
    with served(tmp_path, "--workers", workers) as server:
        children = server.workers()
        idle = HTTPConnection("127.0.0.1", server.port, timeout=10)
        idle.request("GET", "/_up")
        idle.getresponse().read()
        began = time.monotonic()
        assert server.stop(number) == 0
        assert time.monotonic() - began < 5, "an idle connection is no reason to wait"
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        idle.close()


def _begin_login(connection: socket.socket, length: int) -> None:
    """Send the head of a request, and wait until the server asks for its body."""
    connection.settimeout(20)
    connection.sendall(b"POST /_session HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
    connection.sendall(b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % length)
    assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")


@WORKERS
def test_a_second_signal_ends_it_at_once(tmp_path: Path, workers: str) -> None:
    """A request that never finishes sending its body holds the server for its grace, but no longer."""
    with (
        served(tmp_path, "--workers", workers, "--grace", "60") as server,
        socket.create_connection(("127.0.0.1", server.port)) as stuck,
    ):
        _begin_login(stuck, 100)
        stuck.sendall(b"{")
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.7)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(5)


@WORKERS
def test_a_request_that_runs_may_finish(tmp_path: Path, workers: str) -> None:
    with served(tmp_path, "--workers", workers) as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
            body = b'{"name":"adm","password":"pass"}'
            _begin_login(slow, len(body))
            slow.sendall(body[:5])
            server.process.send_signal(signal.SIGTERM)
            time.sleep(0.5)
            slow.sendall(body[5:])
            assert b"200 OK" in slow.recv(65536)
        assert server.process.wait(20) == 0


# Workers


def test_a_killed_worker_is_replaced(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        before = server.workers()
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(set(server.workers()) - set(before)) == 1)
        wait_until(lambda: all(server.request("GET", "/_up", user=None).status == 200 for _ in range(10)))
        assert "died; a new one starts" in server.output
        assert server.stop() == 0


def test_workers_do_not_outlive_their_supervisor(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2") as server:
        children = server.workers()
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        wait_until(lambda: not any(_is_alive(pid) for pid in children), 5)
        with served(tmp_path, "--workers", "2", "--port", str(server.port)) as again:
            assert again.request("GET", "/_up").status == 200


def _is_alive(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def test_a_server_at_rest_is_small_and_quick_to_start(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        pid = server.process.pid
        stat = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        cpu_s = (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")
        assert cpu_s < 1.0
        assert _pss_mib(pid) < 120


def _pss_mib(pid: int) -> float:
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    match = re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE)
    assert match
    return int(match[1]) / 1024


@WORKERS
def test_it_takes_the_open_files_it_may_have(tmp_path: Path, workers: str) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # the child inherits it
    try:
        process, log = start(tmp_path, "--workers", workers)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    with running(process, log) as server:
        pid = (server.workers() or [server.process.pid])[0]
        limits = re.search(r"Max open files\s+(\d+)", Path(f"/proc/{pid}/limits").read_text())
        assert limits and int(limits[1]) == min(hard, 1 << 20)


def test_it_serves_though_nobody_reads_what_it_prints(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as first:
        port = first.port
        first.stop()
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "cli.main", "serve", "--data-dir", str(tmp_path / "data")]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--workers", "1"], stdout=writer, stderr=writer
    )
    os.close(writer)
    os.close(reader)
    try:
        wait_until(lambda: _answers(port))
        for _ in range(600):  # more than are gathered before they are written
            assert _answers(port)
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("GET", "/_up")
        return connection.getresponse().status == 200
    except OSError:
        return False
    finally:
        connection.close()


# Refusals, one line each


@WORKERS
def test_a_port_in_use(tmp_path: Path, workers: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        line = refused(tmp_path, "--workers", workers, "--port", str(port))
    assert line == f"couchlite: 127.0.0.1:{port} is in use by another program; choose another with --port"


@WORKERS
@pytest.mark.parametrize("first", ["1", "2"])
def test_the_port_of_another_couchlite(tmp_path: Path, workers: str, first: str) -> None:
    """Though its workers share their port among themselves, no other server gets a share."""
    (tmp_path / "other").mkdir()
    with served(tmp_path, "--workers", first) as server:
        line = refused(tmp_path / "other", "--workers", workers, "--port", str(server.port))
    assert "is in use by another program" in line


def test_an_address_that_is_not_ours(tmp_path: Path) -> None:
    line = refused(tmp_path, "--bind", "192.0.2.1", "--workers", "2")
    assert line.startswith("couchlite: can't listen on 192.0.2.1:0: ")


@WORKERS
def test_a_directory_another_server_uses(tmp_path: Path, workers: str) -> None:
    with served(tmp_path, "--workers", "2") as server:
        line = refused(tmp_path, "--workers", workers)
        assert line.endswith(f"is in use by another couchlite server (process {server.process.pid})")
        assert server.request("GET", "/_all_dbs").status == 200


def test_a_directory_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "thesis.tex").write_text("precious")
    line = refused(tmp_path)
    assert "is not a couchlite data directory" in line
    assert os.listdir(tmp_path / "data") == ["thesis.tex"]


def test_a_file_instead_of_a_directory(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("precious")
    assert "is not a directory" in refused(tmp_path)


def test_a_directory_of_a_newer_format(tmp_path: Path) -> None:
    Server(tmp_path / "data").close()
    catalog = LmdbEnvironment(tmp_path / "data" / CATALOG_DIRECTORY, CatalogSpace)
    catalog.write(lambda batch: batch.put(CatalogSpace.META, b"format", u64(1000)))
    catalog.close()
    assert "has format 1000; this couchlite reads format" in refused(tmp_path)


def test_a_directory_that_can_t_be_written(tmp_path: Path) -> None:
    # Nobody, root included, makes directories there.
    line = refused(tmp_path, "--data-dir", "/proc/couchlite")
    assert line.startswith("couchlite: /proc/couchlite can't be written")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--admin", "x"], "--admin needs --password"),
        (["--admin", "x", "--password", ""], "password is empty"),
        (["--tls-key", "{file}"], "--tls-key needs --tls-cert"),
        (["--tls-cert", "{file}"], "can't be used"),
        (["--config", "/nowhere.ini"], "does not exist"),
        (["--port", "70000"], "not in the range"),
        (["--workers", "0"], "not in the range"),
    ],
)
def test_options_that_make_no_sense(tmp_path: Path, options: list[str], message: str) -> None:
    file = tmp_path / "empty.pem"
    file.write_text("")
    filled = [option.format(file=file) for option in options]
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "serve", "--data-dir", str(tmp_path / "data"), *filled],
        capture_output=True,
        text=True,
        timeout=30,
        env={name: text for name, text in os.environ.items() if not name.startswith("COUCHDB_")},
    )
    assert done.returncode != 0
    assert message in done.stderr
    assert not (tmp_path / "data").exists()


# Logs


def test_the_log_as_json(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2", "--log-format", "json") as server:
        server.request("GET", "/_all_dbs?a=b", user=("adm", "wrong"))
        wait_until(lambda: '"access"' in server.output)
        server.stop()
        lines = [json.loads(line) for line in server.output.splitlines() if line.startswith("{")]
        rest = [line for line in server.output.splitlines() if not line.startswith("{")]
    assert len(rest) == 1 and "serves" in rest[0]
    access = [line for line in lines if line["logger"] == "access"]
    assert access[0]["method"] == "GET" and access[0]["status"] == 401 and access[0]["user"] is None
    assert {"time", "level", "logger", "pid", "message"} <= lines[0].keys()


def test_the_access_log_can_be_off(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1", "--no-access-log") as server:
        server.request("GET", "/_up")
        server.stop()
        assert "/_up" not in server.output


def test_credentials_are_never_logged(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "2", "--log-level", "debug") as server:
        server.request("PUT", "/_node/_local/_config/admins/second", "hunter2")
        server.request("GET", "/_session", user=("second", "hunter2"))
        server.request("GET", "/_session", user=("adm", "hunter2"))
        cookie = server.request("POST", "/_session", {"name": "second", "password": "hunter2"}, user=None)
        server.request("POST", "/_session", {"name": "adm", "password": "hunter2"}, user=None)
        with socket.create_connection(("127.0.0.1", server.port)) as raw:
            raw.sendall(b"GET http://second:hunter2@127.0.0.1/_up HTTP/1.1\r\nHost: x\r\n\r\n")
            raw.recv(1000)
        server.stop()
        assert cookie.status == 200
        assert "hunter2" not in server.output
        assert "/_up" in server.output
        assert cookie.headers["Set-Cookie"].split(";")[0].split("=")[1] not in server.output


def test_a_request_can_t_forge_a_line_of_the_log(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.request("POST", "/_session", {"name": "x\n2026 forged", "password": "y"}, user=None)
        server.stop()
        assert not any(line.startswith("2026 forged") for line in server.output.splitlines())
        assert "forged" in server.output


def test_the_log_level_follows_the_configuration(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        assert server.request("PUT", "/_node/_local/_config/chttpd_auth_lockout/mode", "off").status == 200

        def is_told() -> bool:
            before = server.output.count("authentication failed")
            assert server.request("GET", "/_session", user=("adm", "wrong")).status == 401
            return server.output.count("authentication failed") > before

        for level, says in (("error", False), ("info", True)):
            assert is_told() is not says
            assert server.request("PUT", "/_node/_local/_config/log/level", level).status == 200
            wait_until(lambda says=says: is_told() is says)


def test_volatile_settings_end_with_the_server(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.stop()
    with Server(tmp_path / "data") as store:
        config: Config = store.config
        config.set("cors", "origins", "*", persist=False)
        config.set("cors", "credentials", "true")
    with served(tmp_path, "--workers", "1") as server:
        assert server.request("GET", "/_node/_local/_config/cors").json == {"credentials": "true"}


def test_a_changed_password_counts_at_once_on_all_workers(tmp_path: Path) -> None:
    path = "/_users/org.couchdb.user:ann"
    user = {"type": "user", "name": "ann", "roles": []}
    with served(tmp_path, "--workers", "2") as server:

        def statuses(password: str) -> set[int]:
            """Of connections enough to reach both."""
            return {server.request("GET", "/_session", user=("ann", password)).status for _ in range(20)}

        rev = server.request("PUT", path, {**user, "password": "old"}).json["rev"]
        for old, new in (("old", "newer"), ("newer", "newest")):
            assert statuses(old) == {200}
            answer = server.request("PUT", path, {**user, "password": new, "_rev": rev})
            rev = answer.json["rev"]
            assert (
                server.request("PUT", "/_node/_local/_config/chttpd_auth_lockout/mode", "off").status == 200
            )
            assert statuses(old) == {401}
            assert statuses(new) == {200}
        assert server.request("DELETE", f"{path}?rev={rev}").status == 200
        assert statuses("newest") == {401}
