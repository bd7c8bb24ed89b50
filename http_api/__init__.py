"""CouchDB's HTTP API over a `couchlite.server.Server`: `App` answers requests, `listen` puts it on a
socket.
"""

from .app import App
from .protocol import Listener, listen

__all__ = ["App", "Listener", "listen"]
