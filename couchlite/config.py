"""The configuration: sections of keys of text, as CouchDB's.

Layers, each over the one before: the defaults (config_defaults.py), what this run of the server was started
with (port, address, directories), an ini file, what was set while running. The last layer lives in a store
shared by all processes of the server, so that a change made through one is seen by all, and after a restart.

What must stay true here:
- Reading is cheap enough for every request: the layers are merged only when the store's version has moved.
- A value is text. `integer`, `boolean`, `limit` and `words` read it as CouchDB does: a text that can't be
  read so counts as not set.
- Removing a key uncovers the layer below; a default can be covered, never removed.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from .config_defaults import BUILT_IN, REPORTED, Sections
from .errors import BadRequest, DataDirectoryError

logger = logging.getLogger(__name__)

UNREADABLE_FILE = "the configuration file {path} can't be read: {why}"


FORMER_NAMES = {"chttpd": "httpd", "chttpd_auth": "couch_httpd_auth"}
"""Sections whose keys count also where they stood before CouchDB 3, and where many tools still put them."""
NEW_KEYS = frozenset(
    (
        "admin_only_all_dbs",
        "authentication_handlers",
        "bind_address",
        "buffer_response",
        "decode_plus_to_space",
        "port",
        "require_valid_user",
        "require_valid_user_except_for_up",
    )
)
"""The keys of those sections that count only where they stand now."""


class SettingsStore(Protocol):
    """A small persistent map of text, shared by all processes of one server."""

    def set(self, key: str, value: str) -> None: ...

    def delete(self, key: str) -> bool: ...

    def items(self, prefix: str = "") -> Iterable[tuple[str, str]]: ...

    def version(self) -> int:
        """A number that is another one after every change, made by whichever process. Cheap."""
        ...


class Config:
    """The merged configuration of one server, as seen by this process.

    :param store: what was set while running.
    :param started_with: values of this run, below the file.
    :param file: an ini file in the form of CouchDB's local.ini.
    :raises DataDirectoryError: the file can't be read.
    """

    def __init__(
        self, store: SettingsStore, *, started_with: Sections | None = None, file: Path | None = None
    ) -> None:
        self._store = store
        self._started_with = started_with or {}
        self._file = file
        self._from_file: Sections = read_ini(file) if file else {}
        self._reloaded = dict(store.items(_RELOADED)).get(_RELOADED)
        self._merged: dict[str, dict[str, str]] = {}
        self._merged_at: int | None = None

    # Reading

    def get(self, section: str, key: str, default: str | None = None) -> str | None:
        """The value in force: what is set, else the built-in default, else `default`."""
        return next(self._values(section, key), default)

    def text(self, section: str, key: str) -> str:
        """As `get`, for keys that have a default; an unknown key is empty text."""
        return next(self._values(section, key), "")

    def boolean(self, section: str, key: str) -> bool:
        for value in self._values(section, key):
            if value in ("true", "false"):
                return value == "true"
        return False

    def integer(self, section: str, key: str) -> int:
        for value in self._values(section, key):
            if (number := _integer(value)) is not None:
                return number
        raise KeyError(f"{section}/{key} has no default")

    def limit(self, section: str, key: str) -> int | None:
        """As `integer`; None where the value is "infinity"."""
        return None if self.get(section, key) == "infinity" else self.integer(section, key)

    def words(self, section: str, key: str) -> list[str]:
        """A comma-separated list; blanks around the commas don't count."""
        return [word for part in self.text(section, key).split(",") if (word := part.strip())]

    def reported(self, section: str, key: str) -> str | None:
        """The value as the configuration lists it: None where only a built-in default is in force."""
        return self.as_dict().get(section, {}).get(key)

    def section(self, name: str) -> Mapping[str, str]:
        return self.as_dict().get(name, {})

    def as_dict(self) -> Sections:
        """All sections. The same object until something changes, so callers can cache on its identity."""
        version = self._store.version()
        if version != self._merged_at:
            self._merged = self._merge()
            self._merged_at = version
        return self._merged

    # Changing

    def set(self, section: str, key: str, value: str, *, persist: bool = True) -> None:
        """Set for all processes; without `persist` only until the server stops.

        :raises BadRequest: a control character in any of the three, or a bracket in section or key.
        """
        _check(section, key, value)
        if persist:
            self._store.set(_key(_PERSISTENT, section, key), value)
            self._store.delete(_key(_VOLATILE, section, key))
        else:
            self._store.set(_key(_VOLATILE, section, key), value)

    def delete(self, section: str, key: str, *, persist: bool = True) -> None:
        """Uncover the layer below; what wasn't set is no error. Without `persist`, only what `set` without it
        set."""
        self._store.delete(_key(_VOLATILE, section, key))
        if persist:
            self._store.delete(_key(_PERSISTENT, section, key))

    def forget_volatile(self) -> None:
        """Drop what was set without `persist`; the server does this when it starts."""
        for stored, _ in list(self._store.items(_VOLATILE)):
            self._store.delete(stored)

    def reload(self) -> None:
        """Have every process read the file again.

        :raises DataDirectoryError: it can't be read, and what was read before stays.
        """
        if self._file:
            read_ini(self._file)
        self._store.set(_RELOADED, secrets.token_hex(8))

    def _values(self, section: str, key: str) -> Iterator[str]:
        """The values a key could have, the one in force first."""
        sections = self.as_dict()
        if key in (values := sections.get(section, {})):
            yield values[key]
        former = FORMER_NAMES.get(section)
        if former and key not in NEW_KEYS and key in (values := sections.get(former, {})):
            yield values[key]
        if key in (values := BUILT_IN.get(section, {})):
            yield values[key]

    def _merge(self) -> dict[str, dict[str, str]]:
        stored = dict(self._store.items(_PREFIX))
        if self._file and stored.get(_RELOADED) != self._reloaded:
            self._reloaded = stored.get(_RELOADED)
            try:
                self._from_file = read_ini(self._file)
            except DataDirectoryError as error:  # whoever asked for it could read it; it changed since
                logger.error("%s", error.reason)
        merged: dict[str, dict[str, str]] = {}
        layers = (self._started_with, self._from_file, _layer(stored, _PERSISTENT), _layer(stored, _VOLATILE))
        for layer in (REPORTED, *layers):
            for section, values in layer.items():
                merged.setdefault(section, {}).update(values)
        return merged


