"""Indexes: the rows of views and of Mango indexes, kept in CouchDB's order with partial reductions of them.

    definition = DesignViews(database.name, design_document).find("by_date")
    index = database.indexes.get(definition)
    await index.refresh(database, functions)

`layout.py` draws what is on disk, `levels.py` how reductions are kept, `build.py` how an index follows its
database.
"""

from .definition import DesignViews, IndexDefinition
from .functions import IndexFunctions
from .indexes import Index, Indexes, is_fresh, rest_indexes

__all__ = ["DesignViews", "Index", "IndexDefinition", "IndexFunctions", "Indexes", "is_fresh", "rest_indexes"]
