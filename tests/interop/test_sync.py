"""A real PouchDB and a server in live two-way replication: at the end both hold the same leaves.

Each scenario runs with PouchDB in Node (on LevelDB) and in headless Chromium (on IndexedDB, from a page of
another origin).
"""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Iterator

import pytest

from ..waiting import wait_until
from .device import Device, DeviceDatabase
from .proxy import Proxy
from .site import PASSWORD, USER, RemoteDatabase, Site

pytestmark = pytest.mark.slow

IDENTICAL_TIMEOUT_S = 60.0
TEXT = ("text/plain; charset=utf-8", "grüße, 世界\n".encode() * 40_000)
BINARY = ("application/octet-stream", random.Random(1).randbytes(1_500_000))
SMALL = ("image/png", random.Random(2).randbytes(300))


class Pair:
    """A client's database and a server's."""

    def __init__(self, device: Device, site: Site, port: int | None = None, **options: bool) -> None:
        self.here = DeviceDatabase(device)
        self.there = RemoteDatabase(site, "notes")
        self.device = device
        remote = f"http://127.0.0.1:{port or site.port}/notes"
        device.ask("open", name="notes", remote=remote, username=USER, password=PASSWORD, **options)

    def assert_become_identical(self) -> None:
        """Wait until both ends have the same leaf revisions, then compare all they hold."""
        deadline = time.monotonic() + IDENTICAL_TIMEOUT_S
        while self.here.revisions() != self.there.revisions() and time.monotonic() < deadline:
            time.sleep(0.1)
        here, there, seen = self.here.leaves(), self.there.leaves(), self.device.ask("seen")
        ids = here.keys() | there.keys()
        differing = {doc_id: (here.get(doc_id), there.get(doc_id)) for doc_id in sorted(ids)}
        differing = {doc_id: ends for doc_id, ends in differing.items() if ends[0] != ends[1]}
        assert not differing, (differing, seen)
        assert (seen["errors"], seen["denied"]) == ([], [])


@pytest.fixture
def pair(device: Device, site: Site) -> Iterator[Pair]:
    """Both ends, with live replication running."""
    connected = Pair(device, site)
    device.ask("startSync")
    yield connected
    device.ask("stopSync")


def notes(author: str, count: int) -> list[dict[str, object]]:
    return [{"_id": f"{author}-{number:03}", "text": f"{author} {number}"} for number in range(count)]


def leaves_with_attachments(doc_id: str) -> list[dict[str, object]]:
    """Two leaves of a document, with different attachments of one name."""
    return [
        {
            "_id": doc_id,
            "_rev": f"1-{digest}",
            "_revisions": {"start": 1, "ids": [digest]},
            "_attachments": {
                "file": {"content_type": "text/plain", "data": base64.b64encode(digest.encode()).decode()}
            },
        }
        for digest in ("a" * 32, "b" * 32)
    ]


def test_edits_of_both_sides_arrive_live(pair: Pair) -> None:
    pair.here.bulk(notes("here", 40))
    pair.there.bulk(notes("there", 40))
    pair.assert_become_identical()

    for number in range(0, 40, 4):
        pair.here.edit(f"there-{number:03}", read=True)
        pair.there.edit(f"here-{number:03}", read=True, parts=[1, 2.5, None, {"ä": "\u2028"}])
    pair.there.put({"_id": "_design/app", "language": "query", "views": {}})
    pair.here.put({"_id": "with/slash & ünïcode?#%", "number": 12345678901234567})
    pair.assert_become_identical()


def test_deletions_of_both_sides_arrive(pair: Pair) -> None:
    pair.here.bulk(notes("here", 20))
    pair.there.bulk(notes("there", 20))
    pair.assert_become_identical()

    for number in range(10):
        pair.here.remove(f"there-{number:03}")
        pair.there.remove(f"here-{number:03}")
    pair.assert_become_identical()
    pair.here.put({"_id": "here-000", "text": "again, here"})
    pair.there.put({"_id": "here-001", "text": "again, there"})
    pair.assert_become_identical()
    assert pair.there.get("here-000")["_rev"].startswith("3-")


def test_attachments_of_both_sides_arrive(pair: Pair) -> None:
    pair.here.attach("from here", text=TEXT, binary=BINARY, small=SMALL, empty=("image/gif", b""))
    pair.there.attach("from there", text=TEXT, binary=BINARY, small=SMALL, empty=("text/css", b""))
    pair.assert_become_identical()

    pair.there.attach("from here", small=("image/png", b"changed there"))
    pair.here.attach("from there", small=("image/png", b"changed here"))
    pair.here.edit("from there", comment="attachments stay")
    pair.assert_become_identical()
    kept = pair.there.leaves()["from there"]["leaves"].popitem()[1]["attachments"]
    assert [kept[name]["length"] for name in ("text", "binary", "small")] == [
        len(TEXT[1]),
        len(BINARY[1]),
        len(b"changed here"),
    ]


