"""Where the replications of a server run: in this process, or in the replicator's own, which is asked through
a socket in the data directory.

What must stay true here: whoever asks is told what the scheduler says, in its words; and a client that goes
away stops nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Protocol

from couchlite.accounts import Accounts
from couchlite.javascript import FunctionPool
from couchlite.security import Principal
from couchlite.server import Server
from replicator import Here, Ledger, Limits, Peers, Scheduler

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

    async def close(self) -> None: ...


class InProcess:
    """A scheduler of this process."""

    def __init__(self, server: Server, accounts: Accounts, functions: FunctionPool, here: Here) -> None:
        self.ledger = Ledger(server.path, partial(Limits.of, server.config))
        self.scheduler = Scheduler(server, Peers(server, accounts, functions, here), self.ledger)

    async def replicate(self, body: Mapping[str, Any], principal: Principal) -> Answer:
        return await self.scheduler.replicate(body, principal)

    async def jobs(self) -> list[dict[str, Any]]:
        return self.scheduler.jobs()

    async def job(self, name: str) -> dict[str, Any]:
        return self.scheduler.job(name)

    async def close(self) -> None:
        await self.scheduler.close()
        self.ledger.close()
