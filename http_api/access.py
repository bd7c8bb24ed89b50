"""The guards of the routes: who may use an address at all. Each raises, or returns nothing.

The rules themselves are the store's (couchlite.security); here is only which of them an address is under.
There is no admin party: a request without credentials is anonymous and gets what anonymous users get.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from couchlite.errors import Unauthorized
from couchlite.security import check_admin, check_server_admin, is_admin

if TYPE_CHECKING:
    from .request import Request


SYSTEM_DATABASES = ("_users", "_replicator")


def anyone(request: Request) -> None:
    """No check."""


def member(request: Request) -> None:
    """The database exists and the principal may read it."""
    request.database()


def server_admin(request: Request) -> None:
    """A server administrator."""
    check_server_admin(request.principal)


def administered_database(request: Request) -> None:
    """A server administrator, and the database exists. Who may not even read a system database is told that
    first, as in CouchDB.
    """
    if request.segments[0] in SYSTEM_DATABASES:
        request.database()
    check_server_admin(request.principal)
    request.database()


def database_admin(request: Request) -> None:
    """An administrator of the database or of the server; CouchDB says 401 here even to a logged-in user."""
    if not is_admin(request.database().security, request.principal):
        raise Unauthorized("You are not a server or db admin.")


def authenticated(request: Request) -> None:
    """Anyone who has logged in."""
    if request.principal.name is None:
        raise Unauthorized("You are not an authenticated user")


def may_change_settings(request: Request) -> None:
    """An administrator of the database or the server, where CouchDB tells 401 from 403: for the handlers
    that need it.
    """
    check_admin(request.database().security, request.principal)
