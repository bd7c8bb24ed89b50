"""What the tests of this folder need from outside: Node, the clients from npm, and Chromium.

Without one of them a test is skipped; where CI is set it fails, so that CI can't leave it out unseen.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from .device import HERE, Device
from .site import Site, site

LOCK_FILE = HERE / "package-lock.json"
INSTALLED = HERE / "node_modules" / ".installed"
"""A copy of the lock file that node_modules was made from; .ci/setup leaves one too."""
FAUXTON = "fauxton@1.2.6"
"""CouchDB's web console. Its package names all that it was built with: so it isn't installed, but its built
files are taken."""
FAUXTON_SHA512 = (
    "e59c0f2aab2dc2641c9521e27d60666f2ce504e2e8041de0b2c19a88414b3dc2"
    "331ced19c73fae3ebfc3fc5b3a0c61fb1dfa21c3bb3acea723c14f4245cb217f"
)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def clients(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Node, and the packages that package-lock.json names; installed when they are not there."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("the clients need Node and npm (https://nodejs.org)")
    with (tmp_path_factory.getbasetemp().parent / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several processes may run the tests
        if INSTALLED.exists() and INSTALLED.read_bytes() == LOCK_FILE.read_bytes():
            return
        # No install scripts: the packages bring their binaries along.
        install = subprocess.run(
            ["npm", "ci", "--ignore-scripts"], cwd=HERE, capture_output=True, text=True, timeout=100
        )
        if install.returncode:
            missing(f"npm could not install the clients: {install.stderr.strip()}")
        shutil.copyfile(LOCK_FILE, INSTALLED)


@pytest.fixture(scope="session")
def chromium() -> str:
    """Chromium's program."""
    found = [program for program in map(shutil.which, BROWSERS) if program is not None]
    if not found:
        missing("there is no Chromium (Debian: apt-get install chromium)")
    return found[0]


@pytest.fixture(scope="session")
def fauxton(clients: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of Fauxton's files."""
    folder = HERE / "node_modules" / f".{FAUXTON}"
    with (tmp_path_factory.getbasetemp().parent / "npm.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            place = tmp_path_factory.mktemp("fauxton")
            pack = subprocess.run(
                ["npm", "pack", FAUXTON], cwd=place, capture_output=True, text=True, timeout=100, check=False
            )
            if pack.returncode:
                missing(f"npm could not fetch Fauxton: {pack.stderr.strip()}")
            archive = place / "fauxton-1.2.6.tgz"
            assert hashlib.sha512(archive.read_bytes()).hexdigest() == FAUXTON_SHA512
            with tarfile.open(archive) as files:
                files.extractall(place, filter="data")
            shutil.move(place / "package" / "dist" / "release", folder)
    return folder


@pytest.fixture(name="site")
def running_site(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as running:
        yield running


@pytest.fixture(scope="module")
def common_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One site for the tests of a file, each of which has databases of its own."""
    with site(tmp_path_factory.mktemp("site")) as running:
        yield running


@pytest.fixture
def browser(clients: None, chromium: str, tmp_path: Path) -> Iterator[Device]:
    """A page in headless Chromium."""
    with Device("device_browser.mjs", [chromium, tmp_path / "profile"], tmp_path / "page.log") as device:
        yield device


@pytest.fixture
def page(browser: Device, site: Site) -> Device:
    """A page in headless Chromium whose origin the site's administrator has allowed."""
    allow_origin(site, browser.greeting)
    return browser


@pytest.fixture(params=["node", "browser"])
def device(request: pytest.FixtureRequest, clients: None, tmp_path: Path) -> Iterator[Device]:
    """A client: PouchDB in Node, and the same in a page of another origin."""
    if request.param == "browser":
        yield request.getfixturevalue("page")
        return
    with Device("device_node.mjs", [tmp_path], tmp_path / "node.log") as node:
        yield node


def allow_origin(site: Site, origin: str) -> None:
    """What PouchDB's users set to let pages of an origin use their server."""
    site.configure(
        chttpd={"enable_cors": "true"},
        cors={
            "origins": origin,
            "credentials": "true",
            "methods": "GET, PUT, POST, HEAD, DELETE",
            "headers": "accept, authorization, content-type, origin, referer",
        },
    )
