"""Whether the pages of an LMDB file are all there.

LMDB maps its file and trusts it: when the file was cut short, the first look at a missing page kills the
process. A file shorter than LMDB's count of its pages may be sound, though: pages at the end that a
transaction took and gave back are never written. Such a file is rare, so only then are all pages in use
walked, by reads that can't kill.

The layout is that of LMDB 0.9 (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta) on a 64-bit machine.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from pathlib import Path

META = struct.Struct("@IIQQ")
DB = struct.Struct("@IHH5Q")
META_END = struct.Struct("@QQ")
PAGE = struct.Struct("@QHHHH")
NODE = struct.Struct("@HHHH")
PAGE_NUMBER = struct.Struct("@Q")
MAGIC = 0xBEEFC0DE
NO_PAGE = 2**64 - 1
META_SIZE = PAGE.size + META.size + 2 * DB.size + META_END.size
IS_BRANCH, IS_LEAF, IS_OVERFLOW = 1, 2, 4
HAS_BIG_DATA, HAS_SUB_DATA = 1, 2

WALKS_MAX = 5
"""A walk is begun again when others have written meanwhile."""


def is_truncated(path: Path) -> bool:
    """Whether something that is in use lies beyond the end of the file; also of a file without a beginning.

    False for what is no LMDB file at all: opening it says so better.
    """
    file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        for _ in range(WALKS_MAX):
            meta = _newest_meta(file)
            if meta is None:
                return os.fstat(file).st_size < META_SIZE
            if os.fstat(file).st_size >= (meta.last_page + 1) * meta.page_size:
                return False
            missing = not all(_is_whole(file, meta.page_size, root) for root in meta.roots)
            after = _newest_meta(file)
            if after is not None and after.transaction == meta.transaction:
                return missing
        return False
    finally:
        os.close(file)


@dataclass(frozen=True, slots=True)
class _Meta:
    page_size: int
    roots: tuple[int, int]
    last_page: int
    transaction: int


def _newest_meta(file: int) -> _Meta | None:
    """The root page that counts, of the two; None when there is none."""
    first = _read_meta(file, 0)
    if first is None:
        return None
    second = _read_meta(file, first.page_size)
    return second if second is not None and second.transaction > first.transaction else first


def _read_meta(file: int, offset: int) -> _Meta | None:
    data = os.pread(file, META_SIZE, offset)
    if len(data) < META_SIZE or META.unpack_from(data, PAGE.size)[0] != MAGIC:
        return None
    at = PAGE.size + META.size
    free, main = DB.unpack_from(data, at), DB.unpack_from(data, at + DB.size)
    last_page, transaction = META_END.unpack_from(data, at + 2 * DB.size)
    return _Meta(free[0], (free[-1], main[-1]), last_page, transaction)


def _is_whole(file: int, page_size: int, root: int) -> bool:
    """Whether the tree below a page, with the trees and the long values in it, is there."""
    pending = [root]
    while pending:
        number = pending.pop()
        if number == NO_PAGE:
            continue
        data = os.pread(file, page_size, number * page_size)
        if len(data) < page_size:
            return False
        own_number, _, flags, lower, upper = PAGE.unpack_from(data)
        if own_number != number or not flags & (IS_BRANCH | IS_LEAF | IS_OVERFLOW):
            return False
        if flags & IS_OVERFLOW:
            pages = lower | upper << 16
            if os.fstat(file).st_size < (number + pages) * page_size:
                return False
            continue
        for at in range(PAGE.size, lower, 2):
            pending += _below(data, int.from_bytes(data[at : at + 2], "little"), bool(flags & IS_BRANCH))
    return True


def _below(page: bytes, at: int, is_branch: bool) -> list[int]:
    """The pages that a node refers to."""
    low, high, flags, key_size = NODE.unpack_from(page, at)
    if is_branch:
        return [low | high << 16 | flags << 32]
    value = at + NODE.size + key_size
    if flags & HAS_BIG_DATA:
        return [PAGE_NUMBER.unpack_from(page, value)[0]]
    if flags & HAS_SUB_DATA:
        return [DB.unpack_from(page, value)[-1]]
    return []
