"""`couchlite db` and `couchlite doc`, on a data directory and on a server: the same commands, the same
output."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from couchlite import Server
from couchlite.document import parse

from .running import Served, served

ORIGIN = "1-967a00dff5e02add41819138abb3284d"


class Done(NamedTuple):
    code: int
    output: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Couchlite = Callable[..., Done]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served"), "--workers", "1") as running:
        yield running


@pytest.fixture(params=["directory", "server"])
def couchlite(request: pytest.FixtureRequest, tmp_path: Path, server: Served) -> Couchlite:
    """Runs the command on an empty data directory, or on a server whose databases are deleted before."""
    if request.param == "directory":
        Server(tmp_path / "data").close()
        return run_on("--data-dir", str(tmp_path / "data"))
    for name in server.request("GET", "/_all_dbs").json:
        if not name.startswith("_"):
            server.request("DELETE", f"/{name}")
    return run_on("--url", f"http://adm:pass@127.0.0.1:{server.port}")


def run_on(*where: str) -> Couchlite:
    def run(group: str, action: str, *arguments: str, stdin: str = "") -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", group, action, *where, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def test_a_database_s_life(couchlite: Couchlite) -> None:
    assert couchlite("db", "create", "notes") == Done(0, "created notes\n", "")
    assert "notes" in couchlite("db", "list").output.splitlines()
    assert "notes" in couchlite("db", "list", "--json").json
    assert couchlite("db", "create", "notes").code == 4
    facts = couchlite("db", "info", "notes", "--json").json
    assert (facts["name"], facts["documents"], facts["compacting"]) == ("notes", 0, False)
    assert "documents                0" in couchlite("db", "info", "notes").output
    assert couchlite("db", "compact", "notes").output.startswith("compacted notes: ")
    assert couchlite("db", "delete", "notes") == Done(0, "deleted notes\n", "")
    assert "notes" not in couchlite("db", "list").output.splitlines()


def test_a_document_s_life(couchlite: Couchlite) -> None:
    couchlite("db", "create", "notes")
    assert couchlite("doc", "put", "notes", "a/ä b", stdin="{}") == Done(0, f"{ORIGIN}\n", "")
    assert couchlite("doc", "get", "notes", "a/ä b").json == {"_id": "a/ä b", "_rev": ORIGIN}
    second = couchlite("doc", "put", "notes", "a/ä b", "--rev", ORIGIN, "--json", stdin='{"v":2}').json["rev"]
    assert couchlite("doc", "get", "notes", "a/ä b", "--rev", ORIGIN).json["_rev"] == ORIGIN
    assert (
        couchlite("doc", "history", "notes", "a/ä b").output
        == f"{second}\tavailable\twinner\n{ORIGIN}\tavailable\n"
    )
    deleted = couchlite("doc", "delete", "notes", "a/ä b").output.strip()
    assert deleted.startswith("3-")
    gone = couchlite("doc", "get", "notes", "a/ä b")
    assert (gone.code, gone.error) == (3, "couchlite: deleted\n")
    assert (
        couchlite("doc", "history", "notes", "a/ä b").output.splitlines()[0] == f"{deleted}\tdeleted\twinner"
    )


def test_a_design_document(couchlite: Couchlite) -> None:
    couchlite("db", "create", "notes")
    assert couchlite("doc", "put", "notes", "_design/x", stdin='{"language":"javascript"}').code == 0
    assert couchlite("doc", "get", "notes", "_design/x").json["language"] == "javascript"


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (["db", "info", "none"], 3, "Database does not exist."),
        (["db", "delete", "none"], 3, "Database does not exist."),
        (["db", "create", "No"], 1, "Name: 'No'. Only lowercase characters"),
        (["doc", "get", "none", "x"], 3, "Database does not exist."),
        (["doc", "get", "notes", "x"], 3, "missing"),
        (["doc", "get", "notes", "x", "--rev", "1-ab"], 3, "missing"),
        (["doc", "get", "notes", "x", "--rev", "y"], 1, "Invalid rev format"),
        (["doc", "delete", "notes", "x"], 3, "missing"),
        (["doc", "history", "notes", "x"], 3, "missing"),
        (["doc", "put", "notes", "x", "--rev", ORIGIN], 4, "Document update conflict."),
        (["doc", "put", "notes", "_x"], 1, "Only reserved document ids may start with underscore."),
    ],
)
def test_what_fails_is_one_line_and_a_code(
    couchlite: Couchlite, command: list[str], code: int, error: str
) -> None:
    couchlite("db", "create", "notes")
    done = couchlite(*command, stdin="{}")
    assert done.code == code and done.output == ""
    assert done.error.startswith(f"couchlite: {error}") and done.error.count("\n") == 1


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("{", "<stdin>: invalid UTF-8 JSON"),
        ("[]", "<stdin>: a document is a JSON object"),
        ("", "<stdin>: inv"),
    ],
)
def test_what_is_no_document(couchlite: Couchlite, text: str, error: str) -> None:
    couchlite("db", "create", "notes")
    done = couchlite("doc", "put", "notes", "x", stdin=text)
    assert done.code == 1 and done.error.startswith(f"couchlite: {error}")


def test_a_history_with_branches(tmp_path: Path, server: Served) -> None:
    """The same tree in a directory and on a server, with a body gone, a conflict and a deleted branch."""
    revisions = [
        ({"start": 2, "ids": ["bb", "aa"]}, {"v": 2}),
        ({"start": 3, "ids": ["cc", "bb", "aa"]}, {"v": 3}),
        ({"start": 2, "ids": ["dd", "aa"]}, {"v": 4}),
        ({"start": 4, "ids": ["ee", "e3", "e2", "e1"]}, {"_deleted": True}),
    ]
    documents = [{"_id": "x", "_revisions": path, **fields} for path, fields in revisions]
    with Server(tmp_path / "data") as store:
        store.create("notes").submit_replicated([parse(document) for document in documents]).result()
    server.request("DELETE", "/notes")
    server.request("PUT", "/notes")
    for document in documents:
        answer = server.request("PUT", "/notes/x?new_edits=false", document)
        assert answer.status in (200, 201), answer.body
    expected = [
        "3-cc available winner",
        "2-bb available",
        "1-aa missing",
        "2-dd available conflict",
        "4-ee deleted deleted",
        "3-e3 missing",
        "2-e2 missing",
        "1-e1 missing",
    ]
    for where in (
        ["--data-dir", str(tmp_path / "data")],
        ["--url", f"http://adm:pass@127.0.0.1:{server.port}"],
    ):
        listed = run_on(*where)("doc", "history", "notes", "x").output.replace("\t", " ").splitlines()
        assert listed == expected, where
        entries = run_on(*where)("doc", "history", "notes", "x", "--json").json
        assert entries[3] == {"rev": "2-dd", "status": "available", "leaf": "conflict", "parent": "1-aa"}


def test_a_directory_that_is_served_can_be_worked_on(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as running:
        here = run_on("--data-dir", str(tmp_path / "data"))
        assert here("db", "create", "notes").code == 0
        assert here("doc", "put", "notes", "x", stdin="{}").code == 0
        assert running.request("GET", "/notes/x").json["_rev"] == ORIGIN
        assert here("db", "delete", "notes").code == 0
        assert running.request("GET", "/notes").status == 404


def test_the_password_of_a_user_is_hashed_in_a_directory_too(tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as running:
        here = run_on("--data-dir", str(tmp_path / "data"))
        user = {"type": "user", "name": "u", "roles": [], "password": "secret"}
        assert here("doc", "put", "_users", "org.couchdb.user:u", stdin=json.dumps(user)).code == 0
        assert "password" not in here("doc", "get", "_users", "org.couchdb.user:u").json
        assert running.request("GET", "/_session", user=("u", "secret")).json["userCtx"]["name"] == "u"
        assert here("doc", "put", "_users", "org.couchdb.user:v", stdin=json.dumps(user)).code == 1


def test_no_directory(tmp_path: Path) -> None:
    done = run_on("--data-dir", str(tmp_path / "nowhere"))("db", "list")
    assert done.code == 1 and "is no couchlite data directory" in done.error
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    ("url", "error"),
    [("http://127.0.0.1:1", "does not answer: [Errno 111]"), ("ftp://x", "is no address of a server")],
)
def test_no_server(url: str, error: str) -> None:
    done = run_on("--url", url)("db", "list")
    assert done.code == 1 and error in done.error and done.error.count("\n") == 1


def test_wrong_credentials(server: Served) -> None:
    done = run_on("--url", f"http://adm:wrong@127.0.0.1:{server.port}")("db", "list")
    assert (done.code, done.error) == (1, "couchlite: Name or password is incorrect.\n")


def test_on_a_terminal_there_is_layout_and_colour_and_a_question(tmp_path: Path) -> None:
    with Server(tmp_path / "data") as store:
        store.create("notes").put({"_id": "x", "a": 1})
    here = ["--data-dir", str(tmp_path / "data")]
    assert on_terminal("doc", "get", *here, "notes", "x").splitlines()[1].startswith('  "_id"')
    assert "\x1b[32m" in on_terminal("doc", "history", *here, "notes", "x")
    assert "Delete notes with 1 documents?" in on_terminal("db", "delete", *here, "notes", typed=b"n\n")
    assert run_on(*here)("db", "list").output == "notes\n"


def on_terminal(*arguments: str, typed: bytes = b"") -> str:
    """What a command prints on a terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cli.main", *arguments]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    os.write(ours, typed)
    output = b""
    try:
        while piece := os.read(ours, 65536):
            output += piece
    except OSError:
        pass  # the other end was closed
    process.wait(30)
    os.close(ours)
    return output.decode()


@pytest.mark.parametrize(
    "arguments", [["--help"], ["serve", "--help"], ["db", "--help"], ["doc", "put", "--help"]]
)
def test_help(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments], capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0 and done.stdout.startswith("Usage: couchlite")


def test_version() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "--version"], capture_output=True, text=True, timeout=30
    )
    assert done.stdout.startswith("couchlite 0.")
