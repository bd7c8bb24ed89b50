"""Conflicts through the embedded API: listed, looked into, resolved, undone."""

from __future__ import annotations

import os
import time
from hashlib import md5
from typing import Any

import pytest

from couchlite import BadRequest, Conflict, Database, NotFound, Rev, Server, document
from couchlite.compact import Retention
from couchlite.conflicts import ConflictCounts
from couchlite.document import digest_text
from couchlite.errors import MissingStub
from couchlite.merging import Rules
from couchlite.proposals import Clashed
from couchlite.revision import new_rev

from .helpers import attachment, graft, leaves

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def forked(database: Database, doc_id: str, **contents: dict[str, Any]) -> tuple[str, list[str]]:
    """A document with a first revision and a leaf for each content, digest by digest; the first revision, and
    the leaves, the winner first."""
    base = database.put({"_id": doc_id, "text": "base"})
    for digit, content in contents.items():
        graft(database, doc_id, [f"2-{digit * 32}", base], **content)
    return base, leaves(database, doc_id)


def living(database: Database, doc_id: str) -> list[str]:
    return [leaf.rev for leaf in database.leaves(doc_id) if not leaf.deleted]


def texts(database: Database, doc_id: str) -> list[str]:
    """What the living leaves say, the winner first."""
    return [database.get(doc_id, rev)["text"] for rev in living(database, doc_id)]


# --- listing


def test_only_documents_in_conflict_are_listed_in_the_order_of_their_ids(database: Database) -> None:
    for doc_id in ("z", "a", "ü" * 300, "m", "ü" * 299):
        forked(database, doc_id, a={"text": "one"}, b={"text": "two"})
    database.put({"_id": "b"})
    rows = list(database.conflicts())
    assert [row.id for row in rows] == ["a", "m", "z", "ü" * 299, "ü" * 300]
    assert [row.id for row in database.conflicts("b", "z")] == ["m"]
    row = rows[0]
    assert (str(row.rev), row.leaves) == (f"2-{B}", 2)
    assert row.size == len('{"text":"one"}') * 2
    assert abs(row.since_ms / 1000 - time.time()) < 60


def test_pages_of_conflicts_go_on_where_the_last_one_ended(database: Database) -> None:
    ids = [f"{n:02}" for n in range(7)] + ["x" * 600 + str(n) for n in range(3)]
    for doc_id in ids:
        forked(database, doc_id, a={}, b={})
    for reverse in (False, True):
        seen: list[str] = []
        at: bytes | None = b""
        stop: bytes | None = None
        while at is not None:
            with database.snapshot() as snapshot:
                page = snapshot.conflicts(at, stop, reverse=reverse, limit=3)
            seen += [row.id for row in page.rows]
            if reverse:
                at, stop = (None if page.resume is None else b""), page.resume
            else:
                at = page.resume
        assert seen == sorted(ids, reverse=reverse)


def test_statistics_count_documents_leaves_and_ages(database: Database) -> None:
    forked(database, "a", a={}, b={})
    forked(database, "b", a={}, b={}, c={})
    counts = ConflictCounts()
    counts.add([])
    counts.add(list(database.conflicts()))
    assert (counts.documents, counts.leaves, counts.leaves_max, counts.bytes) == (2, 5, 3, 10)
    assert counts.oldest_ms is not None and counts.newest_ms is not None
    assert counts.oldest_ms <= counts.newest_ms


# --- looking into one


