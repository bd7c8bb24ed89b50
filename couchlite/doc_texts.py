"""Documents as JSON texts, many at once, put together from their parts without being looked at."""

from __future__ import annotations

from collections.abc import Sequence

from . import reads, records
from .compression import BodyCodec
from .engine import Reader, Space
from .jsontext import escape_all
from .revision import HEX_DIGEST_SIZE

PAGE_BYTES = 1 << 20
"""A page ends soon after it has become so long: what bounds the memory that a reader takes."""
READ_AHEAD_DOCUMENTS = 32
"""So many bodies are fetched before their lengths are looked at."""


def leaf_texts(
    reader: Reader, codec: BodyCodec, ids: Sequence[bytes], revs: Sequence[bytes | None], *, with_path: bool
) -> list[bytes | None]:
    """The only leaf of each of the documents, which must be the revision given for it, if one is; so many of
    them, from the first one on, as fit into a page.

    None stands for what must be read in another way: documents that are not known, have branches, another
    leaf or attachments. `with_path` adds `_revisions`.
    """
    get, decoders = reader.get, codec.decoders()
    texts: list[bytes | None] = []
    size = 0
    for doc_id, rev, record in zip(escape_all(ids), revs, reads.records_of(reader, ids), strict=True):
        text = None
        if record is not None and not record[0] & records.BRANCHED:
            leaf = records.rev_of(record)
            frame = get(Space.BODIES, records.body_key(record)) if rev is None or rev == leaf else None
            path = _path(record, leaf, with_path)
            if frame is not None and path is not None and not records.has_attachments(frame):
                body = decoders[frame[0]](records.plain_data(frame))
                comma = b"," if len(body) > 2 else b""
                deleted = b',"_deleted":true' if record[0] & records.DELETED else b""
                text = b'{"_id":"%b","_rev":"%b"%b%b%b%b}' % (doc_id, leaf, comma, body[1:-1], deleted, path)
                size += len(text)
        texts.append(text)
        if size >= PAGE_BYTES:
            break
    return texts


def plain_bodies(reader: Reader, codec: BodyCodec, keys: Sequence[bytes]) -> list[bytes | None]:
    """The bodies of documents by their keys, so many of them as fit into a page; None for those that have
    attachments (or are gone)."""
    decoders = codec.decoders()
    bodies: list[bytes | None] = []
    size = 0
    for at in range(0, len(keys), READ_AHEAD_DOCUMENTS):
        frames = reader.get_many(Space.BODIES, keys[at : at + READ_AHEAD_DOCUMENTS])
        read = [
            None
            if frame is None or records.has_attachments(frame)
            else decoders[frame[0]](records.plain_data(frame))
            for frame in frames
        ]
        bodies += read
        size += sum([len(body) for body in read if body is not None])
        if size >= PAGE_BYTES:
            break
    return bodies


def _path(record: bytes, leaf: bytes, shown: bool) -> bytes | None:
    """The `_revisions` member of a document without branches if it is to be `shown`, else nothing; None when
    its revisions are odd."""
    generation, _, digest = leaf.partition(b"-")
    if len(digest) != HEX_DIGEST_SIZE:
        return None
    if not shown:
        return b""
    digests = records.linear_digests(record) if record[0] & records.HAS_TREE else digest
    if digests is None:
        return None
    return b',"_revisions":{"start":%b,"ids":["%b"]}' % (generation, digests)
