"""What the ledger tells of replications: every revision that was written, skipped or refused."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path
from typing import Any

import pytest

from couchlite.errors import DataDirectoryError, NotFound
from couchlite.records import u64
from couchlite.storage import LmdbEnvironment
from replicator import Endpoint, Ledger, Limits, Options, PeerFailure, Refusal
from replicator.ledger_rows import LedgerSpace
from replicator.peer import Change, Doc, Missing
from tests.web.in_process import Site, site

from .databases import Couch, couch

OPTIONS = Options(Endpoint("http://here/a/"), Endpoint("http://there/b/"))
NO_VOWELS = "function(doc) { if (doc.kind == 'vowel') throw({forbidden: 'no vowels'}); }"


@pytest.fixture
async def letters(server: Couch) -> None:
    """Two databases; the second lets no vowels in."""
    await server.ask("PUT", "/source")
    await server.ask("PUT", "/target")
    docs = [{"_id": letter, "kind": "vowel" if letter in "ae" else "consonant"} for letter in "abcde"]
    await server.ask("POST", "/source/_bulk_docs", {"docs": docs})
    await server.ask("PUT", "/target/_design/v", {"validate_doc_update": NO_VOWELS})


async def only(server: Couch) -> dict[str, Any]:
    """The one replication there is, with its runs and exceptions."""
    status, listing = await server.ask("GET", "/_replications")
    assert (status, listing["total_rows"]) == (200, 1)
    status, shown = await server.ask("GET", f"/_replications/{listing['replications'][0]['id'][:6]}")
    assert status == 200
    assert isinstance(shown, dict)
    return shown


async def outcomes(server: Couch, doc_id: str) -> list[str]:
    _, told = await server.ask("GET", f"/_replications/_explain?doc_id={doc_id}")
    return [event["outcome"] for found in told["replications"] for event in found["events"]]


async def test_every_revision_is_counted_and_what_was_refused_is_named(server: Couch, letters: None) -> None:
    await server.replicate("source", "target")
    shown = await only(server)
    assert [shown[name] for name in ("written", "skipped", "refused", "missing")] == [3, 0, 2, 0]
    assert (shown["state"], shown["runs"], shown["reasons"]) == ("completed", 1, {"forbidden": 2})
    assert shown["source"].endswith("/source/") and "adm" not in str(shown["source"])
    told = {(row["id"], row["outcome"], row["error"], row["reason"]) for row in shown["exceptions"]}
    assert told == {(vowel, "refused", "forbidden", "no vowels") for vowel in "ae"}
    assert all(row["rev"].startswith("1-") for row in shown["exceptions"])
    [session] = shown["sessions"]
    assert (session["written"], session["refused"], session["state"]) == (3, 2, "completed")
    assert session["started"] <= session["ended"]


async def test_a_document_is_explained(server: Couch, letters: None) -> None:
    await server.replicate("source", "target")
    assert [await outcomes(server, doc_id) for doc_id in "abz"] == [["refused"], ["written"], []]
    _, told = await server.ask("GET", "/_replications/_explain?doc_id=b")
    [event] = told["replications"][0]["events"]
    _, doc = await server.ask("GET", "/target/b")
    assert event["rev"] == doc["_rev"]
    _, told = await server.ask("GET", "/_replications/_explain?doc_id=z")
    assert told["replications"][0]["note"] == "it was never seen"


async def test_what_the_target_has_already_is_skipped(server: Couch, letters: None) -> None:
    await server.replicate("source", "target")
    await server.replicate("target", "source")
    assert sorted(await outcomes(server, "b")) == ["skipped", "written"]


async def test_documents_with_attachments_are_noted_too(server: Couch, letters: None) -> None:
    attached = {"_attachments": {"a": {"data": "QUJD"}}}
    await server.ask("PUT", "/source/f", {"kind": "consonant", **attached})
    await server.ask("PUT", "/source/i", {"kind": "vowel", **attached})
    await server.replicate("source", "target")
    assert [await outcomes(server, doc_id) for doc_id in "fi"] == [["written"], ["refused"]]


@pytest.mark.parametrize(
    ("options", "note"),
    [
        ({"doc_ids": ["b"]}, "only 1 documents that were named are replicated, and this is none of them"),
        ({"selector": {"x": 1}}, 'it was never seen; only what the selector {"x":1} matches is replicated'),
        ({"filter": "_design"}, "it was never seen; only what passes the filter _design is replicated"),
    ],
)
async def test_why_a_document_was_not_seen(
    server: Couch, letters: None, options: dict[str, Any], note: str
) -> None:
    await server.replicate("source", "target", **options)
    _, told = await server.ask("GET", "/_replications/_explain?doc_id=c")
    [found] = told["replications"]
    assert (found["events"], found["note"]) == ([], note)


async def test_a_run_that_fails_is_there_with_its_reason_once(server: Couch, letters: None) -> None:
    for _ in range(3):
        await server.replicate("source", server.endpoint("nowhere"))
    shown = await only(server)
    assert shown["runs"] == 3
    [session] = shown["sessions"]
    assert (session["state"], session["repeats"]) == ("failed", 2)
    assert session["reason"].startswith("db_not_found: could not open ")


@pytest.mark.parametrize("path", ["x", "x/_explain?doc_id=a", "_explain"])
async def test_what_is_not_there(server: Couch, letters: None, path: str) -> None:
    status, _ = await server.ask("GET", f"/_replications/{path}")
    assert status == (400 if path == "_explain" else 404)
    await server.replicate("source", "target")
    status, _ = await server.ask("GET", f"/_replications/{path}")
    assert status == (400 if path == "_explain" else 404)


async def test_it_is_for_administrators(site: Site) -> None:
    assert (await site.ask("GET", "/_replications", auth=None)).status == 401


async def test_what_was_done_outlives_the_server(tmp_path: Path) -> None:
    for run in (1, 2):
        async with site(tmp_path) as running, couch(f"http://127.0.0.1:{running.port}") as server:
            if run == 1:
                await server.ask("PUT", "/source")
                await server.ask("PUT", "/source/doc", {})
                endpoints = "source", server.endpoint("target")
                await server.replicate(*endpoints, create_target=True)
            assert await outcomes(server, "doc") == ["written"]


# --- the ledger itself


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    with contextlib.closing(Ledger(tmp_path, lambda: Limits(exceptions=3, outcomes=10_000))) as opened:
        yield opened


def docs(start: int, count: int) -> list[Doc]:
    return [Doc(f"doc-{number}", f"1-{number:032x}") for number in range(start, start + count)]


async def test_rows_are_bounded_and_the_oldest_are_dropped_and_counted(ledger: Ledger) -> None:
    async with ledger.session("r1", OPTIONS) as record:
        for start in range(0, 30_000, 1000):
            record.wrote(docs(start, 1000))
            await record.flush(start)
        record.refused([Refusal(f"refused-{number}", "1-a", "forbidden", "no") for number in range(5)])
        record.refused([Refusal("refused-last", "1-a", "unauthorized", "no")])
    shown = ledger.show("r1")
    assert shown["written"] == 30_000 and shown["refused"] == 6
    assert shown["reasons"] == {"forbidden": 5, "unauthorized": 1}
    assert [row["id"] for row in shown["exceptions"]] == ["refused-last", "refused-4", "refused-3"]
    assert shown["exceptions_dropped"] == 3
    assert 10_000 <= shown["outcomes_kept"] <= 14_000
    assert shown["outcomes_kept"] + shown["outcomes_dropped"] == 30_000
    assert [event["outcome"] for event in ledger.explain("doc-29999")[0]["events"]] == ["written"]
    dropped = ledger.explain("doc-0")[0]
    assert dropped["events"] == [] and "older events than those kept were dropped" in dropped["note"]


async def test_what_is_told_between_flushes_is_bounded_too(ledger: Ledger) -> None:
    async with ledger.session("r1", OPTIONS) as record:
        for start in range(0, 100_000, 500):
            record.wrote(docs(start, 500))  # with no turn for a flush
        changes = [Change(1, f"known-{number}", ("1-a", "1-b")) for number in range(50_000)]
        record.skipped(changes, [Missing("known-0", ("1-b",))])
    shown = ledger.show("r1")
    assert (shown["written"], shown["skipped"]) == (100_000, 99_999)
    assert shown["outcomes_kept"] + shown["outcomes_dropped"] == 100_000 + 49_999
    assert ledger.explain("known-49999")[0]["events"][0]["outcome"] == "skipped"


async def test_only_so_many_runs_are_kept(ledger: Ledger) -> None:
    for number in range(55):
        async with ledger.session("r1", OPTIONS) as record:
            record.began(f"session {number}", 0)
    shown = ledger.show("r1")
    assert shown["runs"] == 55
    assert [session["id"] for session in shown["sessions"]] == [f"session {n}" for n in range(54, 4, -1)]


async def test_a_run_whose_process_died_is_found_interrupted(tmp_path: Path) -> None:
    first = Ledger(tmp_path)
    lost = first.session("r1", OPTIONS)
    await lost.__aenter__()
    assert first.show("r1")["state"] == "running"
    async with first.session("r1", OPTIONS):
        pass
    assert [row["state"] for row in first.show("r1")["sessions"]] == ["completed", "interrupted"]
    first.close()


async def test_a_continuous_run_that_rested_goes_on(ledger: Ledger) -> None:
    options = Options(OPTIONS.source, OPTIONS.target, continuous=True)
    for number in range(3):
        async with ledger.session("r1", options) as record:
            record.began(f"session {number}", number)
            assert ledger.show("r1")["state"] == "running"
            record.wrote(docs(number, 1))
            await record.flush(number + 1)
        assert ledger.show("r1")["state"] == "resting"
    shown = ledger.show("r1")
    [session] = shown["sessions"]
    assert (shown["runs"], shown["written"], session["written"]) == (1, 3, 3)
    assert (session["id"], session["start_seq"], session["end_seq"]) == ("session 2", 0, 3)
    with pytest.raises(PeerFailure):
        async with ledger.session("r1", options):
            raise PeerFailure("error", "lost")
    async with ledger.session("r1", options):
        pass
    assert [row["state"] for row in ledger.show("r1")["sessions"]] == ["resting", "failed"]


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (PeerFailure("error", "lost"), "failed", "error: lost"),
        (ZeroDivisionError(), "failed", "internal error, see the log"),
        (asyncio.CancelledError(), "stopped", None),
    ],
)
async def test_how_a_run_ends_is_noted(
    ledger: Ledger, error: BaseException, state: str, reason: str | None
) -> None:
    with pytest.raises(type(error)):
        async with ledger.session("r1", OPTIONS) as record:
            record.wrote(docs(0, 1))
            raise error
    shown = ledger.show("r1")
    assert (shown["state"], shown["reason"], shown["written"]) == (state, reason, 1)


async def test_runs_of_many_replications_at_once(ledger: Ledger) -> None:
    async def one(number: int) -> None:
        async with ledger.session(f"r{number}", OPTIONS) as record:
            record.wrote(docs(number, 1))

    await asyncio.gather(*[one(number) for number in range(40)])
    assert len(ledger.replications()) == 40
    assert [len(ledger.explain("doc-7", f"r{number}")[0]["events"]) for number in (7, 8)] == [1, 0]
    with pytest.raises(NotFound):
        ledger.show("r")  # which may be any of them


async def test_strange_ids_are_found(ledger: Ledger) -> None:
    ids = ['quo"te', "a/b", "☃", "new\nline", '","', "back\\slash", "x" * 1000]
    async with ledger.session("r1", OPTIONS) as record:
        record.wrote([Doc(doc_id, "1-a") for doc_id in ids])
        record.skipped([Change(1, "other", ("1-a",))], [])
    for doc_id in ids:
        assert [event["id"] for event in ledger.explain(doc_id)[0]["events"]] == [doc_id]
    assert ledger.explain("quo")[0]["events"] == []


def test_nothing_is_made_by_looking(ledger: Ledger, tmp_path: Path) -> None:
    assert ledger.replications() == [] and ledger.explain("x") == []
    assert list(tmp_path.iterdir()) == []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    engine = LmdbEnvironment(tmp_path / "ledger.mdb", LedgerSpace, create=True)
    engine.write(lambda batch: batch.put(LedgerSpace.META, b"format", u64(99)))
    engine.close()
    with contextlib.closing(Ledger(tmp_path)) as ledger, pytest.raises(DataDirectoryError, match="format 99"):
        ledger.replications()
