"""`couchlite conflicts` on a data directory and on a server: the same commands, the same output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from couchlite import Server
from couchlite.document import parse

from .conflicts import (
    BASE,
    CLASHING,
    CLEAN,
    LOSER,
    ORIGIN,
    OURS,
    PLAIN,
    THEIRS,
    WINNER,
    Couchlite,
    conflicts_on,
    graft,
    on_terminal,
    rev,
    without_colour,
)
from .running import Served, served

MERGED_ITEMS = ["wine", "milk", "bread", "eggs"]
MERGED_NOTE = "ONE\ntwo\nTHREE\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served"), "--workers", "1") as running:
        yield running


def fill(directory: Path, *docs: dict[str, Any]) -> list[str]:
    """A data directory with a database `lists`; the options that lead there."""
    with Server(directory) as store:
        database = store.create("lists")
        for doc in docs:
            database.submit_replicated([parse(doc)]).result()
    return ["--data-dir", str(directory)]


@pytest.fixture(params=["directory", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path, server: Served) -> Callable[..., list[str]]:
    """Makes a database `lists` of documents; the options that lead to it."""

    def make(*docs: dict[str, Any]) -> list[str]:
        if request.param == "directory":
            return fill(tmp_path / "data", *docs)
        server.request("DELETE", "/lists")
        assert server.request("PUT", "/lists").status == 201
        assert server.request("POST", "/lists/_bulk_docs", {"docs": docs, "new_edits": False}).status == 201
        return ["--url", f"http://adm:pass@127.0.0.1:{server.port}"]

    return make


@pytest.fixture
def couchlite(place: Callable[..., list[str]]) -> Couchlite:
    return conflicts_on(*place(*CLASHING, *CLEAN, *PLAIN))


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Couchlite:
    """On the same documents in a data directory that is not written to."""
    return conflicts_on(*fill(tmp_path_factory.mktemp("three") / "data", *CLASHING, *CLEAN, *PLAIN))


def rows(couchlite: Couchlite) -> list[tuple[str, int]]:
    return [(row["id"], row["leaves"]) for row in couchlite("list", "lists", "--json").json]


def test_a_list(three: Couchlite) -> None:
    listed = three("list", "lists", "--json").json
    assert [(row["database"], row["id"], row["leaves"], row["rev"]) for row in listed] == [
        ("lists", "clashing", 2, WINNER),
        ("lists", "clean", 2, WINNER),
    ]
    assert listed[0]["since"].endswith("Z") and listed[0]["size"] > 100
    lines = [line.split("\t") for line in three("list").output.splitlines()]
    assert [(line[0], line[1], line[2], line[5]) for line in lines] == [
        ("lists", "clashing", "2", WINNER),
        ("lists", "clean", "2", WINNER),
    ]


def test_the_name_of_a_database_is_enough_for_a_list(place: Callable[..., list[str]]) -> None:
    where = place(*CLEAN)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "conflicts", "lists", *where],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.startswith("lists\tclean\t2\t")


def test_one_is_shown(couchlite: Couchlite) -> None:
    lines = couchlite("show", "lists", "clashing").output.splitlines()
    assert lines[0].startswith("clashing in lists: 2 leaves in conflict for ")
    assert lines[2:5] == [
        f"● {ORIGIN}  body here  base of the merge",
        next(line for line in lines if line.startswith(f"├─● {LOSER}  conflict  ")),
        next(line for line in lines if line.startswith(f"● {WINNER}  winner  ")),
    ]
    text = "\n".join(lines)
    assert "! /title" in text and '"Weekend"' in text and '"Party"' in text
    assert "/items/-" in text and '"wine"' in text
    assert lines[-1] == "A three-way merge has to ask about /title."


def test_one_is_shown_as_json(couchlite: Couchlite) -> None:
    shown = couchlite("show", "lists", "clashing", "--json").json
    assert [leaf["rev"] for leaf in shown["leaves"]] == [WINNER, LOSER]
    assert [leaf["document"] for leaf in shown["leaves"]] == [OURS, THEIRS]
    assert shown["base"] == {"rev": ORIGIN, "document": BASE} and shown["no_base"] is None
    assert shown["clashes"] == ["/title"]
    statuses = {one["rev"]: one["status"] for branch in shown["branches"] for one in branch["revs"]}
    assert statuses == {ORIGIN: "available", WINNER: "available", LOSER: "available"}


def test_one_without_conflict_is_shown(three: Couchlite) -> None:
    assert three("show", "lists", "plain").output.splitlines() == [
        "plain in lists: not in conflict",
        "",
        f"● {ORIGIN}  winner  7 bytes",
    ]


def test_branches_runs_and_deletions_in_a_tree(place: Callable[..., list[str]]) -> None:
    trunk = [rev(generation, "d") for generation in range(9, 2, -1)]
    couchlite = conflicts_on(
        *place(
            graft("x", *trunk, v=1),
            graft("x", rev(4, "b"), rev(3, "d"), v=2),
            graft("x", rev(6, "c"), rev(5, "c"), rev(4, "d"), rev(3, "d"), _deleted=True),
        )
    )
    lines = couchlite("show", "lists", "x").output.splitlines()[2:]
    assert lines[:9] == [
        "⋮ older revisions are forgotten",
        f"○ {rev(3, 'd')}  body gone  common ancestor",
        f"├─● {rev(4, 'b')}  conflict  7 bytes",
        f"○ {rev(4, 'd')}  body gone",
        f"├─○ {rev(5, 'c')}  body gone",
        f"│ ✕ {rev(6, 'c')}  deleted",
        "⋮ 4 revisions, bodies gone",
        f"● {rev(9, 'd')}  winner  7 bytes",
        "",
    ]
    assert lines[9].startswith("base not available: its body never came here, or was compacted (3-")
    assert len(couchlite("show", "lists", "x", "--all").output.splitlines()) > len(lines) + 2


def test_what_differs(three: Couchlite) -> None:
    found = three("diff", "lists", "clashing", "--json").json
    assert [(one["from"], one["to"]) for one in found] == [(ORIGIN, WINNER), (ORIGIN, LOSER)]
    assert found[0]["changes"][:2] == [
        {"pointer": "/title", "from": {"value": "List"}, "to": {"value": "Weekend"}},
        {"pointer": "/items/-", "from": {"missing": True}, "to": {"value": "eggs"}},
    ]
    lines = three("diff", "lists", "clashing", LOSER[:6], WINNER[:6]).output.splitlines()
    assert lines[:5] == [f"--- {LOSER}", f"+++ {WINNER} winner", "/title", '- "Party"', '+ "Weekend"']


def test_a_clean_merge(couchlite: Couchlite) -> None:
    dry = couchlite("merge", "lists", "clean", "--dry-run", "--json").json["document"]
    assert dry == {"title": "Party", "items": MERGED_ITEMS, "note": MERGED_NOTE}
    assert len(rows(couchlite)) == 2
    done = couchlite("merge", "lists", "clean")
    assert done.code == 0 and done.output.startswith("resolved clean: 3-") and done.error == ""
    assert rows(couchlite) == [("clashing", 2)]
    [entry] = couchlite("log", "lists", "clean", "--json").json
    assert (entry["using"], entry["leaves"], entry["can_undo"]) == ("three-way", [WINNER, LOSER], True)


def test_clashes_are_left_where_nobody_can_be_asked(three: Couchlite) -> None:
    done = three("merge", "lists", "clashing")
    assert done.code == 4 and "the leaves clash" in done.error
    assert done.output.startswith('/title\tbase: "List", ')
    assert three("merge", "lists", "clashing", "--json").json["clashes"] == [
        {"pointer": "/title", "kind": "edit"}
    ]
    assert len(rows(three)) == 2


def test_a_merge_by_a_resolver(couchlite: Couchlite) -> None:
    left = couchlite("merge", "lists", "clashing", "--using", "three-way")
    assert (left.code, left.error) == (4, "couchlite: clashing is left alone: the leaves clash at /title\n")
    done = couchlite(
        "merge", "lists", "clashing", "--using", "three-way", "--clashes", "winner", "--json"
    ).json
    assert done["resolved"] and done["overruled"] == [LOSER]
    assert couchlite("log", "lists", "--json").json[0]["using"] == "three-way"


def test_rules(three: Couchlite, tmp_path: Path) -> None:
    (tmp_path / "rules.json").write_text('{"/title": "max"}')
    for rules in ('{"/title": "min"}', f"@{tmp_path / 'rules.json'}"):
        merged = three("merge", "lists", "clashing", "--rules", rules, "--dry-run", "--json").json
        assert merged["document"]["title"] == ("Party" if "min" in rules else "Weekend")
    assert three("merge", "lists", "clashing", "--rules", "{").code == 1


def editor(tmp_path: Path, code: str) -> str:
    """A program that changes a text in Python."""
    program = tmp_path / "edit.py"
    program.write_text(
        f"import sys\np = sys.argv[1]\ntext = open(p).read()\n{code}\nopen(p, 'w').write(text)\n"
    )
    return f"{sys.executable} {program}"


def test_a_merge_in_an_editor(couchlite: Couchlite, tmp_path: Path) -> None:
    keep = f"import re\nopen({str(tmp_path / 'seen')!r}, 'w').write(text)\n"
    take_theirs = keep + r"text = re.sub(r'<{7}.*?={7}\n(.*?)>{7}[^\n]*\n', r'\1', text, flags=re.S)"
    done = couchlite("merge", "lists", "clashing", "--edit", editor=editor(tmp_path, take_theirs))
    assert done.code == 0, done
    assert (tmp_path / "seen").read_text().splitlines()[:9] == [
        "{",
        f"<<<<<<< {WINNER[:10]} winner",
        '  "title": "Weekend",',
        "||||||| base",
        '  "title": "List",',
        "=======",
        '  "title": "Party",',
        f">>>>>>> {LOSER[:10]}",
        '  "items": [',
    ]
    assert couchlite("show", "lists", "clashing", "--json").json["leaves"][0]["document"] == {
        "title": "Party",
        "items": MERGED_ITEMS,
        "note": MERGED_NOTE,
    }


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("text += ' '", "line 2: a conflict marker is left"),
        ("text = '{'", "Expecting property name"),
        ("text = '[]'", "a document is a JSON object"),
        ("text = ''", "nothing was written"),
        ("sys.exit(0)", "nothing was written"),
        ("sys.exit(1)", "the editor failed"),
    ],
)
def test_what_an_editor_leaves_is_not_written(tmp_path: Path, code: str, error: str) -> None:
    couchlite = conflicts_on(*fill(tmp_path / "data", *CLASHING))
    done = couchlite("merge", "lists", "clashing", "--edit", editor=editor(tmp_path, code))
    assert done.code == 1 and error in done.error and done.error.count("\n") == 1
    assert rows(couchlite) == [("clashing", 2)]


def test_a_removed_last_member_leaves_a_comma_that_is_forgiven(tmp_path: Path) -> None:
    docs = [
        graft("x", ORIGIN, a=", ]", b=1),
        graft("x", WINNER, ORIGIN, a=", ]", b=2),
        graft("x", LOSER, ORIGIN, a=", ]"),
    ]
    couchlite = conflicts_on(*fill(tmp_path / "data", *docs))
    remove = "import re\ntext = re.sub(r'<{7}.*?>{7}[^\\n]*\\n', '', text, flags=re.S)"
    assert couchlite("merge", "lists", "x", "--edit", editor=editor(tmp_path, remove)).code == 0
    assert couchlite("show", "lists", "x", "--json").json["leaves"][0]["document"] == {"a": ", ]"}


def test_one_leaf_is_picked_and_that_undone(couchlite: Couchlite) -> None:
    assert couchlite("pick", "lists", "clashing", "2-b", "--dry-run", "--json").json["document"] == THEIRS
    picked = couchlite("pick", "lists", "clashing", "2-b", "--json").json
    assert picked["rev"].startswith("3-") and picked["id"] == "clashing"
    assert couchlite("show", "lists", "clashing", "--json").json["leaves"][0]["document"] == THEIRS
    undone = couchlite("undo", "lists", "clashing")
    assert undone.code == 0 and undone.output.startswith("clashing is in conflict again: ")
    again = couchlite("show", "lists", "clashing", "--json").json
    assert [leaf["document"] for leaf in again["leaves"]] == [OURS, THEIRS]
    fields = [line.split("\t") for line in couchlite("log", "lists").output.splitlines()]
    assert [(entry[2], entry[3], entry[7]) for entry in fields] == [
        ("clashing", "undo", f"undoes {picked['resolution']}"),
        ("clashing", "pick", f"undone by {picked['resolution'] + 1}"),
    ]
    assert couchlite("undo", "lists", "clashing").code == 3


def test_all_are_resolved(couchlite: Couchlite) -> None:
    dry = couchlite("resolve", "lists", "--all", "--using", "three-way", "--dry-run")
    assert dry.code == 4
    assert dry.output.splitlines() == [
        "left alone: lists/clashing: the leaves clash at /title",
        "1 conflict would be resolved; 1 left alone",
    ]
    assert len(rows(couchlite)) == 2
    done = couchlite("resolve", "lists", "--all", "--using", "three-way", "--json")
    assert done.code == 4 and (done.json["resolved"], done.json["left"]) == (1, 1)
    assert rows(couchlite) == [("clashing", 2)]
    last = couchlite("resolve", "lists", "--all", "--using", "union", "--clashes", "winner")
    assert (last.code, last.output) == (0, "1 conflict resolved, 1 leaf overruled; 0 left alone\n")
    assert rows(couchlite) == []


def test_settings_say_how(couchlite: Couchlite) -> None:
    assert couchlite("stats", "lists", "--json").json["lists"]["documents"] == 2
    assert (
        couchlite("resolve", "lists", "--all").output.splitlines()[-1] == "0 conflicts resolved; 2 left alone"
    )
    settings = {
        "automatic": False,
        "resolvers": [{"resolver": "three-way", "options": {"clashes": "winner"}}],
    }
    assert couchlite("resolvers", "set", "lists", stdin=json.dumps(settings)).code == 0
    assert couchlite("resolvers", "get", "lists").json == settings
    assert couchlite("resolve", "lists", "--all").code == 0
    assert couchlite("stats", "lists", "--json").json["lists"]["documents"] == 0


@pytest.mark.parametrize(
    ("command", "code", "error"),
    [
        (["list", "none"], 3, "Database does not exist."),
        (["show", "lists", "none"], 3, "missing"),
        (["merge", "lists", "plain"], 3, "plain is not in conflict"),
        (["merge", "lists", "plain", "--using", "three-way"], 3, "plain is not in conflict"),
        (["pick", "lists", "clashing", "2"], 1, "2 may be any of "),
        (["pick", "lists", "clashing", "1-a"], 1, f"{ORIGIN} is no leaf of clashing"),
        (["pick", "lists", "clashing", "7"], 3, "clashing has no revision 7"),
        (["diff", "lists", "clashing", "7"], 3, "clashing has no revision 7"),
        (["undo", "lists", "plain"], 3, "there is nothing of plain to undo"),
        (["undo", "lists", "plain", "--resolution", "99"], 3, "There is no record of a resolution 99"),
        (["merge", "lists", "clashing", "--using", "last-write-wins"], 1, "last-write-wins needs the option"),
    ],
)
def test_what_fails_is_one_line_and_a_code(
    three: Couchlite, command: list[str], code: int, error: str
) -> None:
    done = three(*command)
    assert done.code == code and done.output == ""
    assert done.error.startswith(f"couchlite: {error}") and done.error.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [["resolve", "lists"], ["merge", "lists", "x", "--field", "/a"], ["diff", "lists", "x", "1", "2", "3"]],
)
def test_wrong_usage(tmp_path: Path, command: list[str]) -> None:
    assert conflicts_on(*fill(tmp_path / "data"))(*command).code == 2


def test_system_databases_of_a_directory_are_only_looked_at(tmp_path: Path) -> None:
    where = fill(tmp_path / "data", *CLEAN)
    with Server(tmp_path / "data") as store:
        users = store.create("_users")
        for doc in CLASHING:
            users.submit_replicated([parse(doc)]).result()
    couchlite = conflicts_on(*where)
    reason = "_users has rules that only a server keeps: name it by --url"
    assert couchlite("pick", "_users", "clashing", LOSER).error == f"couchlite: {reason}\n"
    done = couchlite("resolve", "--all", "--using", "three-way")
    assert done.code == 4 and f"left alone: _users/clashing: {reason}" in done.output
    assert "1 conflict resolved; 1 left alone" in done.output
    assert [row["id"] for row in couchlite("list", "--json").json] == ["clashing"]


# --- on a terminal


def test_clashes_are_asked_on_a_terminal(place: Callable[..., list[str]]) -> None:
    where = place(*CLASHING)
    screen = without_colour(
        on_terminal(
            "merge",
            *where,
            "lists",
            "clashing",
            answers=[("Which one?", "7"), ("Which one?", "2"), ("Write this?", "y")],
        )
    )
    assert "/title  edited differently" in screen and "clash 1 of 1" in screen
    assert f'  1  {WINNER[:10]} winner  "Weekend"' in screen and 'b  base  "List"' in screen
    assert "resolved clashing: 3-" in screen
    shown = conflicts_on(*where)("show", "lists", "clashing", "--json").json
    assert shown["leaves"][0]["document"]["title"] == "Party"
    assert conflicts_on(*where)("log", "lists", "--json").json[0]["using"] == "choice"


@pytest.mark.parametrize("answers", [[("Which one?", "q")], [("Which one?", "b"), ("Write this?", "n")]])
def test_giving_up_writes_nothing(tmp_path: Path, answers: list[tuple[str, str]]) -> None:
    where = fill(tmp_path / "data", *CLASHING)
    on_terminal("merge", *where, "lists", "clashing", answers=answers)
    assert rows(conflicts_on(*where)) == [("clashing", 2)]


def test_a_value_may_be_edited(tmp_path: Path) -> None:
    where = fill(tmp_path / "data", *CLASHING)
    program = editor(tmp_path, "text = '\"Picnic\"'")
    answers = [("Which one?", "e"), ("Write this?", "y")]
    on_terminal("merge", *where, "lists", "clashing", answers=answers, EDITOR=program, VISUAL=program)
    shown = conflicts_on(*where)("show", "lists", "clashing", "--json").json
    assert shown["leaves"][0]["document"]["title"] == "Picnic"


def test_colours_and_none(tmp_path: Path) -> None:
    where = fill(tmp_path / "data", *CLASHING)
    for command in (
        ["list", *where],
        ["show", *where, "lists", "clashing"],
        ["diff", *where, "lists", "clashing"],
    ):
        assert "\x1b[" in on_terminal(*command)
        plain = on_terminal(*command, NO_COLOR="1")
        assert "\x1b[3" not in plain and "\x1b[9" not in plain
    assert "no conflicts" in on_terminal("list", *fill(tmp_path / "empty"))


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_nothing_is_wider_than_the_terminal(tmp_path: Path, columns: int) -> None:
    where = fill(tmp_path / "data", *CLASHING, *CLEAN)
    for command in (["list", *where], ["show", *where, "lists", "clashing"]):
        lines = without_colour(on_terminal(*command, columns=columns)).splitlines()
        assert max(map(len, lines)) <= max(columns, 60), lines


def test_control_characters_do_not_reach_the_terminal(tmp_path: Path) -> None:
    bad = "\x1b]0;x\x07\x9b31m\u202e"
    docs = [
        graft(f"x{bad}", ORIGIN, v="a"),
        graft(f"x{bad}", WINNER, ORIGIN, v=bad, **{bad: 1}),
        graft(f"x{bad}", LOSER, ORIGIN, v=bad + "2"),
    ]
    where = fill(tmp_path / "data", *docs)
    for command in (
        ["list", *where],
        ["show", *where, "lists", f"x{bad}"],
        ["diff", *where, "lists", f"x{bad}"],
    ):
        screen = on_terminal(*command)
        assert not any(one in screen for one in ("\x1b]", "\x07", "\x9b", "\u202e"))


# --- a thousand leaves


def test_a_thousand_leaves_stay_readable(tmp_path: Path) -> None:
    leaves = [graft("x", f"2-{n:032x}", ORIGIN, title=f"t{n % 3}", n=n) for n in range(1000)]
    where = fill(tmp_path / "data", graft("x", ORIGIN, title="t", n=-1), *leaves)
    couchlite = conflicts_on(*where)
    assert rows(couchlite) == [("x", 1000)]
    lines = couchlite("show", "lists", "x").output.splitlines()
    assert len(lines) < 40
    assert any(line.startswith("├─⋮ 991 more: 991 conflicts") for line in lines)
    words = " ".join(" ".join(lines).split())
    assert words.count("and 330 more") + words.count("and 331 more") == 3
    assert "    ⋮ 995 other values (--all shows them)" in lines
    assert len(couchlite("show", "lists", "x", "--all").output.splitlines()) > 2000
    done = couchlite("merge", "lists", "x", "--rules", '{"/n": "max", "/title": "min"}', "--json").json
    assert done["rev"].startswith("3-")
    assert rows(couchlite) == []


# --- completion


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("couchlite con", ["conflicts"]),
        ("couchlite conflicts re", ["resolve", "resolvers"]),
        ("couchlite conflicts show {} li", ["lists"]),
        ("couchlite conflicts show {} lists cl", ["clashing", "clean"]),
        ("couchlite conflicts pick {} lists clashing 2-b", [LOSER]),
        ("couchlite conflicts merge {} lists clashing --using th", ["three-way"]),
    ],
)
def test_shell_completion(tmp_path: Path, line: str, offered: list[str]) -> None:
    where = fill(tmp_path / "data", *CLASHING, *CLEAN)
    words = line.format(" ".join(where))
    done = subprocess.run(
        [sys.executable, "-c", "from cli.main import main; main(prog_name='couchlite')"],
        env={
            **os.environ,
            "_COUCHLITE_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        },
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert [one.partition(",")[2] for one in done.stdout.splitlines()] == offered
