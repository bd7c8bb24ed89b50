"""How the conflicts of each database are resolved, stored in the catalog.

Not in the database, since it must not replicate, nor be a document that members may write; and not in its
files, since what resolves by itself has to know, without opening all databases, in which of them it should.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from . import jsontext
from .catalog import RESOLVERS_PREFIX, Catalog, Entry
from .errors import BadRequest
from .merging.settings import Settings

log = logging.getLogger("couchlite")


def read(catalog: Catalog, entry: Entry) -> dict[str, Any]:
    """As they were written, or those that say nothing."""
    text = catalog.settings.get(RESOLVERS_PREFIX + entry.uuid)
    if text is None:
        return {"automatic": False, "resolvers": []}
    settings: dict[str, Any] = jsontext.loads(text)["settings"]
    return settings


def write(catalog: Catalog, entry: Entry, settings: Mapping[str, Any]) -> None:
    """:raises BadRequest: they can't be understood."""
    Settings.parse(settings)
    text = jsontext.dumps({"name": entry.name, "settings": dict(settings)})
    catalog.settings.set(RESOLVERS_PREFIX + entry.uuid, text.decode())


def automatic(catalog: Catalog) -> dict[str, tuple[str, Settings]]:
    """The databases whose conflicts are resolved by themselves: name, and settings, by uuid."""
    found = {}
    for key, text in catalog.settings.items(RESOLVERS_PREFIX):
        stored = jsontext.loads(text)
        try:
            settings = Settings.parse(stored["settings"])
        except BadRequest as fault:  # written by another version
            log.warning("%s: the settings of resolvers can't be used: %s", stored["name"], fault.reason)
            continue
        if settings.automatic:
            found[key.removeprefix(RESOLVERS_PREFIX)] = stored["name"], settings
    return found
