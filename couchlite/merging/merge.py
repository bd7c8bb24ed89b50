"""The three-way merge of JSON documents: a base and any number of leaves. Pure.

At each place the leaves' values are compared with the base's. Nobody changed it: it stays. One leaf changed
it, or all that did changed it alike: that is the result. Else the parts are merged in the same way (members
of objects, elements of arrays, lines and words of texts), or a rule says what to do, or it is a clash.

What must stay true here:

1. Merging is symmetric: where there is no clash, the result doesn't depend on the order of the leaves, down
   to the order of members; and what clashes doesn't, either. All are merged at once, never one by one.
   (The rule `winner` is the exception that its name says.)
2. Without a clash, each change that one leaf made and no other touched is in the result.
3. Without a base only what all leaves agree about is without a clash, or where a rule chooses between values.
4. Values are the same if they mean the same (`jsontext.canonical`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cmp_to_key
from typing import Any

from .. import collation
from ..jsontext import canonical, dumps
from .arrays import Aligned, align_by_field, align_by_value, align_list
from .rules import Rule, Rules
from .sequences import merged_order
from .text import merge_text
from .values import (
    ATTACHMENTS,
    MISSING,
    UNKNOWN,
    Absent,
    Clash,
    ClashKind,
    Found,
    JsonObject,
    Merged,
    Outcome,
    Path,
    clashed,
    parse_pointer,
    pointer,
    within,
)

# What is nested deeper is merged as a whole; far more than documents have, less than Python's stack holds.
DEPTH_MAX = 100


def merge(
    base: JsonObject | None, leaves: Sequence[JsonObject | Absent], rules: Rules | None = None
) -> Merged:
    """Merge leaves of a document that come from `base`.

    :param base: their nearest common ancestor, without `_id` and `_rev`, with attachment stubs if it has
        attachments; None if it isn't known.
    :param leaves: likewise; the winner first, since at a clash the result holds what the first one holds.
        MISSING for a leaf that is a deletion.
    """
    if not leaves:
        raise ValueError("there is nothing to merge")
    known: JsonObject | Absent = UNKNOWN if base is None else base
    documents = [known, *leaves]
    if any(type(document) is dict and ATTACHMENTS in document for document in documents):
        documents = [_with_attachments(document) for document in documents]
    value, found = _Merger(rules or Rules(), leaves).merge(documents[0], documents[1:], ())
    clashes = tuple(Clash(pointer(one.path), one.base, one.values, one.kind) for one in found)
    if type(value) is dict and value.get(ATTACHMENTS) == {}:
        value = {name: member for name, member in value.items() if name != ATTACHMENTS}
    if value is MISSING:
        return Merged({}, clashes, deleted=True)
    return Merged(value, clashes)


def _with_attachments(document: JsonObject | Absent) -> JsonObject | Absent:
    """To have none is to have no attachment of any name."""
    return {**document, ATTACHMENTS: document.get(ATTACHMENTS, {})} if type(document) is dict else document


@dataclass(slots=True)
class _Place:
    """Where a merge is: the values there, and what of them differs from the base."""

    base: Any
    values: Sequence[Any]
    path: Path
    changed: list[int]
    """Which leaves changed it. Without a base, all of them."""
    variants: list[Any] = field(default_factory=list)
    """What they changed it to: one of each meaning."""

    def clash(self, kind: ClashKind | None = None) -> Outcome:
        return clashed(kind or self.kind(), self.base, self.values)

    def kind(self) -> ClashKind:
        if self.base is UNKNOWN:
            return ClashKind.NO_BASE
        if any(variant is MISSING for variant in self.variants):
            return ClashKind.DELETE
        return ClashKind.ADD if self.base is MISSING else ClashKind.EDIT

    def all_are(self, kind: type, absent: tuple[Any, ...] = ()) -> bool:
        """Whether base and variants are of a type; `absent` says what else a base may be."""
        of_kind = all(type(variant) is kind for variant in self.variants)
        return of_kind and (type(self.base) is kind or self.base in absent)


class _Merger:
    def __init__(self, rules: Rules, leaves: Sequence[JsonObject | Absent]) -> None:
        self._rules = rules
        self._leaves = leaves

    def merge(self, base: Any, values: Sequence[Any], path: Path) -> Outcome:
        """What becomes of the value at `path`."""
        if type(base) in _PLAIN and all(type(value) is type(base) and value == base for value in values):
            return Outcome(base)
        is_attachment = len(path) == 2 and path[0] == ATTACHMENTS
        meaning = _attachment_meaning if is_attachment else _meaning
        meanings = [meaning(value) for value in values]
        base_meaning = None if base is UNKNOWN else meaning(base)
        changed = [at for at, one in enumerate(meanings) if one != base_meaning]
        if not changed:
            return Outcome(base)
        by_meaning: dict[bytes, list[Any]] = {}
        for at in changed:
            by_meaning.setdefault(meanings[at], []).append(values[at])
        spell = _attachment_spelling if is_attachment else _spelling
        place = _Place(base, values, path, changed, [min(same, key=spell) for same in by_meaning.values()])
        rule = self._rules.at(path)
        if rule is not None and rule.name == "counter" and len(changed) > 1 and (total := _counted(place)):
            return total
        if path == (ATTACHMENTS,) and place.all_are(dict, (UNKNOWN,)):
            return self._merge_members(place)  # stubs that differ may mean the same
        if len(place.variants) == 1 and not self._may_count_within(place, rule):
            return Outcome(place.variants[0])
        if is_attachment:
            return place.clash(None if MISSING in place.variants else ClashKind.ATTACHMENT)
        by_rule = self._merge_by_rule(place, rule) if rule is not None else None
        return by_rule or self._merge_by_type(place)

    def _may_count_within(self, place: _Place, rule: Rule | None) -> bool:
        """Whether counters may be in what several leaves changed alike, so that it has to be looked into."""
        is_whole = rule is not None and rule.name not in ("list", "set", "by")
        is_several = self._rules.has_counters and len(place.changed) > 1 and not is_whole
        return is_several and (place.all_are(dict, (MISSING,)) or place.all_are(list, (MISSING,)))

    # --- by type

    def _merge_by_type(self, place: _Place) -> Outcome:
        if len(place.path) >= DEPTH_MAX:
            return place.clash()
        if place.all_are(dict, (MISSING, UNKNOWN)):
            return self._merge_members(place)
        if place.all_are(list, (MISSING,)):
            return self._merge_elements(place, align_list)
        if place.all_are(str) and all("\n" in text for text in (place.base, *place.variants)):
            return _merged_text(place)
        return place.clash()

    def _merge_members(self, place: _Place) -> Outcome:
        base = place.base if type(place.base) is dict else {}
        absent = UNKNOWN if place.base is UNKNOWN else MISSING
        values = [value if type(value) is dict else {} for value in place.values]
        names = dict.fromkeys(base)
        orders = {tuple(value): None for value in values}
        if len(orders) > 1 or list(names) != list(next(iter(orders))):
            order = merged_order(_name_ids(names), [_name_ids(order) for order in orders])
            names = dict.fromkeys(text.decode() for text, _number in order.ids)
        merged: JsonObject = {}
        clashes: list[Found] = []
        for name in names:
            members = [value.get(name, MISSING) for value in values]
            outcome = self.merge(base.get(name, absent), members, (*place.path, name))
            if outcome.value is not MISSING:
                merged[name] = outcome.value
            if outcome.clashes:
                clashes += within(name, outcome.clashes)
        return Outcome(merged, clashes)

    def _merge_elements(self, place: _Place, align: Callable[..., Aligned | None], *details: Any) -> Outcome:
        """:param align: tells which elements of the leaves are the same."""
        base = place.base if type(place.base) is list else []
        values = [value if type(value) is list else [] for value in place.values]
        aligned = align(base, values, *details)
        if aligned is None:
            return place.clash() if place.base is UNKNOWN else self._merge_elements(place, align_list)
        order = merged_order(list(aligned.base), [list(leaf) for leaf in aligned.leaves])
        absent = UNKNOWN if place.base is UNKNOWN else MISSING
        merged: list[Any] = []
        clashes: list[Found] = []
        if order.is_disputed and not aligned.is_unordered:
            clashes += clashed(ClashKind.ORDER, place.base, place.values).clashes
        owners = Counter(one for leaf in aligned.leaves for one in leaf)
        new = (
            {}
            if place.base is UNKNOWN
            else {
                one: element
                for leaf in aligned.leaves
                for one, element in leaf.items()
                if owners[one] == 1 and one not in aligned.base
            }
        )
        for one in order.ids:
            if one in new:  # nobody else has it; of a thousand leaves that each add some, this is the most
                merged.append(new[one])
                continue
            elements = [leaf.get(one, MISSING) for leaf in aligned.leaves]
            outcome = self.merge(aligned.base.get(one, absent), elements, (*place.path, len(merged)))
            clashes += within(len(merged), outcome.clashes)
            if outcome.value is not MISSING:
                merged.append(outcome.value)
        return Outcome(merged, clashes)

    # --- by rule

    def _merge_by_rule(self, place: _Place, rule: Rule) -> Outcome | None:
        """None if the rule isn't for such values."""
        absent = (MISSING, UNKNOWN)
        match rule.name:
            case "value":
                return place.clash()
            case "set" if place.all_are(list, absent):
                return self._merge_elements(place, align_by_value)
            case "by" if place.all_are(list, absent):
                return self._merge_elements(place, align_by_field, rule.argument)
            case "list" if place.all_are(list, (MISSING,)):
                return self._merge_elements(place, align_list)
            case "text" if place.all_are(str):
                return _merged_text(place)
            case "lines" if place.all_are(str, (MISSING,)):
                return self._merge_lines(place)
            case "max" | "min":
                return _extreme(place, greatest=rule.name == "max")
            case "newest":
                return self._newest(place, rule.argument)
            case "winner":
                return Outcome(place.values[place.changed[0]])
        return None

    def _merge_lines(self, place: _Place) -> Outcome:
        """A text as an array of lines, so that several leaves may add lines at one place."""
        base = place.base.split("\n") if type(place.base) is str else MISSING
        lines = [value.split("\n") if type(value) is str else value for value in place.values]
        inner = _Place(base, lines, place.path, place.changed, [lines[at] for at in place.changed])
        merged, clashes = _Merger(_LINE_RULES, self._leaves)._merge_elements(inner, align_list)
        return place.clash(ClashKind.TEXT) if clashes else Outcome("\n".join(merged))

    def _newest(self, place: _Place, field_pointer: str) -> Outcome:
        """What the leaf says, of those that changed the value, whose field is greatest."""
        names = parse_pointer(field_pointer)
        fields = {at: _at(self._leaves[at], names) for at in place.changed}
        known = {at: value for at, value in fields.items() if value is not MISSING}
        if not known:
            return place.clash()
        newest = max(known.values(), key=_ORDER)
        candidates = [
            place.values[at] for at, value in known.items() if collation.compare(value, newest) == 0
        ]
        if len({_meaning(value) for value in candidates}) > 1:
            return place.clash()
        return Outcome(min(candidates, key=_spelling))


