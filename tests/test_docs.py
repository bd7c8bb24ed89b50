"""The documentation names every option and every address there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from cli.main import COMMANDS, main
from http_api import app

ROOT = Path(__file__).parent.parent
RUNNING = (ROOT / "docs/running.md").read_text()
REPLICATION = (ROOT / "docs/replication.md").read_text()
COMPATIBILITY = (ROOT / "docs/compatibility.md").read_text()


def options_of_serve() -> list[str]:
    serve = main.get_command(click.Context(main), "serve")
    assert serve
    return [name for option in serve.params for name in (*option.opts, *option.secondary_opts)]


@pytest.mark.parametrize("option", options_of_serve())
def test_every_option_of_serve_is_explained(option: str) -> None:
    assert f"`{option}`" in RUNNING


def options_of_replicate() -> list[str]:
    replicate = main.get_command(click.Context(main), "replicate")
    assert replicate
    shared = ("--data-dir", "--url", "--help", "--use-checkpoints")
    names = [name for option in replicate.params for name in (*option.opts, *option.secondary_opts)]
    return [name for name in names if name.startswith("--") and name not in shared and "target-" not in name]


@pytest.mark.parametrize("option", options_of_replicate())
def test_every_option_of_replicate_is_explained(option: str) -> None:
    assert f"`{option}" in REPLICATION


@pytest.mark.parametrize(
    "address",
    [
        *(f"/{name}" for name in app.SERVER_ROUTES),
        *(f"/_node/{{node}}/{name}" for name in app.NODE_ROUTES),
        *("/{db}/" + "/".join(segments) for segments in app.DATABASE_ROUTES),
        *(f"/{{db}}/{name}" for name in app.DATABASE_PREFIX_ROUTES),
    ],
)
def test_every_address_is_listed(address: str) -> None:
    assert f"`{address}`" in COMPATIBILITY


def test_every_link_leads_somewhere() -> None:
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_commands_have_their_summaries() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command and command.name == name
