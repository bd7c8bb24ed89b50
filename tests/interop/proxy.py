"""A TCP proxy on loopback that is slow and can be down: the network between a client and a server.

It runs in a thread of its own; what its methods ask for is done when they return.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
import threading
from collections.abc import Iterator
from socket import SO_LINGER, SOL_SOCKET

BLOCK_BYTES = 16 * 1024
# To linger for zero seconds is to close with a reset, as a connection ends that was lost.
RESET = struct.pack("ii", 1, 0)


class Proxy:
    """Forwards connections to 127.0.0.1:`target_port`, each block with a delay; listens at `port`."""

    port: int

    def __init__(self, target_port: int, *, delay_s: float) -> None:
        self.lost = 0
        """How many connections were reset while they were open."""
        self.refused = 0
        """How many were reset at once."""
        self._target_port = target_port
        self._delay_s = delay_s
        self._is_down = False
        self._connections: set[asyncio.Task[None]] = set()
        self._loop = asyncio.new_event_loop()

    @contextlib.contextmanager
    def running(self) -> Iterator[Proxy]:
        thread = threading.Thread(target=self._loop.run_forever)
        thread.start()
        try:
            server = asyncio.run_coroutine_threadsafe(
                asyncio.start_server(self._forward, "127.0.0.1", 0), self._loop
            ).result()
            self.port = server.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                self._loop.call_soon_threadsafe(server.close)
        finally:
            self._cut()
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join()
            self._loop.close()

    @contextlib.contextmanager
    def down(self) -> Iterator[None]:
        """Reset every open connection, and every new one until the block ends."""
        self._is_down = True
        self._cut()
        yield
        self._is_down = False

    def _cut(self) -> None:
        async def cut() -> None:
            connections = set(self._connections)
            for connection in connections:
                connection.cancel()
            await asyncio.gather(*connections, return_exceptions=True)
            await asyncio.sleep(0)  # the sockets are closed in the next turn

        asyncio.run_coroutine_threadsafe(cut(), self._loop).result()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_down:
            self.refused += 1
            _reset(writer)
            return
        connection = asyncio.ensure_future(self._carry(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        await asyncio.wait([connection])

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both ends have closed it or it is lost."""
        ends = [writer]
        try:
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self._target_port)
            ends.append(upstream)
            async with asyncio.TaskGroup() as both_ways:
                both_ways.create_task(self._pump(reader, upstream))
                both_ways.create_task(self._pump(upstream_reader, writer))
        except* (OSError, asyncio.CancelledError):
            self.lost += 1
            for end in ends:
                _reset(end)
        else:
            for end in ends:
                end.close()

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry bytes until the sender is done."""
        while block := await reader.read(BLOCK_BYTES):
            await asyncio.sleep(self._delay_s)
            writer.write(block)
            await writer.drain()
        writer.write_eof()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the other side has reset it already
        writer.get_extra_info("socket").setsockopt(SOL_SOCKET, SO_LINGER, RESET)
    writer.transport.abort()
