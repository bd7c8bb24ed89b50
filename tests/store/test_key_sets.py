"""Keys that issuers publish: what is taken of a key set, when it is asked for again, what a failure means."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from couchlite.catalog import Catalog
from couchlite.config import Config
from couchlite.errors import BadRequest, ServiceUnavailable
from couchlite.key_sets import KeySets, public_keys
from couchlite.tokens import Tokens
from tests.issuer import ED25519, OTHER_RSA, P256, P521, RSA, SECRET, claims, published, token

ISSUER = "https://id.example.com/realm"


class Published:
    """What is to be had at which address; counts how often it is asked for. Silent while `is_down`."""

    def __init__(self, **documents: Any) -> None:
        self.documents: dict[str, Any] = documents
        self.asked: list[str] = []
        self.is_down = False
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        await self.may_answer.wait()
        if self.is_down or url not in self.documents:
            raise OSError("no answer")
        return json.dumps(self.documents[url]).encode()


URL = "https://id.example.com/keys"


@pytest.fixture
def config(tmp_path: Path) -> Iterator[Config]:
    catalog = Catalog(tmp_path / "data")
    config = Config(catalog.settings)
    config.set("jwt_auth", "jwks_url", URL)
    yield config
    catalog.close()


@asynccontextmanager
async def key_sets(config: Config, web: Published, **times: float) -> AsyncIterator[KeySets]:
    sets = KeySets(config, web.fetch, **times)
    yield sets
    await sets.close()


def key_set(*keys: dict[str, Any]) -> dict[str, Any]:
    return {"keys": list(keys)}


@pytest.mark.parametrize(
    ("entry", "is_taken"),
    [
        pytest.param(published(RSA, "RS256", "k"), True, id="RSA"),
        pytest.param(published(RSA, "RS256", "k", use="sig", alg="RS512"), True, id="with use and algorithm"),
        pytest.param(published(RSA, "RS256"), True, id="without a name"),
        pytest.param(published(P256, "ES256", "k"), True, id="P-256"),
        pytest.param(published(P521, "ES512", "k"), True, id="P-521"),
        pytest.param(published(ED25519, "EdDSA", "k"), True, id="Ed25519"),
        pytest.param(published(RSA, "RS256", "k", use="enc"), False, id="for encryption"),
        pytest.param(published(RSA, "RS256", "k", key_ops=["sign"]), False, id="not for verification"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "kid": "k"}, False, id="a secret"),
        pytest.param({"kty": "RSA", "n": "!", "e": "AQAB", "kid": "k"}, False, id="no number"),
        pytest.param({"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"}, False, id="no point"),
        pytest.param({"kty": "RSA", "kid": 5}, False, id="a number as name"),
        pytest.param({}, False, id="nothing"),
        pytest.param(5, False, id="no object"),
    ],
)
def test_which_keys_are_taken(entry: Any, is_taken: bool) -> None:
    assert bool(public_keys({"keys": [entry]}, None)) == is_taken


async def test_a_set_is_asked_for_once_by_many(config: Config) -> None:
    web = Published(**{URL: key_set(published(RSA, "RS256", "a"))})
    async with key_sets(config, web) as sets:
        found = await asyncio.gather(*(sets.find("rsa", "RS256", "a") for _ in range(20)))
        assert all(key is not None and key.kid == "a" for key in found)
        assert await sets.find("rsa", "RS512", "a") is not None
        assert web.asked == [URL]


async def test_an_unknown_name_makes_it_look_again_but_not_for_each(config: Config) -> None:
    web = Published(**{URL: key_set(published(RSA, "RS256", "old"))})
    async with key_sets(config, web, ask_again_s=0) as sets:
        assert await sets.find("rsa", "RS256", "old") is not None
        web.documents[URL] = key_set(published(OTHER_RSA, "RS256", "new"))
        assert await sets.find("rsa", "RS256", "new") is not None, "keys have been rotated"
        assert await sets.find("rsa", "RS256", "old") is None
    web.asked.clear()
    async with key_sets(config, web, ask_again_s=1_000) as sets:
        for number in range(50):
            assert await sets.find("rsa", "RS256", f"invented {number}") is None
        assert web.asked == [URL]


async def test_an_old_set_is_used_while_another_is_fetched(config: Config) -> None:
    web = Published(**{URL: key_set(published(RSA, "RS256", "a"))})
    async with key_sets(config, web, fresh_s=0, ask_again_s=0) as sets:
        await sets.find("rsa", "RS256", "a")
        web.may_answer.clear()
        assert await sets.find("rsa", "RS256", "a") is not None, "nobody waits for an issuer that is slow"
        await _until(lambda: len(web.asked) == 2)
        web.may_answer.set()


async def test_an_issuer_that_is_down(config: Config) -> None:
    web = Published(**{URL: key_set(published(RSA, "RS256", "a"))})
    web.is_down = True
    async with key_sets(config, web, fresh_s=0, ask_again_s=0) as sets:
        with pytest.raises(ServiceUnavailable):
            await sets.find("rsa", "RS256", "a")
        web.is_down = False
        assert await sets.find("rsa", "RS256", "a") is not None
        web.is_down = True
        for _ in range(3):
            assert await sets.find("rsa", "RS256", "a") is not None, "what is known stays"
            await asyncio.sleep(0)
        assert await sets.find("rsa", "RS256", "b") is None
    web.is_down = False
    async with key_sets(config, web, kept_s=0, ask_again_s=1_000) as sets:
        with pytest.raises(ServiceUnavailable):
            await sets.find("rsa", "RS256", "a")


@pytest.mark.parametrize("document", [{}, [], {"keys": 5}, "text", None])
async def test_what_is_no_key_set(config: Config, document: Any) -> None:
    async with key_sets(config, Published(**{URL: document})) as sets:
        with pytest.raises(ServiceUnavailable):
            await sets.find("rsa", "RS256", "a")


async def test_no_kind_of_key_serves_another_algorithm(config: Config) -> None:
    keys = key_set(
        published(RSA, "RS256", "r", alg="RS256"),
        published(P256, "ES256", "e"),
        {"kty": "oct", "k": "c2VjcmV0", "kid": "o"},
    )
    async with key_sets(config, Published(**{URL: keys})) as sets:
        for kind, algorithm, kid, is_found in (
            ("rsa", "RS256", "r", True),
            ("rsa", "RS512", "r", False),
            ("ec", "ES256", "r", False),
            ("rsa", "RS256", "e", False),
            ("hmac", "HS256", "o", False),
            ("rsa", "RS256", None, True),
        ):
            assert (await sets.find(kind, algorithm, kid) is not None) == is_found, (algorithm, kid)


async def test_a_published_key_is_no_secret(config: Config) -> None:
    """The classical confusion: a token signed by HMAC with the text of a public key."""
    web = Published(**{URL: key_set(published(RSA, "RS256", "k"))})
    async with key_sets(config, web) as sets:
        tokens = Tokens(config, sets)
        principal, _ = await tokens.authenticate(token(algorithm="RS256", key=RSA, kid="k"))
        assert principal.name == "bob"
        with pytest.raises(BadRequest, match="Unknown kid"):
            await tokens.authenticate(token(key=SECRET, kid="k"))
        with pytest.raises(BadRequest, match="Bad signature"):
            await tokens.authenticate(token(algorithm="RS256", key=OTHER_RSA, kid="k"))


async def test_an_issuer_found_by_discovery_speaks_for_itself_only(config: Config) -> None:
    config.delete("jwt_auth", "jwks_url")
    config.set("jwt_auth", "oidc_issuer", ISSUER)
    document = {"issuer": ISSUER, "jwks_uri": URL}
    web = Published(**{ISSUER + "/.well-known/openid-configuration": document, URL: key_set()})
    web.documents[URL] = key_set(published(P256, "ES256", "k"))
    async with key_sets(config, web) as sets:
        tokens = Tokens(config, sets)
        good = token(claims(iss=ISSUER), "ES256", P256, kid="k")
        assert (await tokens.authenticate(good))[0].name == "bob"
        for other in (claims(), claims(iss="https://other.example.com")):
            with pytest.raises(BadRequest, match="Invalid iss claim"):
                await tokens.authenticate(token(other, "ES256", P256, kid="k"))


@pytest.mark.parametrize(
    "document",
    [
        pytest.param({"issuer": "https://evil.example.com", "jwks_uri": URL}, id="another issuer"),
        pytest.param({"issuer": ISSUER}, id="no keys"),
        pytest.param({"issuer": ISSUER, "jwks_uri": "http://id.example.com/keys"}, id="keys without TLS"),
        pytest.param({"issuer": ISSUER, "jwks_uri": 5}, id="no address"),
    ],
)
async def test_a_discovery_that_is_not_believed(config: Config, document: dict[str, Any]) -> None:
    config.delete("jwt_auth", "jwks_url")
    config.set("jwt_auth", "oidc_issuer", ISSUER)
    web = Published(**{ISSUER + "/.well-known/openid-configuration": document})
    web.documents |= {
        url: key_set(published(RSA, "RS256", "k")) for url in (URL, URL.replace("https", "http"))
    }
    async with key_sets(config, web) as sets:
        with pytest.raises(ServiceUnavailable):
            await sets.find("rsa", "RS256", "k")


async def test_another_address_is_another_set(config: Config) -> None:
    web = Published(**{URL: key_set(published(RSA, "RS256", "k"))})
    async with key_sets(config, web) as sets:
        assert await sets.find("rsa", "RS256", "k") is not None
        config.delete("jwt_auth", "jwks_url")
        assert await sets.find("rsa", "RS256", "k") is None


async def _until(
    holds: Callable[[], bool], pause: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> None:
    while not holds():
        await pause(0.01)