_PREFIX = "config\0"
_PERSISTENT = _PREFIX + "persistent\0"
_VOLATILE = _PREFIX + "volatile\0"
_RELOADED = _PREFIX + "reloaded"
NAME_LENGTH_MAX = 200
"""Bytes of a section's name and of a key's; together they are a key of the store, which has a limit of its
own."""


def _key(layer: str, section: str, key: str) -> str:
    return f"{layer}{section}\0{key}"


def _layer(stored: Mapping[str, str], layer: str) -> Sections:
    sections: dict[str, dict[str, str]] = {}
    for name, value in stored.items():
        if name.startswith(layer):
            section, _, key = name.removeprefix(layer).partition("\0")
            sections.setdefault(section, {})[key] = value
    return sections


def _integer(text: str) -> int | None:
    digits = text[1:] if text[:1] in ("-", "+") else text
    return int(text) if digits.isascii() and digits.isdigit() else None


def _check(section: str, key: str, value: str) -> None:
    if not _is_name(section):
        raise BadRequest("Invalid configuration section")
    if not _is_name(key):
        raise BadRequest("Invalid configuration key")
    if not _printable(value):
        raise BadRequest("Invalid configuration value")


def _printable(text: str) -> bool:
    return text.replace("\t", " ").isprintable()


def _is_name(text: str) -> bool:
    bracketed = "[" in text or "]" in text
    return _printable(text) and not bracketed and len(text.encode()) <= NAME_LENGTH_MAX


def read_ini(path: Path) -> Sections:
    """The sections of an ini file, by CouchDB's rules.

    A comment starts with `;` at the start of a line or after a blank. Where a line has ` = ` it is split
    there, so that a key may contain `=`. Lines that make no sense are skipped, as are keys without a value.

    :raises DataDirectoryError: the file can't be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise DataDirectoryError(UNREADABLE_FILE.format(path=path, why=why)) from error
    sections: dict[str, dict[str, str]] = {}
    section = ""
    for line in map(_uncommented, text.splitlines()):
        if line.startswith("["):
            name, closed, rest = line[1:].partition("]")
            if name and closed and not rest:
                section = name
        elif section and (pair := _key_value(line)):
            sections.setdefault(section, {})[pair[0]] = pair[1]
    return sections


def _uncommented(line: str) -> str:
    line = line.strip()
    if line.startswith(";"):
        return ""
    return line.split(" ;")[0].split("\t;")[0].strip()


def _key_value(line: str) -> tuple[str, str] | None:
    separator = " = " if " = " in line else "="
    key, _, value = line.partition(separator)
    key, value = key.strip(), value.strip()
    return (key, value) if key and value else None
