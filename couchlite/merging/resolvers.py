"""Resolvers: what may settle a conflict without somebody looking at it.

What must stay true here: a resolver that can't be sure leaves the conflict alone and says why; one that
overrules leaves does so because it was told to, and names them; and every resolver, but for a function in a
design document that uses a clock or dice, makes on each peer the same document of the same leaves.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from typing import Any, ClassVar, Protocol

from ..errors import CouchliteError
from ..jsontext import canonical
from .merge import merge
from .rules import Rule, Rules
from .union import without_removals
from .values import ATTACHMENTS, MISSING, Clash, JsonObject, Merged, parse_pointer


@dataclass(frozen=True, slots=True)
class Leaf:
    """A leaf that is not deleted: its revision, and the document without `_id` and `_rev`, with attachment
    stubs."""

    rev: str
    document: JsonObject


@dataclass(frozen=True, slots=True)
class Conflict:
    """A document's leaves, the winner first, and what they come from, as far as that is known."""

    id: str
    leaves: Sequence[Leaf]
    base: JsonObject | None = None

    @property
    def documents(self) -> list[JsonObject]:
        return [leaf.document for leaf in self.leaves]


@dataclass(frozen=True, slots=True)
class Resolution:
    """What the document is to be.

    `overruled` are the revisions of leaves that have something which isn't in it: they lost by decision, not
    by merging.
    """

    document: JsonObject
    deleted: bool = False
    overruled: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class LeftAlone:
    """The conflict stays; why."""

    reason: str
    clashes: tuple[Clash, ...] = ()


class Functions(Protocol):
    """What runs a resolver of a design document."""

    async def __call__(self, design: str, name: str, conflict: Conflict) -> Any:
        """What the function gives: a document, or None. :raises CouchliteError: it failed, or isn't there."""


class Resolver(ABC):
    """One way to resolve conflicts. `settings.parse_resolver` makes them."""

    name: ClassVar[str]
    options: ClassVar[Collection[str]] = ()
    """The names of its options."""

    @abstractmethod
    async def resolve(self, conflict: Conflict, functions: Functions | None = None) -> Resolution | LeftAlone:
        """:param functions: without it, functions of design documents can't be asked, and leave alone."""


class PureResolver(Resolver):
    """One that computes. Merging large documents takes a while, so an event loop lets a thread do it."""

    async def resolve(self, conflict: Conflict, functions: Functions | None = None) -> Resolution | LeftAlone:
        return await asyncio.to_thread(self.conclude, conflict)

    @abstractmethod
    def conclude(self, conflict: Conflict) -> Resolution | LeftAlone:
        """As `resolve`, in this thread."""


@dataclass(frozen=True)
class Manual(PureResolver):
    """Leaves everything to people."""

    name = "manual"

    def conclude(self, conflict: Conflict) -> Resolution | LeftAlone:
        return LeftAlone("it is left to people")


@dataclass(frozen=True)
class ThreeWay(PureResolver):
    """Merges by rules. What clashes is left alone or, if told so, decided for the winner."""

    name = "three-way"
    options = ("rules", "clashes")
    rules: Rules = field(default_factory=Rules)
    winner_decides: bool = False

    def conclude(self, conflict: Conflict) -> Resolution | LeftAlone:
        return self._conclusion(conflict, merge(conflict.base, conflict.documents, self.rules))

    def _conclusion(self, conflict: Conflict, merged: Merged) -> Resolution | LeftAlone:
        if merged.is_clean:
            return Resolution(merged.document)
        if self.winner_decides:
            return Resolution(merged.document, overruled=_overruled(conflict, merged))
        places = ", ".join(clash.pointer or "the whole document" for clash in merged.clashes[:3])
        more = f" and {len(merged.clashes) - 3} more" if len(merged.clashes) > 3 else ""
        unknown = "" if conflict.base is not None else "; what the leaves come from isn't known"
        return LeftAlone(f"the leaves clash at {places}{more}{unknown}", merged.clashes)


@dataclass(frozen=True)
class Union(ThreeWay):
    """As three-way, but nothing counts as removed that any leaf still has; arrays are sets unless rules say
    otherwise."""

    name = "union"

    def conclude(self, conflict: Conflict) -> Resolution | LeftAlone:
        base, leaves = without_removals(conflict.base, conflict.documents, self.rules)
        return self._conclusion(conflict, merge(base, leaves, self._set_rules))

    @cached_property
    def _set_rules(self) -> Rules:
        return Rules({("**",): Rule("set"), **self.rules.by_pattern})


