"""Databases and indexes are compacted, and stale indexes removed, without anybody asking."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator

import pytest

from couchlite import Database, Server
from couchlite.auto_compaction import AutoCompaction, Channel, Usage, channels, usage_of
from couchlite.document import parse
from couchlite.index import DesignViews, IndexFunctions
from couchlite.javascript import FunctionThread, Limits
from tests.waiting import until

MAP = "function (doc) { if (doc.pad) emit(doc._id, doc.pad); }"
WAIT_S = 30.0


@contextlib.asynccontextmanager
async def running(server: Server) -> AsyncIterator[None]:
    auto = AutoCompaction(server, look_s=0.05)
    task = asyncio.create_task(auto.run())
    try:
        yield
    finally:
        auto.stop()
        await task


def _update_often(database: Database, times: int, count: int = 20) -> None:
    """Write documents of 40 kB, again and again."""
    for _ in range(times):
        known = set(database.ids())
        docs = [{"_id": f"doc{number}", "pad": os.urandom(20_000).hex()} for number in range(count)]
        for doc in docs:
            if doc["_id"] in known:
                doc["_rev"] = database.get(doc["_id"])["_rev"]
        database.update([parse(doc) for doc in docs])


async def test_a_database_with_much_unused_is_compacted(store: Server) -> None:
    used, new = store.create("used"), store.create("new")
    _update_often(used, 10)
    _update_often(new, 1)
    before, untouched = used.info().file_bytes, new.info().file_bytes
    async with running(store):
        await until(lambda: used.info().file_bytes < before / 3)
        assert new.info().file_bytes == untouched
        _update_often(new, 10)
        grown = new.info().file_bytes
        await until(lambda: new.info().file_bytes < grown / 3)


async def test_what_is_kept_on_purpose_is_not_compacted_again_and_again(store: Server) -> None:
    store.config.set("couchlite", "keep_revisions", "100")
    database = store.create("kept")
    _update_often(database, 10)
    auto = AutoCompaction(store)
    auto._care_for("kept")
    generation = sorted(os.listdir(database.path / "store.mdb"))
    left = dict(auto._left)
    assert left
    database.put({"_id": "one more"})
    auto._care_for("kept")
    assert sorted(os.listdir(database.path / "store.mdb")) == generation
    assert auto._left == left


async def test_nothing_happens_when_it_is_switched_off(store: Server) -> None:
    store.config.set("smoosh", "db_channels", "")
    database = store.create("used")
    _update_often(database, 5)
    before = database.info().file_bytes
    AutoCompaction(store)._care_for("used")
    assert database.info().file_bytes == before
    store.config.delete("smoosh", "db_channels")
    AutoCompaction(store)._care_for("used")
    assert database.info().file_bytes < before


def test_indexes_are_made_smaller_or_removed(store: Server) -> None:
    database = store.create("views")
    _update_often(database, 1, 60)
    design = {"_id": "_design/d", "views": {"v": {"map": MAP}, "old": {"map": MAP + " "}}}
    rev = database.put(design)
    with FunctionThread(Limits(time_s=5.0, memory_bytes=64 << 20, answer_bytes=64 << 20)) as thread:
        functions = IndexFunctions(thread.pool, thread.loop)
        views = DesignViews("views", design)
        for name in ("v", "old"):
            database.indexes.get(views.find(name)).build(database, functions).result()
        for number in range(2, 60):
            doc_id = f"doc{number}"
            database.delete(doc_id, database.get(doc_id)["_rev"])
        index = database.indexes.get(views.find("v"))
        index.build(database, functions).result()
    database.put(design | {"_rev": rev, "views": {"v": {"map": MAP}}})
    before = index.engine.size_bytes()
    AutoCompaction(store)._care_for("views")
    assert index.engine.size_bytes() < before / 2
    assert os.listdir(database.path / "index") == [views.find("v").signature]


async def test_what_waits_for_its_hour_is_not_forgotten(store: Server) -> None:
    now = time.localtime()
    for key, hours in (("from", 2), ("to", 4)):
        store.config.set("smoosh.ratio_dbs", key, f"{(now.tm_hour + hours) % 24}:00")
    database = store.create("used")
    _update_often(database, 10)
    before = database.info().file_bytes
    auto = AutoCompaction(store)
    auto._care_for("used")
    assert database.info().file_bytes == before
    for key in ("from", "to"):
        store.config.delete("smoosh.ratio_dbs", key)
    await auto._look()
    assert database.info().file_bytes < before / 3


def test_usage_is_near_the_truth(store: Server) -> None:
    database = store.create("used")
    _update_often(database, 10)
    guessed = usage_of(database)
    database.compact().result()
    freed = guessed.size - usage_of(database).size
    assert freed * 0.8 < guessed.unused < freed * 1.2


NOON, NIGHT = (
    time.struct_time((2026, 1, 1, 12, 0, 0, 3, 1, 0)),
    time.struct_time((2026, 1, 1, 23, 30, 0, 3, 1, 0)),
)


@pytest.mark.parametrize(
    ("channel", "usage", "now", "takes"),
    [
        pytest.param(Channel("ratio", 2.0, 0, None, None), Usage(100, 50), NOON, True, id="half is unused"),
        pytest.param(Channel("ratio", 2.0, 0, None, None), Usage(100, 49), NOON, False, id="less is"),
        pytest.param(Channel("ratio", 2.0, 101, None, None), Usage(100, 90), NOON, False, id="too small"),
        pytest.param(Channel("slack", 60, 0, None, None), Usage(100, 60), NOON, True, id="enough unused"),
        pytest.param(
            Channel("slack", 60, 0, None, None), Usage(100, 59), NOON, False, id="too little unused"
        ),
        pytest.param(Channel("slack", 1, 0, 22 * 60, 5 * 60), Usage(9, 9), NOON, False, id="by night only"),
        pytest.param(Channel("slack", 1, 0, 22 * 60, 5 * 60), Usage(9, 9), NIGHT, True, id="in that night"),
        pytest.param(Channel("slack", 1, 0, 8 * 60, 18 * 60), Usage(9, 9), NIGHT, False, id="by day only"),
    ],
)
def test_what_a_channel_takes(channel: Channel, usage: Usage, now: time.struct_time, takes: bool) -> None:
    assert (channel.wants(usage) and channel.is_open(now)) == takes


def test_channels_are_configured_as_in_couchdb(store: Server) -> None:
    config = store.config
    config.set("smoosh", "db_channels", "ratio_dbs, mine, nonsense")
    config.set("smoosh.mine", "priority", "slack")
    config.set("smoosh.mine", "min_priority", "1000")
    config.set("smoosh.mine", "from", "22:30")
    config.set("smoosh.mine", "to", "5:00")
    assert channels(config, "db_channels") == [
        Channel("ratio", 2.0, 1 << 20, None, None),
        Channel("slack", 1000.0, 1 << 20, 22 * 60 + 30, 5 * 60),
    ]
