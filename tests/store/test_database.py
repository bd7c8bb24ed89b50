"""The embedded database through its door: what edits are taken, what they do, what is told of them."""

import threading
from typing import Any

import pytest

from couchlite import (
    Conflict,
    Database,
    DatabaseExists,
    DatabaseNotFound,
    DataDirectoryError,
    NotFound,
    Rev,
    Server,
    document,
)
from couchlite.catalog import Entry
from couchlite.errors import BadRequest, IllegalDatabaseName, MissingStub, TooLarge

from .helpers import attachment, graft, leaves

A, B, C = ("a" * 32, "b" * 32, "c" * 32)


def test_a_document_is_read_back_with_its_revision(database: Database) -> None:
    rev = database.put({"_id": "a", "text": "hello", "n": [1, 2.5, None, True]})
    assert database.get("a") == {"_id": "a", "_rev": rev, "text": "hello", "n": [1, 2.5, None, True]}


def test_an_empty_document_has_the_revision_that_couchdb_gives_it(database: Database) -> None:
    assert database.put({"_id": "a"}) == "1-967a00dff5e02add41819138abb3284d"


def test_the_same_history_gives_the_same_revisions_in_two_databases(store: Server) -> None:
    histories = []
    for name in ("one", "two"):
        database = store.create(name)
        first = database.put({"_id": "a", "n": 1})
        second = database.put({"_id": "a", "_rev": first, "n": 2})
        histories.append((first, second, database.delete("a", second)))
    assert histories[0] == histories[1]


@pytest.mark.parametrize(
    "edit",
    [
        pytest.param({"_id": "a", "n": 3}, id="without a revision on a living document"),
        pytest.param({"_id": "a", "_rev": "1-" + A, "n": 3}, id="on a revision that never was"),
        pytest.param({"_id": "a", "_rev": "FIRST", "n": 3}, id="on a revision that has a successor"),
        pytest.param({"_id": "new", "_rev": "1-" + A, "n": 3}, id="on a revision of an unknown document"),
    ],
)
def test_an_edit_conflicts(database: Database, edit: dict[str, Any]) -> None:
    first = database.put({"_id": "a", "n": 1})
    database.put({"_id": "a", "_rev": first, "n": 2})
    with pytest.raises(Conflict):
        database.put({name: first if value == "FIRST" else value for name, value in edit.items()})
    assert database.get("a")["n"] == 2
    assert database.info().doc_count == 1


def test_a_deleted_document_is_gone_and_can_be_made_again_on_top_of_its_tombstone(database: Database) -> None:
    first = database.put({"_id": "a"})
    tombstone = database.delete("a", first)
    with pytest.raises(NotFound, match="deleted"):
        database.get("a")
    with pytest.raises(Conflict):
        database.put({"_id": "a", "_rev": tombstone})
    assert database.put({"_id": "a"}).startswith("3-")
    assert database.info().doc_del_count == 0


def test_the_winner_is_the_higher_revision_and_never_a_deleted_one(database: Database) -> None:
    graft(database, "a", [f"2-{A}", f"1-{C}"], n=1)
    graft(database, "a", [f"2-{B}", f"1-{C}"], n=2)
    assert leaves(database, "a") == [f"2-{B}", f"2-{A}"]
    graft(database, "a", [f"3-{C}", f"2-{B}", f"1-{C}"], _deleted=True)
    assert leaves(database, "a") == [f"2-{A}", f"3-{C}"]
    assert database.get("a")["n"] == 1


def test_a_grafted_revision_that_is_known_is_ignored(database: Database) -> None:
    graft(database, "a", [f"2-{A}", f"1-{C}"], n=1)
    before = database.info().update_seq
    graft(database, "a", [f"2-{A}", f"1-{C}"], n=2)
    assert database.info().update_seq == before
    assert database.get("a")["n"] == 1


