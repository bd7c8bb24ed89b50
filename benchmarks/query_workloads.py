"""Workloads of views and of Mango."""

from __future__ import annotations

import random
import time
from typing import Any

from .load import WORDS, get_script, post_script, wrk
from .registry import BIG, BIG_DATABASE, big, workload
from .servers import Server

MAP = "function (doc) { doc.tags.forEach(function (tag) { emit([tag, doc.kind], doc.number); }); }"
"""Three rows a document."""
VIEW = f"/{BIG_DATABASE}/_design/tags/_view/tags"


def design(map_function: str) -> dict[str, Any]:
    return {"views": {"tags": {"map": map_function, "reduce": "_sum"}}}


@workload("docs/s", 15, set_up=big)
def view_build(server: Server) -> float:
    """The first look at a new view."""
    name = f"v{random.getrandbits(40)}"
    path = f"/{BIG_DATABASE}/_design/{name}"
    rev = server.call("PUT", path, design(f"{MAP} // {name}"))["rev"]
    started = time.perf_counter()
    found = server.call("GET", f"{path}/_view/tags?limit=1&reduce=false")
    took = time.perf_counter() - started
    if found["total_rows"] < BIG:
        raise RuntimeError(f"{found['total_rows']} rows")
    server.call("DELETE", f"{path}?rev={rev}")
    return BIG / took


def viewed(server: Server) -> None:
    big(server)
    status, _body = server.send("GET", f"/{BIG_DATABASE}/_design/tags")
    if status == 404:
        server.call("PUT", f"/{BIG_DATABASE}/_design/tags", design(MAP))
    server.call("GET", f"{VIEW}?limit=1")


@workload("req/s", 6, set_up=viewed)
def view_query_c32(server: Server) -> float:
    """20 rows of a range."""
    paths = [f"{VIEW}?reduce=false&limit=20&startkey=%5B%22{word}%22%5D" for word in WORDS]
    return wrk(server, get_script(paths), 32)


@workload("req/s", 10, set_up=viewed)
def view_reduce_all_c8(server: Server) -> float:
    return wrk(server, get_script([VIEW]), 8)


@workload("req/s", 30, set_up=viewed)
def view_group_level_c8(server: Server) -> float:
    return wrk(server, get_script([f"{VIEW}?group_level=1"]), 8)


def indexed(server: Server) -> None:
    big(server)
    index = {"index": {"fields": ["author.name", "number"]}, "name": "authors", "ddoc": "authors"}
    server.call("POST", f"/{BIG_DATABASE}/_index", index)
    server.call("POST", f"/{BIG_DATABASE}/_find", _of_an_author(5))


def _of_an_author(number: int) -> dict[str, Any]:
    return {"selector": {"author.name": "birch", "number": {"$gt": number}}, "limit": 10}


@workload("req/s", 15, set_up=indexed)
def mango_find_c32(server: Server) -> float:
    """10 documents of an indexed range."""
    bodies = [_of_an_author(number * 37 % 40_000) for number in range(1000)]
    return wrk(server, post_script(f"/{BIG_DATABASE}/_find", bodies), 32)


@workload("docs/s", 15, set_up=big)
def mango_scan(server: Server) -> float:
    """A comparison and a regular expression, for which there is no index."""
    selector = {"score": {"$lt": -1}, "text": {"$regex": "zzz"}}
    started = time.perf_counter()
    found = server.call("POST", f"/{BIG_DATABASE}/_find", {"selector": selector})
    if found["docs"]:
        raise RuntimeError(f"{len(found['docs'])} documents")
    return BIG / (time.perf_counter() - started)
