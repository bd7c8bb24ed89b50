"""What a replication has done so far, counted as CouchDB counts it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

_SHOWN_AS = {"missing_checked": "revisions_checked", "missing_found": "missing_revisions_found"}


@dataclass(slots=True)
class Stats:
    missing_checked: int = 0
    """Revisions the target was asked about."""
    missing_found: int = 0
    docs_read: int = 0
    docs_written: int = 0
    doc_write_failures: int = 0
    bulk_get_docs: int = 0
    """Revisions that _bulk_get gave, of `bulk_get_attempts` it was asked for."""
    bulk_get_attempts: int = 0

    def entry(self) -> dict[str, int]:
        """As an entry of a checkpoint's history has them."""
        return asdict(self)

    def shown(self) -> dict[str, int]:
        """As a task or a job shows them."""
        return {_SHOWN_AS.get(name, name): count for name, count in asdict(self).items()}

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Stats:
        """The counts of a history's entry: those of its session go on from there, as CouchDB's do."""
        counts = {name: entry.get(name, 0) for name in cls.__dataclass_fields__}
        return cls(**{name: count for name, count in counts.items() if isinstance(count, int)})
