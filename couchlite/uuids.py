"""Ids for documents that come without one: CouchDB's algorithms, in the section [uuids].

By default they are sequential, for an index likes ids that come in order: a random beginning of 26 digits and
six that grow in small random steps, until a new beginning is due. `random` is 32 random digits; `utc_random`
and `utc_id` begin with the microseconds since 1970, and end with random digits or the `utc_id_suffix`.
Source: couch_uuids.erl.
"""

from __future__ import annotations

import secrets
import time

from .config import Config

STEP_MAX = 0xFFD
LAST_NUMBER = 0xFFF000


class Uuids:
    """The ids of one process; those of others differ by their random beginning."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._begin()
        self._latest_us = 0

    def new(self) -> str:
        match self._config.text("uuids", "algorithm"):
            case "random":
                return secrets.token_hex(16)
            case "utc_random":
                return self._moment() + secrets.token_hex(9)
            case "utc_id":
                return self._moment() + self._config.text("uuids", "utc_id_suffix")
            case _:
                return self._sequential()

    def _sequential(self) -> str:
        fresh = f"{self._prefix}{self._number:06x}"
        if self._number >= LAST_NUMBER:
            self._begin()
        else:
            self._number += _step()
        return fresh

    def _begin(self) -> None:
        self._prefix = secrets.token_hex(13)
        self._number = _step()

    def _moment(self) -> str:
        """The microseconds since 1970 in 14 digits, never the same twice."""
        self._latest_us = max(self._latest_us + 1, time.time_ns() // 1000)
        return f"{self._latest_us:014x}"


def _step() -> int:
    return 1 + secrets.randbelow(STEP_MAX)
