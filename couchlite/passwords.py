"""Password hashes as CouchDB 3.5 stores them. Pure functions, and slow ones: `matches` and `derive` take a
good part of a second on purpose, so whoever has an event loop calls them off it.

Schemes: `pbkdf2` (what is made today, PBKDF2-HMAC over the salt *as text*), `simple` (one SHA-1, from CouchDB
1.0, made only if the configuration insists), `simple+pbkdf2` (the former's output hashed again by the latter:
an upgrade made without the password).
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import erlang_terms
from .config import Config
from .errors import BadRequest, Forbidden
from .regex import is_pattern, searcher

logger = logging.getLogger(__name__)

HASHES = {"sha": "sha1", "sha224": "sha224", "sha256": "sha256", "sha384": "sha384", "sha512": "sha512"}
"""CouchDB's name of a hash -> Python's."""

CANNOT_HASH = "Server cannot hash passwords at this time."
REQUIREMENT = "Password does not conform to requirements."

PASSWORD_FIELDS = frozenset(
    (
        "derived_key",
        "iterations",
        "password",
        "password_scheme",
        "password_sha",
        "preserve_salt",
        "pbkdf2_prf",
        "salt",
    )
)
"""The members of a user document that make up its password."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    scheme: str
    salt: str
    key: str
    """The hash in hexadecimal: `derived_key`, or `password_sha` of the scheme `simple`."""
    prf: str = "sha"
    iterations: int = 10_000


def derive(password: str, config: Config, *, salt: str | None = None) -> PasswordHash:
    """The hash of a new password, by the settings in chttpd_auth. Slow.

    :raises Forbidden: the settings name a scheme or hash that doesn't exist.
    """
    scheme, prf = config.text("chttpd_auth", "password_scheme"), config.text("chttpd_auth", "pbkdf2_prf")
    salt = salt or secrets.token_hex(16)
    if scheme == "simple":
        return PasswordHash("simple", salt, _simple(password, salt))
    if scheme != "pbkdf2" or prf not in HASHES:
        raise Forbidden(CANNOT_HASH)
    iterations = config.integer("chttpd_auth", "iterations")
    return PasswordHash("pbkdf2", salt, _pbkdf2(prf, password, salt, iterations), prf, iterations)


def check_strength(password: str, config: Config) -> None:
    """Hold a new password against [chttpd_auth] password_regexp: a list, in Erlang's form, of regular
    expressions, each alone or in a tuple with what to tell those whose password doesn't match.

    :raises BadRequest: it doesn't. :raises Forbidden: the setting makes no sense.
    """
    setting = config.text("chttpd_auth", "password_regexp")
    if setting in ("", "[]"):
        return
    try:
        requirements = erlang_terms.parse(setting)
    except ValueError as error:
        logger.error("[chttpd_auth] password_regexp: %s", error)
        raise Forbidden(CANNOT_HASH) from error
    for requirement in requirements if isinstance(requirements, list) else [None]:
        match requirement:
            case str(pattern) | (str(pattern),):
                told = REQUIREMENT
            case (str(pattern), reason):
                told = f"{REQUIREMENT} {reason}" if isinstance(reason, str) and reason else REQUIREMENT
            case _:
                pattern = told = ""
        if not told or not is_pattern(pattern):
            logger.error("[chttpd_auth] password_regexp: %r is no regular expression", requirement)
            raise Forbidden(CANNOT_HASH)
        if not searcher(pattern)(password):
            raise BadRequest(told)


