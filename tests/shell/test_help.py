"""What the commands say of themselves."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from cli.main import COMMANDS, HEADINGS, main


def paths(group: click.Group = main, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield before
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from paths(command, (*before, name))
        else:
            yield (*before, name)


def command_at(path: tuple[str, ...]) -> click.Command:
    command: click.Command = main
    for name in path:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), name)
        assert found is not None
        command = found
    return command


each_command = pytest.mark.parametrize("path", list(paths()), ids=lambda path: "-".join(path) or "couchlite")


@each_command
def test_help_fits_a_terminal_of_80_columns(path: tuple[str, ...]) -> None:
    shown = CliRunner().invoke(main, [*path, "--help"], terminal_width=80, prog_name="couchlite")
    assert shown.exit_code == 0
    assert shown.output.startswith(" ".join(("Usage: couchlite", *path)))
    assert [line for line in shown.output.splitlines() if len(line) > 80] == []


@each_command
def test_every_command_and_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command = command_at(path)
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, option.name


def test_an_option_means_the_same_in_every_command() -> None:
    """But those of whole services, and those that say which of two ends they mean."""
    meanings: dict[str, set[str]] = {}
    for path in paths():
        if path[:1] in (("serve",), ("replicate",), ("replicator",)):
            continue
        for option in command_at(path).params:
            if isinstance(option, click.Option) and option.name in SHARED:
                meanings.setdefault(option.name, set()).add(f"{option.opts} {option.envvar} {option.help}")
    assert set(meanings) == SHARED
    assert {name: len(found) for name, found in meanings.items()} == dict.fromkeys(SHARED, 1)


SHARED = {"data_dir", "url", "user", "password", "as_json"}


def test_every_command_stands_below_a_heading() -> None:
    assert next(iter(COMMANDS)) in HEADINGS, "the first heading comes before the first command"
    assert set(HEADINGS) <= set(COMMANDS)
    assert list(HEADINGS) == [name for name in COMMANDS if name in HEADINGS], "in the commands' order"
