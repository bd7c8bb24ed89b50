"""JSON Web Tokens as credentials: who a token is about, and until when, if it is good.

What is checked, in which order and with which words is CouchDB 3.5's (its jwtf). Keys stand in the section
[jwt_keys], named by kind and key id: `hmac:KID` in base64; `rsa:KID`, `ec:KID` and, which CouchDB has not,
`eddsa:KID` in PEM, with `\\n` for its line breaks. A token that names no key means `_default`. What isn't
there is looked for in the key sets of an issuer (key_sets.py).

What must stay true here:
- The algorithm decides the kind of key, before any key is looked at: a public key is never a secret for HMAC.
- Nothing of a token is believed before its signature is verified, but what decides how to verify it.
- The cryptographic library is loaded when the first token comes: most servers never see one.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import jsontext
from .config import Config
from .errors import BadRequest, Misconfigured, NotFound, Unauthorized
from .key_sets import KeySets
from .security import Principal
from .token_keys import KINDS, public_key, secret

CHECKS = frozenset(("alg", "exp", "iat", "iss", "kid", "nbf", "sig", "typ"))
"""What [jwt_auth] required_claims may name."""
TYPES = (None, "JWT", "at+jwt")
"""What a header may say the token is, where nothing particular is required."""
DEFAULT_KID = "_default"

MALFORMED = "Malformed token"
NOT_CONFIGURED = "JWT is not configured correctly"
_CLAIMS = re.compile(r'([a-z]+)|\{([a-z]+) *, *"([^"]+)"\}')
_PATH_DOT = re.compile(r"(?<!\\)\.")
_ROLE_SEPARATOR = re.compile(r"\s*,\s*")


@dataclass(frozen=True, slots=True)
class Token:
    """The parts of a token, nothing of it verified."""

    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes

    @property
    def algorithm(self) -> str:
        return str(self.header["alg"])

    @property
    def key_id(self) -> str | None:
        kid = self.header.get("kid")
        if kid is not None and not isinstance(kid, str):
            raise BadRequest("Unknown kid")
        return kid


class Tokens:
    """Verifies tokens by the configuration.

    :param key_sets: keys that issuers publish.
    """

    def __init__(self, config: Config, key_sets: KeySets) -> None:
        self._config = config
        self._key_sets = key_sets
        self._parsed: dict[str, tuple[str, Any]] = {}

    async def authenticate(self, text: str) -> tuple[Principal, float]:
        """Whom a token is about, and the time at which it stops to be good.

        :raises BadRequest, Unauthorized, NotFound: it is not good.
        :raises Misconfigured: the server can't know. :raises ServiceUnavailable: or can't at the moment.
        """
        checks = required_claims(self._config)
        token = parse(text, checks)
        check_claims(token.claims, checks, time.time())
        key, issuer = await self._key(token, "kid" in checks)
        _verify(token, key)
        self._check_issued_for_us(token.claims, issuer)
        roles = self._roles(token.claims)
        if "sub" not in token.claims:
            raise Unauthorized("Token missing sub claim.")
        name = token.claims["sub"]
        if not isinstance(name, str):
            raise BadRequest(MALFORMED)
        expires = token.claims.get("exp")
        return Principal(name, roles), float(expires) if isinstance(expires, int | float) else math.inf

    # Keys

    async def _key(self, token: Token, must_be_named: bool) -> tuple[Any, str | None]:
        """A key of the kind that the token's algorithm wants, and who it is of if it came from an issuer."""
        kid = token.key_id
        if kid is None and must_be_named:
            raise BadRequest("Missing kid claim")
        kind = KINDS[token.algorithm]
        name = f"{kind}:{kid or DEFAULT_KID}"
        encoded = self._config.get("jwt_keys", name)
        if encoded is not None:
            return self._parse_key(name, kind, encoded), None
        if kind != "hmac":  # what is published can't be a secret
            found = await self._key_sets.find(kind, token.algorithm, kid)
            if found is not None:
                return found.key, found.issuer
        raise BadRequest("Unknown kid")

    def _parse_key(self, name: str, kind: str, encoded: str) -> Any:
        known = self._parsed.get(name)
        if known is not None and known[0] == encoded:
            return known[1]
        key = secret(encoded) if kind == "hmac" else public_key(kind, encoded)
        self._parsed[name] = encoded, key
        return key

    # Claims that need the configuration

    def _check_issued_for_us(self, claims: Mapping[str, Any], issuer: str | None) -> None:
        if issuer is not None and claims.get("iss") != issuer:
            raise BadRequest("Invalid iss claim")
        expected = self._config.get("jwt_auth", "audience")
        if not expected:
            return
        audience = claims.get("aud")
        if audience is None:
            raise BadRequest("Missing aud claim")
        if expected != audience and not (isinstance(audience, list) and expected in audience):
            raise BadRequest("Invalid aud claim")

    def _roles(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        path = self._config.get("jwt_auth", "roles_claim_path")
        if path is None:
            name = self._config.text("jwt_auth", "roles_claim_name")
            roles = claims.get(name, [])
        else:
            roles = _nested(claims, [part.replace("\\.", ".") for part in _PATH_DOT.split(path)])
        if isinstance(roles, str):
            return split_roles(roles)
        if not isinstance(roles, list) or not all(isinstance(role, str) for role in roles):
            raise BadRequest(MALFORMED)
        return tuple(roles)


def split_roles(text: str) -> tuple[str, ...]:
    """Roles in one text, separated by commas; empty ones at the end don't count."""
    roles = _ROLE_SEPARATOR.split(text)
    while roles and not roles[-1]:
        roles.pop()
    return tuple(roles)


def required_claims(config: Config) -> dict[str, str | None]:
    """What [jwt_auth] required_claims asks for, as in `exp, {iss, "someone"}`: the claims, with their values
    where they must have one.

    :raises Misconfigured: it names none, or one that can't be checked.
    """
    text = config.text("jwt_auth", "required_claims")
    found: dict[str, str | None] = {}
    for match in _CLAIMS.finditer(text):
        plain, name, value = match.groups()
        if (plain or name) not in CHECKS or (value is not None and name != "iss"):
            raise Misconfigured(NOT_CONFIGURED)
        found.setdefault(plain or name, value)
    if text and not found:
        raise Misconfigured(NOT_CONFIGURED)
    return found


def parse(text: str, checks: Mapping[str, str | None]) -> Token:
    """The parts of a token that says it is one, by an algorithm that is known.

    :raises BadRequest:
    """
    parts = text.encode("utf-8", "replace").split(b".")
    if len(parts) != 3:
        raise BadRequest(MALFORMED)
    header = _json_object(parts[0])
    kind = header.get("typ")
    if kind is None and "typ" in checks:
        raise BadRequest("Missing typ header parameter")
    if kind not in (("JWT",) if "typ" in checks else TYPES):
        raise BadRequest("Invalid typ header parameter")
    if header.get("alg") is None:
        raise BadRequest("Missing alg header parameter")
    if not isinstance(header["alg"], str) or header["alg"] not in KINDS:
        raise BadRequest("Invalid alg header parameter")
    try:
        signature = _decoded(parts[2])
    except binascii.Error:
        signature = b""  # which no key verifies
    return Token(header, _json_object(parts[1]), parts[0] + b"." + parts[1], signature)


def check_claims(claims: Mapping[str, Any], checks: Mapping[str, str | None], now_s: float) -> None:
    """:raises BadRequest: a claim is missing or wrong. :raises Unauthorized: the token is not good now."""
    for name in ("iss", "iat", "nbf", "exp"):
        if name not in checks:
            continue
        value = claims.get(name)
        if value is None:
            raise BadRequest(f"Missing {name} claim")
        if value != checks[name] if name == "iss" else not _is_number(value):
            raise BadRequest(f"Invalid {name} claim")
        if name == "nbf" and not value < int(now_s):
            raise Unauthorized("nbf not in past")
        if name == "exp" and not value > int(now_s):
            raise Unauthorized("exp not in future")


def _verify(token: Token, key: Any) -> None:
    """:raises BadRequest: the signature was not made by the owner of `key`."""
    from jwt import InvalidKeyError
    from jwt.algorithms import get_default_algorithms

    algorithm = get_default_algorithms()[token.algorithm]
    is_secret = KINDS[token.algorithm] == "hmac"
    try:
        if not is_secret:
            key = algorithm.prepare_key(key)  # for ES*: is it on the curve of the algorithm?
        is_good = algorithm.verify(token.signed, key, token.signature)
    except InvalidKeyError:
        is_good = False
    if not is_good:
        raise BadRequest("Bad HMAC" if is_secret else "Bad signature")


def _nested(claims: object, path: list[str]) -> Any:
    for name in path:
        if not isinstance(claims, dict):
            raise NotFound("json_mismatch")
        if name not in claims:
            raise NotFound(f"missing json key: {name}")
        claims = claims[name]
    return claims


def _json_object(part: bytes) -> dict[str, Any]:
    try:
        value = jsontext.loads(_decoded(part))
    except (binascii.Error, BadRequest) as error:
        raise BadRequest(MALFORMED) from error
    if not isinstance(value, dict):
        raise BadRequest("Not an object")
    return value


def _decoded(part: bytes) -> bytes:
    return base64.b64decode(part + b"=" * (-len(part) % 4), altchars=b"-_", validate=True)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