def test_editing_a_losing_leaf_extends_its_branch(database: Database) -> None:
    graft(database, "a", [f"2-{A}", f"1-{C}"], n=1)
    graft(database, "a", [f"2-{B}", f"1-{C}"], n=2)
    loser = database.put({"_id": "a", "_rev": f"2-{A}", "n": 3})
    assert leaves(database, "a") == [loser, f"2-{B}"]


def test_histories_are_stemmed_to_the_limit(database: Database) -> None:
    database.set_revs_limit(3)
    rev = database.put({"_id": "a", "n": 0})
    for n in range(1, 10):
        rev = database.put({"_id": "a", "_rev": rev, "n": n})
    with database.snapshot() as snapshot:
        found = snapshot.document("a")
        assert found is not None
        assert [path.generation for path in found.tree.path(found.leaves()[0])] == [10, 9, 8]


def test_attachments_keep_their_bytes_and_stubs_refer_to_them(database: Database) -> None:
    text, octets = b"some text " * 500, bytes(range(256)) * 300
    rev = database.put(
        {"_id": "a", "_attachments": {"t": attachment(text, "text/plain"), "o": attachment(octets)}}
    )
    database.put({"_id": "a", "_rev": rev, "_attachments": {"t": {"stub": True}, "o": {"stub": True}}})
    with database.snapshot() as snapshot:
        infos = {info.name: info for info in snapshot.winner("a").attachments}
        assert (infos["t"].encoding, infos["t"].identity_length) == ("gzip", len(text))
        with snapshot.blob(infos["t"]) as source:
            assert b"".join(source.gunzipped()) == text
        with snapshot.blob(infos["o"]) as source:
            assert source.read() == octets
    assert [info.revpos for info in infos.values()] == [1, 1]


def test_a_stub_of_nothing_refuses_the_whole_request(database: Database) -> None:
    edits = [
        document.parse({"_id": "good"}),
        document.parse({"_id": "bad", "_attachments": {"x": {"stub": True}}}),
    ]
    with pytest.raises(MissingStub):
        database.submit_edits(edits).result()
    assert database.info().doc_count == 0


def test_ids_longer_than_a_key_stay_in_order(database: Database) -> None:
    base = "é" * 300
    ids = [base + suffix for suffix in ("", "m", "a", "z", "mm", "b", "y")] + ["short", "zz"]
    for doc_id in ids:
        database.put({"_id": doc_id})
    with database.snapshot() as snapshot:
        listed = [doc_id.decode() for doc_id in snapshot.docs().ids]
        backwards = [doc_id.decode() for doc_id in snapshot.docs(reverse=True).ids]
        from_middle = [doc_id.decode() for doc_id in snapshot.docs((base + "m").encode()).ids]
    assert listed == sorted(ids, key=str.encode)
    assert backwards == listed[::-1]
    assert from_middle == listed[listed.index(base + "m") :]
    rev = database.get(base + "m")["_rev"]
    database.delete(base + "m", rev)
    with pytest.raises(NotFound):
        database.get(base + "m")


def test_many_long_ids_in_an_awkward_order_run_out_of_no_labels(database: Database) -> None:
    base = "x" * 510
    ids = [f"{base}{n:04d}" for n in range(200, 0, -1)]
    database.update([document.parse({"_id": doc_id}) for doc_id in ids])
    with database.snapshot() as snapshot:
        assert [doc_id.decode() for doc_id in snapshot.docs().ids] == ids[::-1]


def test_concurrent_writers_commit_together_and_none_is_lost(database: Database) -> None:
    def write(n: int) -> None:
        for i in range(50):
            database.put({"_id": f"{n}-{i}", "n": i})

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert database.info().doc_count == 400


def test_of_racing_edits_of_one_revision_exactly_one_wins(database: Database) -> None:
    rev = database.put({"_id": "a"})
    futures = [database.submit_edits([document.parse({"_id": "a", "_rev": rev, "n": n})]) for n in range(20)]
    results = [future.result()[0] for future in futures]
    assert sum(isinstance(result, Rev) for result in results) == 1


