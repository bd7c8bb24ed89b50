"""What the configuration says about requests and responses of every kind, read once after each change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from couchlite.config import Config
from couchlite.errors import BadRequest

if TYPE_CHECKING:
    from .request import Request

SERVER = "CouchDB/3.5.0 (couchlite; Python)"
SERVER_WITHOUT_VERSIONS = "CouchDB"

_PORT = re.compile(":[0-9]+$")
_CALLBACK = re.compile(r"[A-Za-z0-9._\[\]]*")


@dataclass(frozen=True, slots=True)
class Settings:
    server: str
    """The header Server."""
    plus_is_space: bool
    """In the path; in a query it always is."""
    valid_hosts: frozenset[str] | None
    """What the header Host may be; None: anything."""
    allows_jsonp: bool
    frames: Frames | None
    """None: no header X-Frame-Options."""

    @staticmethod
    def read(config: Config) -> Settings:
        validates = config.boolean("chttpd", "validate_host")
        has_frames = config.boolean("chttpd", "enable_xframe_options")
        return Settings(
            SERVER if config.boolean("chttpd", "server_header_versions") else SERVER_WITHOUT_VERSIONS,
            config.boolean("chttpd", "decode_plus_to_space"),
            frozenset(config.words("chttpd", "valid_hosts")) if validates else None,
            config.boolean("chttpd", "allow_jsonp"),
            Frames.read(config) if has_frames else None,
        )

    def check_host(self, request: Request) -> None:
        """:raises BadRequest: the header Host is none of [chttpd] valid_hosts, where that is asked for."""
        if self.valid_hosts is not None:
            host = request.headers.get("Host")
            if host is None or _PORT.sub("", host) not in self.valid_hosts:
                raise BadRequest("Invalid host header")

    def callback(self, request: Request) -> str | None:
        """The JavaScript function that wants the answer as its argument (JSONP), where that is allowed.

        :raises BadRequest: it is no name of one.
        """
        name = request.query_value("callback") if self.allows_jsonp else None
        if name and not _CALLBACK.fullmatch(name):
            raise BadRequest("invalid_callback")
        return name or None


@dataclass(frozen=True, slots=True)
class Frames:
    """Which pages may show a response in a frame."""

    same_origin: bool
    hosts: tuple[str, ...]

    @staticmethod
    def read(config: Config) -> Frames:
        hosts = tuple(config.words("x_frame_options", "hosts"))
        return Frames(config.boolean("x_frame_options", "same_origin"), hosts)

    def header(self, request: Request) -> str:
        """The value of X-Frame-Options."""
        if self.same_origin:
            return "SAMEORIGIN"
        host = request.absolute_uri("")
        return f"ALLOW-FROM {host}" if self.hosts == ("*",) or host in self.hosts else "DENY"
