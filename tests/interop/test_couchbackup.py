"""couchbackup, the tool that users of CouchDB and Cloudant back databases up with."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from .device import HERE
from .site import PASSWORD, USER, RemoteDatabase, Site

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """couchbackup does not remove those that it makes."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))


def couchbackup(program: str, site: Site, database: str, *options: str, given: str = "") -> str:
    """Run one of the two programs; what it writes. It has to end well."""
    work = subprocess.run(
        [
            HERE / "node_modules" / ".bin" / program,
            *("--url", f"http://{USER}:{PASSWORD}@127.0.0.1:{site.port}"),
            *("--db", database, "--quiet", *options),
        ],
        input=given,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert work.returncode == 0, work.stderr
    return work.stdout


def fill(database: RemoteDatabase) -> None:
    """Documents of all kinds: plain, deleted, in conflict, with odd names."""
    docs = [{"_id": f"plain {number:02}", "number": number} for number in range(40)]
    docs += [{"_id": name} for name in ("_design/app", "ü/☃?", "a+b&c")]
    assert all("rev" in row for row in database.bulk(docs))
    database.remove("plain 07")
    for digests in (["a", "c"], ["b", "c"], ["d"]):
        ids = [digest * 32 for digest in digests]
        graft = {
            "_id": "in conflict",
            "_rev": f"{len(ids)}-{ids[0]}",
            "_revisions": {"start": len(ids), "ids": ids},
            "side": digests[0],
        }
        assert database.bulk([graft], new_edits=False) == []


def test_everything_comes_back_from_a_full_backup(clients: None, common_site: Site) -> None:
    original = RemoteDatabase(common_site, "full")
    fill(original)
    backup = couchbackup("couchbackup", common_site, "full", "--buffer-size", "10")
    restored = RemoteDatabase(common_site, "full-restored")
    couchbackup("couchrestore", common_site, "full-restored", given=backup)
    assert restored.leaves() == original.leaves()


def test_attachments_are_in_a_backup_when_asked_for(clients: None, common_site: Site) -> None:
    original = RemoteDatabase(common_site, "attached")
    picture = random.Random(5).randbytes(100_000)
    original.attach("album", picture=("image/png", picture), note=("text/plain", b"note " * 1000))
    original.edit("album", comment="attachments stay")
    backup = couchbackup("couchbackup", common_site, "attached", "--attachments")
    restored = RemoteDatabase(common_site, "attached-restored")
    couchbackup("couchrestore", common_site, "attached-restored", "--attachments", given=backup)
    assert restored.leaves() == original.leaves()


def test_a_shallow_backup_holds_the_winners(clients: None, common_site: Site) -> None:
    original = RemoteDatabase(common_site, "shallow")
    fill(original)
    backup = couchbackup("couchbackup", common_site, "shallow", "--mode", "shallow")
    restored = RemoteDatabase(common_site, "shallow-restored")
    couchbackup("couchrestore", common_site, "shallow-restored", given=backup)
    winners = {doc_id: found["winner"] for doc_id, found in original.leaves().items() if found["winner"]}
    assert {doc_id: found["winner"] for doc_id, found in restored.leaves().items()} == winners
    assert restored.revisions()["in conflict"] == [winners["in conflict"]]


def test_a_backup_that_was_broken_off_goes_on(clients: None, common_site: Site, tmp_path: Path) -> None:
    original = RemoteDatabase(common_site, "broken-off")
    fill(original)
    log, file = tmp_path / "backup.log", tmp_path / "backup.txt"
    options = ("--buffer-size", "10", "--parallelism", "1", "--log", str(log), "--output", str(file))
    couchbackup("couchbackup", common_site, "broken-off", *options)
    complete = file.read_text()

    # As if it had been stopped before its last two batches.
    done = [line for line in log.read_text().splitlines() if line.startswith(":d ")]
    log.write_text("".join(line + "\n" for line in log.read_text().splitlines() if line not in done[-2:]))
    file.write_text("".join(complete.splitlines(keepends=True)[:-2]))
    rest = couchbackup("couchbackup", common_site, "broken-off", "--log", str(log), "--resume")
    restored = RemoteDatabase(common_site, "broken-off-restored")
    couchbackup("couchrestore", common_site, "broken-off-restored", given=file.read_text() + rest)
    assert restored.leaves() == original.leaves()
