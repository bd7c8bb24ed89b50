"""The generations of an environment, each in a numbered directory: who may make one, and what is left of one
that failed. Why there are several: see LmdbEnvironment.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from ..disk import sync_directory, sync_tree
from ..engine import Keyspace
from .failures import write_error
from .files import close_environment, lay_out, newest_generation, open_environment

FIRST = "1"
"""The first generation's directory."""
DRAFT = "draft"
"""The directory of one that is being made."""
SEAL = b"sealed"
"""A generation's mark that nobody writes to it any more; its value is the number of the one that follows."""


def hold_seal(path: Path, *, wait: bool = False) -> int | None:
    """A descriptor that holds the right to seal until it is closed; None when somebody else has it and is
    not to be waited for."""
    held = os.open(path / "seal.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(held, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        os.close(held)
        return None
    return held


def write_first(path: Path, spaces: type[Keyspace]) -> None:
    """Make the first generation, whole or not at all, unless there is one."""
    if newest_generation(path):
        return
    held = hold_seal(path, wait=True)
    assert held is not None
    try:
        if not newest_generation(path):
            draft = path / DRAFT
            shutil.rmtree(draft, ignore_errors=True)
            lay_out(draft, spaces)
            sync_tree(draft)
            os.rename(draft, path / FIRST)
            sync_directory(path)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        os.close(held)


def lift_seal(draft: Path, spaces: type[Keyspace]) -> None:
    """Take the mark off the copy that a sealed generation gave."""
    env, handles = open_environment(draft, spaces)
    with env.begin(write=True) as txn:
        txn.delete(SEAL, db=handles[0])
    close_environment(env)
    sync_directory(draft)


def remove_leftovers(path: Path, current: int) -> None:
    """Remove what a process left behind that was killed while it made a successor."""
    names = [name for name in os.listdir(path) if _is_leftover(name, current)]
    held = hold_seal(path) if names else None
    if held is not None:
        for name in names:
            shutil.rmtree(path / name, ignore_errors=True)
        os.close(held)


def _is_leftover(name: str, current: int) -> bool:
    return name == DRAFT or (name.isdigit() and int(name) < current)
