"""What a data directory needs before it is served: an administrator, the system databases, a secret for
cookies.

All of it is made only where it is missing, so that it can run at every start; nobody else may be doing so at
the same time.
"""

from __future__ import annotations

import logging
import secrets
from dataclasses import dataclass

from . import document, passwords, users
from .errors import DatabaseNotFound
from .security import ADMINS_ONLY
from .server import Server

REPLICATOR_DATABASE = "_replicator"
GENERATED_ADMIN = "admin"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Credentials:
    name: str
    password: str


def provision(server: Server, administrator: Credentials | None = None) -> Credentials | None:
    """Make a directory ready to be served. Slow when a password has to be hashed.

    :param administrator: to be added, unless there is one of that name; without, one is made up if there is
        none. :returns: the administrator that was made up: to be told to somebody, since the password is
        stored nowhere.
    """
    config = server.config
    config.forget_volatile()
    if not config.get("chttpd_auth", "secret"):
        config.set("chttpd_auth", "secret", secrets.token_hex(16))
    for name in (users.database_name(config), REPLICATOR_DATABASE):
        _ensure_database(server, name)
    for name, value in list(config.section("admins").items()):
        if passwords.from_admin_value(value) is None:
            set_administrator(server, Credentials(name, value))
    if administrator is not None:
        if config.reported("admins", administrator.name) is None:
            set_administrator(server, administrator)
        return None
    if config.section("admins"):
        return None
    made_up = Credentials(GENERATED_ADMIN, secrets.token_urlsafe(15))
    set_administrator(server, made_up)
    return made_up


def set_administrator(server: Server, administrator: Credentials) -> None:
    """Add a server administrator or give one a new password. Slow."""
    hashed = passwords.derive(administrator.password, server.config)
    server.config.set("admins", administrator.name, passwords.to_admin_value(hashed))


def _ensure_database(server: Server, name: str) -> None:
    try:
        server.open(name)
        return
    except DatabaseNotFound:
        database = server.create(name)
    # Closed whatever couchdb/default_security says: these two hold credentials.
    database.set_security(dict(ADMINS_ONLY))
    if name == users.database_name(server.config):
        database.update([document.parse(users.design_document())])
    logger.info("created the database %s", name)
