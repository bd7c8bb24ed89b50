"""`couchlite replicator`: the replication service standing alone, beside any CouchDB."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import click
import uvloop

from couchlite.server import Server
from couchlite.version import VERSION
from http_api import logs
from http_api.serving import raise_file_limit
from replicator import EndpointRefused, InvalidReplication, PeerFailure, parse_endpoint, standalone

from .main import Failure
from .options import data_directory_option, password_option, user_option
from .service_options import config_option, log_format_option, log_level_option

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CAUSES = {
    "econnrefused": "nobody listens there",
    "nxdomain": "its name is unknown",
    "ehostunreach": "there is no way to it",
    "req_timedout": "it doesn't answer",
    "bad_certificate": "its certificate can't be verified",
}


@click.command("replicator")
@click.argument("url")
@click.option(
    "--database",
    metavar="NAME",
    default="_replicator",
    show_default=True,
    help="Whose documents ask for replications.",
)
@user_option
@password_option
@data_directory_option(
    "Where the ledger of what was replicated is kept; made if it doesn't exist.",
    default="couchlite-replicator",
    variable="COUCHLITE_REPLICATOR_DIR",
)
@config_option(", of which [replicator] and [log] matter.")
@log_level_option("info")
@log_format_option
def command(
    url: str,
    database: str,
    user: str | None,
    password: str | None,
    data_dir: Path,
    config_file: Path | None,
    log_level: str,
    log_format: str,
) -> None:
    """Run the replications that documents on the server at URL ask for, until SIGTERM or Ctrl-C.

    It does for any CouchDB what CouchDB's own replicator does: documents of --database become replications,
    and their states are written back. A CouchDB runs the documents of _replicator itself, too: give another
    database, or set max_jobs of its [replicator] to 0.
    """
    logs.configure(log_level, log_format)
    raise_file_limit()
    with (
        Server(data_dir, config_file=config_file) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(_run(server, url, database, user, password or ""))


async def _run(server: Server, url: str, database: str, user: str | None, password: str) -> None:
    """Until a signal comes; a second one doesn't wait for the last checkpoints."""
    this = asyncio.current_task()
    assert this is not None
    for number in SIGNALS:
        asyncio.get_running_loop().add_signal_handler(number, this.cancel)
    try:
        async with standalone(server, url, database, user, password) as requests:
            click.echo(f"couchlite {VERSION} runs the replications of {requests.name}")
            await asyncio.Event().wait()
    except asyncio.CancelledError:
        return
    except PeerFailure as error:
        raise Failure(
            error.reason if error.code else f"{_shown(url)} can't be reached: {_cause(error)}"
        ) from error
    except EndpointRefused as error:
        is_missing = error.error == "db_not_found"
        raise Failure(
            f"there is no database {database} on {_shown(url)}" if is_missing else error.reason
        ) from error
    except InvalidReplication as error:
        raise Failure("the URL of a server is needed, such as http://127.0.0.1:5984") from error


def _shown(url: str) -> str:
    return parse_endpoint(url).url


def _cause(error: PeerFailure) -> str:
    told = f"{error.error} {error.reason}"
    return next((sentence for word, sentence in _CAUSES.items() if word in told), "the connection was lost")
