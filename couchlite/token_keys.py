"""The keys of tokens: which kind an algorithm wants, and how the configuration writes them.

The cryptographic library is loaded when the first key is read: most servers never see a token.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from .errors import BadRequest

KINDS = {
    **dict.fromkeys(("HS256", "HS384", "HS512"), "hmac"),
    **dict.fromkeys(("RS256", "RS384", "RS512"), "rsa"),
    **dict.fromkeys(("ES256", "ES384", "ES512"), "ec"),
    "EdDSA": "eddsa",
}
"""Algorithm of a token -> kind of its key."""
NOT_A_KEY = {
    "rsa": "not an RSA public key",
    "ec": "not an EC public key",
    "eddsa": "not an EdDSA public key",
}


def secret(encoded: str) -> bytes:
    """:raises BadRequest: it is no base64."""
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadRequest("Not a valid key") from error


def public_key(kind: str, encoded: str) -> Any:
    """:param encoded: PEM, whose line breaks may be written as `\\n`.

    :raises BadRequest: it is no public key, or none of that kind.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(encoded.replace("\\n", "\n").encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise BadRequest("Not a valid key") from error
    if not is_of_kind(kind, key):
        raise BadRequest(NOT_A_KEY[kind])
    return key


def is_of_kind(kind: str, key: Any) -> bool:
    """Whether a public key is one for the algorithms of `kind`."""
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed448 import Ed448PublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    classes = {
        "rsa": (RSAPublicKey,),
        "ec": (EllipticCurvePublicKey,),
        "eddsa": (Ed25519PublicKey, Ed448PublicKey),
    }
    return isinstance(key, classes[kind])
