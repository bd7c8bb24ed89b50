"""/{db}/_design/{name}/_rewrite/...: requests that a design document sends elsewhere, by rules or by a
function. What they become goes through everything once more, rights included.

Source: chttpd_rewrite and couch_query_servers:rewrite.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from urllib.parse import quote

from aiohttp import web

from couchlite.errors import BadRequest, InternalError, NotFound
from couchlite.index import designs
from couchlite.javascript import Design
from couchlite.jsontext import dumps

from . import function_response, response
from .request import Request
from .request_object import request_object
from .values import encode, json_value, shown

JSON_PARAMETERS = frozenset(("key", "startkey", "start_key", "endkey", "end_key", "keys"))
UNSEEN = ("info", "form", "uuid", "id")
"""Of the request object; a function that rewrites must be quick."""
PARENTS_MAX = 2
"""So many ".." lead from a design document to its database, and no further ([chttpd] secure_rewrites)."""

Bindings = list[tuple[str, Any]]
"""What the variables of a rule stand for, and the parameters of the query; of a name the first one counts."""


class InvalidRewrite(InternalError):
    error = "rewrite_error"


async def rewrite(request: Request) -> web.StreamResponse:
    """Any method."""
    config = request.server.config
    if request.rewrites >= config.integer("chttpd", "rewrite_limit"):
        raise BadRequest("Exceeded rewrite recursion limit")
    design = designs.find(request.database(), f"_design/{request.segments[2]}").views.functions
    rules = design.get("rewrites")
    if isinstance(rules, list):
        is_secure = config.boolean("chttpd", "secure_rewrites")
        return await request.app.answer(request.rewritten(_target_by_rules(request, rules, is_secure)))
    if isinstance(rules, str):
        return await _by_function(request, design)
    raise NotFound("Invalid path.", error="rewrite_error")


# --- by rules


class _Rule(NamedTuple):
    method: str
    source: Sequence[str]
    target: Sequence[str]
    query: Mapping[str, Any]
    formats: Mapping[str, Any]


def _target_by_rules(request: Request, rules: Iterable[Any], is_secure: bool) -> str:
    """Where the first rule that fits sends the request. :raises NotFound: none does."""
    path = [shown(segment) for segment in request.segments[4:]]
    query = [
        (shown(name), json_value(value) if name in JSON_PARAMETERS else shown(value))
        for name, value in request.query
    ]
    for rule in [_rule(members, is_secure) for members in rules if isinstance(members, dict)]:
        if rule.method in ("*", request.method):
            bound = _bind(rule.source, path)
            if bound is not None:
                return _target(request, rule, bound[0] + query, bound[1])
    raise NotFound()


def _rule(members: Mapping[str, Any], is_secure: bool) -> _Rule:
    target = members.get("to")
    source = members.get("from", "*")
    if not isinstance(target, str) or not isinstance(source, str):
        raise InternalError("invalid_rewrite_target", error="error")
    query, formats = members.get("query"), members.get("formats")
    return _Rule(
        str(members.get("method", "*")),
        _parts(source, is_secure),
        _parts(target, is_secure),
        query if isinstance(query, dict) else {},
        formats if isinstance(formats, dict) else {},
    )


def _parts(path: str, is_secure: bool) -> list[str]:
    parts = [part for part in path.split("/") if part]
    if is_secure and parts.count("..") > PARENTS_MAX:
        raise InternalError("too many ../.. segments", error="insecure_rewrite_rule")
    return parts


def _is_variable(part: str) -> bool:
    return part == "*" or part.startswith(":")


def _bind(source: Sequence[str], path: Sequence[str]) -> tuple[Bindings, list[str]] | None:
    """What the variables of a rule's path stand for, the last one first, and what is left for its "*"; None
    if the path doesn't fit."""
    bindings: Bindings = []
    for at, part in enumerate(source):
        if part == "*" and at == len(source) - 1:
            return bindings, list(path[at:])
        if at >= len(path):
            return None
        if _is_variable(part):
            bindings.insert(0, (part.removeprefix(":"), path[at]))
        elif part != path[at]:
            return None
    return (bindings, []) if len(source) == len(path) else None


