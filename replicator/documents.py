"""The documents of a replicator database, which ask for replications: what they must look like, who may see
and change what of them, and how the state of a replication is written back.

The rules are CouchDB's, from its couch_replicator_docs. Where it tells an Erlang term, this is a sentence.
What must stay true here: whoever is neither an admin of the database nor the owner of a document is shown no
credentials of it, wherever in an endpoint they stand.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from couchlite.config import Config
from couchlite.errors import Forbidden
from couchlite.security import Principal, SecurityObject, is_admin

from .errors import InvalidReplication
from .options import Options, parse

DATABASE = "_replicator"
STATE = "_replication_state"
STATE_TIME = "_replication_state_time"
REASON = "_replication_state_reason"
ID = "_replication_id"
STATS = "_replication_stats"
STATE_MEMBERS = (STATE, STATE_TIME, REASON, ID, STATS)
STATES = ("initializing", "error", "running", "pending", "crashing", "completed", "failed")
_WITH_PASSWORD = re.compile(r"([a-z0-9+.-]+://)(?:[^:]*:.*|[^/@]*)@(.*)", re.IGNORECASE | re.DOTALL)
_ENDPOINTS = ("source", "target", "proxy", "source_proxy", "target_proxy")
_NO_OWNER = object()

Fields = Mapping[str, Any]


def is_replicator(database_name: str) -> bool:
    """Whether documents of this database ask for replications."""
    return database_name == DATABASE or database_name.endswith("/" + DATABASE)


def is_ordinary(doc_id: str) -> bool:
    """Whether a document may ask for a replication: design and local documents never do."""
    return not doc_id.startswith(("_design/", "_local/"))


@dataclass(frozen=True, slots=True)
class Requested:
    """What a document asks for, and in whose name."""

    options: Options
    user: str | None


def understand(fields: Fields, config: Config) -> Requested:
    """:raises InvalidReplication: it can't be understood."""
    context = fields.get("user_ctx")
    if context is not None and not isinstance(context, dict):
        raise InvalidReplication("parameter `user_ctx` must be a JSON object")
    name = None if context is None else context.get("name")
    asked = parse({member: value for member, value in fields.items() if member != "cancel"}, config)
    assert asked.options is not None, "only what is cancelled has no options"
    return Requested(asked.options, name if isinstance(name, str) else None)


def as_written(
    fields: Fields, deleted: bool, security: SecurityObject, principal: Principal, config: Config
) -> Fields:
    """The members of a document as they are to be stored, with its owner.

    :raises Forbidden: it is somebody else's, or doesn't ask for a replication.
    """
    owned = _owned(fields, security, principal)
    if not deleted and fields.get(STATE) != "failed":
        try:
            understand(owned, config)
        except InvalidReplication as error:
            raise Forbidden(error.reason) from error
    return owned


def _owned(fields: Fields, security: SecurityObject, principal: Principal) -> Fields:
    owner = fields.get("owner", _NO_OWNER)
    if owner is _NO_OWNER:
        return {**fields, "owner": principal.name}
    if owner == principal.name:
        return fields
    if not is_admin(security, principal):
        raise Forbidden("Can't update replication documents from other users.")
    return {**fields, "owner": principal.name} if owner is None else fields


def visible_fields(fields: Fields, security: SecurityObject, principal: Principal) -> Fields:
    """What `principal` may read of a document: `fields` itself, or the same without credentials."""
    if is_admin(security, principal):
        return fields
    owner = fields.get("owner", _NO_OWNER)
    if owner == principal.name:
        return fields
    hidden = {name: _without_credentials(fields[name]) for name in _ENDPOINTS if name in fields}
    return {**fields, **hidden}


def _without_credentials(endpoint: Any) -> Any:
    if isinstance(endpoint, str):
        return without_password(endpoint)
    if isinstance(endpoint, dict):
        kept = {name: value for name, value in endpoint.items() if name not in ("headers", "auth")}
        if isinstance(kept.get("url"), str):
            kept["url"] = without_password(kept["url"])
        return kept
    return endpoint


def without_password(url: str) -> str:
    """A URL without name and password. Rather too much is taken than too little."""
    return _WITH_PASSWORD.sub(r"\1\2", url)


def with_state(fields: Fields, changes: Mapping[str, Any]) -> Fields:
    """A document with other members of its state; None takes one away. Its time is that of the last state."""
    result = dict(fields)
    for name, value in changes.items():
        if value is None:
            result.pop(name, None)
        elif name != STATE:
            result[name] = value
        elif result.get(STATE) != value:
            result[STATE] = value
            result[STATE_TIME] = iso8601(datetime.now(UTC).timestamp())
    return result


def completed(stats: Mapping[str, Any]) -> dict[str, Any]:
    """The state of a replication that has come to its end, for `with_state`."""
    return {STATE: "completed", REASON: None, STATS: dict(stats)}


def failed(reason: str) -> dict[str, Any]:
    """The state of one that can't ever be run."""
    return {STATE: "failed", STATS: None, REASON: reason}


def triggered(replication_id: str) -> dict[str, Any]:
    """That a replication was started, where [replicator] update_docs asks for it."""
    return {STATE: "triggered", REASON: None, ID: replication_id, STATS: None}


def errored(reason: str, replication_id: str | None) -> dict[str, Any]:
    """That one fails for now, likewise."""
    return {STATE: "error", REASON: reason, STATS: None, ID: replication_id}


NO_STATE: Mapping[str, Any] = dict.fromkeys(STATE_MEMBERS)
"""As if the replication had never been seen."""


def iso8601(moment_s: float) -> str:
    return datetime.fromtimestamp(moment_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
