"""`couchlite completion`: what a shell has to load to complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from . import main as program

SHELLS = ("bash", "zsh", "fish")


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS))
def command(shell: str) -> None:
    """Print what SHELL has to load to complete couchlite's commands and options.

    \b
    bash, in ~/.bashrc:                   eval "$(couchlite completion bash)"
    zsh, in ~/.zshrc (after compinit):    eval "$(couchlite completion zsh)"
    fish, in ~/.config/fish/config.fish:  couchlite completion fish | source
    """
    found = get_completion_class(shell)
    assert found is not None  # each of SHELLS has one
    click.echo(found(program.main, {}, "couchlite", "_COUCHLITE_COMPLETE").source())
