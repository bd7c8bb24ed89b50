"""The response objects that functions of design documents give, as responses. Source: chttpd_external."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from couchlite.errors import InternalError
from couchlite.jsontext import dumps

from . import response
from .request import Request

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset(("connection", "content-length", "date", "keep-alive", "transfer-encoding", "upgrade"))
"""Headers that are the server's alone."""
_SPELT: dict[str, str] = {
    name.lower(): name for name in ("Cache-Control", "Content-Type", "ETag", "Server", "Vary")
}
"""Headers that would otherwise be there twice."""
STATUS_MIN, STATUS_MAX = 200, 999


class InvalidResponse(InternalError):
    """A function gave what is no response."""

    error = "external_response_error"

    def __init__(self, name: str, value: Any) -> None:
        super().__init__(f"Invalid data from external server: {name}={dumps(value).decode()}")


@dataclass(slots=True)
class FunctionResponse:
    """What a response object says."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    is_json: bool = False
    """The body is JSON, and more headers go with it."""


def parse(answer: Mapping[str, Any], status: int = 200) -> FunctionResponse:
    """:param status: where the object names none. :raises InvalidResponse:"""
    found = FunctionResponse(status)
    content_type = "application/json"
    for name, value in answer.items():
        match name:
            case "code":
                found.status = _status(value)
            case "json":
                found.body, found.is_json = dumps(value), True
                content_type = "application/json"
            case "body":
                if not isinstance(value, str):
                    raise InvalidResponse(name, value)
                content_type = "text/html; charset=utf-8"
                if not found.is_json:
                    found.body = value.encode()
            case "base64":
                content_type = "application/binary"
                if not found.is_json:
                    found.body = _decoded(value)
            case "headers":
                found.headers = headers_of(value)
            case "stop":
                pass
            case _:
                raise InvalidResponse(name, value)
    found.headers.setdefault("Content-Type", content_type)
    return found


def respond(
    request: Request,
    answer: Mapping[str, Any],
    *,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
) -> response.Whole:
    """The response to a request; `headers` win over those of the object. :raises InvalidResponse:"""
    found = parse(answer, status)
    found.headers |= headers or {}
    if found.is_json:
        return response.json(request, found.status, found.body, found.headers)
    return response.raw(request, found.status, found.body, found.headers | confinement(request))


def confinement(request: Request) -> dict[str, str]:
    """What keeps a page that a function made from acting for who looks at it ([csp] showlist_enable)."""
    config = request.server.config
    if config.get("csp", "showlist_enable", "true") == "false":
        return {}
    return {"Content-Security-Policy": str(config.get("csp", "showlist_header_value", "sandbox"))}


def _status(value: Any) -> int:
    status = int(value) if isinstance(value, str) and value.isdecimal() and len(value) == 3 else value
    if type(status) is not int or not STATUS_MIN <= status <= STATUS_MAX:
        raise InvalidResponse("code", value)
    return status


def _decoded(value: Any) -> bytes:
    try:
        return base64.b64decode("".join(value.split()), validate=True)
    except (AttributeError, ValueError, binascii.Error):
        raise InvalidResponse("base64", value) from None


def headers_of(value: Any) -> dict[str, str]:
    """The headers that a function names, without those that it can't decide. :raises InvalidResponse:"""
    if not isinstance(value, dict):
        raise InvalidResponse("headers", value)
    found = {}
    for name, given in value.items():
        text = given if isinstance(given, str) else dumps(given).decode()
        if isinstance(given, dict | list) or not _TOKEN.fullmatch(name) or re.search(r"[\r\n\0]", text):
            raise InvalidResponse("headers", {name: given})
        if name.lower() not in _FRAMING:
            found[_SPELT.get(name.lower()) or name] = text
    return found
