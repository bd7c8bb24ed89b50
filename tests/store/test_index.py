"""Indexes in the store: an index that followed its database is the one that is built from scratch, and what
is read from it is what a naive model says."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Iterator
from functools import cmp_to_key
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from couchlite import Database, Rev, Server, document
from couchlite.collation import compare
from couchlite.errors import InternalError
from couchlite.index import (
    DesignViews,
    Index,
    IndexDefinition,
    IndexFunctions,
    distinct,
    levels,
    query,
    reducers,
    store,
)
from couchlite.index.layout import IndexSpace, encode_row
from couchlite.index.query import Bound, Groups, Range, Rows
from couchlite.javascript import FunctionThread, Limits
from couchlite.jsontext import dumps, loads

from .helpers import graft

EMIT_KEYS = "function (doc) { for (const key of doc.keys || []) emit(key, doc.n); }"
JOIN = "function (keys, values, rereduce) { return sum(values) }"
IDS = st.sampled_from(["p:a", "p:b", "q:c", "p:" + "ü" * 260, "q\0:d\0", "q:d"])
KEYS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 40),
    st.sampled_from(["a", "A", "ä", "b", "x" * 600, "x" * 600 + "y", "x" * 300]),
    st.lists(st.integers(0, 3), max_size=3),
    st.fixed_dictionaries({"k": st.integers(0, 2)}),
)


@pytest.fixture(scope="module")
def functions() -> Iterator[IndexFunctions]:
    with FunctionThread(Limits(time_s=1.0, memory_bytes=64 << 20, answer_bytes=8 << 20)) as thread:
        yield IndexFunctions(thread.pool, thread.loop)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    with Server(tmp_path / "data") as server:
        yield server.create("db")


def view(
    map: str = EMIT_KEYS, reduce: str | None = "_sum", *, partitioned: bool = False, **design: Any
) -> IndexDefinition:
    functions = {"map": map} if reduce is None else {"map": map, "reduce": reduce}
    ddoc = {"_id": "_design/d", "views": {"v": functions}, **design}
    return DesignViews("db", ddoc, partitioned=partitioned).find("v")


def built(database: Database, definition: IndexDefinition, functions: IndexFunctions) -> Index:
    index = database.indexes.get(definition)
    index.build(database, functions).result()
    return index


def contents(index: Index) -> list[Any]:
    """Everything that must be the same in two indexes of the same database."""
    with index.read() as reader:
        state = store.state_of(reader)
        rows = list(store.rows_in(reader))
        nodes = [
            (level, key, record)
            for level in range(1, levels.LEVELS_MAX + 1)
            for key, record in levels.nodes(reader, level)
        ]
        return [(state.seq, state.rows, state.docs, state.row_bytes), rows, nodes]


def rebuilt(index: Index, functions: IndexFunctions) -> list[Any]:
    """The same with all nodes made anew."""
    reductions = functions.reductions(index.definition, lambda: False)
    index.engine.write(lambda batch: levels.rebuild(batch, reductions))
    return contents(index)


class FollowingIndex(RuleBasedStateMachine):
    """A database with any history, and an index that is brought up to date now and then."""

    partitioned = False

    @initialize()
    def open(self) -> None:
        self.path = Path(tempfile.mkdtemp())
        self.server = Server(self.path / "data")
        self.database = self.server.create("db", partitioned=self.partitioned)
        self.thread = FunctionThread()
        self.functions = IndexFunctions(self.thread.pool, self.thread.loop)
        self.definition = view(partitioned=self.partitioned)
        self.count = 0

    def write(self, doc_id: str, keys: list[Any], deleted: bool = False) -> None:
        self.count += 1
        doc = {"_id": doc_id, "keys": keys, "n": self.count, "_deleted": deleted}
        with self.database.snapshot() as snapshot:
            found = snapshot.document(doc_id)
        winner = found.leaves()[0] if found else None
        if winner is not None and not winner.info.deleted:
            doc["_rev"] = str(winner.rev)
        elif deleted:
            return
        self.database.put(doc)

    @rule(doc_id=IDS, keys=st.lists(KEYS, max_size=12))
    def edit(self, doc_id: str, keys: list[Any]) -> None:
        self.write(doc_id, keys)

    @rule(doc_id=IDS)
    def delete(self, doc_id: str) -> None:
        self.write(doc_id, [], deleted=True)

    @rule(seed=st.integers(0, 9), count=st.integers(1, 60))
    def edit_many(self, seed: int, count: int) -> None:
        numbers = random.Random(seed)
        for at in range(count):
            keys = [[numbers.randrange(9), numbers.randrange(99)] for _ in range(numbers.randrange(9))]
            self.write(f"m{at % 3}:{at}", keys)

    @rule(doc_id=IDS, digest=st.sampled_from(["a" * 32, "b" * 32]), keys=st.lists(KEYS, max_size=4))
    def add_a_conflict(self, doc_id: str, digest: str, keys: list[Any]) -> None:
        self.count += 1
        graft(self.database, doc_id, [f"1-{digest}"], keys=keys, n=self.count)

    @rule(doc_id=IDS)
    def purge_the_winner(self, doc_id: str) -> None:
        with self.database.snapshot() as snapshot:
            found = snapshot.document(doc_id)
            winner = found.leaves()[0].rev if found else Rev.parse(f"1-{'0' * 32}")
        self.database.purge({doc_id: [winner]}).result()

    @rule()
    def forget_purges(self) -> None:
        self.database.set_purged_infos_limit(1)

    @rule()
    def compact(self) -> None:
        self.database.compact().result()

    @rule()
    def reopen(self) -> None:
        self.server.close()
        del self.database
        self.server = Server(self.path / "data")
        self.database = self.server.open("db")

    @rule()
    def update(self) -> None:
        index = built(self.database, self.definition, self.functions)
        expected = [
            (doc["_id"], key, doc["n"])
            for doc in map(self.database.get, self.database.ids())
            for key in doc["keys"]
        ]
        assert state_of(index).seq == self.database.state().update_seq
        expected.sort(key=cmp_to_key(lambda one, other: compare(one[1], other[1]) or compare_ids(one, other)))
        if self.partitioned:
            expected.sort(key=lambda row: row[0].split(":")[0].encode())
        assert [(row["id"], row["key"], row["value"]) for row in shown(index)] == expected

    @rule()
    def build_from_scratch(self) -> None:
        index = built(self.database, self.definition, self.functions)
        found = contents(index)
        assert found == rebuilt(index, self.functions)
        self.database.indexes.clean_up([])
        again = built(self.database, self.definition, self.functions)
        assert found == contents(again)

    def teardown(self) -> None:
        if hasattr(self, "server"):
            self.update()
            self.build_from_scratch()
            self.server.close()
            self.thread.close()
            shutil.rmtree(self.path)


FollowingIndex.TestCase.settings = settings(max_examples=15, stateful_step_count=25, deadline=None)
TestFollowingIndex = FollowingIndex.TestCase


class FollowingPartitions(FollowingIndex):
    """The same with an index that keeps partitions apart."""

    partitioned = True


FollowingPartitions.TestCase.settings = settings(max_examples=10, stateful_step_count=25, deadline=None)
TestFollowingPartitions = FollowingPartitions.TestCase


def compare_ids(one: tuple[str, Any, Any], other: tuple[str, Any, Any]) -> int:
    left, right = one[0].encode(), other[0].encode()
    return (left > right) - (left < right)


def state_of(index: Index) -> Any:
    return index.state()


def shown(index: Index, one: Range = query.EVERYTHING, **how: Any) -> list[dict[str, Any]]:
    rows = Rows([one], **({"descending": False, "skip": 0, "limit": 1 << 40} | how))
    found: list[bytes] = []
    while not rows.is_through:
        with index.read() as reader:
            found += rows.page(reader, store.state_of(reader))
    return [loads(text) for text in found]


# --- reading, against a model


def put_numbers(database: Database, count: int) -> list[tuple[Any, str]]:
    """Documents with keys of all kinds; the rows that they have, in order."""
    numbers = random.Random(count)
    rows: list[tuple[Any, str]] = []
    edits = []
    for at in range(count):
        keys = [random_key(numbers) for _ in range(numbers.randrange(4))]
        distinct = {dumps(key): key for key in keys}
        doc = {"_id": f"d{at:04}", "keys": list(distinct.values()), "n": at}
        edits.append(document.parse(doc))
        rows += [(key, doc["_id"]) for key in distinct.values()]
    database.update(edits)
    return sorted(
        rows, key=cmp_to_key(lambda one, other: compare(one[0], other[0]) or -1 + 2 * (one[1] > other[1]))
    )


def random_key(numbers: random.Random) -> Any:
    return numbers.choice(
        [
            numbers.randrange(30),
            [numbers.randrange(4), numbers.choice("abcd"), numbers.randrange(3)][: numbers.randrange(4)],
            "w" * numbers.randrange(4) + numbers.choice("abc"),
            None,
            "long" * 200 + numbers.choice("abc"),
        ]
    )


@pytest.fixture(scope="module")
def many(
    tmp_path_factory: pytest.TempPathFactory, functions: IndexFunctions
) -> Iterator[tuple[Index, list[tuple[Any, str]]]]:
    with Server(tmp_path_factory.mktemp("many")) as server:
        database = server.create("db")
        rows = put_numbers(database, 1500)
        yield built(database, view(reduce="_count"), functions), rows


BOUNDS = st.none() | st.builds(
    Bound,
    st.integers(0, 1000).map(lambda seed: random_key(random.Random(seed))),
    st.none() | st.just(b"d0700"),
)


@given(first=BOUNDS, last=BOUNDS, inclusive=st.booleans(), descending=st.booleans(), skip=st.integers(0, 400))
@settings(max_examples=150, deadline=None)
def test_any_range_of_rows_is_what_the_model_says(
    many: tuple[Index, list[tuple[Any, str]]],
    first: Bound | None,
    last: Bound | None,
    inclusive: bool,
    descending: bool,
    skip: int,
) -> None:
    index, rows = many
    one = query.range_of(first, last, inclusive_end=inclusive, descending=descending)
    low, high = (last, first) if descending else (first, last)
    expected = [
        row
        for row in rows
        if (low is None or at_or_after(row, low, inclusive or not descending, below=True))
        and (high is None or at_or_after(row, high, inclusive or descending, below=False))
    ]
    before = 0 if not expected else rows.index(expected[0])
    if descending:
        expected = expected[::-1]
        before = 0 if not expected else len(rows) - 1 - rows.index(expected[0])
    found = shown(index, one, descending=descending, skip=skip, limit=50)
    assert [(row["key"], row["id"]) for row in found] == expected[skip : skip + 50]
    with index.read() as reader:
        state = store.state_of(reader)
        offset = Rows([one], descending=descending, skip=0, limit=1).offset(reader, state)
        if expected:
            assert offset == before
        covered = query.cover(reader, state, one, levels.top(reader))
        if expected:
            count = reducers.find("_count")
            assert count is not None
            assert query.combine([covered], count) == [b"%d" % len(expected)]
            assert len(covered.left) + len(covered.partials) + len(covered.right) < 300


def at_or_after(row: tuple[Any, str], bound: Bound, inclusive: bool, *, below: bool) -> bool:
    """Whether a row is on the right side of a bound."""
    order = compare(row[0], bound.key)
    if not order and bound.doc_id is not None:
        doc_id = row[1].encode()
        order = (doc_id > bound.doc_id) - (doc_id < bound.doc_id)
    if not order:
        return inclusive
    return order > 0 if below else order < 0


@given(level=st.none() | st.integers(0, 3), descending=st.booleans(), first=BOUNDS, last=BOUNDS)
@settings(max_examples=60, deadline=None)
def test_any_groups_are_what_the_model_says(
    many: tuple[Index, list[tuple[Any, str]]],
    level: int | None,
    descending: bool,
    first: Bound | None,
    last: Bound | None,
) -> None:
    index, _rows = many
    one = query.range_of(first, last, descending=descending)
    expected: list[tuple[Any, int]] = []
    for row in shown(index, one, descending=descending):
        key = row["key"]
        if level is not None:
            key = None if level == 0 else key[:level] if isinstance(key, list) else key
        if expected and not compare(expected[-1][0], key):
            expected[-1] = (expected[-1][0], expected[-1][1] + 1)
        else:
            expected.append((key, 1))
    groups = Groups(one, level, descending, 0, 1 << 40)
    found = []
    count = reducers.find("_count")
    assert count is not None
    while not groups.is_through:
        with index.read() as reader:
            page = groups.page(reader, store.state_of(reader))
        if page:
            values = query.combine([group.cover for group in page], count)
            found += [(loads(group.key), loads(value)) for group, value in zip(page, values, strict=True)]
    assert found == expected


def test_the_total_reads_one_node(many: tuple[Index, list[tuple[Any, str]]]) -> None:
    index, rows = many
    with index.read() as reader:
        covered = query.cover(reader, store.state_of(reader), query.EVERYTHING, levels.top(reader))
    assert covered.partials == [b"%d" % len(rows)]
    assert not covered.left and not covered.right


# --- reducers

VALUES = st.lists(
    st.integers(-9, 9) | st.floats(-9, 9, width=16) | st.lists(st.integers(0, 9), min_size=2, max_size=2),
    min_size=1,
    max_size=12,
)


@given(values=VALUES, cuts=st.lists(st.integers(0, 12), max_size=4))
@pytest.mark.parametrize(
    "source", ["_sum", "_count", "_top_3", "_bottom_2", "_first", "_last", "_approx_count_distinct"]
)
def test_reductions_of_parts_are_those_of_the_whole(source: str, values: list[Any], cuts: list[int]) -> None:
    reducer = reducers.find(source)
    assert reducer is not None
    rows = [encode_row(b'"d"', dumps(at % 5), dumps(value)) for at, value in enumerate(values)]
    [whole] = reducer.of_rows([rows])
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    parts = [rows[start:end] for start, end in pairwise(edges) if start < end]
    [joined] = reducer.of_partials([reducer.of_rows(parts)])
    assert loads(reducer.finish(joined)) == loads(reducer.finish(whole))


def reduced(source: str, *values: Any) -> Any:
    reducer = reducers.find(source)
    assert reducer is not None
    rows = [encode_row(b'"d"', dumps(at), dumps(value)) for at, value in enumerate(values)]
    return loads(reducer.finish(reducer.of_rows([rows])[0]))


@pytest.mark.parametrize(
    ("source", "values", "expected"),
    [
        ("_sum", [1, 2, 3.5], 6.5),
        ("_sum", [[1, 2], [3], 4], [8, 2]),
        (
            "_sum",
            [{"a": 1, "b": {"c": [1]}}, {"b": {"c": [1, 1]}, "d": 2}],
            {"a": 1, "b": {"c": [2, 1]}, "d": 2},
        ),
        ("_count", ["x", None, {}], 3),
        ("_stats", [2, 3, -1], {"sum": 4, "count": 3, "min": -1, "max": 3, "sumsqr": 14}),
        (
            "_stats",
            [[1, 2], [3, 4]],
            [
                {"sum": 4, "count": 2, "min": 1, "max": 3, "sumsqr": 10},
                {"sum": 6, "count": 2, "min": 2, "max": 4, "sumsqr": 20},
            ],
        ),
        (
            "_stats",
            [{"sum": 2, "count": 2, "min": 1, "max": 1, "sumsqr": 2}, 5],
            {"sum": 7, "count": 3, "min": 1, "max": 5, "sumsqr": 27},
        ),
        ("_approx_count_distinct", list(range(7)), 7),
        ("_top_2", [1, "a", None, "b", "b"], ["b", "a"]),
        ("_bottom_2", [1, "a", None, 1], [None, 1]),
        ("_first", ["x", "y"], "x"),
        ("_last", ["x", "y"], "y"),
    ],
)
def test_built_in_reducers(source: str, values: list[Any], expected: Any) -> None:
    assert reduced(source, *values) == expected


def test_what_has_no_sum_is_told_with_its_cause() -> None:
    error = reduced("_sum", 1, "x", 2)
    assert error["error"] == "builtin_reduce_error"
    assert error["caused_by"] == "x"


def test_a_sum_that_only_grows_is_an_error() -> None:
    error = reduced("_sum", *[{f"name {at} {more}": 1 for more in range(60)} for at in range(20)])
    assert error["reason"].startswith("Reduce output must shrink more rapidly")


def test_statistics_of_text_are_an_error() -> None:
    with pytest.raises(InternalError, match="non-numeric _stats input"):
        reduced("_stats", "x")


@pytest.mark.parametrize("count", [100, 1500, 20_000])
def test_the_estimate_of_distinct_keys_is_near(count: int) -> None:
    estimate = distinct.cardinality(distinct.sketch(range(count)))
    assert abs(estimate - count) < 0.06 * count


# --- functions


def test_a_javascript_reducer_gives_what_the_built_in_one_does(
    database: Database, functions: IndexFunctions
) -> None:
    put_numbers(database, 600)
    script = built(database, view(reduce=JOIN), functions)
    built_in = built(database, view(reduce="_sum"), functions)
    assert contents(script) == contents(built_in)


def test_a_function_that_throws_loses_its_document_only(
    database: Database, functions: IndexFunctions
) -> None:
    for name in ("a", "b", "c"):
        database.put({"_id": name})
    source = "function (doc) { emit(1); if (doc._id == 'b') throw 'x'; }"
    assert [row["id"] for row in shown(built(database, view(source, None), functions))] == ["a", "c"]


def test_a_function_that_never_ends_is_told_with_its_document(
    database: Database, functions: IndexFunctions
) -> None:
    database.put({"_id": "a"})
    database.put({"_id": "b"})
    index = database.indexes.get(view("function (doc) { while (doc._id == 'b') {} emit(1) }", None))
    with pytest.raises(InternalError, match="took more than 1 s for document b"):
        index.build(database, functions).result()
    assert index.state().seq == 0


def test_documents_are_mapped_with_what_is_known_of_their_conflicts(
    database: Database, functions: IndexFunctions
) -> None:
    graft(database, "a", ["1-" + "a" * 32])
    graft(database, "a", ["1-" + "b" * 32])
    graft(database, "a", ["2-" + "d" * 32, "1-" + "c" * 32], _deleted=True)
    source = "function (doc) { emit(doc._conflicts, doc._deleted_conflicts) }"
    [row] = shown(built(database, view(source, None), functions))
    assert row["key"] == ["1-" + "a" * 32]
    assert row["value"] == ["2-" + "d" * 32]


def test_a_document_can_not_be_changed_by_its_function(database: Database, functions: IndexFunctions) -> None:
    database.put({"_id": "a", "in": {"n": 1}})
    source = "function (doc) { doc.x = 1; doc.in.n = 2; emit(doc.x, doc.in.n) }"
    [row] = shown(built(database, view(source, None), functions))
    assert (row["key"], row["value"]) == (None, 1)


def test_a_view_keeps_its_index_when_another_one_is_edited(
    database: Database, functions: IndexFunctions
) -> None:
    def definition(other: str) -> IndexDefinition:
        views = {"v": {"map": EMIT_KEYS}, "w": {"map": other}}
        return DesignViews("db", {"_id": "_design/d", "views": views, "filters": {"f": other}}).find("v")

    assert definition("function () {}") == definition("function () { return 1 }")


def test_unwanted_indexes_are_removed(database: Database, functions: IndexFunctions) -> None:
    database.put({"_id": "a", "keys": [1]})
    kept, dropped = view(), view(reduce=None)
    built(database, kept, functions)
    built(database, dropped, functions)
    database.indexes.clean_up([kept.signature])
    assert database.indexes.is_made(kept) and not database.indexes.is_made(dropped)
    assert len(shown(built(database, dropped, functions))) == 1


def test_an_index_that_another_process_removed_is_made_again(
    database: Database, functions: IndexFunctions
) -> None:
    database.put({"_id": "a", "keys": [1]})
    removed = built(database, view(), functions)
    shutil.rmtree(removed.path)
    again = built(database, view(), functions)
    assert again is not removed and len(shown(again)) == 1
    assert len(shown(removed)) == 1  # for those who still read it


def test_a_long_build_shows_as_a_task_and_is_read_meanwhile(
    tmp_path: Path, functions: IndexFunctions
) -> None:
    with Server(tmp_path) as server:
        database = server.create("db")
        database.update([document.parse({"_id": f"d{at}", "keys": [at], "n": 1}) for at in range(1200)])
        source = "function (doc) { for (let i = 0; i < 3000; i++); emit(doc._id, 1) }"
        index = database.indexes.get(view(source, "_count"))
        running = index.build(database, functions)
        seen = []
        while not running.done():
            seen += [task for task in server.tasks() if task["type"] == "indexer"]
            shown(index, limit=1)
        assert seen[0]["database"] == "db" and seen[0]["design_document"] == "_design/d"
        assert seen[-1]["total_changes"] == 1200
        assert not server.tasks()
        assert contents(index) == rebuilt(index, functions)


def test_what_a_long_build_left_unfinished_is_finished(database: Database, functions: IndexFunctions) -> None:
    put_numbers(database, 1500)
    index = built(database, view(reduce="_count"), functions)
    whole = contents(index)

    def interrupt(batch: Any) -> None:
        state = store.state_of(batch)
        state.levels = 0
        store.save_state(batch, state)
        for key in [key for key, _node in batch.scan(IndexSpace.LEVELS)][::2]:
            batch.delete(IndexSpace.LEVELS, key)

    index.engine.write(interrupt)
    with index.read() as reader:  # counts and reductions are right all the same
        state = store.state_of(reader)
        assert store.count_before(reader, state, None) == state.rows
        covered = query.cover(reader, state, query.EVERYTHING, 0)
        assert len(covered.left) == state.rows
    index.build(database, functions).result()
    assert contents(index) == whole
