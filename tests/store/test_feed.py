"""Waiting for news, counting what comes after a sequence, and reading the changes in rounds and pages."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from couchlite import Database, Server, changes, seq_counts
from couchlite.changes_docs import DocOptions
from couchlite.changes_feed import ChangesFeed, FeedOptions, Page
from couchlite.changes_filters import DesignDocs, DocIds, SelectorFilter
from couchlite.errors import BadRequest
from couchlite.feed import Feed
from couchlite.jsontext import loads
from couchlite.revision import Rev

from .helpers import attachment, graft

TAG = "0123456789ab"


# --- waiting ----------------------------------------------------------------------------------------------


async def test_who_is_behind_does_not_wait() -> None:
    feed = Feed()
    feed.moved(5)
    assert await feed.wait_past(4, 0.01)
    assert not await feed.wait_past(5, 0.01)


async def test_a_move_wakes_all_who_wait() -> None:
    feed = Feed()
    waiting = [asyncio.create_task(feed.wait_past(0, 10)) for _ in range(1000)]
    await asyncio.sleep(0)
    assert feed.has_waiters
    await asyncio.to_thread(feed.moved, 1)
    assert all(await asyncio.gather(*waiting))
    assert not feed.has_waiters


async def test_thousands_wake_in_turns_so_that_others_are_served_in_between() -> None:
    feed = Feed()
    woken: list[int] = []

    async def wait() -> None:
        await feed.wait_past(0)
        woken.append(1)

    waiting = [asyncio.create_task(wait()) for _ in range(5000)]
    await asyncio.sleep(0)
    feed.moved(1)
    while not woken:
        await asyncio.sleep(0)
    assert len(woken) < 500
    await asyncio.gather(*waiting)


async def test_all_are_woken_without_a_move_when_they_shall_look_again() -> None:
    feed = Feed()
    waiting = asyncio.create_task(feed.wait_past(0, 10))
    await asyncio.sleep(0)
    feed.wake_all()
    assert await waiting


async def test_who_gives_up_is_forgotten() -> None:
    feed = Feed()
    waiting = asyncio.create_task(feed.wait_past(0))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not feed.has_waiters


def test_a_loop_that_was_closed_meanwhile_harms_nobody() -> None:
    feed = Feed()
    loop = asyncio.new_event_loop()
    waiting = loop.create_task(feed.wait_past(0))
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    feed.moved(1)
    assert feed.seq == 1
    assert not waiting.done()


async def test_a_write_in_another_process_is_heard_of_within_a_second(store: Server, tmp_path: Path) -> None:
    database = store.create("shared")
    script = (
        "import sys, time; from couchlite import Server\n"
        "with Server(sys.argv[1]) as server:\n"
        "    database = server.open('shared')\n"
        "    for number in range(3):\n"
        "        print(time.time(), flush=True); database.put({'_id': str(number)}); sys.stdin.readline()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(store.path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            assert await database.feed.wait_past(number, 20)
            assert time.time() - float(process.stdout.readline()) < 1
            assert database.state().update_seq == number + 1
            process.stdin.write("\n")
            process.stdin.flush()


# --- sequences --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "number"),
    [
        pytest.param("0", 0, id="from the start"),
        pytest.param(f"7-{TAG}", 7, id="one of this database"),
        pytest.param(f'"7-{TAG}"', 7, id="in quotes, as some clients send it"),
        pytest.param("7-ba9876543210", 0, id="one of another database means from the start"),
        pytest.param("7-g1AAAABPeJzLYWBgYMxgTmEQTM4vTc5ISXIwNDLXMwBCwxygFFMiQx4Lw38gyMpg", 0, id="CouchDB's"),
        pytest.param(
            "g1AAAABPeJzLYWBgYMxgTmEQTM4vTc5ISXIwNDLXMwBCwxygFFMiQx4Lw38gyMpg", 0, id="without number"
        ),
    ],
)
def test_sequences(text: str, number: int) -> None:
    assert changes.parse_seq(text, TAG) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "5",
        "-1",
        "abc",
        "now ",
        "99999",
        "1-notbase64",
        "0-0",
        TAG,
        f"-{TAG}",
        f"7-{TAG}x",
        "1-é",
        f"{10**30}-{TAG}",
    ],
)
def test_what_is_no_sequence_is_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="Malformed sequence supplied in 'since' parameter"):
        changes.parse_seq(text, TAG)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.lists(st.tuples(st.sampled_from(["put", "delete", "purge"]), st.integers(0, 9)), max_size=8),
        max_size=12,
    )
)
def test_the_counts_after_a_sequence_agree_with_the_index(
    store: Server, monkeypatch: pytest.MonkeyPatch, groups: list[list[tuple[str, int]]]
) -> None:
    monkeypatch.setattr(seq_counts, "SHIFTS", (2, 4))  # so that few rows fill buckets of all levels
    database = store.create("counted")
    try:
        for group in groups:
            for action, number in group:
                _apply(database, action, str(number))
        with database.snapshot() as snapshot:
            last = snapshot.state().update_seq
            for since in range(last + 2):
                assert snapshot.count_changes(since) == len(snapshot.changes(since, limit=last + 1))
            assert list(seq_counts.problems(snapshot.reader)) == []
    finally:
        store.delete("counted")


def _apply(database: Database, action: str, doc_id: str) -> None:
    with database.snapshot() as snapshot:
        row = snapshot.doc_row(doc_id)
    known = {} if row is None or row.flags & 1 else {"_rev": row.rev.decode()}
    if action == "put":
        database.put({"_id": doc_id, **known})
    elif action == "delete" and known:
        database.put({"_id": doc_id, "_deleted": True, **known})
    elif action == "purge" and row is not None:
        database.purge({doc_id: [Rev.parse(row.rev.decode())]}).result()


# --- reading ----------------------------------------------------------------------------------------------


async def read_round(feed: ChangesFeed) -> list[Page]:
    pages = []
    while (page := await feed.read()) is not None:
        pages.append(page)
    return pages


async def ids(feed: ChangesFeed) -> list[str]:
    return [doc_id.decode() for page in await read_round(feed) for doc_id in page.columns.ids]


def fill(database: Database, names: Sequence[str], **fields: Any) -> None:
    for name in names:
        database.put({"_id": name, **fields})


@pytest.fixture
def filled(database: Database) -> Database:
    """a b c d e, of which b was changed last and c deleted before: seqs 1 4 5, then c 6, b 7."""
    fill(database, "abcde", v=1)
    database.delete("c", database.get("c")["_rev"])
    database.put({"_id": "b", "_rev": database.get("b")["_rev"], "v": 2})
    return database


@pytest.mark.parametrize(
    ("since", "options", "expected", "last_seq", "pending"),
    [
        pytest.param(0, FeedOptions(), "adecb", 7, 0, id="all"),
        pytest.param(4, FeedOptions(), "ecb", 7, 0, id="since a sequence"),
        pytest.param(7, FeedOptions(), "", 7, 0, id="nothing new"),
        pytest.param(0, FeedOptions(limit=2), "ad", 4, 3, id="limit"),
        pytest.param(0, FeedOptions(limit=0), "", 0, 5, id="limit 0"),
        pytest.param(0, FeedOptions(limit=5), "adecb", 7, 0, id="limit reached with the last row"),
        pytest.param(5, FeedOptions(descending=True), "bceda", 1, 0, id="descending ignores since"),
        pytest.param(0, FeedOptions(descending=True, limit=2), "bc", 6, 3, id="descending with a limit"),
        pytest.param(0, FeedOptions(descending=True, limit=0), "", 7, 5, id="descending, limit 0"),
        pytest.param(0, FeedOptions(filter=DocIds("bxa", 1000)), "ab", 7, 3, id="two ids of those there"),
        pytest.param(4, FeedOptions(filter=DocIds("bxa", 1000)), "b", 7, 2, id="ids since a sequence"),
        pytest.param(0, FeedOptions(filter=DocIds("cde", 1000), limit=1), "d", 4, 4, id="ids and a limit"),
        pytest.param(0, FeedOptions(filter=DocIds("cde", 2)), "dec", 7, 0, id="more ids than are looked up"),
        pytest.param(
            0,
            FeedOptions(filter=DocIds("cde", 2), limit=1),
            "d",
            4,
            3,
            id="many ids and a limit count as a scan",
        ),
        pytest.param(
            0, FeedOptions(filter=DocIds("ab", 1000), descending=True), "ba", 1, 3, id="ids, descending"
        ),
        pytest.param(0, FeedOptions(filter=DocIds("", 1000)), "", 7, 5, id="no ids"),
        pytest.param(0, FeedOptions(filter=DesignDocs()), "", 7, 5, id="no design documents"),
        pytest.param(0, FeedOptions(filter=SelectorFilter({"v": 1})), "ade", 7, 0, id="selector"),
        pytest.param(
            0, FeedOptions(filter=SelectorFilter({"v": 1}), limit=2), "ad", 4, 3, id="selector and a limit"
        ),
        pytest.param(
            0,
            FeedOptions(filter=SelectorFilter({"v": 1}), descending=True, limit=1),
            "e",
            5,
            2,
            id="selector, descending, limit",
        ),
        pytest.param(
            0,
            FeedOptions(filter=SelectorFilter({"_deleted": True})),
            "c",
            7,
            0,
            id="deletions can be selected",
        ),
    ],
)
async def test_what_a_feed_shows(
    filled: Database, since: int, options: FeedOptions, expected: str, last_seq: int, pending: int
) -> None:
    feed = ChangesFeed(filled, since, options)
    assert await ids(feed) == list(expected)
    assert (feed.last_seq, feed.pending()) == (last_seq, pending)


async def test_later_rounds_show_what_is_new(filled: Database) -> None:
    feed = ChangesFeed(filled, 0, FeedOptions(limit=7))
    assert await ids(feed) == list("adecb")
    assert not await feed.wait(0.01)
    waiting = asyncio.create_task(feed.wait(10))
    await asyncio.sleep(0)
    fill(filled, "xy")
    assert await waiting
    assert await ids(feed) == ["x", "y"]
    assert feed.is_full
    assert (feed.last_seq, feed.pending()) == (9, 0)


async def test_a_purge_does_not_keep_a_feed_busy(filled: Database) -> None:
    feed = ChangesFeed(filled, 0, FeedOptions())
    await read_round(feed)
    filled.purge({"a": [Rev.parse(filled.get("a")["_rev"])]}).result()
    assert await feed.wait(1)
    assert await ids(feed) == []
    assert not await feed.wait(0.01)


async def test_ids_that_are_waited_for_are_found_however_many_there_are(database: Database) -> None:
    fill(database, "abcdefgh")
    feed = ChangesFeed(database, 0, FeedOptions(filter=DocIds("hxz", 1000)))
    assert await ids(feed) == ["h"]
    fill(database, "x1234567")  # more than ids, so that the ids are looked up
    assert await ids(feed) == ["x"]
    assert feed.pending() == 7
    fill(database, "z")  # fewer, so that the rows are looked through
    assert await ids(feed) == ["z"]
    assert feed.pending() == 0


async def test_design_documents(database: Database) -> None:
    fill(database, ["a", "_design/x", "b", "_design/y"], views={})
    feed = ChangesFeed(database, 0, FeedOptions(filter=DesignDocs()))
    assert await ids(feed) == ["_design/x", "_design/y"]
    assert feed.pending() == 2
    database.delete("_design/x", database.get("_design/x")["_rev"])
    assert await ids(feed) == ["_design/x"]


async def test_few_ids_of_a_large_database_cost_what_they_cost(database: Database) -> None:
    """The page of a scan would hold a thousand rows; here each page holds hits only."""
    for start in range(0, 3000, 1000):
        database.update([_edit(f"{number:05}") for number in range(start, start + 1000)])
    feed = ChangesFeed(database, 0, FeedOptions(filter=DocIds(["00001", "02999"], 1000)))
    pages = await read_round(feed)
    assert [len(page.columns.seqs) for page in pages] == [2]
    assert feed.pending() == 2998


def _edit(doc_id: str, **fields: Any) -> Any:
    from couchlite import document

    return document.parse({"_id": doc_id, **fields})


async def test_pages_are_bounded_in_rows_and_bytes(database: Database) -> None:
    database.update([_edit(f"{number:05}", text="x" * 2000) for number in range(2500)])
    rows = await read_round(ChangesFeed(database, 0, FeedOptions()))
    assert [len(page.columns.seqs) for page in rows] == [1000, 1000, 500]
    with_docs = await read_round(ChangesFeed(database, 0, FeedOptions(include_docs=True)))
    assert sum(len(page.columns.seqs) for page in with_docs) == 2500
    sizes = [sum(map(len, page.texts or ())) for page in with_docs]
    assert max(sizes) < changes_page_bytes() + 3000
    selected = FeedOptions(include_docs=True, filter=SelectorFilter({"_id": {"$gt": "00001"}}), limit=2000)
    feed = ChangesFeed(database, 0, selected)
    assert (await ids(feed))[::1999] == ["00002", "02001"]
    assert (feed.last_seq, feed.pending()) == (2002, 498)


def changes_page_bytes() -> int:
    from couchlite import doc_texts

    return doc_texts.PAGE_BYTES


async def test_who_waited_at_one_place_shares_the_page_and_who_comes_does_not(database: Database) -> None:
    fill(database, "a")
    feeds = [ChangesFeed(database, 1, FeedOptions(limit=10)) for _ in range(3)]
    others = [
        ChangesFeed(database, 1, FeedOptions(include_docs=True)),
        ChangesFeed(database, 0, FeedOptions()),
    ]
    waiting = [asyncio.create_task(feed.wait(10)) for feed in [*feeds, *others]]
    await asyncio.sleep(0)
    fill(database, "b")
    await asyncio.gather(*waiting)
    pages = [await read_round(feed) for feed in feeds]
    assert all(page[0] is pages[0][0] for page in pages)
    assert pages[0][0].rendered == {}
    assert (await read_round(others[0]))[0].texts is not None
    assert await ids(others[1]) == ["a", "b"]
    newcomer = await read_round(ChangesFeed(database, 1, FeedOptions(limit=10)))
    assert newcomer[0].rendered is None
    assert [feed.pending() for feed in feeds] == [0, 0, 0]


async def test_a_shared_page_that_passes_the_limit_is_not_taken(database: Database) -> None:
    feeds = [ChangesFeed(database, 0, FeedOptions(limit=3)) for _ in range(2)]
    await read_round(feeds[1])
    fill(database, "ab")
    assert await ids(feeds[1]) == ["a", "b"]
    waiting = [asyncio.create_task(feed.wait(10)) for feed in feeds]
    await read_round(feeds[0])
    await asyncio.sleep(0)
    fill(database, "cd")
    await asyncio.gather(*waiting)
    assert await ids(feeds[0]) == ["c"]
    assert await ids(feeds[1]) == ["c"]


# --- leaves and documents ---------------------------------------------------------------------------------


@pytest.fixture
def branched(database: Database) -> Database:
    """A document with two live leaves and a deleted one, and one with a deleted winner."""
    graft(database, "x", ["1-aa"], v=1)
    graft(database, "x", ["1-bb"], v=2)
    graft(database, "x", ["2-cc", "1-dd"], _deleted=True)
    graft(database, "gone", ["2-ee", "1-ff"], _deleted=True, note="why")
    graft(database, "gone", ["1-gg", "0-hh"][:1], _deleted=True)
    return database


async def test_all_leaves_are_listed_the_winner_first(branched: Database) -> None:
    [page] = await read_round(ChangesFeed(branched, 0, FeedOptions(all_leaves=True)))
    assert page.columns.ids == [b"x", b"gone"]
    assert page.columns.revs == [b"1-bb", b"2-ee"]
    assert page.leaves == {0: [b"1-bb", b"1-aa", b"2-cc"], 1: [b"2-ee", b"1-gg"]}


async def test_documents_are_the_winners(branched: Database) -> None:
    branched.put({"_id": "empty"})
    branched.put({"_id": 'quo"ted', "_attachments": {"a": attachment(b"abc", "text/plain")}})
    [page] = await read_round(ChangesFeed(branched, 0, FeedOptions(include_docs=True)))
    assert page.texts is not None
    x, gone, empty, quoted = page.texts
    assert x == b'{"_id":"x","_rev":"1-bb","v":2}'
    assert gone == b'{"_id":"gone","_rev":"2-ee","note":"why","_deleted":true}'
    assert empty == b'{"_id":"empty","_rev":"1-967a00dff5e02add41819138abb3284d"}'
    assert quoted.startswith(b'{"_id":"quo\\"ted","_rev":"1-')
    assert b'"_attachments":{"a":{"content_type":"text/plain",' in quoted


async def test_conflicts_and_encodings_are_shown_when_asked_for(branched: Database) -> None:
    branched.put({"_id": "zip", "_attachments": {"a": attachment(b"abc" * 100, "text/plain")}})
    docs = DocOptions(conflicts=True, encoding_info=True)
    [page] = await read_round(ChangesFeed(branched, 0, FeedOptions(include_docs=True, docs=docs)))
    assert page.texts is not None
    assert page.texts[0] == b'{"_id":"x","_rev":"1-bb","v":2,"_conflicts":["1-aa"]}'
    assert b"_conflicts" not in page.texts[1]
    assert b'"encoding":"gzip"' in page.texts[2]


async def test_a_filter_is_asked_about_each_leaf_that_is_listed(branched: Database) -> None:
    options = FeedOptions(all_leaves=True, include_docs=True, filter=SelectorFilter({"v": 1}))
    [page] = await read_round(ChangesFeed(branched, 0, options))
    assert (page.columns.ids, page.leaves) == ([b"x"], {0: [b"1-aa"]})
    assert page.texts == [b'{"_id":"x","_rev":"1-bb","v":2}'], "the document shown is the winner"
    winners_only = ChangesFeed(branched, 0, FeedOptions(filter=SelectorFilter({"v": 1})))
    assert await ids(winners_only) == []


async def test_a_selector_shows_the_fields_it_names(branched: Database) -> None:
    branched.put({"_id": "deep", "a": {"b": [1, 2], "c": 3}, "v": 2})
    wanted = SelectorFilter({"v": 2}, ["_id", "a.b", "a.nothing"])
    [page] = await read_round(ChangesFeed(branched, 0, FeedOptions(include_docs=True, filter=wanted)))
    assert page.texts == [b'{"_id":"x"}', b'{"_id":"deep","a":{"b":[1,2]}}']


@pytest.mark.parametrize(
    ("selector", "fields", "reason"),
    [
        pytest.param(5, None, "Selector error: expected a JSON object", id="a number"),
        pytest.param({"$bad": 1}, None, r"Invalid operator: \$bad", id="an unknown operator"),
        pytest.param({}, 5, "Selector error: fields must be JSON array", id="fields that are no list"),
    ],
)
def test_what_is_no_selector_is_refused(selector: Any, fields: Any, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        SelectorFilter(selector, fields)
    assert caught.value.error == "bad_request"


def test_feeds_are_woken_while_databases_are_opened(tmp_path: Path) -> None:
    before = sys.getswitchinterval()
    with Server(tmp_path) as server:
        opening = threading.Thread(target=lambda: [server.create(f"db{number}") for number in range(60)])
        try:
            sys.setswitchinterval(1e-6)
            opening.start()
            while opening.is_alive():
                server.wake_feeds()
        finally:
            sys.setswitchinterval(before)
            opening.join()
        assert len(server.names()) == 60


# --- filters that answer elsewhere


class Slow:
    """Lets every third number pass, some turns after it was asked; fails when it sees `fails_at`."""

    needs_revisions = True

    def __init__(self, *, is_asked_elsewhere: bool, fails_at: int | None = None) -> None:
        self.is_asked_elsewhere = is_asked_elsewhere
        self._fails_at = fails_at
        self.under_way = 0
        self.most_under_way = 0

    async def passes(self, documents: Sequence[bytes]) -> Sequence[bool]:
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            for _turn in range(20):  # longer than it takes to be asked about the next page
                await asyncio.sleep(0)
            numbers = [int(loads(text)["_id"]) for text in documents]
            if self._fails_at in numbers:
                raise BadRequest("no good")
            return [number % 3 == 0 for number in numbers]
        finally:
            self.under_way -= 1

    def shown(self, document: bytes) -> bytes:
        return document


@pytest.fixture(scope="module")
def numbered(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    with Server(tmp_path_factory.mktemp("numbered")) as server:
        database = server.create("db")
        database.update([_edit(f"{number:05}") for number in range(3100)])
        yield database


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("since", [0, 1700])
@pytest.mark.parametrize("limit", [None, 0, 1, 200, 1001, 5000])
async def test_pages_that_are_asked_about_together_are_shown_in_order(
    numbered: Database, limit: int | None, since: int, descending: bool
) -> None:
    expected, found = [], []
    for seen, is_asked_elsewhere in ((expected, False), (found, True)):
        wanted = Slow(is_asked_elsewhere=is_asked_elsewhere)
        options = FeedOptions(descending=descending, limit=limit, filter=wanted, include_docs=True)
        feed = ChangesFeed(numbered, since, options)
        seen.append([(page.columns.ids, page.texts) for page in await read_round(feed) if page.columns.ids])
        seen.append((feed.last_seq, feed.pending(), feed.shown))
        assert wanted.most_under_way == (2 if is_asked_elsewhere and limit in (None, 1001, 5000) else 1)
    assert found == expected


async def test_a_filter_that_fails_ends_the_feed_where_it_fails(numbered: Database) -> None:
    wanted = Slow(is_asked_elsewhere=True, fails_at=1600)
    feed = ChangesFeed(numbered, 0, FeedOptions(filter=wanted))
    shown: list[bytes] = []
    with pytest.raises(BadRequest, match="no good"):
        while (page := await feed.read()) is not None:
            shown += page.columns.ids
    assert shown == [b"%05d" % number for number in range(0, 1500, 3)]
    while wanted.under_way:
        await asyncio.sleep(0)


async def test_who_leaves_a_feed_leaves_nothing_under_way(numbered: Database) -> None:
    wanted = Slow(is_asked_elsewhere=True)
    feed = ChangesFeed(numbered, 0, FeedOptions(filter=wanted))
    reading = asyncio.create_task(feed.read())
    while wanted.under_way < 2:
        await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    while wanted.under_way:
        await asyncio.sleep(0)
