"""What stays the same while a database grows: `python -m benchmarks.growth --help`.

Inserts and point reads at 10,000 and at a million documents, and the memory of the whole process tree while a
slow client reads a million rows of `_all_docs` and of `_changes`, and a large attachment goes in and out.
"""

from __future__ import annotations

import argparse
import http.client
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .load import bulk_bodies, document, get_script, load, wrk
from .registry import MIB
from .servers import Couchlite, Server

DATABASE = "bench_growth"
SMALL = 10_000
PROBE = 10_000
"""Documents inserted to measure the rate of inserts."""
SAMPLE_S = 0.2


class MemoryWatch:
    """The largest Pss of any process of the tree, in MiB, while the context is open."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.largest_mib: dict[int, float] = {}
        self.tree_mib = 0.0

    def __enter__(self) -> MemoryWatch:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(SAMPLE_S):
            sizes = self._server.pss_of_processes_mib()
            self.tree_mib = max(self.tree_mib, sum(sizes.values()))
            for pid, size in sizes.items():
                self.largest_mib[pid] = max(self.largest_mib.get(pid, 0), size)


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--documents", type=int, default=1_000_000)
    parser.add_argument("--attachment-mib", type=int, default=2048)
    parser.add_argument("--reader-mib-s", type=float, default=20.0, help="how fast the slow client reads")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--dir", type=Path, help="where couchlite's temporary data directory is made")
    options = parser.parse_args()
    with Couchlite(options.workers, options.dir) as server:
        _growth(server, options.documents)
        pace = options.reader_mib_s * MIB
        _streamed(server, "_all_docs", lambda: _read_slowly(server, f"/{DATABASE}/_all_docs", pace))
        _streamed(server, "_changes", lambda: _read_slowly(server, f"/{DATABASE}/_changes", pace))
        size = options.attachment_mib * MIB
        server.call("PUT", "/_node/_local/_config/couchdb/max_attachment_size", str(size))
        _streamed(server, "attachment PUT", lambda: _upload(server, size))
        _streamed(server, "attachment GET", lambda: _read_slowly(server, f"/{DATABASE}/blob/b", None))


def _growth(server: Server, count: int) -> None:
    server.fresh(DATABASE)
    load(server, DATABASE, SMALL)
    before = _insert_rate(server, SMALL), _read_rate(server, SMALL)
    print(f"at {SMALL:>9,} documents: {before[0]:9,.0f} inserts/s {before[1]:9,.0f} reads/s", flush=True)
    load(server, DATABASE, count - SMALL - PROBE, SMALL + PROBE)
    after = _insert_rate(server, count), _read_rate(server, count)
    print(f"at {count:>9,} documents: {after[0]:9,.0f} inserts/s {after[1]:9,.0f} reads/s")
    print(
        f"ratio:                  {after[0] / before[0]:9.2f}           {after[1] / before[1]:9.2f}",
        flush=True,
    )


def _insert_rate(server: Server, start: int) -> float:
    connection = server.connect()
    bodies = bulk_bodies(PROBE, 1000, start)
    started = time.perf_counter()
    for body in bodies:
        server.call("POST", f"/{DATABASE}/_bulk_docs", body, connection=connection)
    return PROBE / (time.perf_counter() - started)


def _read_rate(server: Server, count: int) -> float:
    source = random.Random(1)
    ids = [document(source.randrange(count), random.Random(0))["_id"] for _ in range(2000)]
    return wrk(server, get_script([f"/{DATABASE}/{doc_id}" for doc_id in ids]), 32)


def _streamed(server: Server, name: str, run: Callable[[], int]) -> None:
    """Run a transfer and print how large the processes became meanwhile."""
    base = server.pss_mib()
    started = time.perf_counter()
    with MemoryWatch(server) as watch:
        transferred = run()
    took = time.perf_counter() - started
    largest = max(watch.largest_mib.values(), default=0)
    print(
        f"{name:15} {transferred / MIB:6,.0f} MiB in {took:5.1f} s, Pss of the tree {base:4.0f} MiB before, "
        f"{watch.tree_mib:4.0f} at most; largest process {largest:4.0f}",
        flush=True,
    )


def _read_slowly(server: Server, path: str, bytes_per_s: float | None) -> int:
    """Read a response at a limited pace; how many bytes it had."""
    connection = server.connect()
    connection.request("GET", path, headers={"Authorization": server.authorization})
    response = connection.getresponse()
    if response.status != 200:
        raise RuntimeError(f"{path}: {response.status}")
    total = 0
    started = time.perf_counter()
    while data := response.read(MIB):
        total += len(data)
        if bytes_per_s is not None:
            time.sleep(max(0.0, total / bytes_per_s - (time.perf_counter() - started)))
    return total


def _upload(server: Server, size: int) -> int:
    """PUT an attachment of `size` bytes, made as it is sent."""

    def pieces() -> Iterator[bytes]:
        for number in range(size // MIB):
            yield number.to_bytes(8, "big") * (MIB // 8)

    connection: http.client.HTTPConnection = server.connect()
    headers = {
        "Authorization": server.authorization,
        "Content-Type": "application/octet-stream",
        "Content-Length": str(size),
    }
    connection.request("PUT", f"/{DATABASE}/blob/b", pieces(), headers)
    response = connection.getresponse()
    if response.status != 201:
        raise RuntimeError(f"the upload: {response.status} {response.read()[:200]!r}")
    return size


if __name__ == "__main__":
    main()
