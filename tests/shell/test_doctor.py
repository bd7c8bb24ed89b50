"""`couchlite doctor`: what it finds right with a server, and what wrong with what stands before it."""

from __future__ import annotations

import json
import os
import pty
import ssl
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from .meddling import Meddler, meddling
from .running import Served, served


class Examined(NamedTuple):
    code: int
    findings: list[dict[str, Any]]

    def of(self, *states: str) -> list[str]:
        """`area: what` of the findings in these states."""
        return [f"{one['area']}: {one['what']}" for one in self.findings if one["state"] in states]

    def repairs(self) -> str:
        return "\n".join(one["repair"] for one in self.findings if one["state"] in ("fail", "warn"))


def doctor(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("COUCHDB_")}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", "doctor", *arguments],
        capture_output=True,
        text=True,
        env=inherited | environment,
        timeout=100,
    )


def examine(*arguments: str) -> Examined:
    done = doctor("--json", *arguments, COUCHDB_USER="adm", COUCHDB_PASSWORD="pass")
    assert done.stderr == ""
    return Examined(done.returncode, json.loads(done.stdout)["findings"])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("served")
    with served(directory, "--workers", "1", "--preset", "livesync") as running:
        yield running


def test_all_is_well_with_a_preset(server: Served) -> None:
    url = f"http://127.0.0.1:{server.port}"
    found = examine(url, "--client", "livesync", "--client", "replication")
    assert (found.code, found.of("fail", "warn")) == (0, [])
    assert len(found.of("ok")) > 25
    assert found.of("skip") == ["tls: not looked at: http to this machine itself"]
    assert [name for name in server.request("GET", "/_all_dbs").json if "doctor" in name] == []


def test_lines_for_programs_and_colours_for_people(server: Served) -> None:
    url = f"http://adm:pass@127.0.0.1:{server.port}"
    lines = doctor(url, "--client", "livesync").stdout.splitlines()
    assert all(line.split()[0] in ("ok", "skip") for line in lines[:-1])
    assert lines[-1].startswith("0 wrong, 0 to look at")
    ours, theirs = pty.openpty()
    with os.fdopen(ours, "rb") as terminal:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "doctor", url],
            stdout=theirs,
            env=os.environ | {"TERM": "xterm-256color"},
        )
        os.close(theirs)
        shown = b""
        while piece := _read(terminal):
            shown += piece
        assert process.wait() == 0
    assert "✔".encode() in shown and b"\x1b[" in shown


def _read(terminal: Any) -> bytes:
    try:
        return bytes(terminal.read1())
    except OSError:  # so a terminal ends
        return b""


def test_every_repair_of_a_bare_server_repairs_it(tmp_path: Path) -> None:
    """The commands are run as they are printed."""
    with served(tmp_path, "--workers", "1") as server:
        url = f"http://127.0.0.1:{server.port}"
        before = examine(url, "--client", "livesync")
        assert before.code == 1
        assert len([line for line in before.of("fail") if line.startswith("settings:")]) == 7
        assert len([line for line in before.of("fail") if line.startswith("cors:")]) == 3
        for command in before.repairs().splitlines():
            assert command.startswith("curl -X PUT -u adm ")
            repaired = command.replace("-u adm ", "-s -u adm:pass ")
            assert subprocess.run(repaired, shell=True, capture_output=True).returncode == 0
        after = examine(url, "--client", "livesync")
        # Who sets require_valid_user closes /_up, too, and is told about it now.
        assert after.of("fail", "warn") == [
            "accounts: /_up answers health checks without a password with 401 Authentication required."
        ]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        pytest.param(
            ["--user", "adm", "--password", "no"], "the user or the password is wrong", id="password"
        ),
        pytest.param(
            ["--user", "adm", "--password", "pass", "--client", "pouchdb"], "", id="nothing is wrong"
        ),
    ],
)
def test_credentials(server: Served, arguments: list[str], line: str) -> None:
    done = doctor(f"http://127.0.0.1:{server.port}", *arguments)
    assert done.returncode == (1 if line else 0)
    assert line in done.stdout


def test_who_does_not_log_in_is_told_what_could_not_be_seen(server: Served) -> None:
    done = doctor(f"http://127.0.0.1:{server.port}", "--client", "livesync")
    assert done.returncode == 0
    assert "skip accounts: nobody logged in" in done.stdout
    assert "ok   cors: pages of capacitor://localhost may use the server" in done.stdout


def test_what_is_open_to_everybody_is_told(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as server:
        server.request("PUT", "/open")
        server.request("PUT", "/open/_security", {})
        found = examine(f"http://127.0.0.1:{server.port}")
    assert found.of("warn") == ["accounts: everybody may read and write without logging in: open"]
    assert found.code == 0


def test_nobody_there() -> None:
    done = doctor("http://127.0.0.1:9")
    assert done.returncode == 1
    assert "does not answer: Connection refused" in done.stdout


@pytest.mark.parametrize("url", ["ftp://x", "http://"])
def test_what_is_no_address_is_refused(url: str) -> None:
    done = doctor(url)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)