def _target(request: Request, rule: _Rule, bindings: Bindings, rest: Sequence[str]) -> str:
    query = [(name, _filled(value, bindings, rule.formats)) for name, value in rule.query.items()][::-1]
    given = {name for name, _value in query}
    bindings = [(name, value) for name, value in bindings if name not in given] + query
    parts: list[str] = []
    for part in rule.target:
        if part == "*":
            parts += rest
            break
        parts.append(_text(_value_of(part[1:], bindings, "undefined")) if part.startswith(":") else part)
    path = "/".join([quote(part, safe="") for part in parts])
    parameters = [
        f"{quote(name, safe='')}={quote(_parameter(name, value), safe='')}"
        for name, value in reversed(bindings)
        if name != "*"
    ]
    return _absolute(request, path) + ("?" + "&".join(parameters) if parameters else "")


def _value_of(name: str, bindings: Bindings, default: Any) -> Any:
    return next((value for known, value in bindings if known == name), default)


def _filled(value: Any, bindings: Bindings, formats: Mapping[str, Any]) -> Any:
    """A value of a rule's query, with what its variables stand for."""
    if isinstance(value, list):
        return [
            _filled(one, bindings, formats) if isinstance(one, str) and one != "*" else one for one in value
        ]
    if not isinstance(value, str) or not _is_variable(value):
        return value
    name = value.removeprefix(":")
    return _formatted(_value_of(name, bindings, value), formats.get(name))


def _formatted(value: Any, kind: Any) -> Any:
    if not isinstance(value, str):
        return value
    if kind == "int":
        try:
            return int(value)
        except ValueError:
            return value
    if kind == "bool":
        return {"true": True, "false": False}.get(value.lower(), value)
    return value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else dumps(value).decode()


def _parameter(name: str, value: Any) -> str:
    return dumps(value).decode() if name in JSON_PARAMETERS else _text(value)


# --- by a function


async def _by_function(request: Request, design: Design) -> web.StreamResponse:
    body = (await request.body()).decode("utf-8", "replace") if request.has_body else "undefined"
    seen = request_object(request, request.database(), body)
    for name in UNSEEN:
        del seen[name]
    found = await request.app.functions.rewrite(design, seen)
    if found is None:
        raise NotFound("Invalid path.", error="rewrite_error")
    _check(found)
    headers = found.get("headers", {})
    if "code" in found:
        body_text = found.get("body", "")
        return response.raw(request, found["code"], body_text.encode(), function_response.headers_of(headers))
    if "path" not in found:
        raise InvalidRewrite("Rewrite result must produce a new path.")
    path, mark, query = found["path"].partition("?")
    target = (
        _absolute(request, quote(path, safe="/%:@!$&'()*+,;=~"))
        + mark
        + quote(query, safe="%&=+;,:/?@!$'()*~")
    )
    parameters = found["query"].items() if "query" in found else request.query
    if parameters:
        pairs = [f"{encode(name)}={encode(shown(value))}" for name, value in parameters]
        target += ("&" if mark else "?") + "&".join(pairs)
    given = found.get("body")
    return await request.app.answer(
        request.rewritten(
            target,
            method=found.get("method"),
            headers=function_response.headers_of(headers),
            body=None if given is None else given.encode(),
        )
    )


_TYPES = {"method": str, "path": str, "body": str, "headers": dict, "query": dict, "code": int}


def _check(found: Any) -> None:
    """:raises InvalidRewrite: it is not what a function may answer with."""
    if not isinstance(found, dict):
        raise InvalidRewrite("bad rewrite")
    for name, kind in _TYPES.items():
        if name in found and type(found[name]) is not kind:
            raise InvalidRewrite(f"bad {name}")
    if not 200 <= found.get("code", 200) < 600:
        raise InvalidRewrite("bad code")
    for name in ("headers", "query"):
        for key, value in found.get(name, {}).items():
            if not isinstance(value, str):
                shown_pair = f"{dumps(key).decode()}={dumps(value).decode()}"
                raise InvalidRewrite(f"object key/value must be strings {shown_pair}")


# --- both


def _absolute(request: Request, path: str) -> str:
    """A path relative to the design document, without "." and ".."."""
    parts: list[str] = [encode(request.segments[0]), "_design", encode(request.segments[2])]
    for part in path.split("/"):
        if part == ".." and parts and parts[-1] != "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)
