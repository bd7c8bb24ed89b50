"""Revision identifiers: what `3-917fa2381192822767f010b95b45325b` means, and how a new one is made.

A revision is a generation (how many edits lie behind it, this one included) and a digest. Laws of this file:

1. Ids are bit-identical to CouchDB's, so that the same edit made on two servers is the same revision and no
   conflict arises. The digest is the MD5 of Erlang's external term format (minor version 1) of
   `[Deleted, ParentGeneration, ParentDigest, {Body}, Attachments]`; see couch_db:new_revid, and
   https://www.erlang.org/doc/apps/erts/erl_ext_dist.html for the format. `1`, `1.0` and `-0.0` differ here.
2. A digest is raw bytes: 16 of them where the text has 32 hex digits, else the text's own bytes, since peers
   may graft revisions of any shape (`1-a`). Tuples of (generation, bytes) thereby order as CouchDB orders.
3. Encoding is a loop with a stack of its own: a body nested 100,000 deep is as good as a flat one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from hashlib import md5
from itertools import repeat
from struct import Struct
from typing import Any, NamedTuple

from .errors import BadRequest

RAW_DIGEST_SIZE = 16
HEX_DIGEST_SIZE = 2 * RAW_DIGEST_SIZE
_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{32}")
_SIGNED_HEX_DIGEST = re.compile(rb"[+-][0-9a-fA-F]{31}")


class Rev(NamedTuple):
    """A revision id. Compares as CouchDB does: by generation, then by the digest's bytes."""

    generation: int
    digest: bytes

    @classmethod
    def parse(cls, text: object) -> Rev:
        """The revision that `text` names; BadRequest when it names none (anything but a string included)."""
        if type(text) is not str:
            raise BadRequest("Invalid rev format")
        generation, dash, digest = text.partition("-")
        if not dash:
            raise BadRequest("Invalid rev format")
        return cls(_parse_generation(generation), parse_digest(digest))

    @property
    def text(self) -> str:
        """The revision as CouchDB prints it."""
        digest = self.digest
        if len(digest) == RAW_DIGEST_SIZE:
            return f"{self.generation}-{digest.hex()}"
        return f"{self.generation}-{digest.decode('utf-8', 'replace')}"

    def __str__(self) -> str:
        return self.text


def parse_digest(text: str) -> bytes:
    """The digest that `text` (what follows the dash, or a member of `_revisions.ids`) stands for.

    32 bytes must be a hexadecimal number, which is kept as 16 raw bytes; CouchDB reads it with
    erlang:list_to_integer/2, so a sign counts as a digit and a negative number wraps around.
    """
    if len(text) == HEX_DIGEST_SIZE and _HEX_DIGEST.fullmatch(text):
        return bytes.fromhex(text)
    try:
        raw = text.encode()
    except UnicodeEncodeError:
        raise BadRequest("Invalid rev format") from None
    if len(raw) != HEX_DIGEST_SIZE:
        return raw
    if not _SIGNED_HEX_DIGEST.fullmatch(raw):
        raise BadRequest("Invalid rev format")
    return (int(raw, 16) & (1 << 128) - 1).to_bytes(RAW_DIGEST_SIZE, "big")


def digest_text(digest: bytes) -> str:
    """A digest as CouchDB prints it, the inverse of `parse_digest`."""
    return digest.hex() if len(digest) == RAW_DIGEST_SIZE else digest.decode("utf-8", "replace")


def new_rev(
    *,
    deleted: bool,
    parent: Rev | None,
    body: Mapping[str, Any],
    attachments: Sequence[tuple[str, str, bytes]] = (),
) -> Rev:
    """The revision that an edit makes.

    `body` holds the document's members in the order sent, without those that begin with an underscore.
    `attachments` are (name, content type, MD5 of the stored bytes) in the order of the document's
    `_attachments`; CouchDB hashes them last first. Values are what jsontext.loads returns.
    """
    terms = [_HEAD_DELETED if deleted else _HEAD]
    if parent is None:
        terms.append(_NO_PARENT)
        generation = 1
    else:
        _append_integer(terms, parent.generation)
        terms.append(_binary(parent.digest))
        generation = parent.generation + 1
    _append_body(terms, body)
    if attachments:
        terms.append(_LIST_HEADER(_LIST, len(attachments)))
        for name, content_type, digest in reversed(attachments):
            terms += (_TRIPLE, _binary(name.encode()), _binary(content_type.encode()), _binary(digest))
    terms.append(_END_OF_LIST)
    terms.append(_END_OF_LIST)
    return Rev(generation, md5(b"".join(terms), usedforsecurity=False).digest())


def external_term(value: Any) -> bytes:
    """A JSON value in Erlang's external term format, as CouchDB hashes values: minor version 1."""
    terms: list[bytes] = []
    _append_body(terms, {"": value})
    return b"".join((b"\x83", *terms[2:-1]))


# Erlang's external term format: a tag byte, sizes big-endian.

_SMALL_INTEGER, _INTEGER, _SMALL_BIG, _LARGE_BIG = 97, 98, 110, 111
_FLOAT, _STRING, _LIST, _BINARY = 70, 107, 108, 109
_LIST_HEADER = Struct(">BI").pack
_BINARY_HEADER = _LIST_HEADER
_STRING_HEADER = Struct(">BH").pack
_INTEGER_TERM = Struct(">Bi").pack
_FLOAT_TERM = Struct(">Bd").pack
_STRING_SIZE_MAX = 0xFFFF  # a longer list of bytes is an ordinary list

