"""The process in which a server of several workers runs its replications: one for all, started when the first
is asked for, ended when it has had nothing to do for a while.

A worker asks it through a socket in the data directory's `run/`, one line of JSON each way. What must stay
true here: whoever can open the socket is believed about who asks, so it is for the server's user only; an
answer that doesn't come means that the process has ended, and asking again is safe, for a replication that is
under way already is joined.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import uvloop

from couchlite.doorbell import short_path
from couchlite.errors import CouchliteError, NotFound
from couchlite.javascript import FunctionPool, Limits
from couchlite.jsontext import dumps, loads
from couchlite.security import Principal
from couchlite.server import Server
from couchlite.user_store import open_accounts
from replicator import Here, Ledger, ReplicationError

from . import logs, memory, process_numbers
from .metrics import Metrics
from .replication_service import LOOPBACK, Answer, InProcess
from .serving import HOUSEKEEPING_S, SIGNALS, Serving, Shared

SOCKET_NAME = "replicator.channel"
IDLE_S = 60.0
"""So long it waits for more to do; until then a replication starts at once."""
IDLE_CHECK_S = 5.0
START_S = 20.0
"""How long a worker waits for the process to come up."""
CONNECT_AGAIN_S = 0.02
ATTEMPTS = 3
LINE_MAX_BYTES = 256 << 20
"""An answer may be the list of all jobs."""

logger = logging.getLogger(__name__)


# --- in a worker


class Remote:
    """The replications of the server, as a worker reaches them.

    :param wanted: tells the supervisor that the process is needed.
    """

    def __init__(self, directory: Path, wanted: Callable[[], None]) -> None:
        self._path = directory / "run" / SOCKET_NAME
        self._wanted = wanted
        self.ledger = Ledger(directory)
        self._waking: asyncio.Task[None] | None = None

    async def replicate(self, body: Mapping[str, Any], principal: Principal) -> Answer:
        asked = {"ask": "replicate", "body": body, "name": principal.name, "roles": list(principal.roles)}
        for _ in range(ATTEMPTS):
            answer = await self._ask(asked, await self._connect(START_S))
            if answer is not None:
                return answer["status"], answer["answer"]
        raise ReplicationError("error", "the replicator ended before it could answer")

    async def jobs(self) -> list[dict[str, Any]]:
        answer = await self._ask_if_there({"ask": "jobs"})
        return [] if answer is None else answer["answer"]

    async def job(self, name: str) -> dict[str, Any]:
        answer = await self._ask_if_there({"ask": "job", "job": name})
        if answer is None:
            raise NotFound()
        job: dict[str, Any] = answer["answer"]
        return job

    async def tasks(self) -> list[dict[str, Any]]:
        answer = await self._ask_if_there({"ask": "tasks"})
        return [] if answer is None else answer["answer"]

    async def documents(self, database_name: str) -> dict[str, dict[str, Any]]:
        answer = await self._ask_if_there({"ask": "documents", "database": database_name})
        return {} if answer is None else answer["answer"]

    def wake(self) -> None:
        if self._waking is None or self._waking.done():
            self._waking = asyncio.create_task(self._wake())

    async def _wake(self) -> None:
        """Have the process started, unless it runs and goes on."""
        with contextlib.suppress(ReplicationError):
            for _ in range(ATTEMPTS):
                if await self._ask({"ask": "wake"}, await self._connect(START_S)) is not None:
                    return

    def tell_metrics(self, metrics: Metrics) -> None:
        """The process does, in a row of its own."""

    async def close(self) -> None:
        """The process is the supervisor's to end."""
        if self._waking is not None:
            self._waking.cancel()
            await asyncio.wait((self._waking,))
        self.ledger.close()

    async def _ask_if_there(self, asked: dict[str, Any]) -> dict[str, Any] | None:
        """The answer; None when there is no process, and so no job."""
        with contextlib.suppress(ReplicationError):
            return await self._ask(asked, await self._connect(0))
        return None

    async def _connect(self, wait_s: float) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """:raises ReplicationError: nobody is there."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                with short_path(self._path) as address:
                    return await asyncio.open_unix_connection(address, limit=LINE_MAX_BYTES)
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise ReplicationError("error", "the replicator could not be started") from error
            self._wanted()
            await asyncio.sleep(CONNECT_AGAIN_S)

    async def _ask(
        self, asked: dict[str, Any], channel: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    ) -> dict[str, Any] | None:
        """The answer; None when the process ended without one.

        :raises CouchliteError: what the scheduler raised.
        """
        reader, writer = channel
        with contextlib.closing(writer):
            try:
                writer.write(dumps(asked) + b"\n")
                line = await reader.readline()
            except OSError:
                return None
        if not line.endswith(b"\n"):
            return None
        answer: dict[str, Any] = loads(line)
        if "error" in answer:
            raise ReplicationError(answer["error"], answer["reason"], status=answer["status"])
        return answer


# --- the process


def run(serving: Serving, shared: Shared) -> None:
    """Run replications until SIGTERM, or until there is nothing to do.

    :raises DataDirectoryError: the data directory can't be used.
    """
    memory.tune()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(serving, shared))


async def _run(serving: Serving, shared: Shared) -> None:
    told_to_stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told_to_stop.set)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    server = Server(
        serving.data_directory, started_with=serving.started_with, config_file=serving.config_file
    )
    logs.set_level(server.config.text("log", "level"))
    accounts = open_accounts(server, shared.failures)
    functions = FunctionPool(lambda: Limits.of(server.config))
    here = Here("http" if serving.tls is None else "https", {serving.host, *LOOPBACK}, serving.port)
    service = InProcess(server, accounts, functions, here)
    shared.metrics.be_replicator()

    def tell() -> None:
        process_numbers.tell(shared.metrics, server, accounts, functions)
        service.tell_metrics(shared.metrics)

    telling = asyncio.create_task(_keep_telling(tell))
    try:
        async with Channel(server.path / "run" / SOCKET_NAME, service) as channel:
            await channel.serve(told_to_stop)
    finally:
        telling.cancel()
        await service.close()
        tell()
        await functions.close()
        accounts.close()
        server.close()


async def _keep_telling(tell: Callable[[], None]) -> None:
    while True:
        tell()
        await asyncio.sleep(HOUSEKEEPING_S)


class Channel:
    """The socket, and what is asked through it."""

    def __init__(self, path: Path, service: InProcess) -> None:
        self._path = path
        self._service = service
        self._open = 0
        self._used_at = time.monotonic()
        self._is_over = False

    async def __aenter__(self) -> Channel:
        self._path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            with short_path(self._path) as address:
                self._listening = await asyncio.start_unix_server(self._answer, address, limit=LINE_MAX_BYTES)
        finally:
            os.umask(before)
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._is_over = True
        self._path.unlink(missing_ok=True)
        self._listening.close()

    async def serve(self, told_to_stop: asyncio.Event) -> None:
        """Return when told to, or when nobody has wanted anything for a while."""
        while not told_to_stop.is_set():
            if self._open or not self._service.is_idle:
                self._used_at = time.monotonic()
            elif time.monotonic() - self._used_at >= IDLE_S:
                return
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(told_to_stop.wait(), IDLE_CHECK_S)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        with contextlib.closing(writer):
            try:
                asked = loads(await reader.readline())
                if self._is_over:
                    return  # so that it is asked again, of the next process
                answer = await self._answer_to(asked)
                writer.write(dumps(answer) + b"\n")
                await writer.drain()
            except OSError:
                pass  # who asked has gone; the replication goes on
            finally:
                self._open -= 1

    async def _answer_to(self, asked: dict[str, Any]) -> dict[str, Any]:
        try:
            match asked["ask"]:
                case "jobs":
                    return {"answer": await self._service.jobs()}
                case "job":
                    return {"answer": await self._service.job(asked["job"])}
                case "tasks":
                    return {"answer": await self._service.tasks()}
                case "documents":
                    return {"answer": await self._service.documents(asked["database"])}
                case "wake":
                    self._used_at = time.monotonic()
                    return {"answer": True}
            principal = Principal(asked["name"], tuple(asked["roles"]))
            status, answer = await self._service.replicate(asked["body"], principal)
            return {"status": status, "answer": answer}
        except CouchliteError as error:
            return {"status": error.status, "error": error.error, "reason": error.reason}
        except Exception:
            logger.exception("a replication could not be started")
            return {"status": 500, "error": "internal_server_error", "reason": "internal error, see the log"}
