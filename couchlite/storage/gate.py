"""Transactions are counted, because sometimes none may be open in this process."""

from __future__ import annotations

import threading
from collections.abc import Callable


class Gate:
    """Who has a transaction goes in before and out after it; what needs to be alone waits until all are
    out, and meanwhile nobody goes in."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside = 0
        self._is_busy = False

    @property
    def inside(self) -> int:
        """How many transactions there are."""
        return self._inside

    def enter(self) -> None:
        with self._changed:
            while self._is_busy:
                self._changed.wait()
            self._inside += 1

    def leave(self) -> None:
        with self._changed:
            self._inside -= 1
            if self._inside == 0:
                self._changed.notify_all()

    def alone(self, change: Callable[[], object]) -> None:
        """Run `change` while nobody is inside; when somebody else is at it, wait for them instead."""
        with self._changed:
            if self._is_busy:
                self._changed.wait_for(lambda: not self._is_busy)
                return
            self._is_busy = True
            try:
                self._changed.wait_for(lambda: self._inside == 0)
                change()
            finally:
                self._is_busy = False
                self._changed.notify_all()

    def if_idle(self, change: Callable[[], object]) -> None:
        """Run `change` if nobody is inside or wants to be alone."""
        with self._changed:
            if not self._is_busy and self._inside == 0:
                change()

    def when_idle(self, change: Callable[[], object]) -> None:
        """Run `change` as soon as nobody is inside."""
        with self._changed:
            self._changed.wait_for(lambda: self._inside == 0)
            change()