def test_bodies_stay_readable_across_learnt_dictionaries(database: Database) -> None:
    docs = [
        {"_id": f"{n:05d}", "kind": "note", "title": f"note number {n}", "tags": ["x"]} for n in range(2500)
    ]
    for at in range(0, len(docs), 500):
        database.update([document.parse(doc) for doc in docs[at : at + 500]])
    for doc in docs[::97]:
        assert {name: value for name, value in database.get(str(doc["_id"])).items() if name != "_rev"} == doc


@pytest.mark.parametrize("name", ["Upper", "1st", "", "_mine", "a b", "a" * 239, "ä"])
def test_a_database_name_is_refused(store: Server, name: str) -> None:
    with pytest.raises(IllegalDatabaseName):
        store.create(name)


def test_databases_are_created_listed_and_deleted(store: Server) -> None:
    for name in ("b", "a/b", "a"):
        store.create(name)
    assert store.names() == ["a", "a/b", "b"]
    with pytest.raises(DatabaseExists):
        store.create("a")
    store.delete("a")
    with pytest.raises(DatabaseNotFound):
        store.open("a")
    assert store.create("a").info().doc_count == 0


def test_a_directory_of_something_else_is_refused(tmp_path: Any) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(DataDirectoryError, match="photo"):
        Server(tmp_path)


def test_a_body_over_the_limit_is_refused() -> None:
    with pytest.raises(TooLarge):
        document.parse({"_id": "a", "text": "x" * 100}, max_size_bytes=50)


@pytest.mark.parametrize(
    ("doc", "reason"),
    [
        ({"_id": "a", "_nope": 1}, "Bad special document member: _nope"),
        ({"_id": "a", "_rev": "x"}, "Invalid rev format"),
        ({"_id": "_x"}, "Only reserved document ids may start with underscore."),
        ({"_id": "a", "_attachments": {"_x": {}}}, "prohibited character"),
        ([], "Document must be a JSON object"),
    ],
)
def test_a_bad_document_is_refused_with_couchdbs_reason(doc: Any, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason):
        document.parse(doc)


def test_attachments_carried_over_from_a_revision_that_was_swept_meanwhile_are_a_conflict(
    database: Database,
) -> None:
    database.put({"_id": "a", "_attachments": {"x": attachment(b"some data" * 5000)}})
    with database.snapshot() as snapshot:
        source = snapshot.winner("a")
    copy = document.parse({"_id": "b"})
    (info,) = source.attachments
    copy.attachments = [document.AttachmentEdit(info.name, info.content_type, stored=info)]
    database.purge({"a": [source.rev]}).result()
    database.compact().result()
    with pytest.raises(Conflict):
        database.update([copy])


def test_who_comes_late_to_a_deleted_database_does_not_wait_for_those_who_still_use_it(store: Server) -> None:
    held = store.create("db")
    read_before = store.catalog.find("db")
    store.delete("db")
    outcome: list[str] = []

    def come_late() -> None:
        try:
            store._database(read_before)
        except DatabaseNotFound as error:
            outcome.append(error.reason)

    late = threading.Thread(target=come_late, daemon=True)
    late.start()
    late.join(10)
    assert outcome == ["Database does not exist."]
    assert held.gone


def test_a_database_whose_files_are_being_removed(store: Server) -> None:
    path = store.path / "db" / ("0" * 32)
    path.mkdir()
    with pytest.raises(DatabaseNotFound):
        store._database(Entry("db", path.name, 0.0, {}))


def test_a_database_made_anew_is_another(store: Server) -> None:
    first = store.create("db")
    assert not store.has_deleted(first)
    store.delete("db")
    second = store.create("db")
    assert store.has_deleted(first)
    assert not store.has_deleted(second)
