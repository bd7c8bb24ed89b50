"""Short words for what store tests do all the time."""

import base64
from typing import Any

from couchlite import Database, Rev, document


def attachment(data: bytes, content_type: str = "application/octet-stream") -> dict[str, Any]:
    return {"content_type": content_type, "data": base64.b64encode(data).decode()}


def graft(database: Database, doc_id: str, path: list[str], **fields: Any) -> None:
    """Replicate one revision in; `path` is newest first, as revision texts."""
    revs = [Rev.parse(text) for text in path]
    edit = document.parse({"_id": doc_id, **fields})
    edit.path = tuple(revs)
    database.submit_replicated([edit]).result()


def leaves(database: Database, doc_id: str) -> list[str]:
    """Winner first."""
    with database.snapshot() as snapshot:
        found = snapshot.document(doc_id)
        assert found is not None
        return [str(leaf.rev) for leaf in found.leaves()]


def statuses(database: Database, doc_id: str, rev: str) -> list[str]:
    """What `_revs_info` would say, from `rev` back."""
    from couchlite import reads

    with database.snapshot() as snapshot:
        found = snapshot.document(doc_id)
        assert found is not None
        node = found.tree.find(Rev.parse(rev))
        assert node is not None
        return [status.status for status in reads.revs_info(found, node)]
