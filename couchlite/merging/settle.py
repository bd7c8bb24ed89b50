"""A merged document with the clashes settled: somebody chose a value for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .values import ATTACHMENTS, MISSING, Absent, Clash, Merged, parse_pointer


def settle(merged: Merged, choices: Mapping[int, Any]) -> Merged:
    """The document with these choices, without clashes; where none was made the first leaf's value stays.

    :param choices: by the index of the clash, a value (one of the leaves' or any other), or MISSING for none.
    :raises IndexError: there is no such clash. :raises ValueError: the document can't be that value.
    """
    document: Any = MISSING if merged.deleted else merged.document
    # From the last to the first: what is inserted or removed then moves nothing that is still to be found.
    for index in sorted(choices, reverse=True):
        document = _settled(document, merged.clashes[index], choices[index])
    if document is MISSING:
        return Merged({}, (), deleted=True)
    if type(document) is not dict:
        raise ValueError("a document is an object")
    if document.get(ATTACHMENTS) == {}:
        document = {name: member for name, member in document.items() if name != ATTACHMENTS}
    return Merged(document, ())


def _settled(document: Any, clash: Clash, choice: Any) -> Any:
    return _put(document, parse_pointer(clash.pointer), choice, clash.values[0] is MISSING)


def _put(value: Any, names: Sequence[str], choice: Any, is_absent: bool) -> Any:
    """A copy of `value` with the choice at the place that the names lead to."""
    if not names:
        return choice
    step: Any = names[0] if type(value) is dict else int(names[0])
    is_here = len(names) == 1
    member = choice if is_here else _put(_member(value, step), names[1:], choice, is_absent)
    if type(value) is dict:
        changed = {**value, step: member}
        if member is MISSING:
            del changed[step]
        return changed
    inserted = [] if isinstance(member, Absent) else [member]
    return [*value[:step], *inserted, *value[step + (not (is_here and is_absent)) :]]


def _member(value: Any, step: Any) -> Any:
    return value.get(step, {}) if step == ATTACHMENTS else value[step]
