"""nano and follow, CouchDB clients for Node."""

import subprocess

import pytest

from .device import HERE
from .site import PASSWORD, USER, RemoteDatabase, Site


def address_of(site: Site) -> str:
    return f"http://{USER}:{PASSWORD}@127.0.0.1:{site.port}"


@pytest.mark.parametrize("program", ["nano.mjs", "nano_server.mjs"])
def test_a_day_s_work_with_nano(clients: None, common_site: Site, program: str) -> None:
    work = subprocess.run(
        ["node", HERE / program, address_of(common_site)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (work.returncode, work.stderr) == (0, "")


def test_follow_outlives_its_server(clients: None, site: Site) -> None:
    notes = RemoteDatabase(site, "notes")
    notes.put({"_id": "a", "text": "before"})
    with subprocess.Popen(
        ["node", HERE / "follow.mjs", f"{address_of(site)}/notes"], stdout=subprocess.PIPE, text=True
    ) as follower:
        assert follower.stdout is not None
        try:
            assert follower.stdout.readline() == "confirmed\n"
            assert follower.stdout.readline() == "a before\n"
            notes.put({"_id": "b", "text": "live"})
            assert follower.stdout.readline() == "b live\n"
            site.kill()
            site.start_again()
            notes.put({"_id": "c", "text": "after"})
            assert follower.stdout.readline() == "c after\n"
        finally:
            follower.kill()
