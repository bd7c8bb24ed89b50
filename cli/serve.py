"""`couchlite serve`: from options to running processes."""

from __future__ import annotations

import contextlib
import errno
import os
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import click

from couchlite.config_defaults import Sections
from couchlite.directory_lock import DirectoryLock
from couchlite.lockout import Failures
from couchlite.presets import PRESETS, merged
from couchlite.provision import Credentials, provision
from couchlite.server import Server
from couchlite.version import VERSION
from http_api import logs, serving, workers
from http_api.metrics import Metrics
from http_api.serving import Serving, Shared
from http_api.workers import Supervisor, WorkerFailed

from . import systemd
from .main import Failure
from .options import EXISTING_FILE, data_directory_option
from .service_options import config_option, log_format_option, log_level_option

DEFAULT_ADMIN = "admin"


class ServeCommand(click.Command):
    """Its help ends with what the presets are for."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Presets (--config and what was set over HTTP win over them)"):
            formatter.write_dl([(name, preset.purpose) for name, preset in PRESETS.items()])


@click.command("serve", cls=ServeCommand)
@data_directory_option("Where the data are; made if it doesn't exist.")
@click.option("--bind", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 takes a free one.  [default: 5984]")
@click.option(
    "--workers",
    "count",
    type=click.IntRange(1, workers.WORKERS_MAX),
    help="Processes that answer requests; with 1 there is no process but this.  [default: one a core]",
)
@click.option(
    "--preset",
    "presets",
    type=click.Choice(list(PRESETS)),
    multiple=True,
    help="Settings for a kind of use, see below. Can be given more than once: a later one wins.",
)
@click.option(
    "--origin",
    "origins",
    metavar="ORIGIN",
    multiple=True,
    callback=lambda ctx, parameter, values: [_origin(value) for value in values],
    help="Let web pages of this origin, such as https://app.example, use the server with their users' "
    "credentials (CORS). Can be given more than once.",
)
@click.option(
    "--admin",
    metavar="NAME",
    envvar="COUCHDB_USER",
    show_envvar=True,
    help="Server administrator to create unless there is one of that name.",
)
@click.option(
    "--password",
    envvar="COUCHDB_PASSWORD",
    show_envvar=True,
    help="The administrator's password. Other users of the machine can see a command line: better use the "
    "environment or a file.",
)
@click.option(
    "--password-file",
    type=EXISTING_FILE,
    envvar="COUCHDB_PASSWORD_FILE",
    show_envvar=True,
    help="File with the administrator's password.",
)
@config_option("; what was set over HTTP wins over them.")
@click.option("--tls-cert", type=EXISTING_FILE, help="Certificate chain (PEM).")
@click.option("--tls-key", type=EXISTING_FILE, help="Its key (PEM).")
@click.option(
    "--fauxton-dir",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    envvar="COUCHDB_FAUXTON_DOCROOT",
    show_envvar=True,
    help="Folder with the files of Fauxton, CouchDB's web console, for /_utils/.",
)
@log_level_option(None)
@log_format_option
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="One line a request.")
@click.option(
    "--grace",
    "grace_s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long requests may take to finish when the server is told to stop.",
)
def command(
    data_dir: Path,
    bind: str | None,
    port: int | None,
    count: int | None,
    presets: tuple[str, ...],
    origins: list[str],
    admin: str | None,
    password: str | None,
    password_file: Path | None,
    config_file: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    fauxton_dir: Path | None,
    log_level: str | None,
    log_format: str,
    access_log: bool,
    grace_s: float,
) -> None:
    """Serve a data directory over HTTP, with CouchDB's API.

    Without an administrator, the first start makes one and prints its password, once. SIGTERM or Ctrl-C stops
    the server when running requests are done; a second one stops it at once.
    """
    administrator = _administrator(admin, password, password_file)
    tls = _tls(tls_cert, tls_key)
    logs.configure(log_level or "info", log_format)
    serving.raise_file_limit()
    flags = _flags(merged(presets, origins), bind, port, log_level)
    with contextlib.ExitStack() as stack:
        with Server(data_dir, started_with=flags, config_file=config_file) as server:
            stack.callback(DirectoryLock(data_dir).release)
            config = server.config
            host = bind or config.text("chttpd", "bind_address")
            wanted = config.integer("chttpd", "port") if port is None else port
            try:
                port = stack.enter_context(serving.reserved(host, wanted))
            except OSError as error:
                raise Failure(_address_error(f"{host}:{wanted}", error)) from error
            logs.set_level(config.text("log", "level"))
            count = count or min(config.integer("couchlite", "workers"), workers.WORKERS_MAX)
            made_up = provision(server, administrator)
            started_with = _with_directories(flags, server)
        if made_up is not None:
            click.echo(f"Administrator {made_up.name!r} was made, with the password {made_up.password}")
            click.echo("It is stored nowhere and won't be shown again.")
        options = Serving(
            data_directory=data_dir,
            host=host,
            port=port,
            started_with=started_with,
            config_file=config_file,
            tls=tls,
            access_log=log_format if access_log else None,
            administrator=administrator,
            grace_s=grace_s,
            fauxton_dir=fauxton_dir,
        )
        _run(options, count if count > 0 else len(os.sched_getaffinity(0)))


def _run(options: Serving, count: int) -> None:
    def ready() -> None:
        scheme = "http" if options.tls is None else "https"
        host = f"[{options.host}]" if ":" in options.host else options.host
        processes = "1 process" if count == 1 else f"{count} worker processes"
        address = f"{scheme}://{host}:{options.port}/"
        with contextlib.suppress(OSError):  # that nobody reads it is no reason not to serve
            click.echo(f"couchlite {VERSION} serves {options.data_directory} at {address} with {processes}")
        systemd.notify(f"READY=1\nSTATUS=serves {address}")

    shared = Shared(Failures(), Metrics(count))
    try:
        if count == 1:
            serving.run(options, shared, None, ready=ready)
        else:
            Supervisor(options, count, shared, ready).run()
    except WorkerFailed as error:
        raise Failure("a worker process could not start; see the line above") from error
    except OSError as error:
        raise Failure(_address_error(f"{options.host}:{options.port}", error)) from error


def _address_error(address: str, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"{address} is in use by another program; choose another with --port"
    return f"can't listen on {address}: {error.strerror or error}"


def _administrator(name: str | None, password: str | None, file: Path | None) -> Credentials | None:
    if file is not None:
        password = file.read_text(encoding="utf-8").rstrip("\r\n")
    if password is None:
        if name is not None:
            raise click.UsageError("--admin needs --password or --password-file")
        return None
    if not password:
        raise click.UsageError("the administrator's password is empty")
    return Credentials(name or DEFAULT_ADMIN, password)


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if certificate is None and key is None:
        return None
    if certificate is None:
        raise click.UsageError("--tls-key needs --tls-cert")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise Failure(f"the certificate {certificate} can't be used: {error}") from error
    return context


def _origin(text: str) -> str:
    parts = urlsplit(text)
    if text != "*" and not (parts.scheme and parts.netloc and text == f"{parts.scheme}://{parts.netloc}"):
        raise click.BadParameter(f"{text!r} is no origin: that is scheme://host or scheme://host:port")
    return text


def _flags(
    preset: dict[str, dict[str, str]], bind: str | None, port: int | None, log_level: str | None
) -> dict[str, dict[str, str]]:
    """What the options say, as configuration."""
    flags = {"chttpd": {}, "log": {}, **preset}
    if bind is not None:
        flags["chttpd"]["bind_address"] = bind
    if port is not None:
        flags["chttpd"]["port"] = str(port)
    if log_level is not None:
        flags["log"]["level"] = log_level
    return flags


def _with_directories(flags: Sections, server: Server) -> Sections:
    directory = str(server.path.resolve() / "db")
    return {
        **flags,
        "couchdb": {
            **flags.get("couchdb", {}),
            "uuid": server.uuid,
            "database_dir": directory,
            "view_index_dir": directory,
        },
    }
