"""What thousands of resting replications cost: `python -m benchmarks.idle_replications --help`.

Makes databases in pairs and a document of _replicator for each, waits until all of them rest, and tells how
much of a core the whole server then takes. Then it writes into some of the sources and tells how soon each
document was in its target.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import statistics
import time
from pathlib import Path

from .servers import Couchlite, Server, processes_of

SETTLE_TIMEOUT_S = 600.0
ARRIVAL_TIMEOUT_S = 30.0
QUIET_S = 10.0
"""So long after the last of them has started they all sleep."""
QUIET_ELSEWHERE_S = 45.0
"""Those from another server keep their feed; by then they have noted a checkpoint."""
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def measure(server: Server, source: Server, pairs: int, idle_s: float, writes: int, spread: int) -> None:
    """:param source: where the sources are; `server` runs the replications."""
    connection, elsewhere = server.connect(), source.connect()
    before, before_mib = _load(server, idle_s), server.pss_mib()
    print(f"without replications: {before:.2f} % of a core")
    username, _, password = server.credentials.partition(":")
    auth = {"basic": {"username": username, "password": password}}
    begun = time.monotonic()
    for number in range(pairs):
        server.call("PUT", f"/bench_target_{number}", connection=connection)
        source.call("PUT", f"/bench_source_{number}", connection=elsewhere)
        source.call("PUT", f"/bench_source_{number}/first", {}, connection=elsewhere)
        document = {
            "source": {"url": f"{source.base}/bench_source_{number}", "auth": auth},
            "target": {"url": f"{server.base}/bench_target_{number}", "auth": auth},
            "continuous": True,
        }
        server.call("PUT", f"/_replicator/{number}", document, connection=connection)
    print(f"{pairs} replications asked for after {time.monotonic() - begun:.0f} s")
    for number in range(pairs):
        _wait_for(server, f"/bench_target_{number}/first", SETTLE_TIMEOUT_S)
    print(f"all documents are there after {time.monotonic() - begun:.0f} s")
    time.sleep(QUIET_S if source is server else QUIET_ELSEWHERE_S)
    load = _load(server, idle_s)
    print(f"{pairs} resting replications: {load:.2f} % of a core, {load - before:+.2f} by them")
    print(f"each takes {(server.pss_mib() - before_mib) * 1024 / pairs:.0f} KiB, their databases included")
    delays_ms = []
    for turn in range(writes):
        number = random.randrange(pairs)
        started = time.perf_counter()
        source.call("PUT", f"/bench_source_{number}/w{turn}", {"n": turn}, connection=elsewhere)
        _wait_for(server, f"/bench_target_{number}/w{turn}", ARRIVAL_TIMEOUT_S)
        delays_ms.append((time.perf_counter() - started) * 1000)
    print(
        f"a write arrived after ms: median {statistics.median(delays_ms):.0f}, at most {max(delays_ms):.0f}"
    )
    chosen = random.sample(range(pairs), min(spread, pairs))
    started = time.perf_counter()
    for number in chosen:
        source.call("PUT", f"/bench_source_{number}/all", {}, connection=elsewhere)
    for number in chosen:
        _wait_for(server, f"/bench_target_{number}/all", ARRIVAL_TIMEOUT_S)
    print(f"one write in each of {len(chosen)}: all arrived after {time.perf_counter() - started:.1f} s")


def _load(server: Server, seconds: float) -> float:
    """Percent of one core that the server's processes take."""
    assert server.pid is not None
    before, begun = _cpu_s(server.pid), time.monotonic()
    time.sleep(seconds)
    return 100 * (_cpu_s(server.pid) - before) / (time.monotonic() - begun)


def _cpu_s(pid: int) -> float:
    ticks = 0
    for process in processes_of(pid):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS_PER_S


def _wait_for(server: Server, path: str, timeout_s: float) -> None:
    connection = server.connect()
    deadline = time.monotonic() + timeout_s
    while server.send("GET", path, connection=connection)[0] != 200:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{path} did not come")
        time.sleep(0.005)
    connection.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.idle_replications", description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--idle", type=float, default=30.0, help="seconds over which the load is measured")
    parser.add_argument("--writes", type=int, default=50, help="into single sources, one after the other")
    parser.add_argument("--spread", type=int, default=100, help="sources that are written to at once")
    parser.add_argument("--workers", type=int, help="worker processes of couchlite (default: one a core)")
    parser.add_argument("--elsewhere", action="store_true", help="the sources are on a server of their own")
    options = parser.parse_args()
    with Couchlite(options.workers) as couchlite, contextlib.ExitStack() as opened:
        source = opened.enter_context(Couchlite(options.workers)) if options.elsewhere else couchlite
        measure(couchlite, source, options.pairs, options.idle, options.writes, options.spread)


if __name__ == "__main__":
    main()
