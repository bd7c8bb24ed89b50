"""Erlang's view of JSON values, where it shows through: in reasons of errors, in `$all`, and under `_id`."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from ..collation import ArrayMark, EndMark, ObjectMark, tokens

# Deeper parts are shown as `...`, which is how Erlang abridges.
_SHOWN_DEPTH_MAX = 100
# From here on floats skip integers, and Erlang shows that by writing them with an exponent.
_EXACT_INTEGERS_END = 2.0**53


def term_text(value: Any, depth: int = _SHOWN_DEPTH_MAX, *, quoted: bool = False) -> str:
    """A value as Erlang's `~w` prints it: strings as lists of bytes, objects as lists of pairs; `quoted`, as
    `~p` does: those of printable ASCII characters in quotes."""
    if depth == 0:
        return "..."

    def part(value: Any) -> str:
        return term_text(value, depth - 1, quoted=quoted)

    if isinstance(value, dict):
        members = (f"{{{part(name)},{part(member)}}}" for name, member in value.items())
        return f"{{[{','.join(members)}]}}"
    if isinstance(value, list):
        return f"[{','.join(map(part, value))}]"
    if isinstance(value, str) and quoted and value and value.isascii() and value.isprintable():
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return f'<<"{escaped}">>'
    if isinstance(value, str):
        return f"<<{','.join(map(str, value.encode()))}>>"
    if isinstance(value, float):
        return _float_text(value)
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _float_text(number: float) -> str:
    """The shortest digits that read back as `number`, with an exponent where that takes fewer characters
    (io_lib_format:fwrite_g)."""
    sign, all_digits, exponent = Decimal(repr(number)).as_tuple()
    assert isinstance(exponent, int)
    significant = "".join(map(str, all_digits)).lstrip("0")
    digits = significant.rstrip("0") or "0"
    point = len(significant) + exponent if significant else 1  # where it stands in the digits
    exponent_text = str(point - 1)
    exponent_cost = len(exponent_text) + (3 if len(digits) == 1 else 2)
    if abs(number) >= _EXACT_INTEGERS_END:
        exponent_cost = 0
    if point <= 0 and 2 - point <= exponent_cost:
        text = f"0.{'0' * -point}{digits}"
    elif 0 < point < len(digits):
        text = f"{digits[:point]}.{digits[point:]}"
    elif point >= len(digits) and point - len(digits) + 2 <= exponent_cost:
        text = f"{digits}{'0' * (point - len(digits))}.0"
    else:
        text = f"{digits[0]}.{digits[1:] or '0'}e{exponent_text}"
    return f"-{text}" if sign else text


def same_term(left: Any, right: Any, *, exact: bool) -> bool:
    """Equality in Erlang: members in the same order, strings byte by byte; if `exact`, 1 isn't 1.0."""
    return all(
        one == other and (type(one) is type(other) or (not exact and _rank(one) == _rank(other)))
        for one, other in zip(tokens(left), tokens(right), strict=False)
    )


def compare_terms(left: Any, right: Any) -> int:
    """Erlang's order: numbers, false, null, true, objects, arrays, and then strings by their bytes."""
    for one, other in zip(tokens(left), tokens(right), strict=False):
        rank, other_rank = _rank(one), _rank(other)
        if rank != other_rank:
            return rank - other_rank
        if rank in _ORDERED_WITHIN and one != other:
            return 1 if one > other else -1
    return 0


def _rank(token: Any) -> int:
    return _RANK_OF_TRUE if token is True else _RANK[type(token)]


_RANK_OF_TRUE = 4
_RANK = {
    EndMark: 0,
    int: 1,
    float: 1,
    bool: 2,
    type(None): 3,
    ObjectMark: 5,
    ArrayMark: 6,
    str: 7,
}
_ORDERED_WITHIN = frozenset({_RANK[int], _RANK[str]})