_PLAIN = (str, int, bool, type(None))
"""Types of values that have one spelling only."""
_LINE_RULES = Rules({("**",): Rule("text")})
_ORDER = cmp_to_key(collation.compare)


def _merged_text(place: _Place) -> Outcome:
    text = merge_text(place.base, place.values)
    return place.clash(ClashKind.TEXT) if text is None else Outcome(text)


def _extreme(place: _Place, *, greatest: bool) -> Outcome:
    if any(variant is MISSING for variant in place.variants):
        return place.clash()
    choose = max if greatest else min
    return Outcome(choose(sorted(place.variants, key=_spelling), key=_ORDER))


def _counted(place: _Place) -> Outcome | None:
    """The base and all that was added to it; None unless all are numbers.

    The sum is exact and rounded once, or it would depend on the order of the leaves.
    """
    start = 0 if place.base is MISSING else place.base
    numbers = [start, *(place.values[at] for at in place.changed)]
    if not all(type(number) in (int, float) for number in numbers):
        return None
    total = Fraction(start) + sum(Fraction(number) - Fraction(start) for number in numbers[1:])
    if all(type(number) is int for number in numbers):
        return Outcome(int(total))
    try:
        return Outcome(float(total))
    except OverflowError:
        return None


def _name_ids(names: Sequence[str] | dict[str, None]) -> list[tuple[bytes, int]]:
    return [(name.encode(), 0) for name in names]


def _at(value: Any, names: Sequence[str]) -> Any:
    for name in names:
        value = value.get(name, MISSING) if type(value) is dict else MISSING
    return value


# --- when values are the same

_ABSENT_TEXT = b""


def _meaning(value: Any) -> bytes:
    return _ABSENT_TEXT if value is MISSING else canonical(value)


def _spelling(value: Any) -> bytes:
    """Orders values that mean the same."""
    return _ABSENT_TEXT if value is MISSING else dumps(value)


def _attachment_meaning(stub: Any) -> bytes:
    """Attachments are the same if their data and types are, whenever they were stored."""
    if type(stub) is not dict or "digest" not in stub:
        return _meaning(stub)
    return canonical([stub["digest"], stub.get("content_type")])


def _attachment_spelling(stub: Any) -> tuple[float, bytes]:
    revpos = stub.get("revpos") if type(stub) is dict else None
    return (revpos if type(revpos) is int else 0), _spelling(stub)
