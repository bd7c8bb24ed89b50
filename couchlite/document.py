"""JSON in, one edit out; a stored revision in, JSON out. The only place where the `_fields` are understood.

Source: the member rules are those of CouchDB's couch_doc:from_json_obj and couch_doc:to_json_obj, and so is
the order of members in the output: `_id`, `_rev`, the body, `_deleted`, `_revisions`, the meta members,
`_attachments`.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import jsontext
from .errors import BadRequest, DocumentInvalid, IllegalDocumentId, TooLarge
from .records import AttachmentInfo
from .revision import Rev
from .revision import digest_text as revision_digest_text
from .upload import StagedBlob

MAX_DOCUMENT_SIZE_BYTES = 8_000_000
"""CouchDB's default of [couchdb] max_document_size; of the JSON text without underscore fields."""
DEFAULT_CONTENT_TYPE = "application/octet-stream"

IGNORED_MEMBERS = frozenset(("_revs_info", "_local_seq", "_conflicts", "_deleted_conflicts"))
BODY_MEMBERS = frozenset(
    (
        "_access",
        "_replication_state",
        "_replication_state_time",
        "_replication_state_reason",
        "_replication_id",
        "_replication_stats",
    )
)
"""Underscore members that are kept as part of the body."""


@dataclass(slots=True)
class AttachmentEdit:
    """An attachment of an edit: new data, a part that follows in a multipart body, or a stub of what is
    stored."""

    name: str
    content_type: str
    revpos: int | None = None
    stub: bool = False
    follows: bool = False
    data: bytes | None = None
    staged: StagedBlob | None = None
    encoding: str | None = None
    sent_length: int | None = None
    """Of a part that follows: how many bytes were announced to come, encoded as they are."""
    identity_length: int | None = None
    """Of a part that follows: its announced length once decoded."""
    sent_md5: bytes | None = None
    """Of a part that follows: the announced digest of the bytes that come; of a stub, that of what it says it
    stands for."""
    stored: AttachmentInfo | None = None
    """What a stub was found to stand for."""


@dataclass(slots=True)
class Edit:
    """One revision to be written. `path` is newest first: an interactive edit's names its parent, a
    replicated edit's begins with its own revision."""

    id: str
    path: tuple[Rev, ...] = ()
    deleted: bool = False
    fields: dict[str, Any] = field(default_factory=dict)
    body: bytes = b"{}"
    attachments: list[AttachmentEdit] = field(default_factory=list)


@dataclass(slots=True)
class Revision:
    """A revision as stored. `body` is the JSON text of an object without underscore members."""

    id: str
    rev: Rev
    deleted: bool
    body: bytes
    attachments: tuple[AttachmentInfo, ...] = ()
    path: tuple[Rev, ...] = ()
    """Newest first, from this revision back; empty when not asked for."""
    seq: int = 0
    """The update sequence of the document's last change."""


def validate_id(doc_id: Any) -> None:
    if not isinstance(doc_id, str):
        raise IllegalDocumentId("Document id must be a string")
    if not doc_id:
        raise IllegalDocumentId()
    if doc_id[0] == "_":
        if doc_id in ("_design/", "_local/"):
            raise IllegalDocumentId(f"Illegal document id `{doc_id}`")
        if not doc_id.startswith(("_design/", "_local/")):
            raise IllegalDocumentId("Only reserved document ids may start with underscore.")


def parse(document: Any, doc_id: str | None = None, *, max_size_bytes: int = MAX_DOCUMENT_SIZE_BYTES) -> Edit:
    """Understand a document as a client sends it. `doc_id` overrides its `_id`; with neither, the id is "".

    :raises BadRequest: (and its kinds) with CouchDB's reasons.
    :raises TooLarge: the body is over `max_size_bytes`.
    """
    if not isinstance(document, dict):
        raise BadRequest("Document must be a JSON object")
    edit = Edit("")
    if "_id" in document:
        validate_id(document["_id"])
        edit.id = document["_id"]
    if doc_id is not None:
        validate_id(doc_id)
        edit.id = doc_id
    special = [name for name in document if name[:1] == "_"]
    if special == ["_id"]:
        fields = document.copy()
        del fields["_id"]
    elif special:
        fields = {name: value for name, value in document.items() if name[:1] != "_" or name in BODY_MEMBERS}
        for name in special:
            _apply_member(edit, name, document[name])
    else:
        fields = document
    edit.fields = fields
    edit.body = jsontext.dumps(fields)
    if len(edit.body) > max_size_bytes:
        raise TooLarge(document.get("_id", ""), error="document_too_large")
    return edit


def _apply_member(edit: Edit, name: str, value: Any) -> None:
    if name == "_rev":
        rev = Rev.parse(value)
        if not edit.path:
            edit.path = (rev,)
    elif name == "_revisions" and isinstance(value, dict):
        edit.path = _parse_revisions(value)
    elif name == "_deleted" and isinstance(value, bool):
        edit.deleted = value
    elif name == "_attachments" and isinstance(value, dict):
        edit.attachments = [
            _parse_attachment(att_name, props) for att_name, props in value.items() if isinstance(props, dict)
        ]
    elif name != "_id" and name not in IGNORED_MEMBERS and name not in BODY_MEMBERS:
        raise DocumentInvalid(f"Bad special document member: {name}")


