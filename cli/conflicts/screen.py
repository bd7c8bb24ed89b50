"""How values, revisions and ages look on a screen."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from couchlite.merging import MISSING
from couchlite.merging.sequences import alignment

PIPED_WIDTH = 100
"""Of tables that go to a file, unless COLUMNS says another one."""
VALUE_MAX = 240
"""Characters of a value, where not all is asked for."""
CONTEXT_LINES = 1
NONE = "(none)"

WINNER, CONFLICT, DELETED, FAINT = "green", "red", "yellow", "dim"
ADDED, REMOVED = "bold green", "bold red"

_WORD = re.compile(r"\w+|\s|[^\w\s]")


def console() -> Console:
    """Standard output: coloured on a terminal, unless NO_COLOR is set."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=width)


def printable(text: str) -> str:
    """With what would move the cursor or hide escaped; line breaks stay."""
    return "".join(one if one.isprintable() or one == "\n" else _escaped(one) for one in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def place(pointer: str) -> str:
    """A JSON pointer; the whole document's is empty."""
    return printable(pointer) or "/"


def shown(value: Any, *, whole: bool = False) -> str:
    """A value as JSON on one line."""
    if value is MISSING:
        return NONE
    return shortened(printable(json.dumps(value, ensure_ascii=False)), whole=whole)


def shortened(text: str, *, whole: bool = False) -> str:
    if whole or len(text) <= VALUE_MAX:
        return text
    return f"{text[:VALUE_MAX]}… ({len(text):,} characters)"


def compared(value: Any, other: Any, style: str, *, whole: bool = False) -> Text:
    """A value, with what `other` hasn't in a style; of long texts the lines around that."""
    if value is MISSING:
        return Text(NONE, style=FAINT if other is MISSING else style)
    if not (isinstance(value, str) and isinstance(other, str)):
        return Text(shown(value, whole=whole), style="" if value == other else style)
    if "\n" in value or "\n" in other:
        return _lines(value, other, style, whole=whole)
    if len(value) > VALUE_MAX and not whole:
        return Text(shown(value), style=style)
    return Text('"').append_text(_words(value, other, style)).append('"')


def _words(value: str, other: str, style: str) -> Text:
    words = _WORD.findall(value)
    text = Text()
    at = 0
    for match in alignment(_WORD.findall(other), words):
        text.append(printable("".join(words[at : match.leaf])), style=style)
        text.append(printable("".join(words[match.leaf : match.leaf + match.length])))
        at = match.leaf + match.length
    return text


def _lines(value: str, other: str, style: str, *, whole: bool) -> Text:
    lines = value.removesuffix("\n").split("\n")
    is_kept = [False] * len(lines)
    for match in alignment(other.removesuffix("\n").split("\n"), lines):
        is_kept[match.leaf : match.leaf + match.length] = [True] * match.length
    text = Text()
    skipped = False
    for at, line in enumerate(lines):
        near = is_kept[max(0, at - CONTEXT_LINES) : at + CONTEXT_LINES + 1]
        if all(near) and not whole:
            skipped = True
            continue
        if skipped:
            text.append("⋮\n", style=FAINT)
        skipped = False
        text.append(shortened(printable(line), whole=whole), style="" if is_kept[at] else style)
        text.append("\n")
    if skipped:
        text.append("⋮\n", style=FAINT)
    text.rstrip()
    return text or Text(shown(value), style=FAINT)


def age(since: str | None) -> str:
    """`3 days`; empty where nobody knows."""
    if since is None:
        return ""
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(since)).total_seconds()))
    for unit, size in (("day", 86_400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = seconds // size
            return f"{count} {unit}{'' if count == 1 else 's'}"
    return f"{seconds} s"


def some(names: Sequence[str], count: int) -> str:
    """`a, b and 3 more`."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more:,} more" if more > 0 else "")


_PLURALS = {"leaf": "leaves", "body": "bodies", "branch": "branches"}


def plural(count: int, noun: str) -> str:
    """`1 leaf`, `2 leaves`."""
    return f"{count:,} {noun if count == 1 else _PLURALS.get(noun, noun + 's')}"
