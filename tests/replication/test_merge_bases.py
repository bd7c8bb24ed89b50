"""What a conflict's leaves come from is carried along with them, to servers that can do something with it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from .databases import Couch

A, B = "a" * 32, "b" * 32


async def ask(server: Couch, method: str, path: str, body: Any = None, status: int = 200) -> Any:
    found, answer = await server.ask(method, path, body)
    assert found == status, answer
    return answer


async def edit(server: Couch, database: str, digest: str, base: str, **fields: Any) -> None:
    """A second revision, as another peer made it."""
    revisions = {"start": 2, "ids": [digest, base.partition("-")[2]]}
    doc = {"_id": "x", "_revisions": revisions, **fields}
    await ask(server, "POST", f"/{database}/_bulk_docs", {"docs": [doc], "new_edits": False}, 201)


async def make_conflict(server: Couch, database: str, **base_fields: Any) -> str:
    """A document in conflict, whose base only merging can read any more; the base."""
    await ask(server, "PUT", f"/{database}", status=201)
    base: str = (await ask(server, "PUT", f"/{database}/x", {"n": 0, **base_fields}, 201))["rev"]
    kept = {name: {"stub": True, "revpos": 1} for name in base_fields.get("_attachments", ())}
    attachments = {"_attachments": kept} if kept else {}
    await edit(server, database, A, base, n=0, left=True, **attachments)
    await edit(server, database, B, base, n=0, right=True, **attachments)
    await compact(server, database)
    await ask(server, "GET", f"/{database}/x?rev={base}", status=404)
    return base


async def compact(server: Couch, database: str) -> None:
    await ask(server, "POST", f"/{database}/_compact", {}, 202)
    while (await ask(server, "GET", f"/{database}"))["compact_running"]:
        pass


async def base_of(server: Couch, database: str) -> tuple[Any, Any]:
    """The revision and the document that a merge starts from."""
    found = await ask(server, "GET", f"/{database}/_conflicts/x")
    return found["base"], found["bases"].get(found["base"])


@pytest.mark.parametrize("way", ["within", "push", "pull"])
@pytest.mark.parametrize("with_attachment", [False, True])
async def test_a_target_can_merge_after_compaction_at_the_source(
    server: Couch, other: Couch, way: str, with_attachment: bool
) -> None:
    data = {"content_type": "text/plain", "data": base64.b64encode(b"text").decode()}
    fields: dict[str, Any] = {"_attachments": {"file": data}} if with_attachment else {}
    source, target = {"within": (server, server), "push": (server, other), "pull": (other, server)}[way]
    base = await make_conflict(source, "source", **fields)
    await ask(target, "PUT", "/target", status=201)
    ends: tuple[Any, Any] = (
        "source" if source is server else source.endpoint("source"),
        "target" if target is server else target.endpoint("target"),
    )
    status, answer = await server.replicate(*ends)
    assert status == 200 and answer["history"][0]["docs_written"] == 2
    rev, document = await base_of(target, "target")
    assert (rev, document["n"], "file" in document.get("_attachments", {})) == (base, 0, with_attachment)
    # Nobody else sees a difference.
    await ask(target, "GET", f"/target/x?rev={base}", status=404)
    info = await ask(target, "GET", "/target/x?revs_info=true")
    assert [revision["status"] for revision in info["_revs_info"]] == ["available", "missing"]
    assert (await ask(target, "GET", "/target"))["update_seq"].startswith(
        "1-" if not with_attachment else "2-"
    )
    merged = await ask(target, "POST", "/target/_conflicts/x/_merge", {})
    assert merged["clashes"] == [] and {"left", "right"} < set(merged["document"])
    await compact(target, "target")
    assert (await base_of(target, "target"))[0] == base


@pytest.mark.parametrize("way", ["within", "push", "pull"])
async def test_a_conflict_that_arises_by_replication_can_be_merged_if_the_source_still_knows(
    server: Couch, other: Couch, way: str
) -> None:
    source, target = {"within": (server, server), "push": (server, other), "pull": (other, server)}[way]
    for end, database in ((source, "source"), (target, "target")):
        await ask(end, "PUT", f"/{database}", status=201)
        base = (await ask(end, "PUT", f"/{database}/x", {"n": 0}, 201))["rev"]
        await edit(end, database, A if end is source and database == "source" else B, base, n=database)
    await compact(target, "target")
    await server.replicate(
        "source" if source is server else source.endpoint("source"),
        "target" if target is server else target.endpoint("target"),
    )
    assert await base_of(target, "target") == (base, {"_id": "x", "_rev": base, "n": 0})


async def test_bases_are_served_to_who_asks_for_them_only(server: Couch) -> None:
    base = await make_conflict(server, "source")
    asked = {"docs": [{"id": "x", "rev": base}]}
    plain = await ask(server, "POST", "/source/_bulk_get", asked)
    assert "error" in plain["results"][0]["docs"][0]
    found = await ask(server, "POST", "/source/_bulk_get?merge_bases=true", asked)
    assert found["results"][0]["docs"][0]["ok"]["n"] == 0
    assert await ask(server, "POST", "/source/_conflicts/_missing_bases", {"ids": ["x", "y"]}) == {
        "missing": {}
    }


async def test_only_what_is_lacking_is_taken_over(server: Couch) -> None:
    await ask(server, "PUT", "/notes", status=201)
    base = f"1-{'c' * 32}"
    await edit(server, "notes", A, base)
    bases: dict[str, Any] = {"docs": [{"_id": "x", "_rev": base, "n": 7}, {"_id": "y", "_rev": base}]}
    # It is no conflict yet, so nothing is lacking.
    assert (await ask(server, "POST", "/notes/_conflicts/_bases", bases, 201))["stored"] == 0
    await edit(server, "notes", B, base)
    missing = await ask(server, "POST", "/notes/_conflicts/_missing_bases", {"ids": ["x"]})
    assert missing == {"missing": {"x": [base]}}
    unknown = {"f": {"stub": True, "digest": "md5-AAAAAAAAAAAAAAAAAAAAAA=="}}
    docs = [{"_id": "x", "_rev": base, "_attachments": unknown}]
    assert (await ask(server, "POST", "/notes/_conflicts/_bases", {"docs": docs}, 201))["stored"] == 0
    assert (await ask(server, "POST", "/notes/_conflicts/_bases", bases, 201))["stored"] == 1
    assert await base_of(server, "notes") == (base, {"_id": "x", "_rev": base, "n": 7})
    bases["docs"][0]["n"] = 8
    assert (await ask(server, "POST", "/notes/_conflicts/_bases", bases, 201))["stored"] == 0
    for body in ({}, {"docs": 1}, {"docs": [{"_id": "x"}]}, {"docs": [1]}):
        await ask(server, "POST", "/notes/_conflicts/_bases", body, 400)
    for body in ({}, {"ids": 1}, {"ids": [1]}):
        await ask(server, "POST", "/notes/_conflicts/_missing_bases", body, 400)