@dataclass(frozen=True)
class LastWriteWins(PureResolver):
    """Takes the leaf whose field is the greatest: a number, a date of ISO 8601, or else a text."""

    name = "last-write-wins"
    options = ("field",)
    field: str

    def conclude(self, conflict: Conflict) -> Resolution | LeftAlone:
        times = [_at(leaf.document, parse_pointer(self.field)) for leaf in conflict.leaves]
        ages = _comparable(times)
        if ages is None:
            return LeftAlone(f"the values of {self.field} can't be compared")
        newest = max(ages)
        chosen = conflict.leaves[ages.index(newest)]
        same = canonical(chosen.document)
        overruled = [leaf for leaf in conflict.leaves if canonical(leaf.document) != same]
        if any(age == newest and leaf in overruled for leaf, age in zip(conflict.leaves, ages, strict=True)):
            return LeftAlone(f"several leaves have the same {self.field}")
        return Resolution(chosen.document, overruled=tuple(leaf.rev for leaf in overruled))


@dataclass(frozen=True)
class JavaScript(Resolver):
    """Asks a function of a design document, `function (base, leaves)`; see docs/merging.md."""

    name = "javascript"
    options = ("function",)
    design: str
    function: str

    async def resolve(self, conflict: Conflict, functions: Functions | None = None) -> Resolution | LeftAlone:
        if functions is None:
            return LeftAlone("functions of design documents can't be run here")
        try:
            found = await functions(self.design, self.function, conflict)
        except CouchliteError as failure:
            return LeftAlone(f"{self.design}/{self.function} failed: {failure.error}: {failure.reason}")
        if found is None:
            return LeftAlone(f"{self.design}/{self.function} left it alone")
        if type(found) is not dict:
            return LeftAlone(f"{self.design}/{self.function} gave something else than a document")
        return _checked(conflict, found)


# --- helpers


def _overruled(conflict: Conflict, merged: Merged) -> tuple[str, ...]:
    """The leaves that wanted something else somewhere."""
    lost: set[int] = set()
    for clash in merged.clashes:
        first, base = _text(clash.values[0]), _text(clash.base)
        lost.update(at for at, one in enumerate(clash.values) if _text(one) not in (first, base))
    return tuple(leaf.rev for at, leaf in enumerate(conflict.leaves) if at in lost)


def _text(value: Any) -> bytes:
    return b"" if value is MISSING else canonical(value)


def _checked(conflict: Conflict, found: JsonObject) -> Resolution | LeftAlone:
    """What a function gave as a resolution. If it doesn't speak of attachments, they are merged."""
    deleted = found.get("_deleted") is True
    document = {name: value for name, value in found.items() if name[:1] != "_"}
    if deleted:
        return Resolution(document, deleted=True, overruled=tuple(leaf.rev for leaf in conflict.leaves))
    known = [conflict.base or {}, *conflict.documents]
    if ATTACHMENTS not in found:
        base = None if conflict.base is None else _only_attachments(conflict.base)
        merged = merge(base, [_only_attachments(leaf) for leaf in conflict.documents])
        if not merged.is_clean:
            return LeftAlone("the attachments clash, and the function said nothing of them", merged.clashes)
        return Resolution({**document, **merged.document})
    stubs = {_stub(stub): stub for one in known for stub in one.get(ATTACHMENTS, {}).values()}
    chosen = found[ATTACHMENTS]
    if type(chosen) is not dict or any(_stub(stub) not in stubs for stub in chosen.values()):
        return LeftAlone("the function gave attachments that no leaf has")
    kept = {name: stubs[_stub(stub)] for name, stub in chosen.items()}
    return Resolution({**document, **({ATTACHMENTS: kept} if kept else {})})


def _only_attachments(document: JsonObject) -> JsonObject:
    return {name: value for name, value in document.items() if name == ATTACHMENTS}


def _stub(stub: Any) -> tuple[Any, Any]:
    return (str(stub.get("digest")), str(stub.get("content_type"))) if type(stub) is dict else ("", "")


def _at(value: Any, names: Sequence[str]) -> Any:
    for name in names:
        value = value.get(name, MISSING) if type(value) is dict else MISSING
    return value


def _comparable(values: Sequence[Any]) -> list[Any] | None:
    """Numbers as they are, dates as points in time, other texts as they are; None if some don't fit."""
    if all(type(value) in (int, float) for value in values):
        return list(values)
    if not all(type(value) is str for value in values):
        return None
    dates = [_date(value) for value in values]
    return list(values) if None in dates else dates


def _date(text: str) -> datetime | None:
    """Without an offset, a date is taken for one in UTC."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
