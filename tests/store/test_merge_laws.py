"""Laws of merging, on documents and edits made at random."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import permutations
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from couchlite.jsontext import canonical, dumps
from couchlite.merging import MISSING, Merged, Rules, merge
from couchlite.merging.text import chunks, merge_text
from tests.strategies import json_objects

# Few names and values, so that edits meet.
names = st.sampled_from("abcd")
scalars = st.integers(0, 3) | st.sampled_from(["x", "y", True, None, 1.0, 2.5])
trees = st.recursive(scalars, lambda inner: st.dictionaries(names, inner, max_size=4), max_leaves=8)
objects = st.dictionaries(names, trees, max_size=4)
values = st.recursive(
    scalars | st.sampled_from(["a\nb\n", "a\nc\n", "b\nc\n"]),
    lambda inner: st.dictionaries(names, inner, max_size=4) | st.lists(inner, max_size=4),
    max_leaves=10,
)
documents = st.dictionaries(names, values, max_size=4)
rules = st.dictionaries(
    st.sampled_from(["/a", "/b", "/*", "/**", "/a/*", "/c/**/a"]),
    st.sampled_from(["value", "list", "set", "by:a", "text", "lines", "counter", "max", "min", "newest:/d"]),
    max_size=3,
).map(Rules.parse)
lists = st.lists(st.integers(0, 5), max_size=6)
leaf_counts = st.integers(2, 4)


@st.composite
def edited(draw: st.DrawFn) -> tuple[Any, list[Any]]:
    """A base, perhaps, and leaves that have much in common with it."""
    base = draw(documents)
    leaves = []
    for _ in range(draw(leaf_counts)):
        leaf = copy.deepcopy(base)
        for _ in range(draw(st.integers(0, 3))):
            edit(draw, leaf)
        leaves.append(leaf)
    return draw(st.sampled_from([base, base, base, None])), leaves


def edit(draw: st.DrawFn, leaf: Any) -> None:
    containers = list(containers_of(leaf))
    container = containers[draw(st.integers(0, len(containers) - 1))]
    if type(container) is dict:
        name = draw(names)
        if draw(st.booleans()):
            container[name] = draw(values)
        else:
            container.pop(name, None)
    else:
        at = draw(st.integers(0, len(container)))
        container[at : at + draw(st.integers(0, 2))] = draw(st.lists(values, max_size=2))


def containers_of(value: Any) -> Iterator[Any]:
    if type(value) in (dict, list):
        yield value
        for member in value.values() if type(value) is dict else value:
            yield from containers_of(member)


def places(merged: Merged) -> list[tuple[str, str, list[bytes]]]:
    """The clashes but for the order of the leaves."""
    return [
        (clash.pointer, clash.kind, sorted(b"" if one is MISSING else canonical(one) for one in clash.values))
        for clash in merged.clashes
    ]


@given(edited(), rules)
def test_merging_is_symmetric(case: tuple[Any, list[Any]], rules: Rules) -> None:
    base, leaves = case
    found = [merge(base, order, rules) for order in permutations(leaves)]
    if found[0].is_clean:
        assert {dumps(one.document) for one in found} == {dumps(found[0].document)}
    else:
        assert all(len(one.clashes) > 0 for one in found)


@given(edited(), rules)
def test_what_clashes_does_not_depend_on_the_order_either(case: tuple[Any, list[Any]], rules: Rules) -> None:
    base, leaves = case
    found = [sorted(kinds(merge(base, order, rules))) for order in permutations(leaves)]
    assert all(one == found[0] for one in found)


def kinds(merged: Merged) -> list[tuple[str, list[bytes]]]:
    return [(kind, values) for _pointer, kind, values in places(merged)]


@given(documents, documents, rules)
def test_one_sided_edits_are_the_result(base: Any, leaf: Any, rules: Rules) -> None:
    for leaves in ([leaf, base], [base, leaf], [leaf], [leaf, base, base]):
        found = merge(base, leaves, rules)
        assert found.is_clean
        assert canonical(found.document) == canonical(leaf)


@given(documents, documents)
def test_equal_edits_agree(base: Any, leaf: Any) -> None:
    for known in (base, None):
        found = merge(known, [leaf, leaf, leaf])
        assert found.is_clean
        assert canonical(found.document) == canonical(leaf)


@given(edited(), rules)
def test_merging_the_result_again_changes_nothing(case: tuple[Any, list[Any]], rules: Rules) -> None:
    """As when a peer that saw all leaves and one that saw some of them have merged them at once."""
    base, leaves = case
    found = merge(base, leaves)
    if found.is_clean and base is not None:
        again = merge(base, [found.document, found.document, base])
        assert again.is_clean
        assert canonical(again.document) == canonical(found.document)


@given(json_objects, json_objects, json_objects)
def test_any_json_can_be_merged(base: Any, left: Any, right: Any) -> None:
    for known in (base, None):
        found = merge(known, [left, right])
        assert found.is_clean == merge(known, [right, left]).is_clean


# Of objects and scalars all can be foretold, place by place.


@given(objects, st.lists(objects, min_size=2, max_size=4))
def test_clashes_are_exactly_the_places_edited_differently(base: Any, leaves: list[Any]) -> None:
    found = merge(base, leaves)
    expected: dict[str, Any] = {}
    assert {clash.pointer for clash in found.clashes} == set(differing("", base, leaves, expected))
    for clash in found.clashes:
        assert clash.values == tuple(at(leaf, clash.pointer) for leaf in leaves)
        assert clash.base is at(base, clash.pointer) or clash.base == at(base, clash.pointer)
        assert at(found.document, clash.pointer) == at(leaves[0], clash.pointer)
    for pointer, value in expected.items():
        assert canonical_or_missing(at(found.document, pointer)) == value, pointer


def differing(pointer: str, base: Any, sides: list[Any], expected: dict[str, Any]) -> Iterator[str]:
    """The places with different edits; what all others must become is put into `expected`."""
    edits = {canonical_or_missing(side) for side in sides} - {canonical_or_missing(base)}
    if len(edits) < 2:
        expected[pointer] = edits.pop() if edits else canonical_or_missing(base)
        return
    changed = [side for side in sides if canonical_or_missing(side) != canonical_or_missing(base)]
    if all(type(side) is dict for side in changed) and (type(base) is dict or base is MISSING):
        inner = [side if type(side) is dict else {} for side in (base, *sides)]
        for name in {name for side in inner for name in side}:
            members = [side.get(name, MISSING) for side in inner]
            yield from differing(f"{pointer}/{name}", members[0], members[1:], expected)
    else:
        yield pointer


def canonical_or_missing(value: Any) -> Any:
    return MISSING if value is MISSING else canonical(value)


def at(value: Any, pointer: str) -> Any:
    for name in pointer.split("/")[1:]:
        value = value.get(name, MISSING) if type(value) is dict else MISSING
    return value


# Of arrays: nothing that was added gets lost, nothing that was removed comes back.


@given(lists, st.lists(lists, min_size=2, max_size=3))
def test_sets_have_what_nobody_removed_and_what_anybody_added(base: Any, leaves: list[Any]) -> None:
    found = merge({"x": base}, [{"x": leaf} for leaf in leaves], Rules.parse({"/x": "set"}))
    kept = set(base).intersection(*leaves)
    added = {element for leaf in leaves for element in leaf} - set(base)
    assert found.is_clean
    if len({tuple(leaf) for leaf in leaves} - {tuple(base)}) > 1:
        assert len(found.document["x"]) == len(kept | added)
    assert set(found.document["x"]) == kept | added


@given(st.permutations(range(6)), st.data())
def test_arrays_of_unlike_elements_keep_what_was_added_and_lose_what_was_removed(
    base: Any, data: Any
) -> None:
    """Only removals and insertions: where as many come as go, they are edits."""
    leaves = []
    for side in range(data.draw(leaf_counts)):
        leaf = list(base)
        if data.draw(st.booleans()):
            del leaf[data.draw(st.integers(0, 4)) :][:2]
        for number in range(data.draw(st.integers(0, 2))):
            leaf.insert(data.draw(st.integers(0, len(leaf))), f"{side}.{number}")
        if data.draw(st.booleans()):
            leaf.remove(data.draw(st.sampled_from(leaf)))
        leaves.append(leaf)
    found = merge({"x": base}, [{"x": leaf} for leaf in leaves], Rules.parse({"/x": "by:nothing"}))
    if found.is_clean:
        merged = found.document["x"]
        assert {one for one in base if one in merged} <= set(base).intersection(*leaves)
        for leaf in leaves:
            assert {one for one in leaf if type(one) is str} <= set(merged)
        assert len(set(merged)) == len(merged)


# Of texts.

texts = st.lists(st.sampled_from(["a b\n", "c d\n", "e\n", "a c\n", "\n", "f"]), max_size=5).map("".join)


@given(texts, st.lists(texts, min_size=2, max_size=3))
def test_the_pieces_of_a_text_put_together_are_what_each_side_has(base: str, sides: list[str]) -> None:
    found = list(chunks(base, sides))
    assert "".join(chunk.base for chunk in found) == base
    for side, text in enumerate(sides):
        assert "".join(chunk.values[side] for chunk in found) == text
    results = {merge_text(base, order) for order in permutations(sides)}
    assert len(results) == 1
    clean = all(chunk.merged is not None for chunk in found)
    assert (results.pop() is not None) == clean
