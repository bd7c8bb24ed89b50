"""The replication service standing alone, beside any CouchDB: it follows a replicator database there, runs
what the documents ask for, and writes back what has become of it.

Its own data directory holds the ledger and settings; the databases are all reached by HTTP.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from functools import partial
from urllib.parse import quote

from couchlite.javascript import FunctionPool
from couchlite.moves import Moves
from couchlite.server import Server
from couchlite.user_store import open_accounts

from .errors import EndpointRefused, PeerFailure
from .http_client import HttpClient, tls_context
from .ledger import Ledger
from .options import Options, parse_endpoint
from .peers import Here, Peers
from .record import Limits
from .remote_requests import RemoteRequests
from .scheduler import Scheduler

NOWHERE = Here("http", (), 0)


@contextlib.asynccontextmanager
async def standalone(
    server: Server, url: str, database: str, user: str | None = None, password: str = ""
) -> AsyncIterator[RemoteRequests]:
    """Run the replications that the documents of `database` ask for, on the server at `url`.

    :param server: a data directory of the service's own.
    :raises InvalidReplication: `url` is none. :raises EndpointRefused: the database isn't there, or not for
        this user. :raises PeerFailure: the server can't be reached, or is no CouchDB.
    """
    auth = {} if user is None else {"auth": {"basic": {"username": user, "password": password}}}
    root = parse_endpoint({"url": url, **auth})
    # What the URL itself has of credentials is in `root` by now.
    basic = {"username": root.username, "password": root.password}
    address = {"url": root.url + quote(database, safe=""), "auth": {"basic": basic}}
    endpoint = parse_endpoint(address)
    tls = tls_context(server.config) if url.startswith("https:") else True
    client = HttpClient(root, Options(root, root, retries_per_request=1), tls)
    async with contextlib.AsyncExitStack() as opened:
        opened.push_async_callback(client.close)
        uuid = await _uuid(client)
        accounts = open_accounts(server)
        opened.callback(accounts.close)
        functions = FunctionPool()
        opened.push_async_callback(functions.close)
        ledger = Ledger(server.path, partial(Limits.of, server.config))
        opened.callback(ledger.close)
        moves = Moves(server)
        opened.push_async_callback(moves.close)
        scheduler = Scheduler(server, Peers(server, accounts, functions, NOWHERE), ledger, moves, uuid)
        opened.push_async_callback(scheduler.close)
        requests = RemoteRequests(scheduler, server.config, database, endpoint, tls)
        opened.push_async_callback(requests.close)
        await requests.start()
        yield requests


async def _uuid(client: HttpClient) -> str:
    """Which server it is; some tell no uuid, and are known by their address."""
    answer = await client.ask("GET")
    if answer.status == 401:
        reason = f"{client.url} wants another name or password"
        raise EndpointRefused("unauthorized", reason, status=401)
    if answer.status != 200 or not isinstance(answer.value, dict) or "couchdb" not in answer.value:
        raise PeerFailure("no_couchdb", f"{client.url} is no CouchDB server", code=answer.status)
    return str(answer.value.get("uuid", client.url))
