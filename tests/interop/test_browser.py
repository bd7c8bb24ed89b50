"""What only a page sees: which origins are let in, sessions in cookies, and feeds over WebSockets, of which
a page can have more than the six connections that a browser makes to a host.
"""

from __future__ import annotations

from typing import Any

import pytest

from ..waiting import wait_until
from .conftest import allow_origin
from .device import Device, DeviceError
from .site import PASSWORD, USER, RemoteDatabase, Site

pytestmark = pytest.mark.slow

FEEDS = 25
"""Well above the connections that a browser makes to a host: 6."""


def log_in(page: Device, site: Site) -> None:
    answer = page.ask("logIn", server=site.url, username=USER, password=PASSWORD)
    assert answer["ok"] and answer["name"] == USER


def feed_address(site: Site, database: str, query: str = "since=now") -> str:
    return f"ws://127.0.0.1:{site.port}/{database}/_changes?feed=websocket&{query}"


def messages(page: Device) -> list[list[dict[str, Any]]]:
    """What each feed has received."""
    return [feed["messages"] for feed in page.ask("feeds")]


def test_a_page_reads_a_database_only_when_its_origin_is_allowed(browser: Device, site: Site) -> None:
    RemoteDatabase(site, "notes")
    browser.ask("open", name="notes", remote=f"{site.url}/notes", username=USER, password=PASSWORD)
    with pytest.raises(DeviceError, match="Failed to fetch"):
        browser.ask("remoteInfo")
    allow_origin(site, "http://somewhere.else.example")
    with pytest.raises(DeviceError, match="Failed to fetch"):
        browser.ask("remoteInfo")
    allow_origin(site, browser.greeting)
    assert browser.ask("remoteInfo")["db_name"] == "notes"


def test_a_page_sees_the_errors_of_a_server_of_another_origin(page: Device, site: Site) -> None:
    page.ask("open", name="notes", remote=f"{site.url}/nowhere", username=USER, password=PASSWORD)
    with pytest.raises(DeviceError, match="not_found"):
        page.ask("syncOnce")
    page.ask("open", name="notes", remote=f"{site.url}/_users", username=USER, password="wrong")
    with pytest.raises(DeviceError, match="unauthorized"):
        page.ask("syncOnce")


def test_a_page_syncs_by_the_cookie_of_its_session(page: Device, site: Site) -> None:
    notes = RemoteDatabase(site, "notes")
    notes.put({"_id": "a", "text": "from the server"})
    page.ask("open", name="notes", remote=f"{site.url}/notes")
    with pytest.raises(DeviceError, match="unauthorized"):
        page.ask("syncOnce")
    log_in(page, site)
    page.ask("put", doc={"_id": "b", "text": "from the page"})
    assert page.ask("syncOnce") == {"pushed": 1, "pulled": 1, "failed": 0}
    assert page.ask("leaves") == notes.leaves()


def test_websocket_feeds_beyond_the_browser_s_limit_of_connections(page: Device, site: Site) -> None:
    names = [f"feed-{number}" for number in range(FEEDS)]
    databases = [RemoteDatabase(site, name) for name in names]
    log_in(page, site)
    feeds = page.ask("openFeeds", addresses=[feed_address(site, name) for name in names])
    assert [feed["state"] for feed in feeds] == ["open"] * FEEDS

    revs = [database.put({"_id": "a"}) for database in databases]
    wait_until(lambda: all(messages(page)))
    for [row], rev in zip(messages(page), revs, strict=True):
        assert (row["id"], row["changes"]) == ("a", [{"rev": rev}])
    # With all of them open, the page's other requests get through.
    page.ask("open", name="notes", remote=f"{site.url}/feed-0")
    assert page.ask("syncOnce")["pulled"] == 1

    page.ask("closeFeeds")
    wait_until(lambda: all(feed["state"] == "closed" for feed in page.ask("feeds")))


def test_a_websocket_feed_starts_where_it_is_told_and_shows_documents(page: Device, site: Site) -> None:
    notes = RemoteDatabase(site, "notes")
    first = notes.put({"_id": "a", "text": "grüße"})
    log_in(page, site)
    page.ask("openFeeds", addresses=[feed_address(site, "notes", "since=0&include_docs=true")])
    wait_until(lambda: messages(page)[0])
    [row] = messages(page)[0]
    assert row["doc"] == {"_id": "a", "_rev": first, "text": "grüße"}
    notes.remove("a")
    wait_until(lambda: len(messages(page)[0]) == 2)
    later = messages(page)[0][1]
    assert later["deleted"] is True

    # A page that comes back goes on after the last row that it has seen.
    page.ask("openFeeds", addresses=[feed_address(site, "notes", f"since={row['seq']}&limit=1")])
    wait_until(lambda: page.ask("feeds")[1]["state"] == "closed")
    again, end = messages(page)[1]
    assert (again["id"], again["changes"]) == ("a", later["changes"])
    assert end == {"last_seq": again["seq"], "pending": 0}


def test_a_websocket_feed_ends_when_its_server_stops_or_its_database_is_gone(
    page: Device, site: Site
) -> None:
    for name in ("kept", "deleted"):
        RemoteDatabase(site, name)
    log_in(page, site)
    page.ask("openFeeds", addresses=[feed_address(site, name) for name in ("kept", "deleted")])
    site.ask("DELETE", "/deleted")
    wait_until(lambda: [feed["state"] for feed in page.ask("feeds")] == ["open", "closed"])
    assert "last_seq" in messages(page)[1][-1]
    site.stop()
    wait_until(lambda: page.ask("feeds")[0]["state"] == "closed")
    [kept, _deleted] = page.ask("feeds")
    assert kept["code"] == 1001  # going away


def test_a_websocket_feed_is_refused_to_strangers(browser: Device, site: Site) -> None:
    RemoteDatabase(site, "notes")
    # Of an origin that is not listed, with the cookie of a session or without it.
    [stranger] = browser.ask("openFeeds", addresses=[feed_address(site, "notes")])
    assert stranger["state"] == "refused"
    allow_origin(site, browser.greeting)
    [_, anonymous] = browser.ask("openFeeds", addresses=[feed_address(site, "notes")])
    assert anonymous["state"] == "refused"
    log_in(browser, site)
    [*_, member, nowhere] = browser.ask(
        "openFeeds", addresses=[feed_address(site, "notes"), feed_address(site, "nowhere")]
    )
    assert (member["state"], nowhere["state"]) == ("open", "refused")
    site.configure(cors={"origins": "http://somewhere.else.example"})
    [*_, foreign] = browser.ask("openFeeds", addresses=[feed_address(site, "notes")])
    assert foreign["state"] == "refused"
