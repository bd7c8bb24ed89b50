"""How many distinct keys there are, about: HyperLogLog as `_approx_count_distinct` needs it.

A sketch is a list of its registers that are not zero, as `index * 64 + rank`, in order: small for few keys,
and at most 2,048 numbers. Keys are hashed as CouchDB hashes them (SHA-1 of the external term), so estimates
agree as long as they are by linear counting, up to some 1,800 keys; beyond, where CouchDB corrects its
estimate by a table, the estimator is that of Otmar Ertl, "New cardinality estimation algorithms for
HyperLogLog sketches" (2017), which needs none.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from hashlib import sha1
from typing import Any

from ..revision import external_term

PRECISION = 11
REGISTERS = 1 << PRECISION
LINEAR_MAX = 1800
"""Up to here linear counting is the better estimate."""
_RANK_BITS = 6
_HASH_BITS = 64 - PRECISION

Sketch = list[int]


def sketch(keys: Iterable[Any]) -> Sketch:
    """The sketch of some keys."""
    registers: dict[int, int] = {}
    for key in keys:
        digest = sha1(external_term(key), usedforsecurity=False).digest()
        number = int.from_bytes(digest[:8], "big")
        rest = number & ((1 << _HASH_BITS) - 1)
        _raise(registers, number >> _HASH_BITS, _HASH_BITS - rest.bit_length() + 1)
    return _packed(registers)


def union(sketches: Iterable[Sketch]) -> Sketch:
    registers: dict[int, int] = {}
    for one in sketches:
        for packed in one:
            _raise(registers, packed >> _RANK_BITS, packed & ((1 << _RANK_BITS) - 1))
    return _packed(registers)


def cardinality(packed: Sequence[int]) -> int:
    """The estimate."""
    zeros = REGISTERS - len(packed)
    if zeros:
        linear = REGISTERS * math.log(REGISTERS / zeros)
        if linear <= LINEAR_MAX:
            return round(linear)
    counts = [zeros] + [0] * (_HASH_BITS + 1)
    for register in packed:
        counts[register & ((1 << _RANK_BITS) - 1)] += 1
    z = REGISTERS * _tau(1 - counts[_HASH_BITS + 1] / REGISTERS)
    for rank in range(_HASH_BITS, 0, -1):
        z = (z + counts[rank]) / 2
    z += REGISTERS * _sigma(zeros / REGISTERS)
    return round(REGISTERS * REGISTERS / (2 * math.log(2)) / z)


def _raise(registers: dict[int, int], index: int, rank: int) -> None:
    if rank > registers.get(index, 0):
        registers[index] = rank


def _packed(registers: dict[int, int]) -> Sketch:
    return sorted((index << _RANK_BITS) + rank for index, rank in registers.items())


def _sigma(x: float) -> float:
    if x == 1:
        return math.inf
    power, total = 1.0, x
    while True:
        x *= x
        before = total
        total += x * power
        power += power
        if total == before:
            return total


def _tau(x: float) -> float:
    if x in (0, 1):
        return 0
    power, total = 1.0, 1 - x
    while True:
        x = math.sqrt(x)
        before = total
        power /= 2
        total -= (1 - x) ** 2 * power
        if total == before:
            return total / 3
