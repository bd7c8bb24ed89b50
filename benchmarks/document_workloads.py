"""Workloads of documents, attachments and databases."""

from __future__ import annotations

import json
import os
import random
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

from .load import bulk_bodies, documents, get_script, put_script, wrk
from .registry import BIG, BIG_DATABASE, MIB, big, workload
from .servers import Server

BODY = json.dumps({"kind": "article", "tags": ["a", "b", "c"], "text": "lorem ipsum " * 55})


def _some_ids(count: int, seed: int = 3) -> list[str]:
    chosen = random.Random(seed).sample(range(BIG), count)
    wanted = set(chosen)
    return [doc["_id"] for number, doc in enumerate(documents(BIG)) if number in wanted]


# --- writing ----------------------------------------------------------------------------------------------


@workload("docs/s", 6)
def bulk_insert_1conn(server: Server) -> float:
    return _bulk_insert(server, connections=1, batch=1000)


@workload("docs/s", 8)
def bulk_insert_4conn(server: Server) -> float:
    return _bulk_insert(server, connections=4, batch=500)


def _bulk_insert(server: Server, connections: int, batch: int, count: int = 20_000) -> float:
    server.fresh("bench_bulk")
    bodies = bulk_bodies(count, batch)

    def send(share: list[bytes]) -> None:
        connection = server.connect()
        for body in share:
            server.call("POST", "/bench_bulk/_bulk_docs", body, connection=connection)
        connection.close()

    started = time.perf_counter()
    with ThreadPoolExecutor(connections) as pool:
        list(pool.map(send, [bodies[at::connections] for at in range(connections)]))
    return count / (time.perf_counter() - started)


def _put(server: Server, connections: int) -> float:
    server.fresh("bench_put")
    return wrk(server, put_script("bench_put", BODY), connections)


@workload("req/s", 5)
def put_c1(server: Server) -> float:
    return _put(server, 1)


@workload("req/s", 6)
def put_c32(server: Server) -> float:
    return _put(server, 32)


@workload("req/s", 4)
def put_c256(server: Server) -> float:
    return _put(server, 256)


@workload("docs/s")
def bulk_update(server: Server) -> float:
    """Ten rounds over the same 2,000 documents: revision trees grow."""
    server.fresh("bench_update")
    docs = list(documents(2000))
    connection = server.connect()
    started = time.perf_counter()
    for _round in range(10):
        body = json.dumps({"docs": docs}).encode()
        rows = server.call("POST", "/bench_update/_bulk_docs", body, connection=connection)
        for doc, row in zip(docs, rows, strict=True):
            doc["_rev"] = row["rev"]
    connection.close()
    return 20_000 / (time.perf_counter() - started)


@workload("edits/s")
def long_history(server: Server) -> float:
    """One document edited 1,500 times, one edit after the other: trees at and beyond the default limit."""
    server.fresh("bench_history")
    connection = server.connect()
    rev = server.call("PUT", "/bench_history/a", {}, connection=connection)["rev"]
    started = time.perf_counter()
    for number in range(1500):
        doc = {"_rev": rev, "n": number}
        rev = server.call("PUT", "/bench_history/a", doc, connection=connection)["rev"]
    connection.close()
    return 1500 / (time.perf_counter() - started)


@workload("MiB/s")
def large_documents(server: Server) -> float:
    """Documents of 1 MiB, one by one."""
    server.fresh("bench_large")
    text = " ".join(random.Random(1).choices([f"word{n}" for n in range(5000)], k=140_000))[:MIB]
    connection = server.connect()
    started = time.perf_counter()
    for number in range(30):
        server.call("PUT", f"/bench_large/{number}", {"text": text}, connection=connection)
    connection.close()
    return 30 / (time.perf_counter() - started)


# --- reading ----------------------------------------------------------------------------------------------


def _get(server: Server, connections: int) -> float:
    paths = [f"/{BIG_DATABASE}/{doc_id}" for doc_id in _some_ids(2000)]
    return wrk(server, get_script(paths), connections)


@workload("req/s", 6, set_up=big)
def get_c32(server: Server) -> float:
    return _get(server, 32)


@workload("req/s", 3, set_up=big)
def get_c1(server: Server) -> float:
    return _get(server, 1)


def _stream(server: Server, path: str) -> float:
    """Rows a second of a response that lists the whole big database."""
    started = time.perf_counter()
    status, data = server.send("GET", f"/{BIG_DATABASE}/{path}")
    took = time.perf_counter() - started
    if status != 200 or data.count(b"\n") < BIG:
        raise RuntimeError(f"{path}: {status} {data[:200]!r}, {len(data)} bytes")
    return BIG / took


