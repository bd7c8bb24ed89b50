"""Document ids of partitioned databases: `partition:id`. Source: couch_partition."""

from __future__ import annotations

from .document import validate_id
from .errors import BadRequest, IllegalDocumentId


def check_id(doc_id: str) -> None:
    """Design documents and local ones belong to no partition.

    :raises IllegalDocumentId, BadRequest: no partition, or none that is allowed.
    """
    if doc_id.startswith(("_design/", "_local/")):
        return
    name, colon, rest = doc_id.partition(":")
    if not colon:
        raise IllegalDocumentId("Doc id must be of form partition:id")
    check_name(name)
    validate_id(rest)


def check_name(name: str) -> None:
    """:raises BadRequest:"""
    if not name:
        raise BadRequest("Partition must not be empty", error="illegal_partition")
    if name.startswith("_"):
        raise BadRequest("Partition must not start with an underscore", error="illegal_partition")
