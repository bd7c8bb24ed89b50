"""LMDB behind the engine seam; nothing else knows of lmdb.

`environment.py` is the engine: transactions, growth, generations. A commit is two fsyncs inside LMDB (pages,
then the root page); when it returned, the batch is on disk.
"""

from .environment import LmdbEnvironment
from .files import data_file, lay_out, names_of
from .generations import FIRST

__all__ = ["FIRST", "LmdbEnvironment", "data_file", "lay_out", "names_of"]
