"""What an examination comes to: one line about each thing that was looked at, and one about its repair."""

from __future__ import annotations

from typing import Literal, NamedTuple

State = Literal["ok", "warn", "fail", "skip"]
"""`warn`: works, but not for everybody or not for ever; `skip`: it could not be looked at."""


class Finding(NamedTuple):
    area: str
    state: State
    what: str
    """One line."""
    repair: str = ""
    """The command or setting that repairs it."""


class Notes:
    """Makes the findings of one area."""

    def __init__(self, area: str) -> None:
        self._area = area

    def ok(self, what: str) -> Finding:
        return Finding(self._area, "ok", what)

    def skip(self, what: str, repair: str = "") -> Finding:
        return Finding(self._area, "skip", what, repair)

    def warn(self, what: str, repair: str) -> Finding:
        return Finding(self._area, "warn", what, repair)

    def fail(self, what: str, repair: str) -> Finding:
        return Finding(self._area, "fail", what, repair)

    def judge(self, good: bool, what: str, otherwise: str, repair: str, worst: State = "fail") -> Finding:
        """`what` where it is good, else `otherwise` and how to repair it."""
        if good:
            return self.ok(what)
        return Finding(self._area, worst, otherwise, repair)