def test_conflicts_made_on_both_sides_are_the_same_on_both(device: Device, site: Site) -> None:
    pair = Pair(device, site)
    for doc in (*notes("edited", 20), *notes("deleted", 10)):
        pair.here.put(doc)
    device.ask("syncOnce")
    # Apart, both sides go on.
    for number in range(20):
        for edit in range(1 + number % 3):
            pair.here.edit(f"edited-{number:03}", text=f"here {edit}")
        pair.there.edit(f"edited-{number:03}", text="there")
    for number in range(0, 10, 2):
        pair.here.edit(f"deleted-{number:03}", text="edited here")
        pair.there.remove(f"deleted-{number:03}")
        pair.there.edit(f"deleted-{number + 1:03}", text="edited there")
        pair.here.remove(f"deleted-{number + 1:03}")
    pair.here.bulk([{"_id": f"born twice-{number}", "text": "here"} for number in range(10)])
    pair.there.bulk([{"_id": f"born twice-{number}", "text": "there"} for number in range(10)])
    # Not one leaf here and one there: PouchDB 9's IndexedDB adapter then mixes up their attachments when it
    # pushes and pulls at once, whatever the server.
    pair.here.bulk(leaves_with_attachments("attached twice, here"), new_edits=False)
    pair.there.bulk(leaves_with_attachments("attached twice, there"), new_edits=False)

    device.ask("startSync")
    pair.assert_become_identical()
    revisions = pair.there.revisions()
    assert all(len(leaves) == 2 for leaves in revisions.values()), revisions

    # One side settles some of them: the other leaf is deleted, which is one more edit.
    for number in range(0, 10, 2):
        doc_id = f"born twice-{number}"
        [loser] = set(revisions[doc_id]) - {pair.here.get(doc_id)["_rev"]}
        pair.here.bulk([{"_id": doc_id, "_rev": loser, "_deleted": True}])
    pair.assert_become_identical()
    device.ask("stopSync")


def test_a_connection_that_is_lost_again_and_again_loses_nothing(device: Device, site: Site) -> None:
    moments = random.Random(3)
    with Proxy(site.port, delay_s=0.005).running() as proxy:
        pair = Pair(device, site, proxy.port, platformFetch=True)
        device.ask("startSync")
        for part in range(5):
            pair.here.attach(f"file {part}, here", binary=BINARY)
            pair.there.attach(f"file {part}, there", binary=BINARY)
            pair.here.bulk(notes(f"here {part}", 60))
            pair.there.bulk(notes(f"there {part}", 60))
            time.sleep(moments.uniform(0.1, 0.8))
            refused = proxy.refused
            with proxy.down():
                pair.here.bulk(notes(f"here, offline {part}", 10))
                pair.there.bulk(notes(f"there, offline {part}", 10))
                pair.here.edit("here 0-000", edited=part)
                # All that is on its way has to fail: when a feed fails and the batch that came before it goes
                # through, PouchDB 9 skips what lies between, whatever the server.
                wait_until(lambda refused=refused: proxy.refused >= refused + 4)
        pair.assert_become_identical()
        assert proxy.lost >= 5
        device.ask("stopSync")


def test_a_server_killed_in_mid_sync_loses_nothing_it_acknowledged(device: Device, site: Site) -> None:
    acknowledged: dict[str, list[str]] = {}
    # Slow enough for the kill to come in the middle.
    with Proxy(site.port, delay_s=0.03).running() as proxy:
        pair = Pair(device, site, proxy.port, platformFetch=True)
        device.ask("startSync")
        for part in range(3):
            pair.here.bulk(notes(f"here {part}", 150))
            pair.there.attach(f"file {part}", binary=("application/octet-stream", BINARY[1][:200_000]))
            for row in pair.there.bulk(notes(f"there {part}", 150)):
                acknowledged[row["id"]] = [row["rev"]]
            before = device.ask("seen")
            wait_until(lambda before=before: device.ask("seen") != before)
            site.kill()
            seen = device.ask("seen")
            assert seen["pushed"] + seen["pulled"] < 2 * 150 * (part + 1), "too late to interrupt"
            pair.here.bulk(notes(f"offline {part}", 20))
            pair.here.edit("here 0-000", edited=part)
            site.start_again()
        pair.assert_become_identical()
        assert pair.there.missing(acknowledged) == {}
        device.ask("stopSync")
