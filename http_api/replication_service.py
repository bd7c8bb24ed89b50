"""Where the replications of a server run: in this process, or in the replicator's own, which is asked through
a socket in the data directory.

What must stay true here: whoever asks is told what the scheduler says, in its words; and a client that goes
away stops nothing.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from couchlite.accounts import Accounts
from couchlite.errors import CouchliteError
from couchlite.javascript import FunctionPool
from couchlite.moves import Moves
from couchlite.security import Principal
from couchlite.server import Server
from replicator import Here, Ledger, Limits, LocalRequests, Peers, Scheduler
from replicator.documents import is_replicator

from .metrics import Metrics

if TYPE_CHECKING:
    from .request import Request

JOBS = "couch_replicator.jobs."
"""The names of their statistics begin so."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")

Answer = tuple[int, dict[str, Any]]


class Replications(Protocol):
    ledger: Ledger
    """What the replications did."""

    async def replicate(self, body: Mapping[str, Any], principal: Principal) -> Answer:
        """:raises CouchliteError:"""
        ...

    async def jobs(self) -> list[dict[str, Any]]: ...

    async def job(self, name: str) -> dict[str, Any]:
        """:raises NotFound:"""
        ...

    async def tasks(self) -> list[dict[str, Any]]:
        """As _active_tasks lists them."""
        ...

    async def documents(self, database_name: str) -> dict[str, dict[str, Any]]:
        """What a replicator database's documents that are being dealt with have come to, by id."""
        ...

    def wake(self) -> None:
        """A replicator database may have something to do."""
        ...

    def tell_metrics(self, metrics: Metrics) -> None:
        """Bring into the statistics what the jobs of this process are doing."""
        ...

    async def close(self) -> None: ...


def has_requests(server: Server) -> bool:
    """Whether there is a replicator database with documents."""
    for name in filter(is_replicator, server.names()):
        with contextlib.suppress(CouchliteError):
            if server.open(name).state().doc_count:
                return True
    return False


class InProcess:
    """A scheduler of this process."""

    def __init__(self, server: Server, accounts: Accounts, functions: FunctionPool, here: Here) -> None:
        self.ledger = Ledger(server.path, partial(Limits.of, server.config))
        self._moves = Moves(server)
        peers = Peers(server, accounts, functions, here)
        self._scheduler = Scheduler(server, peers, self.ledger, self._moves)
        self._requests = LocalRequests(server, self._scheduler, self._moves)
        self._told: Counter[str] = Counter()

    @property
    def is_idle(self) -> bool:
        return self._scheduler.is_idle and self._requests.is_idle

    async def replicate(self, body: Mapping[str, Any], principal: Principal) -> Answer:
        return await self._scheduler.replicate(body, principal)

    async def jobs(self) -> list[dict[str, Any]]:
        return self._scheduler.jobs()

    async def job(self, name: str) -> dict[str, Any]:
        return self._scheduler.job(name)

    async def tasks(self) -> list[dict[str, Any]]:
        return self._scheduler.tasks()

    async def documents(self, database_name: str) -> dict[str, dict[str, Any]]:
        return self._requests.shown(database_name)

    def wake(self) -> None:
        """It is awake."""

    def tell_metrics(self, metrics: Metrics) -> None:
        # Counts are added, for those of a process that has ended stay in its row.
        counts = Counter(self._scheduler.counts)
        for name, more in (counts - self._told).items():
            metrics.count(JOBS + name, more)
        self._told = counts
        metrics.set_values({JOBS + name: number for name, number in self._scheduler.numbers().items()})

    async def close(self) -> None:
        await self._requests.close()
        await self._scheduler.close()
        await self._moves.close()
        self.ledger.close()


# --- of a request


def of(request: Request) -> Replications:
    """The service of the server that was asked; started in this process where it isn't given."""
    app = request.app
    if app.replications is None:
        scheme, host, port = reached_at(request)
        here = Here(scheme, {host.strip("[]"), *LOOPBACK}, port)
        app.replications = InProcess(app.server, app.accounts, app.functions, here)
    return app.replications


def reached_at(request: Request) -> tuple[str, str, int]:
    """Scheme, host and port of the socket that the request came by."""
    address = request.raw.transport.get_extra_info("sockname") if request.raw.transport else None
    host, port = address[:2] if address else ("127.0.0.1", 0)
    return "https" if request.raw.secure else "http", f"[{host}]" if ":" in host else host, port
