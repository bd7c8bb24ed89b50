"""One serving process: its event loop, the data directory, the listening socket, and an orderly end.

What must stay true here: nothing is opened before `run`, so that a process may be forked until then; and it
ends in the order listener, accounts, server, so that every write that was taken is committed and answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import uvloop

from couchlite.accounts import Accounts
from couchlite.auto_compaction import AutoCompaction
from couchlite.automatic import AutomaticResolution
from couchlite.config_defaults import Sections
from couchlite.errors import CouchliteError
from couchlite.lockout import Failures
from couchlite.provision import Credentials
from couchlite.server import Server
from couchlite.user_databases import UserDatabases
from couchlite.user_store import open_accounts
from replicator import Here

from . import logs, memory
from .access_log import AccessLog
from .app import App
from .metrics import Metrics
from .protocol import listen
from .replication_service import LOOPBACK, InProcess, Replications, has_requests
from .submission import refusals

SIGNALS = (signal.SIGTERM, signal.SIGINT)
"""What stops a server."""
ORPHAN_CHECK_S = 1.0
HOUSEKEEPING_S = 1.0
FILES_WANTED = 1 << 20
GARBAGE_THRESHOLDS = (50_000, 20, 100)
"""A bulk request makes tens of thousands of objects that live until it ends. To look for garbage among them
after each 700, Python's default, takes a tenth of its time."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Serving:
    """What the processes of a server are started with."""

    data_directory: Path
    host: str
    port: int
    """`reserved` while anything runs."""
    started_with: Sections
    config_file: Path | None = None
    tls: ssl.SSLContext | None = None
    access_log: str | None = None
    """The form of its lines; None: there is none."""
    administrator: Credentials | None = field(default=None, repr=False)
    """As given at the start: told if it is another than the one stored."""
    grace_s: float = 10.0
    """How long requests may take to finish once the server is told to stop."""
    fauxton_dir: Path | None = None
    """The files of CouchDB's web console."""


@dataclass(frozen=True, slots=True)
class Shared:
    """Memory that all processes of a server share; made before the first fork."""

    failures: Failures
    metrics: Metrics


def raise_file_limit() -> None:
    """Allow this process and its children as many open files as the system lets them: each connection is one,
    and the usual limit of 1,024 is less than a thousand idle feeds."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


@contextlib.contextmanager
def reserved(host: str, port: int) -> Iterator[int]:
    """Hold an address so that only those of our user who ask to share it may listen on it; the port.

    :raises OSError: somebody listens there, or it is no address of this machine.
    """
    with contextlib.ExitStack() as stack:
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            held = stack.enter_context(socket.socket(family, kind, protocol))
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            held.bind((address[0], port, *address[2:]))
            port = held.getsockname()[1]
            # Only now: asked for earlier, another server that shares its port would not be noticed.
            held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        yield port


def run(
    serving: Serving,
    shared: Shared,
    worker: int | None,
    *,
    ready: Callable[[], None],
    replications: Replications | None = None,
) -> None:
    """Serve in this process until SIGTERM, or SIGINT if it is alone.

    :param worker: its number among several that share the port; None when it is alone.
    :param ready: called once requests are answered.
    :param replications: where they are run; None: in this process.
    :raises OSError: the address can't be used. :raises DataDirectoryError: the data directory can't.
    """
    gc.set_threshold(*GARBAGE_THRESHOLDS)
    memory.tune()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(serving, shared, worker, ready, replications))


async def _serve(
    serving: Serving,
    shared: Shared,
    worker: int | None,
    ready: Callable[[], None],
    replications: Replications | None,
) -> None:
    told_to_stop = _handle_signals(alone=worker is None)
    server = Server(
        serving.data_directory, started_with=serving.started_with, config_file=serving.config_file
    )
    accounts = open_accounts(server, shared.failures)
    access_log = AccessLog(serving.access_log) if serving.access_log else None
    shared.metrics.be(worker or 0)
    try:
        app = App(
            server,
            accounts,
            metrics=shared.metrics,
            access_log=access_log,
            replications=replications,
            fauxton_dir=serving.fauxton_dir,
        )
        listener = await listen(app, serving.host, serving.port, tls=serving.tls, reuse_port=True)
        ready()
        if not worker and has_requests(server):
            _start_replications(app, serving)
        background = [asyncio.create_task(_keep_house(app))]
        if not worker:  # in one process only
            resolution = AutomaticResolution(server, app.functions, refuse=partial(refusals, app))
            background.append(asyncio.create_task(resolution.run()))
        user_databases = UserDatabases(server)
        following = asyncio.create_task(user_databases.run())
        compacting = asyncio.create_task(AutoCompaction(server).run())
        if serving.administrator is not None and not worker:
            await _compare(serving.administrator, accounts)
        if worker is not None and sys.platform != "linux":
            await _wait_as_child(told_to_stop)
        await told_to_stop.wait()
        for task in background:
            task.cancel()
        user_databases.stop()
        compacting.cancel()
        await asyncio.gather(*background, return_exceptions=True)
        await listener.close(serving.grace_s)
        await following
    finally:
        accounts.close()
        server.close()
        if access_log is not None:
            access_log.flush()


def _start_replications(app: App, serving: Serving) -> None:
    """Go on with what the documents of replicator databases have asked for."""
    if app.replications is None:
        here = Here("http" if serving.tls is None else "https", {serving.host, *LOOPBACK}, serving.port)
        app.replications = InProcess(app.server, app.accounts, app.functions, here)
    app.replications.wake()


async def _keep_house(app: App) -> None:
    """What is looked after once a second: changed settings of the log, numbers that nobody else tells."""
    server = app.server
    settings = server.config.as_dict()
    tidier = memory.Tidier()
    while True:
        await asyncio.sleep(HOUSEKEEPING_S)
        if server.config.as_dict() is not settings:
            settings = server.config.as_dict()
            logs.set_level(server.config.text("log", "level"))
        tidier.look()
        app.tell_metrics()


async def _compare(given: Credentials, accounts: Accounts) -> None:
    """Say so if the administrator given at the start exists with another password; slow, so not before
    serving."""
    try:
        await accounts.log_in(given.name, given.password)
    except CouchliteError:
        logger.warning(
            "the administrator %r has another password than the one given now, and keeps it; "
            "change it with PUT /_node/_local/_config/admins/%s",
            given.name,
            given.name,
        )


def _handle_signals(*, alone: bool) -> asyncio.Event:
    """An event that is set by the signals that stop; who is alone ends at once on a second one."""
    told_to_stop = asyncio.Event()

    def stop() -> None:
        if told_to_stop.is_set() and alone:
            os._exit(1)
        told_to_stop.set()

    for number in SIGNALS if alone else (signal.SIGTERM,):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    return told_to_stop


async def _wait_as_child(told_to_stop: asyncio.Event) -> None:
    """Wait as long as there is a supervisor, where the kernel doesn't see to it."""
    supervisor = os.getppid()
    while not told_to_stop.is_set():
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(told_to_stop.wait(), ORPHAN_CHECK_S)
        if os.getppid() != supervisor:
            os._exit(1)
