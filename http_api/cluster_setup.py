"""/_cluster_setup: the set-up calls of installers and of Fauxton, for a server that always is a single
node."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from couchlite import provision
from couchlite.errors import BadRequest
from couchlite.provision import Credentials

from . import response

if TYPE_CHECKING:
    from .request import Request


async def state(request: Request) -> web.StreamResponse:
    return response.json(request, 200, {"state": "single_node_enabled"})


async def act(request: Request) -> web.StreamResponse:
    """`enable_single_node` sets an administrator, address and port (these two from the next start on);
    `finish_cluster` finds that all is finished."""
    request.require_json_type()
    body = await request.json()
    if not isinstance(body, dict):
        raise BadRequest("Missing JSON body'")
    match body.get("action"):
        case "enable_single_node":
            await asyncio.to_thread(_enable_single_node, request, body)
        case "finish_cluster":
            raise BadRequest("Cluster is already finished")
        case "enable_cluster" | "add_node" | "remove_node" | "receive_cookie":
            raise BadRequest("couchlite runs on a single node")
        case _:
            raise BadRequest("Invalid Action'")
    return response.json(request, 201, {"ok": True})


def _enable_single_node(request: Request, body: dict[str, Any]) -> None:
    config = request.server.config
    name, password = body.get("username"), body.get("password")
    bind_address, port = body.get("bind_address"), body.get("port")
    if isinstance(name, str) and isinstance(password, str):
        provision.set_administrator(request.server, Credentials(name, password))
    if isinstance(bind_address, str):
        config.set("chttpd", "bind_address", bind_address)
    if isinstance(port, int | str) and not isinstance(port, bool):
        config.set("chttpd", "port", str(port))
