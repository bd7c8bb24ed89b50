"""What `couchlite doctor` looks at: a server as its clients see it, through whatever stands before it.

Each module looks at one area and yields findings; `examine` goes through them. What must stay true here:

- Any CouchDB can be examined, not only a couchlite.
- Nothing of the server is changed but a database of a name of its own, which is deleted at the end.
- A password is sent only to a server that was asked for, over a connection that could be verified.
- A check that can't be made says so; it never counts as passed.
"""

from __future__ import annotations

from .clients import CLIENTS
from .examination import examine
from .findings import Finding, State
from .patient import Patient
from .wire import Wire

__all__ = ["CLIENTS", "Finding", "Patient", "State", "Wire", "examine"]
