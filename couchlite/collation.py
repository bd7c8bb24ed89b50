"""CouchDB's order of JSON values, as a comparison and as bytes. Only this file knows ICU.

    null < false < true < numbers < strings < arrays < objects

Numbers are ordered by value, exactly, whatever their size (so 1 equals 1.0). Strings are ordered by ICU's
root collation, in which strings that differ only in how an accent is spelled, or in control characters, are
equal. Arrays are ordered by their first difference, the shorter one first. Objects are like arrays of members
in the order they were written, a member being its name and then its value.

Laws of this file:

1. `sort_key(a) < sort_key(b)` when `compare(a, b) < 0`; they are equal when it is 0. No key is the beginning
   of another one, so a key may be followed by more bytes.
2. The bytes of strings depend on ICU's version: whatever stores them must be rebuilt when that changes.
3. Nothing here recurses, so no nesting, however deep, ends in a RecursionError.

The order is that of couch_ejson_compare.c.
"""

from __future__ import annotations

import math
import struct
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any


def compare(left: Any, right: Any) -> int:
    """Negative, zero or positive as `left` sorts before, equal to or after `right`."""
    rank, other_rank = _RANK[type(left)], _RANK[type(right)]
    if rank != other_rank:
        return rank - other_rank
    if rank < _ARRAY:
        return _compare_tokens(left, right, rank)
    for one, other in zip(tokens(left), tokens(right), strict=False):
        rank, other_rank = _RANK[type(one)], _RANK[type(other)]
        order = _compare_tokens(one, other, rank) if rank == other_rank else rank - other_rank
        if order:
            return order
    return 0


def compare_strings(left: str, right: str) -> int:
    """As `compare`, of two strings."""
    order: int = 0 if left == right else _collator().compare(left, right)
    return order


def sort_key(value: Any) -> bytes:
    """Bytes in the order of the values. A type that JSON doesn't have is a KeyError."""
    rank = _RANK[type(value)]
    if rank < _ARRAY:
        return _TOKEN_KEY[rank](value)
    return b"".join([_TOKEN_KEY[_RANK[type(token)]](token) for token in tokens(value)])


def raw_sort_key(value: Any) -> bytes:
    """As `sort_key`, in the order that a view has with `"collation": "raw"`, which is Erlang's of terms:

    numbers < false < null < true < objects < arrays < strings, which are ordered by their bytes in UTF-8
    """
    return b"".join([_RAW_TOKEN_KEY[_RANK[type(token)]](token) for token in tokens(value)])


SortKey = Callable[[Any], bytes]


class ArrayMark:
    """Where an array begins."""


class ObjectMark:
    """Where an object begins."""


class EndMark:
    """Where the one opened last ends."""


_ARRAY_MARK, _OBJECT_MARK, _END_MARK = ArrayMark(), ObjectMark(), EndMark()


def tokens(value: Any) -> Iterator[Any]:
    """A value taken apart into what decides comparisons, in that order: a scalar alone; of a container a
    mark, its parts (of an object, names and members in turn), and a mark that sorts before whatever else
    could stand in its place. No two values begin with all the tokens of one of them."""
    pending = [value]
    while pending:
        item = pending.pop()
        kind = type(item)
        if kind is list:
            yield _ARRAY_MARK
            pending.append(_END_MARK)
            pending.extend(reversed(item))
        elif kind is dict:
            yield _OBJECT_MARK
            pending.append(_END_MARK)
            for name, member in reversed(item.items()):
                pending.append(member)
                pending.append(name)
        else:
            yield item


_ICU_RUNTIME = (9 << 4) + 9
"""The versions of ICU's collation data builder and of its reader, which have not changed since 2014."""

# A rank is also the first byte of a key. The end of a container sorts before whatever else could stand there.
_END, _NULL, _BOOLEAN, _NUMBER, _STRING, _ARRAY, _OBJECT = range(7)
_RANK: dict[type, int] = {
    EndMark: _END,
    type(None): _NULL,
    bool: _BOOLEAN,
    int: _NUMBER,
    float: _NUMBER,
    str: _STRING,
    list: _ARRAY,
    ArrayMark: _ARRAY,
    dict: _OBJECT,
    ObjectMark: _OBJECT,
}


def _compare_tokens(left: Any, right: Any, rank: int) -> int:
    if rank == _STRING:
        return compare_strings(left, right)
    if rank in (_NUMBER, _BOOLEAN):
        return int(left > right) - int(left < right)
    return 0


def version() -> str:
    """ICU's name for its order of strings (ucol_getVersion); what stores sort keys must be rebuilt when it
    changes."""
    import icu

    major, minor = icu.UNICODE_VERSION.split(".")[:2]
    return f"{_ICU_RUNTIME}.{(int(major) << 3) + int(minor)}"


@cache
def _collator() -> Any:
    """ICU's root collator; loaded with the first string, since the library costs a process some 10 MB."""
    import icu

    return icu.Collator.createInstance(icu.Locale.getRoot())


def _string_key(text: str) -> bytes:
    """ICU's bytes hold no zero but the one that ends them, whatever is in the text."""
    key: bytes = _collator().getSortKey(text)
    return b"\x04" + key


def _number_key(number: int | float) -> bytes:
    """The greatest double that is not above the number, in bytes that sort, and what the number is above it.

    Doubles, and most integers, need nothing more. Other integers lie between two doubles, or beyond them all.
    """
    rest = 0
    if type(number) is int:
        try:
            double = float(number)
        except OverflowError:
            double = sys.float_info.max if number > 0 else -math.inf
        if double != number:
            if double > number:
                double = math.nextafter(double, -math.inf)
            rest = number - (int(double) if double != -math.inf else 0)
    else:
        double = number
    bits = struct.pack(">d", double + 0.0)  # -0.0 + 0.0 is 0.0
    bits = _complement(bits) if bits[0] & 0x80 else bytes((bits[0] | 0x80,)) + bits[1:]
    return b"\x03" + bits + (_rest_key(rest) if rest else b"\x01")


def _rest_key(rest: int) -> bytes:
    """An integer by its length and its bytes; below zero (for what lies below all doubles) turned over."""
    size = (abs(rest).bit_length() + 7) // 8
    key = b"\x02" + size.to_bytes(4, "big") + abs(rest).to_bytes(size, "big")
    return key if rest > 0 else _complement(key)


def _complement(data: bytes) -> bytes:
    return data.translate(_COMPLEMENT)


_COMPLEMENT = bytes(range(255, -1, -1))

_TOKEN_KEY: dict[int, Callable[[Any], bytes]] = {
    _END: lambda _mark: b"\x00",
    _NULL: lambda _null: b"\x01",
    _BOOLEAN: lambda boolean: b"\x02\x01" if boolean else b"\x02\x00",
    _NUMBER: _number_key,
    _STRING: _string_key,
    _ARRAY: lambda _mark: b"\x05",
    _OBJECT: lambda _mark: b"\x06",
}

_RAW_TOKEN_KEY: dict[int, Callable[[Any], bytes]] = {
    _END: lambda _mark: b"\x00",
    _NUMBER: lambda number: b"\x01" + _number_key(number)[1:],
    _BOOLEAN: lambda boolean: b"\x04" if boolean else b"\x02",
    _NULL: lambda _null: b"\x03",
    _OBJECT: lambda _mark: b"\x05",
    _ARRAY: lambda _mark: b"\x06",
    # So that none is the beginning of another one, and still before those that it is the beginning of.
    _STRING: lambda text: b"\x07" + text.encode().replace(b"\x00", b"\x00\xff") + b"\x00\x01",
}
