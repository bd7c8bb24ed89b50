"""Certificates of distant servers: verified, unless the configuration says otherwise."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from http_api import listen
from tests.web.in_process import Site

from .databases import Couch

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="makes a certificate with openssl")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that only itself vouches for; its key is in the same file."""
    path = tmp_path / "certificate.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=x"
    make += f" -addext subjectAltName=IP:127.0.0.1 -keyout {path}.key -out {path}"
    subprocess.run(make.split(), check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.key").read_text())
    return path


@pytest.fixture
async def source(site: Site, server: Couch, certificate: Path) -> AsyncIterator[dict[str, Any]]:
    """A database of this server, as reached by https at another port."""
    await server.ask("PUT", "/source")
    await server.ask("PUT", "/source/doc", {})
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    listener = await listen(site.app, "127.0.0.1", 0, tls=context)
    yield {"url": f"https://127.0.0.1:{listener.port}/source", "auth": server.endpoint("")["auth"]}
    await listener.close(1)


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    server: Couch, source: dict[str, Any]
) -> None:
    status, told = await server.replicate(source, "copy", create_target=True, retries_per_request=0)
    assert (status, told["error"]) == (500, "error")
    assert "bad_certificate" in told["reason"]


async def test_an_authority_that_is_trusted_vouches(
    server: Couch, source: dict[str, Any], certificate: Path
) -> None:
    path = "/_node/_local/_config/replicator/ssl_trusted_certificates_file"
    await server.ask("PUT", path, str(certificate))
    status, told = await server.replicate(source, "copy", create_target=True)
    assert (status, told["history"][0]["docs_written"]) == (200, 1)


async def test_verification_can_be_turned_off(server: Couch, source: dict[str, Any]) -> None:
    await server.ask("PUT", "/_node/_local/_config/replicator/verify_ssl_certificates", "false")
    status, told = await server.replicate(source, "copy", create_target=True)
    assert (status, told["history"][0]["docs_written"]) == (200, 1)


async def test_files_that_are_not_there_are_told(server: Couch, source: dict[str, Any]) -> None:
    path = "/_node/_local/_config/replicator/ssl_trusted_certificates_file"
    await server.ask("PUT", path, "/nowhere.pem")
    status, told = await server.replicate(source, "copy", create_target=True)
    assert (status, told["error"]) == (500, "tls_error")
