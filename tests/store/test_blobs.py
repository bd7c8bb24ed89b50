"""Attachment bodies: staged, adopted, read back and swept, on a real environment in a temporary folder."""

from __future__ import annotations

import asyncio
import base64
import gzip
import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from couchlite.blobs import BlobSource, BlobStore
from couchlite.engine import Space
from couchlite.errors import DatabaseNotFound, InsufficientStorage, InternalError
from couchlite.storage import LmdbEnvironment
from couchlite.upload import BLOCK_BYTES, INLINE_LIMIT_BYTES, GzipPolicy, StagedBlob

OCTETS = "application/octet-stream"
LARGE = os.urandom(3 * BLOCK_BYTES + 12_345)
MEDIUM = os.urandom(INLINE_LIMIT_BYTES + 1)


class Home:
    """One database's folder: the environment and the blobs beside it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        store = path / "store.mdb"
        self.engine = LmdbEnvironment(store, Space, create=not store.exists())
        self.blobs = BlobStore(path / "blobs")

    def save(self, data: bytes, content_type: str = OCTETS) -> StagedBlob:
        staged = self.blobs.stage_bytes(data, content_type)
        self.adopt(staged)
        return staged

    def adopt(self, staged: StagedBlob) -> int:
        taken = self.engine.write(lambda batch: self.blobs.adopt(batch, staged))
        staged.discard()
        return taken

    def open(self, key: bytes) -> BlobSource:
        with self.engine.read() as reader:
            return self.blobs.open(reader, key)

    def read(self, key: bytes) -> bytes:
        with self.open(key) as source:
            return source.read()

    def sweep(self, live_keys: set[bytes]) -> int:
        freed = self.engine.write(lambda batch: self.blobs.sweep(batch, live_keys))
        with self.engine.read() as reader:
            orphans = list(self.blobs.orphans(reader))
        self.engine.write(lambda batch: self.blobs.remove_orphans(batch, orphans))
        return freed

    def files(self) -> list[Path]:
        return sorted(path for path in self.blobs.directory.rglob("*") if path.is_file())


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    home = Home(tmp_path)
    yield home
    home.engine.close()


@pytest.mark.parametrize(
    ("data", "files"),
    [
        pytest.param(b"", 0, id="an empty body is kept in the database"),
        pytest.param(b"x", 0, id="a small body is kept in the database"),
        pytest.param(bytes(INLINE_LIMIT_BYTES), 0, id="a body at the limit is kept in the database"),
        pytest.param(MEDIUM, 1, id="a body just above the limit is a file"),
        pytest.param(LARGE, 1, id="a body of several blocks is a file"),
    ],
)
def test_what_was_sent_comes_back(home: Home, data: bytes, files: int) -> None:
    staged = home.save(data)
    assert home.read(staged.key) == data
    assert len(home.files()) == files
    assert (staged.length, staged.identity_length, staged.encoding) == (len(data), len(data), None)
    assert staged.md5 == staged.received_md5 == hashlib.md5(data).digest()
    assert staged.key == hashlib.sha256(data).digest()


@pytest.mark.parametrize("chunk_bytes", [1000, 65_536, BLOCK_BYTES, BLOCK_BYTES + 1, len(LARGE)])
def test_the_size_of_the_chunks_does_not_matter(home: Home, chunk_bytes: int) -> None:
    with home.blobs.stage(OCTETS) as upload:
        for start in range(0, len(LARGE), chunk_bytes):
            upload.write(memoryview(LARGE)[start : start + chunk_bytes])
        staged = upload.finish()
    assert staged.key == hashlib.sha256(LARGE).digest()
    home.adopt(staged)
    assert home.read(staged.key) == LARGE


@pytest.mark.parametrize("data", [b"small", MEDIUM, LARGE], ids=["inline", "one block", "several blocks"])
async def test_an_upload_can_be_awaited(home: Home, data: bytes) -> None:
    async with home.blobs.stage(OCTETS) as upload:
        for start in range(0, len(data), 65_536):
            await upload.write_async(data[start : start + 65_536])
        staged = await upload.finish_async()
    home.adopt(staged)
    assert home.read(staged.key) == data


@pytest.mark.parametrize(
    ("content_type", "text", "digest"),
    [
        pytest.param("text/plain", b"compress me please " * 40, "WD6vYGxIPX8vQrwYAUx4pg==", id="760 bytes"),
        pytest.param("text/plain", b"hello text", "gNbypCVJnqLDMyiH+XQpLw==", id="longer when encoded"),
    ],
)
def test_gzip_is_byte_for_byte_couchdbs(home: Home, content_type: str, text: bytes, digest: str) -> None:
    staged = home.save(text, content_type)
    assert base64.b64encode(staged.md5).decode() == digest
    assert staged.encoding == "gzip"
    assert staged.identity_length == len(text)
    assert staged.received_md5 == hashlib.md5(text).digest()
    assert staged.length == len(home.read(staged.key))


@pytest.mark.parametrize(
    ("content_type", "compressed"),
    [
        ("text/plain", True),
        ("text/css; charset=utf-8", True),
        ("TEXT/HTML", True),
        ("application/json", True),
        ("application/xml ; x=y", True),
        ("application/json5", False),
        ("application/x-text/plain", False),
        ("image/png", False),
        ("image/svg+xml", False),
        ("", False),
    ],
)
def test_which_types_are_compressed(content_type: str, compressed: bool) -> None:
    assert GzipPolicy().covers(content_type) is compressed


def test_compression_can_be_configured() -> None:
    assert not GzipPolicy(level=0).covers("text/plain")
    assert not GzipPolicy(types="").covers("text/plain")
    assert GzipPolicy(types="image/svg+xml").covers("image/svg+xml")
    assert not GzipPolicy(types="image/svg+xml").covers("image/svggxml")


def test_a_long_text_is_compressed_while_it_streams(home: Home) -> None:
    text = b"".join(b"line %d of a long text\n" % number for number in range(200_000))
    with home.blobs.stage("text/plain") as upload:
        for start in range(0, len(text), 100_000):
            upload.write(text[start : start + 100_000])
        staged = upload.finish()
    home.adopt(staged)
    with home.open(staged.key) as source:
        stored = source.read()
        assert b"".join(source.gunzipped()) == text
    assert gzip.decompress(stored) == text
    assert staged.md5 == hashlib.md5(stored).digest()
    assert (staged.identity_length, staged.length) == (len(text), len(stored))


def test_a_long_text_that_shrinks_below_the_limit_is_kept_in_the_database(home: Home) -> None:
    staged = home.save(b"a" * 5 * BLOCK_BYTES, "text/plain")
    assert staged.data is not None
    assert home.files() == []


@pytest.mark.parametrize(
    "data", [gzip.compress(b"precompressed"), b"not gzip at all"], ids=["gzip", "something else"]
)
def test_what_comes_gzip_encoded_is_kept_as_it_is(home: Home, data: bytes) -> None:
    staged = home.blobs.stage_bytes(data, "text/plain", "gzip")
    home.adopt(staged)
    assert home.read(staged.key) == data
    assert (staged.encoding, staged.identity_length) == ("gzip", len(data))


def test_gunzipping_a_bomb_yields_pieces_of_bounded_size(home: Home) -> None:
    staged = home.save(bytes(20_000_000), "text/plain")
    with home.open(staged.key) as source:
        sizes = [len(piece) for piece in source.gunzipped(100_000)]
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= 100_000


@pytest.mark.parametrize(
    "data",
    [b"not gzip at all", gzip.compress(b"cut off" * 100)[:-9], b""],
    ids=["no gzip", "cut off", "empty"],
)
def test_gunzipping_what_is_no_gzip_is_an_error(home: Home, data: bytes) -> None:
    staged = home.blobs.stage_bytes(data, OCTETS, "gzip")
    home.adopt(staged)
    with home.open(staged.key) as source, pytest.raises(InternalError, match="not valid gzip"):
        list(source.gunzipped())


@pytest.mark.parametrize("data", [b"0123456789", LARGE], ids=["in the database", "a file"])
def test_a_range_can_be_read(home: Home, data: bytes) -> None:
    staged = home.save(data)
    with home.open(staged.key) as source:
        assert source.length == len(data)
        assert source.read(3, 4) == data[3:7]
        assert source.read(len(data) - 2) == data[-2:]
        assert b"".join(source.chunks(1, len(data) - 2, chunk_bytes=7_777)) == data[1:-1]
        assert source.read(len(data)) == b""
        with pytest.raises(ValueError, match="bytes"):
            source.read(len(data) - 1, 2)


def test_equal_bodies_are_stored_once(home: Home) -> None:
    taken = []
    for data, content_type in [(LARGE, OCTETS), (LARGE, "image/png"), (b"small", OCTETS), (b"small", OCTETS)]:
        staged = home.blobs.stage_bytes(data, content_type)
        taken.append(home.adopt(staged))
    assert len(home.files()) == 1
    assert taken == [len(LARGE), 0, 0, 0], "only a new file takes more disk"


def test_a_transaction_that_is_run_again_adopts_again(home: Home) -> None:
    staged = home.blobs.stage_bytes(LARGE, OCTETS)

    def interrupted(batch: object) -> None:
        home.blobs.adopt(batch, staged)  # type: ignore[arg-type]
        raise RuntimeError("the transaction is rolled back")

    with pytest.raises(RuntimeError):
        home.engine.write(interrupted)
    with pytest.raises(InternalError, match="missing"):
        home.open(staged.key)
    home.adopt(staged)
    assert home.read(staged.key) == LARGE


def test_adopting_what_was_discarded_is_an_error(home: Home) -> None:
    staged = home.blobs.stage_bytes(LARGE, OCTETS)
    staged.discard()
    with pytest.raises(InternalError, match="gone"):
        home.adopt(staged)
    with pytest.raises(InternalError, match="missing"):
        home.open(staged.key)


def test_an_upload_left_unfinished_leaves_nothing_behind(home: Home) -> None:
    with pytest.raises(RuntimeError), home.blobs.stage(OCTETS) as upload:
        upload.write(LARGE)
        raise RuntimeError("the client went away")
    assert home.files() == []
    with pytest.raises(InternalError, match="over"):
        upload.write(b"more")


async def test_a_cancelled_upload_leaves_nothing_behind(home: Home) -> None:
    async def receive() -> None:
        async with home.blobs.stage(OCTETS) as upload:
            while True:
                await upload.write_async(LARGE)
                await asyncio.sleep(0)

    task = asyncio.create_task(receive())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert home.files() == []


def test_a_discarded_body_leaves_nothing_behind(home: Home) -> None:
    staged = home.blobs.stage_bytes(LARGE, OCTETS)
    assert len(home.files()) == 1
    staged.discard()
    staged.discard()
    assert home.files() == []


def test_uploading_to_a_deleted_database_does_not_bring_its_folder_back(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "deleted" / "blobs")
    with pytest.raises(DatabaseNotFound):
        blobs.stage_bytes(LARGE, OCTETS)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(lambda path: os.truncate(path, 100), id="truncated"),
        pytest.param(lambda path: path.write_bytes(LARGE + b"x"), id="too long"),
        pytest.param(lambda path: path.unlink(), id="missing"),
    ],
)
def test_a_damaged_file_is_an_error_and_the_next_upload_heals_it(home: Home, damage: object) -> None:
    staged = home.save(LARGE)
    damage(home.files()[0])  # type: ignore[operator]
    with pytest.raises(InternalError, match=r"damaged|can't be read"):
        home.open(staged.key)
    home.save(LARGE)
    assert home.read(staged.key) == LARGE


def test_a_file_cut_off_while_it_is_read_is_an_error(home: Home) -> None:
    staged = home.save(LARGE)
    with home.open(staged.key) as source:
        os.truncate(home.files()[0], 100)
        with pytest.raises(InternalError, match="ends at 100"):
            source.read()


def test_a_sweep_keeps_what_is_live_and_drops_the_rest(home: Home) -> None:
    live_file, live_small = home.save(LARGE), home.save(b"live")
    dead_file, dead_small = home.save(MEDIUM), home.save(b"dead")
    assert home.sweep({live_file.key, live_small.key}) == len(MEDIUM)
    assert home.read(live_file.key) == LARGE
    assert home.read(live_small.key) == b"live"
    assert len(home.files()) == 1
    for key in (dead_file.key, dead_small.key):
        with pytest.raises(InternalError, match="missing"):
            home.open(key)


def test_a_body_being_read_survives_the_sweep(home: Home) -> None:
    staged = home.save(LARGE)
    with home.open(staged.key) as source:
        home.sweep(set())
        assert home.files() == []
        assert source.read() == LARGE


def test_a_file_adopted_again_after_it_was_found_orphaned_is_kept(home: Home) -> None:
    staged = home.save(LARGE)
    home.engine.write(lambda batch: home.blobs.sweep(batch, set()))
    with home.engine.read() as reader:
        orphans = list(home.blobs.orphans(reader))
    assert orphans == [staged.key]
    home.save(LARGE)
    home.engine.write(lambda batch: home.blobs.remove_orphans(batch, orphans))
    assert home.read(staged.key) == LARGE


def test_the_file_of_a_transaction_that_failed_is_an_orphan(home: Home) -> None:
    staged = home.blobs.stage_bytes(LARGE, OCTETS)

    def interrupted(batch: object) -> None:
        home.blobs.adopt(batch, staged)  # type: ignore[arg-type]
        raise RuntimeError("the transaction is rolled back")

    with pytest.raises(RuntimeError):
        home.engine.write(interrupted)
    assert len(home.files()) == 1
    home.sweep(set())
    assert home.files() == []


LEAVES_UPLOADS = """
import os, signal, sys
from pathlib import Path
from couchlite.blobs import BlobStore

