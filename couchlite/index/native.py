"""The map function of Mango's indexes: the values of some fields as a key, if a document has all of them.

Source: mango_native_proc.erl.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

from ..jsontext import loads
from ..mango import compile_selector
from ..mango.fields import Absent, getter, parse_field
from .definition import IndexDefinition


class NativeMapper:
    """Maps at once, in the thread that asks.

    :raises BadRequest: the partial filter is no selector, or a field's name is none.
    """

    def __init__(self, definition: IndexDefinition) -> None:
        source: dict[str, Any] = definition.map if isinstance(definition.map, dict) else {}
        fields = source.get("fields")
        names = list(fields) if isinstance(fields, dict) else []
        self._getters = [getter(parse_field(name)) for name in names]
        partial = source.get("partial_filter_selector") or {}
        self._matches = compile_selector(partial) if partial else None

    def has_fields(self, body: bytes) -> bool:
        """Whether a document has all fields of the index, whatever becomes of it otherwise."""
        document = loads(body)
        return Absent not in [type(get(document)) for get in self._getters]

    def submit(self, documents: Sequence[bytes]) -> Future[Sequence[Sequence[Sequence[Any]]]]:
        mapped: Future[Sequence[Sequence[Sequence[Any]]]] = Future()
        try:
            mapped.set_result([self._map(loads(text)) for text in documents])
        except Exception as error:
            mapped.set_exception(error)
        return mapped

    def _map(self, document: dict[str, Any]) -> Sequence[Sequence[Any]]:
        if self._matches is not None and not self._matches(document):
            return ()
        values = [get(document) for get in self._getters]
        if Absent in map(type, values) or document["_id"].startswith("_design/"):
            return ()
        return ((values, None),)
