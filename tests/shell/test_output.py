"""Commands whose output can't be written, or whose arguments can't be read: one line, never a traceback."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from couchlite import Server


@pytest.mark.parametrize(
    ("shell", "status", "error"),
    [
        pytest.param("{command} db list {data} > /dev/full", 1, "No space left on device", id="a full disk"),
        pytest.param("{command} replications list {data} >&-", 0, "", id="no standard output"),
        pytest.param(
            "LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0 {command} conflicts show db \u00fc {data}",
            1,
            "this is no UTF-8",
            id="another encoding",
        ),
    ],
)
@pytest.mark.skipif(sys.platform != "linux", reason="for the shell and devices of Linux")
def test_one_line(tmp_path: Path, shell: str, status: int, error: str) -> None:
    with Server(tmp_path / "data") as server:
        server.create("db").put({"_id": "\u00fc"})
    line = shell.format(command=f"{sys.executable} -m cli.main", data=f"--data-dir {tmp_path / 'data'}")
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, timeout=60)
    assert done.returncode == status
    assert done.stderr.count("\n") == bool(error) and error in done.stderr
