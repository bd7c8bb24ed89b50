"""A design document as its functions see it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from ..errors import InternalError, NotFound
from ..jsontext import dumps

KEY_BYTES = 16


@dataclass(frozen=True, slots=True)
class Program:
    """A function and what surrounds it: what a child is sent to load, and the key it is known by then."""

    key: bytes
    text: bytes


class Design:
    """To be made once for each revision of a design document, and kept with it.

    :param scope: the name of the database, or whatever else is one's own: functions of different scopes share
        nothing, not even when their documents are the same.
    :param document: as CouchDB would show it, with `_id` and `_rev`.
    """

    def __init__(self, scope: str, document: dict[str, Any]) -> None:
        self.scope = scope
        self.id = str(document.get("_id", ""))
        self._document = document
        self._text = dumps(document)
        self._digest = hashlib.blake2b(self._text, key=hashlib.blake2b(scope.encode()).digest()).digest()
        self._programs: dict[tuple[str, ...], Program] = {}

    def __repr__(self) -> str:
        return f"Design({self.scope!r}, {self.id!r})"

    @property
    def key(self) -> bytes:
        """Tells it apart from others, and from other revisions of itself."""
        return self._digest

    def get(self, name: str) -> Any:
        """A member of the document, None if there is none."""
        return self._document.get(name)

    def find(self, *path: str) -> Any:
        """What the document holds at a path, such as `find("filters", "important")`. :raises NotFound:"""
        value: Any = self._document
        for name in path:
            value = value.get(name) if isinstance(value, dict) else None
            if value is None:
                raise NotFound(f"missing json key: {name}")
        return value

    def program(self, *path: str) -> Program:
        """The program of the function at a path, whether or not there is one.

        :raises InternalError: the functions are in a language that isn't JavaScript.
        """
        language = self._document.get("language", "javascript")
        if not isinstance(language, str) or language.lower() != "javascript":
            raise InternalError(str(language), error="unknown_query_language")
        if path not in self._programs:
            where = dumps(list(path))
            key = hashlib.blake2b(where, key=self._digest, digest_size=KEY_BYTES).digest()
            self._programs[path] = Program(key, b'{"design":%b,"path":%b}' % (self._text, where))
        return self._programs[path]

    def view_functions(self) -> Iterator[tuple[str, str]]:
        """The kind of each JavaScript function of the views, "map" or "reduce", and the name of its view."""
        views = self._document.get("views")
        for name, view in views.items() if isinstance(views, dict) else ():
            for kind in ("map", "reduce") if isinstance(view, dict) and name != "lib" else ():
                source = view.get(kind)
                if isinstance(source, str) and not (kind == "reduce" and source.startswith("_")):
                    yield kind, name
