"""/_utils/: the web console's files, where there are any."""

from __future__ import annotations

from pathlib import Path

import pytest

from .in_process import Site


@pytest.fixture
def console(web: Site, tmp_path: Path) -> Site:
    """The application with a folder of files."""
    folder = tmp_path / "console"
    (folder / "js").mkdir(parents=True)
    (folder / "index.html").write_text("<title>console</title>")
    (folder / "js" / "a b.js").write_text("start()")
    (folder / "outside").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_text("secret")
    web.app.fauxton_dir = folder
    return web


async def test_without_a_console_a_page_tells_how_to_have_one(web: Site) -> None:
    for target in ("/_utils", "/_utils/", "/_utils/js/a.js"):
        reply = await web.ask("GET", target, auth=None)
        assert (reply.status, reply.headers["content-type"]) == (404, "text/html; charset=utf-8")
        assert b"--fauxton-dir" in reply.body


async def test_files_and_their_types(console: Site) -> None:
    index = await console.ask("GET", "/_utils/", auth=None)
    assert (index.status, index.body) == (200, b"<title>console</title>")
    assert index.headers["content-type"] == "text/html"
    assert index.headers["cache-control"] == "private, must-revalidate"
    assert "script-src 'self' 'unsafe-eval'" in index.headers["content-security-policy"]
    script = await console.ask("GET", "/_utils/js/a%20b.js?v=1", auth=None)
    assert (script.status, script.body) == (200, b"start()")
    assert script.headers["content-type"].endswith("/javascript")
    again = await console.ask("GET", "/_utils/", headers={"If-None-Match": index.headers["etag"]})
    assert (again.status, again.body) == (304, b"")
    head = await console.ask("HEAD", "/_utils/index.html")
    assert (head.status, head.headers["content-length"], head.body) == (200, "22", b"")


async def test_the_folder_s_address_ends_with_a_slash(console: Site) -> None:
    reply = await console.ask("GET", "/_utils")
    assert (reply.status, reply.headers["location"]) == (301, f"http://127.0.0.1:{console.port}/_utils/")


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("missing.js", id="no such file"),
        pytest.param("js/", id="a folder without an index"),
        pytest.param("js", id="a folder"),
        pytest.param("../secret", id="above the folder"),
        pytest.param("..%2Fsecret", id="above the folder, escaped"),
        pytest.param("js%2F..%2F..%2Fsecret", id="above the folder on a detour"),
        pytest.param("%2Fetc%2Fpasswd", id="an absolute path"),
        pytest.param("outside", id="a link to elsewhere"),
        pytest.param("a%00b", id="a zero byte"),
        pytest.param("%FF", id="no UTF-8"),
        pytest.param("a" * 300, id="a name too long for a file"),
    ],
)
async def test_nothing_else_is_there(console: Site, target: str) -> None:
    reply = await console.ask("GET", f"/_utils/{target}", auth=None)
    assert (reply.status, reply.body) == (404, b"Not found.")


async def test_other_methods_are_refused(console: Site) -> None:
    reply = await console.ask("POST", "/_utils/", {})
    assert (reply.status, reply.json()["reason"]) == (405, "Only GET,HEAD allowed")


async def test_what_pages_may_load_is_a_setting(console: Site) -> None:
    console.server.config.set("csp", "utils_header_value", "default-src 'self'")
    assert (await console.ask("GET", "/_utils/")).headers["content-security-policy"] == "default-src 'self'"
    console.server.config.set("csp", "utils_enable", "false")
    assert "content-security-policy" not in (await console.ask("GET", "/_utils/")).headers


async def test_where_users_are_required_they_are_for_the_console_too(console: Site) -> None:
    console.server.config.set("chttpd", "require_valid_user", "true")
    assert (await console.ask("GET", "/_utils/", auth=None)).status == 401
    assert (await console.ask("GET", "/_utils/")).status == 200
