"""Time-based one-time passwords (RFC 6238), the second factor a user document may ask for with its member
`totp`."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Mapping
from typing import Any

from .passwords import HASHES

STEP_S = 30


def matches(token: str, settings: Mapping[str, Any], now_s: float) -> bool:
    """Whether `token` is the code of now, or of the step before or after (clocks differ).

    `settings` are `key` (base32), and optionally `algorithm` (sha, sha256, sha512) and `length` (digits).
    """
    key, algorithm, digits = settings.get("key"), settings.get("algorithm", "sha"), settings.get("length", 6)
    if (
        not isinstance(key, str)
        or algorithm not in HASHES
        or type(digits) is not int
        or not 1 <= digits <= 10
    ):
        return False
    try:
        secret = base64.b32decode(key.upper() + "=" * (-len(key) % 8))
    except binascii.Error:
        return False
    step = int(now_s) // STEP_S
    codes = [_code(secret, HASHES[algorithm], step + offset, digits) for offset in (-1, 0, 1)]
    return any(hmac.compare_digest(code.encode(), token.encode()) for code in codes)


def _code(secret: bytes, algorithm: str, step: int, digits: int) -> str:
    digest = hmac.digest(secret, step.to_bytes(8, "big"), algorithm)
    offset = digest[-1] & 0xF
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return str(number % 10**digits).zfill(digits)
