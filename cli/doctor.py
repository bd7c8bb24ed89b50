"""`couchlite doctor`: look at a server as its clients see it, and say how to repair what is wrong."""

from __future__ import annotations

import ssl
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import click
from rich.console import Console
from rich.markup import escape

from .address import Address
from .diagnosis import CLIENTS, Finding, Patient, State, Wire, examine
from .main import Failure
from .options import EXISTING_FILE, json_option, password_option, print_json, user_option

SIGNS: dict[State, tuple[str, str]] = {
    "ok": ("✔", "green"),
    "warn": ("!", "yellow"),
    "fail": ("✘", "red"),
    "skip": ("-", "dim"),
}


@click.command("doctor")
@click.argument("url")
@click.option(
    "--client",
    "names",
    type=click.Choice(list(CLIENTS)),
    multiple=True,
    help="From whose point of view. Can be given more than once.",
)
@click.option(
    "--origin",
    "origins",
    metavar="ORIGIN",
    multiple=True,
    help="Origin of your app's pages, such as https://app.example; otherwise those that the server lists. "
    "Can be given more than once.",
)
@user_option
@password_option
@click.option(
    "--ca-file", type=EXISTING_FILE, help="Certificates of authorities to trust beside the usual ones."
)
@click.option("--insecure", is_flag=True, help="Log in even if the server's certificate can't be verified.")
@json_option
@click.pass_context
def command(
    ctx: click.Context,
    url: str,
    names: tuple[str, ...],
    origins: tuple[str, ...],
    user: str | None,
    password: str | None,
    ca_file: Path | None,
    insecure: bool,
    as_json: bool,
) -> None:
    """Look at the server at URL, couchlite or CouchDB, as its clients see it.

    Looks at TLS, the clock, accounts, settings, disk, cross-origin requests, and what proxies break:
    addresses, methods, headers, large bodies, feeds. Each finding that isn't good comes with its repair. A
    server administrator sees most: to see what arrives, that examination makes a database
    couchlite-doctor-..., and deletes it.

    Exit code 1 if something is wrong.
    """
    wire = Wire(Address.parse(url, user, password), _trusting(ca_file))
    patient = Patient(wire, [CLIENTS[name] for name in names], origins)
    findings = examine(patient, insecure=insecure)
    if as_json:
        found = list(findings)
        print_json({"url": wire.base, "server": patient.server, "findings": [one._asdict() for one in found]})
    else:
        found = _shown(findings)
    if any(one.state == "fail" for one in found):
        ctx.exit(1)


def _trusting(ca_file: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        try:
            context.load_verify_locations(ca_file)
        except (ssl.SSLError, OSError) as error:
            raise Failure(f"{ca_file} holds no certificates") from error
    return context


def _shown(findings: Iterable[Finding]) -> list[Finding]:
    """Print the findings as they are made: with colours on a terminal, as plain lines elsewhere."""
    console = Console(highlight=False, soft_wrap=True)
    is_terminal = sys.stdout.isatty()
    found = []
    for one in findings:
        found.append(one)
        sign, colour = SIGNS[one.state]
        what, repair = _one_line(one.what), _one_line(one.repair)
        if is_terminal:
            console.print(f"[{colour}]{sign}[/] [dim]{one.area:<11}[/] {escape(what)}")
            if repair:
                console.print(f"              [cyan]→ {escape(repair)}[/]")
        else:
            click.echo(f"{one.state:<4} {one.area}: {what}" + (f" | repair: {repair}" if repair else ""))
    states = Counter(one.state for one in found)
    total = (
        f"{states['fail']} wrong, {states['warn']} to look at, {states['ok']} good, {states['skip']} not seen"
    )
    click.secho(total, bold=True) if is_terminal else click.echo(total)
    return found


def _one_line(text: str) -> str:
    """What a server said might hold anything."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)