staged = BlobStore(Path(sys.argv[1]) / "blobs").stage_bytes(bytes(100_000), "image/png")
print(staged.path, flush=True)
sys.stdin.read()
"""


def test_only_uploads_of_dead_processes_are_removed(home: Home, tmp_path: Path) -> None:
    own = home.blobs.stage_bytes(LARGE, OCTETS)
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES_UPLOADS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().decode().strip())
        home.blobs.remove_dead_uploads()
        assert set(home.files()) == {own.path, theirs}
        other.kill()
        other.wait()
        home.blobs.remove_dead_uploads()
        assert home.files() == [own.path]
        assert not theirs.parent.exists()


FILLS_THE_DISK = """
import resource, sys
from pathlib import Path
from couchlite.blobs import BlobStore
from couchlite.errors import InsufficientStorage

resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))
blobs = BlobStore(Path(sys.argv[1]) / "blobs")
try:
    with blobs.stage("image/png") as upload:
        for _ in range(int(sys.argv[2])):
            upload.write(bytes(100_000))
        upload.finish()
except InsufficientStorage as error:
    print(error.status)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file sizes can't be limited")
@pytest.mark.parametrize("chunks", [25, 100], ids=["on finishing", "in the middle"])
def test_a_body_that_does_not_fit_is_refused_and_its_file_removed(tmp_path: Path, chunks: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FILLS_THE_DISK, str(tmp_path), str(chunks)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.strip() == str(InsufficientStorage.status)
    assert list((tmp_path / "blobs" / "tmp").iterdir()) == []


UPLOADS = """
import sys
from pathlib import Path
from tests.store.test_blobs import Home

home = Home(Path(sys.argv[1]))
for number in range(30):
    home.save(bytes([number]) * 100_000)
home.engine.close()
"""


def test_several_processes_upload_the_same_bodies(home: Home, tmp_path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", UPLOADS, str(tmp_path)]) for _ in range(3)]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0]
    assert len(home.files()) == 30
    for number in range(30):
        data = bytes([number]) * 100_000
        assert home.read(hashlib.sha256(data).digest()) == data
