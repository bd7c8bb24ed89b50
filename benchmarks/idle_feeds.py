"""How soon thousands of idle continuous feeds hear of a write: `python -m benchmarks.idle_feeds --help`.

Opens the feeds on one database, writes a document now and then, and tells how long after the beginning of the
write its row had arrived: at the median feed, at the 99th percentile and at the last one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import statistics
import time
from typing import cast

import uvloop

from .servers import Couchlite, Server

DATABASE = "bench_feeds"
CONNECTING_AT_ONCE = 100
ARRIVAL_TIMEOUT_S = 30.0


class Arrivals:
    """When each feed was told of the latest write."""

    def __init__(self) -> None:
        self.times_s: list[float] = []
        self.awaited = 0
        self.complete = asyncio.Event()

    def expect(self, count: int) -> None:
        self.times_s = []
        self.awaited = count
        self.complete.clear()

    def arrived(self) -> None:
        self.times_s.append(time.perf_counter())
        if len(self.times_s) >= self.awaited:
            self.complete.set()


class FeedClient(asyncio.Protocol):
    """A connection with one feed; it does as little as it can, since all of them share a core."""

    def __init__(self, request: bytes, arrivals: Arrivals) -> None:
        self._request = request
        self._arrivals = arrivals
        self.begun = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.WriteTransport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        if not self.begun.done():
            self.begun.set_result(data[9:12] == b"200")
        for _row in range(data.count(b'"changes":')):
            self._arrivals.arrived()


async def measure(server: Server, feeds: int, writes: int, pause_s: float, query: str) -> None:
    server.fresh(DATABASE)
    before_mib = server.pss_mib() if server.pid else 0.0
    arrivals = Arrivals()
    clients = await connect(server, feeds, query, arrivals)
    if server.pid:
        used_kib = (server.pss_mib() - before_mib) * 1024 / feeds
        print(f"{feeds} feeds are open; each takes {used_kib:.1f} KiB of the server")
    delays_ms: list[float] = []
    last_ms: list[float] = []
    writer = server.connect()
    for number in range(writes):
        await asyncio.sleep(pause_s)
        arrivals.expect(feeds)
        body = json.dumps({"n": number, "text": "lorem ipsum " * 20}).encode()
        started = time.perf_counter()
        await asyncio.to_thread(server.send, "PUT", f"/{DATABASE}/{number}", body, writer)
        await asyncio.wait_for(arrivals.complete.wait(), ARRIVAL_TIMEOUT_S)
        delays_ms += [(time_s - started) * 1000 for time_s in arrivals.times_s]
        last_ms.append((arrivals.times_s[-1] - started) * 1000)
    cuts = statistics.quantiles(delays_ms, n=100)
    all_ms = statistics.median(last_ms)
    print(f"told after ms: median {cuts[49]:.0f}, p99 {cuts[98]:.0f}, all of them {all_ms:.0f}")
    for transport, _client in clients:
        transport.close()


async def connect(
    server: Server, feeds: int, query: str, arrivals: Arrivals
) -> list[tuple[asyncio.BaseTransport, FeedClient]]:
    head = f"GET /{DATABASE}/_changes?{query} HTTP/1.1\r\nHost: {server.host}\r\n"
    request = f"{head}Authorization: {server.authorization}\r\n\r\n".encode()
    loop = asyncio.get_running_loop()
    clients: list[tuple[asyncio.BaseTransport, FeedClient]] = []
    for at in range(0, feeds, CONNECTING_AT_ONCE):
        opened = await asyncio.gather(
            *(
                loop.create_connection(lambda: FeedClient(request, arrivals), server.host, server.port)
                for _ in range(min(CONNECTING_AT_ONCE, feeds - at))
            )
        )
        if not all(await asyncio.gather(*(client.begun for _transport, client in opened))):
            raise RuntimeError("a feed was refused")
        clients += opened
    return clients


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_feeds", description=__doc__)
    parser.add_argument("--feeds", type=int, default=5000)
    parser.add_argument("--writes", type=int, default=10)
    parser.add_argument("--pause", type=float, default=1.0, help="seconds between writes")
    parser.add_argument("--workers", type=int, default=1, help="worker processes of couchlite")
    parser.add_argument("--url", help="measure this server instead of a couchlite started here")
    parser.add_argument("--query", default="feed=continuous&since=now&heartbeat=60000")
    options = parser.parse_args()
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    with uvloop_runner() as runner:
        if options.url:
            server = Server("other", options.url)
            runner.run(measure(server, options.feeds, options.writes, options.pause, options.query))
            return
        with Couchlite(options.workers) as couchlite:
            runner.run(measure(couchlite, options.feeds, options.writes, options.pause, options.query))


def uvloop_runner() -> asyncio.Runner:
    return asyncio.Runner(loop_factory=uvloop.new_event_loop)


if __name__ == "__main__":
    main()
