"""Attachments on their way in: parts of a multipart body, and the bodies of attachment requests. They go to
disk as they arrive, so memory does not depend on their sizes."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from email.message import Message

from couchlite.document import AttachmentEdit, Edit, validate_attachment_name
from couchlite.errors import BadRequest, UnsupportedMediaType
from couchlite.multipart import MultipartReader
from couchlite.upload import Encoding, StagedBlob

from .request import Request
from .submission import check_attachment_size, discard, limits_of


async def receive(request: Request, attachment: AttachmentEdit, chunks: AsyncIterator[bytes]) -> StagedBlob:
    """Stage one body. The announced length and digest, if any, must turn out to be true.

    :raises TooLarge: :raises BadRequest:
    """
    limits = limits_of(request.server.config)
    announced = attachment.sent_length
    check_attachment_size(attachment.name, announced, limits)
    encoding = _encoding(attachment.encoding)
    async with request.database().blobs.stage(attachment.content_type, encoding) as upload:
        async for chunk in chunks:
            await upload.write_async(chunk)
            check_attachment_size(attachment.name, upload.received, limits)
            if announced is not None and upload.received > announced:
                raise BadRequest("attachment longer than expected")
        if announced is not None and upload.received < announced:
            raise BadRequest("attachment shorter than expected")
        staged = await upload.finish_async()
    if attachment.sent_md5 not in (None, staged.received_md5):
        staged.discard()
        raise BadRequest("Possible message corruption.", error="content_md5_mismatch")
    return staged


def _encoding(name: str | None) -> Encoding | None:
    if name is None:
        return None
    if name == "gzip":
        return "gzip"
    raise UnsupportedMediaType("Only gzip and identity content-encodings are supported")


async def receive_parts(request: Request, edit: Edit, reader: MultipartReader) -> None:
    """Stage the parts that the document says `follows` of: they come in the order of its `_attachments`."""
    try:
        for attachment in edit.attachments:
            if attachment.follows:
                if await reader.next_part() is None:
                    raise BadRequest("attachment shorter than expected")
                attachment.staged = await receive(request, attachment, reader.body())
    except BaseException:
        discard(edit.attachments)
        raise


@dataclass(slots=True)
class Form:
    """What a browser's form brought: a document's text, or the revision to be changed; and files."""

    document: bytes | None = None
    rev: str | None = None
    attachments: list[AttachmentEdit] = field(default_factory=list)


@contextlib.asynccontextmanager
async def received_form(request: Request, reader: MultipartReader) -> AsyncIterator[Form]:
    """A form with its files staged; those that nobody adopted are thrown away at the end."""
    form = Form()
    try:
        while (headers := await reader.next_part()) is not None:
            disposition = Message()
            disposition["Content-Disposition"] = headers.get("content-disposition", "")
            name = disposition.get_param("name", header="Content-Disposition")
            file_name = disposition.get_filename()
            if name == "_attachments" and file_name is not None:
                validate_attachment_name(file_name)
                content_type = headers.get("content-type", "text/plain")
                attachment = AttachmentEdit(file_name, content_type)
                attachment.staged = await receive(request, attachment, reader.body())
                form.attachments.append(attachment)
            elif name in ("_doc", "_rev"):
                text = b"".join([piece async for piece in reader.body()])
                if name == "_doc":
                    form.document = text
                else:
                    form.rev = text.decode("utf-8", "replace").strip()
        yield form
    finally:
        discard(form.attachments)
