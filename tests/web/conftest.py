"""What the web tests share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from .in_process import Site, site


@pytest.fixture
async def web(tmp_path: Path) -> AsyncIterator[Site]:
    """The application in this process, on an empty data directory."""
    async with site(tmp_path) as running:
        yield running


@pytest.fixture
async def db(web: Site) -> AsyncIterator[Site]:
    """The application with one database, `db`; whatever was done to it, it must fit together at the end."""
    web.server.create("db")
    yield web
    assert web.server.open("db").check(deep=True) == []