def test_a_merge_base_is_the_nearest_common_ancestor_of_the_leaves_in_question(database: Database) -> None:
    first = database.put({"_id": "a", "n": 1})
    second = database.put({"_id": "a", "_rev": first, "n": 2})
    graft(database, "a", [f"3-{A}", second], n="A")
    graft(database, "a", [f"3-{B}", second], n="B")
    graft(database, "a", [f"2-{C}", first], n="C")
    graft(database, "a", [f"2-{'d' * 32}", first], n="D", _deleted=True)
    database.compact().result()
    with database.snapshot() as snapshot:
        found = snapshot.inspect("a")
        assert [str(rev) for rev in found.revs] == [f"3-{B}", f"3-{A}", f"2-{C}"]
        assert [str(leaf.rev) for leaf in found.deleted_leaves] == [f"2-{'d' * 32}"]
        both = found.merge_base(found.choose([Rev.parse(f"3-{A}"), Rev.parse(f"3-{B}")]))
        of_all = found.merge_base(found.leaves)
        assert both and of_all
        assert [str(both.rev), str(of_all.rev)] == [second, first]
        kept = [snapshot.kept_revision(found.document, node) for node in (both, of_all)]
        assert [revision and revision.body for revision in kept] == [b'{"n":2}', b'{"n":1}']
        with pytest.raises(BadRequest, match="no leaf"):
            found.choose([Rev.parse(second)])


def test_without_the_body_of_the_nearest_ancestor_there_is_no_base(database: Database) -> None:
    first = database.put({"_id": "a", "n": 1})
    graft(database, "a", [f"3-{A}", f"2-{C}", first], n="A")
    graft(database, "a", [f"3-{B}", f"2-{C}", first], n="B")
    with database.snapshot() as snapshot:
        found = snapshot.inspect("a")
        ancestor = found.common_ancestor(found.leaves)
        assert ancestor and str(ancestor.rev) == f"2-{C}"
        assert found.merge_base(found.leaves) is None


def test_leaves_that_were_made_apart_have_no_base(database: Database) -> None:
    graft(database, "a", [f"1-{A}"], n="A")
    graft(database, "a", [f"1-{B}"], n="B")
    with database.snapshot() as snapshot:
        found = snapshot.inspect("a")
        assert found.common_ancestor(found.leaves) is found.merge_base(found.leaves) is None
        with pytest.raises(NotFound):
            snapshot.inspect("unknown")


def test_branches_say_where_they_leave_and_what_is_left_of_them(database: Database) -> None:
    base, _ = forked(database, "a", a={"n": 1}, b={"n": 2})
    graft(database, "a", [f"4-{C}", f"3-{C}", f"2-{A}"], _deleted=True)
    database.compact().result()
    with database.snapshot() as snapshot:
        trunk, side = snapshot.inspect("a").branches()
    assert [trunk.parent, str(side.parent)] == [None, base]
    assert {str(trunk.leaf): trunk.deleted, str(side.leaf): side.deleted} == {f"4-{C}": True, f"2-{B}": False}
    assert {str(item.rev): item.status for item in (*trunk.revs, *side.revs)} == {
        base: "missing",
        f"2-{A}": "missing",
        f"3-{C}": "missing",
        f"4-{C}": "deleted",
        f"2-{B}": "available",
    }


# --- resolving


