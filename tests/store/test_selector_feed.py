"""A selector feed that an index serves shows what a scan shows, whatever has become of the documents."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from couchlite import Database, Rev, Server, document
from couchlite.changes_docs import DocOptions
from couchlite.changes_feed import ChangesFeed, FeedOptions
from couchlite.changes_filters import DocIds, SelectorFilter
from couchlite.changes_selector import SelectorIndexes
from couchlite.index import IndexFunctions, designs
from couchlite.javascript import FunctionThread
from couchlite.mango import normalize
from couchlite.mango.indexes import with_index

from .helpers import graft

VALUES: list[Any] = [
    None,
    True,
    0,
    1,
    2,
    2.5,
    1 << 70,
    "",
    "a",
    "ab",
    "B",
    "é",
    "\u0e40",
    [],
    [1, 2],
    {"c": 1},
]
INDEXES: list[tuple[str, ...]] = [("a",), ("b", "a"), ("d.e",), ("_id", "a")]
IDS = [f"{letter}{number}" for letter in "xyz" for number in range(50)] + ["_design/q", "_design/r"]

values = st.sampled_from(VALUES)
conditions = st.one_of(
    st.dictionaries(
        st.sampled_from(["$eq", "$gt", "$gte", "$lt", "$lte", "$ne"]), values, min_size=1, max_size=2
    ),
    st.fixed_dictionaries({"$in": st.lists(values, max_size=2)}),
    st.fixed_dictionaries({"$exists": st.booleans()}),
    st.fixed_dictionaries({"$beginsWith": st.sampled_from(["", "a", "é", "\u0e40"])}),
    st.fixed_dictionaries({"$not": st.fixed_dictionaries({"$gt": values})}),
    st.fixed_dictionaries({"$elemMatch": st.fixed_dictionaries({"$gt": values})}),
    values,
)
fields = st.sampled_from(["a", "b", "d.e", "_id", "_deleted"])
selectors = st.recursive(
    st.dictionaries(fields, conditions, max_size=3),
    lambda inner: st.one_of(
        st.fixed_dictionaries({"$and": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"$or": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"$nor": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"a": conditions, "$or": st.lists(inner, max_size=2)}),
        st.fixed_dictionaries({"a": conditions, "$not": inner}),
    ),
    max_leaves=3,
)


def _body(numbers: random.Random) -> dict[str, Any]:
    body = {name: numbers.choice(VALUES) for name in "ab" if numbers.random() < 0.7}
    return body | {"d": {"e": numbers.choice(VALUES)}} if numbers.random() < 0.4 else body


def _change(database: Database, numbers: random.Random) -> None:
    """Anything that can happen to a document."""
    doc_id = numbers.choice(IDS)
    with database.snapshot() as snapshot:
        found = snapshot.document(doc_id)
    leaves = [] if found is None else [leaf for leaf in found.leaves() if not leaf.info.deleted]
    fate = numbers.random()
    if fate < 0.1:
        revs = [f"2-{numbers.randrange(16**6):032x}", f"1-{numbers.randrange(3):032x}"]
        graft(database, doc_id, revs, **_body(numbers), _deleted=numbers.random() < 0.3)
    elif fate < 0.15 and found is not None:
        database.purge({doc_id: [numbers.choice(found.leaves()).rev]}).result()
    else:
        body = _body(numbers)
        if leaves:
            body["_rev"] = str(numbers.choice(leaves).rev)
            body["_deleted"] = numbers.random() < 0.4
            if body["_deleted"] and numbers.random() < 0.5:
                body = {"_rev": body["_rev"], "_deleted": True}
        database.update([document.parse({"_id": doc_id, **body})])


@pytest.fixture(scope="module")
def functions() -> Iterator[IndexFunctions]:
    with FunctionThread() as thread:
        yield IndexFunctions(thread.pool, thread.loop)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, functions: IndexFunctions) -> Iterator[Database]:
    """A database with every kind of document, and indexes that have seen most of its changes."""
    path: Path = tmp_path_factory.mktemp("selector feed")
    numbers = random.Random(11)
    with Server(path) as server:
        database = server.create("db")
        for at, columns in enumerate(INDEXES):
            ddoc = with_index({"_id": f"_design/i{at}", "language": "query"}, "n", {"fields": list(columns)})
            database.put(ddoc)
        for at in range(500):
            _change(database, numbers)
            if at % 90 == 50:
                for definition in designs.mango_indexes(database)[0].values():
                    database.indexes.get(definition).build(database, functions).result()
        yield database


async def _rows(feed: ChangesFeed) -> Any:
    rows = []
    while (page := await feed.read()) is not None:
        for at, (seq, doc_id) in enumerate(zip(page.columns.seqs, page.columns.ids, strict=True)):
            text = page.texts[at] if page.texts is not None else None
            rows.append((seq, doc_id, page.leaves.get(at), text))
    return rows, feed.last_seq, feed.pending()


def _served(selector: Any, functions: IndexFunctions) -> SelectorFilter:
    """One that asks the indexes, however few changes there are."""
    wanted = SelectorFilter(selector)
    wanted.indexes = SelectorIndexes(normalize(selector), functions.pool, scanned_max=0, share_max=100)
    return wanted


@given(
    selector=selectors,
    since=st.sampled_from([0, 0, 40, 200]),
    limit=st.sampled_from([None, None, 0, 1, 3]),
    descending=st.booleans(),
    all_leaves=st.booleans(),
    include_docs=st.booleans(),
)
@settings(max_examples=400)
async def test_an_index_shows_what_a_scan_shows(
    served: Database,
    functions: IndexFunctions,
    selector: Any,
    since: int,
    limit: int | None,
    descending: bool,
    all_leaves: bool,
    include_docs: bool,
) -> None:
    expected, found = [
        await _rows(
            ChangesFeed(
                served,
                since,
                FeedOptions(
                    descending=descending,
                    limit=limit,
                    all_leaves=all_leaves,
                    include_docs=include_docs,
                    docs=DocOptions(conflicts=True),
                    filter=wanted,
                ),
            )
        )
        for wanted in (SelectorFilter(selector), _served(selector, functions))
    ]
    assert found == expected


@pytest.mark.parametrize(
    ("selector", "is_served"),
    [
        ({"a": 1}, True),
        ({"a": {"$gt": 1}, "b": 2}, True),
        ({"$or": [{"a": 1}, {"a": "a"}]}, True),
        ({"$or": [{"a": 1}, {"b": "a"}]}, False),
        ({"d.e": {"$gte": "a", "$lt": "b"}}, True),
        ({"a": {"$exists": False}}, False),
        ({"_id": "x1"}, False),
        ({"_id": {"$gt": None}, "a": 2}, True),
        ({"a": {"$beginsWith": "a"}}, True),
        ({"a": {"$beginsWith": "é"}}, False),
        ({"$and": []}, False),
        ({"a": 1, "$or": []}, False),
        ({"_deleted": True}, False),
        ({}, False),
    ],
)
async def test_which_selectors_an_index_serves(
    served: Database, functions: IndexFunctions, selector: Any, is_served: bool
) -> None:
    indexes = SelectorIndexes(normalize(selector), functions.pool, scanned_max=0, share_max=100)
    found = await indexes.find(served, 0, served.state().update_seq)
    assert (found is not None) is is_served


async def test_what_is_found_is_bounded_by_what_matches(
    database: Database, functions: IndexFunctions
) -> None:
    database.put(with_index({"_id": "_design/i", "language": "query"}, "n", {"fields": ["kind"]}))
    kinds = ["rare" if at % 500 == 7 else "usual" for at in range(3000)]
    database.update([document.parse({"_id": f"{at:05}", "kind": kind}) for at, kind in enumerate(kinds)])
    [definition] = designs.mango_indexes(database)[0].values()
    database.indexes.get(definition).build(database, functions).result()
    wanted = SelectorFilter({"kind": "rare"}, functions=functions.pool)
    assert wanted.indexes is not None
    found = await wanted.indexes.find(database, 0, database.state().update_seq)
    assert found is not None and len(found) == 6
    feed = ChangesFeed(database, 0, FeedOptions(filter=wanted))
    page = await feed.read()
    assert page is not None and len(page.columns.seqs) == 6
    assert await feed.read() is None and feed.last_seq == database.state().update_seq
    database.put({"_id": "new", "kind": "rare"})
    page = await feed.read()
    assert page is not None and page.columns.ids == [b"new"]


async def test_an_index_that_was_never_built_is_not_waited_for(
    database: Database, functions: IndexFunctions
) -> None:
    database.put(with_index({"_id": "_design/i", "language": "query"}, "n", {"fields": ["kind"]}))
    database.update([document.parse({"_id": f"{at:05}", "kind": at % 100}) for at in range(2500)])
    indexes = SelectorIndexes(normalize({"kind": 7}), functions.pool)
    until = database.state().update_seq
    assert await indexes.find(database, 0, until) is None
    [definition] = designs.mango_indexes(database)[0].values()
    database.indexes.get(definition).build(database, functions).result()  # the run that this has begun
    found = await indexes.find(database, 0, until)
    assert found is not None and len(found) == 25


async def test_thousands_of_ids_are_looked_up_in_steps(database: Database) -> None:
    database.update([document.parse({"_id": f"{at:05}"}) for at in range(5000)])
    database.put({"_id": "00003", "_rev": str(Rev.parse(database.get("00003")["_rev"]))})
    wanted = DocIds([f"{at:05}" for at in range(0, 5000, 2)] + ["00003", "none", "\ud800"], 100)
    feed = ChangesFeed(database, 0, FeedOptions(filter=wanted, limit=2501))
    found = []
    while (page := await feed.read()) is not None:
        found += page.columns.ids
    assert found == [b"%05d" % at for at in range(0, 5000, 2)] + [b"00003"]
