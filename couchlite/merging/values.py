"""What a merge is made of: values that may be missing, and the clashes it reports."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, Final, NamedTuple

JsonObject = dict[str, Any]
ATTACHMENTS = "_attachments"


class Absent(Enum):
    """Why there is no value."""

    MISSING = "there is none here"
    UNKNOWN = "whether there was one isn't known"


MISSING: Final = Absent.MISSING
UNKNOWN: Final = Absent.UNKNOWN
"""Instead of a base, inside of a merge that has none."""


class ClashKind(StrEnum):
    """Why a place could not be merged."""

    EDIT = "edit"
    """The leaves changed the value in different ways."""
    ADD = "add"
    """They added different values."""
    DELETE = "delete"
    """Some removed what others changed."""
    ORDER = "order"
    """They moved the same elements of an array to different places."""
    TEXT = "text"
    """They changed the same words of a text."""
    ATTACHMENT = "attachment"
    """They stored different data under one name."""
    NO_BASE = "no_base"
    """They differ, and what they come from isn't known."""


@dataclass(frozen=True, slots=True)
class Clash:
    """A place where a choice has to be made.

    `pointer` is a JSON pointer into the merged document; where that holds no value, an element of an array
    would have to be inserted there. `base` is MISSING also when there is no base. `values` has the value of
    each leaf, or MISSING.
    """

    pointer: str
    base: Any
    values: tuple[Any, ...]
    kind: ClashKind


@dataclass(frozen=True, slots=True)
class Merged:
    """A merged document. At a clash it holds what the first leaf holds.

    `deleted`: the document is gone, as some leaves would have it; `document` is empty then.
    """

    document: JsonObject
    clashes: tuple[Clash, ...]
    deleted: bool = False

    @property
    def is_clean(self) -> bool:
        return not self.clashes


Step = str | int
Path = tuple[Step, ...]


class Found(NamedTuple):
    """A clash, with the way to it from the value that is being merged."""

    path: Path
    base: Any
    values: tuple[Any, ...]
    kind: ClashKind


class Outcome(NamedTuple):
    """What became of a value: the value, or MISSING, and the clashes in it."""

    value: Any
    clashes: Sequence[Found] = ()


def clashed(kind: ClashKind, base: Any, values: Sequence[Any]) -> Outcome:
    """The whole value is a clash."""
    known = MISSING if base is UNKNOWN else base
    return Outcome(values[0], (Found((), known, tuple(values), kind),))


def within(step: Step, clashes: Iterable[Found]) -> list[Found]:
    """Clashes as seen from the container."""
    return [found._replace(path=(step, *found.path)) for found in clashes]


def pointer(path: Path) -> str:
    """A JSON pointer (RFC 6901)."""
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path)


def parse_pointer(text: str) -> tuple[str, ...]:
    """The names along a JSON pointer. :raises ValueError: it doesn't begin with a slash."""
    if not text:
        return ()
    if not text.startswith("/"):
        raise ValueError(text)
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in text[1:].split("/"))
