"""Functions of design documents, run in child processes where they can do no harm.

    pool = FunctionPool()
    design = Design("mydb", ddoc)
    passed = await pool.filter_docs(design, "important", documents, request)

`FunctionPool` is for an event loop, `FunctionThread` for callers without one.
"""

from .design import Design
from .functions import FunctionPool
from .list_run import ListRun, Piece
from .process import Limits
from .thread import FunctionThread

__all__ = ["Design", "FunctionPool", "FunctionThread", "Limits", "ListRun", "Piece"]
