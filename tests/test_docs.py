"""The documentation names every option and every address there is."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from cli.main import COMMANDS, main
from couchlite.engine import CatalogSpace, Keyspace, Space
from couchlite.index.layout import IndexSpace
from http_api import app
from replicator.ledger_rows import LedgerSpace

ROOT = Path(__file__).parent.parent
RUNNING = (ROOT / "docs/running.md").read_text()
REPLICATION = (ROOT / "docs/replication.md").read_text()
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text()
FORMAT = (ROOT / "docs/format.md").read_text()
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


def test_every_page_is_in_the_list_of_the_readme() -> None:
    listed = set(re.findall(r"\]\((docs/[^)#]+)\)", (ROOT / "README.md").read_text()))
    assert {page.relative_to(ROOT).as_posix() for page in (ROOT / "docs").glob("*.md")} <= listed


@pytest.mark.parametrize("space", [*CatalogSpace, *Space, *IndexSpace, *LedgerSpace], ids=repr)
def test_every_keyspace_is_drawn(space: Keyspace) -> None:
    assert f"| `{space.name.lower()}` |" in FORMAT


@pytest.mark.parametrize(
    "name",
    sorted(
        f"{path.name}/" if path.is_dir() else path.name
        for path in (ROOT / "couchlite").iterdir()
        if (path.suffix == ".py" or (path / "__init__.py").exists()) and path.name != "__init__.py"
    ),
)
def test_every_file_of_the_store_has_its_place(name: str) -> None:
    assert f"`{name}`" in ARCHITECTURE


def test_commands_have_their_summaries() -> None:
    for name in COMMANDS:
        command = main.get_command(click.Context(main), name)
        assert command and command.name == name
