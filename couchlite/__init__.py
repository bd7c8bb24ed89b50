"""couchlite: a CouchDB-compatible document database, in-process.

    with couchlite.Server("data") as server:
        db = server.create("notes")
        rev = db.put({"_id": "first", "text": "hello"})
        db.get("first")

`Server` opens a data directory, `Database` reads and writes; every error is a `CouchliteError`. The same
files may be served over HTTP by other processes at the same time.
"""

from .asynchronous import AsyncDatabase
from .compact import Retention
from .conflicts import ConflictRow
from .database import Database, DatabaseInfo, Leaf
from .errors import (
    BadRequest,
    Conflict,
    CouchliteError,
    DatabaseExists,
    DatabaseNotFound,
    DataDirectoryError,
    NotFound,
)
from .resolution_log import Resolution
from .revision import Rev
from .server import Server

__all__ = [
    "AsyncDatabase",
    "BadRequest",
    "Conflict",
    "ConflictRow",
    "CouchliteError",
    "DataDirectoryError",
    "Database",
    "DatabaseExists",
    "DatabaseInfo",
    "DatabaseNotFound",
    "Leaf",
    "NotFound",
    "Resolution",
    "Retention",
    "Rev",
    "Server",
]
