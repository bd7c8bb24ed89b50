"""Documents as a selector has to see them: parsed many at once, and as exactly as it asks."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from ..jsontext import dumps, loads, loads_near

_EXACT = re.compile(rb'[0-9]{19}|"\$mod"')
"""In selectors that tell integers beyond 64 bits from the nearest double."""


def reader_for(selector: Any) -> Callable[[Sequence[bytes | None]], Sequence[Any]]:
    """A function that parses JSON texts; None stays None."""
    load = loads if _EXACT.search(dumps(selector)) else loads_near

    def read(texts: Sequence[bytes | None]) -> Sequence[Any]:
        found: list[Any] = load(b"[%b]" % b",".join([b"null" if text is None else text for text in texts]))
        return found

    return read
