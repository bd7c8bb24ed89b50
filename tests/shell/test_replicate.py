"""`couchlite replicate` and `couchlite replications`: between data directories and servers."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from couchlite import Server
from couchlite.document import parse

from ..waiting import wait_until
from .running import Served, served
from .test_administration import Done

NO_VOWELS = "function(doc) { if (doc.kind == 'vowel') throw({forbidden: 'no vowels'}); }"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served"), "--workers", "1") as running:
        yield running


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with a database `letters`."""
    with Server(tmp_path / "data") as store:
        docs = [{"_id": letter, "kind": "vowel" if letter in "ae" else "consonant"} for letter in "abcde"]
        function = "function(doc, req) { return doc.kind == req.query.kind; }"
        docs.append({"_id": "_design/app", "filters": {"kind": function}})  # type: ignore[dict-item]
        store.create("letters").update([parse(doc) for doc in docs])
    return tmp_path / "data"


def couchlite(*arguments: object, env: dict[str, str] | None = None, stdin: str = "") -> Done:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **(env or {})},
    )
    return Done(done.returncode, done.stdout, done.stderr)


def ids(data: Path, name: str) -> list[str]:
    with Server(data) as store:
        return sorted(str(row["id"]) for row in store.open(name).changes())


def url(server: Served, name: str, credentials: str = "adm:pass@") -> str:
    return f"http://{credentials}127.0.0.1:{server.port}/{name}"


def test_there_and_back_again(data: Path, server: Served, tmp_path: Path) -> None:
    Server(tmp_path / "other").close()
    there = couchlite("replicate", "letters", url(server, "letters"), "--create-target", "--data-dir", data)
    assert (there.code, there.error) == (0, "")
    assert there.output.startswith("completed in ") and ": 6 written, 0 already there" in there.output
    back = couchlite(
        "replicate", url(server, "letters"), f"{tmp_path}/other:copy", "--create-target", "--json"
    )
    assert (back.code, back.json["state"], back.json["written"]) == (0, "completed", 6)
    assert ids(tmp_path / "other", "copy") == ids(data, "letters")
    server.request("DELETE", "/letters")


def test_a_directory_that_is_being_served(data: Path, tmp_path: Path) -> None:
    with served(tmp_path, "--workers", "1") as running:
        done = couchlite("replicate", "letters", "copy", "--create-target", "--data-dir", data)
        assert done.code == 0
        wait_until(lambda: running.request("GET", "/copy/a").status == 200)
        arguments = "--url", url(running, "").rstrip("/")
        listing = couchlite("replications", "list", *arguments, "--json").json
        assert [row["written"] for row in listing] == [6]
        [told] = couchlite("replications", "explain", "a", *arguments, "--json").json["replications"]
        assert [event["outcome"] for event in told["events"]] == ["written"]


