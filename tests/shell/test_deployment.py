"""Running it for good: what systemd is told, and what a shell completes."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .running import served


@pytest.mark.parametrize("workers", ["1", "2"])
def test_systemd_is_told_when_requests_are_answered(tmp_path: Path, workers: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.bind(f"\0couchlite-test-{os.getpid()}-{workers}")
        channel.settimeout(30)
        environment = {
            "COUCHDB_USER": "adm",
            "COUCHDB_PASSWORD": "pass",
            "NOTIFY_SOCKET": f"@couchlite-test-{os.getpid()}-{workers}",
        }
        with served(tmp_path, "--workers", workers, environment=environment) as server:
            told = channel.recv(4096).decode().splitlines()
            assert told == ["READY=1", f"STATUS=serves http://127.0.0.1:{server.port}/"]


def run(*arguments: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    return done.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_what_it_has_to_load(shell: str) -> None:
    assert f"_COUCHLITE_COMPLETE={shell}_complete" in run("completion", shell)


@pytest.mark.parametrize(
    ("line", "at", "completed"),
    [("couchlite ser", 1, "plain,serve"), ("couchlite serve --preset live", 3, "plain,livesync")],
)
def test_commands_and_values_are_completed(line: str, at: int, completed: str) -> None:
    shell = {"_COUCHLITE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(at)}
    assert completed in run(**shell).splitlines()