def matches(password: str, stored: PasswordHash, config: Config) -> bool:
    """Whether `password` is the one that was hashed. Slow.

    :raises Forbidden: the stored hash is of a kind this server doesn't take.
    """
    if stored.scheme == "simple":
        return hmac.compare_digest(_simple(password, stored.salt).encode(), stored.key.encode())
    if stored.prf not in HASHES:
        raise Forbidden("PRF is invalid")
    if stored.iterations < config.integer("chttpd_auth", "min_iterations"):
        raise Forbidden("Iteration count is too low for this server")
    if stored.iterations > config.integer("chttpd_auth", "max_iterations"):
        raise Forbidden("Iteration count is too high for this server")
    hashed = _simple(password, stored.salt) if stored.scheme == "simple+pbkdf2" else password
    key = _pbkdf2(stored.prf, hashed, stored.salt, stored.iterations)
    return hmac.compare_digest(key.encode(), stored.key.encode())


def is_current(stored: PasswordHash, config: Config) -> bool:
    """Whether `derive` would make a hash of the same kind today; if not, it is worth making anew."""
    if stored.scheme == "simple":
        return config.text("chttpd_auth", "password_scheme") == "simple"
    return (stored.scheme, stored.prf, stored.iterations) == (
        config.text("chttpd_auth", "password_scheme"),
        config.text("chttpd_auth", "pbkdf2_prf"),
        config.integer("chttpd_auth", "iterations"),
    )


def to_fields(stored: PasswordHash) -> dict[str, Any]:
    """The members of a user document, in CouchDB's order (which goes into the revision id)."""
    if stored.scheme == "simple":
        return {"password_scheme": "simple", "salt": stored.salt, "password_sha": stored.key}
    return {
        "password_scheme": stored.scheme,
        "pbkdf2_prf": stored.prf,
        "salt": stored.salt,
        "iterations": stored.iterations,
        "derived_key": stored.key,
    }


def from_fields(fields: Mapping[str, Any]) -> PasswordHash | None:
    """The hash in a user document; None if there is none that a password could match."""
    scheme = fields.get("password_scheme", "simple")
    salt, key = fields.get("salt", ""), fields.get("password_sha" if scheme == "simple" else "derived_key")
    prf, iterations = fields.get("pbkdf2_prf", "sha"), fields.get("iterations", 10_000)
    texts = (scheme, salt, key, prf)
    if scheme not in ("simple", "pbkdf2", "simple+pbkdf2") or not all(
        isinstance(text, str) for text in texts
    ):
        return None
    if type(iterations) is not int:
        return None
    return PasswordHash(scheme, salt, str(key), prf, iterations)


# Server administrators: the same as one line of configuration

_ADMIN_PBKDF2 = re.compile(
    r"-pbkdf2(?::(?P<prf>sha(?:224|256|384|512)?))?-(?P<key>[^,]+),(?P<salt>[^,]+),(?P<n>\d+)"
)
_ADMIN_SIMPLE = re.compile(r"-hashed-(?P<key>[^,]+),(?P<salt>[^,]+)")


def to_admin_value(stored: PasswordHash) -> str:
    """The text in the section [admins]: `-pbkdf2:PRF-KEY,SALT,ITERATIONS`, or `-hashed-KEY,SALT`."""
    if stored.scheme == "simple":
        return f"-hashed-{stored.key},{stored.salt}"
    return f"-pbkdf2:{stored.prf}-{stored.key},{stored.salt},{stored.iterations}"


def from_admin_value(value: str) -> PasswordHash | None:
    """The hash in a value of the section [admins]; None if the value is a password not yet hashed."""
    if match := _ADMIN_PBKDF2.fullmatch(value):
        return PasswordHash("pbkdf2", match["salt"], match["key"], match["prf"] or "sha", int(match["n"]))
    if match := _ADMIN_SIMPLE.fullmatch(value):
        return PasswordHash("simple", match["salt"], match["key"])
    return None


def _pbkdf2(prf: str, password: str, salt: str, iterations: int) -> str:
    return hashlib.pbkdf2_hmac(HASHES[prf], password.encode(), salt.encode(), max(iterations, 1)).hex()


def _simple(password: str, salt: str) -> str:
    return hashlib.sha1(password.encode() + salt.encode()).hexdigest()
