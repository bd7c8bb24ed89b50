"""A SOCKS5 proxy on loopback (RFC 1928, RFC 1929): by name or address, with or without a password."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

NO_PASSWORD, PASSWORD, NOTHING = 0, 2, 255
BY_IPV4, BY_NAME = 1, 3


class SocksProxy:
    """Connects to the port that is asked for, on this machine, whatever the host is called.

    :param credentials: the user and password that are wanted; None: nobody is asked.
    """

    def __init__(self, credentials: tuple[bytes, bytes] | None) -> None:
        self._credentials = credentials
        self.hosts: set[str] = set()
        """Those that were asked for."""
        self.port = 0

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError), contextlib.closing(writer):
            if not await self._let_in(reader, writer):
                return
            _version, _command, _reserved, kind = await reader.readexactly(4)
            if kind == BY_NAME:
                [length] = await reader.readexactly(1)
                host = (await reader.readexactly(length)).decode()
            else:
                host = ".".join(map(str, await reader.readexactly(4)))
            [port] = struct.unpack(">H", await reader.readexactly(2))
            self.hosts.add(host)
            there = await asyncio.open_connection("127.0.0.1", port)
            writer.write(bytes((5, 0, 0, BY_IPV4, 0, 0, 0, 0, 0, 0)))
            with contextlib.closing(there[1]):
                await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer))

    async def _let_in(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        _version, count = await reader.readexactly(2)
        methods = await reader.readexactly(count)
        wanted = NO_PASSWORD if self._credentials is None else PASSWORD
        if wanted not in methods:
            writer.write(bytes((5, NOTHING)))
            return False
        writer.write(bytes((5, wanted)))
        if self._credentials is None:
            return True
        _version, length = await reader.readexactly(2)
        user = await reader.readexactly(length)
        [length] = await reader.readexactly(1)
        password = await reader.readexactly(length)
        is_right = (user, password) == self._credentials
        writer.write(bytes((1, 0 if is_right else 1)))
        return is_right


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65_536):
            writer.write(data)
            await writer.drain()
    writer.close()


@asynccontextmanager
async def socks_proxy(credentials: tuple[bytes, bytes] | None = None) -> AsyncIterator[SocksProxy]:
    proxy = SocksProxy(credentials)
    listening = await asyncio.start_server(proxy.carry, "127.0.0.1", 0)
    proxy.port = listening.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        listening.close()
        await asyncio.sleep(0.05)  # for the connections that were closed to end
