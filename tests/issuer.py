"""One who issues JSON Web Tokens: keys of each kind, tokens signed with them, and what is published."""

from __future__ import annotations

import base64
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

SECRET = b"a secret of more than thirty-two bytes, and of more than sixty-four too"
RSA = rsa.generate_private_key(65537, 2048)
OTHER_RSA = rsa.generate_private_key(65537, 2048)
P256 = ec.generate_private_key(ec.SECP256R1())
P384 = ec.generate_private_key(ec.SECP384R1())
P521 = ec.generate_private_key(ec.SECP521R1())
ED25519 = ed25519.Ed25519PrivateKey.generate()


def pem(private: Any) -> str:
    """The public key as it stands in the configuration."""
    encoded: bytes = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return encoded.decode().replace("\n", "\\n")


def claims(**more: Any) -> dict[str, Any]:
    return {"sub": "bob", "exp": int(time.time()) + 600, **more}


def token(
    given: dict[str, Any] | None = None, algorithm: str = "HS256", key: Any = SECRET, **header: Any
) -> str:
    return jwt.encode(claims() if given is None else given, key, algorithm=algorithm, headers=header)


def raw_token(header: object, payload: object, signature: bytes = b"x") -> str:
    """A token of anything."""
    parts = (json.dumps(header).encode(), json.dumps(payload).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def published(private: Any, algorithm: str, kid: str | None = None, **more: Any) -> dict[str, Any]:
    """A member of a key set."""
    encoded = json.loads(get_default_algorithms()[algorithm].to_jwk(private.public_key()))
    encoded.pop("key_ops", None)
    return {**encoded, **({} if kid is None else {"kid": kid}), **more}
