"""What all tests share: Hypothesis profiles, and a store in a temporary folder, checked at the end."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from couchlite import Database, Server

settings.register_profile("default", max_examples=50, derandomize=True, deadline=None)
settings.register_profile(
    "deep", max_examples=1000, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Server]:
    """A data directory; at the end every database in it must fit together."""
    with Server(tmp_path / "data") as server:
        yield server
        for name in server.names():
            assert server.open(name).check(deep=True) == [], name


@pytest.fixture
def database(store: Server) -> Database:
    return store.create("notes")