def _parse_revisions(value: dict[str, Any]) -> tuple[Rev, ...]:
    start, ids = value.get("start"), value.get("ids")
    if not isinstance(start, int) or isinstance(start, bool):
        raise DocumentInvalid("_revisions.start isn't an integer.")
    if not isinstance(ids, list):
        raise DocumentInvalid("_revisions.ids isn't a array.")
    path = []
    for at, digest in enumerate(ids):
        if not isinstance(digest, str):
            raise DocumentInvalid("RevId isn't a string")
        try:
            path.append(Rev(start - at, Rev.parse(f"1-{digest}").digest))
        except BadRequest as error:
            raise DocumentInvalid("RevId isn't a valid hexadecimal") from error
    return tuple(path)


def validate_attachment_name(name: str) -> None:
    """:raises BadRequest:"""
    if name.startswith("_"):
        raise BadRequest(f"Attachment name '{name}' starts with prohibited character '_'")


def _parse_attachment(name: str, props: dict[str, Any]) -> AttachmentEdit:
    validate_attachment_name(name)
    content_type = props.get("content_type", DEFAULT_CONTENT_TYPE)
    if not isinstance(content_type, str):
        raise BadRequest(f"Invalid content type for {name}")
    edit = AttachmentEdit(name, content_type, revpos=_integer(props.get("revpos")))
    if props.get("stub"):
        edit.stub = True
        with contextlib.suppress(BadRequest):  # CouchDB does not look at it
            edit.sent_md5 = _parse_digest(name, props.get("digest"))
    elif props.get("follows"):
        edit.follows = True
        encoding = props.get("encoding")
        edit.encoding = encoding if isinstance(encoding, str) and encoding != "identity" else None
        edit.identity_length = _integer(props.get("length"))
        encoded_length = _integer(props.get("encoded_length")) if edit.encoding else None
        edit.sent_length = edit.identity_length if encoded_length is None else encoded_length
        edit.sent_md5 = _parse_digest(name, props.get("digest"))
    else:
        edit.data = _decode_data(name, props.get("data"))
    return edit


def _integer(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _parse_digest(name: str, text: Any) -> bytes | None:
    if not isinstance(text, str) or not text.startswith("md5-"):
        return None
    try:
        return base64.b64decode(text.removeprefix("md5-"), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(f"Invalid attachment digest for {name}") from error


def _decode_data(name: str, data: Any) -> bytes:
    """Base64 as Erlang's base64:decode reads it: white space is skipped, padding is demanded."""
    if isinstance(data, str):
        try:
            return base64.b64decode("".join(data.split()), validate=True)
        except (binascii.Error, ValueError):
            pass
    raise BadRequest(f"Invalid attachment data for {name}")


# --- out

Meta = Sequence[tuple[str, Any]]


def attachment_stub(info: AttachmentInfo, *, encoding_info: bool = False) -> dict[str, Any]:
    """The members of an attachment whose data are not sent along."""
    return attachment_members(info, {"length": info.identity_length, "stub": True}, encoding_info)


def attachment_members(
    info: AttachmentInfo, how: dict[str, Any], encoding_info: bool = False
) -> dict[str, Any]:
    members: dict[str, Any] = {
        "content_type": info.content_type,
        "revpos": info.revpos,
        "digest": digest_text(info.md5),
        **how,
    }
    if encoding_info and info.encoding:
        members |= {"encoding": info.encoding, "encoded_length": info.length}
    return members


def digest_text(md5: bytes) -> str:
    return "md5-" + base64.b64encode(md5).decode()


def render(
    revision: Revision,
    *,
    revs: bool = False,
    meta: Meta = (),
    attachment: Callable[[AttachmentInfo], dict[str, Any]] = attachment_stub,
) -> bytes:
    """The JSON text of a revision; its body is spliced in, not parsed.

    `revs` adds `_revisions` (the revision must carry its path), `meta` other members in the given order;
    `attachment` says how each attachment is shown.
    """
    body = revision.body
    head = b'{"_id":%b,"_rev":%b' % (jsontext.dumps(revision.id), jsontext.dumps(revision.rev.text))
    if body != b"{}":
        head += b"," + body[1:-1]
    if revision.deleted:
        head += b',"_deleted":true'
    tail: dict[str, Any] = {}
    if revs:
        tail["_revisions"] = {
            "start": revision.rev.generation,
            "ids": [digest_part(rev) for rev in revision.path],
        }
    tail.update(meta)
    if revision.attachments:
        tail["_attachments"] = {info.name: attachment(info) for info in revision.attachments}
    if tail:
        return head + b"," + jsontext.dumps(tail)[1:]
    return head + b"}"


def digest_part(rev: Rev) -> str:
    """A revision's text without the generation, as `_revisions` lists it."""
    return revision_digest_text(rev.digest)
