"""Checksums of records: a flipped bit in one is noticed, by `check` and mostly by the next reader.

A sealed record ends with the CRC-32 of what comes before it, little-endian: then the CRC-32 of the whole is
always the same number, so that one call verifies it. `seed` may be what identifies a record and is not in it.
"""

from __future__ import annotations

from zlib import crc32

SEAL_BYTES = 4
_RESIDUE = 0x2144DF1C
"""The CRC-32 of anything that ends with its own CRC-32."""


def seal(data: bytes, seed: bytes = b"") -> bytes:
    """`data` as a sealed record."""
    return data + crc32(data, crc32(seed)).to_bytes(SEAL_BYTES, "little")


def is_whole(record: bytes, seed: bytes = b"") -> bool:
    """Whether a sealed record is what it was when it was sealed."""
    return crc32(record, crc32(seed)) == _RESIDUE