def test_a_resolution_is_what_the_same_edits_make_one_by_one(store: Server, database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"}, c={"text": "three"})
    other = store.create("other")
    forked(other, "a", a={"text": "one"}, b={"text": "two"}, c={"text": "three"})
    done = database.resolve("a", seen, {"text": "all"}, by="jan")
    assert str(done.into) == other.put({"_id": "a", "_rev": seen[0], "text": "all"})
    for leaf in seen[1:]:
        other.delete("a", leaf)
    assert set(leaves(database, "a")) == set(leaves(other, "a"))
    assert [str(rev) for rev in done.closed] == deletions_of(seen[1:])
    assert texts(database, "a") == ["all"]
    assert list(database.conflicts()) == []


def deletions_of(revs: list[str]) -> list[str]:
    return [str(new_rev(deleted=True, parent=Rev.parse(rev), body={})) for rev in revs]


def test_a_resolution_is_one_write(database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    before = database.state().update_seq
    database.resolve("a", seen, {"text": "both"})
    assert database.state().update_seq == before + 1


@pytest.mark.parametrize(
    "written",
    [
        pytest.param({"title": "t", "tags": [{"a": 1, "b": 2}], "new": 1, "extra": 2}, id="in one order"),
        pytest.param({"extra": 2, "new": 1, "tags": [{"b": 2, "a": 1}], "title": "t"}, id="in another"),
        pytest.param(
            {"_rev": "ignored-x", "_id": "a", "tags": [{"b": 2, "a": 1}], "title": "t"}
            | {"new": 1, "extra": 2},
            id="with an id and a revision",
        ),
    ],
)
def test_the_order_of_the_members_does_not_matter(database: Database, written: dict[str, Any]) -> None:
    _, seen = forked(database, "a", a={"title": "x"}, b={"tags": [{"b": 2, "a": 1}], "title": "y"})
    if "_rev" in written:
        written["_rev"] = seen[1]
    done = database.resolve("a", seen, written)
    expected = {"tags": [{"b": 2, "a": 1}], "title": "t", "extra": 2, "new": 1}
    assert done.into == new_rev(deleted=False, parent=Rev.parse(seen[0]), body=expected)


def test_picking_a_leaf_keeps_its_content_and_attachments(database: Database) -> None:
    _, seen = forked(
        database,
        "a",
        a={"text": "picked", "_attachments": {"x": attachment(b"of a", "text/plain")}},
        b={"text": "winner"},
    )
    done = database.resolve("a", seen, seen[1])
    found = database.get("a")
    assert (found["text"], found["_rev"], done.using) == ("picked", str(done.into), "pick")
    assert database.attachment("a", "x") == b"of a"
    assert found["_attachments"]["x"]["revpos"] == 3
    merged = {"text": "picked", "_attachments": {"x": {"stub": True}}}
    database.undo(done.number)
    again = living(database, "a")
    assert database.resolve("a", again, merged).into == Rev.parse(database.get("a")["_rev"])


def test_deleting_all_leaves_is_a_resolution(database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    done = database.resolve("a", seen, None)
    assert done.using == "delete"
    with pytest.raises(NotFound, match="deleted"):
        database.get("a")
    assert set(leaves(database, "a")) == set(deletions_of(seen))


def test_some_of_the_leaves_can_be_merged_and_the_others_left(database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"}, c={"text": "three"})
    done = database.resolve("a", seen, {"text": "some"}, chosen=[f"2-{A}", f"2-{B}"])
    assert [str(rev) for rev in done.leaves] == [f"2-{B}", f"2-{A}"]
    assert texts(database, "a") == ["some", "three"]
    [row] = database.conflicts()
    assert row.leaves == 2


def test_attachments_of_any_leaf_are_kept_by_their_stubs(database: Database) -> None:
    large = os.urandom(50_000)
    _, seen = forked(
        database,
        "a",
        a={"_attachments": {"photo": attachment(large), "note": attachment(b"A", "text/plain")}},
        b={"_attachments": {"photo": attachment(b"of b")}},
    )
    of_a = database.get("a", f"2-{A}")["_attachments"]["photo"]["digest"]
    merged = {
        "_attachments": {
            "photo-2": {"stub": True, "digest": of_a},
            "photo": {"stub": True},
            "note": {"stub": True},
            "more": attachment(b"new"),
        }
    }
    database.resolve("a", seen, merged)
    shown = database.get("a")["_attachments"]
    assert list(shown) == ["photo", "note", "more", "photo-2"]
    assert {name: props["revpos"] for name, props in shown.items()} == {
        "photo": 0,
        "note": 3,
        "more": 3,
        "photo-2": 3,
    }
    assert database.attachment("a", "photo") == b"of b"
    assert database.attachment("a", "photo-2") == large
    assert database.attachment("a", "more") == b"new"


@pytest.mark.parametrize(
    ("stub", "reason"),
    [
        ({"stub": True}, "Invalid attachment stub in a for x"),
        ({"stub": True, "digest": "md5-AAAAAAAAAAAAAAAAAAAAAA=="}, "Invalid attachment stub in a for x"),
    ],
)
def test_a_stub_that_no_leaf_has_is_refused(database: Database, stub: dict[str, Any], reason: str) -> None:
    _, seen = forked(database, "a", a={}, b={"_attachments": {"y": attachment(b"1")}})
    with pytest.raises(MissingStub, match=reason):
        database.resolve("a", seen, {"_attachments": {"x": stub}})
    assert living(database, "a") == seen


def test_other_leaves_than_those_seen_are_refused_and_named(database: Database) -> None:
    base, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    graft(database, "a", [f"2-{C}", base], text="three")
    with pytest.raises(Conflict) as refused:
        database.resolve("a", seen, {"text": "both"})
    assert refused.value.reason == f"The document's leaves have changed (new: 2-{C})."
    assert refused.value.members == {"leaves": [f"2-{C}", f"2-{B}", f"2-{A}"]}
    database.delete("a", f"2-{A}")
    with pytest.raises(Conflict, match=f"new: 2-{C}; no longer: 2-{A}"):
        database.resolve("a", seen, {"text": "both"})
    assert texts(database, "a") == ["three", "two"]
    assert list(database.resolutions()) == []


def test_a_leaf_that_comes_between_plan_and_write_is_not_lost(database: Database) -> None:
    base, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    with database.snapshot() as snapshot:
        plan = snapshot.plan_resolution("a", [Rev.parse(rev) for rev in seen], None)
    graft(database, "a", [f"2-{C}", base], text="three")
    with pytest.raises(Conflict, match=f"new: 2-{C}"):
        database.submit_plan(plan).result()
    assert texts(database, "a") == ["three", "two", "one"]


@pytest.mark.parametrize(
    ("doc_id", "chosen", "content", "error"),
    [
        ("single", [], {"text": "x"}, "not in conflict"),
        ("a", [f"2-{A}"], {"text": "x"}, "At least two"),
        ("a", [f"2-{A}", f"2-{C}"], {"text": "x"}, "no leaf of a"),
        ("a", [], f"2-{C}", "none of the leaves"),
        ("a", [], {"_bad": 1}, "Bad special document member"),
    ],
)
def test_what_can_not_be_resolved_is_refused(
    database: Database, doc_id: str, chosen: list[str], content: Any, error: str
) -> None:
    forked(database, "a", a={"text": "one"}, b={"text": "two"})
    database.put({"_id": "single"})
    with pytest.raises(BadRequest, match=error):
        database.resolve(doc_id, leaves(database, doc_id), content, chosen=chosen)


def test_a_three_way_merge_can_be_looked_at_and_made(database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "base", "n": 1}, b={"text": "two"})
    merged = database.merge("a")
    assert (merged.document, merged.clashes) == ({"text": "two", "n": 1}, ())
    done = database.resolve("a", seen, Rules())
    assert (done.using, texts(database, "a")) == ("three-way", ["two"])
    _, seen = forked(database, "b", a={"text": "one"}, b={"text": "two"})
    with pytest.raises(Clashed, match="The leaves clash: /text"):
        database.resolve("b", seen, Rules())
    assert living(database, "b") == seen


# --- the record, and undoing


def test_what_was_merged_into_what_is_recorded(database: Database) -> None:
    base, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    forked(database, "b", a={}, b={})
    first = database.resolve("a", seen, {"text": "both"}, using="three-way", by="jan")
    second = database.resolve("b", living(database, "b"), None)
    assert list(database.resolutions()) == [second, first]
    assert list(database.resolutions("a")) == [first]
    assert list(database.resolutions("c")) == []
    assert (first.id, first.using, first.by, str(first.base)) == ("a", "three-way", "jan", base)
    assert [str(rev) for rev in first.leaves] == seen
    assert abs(first.time_ms / 1000 - time.time()) < 60


def test_the_record_is_bounded(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("couchlite.resolution_log.RECORDS_MAX", 3)
    for doc_id in "abcde":
        forked(database, doc_id, a={}, b={})
        database.resolve(doc_id, living(database, doc_id), None)
    assert [entry.id for entry in database.resolutions()] == ["e", "d", "c"]
    assert list(database.resolutions("a")) == []


def test_undoing_brings_the_conflict_back_as_it_was(database: Database) -> None:
    base, seen = forked(
        database,
        "a",
        a={"text": "one", "_attachments": {"x": attachment(b"data")}},
        b={"text": "two"},
        c={"text": "three"},
    )
    before = texts(database, "a")
    done = database.resolve("a", seen, {"text": "all"})
    undone = database.undo(done.number, by="jan")
    assert (undone.using, undone.undoes, undone.by) == ("undo", done.number, "jan")
    assert sorted(texts(database, "a")) == sorted(before)
    assert texts(database, "a")[0] == before[0]
    one = next(rev for rev in living(database, "a") if database.get("a", rev)["text"] == "one")
    assert database.get("a", one)["_attachments"]["x"]["digest"] == digest_text(md5(b"data").digest())
    with database.snapshot() as snapshot:
        found = snapshot.inspect("a")
        ancestor = found.merge_base(found.leaves)
        assert ancestor and str(ancestor.rev) == base
    assert [entry.undone_by for entry in database.resolutions("a")] == [None, undone.number]
    with pytest.raises(Conflict, match="undone already"):
        database.undo(done.number)


def test_the_former_winner_wins_again_whatever_the_digests(database: Database) -> None:
    for n in range(20):
        _, seen = forked(database, str(n), a={"text": "loser", "n": n}, b={"text": "winner", "n": n})
        database.undo(database.resolve(str(n), seen, {"text": "both"}).number)
        assert texts(database, str(n)) == ["winner", "loser"]


def test_a_deletion_of_all_can_be_undone(database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    database.undo(database.resolve("a", seen, None).number)
    assert texts(database, "a") == ["two", "one"]


def test_undoing_is_refused_once_the_document_has_moved_on(database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    done = database.resolve("a", seen, {"text": "both"})
    database.put({"_id": "a", "_rev": str(done.into), "text": "later"})
    with pytest.raises(Conflict, match=f"{done.into} is no leaf"):
        database.undo(done.number)
    with pytest.raises(NotFound, match="no record of a resolution 7"):
        database.undo(7)


def test_what_undoing_needs_is_kept_through_compaction_for_a_time(database: Database) -> None:
    _, seen = forked(database, "a", a={"text": "one"}, b={"text": "two"})
    done = database.resolve("a", seen, {"text": "both"})
    database.compact().result()
    with pytest.raises(NotFound):  # as with CouchDB, for whoever asks for it by its revision
        database.get("a", seen[1])
    undone = database.undo(done.number)
    with database.snapshot() as snapshot:
        found = snapshot.inspect("a")
        base = found.merge_base(found.leaves)
        assert base is not None and base.generation == 1
    assert texts(database, "a") == ["two", "one"]
    again = database.resolve("a", living(database, "a"), {"text": "again"})
    database.compact(Retention(undo_seconds=0)).result()
    with pytest.raises(NotFound, match="was compacted"):
        database.undo(again.number)
    assert undone.number < again.number


# --- size


def test_a_thousand_leaves_are_listed_looked_into_and_resolved(database: Database) -> None:
    base = database.put({"_id": "a", "text": "base"})
    edits = []
    for n in range(1000):
        edits.append(document.parse({"_id": "a", "text": str(n)}))
        edits[-1].path = (Rev.parse(f"2-{n:032x}"), Rev.parse(base))
    database.submit_replicated(edits).result()
    [row] = database.conflicts()
    assert row.leaves == 1000
    with database.snapshot() as snapshot:
        found = snapshot.inspect("a")
        ancestor = found.common_ancestor(found.leaves)
        assert ancestor and str(ancestor.rev) == base
        assert len(found.branches()) == 1000
        seen = [str(rev) for rev in found.revs]
    done = database.resolve("a", seen, {"text": "one"})
    assert texts(database, "a") == ["one"]
    database.undo(done.number)
    assert len(living(database, "a")) == 1000
