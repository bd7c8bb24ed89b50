"""The value of an AuthSession cookie, as CouchDB makes it: base64url of `name:time:signature`.

The time is when it was issued, in seconds and hexadecimal; the signature is an HMAC of the rest, whose key
the caller makes of the server's secret and the user's salt. So a session needs no storage, works on every
process, and dies with the password it was begun with.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass

from .config import Config
from .errors import BadRequest

MALFORMED = "Malformed AuthSession cookie. Please clear your cookies."
_HEXADECIMAL = re.compile(rb"[0-9A-Fa-f]{1,12}")


@dataclass(frozen=True, slots=True)
class SessionCookie:
    name: str
    issued_s: int | None
    """None where the time is no number: a cookie that was never ours."""
    signed: bytes
    signature: bytes

    def is_signed(self, key: bytes, algorithms: Sequence[str]) -> bool:
        """Whether the signature was made with `key` and one of `algorithms`."""
        return any(
            hmac.compare_digest(hmac.digest(key, self.signed, name), self.signature) for name in algorithms
        )


def seal(name: str, key: bytes, algorithm: str, issued_s: int) -> str:
    signed = f"{name}:{issued_s:X}".encode()
    sealed = signed + b":" + hmac.digest(key, signed, algorithm)
    return base64.urlsafe_b64encode(sealed).rstrip(b"=").decode()


def unseal(value: str) -> SessionCookie:
    """The parts of a cookie's value, nothing verified.

    :raises BadRequest: it has no such parts.
    """
    try:
        data = base64.b64decode(value + "=" * (-len(value) % 4), altchars="-_", validate=True)
        name, issued, signature = data.split(b":", 2)
        issued_s = int(issued, 16) if _HEXADECIMAL.fullmatch(issued) else None
        return SessionCookie(name.decode(), issued_s, name + b":" + issued, signature)
    except (binascii.Error, ValueError) as error:
        raise BadRequest(MALFORMED) from error


def algorithms(config: Config) -> list[str]:
    """Python's names of the hashes in chttpd_auth/hash_algorithms; the first one signs, all verify."""
    named = ("sha1" if word == "sha" else word for word in config.words("chttpd_auth", "hash_algorithms"))
    return [name for name in named if name in hashlib.algorithms_available] or ["sha256"]
