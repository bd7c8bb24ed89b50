"""/_utils/: the files of Fauxton, CouchDB's web console, where the server was started with its folder.

The folder is no setting that can be changed over HTTP: whoever may change settings would read any file.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from aiohttp import web

from . import response
from .request import Request

NONE = b"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<title>couchlite</title>
<style>body { font: 1rem/1.5 sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem }</style>
<h1>No web console</h1>
<p>This server was started without one; its databases are all there. CouchDB's console, Fauxton, works with
it: get its files, and start the server with their folder:
<pre>npm pack fauxton
tar -xzf fauxton-*.tgz
couchlite serve --fauxton-dir package/dist/release</pre>
"""


async def get(request: Request) -> web.StreamResponse:
    directory = request.app.fauxton_dir
    if directory is None:
        headers = {
            "Content-Type": "text/html; charset=utf-8",
            "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
        }
        return response.raw(request, 404, NONE, headers)
    path = request.target.partition("?")[0]
    if len(request.segments) == 1 and not path.endswith("/"):
        return response.empty(request, 301, {"Location": request.absolute_uri("/_utils/")})
    headers = {"Cache-Control": "private, must-revalidate", **_policy(request)}
    names = request.segments[1:]
    file = await asyncio.to_thread(_find, directory, names, is_folder=path.endswith("/"))
    if file is None:
        return response.raw(request, 404, b"Not found.", {**headers, "Content-Type": "text/plain"})
    return web.FileResponse(file, headers=response.plain_headers(request, headers))


def _policy(request: Request) -> dict[str, str]:
    """What the console's pages may load ([csp] utils_enable)."""
    config = request.server.config
    if not config.boolean("csp", "utils_enable"):
        return {}
    return {"Content-Security-Policy": config.text("csp", "utils_header_value")}


def _find(directory: Path, names: list[str], *, is_folder: bool) -> Path | None:
    """The file of an address, if it is one below the directory; of a folder, its index.html."""
    if any("\0" in name for name in names):
        return None
    file = directory.joinpath(*(name.lstrip("/") for name in names), *(["index.html"] if is_folder else []))
    try:
        file = file.resolve(strict=True)
    except (OSError, ValueError):
        return None
    return file if file.is_relative_to(directory) and file.is_file() else None
