"""How far long work is: a line that is written over on a terminal, nothing elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import click

UPDATE_S = 0.1
_BAR_CELLS = 30


class ProgressLine:
    """Shows `show`'s newest call on standard error, if that is a terminal."""

    def __init__(self) -> None:
        self._is_shown = sys.stderr.isatty()
        self._written_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.clear()

    def show(self, what: str, done: int, total: int) -> None:
        """Cheap enough to be called often."""
        now = time.monotonic()
        if self._is_shown and now - self._written_at >= UPDATE_S:
            self._written_at = now
            share = min(1.0, done / total) if total else 0.0
            cells = round(share * _BAR_CELLS)
            bar = "#" * cells + "-" * (_BAR_CELLS - cells)
            click.echo(f"\r\x1b[K[{bar}] {share:4.0%} {what[:40]}", err=True, nl=False)

    def clear(self) -> None:
        """Make room for a line of text."""
        if self._is_shown and self._written_at:
            click.echo("\r\x1b[K", err=True, nl=False)
