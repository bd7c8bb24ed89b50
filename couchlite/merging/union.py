"""Documents as if nobody had removed what somebody still has. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..jsontext import canonical
from .merge import DEPTH_MAX
from .rules import Rules
from .values import JsonObject, Path


def without_removals(
    base: JsonObject | None, leaves: Sequence[JsonObject], rules: Rules
) -> tuple[JsonObject, list[JsonObject]]:
    """A base and leaves which, merged, lose nothing that any of the leaves has.

    What all leaves have lost is gone from the base; what some have lost is theirs again. An unknown base is
    an empty one: nothing was there to be removed.

    :param rules: tell which elements of arrays are the same.
    """
    if base is None:
        return {}, list(leaves)
    restorer = _Restorer(rules)
    pruned: JsonObject = restorer.pruned(base, leaves, ())
    return pruned, [restorer.completed(leaf, pruned, ()) for leaf in leaves]


class _Restorer:
    def __init__(self, rules: Rules) -> None:
        self._rules = rules

    def pruned(self, base: Any, leaves: Sequence[Any], path: Path) -> Any:
        """The base without the members and elements that are in no leaf."""
        if self._is_whole(base, path):
            return base
        if type(base) is list:
            parts = [self._elements(leaf, path) for leaf in leaves if type(leaf) is list]
            return list(self._pruned_parts(self._elements(base, path), parts, path, 0).values())
        if type(base) is dict:
            return self._pruned_parts(base, [leaf for leaf in leaves if type(leaf) is dict], path, None)
        return base

    def _pruned_parts(
        self, base: Mapping[str, Any], leaves: Sequence[Mapping[str, Any]], path: Path, step: int | None
    ) -> dict[str, Any]:
        return {
            name: self.pruned(
                value,
                [leaf[name] for leaf in leaves if name in leaf],
                (*path, name if step is None else step),
            )
            for name, value in base.items()
            if any(name in leaf for leaf in leaves)
        }

    def completed(self, leaf: Any, base: Any, path: Path) -> Any:
        """The leaf with the members and elements of the base."""
        if type(leaf) is not type(base) or self._is_whole(leaf, path):
            return leaf
        if type(leaf) is list:
            parts = self._completed_parts(self._elements(leaf, path), self._elements(base, path), path, 0)
            return list(parts.values())
        return self._completed_parts(leaf, base, path, None) if type(leaf) is dict else leaf

    def _completed_parts(
        self, leaf: Mapping[str, Any], base: Mapping[str, Any], path: Path, step: int | None
    ) -> dict[str, Any]:
        completed = {**base, **leaf}
        for name in base.keys() & leaf.keys():
            completed[name] = self.completed(leaf[name], base[name], (*path, name if step is None else step))
        return completed

    def _is_whole(self, value: Any, path: Path) -> bool:
        """Whether parts of it aren't looked at. A rule may say that an array is no set."""
        rule = self._rules.at(path) if type(value) is list else None
        return len(path) >= DEPTH_MAX or (rule is not None and rule.name not in ("set", "by"))

    def _elements(self, elements: Sequence[Any], path: Path) -> dict[str, Any]:
        """By what makes them the same: a field, if a rule says so, or all they are. Nothing is twice."""
        rule = self._rules.at(path)
        name = rule.argument if rule is not None and rule.name == "by" else None
        found: dict[str, Any] = {}
        for element in elements:
            named = type(element) is dict and name in element
            found.setdefault(canonical(element[name] if named else element).decode(), element)
        return found
