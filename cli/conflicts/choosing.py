"""Clashes decided by a person: one after the other on the terminal, or all in an editor.

What must stay true here: nobody is taken at a word they didn't say. There is no default where values clash,
and an editor that changes nothing, or an empty file, means that nothing is written.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

import click
from rich.console import Console
from rich.text import Text

from couchlite.errors import CouchliteError
from couchlite.jsontext import loads
from couchlite.merging import MISSING, Clash, Merged, settle

from ..main import Failure
from . import markers
from .case import Case, JsonObject
from .differences import Difference
from .screen import ADDED, CONFLICT, FAINT, WINNER, compared, place, shown, some

VARIANTS_MAX = 9
OWNERS_MAX = 3
_KINDS = {
    "edit": "edited differently",
    "add": "added differently",
    "delete": "removed here, changed there",
    "order": "put into different orders",
    "text": "the same words were changed",
    "attachment": "different attachments",
    "no_base": "different, and what they come from isn't known",
}


def ask(merged: Merged, names: Sequence[str], screen: Console) -> Merged | None:
    """Let somebody choose a value for each clash; None if they give up."""
    choices: dict[int, Any] = {}
    for at, clash in enumerate(merged.clashes):
        screen.print(
            Text().append(f"\n{place(clash.pointer)}", "bold red").append(f"  {_KINDS[clash.kind]}", FAINT)
        )
        screen.print(Text(f"clash {at + 1} of {len(merged.clashes)}", FAINT))
        answer = _choose(clash, names, screen)
        if answer is None:
            return None
        choices[at] = answer[0]
    return settle(merged, choices)


def _choose(clash: Clash, names: Sequence[str], screen: Console) -> tuple[Any] | None:
    """The chosen value, or None to give up."""
    variants = Difference(clash.pointer, clash.base, clash.values).variants()
    variants.sort(key=lambda variant: variant[1][0])  # the winner's first
    visible = variants[:VARIANTS_MAX]
    screen.print(Text().append("  b  base  ", FAINT).append_text(compared(clash.base, clash.base, "")))
    while True:
        for number, (value, owners) in enumerate(visible, 1):
            who = some([names[owner] for owner in owners], OWNERS_MAX)
            line = (
                Text()
                .append(f"  {number}  ", "bold")
                .append(who, WINNER if owners[0] == 0 else CONFLICT)
                .append("  ")
            )
            screen.print(line.append_text(compared(value, clash.base, ADDED)))
        more = len(variants) - len(visible)
        if more:
            screen.print(Text(f"  a  show {more:,} more values", FAINT))
        answer = click.prompt("Which one? (number, b, e to edit, q to give up)", prompt_suffix=" ").strip()
        if answer == "q":
            return None
        if answer == "b":
            return (clash.base,)
        if answer == "e":
            edited = _edit_value(clash.base if clash.values[0] is MISSING else clash.values[0])
            if edited is not None:
                return edited
        elif answer == "a" and more:
            visible = variants
        elif answer.isdecimal() and 0 < int(answer) <= len(visible):
            return (visible[int(answer) - 1][0],)


def _edit_value(value: Any) -> tuple[Any] | None:
    """A value from the editor; None if it was left without saving or is no JSON."""
    text = "" if value is MISSING else json.dumps(value, ensure_ascii=False, indent=2)
    edited = _editor(text + "\n")
    if edited is None:
        return None
    try:
        return (loads(edited) if edited.strip() else MISSING,)
    except CouchliteError as error:
        click.secho(f"That is no JSON: {error.reason}", fg="red", err=True)
        return None


def edit(merged: Merged, names: Sequence[str]) -> JsonObject | None:
    """The merged document as somebody leaves it in their editor, $VISUAL or $EDITOR; None if they give up.

    :raises Failure: it is no document, and there is nobody to ask to correct it.
    """
    text = markers.write(merged, names)
    while True:
        edited = _editor(text)
        if edited is None or not edited.strip():
            return None
        text = edited
        try:
            return markers.read(text)
        except markers.Unreadable as error:
            if not sys.stdin.isatty():
                raise Failure(str(error)) from None
            click.secho(str(error), fg="red", err=True)
            if not click.confirm("Edit it again?", default=True):
                return None


def _editor(text: str) -> str | None:
    """What comes of it in the editor; None if it was left without saving."""
    try:
        return click.edit(text, extension=".json")
    except click.ClickException as error:
        raise Failure(f"the editor failed: {error.message}") from error


def leaf_names(case: Case, names: dict[str, str]) -> list[str]:
    """What the leaves are called."""
    return [names[rev] + (" winner" if at == 0 else "") for at, rev in enumerate(case.revs)]


def clash_lines(clashes: Sequence[Clash], names: Sequence[str]) -> list[str]:
    """A clash on each line, for those who can't be asked."""
    lines = []
    for clash in clashes:
        variants = Difference(clash.pointer, clash.base, clash.values).variants()
        values = ", ".join(
            f"{some([names[at] for at in owners], 1)}: {shown(value)}" for value, owners in variants[:5]
        )
        more = f" and {len(variants) - 5:,} other values" if len(variants) > 5 else ""
        lines.append(f"{place(clash.pointer)}\tbase: {shown(clash.base)}, {values}{more}")
    return lines
