"""The clients from whose point of view a server can be looked at: where their requests come from, what these
carry, and what they ask of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from couchlite.presets import LIVESYNC_ORIGINS


class Wanted(NamedTuple):
    """A setting, and what it must be."""

    section: str
    key: str
    value: str
    """What to set it to."""
    suffices: Callable[[str], bool] | None = None
    """None: it must be `value`."""

    def is_met(self, value: str) -> bool:
        return value == self.value if self.suffices is None else self.suffices(value)


class Client(NamedTuple):
    title: str
    origins: tuple[str, ...] = ()
    """Of pages that it runs in; the configured ones where there are none."""
    is_in_browser: bool = False
    """Whether it needs cross-origin requests."""
    headers: tuple[str, ...] = ("authorization", "content-type")
    methods: tuple[str, ...] = ("GET", "POST", "PUT", "DELETE")
    settings: tuple[Wanted, ...] = ()
    older_settings: tuple[Wanted, ...] = ()
    """What it asks of CouchDB before 3.2 instead of the first ones."""
    needs_https: str = ""
    """Why."""


def at_least(number: int) -> Callable[[str], bool]:
    return lambda value: value == "infinity" or (value.isdigit() and int(value) >= number)


def _has_livesync_origins(value: str) -> bool:
    return value == "*" or set(LIVESYNC_ORIGINS) <= set(value.split(","))


_LIVESYNC_SETTINGS = (
    Wanted("httpd", "WWW-Authenticate", 'Basic realm="couchdb"', bool),
    Wanted("chttpd", "max_http_request_size", "4294967296", at_least(4294967296)),
    Wanted("couchdb", "max_document_size", "50000000", at_least(50000000)),
    Wanted("cors", "credentials", "true"),
    Wanted("cors", "origins", ",".join(LIVESYNC_ORIGINS), _has_livesync_origins),
)

CLIENTS = {
    "livesync": Client(
        "Obsidian's Self-hosted LiveSync",
        LIVESYNC_ORIGINS,
        is_in_browser=True,
        settings=(
            Wanted("chttpd", "require_valid_user", "true"),
            Wanted("chttpd", "enable_cors", "true"),
            *_LIVESYNC_SETTINGS,
        ),
        older_settings=(
            Wanted("chttpd_auth", "require_valid_user", "true"),
            Wanted("httpd", "enable_cors", "true"),
            *_LIVESYNC_SETTINGS,
        ),
        needs_https="Obsidian on phones and tablets accepts no plain HTTP",
    ),
    "pouchdb": Client(
        "PouchDB in a web app",
        is_in_browser=True,
        settings=(
            Wanted("chttpd", "enable_cors", "true"),
            Wanted("cors", "credentials", "true"),
            Wanted("cors", "origins", "https://app.example", bool),
        ),
        older_settings=(
            Wanted("httpd", "enable_cors", "true"),
            Wanted("cors", "credentials", "true"),
            Wanted("cors", "origins", "https://app.example", bool),
        ),
        needs_https="a page that came by https may not ask a server by http",
    ),
    "fauxton": Client("Fauxton, CouchDB's web interface"),
    "replication": Client("another CouchDB that replicates"),
}
