"""Where a replication has got to: its id, the two checkpoints, and what both of them vouch for.

A checkpoint is a local document, `_local/<replication id>`, on the source and on the target; it holds the
last sequence dealt with and a history of sessions. A replication may go on from a sequence only where both
ends have a record of the same session: then neither was recreated or restored from a backup meanwhile.

Source: CouchDB's replication protocol, "Find Common Ancestry"; couch_replicator_scheduler_job, _ids.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from couchlite.errors import Conflict
from couchlite.jsontext import dumps

from .errors import EndpointRefused, PeerFailure, ReplicationError
from .options import Endpoint, Options
from .peer import Peer, PeerInfo, Seq
from .stats import Stats

ID_VERSION = 4
HISTORY_MAX = 50
LOWEST_SEQ: Seq = 0
_DEFAULT_PORTS = {("http", 80), ("http", 5984), ("https", 443), ("http", None), ("https", None)}


class ReplicationId(NamedTuple):
    base: str
    """What the checkpoints are named after."""
    extension: str

    @property
    def text(self) -> str:
        return self.base + self.extension


def replication_id(options: Options, server_uuid: str, filter_code: str | None = None) -> ReplicationId:
    """The id of a replication: the same whenever the same is asked for. `filter_code` is that of the filter
    function, if there is one."""
    parts: list[Any] = [server_uuid, _identity(options.source), _identity(options.target)]
    if options.filter is not None:
        parts += [filter_code or options.filter, dict(options.query_params)]
    elif options.doc_ids is not None:
        parts.append(list(options.doc_ids))
    elif options.selector is not None:
        parts.append(_sorted(dict(options.selector)))
    if options.winning_revs_only:
        parts.append("winning_revs_only")
    base = hashlib.md5(dumps(parts), usedforsecurity=False).hexdigest()
    extension = "+continuous" * options.continuous + "+create_target" * options.create_target
    return ReplicationId(base, extension)


def _identity(endpoint: Endpoint) -> list[Any]:
    """What of an endpoint makes a replication another one: not the password, nor a port that is usual."""
    url = urlsplit(endpoint.url)
    port = None if (url.scheme, url.port) in _DEFAULT_PORTS else url.port
    headers = [list(pair) for pair in endpoint.headers]
    return ["remote", endpoint.username, url.hostname, port, url.path, url.query, headers]


async def read_filter_code(name: str, source: Peer) -> str:
    """The filter function called `name`: another function makes another replication.

    :raises ReplicationError: it isn't there.
    """
    design, _, function = name.partition("/")
    try:
        await source.open()
    except EndpointRefused as error:
        reason = f"Could not open source database `{source.name}`: {error.error}"
        raise ReplicationError("not_found", reason, status=404) from error
    document = await source.read_doc(f"_design/{design}")
    if document is None:
        reason = f"Couldn't open document `_design/{design}` from source database `{source.name}`: not_found"
        raise ReplicationError("not_found", reason, status=404)
    filters = document.get("filters")
    code = filters.get(function) if isinstance(filters, dict) else None
    if not isinstance(code, str):
        reason = f"Couldn't parse filter code from document {design} on `{source.name}`"
        raise ReplicationError("not_found", reason, status=404)
    return code.strip()


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


class Checkpoints:
    """The checkpoints of one run, read at its beginning and written as it goes on."""

    def __init__(
        self,
        source: Peer,
        target: Peer,
        infos: tuple[PeerInfo, PeerInfo],
        logs: tuple[dict[str, Any], dict[str, Any]],
        options: Options,
    ) -> None:
        self._source = source
        self._target = target
        self._started = infos[0].instance_start_time, infos[1].instance_start_time
        self._logs = logs
        self._is_by_ids = options.doc_ids is not None
        self.start_seq, self._history = compare(*logs)
        self.session_id = secrets.token_hex(16)
        self._begun_s = time.time()
        self.committed_seq = self.start_seq
        kept = {name: value for name, value in logs[0].items() if name[:1] != "_"}
        self.record: dict[str, Any] = {"no_changes": True, **kept}
        """What the run has to show for itself."""

    @classmethod
    async def read(
        cls, source: Peer, target: Peer, infos: tuple[PeerInfo, PeerInfo], base_id: str, options: Options
    ) -> Checkpoints:
        doc_id = f"_local/{base_id}"
        logs = [await peer.read_doc(doc_id) or {"_id": doc_id} for peer in (source, target)]
        found = cls(source, target, infos, (logs[0], logs[1]), options)
        if options.since_seq is not None:
            found.start_seq = found.committed_seq = options.since_seq
        return found

    @property
    def stats(self) -> Stats:
        """The counts of the sessions before."""
        return Stats.from_entry(self._history[0]) if self._history else Stats()

    async def write(self, seq: Seq, stats: Stats) -> None:
        """Record on both ends that all up to `seq` is done.

        :raises ReplicationError: an end was recreated since the run began, or won't take it.
        """
        started = await self._source.commit(), await self._target.commit()
        changed = [
            name
            for name, before, now in zip(("source", "target"), self._started, started, strict=True)
            if before != now and "0" not in (before, now)
        ]
        if changed:
            reason = (
                f"instance_start_time on {' and '.join(changed)} database has changed since last checkpoint."
            )
            raise ReplicationError("checkpoint_commit_failure", reason)
        record = self._record(seq, stats)
        for name, peer, log in zip(
            ("source", "target"), (self._source, self._target), self._logs, strict=True
        ):
            await _store(name, peer, log, record)
        self.record = record
        self.committed_seq = seq

    def _record(self, seq: Seq, stats: Stats) -> dict[str, Any]:
        start_time, end_time = formatdate(self._begun_s, usegmt=True), formatdate(usegmt=True)
        entry = {
            "session_id": self.session_id,
            "start_time": start_time,
            "end_time": end_time,
            "start_last_seq": self.start_seq,
            "end_last_seq": seq,
            "recorded_seq": seq,
            **stats.entry(),
        }
        record = {
            "session_id": self.session_id,
            "source_last_seq": seq,
            "replication_id_version": ID_VERSION,
        }
        if self._is_by_ids:
            # What CouchDB 1.0 told of a replication by ids.
            record |= {"start_time": start_time, "end_time": end_time}
            record |= {name: entry[name] for name in ("docs_read", "docs_written", "doc_write_failures")}
        return record | {"history": [entry, *self._history][:HISTORY_MAX]}


async def _store(name: str, peer: Peer, log: dict[str, Any], record: dict[str, Any]) -> None:
    """Write a checkpoint; `log` keeps its revision for the next time."""
    doc_id = log["_id"]
    known = {"_rev": log["_rev"]} if "_rev" in log else {}
    try:
        log["_rev"] = await peer.write_local(doc_id, {"_id": doc_id, **known, **record})
    except Conflict:
        # An earlier attempt may have been stored though its answer was lost.
        found = await peer.read_doc(doc_id)
        if found is None or any(found.get(name) != value for name, value in record.items()):
            reason = f"Error updating the {name} checkpoint document: conflict"
            raise ReplicationError("checkpoint_commit_failure", reason) from None
        log["_rev"] = found["_rev"]
    except PeerFailure as error:
        reason = f"Error updating the {name} checkpoint document: {error.reason}"
        raise ReplicationError("checkpoint_commit_failure", reason) from error


def compare(source: dict[str, Any], target: dict[str, Any]) -> tuple[Seq, list[dict[str, Any]]]:
    """The sequence up to which both checkpoints agree, and the history of the sessions up to there."""
    session = source.get("session_id")
    if session == target.get("session_id"):
        return source.get("source_last_seq", LOWEST_SEQ), _history(source)
    return _common(_history(source), _history(target))


def _history(log: dict[str, Any]) -> list[dict[str, Any]]:
    history = log.get("history")
    return [entry for entry in history if isinstance(entry, dict)] if isinstance(history, list) else []


def _common(
    source: Sequence[dict[str, Any]], target: Sequence[dict[str, Any]]
) -> tuple[Seq, list[dict[str, Any]]]:
    """The latest session that both know of."""
    while source and target:
        if any(entry.get("session_id") == source[0].get("session_id") for entry in target):
            return source[0].get("recorded_seq", LOWEST_SEQ), list(source[1:])
        if any(entry.get("session_id") == target[0].get("session_id") for entry in source[1:]):
            return target[0].get("recorded_seq", LOWEST_SEQ), list(target[1:])
        source, target = source[1:], target[1:]
    return LOWEST_SEQ, []
