"""Which elements of arrays are the same: each is given an id, the same in base and leaves. Pure."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..jsontext import canonical
from .sequences import Id, alignment

# An element of an array that lost some and got others is taken for an edited one if so much of it stayed.
SIMILARITY_MIN = 0.5


@dataclass(frozen=True, slots=True)
class Aligned:
    """The elements by their ids, in order."""

    base: Mapping[Id, Any]
    leaves: Sequence[Mapping[Id, Any]]
    is_unordered: bool = False


def align_by_value(base: Sequence[Any], leaves: Sequence[Sequence[Any]]) -> Aligned:
    """As sets: what is equal is the same; no order, nothing twice."""
    return Aligned(_by_value(base), [_by_value(leaf) for leaf in leaves], is_unordered=True)


def _by_value(elements: Sequence[Any]) -> dict[Id, Any]:
    found: dict[Id, Any] = {}
    for element in elements:
        found.setdefault((canonical(element), 0), element)
    return found


def align_by_field(base: Sequence[Any], leaves: Sequence[Sequence[Any]], name: str) -> Aligned | None:
    """Objects by a member that names them; None unless each has it, and no two of an array share it."""
    by_field = [_by_field(elements, name) for elements in (base, *leaves)]
    known = [one for one in by_field if one is not None]
    return Aligned(known[0], known[1:]) if len(known) == len(by_field) else None


def _by_field(elements: Sequence[Any], name: str) -> dict[Id, Any] | None:
    if not all(type(element) is dict and name in element for element in elements):
        return None
    found = {(canonical(element[name]), 0): element for element in elements}
    return found if len(found) == len(elements) else None


def align_list(base: Sequence[Any], leaves: Sequence[Sequence[Any]]) -> Aligned:
    """By alignment with the base.

    An element is the same if it is equal and in its place, or equal and somewhere else (it was moved), or
    if it stands in the place of one that is gone: there are as many new ones there as are gone, or it is
    alike (see `_pairs`). Others are new; those that several leaves put at one place are the same if equal.
    """
    texts = [canonical(element) for element in base]
    base_ids: list[Id] = [(text, at) for at, text in enumerate(texts)]
    aligned: dict[tuple[bytes, ...], list[Id]] = {}
    found = []
    for leaf in leaves:
        leaf_texts = tuple(canonical(element) for element in leaf)
        if leaf_texts not in aligned:
            aligned[leaf_texts] = _ids(base, texts, leaf, leaf_texts)
        found.append(dict(zip(aligned[leaf_texts], leaf, strict=True)))
    return Aligned(dict(zip(base_ids, base, strict=True)), found)


def _ids(
    base: Sequence[Any], texts: Sequence[bytes], leaf: Sequence[Any], leaf_texts: Sequence[bytes]
) -> list[Id]:
    """For each element of a leaf the id of the base's element that it is, or one of its own."""
    origin: list[int | None] = [None] * len(leaf)
    gaps: list[tuple[range, range]] = []
    base_end = leaf_end = 0
    for match in alignment(texts, leaf_texts):
        gaps.append((range(base_end, match.base), range(leaf_end, match.leaf)))
        for offset in range(match.length):
            origin[match.leaf + offset] = match.base + offset
        base_end, leaf_end = match.base + match.length, match.leaf + match.length
    gone: defaultdict[bytes, list[int]] = defaultdict(list)
    for removed, _added in gaps:
        for at in removed:
            gone[texts[at]].append(at)
    moved = set()
    for _removed, added in gaps:
        for at in added:
            if places := gone.get(leaf_texts[at]):
                origin[at] = places.pop(0)
                moved.add(origin[at])
    for removed, added in gaps:
        lost = [at for at in removed if at not in moved]
        new = [at for at in added if origin[at] is None]
        for lost_at, new_at in _pairs(base, lost, leaf, new):
            origin[new_at] = lost_at
    return list(_named(texts, leaf_texts, origin))


def _named(texts: Sequence[bytes], leaf_texts: Sequence[bytes], origin: Sequence[int | None]) -> Iterable[Id]:
    """New elements are numbered by the base's element before them and, if equal, one by one: so two leaves
    that put equal ones at one place put the same."""
    place = -1
    seen: Counter[tuple[int, bytes]] = Counter()
    for at, text in enumerate(leaf_texts):
        came_from = origin[at]
        if came_from is None:
            seen[place, text] += 1
            # Below zero, since the base's own elements have their indexes there.
            yield text, -(seen[place, text] * (len(texts) + 2) + place)
        else:
            place = came_from
            yield texts[came_from], came_from


def _pairs(
    base: Sequence[Any], lost: Sequence[int], leaf: Sequence[Any], new: Sequence[int]
) -> Iterable[tuple[int, int]]:
    """Which new elements stand for which lost ones of the same place."""
    if len(lost) == len(new):
        yield from zip(lost, new, strict=True)
        return
    start = 0
    for lost_at in lost:
        for index in range(start, len(new)):
            if _are_alike(base[lost_at], leaf[new[index]]):
                yield lost_at, new[index]
                start = index + 1
                break


def _are_alike(one: Any, other: Any) -> bool:
    """Whether at least half of the members of two objects are equal."""
    if type(one) is not dict or type(other) is not dict:
        return False
    same = sum(name in other and canonical(value) == canonical(other[name]) for name, value in one.items())
    return same >= SIMILARITY_MIN * max(len(one), len(other), 1)