@workload("rows/s", 8, set_up=big)
def all_docs(server: Server) -> float:
    return _stream(server, "_all_docs")


@workload("rows/s", 20, set_up=big)
def all_docs_include(server: Server) -> float:
    return _stream(server, "_all_docs?include_docs=true")


@workload("rows/s", 15, set_up=big)
def changes_feed(server: Server) -> float:
    return _stream(server, "_changes?style=all_docs")


@workload("rows/s", 20, set_up=big)
def changes_include(server: Server) -> float:
    return _stream(server, "_changes?include_docs=true")


AGE_INDEX = {"index": {"fields": ["author.age"]}, "ddoc": "by_age", "name": "by_age"}
OF_AN_AGE = {"selector": {"author.age": 20}}
"""One of fifty documents."""


def big_indexed(server: Server) -> None:
    big(server)
    server.call("POST", f"/{BIG_DATABASE}/_index", AGE_INDEX)
    server.call("POST", f"/{BIG_DATABASE}/_find", {**OF_AN_AGE, "limit": 1})


@workload("ms", 20, higher=False, set_up=big_indexed)
def changes_selector(server: Server) -> float:
    """A feed of the documents that a selector chooses, for which there is an index; the median of 5."""
    taken = []
    for _ in range(5):
        started = time.perf_counter()
        found = server.call("POST", f"/{BIG_DATABASE}/_changes?filter=_selector", OF_AN_AGE)
        taken.append((time.perf_counter() - started) * 1000)
        if len(found["results"]) != BIG // 50:
            raise RuntimeError(f"{len(found['results'])} changes")
    return statistics.median(taken)


@workload("docs/s", 10, set_up=big)
def bulk_get(server: Server) -> float:
    ids = _some_ids(10_000, seed=5)
    bodies = [
        json.dumps({"docs": [{"id": doc_id} for doc_id in ids[at : at + 1000]]}).encode()
        for at in range(0, len(ids), 1000)
    ]
    connection = server.connect()
    started = time.perf_counter()
    for body in bodies:
        server.send("POST", f"/{BIG_DATABASE}/_bulk_get?revs=true", body, connection)
    return len(ids) / (time.perf_counter() - started)


@workload("docs/s", 10, set_up=big)
def revs_diff(server: Server) -> float:
    body = json.dumps({doc_id: ["1-" + "0" * 32] for doc_id in _some_ids(2000)}).encode()
    connection = server.connect()
    started = time.perf_counter()
    for _ in range(5):
        server.send("POST", f"/{BIG_DATABASE}/_revs_diff", body, connection)
    return 10_000 / (time.perf_counter() - started)


# --- attachments, databases --------------------------------------------------------------------


@workload("MiB/s", 30)
def attach_put_20m(server: Server) -> float:
    server.fresh("bench_att")
    data = os.urandom(20 * MIB)
    connection = server.connect()
    started = time.perf_counter()
    for number in range(4):
        path = f"/bench_att/{number}/blob"
        server.call("PUT", path, data, connection=connection, content_type="application/octet-stream")
    return 80 / (time.perf_counter() - started)


@workload("MiB/s", 40)
def attach_get_20m(server: Server) -> float:
    server.fresh("bench_att")
    data = os.urandom(20 * MIB)
    server.call("PUT", "/bench_att/a/blob", data, content_type="application/octet-stream")
    started = time.perf_counter()
    for _ in range(8):
        if len(server.send("GET", "/bench_att/a/blob")[1]) != len(data):
            raise RuntimeError("the attachment is cut")
    return 160 / (time.perf_counter() - started)


@workload("ms", 3, higher=False)
def db_create_delete(server: Server) -> float:
    """Create a database, store one document, delete it; the median of 20."""
    taken = []
    for number in range(20):
        started = time.perf_counter()
        server.call("PUT", f"/bench_cd{number}")
        server.call("PUT", f"/bench_cd{number}/x", {})
        server.call("DELETE", f"/bench_cd{number}")
        taken.append((time.perf_counter() - started) * 1000)
    return statistics.median(taken)


@workload("docs/s")
def many_databases(server: Server) -> float:
    """2,000 PUTs spread over 200 databases."""
    names = [f"bench_many{number}" for number in range(200)]
    for name in names:
        server.fresh(name)
    connection = server.connect()
    started = time.perf_counter()
    for number in range(10):
        for name in names:
            server.call("PUT", f"/{name}/{number}", {"n": number}, connection=connection)
    took = time.perf_counter() - started
    for name in names:
        server.send("DELETE", f"/{name}", connection=connection)
    return 2000 / took
