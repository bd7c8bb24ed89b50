"""The merge bases of conflicts are carried along, so that the target can merge, too.

What must stay true here: it is done once the leaves are written, before a checkpoint passes them, and it is
a help, no part of the replication: what fails here is logged and stops nothing. Servers that know nothing of
it are asked nothing unusual: a target that is no couchlite is not asked at all, a source for revisions by
_bulk_get.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from couchlite.errors import CouchliteError

from .peer import Peer

log = logging.getLogger("replicator")


async def carry(source: Peer, target: Peer, written: Iterable[tuple[str, str]]) -> None:
    """Bring the target what it lacks to merge the documents that were just written, given as ids and
    revisions."""
    # A first revision has no ancestor in common with anything.
    ids = list(dict.fromkeys(doc_id for doc_id, rev in written if not rev.startswith("1-")))
    if not ids:
        return
    try:
        if (wanted := await target.lacking_bases(ids)) and (docs := await source.read_bases(wanted)):
            await target.store_bases(docs)
    except CouchliteError as error:
        log.info("merge bases were not carried to %s: %s", target.name, error.reason)
