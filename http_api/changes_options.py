"""The query of a changes feed, read as CouchDB's parse_changes_query does: names in any case, of several
values the last one counts, what is unknown is ignored. Where CouchDB fails on nonsense (500), it is a 400
here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from couchlite.errors import BadRequest

from .request import Request

UNLIMITED = 1_000_000_000_000_000
"""CouchDB's default limit; which rows `seq_interval` numbers is counted down from it."""

_INTEGER = re.compile(r"[+-]?[0-9]{1,18}")
_FLAGS = frozenset(("descending", "include_docs", "conflicts", "attachments", "att_encoding_info"))
_STYLES = ("main_only", "all_docs")


@dataclass(slots=True)
class Options:
    feed: str = "normal"
    since: str = "0"
    limit: int = UNLIMITED
    """Negative: no limit, but an endless feed ends when it has shown what there is."""
    style: str = "main_only"
    filter: str = ""
    timeout_ms: int = 0
    heartbeat_ms: int | None = None
    seq_interval: int | None = None
    """Only every so many rows tell their sequence."""
    flags: frozenset[str] = frozenset()

    def __contains__(self, flag: str) -> bool:
        return flag in self.flags


def parse_options(request: Request) -> Options:
    """:raises BadRequest: with CouchDB's reasons."""
    timeout_max_ms = request.server.config.integer("chttpd", "changes_timeout")
    options = Options(timeout_ms=timeout_max_ms)
    flags = set()
    for name, value in request.query:
        match name.lower():
            case "feed":
                options.feed = "continuous" if value == "live" else value
            case "since" | "last-event-id":
                options.since = value
            case "limit":
                options.limit = _integer("limit", value)
            case "style":
                options.style = value
            case "filter":
                options.filter = value
            case "timeout":
                options.timeout_ms = min(timeout_max_ms, max(0, _integer("timeout", value)))
            case "heartbeat":
                options.heartbeat_ms = (
                    timeout_max_ms if value == "true" else _heartbeat(value, timeout_max_ms)
                )
            case "seq_interval":
                options.seq_interval = _seq_interval(value)
            case flag if flag in _FLAGS and value == "true":
                flags.add(flag)
    if options.style not in _STYLES:
        raise BadRequest(f"Invalid value for style: {options.style}")
    if options.feed == "eventsource":
        # A browser that reconnects tells where it was, in a query that it could not change.
        options.since = request.headers.get("Last-Event-ID", options.since)
    options.flags = frozenset(flags)
    return options


def _heartbeat(text: str, most_ms: int) -> int:
    if not _INTEGER.fullmatch(text):
        raise BadRequest("Invalid heartbeat value. Expecting a positive integer value (in milliseconds).")
    if int(text) <= 0:
        raise BadRequest("The heartbeat value should be a positive integer (in milliseconds).")
    return min(most_ms, int(text))


def _seq_interval(text: str) -> int:
    if not _INTEGER.fullmatch(text) or int(text) <= 0:
        raise BadRequest("invalid_seq_interval")
    return int(text)


def _integer(name: str, text: str) -> int:
    if not _INTEGER.fullmatch(text):
        raise BadRequest(f"Invalid value for {name}: {text}")
    return int(text)
