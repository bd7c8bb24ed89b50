"""Conflicts of real clients: the example of docs/conflicts-tutorial.md, step by step; and the command on
express-pouchdb, a server that knows nothing of couchlite."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from couchlite import Server

from ..shell.conflicts import (
    BASE,
    CLASHING,
    CLEAN,
    LOSER,
    ORIGIN,
    OURS,
    THEIRS,
    WINNER,
    conflicts_on,
    on_terminal,
    without_colour,
)
from .device import Device, DeviceDatabase
from .express import ExpressSite, express_site
from .site import PASSWORD, USER, RemoteDatabase, Site

pytestmark = pytest.mark.slow

TUTORIAL = (Path(__file__).parents[2] / "docs" / "conflicts-tutorial.md").read_text()


class Client:
    """A device with its own database, which syncs when it is told to."""

    def __init__(self, device: Device, site: Site) -> None:
        self.device = device
        self.database = DeviceDatabase(device)
        remote = f"{site.url}/trips"
        device.ask("open", name="trips", remote=remote, username=USER, password=PASSWORD)

    def sync(self) -> None:
        self.device.ask("syncOnce")


@pytest.fixture
def laptop(clients: None, site: Site, tmp_path: Path) -> Iterator[Client]:
    site.ask("PUT", "/trips")
    (tmp_path / "laptop").mkdir()
    with Device("device_node.mjs", [tmp_path / "laptop"], tmp_path / "laptop.log") as device:
        yield Client(device, site)


@pytest.fixture
def phone(laptop: Client, site: Site, tmp_path: Path) -> Iterator[Client]:
    (tmp_path / "phone").mkdir()
    with Device("device_node.mjs", [tmp_path / "phone"], tmp_path / "phone.log") as device:
        yield Client(device, site)


def go_offline_and_edit(laptop: Client, phone: Client) -> None:
    lisbon = {
        "_id": "lisbon",
        "title": "Lisbon in May",
        "days": 4,
        "pack": ["passport", "camera"],
        "plan": "Fri: arrive\nSat: Alfama\nSun: Belém\nMon: leave\n",
    }
    laptop.database.put(lisbon)
    laptop.database.put({"_id": "oslo", "title": "Oslo", "pack": ["skis"], "booked": False})
    laptop.sync()
    phone.sync()
    # Both are offline from here on.
    laptop.database.edit(
        "lisbon",
        title="Lisbon and Sintra",
        pack=["passport", "camera", "hiking boots"],
        plan="Fri: arrive\nSat: Alfama\nSun: Sintra\nMon: leave\n",
    )
    phone.database.edit(
        "lisbon",
        title="Lisbon with Ana",
        days=5,
        pack=["tickets", "passport", "camera"],
        plan="Fri: arrive late\nSat: Alfama\nSun: Belém\nMon: leave\n",
    )
    laptop.database.edit("oslo", booked=True)
    phone.database.edit("oslo", pack=["skis", "wool socks"])
    for client in (phone, laptop, phone):
        client.sync()


def assert_recorded(screen: str) -> None:
    """The tutorial shows what is on the screen, but for what is another each time."""
    shown = _steady(TUTORIAL)
    missing = [line for line in _steady(screen) if line not in shown]
    assert not missing, (missing, screen)


def _steady(screen: str) -> list[str]:
    """The lines without what is another each time: ages, dates, padding; and a progress line that is gone."""
    kept = [without_colour(line.rpartition("\r\x1b[K")[2]) for line in screen.split("\n")]
    return [" ".join(_VARIES.sub("SOMETIME", line).split()) for line in kept]


_VARIES = re.compile(r"\b\d+ (?:s|minutes?)\b|\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b")


def test_the_tutorial(site: Site, laptop: Client, phone: Client, tmp_path: Path) -> None:
    go_offline_and_edit(laptop, phone)
    where = ["--url", f"http://{USER}:{PASSWORD}@127.0.0.1:{site.port}"]
    couchlite = conflicts_on(*where)

    listed = {row["id"]: row["leaves"] for row in couchlite("list", "trips", "--json").json}
    assert listed == {"lisbon": 2, "oslo": 2}
    assert_recorded(on_terminal("list", "trips", *where))
    assert_recorded(on_terminal("show", "trips", "lisbon", *where))

    resolve = ("resolve", "trips", *where, "--all", "--using", "three-way")
    assert_recorded(on_terminal(*resolve, "--dry-run"))
    assert_recorded(on_terminal(*resolve, "--yes"))
    answers = [("Which one?", "2"), ("Write this?", "y")]
    assert_recorded(on_terminal("merge", "trips", "lisbon", *where, answers=answers))
    assert_recorded(on_terminal("log", "trips", *where))
    assert_recorded(on_terminal("list", "trips", *where))
    assert couchlite("list", "trips").output == ""

    for client in (laptop, phone):
        client.sync()
    second = tmp_path / "second"
    Server(second).close()
    source = f"http://{USER}:{PASSWORD}@127.0.0.1:{site.port}/trips"
    command = ["replicate", source, f"{second}:trips", "--create-target"]
    subprocess.run([sys.executable, "-m", "cli.main", *command], check=True, capture_output=True, timeout=60)

    expected = {
        "lisbon": {
            "title": "Lisbon and Sintra",
            "days": 5,
            "pack": ["tickets", "passport", "camera", "hiking boots"],
            "plan": "Fri: arrive late\nSat: Alfama\nSun: Sintra\nMon: leave\n",
        },
        "oslo": {"title": "Oslo", "pack": ["skis", "wool socks"], "booked": True},
    }
    everywhere = conflicts_on("--data-dir", str(second))
    for doc_id, content in expected.items():
        title = content.pop("title")
        shown = everywhere("show", "trips", doc_id, "--json").json
        [leaf] = shown["leaves"]
        found = leaf["document"]
        assert found.pop("title") in (title, "Lisbon with Ana") and found == content
        for client in (laptop, phone):
            told = client.device.ask("leaves")[doc_id]
            assert told["winner"] == leaf["rev"]
            assert [rev for rev, one in told["leaves"].items() if not one["doc"].get("_deleted")] == [
                leaf["rev"]
            ]


# --- a server that is no couchlite


@pytest.fixture
def express(clients: None, tmp_path: Path) -> Iterator[ExpressSite]:
    with express_site(tmp_path / "express") as running:
        yield running


@pytest.fixture
def lists(express: ExpressSite) -> RemoteDatabase:
    database = RemoteDatabase(express, "lists")  # type: ignore[arg-type]
    database.bulk([*CLASHING, *CLEAN], new_edits=False)
    database.bulk([{"_id": f"other {number}"} for number in range(30)])
    return database


def rows(where: list[str]) -> list[Any]:
    listed = conflicts_on(*where)("list", "lists", "--json").json
    return [(row["id"], row["leaves"], row["rev"], row["since"]) for row in listed]


def test_another_server_s_conflicts(express: ExpressSite, lists: RemoteDatabase) -> None:
    where = ["--url", express.url]
    couchlite = conflicts_on(*where)
    assert rows(where) == [("clashing", 2, WINNER, None), ("clean", 2, WINNER, None)]
    assert len(conflicts_on()("list", f"{express.url}/lists", "--json").json) == 2
    shown = couchlite("show", "lists", "clashing", "--json").json
    assert [leaf["document"] for leaf in shown["leaves"]] == [OURS, THEIRS]
    assert shown["base"] == {"rev": ORIGIN, "document": BASE}
    assert couchlite("stats", "lists", "--json").json["lists"]["leaves"] == 4

    assert couchlite("merge", "lists", "clean").code == 0
    assert lists.get("clean")["items"] == ["wine", "milk", "bread", "eggs"]
    assert couchlite("pick", "lists", "clashing", LOSER).code == 0
    assert lists.get("clashing")["title"] == "Party"
    assert rows(where) == []
    revisions = lists.revisions()
    assert all(len(revisions[doc_id]) == 2 for doc_id in ("clean", "clashing"))


def test_another_server_s_conflicts_settled_by_resolvers(express: ExpressSite, lists: RemoteDatabase) -> None:
    merge = "function (base, leaves) { leaves[0].title = leaves[1].title + base.title; return leaves[0]; }"
    lists.put({"_id": "_design/app", "resolvers": {"merge": merge}})
    couchlite = conflicts_on("--url", express.url)
    dry = couchlite("resolve", "lists", "--all", "--using", "three-way", "--dry-run", "--json").json
    assert (dry["resolved"], dry["left"]) == (1, 1)
    assert len(rows(["--url", express.url])) == 2
    done = couchlite("resolve", "lists", "--all", "--using", "javascript", "--function", "app/merge")
    assert done.output == "2 conflicts resolved; 0 left alone\n", done
    assert lists.get("clashing")["title"] == "PartyList"


def test_attachments_of_a_losing_leaf_are_sent_again(express: ExpressSite) -> None:
    database = RemoteDatabase(express, "lists")  # type: ignore[arg-type]
    data = {"content_type": "text/plain", "data": "aGVsbG8="}
    base, winner, loser = (dict(doc) for doc in CLEAN)
    database.bulk([base, winner, {**loser, "_attachments": {"f": data}}], new_edits=False)
    assert conflicts_on("--url", express.url)("merge", "lists", "clean").code == 0
    assert express.request("GET", "/lists/clean/f").body == b"hello"
    assert express.request("GET", "/lists/clean/f").headers["Content-Type"].startswith("text/plain")


def test_what_another_server_can_not_tell(express: ExpressSite, lists: RemoteDatabase) -> None:
    express.ask("POST", "/lists/_compact", {})
    couchlite = conflicts_on("--url", express.url)
    shown = couchlite("show", "lists", "clashing")
    assert f"base not available: the server has compacted it, or never had it ({ORIGIN})" in shown.output
    for command, what in (
        (["undo", "lists", "clean"], "undo: this server keeps no record of resolutions"),
        (["log", "lists"], "log: this server keeps no record of resolutions"),
        (["resolvers", "get", "lists"], "this server has no settings of resolvers"),
        (["resolve", "lists", "--all"], "this server has no settings of resolvers: name one with --using"),
    ):
        done = couchlite(*command)
        assert (done.code, done.error) == (1, f"couchlite: {express.url}/lists: {what}\n")
    assert couchlite("show", "none", "x").code == 3
    assert couchlite("show", "lists", "none").code == 3