_TRUE, _FALSE, _NULL = b"d\0\4true", b"d\0\5false", b"d\0\4null"
_OBJECT = b"h\1"  # an object is {[{Key, Value}, ...]}: a tuple of one list of pairs
_PAIR, _TRIPLE = b"h\2", b"h\3"
_END_OF_LIST = _EMPTY_LIST = b"j"
_EMPTY_OBJECT = _OBJECT + _EMPTY_LIST
_HEAD = b"\x83" + _LIST_HEADER(_LIST, 5) + _FALSE
_HEAD_DELETED = b"\x83" + _LIST_HEADER(_LIST, 5) + _TRUE
_NO_PARENT = bytes([_SMALL_INTEGER, 0, _SMALL_INTEGER, 0])

_SMALL_INTEGERS = [bytes([_SMALL_INTEGER, number]) for number in range(256)]
_SMALL_OBJECT_HEADS = [_OBJECT + _LIST_HEADER(_LIST, size) for size in range(256)]
_SHORT_BINARY_HEADERS = [_BINARY_HEADER(_BINARY, size) for size in range(1024)]


class _MemberHeads(dict[str | None, bytes]):
    """What precedes the value of an object's member: the pair's tag and its key. For None (a list): nothing.

    Documents of one database share their keys, so they are encoded once. Bounded, since clients choose keys.
    """

    KEYS_MAX = 10_000
    KEY_SIZE_MAX = 100

    def __missing__(self, key: str | None) -> bytes:
        head = b"" if key is None else _PAIR + _binary(key.encode())
        if len(head) < self.KEY_SIZE_MAX and len(self) < self.KEYS_MAX:
            self[key] = head
        return head


_MEMBER_HEADS = _MemberHeads()


def _append_body(terms: list[bytes], body: Mapping[str, Any]) -> None:
    """Append the term of a JSON object. Hot: each type is told apart and written in place."""
    if not body:
        terms.append(_EMPTY_OBJECT)
        return
    append = terms.append
    heads = _MEMBER_HEADS
    append(_object_head(len(body)))
    members: Iterator[tuple[str | None, Any]] = iter(body.items())
    outer: list[Iterator[tuple[str | None, Any]]] = []
    while True:
        for key, value in members:
            append(heads[key])
            kind = type(value)
            if kind is str:
                raw = value.encode()
                size = len(raw)
                append(_SHORT_BINARY_HEADERS[size] if size < 1024 else _BINARY_HEADER(_BINARY, size))
                append(raw)
            elif kind is int:
                if 0 <= value < 256:
                    append(_SMALL_INTEGERS[value])
                elif -0x80000000 <= value <= 0x7FFFFFFF:
                    append(_INTEGER_TERM(_INTEGER, value))
                else:
                    _append_integer(terms, value)
            elif value is True:
                append(_TRUE)
            elif value is False:
                append(_FALSE)
            elif value is None:
                append(_NULL)
            elif kind is float:
                append(_FLOAT_TERM(_FLOAT, value))
            elif kind is dict:
                if value:
                    append(_object_head(len(value)))
                    outer.append(members)
                    members = iter(value.items())
                    break
                append(_EMPTY_OBJECT)
            elif not value:
                append(_EMPTY_LIST)
            elif type(value[0]) is int and _append_string(terms, value):
                continue
            else:
                append(_LIST_HEADER(_LIST, len(value)))
                outer.append(members)
                members = zip(repeat(None), value)
                break
        else:
            append(_END_OF_LIST)
            if not outer:
                return
            members = outer.pop()


def _object_head(size: int) -> bytes:
    """What precedes the members of an object that has some."""
    return _SMALL_OBJECT_HEADS[size] if size < 256 else _OBJECT + _LIST_HEADER(_LIST, size)


def _binary(raw: bytes) -> bytes:
    return _BINARY_HEADER(_BINARY, len(raw)) + raw


def _append_integer(terms: list[bytes], number: int) -> None:
    if 0 <= number < 256:
        terms.append(_SMALL_INTEGERS[number])
    elif -0x80000000 <= number <= 0x7FFFFFFF:
        terms.append(_INTEGER_TERM(_INTEGER, number))
    else:
        magnitude = abs(number)
        size = (magnitude.bit_length() + 7) // 8
        terms.append(bytes([_SMALL_BIG, size]) if size < 256 else _LIST_HEADER(_LARGE_BIG, size))
        terms.append(b"\1" if number < 0 else b"\0")
        terms.append(magnitude.to_bytes(size, "little"))


def _append_string(terms: list[bytes], values: list[Any]) -> bool:
    """Erlang takes a list of integers 0..255 for text: append it as such, or say that it is none."""
    if len(values) > _STRING_SIZE_MAX:
        return False
    try:
        raw = bytes(values)
    except (TypeError, ValueError):
        return False
    if bool in map(type, values):
        return False
    terms.append(_STRING_HEADER(_STRING, len(raw)))
    terms.append(raw)
    return True


def _parse_generation(text: str) -> int:
    """A decimal number, with a plus sign if need be, as erlang:list_to_integer/1 reads it."""
    digits = text[1:] if text[:1] == "+" else text
    if not (digits.isascii() and digits.isdigit()):
        raise BadRequest("Invalid rev format")
    try:
        return int(digits)
    except ValueError:  # more digits than Python converts
        raise BadRequest("Invalid rev format") from None
