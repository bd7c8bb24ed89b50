"""Every error a caller can meet, drawn as a tree.

    CouchliteError
    ├── BadRequest (400)            what was sent can't be understood
    │   ├── IllegalDocumentId, IllegalDatabaseName, DocumentInvalid, QueryParseError
    ├── Unauthorized (401), Forbidden (403)
    ├── NotFound (404)
    │   ├── DatabaseNotFound
    ├── MethodNotAllowed (405)
    ├── Conflict (409)
    ├── PreconditionFailed (412)
    │   ├── DatabaseExists, MissingStub
    ├── TooLarge (413)
    ├── UnsupportedMediaType (415), RangeNotSatisfiable (416)
    ├── TooManyRequests (429)
    ├── InternalError, Misconfigured (500)
    ├── NotImplementedHere (501)
    ├── ServiceUnavailable (503)
    ├── InsufficientStorage (507)
    └── DataDirectoryError          the data can't be opened: locked, foreign, newer or damaged

An error is born where the fact is known, with the status, the `error` word and the `reason` text that CouchDB
gives for it; http_api turns it into a response in one place. Embedded users catch the classes.
"""

from __future__ import annotations

from typing import Any


class CouchliteError(Exception):
    """Base of all; `status` is an HTTP status, `error` CouchDB's error word, `reason` its text."""

    status = 500
    error = "unknown_error"
    default_reason = "An unknown error occurred."

    def __init__(
        self, reason: str | None = None, *, error: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        self.reason = self.default_reason if reason is None else reason
        if error is not None:
            self.error = error
        self.headers = headers or {}
        self.members: dict[str, Any] = {}
        """Members of a response beside error and reason."""
        super().__init__(f"{self.error}: {self.reason}")


class BadRequest(CouchliteError):
    status = 400
    error = "bad_request"
    default_reason = "Bad request."


class IllegalDocumentId(BadRequest):
    error = "illegal_docid"
    default_reason = "Document id must not be empty"


class IllegalDatabaseName(BadRequest):
    error = "illegal_database_name"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"Name: '{name}'. Only lowercase characters (a-z), digits (0-9), and any of the characters "
            "_, $, (, ), +, -, and / are allowed. Must begin with a letter."
        )


class DocumentInvalid(BadRequest):
    error = "doc_validation"
    default_reason = "Bad special document member"


class QueryParseError(BadRequest):
    error = "query_parse_error"


class Unauthorized(CouchliteError):
    status = 401
    error = "unauthorized"
    default_reason = "You are not authorized to access this db."


class Forbidden(CouchliteError):
    status = 403
    error = "forbidden"
    default_reason = "You are not allowed to access this db."


class NotFound(CouchliteError):
    status = 404
    error = "not_found"
    default_reason = "missing"


class DatabaseNotFound(NotFound):
    default_reason = "Database does not exist."


class MethodNotAllowed(CouchliteError):
    status = 405
    error = "method_not_allowed"

    def __init__(self, allowed: str) -> None:
        super().__init__(f"Only {allowed} allowed", headers={"Allow": allowed})


class Conflict(CouchliteError):
    status = 409
    error = "conflict"
    default_reason = "Document update conflict."


class PartitionOverflow(CouchliteError):
    status = 403
    error = "partition_overflow"

    def __init__(self, doc_id: str) -> None:
        super().__init__(f"Partition limit exceeded due to update on '{doc_id}'")


class PreconditionFailed(CouchliteError):
    status = 412
    error = "precondition_failed"


class DatabaseExists(PreconditionFailed):
    error = "file_exists"
    default_reason = "The database could not be created, the file already exists."


class MissingStub(PreconditionFailed):
    error = "missing_stub"


class TooLarge(CouchliteError):
    status = 413
    error = "too_large"
    default_reason = "the request entity is too large"


class UnsupportedMediaType(CouchliteError):
    status = 415
    error = "bad_content_type"
    default_reason = "Content-Type must be application/json"


class RangeNotSatisfiable(CouchliteError):
    status = 416
    error = "requested_range_not_satisfiable"
    default_reason = "Requested range not satisfiable"


class TooManyRequests(CouchliteError):
    status = 429
    error = "too_many_requests"
    default_reason = "there are too many requests of this kind at the moment"


class InternalError(CouchliteError):
    pass


class Misconfigured(CouchliteError):
    error = "misconfigured_server"


class NotImplementedHere(CouchliteError):
    status = 501
    error = "not_implemented"
    default_reason = "this feature is not yet implemented"


class ServiceUnavailable(CouchliteError):
    status = 503
    error = "service_unavailable"


class InsufficientStorage(CouchliteError):
    status = 507
    error = "insufficient_storage"
    default_reason = "there is not enough free disk space for this write"


class DataDirectoryError(CouchliteError):
    error = "data_directory"
