"""What the parts of a request say: percent-encoding, queries, headers and encoded bodies as values.

Pure functions, each as CouchDB understands the text, oddities included.
"""

from __future__ import annotations

import re
import zlib
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from couchlite.errors import BadRequest, QueryParseError, TooLarge, UnsupportedMediaType
from couchlite.jsontext import loads

INTEGER_LENGTH_MAX = 1000
"""More digits are no count of anything, and beyond 4,300 Python doesn't read them."""
UNESCAPED = ".-_:"
"""couch_util:url_encode leaves these and the alphanumerics as they are."""

_SURROGATE = re.compile("[\ud800-\udfff]")
_QUERY_SEPARATOR = re.compile("[&;]")
_INTEGER = re.compile(r"[+-]?[0-9]+")
_QUALITY = re.compile(r"\s*(0(\.[0-9]{0,3})?|1(\.0{0,3})?)\s*")


def decode(text: str, plus_is_space: bool = True) -> str:
    """Percent-decode one piece of a target; "+" is a space, in queries and, unless [chttpd]
    decode_plus_to_space is off, in paths.

    Bytes that are not UTF-8 become lone surrogates (PEP 383), which no stored id contains; see `is_text`.
    Encoded UTF-16 surrogates are U+FFFD, which is what CouchDB shows for them.
    """
    if "%" not in text and "+" not in text and text.isascii():
        return text
    data = unquote(text, plus_is_space)
    try:
        return data.decode()
    except UnicodeDecodeError:
        pass
    try:
        return _SURROGATE.sub("\ufffd", data.decode("utf-8", "surrogatepass"))
    except UnicodeDecodeError:
        return data.decode("utf-8", "surrogateescape")


def unquote(text: str, plus_is_space: bool) -> bytes:
    """Percent-decode to the bytes that were sent; see `decode`."""
    if plus_is_space:
        text = text.replace("+", " ")
    return unquote_to_bytes(text.encode("utf-8", "surrogateescape"))


def encode(text: str) -> str:
    """Percent-encode one segment for a Location header, as couch_util:url_encode does ("/" is escaped)."""
    return quote(text, safe=UNESCAPED).replace("~", "%7E")


def is_text(text: str) -> bool:
    """Whether a decoded piece of a target was valid UTF-8."""
    return text.isascii() or not _SURROGATE.search(text)


def shown(text: str) -> str:
    """Decoded text as it may stand in an answer: what was not UTF-8 becomes U+FFFD."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def parse_query(text: str) -> list[tuple[str, str]]:
    """Decoded (name, value) pairs, in order; a name without "=" has the value ""."""
    pairs = []
    for piece in _QUERY_SEPARATOR.split(text):
        if piece:
            name, _, value = piece.partition("=")
            pairs.append((decode(name), decode(value)))
    return pairs


def json_value(text: str) -> Any:
    """A query value that is JSON text; raises BadRequest "invalid UTF-8 JSON"."""
    return loads(text.encode("utf-8", "surrogateescape"))


def as_erlang(text: str) -> str:
    """A wrong query value as Erlang prints it: a string is a list there, and the empty one is []."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' if text else "[]"


def boolean(text: str) -> bool:
    """A query value that must be a boolean, in any case; raises QueryParseError."""
    lowered = text.lower()
    if lowered == "true":
        return True
    if lowered == "false":
        return False
    raise QueryParseError(f"Invalid boolean parameter: {as_erlang(text)}")


def integer(text: str) -> int:
    """A query value that must be an integer; raises QueryParseError."""
    if not _INTEGER.fullmatch(text) or len(text) > INTEGER_LENGTH_MAX:
        raise QueryParseError(f"Invalid value for integer: {as_erlang(text)}")
    return int(text)


def positive_integer(text: str) -> int:
    """A query value that must be an integer of at least 0; raises QueryParseError."""
    number = integer(text)
    if number < 0:
        raise QueryParseError(f"Invalid value for positive integer: {as_erlang(text)}")
    return number


def media_ranges(accept: str) -> dict[str, float]:
    """The media ranges of an Accept header, each with its quality; 0 for one that makes no sense."""
    ranges = {}
    for item in accept.split(","):
        name, *parameters = item.split(";")
        quality = 1.0
        for parameter in parameters:
            key, _, value = parameter.partition("=")
            if key.strip() == "q":
                quality = float(value) if _QUALITY.fullmatch(value) else 0.0
        ranges[name.strip().lower()] = quality
    return ranges


def decompress(body: bytes, encoding: str | None, size_max: int) -> bytes:
    """Undo the Content-Encoding of a JSON body; a body that would grow beyond `size_max` raises TooLarge."""
    if encoding is None or encoding == "identity":
        return body
    if encoding != "gzip":
        raise UnsupportedMediaType(f"{encoding} is not a supported content encoding.")
    output = []
    room = size_max
    try:
        while body:
            inflater = zlib.decompressobj(31)
            piece = inflater.decompress(body, room + 1)
            room -= len(piece)
            if room < 0:
                raise TooLarge()
            if not inflater.eof:
                raise BadRequest("Request body is not properly gzipped.")
            output.append(piece)
            body = inflater.unused_data  # gzip allows several members in a row
    except zlib.error:
        raise BadRequest("Request body is not properly gzipped.") from None
    return b"".join(output)
