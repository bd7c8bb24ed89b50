"""Multipart bodies, read and written."""

from __future__ import annotations

import email
import email.message
import gzip
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from couchlite.errors import BadRequest, CouchliteError, TooLarge, UnsupportedMediaType
from couchlite.multipart import (
    AttachmentPart,
    MixedWriter,
    MultipartReader,
    is_related,
    related_length,
    related_type,
    write_related,
)

TYPE = 'multipart/related; boundary="xBx"'
JSON_HEAD = b"--xBx\r\nContent-Type: application/json\r\n\r\n"


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


async def parts_of(data: bytes, size: int = 1_000_000, content_type: str = TYPE) -> list[bytes]:
    """The document and the bodies of the other parts, when the body arrives in pieces of `size`."""
    reader = MultipartReader(content_type, pieces(data, size))
    found = [await reader.document(1_000)]
    while await reader.next_part() is not None:
        found.append(b"".join([piece async for piece in reader.body()]))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1_000_000])
@pytest.mark.parametrize(
    ("data", "parts"),
    [
        pytest.param(JSON_HEAD + b"{}\r\n--xBx--", [b"{}"], id="a document alone"),
        pytest.param(
            JSON_HEAD + b"{}\r\n--xBx\r\n\r\nabc\r\n--xBx--", [b"{}", b"abc"], id="a part without headers"
        ),
        pytest.param(JSON_HEAD + b"{}\r\n--xBx\r\n\r\n\r\n--xBx--", [b"{}", b""], id="an empty part"),
        pytest.param(
            JSON_HEAD + b"{}\r\n--xBx\r\nA: b\r\nC: d\r\n\r\n\r\n--xB\r\n-\r\n--xBx--epilogue",
            [b"{}", b"\r\n--xB\r\n-"],
            id="what resembles a delimiter is none",
        ),
        pytest.param(b"preamble\r\n" + JSON_HEAD + b"{}\r\n--xBx--\r\n", [b"{}"], id="a preamble"),
    ],
)
async def test_parts_however_they_arrive(data: bytes, parts: list[bytes], size: int) -> None:
    assert await parts_of(data, size) == parts


@pytest.mark.parametrize(
    "content_type",
    ["multipart/related; boundary=xBx", 'multipart/related;boundary="xBx"; type="application/json"'],
)
async def test_how_a_boundary_may_be_given(content_type: str) -> None:
    assert await parts_of(JSON_HEAD + b"{}\r\n--xBx--", content_type=content_type) == [b"{}"]


@pytest.mark.parametrize(
    ("content_type", "data", "error"),
    [
        pytest.param("multipart/related; x=y", b"", BadRequest, id="no boundary"),
        pytest.param(TYPE, b"", BadRequest, id="an empty body"),
        pytest.param(TYPE, JSON_HEAD + b"{}", BadRequest, id="the document does not end"),
        pytest.param(TYPE, JSON_HEAD + b"{}\r\n--xBx\r\n\r\nab", BadRequest, id="a part does not end"),
        pytest.param(TYPE, JSON_HEAD + b"{}\r\n--xBx\r\n", BadRequest, id="a head does not end"),
        pytest.param(TYPE, JSON_HEAD + b"{}\r\n--xBx", BadRequest, id="after a delimiter nothing"),
        pytest.param(TYPE, b"--xBx\r\nno colon\r\n\r\n{}\r\n--xBx--", BadRequest, id="a head that is none"),
        pytest.param(TYPE, b"--xBx\r\nA: " + b"b" * 70_000, BadRequest, id="a head without end"),
        pytest.param(TYPE, b"--xBx\r\n\r\n{}\r\n--xBx--", UnsupportedMediaType, id="a document of no type"),
        pytest.param(
            TYPE,
            b"--xBx\r\nContent-Type: text/plain\r\n\r\n{}\r\n--xBx--",
            UnsupportedMediaType,
            id="of another type",
        ),
        pytest.param(TYPE, b"--xBx--", UnsupportedMediaType, id="no part at all"),
        pytest.param(TYPE, JSON_HEAD + b"x" * 2_000 + b"\r\n--xBx--", TooLarge, id="a document too long"),
    ],
)
async def test_bodies_that_are_refused(content_type: str, data: bytes, error: type[CouchliteError]) -> None:
    with pytest.raises(error):
        await parts_of(data, 100, content_type)


