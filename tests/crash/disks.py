"""Small file systems to fill."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


class SmallDisk:
    """A mounted file system of a few megabytes, at `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self) -> None:
        """Take all the space there is."""
        with self._ballast.open("ab", buffering=0) as file:
            # ext4 holds some back until what was written has found its place.
            for _ in range(5):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                os.fsync(file.fileno())

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(directory: Path, kind: str, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount one of `kind`, tmpfs or ext4, in `directory`; skips the test where that can't be done."""
    path = directory / "disk"
    path.mkdir()
    if kind == "ext4":
        image = directory / "disk.image"
        image.touch()
        os.truncate(image, size_bytes)
        if shutil.which("mkfs.ext4") is None:
            pytest.skip("needs mkfs.ext4 to make a small file system")
        subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(path)]
    else:
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "couchlite-test", str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a small file system can't be mounted here, which takes root: {done.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
