"""Conflicts that the tests of `couchlite conflicts` put into databases, and how the command is run."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pty
import re
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

BASE = {"title": "List", "items": ["milk", "bread"], "note": "one\ntwo\nthree\n"}
OURS = {"title": "Weekend", "items": ["milk", "bread", "eggs"], "note": "ONE\ntwo\nthree\n"}
THEIRS = {"title": "Party", "items": ["wine", "milk", "bread"], "note": "one\ntwo\nTHREE\n"}


def rev(generation: int, name: str) -> str:
    """A revision; names are in the order of their digests."""
    return f"{generation}-{name}{hashlib.md5(name.encode()).hexdigest()[len(name) :]}"


ORIGIN = rev(1, "a")
LOSER, WINNER = rev(2, "b"), rev(2, "c")


def graft(doc_id: str, *path: str, **fields: Any) -> dict[str, Any]:
    """A revision to be written with new_edits=false; `path` is newest first."""
    start = int(path[0].partition("-")[0])
    ids = [one.partition("-")[2] for one in path]
    return {"_id": doc_id, "_rev": path[0], "_revisions": {"start": start, "ids": ids}, **fields}


def edited_apart(
    doc_id: str, base: dict[str, Any], winner: dict[str, Any], loser: dict[str, Any]
) -> list[Any]:
    return [
        graft(doc_id, ORIGIN, **base),
        graft(doc_id, WINNER, ORIGIN, **winner),
        graft(doc_id, LOSER, ORIGIN, **loser),
    ]


CLASHING = edited_apart("clashing", BASE, OURS, THEIRS)
CLEAN = edited_apart("clean", BASE, {**OURS, "title": "List"}, THEIRS)
PLAIN = [graft("plain", ORIGIN, v=1)]


class Done(NamedTuple):
    code: int
    output: str
    error: str

    @property
    def json(self) -> Any:
        return json.loads(self.output)


Couchlite = Callable[..., Done]


def conflicts_on(*where: str) -> Couchlite:
    """Runs `couchlite conflicts` on a place."""

    def run(action: str, *arguments: str, stdin: str = "", editor: str = "false") -> Done:
        done = subprocess.run(
            [sys.executable, "-m", "cli.main", "conflicts", action, *arguments, *where],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            env={**os.environ, "EDITOR": editor, "VISUAL": editor},
        )
        return Done(done.returncode, done.stdout, done.stderr)

    return run


def on_terminal(
    *arguments: str, answers: Sequence[tuple[str, str]] = (), columns: int = 80, **environment: str
) -> str:
    """What `couchlite conflicts` prints on a terminal. Each answer is typed once its question is there."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "cli.main", "conflicts", *arguments]
    given = {**os.environ, "COLUMNS": str(columns), "TERM": "xterm-256color", **environment}
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=given)
    os.close(theirs)
    output = b""
    waiting = list(answers)
    asked_at = 0
    deadline = time.monotonic() + 60
    with contextlib.suppress(OSError):  # the other end was closed
        while time.monotonic() < deadline and (piece := os.read(ours, 65536)):
            output += piece
            if waiting and waiting[0][0].encode() in output[asked_at:]:
                asked_at = len(output)
                os.write(ours, waiting.pop(0)[1].encode() + b"\n")
    process.wait(30)
    os.close(ours)
    assert not waiting, (waiting, output.decode())
    return output.decode().replace("\r\n", "\n")


def without_colour(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text)
