"""Recorded scenarios of CouchDB 3.5.0, played against `couchlite serve`: the same requests, the same answers.

With COUCH_URL=http://admin:password@host:port they are played against that server instead, even a real
CouchDB, which is how one learns whether a test is right.
"""

from __future__ import annotations

import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .player import Player, Target
from .serving import serving

SCENARIOS = {path.stem: path for path in sorted(Path(__file__).with_name("golden").glob("*/*.json"))}
DIFFERENCES_SHOWN = 20

DEVIATIONS = {
    "doc-design-docs": ("/_info", "a newer ICU"),
    "users-opened-db": ("/_bulk_get", "an error of CouchDB's own instead of an owner's document"),
}
"""In which scenario a step differs: a pattern of its path, and why. None may outlive its reason."""


@pytest.fixture(scope="session")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    url = os.environ.get("COUCH_URL")
    if url is None:
        with serving(tmp_path_factory.mktemp("golden")) as target:
            yield target
        return
    address = urllib.parse.urlsplit(url)
    yield Target(
        address.hostname or "127.0.0.1", address.port or 5984, address.username or "", address.password or ""
    )


def load(name: str) -> dict[str, Any]:
    scenario: dict[str, Any] = json.loads(SCENARIOS[name].read_bytes())
    return scenario


@pytest.mark.parametrize("name", SCENARIOS)
def test_answers_as_couchdb_did(target: Target, name: str) -> None:
    deviation = re.compile(DEVIATIONS[name][0] if name in DEVIATIONS else "(?!)")
    found = list(Player(load(name), target).differences())
    unexpected = [str(difference) for difference in found if not deviation.search(difference.path)]
    assert not unexpected, "\n" + "\n".join(unexpected[:DIFFERENCES_SHOWN])
    if name in DEVIATIONS and "COUCH_URL" not in os.environ:
        assert found, f"take {name} out of DEVIATIONS"


def test_deviations_are_of_scenarios() -> None:
    assert DEVIATIONS.keys() <= SCENARIOS.keys()
