"""The order of the members of a merged document: revision ids depend on it, though JSON gives it no meaning.

It is taken from the leaves that were merged, so that everybody who merges the same leaves to the same
content, by whatever program, makes the same revision. A pure function of values as jsontext.loads gives
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .jsontext import canonical

DEPTH_MAX = 200
"""What is nested deeper stays in the order it has."""


def arranged(value: Any, models: Sequence[Any], depth: int = 0) -> Any:
    """`value` with the members of its objects in the order of `models`, the first of which prevails.

    A member that no model has comes last, such members by name. In a list, an element that equals one of
    a model's list is taken for that; another goes by the elements that stand in its place.
    """
    if depth >= DEPTH_MAX:
        return value
    if isinstance(value, dict):
        objects = [model for model in models if isinstance(model, dict)]
        order: dict[str, None] = {}
        for model in objects:
            order.update(dict.fromkeys(model))
        names = [name for name in order if name in value]
        names += sorted(name for name in value if name not in order)
        return {
            name: arranged(value[name], [model[name] for model in objects if name in model], depth + 1)
            for name in names
        }
    if isinstance(value, list) and any(isinstance(element, dict | list) for element in value):
        lists = [model for model in models if isinstance(model, list)]
        known: dict[bytes, Any] = {}
        for model_list in lists:
            for element in model_list:
                if isinstance(element, dict | list):
                    known.setdefault(canonical(element), element)
        return [
            known[text]
            if isinstance(element, dict | list) and (text := canonical(element)) in known
            else arranged(element, [others[at] for others in lists if at < len(others)], depth + 1)
            for at, element in enumerate(value)
        ]
    return value