# Proxies that break things


@pytest.mark.parametrize(
    ("meddler", "area", "told", "repair"),
    [
        pytest.param(Meddler(decodes=True), "requests", "encoded slashes don't arrive", "proxy_pass"),
        pytest.param(
            Meddler(body_max=1 << 20), "requests", "a body of 2 MiB is refused: 413", "client_max_body"
        ),
        pytest.param(
            Meddler(buffers=True), "feeds", "a continuous feed does not come", "proxy_buffering off"
        ),
        pytest.param(Meddler(drops=("authorization",)), "connection", "does not arrive", "Authorization"),
        pytest.param(
            Meddler(adds={"Access-Control-Allow-Origin": "*"}), "cors", "twice", "leave CORS to the server"
        ),
        pytest.param(Meddler(refuses=("OPTIONS",)), "cors", "a preflight for GET is answered 403", "OPTIONS"),
        pytest.param(Meddler(refuses=("COPY",)), "requests", "methods are refused: COPY (403)", "COPY"),
        pytest.param(Meddler(clock_s=600), "clock", "s apart from this one", "set-ntp"),
        pytest.param(Meddler(server="nginx"), "requests", "the header Server is nginx", "proxy_pass_header"),
        pytest.param(Meddler(weakens_etags=True), "requests", "answers lose their ETag", "gzip off"),
        pytest.param(
            Meddler(page=True), "connection", "no CouchDB answers here, but 200", "the path under which"
        ),
        pytest.param(
            Meddler(redirects=True), "connection", "the server redirects to", "give clients that address"
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else "",
)
def test_what_a_proxy_breaks(server: Served, meddler: Meddler, area: str, told: str, repair: str) -> None:
    with meddling(server.port, meddler) as proxy:
        found = examine(f"http://127.0.0.1:{proxy.port}", "--client", "livesync")
    [line, *_] = [one for one in found.findings if one["area"] == area and told in one["what"]]
    assert line["state"] in ("fail", "warn")
    assert repair in line["repair"]
    assert found.code == (1 if found.of("fail") else 0)


def test_a_password_that_does_not_arrive_at_an_open_server(tmp_path: Path) -> None:
    dropping = Meddler(drops=("authorization",))
    with served(tmp_path, "--workers", "1") as server, meddling(server.port, dropping) as proxy:
        found = examine(f"http://127.0.0.1:{proxy.port}")
    assert "accounts: the password of adm does not arrive: the server sees nobody" in found.of("fail")


def test_a_proxy_that_breaks_nothing(server: Served) -> None:
    with meddling(server.port, Meddler()) as proxy:
        found = examine(f"http://127.0.0.1:{proxy.port}", "--client", "livesync", "--client", "replication")
    # It closes connections, and speaks no WebSocket.
    assert [line.partition(":")[0] for line in found.of("fail", "warn")] == ["connection", "feeds"]


# Certificates


def certificate(directory: Path, name: str, days: float) -> tuple[Path, Path]:
    """One that trusts itself, for that name, valid for so long; and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=400))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    paths = directory / "cert.pem", directory / "key.pem"
    paths[0].write_bytes(made.public_bytes(pem))
    paths[1].write_bytes(private)
    return paths


@pytest.mark.parametrize(
    ("name", "days", "is_trusted", "state", "told"),
    [
        pytest.param("localhost", 90.5, True, "ok", "the certificate is valid for 90 more days", id="good"),
        pytest.param("localhost", 5.5, True, "warn", "the certificate expires in 5 days", id="expires soon"),
        pytest.param("localhost", -1, True, "fail", "certificate has expired", id="expired"),
        pytest.param("elsewhere", 90, True, "fail", "Hostname mismatch", id="another name"),
        pytest.param("localhost", 90, False, "fail", "self-signed certificate", id="not trusted"),
    ],
)
def test_certificates(
    tmp_path: Path, name: str, days: float, is_trusted: bool, state: str, told: str
) -> None:
    chain, key = certificate(tmp_path, name, days)
    options = ("--bind", "localhost", "--workers", "1", "--tls-cert", str(chain), "--tls-key", str(key))
    with served(tmp_path, *options) as server:
        trusting = ["--ca-file", str(chain)] if is_trusted else []
        found = examine(f"https://localhost:{server.port}", *trusting)
    [line] = [one for one in found.findings if one["area"] == "tls" and told in one["what"]]
    assert line["state"] == state
    has_logged_in = any("adm logs in" in line for line in found.of("ok"))
    assert has_logged_in == (state != "fail")


def test_a_password_is_sent_over_a_bad_connection_only_when_that_is_asked_for(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path, "localhost", 90)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(chain, key)
    for options, is_seen in (([], False), (["--insecure"], True)):
        with served(tmp_path, "--workers", "1") as server, meddling(server.port, Meddler(), tls) as proxy:
            examine(f"https://localhost:{proxy.port}", *options)
            assert (proxy.authorizations > 0) == is_seen
