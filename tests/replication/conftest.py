"""A server in the test's own process and loop, and the same as a client sees it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.web.in_process import Site, site

from .databases import Couch, couch


@pytest.fixture(name="site")
async def running_site(tmp_path: Path) -> AsyncIterator[Site]:
    async with site(tmp_path) as running:
        yield running
        names = running.server.names()
        problems = {name: running.server.open(name).check(deep=True) for name in names}
        assert not any(problems.values()), problems


@pytest.fixture
async def server(site: Site) -> AsyncIterator[Couch]:
    async with couch(f"http://127.0.0.1:{site.port}") as client:
        yield client


@pytest.fixture
async def other(tmp_path: Path) -> AsyncIterator[Couch]:
    """Another server."""
    async with site(tmp_path / "other") as running, couch(f"http://127.0.0.1:{running.port}") as client:
        yield client
