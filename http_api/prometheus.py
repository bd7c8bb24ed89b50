"""The statistics in the text format of Prometheus, under the names that CouchDB gives them there.

The format is lines; the names break the rules that client libraries enforce (counters without `_total`), so
they are written here. Source: couch_prometheus_util and Prometheus' "Exposition formats".
"""

from __future__ import annotations

from collections.abc import Iterator

from .metric_names import SHOWN_AS_GAUGES
from .metrics import PERCENTILES, Entry

CONTENT_TYPE = "text/plain; version=2.0"

_LABELLED = {
    "couchdb.httpd_status_codes": (
        "couchdb_httpd_status_codes",
        "code",
        "number of HTTP responses by status code",
    ),
    "couchdb.httpd_request_methods": (
        "couchdb_httpd_request_methods",
        "method",
        "number of HTTP requests by method",
    ),
    "couch_log.level": ("couchdb_couch_log_requests_total", "level", "number of logged messages"),
}
"""Families whose members are told apart by a label."""
_OTHER_NAMES = {
    "couchdb.auth_cache_hits": (
        "couchdb_auth_cache_requests_total",
        "number of authentication cache requests",
    ),
    "couch_replicator.jobs.total": ("couchdb_couch_replicator_jobs_total", ""),
}


def text(entries: dict[str, Entry], uptime_s: float) -> str:
    """All entries, each family with its help and its type."""
    lines = list(_family("couchdb_uptime_seconds", "gauge", "seconds since the server was started"))
    lines.append(f"couchdb_uptime_seconds {uptime_s:.0f}")
    families: set[str] = set()
    for name, entry in entries.items():
        family, _, label_value = name.rpartition(".")
        if family in _LABELLED:
            series, label, help_text = _LABELLED[family]
            if family not in families:
                families.add(family)
                lines += _family(series, "counter", help_text)
            lines.append(f'{series}{{{label}="{label_value}"}} {entry.value}')
        else:
            lines += _lines_of(name, entry, entries)
    return "\n".join(lines) + "\n"


def _lines_of(name: str, entry: Entry, entries: dict[str, Entry]) -> Iterator[str]:
    series = "couchdb_" + name.removeprefix("couchdb.").replace(".", "_")
    if entry.kind == "histogram":
        yield from _summary(f"{series}_seconds", entry)
        return
    is_gauge = entry.kind == "gauge" or name in SHOWN_AS_GAUGES
    value, help_text = entry.value, entry.description
    if not is_gauge and not series.endswith("_total"):
        series += "_total"
    if name in _OTHER_NAMES:
        series, help_text = _OTHER_NAMES[name][0], _OTHER_NAMES[name][1] or help_text
    if name == "couchdb.auth_cache_hits":
        value += entries["couchdb.auth_cache_misses"].value
    yield from _family(series, "gauge" if is_gauge else "counter", help_text)
    yield f"{series} {value}"


def _summary(series: str, entry: Entry) -> Iterator[str]:
    """Quantiles, count and sum; shown in milliseconds elsewhere, in seconds here."""
    statistics = entry.value
    yield from _family(series, "summary", entry.description)
    for percentile, value in zip(PERCENTILES, statistics["percentile"], strict=True):
        quantile = percentile / (1000 if percentile > 100 else 100)
        yield f'{series}{{quantile="{quantile}"}} {value[1] / 1000}'
    yield f"{series}_sum {statistics['n'] * statistics['arithmetic_mean'] / 1000}"
    yield f"{series}_count {statistics['n']}"


def _family(series: str, kind: str, help_text: str) -> Iterator[str]:
    yield f"# HELP {series} {help_text}"
    yield f"# TYPE {series} {kind}"
