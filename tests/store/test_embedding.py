"""The embedded API: the guide's examples run, and asyncio's way in."""

import asyncio
import re
from pathlib import Path

import pytest

from couchlite import AsyncDatabase, Conflict, Database, Leaf, NotFound, Rev, Server

from .helpers import attachment, graft

GUIDE = Path(__file__).parents[2] / "docs" / "embedding.md"
EXAMPLES = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_an_example_of_the_guide_runs(example: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(GUIDE), "exec"), {"__name__": "example"})


async def test_concurrent_tasks_write_and_a_conflict_is_raised_to_its_own_task(database: Database) -> None:
    notes = AsyncDatabase(database)
    outcomes = await asyncio.gather(
        *(notes.put({"_id": "same", "n": n}) for n in range(5)), return_exceptions=True
    )
    assert sum(isinstance(outcome, Conflict) for outcome in outcomes) == 4


async def test_a_feed_gives_what_is_there_and_then_what_comes(database: Database) -> None:
    notes = AsyncDatabase(database)
    await notes.put({"_id": "a"})
    feed = notes.changes()
    assert (await anext(feed))["id"] == "a"
    waiting = asyncio.ensure_future(anext(feed))
    await asyncio.sleep(0.05)
    assert not waiting.done()
    rev = await notes.put({"_id": "b", "_attachments": {"x": attachment(b"data")}})
    assert (await waiting)["changes"] == [{"rev": rev}]
    await notes.delete("b", rev)
    assert (await anext(feed))["deleted"]
    await feed.aclose()


async def test_a_feed_ends_when_its_database_is_deleted(store: Server, database: Database) -> None:
    feed = AsyncDatabase(database).changes()
    waiting = asyncio.ensure_future(anext(feed, None))
    await asyncio.sleep(0.05)
    await asyncio.to_thread(store.delete, "notes")
    assert await asyncio.wait_for(waiting, 5) is None


async def test_a_conflict_is_merged_resolved_and_undone(database: Database) -> None:
    notes = AsyncDatabase(database)
    start = await notes.put({"_id": "a", "here": 0, "there": 0})
    here = await notes.put({"_id": "a", "_rev": start, "here": 1, "there": 0})
    there = "2-" + "f" * 32
    graft(database, "a", [there, start], here=0, there=1)
    merged = await notes.merge("a")
    assert merged.document == {"here": 1, "there": 1}
    done = await notes.resolve("a", [here, there], merged.document, by="jan")
    assert (notes.get("a")["_rev"], list(database.conflicts())) == (str(done.into), [])
    await notes.undo(done.number)
    assert [row.id for row in database.conflicts()] == ["a"]


async def test_purging_tells_what_was_removed(database: Database) -> None:
    notes = AsyncDatabase(database)
    rev = Rev.parse(await notes.put({"_id": "a"}))
    assert await notes.purge({"a": [rev]}) == {"a": [rev]}
    with pytest.raises(NotFound):
        notes.get("a")


def test_a_page_of_ids_follows_the_other(database: Database) -> None:
    for n in range(30):
        database.put({"_id": f"{n:02d}"})
    assert list(database.ids("05", "20")) == [f"{n:02d}" for n in range(5, 20)]


def test_attachments_are_read_whole_and_decoded(database: Database) -> None:
    text = b"line of text\n" * 4000
    database.put({"_id": "a", "_attachments": {"t": attachment(text, "text/plain")}})
    assert database.attachment("a", "t") == text
    with pytest.raises(NotFound):
        database.attachment("a", "other")


def test_leaves_tell_of_a_conflict(database: Database) -> None:
    rev = database.put({"_id": "a", "n": 1})
    graft(database, "a", ["1-" + "f" * 32], n=2)
    assert database.leaves("a") == [Leaf("1-" + "f" * 32, False), Leaf(rev, False)]
    assert database.get("a", rev)["n"] == 1
