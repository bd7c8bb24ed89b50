"""What an index costs when it is large: `python -m benchmarks.index_growth --help`.

The total and a grouped reduction over ten thousand and over ten million rows, and how long point reads wait
while a million documents are indexed, against how long they wait when nothing happens.
"""

from __future__ import annotations

import argparse
import http.client
import random
import statistics
import threading
import time
from pathlib import Path

from .load import document, load
from .servers import Couchlite, Server

SMALL, LARGE = "bench_rows_few", "bench_rows_many"
SMALL_DOCUMENTS = 1_000
ROWS_A_DOCUMENT = 10
DESIGN = {
    "views": {
        "rows": {
            "map": f"function (doc) {{ for (var i = 0; i < {ROWS_A_DOCUMENT}; i++)"
            " emit([doc.number % 10, doc.number, i], doc.number); }",
            "reduce": "_sum",
        }
    }
}
VIEW = "_design/rows/_view/rows"
QUERIES = {
    "total": "",
    "another range": "?startkey=[1,NUMBER]&endkey=[7,{}]",
    "grouped, another range": "?group_level=1&startkey=[0,NUMBER]",
}
"""A server may remember the answer to the very same query, so that most of them differ each time."""
REPEATS = 200
IDLE_S = 20


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.index_growth",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--documents", type=int, default=1_000_000, help="each has ten rows")
    parser.add_argument("--workers", type=int)
    parser.add_argument("--dir", type=Path, help="where couchlite's temporary data directory is made")
    options = parser.parse_args()
    with Couchlite(options.workers, options.dir) as server:
        for database, count in ((SMALL, SMALL_DOCUMENTS), (LARGE, options.documents)):
            server.fresh(database)
            load(server, database, count)
            server.call("PUT", f"/{database}/_design/rows", DESIGN)
        server.call("GET", f"/{SMALL}/{VIEW}")
        idle = _waits(server, options.documents, _Elapsed(IDLE_S))
        _tell("reads of an idle server", idle)
        build = _Build(server)
        _tell("reads during a build", _waits(server, options.documents, build))
        print(f"{options.documents:,} documents indexed in {build.took_s:.1f} s", flush=True)
        for name, query in QUERIES.items():
            few, many = (_median_ms(server, f"/{database}/{VIEW}{query}") for database in (SMALL, LARGE))
            print(f"{name:24} {few:7.2f} ms over few rows, {many:7.2f} over many: {many / few:5.2f} times")


class _Elapsed(threading.Event):
    """Set after some seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        threading.Timer(seconds, self.set).start()


class _Build(threading.Event):
    """Set when the index of the large database is there."""

    def __init__(self, server: Server) -> None:
        super().__init__()
        self.took_s = 0.0
        self._server = server
        threading.Thread(target=self._run).start()

    def _run(self) -> None:
        started = time.perf_counter()
        self._server.call("GET", f"/{LARGE}/{VIEW}")
        self.took_s = time.perf_counter() - started
        self.set()


def _waits(server: Server, count: int, over: threading.Event) -> list[float]:
    """How long each of many point reads took, in milliseconds, one after the other until it is `over`."""
    source = random.Random(1)
    connection: http.client.HTTPConnection = server.connect()
    waits = []
    while not over.is_set():
        doc_id = document(source.randrange(count), random.Random(0))["_id"]
        started = time.perf_counter()
        server.call("GET", f"/{LARGE}/{doc_id}", connection=connection)
        waits.append((time.perf_counter() - started) * 1000)
        time.sleep(0.002)
    connection.close()
    return waits


def _tell(what: str, waits: list[float]) -> None:
    quantiles = statistics.quantiles(waits, n=100)
    print(
        f"{what:24} p50 {quantiles[49]:6.2f} ms, p99 {quantiles[98]:6.2f}, at most {max(waits):6.1f}",
        flush=True,
    )


def _median_ms(server: Server, path: str) -> float:
    connection = server.connect()
    taken = []
    for number in range(REPEATS):
        asked = path.replace("NUMBER", str(number))
        started = time.perf_counter()
        server.call("GET", asked, connection=connection)
        taken.append((time.perf_counter() - started) * 1000)
    connection.close()
    return statistics.median(taken)


if __name__ == "__main__":
    main()