async def test_a_part_that_is_not_read_is_skipped() -> None:
    data = (
        JSON_HEAD + b"{}\r\n--xBx\r\nA: 1\r\n\r\n" + b"x" * 500 + b"\r\n--xBx\r\nA: 2\r\n\r\nlast\r\n--xBx--"
    )
    reader = MultipartReader(TYPE, pieces(data, 64))
    await reader.document(100)
    assert await reader.next_part() == {"a": "1"}
    assert await reader.next_part() == {"a": "2"}
    assert b"".join([piece async for piece in reader.body()]) == b"last"
    assert await reader.next_part() is None


async def test_a_part_is_never_whole_in_memory() -> None:
    data = JSON_HEAD + b"{}\r\n--xBx\r\n\r\n" + bytes(1_000_000) + b"\r\n--xBx--"
    reader = MultipartReader(TYPE, pieces(data, 1_000))
    await reader.document(100)
    await reader.next_part()
    assert max([len(piece) async for piece in reader.body()]) <= 1_000


def attachment(name: str, data: bytes, encoding: str | None = None) -> AttachmentPart:
    return AttachmentPart(name, "text/plain", len(data), encoding, lambda: [data[:3], data[3:]])


class Sink:
    """Gathers what is written."""

    def __init__(self) -> None:
        self.data = b""

    async def write(self, data: bytes) -> None:
        self.data += data


async def test_the_bytes_of_a_document_with_attachments() -> None:
    sink = Sink()
    parts = [attachment("f.txt", b"hello"), attachment("g", b"zip", "gzip")]
    await write_related(sink.write, "B", b'{"a":1}', parts)
    assert sink.data == (
        b'--B\r\nContent-Type: application/json\r\n\r\n{"a":1}\r\n--B'
        b'\r\nContent-Disposition: attachment; filename="f.txt"\r\nContent-Type: text/plain'
        b"\r\nContent-Length: 5\r\n\r\nhello\r\n--B"
        b'\r\nContent-Disposition: attachment; filename="g"\r\nContent-Type: text/plain'
        b"\r\nContent-Length: 3\r\nContent-Encoding: gzip\r\n\r\nzip\r\n--B--"
    )
    assert len(sink.data) == related_length("B", b'{"a":1}', parts)


@given(
    document=st.binary(max_size=50),
    bodies=st.lists(st.binary(max_size=200), min_size=1, max_size=4),
    size=st.integers(1, 100),
)
async def test_what_is_written_is_read_again(document: bytes, bodies: list[bytes], size: int) -> None:
    sink = Sink()
    parts = [attachment(f"a{n}", body) for n, body in enumerate(bodies)]
    await write_related(sink.write, "2b5c1e", document, parts)
    assert len(sink.data) == related_length("2b5c1e", document, parts)
    assert await parts_of(sink.data, size, related_type("2b5c1e")) == [document, *bodies]


async def test_a_name_can_not_add_headers() -> None:
    part = AttachmentPart('a"\r\nX-Evil: 1', "a/b\r\nX-Evil: 2", 0, None, list)
    assert part.head().count(b"\r\n") == 5


def parsed(writer: MixedWriter, data: bytes) -> email.message.Message:
    return email.message_from_bytes(f"Content-Type: {writer.content_type}\r\n\r\n".encode() + data)


@pytest.mark.parametrize("bulk", [False, True])
async def test_mixed_bodies_hold_documents_with_attachments_and_errors(bulk: bool) -> None:
    sink = Sink()
    writer = MixedWriter(sink.write, bulk=bulk)
    await writer.document("plain", "1-a", b'{"n":1}', [])
    await writer.document("full", "1-b", b'{"n":2}', [attachment("f", gzip.compress(b"f"), "gzip")])
    await writer.error(b'{"missing":"1-c"}')
    await writer.end()
    plain, full, error = parsed(writer, sink.data).get_payload()
    assert plain.get_content_type() == "application/json"
    assert plain.get_payload() == '{"n":1}'
    assert full.get_content_type() == "multipart/related"
    inner, attached = full.get_payload()
    assert inner.get_payload() == '{"n":2}'
    assert attached.get_filename() == "f"
    assert error["Content-Type"] == 'application/json; error="true"'
    assert (full["X-Doc-Id"], full["X-Rev-Id"]) == (("full", "1-b") if bulk else (None, None))
    assert sink.data.startswith(b"\r\n--" if bulk else b"--")
    assert sink.data.endswith(b"--\r\n" if bulk else b"--")


def test_which_uploads_bring_attachments_along() -> None:
    assert is_related('multipart/related; boundary="x"')
    assert not is_related("multipart/related")
    assert not is_related("Multipart/Related; boundary=x")
    assert not is_related(None)
