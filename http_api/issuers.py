"""Asking an issuer of tokens for its documents: its discovery document, its keys."""

from __future__ import annotations

import aiohttp

TIMEOUT_S = 10.0
SIZE_MAX_BYTES = 1_000_000


async def fetch(url: str) -> bytes:
    """What `url` answers. Redirections are not followed: the keys come from where the configuration says.

    :raises OSError: no answer in time, or another one than 200, or a larger one than is reasonable.
    """
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers={"Accept": "application/json"}, allow_redirects=False) as response,
        ):
            if response.status != 200:
                raise OSError(f"{url} answered {response.status}")
            body = b""
            async for piece in response.content.iter_any():
                body += piece
                if len(body) > SIZE_MAX_BYTES:
                    raise OSError(f"{url} answered more than {SIZE_MAX_BYTES} bytes")
            return body
    except (aiohttp.ClientError, TimeoutError, ValueError) as error:
        raise OSError(f"{url}: {error or type(error).__name__}") from error
