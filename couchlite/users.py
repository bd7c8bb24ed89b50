"""The documents of the users database: `org.couchdb.user:NAME`, what they must look like, who may see and
change them.

The rules are CouchDB's, from its couch_users_db and the validation function of its `_design/_auth`. They run
here in Python, on every write, whatever `_design/_auth` says at the moment; the design document is there for
the clients and replication peers that expect it, and says the same in JavaScript.

Order on a write: `check_writer`, then `hash_password` (slow: off the event loop), then `validate` against the
revision that is being replaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from . import passwords
from .config import Config
from .errors import Forbidden, NotFound
from .security import Principal, SecurityObject, is_admin

PREFIX = "org.couchdb.user:"
DESIGN_ID = "_design/_auth"
SCHEMES = ("simple", "pbkdf2", "simple+pbkdf2")

Fields = Mapping[str, Any]


def database_name(config: Config) -> str:
    return config.text("chttpd_auth", "authentication_db")


def name_of(doc_id: str) -> str | None:
    """The user a document is of; None if it isn't a user's."""
    return doc_id.removeprefix(PREFIX) if doc_id.startswith(PREFIX) else None


def check_writer(doc_id: str, security: SecurityObject, principal: Principal) -> None:
    """Users may write their own document; whoever isn't logged in may sign up (`validate` then grants no
    roles).

    :raises NotFound: another's document (CouchDB hides that it exists).
    """
    if principal.name is None or is_admin(security, principal) or principal.name == name_of(doc_id):
        return
    raise NotFound()


def hash_password(fields: Fields, config: Config) -> Fields:
    """The document's members with a clear `password` replaced by its hash. Slow if there is one.

    `preserve_salt` keeps the given salt, so that two servers that improve one hash make the same revision.

    :raises Forbidden: the password is no text, or the configuration asks for a hash that doesn't exist.
    :raises BadRequest: the configuration asks for another kind of password.
    """
    password = fields.get("password")
    if password is None:
        return fields
    if not isinstance(password, str):
        raise Forbidden(f"Password value of '{password}' is invalid.")
    passwords.check_strength(password, config)
    salt = fields.get("salt") if fields.get("preserve_salt") is True else None
    hashed = passwords.derive(password, config, salt=salt if isinstance(salt, str) else None)
    rest = {name: value for name, value in fields.items() if name not in passwords.PASSWORD_FIELDS}
    return {**passwords.to_fields(hashed), **rest}


def validate(
    doc_id: str,
    new: Fields,
    deleted: bool,
    old: Fields | None,
    security: SecurityObject,
    principal: Principal,
) -> None:
    """:raises Forbidden: `new` may not follow `old` (None: there was no such document, or it was deleted)."""
    if doc_id.startswith(("_design/", "_local/")):
        return
    if deleted:
        if principal.is_admin or (old is not None and principal.name == old.get("name")):
            return
        raise Forbidden("Only admins may delete other user docs.")
    name, roles = _name_and_roles(doc_id, new)
    _check_password_fields(new)
    if old is not None and old.get("name") != name:
        raise Forbidden("Usernames can not be changed.")
    if not is_admin(security, principal):
        _check_roles_unchanged(name, roles, old, principal)
    if any(role.startswith("_") and role != "_metrics" for role in roles):
        raise Forbidden("No system roles (starting with underscore) in users db.")
    if name.startswith("_"):
        raise Forbidden("Username may not start with underscore.")
    if ":" in name:
        raise Forbidden("Character `:` is not allowed in usernames.")


def _name_and_roles(doc_id: str, new: Fields) -> tuple[str, list[str]]:
    name, roles = new.get("name"), new.get("roles")
    if new.get("type") != "user":
        raise Forbidden("doc.type must be user")
    if not name:
        raise Forbidden("doc.name is required")
    if roles is None or roles is False or roles == 0 or roles == "":
        raise Forbidden("doc.roles must exist")
    if not isinstance(roles, list):
        raise Forbidden("doc.roles must be an array")
    if not all(isinstance(role, str) for role in roles):
        raise Forbidden("doc.roles can only contain strings")
    if not isinstance(name, str) or doc_id != PREFIX + name:
        raise Forbidden("Doc ID must be of the form org.couchdb.user:name")
    return name, roles


def _check_password_fields(new: Fields) -> None:
    if new.get("password_sha") and not new.get("salt"):
        raise Forbidden(
            "Users with password_sha must have a salt.See /_utils/script/couch.js for example code."
        )
    scheme = new.get("password_scheme")
    if scheme and scheme not in SCHEMES:
        raise Forbidden(f"Password scheme `{scheme}` not supported.")
    if scheme == "pbkdf2":
        iterations = new.get("iterations")
        if not isinstance(iterations, int | float) or isinstance(iterations, bool):
            raise Forbidden("iterations must be a number.")
        if not isinstance(new.get("derived_key"), str):
            raise Forbidden("derived_key must be a string.")


def _check_roles_unchanged(name: str, roles: list[str], old: Fields | None, principal: Principal) -> None:
    if old is None:
        if roles:
            raise Forbidden("Only _admin may set roles")
        return
    if principal.name != name:
        raise Forbidden("You may only update your own user document.")
    if sorted(old.get("roles") or ()) != sorted(roles):
        raise Forbidden("Only _admin may edit roles")


def visible_fields(
    doc_id: str, fields: Fields, security: SecurityObject, principal: Principal, config: Config
) -> Fields:
    """What `principal` may read of a document: all of the own one, chttpd_auth/public_fields of the others'.

    :raises NotFound: nothing of it. :raises Forbidden: it is a design document.
    """
    if is_admin(security, principal):
        return fields
    if doc_id.startswith("_design/"):
        raise Forbidden("Only administrators can view design docs in the users database.")
    if principal.name is not None and principal.name == name_of(doc_id):
        return fields
    public = config.words("chttpd_auth", "public_fields")
    shown = {name: value for name, value in fields.items() if name in public}
    if not shown:
        raise NotFound()
    return shown


def design_document() -> dict[str, Any]:
    """`_design/_auth`: the rules of `validate` for clients and peers that run them themselves."""
    return {"_id": DESIGN_ID, "language": "javascript", "validate_doc_update": VALIDATION_FUNCTION}


VALIDATION_FUNCTION = """\
function (newDoc, oldDoc, userCtx, secObj) {
  function deny(reason) { throw({forbidden: reason}); }
  function has(list, item) { return Array.isArray(list) && list.indexOf(item) !== -1; }
  var admins = (secObj && secObj.admins) || {};
  var isServerAdmin = has(userCtx.roles, '_admin');
  var isAdmin = isServerAdmin || has(admins.names, userCtx.name) ||
    userCtx.roles.some(function (role) { return has(admins.roles, role); });

  if (newDoc._deleted === true) {
    if (isServerAdmin || (oldDoc && userCtx.name === oldDoc.name)) { return; }
    deny('Only admins may delete other user docs.');
  }

  var name = newDoc.name, roles = newDoc.roles, scheme = newDoc.password_scheme;
  if (newDoc.type !== 'user') { deny('doc.type must be user'); }
  if (!name) { deny('doc.name is required'); }
  if (!roles) { deny('doc.roles must exist'); }
  if (!Array.isArray(roles)) { deny('doc.roles must be an array'); }
  if (!roles.every(function (role) { return typeof role === 'string'; })) {
    deny('doc.roles can only contain strings');
  }
  if (newDoc._id !== 'org.couchdb.user:' + name) { deny('Doc ID must be of the form org.couchdb.user:name'); }
  if (newDoc.password_sha && !newDoc.salt) {
    deny('Users with password_sha must have a salt.See /_utils/script/couch.js for example code.');
  }
  if (scheme && !has(['simple', 'pbkdf2', 'simple+pbkdf2'], scheme)) {
    deny('Password scheme `' + scheme + '` not supported.');
  }
  if (scheme === 'pbkdf2') {
    if (typeof newDoc.iterations !== 'number') { deny('iterations must be a number.'); }
    if (typeof newDoc.derived_key !== 'string') { deny('derived_key must be a string.'); }
  }
  if (oldDoc && oldDoc.name !== name) { deny('Usernames can not be changed.'); }

  if (!isAdmin) {
    if (!oldDoc) {
      if (roles.length > 0) { deny('Only _admin may set roles'); }
    } else {
      if (userCtx.name !== name) { deny('You may only update your own user document.'); }
      var before = JSON.stringify((oldDoc.roles || []).slice().sort());
      if (before !== JSON.stringify(roles.slice().sort())) { deny('Only _admin may edit roles'); }
    }
  }

  if (roles.some(function (role) { return role[0] === '_' && role !== '_metrics'; })) {
    deny('No system roles (starting with underscore) in users db.');
  }
  if (name[0] === '_') { deny('Username may not start with underscore.'); }
  if (name.indexOf(':') !== -1) { deny('Character `:` is not allowed in usernames.'); }
}"""
