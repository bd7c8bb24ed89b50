"""A replication as it is asked for: the body of _replicate or a document of _replicator, understood once.

Names, defaults, the order of checks and the texts of refusals are CouchDB's: couch_replicator_parse. Where it
fails with an internal error (a number for `filter`, say), this is a 400.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from couchlite.config import Config
from couchlite.errors import BadRequest
from couchlite.mango import compile_selector

from .errors import InvalidReplication
from .peer import ChangesQuery

EXCLUSIVE = "`doc_ids`,`filter`,`selector` are mutually exclusive"
ENDPOINT_SCHEMES = ("http://", "https://")
PROXY_SCHEMES = (*ENDPOINT_SCHEMES, "socks5://")
_SECTION = "replicator"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A database at a URL (which has no credentials in it and ends with a slash)."""

    url: str
    username: str | None = None
    password: str = field(default="", repr=False)
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    proxy: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Options:
    source: Endpoint
    target: Endpoint
    continuous: bool = False
    create_target: bool = False
    create_target_params: Mapping[str, Any] = field(default_factory=dict)
    doc_ids: tuple[str, ...] | None = None
    filter: str | None = None
    query_params: Mapping[str, Any] = field(default_factory=dict)
    selector: Mapping[str, Any] | None = None
    since_seq: Any = None
    winning_revs_only: bool = False
    use_checkpoints: bool = True
    use_bulk_get: bool = True
    checkpoint_interval_ms: int = 30_000
    worker_processes: int = 4
    """How many batches may be in each stage at a time."""
    worker_batch_size: int = 500
    """Changes a batch."""
    http_connections: int = 20
    connection_timeout_ms: int = 30_000
    """A peer that is silent for so long is taken to be gone."""
    retries_per_request: int = 5

    @property
    def query(self) -> ChangesQuery:
        return ChangesQuery(
            self.continuous,
            self.winning_revs_only,
            self.doc_ids,
            self.selector,
            self.filter,
            self.query_params,
        )


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for: to start a replication, or to cancel one that is named by its id or its
    options."""

    options: Options | None
    cancel: bool = False
    id: str | None = None


def parse(body: Mapping[str, Any], config: Config) -> Asked:
    """:raises InvalidReplication:"""
    proxies = _proxies(body)
    values = _values(body)
    if len([name for name in ("doc_ids", "filter", "selector") if name in values]) > 1:
        raise InvalidReplication(EXCLUSIVE)
    cancel = values.pop("cancel", False)
    asked_id = values.pop("id", None)
    if cancel and asked_id is not None:
        return Asked(None, True, asked_id)
    options = Options(
        source=_endpoint(body.get("source"), proxies[0]),
        target=_endpoint(body.get("target"), proxies[1]),
        **(_defaults(config) | values),
    )
    _check_filter(options)
    return Asked(options, cancel)


# --- members, each with what it must be


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise InvalidReplication(f"parameter `{name}` must be a boolean")
    return value


def _number(name: str, value: Any) -> int:
    try:
        number = int(value) if isinstance(value, str) else value
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise InvalidReplication(f"parameter `{name}` must be a positive integer")
    return number


def _positive(name: str, value: Any) -> int:
    return max(1, _number(name, value))


def _json_object(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        article = "an" if name == "query_params" else "a JSON"
        raise InvalidReplication(f"parameter `{name}` must be {article} object")
    return value


def _doc_ids(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise InvalidReplication(f"parameter `{name}` must be an array")
    if not all(isinstance(doc_id, str) for doc_id in value):
        raise InvalidReplication(f"parameter `{name}` must be an array of strings")
    # Percent-encoded ids are accepted, as ever.
    return tuple(sorted({unquote(doc_id) for doc_id in value}))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise InvalidReplication(f"parameter `{name}` must be a string")
    return value


def _anything(_name: str, value: Any) -> Any:
    return value


def _not_false(_name: str, value: Any) -> bool:
    """CouchDB takes what is given as it is, and looks whether it is false."""
    return value is not False


_MEMBERS = {
    "cancel": ("cancel", _boolean),
    "_local_id": ("id", _text),
    "replication_id": ("id", _text),
    "id": ("id", _text),
    "create_target": ("create_target", _boolean),
    "create_target_params": ("create_target_params", _json_object),
    "winning_revs_only": ("winning_revs_only", _boolean),
    "continuous": ("continuous", _boolean),
    "filter": ("filter", _text),
    "query_params": ("query_params", _json_object),
    "doc_ids": ("doc_ids", _doc_ids),
    "selector": ("selector", _json_object),
    "since_seq": ("since_seq", _anything),
    "use_checkpoints": ("use_checkpoints", _not_false),
    "use_bulk_get": ("use_bulk_get", _boolean),
    "checkpoint_interval": ("checkpoint_interval_ms", _positive),
    "worker_processes": ("worker_processes", _positive),
    "worker_batch_size": ("worker_batch_size", _positive),
    "http_connections": ("http_connections", _positive),
    "connection_timeout": ("connection_timeout_ms", _positive),
    "retries_per_request": ("retries_per_request", _number),
}
_CONFIGURABLE = (
    "checkpoint_interval",
    "worker_processes",
    "worker_batch_size",
    "http_connections",
    "connection_timeout",
    "retries_per_request",
)


def _values(body: Mapping[str, Any]) -> dict[str, Any]:
    values = {}
    for name, value in body.items():
        if name in _MEMBERS and not (name == "doc_ids" and value is None):
            field_name, read = _MEMBERS[name]
            values[field_name] = read(name, value)
    if "id" in values:
        # A "+" that was sent unescaped comes as a space.
        values["id"] = values["id"].replace(" ", "+")
    return values


def _defaults(config: Config) -> dict[str, Any]:
    defaults: dict[str, Any] = {
        _MEMBERS[name][0]: max(0, config.integer(_SECTION, name)) for name in _CONFIGURABLE
    }
    for name in ("use_checkpoints", "use_bulk_get"):
        defaults[name] = config.boolean(_SECTION, name)
    return defaults


def _check_filter(options: Options) -> None:
    name = options.filter
    if name == "_view":
        view = options.query_params.get("view")
        if not isinstance(view, str) or view.count("/") != 1:
            raise InvalidReplication("Invalid `view` parameter.")
    elif name is not None and not name.startswith("_") and "/" not in name:
        reason = "Invalid filter. Must match `ddocname/filtername`."
        raise InvalidReplication(reason, error="error")
    if options.selector is not None:
        try:
            compile_selector(dict(options.selector))
        except BadRequest as error:
            raise InvalidReplication(error.reason, error=error.error) from error


# --- endpoints


def parse_endpoint(value: Any) -> Endpoint:
    """One endpoint alone. :raises InvalidReplication:"""
    return _endpoint(value, None)


def _proxies(body: Mapping[str, Any]) -> tuple[str | None, str | None]:
    both, source, target = (body.get(name) or None for name in ("proxy", "source_proxy", "target_proxy"))
    if both is not None:
        for name, other in (("source_proxy", source), ("target_proxy", target)):
            if other is not None:
                raise InvalidReplication(f"`proxy` is mutually exclusive with `{name}`")
        source = target = both
    return _proxy(source), _proxy(target)


def _proxy(url: Any) -> str | None:
    if url is None:
        return None
    if not isinstance(url, str):
        raise InvalidReplication("Invalid proxy url", error="error", status=500)
    if not _is_url(url, PROXY_SCHEMES):
        raise InvalidReplication("proxy has an invalid url", error="invalid_replication")
    return url


def _is_url(url: str, schemes: tuple[str, ...] = ENDPOINT_SCHEMES) -> bool:
    if not url.startswith(schemes):
        return False
    try:
        parts = urlsplit(url)
        return bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _endpoint(value: Any, proxy: str | None) -> Endpoint:
    if isinstance(value, dict):
        return _from_object(value, proxy)
    if value is None:
        raise InvalidReplication("Missing replicator database", error="error", status=500)
    if not isinstance(value, str) or not value.startswith(("http://", "https://")):
        raise InvalidReplication("local_endpoints_not_supported", error="error", status=500)
    return _from_object({"url": value}, proxy)


def _from_object(value: Mapping[str, Any], proxy: str | None) -> Endpoint:
    """Basic credentials may stand in `auth`, in the URL or in a header, in this order of precedence."""
    given = value.get("url")
    if not isinstance(given, str) or not _is_url(given):
        raise InvalidReplication("endpoint has an invalid url", error="invalid_replication")
    parts = urlsplit(given)
    headers = value.get("headers", {})
    if not isinstance(headers, dict) or not all(isinstance(text, str) for text in headers.values()):
        raise InvalidReplication("`headers` must be an object of strings")
    if any(character in text for pair in headers.items() for text in pair for character in "\r\n\0"):
        raise InvalidReplication("`headers` must not have line breaks")
    kept, by_header = _without_basic(headers)
    host = parts.netloc.rpartition("@")[2]
    path = parts.path if parts.query or parts.path.endswith("/") else f"{parts.path}/"
    by_url = None
    if parts.username and parts.password is not None:
        by_url = unquote(parts.username), unquote(parts.password)
    username, password = _auth(value.get("auth")) or by_url or by_header or (None, "")
    return Endpoint(
        urlunsplit((parts.scheme, host, path, parts.query, "")), username, password, tuple(kept), proxy
    )


def _auth(auth: Any) -> tuple[str, str] | None:
    basic = auth.get("basic") if isinstance(auth, dict) else None
    if isinstance(basic, dict):
        username, password = basic.get("username"), basic.get("password")
        if isinstance(username, str) and isinstance(password, str):
            return username, password
    return None


def _without_basic(headers: Mapping[str, str]) -> tuple[list[tuple[str, str]], tuple[str, str] | None]:
    kept, found = [], None
    for name, text in sorted(headers.items()):
        scheme, _, encoded = text.partition(" ")
        if name.lower() == "authorization" and scheme.lower() == "basic":
            found = _decode_basic(encoded) or found
        elif text:
            kept.append((name, text))
    return kept, found


def _decode_basic(encoded: str) -> tuple[str, str] | None:
    try:
        username, colon, password = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (username, password) if colon else None
