"""What a view is made of, and the signature that names its index.

An index belongs to a map and a reduce function, not to a design document: editing one view, or a filter,
leaves the indexes of the others as they are, and a design document under another name finds them built.
Source of what belongs together: couch_mrview_util:ddoc_to_mrst.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..collation import SortKey, raw_sort_key, sort_key
from ..collation import version as collation_version
from ..errors import NotFound
from ..javascript import Design
from ..jsontext import dumps
from ..records import FORMAT_VERSION as DATABASE_FORMAT
from .layout import FORMAT_VERSION

JAVASCRIPT = "javascript"
QUERY = "query"
"""The language of Mango's indexes."""


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """Everything that decides what is in an index."""

    signature: str
    language: str
    map: Any
    """The source of a function; for Mango, an object."""
    reduce: str | None
    options: Mapping[str, Any]
    """Of the view."""
    include_design: bool
    """Design documents have rows, too."""
    local_seq: bool
    """Documents are mapped with their `_local_seq`."""
    partitioned: bool
    """The rows of each partition are apart from those of others: their keys begin with it."""
    design: Design = field(compare=False)
    """The functions, and the modules they may require; nothing else of the design document."""
    design_id: str = field(compare=False)
    """The design document it was first found in: for logs and tasks."""

    @property
    def sort_key(self) -> SortKey:
        """What orders the rows."""
        return raw_sort_key if self.options.get("collation") == "raw" else sort_key


class DesignViews:
    """The views of a revision of a design document.

    :param scope: see Design; the name of the database.
    :param partitioned: whether the database is.
    """

    def __init__(self, scope: str, document: Mapping[str, Any], *, partitioned: bool = False) -> None:
        self.id = str(document.get("_id", ""))
        language = document.get("language", JAVASCRIPT)
        self.language = language if isinstance(language, str) else str(dumps(language))
        options = document.get("options")
        self.options: Mapping[str, Any] = options if isinstance(options, dict) else {}
        self.partitioned = partitioned and self.options.get("partitioned", True) is True
        """Whether they are queried by partition, and only so."""
        self._scope = scope
        self._document = document
        self._functions: Design | None = None
        views = document.get("views")
        self.sources: Mapping[str, Any] = views if isinstance(views, dict) else {}
        self._found: dict[str, IndexDefinition] = {}

    @property
    def names(self) -> list[str]:
        """The views that have a map function."""
        return [name for name, view in self.sources.items() if isinstance(view, dict) and "map" in view]

    @property
    def functions(self) -> Design:
        """All functions of the design document, not only those of its views."""
        if self._functions is None:
            self._functions = Design(self._scope, dict(self._document))
        return self._functions

    def find(self, name: str) -> IndexDefinition:
        """:raises NotFound: "missing_named_view"."""
        found = self._found.get(name)
        if found is None:
            view = self.sources.get(name)
            if not isinstance(view, dict) or "map" not in view:
                raise NotFound("missing_named_view")
            found = self._found[name] = self._define(view)
        return found

    def definitions(self) -> list[IndexDefinition]:
        return [self.find(name) for name in self.names]

    def signature(self) -> str:
        """Names all of them together."""
        return _digest([definition.signature for definition in self.definitions()])

    def _define(self, view: Mapping[str, Any]) -> IndexDefinition:
        source = view["map"]
        reduce = view.get("reduce")
        reduce = reduce if isinstance(reduce, str) else None
        options = view.get("options")
        options = options if isinstance(options, dict) else {}
        # Design documents are in no partition.
        include_design = self.options.get("include_design") is True and not self.partitioned
        local_seq = self.options.get("local_seq") is True
        lib = self.sources.get("lib", {}) if self.language == JAVASCRIPT else {}
        signature = _digest(
            [
                FORMAT_VERSION,
                DATABASE_FORMAT,
                collation_version(),
                self.language,
                source,
                reduce,
                options,
                include_design,
                local_seq,
                self.partitioned,
                lib,
            ]
        )
        functions = {"_id": self.id, "language": self.language, "map": source, "views": {"lib": lib}}
        if reduce is not None:
            functions["reduce"] = reduce
        return IndexDefinition(
            signature=signature,
            language=self.language,
            map=source,
            reduce=reduce,
            options=options,
            include_design=include_design,
            local_seq=local_seq,
            partitioned=self.partitioned,
            design=Design(self._scope, functions),
            design_id=self.id,
        )


def _digest(value: Any) -> str:
    return hashlib.blake2b(dumps(value), digest_size=16).hexdigest()
