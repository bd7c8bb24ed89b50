"""Merging what was edited apart: JSON documents three ways, by rules.

    merged = merge(base, [winner, loser], Rules.parse({"/tags": "set"}))
    merged.document, merged.clashes

`docs/merging.md` explains the rules.
"""

from .merge import merge
from .rules import Rule, Rules
from .settle import settle
from .values import MISSING, Absent, Clash, ClashKind, Merged

__all__ = ["MISSING", "Absent", "Clash", "ClashKind", "Merged", "Rule", "Rules", "merge", "settle"]
