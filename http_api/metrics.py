"""Counters of what a server does, summed over its processes.

Each process counts in a row of its own of one shared table, made before the first fork, so that counting
takes no lock and whichever process is asked can add up all rows. Names and descriptions are CouchDB's; only
what is counted is told, not everything that CouchDB has a name for.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Mapping
from typing import Any

METHODS = ("COPY", "DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT")
STATUS_CODES = {
    200: "OK",
    201: "Created",
    202: "Accepted",
    204: "No Content",
    206: "Partial Content",
    301: "Moved Permanently",
    302: "Found",
    304: "Not Modified",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    406: "Not Acceptable",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Request Entity Too Long",
    414: "Request URI Too Long",
    415: "Unsupported Media Type",
    416: "Requested Range Not Satisfiable",
    417: "Expectation Failed",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service unavailable",
    507: "Insufficient Storage",
}
GAUGES = {
    "open_databases": "number of open databases",
    "open_os_files": "number of file descriptors CouchDB has open",
    "auth_cache_hits": "number of authentication cache hits",
    "auth_cache_misses": "number of authentication cache misses",
    "password_hashing_fast": "number of fast password hashing operations",
    "password_hashing_slow": "number of slow password hashing operations",
}
"""Each process writes these now and then; the others are counted as things happen."""

BUCKETS = 80
BUCKETS_PER_DOUBLING = 4
BUCKET_FIRST_US = 10
PERCENTILES = (50, 75, 90, 95, 99, 999)
"""The last is 99.9, as CouchDB writes it."""

_REQUESTS = 0
_METHOD = {name: 1 + at for at, name in enumerate(METHODS)}
_STATUS = {code: 1 + len(METHODS) + at for at, code in enumerate(STATUS_CODES)}
_GAUGE = {name: 1 + len(METHODS) + len(STATUS_CODES) + at for at, name in enumerate(GAUGES)}
_TIME_SUM_US = 1 + len(METHODS) + len(STATUS_CODES) + len(GAUGES)
_BUCKET = _TIME_SUM_US + 1
_COLUMNS = _BUCKET + BUCKETS


class Metrics:
    """:param rows: the number of processes."""

    def __init__(self, rows: int) -> None:
        self.started_s = time.monotonic()
        self.processes = rows
        self._memory = memoryview(mmap.mmap(-1, rows * _COLUMNS * 8)).cast("Q")
        self._rows = [self._memory[at * _COLUMNS : (at + 1) * _COLUMNS] for at in range(rows)]
        self._own = self._rows[0]

    def be(self, row: int) -> None:
        """Count in that row from now on."""
        self._own = self._rows[row]

    def count_request(self, method: str, status: int, took_s: float) -> None:
        own = self._own
        own[_REQUESTS] += 1
        if (column := _METHOD.get(method)) is not None:
            own[column] += 1
        if (column := _STATUS.get(status)) is not None:
            own[column] += 1
        took_us = int(took_s * 1_000_000)
        own[_TIME_SUM_US] += took_us
        own[_BUCKET + _bucket(took_us)] += 1

    def set_gauges(self, values: Mapping[str, int]) -> None:
        for name, value in values.items():
            self._own[_GAUGE[name]] = value

    def tree(self) -> dict[str, Any]:
        """All of it in the form of `_stats`."""
        sums = [sum(column) for column in zip(*self._rows, strict=True)]
        couchdb: dict[str, Any] = {
            "httpd": {"requests": _counter(sums[_REQUESTS], "number of HTTP requests")},
            "httpd_request_methods": {
                name: _counter(sums[column], f"number of HTTP {name} requests")
                for name, column in _METHOD.items()
            },
            "httpd_status_codes": {
                str(code): _counter(sums[column], f"number of HTTP {code} {STATUS_CODES[code]} responses")
                for code, column in _STATUS.items()
            },
            "request_time": {
                "value": _histogram(sums[_BUCKET:], sums[_TIME_SUM_US]),
                "type": "histogram",
                "desc": "length of a request inside CouchDB without MochiWeb",
            },
        }
        couchdb |= {name: _counter(sums[column], GAUGES[name]) for name, column in _GAUGE.items()}
        return {"couchdb": couchdb}


def _counter(value: int, description: str) -> dict[str, Any]:
    return {"value": value, "type": "counter", "desc": description}


def _bucket(took_us: int) -> int:
    if took_us <= BUCKET_FIRST_US:
        return 0
    return min(BUCKETS - 1, math.ceil(BUCKETS_PER_DOUBLING * math.log2(took_us / BUCKET_FIRST_US)))


def _upper_ms(bucket: int) -> float:
    """The longest time in a bucket, in milliseconds."""
    upper: float = BUCKET_FIRST_US * 2 ** (bucket / BUCKETS_PER_DOUBLING) / 1000
    return round(upper, 3)


def _histogram(counts: list[int], sum_us: int) -> dict[str, Any]:
    """Statistics of the counted times, in milliseconds; a time counts as the longest of its bucket."""
    n = sum(counts)
    filled = [(_upper_ms(bucket), count) for bucket, count in enumerate(counts) if count]
    if not n:
        zeros = dict.fromkeys(_STATISTICS, 0)
        return {"n": 0, **zeros, "percentile": [[p, 0] for p in PERCENTILES], "histogram": [[0, 0]]}
    mean = sum_us / 1000 / n
    center = sum(value * count for value, count in filled) / n
    variance = _moment(filled, center, 2) / n
    deviation = math.sqrt(variance)
    statistics = (
        filled[0][0],
        filled[-1][0],
        mean,
        math.exp(sum(math.log(value) * count for value, count in filled) / n),
        n / sum(count / value for value, count in filled),
        _percentile(filled, n * 0.5),
        variance,
        deviation,
        _moment(filled, center, 3) / n / deviation**3 if deviation else 0,
        _moment(filled, center, 4) / n / variance**2 - 3 if variance else 0,
    )
    return {
        "n": n,
        **dict(zip(_STATISTICS, statistics, strict=True)),
        "percentile": [[p, _percentile(filled, n * (p / 1000 if p > 100 else p / 100))] for p in PERCENTILES],
        "histogram": [[value, count] for value, count in filled],
    }


_STATISTICS = (
    "min",
    "max",
    "arithmetic_mean",
    "geometric_mean",
    "harmonic_mean",
    "median",
    "variance",
    "standard_deviation",
    "skewness",
    "kurtosis",
)


def _moment(filled: list[tuple[float, int]], center: float, power: int) -> float:
    moment: float = sum(count * (value - center) ** power for value, count in filled)
    return moment


def _percentile(filled: list[tuple[float, int]], rank: float) -> float:
    seen = 0
    for value, count in filled:
        seen += count
        if seen >= rank:
            return value
    return filled[-1][0]
