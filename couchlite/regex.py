"""The regular expressions of `$regex` and of the configuration. Only this file knows pcre2.

CouchDB matches with PCRE, and with UTF-8 bytes, not characters: `^.$` does not match "é". So does this file,
by PCRE's successor, whose own limit on backtracking (some 25 ms) also ends what would take for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import pcre2

# A selector is compiled once, but its patterns are checked before.
_PATTERNS_KEPT = 64


def is_pattern(text: str) -> bool:
    """Whether PCRE understands it."""
    try:
        _compile(text)
    except pcre2.LibraryError:
        return False
    return True


def searcher(text: str) -> Callable[[str], bool]:
    """Whether the pattern matches somewhere in a string; it doesn't where the search takes too long."""
    search = _compile(text).search

    def found(value: str) -> bool:
        try:
            return search(value.encode()) is not None
        except pcre2.LibraryError:
            return False

    return found


@lru_cache(_PATTERNS_KEPT)
def _compile(text: str) -> pcre2.Pattern:
    return pcre2.compile(text.encode(), jit=True)
