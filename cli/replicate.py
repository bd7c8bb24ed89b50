"""`couchlite replicate`: one replication, run by this process.

What must stay true here: it ends with a checkpoint, also when it is interrupted; its exit status tells
whether everything that was there is at the target now.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import uvloop

from couchlite.errors import CouchliteError
from couchlite.jsontext import loads
from replicator import (
    EndpointRefused,
    InvalidReplication,
    Peer,
    Replication,
    ReplicationId,
    read_filter_code,
    replication_id,
)

from .main import EXIT_CODES, Failure, tell
from .options import data_directory_option, json_option, print_json
from .replication_ends import Access, Ends, place
from .replication_progress import EXCEPTIONS_SHOWN, Bar, Display, Lines, Silent, Tally, counted, done

FAILED, MISSING, INCOMPLETE, INTERRUPTED = 1, 3, 5, 130
"""Exit codes beside 0; 2 is wrong usage."""
SHOW_S = 0.25
COUNT_PENDING_S = 1.0
RETRY_MIN_S = 1.0
RETRY_MAX_S = 60.0
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(slots=True)
class Result:
    """How it ended: completed, stopped or failed."""

    state: str
    replication: str | None
    tally: Tally
    seconds: float
    error: CouchliteError | None = None


def _access_options(function: Callable[..., None]) -> Callable[..., None]:
    for end in ("target", "source"):
        for name, metavar, text in (
            ("proxy", "URL", "Reach the {} through this proxy."),
            ("token", None, "Bearer token for the {}."),
            ("password", None, "With which password."),
            ("user", "NAME", "Who logs in to the {}."),
        ):
            variable = f"COUCHLITE_{end.upper()}_{name.upper()}"
            function = click.option(
                f"--{end}-{name}", metavar=metavar, envvar=variable, show_envvar=True, help=text.format(end)
            )(function)
    return function


@click.command("replicate")
@click.argument("source")
@click.argument("target")
@click.option("--continuous", is_flag=True, help="Go on with what changes, until Ctrl-C.")
@click.option("--create-target", is_flag=True, help="Make the target if it doesn't exist.")
@click.option("--filter", "filter_", metavar="DESIGN/NAME", help="Only what this filter function lets pass.")
@click.option(
    "--query-param", "query_params", multiple=True, metavar="K=V", help="An argument of the filter."
)
@click.option("--selector", metavar="JSON", help="Only documents that this Mango selector matches.")
@click.option("--doc-ids", metavar="ID,ID,...", help="Only these documents; @FILE reads one id a line.")
@click.option("--since-seq", metavar="SEQ", help="Begin after this update sequence of the source.")
@click.option("--winning-revs-only", is_flag=True, help="Leave conflicts behind.")
@click.option(
    "--use-checkpoints/--no-checkpoints", default=True, help="Note at both ends how far it has come, or not."
)
@data_directory_option("Where the databases are that are given by their names.")
@click.option(
    "--url",
    metavar="URL",
    envvar="COUCHLITE_URL",
    show_envvar=True,
    help="The server where they are instead.",
)
@_access_options
@json_option
def command(
    source: str,
    target: str,
    filter_: str | None,
    query_params: tuple[str, ...],
    selector: str | None,
    doc_ids: str | None,
    since_seq: str | None,
    data_dir: Path,
    url: str | None,
    as_json: bool,
    **given: Any,
) -> None:
    """Replicate SOURCE into TARGET. Each is the http(s) address of a database, or DIRECTORY:NAME for a
    database of a data directory, or the NAME of one of --data-dir or --url.

    Exit codes: 0 complete, 1 failed, 2 wrong usage, 3 the source or target is missing, 5 complete but for
    revisions that were refused or missing, 130 interrupted (a continuous one ends with 0 or 5 then).
    """
    access = {
        end: Access(*[given.pop(f"{end}_{name}") for name in ("user", "password", "token", "proxy")])
        for end in ("source", "target")
    }
    asked: dict[str, Any] = {name: value for name, value in given.items() if value is not False}
    asked |= {"use_checkpoints": given["use_checkpoints"]}
    asked |= {f"{end}_proxy": found.proxy for end, found in access.items() if found.proxy}
    if filter_ is not None:
        asked["filter"] = filter_
    if query_params:
        asked["query_params"] = dict(_pair(text) for text in query_params)
    if selector is not None:
        asked["selector"] = _json(selector)
    if doc_ids is not None:
        asked["doc_ids"] = _doc_ids(doc_ids)
    if since_seq is not None:
        asked["since_seq"] = since_seq
    places = [
        place(text, access[end], data_dir, url, end) for text, end in ((source, "source"), (target, "target"))
    ]
    try:
        ends = Ends(places[0], places[1], asked)
    except InvalidReplication as error:
        raise click.UsageError(error.reason) from error
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_run(ends, as_json))
    _conclude(result, ends.options.continuous, as_json)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise click.UsageError(f"--query-param {text}: K=V is expected")
    return name, value


def _json(text: str) -> Any:
    try:
        return loads(text.encode())
    except CouchliteError as error:
        raise click.UsageError(f"--selector is no JSON: {error.reason}") from error


def _doc_ids(text: str) -> list[str]:
    if not text.startswith("@"):
        return text.split(",")
    try:
        with click.open_file(text[1:], encoding="utf-8") as file:
            return [line for line in file.read().splitlines() if line]
    except (OSError, UnicodeDecodeError) as error:
        raise Failure(f"{text[1:]} can't be read: {error}") from error


async def _run(ends: Ends, as_json: bool) -> Result:
    running = asyncio.create_task(_run_until_stopped(ends, _display(ends, as_json)))
    loop = asyncio.get_running_loop()
    for number in SIGNALS:
        loop.add_signal_handler(number, running.cancel)
    try:
        return await running
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
        await ends.close()


def _display(ends: Ends, as_json: bool) -> Display:
    if as_json and not ends.options.continuous:
        return Silent()
    if as_json or not sys.stderr.isatty() or not sys.stdout.isatty():
        return Lines(as_json)
    return Bar("replicating")


async def _run_until_stopped(ends: Ends, display: Display) -> Result:
    begun = time.monotonic()
    tally = Tally()
    result = Result("completed", None, tally, 0.0)
    try:
        with display:
            found = await _replication_id(ends)
            result.replication = found.text
            await _repeat(ends, found, tally, display)
    except asyncio.CancelledError:
        result.state = "stopped"
    except CouchliteError as error:
        result.state, result.error = "failed", error
    result.seconds = time.monotonic() - begun
    return result


async def _repeat(ends: Ends, found: ReplicationId, tally: Tally, display: Display) -> None:
    """Run; a continuous one is run again when it breaks off, but for what only somebody can change."""
    wait_s = RETRY_MIN_S
    while True:
        before = asdict(tally.counts)
        try:
            await _run_once(ends, found, tally, display)
            return
        except EndpointRefused:
            raise
        except CouchliteError as error:
            if not ends.options.continuous:
                raise
            if asdict(tally.counts) != before:
                wait_s = RETRY_MIN_S
            display.tell(f"{error.reason}; trying again in {wait_s:.0f} s")
        await asyncio.sleep(wait_s * random.uniform(0.75, 1.25))
        wait_s = min(2 * wait_s, RETRY_MAX_S)


async def _run_once(ends: Ends, found: ReplicationId, tally: Tally, display: Display) -> None:
    async with contextlib.AsyncExitStack() as opened:
        tally.next = None
        if ends.ledger is not None:
            session = ends.ledger.session(found.text, ends.options)
            tally.next = await opened.enter_async_context(session)
        source = ends.source()
        opened.push_async_callback(source.close)
        target = ends.target()
        opened.push_async_callback(target.close)
        replication = await Replication.begin(source, target, found.base, ends.options, recorder=tally)
        showing = asyncio.create_task(_show(replication, source, tally, display))
        opened.callback(showing.cancel)
        await replication.run()
        display.show(tally.counts, done(tally.counts))


async def _replication_id(ends: Ends) -> ReplicationId:
    name = ends.options.filter
    if name is None or name.startswith("_"):
        return replication_id(ends.options, ends.uuid)
    source = ends.source()
    try:
        return replication_id(ends.options, ends.uuid, await read_filter_code(name, source))
    finally:
        await source.close()


async def _show(replication: Replication, source: Peer, tally: Tally, display: Display) -> None:
    total: int | None = None
    asked_at = 0.0
    while True:
        if time.monotonic() - asked_at >= COUNT_PENDING_S:
            asked_at = time.monotonic()
            with contextlib.suppress(CouchliteError):
                before = done(tally.counts)
                pending = await source.count_pending(replication.progress.through_seq)
                total = None if pending is None else before + pending
        display.show(tally.counts, total)
        await asyncio.sleep(SHOW_S)


# --- the end


def _conclude(result: Result, continuous: bool, as_json: bool) -> None:
    """Print how it ended; the exit code."""
    counts = result.tally.counts
    if as_json:
        print_json(_as_json(result))
    else:
        _print(result)
    if result.state == "failed":
        sys.exit(_exit_code(result.error))
    if result.state == "stopped" and not continuous:
        sys.exit(INTERRUPTED)
    sys.exit(INCOMPLETE if counts.refused or counts.missing else 0)


def _exit_code(error: CouchliteError | None) -> int:
    if error is None or error.error == "db_not_found":
        return FAILED if error is None else MISSING
    return EXIT_CODES.get(error.status, FAILED)


def _as_json(result: Result) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "ok": result.state != "failed",
        "state": result.state,
        "replication": result.replication,
        **asdict(result.tally.counts),
        "seconds": round(result.seconds, 3),
        "exceptions": result.tally.exceptions,
    }
    if result.error is not None:
        shown |= {"error": result.error.error, "reason": result.error.reason}
    return shown


def _print(result: Result) -> None:
    counts, exceptions = result.tally.counts, result.tally.exceptions
    for row in exceptions[:EXCEPTIONS_SHOWN]:
        tell(f"{row['outcome']}: {row['id']} {row['rev']}: {row['error']}: {row['reason']}")
    more = counts.refused + counts.missing - len(exceptions[:EXCEPTIONS_SHOWN])
    if more > 0:
        tell(f"and {more:,} more: `couchlite replications show {result.replication}`")
    if result.error is not None:
        tell(result.error.reason)
    click.echo(f"{result.state} in {result.seconds:,.1f} s: {counted(counts)}")
