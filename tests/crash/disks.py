"""Small file systems: to be filled, or to lose what had not reached the disk."""

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

    def fill(self, leave_bytes: int = 0) -> None:
        """Take all the space there is, but for some bytes."""
        with self._ballast.open("ab", buffering=0) as file:
            # ext4 holds some back until what was written has found its place.
            for _ in range(5):
                with contextlib.suppress(OSError):
                    while True:
                        file.write(bytes(4096))
                os.fsync(file.fileno())
            if leave_bytes:
                file.truncate(file.tell() - leave_bytes)

    def free(self) -> None:
        """Give it back."""
        self._ballast.unlink()


@contextlib.contextmanager
def small_disk(directory: Path, kind: str, size_bytes: int) -> Iterator[SmallDisk]:
    """Mount a new one of `kind`, tmpfs or ext4, in `directory`; skips the test where that can't be done."""
    if kind == "tmpfs":
        options = ["-t", "tmpfs", "-o", f"size={size_bytes}", "couchlite-test"]
    else:
        image = directory / "disk.image"
        make_image(image, size_bytes)
        options = ["-o", "loop", str(image)]
    with mounted(directory / "disk", *options) as path:
        yield SmallDisk(path)


def make_image(image: Path, size_bytes: int) -> None:
    """Make a file with an empty ext4 file system in it."""
    if shutil.which("mkfs.ext4") is None:
        pytest.skip("needs mkfs.ext4 to make a small file system")
    image.touch()
    os.truncate(image, size_bytes)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True)


def copy_of_device(mounted_at: Path, image: Path, copy: Path) -> Path:
    """What is on the device of a mounted image at one moment: `image` as it is, without what the kernel has
    not written to it. Nothing may be written meanwhile, or the copy would be of no moment at all; the kernel
    may have something to finish when those who use the file system were just stopped."""
    while True:
        before, under_way = _writes_to(mounted_at)
        shutil.copyfile(image, copy)
        if not under_way and _writes_to(mounted_at) == (before, 0):
            return copy


def _writes_to(mounted_at: Path) -> tuple[int, int]:
    """How many writes there have been to the device of a file system; and how many requests are under way."""
    number = os.stat(mounted_at).st_dev
    statistics = Path(f"/sys/dev/block/{os.major(number)}:{os.minor(number)}/stat").read_text().split()
    return int(statistics[4]), int(statistics[8])


@contextlib.contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """Mount at `path`; skips the test where that can't be done."""
    path.mkdir(exist_ok=True)
    done = subprocess.run(["mount", *options, str(path)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a file system can't be mounted here, which takes root: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