def test_between_two_servers(server: Served) -> None:
    server.request("PUT", "/one")
    server.request("PUT", "/one/a%2Fb", {})
    done = couchlite("replicate", url(server, "one"), url(server, "two"), "--create-target", "--json")
    assert (done.code, done.json["written"]) == (0, 1)
    assert server.request("GET", "/two/a%2Fb").status == 200
    for name in ("one", "two"):
        server.request("DELETE", f"/{name}")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--doc-ids", "a,b,zzz"], ["a", "b"]),
        (["--doc-ids", "@-"], ["c", "d"]),
        (["--selector", '{"kind": "vowel"}'], ["a", "e"]),
        (["--filter", "app/kind", "--query-param", "kind=vowel"], ["a", "e"]),
        (["--filter", "_design"], ["_design/app"]),
        (["--winning-revs-only", "--no-checkpoints"], ["_design/app", *"abcde"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_only_what_is_asked_for(data: Path, options: list[str], expected: list[str]) -> None:
    arguments = ["letters", "copy", "--create-target", "--data-dir", data, *options]
    done = couchlite("replicate", *arguments, stdin="c\nd\n")
    assert done.code == 0, done
    assert ids(data, "copy") == expected


def test_it_begins_after_a_sequence(data: Path) -> None:
    with Server(data) as store:
        rows = list(store.open("letters").changes())
    arguments = ["letters", "copy", "--create-target", "--data-dir", data, "--since-seq", rows[3]["seq"]]
    assert couchlite("replicate", *arguments).code == 0
    assert ids(data, "copy") == sorted(row["id"] for row in rows[4:])


def test_what_is_refused_is_named_and_makes_another_exit_code(data: Path) -> None:
    with Server(data) as store:
        store.create("picky").put({"_id": "_design/v", "validate_doc_update": NO_VOWELS})
    done = couchlite("replicate", "letters", "picky", "--data-dir", data)
    assert done.code == 5
    assert "4 written, 0 already there, 2 refused" in done.output
    lines = done.error.splitlines()
    assert len(lines) == 2 and all("forbidden: no vowels" in line for line in lines)
    shown = couchlite("replications", "list", "--data-dir", data).output.split("\t")
    assert shown[1] == "completed" and shown[4:8] == ["4", "0", "2", "0"]
    told = couchlite("replications", "show", shown[0][:8], "--data-dir", data)
    assert told.code == 0 and told.output.count("\tforbidden: no vowels") == 2
    told = couchlite("replications", "explain", "e", "--data-dir", data)
    assert "\trefused\te\t1-" in told.output
    told = couchlite("replications", "explain", "zzz", "--data-dir", data)
    assert told.output.splitlines()[-1] == "it was never seen"
    assert couchlite("replications", "show", "nosuch", "--data-dir", data).code == 3


@pytest.mark.parametrize(
    ("source", "target", "options", "code", "message"),
    [
        ("nosuch", "letters", [], 3, "could not open file://"),
        ("letters", "nosuch", [], 3, "could not open file://"),
        ("/nowhere:x", "letters", [], 1, "/nowhere is no couchlite data directory"),
        ("letters", "http://adm:secret@127.0.0.1:9/x", ["--json"], 1, ""),
        ("letters", "http://adm@127.0.0.1:9/x", [], 1, "there is no password for adm at 127.0.0.1:9"),
        (
            "letters",
            "http://adm:secret@127.0.0.1:9",
            [],
            1,
            "the target http://127.0.0.1:9 names no database",
        ),
        ("letters", "http://adm:secret@127.0.0.1:x/y", [], 1, "the target has no valid address"),
        ("_users", "letters", [], 1, "_users has rules that only a server keeps"),
        ("letters", "x", ["--filter", "a", "--doc-ids", "b"], 2, "mutually exclusive"),
        ("letters", "x", ["--filter", "app/nosuch"], 3, "Couldn't parse filter code"),
        ("letters", "x", ["--selector", "{"], 2, "--selector is no JSON"),
        ("letters", "x", ["--query-param", "k"], 2, "K=V is expected"),
        ("letters", "x", ["--doc-ids", "@/nowhere"], 1, "/nowhere can't be read"),
    ],
)
def test_what_goes_wrong_is_a_line_and_an_exit_code(
    data: Path, source: str, target: str, options: list[str], code: int, message: str
) -> None:
    done = couchlite("replicate", source, target, "--data-dir", data, *options)
    assert done.code == code, done
    assert message in done.error and "Traceback" not in done.error
    assert "secret" not in done.output + done.error


def test_wrong_credentials(data: Path, server: Served) -> None:
    access = {"COUCHLITE_TARGET_USER": "adm", "COUCHLITE_TARGET_PASSWORD": "wrong"}
    arguments = "replicate", "letters", url(server, "x", ""), "--create-target", "--data-dir", data, "--json"
    done = couchlite(*arguments, env=access)
    assert (done.code, done.json["error"], done.json["state"]) == (1, "unauthorized", "failed")
    assert couchlite(*arguments, env=access | {"COUCHLITE_TARGET_PASSWORD": "pass"}).code == 0
    assert server.request("DELETE", "/x").status == 200


def test_the_password_is_asked_for_on_a_terminal(data: Path, server: Served) -> None:
    arguments = ["letters", url(server, "x", "adm@"), "--create-target", "--data-dir", str(data)]
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "replicate", *arguments],
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    output = os.read(controller, 1000)
    while not output.endswith(b": "):
        output += os.read(controller, 1000)
    assert b"Password of adm at 127.0.0.1" in output
    os.write(controller, b"pass\n")
    while b"completed" not in output:
        output += os.read(controller, 1000)
    assert process.wait(20) == 0
    os.close(controller)
    assert b"pass\r" not in output and b"100%" in output and b"/s" in output
    server.request("DELETE", "/x")


def start(*arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "replicate", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_continuous_one_goes_on_until_it_is_told_to_stop(data: Path, number: signal.Signals) -> None:
    process = start("letters", "copy", "--create-target", "--continuous", "--data-dir", data, "--json")
    with Server(data) as store:
        wait_until(lambda: "copy" in store.names())
        store.open("letters").put({"_id": "later"})
        copy = store.open("copy")
        wait_until(lambda: any(row["id"] == "later" for row in copy.changes()))
    process.send_signal(number)
    output, error = process.communicate(timeout=20)
    assert (process.returncode, error) == (0, "")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    assert (result["state"], result["written"]) == ("stopped", 7)
    # It has noted where it was.
    again = couchlite("replicate", "letters", "copy", "--data-dir", data, "--create-target", "--json").json
    assert (again["written"], again["skipped"]) == (0, 0)


def test_ctrl_c_leaves_a_checkpoint_behind(data: Path, server: Served) -> None:
    with Server(data) as store:
        database = store.create("many")
        for start_number in range(0, 60_000, 5_000):
            database.update([parse({"_id": str(n)}) for n in range(start_number, start_number + 5_000)])
    arguments = "many", url(server, "many"), "--create-target", "--data-dir", data
    process = start(*arguments)
    wait_until(lambda: server.request("GET", "/many").json.get("doc_count", 0) > 2_000)
    process.send_signal(signal.SIGINT)
    output, _error = process.communicate(timeout=20)
    assert process.returncode == 130 and output.startswith("stopped in ")
    there = server.request("GET", "/many").json["doc_count"]
    assert 0 < there < 60_000, "it was too fast to be interrupted"
    again = couchlite(*("replicate", *arguments), "--json").json
    assert again["written"] + there >= 60_000 and again["written"] < 60_000
    assert server.request("GET", "/many").json["doc_count"] == 60_000
    shown = couchlite("replications", "list", "--data-dir", data, "--json").json
    # Of what was on its way when it was interrupted, it is not known whether it arrived: it was there then.
    assert shown[0]["runs"] == 2 and shown[0]["written"] + shown[0]["skipped"] >= 60_000
    server.request("DELETE", "/many")


def test_a_continuous_one_outlives_its_server(data: Path, tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    with served(tmp_path / "far", "--workers", "1") as far:
        process = start("letters", url(far, "copy"), "--create-target", "--continuous", "--data-dir", data)
        wait_until(lambda: far.request("GET", "/copy/a").status == 200)
        port = far.port
    with Server(data) as store:
        store.open("letters").put({"_id": "meanwhile"})
    time.sleep(0.5)
    with served(tmp_path / "far", "--workers", "1", "--port", str(port)) as far:
        wait_until(lambda: far.request("GET", "/copy/meanwhile").status == 200, 60)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
        assert process.returncode == 0
