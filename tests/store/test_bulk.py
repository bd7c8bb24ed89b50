"""Many documents at once: written, read and compared as they would be one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchlite import Database, Rev, Server, doc_texts, document
from couchlite.document import Edit, Revision, render
from couchlite.errors import BadRequest, Conflict
from couchlite.reads import MissingRev

from .helpers import attachment, graft

IDS = ["a", "b", "é", "_design/d", "long" * 150, "long" * 150 + "er"]
EMPTY_REV = "1-967a00dff5e02add41819138abb3284d"


def outcome(result: Any) -> str:
    return str(result) if isinstance(result, Rev) else type(result).__name__


def state_of(database: Database) -> list[Any]:
    """Everything a client could see of it, but for the sequences."""
    with database.snapshot() as snapshot:
        state = snapshot.state()
        found: list[Any] = [state.doc_count, state.deleted_count, state.external_bytes]
        for doc_id in IDS:
            known = snapshot.document(doc_id)
            if known is not None:
                for revision in snapshot.open_revs(known, None):
                    found.append(
                        revision if isinstance(revision, MissingRev) else render(revision, revs=True)
                    )
    return found


# --- writing

kinds = st.sampled_from(["first", "other first", "deleted", "update", "wrong parent", "attached"])
batches = st.lists(st.lists(st.tuples(st.sampled_from(IDS), kinds), max_size=8), max_size=4)


def edit_of(database: Database, doc_id: str, kind: str) -> Edit:
    fields: dict[str, Any] = {"_id": doc_id, "v": kind}
    with database.snapshot() as snapshot:
        row = snapshot.doc_row(doc_id)
    if kind == "deleted":
        fields["_deleted"] = True
    elif kind == "update" and row is not None:
        fields["_rev"] = row.rev.decode()
    elif kind == "wrong parent":
        fields["_rev"] = EMPTY_REV
    elif kind == "attached":
        fields["_attachments"] = {"data": attachment(b"data")}
    return document.parse(fields)


@given(batches)
def test_a_batch_does_what_its_edits_do_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, str]]]
) -> None:
    with Server(tmp_path_factory.mktemp("bulk")) as server:
        together, alone = server.create("together"), server.create("alone")
        for batch in batches:
            edits = [[edit_of(database, *item) for item in batch] for database in (together, alone)]
            results = together.submit_edits(edits[0]).result()
            expected = [alone.submit_edits([edit]).result()[0] for edit in edits[1]]
            assert list(map(outcome, results)) == list(map(outcome, expected))
            assert state_of(together) == state_of(alone)
        assert together.check() == []


grafts = st.lists(
    st.tuples(
        st.sampled_from(IDS),
        st.sampled_from([["1-a"], ["1-b"], ["2-c", "1-a"], ["3-d", "2-c", "1-a"]]),
        st.booleans(),
    ),
    max_size=8,
)


@given(st.lists(grafts, max_size=4))
def test_a_batch_of_replicated_edits_does_what_they_do_one_by_one(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[tuple[str, list[str], bool]]]
) -> None:
    with Server(tmp_path_factory.mktemp("bulk")) as server:
        together, alone = server.create("together"), server.create("alone")
        for batch in batches:
            for database in (together, alone):
                edits = []
                for doc_id, path, deleted in batch:
                    edit = document.parse({"_id": doc_id, "_deleted": deleted, "path": path})
                    edit.path = tuple(map(Rev.parse, path))
                    edits.append(edit)
                for group in [edits] if database is together else [[edit] for edit in edits]:
                    database.submit_replicated(group).result()
            assert trees_of(together) == trees_of(alone)
        assert together.check() == []


def trees_of(database: Database) -> list[Any]:
    with database.snapshot() as snapshot:
        found = [snapshot.document(doc_id) for doc_id in IDS]
    return [known and [leaf.rev for leaf in known.leaves()] for known in found]


def test_sequences_follow_the_ids_also_where_new_and_known_documents_mix(database: Database) -> None:
    database.submit_edits([Edit("b"), Edit("d")]).result()
    parent = (Rev.parse(EMPTY_REV),)
    database.submit_edits([Edit("e"), Edit("d", parent), Edit("a"), Edit("b", parent), Edit("c")]).result()
    with database.snapshot() as snapshot:
        assert [row.id for row in snapshot.changes(0)] == [b"a", b"b", b"c", b"d", b"e"]


def test_of_equal_ids_the_first_is_stored(database: Database) -> None:
    edits = [document.parse({"_id": "a", "v": number}) for number in (1, 2, 1)]
    first, second, third = database.submit_edits(edits).result()
    assert isinstance(second, Conflict) and isinstance(third, Conflict)
    assert database.get("a") == {"_id": "a", "_rev": str(first), "v": 1}


# --- reading


def load(database: Database) -> None:
    database.submit_edits([document.parse({"_id": "plain", "v": 'q"'}), Edit("empty")]).result()
    rev = str(database.update([Edit("updated")])[0])
    rev = database.put({"_id": "updated", "_rev": rev, "v": 2})
    database.put({"_id": "updated", "_rev": rev, "v": 3})
    rev = database.put({"_id": "gone"})
    database.delete("gone", rev)
    database.put({"_id": "attached", "_attachments": {"data": attachment(b"data")}})
    graft(database, "odd", ['2-x"y', "1-a"], v=1)
    graft(database, "odd tree", ["2-" + "b" * 32, '1-x"y'], v=1)
    graft(database, "stemmed", ["9-" + "b" * 32, "8-" + "a" * 32], v=1)
    graft(database, "conflicted", ["1-" + "b" * 32], v=1)
    graft(database, "conflicted", ["1-" + "c" * 32], v=2)
    graft(database, 'id"\n', ["1-" + "c" * 32], v=2, _deleted=True)
    graft(database, "long" * 200, ["1-" + "c" * 32], v=2)


PLAIN = {"plain", "empty", "updated", "gone", "stemmed", 'id"\n', "long" * 200}
OTHERS = {"attached", "odd", "odd tree", "conflicted", "unknown", ""}


@pytest.mark.parametrize("with_path", [False, True])
def test_leaf_texts_are_what_is_rendered_one_by_one(database: Database, with_path: bool) -> None:
    load(database)
    ids = sorted(PLAIN | OTHERS)
    with database.snapshot() as snapshot:
        texts = snapshot.leaf_texts(
            [doc_id.encode() for doc_id in ids], [None] * len(ids), with_path=with_path
        )
        for doc_id, text in zip(ids, texts, strict=True):
            if text is None:
                assert doc_id in OTHERS
            else:
                [leaf] = snapshot.open_revs(snapshot.document(doc_id), None)
                assert isinstance(leaf, Revision)
                assert text == render(leaf, revs=with_path)
        answered = {doc_id for doc_id, text in zip(ids, texts, strict=True) if text is not None}
        assert answered == PLAIN | (set() if with_path else {"odd tree"})


def test_only_the_revision_asked_for_is_given(database: Database) -> None:
    rev = str(database.update([Edit("a")])[0]).encode()
    with database.snapshot() as snapshot:
        texts = snapshot.leaf_texts([b"a", b"a", b"b"], [rev, b"1-x", rev], with_path=False)
    assert texts == [b'{"_id":"a","_rev":"%b"}' % rev, None, None]


def test_what_does_not_fit_into_a_page_is_left_for_the_next(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doc_texts, "PAGE_BYTES", 500)
    ids = [str(number) for number in range(8)]
    database.update([document.parse({"_id": doc_id, "text": "x" * 200}) for doc_id in ids])
    with database.snapshot() as snapshot:
        keys = [doc_id.encode() for doc_id in ids]
        assert len(snapshot.leaf_texts(keys, [None] * len(ids), with_path=True)) == 2
        monkeypatch.setattr(doc_texts, "READ_AHEAD_DOCUMENTS", 2)
        assert len(snapshot.plain_bodies(snapshot.docs().body_keys())) == 4


# --- comparing

ASKED = [
    "1-" + "b" * 32,
    "1-" + "B" * 32,
    EMPTY_REV,
    "2-x",
    '2-x"y',
    "9-" + "b" * 32,
    "10-" + "0" * 32,
    "01-a",
]


@given(
    st.dictionaries(
        st.sampled_from(sorted(PLAIN | OTHERS)), st.lists(st.sampled_from(ASKED), max_size=3), max_size=4
    )
)
def test_differences_of_many_documents_are_those_of_each(
    loaded: Database, wanted: dict[str, list[str]]
) -> None:
    expected = {}
    with loaded.snapshot() as snapshot:
        for doc_id, revs in wanted.items():
            diff = snapshot.revs_diff(doc_id, [Rev.parse(rev) for rev in revs])
            if diff is not None:
                expected[doc_id] = tuple([str(rev) for rev in some] for some in diff)
        found = snapshot.revs_diffs(wanted)
    assert {doc_id: tuple(map(list, diff)) for doc_id, diff in found.items()} == expected


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Server(tmp_path_factory.mktemp("loaded")) as server:
        database = server.create("db")
        load(database)
        yield database


@pytest.mark.parametrize("rev", ["", "x", "1", "-1-a", "1-" + "g" * 32])
def test_a_malformed_revision_is_refused(database: Database, rev: str) -> None:
    with database.snapshot() as snapshot, pytest.raises(BadRequest, match="Invalid rev format"):
        snapshot.revs_diffs({"a": [EMPTY_REV, rev]})
