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

LATER = {
    "node": "node statistics and resharding",
}
"""Areas and scenarios of what is not built yet. One that passes fails its test: none outlives its reason."""


LATER_STEPS = {
    "doc-design-docs": ("/_info", "a newer ICU"),
    "users-opened-db": ("/_bulk_get", "an error of CouchDB's own instead of an owner's document"),
}
"""Of scenarios that are played otherwise: a pattern of the paths whose answers may differ, and why."""


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


def is_later(name: str) -> bool:
    return name in LATER or SCENARIOS[name].parent.name in LATER


def load(name: str) -> dict[str, Any]:
    scenario: dict[str, Any] = json.loads(SCENARIOS[name].read_bytes())
    return scenario


@pytest.mark.parametrize("name", [name for name in SCENARIOS if not is_later(name)])
def test_answers_as_couchdb_did(target: Target, name: str) -> None:
    put_off = re.compile(LATER_STEPS[name][0] if name in LATER_STEPS else "(?!)")
    found = list(Player(load(name), target).differences())
    unexpected = [str(difference) for difference in found if not put_off.search(difference.path)]
    assert not unexpected, "\n" + "\n".join(unexpected[:DIFFERENCES_SHOWN])
    if name in LATER_STEPS and "COUCH_URL" not in os.environ:
        assert found, f"take {name} out of LATER_STEPS"


@pytest.mark.skipif("COUCH_URL" in os.environ, reason="the table is about couchlite")
@pytest.mark.parametrize("name", [name for name in SCENARIOS if is_later(name)])
def test_what_is_put_off_differs_still(target: Target, name: str) -> None:
    assert next(Player(load(name), target).differences(), None) is not None, f"take {name} out of LATER"


def test_what_is_put_off_exists() -> None:
    assert LATER.keys() <= SCENARIOS.keys() | {path.parent.name for path in SCENARIOS.values()}
    assert LATER_STEPS.keys() <= SCENARIOS.keys()
