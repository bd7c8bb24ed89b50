"""Our replicator between couchlite and express-pouchdb, over HTTP: both ends are the same afterwards."""

from __future__ import annotations

import base64
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..waiting import wait_until
from .express import ExpressSite, express_site
from .site import PASSWORD, USER, RemoteDatabase, Site

pytestmark = pytest.mark.slow

BINARY = random.Random(1).randbytes(300_000)
TEXT = "grüße, 世界\n" * 5_000


@pytest.fixture
def express(clients: None, tmp_path: Path) -> Iterator[ExpressSite]:
    with express_site(tmp_path / "express") as running:
        yield running


def graft(doc_id: str, start: int, ids: str, **fields: Any) -> dict[str, Any]:
    """A revision whose digests are each one letter, repeated."""
    digests = [letter * 32 for letter in ids]
    return {
        "_id": doc_id,
        "_rev": f"{start}-{digests[0]}",
        "_revisions": {"start": start, "ids": digests},
        **fields,
    }


def attachment(kind: str, content: bytes) -> dict[str, str]:
    return {"content_type": kind, "data": base64.b64encode(content).decode()}


def fill(database: RemoteDatabase) -> None:
    """Everything that is hard to replicate."""
    attached = {"_attachments": {"f": attachment("text/plain", b"left")}}
    other = {"_attachments": {"f": attachment("text/plain", b"right")}}
    grafts = [
        graft("conflict", 3, "cba", side="left"),
        graft("conflict", 4, "feda", side="right"),
        graft("conflict", 2, "9a", _deleted=True),
        graft("gone", 2, "12", _deleted=True),
        graft("attached conflict", 2, "ba", **attached),
        graft("attached conflict", 2, "ca", **other),
    ]
    assert database.bulk(grafts, new_edits=False) == []
    names = ("a/b", "ünïcode ☃", "a+b c", "per%cent", 'quo"te', "~t.-_:", "qu?ery#")
    docs: list[dict[str, Any]] = [{"_id": name, "name": name} for name in names]
    docs += [{"_id": f"plain-{number:03}", "number": number} for number in range(120)]
    docs += [
        {"_id": "_design/app", "views": {"all": {"map": "function(doc) { emit(doc._id); }"}}},
        {"_id": "numbers", "tiny": 1e-5, "many": [1, 2.5, None, True, {"ä": "\u2028"}]},
    ]
    assert all("rev" in row for row in database.bulk(docs))
    files = {
        "text ☃": ("text/plain; charset=utf-8", TEXT.encode()),
        "binary": ("application/octet-stream", BINARY),
        "empty": ("image/gif", b""),
    }
    for doc_id in ("files", "files/with slash"):
        database.attach(doc_id, **files)
        database.attach(doc_id, small=("image/png", b"one more"))
        database.edit(doc_id, comment="attachments stay")


def replicate(site: Site, source: str, target: str) -> dict[str, Any]:
    """Let couchlite replicate between two addresses; what the run has to show for itself."""
    told = site.ask("POST", "/_replicate", {"source": source, "target": target})
    session: dict[str, Any] = told["history"][0]
    assert session["doc_write_failures"] == 0
    return session


def ours(site: Site, name: str) -> str:
    return f"http://{USER}:{PASSWORD}@127.0.0.1:{site.port}/{name}"


def assert_equal(one: RemoteDatabase, other: RemoteDatabase) -> None:
    here, there = one.leaves(), other.leaves()
    differing = {
        doc_id: (here.get(doc_id), there.get(doc_id))
        for doc_id in sorted(here.keys() | there.keys())
        if here.get(doc_id) != there.get(doc_id)
    }
    assert not differing


def test_from_couchlite_and_back_into_another_database(site: Site, express: ExpressSite) -> None:
    original, copy = RemoteDatabase(site, "original"), RemoteDatabase(express, "copy")
    fill(original)
    replicate(site, ours(site, "original"), f"{express.url}/copy")
    assert_equal(original, copy)
    again = RemoteDatabase(site, "again")
    replicate(site, f"{express.url}/copy", ours(site, "again"))
    assert_equal(original, again)


def test_from_express_pouchdb_and_back_into_another_database(site: Site, express: ExpressSite) -> None:
    original, copy = RemoteDatabase(express, "original"), RemoteDatabase(site, "copy")
    fill(original)
    replicate(site, f"{express.url}/original", ours(site, "copy"))
    assert_equal(original, copy)
    again = RemoteDatabase(express, "again")
    replicate(site, ours(site, "copy"), f"{express.url}/again")
    assert_equal(original, again)


def test_both_ways_with_edits_between(site: Site, express: ExpressSite) -> None:
    here, there = RemoteDatabase(site, "notes"), RemoteDatabase(express, "notes")
    ends = ours(site, "notes"), f"{express.url}/notes"
    fill(here)
    for round_ in range(3):
        for end in ends, ends[::-1]:
            replicate(site, *end)
        assert_equal(here, there)
        here.edit("plain-000", here=round_)
        there.edit("plain-000", there=round_)
        there.edit("a/b", there=round_)
        here.attach("files", changed=("text/plain", b"%d" % round_))
        there.remove(f"plain-{10 + round_:03}")
        here.edit(f"plain-{10 + round_:03}", kept=True)
    for end in ends, ends[::-1]:
        replicate(site, *end)
    assert_equal(here, there)
    replicate(site, *ends)
    again = site.ask("POST", "/_replicate", {"source": ends[0], "target": ends[1]})
    assert again["no_changes"] is True, "it goes on from its checkpoint"


def test_a_continuous_one_into_express_pouchdb(site: Site, express: ExpressSite) -> None:
    here, there = RemoteDatabase(site, "notes"), RemoteDatabase(express, "notes")
    asked = {"source": ours(site, "notes"), "target": f"{express.url}/notes", "continuous": True}
    site.ask("POST", "/_replicate", asked)
    fill(here)
    wait_until(lambda: here.revisions() == there.revisions(), 30)
    here.edit("plain-001", live=True)
    wait_until(lambda: here.revisions() == there.revisions(), 30)
    assert_equal(here, there)
