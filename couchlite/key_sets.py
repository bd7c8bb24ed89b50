"""The public keys that issuers of tokens publish: a JSON Web Key Set (RFC 7517) at [jwt_auth] jwks_url, and
the one that [jwt_auth] oidc_issuer names in its OpenID Connect discovery document.

What must stay true here:
- Asking an issuer never holds up a request whose key is known: a set that has become old is fetched beside.
- Whoever sends tokens with invented key ids can't make a process ask more than once in `ASK_AGAIN_S`.
- An issuer that is down takes nothing away at once: its keys stay good for `KEPT_S`.
- Only public keys for signatures are taken, and each for its own kind of algorithm alone.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from . import jsontext
from .config import Config
from .errors import CouchliteError, ServiceUnavailable
from .token_keys import is_of_kind

Fetch = Callable[[str], Awaitable[bytes]]
"""The body that an address answers; raises OSError if there is none."""

FRESH_S = 600.0
"""So long a set is not asked for again, unless a key is missing."""
KEPT_S = 86_400.0
ASK_AGAIN_S = 10.0
KEYS_MAX = 200

UNREACHABLE = "the keys of the token's issuer can't be fetched at the moment"
DISCOVERY = "/.well-known/openid-configuration"
_KINDS = {"RSA": "rsa", "EC": "ec", "OKP": "eddsa"}
_PUBLIC_MEMBERS = ("kty", "crv", "x", "y", "n", "e")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class PublicKey:
    kind: str
    kid: str | None
    algorithm: str | None
    """The only one it is for, if it says so."""
    key: Any
    issuer: str | None
    """Whose tokens alone it verifies, if that is known."""


@dataclass(slots=True)
class _Set:
    """What is known of one address."""

    keys: list[PublicKey] = field(default_factory=list)
    fetched_s: float = float("-inf")
    asked_s: float = float("-inf")
    asking: asyncio.Task[None] | None = None


class KeySets:
    """Finds keys by the configuration.

    :param fetch: how an address is asked; must give up by itself after a while.
    """

    def __init__(
        self,
        config: Config,
        fetch: Fetch,
        *,
        fresh_s: float = FRESH_S,
        kept_s: float = KEPT_S,
        ask_again_s: float = ASK_AGAIN_S,
    ) -> None:
        self._config = config
        self._fetch = fetch
        self._fresh_s = fresh_s
        self._kept_s = kept_s
        self._ask_again_s = ask_again_s
        self._sets: dict[tuple[str, bool], _Set] = {}

    async def close(self) -> None:
        tasks = [known.asking for known in self._sets.values() if known.asking is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def find(self, kind: str, algorithm: str, kid: str | None) -> PublicKey | None:
        """The key for a token of that algorithm; without a key id, the only one there is for it.

        :raises ServiceUnavailable: no issuer that could know it has answered.
        """
        sources = self._sources()
        for source in sources:
            found = _choose(await self._known(source), kind, algorithm, kid)
            if found is not None:
                return found
        for source in sources:  # perhaps it is new
            found = _choose(await self._newest(source), kind, algorithm, kid)
            if found is not None:
                return found
        if any(not self._is_good(self._sets[source]) for source in sources):
            raise ServiceUnavailable(UNREACHABLE)
        return None

    def _sources(self) -> list[tuple[str, bool]]:
        """Addresses, and whether each is of an issuer (or of a key set itself)."""
        named = ((self._config.get("jwt_auth", key), key) for key in ("jwks_url", "oidc_issuer"))
        sources = [(address, key == "oidc_issuer") for address, key in named if address]
        for gone in self._sets.keys() - set(sources):
            del self._sets[gone]
        for source in sources:
            self._sets.setdefault(source, _Set())
        return sources

    async def _known(self, source: tuple[str, bool]) -> list[PublicKey]:
        known = self._sets[source]
        if not self._is_good(known):
            return await self._newest(source)
        if time.monotonic() - known.fetched_s > self._fresh_s:
            self._ask(source, known)
        return known.keys

    async def _newest(self, source: tuple[str, bool]) -> list[PublicKey]:
        known = self._sets[source]
        asking = self._ask(source, known)
        if asking is not None:
            await asyncio.shield(asking)
        return known.keys if self._is_good(known) else []

    def _is_good(self, known: _Set) -> bool:
        return time.monotonic() - known.fetched_s < self._kept_s

    def _ask(self, source: tuple[str, bool], known: _Set) -> asyncio.Task[None] | None:
        """The question that is under way, or a new one; None if it is too early for that."""
        if known.asking is None and time.monotonic() - known.asked_s >= self._ask_again_s:
            known.asked_s = time.monotonic()
            known.asking = asyncio.create_task(self._refresh(source, known))
        return known.asking

    async def _refresh(self, source: tuple[str, bool], known: _Set) -> None:
        address, is_issuer = source
        try:
            url = await self._discover(address) if is_issuer else address
            document = _object(await self._fetch(url))
            known.keys = public_keys(document, address if is_issuer else None)
            known.fetched_s = time.monotonic()
        except (OSError, ValueError, CouchliteError) as error:
            logger.warning("the keys at %s can't be had: %s", address, error)
        finally:
            known.asking = None

    async def _discover(self, issuer: str) -> str:
        document = _object(await self._fetch(issuer.rstrip("/") + DISCOVERY))
        if document.get("issuer") != issuer:
            raise ValueError(f"the issuer there is {document.get('issuer')!r}")
        url = document.get("jwks_uri")
        if not isinstance(url, str) or (issuer.startswith("https:") and not url.startswith("https:")):
            raise ValueError(f"its jwks_uri is {url!r}")
        return url


def public_keys(document: Mapping[str, Any], issuer: str | None) -> list[PublicKey]:
    """The usable keys of a key set; those of other kinds and uses are passed over.

    :raises ValueError: it is no key set.
    """
    entries = document.get("keys")
    if not isinstance(entries, list):
        raise ValueError("it is no key set")
    keys = (_public_key(entry, issuer) for entry in entries[:KEYS_MAX] if isinstance(entry, dict))
    return [key for key in keys if key is not None]


def _public_key(entry: Mapping[str, Any], issuer: str | None) -> PublicKey | None:
    from jwt import PyJWK, PyJWTError

    kid, algorithm = entry.get("kid"), entry.get("alg")
    kind = _KINDS.get(str(entry.get("kty")))
    operations = entry.get("key_ops")
    if kind is None or entry.get("use", "sig") != "sig":
        return None
    if isinstance(operations, list) and "verify" not in operations:
        return None
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        return None
    try:
        key = PyJWK({name: entry[name] for name in _PUBLIC_MEMBERS if name in entry}).key
    except (PyJWTError, ValueError) as error:
        logger.info("a published key is passed over: %s", error)
        return None
    return PublicKey(kind, kid, algorithm, key, issuer) if is_of_kind(kind, key) else None


def _choose(keys: list[PublicKey], kind: str, algorithm: str, kid: str | None) -> PublicKey | None:
    fitting = [key for key in keys if key.kind == kind and key.algorithm in (None, algorithm)]
    if kid is not None:
        return next((key for key in fitting if key.kid == kid), None)
    return fitting[0] if len(fitting) == 1 else None


def _object(body: bytes) -> dict[str, Any]:
    value = jsontext.loads(body)
    if not isinstance(value, dict):
        raise ValueError("it is no JSON object")
    return value
