"""Settings that a kind of use needs, by one name: `couchlite serve --preset livesync`.

A preset is values of the configuration, given for one run of the server in the layer of what it was started
with. Nothing of it is stored: a file and what was set over HTTP win over it, and it is gone when the server
is started without it. So its values can become better with a new version.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from .config_defaults import Sections


class Preset(NamedTuple):
    purpose: str
    """One line."""
    sections: Sections


LIVESYNC_ORIGINS = ("app://obsidian.md", "capacitor://localhost", "http://localhost")
"""Obsidian on computers, on iOS and on Android."""

PRESETS = {
    "livesync": Preset(
        "Obsidian's plugin Self-hosted LiveSync: all that its own check of a server asks for.",
        {
            "chttpd": {
                "enable_cors": "true",
                "max_http_request_size": "4294967296",
                "require_valid_user": "true",
                # LiveSync's scripts and everybody's health checks ask for /_up without credentials.
                "require_valid_user_except_for_up": "true",
            },
            # Where the plugin looks when it takes the server for one before CouchDB 3.2.
            "chttpd_auth": {"require_valid_user": "true"},
            "httpd": {"enable_cors": "true", "WWW-Authenticate": 'Basic realm="couchdb"'},
            "couchdb": {"max_document_size": "50000000"},
            # It splits the list at commas and trims nothing.
            "cors": {"credentials": "true", "origins": ",".join(LIVESYNC_ORIGINS)},
            # It merges by the version that both sides started from, where it can read that.
            "couchlite": {"show_merge_bases": "true"},
        },
    ),
    "pouchdb": Preset(
        "Web apps that work offline: cross-origin requests with credentials, logins that last 30 days.",
        {
            "chttpd": {"enable_cors": "true"},
            "chttpd_auth": {"allow_persistent_cookies": "true", "timeout": "2592000"},
            "cors": {"credentials": "true"},
        },
    ),
    "raspberry-pi": Preset(
        "Little memory and an SD card: one process, few connections at once, few log lines.",
        {
            "couchlite": {"function_memory_bytes": "33554432", "workers": "1"},
            "log": {"level": "warning"},
            "replicator": {
                "checkpoint_interval": "60000",
                "http_connections": "6",
                "max_jobs": "50",
                "worker_batch_size": "100",
                "worker_processes": "2",
            },
        },
    ),
}


def merged(names: Iterable[str], origins: Iterable[str] = ()) -> dict[str, dict[str, str]]:
    """The values of presets, a later one's over an earlier one's.

    :param origins: of web pages that may use the server with a user's credentials, too.
    """
    sections: dict[str, dict[str, str]] = {}
    for name in names:
        for section, values in PRESETS[name].sections.items():
            sections.setdefault(section, {}).update(values)
    if added := list(origins):
        cors = sections.setdefault("cors", {"credentials": "true"})
        sections.setdefault("chttpd", {})["enable_cors"] = "true"
        before = cors["origins"].split(",") if "origins" in cors else []
        cors["origins"] = "*" if "*" in added else ",".join(dict.fromkeys([*before, *added]))
    return sections
