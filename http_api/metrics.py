"""Counters of what a server does, summed over its processes.

Each process counts in a row of its own of one shared table, made before the first fork, so that counting
takes no lock and whichever process is asked can add up all rows. Names and descriptions are CouchDB's.
"""

from __future__ import annotations

import math
import mmap
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

from .metric_names import COUNTERS, GAUGES, HISTOGRAMS

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
METHOD_COUNTERS = {name: f"couchdb.httpd_request_methods.{name}" for name in METHODS}
STATUS_COUNTERS = {code: f"couchdb.httpd_status_codes.{code}" for code in STATUS_CODES}
_DESCRIPTIONS = {
    **{name: f"number of HTTP {method} requests" for method, name in METHOD_COUNTERS.items()},
    **{
        name: f"number of HTTP {code} {STATUS_CODES[code]} responses"
        for code, name in STATUS_COUNTERS.items()
    },
    **COUNTERS,
    **GAUGES,
}

REQUEST_TIME = "couchdb.request_time"
BULK_DOCS = "couchdb.httpd.bulk_docs"
QUERY_TIME = "mango.query_time"


class Scale(NamedTuple):
    """How the values of a histogram are kept."""

    first: int
    """The first bucket ends here."""
    unit: int
    """What is kept is shown divided by this."""


SCALES = {REQUEST_TIME: Scale(10, 1000), QUERY_TIME: Scale(10, 1000), BULK_DOCS: Scale(1, 1)}
"""Times are kept in microseconds and shown in milliseconds."""

BUCKETS = 80
BUCKETS_PER_DOUBLING = 4
PERCENTILES = (50, 75, 90, 95, 99, 999)
"""The last is 99.9, as CouchDB writes it."""

_COLUMN = {name: at for at, name in enumerate(_DESCRIPTIONS)}
_HISTOGRAM = {name: len(_COLUMN) + at * (BUCKETS + 1) for at, name in enumerate(SCALES)}
"""Where the sum of its values is, and behind it the buckets."""
_COLUMNS = len(_COLUMN) + len(SCALES) * (BUCKETS + 1)
_REQUESTS = _COLUMN["couchdb.httpd.requests"]
_METHOD = {method: _COLUMN[name] for method, name in METHOD_COUNTERS.items()}
_STATUS = {code: _COLUMN[name] for code, name in STATUS_COUNTERS.items()}


class Metrics:
    """:param processes: how many answer requests; each has a row, and the one that replicates one more."""

    def __init__(self, processes: int) -> None:
        self.started_s = time.monotonic()
        self.processes = processes
        rows = processes + 1
        self._memory = memoryview(mmap.mmap(-1, rows * _COLUMNS * 8)).cast("Q")
        self._rows = [self._memory[at * _COLUMNS : (at + 1) * _COLUMNS] for at in range(rows)]
        self._own = self._rows[0]

    def be(self, worker: int) -> None:
        """Count in the row of that worker from now on."""
        self._own = self._rows[worker]

    def be_replicator(self) -> None:
        """Count in the last row from now on."""
        self._own = self._rows[self.processes]

    def count_request(self, method: str, status: int, took_s: float) -> None:
        own = self._own
        own[_REQUESTS] += 1
        if (column := _METHOD.get(method)) is not None:
            own[column] += 1
        if (column := _STATUS.get(status)) is not None:
            own[column] += 1
        self.observe(REQUEST_TIME, int(took_s * 1_000_000))

    def count(self, name: str, by: int = 1) -> None:
        self._own[_COLUMN[name]] += by

    def observe(self, name: str, value: int) -> None:
        """Add a value to a histogram."""
        first = _HISTOGRAM[name]
        self._own[first] += value
        self._own[first + 1 + _bucket(value, SCALES[name].first)] += 1

    def set_values(self, values: Mapping[str, int]) -> None:
        """What this process counts elsewhere."""
        for name, value in values.items():
            self._own[_COLUMN[name]] = value

    def entries(self) -> dict[str, Entry]:
        """All of it by name, summed over the processes, in the order of the names."""
        sums = [sum(column) for column in zip(*self._rows, strict=True)]
        entries = {
            name: Entry("gauge" if name in GAUGES else "counter", _DESCRIPTIONS[name], sums[column])
            for name, column in _COLUMN.items()
        }
        for name, description in HISTOGRAMS.items():
            first = _HISTOGRAM.get(name)
            kept = [0] * (BUCKETS + 1) if first is None else sums[first : first + BUCKETS + 1]
            value = _histogram(kept[1:], kept[0], SCALES.get(name, Scale(1, 1)))
            entries[name] = Entry("histogram", description, value)
        return dict(sorted(entries.items()))

    def tree(self) -> dict[str, Any]:
        """All of it in the form of `_stats`."""
        tree: dict[str, Any] = {}
        for name, entry in self.entries().items():
            *path, last = name.split(".")
            branch = tree
            for step in path:
                branch = branch.setdefault(step, {})
            branch[last] = {"value": entry.value, "type": entry.kind, "desc": entry.description}
        return tree


class Entry(NamedTuple):
    """A number, or the statistics of a histogram."""

    kind: str
    description: str
    value: Any


def _bucket(value: int, first: int) -> int:
    if value <= first:
        return 0
    return min(BUCKETS - 1, math.ceil(BUCKETS_PER_DOUBLING * math.log2(value / first)))


def _upper(bucket: int, scale: Scale) -> float:
    """The greatest value in a bucket, as it is shown."""
    upper: float = scale.first * 2 ** (bucket / BUCKETS_PER_DOUBLING) / scale.unit
    return round(upper, 3)


def _histogram(counts: list[int], total: int, scale: Scale) -> dict[str, Any]:
    """Statistics of the counted values; one counts as the greatest of its bucket."""
    n = sum(counts)
    filled = [(_upper(bucket, scale), count) for bucket, count in enumerate(counts) if count]
    if not n:
        zeros = dict.fromkeys(_STATISTICS, 0)
        return {"n": 0, **zeros, "percentile": [[p, 0] for p in PERCENTILES], "histogram": [[0, 0]]}
    mean = total / scale.unit / n
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
