"""Workloads of replications that a server runs itself, between two of its databases named by URL."""

from __future__ import annotations

import statistics
import time

from .registry import BIG, BIG_DATABASE, big, workload
from .servers import Server

SETTLE_S = 2
"""So long a new continuous replication has to begin."""
PAUSE_S = 0.05


@workload("docs/s", 10, set_up=big)
def replicate_self(server: Server) -> float:
    """One-shot, of all documents."""
    server.fresh("bench_copy")
    started = time.perf_counter()
    server.call(
        "POST", "/_replicate", {"source": _url(server, BIG_DATABASE), "target": _url(server, "bench_copy")}
    )
    took = time.perf_counter() - started
    copied = int(server.call("GET", "/bench_copy")["doc_count"])
    if copied < BIG:
        raise RuntimeError(f"{copied} documents arrived")
    return copied / took


@workload("ms", 20, higher=False)
def live_latency_p50(server: Server) -> float:
    """How long a write takes into a continuously replicated target."""
    server.fresh("bench_from")
    server.fresh("bench_to")
    request = {
        "source": _url(server, "bench_from"),
        "target": _url(server, "bench_to"),
        "continuous": True,
    }
    server.call("POST", "/_replicate", request)
    time.sleep(SETTLE_S)
    writer, reader = server.connect(), server.connect()
    taken = []
    for number in range(20):
        since = server.call("GET", "/bench_to", connection=reader)["update_seq"]
        started = time.perf_counter()
        server.call("PUT", f"/bench_from/{number}", {"n": number}, connection=writer)
        feed = f"/bench_to/_changes?feed=longpoll&since={since}&timeout=20000"
        if not server.call("GET", feed, connection=reader)["results"]:
            raise RuntimeError("a write did not arrive within 20 s")
        taken.append((time.perf_counter() - started) * 1000)
        time.sleep(PAUSE_S)
    server.call("POST", "/_replicate", {**request, "cancel": True})
    return statistics.median(taken)


def _url(server: Server, database: str) -> str:
    return f"http://{server.credentials}@{server.host}:{server.port}/{database}"
