"""A merged document as text with conflict markers, as git writes them, and read back once it was edited.

    {
    <<<<<<< 3-7c11ab90 winner
      "title": "Shopping",
    ||||||| base
      "title": "List",
    =======
      "title": "Groceries",
    >>>>>>> 3-a0b1c2d3
    }

A block holds whole lines: a member or an element each way. What several leaves say alike is there once. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from couchlite.errors import CouchliteError
from couchlite.jsontext import canonical, loads
from couchlite.merging import MISSING, Clash, Merged, settle

OURS, BASE, OTHER, END = "<<<<<<<", "|||||||", "=======", ">>>>>>>"
_MARKER = re.compile(rf"^(?:{OURS}|\|{{7}}|{OTHER}|{END})(?: |$)", re.MULTILINE)
_HOLE = "\ue000clash {}\ue001"
"""Stands for a clash until the text is laid out; of characters that no document should have."""
_HOLE_LINE = re.compile(r'^(\s*)("(?:[^"\\]|\\.)*": )?"\ue000clash (\d+)\ue001"(,?)$')
_TRAILING_COMMA = re.compile(r'("(?:[^"\\]|\\.)*")|,(?=\s*[}\]])')


class Unreadable(Exception):
    """The text is no document; says where."""


def write(merged: Merged, names: Sequence[str]) -> str:
    """:param names: what the leaves are called, the winner first."""
    if any(clash.pointer == "" for clash in merged.clashes):
        [clash] = [clash for clash in merged.clashes if clash.pointer == ""]
        return "\n".join(_block(clash, names, "", "", "")) + "\n"
    holes = settle(merged, {at: _HOLE.format(at) for at in range(len(merged.clashes))})
    lines = []
    for line in json.dumps(holes.document, ensure_ascii=False, indent=2).split("\n"):
        hole = _HOLE_LINE.match(line)
        if hole is None:
            lines.append(line)
            continue
        indent, name, at, comma = hole.groups()
        lines += _block(merged.clashes[int(at)], names, indent, name or "", comma)
    return "\n".join(lines) + "\n"


def _block(clash: Clash, names: Sequence[str], indent: str, name: str, comma: str) -> list[str]:
    def laid_out(value: Any) -> list[str]:
        if value is MISSING:
            return []
        text = json.dumps(value, ensure_ascii=False, indent=2).replace("\n", f"\n{indent}")
        return f"{indent}{name}{text}{comma}".split("\n")

    sides: dict[bytes, tuple[Any, list[str]]] = {}
    for owner, value in zip(names, clash.values, strict=True):
        text = b"" if value is MISSING else canonical(value)
        sides.setdefault(text, (value, []))[1].append(owner)
    (first, owners), *others = sides.values()
    lines = [f"{OURS} {_owners(owners)}", *laid_out(first)]
    lines += [f"{BASE} base", *laid_out(clash.base)]
    for value, owners in others[:-1]:
        lines += [f"{OTHER} {_owners(owners)}", *laid_out(value)]
    lines.append(OTHER)
    last, owners = others[-1] if others else (first, owners)
    return [*lines, *laid_out(last), f"{END} {_owners(owners)}"]


def _owners(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def read(text: str) -> dict[str, Any]:
    """The document. A comma before a closing bracket is allowed: choosing nothing may leave one.

    :raises Unreadable:
    """
    left = _MARKER.search(text)
    if left is not None:
        raise Unreadable(f"line {text.count(chr(10), 0, left.start()) + 1}: a conflict marker is left")
    text = _TRAILING_COMMA.sub(lambda match: match[1] or "", text)
    try:
        document = loads(text)
    except CouchliteError:
        try:
            json.loads(text)
        except ValueError as error:
            raise Unreadable(str(error)) from None
        raise Unreadable("it is no JSON that can be stored") from None
    if type(document) is not dict:
        raise Unreadable("a document is a JSON object")
    return document
