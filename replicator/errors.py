"""Why a replication can't go on, in CouchDB's words.

    ReplicationError            `error`, `reason` and `status` are what a client of _replicate is told
    ├── InvalidReplication      what was asked for makes no sense: asking again is no use
    ├── EndpointRefused         a database can't be opened: missing, or not for these credentials
    └── PeerFailure             a peer answered with an error, or not at all; it may be well again later

A document that a target refuses is no error but a `Refusal` (see peer.py): the replication goes on.
"""

from __future__ import annotations

from couchlite.errors import CouchliteError


class ReplicationError(CouchliteError):
    """Ends a run of a replication. `status` as chttpd:error_info has it for `error`."""

    def __init__(self, error: str, reason: str, *, status: int = 500) -> None:
        super().__init__(reason, error=error)
        self.status = status


class InvalidReplication(ReplicationError):
    """:param error: CouchDB's word for it."""

    def __init__(self, reason: str, *, error: str = "bad_request", status: int = 400) -> None:
        super().__init__(error, reason, status=status)


class EndpointRefused(ReplicationError):
    """A source or target that can't be opened. Source: couch_replicator_scheduler_job."""

    @classmethod
    def missing(cls, name: str) -> EndpointRefused:
        return cls("db_not_found", f"could not open {name}")

    @classmethod
    def unauthorized(cls, name: str) -> EndpointRefused:
        return cls("unauthorized", f"unauthorized to access or create database {name}", status=401)

    @classmethod
    def forbidden(cls, name: str) -> EndpointRefused:
        return cls("forbidden", name, status=403)


class PeerFailure(ReplicationError):
    """A request that failed, also when it was repeated.

    :param code: the HTTP status that came; None when there was no answer.
    """

    def __init__(self, error: str, reason: str, *, code: int | None = None) -> None:
        super().__init__(error, reason)
        self.code = code
