"""`couchlite conflicts`: find, look into, merge and resolve conflicts, wherever they are.

places.py      what a database can be asked; local.py, served.py, foreign.py answer that
case.py        one document: tree, leaves, base
looking.py     list, show, diff, stats, log
settling.py    merge, pick, resolve, undo, resolvers
"""

from .looking import command
from .settling import merge, pick, resolve, resolvers, undo

for _one in (merge, pick, resolve, undo, resolvers):
    command.add_command(_one)

__all__ = ["command"]
